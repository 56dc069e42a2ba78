"""A table of what each recorded change to RKLU reaches."""

import pandas as pd

from rklu_lib import runs
from rklu_lib.records import load
from rklu_pages.results import comparison


def reached(profile, split, seed):
    """Return one row per recorded kind of change to RKLU: the number of values tried, the highest forget quality with
    its value and utility, whether it passes 0.05, and the best balance (`comparison.balances`) with its value."""
    folder = runs.RunSpec(profile, split, "RKLU", seed).record_path.parents[1]
    found = {"nothing": {"RKLU": "RKLU"}}  # {what is changed: {label of the run: its value as shown}}
    for path in sorted(folder.glob(f"RKLU[,+]*/seed{seed}.json")):
        label = path.parent.name
        settings = comparison.of_model(label).split(",")[1:]
        if settings or "+" in label:
            field, _, value = ",".join(settings).partition("=")
            found.setdefault(field or "retain term", {})[label] = value or label
    found |= {"direction of the KL": {"FKLU": "FKLU"}, "the teacher itself": {"teacher": "teacher"}}
    rows = {}
    for change, shown in found.items():
        parts = {}
        for label, value in shown.items():
            spec = runs.named(profile, split, label, seed)
            record, *bases = (load(s) for s in (spec, spec.base("original"), spec.base("oracle")))
            if record and all(bases):
                parts[value] = comparison.balances([record], "alpha", *bases)
        if parts:
            tried = pd.concat(parts).droplevel(1)
            most, best = tried["forget quality"].idxmax(), tried["balance"].idxmax()
            highest, utility = tried.loc[most, ["forget quality", "model utility"]]
            balance = tried.loc[best, "balance"]
            rows[change] = (len(tried), highest, most, utility, highest > 0.05, balance, best)
    columns = ["tried", "highest p", "at value", "utility at that value", "passes 0.05"]
    columns += ["best balance", "balance at value"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("changed")


def as_text(table):
    """Return a table of `reached` as text, its settings by their names in prose."""
    forms = {"highest p": "{:.2g}", "utility at that value": "{:.3f}", "best balance": "{:.3f}"}
    yes = {"passes 0.05": table["passes 0.05"].map({True: "yes", False: "no"})}
    said = {"alpha": "α", "finetune_epochs": "epochs of the original", "unlearn_lr": "learning rate"}
    shown = table.assign(**{name: table[name].map(form.format) for name, form in forms.items()} | yes)
    return shown.rename(index=said).drop(columns="balance at value")
