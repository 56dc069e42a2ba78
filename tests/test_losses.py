"""Losses against closed forms, scipy and finite differences; properties that hold for every logit and mask."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from rklu_lib import losses
from rklu_lib.teacher import teacher_logits

KLS = (losses.reverse_kl, losses.forward_kl)
LOGITS = st.floats(-30, 30, width=32)


@st.composite
def pairs(draw):
    """(student, teacher, mask): two sets of logits (batch, seq, vocab) in float64 and a mask that is not empty."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(2, 6)))
    student, teacher = (draw(hnp.arrays(np.float64, shape, elements=LOGITS)) for _ in range(2))
    mask = draw(hnp.arrays(bool, shape[:2]).filter(np.any))
    return tuple(map(torch.from_numpy, (student, teacher, mask)))


def slow_kl(p_logits, q_logits, mask):
    """KL(p || q) in nats per unmasked token, token by token, from scipy's definition of relative entropy."""
    values = []
    for p, q, kept in zip(p_logits.flatten(0, -2), q_logits.flatten(0, -2), mask.flatten(), strict=True):
        if kept:
            values.append(special.rel_entr(special.softmax(p.numpy()), special.softmax(q.numpy())).sum())
    return np.mean(values)


@given(pairs())
def test_reverse_kl_is_kl_of_student_from_teacher(pair):
    student, teacher, mask = pair
    assert losses.reverse_kl(*pair).item() == pytest.approx(slow_kl(student, teacher, mask), rel=1e-9, abs=1e-12)


@given(pairs())
def test_forward_kl_is_kl_of_teacher_from_student(pair):
    student, teacher, mask = pair
    assert losses.forward_kl(*pair).item() == pytest.approx(slow_kl(teacher, student, mask), rel=1e-9, abs=1e-12)


def test_the_two_directions_by_hand():
    student, teacher = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    mask = torch.tensor([True])
    reverse, forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert losses.reverse_kl(student, teacher, mask).item() == pytest.approx(reverse, rel=1e-6)
    assert losses.forward_kl(student, teacher, mask).item() == pytest.approx(forward, rel=1e-6)


@pytest.mark.parametrize("kl", KLS)
@given(pair=pairs(), shift=st.floats(-50, 50))
def test_kl_is_zero_only_at_the_teacher_and_blind_to_a_shift(kl, pair, shift):
    student, teacher, mask = pair
    value = kl(*pair).item()
    assert value >= -1e-14
    assert abs(kl(student, student + shift, mask).item()) < 1e-12
    assert kl(student + shift, teacher, mask).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert kl(student, teacher - shift, mask).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    gap = (student.softmax(-1) - teacher.softmax(-1))[mask].abs().sum(-1)
    # Pinsker: KL >= (L1 distance)^2 / 2, so where the softmaxes differ the divergence cannot be zero.
    assert value >= (gap**2 / 2).mean().item() - 1e-14


@pytest.mark.parametrize("kl", KLS)
@given(pair=pairs(), noise=st.sampled_from([7.0, -1e6, math.inf, math.nan]))
def test_what_stands_at_masked_positions_changes_nothing(kl, pair, noise):
    student, teacher, mask = pair
    noisy = [torch.where(mask[..., None], t, noise).requires_grad_() for t in (student, teacher)]
    value = kl(*noisy, mask)
    value.backward()
    assert value.item() == kl(*pair).item()
    assert noisy[0].grad[~mask].count_nonzero() == 0
    assert noisy[0].grad.isfinite().all()


@given(pairs())
def test_gradients_are_those_the_docstrings_state(pair):
    student, teacher, mask = pair
    p, t = student.softmax(-1), teacher.softmax(-1)
    log_ratio = student.log_softmax(-1) - teacher.log_softmax(-1)
    divergence = (p * log_ratio).sum(-1, keepdim=True)
    share = (mask.double() / mask.sum())[..., None]
    for kl, expected in ((losses.reverse_kl, p * (log_ratio - divergence)), (losses.forward_kl, p - t)):
        (gradient,) = torch.autograd.grad(kl(student.requires_grad_(), teacher, mask), student)
        torch.testing.assert_close(gradient, expected.detach() * share, rtol=1e-9, atol=1e-12)


