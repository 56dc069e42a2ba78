"""Whatever fails: what is there is whole, what is left is swept up, and the same command gives the same record.

`make slow` runs the long ones: thirty kills of a sweep, ten of `rklu unlearn`, each rank of two.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import sweeping
import torch
from helpers import LAUNCHED, Here, interrupt, rklu
from safetensors import safe_open

from rklu_lib import data, files, parallel, records, runs, training
from rklu_lib.own import jobs, unlearning
from rklu_lib.records import RunSpec

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
SPECS = [RunSpec("smoke", "forget01", name) for name in ("original", "oracle", "augmented", "RKLU", "GA", "NPO")]


def tiny(*names):
    return [RunSpec("tiny", "forget10", name) for name in names or ("oracle", "RKLU", "GA")]


def hidden(path, folder):
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def whole(folder):
    """Every file of a store that has its name is whole, and no lock is held."""
    for path in folder.rglob("*"):
        if hidden(path, folder) or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(len(arrays[name]) for name in arrays)
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as weights:
                assert all(weights.get_tensor(name).isfinite().all() for name in weights.keys())
        elif path.suffix == ".lock":
            with filelock.FileLock(path, timeout=0):
                pass


def held(folder):
    """What a store holds, but for clock and threads: {file: its content}, records, scores and weights."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name}, {k}": arrays[k].tobytes() for k in arrays}
        elif path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.suffix == ".json" and path.parts[-1] != "seconds.json":
            content = json.loads(path.read_text(encoding="utf-8"))
            found[name] = {k: v for k, v in content.items() if k not in ("seconds", "made", "threads")}
    return found


def leftovers(folder):
    return [p for p in folder.rglob("*") if p.name.startswith(".") or "-state-" in p.name or ".unfinished" in p.name]


def survive(kills, folder, specs, seed, whom=("parent", "worker"), part=6):
    """Kill sweeps of the same store at random moments, again and again, until each is done; compare each with the
    uninterrupted one. Returns (kills, sweeps that were finished)."""
    draw, finished, n = random.Random(seed), 0, 0
    begun = time.monotonic()
    process = sweeping.started(sweeping.sweep, folder / "whole", specs)
    process.join()
    assert process.exitcode == 0
    took, expected = time.monotonic() - begun, held(folder / "whole")
    assert len([name for name in expected if name.startswith("records") and name.endswith(".json")]) == len(specs)
    while n < kills or not finished:
        store = folder / f"store{finished}"
        process = sweeping.started(sweeping.sweep, store, specs)
        if n < kills:
            n += sweeping.killed(process, draw.uniform(0, took / part), draw.choice(whom))
            if store.exists():
                whole(store)
        else:
            process.join()
        if process.exitcode == 0:
            assert held(store) == expected and not leftovers(store)
            finished += 1
    return n, finished


def test_a_killed_sweep_gives_the_same_records(workshop, tmp_path):
    assert survive(3, tmp_path, tiny(), seed=0, part=3)[0] == 3


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_sweep_survives_thirty_kills(tmp_path, monkeypatch):
    kills, sweeps = survive(30, tmp_path, SPECS, seed=1)
    print(f"{kills} kills, {sweeps} sweeps finished and compared")
    assert kills == 30


@pytest.fixture
def mine(tmp_path, workshop, own_checkpoint, tofu):
    """(a model, a forget set) of one's own."""
    return own_checkpoint, shutil.copy(tofu / "forget10.json", tmp_path / "forget.jsonl")


def survive_unlearning(kills, folder, mine, seed):
    """The same of `rklu unlearn --resume`. Returns (kills, runs that were finished)."""
    draw, finished, n = random.Random(seed), 0, 0
    expected, took = None, None
    while n < kills or not finished or expected is None:
        place = folder / f"run{finished}" if expected else folder / "whole"
        place.mkdir(exist_ok=True)
        begun = time.monotonic()
        process = sweeping.started(sweeping.unlearn, *mine, place / "out", "tiny")
        if expected and n < kills:
            n += sweeping.killed(process, draw.uniform(0, took))
        else:
            process.join()
        if not (place / "out").exists():
            continue
        whole(place / "out")
        if expected is None:
            assert process.exitcode == 0
            expected, took = held(place / "out"), time.monotonic() - begun
            continue
        assert held(place / "out") == expected
        finished += 1
    return n, finished


