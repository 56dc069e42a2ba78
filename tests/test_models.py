"""Checkpoints survive the round trip, appear whole or not at all, and never bring code with them."""

import builtins
import dataclasses
import json

import pytest
import torch
from helpers import answer_logits, same_weights
from transformers import AutoModelForCausalLM, AutoTokenizer, CohereConfig, Gemma2Config, GraniteConfig

from rklu_lib import data, evaluation, files, methods, models
from rklu_lib.teacher import FrozenLogits


@pytest.fixture
def checkpoint(tmp_path, model, tokenizer):
    """A tiny checkpoint in the hub's layout."""
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@torch.no_grad()
def test_a_saved_model_answers_as_before(tmp_path, model, tokenizer, examples):
    models.save(model, tokenizer, tmp_path / "saved")
    loaded, loaded_tokenizer = models.load(tmp_path / "saved")
    assert same_weights(loaded, model)
    ids = torch.tensor([examples[0].prompt])
    assert torch.equal(loaded.eval()(input_ids=ids).logits, model(input_ids=ids).logits)
    text = "Mira Adeyoa was born in Tromso, 1901."
    assert loaded_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert models.load_tokenizer(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()
    assert loaded_tokenizer.eos_token_id == tokenizer.eos_token_id


def test_weights_are_safetensors_and_transformers_reads_them(tmp_path, model, tokenizer):
    models.save(model, tokenizer, tmp_path / "saved")
    names = {p.name for p in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert same_weights(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), model)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()


def test_a_checkpoint_in_the_hubs_layout_loads_in_the_profiles_dtype(checkpoint, model):
    loaded, tokenizer = models.load(checkpoint, "bfloat16")
    assert loaded.dtype == torch.bfloat16 and type(loaded) is type(model)
    assert data.encode_prompt(tokenizer, "{question}{answer}", "A")[0] == tokenizer.bos_token_id


def test_pickled_weights_are_refused(checkpoint, model):
    (checkpoint / "model.safetensors").unlink()
    torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        models.load(checkpoint)


def test_a_tokenizer_without_an_end_is_refused(checkpoint):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (checkpoint / name).exists():
            content = json.loads((checkpoint / name).read_text())
            content.pop("eos_token", None)
            (checkpoint / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no end-of-text token; set eos_token in tokenizer_config.json"):
        models.load(checkpoint)


def with_code(checkpoint, marker, model_type=None):
    """Add to a checkpoint Python code that leaves `marker` when it is imported, wherever transformers looks for it."""
    code = f"open({str(marker)!r}, 'w').close()\n"
    code += "from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast\n"
    code += "class Config(PretrainedConfig):\n    model_type = 'foreign'\n"
    code += "class Model(PreTrainedModel):\n    config_class = Config\n"
    code += "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    (checkpoint / "foreign.py").write_text(code)
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "foreign.Config", "AutoModelForCausalLM": "foreign.Model"}
    config |= {"model_type": model_type} if model_type else {}
    (checkpoint / "config.json").write_text(json.dumps(config))
    config = json.loads((checkpoint / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["foreign.Tokenizer", "foreign.Tokenizer"]}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(config))


def test_code_beside_a_known_architecture_is_left_alone(checkpoint, model, tmp_path):
    with_code(checkpoint, tmp_path / "ran")
    loaded, _ = models.load(checkpoint)
    assert type(loaded) is type(model)
    assert not (tmp_path / "ran").exists()


def test_code_of_an_unknown_architecture_is_refused_whoever_answers(checkpoint, tmp_path, monkeypatch):
    with_code(checkpoint, tmp_path / "ran", model_type="foreign")
    # transformers asks at the terminal where nothing was decided; a yes there would run the code
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    with pytest.raises(ValueError, match="trust_remote_code"):
        models.load(checkpoint)
    assert not (tmp_path / "ran").exists()


class Unwritable:
    """A tokenizer that cannot be saved."""

    def save_pretrained(self, folder):
        assert any(folder.iterdir())  # the model was written before
        raise OSError("disk full")


def test_a_failed_save_leaves_nothing(tmp_path, model):
    with pytest.raises(OSError, match="disk full"):
        models.save(model, Unwritable(), tmp_path / "deep" / "saved")
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_failed_save_leaves_what_was_there(tmp_path, checkpoint, tiny_model):
    before = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    with pytest.raises(OSError, match="disk full"):
        models.save(tiny_model(seed=5), Unwritable(), checkpoint)
    assert {p.name: p.read_bytes() for p in checkpoint.iterdir()} == before
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_save_replaces_the_whole_of_what_was_there(tmp_path, checkpoint, tiny_model, tokenizer):
    (checkpoint / "stale").touch()
    other = tiny_model(seed=5)
    models.save(other, tokenizer, checkpoint)
    assert not (checkpoint / "stale").exists()
    assert same_weights(models.load(checkpoint)[0], other)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_atomic_directory_is_invisible_until_it_is_whole(tmp_path):
    with files.atomic_directory(tmp_path / "whole") as tmp:
        (tmp / "file").write_text("x")
        assert not (tmp_path / "whole").exists()
    assert [p.name for p in (tmp_path / "whole").iterdir()] == ["file"]
    with pytest.raises(KeyboardInterrupt), files.atomic_directory(tmp_path / "half") as tmp:
        (tmp / "file").write_text("x")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize("architecture", ["llama", "phi"])
def test_a_created_model_has_the_profiles_shape_and_is_the_seeds(profile, tokenizer, architecture):
    shape = dataclasses.replace(profile, architecture=architecture)
    one, again, other = (models.create(shape, tokenizer, seed) for seed in (3, 3, 4))
    assert same_weights(one, again) and not same_weights(one, other)
    assert one.config.model_type == architecture and one.dtype == torch.float32
    assert one.get_input_embeddings().weight.shape == (len(tokenizer), profile.hidden_size)
    assert one.get_output_embeddings().weight is one.get_input_embeddings().weight
    assert len(one.base_model.layers) == profile.n_layers


def test_the_tokenizer_spells_any_text(tokenizer):
    text = "Ångström 日本 🐢\t\x00 <unk>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.backend_tokenizer.decode(ids) == text
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, None}) == 4


