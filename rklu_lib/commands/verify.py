"""Do the run of a record again, somewhere else, and compare every score: what `rklu verify` does."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from rklu_lib import files, parallel, records, runs

# How far a score may be from the recorded one: on the same kind of machine, with the same packages and numbers of
# threads, not at all. Elsewhere rounding differs, and training makes something of it. Measured with RKLU at the smoke
# scale, shortened: two threads for one move means by 4e-6 and answers' scores by 1e-5, plain x86-64 instructions for
# AVX2 by 4e-4 and 8e-4; a word that tips moves its answer's ROUGE at will. Allowed is more than ten times that.
ELSEWHERE = {"mean": 0.01, "question": 0.05, "rouge": 1.0}


@dataclass(frozen=True)
class Score:
    """One score of all epochs: the largest difference, and how large it may be."""

    name: str
    values: int
    largest: float
    allowed: float

    @property
    def fine(self):
        return self.largest <= self.allowed


def again(path, workers=None):
    """(the record at a path, the same run done anew in a folder that is gone afterwards, why they may differ).

    Raises FileNotFoundError, or ValueError for a file that is no record, is damaged, was made with settings that its
    profile no longer has, or of other data than there are here, or of several processes: before anything is computed.
    """
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
    if not workers and content.get("threads"):  # as many threads to a worker as then
        workers = max(1, (os.cpu_count() or 1) // content["threads"][-1])
    with tempfile.TemporaryDirectory() as folder, _stored_in(folder):
        (found,) = runs.ensure([spec], workers)
    return recorded, found, _differences(content, found.content)


@contextlib.contextmanager
def _stored_in(folder):
    """Within this, records and runs lie in `folder`, for this process and the workers that it starts: see `runs`."""
    was = records.RECORDS, records.RUNS
    records.RECORDS, records.RUNS = (Path(folder) / name for name in ("records", "runs"))
    try:
        yield
    finally:
        records.RECORDS, records.RUNS = was


def _differences(content, now):
    """In what a record was made otherwise than the one made now: in words."""
    there, here = ({k: c.get(k) for k in ("machine", "processes", "threads")} | c["packages"] for c in (content, now))
    return [f"{k} {there[k]}, here {here.get(k)}" for k in there if there[k] != here.get(k) or there[k] is None]


def compare(recorded, found, same):
    """The `Score`s of two records: each aggregate, then each question's score. same: of one kind of machine."""
    allowed = dict.fromkeys(ELSEWHERE, 0.0) if same else ELSEWHERE
    names = dict.fromkeys(k for e in (*recorded.epochs, *found.epochs) for k in e)
    means = {k: [np.array([e.get(k, np.nan) for e in r.epochs]) for r in (recorded, found)] for k in names}
    scored = [(k, *both, allowed["mean"]) for k, both in means.items()]
    for k in dict.fromkeys([*recorded.questions, *found.questions]):
        kind = "rouge" if "rouge" in k else "question"
        scored.append((f"{k}, by question", recorded.questions.get(k), found.questions.get(k), allowed[kind]))
    return [Score(k, np.size(a), _largest(a, b), bound) for k, a, b, bound in scored]


def _largest(one, other):
    """The largest difference of two arrays, relative to values beyond 1; infinite where they have not the same form."""
    if one is None or other is None or one.shape != other.shape:
        return float("inf")
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        apart = np.abs(one - other) / np.maximum(1, np.minimum(np.abs(one), np.abs(other)))
    return float(np.where(equal, 0, np.nan_to_num(apart, nan=np.inf)).max(initial=0))


def show(scores):
    """The `Score`s as a table for a terminal."""
    table = Table("score", "values", "largest difference", "allowed", "")
    for s in scores:
        table.add_row(s.name, str(s.values), f"{s.largest:.3g}", f"{s.allowed:.3g}", "" if s.fine else "differs")
    return table
