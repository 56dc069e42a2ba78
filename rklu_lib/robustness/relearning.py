"""How fast it comes back: an unlearned model is trained on a little of what it forgot, and asked for the rest.

A model that never knew learns too, so only beside a reference does the curve say that something was still there
(Hu et al., 2025; Lynch et al., 2024). Training is `training.finetune`, on a copy.
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
}  # the share that is taught, and in how many epochs


def split(n, share, seed=0):
    """(taught, asked): the places, of n, of a random share of the forget set, at least one, and of the rest, which is
    asked for. Where nothing is left, as with a share of 1, what was taught is asked for."""
    order = np.random.default_rng(seed).permutation(n).tolist()
    taught = sorted(order[: max(1, round(share * n))])
    return taught, sorted(set(order) - set(taught)) or taught


def checkpoints(steps):
    """The steps after which something is measured: 0, 1, 2, 4, ... and the last."""
    return sorted({0, steps, *(2**k for k in range(steps.bit_length()))} & set(range(steps + 1)))


def relearn(model, taught, judge, *, lr=RATE, batch_size=BATCH, epochs=1, seed=0):
    """Train a copy of `model` on `taught`, a list of `data.Example`, and judge it on the way.

    At a constant rate (`training.schedule` would warm up all through one epoch), without weight decay. lr: the rate, of
    AdamW. judge(model, step) -> {name: value}, called after the steps of `checkpoints`, 0 the first. Returns {"steps":
    [...], name: [one value per step], ...}.
    """
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
                      factor=lambda step: 1.0)  # fmt: skip
    return {"steps": wanted} | {name: [f[name] for f in found] for name in found[0]}


def answer_nll(model, right, wrong):
    """(paraphrased_nll (n,), wrong_nll (n, k)), nats per token, as `metrics.truth_ratio` takes them: right, n examples
    of paraphrased answers; wrong, n lists of k examples each."""
    answers = [[r.answer, *(e.answer for e in each)] for r, each in zip(right, wrong, strict=True)]
    nll = np.array(evaluation.score_answers(model, [r.prompt for r in right], answers)[0])
    return nll[:, 0], nll[:, 1:]
