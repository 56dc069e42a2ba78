"""Check whether the paper's tables, cells and sentences agree with each other."""

from itertools import combinations

import numpy as np
import pandas as pd

from rklu_pages.audit.lattice import at_least
from rklu_pages.results.paper import LABELS, number, reported


def printed_twice():
    """Return one row per quantity that two tables print, with both values and whether they are equal.

    elsewhere: other rows of the first table that hold the second table's value, which hints at a slip of the row.
    Table 5's epoch 1 (one run) and Table 8 (a mean over seeds) are expected to be near, not equal."""
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
    """Return the pairs of rows of Table 8 that print the same value in the same column, most equal cells first.

    expected_pairs: number of pairs expected to share as many cells or more by chance. The chance of equal cells in a
    column is estimated as 1/100 of the share of pairs that lie 1 to 50 units of 1e-4 apart, on either side.
    Variants of one method (`same_family`) may agree for good reason; different methods on different sets should not."""
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
            expected = len(pairs) * at_least(len(shared), rates)
            out.append({"first": a, "second": b, "cells": len(shared), "columns": ", ".join(shared),
                        "same_family": family, "expected_pairs": expected})  # fmt: skip
    return pd.DataFrame(out).sort_values(["cells", "same_family"], ascending=[False, True], ignore_index=True)


def notation():
    """Return the cells of Tables 3, 5 and 8 written unlike their column: in per cent, or with other decimals."""
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


def _listed(values):
    """Return a dict or a series as text: "NPO 0.0995, RKLU 0.5182"."""
    return ", ".join(f"{name} {value}" for name, value in dict(values).items())


def statements():
    """Return the paper's sentences about its tables (where, quote) with `holds`, by the tables, and `evidence`."""
    t8, t2, t7, t1 = (reported(f"table{k}") for k in (8, 2, 7, 1))
    said = reported("statements").set_index("id")
    q = t8.pivot(index="method", columns="set", values="forget_quality")
    u = t8.pivot(index="method", columns="set", values="model_utility")
    acc = t1.pivot(index="method", columns="set", values="avg_accuracy_pct")
    copy, loss = t2.set_index("method").drop("Original"), t7.set_index("method")
    datasets = said.at["six_datasets", "quote"].count("et al.")
    best = [f"{f.idxmax()} {f.max():.4f}" for c in q for f in (q[c], u[c])]
    larger, passing = list(q.columns[1:]), (q > 0.05).sum()
    npo = u.filter(like="NPO", axis=0)
    rkl = u.loc[npo.index.str.replace("NPO", "RKLU"), larger].to_numpy()
    over = (npo[larger] < rkl) & npo[larger].lt(npo.forget01, axis=0)
    bases = ["GA", "NPO", "DPO", "RKLU"]
    with_retain = [(q.at[f"{b}+{r}", s] > q.at[b, s], s) for b in bases for r in ("KL", "RT") for s in larger]
    helped = {s: int(sum(h for h, where in with_retain if where == s)) for s in larger}
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
    alone = q.loc[~q.index.str.contains(r"\+"), "forget10"]
    found = {
        "six_datasets": (datasets == 6, f"{datasets} are listed"),
        "ga_rt_table": ("2" in in_tables, f"GA+RT is in tables {in_tables}"),
        "ga_rt_below_ga": (u.at["GA+RT", "forget05"] < u.at["GA", "forget05"],
                           f"{u.at['GA+RT', 'forget05']:.4f} < {u.at['GA', 'forget05']:.4f}"),
        "best_overall": (all(b.startswith("RKLU") for b in best), "; ".join(best)),
        "forget01_easy": (passing.forget01 > len(q) / 2 > passing[larger].max(),
                          f"above 0.05: {_listed(passing)}, each of {len(q)}"),
        "without_retain": (alone.idxmax() == "RKLU" and alone.max() > 0.05,
                           f"above 0.05: {_listed(alone[alone > 0.05])}"),
        "npo_large": (over.all(axis=None), f"utility of NPO: {_listed(u.loc['NPO'].map('{:.4f}'.format))}; "
                      f"of RKLU: {_listed(u.loc['RKLU'].map('{:.4f}'.format))}"),
        "retain_helps": (sum(helped.values()) > 8, f"higher with it: {_listed(helped)}, each of 8"),
        "ga_forgets": ((ga > 0.05).any(), f"all {ga.size} cells are at most {ga.max():.4f}, threshold 0.05"),
        "ga_utility": ((ga10 < 0.1).all(), f"forget10: {_listed(ga10)}"),
        "dpo_weakest": (q.idxmin().str.startswith("DPO").all(), f"lowest: {_listed(q.idxmin())}"),
        "alpha_baselines": (near.model_utility <= 0.5,
                            f"nearest: {near.method} {near.forget_quality:.4f}, {near.model_utility:.4f}"),
        "capability_best": ((acc.drop("Original").idxmax() == "RKLU").all(), _listed(acc.loc["RKLU"])),
        "more_data": (len(rises) < len(acc) / 2, f"except for {', '.join(rises)}"),
        "copyright_utility": (copy.perplexity.idxmin() == copy.avg_accuracy_pct.idxmax() == "RKLU",
                              f"lowest perplexity: {copy.perplexity.idxmin()} {copy.perplexity.min()}, "
                              f"RKLU {copy.at['RKLU', 'perplexity']}; highest accuracy: "
                              f"{copy.avg_accuracy_pct.idxmax()} {copy.avg_accuracy_pct.max()}"),
        "copyright_accuracy": (copy.avg_accuracy_pct.idxmax() == "RKLU", f"{copy.at['RKLU', 'avg_accuracy_pct']}"),
        "rkl_utility": (loss.at["RKLU", "avg_accuracy_pct"] > loss.at["FKLU", "avg_accuracy_pct"],
                        f"accuracy {loss.at['RKLU', 'avg_accuracy_pct']} against FKLU's "
                        f"{loss.at['FKLU', 'avg_accuracy_pct']}; perplexity {loss.at['RKLU', 'perplexity']} "
                        f"against {loss.at['FKLU', 'perplexity']}"),
        "no_leak": ({"GA", "RKLU"} == set(lists.method) - set(leak), f"the city is in {', '.join(leak)}"),
        "top_five": (six.empty, "not five entries: "
                     + "; ".join(f"{r.method}, example {r.example}" for r in six.itertuples())),
    }  # fmt: skip
    out = pd.DataFrame([(k, bool(h), e) for k, (h, e) in found.items()], columns=["id", "holds", "evidence"])
    return said[["where", "quote"]].join(out.set_index("id"), how="inner")
