"""Attack results of several methods, side by side: the distance of each method to the oracle by every probe."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn

from rklu_lib import bases, data, files, profiles, records, runs
from rklu_lib.robustness import PROBES, attack, exchange, relearning, rounding
from rklu_pages.drawing import tables
from rklu_pages.drawing.figures import forget_quality_axis
from rklu_pages.drawing.looks import COLOURS, STYLE, look
from rklu_pages.drawing.pictures import finished
from rklu_pages.results import comparison
from rklu_pages.tasks import loading

TOLD = 0.01  # below this p-value a measure tells a model from the oracle: one of a hundred comparisons by chance


def holdout(profile, split):
    """Return (rows that no model of a profile has read, their origin in words); as many rows as the forget set has, or
    fewer. They are authors of TOFU that the profile leaves out, else TOFU's holdout, else the embedded authors."""
    p = profiles.profile(profile)
    n, read = len(data.load_tofu(split, p.source)), {row["question"] for row in bases.rows(p, "full")}
    if left_out := [row for row in data.load_tofu("full", p.source) if row["question"] not in read]:
        return left_out[:n], "authors of the data whom no model of this scale has read"
    name = data.HOLDOUT_SPLIT[split]
    try:
        return data.load_tofu(name, p.source), f"{name}, authors whom no other split has"
    except FileNotFoundError:  # a folder in the hub's older layout, without holdouts
        return data.load_tofu(name, "fictional"), f"the embedded {name}: other authors, in other words than TOFU's"


def attacked(profile, split, labels, seed=0, samples=128, sampled=20, probes=PROBES):
    """Return {label: result of `attack.run`} of models after their last epoch, with the oracle as the reference.

    labels: as of `runs.named`. A record with the same settings is read, if it has these probes. Otherwise the model is
    loaded or trained and attacked, and its record written to data/records/<profile>/tofu/<split>/attacks/. The oracle
    is attacked only once. samples, sampled: as of `attack.prepare`. probes: some of `PROBES`; the teacher, two models,
    is not asked by those that change weights."""
    folder, found = records.RECORDS / profile / "tofu" / split / "attacks", {}
    specs = {label: runs.named(profile, split, label, seed) for label in dict.fromkeys(("oracle", *labels))}
    paths = {label: folder / f"{label}-seed{seed}.json" for label in specs}
    asked = {"samples": samples, "sampled": sampled}
    for label, path in paths.items():
        content = _read(path) if path.exists() else {}
        same = (asked | {"settings": specs[label].settings}).items() <= content.items()
        if same and set(probes).isdisjoint(content["skip"]):
            found[label] = content
    asked["skip"] = sorted(set(PROBES) - set(probes))
    if missing := [label for label in specs if label not in found]:
        loading.ensure(specs[label] for label in missing)
        p, (unseen, origin) = profiles.profile(profile), holdout(profile, split)
        told, source = data.load_tofu(f"{split}_perturbed", p.source), data.describe_source(p.source)
        how = asked | {"holdout": unseen, "profile": profile, "template": p.template, "redact": False}
    for label in missing:
        path, *more = (part.model_path for part in loading.parts(specs[label]))  # the teacher is two models
        reference = path if label == "oracle" else paths["oracle"]
        out = specs[label].checkpoint_path.with_name(f"seed{seed}.attack.json")  # an interrupted attack goes on here
        out.parent.mkdir(parents=True, exist_ok=True)
        out.unlink(missing_ok=True)
        augmented = more[0] if more else None
        job = attack.prepare(path, told, out, reference=reference, augmented=augmented, **how)
        found[label] = attack.run(job)
        out.unlink(missing_ok=True)
        found[label] |= {"settings": specs[label].settings, "skip": asked["skip"], "data": source, "holdout": origin}
        records.write_json(paths[label], found[label], indent=None)
    return {label: found[label] for label in labels}


def recorded(profile, split, seed=0):
    """Return the existing records of `attacked`, {label: content}, oracle and original first; attack nothing.
    Labels are those of `comparison.of_model`."""
    paths = (records.RECORDS / profile / "tofu" / split / "attacks").glob(f"*-seed{seed}.json")
    found = {comparison.of_model(p.stem.rpartition("-")[0]): _read(p) for p in sorted(paths)}
    first = [label for label in ("oracle", "original") if label in found]
    return {label: found[label] for label in dict.fromkeys((*first, *found))}


def _read(path):
    """Return a record of `attacked`. A p-value that it lacks, as older ones do, is computed from its single answers."""
    content = files.read_json(path)
    if not any("p" in row for row in content["rows"]):
        known = exchange.p_values(content["details"])
        content["rows"] = [row | {"p": known.get((row["probe"], row["measure"]))} for row in content["rows"]]
    return content


