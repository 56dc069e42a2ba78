"""What several tests run jobs, interrupt training and compare models with."""

from concurrent import futures

import torch

from rklu_lib import runs


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


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
