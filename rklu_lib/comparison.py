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
    """A table of scores as text: p-values to three figures, shares to four decimals, a dash where there is none."""

    def text(column):
        spec = ".3g" if "forget quality" in column else "d" if "epoch" in column else ".4f"
        return table[column].map(lambda v: "–" if pd.isna(v) else format(v, spec))

    return pd.DataFrame({column: text(column) for column in table.columns}, index=table.index)


def wrapped(table):
    """A table of sentences as HTML whose cells wrap, without the marks of emphasis (*) in what is quoted."""
    from IPython.display import HTML

    with pd.option_context("display.max_colwidth", None):
        html = table.to_html(index=False, border=0).replace("*", "")
    return HTML(html.replace("<td>", '<td style="white-space: normal; vertical-align: top">'))


def provenance(records):
    """Where a table's numbers come from, as Markdown: records, data, code, machine, and how to remake them."""
    from IPython.display import Markdown

    spec, source = records[0].spec, records[0].content["data"]
    names = ", ".join(f"`{r.spec.label}/seed{r.spec.seed}.json`" for r in records)
    if len(records) > 20:
        names = f"{len(records)} of them, `{records[0].spec.label}/seed{spec.seed}.json` the first"
    remake = f"`rklu sweep --profile {spec.profile} --split {spec.split} --seed {spec.seed}`"
    if any(r.spec.overrides for r in records):  # a grid is asked for by its notebook alone
        remake = "delete them and execute this notebook again"
    commits = ", ".join(sorted({str(r.content["code"]["commit"]) for r in records}))
    machines = "; ".join(sorted({r.content["machine"] for r in records}))
    return Markdown(
        f"Records: `data/records/{spec.profile}/{spec.task}/{spec.split}/` {names}.\n"
        f"Data: {source['source']}, sha256 of the full set {source['sha256']}. Code: commit {commits}. "
        f"Machine: {machines}.\n"
        f"Remake: {remake}."
    )


def per_epoch(records, measures=("forget_quality", "model_utility")):
    """Each measure per epoch: rows are epochs, columns (measure, method). A single-shot method has one row."""
    columns = {}
    for record in records:
        for m in measures:
            key = "forget_quality_benchmark" if m == "forget_quality" else m
            columns[m.replace("_", " "), record.spec.method] = {e["epoch"]: e[key] for e in record.epochs}
    table = pd.DataFrame(columns).rename_axis("epoch").sort_index(axis=1, level=0, sort_remaining=False)
    return table


def aggregates(records, measures):
    """Chosen aggregates of each record's reported epoch, as text; a dash where one does not exist (the oracle's own
    forget quality)."""
    rows = {}
    for record in records:
        epoch = record.reported("peak" if "forget_quality_benchmark" in record.epochs[0] else "last")
        rows[record.spec.method] = {m.replace("_benchmark", "").replace("_", " "): epoch.get(m) for m in measures}
    return shown(pd.DataFrame.from_dict(rows, orient="index").astype(float).rename_axis("model"))


def by_rule(tables):
    """Our columns of several comparisons side by side, as text: {reporting rule: table of `compare`}."""
    ours_only = {rule: t[[c for c in t.columns if c[1] in ("ours", "epoch")]] for rule, t in tables.items()}
    joined = pd.concat(
        {rule: t.droplevel(1, axis=1).rename(columns={"": "epoch"}) for rule, t in ours_only.items()}, axis=1
    )
    return shown(joined)


def along(records, field, rule="peak"):
    """Per record of a `runs.grid`: method, the field's value, reported epoch, both measures and their product."""
    rows = []
    for record in records:
        mine, value = ours(record, rule), record.content["settings"][field]
        rows.append((record.spec.method, value, mine["epoch"], mine["forget_quality"], mine["model_utility"]))
    table = pd.DataFrame(rows, columns=["method", field, "epoch", "forget quality", "model utility"])
    return table.assign(product=table["forget quality"] * table["model utility"])


def _higher(measure, better, worse):
    def test(r):
        high, low = r[better][measure], r[worse][measure]
        return high > low, f"{better} {high:.3g}, {worse} {low:.3g}"

    return test, (better, worse)


def _significant(r):
    return r["RKLU"]["forget_quality"] > 0.05, f"p = {r['RKLU']['forget_quality']:.3g}"


def _best(measure):
    def test(r):
        best = max(ALONE, key=lambda m: r[m][measure])
        return best == "RKLU", f"highest: {best}, {r[best][measure]:.3g}; RKLU {r['RKLU'][measure]:.3g}"

    return test, ALONE


def _below_on_both(r):
    pairs = {m: (r["teacher"][m], r["RKLU"][m]) for m in ("forget_quality", "model_utility")}
    numbers = "; ".join(f"{m.replace('_', ' ')} {t:.3g} against {s:.3g}" for m, (t, s) in pairs.items())
    return all(t < s for t, s in pairs.values()), numbers


ALONE = ("GA", "NPO", "DPO", "IDK", "TA", "RKLU")
# The claim, where the paper makes it, and the test over {method: reported epoch} that decides it with what it needs.
CLAIMS = (
    ("RKLU passes 0.05 without a retain set", "§ 4.2.2", (_significant, ("RKLU",))),
    ("RKLU forgets better than FKLU, with one teacher", "§ 4.4", _higher("forget_quality", "RKLU", "FKLU")),
    ("FKLU leaves the answer more probable than RKLU", "§ 4.4", _higher("forget_probability", "FKLU", "RKLU")),
    ("RKLU has the highest forget quality without a retain set", "§ 4.2.2", _best("forget_quality")),
    ("RKLU has the highest model utility without a retain set", "§ 4.2.2", _best("model_utility")),
    ("RKLU forgets better than NPO", "§ 4.2.2", _higher("forget_quality", "RKLU", "NPO")),
    ("RKLU forgets better than TA", "§ 4.2.2", _higher("forget_quality", "RKLU", "TA")),
    ("RKLU keeps more utility than GA", "§ 4.2.2", _higher("model_utility", "RKLU", "GA")),
    ("RKLU keeps more utility than NPO", "§ 4.2.2", _higher("model_utility", "RKLU", "NPO")),
    ("The teacher is below RKLU on both axes", "§ 4.2.2", (_below_on_both, ("teacher", "RKLU"))),
    ("IDK leaves the answer more probable than RKLU", "App. D", _higher("forget_probability", "IDK", "RKLU")),
    ("DPO leaves the answer more probable than RKLU", "App. D", _higher("forget_probability", "DPO", "RKLU")),
    ("A retain term raises RKLU's utility", "Table 8", _higher("model_utility", "RKLU+RT", "RKLU")),
)


def verdicts(records, methods=None, rule="peak"):
    """The claims that these records can decide: claim, where the paper makes it, verdict here, and the numbers.

    records: of one split and seed. methods: only claims about these (default: all recorded). A claim whose methods are
    not all recorded is "not tested"; nothing is decided without evidence.
    """
    reported = {r.spec.method: ours(r, rule) for r in records if "forget_quality_benchmark" in r.epochs[0]}
    rows = []
    for claim, where, (test, needs) in CLAIMS:
        if methods is not None and not set(needs) <= set(methods):
            continue
        holds, numbers = test(reported) if set(needs) <= set(reported) else (None, "")
        verdict = {True: "holds", False: "does not hold", None: "not tested"}[holds]
        rows.append({"claim": claim, "paper": where, "here": verdict, "numbers": numbers})
    return pd.DataFrame(rows)
