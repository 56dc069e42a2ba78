"""A sweep over a real dask scheduler and two worker processes, one of which is killed in the middle of a run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import flat, tiny_fields, until

from rklu_lib import data

pytest.importorskip("dask")
if not __import__("importlib").util.find_spec("distributed"):
    pytest.skip("no dask.distributed", allow_module_level=True)

# Read by each worker (--preload) and by the sweep: a profile in which a run takes seconds, and a note of what is done.
SHRUNK = """
import json, os, time
from rklu_lib import evaluation, execution, profiles, records
fields = json.loads({fields!r})
profiles._values = lambda: {{"tiny": fields}}
execute, evaluate = execution.execute, evaluation.evaluate

def note(*what):
    with open({log!r}, "a") as file:
        file.write(json.dumps([os.getpid(), *what]) + "\\n")

def noted(spec, stage="record", threads=None):
    # dask asks again for what a lost worker did when it had not told so yet: found done, it is not done again
    done = records.load(spec) if stage == "record" else execution.has_checkpoint(spec)
    note("again" if done else "begin", spec.method, stage)
    execute(spec, stage, threads)
    note("found" if done else "end", spec.method, stage)

def slowly(*args):
    time.sleep(0.5)
    note("epoch")
    return evaluate(*args)

def dask_setup(worker):
    execution.execute, evaluation.evaluate = noted, slowly
"""


@pytest.fixture
def start(tmp_path, tofu):
    """A function (arguments) -> a Python process that uses `tiny` and this folder; all are ended afterwards."""
    fields = tiny_fields(tofu, unlearn_epochs=12, finetune_epochs=1)
    log = tmp_path / "log"
    (tmp_path / "shrunk.py").write_text(SHRUNK.format(fields=json.dumps(fields), log=str(log)))
    environment = {"RKLU_RECORDS": str(tmp_path / "records"), "RKLU_RUNS": str(tmp_path / "runs")}
    environment |= {"PYTHONPATH": f"{data.ROOT}:{tmp_path}", "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__LOGGING": "{}"}
    started = []

    def run(*args, **changes):
        path = tmp_path / f"output{len(started)}"
        with path.open("w") as output:
            command = [sys.executable, *map(str, args)]
            process = subprocess.Popen(command, env=os.environ | environment | changes, stdout=output, stderr=output)
        process.said = path.read_text
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def scheduler(start, tmp_path):
    file = tmp_path / "scheduler.json"
    where = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
    process = start("-m", "distributed.cli.dask_scheduler", *where)
    assert until(file.exists), process.said()
    time.sleep(0.5)
    return json.loads(file.read_text())["address"]


def worker(start, tmp_path, address, threads=1, **changes):
    options = ("--nthreads", threads, "--no-nanny", "--memory-limit", "0", "--no-dashboard")
    return start("-m", "distributed.cli.dask_worker", address, *options, "--preload", tmp_path / "shrunk.py", **changes)


def sweep(start, address, *methods):
    code = "import shrunk; from rklu_lib.cli import app; app()"
    chosen = [part for name in methods for part in ("--method", name)]
    return start("-c", code, "sweep", "--profile", "tiny", "--split", "forget10", *chosen, "--cluster", address)


def test_a_killed_worker_loses_nothing_and_nothing_is_done_twice(start, tmp_path):
    address = scheduler(start, tmp_path)
    workers = [worker(start, tmp_path, address) for _ in range(2)]
    driver = sweep(start, address, "RKLU", "GA")

    def notes():
        log = tmp_path / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def midway():
        """The worker that is in the middle of RKLU: some epochs are done, and not all."""
        done = list((tmp_path / "runs").glob("tiny/forget10/RKLU/*-state-*/history.json"))
        begun = [pid for pid, *what in notes() if what == ["begin", "RKLU", "record"]]
        return begun if done and len(json.loads(done[0].read_text())) >= 3 else None

    found = until(lambda: midway() or driver.poll() is not None)
    assert isinstance(found, list) and driver.poll() is None, driver.said() + workers[0].said()
    os.kill(found[0], signal.SIGKILL)
    driver.wait(timeout=400)
    assert driver.returncode == 0, driver.said()

    jobs = [(pid, *what) for pid, *what in notes() if what[0] != "epoch"]
    ended = [job[2:] for job in jobs if job[1] == "end"]
    bases = {("original", "checkpoint"), ("oracle", "checkpoint"), ("augmented", "checkpoint")}
    records = {(name, "record") for name in ("original", "oracle", "augmented", "RKLU", "GA")}
    assert sorted(ended) == sorted(bases | records)  # each once
    begun = [job for job in jobs if job[1] == "begin"]
    assert len(begun) == len(ended) + 1 and len({pid for pid, *what in begun if what[1] == "RKLU"}) == 2
    assert {pid for pid, *_ in jobs} == {w.pid for w in workers}
    # the epochs before the kill were kept: besides 2 methods of 12 epochs and three bases, one evaluation at most
    assert sum(what == ["epoch"] for _, *what in notes()) in (27, 28)
    folder = tmp_path / "records" / "tiny" / "tofu" / "forget10"
    for name in ("RKLU", "GA"):
        epochs = json.loads((folder / name / "seed0.json").read_text())["epochs"]
        assert [e["epoch"] for e in epochs] == list(range(1, 13))
    assert not list((tmp_path / "runs").rglob("*-state-*"))


def test_workers_that_would_not_do_are_refused_in_one_line(start, tmp_path):
    address = scheduler(start, tmp_path)
    several = worker(start, tmp_path, address, threads=2)
    refused = sweep(start, address, "GA")
    refused.wait(timeout=300)
    assert refused.returncode == 2 and "--nthreads 1" in flat(refused.said()), refused.said()
    several.kill()
    several.wait()
    worker(start, tmp_path, address, RKLU_RUNS=str(tmp_path / "elsewhere"))
    refused = sweep(start, address, "GA")
    refused.wait(timeout=300)
    assert refused.returncode == 2 and "RKLU_RECORDS" in refused.said(), refused.said()
    assert not (tmp_path / "runs").exists()
