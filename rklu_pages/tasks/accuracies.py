"""Models' accuracy on the multiple-choice tasks, measured once and kept beside their records, and tables of it."""

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
    """Return a model's note, or None where there is none with the same settings of model and suite."""
    content = notes.read(_path(spec, name))
    return content if content.get("settings") == spec.settings | extra else None


def asked_once(specs, name, extra, note):
    """Return for each spec the dict note(model, tokenizer, profile) of its model after the last epoch, computed once.
    It is kept as `<name>-seed<k>.json` beside the record, with `extra(profile)` as part of its settings."""
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
    """Return `of_note` of a model's noted capability, or {} where none is noted."""
    noted = _read(spec, "capability", _asked(spec.values))
    return of_note(noted) if noted else {}


def of_note(noted):
    """Return {"avg_accuracy_pct", "chance_pct", "tasks"} of one note of `capabilities`, for claims and tables."""
    mean = mean_accuracy(noted)
    return {"avg_accuracy_pct": mean["accuracy"], "chance_pct": mean["chance"], "tasks": noted["tasks"]}


def _measured(model, tokenizer, profile):
    packages = {name: version(name) for name in (*records.PACKAGES, "lm-eval")}
    return {"tasks": suite.measure(model, tokenizer, profile), "packages": packages}


def capabilities(specs, measure=True):
    """Return for each spec {"tasks": {task: {"accuracy", "chance", "n", ...}}, ...}, from `suite.measure` of its model.
    What is not noted yet is measured now, or is None if `measure` is False."""
    if measure:
        return asked_once(specs, "capability", _asked, _measured)
    return [_read(s, "capability", _asked(s.values)) for s in specs]


def downloaded(profile, measure=False):
    """Return the note, as of `capabilities`, of a profile's model as downloaded, before any fine-tuning; None without.
    The note is data/records/<profile>/downloaded/capability.json.

    measure: measure now if there is no note, or one of another model or suite; not for a model trained from scratch.
    """
    path = records.RECORDS / profile / "downloaded" / "capability.json"
    content = notes.read(path)
    if measure and (p := profiles.profile(profile)).model:
        settings = {"model": p.model, "dtype": p.dtype} | _asked(p)
        if content.get("settings") != settings:
            content = notes.write(path, {"settings": settings} | _measured(*models.load(p.model, p.dtype), p))
    return content or None


def recorded(specs, measure=True):
    """Return (models, notes) of the specs whose capability is noted. The first is "as downloaded", if it was asked
    the same items. measure: measure the others, training what is missing; False leaves them out, see `missing`."""
    notes = capabilities(specs, measure)
    known = [(spec, note) for spec, note in zip(specs, notes, strict=True) if note]
    first = downloaded(specs[0].profile, measure)
    if first and all(_items(note) == _items(first) for _, note in known):
        known.insert(0, (DOWNLOADED, first))
    return [spec for spec, _ in known], [note for _, note in known]


def _items(note):
    return {task: scores.get("asked") for task, scores in note["tasks"].items()}


def missing(specs, by_split):
    """Return, as Markdown, which of the specs are missing in {split: (models, notes)}, and how to measure them. The
    model as downloaded is among them where the profile has one."""
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
    """Return {"accuracy", "chance", "error"} in per cent: means over the tasks, and the standard error of "accuracy".

    tasks: names of some tasks (None: all). ending: "_norm" for lm-eval's `acc_norm`."""
    scores = [noted["tasks"][t] for t in tasks or noted["tasks"]]
    error = float(np.linalg.norm([_error(s, ending) for s in scores])) / len(scores)
    means = {k: float(np.mean([s[f"{k}{e}"] for s in scores])) for k, e in (("accuracy", ending), ("chance", ""))}
    return {k: 100 * v for k, v in (means | {"error": error}).items()}


def by_task(specs, noted):
    """Return accuracies in per cent: a row for each model, for guessing and for the number of items; a column for each
    task and for the mean of all, each followed by its standard error, "<task> ±"."""
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
    """Compare each model with the original on the same items of all tasks: items lost, items gained, and the p-value
    of McNemar's exact test. Empty where the items were not noted one by one."""
    tasks = {label(s): n["tasks"] for s, n in zip(specs, noted, strict=True)}
    before = tasks.pop("Original", {})
    rows = {name: found for name, after in tasks.items() if (found := paired(before, after))}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["items", "lost", "gained", "p"])


def paired(before, after):
    """Return {"items", "lost", "gained", "p"} (`capability.mcnemar`) of two models, over all tasks with the same items.
    None where no task's items were noted one by one."""
    same = [t for t in before if "asked" in before[t] and before[t]["asked"] == after.get(t, {}).get("asked")]
    rights = ("".join(model[t]["right"] for t in same) for model in (before, after))
    return {"items": sum(before[t]["n"] for t in same)} | capability.mcnemar(*rights) if same else None


def alike(before, after, level=0.05):
    """Return whether two models' accuracies cannot be told apart at `level`: by `paired`, else by a z-test of means."""
    if found := paired(before, after):
        return found["p"] >= level
    means = [mean_accuracy({"tasks": tasks}) for tasks in (before, after)]
    difference, error = np.subtract(*(m["accuracy"] for m in means)), np.hypot(*(m["error"] for m in means))
    return bool(2 * scipy.stats.norm.sf(abs(difference) / error) >= level) if error else not difference


def beside_published(note):
    """Return a downloaded model's published scores in per cent beside ours; note: of `downloaded`. One row per score in
    data/capability/published.csv whose tasks were measured; empty where nothing was measured."""
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
    """Return, as Markdown, the provenance of a note of `downloaded`; or the statement that there is no note."""
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
    """Return {name: `of_note`}, by the names that claims use: "<method>" for the last split of
    {split: (specs, notes)}, and "<method> on <split>" for every split."""
    found = {}
    for split, (specs, noted) in by_split.items():
        mine = {label(s): of_note(n) for s, n in zip(specs, noted, strict=True)}
        found |= mine | {f"{name} on {split}": value for name, value in mine.items()}
    return found


def table1(by_split):
    """Return Table 1: mean accuracy in per cent, the paper's, ours with its standard error, and that of guessing, for
    each split of {split: (models, notes)}."""
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
