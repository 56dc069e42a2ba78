"""What several tests run jobs, interrupt training and compare models with."""

from concurrent import futures

import pytest
import torch

from rklu_lib import data, runs


class Here(futures.Executor):
    """Runs each job when it is submitted, in this process, and notes it."""

    def __init__(self):
        self.jobs = []

    def submit(self, function, spec, stage, threads):
        assert function is runs.execute
        self.jobs.append((spec.method, stage))
        future = futures.Future()
        try:
            future.set_result(function(spec, stage, threads))
        except Exception as error:
            future.set_exception(error)
        return future


class Nowhere(futures.Executor):
    """Runs nothing."""

    def submit(self, function, spec, stage, threads):
        raise AssertionError(f"nothing was to be computed, but {spec.method} ({stage}) was")


class Interrupted(Exception):
    """What stops a run in a test, so that nothing else is taken for it."""


def interrupt(monkeypatch, spec, after=2):
    """Begin a run and interrupt it as its second epoch begins; returns the folder of its state."""
    order, asked = data.epoch_order, []

    def fails(*args):
        asked.append(args)
        if len(asked) == after:
            raise Interrupted
        return order(*args)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(data, "epoch_order", fails)
        runs.ensure([spec], executor=Here())
    return runs.state(spec)


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
