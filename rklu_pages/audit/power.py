"""What the printed evidence supports: which shifts can forget quality detect, which rankings survive other seeds?"""

import json
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from rklu_lib.methods import METHODS
from rklu_pages.audit.lattice import QUESTIONS, ks_lattice
from rklu_pages.drawing.pictures import finished
from rklu_pages.results.evidence import ks_distances
from rklu_pages.results.paper import PAPER

# Computed from the TOFU authors' LLaMA-2-7B logs, R in the benchmark form of Eq. 5. First two: log R of the original
# against retain90 (300 questions). The third: retain90 against retain95 (100 shared questions). The shift is in
# standard deviations of the oracle's log R over the questions; in those of the original's it would be 0.77.
ORIGINAL_SHIFT, ORIGINAL_CORRELATION, ORACLE_CORRELATION = 0.88, 0.53, 0.98

SIZES = (*QUESTIONS.values(), 400)  # numbers of questions; forget10 also with all that it has


def _steps(a, b):
    """Return n times the KS distance between each row of a and the same row of b, both (simulations, n)."""
    return np.rint(a.shape[1] * ks_distances(a, b)).astype(int)


@cache
def critical_shifts(n, correlation=0.0, simulations=600, seed=0, level=0.05):
    """Return for each simulated pair of models the smallest shift between their truth ratios that the test detects.

    log R of n questions is normal with sd 1 in both models, with `correlation` over the questions. The shift, in sd and
    at most 3, at which the KS p-value falls below `level` is found by bisection.
    Returns (simulations,); the share of its values below x is the power of the test at shift x."""
    rng = np.random.default_rng([seed, n])
    x, noise = rng.standard_normal((2, simulations, n))
    y = correlation * x + np.sqrt(1 - correlation**2) * noise
    needed = int(np.argmax(ks_lattice(n) < level))
    low, high = np.zeros(simulations), np.full(simulations, 3.0)
    for _ in range(12):
        middle = (low + high) / 2
        seen = _steps(x, y + middle[:, None]) >= needed
        low, high = np.where(seen, low, middle), np.where(seen, middle, high)
    return high


def detectable_shifts(sizes=SIZES, power=0.8, **simulation):
    """Return the smallest shift, in sd of log R over questions, that is detected with `power`: sizes by correlation."""
    rhos = {"independent": 0.0, "original and oracle": ORIGINAL_CORRELATION, "two oracles": ORACLE_CORRELATION}
    shifts = {k: [np.quantile(critical_shifts(n, r, **simulation), power) for n in sizes] for k, r in rhos.items()}
    return pd.DataFrame(shifts, pd.Index(sizes, name="questions"))


def ideal_forget_quality(n, correlation=ORACLE_CORRELATION, simulations=600, seed=0):
    """Simulate forget qualities (simulations,) of perfect unlearning: another model, same questions, no shift."""
    rng = np.random.default_rng([seed, n])
    x, noise = rng.standard_normal((2, simulations, n))
    return ks_lattice(n)[_steps(x, correlation * x + np.sqrt(1 - correlation**2) * noise)]


def rankings_surviving(table, spread, score="forget_quality", seeds=3):
    """Compare RKLU with each baseline but FKLU with the same retain term: does its lead survive the seeds' spread?

    spread: sd between single runs (for forget quality: of log10 p), one number or {(set, method): sd}. lead: RKLU's
    printed mean minus the baseline's (forget quality: of log10). survives: lead > 1.96 sd of such a difference between
    means over `seeds`. dissolves_at: the common spread at which both are equal. Two simplifications favour "survives":
    means of p-values that spread over decades vary more than sd(log10 p) / sqrt(seeds); few seeds estimate sd badly.
    questions_apart: the lead in forget quality in steps of the KS lattice. Raises ValueError if `spread` lacks a cell.
    """
    out, value = [], table.set_index(["set", "method"])[score]
    for (name, method), x in value.items():
        family, plus, retain = method.partition("+")
        if family in ("RKLU", "FKLU"):
            continue
        ours = value[name, "RKLU" + plus + retain]
        cells = [(name, "RKLU" + plus + retain), (name, method)]
        if isinstance(spread, dict) and not set(cells) <= set(spread):
            raise ValueError(f"spread lacks {sorted(set(cells) - set(spread))}")
        sd = [spread[c] if isinstance(spread, dict) else spread for c in cells]
        quality = score == "forget_quality"
        lead = np.log10(ours / x) if quality else ours - x
        row = {"set": name, "ahead": cells[0][1], "behind": method, "lead": lead}
        if quality:
            p = ks_lattice(QUESTIONS[name])[::-1]
            k = np.interp(np.log([ours, x]), np.log(np.maximum(p, 1e-300)), np.arange(len(p))[::-1])
            row["questions_apart"] = k[1] - k[0]
        survives = lead > 1.96 * np.sqrt(np.square(sd).sum() / seeds)
        out.append(row | {"survives": survives, "dissolves_at": max(lead, 0) / (1.96 * np.sqrt(2 / seeds))})
    return pd.DataFrame(out)


def between_seed_spread(records=PAPER.parent / "records"):
    """Return the sd between seeds of log10 peak forget quality, and of the utility at that epoch, from a folder of
    records: one row per profile, split and method with no field changed. Cells with only one seed are left out."""
    rows = []
    for path in sorted(Path(records).glob("*/tofu/*/*/seed*.json")):
        profile, _, split, method = path.parts[-5:-1]
        if method in METHODS:
            peak = max(json.loads(path.read_text())["epochs"], key=lambda e: e["forget_quality_benchmark"])
            log_p = np.log10(max(peak["forget_quality_benchmark"], 1e-300))
            rows.append((profile, split, method, log_p, peak["model_utility"]))
    table = pd.DataFrame(rows, columns=["profile", "set", "method", "log10_sd", "utility_sd"])
    cells = table.groupby(["profile", "set", "method"])
    return cells.std().assign(seeds=cells.size()).query("seeds >= 2").reset_index()


def plot_power(sizes=SIZES, correlation=ORIGINAL_CORRELATION, **simulation):
    """Plot the power of the forget-quality test against the shift between two models' truth ratios."""
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    for n, line in zip(sizes, ("-", "--", ":", "-."), strict=True):
        ax.ecdf(critical_shifts(n, correlation, **simulation), color="#0072B2", ls=line, label=f"{n} questions")
    ax.axvline(ORIGINAL_SHIFT, color="#444444", lw=1)
    ax.annotate("original model", (ORIGINAL_SHIFT, 0.05), (5, 0), textcoords="offset points")
    ax.set(xlabel="shift between the models, in sd of log R", ylabel="power (p < 0.05)", xlim=(0, 1.5))
    ax.legend(loc="center right")
    return finished(figure)


def plot_rankings(rankings):
    """Plot how many of RKLU's leads survive against the assumed spread between seeds."""
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    spread = np.geomspace(0.01, 10, 400)
    for (name, rows), line in zip(rankings.groupby("set"), (":", "--", "-"), strict=True):
        left = (rows.dissolves_at.to_numpy() > spread[:, None]).sum(axis=1)
        ax.plot(spread, left, line, color="#0072B2", drawstyle="steps-post", label=f"{name} ({len(rows)} pairs)")
    ax.set(xscale="log", xlabel="sd of log10 forget quality between seeds", ylabel="leads that survive", ylim=(0, 12))
    ax.legend(loc="lower left")
    return finished(figure)
