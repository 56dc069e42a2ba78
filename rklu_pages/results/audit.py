"""An audit of the paper's printed numbers: what they can be, how they fit each other, and what they can show."""

import json
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import special, stats

from rklu_lib.methods import METHODS
from rklu_pages.drawing.pictures import finished
from rklu_pages.results.evidence import ks_distances
from rklu_pages.results.paper import LABELS, PAPER, number, reported, resolution

COMPONENTS = tuple(f"{s}_{m}" for s in ("retain", "facts", "authors") for m in ("rouge", "probability"))
QUESTIONS = {"forget01": 40, "forget05": 200, "forget10": 300}  # what scan_questions() finds; forget10 has 400
# From the TOFU authors' LLaMA-2-7B logs, benchmark form of Eq. 5, in standard deviations of log R over the questions:
# original against retain90 (300 questions); correlation of log R between retain90 and retain95 (100 shared questions).
ORIGINAL_SHIFT, ORIGINAL_CORRELATION, ORACLE_CORRELATION = 0.88, 0.53, 0.98

# 1. Model utility is the harmonic mean of nine scores, of which Table 8 prints six


def utility_bound(components):
    """Highest utility that six printed components allow: 9 / (sum 1/x + 3), truth ratios at their maximum 1 (App. A.3).

    components (n, 6), in (0, 1]. Increasing and jointly concave, so means over seeds obey it too.
    """
    return 9 / ((1 / np.asarray(components)).sum(axis=1) + 3)


def utility_bounds():
    """Every row of Table 8 against `utility_bound`, by interval arithmetic on what the printed digits leave open.

    excess: lowest utility less highest bound that the print allows, digits rounded (half a unit either way).
    excess_any: the same with a whole unit either way, which covers digits cut off. Above 0 the row is impossible.
    limit: the bound if truth ratios had none, 9 / sum 1/x. truth_ratio: the harmonic mean of the three that the row
    implies; inf where none is enough.
    """
    table, text = reported("table8"), reported("table8", printed=True)
    names = ["model_utility", *COMPONENTS]
    value, unit = table[names].to_numpy(), text[names].map(resolution).to_numpy()
    (utility, x), (v, u) = ((a[:, 0], a[:, 1:]) for a in (value, unit))
    rounded, loose = (utility - k * v - utility_bound(x + k * u) for k in (0.5, 1.0))
    out = table[["set", "method", "model_utility"]].assign(bound=utility_bound(x), excess=rounded, excess_any=loose)
    verdict = np.select([loose > 0, rounded > 0], ["impossible", "only if cut off"], "possible")
    total = (1 / x).sum(axis=1)
    return out.assign(limit=9 / total, truth_ratio=_implied_ratio(utility, total), verdict=verdict)


def _implied_ratio(utility, total):
    """Harmonic mean of three truth ratios, given utility and the other six reciprocals' sum; inf: none is enough."""
    left = 9 / np.asarray(utility) - np.asarray(total)
    return np.where(left > 0, 3 / np.where(left > 0, left, 1), np.inf)


def exchanged_columns():
    """What if a row's forget and retain cells were exchanged? The truth ratio it would then imply, for every row.

    in_band: inside the range that the possible rows of `utility_bounds` span as printed. A good repair brings an
    impossible row in; how many possible rows stay in says how easily that happens by chance.
    """
    rows, table = utility_bounds(), reported("table8")
    names = ["forget_rouge", "forget_probability", *COMPONENTS[2:]]
    implied = _implied_ratio(table["model_utility"], (1 / table[names]).sum(axis=1))
    band = rows.truth_ratio[rows.verdict == "possible"]
    out = rows[["set", "method", "verdict"]].assign(as_printed=rows.truth_ratio, exchanged=implied)
    return out.assign(in_band=out.exchanged.between(band.min(), band.max()))


# 2. Forget quality lives on a lattice


