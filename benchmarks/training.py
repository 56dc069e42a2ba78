"""Training from scratch: tokens per second on two cores, against a plain loop over the same examples.

The plain loop shuffles, pads to the longest of the batch, computes logits at all positions in float32 and masks the
loss afterwards. Each form runs in two processes of one thread, as `runs.ensure` does on two cores. The data is that of
`mini`. The shapes are that of `mini` (1.28 million parameters) and a deeper, narrower one (1.05 million).
"""

import json
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from measure import RESULTS

from rklu_lib import bases, data, models, profiles, records, runs, training

EXAMPLES = 1600
SHAPES = {"1.28 M": {}, "1.05 M": {"n_layers": 4, "hidden_size": 128, "intermediate_size": 344, "n_heads": 4}}


def setting(shape):
    profile = profiles.profile("mini", **SHAPES[shape])
    pairs = bases.training_pairs(profile, "full")[:EXAMPLES]
    tokenizer = models.train_tokenizer((f"{q} {a}" for q, a in pairs), profile.vocab_size)
    examples = [data.encode(tokenizer, profile.template, q, a) for q, a in pairs]
    return profile, models.create(profile, tokenizer, 0), examples


def naive(profile, model, examples):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=profile.weight_decay)
    order, size = torch.randperm(len(examples)).tolist(), profile.finetune_batch_size
    for at in range(0, len(order), size):
        batch = data.collate(examples, order[at : at + size])
        logits = model(input_ids=batch.input_ids).logits
        F.cross_entropy(logits[batch.mask], batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), profile.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


def ours(profile, model, examples):
    batch_size, precision = profile.finetune_batch_size, profile.finetune_precision
    training.finetune(model, examples, profile, epochs=1, lr=1e-3, batch_size=batch_size, seed=0, precision=precision)


def one(form, shape):
    torch.set_num_threads(1)
    profile, model, examples = setting(shape)
    step = {"naive": naive, "ours": ours}[form]
    step(profile, model, examples[:64])  # warm-up
    started = time.perf_counter()
    step(profile, model, examples)
    tokens = sum(map(len, examples))
    print(json.dumps({"tokens_per_second": tokens / (time.perf_counter() - started)}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(*sys.argv[1:])
    else:
        results, how = {shape: {} for shape in SHAPES}, {"stdout": subprocess.PIPE, "env": runs.worker_environment()}
        for shape, form in [(s, f) for s in SHAPES for f in ("naive", "ours", "naive", "ours")]:
            pair = [subprocess.Popen([sys.executable, __file__, form, shape], **how) for _ in range(2)]
            rates = [json.loads(p.communicate()[0].splitlines()[-1])["tokens_per_second"] for p in pair]
            results[shape].setdefault(form, []).append(sum(rates))
        for shape, forms in results.items():
            best = {form: max(rates) for form, rates in forms.items()}
            print(f"training, {shape}: {best} tokens per second, {best['ours'] / best['naive']:.2f} times as fast")
        content = {"machine": records.machine(), "torch": torch.__version__, "code": records.code_version()}
        content |= {"data": data.describe_source(profiles.profile("mini").source), "tokens_per_second": results}
        records.write_json(RESULTS / "training.json", content)
