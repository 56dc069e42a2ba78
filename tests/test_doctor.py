"""What `rklu doctor` says of machines whose state is known."""

import types

import pytest
import torch
from helpers import flat, rklu

from rklu_lib import data, hub, records
from rklu_lib.commands import doctor


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without network, GPU, models or data, and with little room."""
    for name in ("RKLU_TOFU", "RKLU_NOVEL", "RKLU_WIKITEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RKLU_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(records, "RECORDS", tmp_path / "a" / "records")
    monkeypatch.setattr(records, "RUNS", tmp_path / "a" / "runs")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=20e9))
    assert not hub.reachable()
    return tmp_path


def missing(scale):
    return {check.what.split()[0] for check in doctor.lacking(doctor.checks(), scale)}


def test_smoke_needs_nothing_and_each_scale_what_it_needs(bare):
    assert missing("smoke") == set()
    assert missing("mini") == {"TOFU"}
    assert missing("smollm2") == {"TOFU", "model"}
    assert missing("llama2-7b") == {"TOFU", "model", "card", "disk"}
    assert not list(bare.rglob("*"))  # it only looked


def test_what_is_there_is_seen(bare, tofu, monkeypatch):
    monkeypatch.setenv("RKLU_TOFU", str(tofu))
    folder = bare / "models" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert missing("mini") == missing("smollm2") == set()
    monkeypatch.setenv("RKLU_TOFU", str(bare))
    [check] = [c for c in doctor.checks() if c.what == "TOFU"]
    needed = set(data.FIELDS) - set(data.HOLDOUT_SPLIT.values())
    assert check.fine is False and all(f"{name}.json" in check.found for name in needed)


def test_a_card_is_judged_by_its_memory(bare, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(total_memory=48e9))
    assert "card" not in missing("phi-1.5") and "card" in missing("llama2-7b")


def test_places_that_cannot_be_written_to_are_named(bare, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, _: False)
    assert missing("smoke") == {"records"}
    done = rklu("doctor")
    assert done.exit_code == 1 and "smoke: lacks records and runs" in done.output


def test_the_command_says_what_is_missing_for_which_scale(bare):
    done = rklu("doctor", COLUMNS="200")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert "smoke: ready" in lines and "mini: lacks TOFU" in lines
    assert "RKLU_TOFU" in done.output and "rklu fetch smollm2" in flat(done.output)
