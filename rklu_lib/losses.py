"""The paper's losses (Eq. 2-4) and the baselines', as pure functions of tensors. Nothing here knows a model.

Shapes: logits are (..., vocab), targets and mask (...) with the same leading shape; the mask is True where a token is
scored, and what stands elsewhere changes nothing. Every loss is a scalar in float32 (float64 for float64 input).
Token losses are nats per unmasked token; preference losses are means over sequences.
"""

import torch
import torch.nn.functional as F


def _selected(mask, *tensors):
    """The unmasked positions of each tensor, in at least float32: (tokens, ...)."""
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean (True = scored), not {mask.dtype}; compare your labels with -100 first")
    for t in tensors:
        if t.shape[: mask.dim()] != mask.shape:
            raise ValueError(f"mask of shape {tuple(mask.shape)} does not fit a tensor of shape {tuple(t.shape)}")
    if not mask.any():
        raise ValueError("mask selects no token; a mean over nothing is not a loss")
    return [_upcast(t[mask]) for t in tensors]


def _selected_pair(mask, student, teacher):
    if student.shape != teacher.shape:
        raise ValueError(
            f"student logits of shape {tuple(student.shape)} and teacher logits of shape {tuple(teacher.shape)}: "
            "a divergence needs one vocabulary and the same positions"
        )
    return _selected(mask, student, teacher)


def _upcast(t):
    return t if t.dtype in (torch.float32, torch.float64, torch.int64) else t.float()


def _kl(p_log, q_log):
    """KL(p || q) per token from log-probabilities (tokens, vocab) -> (tokens,). 0 log 0 = 0."""
    p = p_log.exp()
    # Where p underflows to 0 both logarithms may be -inf; choosing before the product keeps NaN out of the gradient.
    return (p * torch.where(p > 0, p_log - q_log, 0.0)).sum(-1)


def reverse_kl(student_logits, teacher_logits, mask):
    """RKLU's forget loss: KL(student || teacher), Eq. 2, second line, averaged over unmasked tokens.

    Heavy where the student gives probability to tokens the teacher has lowered; almost silent where the teacher is
    the one with more mass. Gradient per logit: p * (log p - log t - KL), p the student's and t the teacher's softmax.

    student_logits, teacher_logits: (..., vocab). mask: (...), bool. Returns a scalar >= 0, nats per token.
    Raises TypeError for a mask that is not boolean, ValueError for shapes that do not match or an empty mask.
    """
    student, teacher = _selected_pair(mask, student_logits, teacher_logits)
    return _kl(student.log_softmax(-1), teacher.log_softmax(-1)).mean()


def forward_kl(student_logits, teacher_logits, mask):
    """FKLU's forget loss and `+KL`'s retain loss: KL(teacher || student), Eq. 2, first line, and Eq. 3, second line.

    Gradient per logit: p - t. Shapes, units and errors as in `reverse_kl`.
    """
    student, teacher = _selected_pair(mask, student_logits, teacher_logits)
    return _kl(teacher.log_softmax(-1), student.log_softmax(-1)).mean()


def cross_entropy(logits, targets, mask):
    """-log p(target), averaged over unmasked tokens: fine-tuning, IDK, and `+RT` (Eq. 3, first line).

    logits (..., vocab), targets (...) int64, mask (...) bool. Nats per token. Errors as in `reverse_kl`.
    """
    selected_logits, selected_targets = _selected(mask, logits, targets)
    return F.cross_entropy(selected_logits, selected_targets)


def gradient_ascent(logits, targets, mask):
    """GA (Maini et al., 2024): the cross-entropy with its sign turned. Unbounded below, hence its collapse."""
    return -cross_entropy(logits, targets, mask)


def sequence_log_probs(logits, targets, rows, n_rows):
    """log p(answer) of each sequence, summed over its tokens and not length-normalised.

    The scored tokens of all sequences are laid end to end: logits (tokens, vocab), targets (tokens,) int64, and
    rows (tokens,) int64 in [0, n_rows) names the sequence each belongs to. Returns (n_rows,), nats.
    """
    tokens = -F.cross_entropy(_upcast(logits), targets, reduction="none")
    return tokens.new_zeros(n_rows).index_add(0, rows, tokens)


def npo(answer, reference, npo_beta):
    """NPO (Zhang et al., 2024): -(2/beta) log sigmoid(-beta (answer - reference)), mean over sequences.

    answer, reference: (batch,) summed log-probabilities of the forget answers under the student and under the original
    model, nats. As beta goes to 0 it becomes gradient ascent. Raises ValueError unless npo_beta > 0.
    """
    if npo_beta <= 0:
        raise ValueError(f"npo_beta must be > 0, got {npo_beta}")
    return -(2 / npo_beta) * F.logsigmoid(-npo_beta * (answer - reference)).mean()


def dpo(refusal, refusal_reference, answer, answer_reference, dpo_beta):
    """DPO (Rafailov et al., 2024) with a refusal preferred to the forget answer, mean over sequences.

    All four: (batch,) summed log-probabilities, nats, under the student and under the original model.
    -log sigmoid(beta [(refusal - refusal_reference) - (answer - answer_reference)]). Raises ValueError unless beta > 0.
    """
    if dpo_beta <= 0:
        raise ValueError(f"dpo_beta must be > 0, got {dpo_beta}")
    return -F.logsigmoid(dpo_beta * ((refusal - refusal_reference) - (answer - answer_reference))).mean()
