"""Without a network: at once, in one line, with the fix; with one, the hub is asked."""

import sys
import types
from pathlib import Path

import pytest

from rklu_lib import data, hub, models


@pytest.fixture
def online(monkeypatch):
    """A machine that may ask the hub; what the request gives is the test's to say."""
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    hub.reachable.cache_clear()
    yield lambda answer: monkeypatch.setattr(hub, "get_session", lambda: types.SimpleNamespace(head=answer))
    hub.reachable.cache_clear()


def fails(error):
    def answer(*_, **__):
        raise error

    return answer


def test_a_hub_that_answers_is_asked_even_if_it_says_no(online):
    online(lambda *_, **__: types.SimpleNamespace(status_code=403))
    assert hub.reachable() and not hub.constants.HF_HUB_OFFLINE
    hub.check("owner/model", "fix")  # the libraries find out whether it is there


def test_a_hub_that_does_not_is_asked_once_and_its_libraries_told(online):
    asked = []
    online(lambda *a, **k: asked.append(a) or fails(OSError("no network"))())
    assert not hub.reachable() and not hub.reachable()
    assert len(asked) == 1 and hub.constants.HF_HUB_OFFLINE


def test_what_is_not_here_is_refused_with_the_fix(monkeypatch, tmp_path):
    monkeypatch.delenv("RKLU_TOFU", raising=False)
    monkeypatch.delenv("RKLU_WIKITEXT", raising=False)
    monkeypatch.setenv("RKLU_MODELS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="locuslab/TOFU is not cached, .*export RKLU_TOFU=path/to/folder"):
        data.load_tofu("full")
    with pytest.raises(FileNotFoundError, match="export RKLU_WIKITEXT="):
        data.load_prose("test", "Salesforce/wikitext")
    with pytest.raises(FileNotFoundError, match="^my-modle is no folder here: my-modle is not cached, and the hub"):
        models.load_tokenizer("my-modle")
    with pytest.raises(FileNotFoundError, match=f"owner/model is not cached, .*put it into {tmp_path} .*RKLU_MODELS$"):
        models.load_tokenizer("owner/model")
    with pytest.raises(FileNotFoundError, match="or `rklu fetch smollm2`"):
        models.load("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_the_folder_that_was_named_comes_before_one_of_that_name_elsewhere(monkeypatch, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here / "m" / "gpt2", elsewhere / "m" / "gpt2", elsewhere / "m" / "llama"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("RKLU_MODELS", str(elsewhere))
    monkeypatch.chdir(here)
    found = [Path(models.resolve(name)).resolve() for name in ("m/gpt2", "m/llama", elsewhere / "m")]
    assert found == [here / "m" / "gpt2", elsewhere / "m" / "llama", elsewhere / "m"]


def test_what_is_cached_is_used(monkeypatch):
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda model, file: "here" if file == "config.json" else None)
    hub.check("owner/model", "fix")
    asked = types.SimpleNamespace(config=types.SimpleNamespace(), load_dataset=lambda *a, **k: (a, k))
    monkeypatch.setitem(sys.modules, "datasets", asked)
    assert hub.dataset("owner/data", "config", split="train", fix="") == (("owner/data", "config"), {"split": "train"})
    assert asked.config.HF_HUB_OFFLINE is True
