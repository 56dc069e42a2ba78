"""Losses computed from hidden states against losses on all logits at once: seconds and peak memory, one process each.

The vocabulary has 32,000 tokens, as Llama 2's. There are 4,096 answer tokens: a batch of 32 answers of 128 tokens.
"""

import json
import sys

import torch
import torch.nn.functional as F
from measure import measured, write

from rklu_lib import losses

VOCAB, TOKENS, HIDDEN = 32_000, 4_096, 256


def inputs():
    generator = torch.Generator().manual_seed(0)
    hidden, teacher_hidden = torch.randn(2, TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator) / HIDDEN**0.5
    targets = torch.randint(VOCAB, (TOKENS,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), teacher_hidden, targets


def naive(loss, hidden, weight, teacher_hidden, targets):
    logits, mask = F.linear(hidden, weight), torch.ones(TOKENS, dtype=torch.bool)
    held = targets if loss == "cross_entropy" else F.linear(teacher_hidden, weight.detach())
    return getattr(losses, loss)(logits, held, mask)


def chunked(loss, hidden, weight, teacher_hidden, targets):
    def held(start, stop):
        if loss == "cross_entropy":
            return targets[start:stop]
        return F.linear(teacher_hidden[start:stop], weight.detach())

    return losses.from_hidden(loss, hidden, (weight, None), held)


def one(form, loss):
    """Measure one form of one loss; run this in a new process, since a process's peak memory never falls."""
    arguments = inputs()
    arguments[0].grad, arguments[1].grad = (torch.zeros_like(a) for a in arguments[:2])

    def step():
        value = {"naive": naive, "chunked": chunked}[form](loss, *arguments)
        value.backward()
        return value.item()

    print(json.dumps(measured(step, repeats=2)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(*sys.argv[1:])
    else:
        cases = ("reverse_kl", "forward_kl", "cross_entropy")
        write("losses", __file__, {loss: {form: (form, loss) for form in ("naive", "chunked")} for loss in cases})
