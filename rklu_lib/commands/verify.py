"""Do the run of a record again, somewhere else, and compare every score: what `rklu verify` does."""

import contextlib
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rklu_lib import files, parallel, records, runs

# How far a score may be from the recorded one. On the same kind of machine with the same packages: not at all. On
# another, rounding differs and training makes something of it: tests/test_verify.py measures how much, at the smallest
# scale, between instruction sets and numbers of threads.
ELSEWHERE = {"mean": 0.05, "question": 0.5}


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
    profile no longer has, or of other data than there are here: before anything is computed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name a record, data/records/…/seed0.json")
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
    with tempfile.TemporaryDirectory() as folder, _stored_in(folder):
        (found,) = runs.ensure([spec], workers)
    return recorded, found, _differences(content)


@contextlib.contextmanager
def _stored_in(folder):
    """Within this, records and runs lie in `folder`, for this process and the workers that it starts."""
    places = {"RKLU_RECORDS": Path(folder) / "records", "RKLU_RUNS": Path(folder) / "runs"}
    was, before = (records.RECORDS, records.RUNS), {name: os.environ.pop(name, None) for name in places}
    records.RECORDS, records.RUNS = places.values()
    os.environ.update({name: str(place) for name, place in places.items()})
    try:
        yield
    finally:
        records.RECORDS, records.RUNS = was
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def _differences(content):
    """In what this machine is another than the one of a record: in words."""
    here = {"machine": records.machine(), "processes": parallel.processes()}
    here |= {name: version(name) for name in content["packages"]}
    there = {"machine": content["machine"], "processes": content.get("processes", 1), **content["packages"]}
    return [f"{k} {there[k]}, here {here[k]}" for k in there if there[k] != here[k]]


def compare(recorded, found, same):
    """The `Score`s of two records: each aggregate, then each question's score. same: of one kind of machine."""
    allowed = {"mean": 0.0, "question": 0.0} if same else ELSEWHERE
    names = dict.fromkeys(k for e in (*recorded.epochs, *found.epochs) for k in e)
    means = {k: [np.array([e.get(k, np.nan) for e in r.epochs]) for r in (recorded, found)] for k in names}
    scored = [(k, *both, allowed["mean"]) for k, both in means.items()]
    for k in dict.fromkeys([*recorded.questions, *found.questions]):
        scored.append((f"{k}, by question", recorded.questions.get(k), found.questions.get(k), allowed["question"]))
    return [Score(k, np.size(a), _largest(a, b), bound) for k, a, b, bound in scored]


def _largest(one, other):
    """The largest difference of two arrays, relative to values beyond 1; infinite where they have not the same form."""
    if one is None or other is None or one.shape != other.shape:
        return float("inf")
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        apart = np.abs(one - other) / np.maximum(1, np.minimum(np.abs(one), np.abs(other)))
    return float(np.where(equal, 0, np.nan_to_num(apart, nan=np.inf)).max(initial=0))
