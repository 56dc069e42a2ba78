"""Tables that put the paper's numbers beside ours, and ours under several reporting rules, rates and seeds."""

import html
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import scipy

from rklu_lib import data, profiles, runs
from rklu_lib.methods import method
from rklu_lib.records import BASES, RunSpec, load
from rklu_pages.results import evidence, notes, paper

MEASURES = ("forget_quality", "model_utility", "forget_rouge", "forget_probability")
KEPT = ("forget_quality", "model_utility", "forget_probability", "retain_probability")  # what is lost, and what stays


def ours(record, rule="peak"):
    """Return the scores of a record's reported epoch; `forget_quality` is by the benchmark's form of Eq. 5."""
    epoch = record.reported(rule)
    return epoch | {"forget_quality": epoch["forget_quality_benchmark"]}


def rule_of(record):
    """Return the rule by which a record is reported: "last" for one without forget quality, such as the oracle's."""
    return "peak" if "forget_quality_benchmark" in record.epochs[0] else "last"


def truth_ratio(record, rule="peak"):
    """Return the truth ratios (n,) of a record's reported epoch, by its place among the epochs that were judged."""
    return record.questions["truth_ratio_benchmark"][record.epochs.index(record.reported(rule))]


def recorded(profile, split, methods, seeds, once=False):
    """Return the existing records of these methods and seeds, in the methods' order; compute nothing.

    once: where there is none, take that of a run which was judged after its last epoch alone, if there is one. Beside
    methods, an original or oracle of a seed at which none of these is recorded is left out: in a mean over its seeds it
    would stand beside methods of another."""
    last = (("judge_every", profiles.profile(profile).unlearn_epochs),)
    specs = [RunSpec(profile, split, *cell) for cell in product(methods, seeds)]
    found = [load(spec) or once and load(replace(spec, overrides=last)) for spec in specs]
    found = [record for record in found if record]
    if set(methods) <= set(BASES):
        return found
    students = {record.spec.seed for record in found if record.spec.method not in BASES}
    return [record for record in found if record.spec.method not in BASES or record.spec.seed in students]


def of_model(label):
    """Return a run's label without how often it was judged, which changes no model."""
    return ",".join(part for part in label.split(",") if not part.startswith("judge_every="))


def groups(records, by="split"):
    """Group records as {split: {method: records, one per seed}}, in order of appearance; by: "split" or "profile"."""
    found = {}
    for record in records:
        found.setdefault(getattr(record.spec, by), {}).setdefault(record.spec.method, []).append(record)
    return found


def peaks(records, by="split"):
    """Do as `groups`, with each record's reported epoch instead of the record: the input of `figures.plane`."""
    return {k: {m: [r.reported() for r in g] for m, g in of.items()} for k, of in groups(records, by).items()}


def in_print(reported, split):
    """Return the paper's two scores on one forget set of the methods without a retain term, in the form of `peaks`."""
    table = paper.reported(reported).query("set == @split and not method.str.contains('[+]')").set_index("method")
    both = {"forget_quality": "forget_quality_benchmark", "model_utility": "model_utility"}
    return {name: [row] for name, row in table[list(both)].rename(columns=both).to_dict("index").items()}


def each(texts):
    """Join the seeds' texts by " / ", or return a single text where all seeds have the same."""
    return " / ".join(texts if len(set(texts)) > 1 else texts[:1])


def compare(records, reported, measures=MEASURES, rule="peak"):
    """Return one row per split and method: the reported epochs, and for each measure the paper's value beside ours.

    "paper": NaN where not printed. "ours": arithmetic mean over the seeds, as in the paper's Figure 3. "spread", with
    several seeds: sample standard deviation. "published": numbers of others for the profile's models after the last
    epoch (data/paper/published.csv), where there are any.
    records: one per split, method and seed. reported: the paper's table, such as "table8". rule: `Record.reported`."""
    printed, rows = paper.reported(reported).set_index(["set", "method"]), {}
    others = paper.reported("published").set_index(["set", "method"])
    others = others[others.profile == records[0].spec.profile.removesuffix("-log")]
    for name, seeds in [((s, m), g) for s, methods in groups(records).items() for m, g in methods.items()]:
        group = [ours(record, rule) for record in seeds]
        rows[name] = {("", "epoch"): each([str(mine["epoch"]) for mine in group])}
        for m in measures:
            known, values = name in printed.index and m in printed.columns, [mine[m] for mine in group]
            rows[name] |= {(m.replace("_", " "), "paper"): printed.loc[name, m] if known else float("nan")}
            if len(others) and m in others.columns:
                theirs = others.loc[name, m] if name in others.index else float("nan")
                rows[name] |= {(m.replace("_", " "), "published"): theirs}
            rows[name] |= {(m.replace("_", " "), "ours"): np.mean(values)}
            if len(group) > 1:
                rows[name] |= {(m.replace("_", " "), "spread"): np.std(values, ddof=1)}
    table = pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=["set", "method"]))
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table if len({split for split, _ in rows}) > 1 else table.droplevel("set")


