"""The unlearning teacher (Eq. 1) as a formula, as a model to query, and in a frozen form that is computed only once."""

from types import SimpleNamespace

import torch
from torch import nn

from rklu_lib import parallel
from rklu_lib.losses import head_logits
from rklu_lib.models import ScoredLogits, head, output_layer

GAUGES = {  # applied to both models' logits before Eq. 1: a constant added to all logits changes Eq. 1, no softmax
    "raw": lambda logits: logits,
    "centred": lambda logits: logits - logits.mean(-1, keepdim=True),
    "normalised": lambda logits: logits.log_softmax(-1),
}


def teacher_logits(original, augmented, alpha, gauge="raw"):
    """Return the teacher's logits (Eq. 1): lower every logit that augmentation raised, and leave the rest.

    l_t = l_o - alpha * ReLU(l_aug - l_o)

    original, augmented: finite logits, (..., vocab), of the same shape, dtype and device. Returns (..., vocab), in
    their dtype. Give float32 logits computed in float32 (`models.output_layer`): alpha times their rounding is added,
    and bf16 logits put RKLU's gradient 7 to 157 % off, the more the less augmenting had moved. alpha: unlearning
    strength, >= 0 and finite; with 0 the original's logits are returned, in the chosen gauge.
    gauge: "raw" is Eq. 1 as printed; a constant added to `augmented` changes its result, though not the augmented
    model's softmax. With "centred" (logits minus their mean) or "normalised" (log-probabilities) such a constant
    changes nothing: see the book, "The gauge of Eq. 1".
    Raises ValueError when shapes differ or alpha is negative or infinite, KeyError for an unknown gauge."""
    if original.shape != augmented.shape:
        raise ValueError(f"logits of two shapes: original {tuple(original.shape)}, augmented {tuple(augmented.shape)}")
    if not 0 <= alpha < torch.inf:
        raise ValueError(f"alpha must be >= 0 and finite, got {alpha}")
    original, augmented = (GAUGES[gauge](logits) for logits in (original, augmented))
    return original - alpha * torch.relu(augmented - original)


class TeacherModel(nn.Module):
    """The teacher used directly as a model, as in Fig. 3. It runs both models, as they are, and changes no weights."""

    caches = 2  # key-value caches for each sequence, one of each model; `budget.rows` counts them

    def __init__(self, original, augmented, alpha, gauge="raw"):
        super().__init__()
        self.original, self.augmented, self.alpha, self.gauge = original, augmented, alpha, gauge
        self.config = original.config

    device = property(lambda self: self.original.device)
    dtype = property(lambda self: self.original.dtype)

    def base_model(self, input_ids, past_key_values=(None, None), **kwargs):
        """Run both models without heads; their last hidden states are concatenated to (batch, seq, 2 hidden)."""
        outs = [
            m.base_model(input_ids=input_ids, past_key_values=past, **kwargs)
            for m, past in zip((self.original, self.augmented), past_key_values, strict=True)
        ]
        return SimpleNamespace(
            last_hidden_state=torch.cat([o.last_hidden_state for o in outs], dim=-1),
            past_key_values=tuple(o.past_key_values for o in outs),
        )

    def get_output_embeddings(self):
        """Return a function from these hidden states to the teacher's logits: both output heads, then Eq. 1."""
        heads = [output_layer(m) for m in (self.original, self.augmented)]
        return lambda hidden: teacher_logits(
            *(head(h) for head, h in zip(heads, hidden.chunk(2, dim=-1), strict=True)), self.alpha, self.gauge
        )

    def forward(self, input_ids, past_key_values=(None, None), logits_to_keep=0, **kwargs):
        out = self.base_model(input_ids, past_key_values, **kwargs)
        out.logits = self.get_output_embeddings()(out.last_hidden_state[:, -logits_to_keep:])
        return out


@torch.no_grad()
def frozen_states(model, batches, depth=None):
    """Return `ScoredLogits.hidden` of every example: {its index in the batches' list: (tokens, hidden), on the CPU}."""
    scored = ScoredLogits(model.eval())

    def states(batch):
        hidden = scored.hidden(batch.input_ids.to(model.device), batch.mask.to(model.device), depth).cpu()
        return hidden.split(batch.mask.sum(1).tolist())

    found = parallel.shared(lambda part: [states(batch) for batch in part], batches)
    return {i: one for b, parts in zip(batches, found, strict=True) for i, one in zip(b.index, parts, strict=True)}


class FrozenLogits:
    """The logits of a frozen model at the scored positions of a fixed set of examples, computed once.

    The model does not change, so its last hidden states on these examples are constants. They are kept on the CPU,
    (tokens, hidden) for each example, with a copy of the output head; the model itself can then be freed. Logits are
    computed from them in float32 when a loss asks for them."""

    def __init__(self, model, batches):
        weight, bias, *shape = head(model)
        self.head = [weight.detach().clone(), bias if bias is None else bias.detach().clone(), *shape]
        self.states = frozen_states(model, batches)

    def at(self, index):
        """Return a function (start, stop) -> logits (stop - start, vocab) of the examples `index`, laid end to end.

        The states are gathered here, once for all chunks. (0, None) gives all logits. Raises KeyError for an example
        that was not in `batches`."""
        states = torch.cat([self.states[i] for i in index])

        @torch.no_grad()
        def logits(start, stop):
            return head_logits(states[start:stop].to(self.head[0].device), *self.head)

        return logits


class FrozenTeacher:
    """The teacher (Eq. 1) over a fixed forget set: original and augmented model ran once each, not at every step."""

    def __init__(self, original: FrozenLogits, augmented: FrozenLogits, alpha, gauge="raw"):
        self.original, self.augmented, self.alpha, self.gauge = original, augmented, alpha, gauge

    def at(self, index):
        """Return a function as `FrozenLogits.at` does, but to the teacher's logits, in float32."""
        original, augmented = self.original.at(index), self.augmented.at(index)
        return lambda start, stop: teacher_logits(original(start, stop), augmented(start, stop), self.alpha, self.gauge)
