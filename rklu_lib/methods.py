"""The table of methods: every row of the paper's Table 8, FKLU, the teacher, and newer methods. A new one is a new row.

A forget or retain loss is a function of (scored, batch, aids, epoch) that returns a scalar. `scored` is the student as
a `models.ScoredLogits`, `batch` a `data.Batch`, `aids` an `Aids`, and `epoch` is counted from 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import mse_loss

from rklu_lib import data, losses, parallel
from rklu_lib.models import ScoredLogits
from rklu_lib.teacher import FrozenLogits, FrozenTeacher, frozen_states

AUGMENTED, REFERENCE, REFUSALS, RETAIN_REFERENCE = "augmented model", "reference", "refusals", "retain reference"
FORGET_REFERENCE, RETAIN_STATES = "forget reference", "retain states"


@dataclass(frozen=True)
class Aids:
    """What a loss may need besides the student: constants of the run, computed by `prepare` before the first step."""

    profile: object
    teacher: FrozenTeacher | None = None
    reference: torch.Tensor | None = None  # (n,) log p(answer) of the n forget answers by the original model, nats
    refusals: list = field(default_factory=list)  # epochs * n Examples: question i of epoch e is number e * n + i
    refusal_reference: torch.Tensor | None = None  # (epochs * n,) the same of the refusals
    retain_reference: FrozenLogits | None = None  # of the original model on the retain set
    forget_reference: FrozenLogits | None = None  # of the original model on the forget set
    retain_states: dict | None = None  # early hidden states of the original on the retain set, see `_early`


def _mean(loss, scored, batch, targets, **settings):
    return losses.from_hidden(loss, scored.hidden(batch.input_ids, batch.mask), scored.head, targets, **settings)


def cross_entropy(scored, batch, aids=None, epoch=0):
    """Return `losses.cross_entropy` of the batch's answers: the loss of fine-tuning, IDK and `+RT`."""
    return _mean("cross_entropy", scored, batch, lambda start, stop: batch.targets[start:stop])


def _gradient_ascent(scored, batch, aids, epoch):
    return -cross_entropy(scored, batch)


def _refusal_batch(batch, aids, epoch):
    n = len(aids.refusals) // aids.profile.unlearn_epochs
    return data.collate(aids.refusals, [epoch * n + i for i in batch.index]).to(batch.input_ids.device)


def _log_probs(scored, batch):
    hidden = scored.hidden(batch.input_ids, batch.mask)
    return losses.sequence_log_probs(hidden, scored.head, batch.targets, batch.rows, len(batch.index))


def _npo(scored, batch, aids, epoch):
    reference = aids.reference[list(batch.index)].to(batch.input_ids.device)
    return losses.npo(_log_probs(scored, batch), reference, aids.profile.npo_beta)


def _dpo(scored, batch, aids, epoch):
    refusal, device = _refusal_batch(batch, aids, epoch), batch.input_ids.device
    return losses.dpo(
        _log_probs(scored, refusal),
        aids.refusal_reference[list(refusal.index)].to(device),
        _log_probs(scored, batch),
        aids.reference[list(batch.index)].to(device),
        aids.profile.dpo_beta,
    )


def _reverse_kl(scored, batch, aids, epoch):
    return _mean("reverse_kl", scored, batch, aids.teacher.at(batch.index))


def _forward_kl(scored, batch, aids, epoch):
    return _mean("forward_kl", scored, batch, aids.teacher.at(batch.index))


def _jensen_shannon(scored, batch, aids, epoch):
    return _mean("jensen_shannon", scored, batch, aids.teacher.at(batch.index), js_beta=aids.profile.js_beta)


def _simnpo(scored, batch, aids, epoch):
    log_probs = _log_probs(scored, batch)
    return losses.simnpo(log_probs, batch.rows.bincount(minlength=len(log_probs)), aids.profile.simnpo_beta)


def _weighted_ascent(scored, batch, aids, epoch):
    return _mean("weighted_ascent", scored, batch, lambda a, b: batch.targets[a:b], wga_beta=aids.profile.wga_beta)


