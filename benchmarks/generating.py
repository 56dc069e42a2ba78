"""Two caches in greedy generation: our preallocated one (`caches.roomy`) against that of transformers, which copies
everything with each token. The model has SmolLM2-135M's shape and random weights.

128 tokens are generated for each of 100 prompts (half a system prompt, half a question of TOFU's length), in bf16 where
the processor supports it.
"""

import json
import sys

import torch
from measure import measured, write
from transformers import LlamaConfig, LlamaForCausalLM

from rklu_lib import caches, evaluation, models

SHAPE = dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, vocab_size=49152)
SHAPE |= dict(num_key_value_heads=3, tie_word_embeddings=True)
ROWS, TOKENS, OPENING = 100, 128, 24


def one(form):
    torch.manual_seed(0)
    model, rng = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(models.device()), torch.Generator().manual_seed(0)
    opening = torch.randint(3, 49152, (OPENING,), generator=rng).tolist()
    lengths = torch.randint(12, 36, (ROWS,), generator=rng).tolist()
    prompts = [(*opening, *torch.randint(3, 49152, (n,), generator=rng).tolist()) for n in lengths]
    if form == "naive":
        caches.roomy = lambda cache: cache

    def step():
        with torch.autocast(model.device.type, torch.bfloat16, enabled=models.bf16("bf16")):
            return float(sum(map(sum, evaluation.greedy(model, prompts, TOKENS, eos_token_id=-1))))

    return measured(step, repeats=1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1])))
    else:
        write("generating", __file__, {"100 x 128 tokens": {form: (form,) for form in ("naive", "room")}})
