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


def _runs(records):
    """{(width, seed): {method: record}}."""
    found = {}
    for r in records:
        found.setdefault((r.content["settings"]["hidden_size"], r.spec.seed), {})[r.spec.method] = r
    return found


def parameters(settings):
    """Weights of a Llama of these settings, tied embeddings: (hidden) per token, four attention and three feed-forward
    matrices and two norms per layer, one norm at the end."""
    h, m = settings["hidden_size"], settings["intermediate_size"]
    return settings["vocab_size"] * h + settings["n_layers"] * (4 * h * h + 3 * h * m + 2 * h) + h


def known(records):
    """What the base models know, one row per width and seed: the original's size, and of it and of the oracle the
    probability per token of the forget answers and the utility; last, the original's own forget quality."""
    rows, measures = {}, ("forget_probability", "model_utility", "forget_quality_benchmark")
    for key, named in _runs(records).items():
        size = pd.Series({("million", "parameters"): parameters(named["original"].content["settings"]) / 1e6})
        scores = comparison.aggregates([named["original"], named["oracle"]], measures).unstack().dropna()
        rows[key] = pd.concat([size, scores])
    return pd.DataFrame(rows).T.rename_axis(["width", "seed"])


def table(records):
    """Scores at the reported epochs (see `comparison.along`): rows (method, seed), columns (score, width)."""
    parts = {}
    for key, named in _runs(records).items():
        methods = [r for name, r in named.items() if name in METHODS]
        parts[key] = comparison.along(methods, "hidden_size", named["original"], named["oracle"]).set_index("method")
    long = pd.concat(parts, names=["width", "seed"]).reorder_levels(["method", "seed", "width"])
    return long[list(SCORES)].unstack("width", sort=False)


def trends(table, scores=("forget quality", "way", "balance")):
    """Whether each score of `table` "rises" or "falls" from each width to the next, or "neither"."""

    def trend(values):
        steps = values.diff(axis=1).iloc[:, 1:]
        some = steps.size > 0  # of one width nothing can be said
        found = pd.Series("neither", values.index).mask(some & (steps > 0).all(axis=1), "rises")
        return found.mask(some & (steps < 0).all(axis=1), "falls")

    return pd.DataFrame({score: trend(table[score]) for score in scores})
