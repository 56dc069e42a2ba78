"""Several seeds of one cell: means and spread, p-values on both scales, the bootstrap interval of a distance,
and equivalence to the oracle."""

from dataclasses import replace

import numpy as np
import pandas as pd
import scipy

from rklu_lib import metrics
from rklu_lib.records import load
from rklu_pages.results import comparison, evidence


def summary(records, rule="peak"):
    """One row per split and method: seeds, forget quality averaged as in the paper and on the log scale, utility.

    "p, mean" is the arithmetic mean of the seeds' p-values, which the largest decides; "p, spread in decades" the
    standard deviation of log10 p. Spreads are sample standard deviations (NaN for one seed).
    """
    rows = {}
    for name, group in [((s, m), g) for s, methods in comparison.groups(records).items() for m, g in methods.items()]:
        reported = [comparison.ours(r, rule) for r in group]
        p = np.array([e["forget_quality"] for e in reported])
        utility = np.array([e["model_utility"] for e in reported])
        several = len(group) > 1
        rows[name] = {
            "seeds": len(group),
            "p, mean": p.mean(),
            "p, geometric mean": scipy.stats.gmean(p),
            "p, spread in decades": np.log10(p).std(ddof=1) if several and (p > 0).all() else np.nan,
            "utility, mean": utility.mean(),
            "utility, spread": utility.std(ddof=1) if several else np.nan,
        }
    return pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=["set", "method"]))


def distance_interval(record, rule="peak", resamples=999, confidence=0.95):
    """(KS distance to the oracle, low, high) at the reported epoch: basic bootstrap over questions, both samples.

    Basic, not percentile: a largest difference is biased upwards, once more in each resample, and reflecting takes the
    bias out. For normal samples of 200 it covers 86 to 98 % where the percentile interval covers 42 to 93 %, but 81 %
    of distances of 0.02; drawn wide enough to hold the estimate, which reflecting may leave outside where it is small.
    The two models' questions are drawn apart, though they are the same: wider, where scores go together.
    """
    oracle = load(record.spec.base("oracle")).questions["truth_ratio_benchmark"][-1]
    mine = comparison.truth_ratio(record, rule)
    found = scipy.stats.bootstrap(
        (mine, oracle), evidence.ks_distances, n_resamples=resamples, vectorized=True, confidence_level=confidence,
        method="basic", rng=np.random.default_rng(0),
    )  # fmt: skip
    distance, (low, high) = float(evidence.ks_distances(mine, oracle)), np.clip(found.confidence_interval, 0, 1)
    return distance, min(low, distance), max(high, distance)


def distances(records, rule="peak"):
    """One row per record: the KS distance to the oracle with its 95 % bootstrap interval, and the p-value."""
    rows = []
    for r in records:
        distance, low, high = distance_interval(r, rule)
        p = comparison.ours(r, rule)["forget_quality"]
        rows.append((r.spec.split, r.spec.method, r.spec.seed, distance, low, high, p))
    names = ["set", "method", "seed"]
    return pd.DataFrame(rows, columns=[*names, "KS distance", "low", "high", "forget quality"]).set_index(names)


def equivalences(records, seed=0, rule="peak"):
    """One row per record: is it equivalent to the oracle of `seed` (`evidence.equivalence`), or only not told from it?

    An oracle of another seed never read what was to be forgotten either: a smaller upper bound than its own cannot be
    expected of a method.
    """
    ratios = lambda record: record.questions["truth_ratio_benchmark"][-1]  # noqa: E731
    rows = {}
    for r in records:
        known = ratios(load(replace(r.spec.base("oracle"), seed=seed)))
        mine = ratios(r) if r.spec.method == "oracle" else comparison.truth_ratio(r, rule)
        found = evidence.equivalence(mine, known)
        row = {"forget quality": metrics.forget_quality(mine, known), "KS distance": found["distance"]}
        row |= {"upper bound": found["upper"], f"within {found['margin']}": "yes" if found["equivalent"] else "no"}
        rows[r.spec.profile, r.spec.split, r.spec.method, r.spec.seed] = row
    names = ["scale", "set", "method", "seed"]
    return pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=names))
