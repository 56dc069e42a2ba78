"""What models score on the multiple-choice tasks: asked once and kept beside their records, and the tables of it."""

from importlib.metadata import version

import numpy as np
import pandas as pd
import scipy

from rklu_lib import models, profiles, records, runs
from rklu_pages.results import notes, paper
from rklu_pages.tasks import capability, suite

DOWNLOADED = "as downloaded"


def _path(spec, name):
    return spec.record_path.with_name(f"{name}-seed{spec.seed}.json")


def _read(spec, name, extra):
    """What was noted of a model, or None where nothing was, or of a model or suite with other settings."""
    content = notes.read(_path(spec, name))
    return content if content.get("settings") == spec.settings | extra else None


def asked_once(specs, name, extra, note):
    """For each spec what `note(model, tokenizer, profile)`, a dict, says of its model after the last epoch: asked once,
    and kept as `<name>-seed<k>.json` beside the record, with `extra(profile)` among the settings it belongs to."""
    specs = list(specs)
    if missing := [s for s in specs if _read(s, name, extra(s.values)) is None]:
        runs.ensure(missing, checkpoints=True)
    for spec in missing:
        said = note(*models.load(spec.model_path, spec.values.dtype), spec.values)
        notes.write(_path(spec, name), {"settings": spec.settings | extra(spec.values)} | said)
    return [_read(s, name, extra(s.values)) for s in specs]


def _asked(profile):
    return {"capability": profile.capability, "n_items": profile.n_items}


def noted_accuracy(spec):
    """As `of_note`, where a model's capability has been noted; else {}."""
    noted = _read(spec, "capability", _asked(spec.values))
    return of_note(noted) if noted else {}


def of_note(noted):
    """What claims and tables ask of one of `capabilities`: {"avg_accuracy_pct", "chance_pct", "tasks"}."""
    mean = mean_accuracy(noted)
    return {"avg_accuracy_pct": mean["accuracy"], "chance_pct": mean["chance"], "tasks": noted["tasks"]}


def _measured(model, tokenizer, profile):
    packages = {name: version(name) for name in (*records.PACKAGES, "lm-eval")}
    return {"tasks": suite.measure(model, tokenizer, profile), "packages": packages}


def capabilities(specs, measure=True):
    """For each spec {"tasks": {task: {"accuracy", "chance", "n", ...}}, ...}: `suite.measure` of its model, asked where
    it is not noted yet. measure: False, and those are None."""
    if measure:
        return asked_once(specs, "capability", _asked, _measured)
    return [_read(s, "capability", _asked(s.values)) for s in specs]


def downloaded(profile, measure=False):
    """As `capabilities`, of a profile's model as it is downloaded, never fine-tuned: what is kept in
    data/records/<profile>/downloaded/capability.json, or None where nothing is.

    measure: where nothing is, or it is of another model or suite, ask the model now. A model from scratch is not asked.
    """
    path = records.RECORDS / profile / "downloaded" / "capability.json"
    content = notes.read(path)
    if measure and (p := profiles.profile(profile)).model:
        settings = {"model": p.model, "dtype": p.dtype} | _asked(p)
        if content.get("settings") != settings:
            content = notes.write(path, {"settings": settings} | _measured(*models.load(p.model, p.dtype), p))
    return content or None


def recorded(specs, measure=True):
    """(models, notes): those of the specs whose capability is noted, and first, where it was asked the same items,
    "as downloaded". measure: ask the others, which trains what is missing; else they are left out, see `missing`."""
    notes = capabilities(specs, measure)
    known = [(spec, note) for spec, note in zip(specs, notes, strict=True) if note]
    first = downloaded(specs[0].profile, measure)
    if first and all(_items(note) == _items(first) for _, note in known):
        known.insert(0, (DOWNLOADED, first))
    return [spec for spec, _ in known], [note for _, note in known]


def _items(note):
    return {task: scores.get("asked") for task, scores in note["tasks"].items()}


def missing(specs, by_split):
    """In Markdown, which of the specs are not in {split: (models, notes)}, nor the model as downloaded where they have
    one, and how they would be."""
    from IPython.display import Markdown

    known = [spec for found, _ in by_split.values() for spec in found]
    names = [DOWNLOADED] if specs[0].values.model and DOWNLOADED not in known else []
    names += [f"{label(s)} on {s.split}" for s in specs if s not in known]
    if not names:
        return Markdown("Everything asked for is recorded.")
    listed = ", ".join(names)
    return Markdown(
        f"Not recorded on the same items, so not shown: {listed}. With `measure = True` it is measured here."
    )


def label(spec):
    return spec if spec == DOWNLOADED else "Original" if spec.method == "original" else spec.method


def _error(scores, ending=""):
    return capability.standard_error(scores[f"accuracy{ending}"], scores["n"])


def mean_accuracy(noted, tasks=None, ending=""):
    """The mean over tasks, its standard error and that of guessing, in per cent.

    tasks: some of them (None: all). ending: "_norm" for lm-eval's `acc_norm`."""
    scores = [noted["tasks"][t] for t in tasks or noted["tasks"]]
    error = float(np.linalg.norm([_error(s, ending) for s in scores])) / len(scores)
    means = {k: float(np.mean([s[f"{k}{e}"] for s in scores])) for k, e in (("accuracy", ending), ("chance", ""))}
    return {k: 100 * v for k, v in (means | {"error": error}).items()}