def held_out(results):
    """Return in words how many answers the membership scores rank, and who is held out; "" where none were asked."""
    oracle = results.get("oracle")
    scores = oracle and oracle["details"]["model"].get("membership", {}).get("each")
    if not scores:
        return ""
    n, m = (len(next(iter(scores.values()))[whose]) for whose in ("forget", "holdout"))
    return f"membership: {n} forgotten answers, {m} held out ({oracle['holdout']})"


def distances(results):
    """Return the distance |value - oracle's value| of each method: a DataFrame, methods by (probe, measure).

    results: {method: what `rklu_lib.robustness.attack.run` returned}. p-values are left out, since they already compare
    with the oracle (see `quality`); so are measures that some method lacks though their probe asked it. NaN where a
    probe did not ask a method. Raises ValueError for a result without a reference, and for different references.
    """
    references = {name: (found.get("reference") or {}).get("sha256") for name, found in results.items()}
    if bad := [name for name, found in results.items() if not found.get("reference")]:
        raise ValueError(f"{', '.join(bad)}: no reference; give `rklu attack` the oracle as --reference")
    if len(set(references.values())) > 1:
        raise ValueError(f"the references differ: {references}; attack all methods beside the same oracle")
    rows = {
        name: {(r["probe"], r["measure"]): abs(r["distance"]) for r in found["rows"] if not _p_value(r["measure"])}
        for name, found in results.items()
    }
    asked = {name: {probe for probe, _ in row} for name, row in rows.items()}
    columns = dict.fromkeys(c for row in rows.values() for c in row)
    common = [c for c in columns if all(c in row for name, row in rows.items() if c[0] in asked[name])]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=common)
    table.columns = pd.MultiIndex.from_tuples(common, names=["probe", "measure"])
    return table.rename_axis("method")


def _p_value(measure):
    return measure.endswith("(p)")


def side_by_side(results):
    """Return one row per model and measure: value and 95 % interval, the oracle's, their distance, its p-value by
    exchanging the two models' answers (`rklu_lib.robustness.exchange`), and a reading.

    reading: "more" or "less" than the oracle where that p-value is below `TOLD`, else "alike". Measures without it are
    read by their intervals: apart, or not. "" for a measure without interval. Every measure with an interval grows with
    what a model knows."""
    rows = []
    for name, found in results.items():
        for r in found["rows"]:
            held, p = r["reference"], r.get("p")
            reading = "" if r["low"] is None or held["low"] is None else "alike"
            if reading and (r["low"] > held["high"] or r["high"] < held["low"] if p is None else p < TOLD):
                reading = "more" if r["distance"] > 0 else "less"
            row = {"method": name, "probe": r["probe"], "measure": r["measure"], "value": r["value"], "low": r["low"]}
            row |= {"high": r["high"], "oracle": held["value"], "oracle low": held["low"], "oracle high": held["high"]}
            rows.append(row | {"distance": r["distance"], "p, paired": p, "reading": reading})
    numbers = ("value", "low", "high", "oracle", "oracle low", "oracle high", "distance", "p, paired")
    columns = ["method", "probe", "measure", *numbers, "reading"]
    return pd.DataFrame(rows, columns=columns).set_index("method")


def as_text(table):
    """Return a table of `side_by_side` for a page: the reading first, each interval in one column, and without the
    oracle's own rows, since its value stands beside each."""
    text = tables.rounded(table, 3).drop(index="oracle", errors="ignore")
    for whose in ("", "oracle "):
        ends = table.loc[table.index != "oracle", [f"{whose}low", f"{whose}high"]]
        text[f"{whose}interval"] = [f"{low:.3f} to {high:.3f}" if pd.notna(low) else "–" for low, high in ends.values]
    text = text[["probe", "measure", "value", "oracle", "reading", "p, paired", "interval", "oracle interval"]]
    return text.dropna(axis="columns", how="all").fillna("–")


def family(results):
    """Return the memorisation rows of `side_by_side` that have an interval, for forward KL (FKLU, β = 0), reverse KL
    (RKLU, β = 1) and the Jensen-Shannon divergences between them, with a column `beta`, sorted by it."""
    ends = {"FKLU": 0.0, "RKLU": 1.0}
    kin = {name: found for name, found in results.items() if name in ends or name.partition(",")[0] == "JS"}
    betas = {name: ends[name] if name in ends else found["settings"]["js_beta"] for name, found in kin.items()}
    rows = side_by_side(kin)
    rows = rows[(rows.probe == "memorisation") & (rows.reading != "")]
    return rows.assign(beta=rows.index.map(betas)).sort_values("beta", kind="stable")


