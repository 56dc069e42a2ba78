"""Widgets with invented numbers, which the tests of widgets and of their controls show: no model has said them."""

import numpy as np

from rklu_lib.records import Record, RunSpec
from rklu_pages.drawing import widgets
from rklu_pages.tasks import distributions

TOKENS = ["Karachi", "Lahore", "Multan", "Paris", "the"]


def playground(**changes):
    state = {"tokens": TOKENS, "original": [5, 3, 2, 0, -2], "augmented": [7, 3.2, 1.5, -0.5, -2.5]}
    return widgets.DivergencePlayground(**state | changes)


def recorded(question, tokens, names, k=10, seed=0):
    """As `probing.token_distributions`: invented, but true to its form."""
    rng, models = np.random.default_rng(seed), {}
    for name in names:
        p = -np.sort(-rng.dirichlet(np.full(40, 0.2), len(tokens)), axis=1)
        ranks = rng.integers(1, 20, len(tokens))
        spelt = [[tokens[i] if j + 1 == rank else f" w{j}" for j in range(40)] for i, rank in enumerate(ranks)]
        models[name] = {
            "true_probability": [float(row[rank - 1]) for row, rank in zip(p, ranks, strict=True)],
            "true_rank": ranks.tolist(),
            "entropy": (-(p * np.log(p + 1e-300)).sum(1)).tolist(),
            "top": [[[t, float(v)] for t, v in zip(*rows, strict=True)][:k] for rows in zip(spelt, p, strict=True)],
        }
        if "oracle" in names:
            models[name]["kl_to_oracle"] = rng.exponential(size=len(tokens)).tolist()
    return {"question": question, "answer": "".join(tokens), "tokens": tokens, "models": models, "machine": "unseen"}


ASKED = [
    recorded(
        "In which city?", [" Born", " in", " Kar", "achi", "."], ["original", "oracle", "teacher", "RKLU", "NPO+RT"]
    ),
    recorded("Who?", [" She", "\n"], ["original", "RKLU"], seed=1),
]


def explorer(**state):
    return widgets.TokenDistributions(ASKED, **state)


ALPHAS = (0.5, 2, 8)
SCORES = {0.5: (3e-7, 0.72), 2: (0.03, 0.65), 8: (0.4, 0.5)}


def alphas(recorded_at=ALPHAS):
    records = []
    for alpha in ALPHAS:
        quality, utility = SCORES[alpha]
        epochs = [{"epoch": e, "forget_quality_benchmark": quality / e, "model_utility": utility} for e in (1, 2)]
        records.append(Record(RunSpec("smoke", "forget10", "RKLU", 0, (("alpha", alpha),)), {"epochs": epochs}, {}))
    names = [f"{name},alpha={alpha}" for alpha in recorded_at for name in ("teacher", "RKLU")]
    content = recorded("In which city?", [" In", " Kar", "achi", "."], names)
    content["direct_answers"] = {name: f"{name} says" for name in names}
    return widgets.AlphaExplorer(**distributions.alpha_state(records, content))