def test_a_killed_unlearning_gives_the_same_weights(mine, tmp_path):
    assert survive_unlearning(2, tmp_path, mine, seed=0)[0] == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_unlearning_survives_ten_kills(mine, workshop, tmp_path):
    workshop(augment_epochs=6, unlearn_epochs=6)
    kills, made = survive_unlearning(10, tmp_path, mine, seed=1)
    print(f"{kills} kills, {made} runs finished and compared")
    assert kills == 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dies", ["0 0", "1 0", "0 1", "1 1"])
def test_a_launch_that_lost_a_rank_gives_the_record_of_one_that_did_not(launch, tmp_path, monkeypatch, dies):
    (spec,) = tiny("RKLU")

    def done(**environment):
        run = launch(LAUNCHED, "run", "RKLU", "-p", "tiny", **environment)
        return run.returncode, runs.load(spec)

    code, expected = done()
    assert code == 0
    shutil.rmtree(records.RECORDS)
    shutil.rmtree(records.RUNS)
    code, nothing = done(RKLU_DIES=dies)
    assert code != 0 and nothing is None
    whole(records.RUNS)
    code, found = done()
    assert code == 0 and found.epochs == expected.epochs and not leftovers(records.RUNS)
    for name, values in expected.questions.items():
        np.testing.assert_array_equal(found.questions[name], values)


def test_two_sweeps_on_one_store_share_its_work(workshop, tmp_path):
    both = [sweeping.started(sweeping.sweep, tmp_path / "shared", tiny()) for _ in range(2)]
    for process in both:
        process.join()
    sweeping.sweep(tmp_path / "alone", tiny())
    assert [process.exitcode for process in both] == [0, 0]
    assert held(tmp_path / "shared") == held(tmp_path / "alone") and not leftovers(tmp_path / "shared")


def test_an_interrupt_in_a_notebook_ends_the_workers(workshop, tmp_path):
    workshop(unlearn_epochs=200)
    process = sweeping.started(sweeping.sweep, tmp_path, tiny("RKLU", "GA"))
    ended = time.monotonic() + 120
    while not list((tmp_path / "runs").rglob("history.json")) and time.monotonic() < ended:
        time.sleep(0.1)
    children = sweeping.workers(process)
    assert children
    os.kill(process.pid, signal.SIGINT)  # a notebook's kernel alone is interrupted, not its workers
    process.join(240)  # a crowded machine takes its time
    assert process.exitcode not in (None, 0)
    assert not [c for c in children if c.is_running() and c.status() != "zombie"]
    whole(tmp_path)


def one_line(result):
    assert result.exit_code == 2, result.output + repr(result.exception)
    lines = [line for line in result.stderr.splitlines() if line.startswith("rklu: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture
def forked(monkeypatch):
    monkeypatch.setattr(runs, "get_context", lambda _: sweeping.FORK)


def test_a_worker_that_the_system_kills_is_one_line_with_the_run_and_the_fix(workshop, forked, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training, "unlearn", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        said = one_line(rklu("run", "GA", "--profile", "tiny"))
    assert said.startswith("rklu: tiny, forget10, GA, seed 0: a worker was killed, by a system short of memory")
    assert "the same command goes on" in said and "--workers" in said
    assert rklu("run", "GA", "--profile", "tiny").exit_code == 0


def test_a_loss_that_is_no_number_is_one_line_with_the_run_and_the_fix(workshop, forked, monkeypatch):
    with monkeypatch.context() as patch:
        total, unlearn = parallel.total, training.unlearn

        def diverges(*args, **kwargs):
            parallel.total = lambda value: total(value) * float("nan")
            return unlearn(*args, **kwargs)

        patch.setattr(training, "unlearn", diverges)
        said = one_line(rklu("run", "GA", "--profile", "tiny"))
    assert "tiny, forget10, GA, seed 0: loss nan in epoch 1; lower the learning rate 0.002" in said
    assert runs.load(*tiny("GA")) is None and not runs.has_checkpoint(*tiny("GA"))


def mounted(folder, *options):
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("mode=777", *options)), "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")


def remounted(folder, option):
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path, monkeypatch, workshop):
    """A function: records and runs on a disk of so many kilobytes, which it returns."""
    folder = tmp_path / "disk"

    def make(kilobytes):
        mounted(folder, f"size={kilobytes}k")
        monkeypatch.setattr(records, "RECORDS", folder / "records")
        monkeypatch.setattr(records, "RUNS", folder / "runs")
        return folder

    yield make
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("kilobytes", [64, 400, 900, *(pytest.param(n, marks=pytest.mark.slow) for n in (160, 700))])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(disk, tmp_path, forked, kilobytes):
    sweeping.sweep(tmp_path / "alone", tiny("GA"), 1)
    store = disk(kilobytes)
    said = one_line(rklu("run", "GA", "--profile", "tiny"))
    assert "tiny, forget10, " in said and "free some of the disk, or name another in RKLU_RUNS" in said, said
    whole(store)
    remounted(store, "size=64m")
    assert rklu("run", "GA", "--profile", "tiny").exit_code == 0
    assert held(store) == held(tmp_path / "alone") and not leftovers(store)


