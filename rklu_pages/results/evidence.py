"""What a forget quality can show: the KS distances behind it, many at once, and tests that know the questions.

A p-value above 0.05 says that no difference was found, not that there is none. With few questions even a
large difference may not be found; `audit.power.detectable_shifts` gives the smallest that is. And the KS test takes
the two samples as independent, while both models answer the same questions: of their ratios, which go together, fewer
differ by chance than it allows for, so that it finds less than it could.
"""

import numpy as np

from rklu_lib.robustness import exchange


def ks_distances(mine, other, axis=-1):
    """Return the KS distance, the statistic of `metrics.forget_quality`, of many pairs of samples at once: the largest
    difference of two distribution functions. (..., n), (..., m) along `axis` -> (...), in [0, 1]; ValueError on NaN."""
    mine, other = np.moveaxis(mine, axis, -1), np.moveaxis(other, axis, -1)
    n, m = mine.shape[-1], other.shape[-1]
    values = np.concatenate([mine, other], axis=-1)
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} NaN of {values.size} values; was every question scored?")
    order = values.argsort(axis=-1)
    ahead = np.where(order < n, m, -n).cumsum(axis=-1)  # n m times the difference of the distribution functions
    values = np.take_along_axis(values, order, axis=-1)
    last = np.append(values[..., 1:] > values[..., :-1], np.ones((*values.shape[:-1], 1), bool), axis=-1)
    return (np.abs(ahead) * last).max(axis=-1) / (n * m)  # of equal values only the last counts


def paired(unlearned, oracle, draws=9999):
    """Return the p-value of the KS distance between two models that answered the same questions, (n,) and (n,).

    Where the two are alike, their ratios of a question could as well be exchanged: p is the share of `draws` random
    exchanges, question by question, with a distance at least as large. Raises ValueError for different lengths."""
    return exchange.p_value(ks_distances, unlearned, oracle, draws)


def nearer(one, other, oracle, draws=999):
    """Return the p-value of the difference between two models' KS distances to the oracle; all (n,), of the same
    questions. It is the share of exchanges, as in `paired` but of `one` with `other`, that differ as much."""

    def difference(mine, its, axis):
        aim = np.broadcast_to(oracle, mine.shape)
        return np.abs(ks_distances(mine, aim) - ks_distances(its, aim))

    return exchange.p_value(difference, one, other, draws)


def equivalence(unlearned, oracle, margin=0.2, confidence=0.95, draws=2000, seed=0):
    """Test whether an unlearned model is equivalent to the oracle: is the KS distance's upper bound below `margin`?

    unlearned, oracle (n,): truth ratios of the same questions. The bound is the `confidence` quantile of the distances
    of `draws` resamples of the questions, the same for both models (percentile bootstrap). Resampling adds to the
    distance, so the test errs on the side of "not equivalent". Returns {"distance", "upper", "margin", "equivalent"}.
    Raises ValueError for samples of different lengths."""
    pair = np.asarray(unlearned, float), np.asarray(oracle, float)
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"{len(pair[0])} and {len(pair[1])} truth ratios; equivalence needs the same questions")
    chosen = np.random.default_rng(seed).integers(len(pair[0]), size=(draws, len(pair[0])))
    upper = float(np.quantile(ks_distances(*(values[chosen] for values in pair)), confidence))
    found = {"distance": float(ks_distances(*pair)), "upper": upper, "margin": margin}
    return found | {"equivalent": upper < margin}
