"""RKLU at the shape of LLaMA-2-7B with forget10's lengths, from random weights: seconds, memory, use of the GPU.

`seven_b.py FILE [--tiny]` writes one JSON. It measures an epoch with its optimiser, and the loss and gradients of a
batch of 32 against the plain loop that runs student, original and augmented model. Random weights cost as much as
trained ones. --tiny does the same with a small model, on any machine."""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rklu_lib import data, losses, methods, models, profiles, records, training

SHAPE = dict(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
TINY = dict(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}  # dense bf16, as the vendor states
CHARACTERS_A_TOKEN = 4


def examples(vocab, tiny):
    """Return examples of random tokens, with forget10's lengths at `CHARACTERS_A_TOKEN` characters per token."""
    rows, rng = data.load_tofu("forget10", "fictional" if tiny else "locuslab/TOFU"), torch.Generator().manual_seed(0)

    def drawn(text):
        return tuple(torch.randint(3, vocab, (max(2, len(text) // CHARACTERS_A_TOKEN),), generator=rng).tolist())

    return [data.Example(drawn(row["question"]), drawn(row["answer"])) for row in rows[: 8 if tiny else None]]


def clock(step, repeats=3):
    """Return the seconds of the fastest of several calls, after one call to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def peak_gb(reset=False):
    if not torch.cuda.is_available():
        return None
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated() / 2**30


def measure(tiny, note):
    """Return all measurements as a dict; note(found) is called after each part, since a later part may fail."""
    changes = {"unlearn_epochs": 2, "dtype": "float32" if tiny else "bfloat16"}
    p, device = profiles.profile("llama2-7b", **changes), models.device()
    forget = examples((TINY if tiny else SHAPE)["vocab_size"], tiny)
    torch.set_default_dtype(getattr(torch, p.dtype))
    with torch.device(device):
        torch.manual_seed(0)
        original = LlamaForCausalLM(LlamaConfig(**(TINY if tiny else SHAPE), max_position_embeddings=1024))
        torch.manual_seed(1)  # another random model of this shape costs as much to run as an augmented one
        augmented = LlamaForCausalLM(original.config)
    torch.set_default_dtype(torch.float32)
    chosen = methods.METHODS["RKLU"]
    parameters = sum(t.numel() for t in original.parameters())
    tokens = sum(len(e.prompt + e.answer) for e in forget)
    found = {"machine": records.machine(), "torch": torch.__version__, "parameters": parameters, "dtype": p.dtype}
    found |= {"pairs": len(forget), "tokens": tokens, "micro_batch_size": p.micro_batch_size}

    started = time.perf_counter()
    aids = methods.prepare(chosen, p, original, augmented, forget, [], [])
    found["seconds_frozen"] = time.perf_counter() - started
    note(found)
    index, size = list(range(min(p.batch_size, len(forget)))), p.micro_batch_size
    batches = [index[at : at + size] for at in range(0, len(index), size)]
    scored = models.ScoredLogits(original.train())
    parts = [data.collate(forget, part).to(device) for part in batches]

    def ours():
        for batch in parts:
            (chosen.forget(scored, batch, aids, 0) / len(parts)).backward()
        original.zero_grad()

    def three_models(*pair):  # the student is the original: no room for a third copy beside gradients
        for b in parts:
            with torch.no_grad():
                o, a = (m(input_ids=b.input_ids, use_cache=False).logits.float() for m in pair)
                teacher = o - p.alpha * torch.relu(a - o)
            student = original(input_ids=b.input_ids, use_cache=False).logits.float()
            (losses.reverse_kl(student, teacher, b.mask) / len(parts)).backward()
        original.zero_grad()

    peak_gb(reset=True)
    found["three_models"] = attempt(three_models, original, augmented) | {"peak_gb_without_the_third": peak_gb()}
    note(found)
    del augmented
    peak_gb(reset=True)
    found["ours"] = attempt(ours) | {"peak_gb": peak_gb()}
    note(found)
    original.zero_grad(set_to_none=True)
    peak_gb(reset=True)
    marks = []
    training.unlearn(chosen, p, original, aids, forget, [], seed=0,
                     on_epoch=lambda *_: marks.append(time.perf_counter()) or {})  # fmt: skip
    seconds = marks[1] - marks[0]
    found["epoch"] = {"seconds": seconds, "tokens_per_second": tokens / seconds, "peak_gb": peak_gb()}
    card = next((peak for name, peak in PEAK_TFLOPS.items() if name in found["machine"]), None)
    if card:
        found["epoch"]["mfu"] = 6 * parameters * tokens / seconds / (card * 1e12)
    return found


def attempt(step, *args):
    """Return {"seconds"} of a step; after a RuntimeError, such as too little GPU memory, None and "why"."""
    try:
        return {"seconds": clock(lambda: step(*args))}
    except RuntimeError as error:
        return {"seconds": None, "why": str(error).splitlines()[0]}


if __name__ == "__main__":
    torch.backends.cuda.matmul.allow_tf32 = False
    result = measure("--tiny" in sys.argv, lambda found: records.write_json(Path(sys.argv[1]), found))
    records.write_json(Path(sys.argv[1]), result)
    print(json.dumps(result, indent=1))