def _undial(scored, batch, aids, epoch):
    """UNDIAL (Dong et al., 2025): forward KL to the original's logits, the true token's lowered by `undial_beta`.
    The published loss is a cross-entropy, larger by the target's constant entropy, and includes prompt tokens."""
    original = aids.forget_reference.at(batch.index)

    def lowered(start, stop):
        logits, true = original(start, stop), batch.targets[start:stop, None]
        return logits.scatter_add(-1, true, torch.full_like(true, -aids.profile.undial_beta, dtype=logits.dtype))

    return _mean("forward_kl", scored, batch, lowered)


def _early(model):
    """Return after how many layers RMU takes hidden states: a quarter, as published for 32 (its `model.layers.7`)."""
    return max(1, model.config.get_text_config().num_hidden_layers // 4)


def _misdirection(scored, batch, aids, epoch):
    """RMU's forget loss (Li et al., 2024, as in OpenUnlearning on TOFU): mean squared error of early hidden states to
    one random vector of length `rmu_steering`. The mean is over all tokens; theirs is over each answer first."""
    states = scored.hidden(batch.input_ids, batch.mask, _early(scored.model))
    way = torch.rand(states.shape[-1], generator=torch.Generator().manual_seed(0))
    return mse_loss(states, (aids.profile.rmu_steering * way / way.norm()).to(states).expand_as(states))


def _same_states(scored, batch, aids, epoch):
    """RMU's retain loss: mean squared error of the same layer's hidden states to those of the original model."""
    states = scored.hidden(batch.input_ids, batch.mask, _early(scored.model))
    return mse_loss(states, torch.cat([aids.retain_states[i] for i in batch.index]).to(states))


def _retain_kl(scored, batch, aids, epoch):
    return _mean("forward_kl", scored, batch, aids.retain_reference.at(batch.index))


@dataclass(frozen=True)
class Method:
    """One method. name: as in the paper. forget: its forget loss; None if nothing is trained. retain: its retain loss.

    family: the method family whose learning rate in the profile is used. needs: which `Aids` it needs (AUGMENTED, …).
    unit: what the forget loss is a mean over, "token" or "sequence"; gradient accumulation weights micro-batches by it.
    on: the answers to the forget questions in a batch: their own ("forget") or the epoch's "refusals".
    A loss is a function (scored: `models.ScoredLogits`, batch: `data.Batch`, aids: `Aids`, epoch) -> scalar tensor."""

    name: str
    family: str
    forget: Callable | None
    retain: Callable | None = None
    needs: frozenset = frozenset()
    unit: str = "token"
    on: str = "forget"


def _with_retain_terms(family, forget, needs=(), unit="token"):
    """Yield three rows in the order of Table 8: the method alone, with `+KL` and with `+RT`."""
    yield Method(family, family, forget, None, frozenset(needs), unit)
    yield Method(f"{family}+KL", family, forget, _retain_kl, frozenset({*needs, RETAIN_REFERENCE}), unit)
    yield Method(f"{family}+RT", family, forget, cross_entropy, frozenset(needs), unit)


METHODS = {
    m.name: m
    for m in (
        *_with_retain_terms("GA", _gradient_ascent),
        *_with_retain_terms("NPO", _npo, {REFERENCE}, "sequence"),
        *_with_retain_terms("DPO", _dpo, {REFERENCE, REFUSALS}, "sequence"),
        Method("IDK", "IDK", cross_entropy, needs=frozenset({REFUSALS}), on="refusals"),
        Method("TA", "TA", None, needs=frozenset({AUGMENTED})),
        *_with_retain_terms("RKLU", _reverse_kl, {AUGMENTED}),
        *_with_retain_terms("FKLU", _forward_kl, {AUGMENTED}),
        Method("teacher", "teacher", None, needs=frozenset({AUGMENTED})),
        *_with_retain_terms("SimNPO", _simnpo, unit="sequence"),
        *_with_retain_terms("UNDIAL", _undial, {FORGET_REFERENCE}),
        *_with_retain_terms("WGA", _weighted_ascent),
        *_with_retain_terms("JS", _jensen_shannon, {AUGMENTED}),
        *_with_retain_terms("RMU", _misdirection),
        Method("RMU+MSE", "RMU", _misdirection, _same_states, frozenset({RETAIN_STATES})),  # as published
    )
}
NEWER = tuple(n for n in METHODS if n.startswith(("SimNPO", "UNDIAL", "WGA", "JS", "RMU")))  # not the paper's
STUDY = tuple(name for name in METHODS if name not in NEWER)
TABLE_8 = tuple(name for name in STUDY if not name.startswith(("FKLU", "teacher")))


def method(name):
    """Return the `Method` called `name`, or `name` itself if it is one, with losses of your own perhaps. Raises
    ValueError, which lists all names, if there is none."""
    if not isinstance(name, Method) and name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return name if isinstance(name, Method) else METHODS[name]


def check(chosen, retain):
    """Raise ValueError when a method trains nothing, has a retain loss but no retain examples, or is RMU and runs in
    several processes: RMU trains the first layers only, and the processes would wait for the other gradients."""
    if chosen.forget is None:
        raise ValueError(f"{chosen.name} trains nothing; see training.task_arithmetic and teacher.TeacherModel")
    if chosen.retain and not retain:
        raise ValueError(f"{chosen.name} has a retain term and needs a retain set (--retain); {chosen.family} does not")
    if chosen.forget is _misdirection and parallel.processes() > 1:
        raise ValueError(f"{chosen.name} trains the first layers alone; run it in one process")


def refused(profile, tokenizer, examples, seed):
    """Return a random refusal to every example's prompt for every epoch: epochs * n Examples, ordered as in `Aids`."""
    texts, rng = data.refusals(), np.random.default_rng(seed)
    draws = rng.integers(len(texts), size=profile.unlearn_epochs * len(examples))
    answers = [data.encode_answer(tokenizer, profile.template, text) for text in texts]
    asked = [e.prompt for e in examples] * profile.unlearn_epochs
    return [data.Example(prompt, answers[i]) for prompt, i in zip(asked, draws, strict=True)]


@torch.no_grad()
def _reference_log_probs(original, examples):
    """Return log p(answer) of each example, (n,), nats, by one forward pass of the frozen original model."""
    values, scored, batches = torch.zeros(len(examples)), ScoredLogits(original.eval()), data.batches(examples, 64)
    found = parallel.shared(
        lambda part: [_log_probs(scored, b.to(original.device)).float().cpu() for b in part], batches
    )
    for batch, log_probs in zip(batches, found, strict=True):
        values[list(batch.index)] = log_probs
    return values


def prepare(chosen, profile, original, augmented, forget, retain, refusals):
    """Return the `Aids` of a method. Each frozen model runs once over the examples that are needed, and is not kept.

    forget, retain: lists of `data.Example`. refusals: epochs * n Examples, see `Aids`. augmented: the augmented model
    or its FrozenLogits; None if the method does not need it. Raises ValueError as `check` does, before a model runs."""
    check(chosen, retain)
    teacher = reference = refusal_reference = retain_reference = forget_reference = states = None
    if AUGMENTED in chosen.needs:
        frozen = data.batches(forget, 64)
        pair = (m if isinstance(m, FrozenLogits) else FrozenLogits(m, frozen) for m in (original, augmented))
        teacher = FrozenTeacher(*pair, profile.alpha, profile.gauge)
    if REFERENCE in chosen.needs:
        reference = _reference_log_probs(original, forget)
        refusal_reference = _reference_log_probs(original, refusals) if REFUSALS in chosen.needs else None
    if RETAIN_REFERENCE in chosen.needs:
        retain_reference = FrozenLogits(original, data.batches(retain, 64))
    if FORGET_REFERENCE in chosen.needs:
        forget_reference = FrozenLogits(original, data.batches(forget, 64))
    if RETAIN_STATES in chosen.needs:
        states = frozen_states(original, data.batches(retain, 64), _early(original))
    return Aids(profile, teacher, reference, refusals, refusal_reference, retain_reference, forget_reference, states)
