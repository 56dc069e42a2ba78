"""The paper's printed numbers (`data/paper/`), and an audit of them: what they can be, and what they can show.

Columns ending in `_pct` are per cent; `forget_quality` is a p-value, `perplexity` a perplexity, every other score a
fraction of 1, under the names the records use. The CSVs keep what is printed as text, oddities in a `note` column.
"""

from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import special, stats

PAPER = Path(__file__).resolve().parents[1] / "data" / "paper"
LABELS = ("set", "method", "example", "field", "text", "id", "where", "quote", "note")
COMPONENTS = tuple(f"{s}_{m}" for s in ("retain", "facts", "authors") for m in ("rouge", "probability"))
QUESTIONS = {"forget01": 40, "forget05": 200, "forget10": 300}  # what scan_questions() finds; forget10 has 400
# From the TOFU authors' LLaMA-2-7B logs, benchmark form of Eq. 5, in standard deviations of log R over the questions:
# original against retain90 (300 questions); correlation of log R between retain90 and retain95 (100 shared questions).
ORIGINAL_SHIFT, ORIGINAL_CORRELATION, ORACLE_CORRELATION = 0.88, 0.53, 0.98


def number(text):
    """The value of a printed number: "0.4046", "1.80e-4", "10^14"."""
    base, _, power = text.partition("^")
    return float(base) ** int(power) if power else float(text)


def resolution(text):
    """One unit in the last printed digit: "0.876" -> 1e-3, "1.80e-4" -> 1e-6. Raises ValueError on "10^14"."""
    float(text)
    mantissa, _, exponent = text.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def reported(name, printed=False):
    """One table of the paper ("table1" .. "table9"), or "statements", as a DataFrame.

    printed: keep scores as the text that is printed, instead of floats. Raises ValueError on a name that has no file.
    """
    path = PAPER / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"no table {name!r}; there are {', '.join(sorted(p.stem for p in PAPER.glob('*.csv')))}")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    scores = [] if printed else [c for c in table if c not in LABELS]
    return table.assign(**{c: table[c].map(number) for c in scores})


# 1. Model utility is the harmonic mean of nine scores, of which Table 8 prints six


def utility_bound(components):
    """Highest utility that six printed components allow: 9 / (sum 1/x + 3), truth ratios at their maximum 1 (App. A.3).

    components (n, 6), in (0, 1]. Increasing and concave in each, so means over seeds obey it too.
    """
    return 9 / ((1 / np.asarray(components)).sum(axis=1) + 3)


def utility_bounds():
    """Every row of Table 8 against `utility_bound`, by interval arithmetic on what the printed digits leave open.

    excess_rounded, excess_truncated: lowest utility the print allows minus highest bound the print allows, where print
    means rounded (half a unit either way) or cut off (up to a unit more); above 0 the row is impossible.
    truth_ratio: the harmonic mean of the three unprinted scores that the row implies; inf where none is enough.
    """
    table, text = reported("table8"), reported("table8", printed=True)
    names = ["model_utility", *COMPONENTS]
    value, unit = table[names].to_numpy(), text[names].map(resolution).to_numpy()
    utility, x, u = value[:, 0], value[:, 1:], unit[:, 1:]
    left = 9 / utility - (1 / x).sum(axis=1)
    rounded = utility - unit[:, 0] / 2 - utility_bound(x + u / 2)
    cut = utility - utility_bound(x + u)
    return table[["set", "method", "model_utility"]].assign(
        bound=utility_bound(x),
        excess_rounded=rounded,
        excess_truncated=cut,
        truth_ratio=np.where(left > 0, 3 / np.where(left > 0, left, 1), np.inf),
        verdict=np.select([cut > 0, rounded > 0], ["impossible", "only if cut off"], "possible"),
    )


def exchanged_columns():
    """What if a row's forget and retain cells were exchanged? The truth ratio it would then imply, for every row.

    in_band: inside the range that the possible rows of `utility_bounds` span as printed. A good repair brings an
    impossible row in; how many possible rows stay in says how easily that happens by chance.
    """
    rows, table = utility_bounds(), reported("table8")
    names = ["forget_rouge", "forget_probability", *COMPONENTS[2:]]
    left = 9 / table["model_utility"] - (1 / table[names]).sum(axis=1)
    implied = (3 / left).where(left > 0, np.inf)
    band = rows.truth_ratio[rows.verdict == "possible"]
    out = rows[["set", "method", "verdict"]].assign(as_printed=rows.truth_ratio, exchanged=implied)
    return out.assign(in_band=implied.between(band.min(), band.max()))


# 2. Forget quality lives on a lattice


