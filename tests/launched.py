"""`rklu` with the profiles of a JSON file, as one of several processes that a test launches: launched.py FILE ARGS."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import state

from rklu_lib import profiles, training

torch.set_num_threads(1)
values = json.loads(Path(sys.argv.pop(1)).read_text())
profiles._values = lambda: values
if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    # accelerate shards over cards only, though PyTorch does it on a CPU as well: call the processes' CPUs cards
    torch.distributed.init_process_group("gloo")
    state.PartialState._prepare_backend = lambda *_: ("gloo", state.DistributedType.MULTI_GPU)
    state.PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
if dying := os.environ.get("RKLU_DIES"):  # "rank epoch": killed in that epoch, as a machine that fails would be
    rank, at = map(int, dying.split())
    unlearn = training.unlearn

    def killed(*args, on_epoch, **kwargs):
        def note(model, history):
            if (len(history) - 1, os.environ["RANK"]) == (at, str(rank)):
                os.kill(os.getpid(), 9)
            return on_epoch(model, history)

        return unlearn(*args, on_epoch=note, **kwargs)

    training.unlearn = killed
if __name__ == "__main__":
    from rklu_lib.cli import app

    app(prog_name="rklu")
