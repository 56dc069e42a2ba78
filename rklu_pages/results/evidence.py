"""What a forget quality can show: its power at a given number of questions, equivalence to the oracle, many tests.

A p-value above 0.05 says that no difference was found, not that there is none: with few questions none would be.
"""

import numpy as np
import pandas as pd

from rklu_lib import metrics


def critical_distance(n, level=0.05):
    """The smallest KS distance between two samples of n whose exact p-value is below `level`; a multiple of 1 / n."""
    steps = np.arange(n)
    for h in range(1, n + 1):
        if metrics.forget_quality(steps, steps + h - 0.5) < level:  # these lie h steps apart
            return h / n
    raise ValueError(f"no two samples of {n} differ at the level {level}; take more questions")


def ks_distances(mine, other, axis=-1):
    """The statistic behind `metrics.forget_quality`, the largest distance between two distribution functions, of many
    pairs of samples at once: (..., n) and (..., m) along `axis` -> (...), in [0, 1]. Raises ValueError on NaN."""
    mine, other = np.moveaxis(mine, axis, -1), np.moveaxis(other, axis, -1)
    n, m = mine.shape[-1], other.shape[-1]
    values = np.concatenate([mine, other], axis=-1)
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} NaN of {values.size} values; was every question scored?")
    order = values.argsort(axis=-1)
    ahead = np.where(order < n, m, -n).cumsum(axis=-1)  # n m times the difference of the two distribution functions
    values = np.take_along_axis(values, order, axis=-1)
    last = np.append(values[..., 1:] > values[..., :-1], np.ones((*values.shape[:-1], 1), bool), axis=-1)
    return (np.abs(ahead) * last).max(axis=-1) / (n * m)  # where a value occurs several times, after the last


def power(oracle, shift, n, level=0.05, draws=2000, seed=0):
    """The chance that forget quality falls below `level` when every log truth ratio has moved by `shift`.

    oracle (m,): truth ratios of a model that never saw the forget set, such as the TOFU authors' logs. shift: in
    standard deviations of their logarithms. n: questions. Two samples of n are drawn from the logarithms, one of them
    moved, as independent as the test takes them to be; two models' answers to the same questions are not.
    Returns a number in [0, 1], known to 1 / sqrt(4 draws).
    """
    rng, logs = np.random.default_rng(seed), np.log(np.asarray(oracle, float))
    one, other = (rng.choice(logs, (draws, n)) for _ in range(2))
    return float((ks_distances(one, other + shift * logs.std()) >= critical_distance(n, level) - 1e-9).mean())


def powers(oracle, shifts=(0.1, 0.2, 0.3, 0.5, 0.88), sizes=(200, 400), **how):
    """`power` of each shift and number of questions: a DataFrame, shifts by sizes."""
    cells = {n: [power(oracle, shift, n, **how) for shift in shifts] for n in sizes}
    return pd.DataFrame(cells, index=pd.Index(shifts, name="shift, sd of log R")).rename_axis(columns="questions")


def equivalence(unlearned, oracle, margin=0.2, confidence=0.95, draws=2000, seed=0):
    """Is an unlearned model as good as the oracle? Only if the upper bound of its KS distance lies below `margin`.

    unlearned, oracle (n,): truth ratios of the same questions, which are drawn anew together, with replacement: the
    bound is the `confidence` quantile of the distances so drawn (percentile bootstrap). Drawing adds its own distance
    to the one there is, so the test errs on the side of not calling models equivalent. Returns {"distance", "upper",
    "margin", "equivalent"}. Raises ValueError for samples of two lengths.
    """
    pair = np.asarray(unlearned, float), np.asarray(oracle, float)
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"{len(pair[0])} and {len(pair[1])} truth ratios; equivalence needs the same questions")
    chosen = np.random.default_rng(seed).integers(len(pair[0]), size=(draws, len(pair[0])))
    upper = float(np.quantile(ks_distances(*(values[chosen] for values in pair)), confidence))
    found = {"distance": float(ks_distances(*pair)), "upper": upper, "margin": margin}
    return found | {"equivalent": upper < margin}
