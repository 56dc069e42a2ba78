"""Forget quality can take few values: which KS test, on how many questions and runs, can give a printed number?"""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import special, stats

from rklu_pages.drawing.pictures import finished
from rklu_pages.results.paper import number, reported, resolution

QUESTIONS = {"forget01": 40, "forget05": 200, "forget10": 300}  # as scan_questions() finds; forget10 has 400


@cache
def ks_lattice(n, method="exact"):
    """Return the n + 1 p-values of a two-sided two-sample KS test with n values in each sample, at D = k/n, k = 0..n.

    method: "exact", P(D >= k/n) = 2 sum_{i>=1} (-1)^(i-1) C(2n, n - ik) / C(2n, n), or "asymp", scipy's approximation.
    Equal to `scipy.stats.ks_2samp`, which however gives up "exact" for a few p that are 1 to nine digits.
    Raises ValueError for another method."""
    if method not in ("exact", "asymp"):
        raise ValueError(f"method must be 'exact' or 'asymp', not {method!r}")
    if method == "asymp":
        return np.append(1.0, stats.kstwo.sf(np.arange(1, n + 1) / n, round(n / 2)))
    j, p = np.arange(n + 1), np.zeros(n + 1)
    log_ratio = 2 * special.gammaln(n + 1) - special.gammaln(n - j + 1) - special.gammaln(n + j + 1)
    for i in range(1, n + 1):
        k = np.arange(1, n // i + 1)
        p[k] += 2 * (-1) ** (i - 1) * np.exp(log_ratio[i * k])
    p[0] = 1
    return np.clip(p, 0, 1)


@cache
def run_means(n, runs=1, method="exact"):
    """Return every possible mean of `runs` p-values of `ks_lattice(n)`, sorted; p-values below 1e-14 count as 0."""
    single = ks_lattice(n, method)
    single = sums = np.unique(np.where(single < 1e-14, 0, single))
    for _ in range(runs - 1):
        sums = np.unique(np.add.outer(sums, single))
    return sums / runs


def printable(text, values):
    """Return (rounded, cut off, chance): is the printed number `text` one of `values`, if rounded or if cut off?

    chance: the share of the numbers within a factor of two, printed with the same digits, that pass either way. This
    is the false-positive rate for a number that has nothing to do with `values`."""
    unit = resolution(text)
    n = round(number(text) / unit)
    low, high = max(1, n // 2), min(2 * n, round(1 / unit))
    x = values[(values > (low - 1) * unit) & (values < (high + 1) * unit)] / unit
    near, down = np.floor(x + 0.5), np.floor(x + 1e-9)
    hits = np.union1d(near, down)
    return n in near, n in down, ((hits >= low) & (hits <= high)).sum() / (high - low + 1)


def lattice_rows(name="table8", sizes=QUESTIONS, runs=1, method="exact"):
    """Return `printable` of each forget quality of a table, for means over `runs` tests of sizes[set] questions."""
    table = reported(name, printed=True)
    sets = table["set"] if "set" in table else pd.Series("forget05", table.index)  # Table 5
    found = [printable(p, run_means(sizes[s], runs, method)) for s, p in zip(sets, table.forget_quality, strict=True)]
    out = pd.DataFrame({"set": sets, "method": table.method, "printed": table.forget_quality})
    out[["rounded", "cut_off", "chance"]] = pd.DataFrame(found, out.index)
    return out.assign(either=out.rounded | out.cut_off)


def lattice_test(rows):
    """Return the number of matches, the number expected, and the chance of as many or more (Poisson-binomial tail)."""
    counts = {c: int(rows[c].sum()) for c in ("rounded", "cut_off", "either")}
    return counts | {"expected": rows.chance.sum(), "probability": at_least(counts["either"], rows.chance)}


def at_least(k, chances):
    """Return the chance that k or more of some independent events happen (`poisson_binom.sf` loses values < 1e-16)."""
    return stats.poisson_binom(np.asarray(chances)).pmf(np.arange(k, len(chances) + 1)).sum()


@cache
def lattice_tests():
    """Return `lattice_test` per set of Table 8, size (forget10: 300 and 400), runs (one to three) and KS method."""
    out = []
    for name, n in [*QUESTIONS.items(), ("forget10", 400)]:
        for method in ("exact", "asymp"):
            for runs in (1, 2, 3):
                rows = lattice_rows(sizes=QUESTIONS | {name: n}, runs=runs, method=method)
                key = {"set": name, "questions": n, "method": method, "runs": runs}
                out.append(key | lattice_test(rows[rows.set == name]))
    return pd.DataFrame(out)


@cache
def scan_questions(low=20, high=420):
    """Count, for every n from low to high, the values of each set (14) that fit one exact test with n questions."""
    sizes = np.arange(low, high + 1)
    table = reported("table8", printed=True)
    fits = {s: [sum(any(printable(t, run_means(n))[:2]) for t in g) for n in sizes]
            for s, g in table.groupby("set").forget_quality}  # fmt: skip
    return pd.DataFrame(fits, pd.Index(sizes, name="questions"))


def row_evidence():
    """Return for each row of Table 8 whether its forget quality fits one run, or the mean of two or of three runs.
    power: chance that an unrelated number fails the test of three runs. Sizes as in QUESTIONS, exact tests."""
    one, two, three = (lattice_rows(runs=r) for r in (1, 2, 3))
    out = one[["set", "method", "printed"]].assign(one_run=one.either, two_runs=two.either, three_runs=three.either)
    fits = np.select([out.one_run, out.three_runs], ["one run", "mean of three"], "neither")
    return out.assign(power=1 - three.chance, fits=fits)


def agreement(spreads=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0)):
    """Return the chance that three runs have the same KS distance k/n, for each sd of k between runs (in questions).
    k is the nearest whole number to a normal value; the chance is averaged over the normal's mean."""
    centre, k = np.linspace(0, 1, 101)[:, None, None], np.arange(-30, 32)
    sd = np.asarray(spreads)[:, None]
    p = stats.norm.cdf((k + 0.5 - centre) / sd) - stats.norm.cdf((k - 0.5 - centre) / sd)
    return pd.Series((p**3).sum(axis=-1).mean(axis=0), pd.Index(spreads, name="spread"), name="three_agree")


def plot_scan(scan):
    """Plot for every n how many values of each set fit one test with n questions; `scan`: of `scan_questions`."""
    figure, axes = plt.subplots(len(scan.columns), figsize=(7.5, 4.6), sharex=True, sharey=True)
    for ax, name in zip(axes, scan, strict=True):
        ax.vlines(scan.index, 0, scan[name], color="#0072B2", lw=1)
        n = scan[name].idxmax()
        ax.annotate(f"n = {n}: {scan[name].max()} of 14", (n, scan[name].max()), (6, -8), textcoords="offset points")
        ax.set(ylabel=name, ylim=(0, 14))
    axes[-1].set(xlabel="questions on each side of the test")
    return finished(figure)
