"""The cost of a collapsed model: time the backward pass of a softmax whose probabilities lie below 1.2e-38, float32's
smallest normal number. They are kept, or flushed to zero as in the worker processes of `runs`.

python benchmarks/denormals.py
"""

import time

import torch

TOKENS, WIDTH, VOCABULARY, REPEATS = 256, 576, 49_152, 3


def seconds(flush):
    """Return the fastest of `REPEATS` backward passes through the head, in seconds, after one pass to warm up."""
    torch.set_flush_denormal(flush)
    hidden = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(1)).mul_(0.02)
    taken = []
    for _ in range(REPEATS + 1):
        logits = hidden @ head.T - 95.0
        logits = torch.cat([torch.zeros(TOKENS, 1), logits], 1)  # one token has almost all: the others about 1e-41 each
        begun = time.perf_counter()
        torch.nn.functional.cross_entropy(logits, torch.ones(TOKENS, dtype=torch.long), reduction="sum").backward()
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


if __name__ == "__main__":
    torch.set_num_threads(1)  # the mode belongs to a thread; existing threads would keep theirs
    kept, flushed = seconds(False), seconds(True)
    print(f"backward through {VOCABULARY:,} logits: {kept:.2f} s with denormal numbers, {flushed:.2f} s without")
    print(f"{kept / flushed:.1f} times as fast")
