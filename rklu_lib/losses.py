"""The paper's losses (Eq. 2 and 3) and those of the other methods, as pure functions of tensors. No model is used.

Shapes: logits are (..., vocab); targets and mask are (...), the same leading shape. The logits at a position predict
the target at the same position: nothing is shifted here. The mask is True where a token is scored; values at all other
positions have no effect. Token losses are means over the scored tokens, in nats, in float32 (float64 for float64
input); preference losses (NPO, DPO, SimNPO) are means over sequences, in their arguments' dtype. Logits are finite, or
-inf in both models where a vocabulary is padded: the KLs take that, Eq. 1 and Jensen-Shannon do not.
"""

import math

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

COLUMNS = 4096  # columns of a bf16 matrix that a CPU converts to float32 at once, which bounds the memory


def _selected(mask, logits, targets):
    """Return both at the scored positions (mask True), as `_aims` does; targets: ids, or another model's logits."""
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean (True = scored), not {mask.dtype}; compare your labels with -100 first")
    if not mask.shape == logits.shape[:-1] == targets.shape[: mask.dim()]:
        raise ValueError(f"mask {mask.shape}, logits {logits.shape} and targets {targets.shape} do not fit each other")
    if not mask.any():
        raise ValueError("mask selects no token, so there is no loss to average")
    chosen = logits[mask]
    return _upcast(chosen), _aims(targets[mask], *chosen.shape)


def _aims(targets, n, vocab):
    """Return what n tokens are compared with: token ids (n,) as int64, or logits (n, vocab) in at least float32."""
    ids = not targets.is_floating_point()
    if targets.shape != ((n,) if ids else (n, vocab)):
        raise ValueError(f"targets of shape {tuple(targets.shape)} do not fit {n} tokens and a vocabulary of {vocab}")
    if ids and not 0 <= targets.min() <= targets.max() < vocab:
        raise ValueError(f"a target is no token id from 0 to {vocab - 1}; mask = labels != -100 leaves -100 out")
    return targets.long() if ids else _upcast(targets)


def _upcast(t):
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


def _product(a, b):
    """Return a (n, k) @ b (k, m), summed in float32 and with no operand rounded (bf16 rounds to 1 part in 256).

    A CPU converts a bf16 `b` to float32 in blocks of columns. A GPU multiplies bf16 by bf16 into float32, so there a
    float32 `a` is split into two bf16 terms, which lose 2 ** -17 of its value."""
    if b.dtype in (torch.float32, torch.float64):
        return a.to(b.dtype) @ b
    if not (b.is_cuda and b.dtype == torch.bfloat16):
        return torch.cat([_upcast(a) @ _upcast(part) for part in b.split(COLUMNS, dim=1)], dim=1)
    terms = [a.bfloat16()]
    terms += [] if a.dtype == b.dtype else [(a - terms[0]).bfloat16()]
    return sum(torch.mm(term, b, out_dtype=torch.float32) for term in terms)


def head_logits(hidden, weight, bias=None, scale=1.0, cap=None):
    """Return an output layer's logits in float32 (float64 for float64 inputs), whatever the inputs' dtype.

    The logits are x = scale * (W h + b), or cap * tanh(x / cap) for models that cap their logits. Every loss and score
    takes its logits from here. They are not in bf16, since Eq. 1 multiplies the difference of two models' logits by
    alpha, and their rounding errors too: at width 1,024 the gradient of RKLU was 27 % off. Hence no autocast either.
    hidden: (..., hidden). weight: (vocab, hidden). bias: (vocab,) or None. cap: None for none. Returns (..., vocab)."""
    with torch.autocast(hidden.device.type, enabled=False):
        if hidden.dtype == weight.dtype and weight.dtype in (torch.float32, torch.float64):
            logits = F.linear(hidden, weight, bias)
        else:
            logits = _product(hidden.flatten(0, -2), weight.T).view(*hidden.shape[:-1], len(weight))
            logits = logits if bias is None else logits + bias
        logits = logits if scale == 1.0 else logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)