@cache
def ks_lattice(n, method="exact"):
    """The n + 1 p-values of a two-sided two-sample KS test with n values on each side, by distance k/n, k = 0..n.

    method: "exact", P(D >= k/n) = 2 sum_i (-1)^(i-1) C(2n, n - ik) / C(2n, n), or "asymp", scipy's limit law; equal to
    `scipy.stats.ks_2samp`. Raises ValueError on another method.
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
    law = np.ones(1)
    for chance in rows.chance:
        law = np.convolve(law, [1 - chance, chance])
    counts = {c: int(rows[c].sum()) for c in ("rounded", "cut_off", "either")}
    return counts | {"expected": rows.chance.sum(), "probability": law[counts["either"] :].sum()}


@cache
def lattice_tests():
    """`lattice_test` on each set of Table 8: n = 40, 200, 300 and 400, one, two and three runs, exact and asymptotic."""
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
    """How many of the 14 values of each set fit one exact test with n questions, for every n: the size is not assumed."""
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
    """Chance that three runs have the very same KS distance, by their spread (sd, in questions: D = k/n, in units of k)."""
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
    law = np.ones(1)
    for rate in ((gap > 0) & (gap <= 50)).sum(axis=0) / 100 / len(pairs):
        law = np.convolve(law, [1 - rate, rate])
    out = []
    for i, j in pairs:
        shared = [c for c in scores if text.at[i, c] == text.at[j, c]]
        if shared:
            a, b = (f"{text.at[r, 'method']} {text.at[r, 'set']}" for r in (i, j))
            family = text.at[i, "method"].split("+")[0] == text.at[j, "method"].split("+")[0]
            out.append({"first": a, "second": b, "cells": len(shared), "columns": ", ".join(shared),
                        "same_family": family, "expected_pairs": len(pairs) * law[len(shared) :].sum()})  # fmt: skip
    return pd.DataFrame(out).sort_values(["cells", "same_family"], ascending=[False, True], ignore_index=True)


def notation():
    """Cells of Tables 3, 5 and 8 whose notation differs from their column's: per cent among fractions, other decimals."""
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
                    where = " ".join(row[[k for k in ("set", "epoch", "method") if k in row]])
                    out.append({"table": name[5:], "row": where, "score": c, "printed": row[c], "oddity": kind})
    return pd.DataFrame(out)


def statements():
    """What the paper says about its tables, sentence by sentence, and what the tables say: `holds` and `evidence`."""
    t8, t2, t7, t1 = (reported(f"table{k}") for k in (8, 2, 7, 1))
    said = reported("statements").set_index("id")
    q = t8.pivot(index="method", columns="set", values="forget_quality")
    u = t8.pivot(index="method", columns="set", values="model_utility")
    ours = q.index.str.startswith("RKLU")
    acc = t1.pivot(index="method", columns="set", values="avg_accuracy_pct")
    copy, loss = t2.set_index("method").drop("Original"), t7.set_index("method")
    datasets = said.at["six_datasets", "quote"].count("et al.")
    best = [f"{f.idxmax()} {f.max():.4f}" for c in q for f in (q[c], u[c])]
    npo = q.filter(like="NPO", axis=0).drop(columns="forget01").to_numpy()
    bases = ["GA", "NPO", "DPO", "RKLU"]
    with_retain = [(q.at[f"{b}+{r}", s] > q.at[b, s], s) for b in bases for r in ("KL", "RT") for s in q.columns[1:]]
    helped = {s: sum(h for h, where in with_retain if where == s) for s in q.columns[1:]}
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
    no_retain = q[~q.index.str.contains(r"\+")]["forget10"]
    found = {
        "six_datasets": (datasets == 6, f"{datasets} are listed"),
        "ga_rt_table": ("2" in in_tables, f"GA+RT is in tables {in_tables}"),
        "ga_rt_below_ga": (u.at["GA+RT", "forget05"] < u.at["GA", "forget05"],
                           f"{u.at['GA+RT', 'forget05']:.4f} < {u.at['GA', 'forget05']:.4f}"),
        "best_overall": (all(b.startswith("RKLU") for b in best), "; ".join(best)),
        "forget01_easy": ((q.forget01 > 0.05).mean() > 0.5, f"{(q.forget01 > 0.05).sum()} of {len(q)} above 0.05"),
        "without_retain": ((no_retain > 0.05).sum() == 1, f"above 0.05: {dict(no_retain[no_retain > 0.05])}"),
        "npo_large": ((npo < 0.05).any(), f"all {npo.size} cells are at least {npo.min():.4f}, threshold 0.05"),
        "retain_helps": (sum(helped.values()) > 8, f"higher with it: {helped}, each of 8"),
        "ga_forgets": ((ga > 0.05).any(), f"all {ga.size} cells are at most {ga.max():.4f}, threshold 0.05"),
        "ga_utility": ((ga10 < 0.1).all(), f"{dict(ga10)}"),
        "dpo_weakest": (q.idxmin().str.startswith("DPO").all(), f"lowest: {dict(q.idxmin())}"),
        "alpha_baselines": (near.model_utility <= 0.5,
                            f"nearest: {near.method} {near.forget_quality:.4f}, {near.model_utility:.4f}"),
        "capability_best": ((acc.drop("Original").idxmax() == "RKLU").all(), f"{dict(acc.loc['RKLU'])}"),
        "more_data": (rises == ["Original"] or not rises, f"smaller with more data: {', '.join(rises)}"),
        "copyright_utility": (copy.perplexity.idxmin() == copy.avg_accuracy_pct.idxmax() == "RKLU",
                              f"lowest perplexity: {copy.perplexity.idxmin()} {copy.perplexity.min()}, "
                              f"RKLU {copy.at['RKLU', 'perplexity']}"),
        "copyright_accuracy": (copy.avg_accuracy_pct.idxmax() == "RKLU", f"{copy.at['RKLU', 'avg_accuracy_pct']}"),
        "rkl_utility": (loss.at["RKLU", "avg_accuracy_pct"] > loss.at["FKLU", "avg_accuracy_pct"],
                        f"accuracy {loss.at['RKLU', 'avg_accuracy_pct']} against FKLU's "
                        f"{loss.at['FKLU', 'avg_accuracy_pct']}; perplexity {loss.at['RKLU', 'perplexity']} "
                        f"against {loss.at['FKLU', 'perplexity']}"),
        "no_leak": ({"GA", "RKLU"} == set(lists.method) - set(leak), f"the city is in {', '.join(leak)}"),
        "top_five": (six.empty, f"another count: {'; '.join(f'{r.method}, example {r.example}' for r in six.itertuples())}"),
    }  # fmt: skip
    out = pd.DataFrame(found, ["holds", "evidence"]).T
    return said[["where", "quote"]].join(out, how="inner").rename_axis(None)
