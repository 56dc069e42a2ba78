"""Adapters: all that is trained, merged to the same model, gradients under checkpointing, a setting only when on."""

import copy
import types

import pytest
import torch
from helpers import Here, write_lines
from safetensors.torch import save_model
from transformers import GPT2Config, GPT2LMHeadModel

from rklu_lib import budget, data, methods, models, parallel, profiles, runs, training
from rklu_lib.own import unlearning
from rklu_lib.records import RunSpec
from rklu_lib.teacher import FrozenLogits

pytest.importorskip("peft")
TRAINED = [name for name, m in methods.METHODS.items() if m.forget and not m.retain]


def logits(model, examples):
    ids = torch.tensor([examples[0].prompt + examples[0].answer])
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("architecture", ["llama", "phi"])
def test_only_adapters_change_and_what_is_merged_is_the_same_model(tiny_model, examples, profile, architecture):
    model = tiny_model(architecture)
    names, before = list(dict(model.named_parameters())), copy.deepcopy(model.state_dict())
    start = logits(model, examples)
    with training.adapted(model, 4, seed=1):
        trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
        assert all("lora_" in n for n in trained)
        assert sum(trained.values()) == budget.adapters(model.config, 4)
        assert torch.equal(logits(model, examples), start)  # an adapter that has learnt nothing is none
        training.fit(model, lambda _: [[lambda s: methods.cross_entropy(s, data.collate(examples, [0, 1, 2]))]] * 3,
                     epochs=1, epoch_steps=3, lr=1e-2)  # fmt: skip
        frozen = {n.replace(".base_layer", ""): p for n, p in model.named_parameters() if n not in trained}
        assert all(torch.equal(frozen[n], before[n]) for n in frozen)
        apart = logits(model, examples)
    assert list(dict(model.named_parameters())) == names and all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(logits(model, examples), apart, rtol=1e-3, atol=1e-4)
    assert (apart - start).abs().max() > 0.1
    assert torch.equal(model.get_input_embeddings().weight, before["model.embed_tokens.weight"])


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_adapters_of_gpt_2_are_counted_though_its_layers_are_no_linear_ones(tokenizer):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    with training.adapted(model, 4):
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == budget.adapters(config, 4) > 0
    layers = [p for name, p in model.named_parameters() if name.endswith("weight") and ".c_" in name]
    assert budget.products(model)[0] == sum(p.numel() for p in layers) == 2 * 12 * 16**2


