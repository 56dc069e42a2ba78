"""The unlearning teacher: Eq. 1, the same as a model one can query, and the frozen form that is computed only once."""

from types import SimpleNamespace

import torch
from torch import nn

from rklu_lib import parallel
from rklu_lib.losses import head_logits
from rklu_lib.models import ScoredLogits, head, output_layer

GAUGES = {  # a softmax does not see a constant, Eq. 1 does: what is done to both models' logits first
    "raw": lambda logits: logits,
    "centred": lambda logits: logits - logits.mean(-1, keepdim=True),
    "normalised": lambda logits: logits.log_softmax(-1),
}


def teacher_logits(original, augmented, alpha, gauge="raw"):
    """Unlearning teacher (Eq. 1): lower every logit that augmentation raised, leave the rest.

    l_t = l_o - alpha * ReLU(l_aug - l_o)

    original, augmented: logits, (..., vocab), same shape, dtype and device.
    alpha: unlearning strength, >= 0; 0 returns `original`, in its gauge.
    gauge: "raw" is Eq. 1 as printed. It is not invariant to adding a constant to `augmented`, though its softmax is;
    "centred" (logits less their mean) and "normalised" (log-probabilities) are: see the book, "The gauge of Eq. 1".
    Raises ValueError when shapes differ or alpha is negative.
    """
    if original.shape != augmented.shape:
        raise ValueError(f"logits of two shapes: original {tuple(original.shape)}, augmented {tuple(augmented.shape)}")
    if not alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {alpha}")
    original, augmented = (GAUGES[gauge](logits) for logits in (original, augmented))
    return original - alpha * torch.relu(augmented - original)


class TeacherModel(nn.Module):
    """The teacher used directly as a model, as in Fig. 3: two models at every step, nothing forgotten in any weight."""

    caches = 2  # of keys and values

    def __init__(self, original, augmented, alpha, gauge="raw"):
        super().__init__()
        self.original, self.augmented, self.alpha, self.gauge = original, augmented, alpha, gauge
        self.config = original.config

    device = property(lambda self: self.original.device)
    dtype = property(lambda self: self.original.dtype)

    def base_model(self, input_ids, past_key_values=(None, None), **kwargs):
        """As of any model, but the last hidden states of the two stand side by side: (batch, seq, 2 hidden)."""
        outs = [
            m.base_model(input_ids=input_ids, past_key_values=past, **kwargs)
            for m, past in zip((self.original, self.augmented), past_key_values, strict=True)
        ]
        return SimpleNamespace(
            last_hidden_state=torch.cat([o.last_hidden_state for o in outs], dim=-1),
            past_key_values=tuple(o.past_key_values for o in outs),
        )

    def get_output_embeddings(self):
        """What turns those hidden states into teacher logits: both output heads, and Eq. 1."""
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
    """What `ScoredLogits.hidden` says of each example in `batches`, once: {place: (tokens, hidden), on the CPU}."""
    scored = ScoredLogits(model.eval())

    def states(batch):
        hidden = scored.hidden(batch.input_ids.to(model.device), batch.mask.to(model.device), depth).cpu()
        return hidden.split(batch.mask.sum(1).tolist())

    found = parallel.shared(lambda part: [states(batch) for batch in part], batches)
    return {i: one for b, parts in zip(batches, found, strict=True) for i, one in zip(b.index, parts, strict=True)}


class FrozenLogits:
    """The logits of a frozen model at the scored positions of a fixed set of examples, computed once.

    A frozen model is a function: over a fixed set its last hidden states are constants. They are kept, (tokens, hidden)
    on the CPU, with a copy of the output head; the model itself can then be freed. Logits are rebuilt per batch, in
    float32.
    """

    def __init__(self, model, batches):
        weight, bias, *shape = head(model)
        self.head = [weight.detach().clone(), bias if bias is None else bias.detach().clone(), *shape]
        self.states = frozen_states(model, batches)

    def at(self, index):
        """A function (start, stop) -> logits (stop - start, vocab) of the examples named by `index`, laid end to end.

        Their states are gathered here, once for all chunks; (0, None): all. KeyError for an example never seen.
        """
        states = torch.cat([self.states[i] for i in index])

        @torch.no_grad()
        def logits(start, stop):
            return head_logits(states[start:stop].to(self.head[0].device), *self.head)

        return logits


class FrozenTeacher:
    """Eq. 1 over a fixed forget set: the original and the augmented model run once each, not at every step."""

    def __init__(self, original: FrozenLogits, augmented: FrozenLogits, alpha, gauge="raw"):
        self.original, self.augmented, self.alpha, self.gauge = original, augmented, alpha, gauge

    def at(self, index):
        """As `FrozenLogits.at`, but teacher logits, in float32."""
        original, augmented = self.original.at(index), self.augmented.at(index)
        return lambda start, stop: teacher_logits(original(start, stop), augmented(start, stop), self.alpha, self.gauge)
