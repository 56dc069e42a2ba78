"""Is it the size? The same runs on models of several widths, side by side."""

import pandas as pd

from rklu_lib import runs
from rklu_lib.methods import METHODS
from rklu_pages import comparison

WIDTHS = {"mini": ("mini-half", "mini", "mini-double")}  # profiles that differ in width, narrow to wide
SCORES = ("forget quality", "model utility", "way", "kept", "balance")


def specs(profile, split, methods, seeds):
    """The spec of each method, base models among them, at each width of a profile's series and each seed."""
    series = WIDTHS.get(profile, (profile,))
    return [runs.RunSpec(p, split, m, s) for p in series for m in methods for s in seeds]


def groups(records):
    """{profile: {method: its records, one per seed}}, without the oracle, which has no forget quality."""
    found = {}
    for r in records:
        if r.spec.method != "oracle":
            found.setdefault(r.spec.profile, {}).setdefault(r.spec.method, []).append(r)
    return found


def parameters(settings):
    """Weights of a Llama of these settings, tied embeddings: (hidden) per token, four attention and three feed-forward
    matrices and two norms per layer, one norm at the end."""
    h, m = settings["hidden_size"], settings["intermediate_size"]
    return settings["vocab_size"] * h + settings["n_layers"] * (4 * h * h + 3 * h * m + 2 * h) + h


def known(records):
    """What the base models know, one row per width and seed: the original's size, its probability per token of the
    forget answers and its utility; the oracle's; and the KS distance between the two that unlearning has to close."""
    rows = {}
    for r in records:
        if r.spec.method in ("original", "oracle"):
            row = rows.setdefault((r.content["settings"]["hidden_size"], r.spec.seed), {})
            row |= {("million", "parameters"): parameters(r.content["settings"]) / 1e6}
            for score in ("forget_probability", "model_utility"):
                row |= {(score.replace("_", " "), r.spec.method): r.epochs[0][score]}
            if r.spec.method == "original":
                row |= {("forget quality", "original"): r.epochs[0]["forget_quality_benchmark"]}
    table = pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=["width", "seed"]))
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table.sort_index(axis=1, level=0, sort_remaining=False)[
        list(dict.fromkeys(table.columns.get_level_values(0)))
    ]


def table(records):
    """Scores at the reported epochs (see `comparison.along`): rows (method, seed), columns (score, width)."""
    found, parts = {}, []
    for r in records:
        found.setdefault((r.spec.profile, r.spec.seed), {})[r.spec.method] = r
    for (_, seed), named in found.items():
        methods = [r for name, r in named.items() if name in METHODS]
        parts.append(comparison.along(methods, "hidden_size", named["original"], named["oracle"]).assign(seed=seed))
    long = pd.concat(parts).rename(columns={"hidden_size": "width"})
    wide = long.pivot(index=["method", "seed"], columns="width", values=list(SCORES))
    return wide.loc[list(dict.fromkeys(zip(long["method"], long["seed"], strict=True)))]


def trends(table, scores=("forget quality", "way", "balance")):
    """Whether each score of `table` "rises" or "falls" from each width to the next, or "neither"."""

    def trend(values):
        steps = values.diff(axis=1).iloc[:, 1:]
        some = steps.size > 0  # of one width nothing can be said
        found = pd.Series("neither", values.index).mask(some & (steps > 0).all(axis=1), "rises")
        return found.mask(some & (steps < 0).all(axis=1), "falls")

    return pd.DataFrame({score: trend(table[score]) for score in scores})