def _float64(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


MASK = torch.tensor([[True, False, True], [True, True, False]])
TARGETS = torch.tensor([[3, 0, 1], [4, 2, 0]])
HEAD = _float64(7, 5, seed=8).detach(), _float64(7, seed=9).detach()


@pytest.mark.parametrize("kl", KLS)
def test_gradcheck_of_the_divergences(kl):
    assert torch.autograd.gradcheck(lambda s, t: kl(s, t, MASK), (_float64(2, 3, 5), _float64(2, 3, 5, seed=1)))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: losses.cross_entropy(x, TARGETS, MASK),
        lambda x: losses.gradient_ascent(x, TARGETS, MASK),
        lambda x: losses.sequence_log_probs(x[MASK], HEAD, TARGETS[MASK], torch.tensor([0, 0, 1, 1]), 2, chunk=3),
        lambda x: losses.npo(x[0, 0], x[0, 1], 0.7),
        lambda x: losses.dpo(x[0, 0], x[0, 1], x[0, 2], x[1, 0], 0.7),
    ],
)
def test_gradcheck_of_the_other_losses(loss):
    assert torch.autograd.gradcheck(loss, (_float64(2, 3, 5),))


@pytest.mark.parametrize("kl", KLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("lowered", ["student", "teacher", "both", "apart"])
def test_kl_and_its_gradient_stay_finite_at_vanishing_probabilities(kl, dtype, lowered):
    student, teacher = torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)
    if lowered in ("student", "both", "apart"):
        student[..., 1] = -1e4
    if lowered in ("teacher", "both"):
        teacher[..., 1] = -1e4
    if lowered == "apart":
        teacher[..., 2] = -1e4
    student = student.to(dtype).requires_grad_()
    value = kl(student, teacher.to(dtype), torch.ones(1, 2, dtype=torch.bool))
    value.backward()
    assert value.dtype == torch.float32 and value.isfinite()
    assert student.grad.isfinite().all()
    if lowered == "both":
        assert value.item() == 0


def test_reverse_kl_of_a_token_both_exclude_has_no_nan():
    student = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    teacher = torch.tensor([[0.0, 0.5, -math.inf]])
    value = losses.reverse_kl(student, teacher, torch.tensor([True]))
    value.backward()
    expected = special.rel_entr(special.softmax([0, 1.0]), special.softmax([0, 0.5])).sum()
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert student.grad.isfinite().all()


def test_bfloat16_logits_are_compared_in_float32():
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(4, 7, 50, generator=generator).bfloat16() for _ in range(2))
    mask = torch.rand(4, 7, generator=generator) < 0.5
    for kl, sides in ((losses.reverse_kl, (student, teacher)), (losses.forward_kl, (teacher, student))):
        assert kl(student, teacher, mask).item() == pytest.approx(slow_kl(*(s.double() for s in sides), mask), rel=1e-5)


@given(pairs(), st.integers(0, 2**31))
def test_cross_entropy_is_minus_the_mean_log_probability_of_the_targets(pair, seed):
    logits, _, mask = pair
    targets = torch.randint(logits.shape[-1], mask.shape, generator=torch.Generator().manual_seed(seed))
    log_p = special.log_softmax(logits.numpy(), axis=-1)
    kept = [log_p[b, s, targets[b, s]] for b, s in mask.nonzero().tolist()]
    assert losses.cross_entropy(logits, targets, mask).item() == pytest.approx(-np.mean(kept), rel=1e-9, abs=1e-12)
    assert losses.gradient_ascent(logits, targets, mask).item() == -losses.cross_entropy(logits, targets, mask).item()
    ignored = torch.where(mask, targets, 0)
    assert losses.cross_entropy(logits, ignored, mask) == losses.cross_entropy(logits, targets, mask)


