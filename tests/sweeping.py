"""What the tests of failures start and kill: a sweep, or an unlearning, in a process of its own with its workers.

The processes are forked, not started anew: they have imported all there is, so that a kill falls into the work and not
into imports. What a kill must not harm is the same: files, locks, states, records.
"""

import os
import random
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import psutil

from rklu_lib import records, runs
from rklu_lib.own import jobs, unlearning

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would not survive the fork
FORK = get_context("fork")


def sweep(folder, specs, workers=2):
    """What a killed process was doing: `runs.ensure` with workers of its own, in a store of its own."""
    runs.get_context = lambda _: FORK
    records.RECORDS, records.RUNS = Path(folder) / "records", Path(folder) / "runs"
    runs.ensure(specs, workers)


def unlearn(model, forget, out, profile):
    """The other: `rklu unlearn`, which goes on where there is something to go on from."""
    job = jobs.prepare(str(model), str(forget), out, profile=profile, probes=0)
    unlearning.run(job, resumable=True, resume=True)


def started(function, *arguments):
    """A process that does it, silently, as the head of a group of its own."""

    def quiet():
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a kernel, also where this process ignores it
        with open(os.devnull, "w") as nowhere:
            for descriptor in (1, 2):
                os.dup2(nowhere.fileno(), descriptor)
        function(*arguments)

    process = FORK.Process(target=quiet)
    process.start()
    return process


def workers(process):
    """Its children that still run."""
    try:
        found = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def killed(process, seconds, whom="parent"):
    """Kill it, or one of its workers, after so long. Returns whether it was still at work; no process outlives it."""
    process.join(seconds)
    alive, children = process.is_alive(), workers(process)
    target = process.pid if whom == "parent" or not children else random.choice(children).pid
    if alive:
        os.kill(target, signal.SIGKILL)
    process.join(60)
    ended = time.monotonic() + 20
    while any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children) and time.monotonic() < ended:
        time.sleep(0.05)
    left = [c.pid for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    assert not process.is_alive() and not left, f"outlived the kill: {left or process.pid}"
    return alive