def _kl(p_log, q_log):
    """Return KL(p || q) of each token, in nats, from log-probabilities: (tokens, vocab) -> (tokens,). 0 log 0 = 0."""
    p = p_log.exp()
    # Where p underflows to 0, both logarithms may be -inf. `where` before the product keeps NaN out of the gradient.
    return (p * torch.where(p > 0, p_log - q_log, 0.0)).sum(-1)


def reverse_kl(student_logits, teacher_logits, mask):
    """Return RKLU's forget loss: KL(student || teacher), the second line of Eq. 2, averaged over the scored tokens.

    With p the student's and t the teacher's softmax, KL = sum p * log(p / t) over the vocabulary. A term is large where
    the student gives probability to a token that the teacher has lowered, and small where the teacher gives more.
    Gradient of one token's KL by a student logit: p * (log p - log t - KL).
    student_logits, teacher_logits: (..., vocab). mask: (...), bool. Returns a scalar >= 0, nats per token.
    Raises TypeError for a mask that is not boolean, ValueError for shapes that do not match or an empty mask."""
    student, teacher = _selected(mask, student_logits, teacher_logits)
    return _kl(student.log_softmax(-1), teacher.log_softmax(-1)).mean()


def forward_kl(student_logits, teacher_logits, mask):
    """Return KL(teacher || student), averaged over the scored tokens: FKLU's forget loss and the retain loss of `+KL`.

    Eq. 2, first line; in Eq. 3, second line, the original model is the teacher. Gradient of one token's KL by a
    student logit: p - t, with p the student's and t the teacher's softmax. Shapes, units, errors as in `reverse_kl`."""
    student, teacher = _selected(mask, student_logits, teacher_logits)
    return _kl(teacher.log_softmax(-1), student.log_softmax(-1)).mean()


def cross_entropy(logits, targets, mask):
    """Return -log p(target), averaged over the scored tokens: the loss of fine-tuning, IDK and `+RT` (Eq. 3, line 1).

    logits: (..., vocab). targets: (...), int64. mask: (...), bool. Nats per token. Errors as in `reverse_kl`."""
    selected_logits, selected_targets = _selected(mask, logits, targets)
    return F.cross_entropy(selected_logits, selected_targets)


def gradient_ascent(logits, targets, mask):
    """Return GA's loss (Maini et al., 2024): minus the cross-entropy. No lower bound, hence its collapse (App. B)."""
    return -cross_entropy(logits, targets, mask)


def npo(answer, reference, npo_beta):
    """Return NPO's loss (Zhang et al., 2024): -(2/beta) log sigmoid(-beta (answer - reference)), mean over sequences.

    answer, reference: (batch,), log-probabilities of the forget answers under the student and under the original
    model, each summed over its tokens, nats. As beta = npo_beta goes to 0, the gradient becomes that of `answer`, which
    is gradient ascent on whole sequences. Raises ValueError unless npo_beta > 0."""
    if not npo_beta > 0:
        raise ValueError(f"npo_beta must be > 0, got {npo_beta}")
    return -(2 / npo_beta) * F.logsigmoid(-npo_beta * (answer - reference)).mean()


def dpo(refusal, refusal_reference, answer, answer_reference, dpo_beta):
    """Return the DPO loss (Rafailov et al., 2024) that prefers a refusal to the forget answer, mean over sequences.

    -log sigmoid(beta [(refusal - refusal_reference) - (answer - answer_reference)]), beta = dpo_beta. All four are
    (batch,), log-probabilities summed over tokens, nats: the references under the original model, the other two under
    the student. Raises ValueError unless dpo_beta > 0."""
    if not dpo_beta > 0:
        raise ValueError(f"dpo_beta must be > 0, got {dpo_beta}")
    return -F.logsigmoid(dpo_beta * ((refusal - refusal_reference) - (answer - answer_reference))).mean()


def simnpo(answer, length, simnpo_beta):
    """Return SimNPO's loss (Fan et al., 2024) with margin 0: NPO per token, without a reference, mean over sequences.

    -(2/beta) log sigmoid(-beta answer / length), beta = simnpo_beta. answer: (batch,), as in `npo`. length: (batch,),
    each answer's number of tokens. Raises ValueError unless simnpo_beta > 0."""
    if not simnpo_beta > 0:
        raise ValueError(f"simnpo_beta must be > 0, got {simnpo_beta}")
    return -(2 / simnpo_beta) * F.logsigmoid(-simnpo_beta * answer / length).mean()


