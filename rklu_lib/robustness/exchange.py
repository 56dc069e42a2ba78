"""Does a model know more of the forget set than its reference, or less, beyond chance?

Both answer the same questions. Were they alike, their answers to any question could as well be exchanged; so a
difference counts where few random exchanges, question by question, make one as large."""

import numpy as np
import scipy

from rklu_lib.own import measure


def p_value(statistic, one, other, draws=4999):
    """Return the share of `draws` random exchanges, and of none, in which statistic(one, other) is at least as large.
    one, other: (n,), what two models gave to the same n questions. All 2^n exchanges are made where these are fewer.
    The result is nan where a value is not finite, and of a single question, whose exchange differs as much. Raises
    ValueError for different lengths."""
    one, other = np.asarray(one, float), np.asarray(other, float)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} values; exchanges need the same questions")
    if len(one) < 2 or not np.isfinite([one, other]).all():
        return float("nan")
    how = {"permutation_type": "samples", "n_resamples": draws, "batch": 500, "rng": np.random.default_rng(0)}
    test = scipy.stats.permutation_test((one, other), statistic, vectorized=True, alternative="greater", **how)
    return float(test.pvalue)


def mean(one, other, draws=4999):
    """Return `p_value` of the difference of two means."""
    return p_value(lambda x, y, axis: np.abs((x - y).mean(axis)), one, other, draws)


def auc(one, other, draws=4999):
    """Return `p_value` of the difference of two AUCs of membership; one, other: {"forget", "holdout"} -> scores (n,).
    Exchanged are ranks among a model's scores, for two models' may differ in scale (Venkatraman & Begg, 1996)."""
    n = len(one["forget"])
    ranks = [scipy.stats.rankdata([*scores["forget"], *scores["holdout"]]) for scores in (one, other)]
    area = lambda r: measure.rank_auc(r[..., n:], r[..., :n])  # noqa: E731
    return p_value(lambda x, y, axis: np.abs(area(x) - area(y)), *ranks, draws)


def p_values(details):
    """Return {(probe, measure): p} from an attack's details of "model" and "reference", by `mean` or `auc`, for every
    measure in "each". Of n forget questions 10^6 / n exchanges are drawn, at least 999 and at most 4999."""
    found = {}
    for probe, noted in details["model"].items():
        others = details.get("reference", {}).get(probe, {}).get("each", {})
        for name, mine in noted.get("each", {}).items():
            test, n = (auc, len(mine["forget"])) if isinstance(mine, dict) else (mean, len(mine))
            if name in others:  # a file of older code has fewer
                found[probe, name] = test(mine, others[name], int(np.clip(1e6 / n, 999, 4999)))
    return found
