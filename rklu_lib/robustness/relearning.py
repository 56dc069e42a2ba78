"""Relearning: train an unlearned model on a part of the forget set, and ask for the rest of it on the way.

A model that never knew the answers learns too: only a faster rise than the reference model's shows that knowledge had
stayed (Hu et al., 2025; Lynch et al., 2024). A copy of the model is trained, by `training.finetune`.
"""

import copy

import numpy as np

from rklu_lib import evaluation, profiles, training

RATE, BATCH = 2e-5, 32
PLANS = {
    "1% of it": (0.01, 1),
    "5% of it": (0.05, 1),
    "20% of it": (0.2, 1),
    "100% of it": (1.0, 1),
    "20% of it, ten times": (0.2, 10),
}  # name: (share of the forget set that is taught, epochs)


def split(n, share, seed=0):
    """Return (taught, asked), two sorted lists of places in 0..n-1: a random `share` of the forget set, at least one
    answer, and the rest. Where no answer is left, as with a share of 1, `asked` equals `taught`."""
    order = np.random.default_rng(seed).permutation(n).tolist()
    taught = sorted(order[: max(1, round(share * n))])
    return taught, sorted(set(order) - set(taught)) or taught


def checkpoints(steps):
    """Return the steps after which the model is judged: 0, 1, 2, 4, ... and the last, `steps`."""
    return sorted({0, steps, *(2**k for k in range(steps.bit_length()))} & set(range(steps + 1)))


def relearn(model, taught, judge, *, lr=RATE, batch_size=BATCH, epochs=1, seed=0, precision="no"):
    """Train a copy of `model` on `taught`, a list of `data.Example`, and call `judge` after the steps of `checkpoints`.

    The optimiser is AdamW without weight decay. Its learning rate `lr` is constant, since `training.schedule` would
    warm up all through one epoch. precision: as for `training.fit`. judge(model, step) -> {name: value}; step 0 is
    before training. Return {"steps": [...], name: [one value per judged step], ...}."""
    student, steps, found = copy.deepcopy(model), epochs * -(-len(taught) // batch_size), []
    wanted, done = checkpoints(steps), 0

    def note():
        if done in wanted:
            found.append(judge(student.eval(), done))
            student.train()

    def on_step():
        nonlocal done
        done += 1
        note()

    note()
    how = profiles.Profile("relearning", "", "{question}{answer}", model="", weight_decay=0.0)
    training.finetune(student, taught, how, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed, on_step=on_step,
                      factor=lambda step: 1.0, precision=precision)  # fmt: skip
    return {"steps": wanted} | {name: [f[name] for f in found] for name in found[0]}


def answer_nll(model, right, wrong):
    """Return (paraphrased_nll (n,), wrong_nll (n, k)) in nats per token, the arguments of `metrics.truth_ratio`.
    right: n examples of paraphrased answers. wrong: n lists of k examples of wrong answers."""
    answers = [[r.answer, *(e.answer for e in each)] for r, each in zip(right, wrong, strict=True)]
    nll = np.array(evaluation.score_answers(model, [r.prompt for r in right], answers)[0])
    return nll[:, 0], nll[:, 1:]