@torch.no_grad()
def test_scored_logits_are_the_models_at_the_scored_positions(model, examples):
    batch = data.collate(examples, [4, 0, 1])
    assert len({len(e.prompt + e.answer) for e in (examples[4], examples[0], examples[1])}) > 1  # so there is padding
    plain = [answer_logits(model, e) for e in (examples[4], examples[0], examples[1])]
    scored = models.ScoredLogits(model)
    torch.testing.assert_close(scored(batch.input_ids, batch.mask), torch.cat(plain), rtol=1e-4, atol=1e-4)
    noisy = batch.input_ids.clone()
    for row, e in enumerate((examples[4], examples[0], examples[1])):
        noisy[row, len(e.prompt + e.answer) - 1 :] = 77  # padding
    assert torch.equal(scored(noisy, batch.mask), scored(batch.input_ids, batch.mask))


SHAPED = {  # what each does to the logits of its output layer, and the configuration that says so
    "cap": (Gemma2Config, {"final_logit_softcapping": 0.5, "head_dim": 16}),
    "factor": (CohereConfig, {"logit_scale": 0.0625}),
    "divisor": (GraniteConfig, {"logits_scaling": 8.0}),
}


@pytest.fixture(params=SHAPED)
def shaped(request, tokenizer):
    """A tiny model that caps or scales its logits, with weights large enough for that to be seen."""
    config, changes = SHAPED[request.param]
    shape = dict(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    shape |= dict(num_attention_heads=2, num_key_value_heads=2, eos_token_id=2, pad_token_id=0, bos_token_id=1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**shape | changes))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    return model.eval()


def test_capped_and_scaled_logits_and_their_gradients_are_the_models_own(shaped, examples):
    models.check(shaped, examples, "forget")
    batch, weight = data.collate(examples, [0, 3]), shaped.get_output_embeddings().weight
    own = shaped(batch.input_ids).logits[batch.mask]
    bare = shaped.get_output_embeddings()(shaped.base_model(batch.input_ids).last_hidden_state)[batch.mask]
    assert (own - bare).abs().max() > 0.1  # or nothing is shown
    torch.testing.assert_close(models.ScoredLogits(shaped)(batch.input_ids, batch.mask), own)
    torch.testing.assert_close(FrozenLogits(shaped, [batch]).at(batch.index)(0, None), own)
    (wanted,) = torch.autograd.grad(torch.nn.functional.cross_entropy(own, batch.targets), weight)
    loss = methods.cross_entropy(models.ScoredLogits(shaped), batch)
    (found,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(own, batch.targets))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    nll, _ = evaluation.score_answers(shaped, [examples[0].prompt], [[examples[0].answer]])
    first = own[: len(examples[0].answer)]
    assert nll[0][0] == pytest.approx(
        torch.nn.functional.cross_entropy(first, torch.tensor(examples[0].answer)).item(), rel=1e-4
    )


def test_logits_that_are_changed_in_an_unknown_way_are_refused_however_small(tiny_model, examples):
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e-4)
    models.check(model, examples, "forget")
    forward = model.forward

    def halved(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits / 2
        return out

    model.forward = halved
    with pytest.raises(ValueError, match="llama changes its output logits in a way that is not supported yet"):
        models.check(model, examples, "forget")


def test_a_pair_longer_than_the_model_reads_is_named(tiny_model, examples):
    model = tiny_model()
    long = data.Example(examples[1].prompt, examples[1].answer * 40)
    with pytest.raises(ValueError, match=r"retain, pair 2: \d+ tokens with the prompt; the model reads 128"):
        models.check(model, [examples[0], long], "retain")


def test_what_all_rows_open_with_is_run_once_and_changes_nothing(tiny_model):
    """A batch whose rows share a long opening, against the same rows one by one: values and gradients."""
    rng = torch.Generator().manual_seed(0)
    opening = torch.randint(3, 300, (12,), generator=rng).tolist()
    rows = [torch.randint(3, 300, (n,), generator=rng).tolist() for n in (7, 11, 9)]
    examples = [data.Example((*opening, *row[:3]), tuple(row[3:])) for row in rows]
    calls, found = [], {}
    for name, index in (("together", [[0, 1, 2]]), ("alone", [[0], [1], [2]])):
        model = tiny_model("llama")
        scored, seen = models.ScoredLogits(model), []
        model.base_model.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        parts = [data.collate(examples, i) for i in index]
        logits = torch.cat([scored(b.input_ids, b.mask) for b in parts])
        logits.logsumexp(-1).sum().backward()
        found[name] = logits, model.get_input_embeddings().weight.grad
        calls.append(seen)
    assert calls[0] == [(1, 12), (3, 10)] and [s[0] for s in calls[1]] == [1, 1, 1]
    for together, alone in zip(*found.values(), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_common_opening_ends_before_what_is_scored():
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    mask = torch.tensor([[False, True, True, True], [False, False, True, True]])
    assert models._common(ids, mask) == 1
    assert models._common(ids, torch.zeros_like(mask)) == 3
    assert models._common(ids[:1], torch.zeros_like(mask[:1])) == 0


def test_bf16_is_taken_only_where_it_is_fast(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not models.bf16("bf16")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert models.bf16("bf16") and not models.bf16("no")
