"""One run over several processes, as `accelerate launch` or `torchrun` start them: who does what, writes, and waits.

Alone, as a process usually is, each of these does what it says and nothing else. Together, all processes go through the
same calls in the same order: whatever decides which (a file that is there, a loss that is not finite) is the first's
word, see `agreed`. What lies on disk must be one for all machines.
"""

import contextlib
import copy
import functools
import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from filelock import FileLock
from torch import distributed, nn

from rklu_lib.files import atomic_directory
from rklu_lib.models import ScoredLogits


def state():
    """This process's place among those it was started with: accelerate's PartialState, which sets the device too."""
    return PartialState(cpu=not torch.cuda.is_available())


def processes():
    """How many processes share this run."""
    return state().num_processes


def main():
    """Is this the process that writes and speaks?"""
    return state().is_main_process


@functools.cache
def _objects():
    """A group whose messages go by main memory, also where a card's do not."""
    return distributed.new_group(backend="gloo")


def agreed(value):
    """The first process's `value`, in all of them; none goes on before it has come this far."""
    if processes() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_objects())
    return box[0]


def shared(function, items):
    """function(items), a list with one result each, of which every process computes its share and gets the whole."""
    if processes() == 1:
        return function(items)
    n, parts = processes(), [None] * processes()
    distributed.all_gather_object(parts, function(items[state().process_index :: n]), group=_objects())
    return [parts[i % n][i // n] for i in range(len(items))]


def total(value):
    """The sum of a scalar tensor over all processes, as a float."""
    if processes() > 1:
        value = value.detach().clone()
        distributed.all_reduce(value)
    return value.item()


def share(index):
    """(this process's part of a micro-batch, whether it counts): one that is left without lends its hand, since all
    must take part in every pass, but what it computes has no weight."""
    part = index[state().process_index :: processes()]
    return (part, True) if part else (index[:1], False)


@contextlib.contextmanager
def locked(path):
    """A file lock that the first process holds for all; they leave together, when what was written is there."""
    # a lock file holds nothing: users who share a store must all be able to take it, whatever their umask
    with FileLock(path, mode=0o666) if main() else contextlib.nullcontext():
        yield
        agreed(None)


@contextlib.contextmanager
def directory(path):
    """`files.atomic_directory` into which all processes write."""
    with atomic_directory(path) if main() else contextlib.nullcontext() as tmp:
        yield agreed(tmp)
        agreed(None)
    agreed(None)


def fails_first():
    """Is this the first process to give up? The others have the same to say, or nothing."""
    if processes() == 1:
        return True
    return distributed.distributed_c10d._get_default_store().add("rklu failed", 1) == 1


class Terms(nn.Module):
    """A student as accelerate wraps it: forward(term) -> term(`ScoredLogits`), a loss.

    Hidden states, head and reduction are computed in one forward, so that the hooks of data parallelism see all of it
    and a sharded head is whole when its weight is asked for.
    """

    def __init__(self, model):
        super().__init__()
        self.scored, self._no_split_modules = ScoredLogits(model), model._no_split_modules

    def forward(self, term):
        return term(self.scored)


def accelerator():
    """An Accelerator as the launch's configuration says; in FSDP2 with bf16, gradients are summed in float32 and a loss
    stays in float32, where accelerate's own policy would round both."""
    plugin = None
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and processes() > 1:
        from accelerate.utils import FullyShardedDataParallelPlugin  # here, since they take a second to import
        from torch.distributed.fsdp import MixedPrecisionPolicy

        plugin = FullyShardedDataParallelPlugin()
        if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading:  # else but one process would load a teacher
            raise ValueError("accelerate's file needs fsdp_version: 2 and fsdp_cpu_ram_efficient_loading: false")
        if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
            plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    # schedules count the steps of the whole, not those of each process; gradients are held once, not in buckets as well
    views, cpu = DistributedDataParallelKwargs(gradient_as_bucket_view=True), not torch.cuda.is_available()
    return Accelerator(cpu=cpu, fsdp_plugin=plugin, kwargs_handlers=[views], step_scheduler_with_optimizer=False)


class Student:
    """A model in training: `terms`, which accelerate may wrap and shard, and `model`, which all the rest sees.

    Where weights are sharded (FSDP2) these are two models: `model` is empty during training, and `whole` gathers it.
    Everywhere else they share their parameters, and `whole` has nothing to do.
    """

    def __init__(self, model, accelerator):
        self.model, self.accelerator, self.dtype = model, accelerator, model.dtype
        self.sharded = accelerator.state.is_fsdp2
        if self.sharded:
            model.float()  # the weights that are trained, whatever the forward pass is in
        inner = copy.deepcopy(model, {id(p): p for p in model.parameters()}) if self.sharded else model
        self.terms = Terms(inner)

    def prepared(self, terms):
        """Take what accelerate made of `terms`. Raises RuntimeError where its weights are no longer float32."""
        self.terms = terms
        if self.sharded:
            if found := {p.dtype for p in terms.parameters()} - {torch.float32}:
                raise RuntimeError(f"accelerate made the sharded weights {found}; updates would be lost")
            self.release()

    def release(self):
        for p in self.model.parameters() if self.sharded else ():
            p.data = p.data.new_empty(0)

    def whole(self, dtype=None):
        """`model` with its weights as they are now, in every process: in the forward pass's dtype, or in `dtype`."""
        if self.sharded:
            policy = self.accelerator.state.fsdp_plugin.mixed_precision_policy
            dtype = dtype or (policy.param_dtype if policy else None) or torch.float32
            for p, q in zip(self.model.parameters(), self.terms.parameters(), strict=True):
                p.data = q.detach().full_tensor().to(dtype)
        return self.model

    def unsynchronised(self):
        """A context in which gradients stay each process's own, for all backward passes of a step but its last. Sharded
        gradients are summed at once: whole, they would take the memory that sharding saves."""
        wrapped = processes() > 1 and not self.sharded
        return self.accelerator.no_sync(self.terms) if wrapped else contextlib.nullcontext()
