"""Specs name their runs, records survive the round trip, belong to their settings, and are never half there."""

import json
import os

import numpy as np
import pytest

from rklu_lib import methods, records
from rklu_lib.records import RunSpec

HISTORY = [
    {"epoch": k + 1, "loss": 1 / 3, "model_utility": u, "forget_quality_benchmark": q}
    for k, (q, u) in enumerate([(0.1, 0.9), (0.8, 0.2), (0.8, 0.3), (0.5, 0.6)])
]
QUESTIONS = {"rouge": [[0.0, 0.5], [1.0, 0.25]] * 2, "truth_ratio_benchmark": [[1e-9, float("inf")]] * 4}


pytestmark = pytest.mark.usefixtures("workshop")


def spec(method="RKLU", **overrides):
    return RunSpec("tiny", "forget10", method, 0, tuple(overrides.items()))


def test_a_record_survives_the_round_trip(tmp_path):
    records.write(spec(), HISTORY, QUESTIONS, {"train": 1.26, "evaluate": 2})
    record = records.load(spec())
    assert record.spec == spec()
    assert [e["epoch"] for e in record.epochs] == [1, 2, 3, 4]
    assert record.epochs[0]["loss"] == 0.333333  # six significant digits
    for name, values in QUESTIONS.items():
        np.testing.assert_array_equal(record.questions[name], np.asarray(values, np.float32))
    assert record.content["spec"] == {"profile": "tiny", "split": "forget10", "method": "RKLU", "seed": 0}
    assert record.content["seconds"] == {"train": 1.3, "evaluate": 2}
    assert set(record.content["packages"]) == set(records.PACKAGES)
    assert {"code", "machine", "data", "settings"} <= set(record.content)
    assert "source" in record.content["settings"] and str(tmp_path) not in record.content["data"]["source"]


def test_a_record_lies_where_its_spec_says(tmp_path):
    records.write(spec(alpha=4.0), HISTORY, QUESTIONS, {})
    written = {str(p.relative_to(tmp_path / "records")) for p in (tmp_path / "records").rglob("*") if p.is_file()}
    stem = "tiny/tofu/forget10/RKLU,alpha=4.0/seed0"
    assert written == {f"{stem}.json", f"{stem}.npz"}
    assert records.load(spec(alpha=4.0)).content["spec"]["overrides"] == {"alpha": 4.0}
    assert records.load(spec()) is None


def test_a_record_of_other_settings_is_another_runs(workshop):
    for method in ("RKLU", "GA", "oracle"):
        records.write(spec(method), HISTORY, QUESTIONS, {})

    def survivors(**fields):
        workshop(**fields)
        return {m for m in ("RKLU", "GA", "oracle") if records.load(spec(m))}

    assert survivors() == {"RKLU", "GA", "oracle"}
    assert survivors(alpha=1.0) == {"GA", "oracle"}
    assert survivors(augment_epochs=7) == {"GA", "oracle"}
    assert survivors(unlearn_lr=1.0) == {"oracle"}
    assert survivors(family_lr={"GA": 1.0}) == {"RKLU", "oracle"}
    assert survivors(family_lr={"NPO": 1.0}, npo_beta=0.7, ta_scale=1.0) == {"RKLU", "GA", "oracle"}
    assert survivors(finetune_epochs=9) == survivors(n_layers=5) == survivors(template="{question}{answer}") == set()
    assert survivors(micro_batch_size=2) == {"RKLU", "GA", "oracle"}  # changes no result


@pytest.mark.parametrize("method", ["original", "oracle", "augmented", *methods.METHODS])
def test_settings_are_plain_json(method):
    assert json.loads(json.dumps(spec(method).settings)) == spec(method).settings


def test_a_field_younger_than_records_is_named_only_where_it_is_not_the_default():
    assert "gradient_checkpointing" not in spec().settings
    assert "gradient_checkpointing" not in spec(gradient_checkpointing=False).settings
    assert spec(gradient_checkpointing=True).settings["gradient_checkpointing"] is True


@pytest.mark.parametrize(("rule", "epoch"), [("peak", 2), ("last", 4), ("product", 4)])
def test_the_reported_epoch(rule, epoch):
    # 0.8 twice: the paper reports the first; products are 0.09, 0.16, 0.24, 0.30
    record = records.Record(spec(), {"epochs": HISTORY}, {})
    assert record.reported(rule)["epoch"] == epoch
    assert records.Record(spec(), {"epochs": HISTORY[:3]}, {}).reported("product")["epoch"] == 3
    assert record.reported() == HISTORY[1]


def test_an_epoch_whose_utility_was_not_scored_has_no_product():
    epochs = [{"epoch": 1, "forget_quality_benchmark": 0.9}, HISTORY[3] | {"epoch": 2}]
    record = records.Record(spec(), {"epochs": epochs}, {})
    assert record.reported("product")["epoch"] == 2 and record.reported("peak")["epoch"] == 1