def as_text(table):
    """Return a table of scores as text: p-values to three figures, shares to four decimals, a dash for NaN.

    Shares above 0 that four decimals would show as 0 have one figure. "spread" is shown as ± after "ours". A p-value's
    spread is left out, since the largest seed decides its mean."""

    def text(column):
        share = lambda v: f"{v:.0e}" if 0 < v < 5e-5 else f"{v:.4f}"  # noqa: E731
        form = "{:d}".format if "epoch" in column else "{:.3g}".format if "forget quality" in column else share
        values = table[column].map(lambda v: v if isinstance(v, str) else "–" if pd.isna(v) else form(v))
        if column[-1] != "ours" or "forget quality" in column or (spread := (*column[:-1], "spread")) not in table:
            return values
        return values + table[spread].map(lambda v: "" if pd.isna(v) else f" ± {v:.3f}")

    shown = [column for column in table.columns if "spread" not in column]
    return pd.DataFrame({column: text(column) for column in shown}, index=table.index)


def marked(table, scores=("forget quality", "model utility")):
    """Return a table of `compare` as HTML text, with the highest of each of `scores` in bold, the paper's and ours.
    Only the rows that the paper prints compete, split by split."""
    text = as_text(table)
    for column in [c for c in text.columns if c[0] in scores and c[1] != "published"]:
        rows = table[column][table[column[0], "paper"].notna()]
        groups = [part for _, part in rows.groupby(level="set")] if "set" in table.index.names else [rows]
        for best in (name for part in groups for name in part.index[part == part.max()]):  # ties occur
            text.loc[best, column] = f"<strong>{text.loc[best, column]}</strong>"
    return text


def provenance(records):
    """Return the origin of a table's numbers as Markdown: records, data, code, machine, and how to remake them."""
    from IPython.display import Markdown

    spec, source = records[0].spec, records[0].content["data"]
    splits = list(dict.fromkeys(r.spec.split for r in records))
    paths = [f"`{r.spec.split}/{r.spec.label}/seed{r.spec.seed}.json`" for r in records]
    names = ", ".join(paths) if len(paths) <= 20 else f"{len(paths)} of them, {paths[0]} the first"
    if changed := next((r.spec for r in records if r.spec.overrides), None):
        where = f"--profile {spec.profile} --split {changed.split} --seed {changed.seed}"
        remake = f"delete them and run each, such as `rklu run '{changed.label}' {where}`"
    else:
        chosen = " ".join(f"--split {split}" for split in splits)
        seeds = " ".join(f"--seed {seed}" for seed in dict.fromkeys(r.spec.seed for r in records))
        trained = [m for m in dict.fromkeys(r.spec.method for r in records) if m not in BASES]
        named = " ".join((f"--profile {spec.profile}", chosen, seeds, *(f"--method {m}" for m in trained)))
        remake = f"delete them, then `rklu sweep {named}`"
    commits = ", ".join(sorted({str(r.content["code"]["commit"]) for r in records}))
    machines = html.escape("; ".join(sorted({r.content["machine"] for r in records})))  # free text from the system
    return Markdown(
        "<details class='rk-records'><summary>Records, and how to remake them</summary>\n\n"
        f"Records: `{notes.place()}/{spec.profile}/{spec.task}/` {names}.\n"
        f"Data: {source['source']}, sha256 of the full set {source['sha256']}. Code: commit {commits}. "
        f"Machine: {machines}.\n"
        f"Remake: {remake}.\n\n</details>"
    )


def per_epoch(records, measures=("forget_quality", "model_utility")):
    """Return each measure per epoch: rows are epochs, columns (measure, method); NaN where an epoch was not scored.
    A single-shot method has a value in one row only."""
    columns = {}
    for record in records:
        for m in measures:
            key = "forget_quality_benchmark" if m == "forget_quality" else m
            columns[m.replace("_", " "), record.spec.method] = {e["epoch"]: e[key] for e in record.epochs if key in e}
    return pd.DataFrame(columns).rename_axis("epoch").sort_index(axis=1, level=0, sort_remaining=False)


