"""`rklu verify`: repeat the run of a record in another folder, and compare every score."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from rklu_lib import files, parallel, records, runs

# The allowed difference from a recorded score. With the same machine, packages and thread numbers it is 0. Elsewhere
# rounding differs, and training amplifies that. Measured with RKLU at a shortened smoke scale: two threads instead of
# one change means by 4e-6 and answers' scores by 1e-5; plain x86-64 instead of AVX2 changes them by 4e-4 and 8e-4. One
# changed word can change an answer's ROUGE by any amount. More than ten times these differences is allowed.
ELSEWHERE = {"mean": 0.01, "question": 0.05, "rouge": 1.0}


@dataclass(frozen=True)
class Score:
    """One score over all epochs: how many values, their largest difference, and the largest that is allowed."""

    name: str
    values: int
    largest: float
    allowed: float

    @property
    def fine(self):
        return self.largest <= self.allowed


def again(path, workers=None):
    """Repeat the run of a record in a temporary folder: (the record, the new record, list of why they may differ).

    Before computing anything, raises FileNotFoundError, or ValueError: if the file is no record or is damaged, if the
    profile's settings or the data have changed since, or if several processes were launched."""
    if parallel.processes() > 1:
        raise ValueError("a record is made anew by one process and its workers; start `rklu verify` without a launcher")
    path = Path(path)
    if not path.is_file() or path.suffix != ".json":
        what = "is no record's JSON file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; name a record, data/records/…/seed0.json")
    content = files.read_json(path, records.MEND)
    if not isinstance(content, dict) or not {"spec", "settings", "packages", "machine"} <= content.keys():
        raise ValueError(f"{path}: no record of a run (it needs spec, settings, packages, machine); name another file")
    named = dict(content["spec"])
    spec = records.RunSpec(**named | {"overrides": tuple(named.get("overrides", {}).items())})
    recorded = records.read(path, spec)
    if recorded is None:
        now = spec.settings
        other = sorted(k for k in now | content["settings"] if now.get(k) != content["settings"].get(k))
        why = f"made with other settings ({', '.join(other)}) than profile {spec.profile} has now"
        raise ValueError(f"{path}: {why}; check out the commit that it names, {content['code']['commit']}")
    runs.refuse_other_data([recorded])
    if not workers and content.get("threads"):  # give a worker as many threads as then
        workers = max(1, (os.cpu_count() or 1) // content["threads"][-1])
    with tempfile.TemporaryDirectory() as folder, _stored_in(folder):
        (found,) = runs.ensure([spec], workers)
    return recorded, found, _differences(content, found.content)


@contextlib.contextmanager
def _stored_in(folder):
    """Inside the block, records and runs lie in `folder`, also for workers that this process starts (see `runs`)."""
    was = records.RECORDS, records.RUNS
    records.RECORDS, records.RUNS = (Path(folder) / name for name in ("records", "runs"))
    try:
        yield
    finally:
        records.RECORDS, records.RUNS = was


def _differences(content, now):
    """List in words how a record was made differently from the new one; unknown values count as different."""
    there, here = ({k: c.get(k) for k in ("machine", "processes", "threads")} | c["packages"] for c in (content, now))
    return [f"{k} {there[k]}, here {here.get(k)}" for k in there if there[k] != here.get(k) or there[k] is None]


def compare(recorded, found, same):
    """Return the `Score`s of two records: aggregates, then scores per question. same: allow no difference at all."""
    allowed = dict.fromkeys(ELSEWHERE, 0.0) if same else ELSEWHERE
    names = dict.fromkeys(k for e in (*recorded.epochs, *found.epochs) for k in e)
    means = {k: [np.array([e.get(k, np.nan) for e in r.epochs]) for r in (recorded, found)] for k in names}
    scored = [(k, *both, allowed["mean"]) for k, both in means.items()]
    for k in dict.fromkeys([*recorded.questions, *found.questions]):
        kind = "rouge" if "rouge" in k else "question"
        scored.append((f"{k}, by question", recorded.questions.get(k), found.questions.get(k), allowed[kind]))
    return [Score(k, np.size(a), _largest(a, b), bound) for k, a, b, bound in scored]


def _largest(one, other):
    """Return the largest difference of two arrays, relative for values beyond 1; inf if shapes or NaNs differ."""
    if one is None or other is None or one.shape != other.shape:
        return float("inf")
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):  # inf - inf
        apart = np.abs(one - other) / np.maximum(1, np.minimum(np.abs(one), np.abs(other)))
    return float(np.where(equal, 0, np.nan_to_num(apart, nan=np.inf)).max(initial=0))


def show(scores):
    """Return the `Score`s as a table for a terminal."""
    table = Table("score", "values", "largest difference", "allowed", "")
    for s in scores:
        table.add_row(s.name, str(s.values), f"{s.largest:.3g}", f"{s.allowed:.3g}", "" if s.fine else "differs")
    return table