def test_sequence_log_probs_sums_each_sequence_and_does_not_normalise():
    hidden, targets = _float64(6, 5).detach(), torch.tensor([1, 2, 3, 4, 5, 6])
    logits = torch.nn.functional.linear(hidden, *HEAD)
    rows = torch.tensor([0, 2, 0, 3, 2, 0])  # row 1 has no token
    log_p = special.log_softmax(logits.numpy(), axis=-1)
    expected = [sum(log_p[i, targets[i]] for i in range(6) if rows[i] == row) for row in range(4)]
    values = losses.sequence_log_probs(hidden, HEAD, targets, rows, 4, chunk=4)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)
    assert values[1] == 0


LOG_PROBS = hnp.arrays(np.float64, st.shared(st.integers(1, 5), key="n"), elements=st.floats(-200, 0))


@given(LOG_PROBS, LOG_PROBS, st.floats(0.01, 5))
def test_npo_is_its_published_formula(answer, reference, beta):
    value = losses.npo(torch.from_numpy(answer), torch.from_numpy(reference), beta).item()
    # 2/beta log(1 + (pi / pi_ref)^beta), in logarithms, since the ratio itself overflows
    assert value == pytest.approx(np.mean(2 / beta * np.logaddexp(0, beta * (answer - reference))), rel=1e-9, abs=1e-12)


def test_npo_becomes_gradient_ascent_as_beta_vanishes():
    answer = torch.tensor([-3.0, -7.0], dtype=torch.float64, requires_grad=True)
    losses.npo(answer, torch.tensor([-2.0, -9.0], dtype=torch.float64), 1e-8).backward()
    # the gradient of the mean of +log pi, which is what gradient ascent descends
    torch.testing.assert_close(answer.grad, torch.full_like(answer, 0.5), rtol=1e-7, atol=0)


@given(LOG_PROBS, LOG_PROBS, LOG_PROBS, LOG_PROBS, st.floats(0.01, 5))
def test_dpo_is_its_published_formula(refusal, refusal_reference, answer, answer_reference, beta):
    four = (refusal, refusal_reference, answer, answer_reference)
    value = losses.dpo(*map(torch.from_numpy, four), beta).item()
    margin = beta * ((refusal - refusal_reference) - (answer - answer_reference))
    assert value == pytest.approx(-np.mean(special.log_expit(margin)), rel=1e-9, abs=1e-12)


def test_dpo_prefers_the_refusal():
    values = torch.tensor([-5.0], requires_grad=True), torch.tensor([-5.0], requires_grad=True)
    losses.dpo(values[0], torch.tensor([-5.0]), values[1], torch.tensor([-5.0]), 0.1).backward()
    assert values[0].grad < 0 < values[1].grad


# The values that public code gives for sines: OpenUnlearning (commit d3d7cf9), trainer/utils.py's compute_wga_loss and
# compute_undial_loss and trainer/unlearn/simnpo.py's forget loss (delta 0), with a model that returns these logits.
# TRL's GKDTrainer.generalized_jsd_loss as it is since its mixture is one of probabilities. Labels: WGA_LABELS, of which
# -100 is not scored; for UNDIAL, which scores every position but the last, UNDIAL_LABELS.
WGA_LABELS = torch.tensor([[-100, -100, 3, 0, 6], [-100, 2, 5, 4, -100]])
UNDIAL_LABELS = torch.tensor([[0, 1, 3, 0, 6], [1, 2, 5, 4, 2]])
WGA = {1.0: -0.2526834469319852, 0.5: -0.526794120891149}
SIMNPO = {4.5: 9.865337064803693e-05, 0.7: 0.6079268828679648}
JSD = {0.1: 0.08258778779211821, 0.5: 0.21045849463340938, 0.9: 0.08425784679563651}
UNDIAL = 2.51790850622714