def by_task(specs, noted):
    """Accuracy in per cent: a row for each model, for guessing and for the number of items; a column for each task and
    for their mean, and after each, as "<task> ±", its standard error."""
    rows = {}
    for spec, note in zip(specs, noted, strict=True):
        row, mean = {}, mean_accuracy(note)
        for task, scores in note["tasks"].items():
            row |= {task: 100 * scores["accuracy"], f"{task} ±": 100 * _error(scores)}
        rows[label(spec)] = row | {"mean": mean["accuracy"], "mean ±": mean["error"]}
    for note in noted[:1]:
        rows["(guessing)"] = {t: 100 * v["chance"] for t, v in note["tasks"].items()}
        rows["(guessing)"]["mean"] = mean_accuracy(note)["chance"]
        rows["(items)"] = {t: v["n"] for t, v in note["tasks"].items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def item_by_item(specs, noted):
    """Each model beside the original on the same items, all tasks together: those it lost, those it gained, and the p
    of McNemar's exact test. Empty where the items were not noted one by one."""
    tasks = {label(s): n["tasks"] for s, n in zip(specs, noted, strict=True)}
    before = tasks.pop("Original", {})
    rows = {name: found for name, after in tasks.items() if (found := paired(before, after))}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["items", "lost", "gained", "p"])


def paired(before, after):
    """{"items", "lost", "gained", "p"}, see `capability.mcnemar`, of two models' `tasks` whose items were the same, all
    of them together; None where none were noted one by one."""
    same = [t for t in before if "asked" in before[t] and before[t]["asked"] == after.get(t, {}).get("asked")]
    rights = ("".join(model[t]["right"] for t in same) for model in (before, after))
    return {"items": sum(before[t]["n"] for t in same)} | capability.mcnemar(*rights) if same else None


def alike(before, after, level=0.05):
    """Whether two models' mean accuracies cannot be told apart: by `paired`, else by their standard errors."""
    if found := paired(before, after):
        return found["p"] >= level
    means = [mean_accuracy({"tasks": tasks}) for tasks in (before, after)]
    difference, error = np.subtract(*(m["accuracy"] for m in means)), np.hypot(*(m["error"] for m in means))
    return bool(2 * scipy.stats.norm.sf(abs(difference) / error) >= level) if error else not difference


def beside_published(note):
    """What is published of a downloaded model, in per cent, beside what we measured of it (`downloaded`): one row per
    score of data/capability/published.csv whose tasks were asked; empty where nothing was measured."""
    printed, rows = pd.read_csv(capability.SUITE / "published.csv"), {}
    note = note or {"settings": {"model": None}}
    for row in printed[printed["model"] == note["settings"]["model"]].itertuples():
        tasks = row.tasks.split()
        if set(tasks) <= set(note["tasks"]):
            rows[row.benchmark] = {"published": row.score_pct}
            for name, ending in (("acc_norm", "_norm"), ("acc", "")):
                ours = mean_accuracy(note, tasks, ending)
                rows[row.benchmark] |= {name: ours["accuracy"], f"{name} ±": ours["error"]}
            rows[row.benchmark] |= {"chance": ours["chance"], "items": sum(note["tasks"][t]["n"] for t in tasks)}
    return pd.DataFrame.from_dict(rows, orient="index")


def origin(note, profile):
    """In Markdown, what `downloaded` has of a profile's model and where it was measured; or that nothing is noted."""
    from IPython.display import Markdown

    path = f"`{notes.place()}/{profile}/downloaded/capability.json`"
    if note is None:
        return Markdown(f"Nothing is recorded of the model of `{profile}` as downloaded: there is no {path}.")
    whole = sum(t.get("rebuilt", 0) for t in note["tasks"].values())
    out = ", ".join(f"{task} {t['left_out']}" for task, t in note["tasks"].items() if t.get("left_out"))
    items = f"{whole} items rebuilt from the published files; left out: {out or 'none'}. " if whole else ""
    return Markdown(
        f"Record: {path}. Model: {note['settings']['model']}, {note['settings']['dtype']}. {items}"
        f"lm-eval {note['packages']['lm-eval']}, code: commit {note['code']['commit']}. Machine: {note['machine']}."
    )


def cell(by_split):
    """{method: {"avg_accuracy_pct"}} of the last split of {split: (specs, notes)}, and "<method> on <split>" of all, as
    the claims name them."""
    found = {}
    for split, (specs, noted) in by_split.items():
        mine = {label(s): of_note(n) for s, n in zip(specs, noted, strict=True)}
        found |= mine | {f"{name} on {split}": value for name, value in mine.items()}
    return found


def table1(by_split):
    """Table 1: mean accuracy in per cent, the paper's and ours with its standard error, and that of guessing, for each
    split of {split: (models, notes)}."""
    printed = paper.reported("table1")
    columns = {}
    for split, (specs, noted) in by_split.items():
        known = printed[printed["set"] == split].set_index("method")["avg_accuracy_pct"]
        ours = {label(s): mean_accuracy(n) for s, n in zip(specs, noted, strict=True)}
        columns[split, "paper"] = {name: known.get(name, float("nan")) for name in ours}
        columns[split, "ours"] = {name: mean["accuracy"] for name, mean in ours.items()}
        columns[split, "ours ±"] = {name: mean["error"] for name, mean in ours.items()}
        columns[split, "chance"] = {name: mean["chance"] for name, mean in ours.items()}
    return pd.DataFrame(columns).rename_axis("method")