@cache
def ks_lattice(n, method="exact"):
    """The n + 1 p-values of a two-sided two-sample KS test with n values on each side, by distance k/n, k = 0..n.

    method: "exact", P(D >= k/n) = 2 sum_i (-1)^(i-1) C(2n, n - ik) / C(2n, n), or "asymp", scipy's limit law; equal to
    `scipy.stats.ks_2samp` (which gives up on "exact" for a few p that are 1 to nine digits). Else raises ValueError.
    """
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
    """Every mean of `runs` p-values from `ks_lattice(n)`, sorted; p-values below 1e-14 count as 0."""
    single = ks_lattice(n, method)
    single = sums = np.unique(np.where(single < 1e-14, 0, single))
    for _ in range(runs - 1):
        sums = np.unique(np.add.outer(sums, single))
    return sums / runs


def printable(text, values):
    """Whether a printed number is one of `values`: (rounded, cut off, chance).

    chance: of all numbers printable in this form within a factor of two, the share that would pass either way: the
    false-positive rate for a number that has nothing to do with `values`.
    """
    unit = resolution(text)
    n = round(number(text) / unit)
    low, high = max(1, n // 2), min(2 * n, round(1 / unit))
    x = values[(values > (low - 1) * unit) & (values < (high + 1) * unit)] / unit
    near, down = np.floor(x + 0.5), np.floor(x + 1e-9)
    hits = np.union1d(near, down)
    return n in near, n in down, ((hits >= low) & (hits <= high)).sum() / (high - low + 1)


def lattice_rows(name="table8", sizes=QUESTIONS, runs=1, method="exact"):
    """`printable` for each forget quality of a table, against means over `runs` tests of sizes[set] questions."""
    table = reported(name, printed=True)
    sets = table["set"] if "set" in table else pd.Series("forget05", table.index)  # Table 5
    found = [printable(p, run_means(sizes[s], runs, method)) for s, p in zip(sets, table.forget_quality, strict=True)]
    out = pd.DataFrame({"set": sets, "method": table.method, "printed": table.forget_quality})
    out[["rounded", "cut_off", "chance"]] = pd.DataFrame(found, out.index)
    return out.assign(either=out.rounded | out.cut_off)


def lattice_test(rows):
    """Matches found and expected by chance, and how likely a chance is to find as many (Poisson-binomial tail)."""
    counts = {c: int(rows[c].sum()) for c in ("rounded", "cut_off", "either")}
    return counts | {"expected": rows.chance.sum(), "probability": _at_least(counts["either"], rows.chance)}


def _at_least(k, chances):
    """The chance that at least k of independent events happen. `poisson_binom.sf` loses what is below 1e-16."""
    return stats.poisson_binom(np.asarray(chances)).pmf(np.arange(k, len(chances) + 1)).sum()


@cache
def lattice_tests():
    """`lattice_test` per set of Table 8: 40, 200, 300 and 400 questions, one to three runs, exact and asymptotic."""
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
    """How many of the 14 values of each set fit one exact test with n questions, for every n: no size is assumed."""
    sizes = np.arange(low, high + 1)
    table = reported("table8", printed=True)
    fits = {s: [sum(any(printable(t, run_means(n))[:2]) for t in g) for n in sizes]
            for s, g in table.groupby("set").forget_quality}  # fmt: skip
    return pd.DataFrame(fits, pd.Index(sizes, name="questions"))


def row_evidence():
    """Per row of Table 8: does its forget quality fit one run, the mean of two, of three; `power`: the chance that a
    number which is no mean of three runs fails that test. Sizes as in QUESTIONS, exact tests."""
    one, two, three = (lattice_rows(runs=r) for r in (1, 2, 3))
    out = one[["set", "method", "printed"]].assign(one_run=one.either, two_runs=two.either, three_runs=three.either)
    fits = np.select([out.one_run, out.three_runs], ["one run", "mean of three"], "neither")
    return out.assign(power=1 - three.chance, fits=fits)


def agreement(spreads=(0.1, 0.25, 0.5, 1.0, 2.0, 4.0)):
    """Chance that three runs have the very same KS distance k/n, by the sd of k between runs (in questions)."""
    centre, k = np.linspace(0, 1, 101)[:, None, None], np.arange(-30, 32)
    sd = np.asarray(spreads)[:, None]
    p = stats.norm.cdf((k + 0.5 - centre) / sd) - stats.norm.cdf((k - 0.5 - centre) / sd)
    return pd.Series((p**3).sum(axis=-1).mean(axis=0), pd.Index(spreads, name="spread"), name="three_agree")


# 3. Consistency between cells, tables and text


def printed_twice():
    """Every quantity that two tables print. elsewhere: rows of the first table that hold the second table's value.

    Table 5's epoch 1 against Table 8 is one run against a mean over seeds: expected to be near, not equal.
    """
    t = {k: reported(k) for k in ("table1", "table2", "table3", "table5", "table7", "table8")}
    t["table1"] = t["table1"].query("method == 'Original' and set == 'forget10'").drop(columns="set")
    t["table5"] = t["table5"].query("epoch == 1").assign(set="forget05")
    out = []
    for a, b in (("table1", "table2"), ("table2", "table7"), ("table3", "table8"), ("table5", "table8")):
        keys = [c for c in ("set", "method") if c in t[a] and c in t[b]]
        for _, row in t[a].merge(t[b], on=keys, suffixes=("", "_2")).iterrows():
            for c in (c for c in t[a] if f"{c}_2" in row and c != "note"):
                same = t[a][(t[a][c] == row[f"{c}_2"]) & (row[c] != row[f"{c}_2"])]
                out.append({"tables": f"{a[5:]} and {b[5:]}", "row": " ".join(row[keys]), "score": c, "first": row[c],
                            "second": row[f"{c}_2"], "equal": row[c] == row[f"{c}_2"],
                            "elsewhere": "; ".join(" ".join(r) for r in same[keys].to_numpy())})  # fmt: skip
    return pd.DataFrame(out)


def equal_cells():
    """Pairs of rows of Table 8 that print the same value in the same column, most cells in common first.

    expected_pairs: how many pairs would share as many by chance, from how often two cells of a column lie 1 to 50 units
    apart. Variants of one method may well agree by nature (`same_family`); different methods at different sizes not.
    """
    text = reported("table8", printed=True)
    scores = [c for c in text if c not in LABELS]
    pairs = list(combinations(text.index, 2))
    values = np.round(reported("table8")[scores].to_numpy() / 1e-4)
    gap = np.abs([values[i] - values[j] for i, j in pairs])
    rates = ((gap > 0) & (gap <= 50)).sum(axis=0) / 100 / len(pairs)
    out = []
    for i, j in pairs:
        shared = [c for c in scores if text.at[i, c] == text.at[j, c]]
        if shared:
            a, b = (f"{text.at[r, 'method']} {text.at[r, 'set']}" for r in (i, j))
            family = text.at[i, "method"].split("+")[0] == text.at[j, "method"].split("+")[0]
            expected = len(pairs) * _at_least(len(shared), rates)
            out.append({"first": a, "second": b, "cells": len(shared), "columns": ", ".join(shared),
                        "same_family": family, "expected_pairs": expected})  # fmt: skip
    return pd.DataFrame(out).sort_values(["cells", "same_family"], ascending=[False, True], ignore_index=True)


def notation():
    """Cells of Tables 3, 5 and 8 written unlike their column: per cent among fractions, another number of decimals."""
    out = []
    for name in ("table3", "table5", "table8"):
        text = reported(name, printed=True)
        for c in (c for c in text if c not in (*LABELS, "epoch")):
            powers = text[c].str.contains("e")
            digits = text[c].str.partition("e")[0].str.partition(".")[2].str.len()
            odd = {"per cent among fractions": text[c].map(number) > 1}
            odd["other decimals"] = ~odd["per cent among fractions"] & (
                digits != digits.groupby(powers).transform(lambda d: d.mode()[0])
            )
            for kind, mask in odd.items():
                for _, row in text[mask].iterrows():
                    epoch = f"epoch {row.epoch}" if "epoch" in row else row["set"]
                    where = f"{epoch} {row.method}"
                    out.append({"table": name[5:], "row": where, "score": c, "printed": row[c], "oddity": kind})
    return pd.DataFrame(out)


def statements():
    """What the paper says about its tables, sentence by sentence, and what the tables say: `holds` and `evidence`."""
    t8, t2, t7, t1 = (reported(f"table{k}") for k in (8, 2, 7, 1))
    said = reported("statements").set_index("id")
    q = t8.pivot(index="method", columns="set", values="forget_quality")
    u = t8.pivot(index="method", columns="set", values="model_utility")
    acc = t1.pivot(index="method", columns="set", values="avg_accuracy_pct")
    copy, loss = t2.set_index("method").drop("Original"), t7.set_index("method")
    datasets = said.at["six_datasets", "quote"].count("et al.")
    best = [f"{f.idxmax()} {f.max():.4f}" for c in q for f in (q[c], u[c])]
    npo = q.filter(like="NPO", axis=0).drop(columns="forget01").to_numpy()
    bases = ["GA", "NPO", "DPO", "RKLU"]
    with_retain = [(q.at[f"{b}+{r}", s] > q.at[b, s], s) for b in bases for r in ("KL", "RT") for s in q.columns[1:]]
    helped = {s: int(sum(h for h, where in with_retain if where == s)) for s in q.columns[1:]}
    ga = q.filter(regex=r"^GA", axis=0).drop(columns="forget01").to_numpy()
    ga10 = u.loc[["GA", "GA+KL", "GA+RT"], "forget10"]
    others = t8[(t8.set == "forget10") & ~t8.method.str.startswith("RKLU")]
    near = others[others.forget_quality > 0.1].nlargest(1, "model_utility").iloc[0]
    rises = acc[acc.forget10 > acc.forget05].index.tolist()
    lists = pd.concat([reported("table4").assign(table="4"), reported("table9").assign(table="9")])
    lists = lists[lists.field == "fill_in_blank"]
    leak = lists[(lists.table == "4") & lists.text.str.lower().str.contains("karachi")].method
    six = lists[lists.text.str.count(",") != 4]
    in_tables = ", ".join(k for k in ("2", "5", "8") if "GA+RT" in set(reported(f"table{k}").method))
    alone = q.loc[~q.index.str.contains(r"\+") & (q.forget10 > 0.05), "forget10"].to_dict()
    found = {
        "six_datasets": (datasets == 6, f"{datasets} are listed"),
        "ga_rt_table": ("2" in in_tables, f"GA+RT is in tables {in_tables}"),
        "ga_rt_below_ga": (u.at["GA+RT", "forget05"] < u.at["GA", "forget05"],
                           f"{u.at['GA+RT', 'forget05']:.4f} < {u.at['GA', 'forget05']:.4f}"),
        "best_overall": (all(b.startswith("RKLU") for b in best), "; ".join(best)),
        "forget01_easy": ((q.forget01 > 0.05).mean() > 0.5, f"{(q.forget01 > 0.05).sum()} of {len(q)} above 0.05"),
        "without_retain": (set(alone) == {"RKLU"}, f"above 0.05: {alone}"),
        "npo_large": ((npo < 0.05).any(), f"all {npo.size} cells are at least {npo.min():.4f}, threshold 0.05"),
        "retain_helps": (sum(helped.values()) > 8, f"higher with it: {helped}, each of 8"),
        "ga_forgets": ((ga > 0.05).any(), f"all {ga.size} cells are at most {ga.max():.4f}, threshold 0.05"),
        "ga_utility": ((ga10 < 0.1).all(), f"forget10: {ga10.to_dict()}"),
        "dpo_weakest": (q.idxmin().str.startswith("DPO").all(), f"lowest: {q.idxmin().to_dict()}"),
        "alpha_baselines": (near.model_utility <= 0.5,
                            f"nearest: {near.method} {near.forget_quality:.4f}, {near.model_utility:.4f}"),
        "capability_best": ((acc.drop("Original").idxmax() == "RKLU").all(), f"{acc.loc['RKLU'].to_dict()}"),
        "more_data": (len(rises) < len(acc) / 2, f"except for {', '.join(rises)}"),
        "copyright_utility": (copy.perplexity.idxmin() == copy.avg_accuracy_pct.idxmax() == "RKLU",
                              f"lowest perplexity: {copy.perplexity.idxmin()} {copy.perplexity.min()}, "
                              f"RKLU {copy.at['RKLU', 'perplexity']}"),
        "copyright_accuracy": (copy.avg_accuracy_pct.idxmax() == "RKLU", f"{copy.at['RKLU', 'avg_accuracy_pct']}"),
        "rkl_utility": (loss.at["RKLU", "avg_accuracy_pct"] > loss.at["FKLU", "avg_accuracy_pct"],
                        f"accuracy {loss.at['RKLU', 'avg_accuracy_pct']} against FKLU's "
                        f"{loss.at['FKLU', 'avg_accuracy_pct']}; perplexity {loss.at['RKLU', 'perplexity']} "
                        f"against {loss.at['FKLU', 'perplexity']}"),
        "no_leak": ({"GA", "RKLU"} == set(lists.method) - set(leak), f"the city is in {', '.join(leak)}"),
        "top_five": (six.empty, f"not five: {'; '.join(f'{r.method}, example {r.example}' for r in six.itertuples())}"),
    }  # fmt: skip
    out = pd.DataFrame([(k, bool(h), e) for k, (h, e) in found.items()], columns=["id", "holds", "evidence"])
    return said[["where", "quote"]].join(out.set_index("id"), how="inner")


# 4. What the evidence supports


def _steps(a, b):
    """n times the KS distance between each row of a and the same row of b, both (simulations, n)."""
    return np.rint(a.shape[1] * ks_distances(a, b)).astype(int)


@cache
def critical_shifts(n, correlation=0.0, simulations=600, seed=0, level=0.05):
    """For each of `simulations` pairs of models, how far their truth ratios must be apart before the test says so.

    log R of n questions is normal with sd 1 in both models, correlated over questions; the shift, in sd, at which the
    KS p-value falls below `level` is found by bisection. The share of values below x is the test's power at shift x.
    """
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


def detectable_shifts(sizes=(40, 200, 300, 400), power=0.8, **simulation):
    """Smallest shift, in sd of log R over questions, that the test sees with `power`: by n and correlation."""
    rhos = {"independent": 0.0, "original and oracle": ORIGINAL_CORRELATION, "two oracles": ORACLE_CORRELATION}
    shifts = {k: [np.quantile(critical_shifts(n, r, **simulation), power) for n in sizes] for k, r in rhos.items()}
    return pd.DataFrame(shifts, pd.Index(sizes, name="questions"))


def ideal_forget_quality(n, correlation=ORACLE_CORRELATION, simulations=600, seed=0):
    """Simulated forget qualities of perfect unlearning: no shift at all, only another model on the same questions."""
    rng = np.random.default_rng([seed, n])
    x, noise = rng.standard_normal((2, simulations, n))
    return ks_lattice(n)[_steps(x, correlation * x + np.sqrt(1 - correlation**2) * noise)]


def rankings_surviving(table, spread, score="forget_quality", seeds=3):
    """RKLU against each baseline with the same retain term: does its lead in Table 8 survive the spread between seeds?

    spread: sd between single runs, of log10 for forget quality, else of the score: one number, or {(set, method): sd}.
    lead: difference of means over `seeds`, positive where RKLU is ahead; survives: lead > 1.96 sd of such a difference;
    dissolves_at: the common spread at which it is equal. Means of p-values that spread over decades vary more than sd
    of log10 / sqrt(seeds), and few seeds know their spread badly: both favour "survives".
    questions_apart: the same lead as steps of the KS lattice. Raises ValueError on a cell that `spread` lacks.
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
    """Spread between seeds in a folder of records: sd of log10 peak forget quality and of utility there, per split and
    method (with no field changed) of at least two seeds. An empty table means that none has two."""
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


# Figures, drawn with the caller's style


def plot_bounds(bounds):
    """Printed utility against the highest that the row's other cells allow; above the line is impossible."""
    figure, ax = plt.subplots(figsize=(5.2, 4.2))
    looks = {"possible": ("#8a99a8", "o"), "only if cut off": ("#E69F00", "s"), "impossible": ("#D55E00", "D")}
    for verdict, (colour, marker) in looks.items():
        rows = bounds[bounds.verdict == verdict]
        ax.plot(rows.bound, rows.model_utility, marker, color=colour, label=f"{verdict} ({len(rows)})")
    for _, r in bounds[bounds.verdict != "possible"].iterrows():
        away = (12, 7) if r.method == "DPO+KL" else (-8, -8)  # labels that would overlap
        spot = {"xytext": away, "textcoords": "offset points", "ha": "right"}
        ax.annotate(f"{r.method} {r['set']}", (r.bound, r.model_utility), **spot)
    ax.plot([1e-3, 1], [1e-3, 1], color="#444444", lw=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="highest utility the row allows",
        ylabel="model utility as printed",
        xlim=(3e-4, 1.5),
    )
    ax.legend(loc="lower right")
    return finished(figure)


def plot_scan(scan):
    """Values of each set that fit one test with n questions, for every n."""
    figure, axes = plt.subplots(len(scan.columns), figsize=(7.5, 4.6), sharex=True, sharey=True)
    for ax, name in zip(axes, scan, strict=True):
        ax.vlines(scan.index, 0, scan[name], color="#0072B2", lw=1)
        n = scan[name].idxmax()
        ax.annotate(f"n = {n}: {scan[name].max()} of 14", (n, scan[name].max()), (6, -8), textcoords="offset points")
        ax.set(ylabel=name, ylim=(0, 14))
    axes[-1].set(xlabel="questions on each side of the test")
    return finished(figure)


def plot_power(sizes=(40, 200, 300), correlation=ORIGINAL_CORRELATION, **simulation):
    """Power of the forget-quality test against the shift between two models' truth ratios."""
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    for n, line in zip(sizes, ("-", "--", ":"), strict=True):
        ax.ecdf(critical_shifts(n, correlation, **simulation), color="#0072B2", ls=line, label=f"{n} questions")
    ax.axvline(ORIGINAL_SHIFT, color="#444444", lw=1)
    ax.annotate("original model", (ORIGINAL_SHIFT, 0.05), (5, 0), textcoords="offset points")
    ax.set(xlabel="shift between the models, in sd of log R", ylabel="power (p < 0.05)", xlim=(0, 1.5))
    ax.legend(loc="center right")
    return finished(figure)


def plot_rankings(rankings):
    """How many of RKLU's leads survive, against the spread between seeds that is assumed."""
    figure, ax = plt.subplots(figsize=(6.4, 3.6))
    spread = np.geomspace(0.01, 10, 400)
    for (name, rows), line in zip(rankings.groupby("set"), (":", "--", "-"), strict=True):
        left = (rows.dissolves_at.to_numpy() > spread[:, None]).sum(axis=1)
        ax.plot(spread, left, line, color="#0072B2", drawstyle="steps-post", label=f"{name} ({len(rows)} pairs)")
    ax.set(xscale="log", xlabel="sd of log10 forget quality between seeds", ylabel="leads that survive", ylim=(0, 12))
    ax.legend(loc="lower left")
    return finished(figure)


# The summary

SEVERITIES = ("typographical", "affects a number", "affects a conclusion")
SENTENCES = {"six_datasets": 1, "ga_rt_table": 0, "top_five": 0}  # severity of a sentence that does not hold; others: 2


def _utility_findings():
    bounds, swapped, cells = utility_bounds(), exchanged_columns(), equal_cells()
    copies = cells[cells["columns"].str.contains("model_utility")]
    for _, r in bounds[bounds.verdict != "possible"].iterrows():
        name = f"{r.method} {r['set']}"
        if r.verdict == "impossible":
            text = f"utility {r.model_utility:.4f} cannot exceed {r.bound:.4f}; {r.excess_any:.4f} beyond any rounding"
            text += "".join(f"; {p.first} prints the same utility" for p in copies.itertuples() if p.second == name)
            yield 1, f"Table 8, {name}", text, "utility_bounds"
        else:
            text = f"utility {r.model_utility:.4f} is possible only if the row's digits are cut off, not rounded"
            yield 0, f"Table 8, {name}", text, "utility_bounds"
    fair = swapped[swapped.verdict == "possible"].in_band
    for _, r in swapped[(swapped.verdict == "impossible") & swapped.in_band].iterrows():
        text = (
            f"exchanging forget and retain cells makes it possible, with a truth ratio of {r.exchanged:.2f} like the "
        )
        text += f"other rows'; {fair.sum()} of {len(fair)} possible rows would survive the exchange"
        yield 1, f"Table 8, {r.method} {r['set']}", text, "exchanged_columns"


def _lattice_findings():
    rows, scan, tests = row_evidence(), scan_questions(), lattice_tests()
    single = tests.query("method == 'exact' and runs == 1").set_index("questions")
    for name, n in QUESTIONS.items():
        part, t = rows[rows.set == name], single.loc[n]
        text = f"{t.either} of {len(part)} forget qualities are p-values of one test with {n} questions "
        text += f"({t.expected:.2g} expected by chance, probability {t.probability:.0e})"
        yield 2, f"Table 8, {name}", text, "lattice_tests"
        neither = part[part.fits == "neither"]
        if len(neither):
            text = f"neither one test nor a mean of three: {', '.join(neither.method)}"
            yield 1, f"Table 8, {name}", text, "row_evidence"
    n, other = scan.forget10.idxmax(), scan.forget10.nlargest(2).iloc[1]
    fits = scan.forget10
    text = f"{fits.max()} fits with {n} questions, {fits[400]} with all 400, at most {other} with any other number"
    yield 1, "Table 8, forget10", text, "scan_questions"
    one = lattice_rows()
    cut, rounded = (one.cut_off & ~one.rounded).sum(), (one.rounded & ~one.cut_off).sum()
    text = f"{cut} values fit only if their digits are cut off, {rounded} only if they are rounded"
    yield 0, "Table 8, forget quality", text, "lattice_rows"
    single = lattice_rows("table5")
    text = (
        f"{(~single.either).sum()} of {len(single)} forget qualities of one run fit no single test with 200 questions"
    )
    yield 1, "Table 5", text, "lattice_rows"


def _consistency_findings():
    for _, r in printed_twice().query("not equal and tables != '5 and 8'").iterrows():
        text = f"{r.score} {r['first']} and {r.second}" + (
            f"; the latter is also {r.elsewhere}'s" if r.elsewhere else ""
        )
        yield 1, f"Tables {r.tables}, {r.row}", text, "printed_twice"
    cells = equal_cells()
    for _, r in cells[(cells.cells > 1) & ~cells.same_family].iterrows():
        text = f"{r.cells} equal cells ({r['columns']}); {r.expected_pairs:.0e} such pairs expected by chance"
        yield 1, f"Table 8, {r['first']} and {r.second}", text, "equal_cells"
    for _, r in notation().iterrows():
        yield 0, f"Table {r.table}, {r.row}", f"{r.score} {r.printed}: {r.oddity}", "notation"
    for key, r in statements().query("not holds").iterrows():
        quote = r.quote if len(r.quote) < 90 else r.quote[:87] + "..."
        yield SENTENCES.get(key, 2), r["where"], f'"{quote}" But: {r.evidence}', "statements"


def _evidence_findings():
    half = detectable_shifts(power=0.5)["original and oracle"]
    text = ", ".join(f"{1 - half[n] / ORIGINAL_SHIFT:.0%} with {n} questions" for n in QUESTIONS.values())
    text = f"share of the way from original to oracle after which p > 0.05 is an even chance: {text}"
    yield 2, "Forget quality above 0.05", text, "detectable_shifts"
    ranks = rankings_surviving(reported("table8"), 0.2)
    text = (
        f"no spread is printed; {ranks.survives.sum()} of {len(ranks)} leads of RKLU survive 0.2 decades between seeds"
    )
    yield 2, "Table 8, forget quality", text, "rankings_surviving"


def findings():
    """Every finding with its figures, computed here from the tables: severity, where, finding, and its function."""
    parts = (_lattice_findings, _evidence_findings, _utility_findings, _consistency_findings)
    out = sorted((f for part in parts for f in part()), key=lambda f: -f[0])
    return pd.DataFrame([(SEVERITIES[k], *f) for k, *f in out], columns=["severity", "where", "finding", "function"])