def sines(k):
    return 3 * torch.sin(torch.arange(70, dtype=torch.float64) * 0.7311 + k).view(2, 5, 7)


def shifted(labels):
    """(targets, mask) at the positions that predict them."""
    return labels[:, 1:].clamp(min=0), labels[:, 1:] != -100


@pytest.mark.parametrize("beta", WGA)
def test_wga_is_openunlearnings(beta):
    targets, mask = shifted(WGA_LABELS)
    value = losses.weighted_ascent(sines(0)[:, :-1], targets, mask, beta)
    assert value.item() == pytest.approx(WGA[beta], rel=1e-9)


@pytest.mark.parametrize("beta", SIMNPO)
def test_simnpo_is_openunlearnings(beta):
    targets, mask = shifted(WGA_LABELS)
    each = sines(0)[:, :-1].log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    value = losses.simnpo((each * mask).sum(-1), mask.sum(-1), beta)
    assert value.item() == pytest.approx(SIMNPO[beta], rel=1e-9)


def test_undial_is_openunlearnings_less_the_targets_entropy():
    targets, mask = shifted(UNDIAL_LABELS)
    lowered = sines(1)[:, :-1].scatter_add(-1, targets[..., None], torch.full((2, 4, 1), -10.0, dtype=torch.float64))
    entropy = np.mean([special.entr(special.softmax(row)).sum() for row in lowered.reshape(-1, 7).numpy()])
    value = losses.forward_kl(sines(0)[:, :-1], lowered, mask).item()
    assert value + entropy == pytest.approx(UNDIAL, rel=1e-9)


@pytest.mark.parametrize("beta", JSD)
def test_jensen_shannon_is_trls_over_beta_one_minus_beta(beta):
    _, mask = shifted(WGA_LABELS)
    value = losses.jensen_shannon(sines(0)[:, :-1], sines(1)[:, :-1], mask, beta).item()
    assert value * beta * (1 - beta) == pytest.approx(JSD[beta], rel=1e-9)


@given(pairs(), st.floats(0.01, 0.99))
def test_jensen_shannon_is_its_published_formula_and_its_gradient_what_it_states(pair, beta):
    student, teacher, mask = pair
    p, t = student.softmax(-1), teacher.softmax(-1)
    middle = beta * t + (1 - beta) * p
    kl = lambda one: special.rel_entr(one[mask].numpy(), middle[mask].numpy()).sum(-1).mean()  # noqa: E731
    expected = (beta * kl(t) + (1 - beta) * kl(p)) / (beta * (1 - beta))
    value = losses.jensen_shannon(student.requires_grad_(), teacher, mask, beta)
    assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-10)
    (gradient,) = torch.autograd.grad(value, student)
    ratio = (p / middle).clamp(min=1e-300).log()
    stated = p * (ratio - (p * ratio).sum(-1, keepdim=True)) / beta * (mask.double() / mask.sum())[..., None]
    torch.testing.assert_close(gradient, stated.detach(), rtol=1e-6, atol=1e-10)


def test_jensen_shannon_joins_the_two_divergences():
    student, teacher, mask = sines(0), sines(1), torch.ones(2, 5, dtype=torch.bool)
    forward, reverse = (kl(student, teacher, mask).item() for kl in (losses.forward_kl, losses.reverse_kl))
    ends = [losses.jensen_shannon(student, teacher, mask, b).item() for b in (0.0, 1.0)]
    assert ends == [forward, reverse]
    near = [losses.jensen_shannon(student, teacher, mask, b).item() for b in (1e-5, 1 - 1e-5)]
    assert near == pytest.approx(ends, rel=1e-2) and near != ends


def test_wga_weighs_gradient_ascent_by_a_constant():
    logits, targets, mask = _float64(2, 3, 5), TARGETS, MASK
    log_p = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    expected = torch.autograd.grad((log_p.detach().exp() ** 2 * log_p)[mask].mean(), logits)
    found = torch.autograd.grad(losses.weighted_ascent(logits, targets, mask, 2.0), logits)
    torch.testing.assert_close(found, expected)
    assert losses.weighted_ascent(logits, targets, mask, 0.0) == losses.gradient_ascent(logits, targets, mask)


