"""The table of methods: the paper's rows, each made in one place, each loss what its row says."""

import ast
import csv
import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import answer_logits
from transformers import LlamaConfig

from rklu_lib import data, losses, methods, models, training
from rklu_lib.teacher import teacher_logits

TABLE_8 = ("GA", "GA+KL", "GA+RT", "NPO", "NPO+KL", "NPO+RT", "DPO", "DPO+KL", "DPO+RT", "IDK", "TA")
TABLE_8 += ("RKLU", "RKLU+KL", "RKLU+RT")


NEWER = tuple(f + ending for f in ("SimNPO", "UNDIAL", "WGA", "JS", "RMU") for ending in ("", "+KL", "+RT"))
NEWER += ("RMU+MSE",)


def test_the_rows_are_table_8s_then_fklu_the_teacher_and_newer_ones():
    assert methods.TABLE_8 == TABLE_8
    assert methods.STUDY == (*TABLE_8, "FKLU", "FKLU+KL", "FKLU+RT", "teacher") and methods.NEWER == NEWER
    assert tuple(methods.METHODS) == (*methods.STUDY, *methods.NEWER)
    assert all(name == row.name for name, row in methods.METHODS.items())


def test_the_typed_table_8_names_no_method_that_is_missing():
    with (Path(data.ROOT) / "data" / "paper" / "table8.csv").open(encoding="utf-8") as file:
        printed = {row["method"] for row in csv.DictReader(file)}
    assert set(TABLE_8) <= printed
    assert {name for name in printed if name.split("+")[0] in {row.family for row in methods.METHODS.values()}} == set(
        TABLE_8
    )


def test_one_row_is_one_place():
    # A method is added by one row: no other module of the training path may branch on the name of a trained method.
    names = {name for name, row in methods.METHODS.items() if row.forget} - {"RKLU", "RKLU+KL", "RKLU+RT"}
    tree = ast.parse(inspect.getsource(training))
    compared = [n for n in ast.walk(tree) if isinstance(n, ast.Compare | ast.Match)]
    assert not {c.value for n in compared for c in ast.walk(n) if isinstance(c, ast.Constant)} & names
    table = inspect.getsource(methods).split("METHODS = {")[1].split("\n}")[0]
    for family in {row.family for row in methods.METHODS.values()}:
        assert table.count(f'"{family}"') in (1, 2) and table.count(f'("{family}", ') == 1


@pytest.mark.parametrize("family", ["GA", "NPO", "DPO", "RKLU", "FKLU", "SimNPO", "UNDIAL", "WGA", "JS", "RMU"])
def test_variants_differ_in_the_retain_term_alone(family):
    alone, kl, rt = (methods.method(family + ending) for ending in ("", "+KL", "+RT"))
    assert alone.retain is None and kl.retain is not None and rt.retain is not None and kl.retain is not rt.retain
    assert kl.needs == alone.needs | {methods.RETAIN_REFERENCE} and rt.needs == alone.needs
    for row in (kl, rt):
        assert (row.forget, row.family, row.unit) == (alone.forget, family, alone.unit)
    assert methods.method("GA+KL").retain is kl.retain and methods.method("GA+RT").retain is rt.retain


def test_only_what_is_needed_is_asked_for():
    asking = {name for name, row in methods.METHODS.items() if methods.AUGMENTED in row.needs}
    assert asking == {"TA", "teacher"} | {f + ending for f in ("RKLU", "FKLU", "JS") for ending in ("", "+KL", "+RT")}
    nothing = {name for name, row in methods.METHODS.items() if row.forget is None}
    assert nothing == {"TA", "teacher"}


def test_an_unknown_method_is_answered_with_the_rows():
    with pytest.raises(ValueError, match=r"no method 'RKL'; there are GA, GA\+KL, .*RKLU, .*teacher"):
        methods.method("RKL")


@pytest.fixture(scope="module")
def setting(tiny_model, profile, examples):
    """(student, original, augmented, refusals of two epochs, a batch of the forget set)."""
    student, original, augmented = (tiny_model(seed=k).eval() for k in (2, 0, 1))
    refusals = [data.Example(examples[i % 8].prompt, (*range(100, 101 + i % 5), 2)) for i in range(16)]
    return student, original, augmented, refusals, data.collate(examples, [3, 0, 6])