def weighted_ascent(logits, targets, mask, wga_beta=1.0):
    """Return WGA's loss (Wang et al., 2025): p^beta log p of the target, averaged over the scored tokens.

    No gradient flows through the weight p^beta (beta = wga_beta), which is small for targets that are unlikely already.
    At beta 0 the loss is `gradient_ascent`. Shapes and errors as in `cross_entropy`."""
    selected_logits, selected_targets = _selected(mask, logits, targets)
    loss = F.cross_entropy(selected_logits, selected_targets, reduction="none")
    return -((-loss.detach()).exp() ** wga_beta * loss).mean()


def jensen_shannon(student_logits, teacher_logits, mask, js_beta=0.5):
    """Return the generalised Jensen-Shannon divergence (Agarwal et al., 2024) divided by beta (1 - beta).
    KL(t || m) / (1 - beta) + KL(p || m) / beta, averaged over the scored tokens, where m = beta t + (1 - beta) p; p is
    the student's softmax, t the teacher's, and beta = js_beta in [0, 1]. The undivided divergence is 0 at both ends of
    beta; the divided one has the limits `forward_kl` at 0 and `reverse_kl` at 1, which are returned there. Gradient of
    a token by a student logit: p * (log(p / m) - KL(p || m)) / beta. Shapes, units and errors as in `reverse_kl`."""
    if js_beta in (0, 1):
        return (reverse_kl if js_beta else forward_kl)(student_logits, teacher_logits, mask)
    student, teacher = _selected(mask, student_logits, teacher_logits)
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    middle = _middle(student, teacher, js_beta)
    return (_kl(teacher, middle) / (1 - js_beta) + _kl(student, middle) / js_beta).mean()


def _middle(student, teacher, beta):
    if not 0 < beta < 1:
        raise ValueError(f"js_beta must be in [0, 1], got {beta}")
    return torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))


def _reverse_kl_rule(student, teacher):
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    p = student.exp()
    log_ratio = torch.where(p > 0, student.sub_(teacher), 0.0)
    value = (p * log_ratio).sum(-1)
    return value, p.mul_(log_ratio.sub_(value[:, None]))


def _forward_kl_rule(student, teacher):
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    value = _kl(teacher, student)
    return value, student.exp_().sub_(teacher.exp_())


def _cross_entropy_rule(logits, targets):
    log_p, row = logits.log_softmax(-1), torch.arange(len(targets), device=targets.device)
    value = -log_p[row, targets]
    log_p.exp_()[row, targets] -= 1
    return value, log_p


def _weighted_ascent_rule(logits, targets, wga_beta=1.0):
    value, gradient = _cross_entropy_rule(logits, targets)
    weight = -((-value).exp() ** wga_beta)
    return weight * value, gradient.mul_(weight[:, None])


def _jensen_shannon_rule(student, teacher, js_beta=0.5):
    if js_beta in (0, 1):
        return (_reverse_kl_rule if js_beta else _forward_kl_rule)(student, teacher)
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    middle, p = _middle(student, teacher, js_beta), student.exp()
    value = _kl(teacher, middle) / (1 - js_beta)
    log_ratio = torch.where(p > 0, student.sub_(middle), 0.0)
    divergence = (p * log_ratio).sum(-1)
    return value + divergence / js_beta, p.mul_(log_ratio.sub_(divergence[:, None])).div_(js_beta)


_RULES = {"reverse_kl": _reverse_kl_rule, "forward_kl": _forward_kl_rule, "cross_entropy": _cross_entropy_rule}
_RULES |= {"weighted_ascent": _weighted_ascent_rule, "jensen_shannon": _jensen_shannon_rule}