@given(LOG_PROBS, st.floats(0.01, 5))
def test_simnpo_is_its_published_formula(answer, beta):
    length = np.arange(1, len(answer) + 1)
    value = losses.simnpo(torch.from_numpy(answer), torch.from_numpy(length), beta).item()
    assert value == pytest.approx(np.mean(2 / beta * np.logaddexp(0, beta * answer / length)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("beta", [0, -0.1])
def test_beta_must_be_positive(beta):
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="npo_beta must be > 0"):
        losses.npo(one, one, beta)
    with pytest.raises(ValueError, match="simnpo_beta must be > 0"):
        losses.simnpo(one, one, beta)
    with pytest.raises(ValueError, match="dpo_beta must be > 0"):
        losses.dpo(one, one, one, one, beta)


@pytest.mark.parametrize("loss", [losses.reverse_kl, losses.forward_kl, losses.cross_entropy, losses.gradient_ascent])
def test_a_mask_that_cannot_be_meant_raises(loss):
    logits = torch.zeros(2, 3, 4)
    other = logits if loss in KLS else torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match="mask must be boolean"):
        loss(logits, other, torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="selects no token, so there is no loss"):
        loss(logits, other, torch.zeros(2, 3, dtype=torch.bool))
    for shape in ((3, 3), (2,), (), (2, 3, 4)):  # a mask of rows would average over prompts and padding
        with pytest.raises(ValueError, match="^mask .* do not fit each other"):
            loss(logits, other, torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.weighted_ascent])
def test_ids_are_token_ids_of_any_width_and_not_the_ignored_label(loss):
    logits, ids, mask = torch.randn(2, 3, 4), torch.tensor([[0, 1, -100], [3, 2, -100]]), torch.ones(2, 3).bool()
    with pytest.raises(ValueError, match="no token id from 0 to 3; mask = labels != -100"):
        loss(logits, ids, mask)
    assert loss(logits, ids.int(), ids != -100) == loss(logits[:, :2], ids[:, :2], mask[:, :2])


