"""Attack results of several methods, side by side: how far each probe finds each of them from the oracle."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn

from rklu_pages.drawing.figures import STYLE
from rklu_pages.drawing.pictures import finished


def distances(results):
    """The distance |value - oracle's| of each method at each probe: a DataFrame, methods by (probe, measure).

    results: {method: what `rklu_lib.robustness.attack.run` returned}. p-values are left out: they are of a comparison
    with the oracle already, see `quality`; so are measures that not every method has. Raises ValueError for results
    with no reference, or with another than the rest.
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
    table = pd.DataFrame.from_dict(rows, orient="index").dropna(axis="columns")
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["probe", "measure"])
    return table.rename_axis("method")


def _p_value(measure):
    return measure.endswith("(p)")


def by_probe(distances):
    """The mean distance of each probe's measures: a DataFrame, methods by probes."""
    return distances.T.groupby(level="probe", sort=False).mean().T


def quality(results):
    """The p-values of each method against the oracle, before and after relearning: methods by measures."""
    rows = {n: {r["measure"]: r["value"] for r in f["rows"] if _p_value(r["measure"])} for n, f in results.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def seconds(results):
    """What each probe took on the attacked model, in seconds: methods by probes."""
    rows = {n: {p: s["model"] for p, s in f["seconds"].items()} for n, f in results.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def heat_map(table, title=""):
    """`distances`, or `by_probe` of it, as a heat map: methods down, probes across; dark is far from the oracle."""
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
        ax.set(title=title, xlabel="", ylabel="")
        ax.tick_params(axis="y", rotation=0)
        ax.set_xticks(ax.get_xticks(), labels, rotation=60 if len(labels) > 7 else 30, ha="right")
    return finished(figure)
