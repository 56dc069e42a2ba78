"""How the time of an RKLU epoch grows with forget set, width and vocabulary, beside the processor's product rate.

Each point is the median of three epochs of a student under a frozen teacher, in a process of its own with one thread.
"""

import json
import statistics
import subprocess
import sys
import time

import torch
from measure import RESULTS
from teacher import Vocabulary

from rklu_lib import data, methods, models, profiles, records, runs, training

PROMPT, ANSWER, BATCH = 24, 56, 16
BASE = {"examples": 64, "hidden_size": 192, "vocab_size": 2048}
POINTS = {"examples": (32, 64, 128, 256), "hidden_size": (96, 192, 384, 768), "vocab_size": (2048, 8192, 32768)}


def point(examples, hidden_size, vocab_size):
    """Return the seconds and matrix FLOPs of one epoch, and the rate of a large float32 product in FLOP/s."""
    torch.set_num_threads(1)
    shape = dict(hidden_size=hidden_size, intermediate_size=hidden_size * 8 // 3, vocab_size=vocab_size)
    profile = profiles.profile("mini", **shape, n_heads=hidden_size // 32, batch_size=BATCH, unlearn_epochs=1)
    vocabulary = Vocabulary(vocab_size)
    original, augmented = (models.create(profile, vocabulary, seed) for seed in (0, 1))
    ids = torch.randint(3, vocab_size, (examples, PROMPT + ANSWER), generator=torch.Generator().manual_seed(0))
    forget = [data.Example(tuple(row[:PROMPT]), tuple(row[PROMPT:])) for row in ids.tolist()]
    chosen = methods.method("RKLU")
    aids = methods.prepare(chosen, profile, original, augmented, forget, [], [])
    order = data.epoch_order([PROMPT + ANSWER] * examples, BATCH, 0, 0)
    steps = [[lambda scored, i=i: chosen.forget(scored, data.collate(forget, i), aids, 0)] for i in order]
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        training.fit(original, lambda _: steps, epochs=1, epoch_steps=len(steps), lr=1e-5)
        seconds.append(time.perf_counter() - started)
    head = hidden_size * vocab_size
    blocks = original.num_parameters() - head  # tied: embedding is a look-up, the head a product
    tokens, scored = examples * (PROMPT + ANSWER - 1), examples * ANSWER
    flops = 6 * (blocks * tokens + head * scored) + 2 * 2 * head * scored  # both teacher heads, forward only
    return {"seconds": statistics.median(seconds[1:]), "flops": flops, "matmul_rate": matmul_rate()}


def matmul_rate(n=1024):
    a, times = torch.randn(n, n), []
    for _ in range(8):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * n**3 / statistics.median(times[1:])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(point(*map(int, sys.argv[1:]))))
    else:
        rows = []
        for field, values in POINTS.items():
            for value in values:
                setting = BASE | {field: value}
                command = [sys.executable, __file__, *map(str, setting.values())]
                run = subprocess.run(command, capture_output=True, text=True, check=True, env=runs.worker_environment())
                rows.append({"varied": field, **setting, **json.loads(run.stdout.splitlines()[-1])})
                print(rows[-1])
        content = {"machine": records.machine(), "torch": torch.__version__, "code": records.code_version()}
        records.write_json(RESULTS / "scaling.json", content | {"rows": rows})