def test_a_padded_vocabulary_costs_the_kls_nothing():
    student, teacher = _float64(2, 3, 5).requires_grad_(), _float64(2, 3, 5)
    mask, nothing = torch.ones(2, 3).bool(), torch.full((2, 3, 2), -torch.inf, dtype=torch.float64)
    for kl in KLS:
        plain = kl(student, teacher, mask)
        padded = kl(torch.cat([student, nothing], -1), torch.cat([teacher, nothing], -1), mask)
        assert padded.item() == pytest.approx(plain.item(), rel=1e-12)
        grads = [torch.autograd.grad(value, student)[0] for value in (plain, padded)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("kl", KLS)
@pytest.mark.parametrize("vocab", [1, 5])
def test_two_vocabularies_raise(kl, vocab):
    with pytest.raises(ValueError, match="shape"):
        kl(torch.zeros(2, 3, 4), torch.zeros(2, 3, vocab), torch.ones(2, 3, dtype=torch.bool))


FUSED = [("reverse_kl", {}), ("forward_kl", {}), ("cross_entropy", {}), ("weighted_ascent", {"wga_beta": 0.7})]
FUSED += [("jensen_shannon", {"js_beta": b}) for b in (0.0, 0.3, 1.0)]


@pytest.mark.parametrize(("loss", "settings"), FUSED)
@pytest.mark.parametrize("biased", [True, False])
@given(seed=st.integers(0, 2**31), tokens=st.integers(1, 9), chunk=st.integers(1, 10), scale=st.floats(0.1, 30))
def test_from_hidden_is_the_loss_on_the_logits_with_autograds_gradients(
    loss, settings, biased, seed, tokens, chunk, scale
):
    hidden, weight = _float64(tokens, 4, seed=seed), _float64(6, 4, seed=seed + 1)
    bias = _float64(6, seed=seed + 2) if biased else None
    held = scale * _float64(tokens, 6, seed=seed + 3).detach()
    if loss in ("cross_entropy", "weighted_ascent"):
        held = held.argmax(-1)
    leaves = [t for t in (hidden, weight, bias) if t is not None]
    logits = torch.nn.functional.linear(hidden, weight, bias)
    expected = getattr(losses, loss)(logits, held, torch.ones(tokens, dtype=torch.bool), **settings)
    gradients = torch.autograd.grad(3 * expected, leaves)
    value = losses.from_hidden(loss, hidden, (weight, bias), lambda start, stop: held[start:stop], chunk, **settings)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    for one, other in zip(torch.autograd.grad(3 * value, leaves), gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", ["reverse_kl", "forward_kl", "jensen_shannon"])
def test_from_hidden_stays_finite_where_the_teacher_has_nothing(loss):
    hidden, teacher = torch.eye(3)[:2].requires_grad_(), torch.zeros(2, 5)
    weight = torch.full((5, 3), -1e4).requires_grad_()
    with torch.no_grad():
        weight[:2] = 0
    teacher[:, 0] = -1e4
    value = losses.from_hidden(loss, hidden, (weight, None), lambda a, b: teacher[a:b].bfloat16())
    value.backward()
    assert value.isfinite() and hidden.grad.isfinite().all() and weight.grad.isfinite().all()


def test_from_hidden_computes_only_the_gradients_that_are_asked_for():
    hidden, weight = _float64(3, 4), _float64(6, 4, seed=1).detach()
    value = losses.from_hidden("cross_entropy", hidden, (weight, None), lambda a, b: torch.arange(3)[a:b])
    value.backward()
    assert hidden.grad is not None and weight.grad is None


def test_from_hidden_refuses_what_it_cannot_do():
    hidden, head = _float64(3, 5), HEAD
    with pytest.raises(ValueError, match="loss must be one of reverse_kl, forward_kl, cross_entropy, .*, not 'npo'"):
        losses.from_hidden("npo", hidden, head, None)
    for states, chunk in ((hidden[:0], 128), (hidden[None], 128), (hidden, 0)):
        with pytest.raises(ValueError, match="hidden is .tokens, hidden., tokens > 0, chunk > 0"):
            losses.from_hidden("reverse_kl", states, head, None, chunk)
    vocab = len(HEAD[0])
    for wanted in ([0, -100, 1], [0, vocab, 1], [0, 1]):
        with pytest.raises(ValueError, match="no token id from 0 to .*-100|do not fit 3 tokens"):
            losses.from_hidden("cross_entropy", hidden, head, lambda a, b, ids=wanted: torch.tensor(ids)[a:b])
    with pytest.raises(ValueError, match="do not fit 3 tokens"):  # one row would be taken for all tokens
        losses.from_hidden("reverse_kl", hidden, head, lambda a, b: _float64(1, vocab))
    for beta in (2.0, float("nan")):
        with pytest.raises(ValueError, match="js_beta must be in"):
            losses.from_hidden("jensen_shannon", hidden, head, lambda a, b: _float64(3, vocab)[a:b], js_beta=beta)
    value = losses.from_hidden("cross_entropy", hidden, head, lambda a, b: torch.arange(3)[a:b])
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used up by the first backward pass"):
        value.backward()


TOKENS, WIDTH, VOCAB = 150, 1024, 2000  # more tokens than one chunk holds


@pytest.fixture(scope="module")
def large():
    """(hidden, {"original", "augmented", "student"} -> head weight), bf16: |logit| up to 15, as of a model of 7 B."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator)
    base, tuned, moved = (torch.randn(VOCAB, WIDTH, generator=generator) for _ in range(3))
    heads = {"original": base, "augmented": base + 0.1 * tuned, "student": base + 0.05 * moved}
    heads = {name: (w * 3.2 / w.norm(dim=1, keepdim=True)).bfloat16() for name, w in heads.items()}
    assert 13 < max((hidden.bfloat16() @ w.T).abs().max() for w in heads.values()) < 18
    return hidden.bfloat16(), heads


def _gradients(hidden, heads, dtype):
    """{loss: its gradients by (hidden, student's head)}, in float64, from weights and states of a dtype."""
    rows, targets, gradients = torch.arange(TOKENS) // 30, torch.arange(TOKENS) % VOCAB, {}
    heads, frozen = {k: w.to(dtype) for k, w in heads.items()}, hidden.to(dtype)
    hidden, weight = frozen.clone().requires_grad_(), heads["student"].clone().requires_grad_()

    def original(start, stop):
        return losses.head_logits(frozen[start:stop], heads["original"])

    def teacher(start, stop):
        return teacher_logits(original(start, stop), losses.head_logits(frozen[start:stop], heads["augmented"]), 8.0)

    said, before = (losses.sequence_log_probs(hidden, (w, None), targets, rows, 5) for w in (weight, heads["original"]))
    values = {name: losses.from_hidden(loss, hidden, (weight, None), held) for name, loss, held in (
        ("RKLU", "reverse_kl", teacher), ("FKLU", "forward_kl", teacher), ("+KL", "forward_kl", original)
    )}  # fmt: skip
    for name, value in (values | {"NPO": losses.npo(said, before.detach(), 0.1)}).items():
        gradients[name] = [g.double() for g in torch.autograd.grad(value, (hidden, weight))]
    return gradients


@pytest.fixture(scope="module")
def exact(large):
    return _gradients(*large, torch.float64)


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_from_bf16_weights_are_those_of_float64(large, exact, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = _gradients(*large, torch.bfloat16)
    for name, pair in exact.items():  # measured: 0.17 %, the rounding of the result; 27 % with logits of a bf16 product
        for which, one, other in zip(("hidden", "head"), found[name], pair, strict=True):
            assert (one - other).norm() < 0.01 * other.norm(), (name, which)


@pytest.mark.parametrize("loss", ["cross_entropy", "sequence_log_probs"])
def test_gradients_of_many_chunks_are_summed_in_float32(loss):
    """All tokens pull one way, chunk by chunk: a sum in bf16 would stand still after 256 of them."""
    hidden = 0.5 + torch.rand(600, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids, gradients = torch.zeros(600, dtype=torch.int64), []
    for dtype in (torch.bfloat16, torch.float64):
        weight = torch.zeros(4, 3, dtype=dtype, requires_grad=True)
        if loss == "cross_entropy":
            value = losses.from_hidden(loss, hidden.to(dtype), (weight, None), lambda a, b: ids[a:b], chunk=1)
        else:
            value = losses.sequence_log_probs(hidden.to(dtype), (weight, None), ids, ids, 1, chunk=1)[0]
        gradients.append(torch.autograd.grad(value, weight)[0].double())
    assert (gradients[0] - gradients[1]).norm() < 0.01 * gradients[1].norm()


def test_autocast_has_no_say_in_the_head(large):
    hidden, weight = large[0].float(), large[1]["student"].float()
    expected = losses.head_logits(hidden, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.head_logits(hidden, weight), expected)
    assert torch.equal(expected, torch.nn.functional.linear(hidden, weight))


@pytest.mark.parametrize("columns", [1, 7, 4096])
def test_a_bf16_head_is_multiplied_out_in_float32_by_blocks(monkeypatch, columns):
    monkeypatch.setattr(losses, "COLUMNS", columns)
    hidden, weight, bias = (t.detach().bfloat16() for t in (_float64(2, 3, 5), *HEAD))
    logits = losses.head_logits(hidden, weight, bias)
    expected = torch.nn.functional.linear(hidden.double(), weight.double(), bias.double())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-6)