def plot_family(table):
    """Plot a table of `family`: value and interval against β, a panel per measure; dashed and shaded: the oracle's."""
    names = list(table.measure.unique())
    with plt.rc_context(STYLE):
        panels = max(1, len(names))  # one empty panel where there is no such model
        figure, axes = plt.subplots(1, panels, figsize=(2.4 * panels, 2.6), sharey=True, squeeze=False)
        for ax, name in zip(axes[0], names, strict=False):
            part = table[table.measure == name]
            spread = (part.value - part.low, part.high - part.value)
            ax.errorbar(part.beta, part.value, spread, color=COLOURS["JS"], marker="o", markersize=4, capsize=3)
            oracle = part.iloc[0]
            ax.axhline(oracle.oracle, color=COLOURS["oracle"], linestyle="--", linewidth=1)
            ax.axhspan(oracle["oracle low"], oracle["oracle high"], color=COLOURS["oracle"], alpha=0.12, linewidth=0)
            ax.set(title=name.partition(",")[0], xlabel="β", ylim=(0, 1), xticks=(0, 0.5, 1))
        axes[0, 0].set_ylabel("value")
    return finished(figure)


def readings(table):
    """Return for each model and probe, as text, how many measures read "more" and how many "less", or "alike"; "not
    asked" where a probe was left out. table: of `side_by_side`."""
    if table.empty:
        return pd.DataFrame()
    counted = table[table.reading != ""].groupby(["method", "probe"], sort=False).reading.value_counts()
    counted = counted.unstack(fill_value=0).reindex(columns=["more", "less", "alike"], fill_value=0)
    said = [
        f"{row.more} more" * bool(row.more) + ", " * bool(row.more and row.less) + f"{row.less} less" * bool(row.less)
        or "alike"
        for row in counted.itertuples()
    ]
    wide = pd.Series(said, index=counted.index).unstack("probe").fillna("not asked")
    return wide.loc[table.index.unique(), table.probe.unique()]


def by_seed(tables):
    """Return {seed: table of models} as one table, each row named by model and seed, without the oracles' own rows."""
    parts = [
        table.drop(index="oracle", errors="ignore").rename(index=lambda name, seed=seed: f"{name}, seed {seed}")
        for seed, table in tables.items()
    ]
    return pd.concat(parts).rename_axis("method")


def leakage(results):
    """Return for each membership score, methods by (score, which): the privacy leakage, 100 [(1 - AUC) - (1 -
    AUC_oracle)] / (1 - AUC_oracle) per cent, 0 for a model like the oracle, negative where membership shows more than
    for the oracle; and the closeness, 1 - |AUC - AUC_oracle| / AUC_oracle, from 0 to 1."""
    rows = {}
    for name, found in results.items():
        asked = {r["measure"].removeprefix("AUC, "): r for r in found["rows"] if r["probe"] == "membership"}
        rows[name] = {(score, what): r[what] for score, r in asked.items() for what in ("leakage", "closeness")}
    table = pd.DataFrame.from_dict({name: row for name, row in rows.items() if row}, orient="index")
    return table.rename_axis("method")


def untold(said):
    """Return the models in a table of `readings`, without the oracle, that are like the oracle by every probe."""
    return [name for name in said.index[(said == "alike").all(axis=1)] if name != "oracle"]


def kept(results):
    """Return how much of the forget set is held under each rounding: where a model's mean answer probability lies
    between oracle (0) and original (1), all rounded alike. Methods that were rounded, by schemes; empty without either
    of the two."""
    if not {"oracle", "original"} <= set(results):
        return pd.DataFrame()
    held = {name: {r["measure"]: r["value"] for r in found["rows"]} for name, found in results.items()}
    measures = {"as trained": "answer probability"} | {k: f"{k}, probability" for k in rounding.SCHEMES}
    asked = {name: rows for name, rows in held.items() if rows.keys() >= set(measures.values())}
    table = pd.DataFrame({name: {k: rows[m] for k, m in measures.items()} for name, rows in asked.items()}).T
    return ((table - table.loc["oracle"]) / (table.loc["original"] - table.loc["oracle"])).rename_axis("method")


def relearnt(results):
    """Return the curves of relearning as a long table: method, taught, step, and the mean probability of the answers
    that are asked (those not taught, if any) and, where truth ratios were scored, their forget quality."""
    rows = []
    for name, found in results.items():
        for taught, curve in found["details"]["model"].get("relearning", {"curves": {}})["curves"].items():
            what = taught if taught.startswith("unrelated") else f"{taught} ({curve['taught']})"
            points = pd.DataFrame({k: curve[k] for k in ("steps", "probability", "forget quality") if k in curve})
            rows += points.rename(columns={"steps": "step"}).assign(method=name, taught=what).to_dict("records")
    return pd.DataFrame(rows)


