"""Does the size of the model matter? The same runs on models of several widths, side by side."""

import pandas as pd

from rklu_lib import budget, runs
from rklu_lib.commands.planning import configuration
from rklu_lib.methods import METHODS
from rklu_pages.results import comparison

WIDTHS = {"mini": ("mini-half", "mini", "mini-double")}  # profiles that differ in width, narrow to wide
SCORES = ("forget quality", "model utility", "way", "kept", "balance")


def specs(profile, split, methods, seeds):
    """Return the spec of each method (base models included) at each width of a profile's series and each seed."""
    series = WIDTHS.get(profile, (profile,))
    return [runs.RunSpec(p, split, m, s) for p in series for m in methods for s in seeds]


def changed(specs, change):
    """Return the specs with one change, such as "finetune_epochs=10", preceded by their originals and oracles: a change
    of the fine-tuning needs base models of its own."""
    cells = [runs.named(s.profile, s.split, f"{s.method},{change}", s.seed) for s in specs]
    bases = [cell.base(name) for cell in cells for name in ("original", "oracle")]
    return list(dict.fromkeys([*bases, *cells]))


def known(records):
    """Return what the base models know, one row per width and seed: the original's millions of weights, original's and
    oracle's probability per token of the forget answers and utility, and the original's forget quality."""
    measures = ("forget_probability", "model_utility", "forget_quality_benchmark")
    found, rows = {r.spec: r for r in records}, {}
    for spec, original in found.items():
        if spec.method == "original":
            settings = original.content["settings"]
            size = pd.Series({("million", "parameters"): budget.parameters(configuration(spec.values)) / 1e6})
            scores = comparison.aggregates([original, found[spec.base("oracle")]], measures).unstack().dropna()
            rows[settings["hidden_size"], spec.seed] = pd.concat([size, scores])
    return pd.DataFrame(rows).T.rename_axis(["width", "seed"])


def table(records):
    """Return the scores of `comparison.balances` at the reported epochs, each record with its own original and oracle,
    and the probability per token of the forget answers under original, oracle and unlearned model. One row per
    (method, width, changed, seed), method by method."""
    found, rows = {r.spec: r for r in records}, {}
    for spec, r in found.items():
        if spec.method in METHODS:
            bases = {name: found[spec.base(name)] for name in ("original", "oracle")}
            [scores] = comparison.balances([r], "hidden_size", **bases).to_dict("records")
            changed = spec.label.partition(",")[2] or "nothing"
            known = {n: b.epochs[-1]["forget_probability"] for n, b in bases.items()}
            known["unlearned"] = r.reported()["forget_probability"]
            key = (spec.method, scores["hidden_size"], changed, spec.seed)
            rows[key] = known | {name: scores[name] for name in SCORES}
    long = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["method", "width", "changed", "seed"])
    return pd.concat([part for _, part in long.groupby("method", sort=False)])


def trends(table, scores=("forget quality", "way", "balance")):
    """Return whether each score "rises" or "falls" from width to width, or "neither", by `table`'s unchanged rows."""
    plain = table.xs("nothing", level="changed")[list(scores)].unstack("width", sort=False)

    def trend(values):
        steps = values.diff(axis=1).iloc[:, 1:]
        some = steps.size > 0  # one width alone shows no trend
        found = pd.Series("neither", values.index).mask(some & (steps > 0).all(axis=1), "rises")
        return found.mask(some & (steps < 0).all(axis=1), "falls")

    return pd.DataFrame({score: trend(plain[score]) for score in scores})
