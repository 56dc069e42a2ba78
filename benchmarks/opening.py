"""What all prompts of a batch open with, run once for all of them, against once a row: the gradients of one batch.

The shape is SmolLM2-135M's, with random weights, and the lengths TOFU's in its chat format: 24 tokens of system prompt
and control tokens, the same in every row, then some 15 of question and 36 of answer, 32 rows.
"""

import json
import sys

import torch
from measure import measured, write
from transformers import LlamaConfig, LlamaForCausalLM

from rklu_lib import data, methods, models

SHAPE = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, vocab_size=49152)
SHAPE |= dict(num_key_value_heads=3, tie_word_embeddings=True)
OPENING, ROWS = 24, 32


def one(form):
    torch.manual_seed(0)
    model, rng = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(models.device()), torch.Generator().manual_seed(0)
    opening = tuple(torch.randint(3, 49152, (OPENING,), generator=rng).tolist())
    lengths = torch.randint(8, 24, (ROWS,), generator=rng), torch.randint(20, 54, (ROWS,), generator=rng)
    drawn = lambda n: tuple(torch.randint(3, 49152, (int(n),), generator=rng).tolist())  # noqa: E731
    examples = [data.Example(opening + drawn(q), drawn(a)) for q, a in zip(*lengths, strict=True)]
    batch, scored = data.collate(examples, range(ROWS)).to(models.device()), models.ScoredLogits(model.train())
    scored.openings = form == "once"

    def step():
        loss = methods.cross_entropy(scored, batch)
        loss.backward()
        model.zero_grad()
        return loss.item()

    return measured(step, repeats=3)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1])))
    else:
        write("opening", __file__, {"a batch of 32": {"naive": ["each"], "once": ["once"]}})