def rises(results, only=None):
    """Return how far each lesson raised the probability of the answers that are asked, by method and lesson: their
    numbers, the mean before and after, the rise, the oracle's, and the p-value of the difference by exchanges.
    only: a lesson, to compute no other.

    results: as of `attacked`, with the oracle. Left out are attacks without relearning or without single answers."""
    found, rows = {name: _risen(content) for name, content in results.items()}, {}
    for name, lessons in found.items():
        for lesson, (before, after) in ((k, v) for k, v in lessons.items() if only in (None, k)):
            own, oracle = after - before, np.subtract(*reversed(found["oracle"][lesson]))
            row = {"asked": len(own), "before": before.mean(), "after": after.mean(), "rise": own.mean()}
            row |= {"oracle's rise": oracle.mean(), "p, paired": exchange.mean(own, oracle)}
            rows[name, lesson] = row
    index = pd.MultiIndex.from_tuples(rows, names=["method", "taught"]) if rows else None
    return pd.DataFrame(list(rows.values()), index)


def _risen(found):
    """Return {lesson: (before, after)}, the probabilities of the answers that are asked."""
    details = found["details"]["model"]
    after = details.get("relearning", {}).get("each", {})
    before = np.array(details["memorisation"]["each"]["answer probability"] if after else [])
    places = {
        name: relearning.split(len(before), share, found["seed"])[1] for name, (share, _) in relearning.PLANS.items()
    }
    places["unrelated text"] = list(range(len(before)))
    measured = {name: f"{name}, probability" for name in places}
    return {n: (before[places[n]], np.array(after[m])) for n, m in measured.items() if m in after}


def plot_relearning(curves, measure="probability"):
    """Plot relearning, a panel for each taught amount: `measure`, a column of `relearnt`, against the steps; forget
    quality is on the paper's double scale."""
    panels = list(curves.taught.unique())
    high, across, highest = -(-len(panels) // 3), min(3, len(panels)), curves[measure].max()
    with plt.rc_context(STYLE):
        how = {"figsize": (2.9 * across, 2.4 * high + 0.8), "sharey": True, "layout": "constrained", "squeeze": False}
        figure, axes = plt.subplots(high, across, **how)
        figure.get_layout_engine().set(h_pad=0.12)
        for ax in axes.flat[len(panels) :]:
            ax.remove()
        for ax, taught in zip(axes.flat, panels, strict=False):
            for name, part in curves[curves.taught == taught].groupby("method", sort=False):
                ax.plot(part.step, part[measure], label=name, markersize=3, **look(name))
            forget_quality_axis(ax) if measure == "forget quality" else ax.set_ylim(0, min(1, 1.1 * highest))
            ax.set_title(f"taught: {taught}", fontsize=9)
            ax.set_xlabel("steps")
            ax.xaxis.get_major_locator().set_params(integer=True)
        for ax in axes[:, 0]:
            ax.set_ylabel(f"{measure} of the rest")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return finished(figure)


def by_probe(distances):
    """Return the mean distance over each probe's measures: a DataFrame, methods by probes."""
    return distances.T.groupby(level="probe", sort=False).mean().T


def quality(results):
    """Return each method's p-values against the oracle, before and after relearning: methods by measures."""
    rows = {n: {r["measure"]: r["value"] for r in f["rows"] if _p_value(r["measure"])} for n, f in results.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def seconds(results):
    """Return the seconds that each probe took on the attacked model: methods by probes."""
    rows = {n: {p: s["model"] for p, s in f["seconds"].items()} for n, f in results.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def heat_map(table, title="How far each model is from the oracle"):
    """Plot `distances`, or `by_probe` of them, as a heat map: methods by probes; dark is far from the oracle, empty not
    asked."""
    labels = [", ".join(c) if isinstance(c, tuple) else c for c in table.columns]
    wide, high = max(6.5, 1.5 + 0.42 * len(labels)), 1.6 + 0.34 * len(table)
    few = len(labels) <= 12
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(wide, high if few else high + 1.8))
        drawn = table.set_axis(labels, axis="columns")
        how = {
            "vmin": 0,
            "vmax": 1,
            "cmap": "Blues",
            "linewidths": 0.5,
            "cbar_kws": {"label": "distance to oracle"},
        }
        seaborn.heatmap(drawn, ax=ax, annot=few, fmt=".2f", **how)
        for text, value in zip(ax.texts, drawn.stack().dropna(), strict=False):
            text.set_color("#ffffff" if value > 0.6 else "#000000")  # seaborn's choice is hard to read at middle values
        for artist in (*ax.collections, *ax.texts):
            artist.set_gid("own")  # keeps its colours in a dark page: dark is far there too
        ax.set(title=title, xlabel="probe", ylabel="method")
        ax.grid(False)  # an empty cell is blank
        ax.tick_params(axis="y", rotation=0)
        ax.set_xticks(ax.get_xticks(), labels, rotation=60 if len(labels) > 7 else 30, ha="right")
    return finished(figure)
