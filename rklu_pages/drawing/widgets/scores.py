"""Make a `ScoreExplorer` from the runs of several methods, from a grid, or from the tokens of one answer."""

from rklu_lib.records import RunSpec, load
from rklu_pages.drawing.widgets import ScoreExplorer

MEASURES = {"forget_quality_benchmark": "forget quality", "model_utility": "model utility"}
FIELDS = {"forget quality": "p", "model utility": "share", "epoch": "number"}
VIEWS = {
    "plane": {"name": "reported epochs", "x": "model utility", "y": ["forget quality"], "rule": True},
    "epochs": {"name": "every epoch", "x": "epoch", "y": ["forget quality", "model utility"], "line": True},
}


def _epochs(record):
    """Return a record's epochs as columns, rounded to four figures, which suffice for a picture."""
    scores = {new: [e.get(old) and float(f"{e[old]:.4g}") for e in record.epochs] for old, new in MEASURES.items()}
    return {"epoch": [e["epoch"] for e in record.epochs]} | scores


def recorded(like, profiles=()):
    """Return the records `like`, followed by the existing records of the same runs at other scales, `profiles`."""
    same = lambda spec, name: RunSpec(name, spec.split, spec.method, spec.seed, spec.overrides)  # noqa: E731
    pairs = [(r.spec, name) for name in profiles for r in like if r.spec.profile != name]
    return [*like, *filter(None, (load(same(*pair)) for pair in pairs))]


def explorer(records, view="plane", shown=None):
    """Return a `ScoreExplorer` of records of any scales, sets, methods and seeds, at the reported or at all epochs.

    view: the view that is drawn first, "plane" or "epochs". shown: the methods that are drawn first (default: all).
    """
    series = [
        {
            "name": r.spec.method,
            "of": {"scale": r.spec.profile, "forget set": r.spec.split, "seed": r.spec.seed},
            "points": _epochs(r),
        }
        for r in records
        if r.epochs[0].get("forget_quality_benchmark") is not None
    ]
    names = list(dict.fromkeys(s["name"] for s in series))
    scale = records[0].spec.profile
    largest = [r.spec.split for r in records if r.spec.profile == scale][-1]
    chosen = {"scale": scale, "forget set": largest, "seed": "all"}
    return ScoreExplorer(
        series=series, views=list(VIEWS.values()), fields=FIELDS, view=list(VIEWS).index(view), chosen=chosen,
        shown=[n for n in names if shown is None or n in shown],
    )  # fmt: skip


def along(groups, field):
    """Return a `ScoreExplorer` of a grid over `field`, at each value's reported epoch; groups: {seed: records}."""
    series = []
    for seed, records in groups.items():
        points = [{field: [r.content["settings"][field]] * len(r.epochs)} | _epochs(r) for r in records]
        columns = {name: [value for run in points for value in run[name]] for name in points[0]}
        series.append({"name": records[0].spec.method, "of": {"seed": seed}, "points": columns})
    view = {"name": f"over {field}", "x": field, "y": list(MEASURES.values()), "line": True, "rule": True, "by": field}
    names = list(dict.fromkeys(s["name"] for s in series))
    fields = {field: "number"} | FIELDS
    return ScoreExplorer(series=series, views=[view], fields=fields, shown=names, chosen={"seed": "all"})


def tokens(content, shown):
    """Return a `ScoreExplorer` of each true token's probability under every recorded model; shown: drawn first."""
    series = [
        {
            "name": name,
            "of": {},
            "points": {
                "token": list(range(len(content["tokens"]))),
                "probability": [float(f"{p:.4g}") for p in model["true_probability"]],
            },
        }
        for name, model in content["models"].items()
    ]
    view = {"name": "tokens", "x": "token", "y": ["probability"]}  # tokens stand for themselves: no line
    return ScoreExplorer(
        noun="Models", series=series, views=[view], tokens=content["tokens"], shown=shown,
        fields={"token": "tokens", "probability": "share"},
    )  # fmt: skip