def aggregates(records, measures):
    """Return chosen scores of each record's reported epoch; NaN where there is none (the oracle's forget quality).
    One row per model or, where there are several forget sets, per forget set and model."""
    rows = {}
    for record in records:
        epoch = record.reported(rule_of(record))
        name = (record.spec.split, record.spec.label)
        rows[name] = {m.replace("_benchmark", "").replace("_", " "): epoch.get(m) for m in measures}
    table = pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=["set", "model"])).astype(float)
    return table if table.index.unique("set").size > 1 else table.droplevel("set")


def after(records, measures=KEPT):
    """Return chosen scores after the last epoch, one row per model and seed; NaN where there is none. Forget quality is
    against the oracle of the same seed."""
    rows = {}
    for record in records:
        last = record.epochs[-1] | {"forget_quality": record.epochs[-1].get("forget_quality_benchmark")}
        rows[record.spec.method, record.spec.seed] = {m.replace("_", " "): last.get(m) for m in measures}
    return pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=["model", "seed"])).astype(float)


def truth_ratios(records, percents=(10, 25, 50, 75, 90)):
    """Return percentiles of each record's truth ratios (benchmark form) at its reported epoch, the share of them above
    the oracle's median, their KS distance to the oracle's, and its p-value by `evidence.paired`. Unlearning aims at a
    share of 0.5: less is too little unlearning, more is too much. The distance does not depend on how many questions
    there are, a p-value does."""
    found = {record.spec.label: truth_ratio(record, rule_of(record)) for record in records}
    aim = np.median(found["oracle"])
    rows = {
        name: {f"{p} %": np.percentile(values, p) for p in percents}
        | {"above the oracle's median": (values > aim).mean()}
        | {"KS distance": evidence.ks_distances(values, found["oracle"])}
        | {"p, paired": evidence.paired(values, found["oracle"])}
        for name, values in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def by_rule(tables):
    """Put our columns of several comparisons side by side; tables: {reporting rule: table of `compare`}."""
    ours_only = {rule: t[[c for c in t.columns if c[1] in ("ours", "epoch")]] for rule, t in tables.items()}
    return pd.concat(
        {rule: t.droplevel(1, axis=1).rename(columns={"": "epoch"}) for rule, t in ours_only.items()}, axis=1
    )


def under_rules(records, measure):
    """Return each method's score under each reporting rule, and at the peak of forget quality by Eq. 5 as printed."""

    def as_printed(epochs):
        best = max(epochs, key=lambda e: e["forget_quality_paper"])
        return best["forget_quality_paper" if measure == "forget_quality" else measure]

    rules = ("peak", "last", "product")
    values = {rule: {r.spec.method: ours(r, rule)[measure] for r in records} for rule in rules}
    values["peak, Eq. 5 as printed"] = {r.spec.method: as_printed(r.epochs) for r in records}
    return pd.DataFrame(values).rename_axis("method")


def agreement(values):
    """Return how far a table of `under_rules` depends on the rule: Kendall's tau of each rule's ranking with that of
    "peak", the leaders by "peak" and by "last", and the ratio of the scores at the peak and at the last epoch."""
    ratio = values["peak"] / values["last"]
    found = {f"τ, {rule}": scipy.stats.kendalltau(values["peak"], values[rule]).statistic for rule in list(values)[1:]}
    leaders = lambda rule: ", ".join(values.index[values[rule] == values[rule].max()])  # noqa: E731
    found |= {"leader, peak": leaders("peak"), "leader, last": leaders("last")}
    return found | {"peak / last, median": ratio.median(), "largest": ratio.max(), "largest of": ratio.idxmax()}


def at_rate(profile, split, name, seed, rate):
    """Return the spec of a method at this peak learning rate; without a change where the method already uses it."""
    own = profiles.profile(profile).learning_rate(method(name).family)
    return RunSpec(profile, split, name, seed, () if rate == own else (("unlearn_lr", rate),))


def existing(profile, split, seed="*"):
    """Return the `RunSpec`s of all records about TOFU that exist of a scale and set, also of only one seed."""
    paths = RunSpec(profile, split, "original").record_path.parents[1].glob(f"*/seed{seed}.json")
    return [runs.named(profile, split, p.parent.name, int(p.stem.removeprefix("seed"))) for p in sorted(paths)]


def at_several(field, profile, names, seed=0):
    """Return {split: existing records, method by method} of those of `names` that were run at several values of
    `field`, a setting such as "unlearn_lr" or "alpha", on the sets on which one of them was. Records that differ in the
    judged epochs, too, are included; those with other changes are not. Compute nothing."""
    tried = {}
    for split in data.ORACLE_SPLIT:
        specs = existing(profile, split, seed)
        free = [s for s in specs if {changed for changed, _ in s.overrides} <= {field, "judge_every"}]
        tried[split] = {name: [r for s in free if s.method == name and (r := load(s))] for name in names}
    values = lambda found: {r.content["settings"].get(field) for r in found}  # noqa: E731
    several = {split: [name for name in names if len(values(of[name])) > 1] for split, of in tried.items()}
    kept = [name for name in names if any(name in there for there in several.values())]
    return {split: [r for name in kept for r in tried[split][name]] for split, there in several.items() if there}


def _rate(record):
    """Return the peak learning rate of a record's method."""
    return record.spec.values.learning_rate(method(record.spec.method).family)


def ends(records):
    """Return {"<method>, <peak learning rate>": last epochs, one per seed}, a panel of `figures.plane`."""
    found = {}
    for record in sorted(records, key=_rate):
        found.setdefault(f"{record.spec.method}, {_rate(record):g}", []).append(record.epochs[-1])
    return found


def at_best_rates(records):
    """Return {"<method>, <peak learning rate>": truth ratios (n,) of the last epoch}, of each method the run with the
    highest forget quality there: models of a panel of `figures.truth_ratios`."""
    ordered = sorted(records, key=lambda record: record.epochs[-1]["forget_quality_benchmark"])
    best = {record.spec.method: record for record in ordered}  # of one method the last stays
    return {f"{name}, {_rate(record):g}": truth_ratio(record, "last") for name, record in best.items()}


def by_rate(records, measures=("forget_quality", "model_utility", "forget_probability"), rule="peak"):
    """Return our scores of several methods at the same peak learning rates, at the epoch that `rule` reports: rows
    (seed, rate), columns (measure, method)."""
    rows = {}
    for record in records:
        row, mine = rows.setdefault((record.spec.seed, _rate(record)), {}), ours(record, rule)
        row |= {(m.replace("_", " "), record.spec.method): mine[m] for m in measures}
    table = pd.DataFrame(rows.values(), pd.MultiIndex.from_tuples(rows, names=["seed", "rate"]))
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    table = table.sort_index().sort_index(axis=1, level=0, sort_remaining=False)
    return table[[m.replace("_", " ") for m in measures]]


def ahead(scores):
    """Return for each row the column with the highest score; a dash where several columns share it."""
    shared = scores.eq(scores.max(axis=1), axis=0).sum(axis=1) > 1
    return scores.idxmax(axis=1).mask(shared, "–")


def balances(records, field, original, oracle, rule="peak"):
    """Return one row per record of a `runs.grid`, at its reported epoch: both measures, "way", "kept" and "balance".

    "way": the share of the KS distance between original and oracle that is closed. "kept": the utility as a share of
    the original's. "balance": way times kept, 0 both for a model that did nothing and for one that lost everything.
    field: the setting that the grid varies. original, oracle: records of these models, of the same split and seed."""

    def distance(record):
        return evidence.ks_distances(truth_ratio(record, rule), oracle.questions["truth_ratio_benchmark"][-1])

    rows = []
    for record in records:
        mine, value = ours(record, rule), record.content["settings"][field]
        way = 1 - distance(record) / distance(original)
        kept = mine["model_utility"] / original.epochs[0]["model_utility"]
        row = (record.spec.method, value, mine["epoch"], mine["forget_quality"], mine["model_utility"])
        rows.append((*row, way, kept, way * kept))
    columns = ["method", field, "epoch", "forget quality", "model utility", "way", "kept", "balance"]
    return pd.DataFrame(rows, columns=columns)


def by_seed(tables, field):
    """Put the seeds' tables of `balances`, {seed: table}, side by side, with columns (score, seed)."""
    wide = pd.concat({f"seed {s}": t.drop(columns="method").set_index(field) for s, t in tables.items()}, axis=1)
    return wide.swaplevel(axis=1)[list(wide.columns.unique(1))]
