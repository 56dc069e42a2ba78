"""Does a model know more of the forget set than its reference, or less, beyond chance?

Both have answered the same questions. Were they alike, their answers to any question could as well be exchanged; so a
difference counts where few random exchanges, question by question, make one as large.
"""

import numpy as np
import scipy

from rklu_lib.own import measure


def p_value(statistic, one, other, draws=4999):
    """Return the share of `draws` random exchanges in which statistic(one, other, axis=-1) is at least as large.

    one, other: (n,), what two models gave to the same n questions. All 2^n exchanges are made where these are fewer.
    Raises ValueError for different lengths."""
    if len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} values; exchanges need the same questions")
    found = scipy.stats.permutation_test(
        (np.asarray(one, float), np.asarray(other, float)), statistic, permutation_type="samples", vectorized=True,
        n_resamples=draws, batch=500, alternative="greater", rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue)


def mean(one, other, draws=4999):
    """Return `p_value` of the difference of two means."""
    return p_value(lambda x, y, axis: np.abs((x - y).mean(axis)), one, other, draws)


def auc(one, other, draws=4999):
    """Return `p_value` of the difference of two AUCs of membership; one, other: {"forget", "holdout"} -> scores (n,).

    Each model's scores are replaced by their ranks among them, since an AUC depends on no more, and two models' scores
    may differ in scale (Venkatraman & Begg, 1996)."""
    n = len(one["forget"])
    ranks = [scipy.stats.rankdata(np.concatenate([s["forget"], s["holdout"]])) for s in (one, other)]
    area = lambda r: measure.rank_auc(r[..., n:], r[..., :n])  # noqa: E731
    return p_value(lambda x, y, axis: np.abs(area(x) - area(y)), *ranks, draws)


def p_values(details):
    """Return {(probe, measure): p} from an attack's details of "model" and "reference": `mean` of what is in "each",
    `auc` of membership's "scores". Of n questions 10^6 / n exchanges are drawn, at least 999 and at most 4999. Left out
    are values that are not finite, and what a file of before these values were kept lacks."""
    model, reference = (details.get(side, {}) for side in ("model", "reference"))
    drawn = lambda values: int(np.clip(1e6 / len(values), 999, 4999))  # noqa: E731
    found = {}
    for probe in (p for p in model if p in reference):
        mine, its = (side[probe].get("each", {}) for side in (model, reference))
        for name in (m for m in mine if m in its):
            pair = np.array([mine[name], its[name]], float)
            if np.isfinite(pair).all():
                found[probe, name] = mean(*pair, drawn(pair[0]))
        mine, its = (side[probe].get("scores") for side in (model, reference))
        for name in mine["forget"] if mine and its else ():
            pair = [{k: np.array(v[name], float) for k, v in scores.items()} for scores in (mine, its)]
            if all(np.isfinite(v).all() for scores in pair for v in scores.values()):
                found[probe, f"AUC, {name}"] = auc(*pair, drawn(mine["forget"][name]))
    return found