class _FromHidden(torch.autograd.Function):
    """Compute a loss and, in the same forward pass, its gradients: the logits of a chunk exist only then."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, scale, cap, rule, targets, chunk):
        n, dtype = len(hidden), torch.promote_types(hidden.dtype, torch.float32)
        total, inputs = hidden.new_zeros((), dtype=dtype), (hidden, weight, bias)
        ctx.dtypes = [None if t is None else t.dtype for t in inputs]
        # in float32 until the backward pass: a bf16 sum over many chunks would lose small contributions
        grads = [
            torch.zeros_like(t, dtype=dtype) if k else None
            for t, k in zip(inputs, ctx.needs_input_grad[:3], strict=True)
        ]
        with torch.autocast(hidden.device.type, enabled=False):
            for at in range(0, n, chunk):
                part = hidden[at : at + chunk]
                logits = head_logits(part, weight, bias, scale, cap)
                value, gradient = rule(logits, _aims(targets(at, at + len(part)), *logits.shape))
                total += value.sum()
                if cap is not None:  # d cap tanh(x / cap) / dx = 1 - tanh^2
                    gradient *= 1 - (logits / cap) ** 2
                gradient = gradient.div_(n / scale)
                if grads[0] is not None:
                    grads[0][at : at + chunk] = _product(gradient, weight)
                if grads[1] is not None and part.dtype == dtype:
                    grads[1].addmm_(gradient.T, part)
                elif grads[1] is not None:
                    grads[1] += _product(gradient.T, part)
                if grads[2] is not None:
                    grads[2] += gradient.sum(0)
        ctx.grads = grads
        return total / n

    @staticmethod
    def backward(ctx, grad):
        grads, ctx.grads = ctx.grads, None  # scaled in place: a second backward pass would scale them again
        if grads is None:
            raise RuntimeError("from_hidden's gradients are used up by the first backward pass; call it again instead")
        scaled = (None if g is None else g.mul_(grad).to(d) for g, d in zip(grads, ctx.dtypes, strict=True))
        return *scaled, None, None, None, None, None


def from_hidden(loss, hidden, head, targets, chunk=128, **settings):
    """Return the loss named `loss`, such as "reverse_kl", without ever holding the logits of all tokens.

    hidden: (tokens, hidden), the last hidden states of the scored tokens only. head: (weight (vocab, hidden), bias
    (vocab,) or None), optionally followed by scale and cap, see `head_logits`. targets(start, stop): returns what
    the tokens start..stop are compared with: teacher logits (stop - start, vocab) or token ids (stop - start,). chunk:
    number of tokens whose logits exist at once; it affects memory and time only. settings: the loss's keyword
    arguments, such as js_beta. Returns the same scalar as the loss itself on `head_logits(hidden, *head)`, with the
    same gradients by hidden, weight and bias, for one backward pass: a second raises RuntimeError. Raises ValueError
    for a loss that is not in `_RULES`, for no tokens, and for shapes or ids that do not fit."""
    if loss not in _RULES:
        raise ValueError(f"loss must be one of {', '.join(_RULES)}, not {loss!r}")
    if hidden.dim() != 2 or not len(hidden) or chunk < 1:
        raise ValueError(f"hidden is (tokens, hidden), tokens > 0, chunk > 0; got {tuple(hidden.shape)} and {chunk}")
    weight, bias, scale, cap = (*head, 1.0, None)[:4]
    rule = lambda logits, held: _RULES[loss](logits, held, **settings)  # noqa: E731
    return _FromHidden.apply(hidden, weight, bias, scale, cap, rule, targets, chunk)


def sequence_log_probs(hidden, head, targets, rows, n_rows, chunk=128):
    """Return log p(answer) of each sequence, summed over its tokens and not length-normalised: (n_rows,), nats.

    The scored tokens of all sequences are laid end to end: hidden (tokens, hidden) and targets (tokens,) int64. rows
    (tokens,), int64 in [0, n_rows), names the sequence of each token. head and chunk as in `from_hidden`, but a chunk's
    logits are computed again in the backward pass, because the weight of a token's gradient is known only then."""
    weight, bias, *shape = head
    # upcast once, so that the gradients of all chunks by the head are summed in float32
    head = [_upcast(weight), bias if bias is None else _upcast(bias), *shape]

    def piece(part, wanted):
        return -F.cross_entropy(head_logits(part, *head), wanted, reduction="none")

    parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    tokens = torch.cat([checkpoint(piece, *part, use_reentrant=False) for part in parts])
    return tokens.new_zeros(n_rows).index_add(0, rows, tokens)
