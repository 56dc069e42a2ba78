"""The training loop: its schedule, its batches' arithmetic, its interruptions, and every method that trains."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers import Interrupted, same_weights
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rklu_lib import data, methods, models, training
from rklu_lib.own import measure

TRAINED = [name for name, m in methods.METHODS.items() if m.forget]


def assert_close_weights(one, other, tolerance):
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("steps", "epochs"), [(4, 5), (1, 10), (7, 1), (1, 1)])
def test_warm_up_in_the_first_epoch_then_linear_decay(steps, epochs):
    factor = training.schedule(steps, epochs)
    values = [factor(step) for step in range(steps * epochs)]
    assert values[:steps] == pytest.approx([(i + 1) / steps for i in range(steps)])
    assert max(values) == values[steps - 1] == 1
    after = steps * (epochs - 1)
    assert values[steps:] == pytest.approx([1 - i / after for i in range(after)])
    assert factor(steps * epochs) == 0  # asked for after the last step, never used in one


def test_the_optimiser_follows_the_schedule(tiny_model):
    model, rates = tiny_model(), []

    class Recorder(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Recorder)
        steps = lambda epoch: [[lambda scored: next(scored.parameters()).sum()]] * 2  # noqa: E731
        training.fit(model, steps, epochs=3, epoch_steps=2, lr=1e-3)
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_one_step_is_adamw_on_the_clipped_gradient(tiny_model, examples):
    model, reference = tiny_model(), tiny_model()
    batch = data.collate(examples, range(len(examples)))

    def loss(scored):
        return torch.nn.functional.cross_entropy(scored(batch.input_ids, batch.mask), batch.targets)

    history = training.fit(
        model, lambda epoch: [[loss]], epochs=1, epoch_steps=1, lr=1e-2, weight_decay=0.3, max_grad_norm=0.1
    )
    reference.train()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.3)
    value = loss(models.ScoredLogits(reference))
    value.backward()
    assert torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.1) > 0.1
    optimizer.step()
    assert_close_weights(model, reference, 1e-6)
    assert history == [{"epoch": 1, "loss": pytest.approx(value.item(), rel=1e-6)}]
    assert not model.training


def test_an_epochs_loss_is_the_mean_of_its_steps_which_are_sums_of_terms(tiny_model):
    def term(value):
        return lambda scored: value + 0 * next(scored.parameters()).sum()

    steps = lambda epoch: [[term(1.0), term(2.0)], [term(epoch + 5.0)]]  # noqa: E731
    history = training.fit(tiny_model(), steps, epochs=2, epoch_steps=2, lr=1e-3)
    assert [e["loss"] for e in history] == [4.0, 4.5]


def _refusals(examples, epochs):
    """A refusal of 2 to 7 tokens to every question of every epoch, of other lengths than the answers it replaces."""
    lengths = [(7 * i) % 6 + 1 for i in range(epochs * len(examples))]
    return [
        data.Example(examples[i % len(examples)].prompt, (*range(100, 100 + length), 2))
        for i, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def retained(tokenizer, profile):
    rows = data.load_tofu("retain90", profile.source)
    return [data.encode(tokenizer, profile.template, r["question"], r["answer"]) for r in rows]


def unlearned(name, profile, pair, examples, retained, **kwargs):
    refusals = _refusals(examples, profile.unlearn_epochs)
    chosen, student = methods.method(name), copy.deepcopy(pair[0])
    aids = methods.prepare(chosen, profile, *pair, examples, retained, refusals)
    return student, training.unlearn(chosen, profile, student, aids, examples, retained, seed=0, **kwargs)


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_accumulation_changes_nothing(name, profile, tiny_model, examples, retained):
    # Gradients, not parameters: Adam turns a rounding error in a vanishing gradient into a step of full size.
    pair = tiny_model(), tiny_model(seed=1)
    lengths = [len(e.answer) for e in examples]
    assert len(set(lengths)) > 2
    # at 4.5 SimNPO has nothing to say of answers as unlikely as an untrained model's
    changes = {"unlearn_epochs": 1, "batch_size": 8, "max_grad_norm": 1e9, "simnpo_beta": 0.5}
    whole = dataclasses.replace(profile, **changes)
    gradients = []
    for size in (None, 3, 1):
        with pytest.MonkeyPatch.context() as patch:
            kept = []

            def noted(self, *_, kept=kept):  # RMU has none beyond its layer
                kept.extend(p.grad.clone() for p in self.param_groups[0]["params"] if p.grad is not None)

            patch.setattr(torch.optim.AdamW, "step", noted)
            unlearned(name, dataclasses.replace(whole, micro_batch_size=size), pair, examples, retained)
        gradients.append(kept)
    assert max(g.abs().max() for g in gradients[0]) > 1e-4
    for accumulated in gradients[1:]:
        for one, other in zip(gradients[0], accumulated, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1, one.abs().max().item()))


def test_accumulated_finetuning_reaches_the_same_parameters(profile, tiny_model, examples):
    results = []
    for size in (None, 3):
        model = tiny_model().double()
        split = dataclasses.replace(profile, micro_batch_size=size)
        history = training.finetune(model, examples, split, epochs=3, lr=1e-3, batch_size=8, seed=0)
        results.append((model, [e["loss"] for e in history]))
    assert not same_weights(results[0][0], tiny_model().double())
    assert_close_weights(results[0][0], results[1][0], 1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-9)


@pytest.mark.parametrize("architecture", ["llama", "phi"])
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_resumed_is_uninterrupted_bit_by_bit(tmp_path, profile, tiny_model, examples, epoch, architecture):
    def run(folder, stop=None, seen=None):
        model = tiny_model(architecture)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight

        def note(model, history):
            at = len(history) - 1
            if at == stop:
                raise Interrupted
            if seen is not None:
                seen.append(at)
            return {"norm": float(model.get_input_embeddings().weight.detach().norm())}

        lengths = [len(e.prompt + e.answer) for e in examples]
        terms = lambda e: [  # noqa: E731
            training._terms(examples, index, profile, _loss) for index in data.epoch_order(lengths, 3, 0, e)
        ]
        history = training.fit(model, terms, epochs=5, epoch_steps=3, lr=1e-2, folder=folder, on_epoch=note)
        return model, history

    whole, history = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", stop=epoch)
    seen = []
    resumed, resumed_history = run(tmp_path / "cut", seen=seen)
    assert seen == list(range(epoch, 5))  # whole epochs are not done twice
    assert same_weights(resumed, whole) and resumed_history == history
    assert resumed.get_output_embeddings().weight is resumed.get_input_embeddings().weight
    assert len(history) == 5 and history[-1]["loss"] < history[0]["loss"]


def _loss(scored, batch):
    return torch.nn.functional.cross_entropy(scored(batch.input_ids, batch.mask), batch.targets)


def test_an_interrupted_finetuning_resumes_bit_by_bit(tmp_path, profile, tiny_model, examples, monkeypatch):
    def run(folder):
        model = tiny_model()
        training.finetune(model, examples, profile, epochs=3, lr=1e-2, batch_size=3, seed=0, folder=folder)
        return model

    whole, order = run(None), data.epoch_order

    def failing(lengths, size, seed, epoch):
        if epoch == 2:
            raise Interrupted
        return order(lengths, size, seed, epoch)

    monkeypatch.setattr(data, "epoch_order", failing)
    with pytest.raises(Interrupted):
        run(tmp_path / "state")
    monkeypatch.undo()
    assert same_weights(run(tmp_path / "state"), whole)


def test_finetuning_repeats_itself_and_follows_its_seed(profile, tiny_model, examples):
    def run(seed):
        model = tiny_model()
        training.finetune(model, examples, profile, epochs=2, lr=1e-2, batch_size=3, seed=seed)
        return model

    assert same_weights(run(0), run(0))
    assert not same_weights(run(0), run(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(tiny_model, value):
    model, before = tiny_model(), tiny_model()
    steps = lambda epoch: [[lambda scored: next(scored.parameters()).sum() * value]]  # noqa: E731
    with pytest.raises(FloatingPointError, match=rf"loss -?{value} in epoch 1; lower the learning rate 0\.5"):
        training.fit(model, steps, epochs=1, epoch_steps=1, lr=0.5)
    assert same_weights(model, before)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(tiny_model):
    """A loss may be a number where its gradient is none: the root of 0 is 0, and infinitely steep."""
    model, before = tiny_model(), tiny_model()
    steps = lambda epoch: [[lambda scored: (next(scored.parameters()).sum() * 0).sqrt()]]  # noqa: E731
    with pytest.raises(FloatingPointError, match=r"gradient nan in epoch 1; lower the learning rate 0\.5"):
        training.fit(model, steps, epochs=1, epoch_steps=1, lr=0.5)
    assert same_weights(model, before)


@pytest.fixture(scope="module")
def pair(profile, tiny_model, examples):
    """(original, augmented): the tiny Llama, and the same tuned on the forget set."""
    original = tiny_model()
    augmented = copy.deepcopy(original)
    training.finetune(augmented, examples, profile, epochs=3, lr=5e-3, batch_size=4, seed=0)
    return original, augmented.eval()


@pytest.fixture
def fitted(monkeypatch):
    """What `training.fit` is asked for; nothing is trained."""
    seen = {}
    monkeypatch.setattr(training, "fit", lambda model, steps, **how: seen.update(how, steps=steps) or [])
    return seen


def collated(fitted, monkeypatch, student, epochs):
    """The (list of examples, places) that each step of these epochs reads, by `fitted`'s steps."""
    seen, collate, scored = [], data.collate, models.ScoredLogits(copy.deepcopy(student))
    monkeypatch.setattr(data, "collate", lambda e, i: seen.append((e, tuple(i))) or collate(e, i))
    for epoch in epochs:
        for step in fitted["steps"](epoch):
            for term in step:
                term(scored)
    return seen