def test_records_that_may_only_be_read_are_read_and_refused_before_training(disk, forked, monkeypatch):
    store = disk(65536)
    assert rklu("run", "GA", "--profile", "tiny").exit_code == 0
    remounted(store, "ro")
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("training had begun"))
    assert rklu("report", "--profile", "tiny").exit_code == 0
    assert rklu("run", "GA", "--profile", "tiny").exit_code == 0  # nothing is to be computed
    said = one_line(rklu("run", "NPO", "--profile", "tiny"))
    assert "records cannot be written to (Read-only file system); name a folder that can in RKLU_RECORDS" in said


def test_a_full_disk_ends_an_unlearning_in_one_line_and_it_goes_on(disk, mine, tmp_path):
    model, forget = mine
    store = disk(500)
    given = ("unlearn", "--model", model, "--forget", forget, "--profile", "tiny", "--probes", "0", "--out")
    assert rklu(*given, tmp_path / "whole").exit_code == 0
    said = one_line(rklu(*given, store / "out"))
    assert "the result and the run's state take" in said and "name another --out" in said  # before anything
    jobs.plan.refuse, refuse = (lambda *_: None), jobs.plan.refuse
    try:
        said = one_line(rklu(*given, store / "out"))
    finally:
        jobs.plan.refuse = refuse
    assert "No space left" in said or "disk full" in said
    assert not (store / "out").exists()
    remounted(store, "size=64m")
    assert rklu(*given, store / "out", "--resume").exit_code == 0
    one, other = (held(folder / "out" if folder == store else tmp_path / "whole") for folder in (store, tmp_path))
    assert one["model.safetensors"] == other["model.safetensors"] and not leftovers(store)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE = {
    "half a record": ("record.json", lambda p: os.truncate(p, 200), "seed0.json: not JSON"),
    "half its scores": ("record.npz", lambda p: os.truncate(p, 300), "seed0.npz, a record's scores: not whole"),
    "a byte of its scores": ("record.npz", flipped, "seed0.npz, a record's scores: not whole"),
    "half the original's weights": ("original/model.safetensors", lambda p: os.truncate(p, 5000), "weights cannot be"),
    "the original's settings": ("original/settings.json", lambda p: os.truncate(p, 20), "settings.json: not JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_never_used_and_mended_by_its_fix(workshop, monkeypatch, name):
    (spec,) = tiny("GA")
    (before,) = runs.ensure([spec], executor=Here())
    which, damage, message = DAMAGE[name]
    if which.startswith("record"):
        path, gone = spec.record_path.with_suffix(which.removeprefix("record")), spec.record_path.parent
    else:
        gone = spec.base("original").checkpoint_path
        path = gone / Path(which).name
        shutil.rmtree(spec.record_path.parent)
    damage(path)
    with pytest.raises(files.DamagedError, match=message) as refused:
        runs.ensure([spec], executor=Here())
    assert "\n" not in str(refused.value) and "remove" in str(refused.value)
    shutil.rmtree(gone)  # the fix
    (after,) = runs.ensure([spec], executor=Here())
    assert after.epochs == before.epochs
    assert all((after.questions[k] == v).all() for k, v in before.questions.items())


def interrupted(monkeypatch, spec, after=2):
    """Begin a run and interrupt it in its second epoch; returns the folder of its state."""
    runs.ensure([spec.base("oracle")], executor=Here())
    runs.ensure([spec.base("original")], checkpoints=True, executor=Here())
    return interrupt(monkeypatch, spec, after)


def test_a_state_that_is_damaged_is_named(workshop, monkeypatch):
    (spec,) = tiny("GA")
    state = interrupted(monkeypatch, spec)
    os.truncate(state / "model.safetensors", 3000)
    with pytest.raises(files.DamagedError, match="the state of an interrupted run, cannot be read .*; remove it"):
        runs.ensure([spec], executor=Here())
    shutil.rmtree(state)
    assert runs.ensure([spec], executor=Here())


def test_a_state_of_another_pytorch_is_not_gone_on_from(workshop, mine, monkeypatch, tmp_path):
    (spec,) = tiny("GA")
    state = interrupted(monkeypatch, spec)
    assert (state / "history.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        other = runs.state(spec)
    state.rename(other)
    asked, order = [], data.epoch_order
    with monkeypatch.context() as patch:
        patch.setattr(data, "epoch_order", lambda *args: asked.append(args[-1]) or order(*args))
        runs.ensure([spec], executor=Here())
    assert asked == [0, 1] and not leftovers(records.RUNS)  # from the beginning
    # of a model of one's own it is refused, since its state was asked for by name
    job = jobs.prepare(*map(str, mine), tmp_path / "out", profile="tiny")
    folder = jobs.unfinished(job.out)
    (folder / "unlearn").mkdir(parents=True)
    (folder / "unlearn" / "history.json").write_text("[]")
    weights = {f"weights of {job.model}": jobs.checkpoints.sha256(job.model)}
    records.write_json(folder / "settings.json", job.settings | weights | {"torch": "9.9"})
    with pytest.raises(ValueError, match="was begun with another torch; give the same again, or remove it"):
        unlearning.run(job, resumable=True, resume=True)


def test_a_clock_that_goes_back_changes_nothing(workshop, monkeypatch, tmp_path):
    (before,) = runs.ensure(tiny("GA"), executor=Here())
    monkeypatch.setattr(records, "RECORDS", tmp_path / "again" / "records")
    monkeypatch.setattr(records, "RUNS", tmp_path / "again" / "runs")
    (spec,) = tiny("GA")
    state, clock = interrupted(monkeypatch, spec), [2e9]

    def back():
        clock[0] -= 3600
        return clock[0]

    monkeypatch.setattr(time, "time", back)
    for path in state.rglob("*"):
        os.utime(path, (4e9, 4e9))  # from the future
    (after,) = runs.ensure([spec], executor=Here())
    assert after.epochs == before.epochs and min(after.content["seconds"].values()) >= 0


def test_users_with_different_umasks_share_a_store(workshop, tofu, monkeypatch):
    if os.getuid():
        pytest.skip("only root can become two users")
    runs.ensure(tiny("GA", "NPO"), executor=Here())  # all that is imported is now
    monkeypatch.setattr(records, "code_version", lambda: {"version": "0", "commit": None, "changed": False})
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(tofu, folder / "tofu")
        for path in (folder, folder / "tofu", *(folder / "tofu").iterdir()):
            path.chmod(0o777)
        workshop(source=str(folder / "tofu"))

        def as_user(number, mask, *names):
            def act():
                os.setgroups([])
                os.setgid(60000)  # one group
                os.setuid(number)
                os.umask(mask)
                os.environ["HOME"] = str(folder)
                records.RECORDS, records.RUNS = folder / "records", folder / "runs"
                runs.ensure(tiny(*names), executor=Here())

            process = sweeping.started(act)
            process.join()
            return process.exitcode

        assert as_user(60001, 0o002, "GA") == 0  # a group that shares writes for it
        assert as_user(60002, 0o022, "GA", "NPO") == 0
        assert as_user(60003, 0o002, "GA", "NPO") == 0  # reads what the second left
        assert as_user(60003, 0o022, "RKLU") == 0  # and builds upon what the first did
        modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (folder / "runs").rglob("*.lock")}
        assert set(modes.values()) == {"0o666"}
    finally:
        shutil.rmtree(folder)


def test_what_the_system_refuses_is_passed_on_with_the_run(workshop, forked, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", full)
        assert "quota" in one_line(rklu("run", "GA", "--profile", "tiny")).lower()
