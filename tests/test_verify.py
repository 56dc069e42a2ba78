"""`rklu verify`: the run of a record once more, elsewhere, and what it says of one that is true and one that is not."""

import json
import os

import numpy as np
import pytest
import sweeping
from helpers import Here, flat, rklu

from rklu_lib import execution, records, runs
from rklu_lib.commands import verify
from rklu_lib.records import RunSpec

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def spec(workshop):
    return RunSpec("tiny", "forget10", "GA")


@pytest.fixture
def record(spec, monkeypatch):
    """The path of a record; what makes it again are forked workers, which know of the profile."""
    runs.ensure([spec], executor=Here())
    monkeypatch.setattr(runs, "get_context", lambda _: sweeping.FORK)
    return spec.record_path


def changed(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def verified(path):
    before = {p: p.stat().st_mtime_ns for p in (*records.RECORDS.rglob("*"), *records.RUNS.rglob("*"))}
    places = records.RECORDS, records.RUNS, {k: v for k, v in os.environ.items() if k.startswith("RKLU_")}
    result = rklu("verify", path)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert places == (records.RECORDS, records.RUNS, {k: v for k, v in os.environ.items() if k.startswith("RKLU_")})
    return result


def test_a_true_record_is_the_same_bit_for_bit(record, spec):
    result = verified(record)
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("seed0.json, on the same kind of machine: the same")
    held = runs.load(spec)
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert len(rows) == len({k for e in held.epochs for k in e}) + len(held.questions)
    assert all([cell.strip() for cell in row.split("│")][3:5] == ["0", "0"] for row in rows)


def test_a_changed_mean_is_found(record):
    changed(record, lambda c: c["epochs"][1].update(model_utility=c["epochs"][1]["model_utility"] + 1e-6))
    result = verified(record)
    assert result.exit_code == 1 and "on the same kind of machine: differs in model_utility\n" in result.stdout


def test_a_changed_question_is_found(record):
    with np.load(record.with_suffix(".npz")) as arrays:
        held = dict(arrays)
    held["answer_nll"][0, 3] += 1e-4
    np.savez_compressed(record.with_suffix(".npz"), **held)
    result = verified(record)
    assert result.exit_code == 1 and result.stdout.rstrip().endswith("differs in answer_nll, by question")


def test_another_machine_has_a_tolerance_that_is_said_and_an_end(record):
    changed(record, lambda c: c.update(machine="another") or c["packages"].update(torch="2.0"))
    result = verified(record)
    assert result.exit_code == 0 and "made otherwise (machine another, here" in flat(result.stdout)
    assert str(verify.ELSEWHERE["mean"]) in result.stdout
    changed(record, lambda c: c["epochs"][0].update(forget_rouge=c["epochs"][0]["forget_rouge"] + 0.2))
    assert verified(record).exit_code == 1


@pytest.mark.parametrize("told", [{"threads": [7]}, {"threads": None}, {"processes": 2}])
def test_other_threads_and_processes_are_another_way_of_making_it(record, told):
    changed(record, lambda c: c.update(told))
    result = verified(record)
    (name,) = told
    assert result.exit_code == 0 and f"made otherwise ({name} {told[name]}, here" in flat(result.stdout)


def test_several_processes_are_refused_before_anything_is_computed(record, monkeypatch):
    monkeypatch.setattr(verify.parallel, "processes", lambda: 2)
    with pytest.raises(ValueError, match="start `rklu verify` without a launcher"):
        verify.again(record)


def test_a_record_says_the_threads_of_all_it_rests_on(record, spec, monkeypatch):
    assert json.loads(record.read_text())["threads"] == [1]
    seconds = spec.base("original").checkpoint_path / "seconds.json"
    for threads, told in ((3, [1, 3]), (None, None)):
        changed(seconds, lambda c, threads=threads: c.update(threads=threads))
        assert execution._threads(spec) == told


def test_an_epoch_too_many_is_a_difference(spec):
    one = records.Record(spec, {"epochs": [{"loss": 1.0}, {"loss": 0.5}]}, {"nll": np.ones((2, 3))})
    other = records.Record(spec, {"epochs": [{"loss": 1.0}]}, {"nll": np.ones((1, 3))})
    assert [s.largest for s in verify.compare(one, other, same=False)] == [np.inf, np.inf]
    infinite = records.Record(spec, {"epochs": [{"loss": 1.0}]}, {"nll": np.array([[np.inf, np.nan, 1.0]])})
    assert [s.fine for s in verify.compare(infinite, infinite, same=True)] == [True, True]


def test_settings_that_the_profile_no_longer_has_are_named(record, workshop):
    workshop(finetune_epochs=3, unlearn_lr=1e-3)
    result = verified(record)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "made with other settings (finetune_epochs, unlearn_lr) than profile tiny has now" in result.output


def test_what_is_no_record_or_of_other_data_is_refused(record, workshop, monkeypatch, tmp_path, tofu):
    (tmp_path / "capability.json").write_text('{"original": {}}')
    result = verified(tmp_path / "capability.json")
    assert result.exit_code == 2 and "capability.json: no record of a run" in result.output
    changed(record, lambda c: c["data"].update(sha256="0" * 16))
    result = verified(record)
    assert result.exit_code == 2 and "was made with other data than" in result.output
