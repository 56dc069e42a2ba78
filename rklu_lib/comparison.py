"""The paper's number beside ours, and claims decided by the records: what holds at a scale, what does not."""

import pandas as pd

from rklu_lib import paper

MEASURES = ("forget_quality", "model_utility", "forget_rouge", "forget_probability")


def ours(record, rule="peak"):
    """A record's reported epoch under the paper's column names; `forget_quality` is the benchmark's form of Eq. 5."""
    epoch = record.reported(rule)
    return epoch | {"forget_quality": epoch["forget_quality_benchmark"]}


def compare(records, reported, split, measures=MEASURES, rule="peak"):
    """One row per record: the epoch reported, and for each measure the paper's value beside ours (NaN: not printed).

    records: of one split, one per method. reported: the paper's table, such as "table8". rule: see `Record.reported`.
    """
    printed = paper.reported(reported)
    printed = printed[printed["set"] == split].set_index("method")
    rows = {}
    for record in records:
        name, mine = record.spec.method, ours(record, rule)
        rows[name] = {("", "epoch"): mine["epoch"]}
        for m in measures:
            known = name in printed.index and m in printed.columns
            rows[name] |= {(m.replace("_", " "), "paper"): printed.loc[name, m] if known else float("nan")}
            rows[name] |= {(m.replace("_", " "), "ours"): mine[m]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table.rename_axis("method")


def shown(table):
    """A comparison as readers want it: p-values to three figures, shares to four decimals, a dash where there is none."""

    def value(column):
        quality = column[0].startswith("forget quality")
        return lambda v: "–" if pd.isna(v) else f"{v:.3g}" if quality else f"{v:.4f}"

    formats = {c: value(c) for c in table.columns if c[1] != "epoch"}
    return table.style.format(formats).set_properties(**{"text-align": "right"})


def per_epoch(records, measures=("forget_quality", "model_utility")):
    """Each measure per epoch: rows are epochs, columns (measure, method). A single-shot method has one row."""
    columns = {}
    for record in records:
        for m in measures:
            key = "forget_quality_benchmark" if m == "forget_quality" else m
            columns[m.replace("_", " "), record.spec.method] = {e["epoch"]: e[key] for e in record.epochs}
    table = pd.DataFrame(columns).rename_axis("epoch").sort_index(axis=1, level=0, sort_remaining=False)
    return table


def _higher(measure, better, worse):
    return lambda r: (r[better][measure] > r[worse][measure], f"{r[better][measure]:.3g} against {r[worse][measure]:.3g}")


def _significant(r):
    value = r["RKLU"]["forget_quality"]
    return value > 0.05, f"p = {value:.3g}"


def _best_of(measure, name, among):
    def test(r):
        best = max((m for m in among if m in r), key=lambda m: r[m][measure])
        return best == name, f"highest: {best}, {r[best][measure]:.3g}; {name} {r[name][measure]:.3g}"

    return test


def _low_on_both(r):
    t, s = r["teacher"], r["RKLU"]
    worse = t["forget_quality"] < s["forget_quality"] and t["model_utility"] < s["model_utility"]
    return worse, f"p {t['forget_quality']:.3g} and {s['forget_quality']:.3g}, utility {t['model_utility']:.3g} and {s['model_utility']:.3g}"


ALONE = ("GA", "NPO", "DPO", "IDK", "TA", "RKLU")
# Claim, where the paper makes it, the test over {method: reported epoch} that decides it, the methods it needs.
CLAIMS = (
    ("RKLU passes 0.05 without a retain set", "§ 4.2.2", _significant, ("RKLU",)),
    ("RKLU forgets better than FKLU, with one teacher", "§ 4.4", _higher("forget_quality", "RKLU", "FKLU"), ("RKLU", "FKLU")),
    ("FKLU leaves the answer more probable than RKLU", "§ 4.4", _higher("forget_probability", "FKLU", "RKLU"), ("FKLU", "RKLU")),
    ("RKLU has the highest forget quality without a retain set", "§ 4.2.2", _best_of("forget_quality", "RKLU", ALONE), ALONE),
    ("RKLU has the highest model utility without a retain set", "§ 4.2.2", _best_of("model_utility", "RKLU", ALONE), ALONE),
    ("RKLU forgets better than NPO", "§ 4.2.2", _higher("forget_quality", "RKLU", "NPO"), ("RKLU", "NPO")),
    ("RKLU keeps more utility than GA", "§ 4.2.2", _higher("model_utility", "RKLU", "GA"), ("RKLU", "GA")),
    ("RKLU forgets better than TA", "§ 4.2.2", _higher("forget_quality", "RKLU", "TA"), ("RKLU", "TA")),
    ("The teacher is below RKLU on both axes", "§ 4.2.2", _low_on_both, ("teacher", "RKLU")),
    ("IDK leaves the answer more probable than RKLU", "App. D", _higher("forget_probability", "IDK", "RKLU"), ("IDK", "RKLU")),
    ("DPO leaves the answer more probable than RKLU", "App. D", _higher("forget_probability", "DPO", "RKLU"), ("DPO", "RKLU")),
    ("A retain term raises RKLU's utility", "Table 8", _higher("model_utility", "RKLU+RT", "RKLU"), ("RKLU+RT", "RKLU")),
)  # fmt: skip


def verdicts(records, methods=None, rule="peak"):
    """The claims that these records can decide: claim, where the paper makes it, verdict here, and the numbers.

    records: of one split and seed. methods: only claims about these (default: all recorded). A claim whose methods are
    not all recorded is "not tested"; nothing is decided without evidence.
    """
    reported = {r.spec.method: ours(r, rule) for r in records if "forget_quality_benchmark" in r.epochs[0]}
    rows = []
    for claim, where, test, needs in CLAIMS:
        if methods is not None and not set(needs) <= set(methods):
            continue
        holds, numbers = test(reported) if set(needs) <= set(reported) else (None, "")
        verdict = {True: "holds", False: "does not hold", None: "not tested"}[holds]
        rows.append({"claim": claim, "paper": where, "here": verdict, "numbers": numbers})
    return pd.DataFrame(rows)