def log_probs(model, example):
    """Log-probabilities (answer tokens, vocab) by one plain forward."""
    return answer_logits(model, example).log_softmax(-1)


def early(model, example):
    """What the first quarter of the layers, at least one, makes of an answer's tokens: (answer tokens, hidden)."""
    seen = []
    layer = model.model.layers[max(1, model.config.num_hidden_layers // 4) - 1]
    handle = layer.register_forward_hook(
        lambda module, given, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    log_probs(model, example)
    handle.remove()
    return seen[0][0, len(example.prompt) - 1 : -1]


def sums(model, chosen):
    """log p(answer) of each example, (n,), nats."""
    return torch.stack([log_probs(model, e).gather(-1, torch.tensor(e.answer)[:, None]).sum() for e in chosen])


def tokenwise(model, chosen):
    values = [log_probs(model, e).gather(-1, torch.tensor(e.answer)[:, None]) for e in chosen]
    return -torch.cat(values).mean()


def expected_forget_loss(family, profile, setting, examples, epoch):
    """The definition of each method's forget loss, from plain forwards of one example at a time."""
    student, original, augmented, refusals, batch = setting
    chosen = [examples[i] for i in batch.index]
    refused = [refusals[8 * epoch + i] for i in batch.index]
    if family == "GA":
        return -tokenwise(student, chosen)
    if family == "IDK":
        return tokenwise(student, refused)
    answer = sums(student, chosen) - sums(original, chosen)
    if family == "NPO":
        return (2 / profile.npo_beta * torch.log1p(torch.exp(profile.npo_beta * answer))).mean()
    if family == "DPO":
        refusal = sums(student, refused) - sums(original, refused)
        return -torch.log(torch.sigmoid(profile.dpo_beta * (refusal - answer))).mean()
    if family == "SimNPO":
        each = sums(student, chosen) / torch.tensor([len(e.answer) for e in chosen])
        return (2 / profile.simnpo_beta * torch.log1p(torch.exp(profile.simnpo_beta * each))).mean()
    if family == "RMU":
        way = torch.rand(student.config.hidden_size, generator=torch.Generator().manual_seed(0))
        way *= profile.rmu_steering / way.square().sum().sqrt()
        return torch.cat([(early(student, e) - way) ** 2 for e in chosen]).mean()
    p, targets = torch.cat([log_probs(student, e) for e in chosen]), torch.tensor([t for e in chosen for t in e.answer])
    if family == "WGA":
        log_p = p.gather(-1, targets[:, None])
        return (log_p.exp() ** profile.wga_beta * log_p).mean()
    if family == "UNDIAL":
        lowered = torch.cat([log_probs(original, e) for e in chosen])
        lowered[range(len(targets)), targets] -= profile.undial_beta
        t = lowered.log_softmax(-1)
        return (t.exp() * (t - p)).sum(-1).mean()
    # log-probabilities of Eq. 1 must come from logits, whose constant the softmax would lose
    pair = [torch.cat([answer_logits(m, e) for e in chosen]) for m in (original, augmented)]
    t = teacher_logits(*pair, profile.alpha).log_softmax(-1)
    if family == "JS":  # at 0.5 it is four times Jensen and Shannon's divergence
        middle = (0.5 * p.exp() + 0.5 * t.exp()).log()
        return 4 * sum(0.5 * (x.exp() * (x - middle)).sum(-1).mean() for x in (p, t))
    one, other = (p, t) if family == "RKLU" else (t, p)
    return (one.exp() * (one - other)).sum(-1).mean()


@torch.no_grad()
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("family", ["GA", "NPO", "DPO", "IDK", "RKLU", "FKLU", "SimNPO", "UNDIAL", "WGA", "JS", "RMU"])
def test_each_forget_loss_is_its_definition(family, epoch, profile, setting, examples):
    student, original, augmented, refusals, batch = setting
    aids = methods.prepare(methods.method(family), profile, original, augmented, examples, [], refusals)
    if methods.method(family).on == "refusals":  # as the training loop collates it
        batch = data.collate(refusals[8 * epoch : 8 * (epoch + 1)], batch.index)
    value = methods.method(family).forget(models.ScoredLogits(student), batch, aids, epoch)
    expected = expected_forget_loss(family, profile, setting, examples, epoch)
    torch.testing.assert_close(value, expected, rtol=2e-4, atol=1e-5)


@torch.no_grad()
def test_each_retain_loss_is_its_definition(profile, setting, examples):
    student, original, augmented, refusals, batch = setting
    chosen = [examples[i] for i in batch.index]
    scored = models.ScoredLogits(student)
    row = methods.method("GA+RT")
    aids = methods.prepare(row, profile, original, None, [], examples, [])
    torch.testing.assert_close(row.retain(scored, batch, aids, 0), tokenwise(student, chosen), rtol=1e-4, atol=1e-5)
    row = methods.method("GA+KL")
    aids = methods.prepare(row, profile, original, None, [], examples, [])
    p, o = (torch.cat([log_probs(m, e) for e in chosen]) for m in (student, original))
    expected = (o.exp() * (o - p)).sum(-1).mean()
    torch.testing.assert_close(row.retain(scored, batch, aids, 0), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rmus_own_retain_loss_is_the_distance_of_early_states(profile, setting, examples):
    student, original, _, _, batch = setting
    row, chosen = methods.method("RMU+MSE"), [examples[i] for i in batch.index]
    aids = methods.prepare(row, profile, original, None, [], examples, [])
    expected = torch.cat([(early(student, e) - early(original, e)) ** 2 for e in chosen]).mean()
    torch.testing.assert_close(row.retain(models.ScoredLogits(student), batch, aids, 0), expected, rtol=1e-4, atol=1e-6)


def test_rmu_is_openunlearnings_for_one_answer_and_moves_the_first_layers_alone(profile, setting, examples):
    """Its `compute_activation_loss` (src/trainer/unlearn/rmu.py, commit d3d7cf9), which for several answers multiplies
    their sums by the mean of their inverse lengths, (b,) by (b, 1)."""
    student, original, *_ = setting
    row, batch = methods.method("RMU"), data.collate(examples, [3])
    aids = methods.prepare(row, profile, original, None, examples, [], [])
    loss = row.forget(models.ScoredLogits(student), batch, aids, 0)
    vector = torch.rand(1, 1, student.config.hidden_size, generator=torch.Generator().manual_seed(0))
    vector = vector / torch.norm(vector) * 2.0
    out = student(input_ids=batch.input_ids, output_hidden_states=True).hidden_states[1]
    squared = torch.nn.functional.mse_loss(out, vector.expand_as(out), reduction="none")
    total = (squared * batch.mask.unsqueeze(-1).expand_as(squared)).mean(dim=2).sum(dim=1)
    torch.testing.assert_close(loss, (total / batch.mask.sum(dim=-1, keepdim=True)).mean())
    loss.backward()
    moved = {n.split(".")[2] for n, p in student.named_parameters() if ".layers." in n and p.grad is not None}
    student.zero_grad()
    assert moved == {"0"} and student.config.num_hidden_layers > 1


@pytest.mark.parametrize(("layers", "depth"), [(1, 1), (4, 1), (16, 4), (32, 8)])
def test_rmu_takes_the_states_of_the_layer_that_was_published(layers, depth):
    """Of 32 layers the eighth, which the published code calls `model.layers.7`; of other models the same share."""
    assert methods._early(SimpleNamespace(config=LlamaConfig(num_hidden_layers=layers))) == depth


def test_rmu_is_one_processs_work(monkeypatch):
    monkeypatch.setattr(methods.parallel, "processes", lambda: 2)
    with pytest.raises(ValueError, match="RMU trains the first layers alone"):
        methods.check(methods.method("RMU"), [])


@torch.no_grad()
@pytest.mark.parametrize("name", ["NPO", "DPO", "RKLU+KL"])
def test_at_the_start_student_and_reference_agree(name, profile, setting, examples):
    _, original, augmented, refusals, batch = setting
    row, scored = methods.method(name), models.ScoredLogits(original)
    aids = methods.prepare(row, profile, original, augmented, examples, examples, refusals)
    if name == "NPO":
        expected = 2 / profile.npo_beta * torch.tensor(2.0).log()
        torch.testing.assert_close(row.forget(scored, batch, aids, 0), expected, rtol=1e-5, atol=0)
    elif name == "DPO":
        torch.testing.assert_close(row.forget(scored, batch, aids, 0), torch.tensor(2.0).log(), rtol=1e-4, atol=0)
    else:
        assert row.retain(scored, batch, aids, 0) < 1e-6


def test_profiles_betas_and_alpha_reach_the_losses(profile, setting, examples):
    student, original, augmented, refusals, batch = setting
    fields = [("NPO", "npo_beta"), ("DPO", "dpo_beta"), ("RKLU", "alpha"), ("FKLU", "alpha"), ("SimNPO", "simnpo_beta")]
    for name, field in (
        *fields,
        ("UNDIAL", "undial_beta"),
        ("WGA", "wga_beta"),
        ("JS", "alpha"),
        ("JS", "js_beta"),
        ("RMU", "rmu_steering"),
    ):
        values = []
        for setting_ in (0.1, 1.0) if field == "js_beta" else (0.5, 3.0):
            changed = dataclasses.replace(profile, **{field: setting_})
            aids = methods.prepare(methods.method(name), changed, original, augmented, examples, [], refusals)
            values.append(methods.method(name).forget(models.ScoredLogits(student), batch, aids, 0).item())
        assert abs(values[0] - values[1]) > 1e-3, field


@torch.no_grad()
@pytest.mark.parametrize("gauge", ["raw", "centred", "normalised"])
def test_the_profiles_gauge_reaches_the_teacher(gauge, profile, setting, examples):
    student, original, augmented, _, batch = setting
    chosen, changed = [examples[i] for i in batch.index], dataclasses.replace(profile, gauge=gauge)
    aids = methods.prepare(methods.method("RKLU"), changed, original, augmented, examples, [], [])
    value = methods.method("RKLU").forget(models.ScoredLogits(student), batch, aids, 0)
    pair = [torch.cat([answer_logits(m, e) for e in chosen]) for m in (original, augmented)]
    p = torch.cat([log_probs(student, e) for e in chosen])
    t = teacher_logits(*pair, profile.alpha, gauge).log_softmax(-1)
    torch.testing.assert_close(value, (p.exp() * (p - t)).sum(-1).mean(), rtol=2e-4, atol=1e-5)


def test_token_losses_are_called_on_scored_tokens_only(profile, setting, examples, monkeypatch):
    # prompt and padding never reach a loss: what arrives is one row per answer token, and all of it is scored
    student, original, augmented, _, batch = setting
    seen, real = [], losses.from_hidden

    def watched(loss, hidden, head, targets):
        seen.append((loss, hidden.shape[0], targets(0, None).shape))
        return real(loss, hidden, head, targets)

    monkeypatch.setattr(losses, "from_hidden", watched)
    aids = methods.prepare(methods.method("RKLU"), profile, original, augmented, examples, [], [])
    for family in ("RKLU", "FKLU", "GA"):
        methods.method(family).forget(models.ScoredLogits(student), batch, aids, 0)
    tokens = sum(len(examples[i].answer) for i in batch.index)
    logits = (tokens, student.config.vocab_size)
    assert seen == [
        ("reverse_kl", tokens, logits),
        ("forward_kl", tokens, logits),
        ("cross_entropy", tokens, (tokens,)),
    ]


def test_refusals_are_drawn_for_every_question_and_epoch(profile, tokenizer, examples):
    n, more = len(examples), dataclasses.replace(profile, unlearn_epochs=4)
    drawn = methods.refused(more, tokenizer, examples, seed=0)
    assert [e.prompt for e in drawn] == [e.prompt for e in examples] * 4
    assert {e.answer for e in drawn} <= {data.encode_answer(tokenizer, profile.template, t) for t in data.refusals()}
    said = [[e.answer for e in drawn[n * k : n * (k + 1)]] for k in range(4)]
    assert len({a for epoch in said for a in epoch}) > n and said[0] != said[1]
    assert drawn == methods.refused(more, tokenizer, examples, seed=0)
    assert drawn != methods.refused(more, tokenizer, examples, seed=1)