def test_gradients_flow_with_checkpointing_and_are_the_same(tiny_model, examples):
    found = []
    for checkpointing in (False, True):
        model = tiny_model()
        with training.adapted(model, 4):
            for p in (p for n, p in model.named_parameters() if "lora_B" in n):
                torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
            if checkpointing:
                enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
                enable({"use_reentrant": False})
            scored = parallel.Terms(model.train()).scored
            methods.cross_entropy(scored, data.collate(examples, [0, 1])).backward()
            found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
            if checkpointing:
                getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    assert all(g is not None and g.abs().max() > 0 for g in found[1].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_adapters_over_bf16_are_in_float32_and_the_base_stays_bf16(tiny_model, examples):
    model = tiny_model().to(torch.bfloat16)
    with training.adapted(model, 2):
        kinds = {p.dtype for p in model.parameters() if p.requires_grad}
        assert kinds == {torch.float32} and model.dtype == torch.bfloat16
        assert type(training.adamw(model, 1e-3, 0.0)) is torch.optim.AdamW
        methods.cross_entropy(models.ScoredLogits(model), data.collate(examples, [0])).backward()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_every_trained_method_learns_by_adapters(workshop):
    workshop(unlearn_epochs=1, augment_epochs=1, finetune_epochs=1, lora_rank=2)
    specs = [RunSpec("tiny", "forget10", name) for name in TRAINED]
    found = runs.ensure(specs, executor=Here())
    for spec, record in zip(specs, found, strict=True):
        assert record.content["settings"]["lora_rank"] == 2
        base, student = (models.load(s.model_path)[0].state_dict() for s in (spec.base("original"), spec))
        assert base.keys() == student.keys()  # a whole model
        changed = {n for n in base if not torch.equal(base[n], student[n])}
        assert changed and all("proj" in n for n in changed), spec.method
    assert "lora_rank" not in specs[0].base("original").settings
    assert specs[0].base("augmented").settings.get("lora_rank") == 2


def test_the_setting_is_named_only_when_on(workshop):
    for method in ("RKLU", "NPO+RT", "augmented", "original"):
        assert "lora_rank" not in RunSpec("tiny", "forget10", method).settings
    on = RunSpec("tiny", "forget10", "RKLU", 0, (("lora_rank", 8),))
    assert on.settings["lora_rank"] == 8 and on.base("augmented").overrides == (("lora_rank", 8),)
    assert on.base("original").overrides == ()
    with pytest.raises(ValueError, match="lora_rank must be >= 0, not -1"):
        profiles.profile("tiny", lora_rank=-1)


def test_sharded_weights_refuse_adapters(tiny_model, monkeypatch):
    class Sharded:
        state = type("state", (), {"is_fsdp2": True})

    monkeypatch.setattr(parallel, "accelerator", lambda: Sharded)
    with pytest.raises(ValueError, match="without FSDP"), training.adapted(tiny_model(), 2):
        pass


def test_a_model_of_ones_own_by_adapters_keeps_the_epoch_that_is_kept(own_checkpoint, tmp_path, monkeypatch):
    """The state of the best epoch has base and adapters apart, and what is written is one whole model."""
    rows = [{"question": f"Where was Mira {k} born?", "answer": f"In the town of Wismar {k}."} for k in range(4)]
    forget = write_lines(tmp_path / "forget.jsonl", rows)
    kept = {}

    def noted(student, path):
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            kept["logits"] = student.eval()(ids).logits
        save_model(student, path)

    monkeypatch.setattr(unlearning, "save_model", noted)
    monkeypatch.setattr(unlearning, "choose", lambda epochs, *_: 0)  # the first is kept, and two more are trained
    args = dict(epochs=3, lr=1e-2, lora=4, template="Q: {question} A: {answer}", target=1e-30, probes=0)
    unlearning.unlearn(own_checkpoint, forget, tmp_path / "out", **args)
    with torch.no_grad():
        written = models.load(tmp_path / "out")[0].eval()(torch.tensor([[5, 6, 7, 8]])).logits
    torch.testing.assert_close(written, kept["logits"], rtol=1e-3, atol=1e-4)
    assert not list((tmp_path / "out").glob("adapter*"))


def test_adapters_that_are_taken_off_leave_the_original_and_make_the_same_teacher(tiny_model, examples, profile):
    """So that the teacher needs no second model: what the adapters make of the first is kept, then they go."""
    model, merged = tiny_model(), tiny_model()
    before, batches = copy.deepcopy(model.state_dict()), data.batches(examples, 64)
    how = {"epochs": 2, "lr": 1e-2, "batch_size": 3, "seed": 5}
    with training.adapted(model, 4, seed=5, merge=False):
        training.finetune(model, examples, profile, **how)
        kept = FrozenLogits(model, batches)
    assert {n: p.requires_grad for n, p in model.named_parameters()}.keys() == dict(merged.named_parameters()).keys()
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    training.finetune(merged, examples, profile, **how, lora_rank=4)
    teachers = [
        methods.prepare(methods.METHODS["RKLU"], profile, model, augmented, examples, [], []).teacher
        for augmented in (kept, merged)
    ]
    everything = list(range(len(examples)))
    one, other, original = (f.at(everything)(0, None) for f in (*teachers, FrozenLogits(model, batches)))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert (one - original).abs().max() > 1


def test_a_model_of_ones_own_is_not_copied_where_adapters_are_trained(own_checkpoint, tmp_path, monkeypatch):
    rows = [{"question": f"Where was Mira {k} born?", "answer": f"In the town of Wismar {k}."} for k in range(4)]
    forget = write_lines(tmp_path / "forget.jsonl", rows)

    def copies(_):
        raise AssertionError("a second model")

    monkeypatch.setattr(unlearning, "copy", types.SimpleNamespace(deepcopy=copies))
    args = dict(epochs=1, lr=1e-2, template="Q: {question} A: {answer}", probes=0)
    unlearning.unlearn(own_checkpoint, forget, tmp_path / "out", lora=4, **args)
    with pytest.raises(AssertionError, match="a second model"):
        unlearning.unlearn(own_checkpoint, forget, tmp_path / "other", **args)