def test_unlearning_trains_as_the_profile_says(profile, pair, examples, retained, fitted, monkeypatch):
    how = dict(weight_decay=0.3, max_grad_norm=0.7, precision="bf16", gradient_checkpointing=True)
    odd = dataclasses.replace(profile, unlearn_epochs=3, batch_size=3, family_lr={"GA": 7e-4}, **how)
    unlearned("GA+RT", odd, pair, examples, retained)
    assert {k: v for k, v in fitted.items() if k != "steps"} == how | dict(epochs=3, epoch_steps=3, lr=7e-4)
    read = collated(fitted, monkeypatch, pair[0], (0, 1))
    kept = [places for which, places in read if which is retained]
    assert len(kept) == 6 == len(set(kept)) and any(max(places) >= len(examples) for places in kept)  # of all, anew
    assert sorted(i for which, places in read[:6] if which is examples for i in places) == list(range(8))


def test_refusals_are_each_epochs_own(profile, pair, examples, retained, fitted, monkeypatch):
    unlearned("IDK", profile, pair, examples, retained)
    refusals = _refusals(examples, profile.unlearn_epochs)
    read = collated(fitted, monkeypatch, pair[0], (0, 1))
    for epoch, part in enumerate((read[: len(read) // 2], read[len(read) // 2 :])):
        assert part and all(which == refusals[8 * epoch : 8 * (epoch + 1)] for which, _ in part)


def test_finetuning_trains_as_it_is_told(profile, tiny_model, examples, fitted):
    how = dict(weight_decay=0.3, max_grad_norm=0.7, gradient_checkpointing=True)
    odd = dataclasses.replace(profile, **how)
    training.finetune(tiny_model(), examples, odd, epochs=2, lr=3e-4, batch_size=3, seed=0, precision="bf16")
    told = dict(epochs=2, epoch_steps=3, lr=3e-4, precision="bf16")
    assert {k: v for k, v in fitted.items() if k != "steps"} == how | told


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_method_changes_the_student_and_nothing_else(name, profile, pair, examples, retained):
    before = [copy.deepcopy(m.state_dict()) for m in pair]
    once = dataclasses.replace(profile, unlearn_epochs=1)
    student, history = unlearned(
        name, once, pair, examples, retained, on_epoch=lambda model, history: {"noted": len(history) - 1}
    )
    for model, weights in zip(pair, before, strict=True):
        assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
    assert not same_weights(student, pair[0])
    assert all(p.isfinite().all() for p in student.parameters())
    assert [e["epoch"] for e in history] == [1] and history[0]["noted"] == 0


@torch.no_grad()
def mean_nll(model, examples):
    batch = data.collate(examples, range(len(examples)))
    return torch.nn.functional.cross_entropy(models.ScoredLogits(model)(batch.input_ids, batch.mask), batch.targets)


@pytest.fixture(scope="module")
def knowing(profile, pair, examples):
    """(original, augmented): one that knows the forget answers, and one that knows them still better."""
    original = copy.deepcopy(pair[1])
    training.finetune(original, examples, profile, epochs=20, lr=5e-3, batch_size=4, seed=0)
    augmented = copy.deepcopy(original)
    training.finetune(augmented, examples, profile, epochs=5, lr=2e-3, batch_size=4, seed=0)
    return original, augmented.eval()


@pytest.mark.parametrize("name", [n for n in TRAINED if methods.METHODS[n].retain is None])
def test_unlearning_makes_the_forget_answers_less_likely(name, profile, knowing, examples):
    student, _ = unlearned(name, dataclasses.replace(profile, unlearn_epochs=4), knowing, examples, [])
    assert mean_nll(student, examples) > mean_nll(knowing[0], examples) + 0.1


def test_idk_and_the_kls_approach_what_they_are_shown(profile, knowing, examples):
    longer = dataclasses.replace(profile, unlearn_epochs=8)
    for name in ("RKLU", "FKLU", "IDK"):
        _, history = unlearned(name, longer, knowing, examples, [])
        assert history[-1]["loss"] < 0.7 * history[0]["loss"], name


def test_a_retain_term_without_a_retain_set_is_named(profile, pair, examples):
    with pytest.raises(
        ValueError, match=r"RKLU\+RT has a retain term and needs a retain set \(--retain\); RKLU does not"
    ):
        unlearned("RKLU+RT", profile, pair, examples, [])
    for name in ("TA", "teacher"):
        with pytest.raises(ValueError, match=f"{name} trains nothing"):
            unlearned(name, profile, pair, examples, [])


def test_the_retain_weight_weighs_the_retain_term(profile, pair, examples, retained):
    def run(name, weight):
        changed = dataclasses.replace(profile, unlearn_epochs=1, retain_weight=weight)
        return unlearned(name, changed, pair, examples, retained)

    assert same_weights(run("RKLU+RT", 0.0)[0], run("RKLU", 1.0)[0])
    assert not same_weights(run("RKLU+RT", 1.0)[0], run("RKLU", 1.0)[0])


@torch.no_grad()
@pytest.mark.parametrize("size", [None, 2])
def test_a_terms_micro_batches_sum_to_its_weight_times_the_mean(size, profile, tiny_model, examples):
    model, index = tiny_model(), [3, 0, 6]
    split = dataclasses.replace(profile, micro_batch_size=size)
    terms = training._terms(examples, index, split, methods.cross_entropy, weight=2.5)
    value = sum(term(models.ScoredLogits(model)) for term in terms)
    torch.testing.assert_close(value, 2.5 * mean_nll(model, [examples[i] for i in index]))


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_task_arithmetic_is_its_formula(tiny_model, scale):
    original, augmented = tiny_model(), tiny_model(seed=1)
    student = training.task_arithmetic(original, augmented, scale)
    rows = zip(*(m.state_dict().items() for m in (student, original, augmented)), strict=True)
    for (name, theta), (_, before), (_, raised) in rows:
        torch.testing.assert_close(theta, before - scale * (raised - before), msg=name)
    assert same_weights(original, tiny_model()) and same_weights(augmented, tiny_model(seed=1))
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight


def test_bf16_keeps_the_weights_in_float32_and_changes_little(profile, tiny_model, examples, monkeypatch):
    monkeypatch.setattr(training.models, "bf16", lambda precision: precision == "bf16")  # slow on some CPUs, but there
    results = {}
    for precision in ("no", "bf16"):
        model = tiny_model()
        history = training.finetune(
            model, examples, profile, epochs=4, lr=3e-3, batch_size=4, seed=0, precision=precision
        )
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        results[precision] = [e["loss"] for e in history]
    assert results["no"] != results["bf16"]  # it was in force
    assert results["bf16"] == pytest.approx(results["no"], rel=2e-2)
    assert results["no"][-1] < 0.8 * results["no"][0]


def test_bf16_weights_that_were_trained_under_autocast_are_scored_outside_it(
    profile, tiny_model, examples, monkeypatch
):
    monkeypatch.setattr(training.models, "bf16", lambda precision: precision == "bf16")
    model = tiny_model().bfloat16()
    training.finetune(model, examples, profile, epochs=1, lr=1e-4, batch_size=4, seed=0, precision="bf16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert np.isfinite(measure.score(model, examples)[0]).all()


def _trained(dtype, optimizer=None):
    """(losses of the epochs, displacement of all weights) after 200 steps at 1e-5 of a Llama-shaped model, from the
    same weights, those bf16 can hold, whatever the dtype."""
    with pytest.MonkeyPatch.context() as patch:
        if optimizer:
            patch.setattr(training, "adamw", optimizer)
        torch.manual_seed(0)
        shape = dict(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4)
        start = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)).bfloat16()
        model, batches = copy.deepcopy(start).to(dtype), []
        for k in range(8):
            ids = (torch.arange(12) * 7 + torch.randint(256, (4, 1), generator=torch.Generator().manual_seed(k))) % 256
            mask, rows = torch.ones(4, 11, dtype=torch.bool), torch.arange(4).repeat_interleave(11)
            batches.append(data.Batch(ids[:, :-1], mask, ids[:, 1:].flatten(), rows, (0, 1, 2, 3)))
        steps = lambda epoch: [[lambda s, b=b: methods.cross_entropy(s, b)] for b in batches * 5]  # noqa: E731
        history = training.fit(model, steps, epochs=5, epoch_steps=40, lr=1e-5)
    moved = [(p.float() - q.float()).flatten() for p, q in zip(model.parameters(), start.parameters(), strict=True)]
    return [e["loss"] for e in history], torch.cat(moved).detach()


def test_the_optimiser_is_the_one_its_docstring_argues_for():
    for dtype, betas in ((torch.float32, (0.9, 0.999)), (torch.bfloat16, (0.9, 0.99))):
        layer = torch.nn.Linear(2, 2, dtype=dtype)
        (group,) = training.adamw(layer, 1e-3, 0.01).param_groups
        held = group["betas"] if "betas" in group else (group["beta1"], group["beta2"])
        assert tuple(held) == betas and (group["lr"], group["weight_decay"]) == (1e-3, 0.01)


def test_bf16_weights_follow_float32_ones_where_plain_bf16_stands_still():
    plain = lambda model, lr, decay: torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)  # noqa: E731
    losses, moved = _trained(torch.float32)
    far = lambda other: ((other - moved).norm() / moved.norm()).item()  # noqa: E731
    kept_losses, kept = _trained(torch.bfloat16)
    lost_losses, lost = _trained(torch.bfloat16, plain)
    learnt = losses[0] - losses[-1]
    assert far(kept) < 0.15 and far(lost) > 0.8
    assert abs(kept_losses[-1] - losses[-1]) < 0.1 * learnt < 0.5 * abs(lost_losses[-1] - losses[-1])


def test_bf16_training_resumes_bit_by_bit(tmp_path, profile, tiny_model, examples):
    def run(folder, cut=None):
        def note(model, history):
            if len(history) - 1 == cut:
                raise Interrupted
            return {}

        model, lengths = tiny_model().bfloat16(), [len(e.prompt + e.answer) for e in examples]
        terms = lambda e: [  # noqa: E731
            training._terms(examples, index, profile, methods.cross_entropy)
            for index in data.epoch_order(lengths, 4, 0, e)
        ]
        training.fit(model, terms, epochs=3, epoch_steps=2, lr=1e-3, folder=folder, on_epoch=note)
        return model

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", cut=1)
    assert same_weights(run(tmp_path / "cut"), run(None))


def test_gradient_checkpointing_runs_layers_again_and_changes_nothing(profile, tiny_model, examples):
    def run(checkpointing):
        model, calls = tiny_model(), []
        model.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        p = dataclasses.replace(profile, gradient_checkpointing=checkpointing)
        training.finetune(model, examples, p, epochs=1, lr=1e-2, batch_size=4, seed=0)
        return model, len(calls)

    (plain, once), (again, twice) = run(False), run(True)
    assert same_weights(plain, again) and twice > once


def test_every_epoch_is_trained_with_dropout_though_it_was_judged_without(tiny_model):
    modes = []

    def loss(scored):
        modes.append(scored.training)
        return next(scored.parameters()).sum()

    judge = lambda model, history: {"training": model.eval().training}  # noqa: E731
    training.fit(tiny_model(), lambda epoch: [[loss]], epochs=3, epoch_steps=1, lr=1e-3, on_epoch=judge)
    assert modes == [True] * 3


def test_the_seed_orders_what_is_unlearnt_and_draws_what_is_kept(
    profile, pair, examples, retained, fitted, monkeypatch
):
    chosen, read = methods.method("GA+RT"), []
    for seed in (0, 0, 1):
        training.unlearn(chosen, profile, pair[0], methods.Aids(profile), examples, retained, seed=seed)
        read.append(list(collated(fitted, monkeypatch, pair[0], range(3))))
    for which in (examples, retained):
        one, again, other = ([places for of, places in part if of is which] for part in read)
        assert one == again != other


def test_the_seed_is_dropouts_too_where_there_is_nothing_else_to_draw(examples, profile, tokenizer):
    """One answer has one order, so that only dropout can tell two seeds apart."""
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=256, resid_pdrop=0.5)
    original, once = GPT2LMHeadModel(config), dataclasses.replace(profile, unlearn_epochs=1)

    def unlearnt(seed, drawn):
        torch.manual_seed(drawn)
        model = copy.deepcopy(original)
        training.unlearn(methods.method("GA"), once, model, methods.Aids(once), examples[:1], [], seed=seed)
        return model.lm_head.weight

    def tuned(seed, drawn):
        torch.manual_seed(drawn)
        model = copy.deepcopy(original)
        training.finetune(model, examples[:1], profile, epochs=1, lr=1e-3, batch_size=1, seed=seed)
        return model.lm_head.weight

    for of in (unlearnt, tuned):
        assert torch.equal(of(0, 1), of(0, 2)) and not torch.equal(of(0, 1), of(1, 1))


def test_the_seed_is_dropouts_too(examples, profile, tokenizer):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=256, resid_pdrop=0.5)
    original = GPT2LMHeadModel(config)

    def trained(seed, drawn):
        torch.manual_seed(drawn)  # whatever was drawn until then
        model = copy.deepcopy(original)
        training.finetune(model, examples, profile, epochs=1, lr=1e-3, batch_size=len(examples), seed=seed)
        return model.lm_head.weight

    assert torch.equal(trained(0, 1), trained(0, 2)) and not torch.equal(trained(0, 1), trained(1, 1))