def test_an_unknown_rule_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no reporting rule 'best'; there are peak, product, last"):
        records.Record(spec(), {"epochs": HISTORY}, {}).reported("best")


def test_without_forget_quality_there_is_no_peak():
    with pytest.raises(KeyError, match="forget_quality_benchmark"):
        records.Record(spec("oracle"), {"epochs": [{"epoch": 1, "model_utility": 0.5}]}, {}).reported()


class Disk:
    """os.replace that fails at its n-th call."""

    def __init__(self, fails_at):
        self.calls, self.fails_at, self.replace = 0, fails_at, os.replace

    def __call__(self, *args):
        self.calls += 1
        if self.calls == self.fails_at:
            raise OSError("disk full")
        self.replace(*args)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_interrupted_write_is_no_record(monkeypatch, fails_at):
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", Disk(fails_at))
        records.write(spec(), HISTORY, QUESTIONS, {})
    assert records.load(spec()) is None
    assert not [p for p in spec().record_path.parent.iterdir() if p.suffix != ".npz"]
    records.write(spec(), HISTORY, QUESTIONS, {})
    assert len(records.load(spec()).epochs) == 4


def test_scores_that_cannot_be_written_leave_nothing():
    with pytest.raises(ValueError):
        records.write(spec(), HISTORY, {"rouge": [[1.0], [1.0, 2.0]]}, {})
    assert list(spec().record_path.parent.iterdir()) == []


def test_write_json_is_utf8_and_replaces(tmp_path):
    path = tmp_path / "deep" / "file.json"
    for content in ({"text": "Ångström 日本"}, {"text": "again"}):
        records.write_json(path, content)
        assert json.loads(path.read_text(encoding="utf-8")) == content
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "deep" / "file.json"
    with pytest.raises(TypeError):
        records.write_json(path, {"not": {"json"}})
    assert list(path.parent.iterdir()) == []


def test_a_spec_that_cannot_be_run_is_refused():
    for arguments, message in (
        (("tiny", "forget20", "RKLU"), "no forget split 'forget20'; there are forget01, forget05, forget10"),
        (("tiny", "forget10", "RKL"), "no method 'RKL'; there are GA"),
        (("huge", "forget10", "RKLU"), "no profile 'huge'; there are tiny"),
        (("tiny", "forget10", "RKLU", 0, (("aplha", 4),)), "no field aplha"),
    ):
        with pytest.raises(ValueError, match=message):
            RunSpec(*arguments)


def test_base_models_are_shared_by_the_runs_that_rest_on_them():
    one, other = spec("RKLU", alpha=4.0), spec("FKLU")
    for name in ("original", "oracle", "augmented"):
        assert one.base(name) == other.base(name) == spec(name)
    assert spec("RKLU", augment_lr=1.0).base("augmented") != spec("augmented")
    assert spec("RKLU", augment_lr=1.0).base("oracle") == spec("oracle")
    assert spec("RKLU", n_layers=1).base("oracle") == spec("oracle", n_layers=1)
    splits = [RunSpec("tiny", split, "RKLU").base("original").checkpoint_path for split in ("forget01", "forget10")]
    assert splits[0] == splits[1]
    assert len({spec(m).checkpoint_path for m in ("original", "oracle", "augmented", *methods.METHODS)}) == 37


def test_an_epoch_leads_in_either_form_of_the_truth_ratio():
    def epoch(benchmark, paper):
        return {"forget_quality_benchmark": benchmark, "forget_quality_paper": paper, "forget_rouge": 1.0}

    before = [epoch(0.1, 0.3), epoch(0.2, 0.1)]
    assert records.leads(epoch(0.3, 0.1), before) and records.leads(epoch(0.1, 0.4), before)
    assert not records.leads(epoch(0.2, 0.3), before)  # the first of equals is reported
    assert records.leads(epoch(0.0, 0.0), [])


def test_fields_younger_than_the_first_records_are_settings_where_they_differ(workshop):
    assert not {"precision", "utility"} & set(spec().settings)
    workshop(precision="bf16", utility="reported")
    assert spec().settings["precision"] == "bf16" and spec("oracle").settings["utility"] == "reported"


def test_the_commit_is_the_librarys_own_or_none(monkeypatch, tmp_path):
    """An installed package may lie in the repository of a user, whose commit says nothing; and git may be missing."""
    monkeypatch.delenv("RKLU_COMMIT", raising=False)
    monkeypatch.setattr(records.data, "CHECKOUT", tmp_path)
    assert records.code_version() == {"version": records.__version__, "commit": None, "changed": False}
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("RKLU_COMMIT", "0123456789ab")
    assert records.code_version()["commit"] == "0123456789ab"
