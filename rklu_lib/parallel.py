"""Share one run among several processes, as `accelerate launch` or `torchrun` start them.

With one process, the usual case, each function here does its work directly. With several, all processes must make the
same calls in the same order. What decides about the calls is therefore the same in all: the first process's answer
(`agreed`), such as whether a file exists, or a sum over all (`total`). All machines must share the same disk.
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
    """Return accelerate's PartialState: this process's index, how many there are, and its device, which this sets."""
    return PartialState(cpu=not torch.cuda.is_available())


def processes():
    """Return how many processes share this run."""
    return state().num_processes


def main():
    """Return whether this is the first process, which alone writes files and prints."""
    return state().is_main_process


@functools.cache
def _objects():
    """Return a process group that sends messages through main memory, also if the default group uses the GPUs."""
    return distributed.new_group(backend="gloo")


def agreed(value):
    """Return the first process's `value` in every process. The others wait until the first has called this."""
    if processes() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_objects())
    return box[0]


def shared(function, items):
    """Return function(items), a list with one result per item. Each process computes a share and gets the whole."""
    if processes() == 1:
        return function(items)
    n, parts = processes(), [None] * processes()
    distributed.all_gather_object(parts, function(items[state().process_index :: n]), group=_objects())
    return [parts[i % n][i // n] for i in range(len(items))]


def total(value):
    """Return the sum of a scalar tensor over all processes, as a float."""
    if processes() > 1:
        value = value.detach().clone()
        distributed.all_reduce(value)
    return value.item()


def share(index):
    """Return (this process's part of a micro-batch, whether the part counts). A process without a part of its own
    computes the first example with weight zero, because all processes must take part in every pass."""
    part = index[state().process_index :: processes()]
    return (part, True) if part else (index[:1], False)


@contextlib.contextmanager
def locked(path):
    """Hold a file lock, taken by the first process for all. The others leave only when the first has finished."""
    # mode: users who share a store must all be able to take the lock, whatever their umask; the file is empty
    with FileLock(path, mode=0o666) if main() else contextlib.nullcontext():
        yield
        agreed(None)


@contextlib.contextmanager
def directory(path):
    """Yield one `files.atomic_directory` for all processes to write into."""
    with atomic_directory(path) if main() else contextlib.nullcontext() as tmp:
        yield agreed(tmp)
        agreed(None)
    agreed(None)


def fails_first():
    """Return whether this process is the first to fail. The others would print the same error, or none."""
    if processes() == 1:
        return True
    return distributed.distributed_c10d._get_default_store().add("rklu failed", 1) == 1


class Terms(nn.Module):
    """A student in the form that accelerate wraps: forward(term) returns the loss term(`ScoredLogits` of the student).

    Hidden states, output head and loss are computed in one forward pass. So the hooks of data parallelism see all of
    it, and a sharded head is whole when its weight is read."""

    def __init__(self, model):
        super().__init__()
        self.scored, self._no_split_modules = ScoredLogits(model), model._no_split_modules

    def forward(self, term):
        return term(self.scored)


def accelerator():
    """Return the Accelerator that the launch configures. In FSDP2 with bf16 it keeps losses and sums of gradients in
    float32; accelerate's own policy would round both. Raises ValueError for an FSDP file that is not supported."""
    plugin = None
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and processes() > 1:
        from accelerate.utils import FullyShardedDataParallelPlugin  # imported here: it takes a second
        from torch.distributed.fsdp import MixedPrecisionPolicy

        plugin = FullyShardedDataParallelPlugin()
        if plugin.fsdp_version != 2 or plugin.cpu_ram_efficient_loading:  # else only one process would load a teacher
            raise ValueError("accelerate's file needs fsdp_version: 2 and fsdp_cpu_ram_efficient_loading: false")
        if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
            plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    # schedules count the steps of the run, not those of each process; as views, gradients are held in memory only once
    views, cpu = DistributedDataParallelKwargs(gradient_as_bucket_view=True), not torch.cuda.is_available()
    return Accelerator(cpu=cpu, fsdp_plugin=plugin, kwargs_handlers=[views], step_scheduler_with_optimizer=False)


class Student:
    """A model in training: accelerate may wrap and shard `terms`; all other code uses `model`.

    If weights are sharded (FSDP2), these are two models: `model` is empty during training, and `whole` fills it.
    Otherwise `terms` and `model` share their parameters, and `whole` only returns `model`."""

    def __init__(self, model, accelerator):
        self.model, self.accelerator, self.dtype = model, accelerator, model.dtype
        self.sharded = accelerator.state.is_fsdp2
        if self.sharded:
            model.float()  # sharded weights are trained in float32, whatever the dtype of the forward pass
        inner = copy.deepcopy(model, {id(p): p for p in model.parameters()}) if self.sharded else model
        self.terms = Terms(inner)

    def prepared(self, terms):
        """Keep `terms` as accelerate prepared them. Raises RuntimeError if sharded weights are not in float32."""
        self.terms = terms
        if self.sharded:
            if found := {p.dtype for p in terms.parameters()} - {torch.float32}:
                raise RuntimeError(f"accelerate made the sharded weights {found}; updates would be lost")
            self.release()

    def release(self):
        for p in self.model.parameters() if self.sharded else ():
            p.data = p.data.new_empty(0)

    def whole(self, dtype=None):
        """Return `model` with its current weights. Sharded ones are gathered, in `dtype` or the forward pass's."""
        if self.sharded:
            policy = self.accelerator.state.fsdp_plugin.mixed_precision_policy
            dtype = dtype or (policy.param_dtype if policy else None) or torch.float32
            for p, q in zip(self.model.parameters(), self.terms.parameters(), strict=True):
                p.data = q.detach().full_tensor().to(dtype)
        return self.model

    def unsynchronised(self):
        """Return a context in which each process keeps its own gradients: for all backward passes of a step but the
        last. Sharded gradients are summed at once: whole ones would take the memory that sharding saves."""
        wrapped = processes() > 1 and not self.sharded
        return self.accelerator.no_sync(self.terms) if wrapped else contextlib.nullcontext()
