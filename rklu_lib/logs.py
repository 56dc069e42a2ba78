"""Logs of OpenUnlearning (Dorna et al., 2025): an oracle's scores that others have taken, in place of a run.

Its evaluation leaves a `TOFU_EVAL.json`, {metric: {"agg_value": …, "value_by_index": {"0": {score: value}, …}}}, with
the questions in the split's order; those of its retain models are on the hub, in the data set `open-unlearning/eval`.
Its truth ratio is the benchmark's form of Eq. 5 (`truth_ratio` in its src/evals/metrics/memorization.py).
"""

from pathlib import Path

import numpy as np

from rklu_lib import data, files, hub, metrics, models

_AGGREGATES = {"forget_Q_A_Prob": "forget_probability", "forget_Q_A_ROUGE": "forget_rouge"}
_AGGREGATES |= {"model_utility": "model_utility"}
_LOSSES = ("forget_Q_A_PARA_Prob", "forget_Q_A_PERT_Prob")  # of the paraphrase and of its wrong variants


def find(name):
    """Where a log is, owner/data set/path: in `models.folder()` if it is there, or at this path, or from the hub."""
    for path in (models.folder() / name, Path(name)):
        if path.is_file():
            return path
    owner, dataset, path = str(name).split("/", 2) if str(name).count("/") > 1 else (None, None, None)
    if not path or Path(name).is_absolute():
        raise FileNotFoundError(f"{name} is no file; a log is one, or a path on the hub, owner/data set/path")
    return Path(hub.file(f"{owner}/{dataset}", path, f"put it into {models.folder()} as {name}"))


def read(name, n=None):
    """(aggregates, per-question scores) of a log's first n questions, as of `evaluation.evaluate` of an oracle.

    aggregates: forget_truth_ratio (median), and of model_utility, forget_probability and forget_rouge what the log has.
    Per question (n,): truth_ratio_benchmark, and truth_ratio_paper where the log has each answer's loss. Raises
    FileNotFoundError, DamagedError where it is no JSON, or DataError at what is not as its evaluation writes it.
    """
    path = find(name)
    content = files.read_json(path, "take the file that OpenUnlearning wrote")
    ratios = _values(content, "forget_truth_ratio", "score", path)[:n]
    found = {"truth_ratio_benchmark": ratios}
    if all(metric in content for metric in _LOSSES):
        right, wrong = (_values(content, metric, "avg_loss", path)[:n] for metric in _LOSSES)
        found["truth_ratio_paper"] = metrics.truth_ratio(right, wrong, "paper")
    try:
        aggregates = {ours: float(content[k]["agg_value"]) for k, ours in _AGGREGATES.items() if k in content}
    except (KeyError, TypeError, ValueError):
        raise data.DataError(f"{path}: {', '.join(_AGGREGATES)}, where they stand, need a number agg_value") from None
    return aggregates | {"forget_truth_ratio": float(np.median(ratios))}, found


def _values(content, metric, score, path):
    """One score of all questions, in order: (n,), or (n, k) of k wrong answers."""
    by_index = content.get(metric, {}).get("value_by_index", {}) if isinstance(content, dict) else {}
    if not by_index:
        raise data.DataError(f"{path}: no {metric}.value_by_index; it is in the TOFU_EVAL.json of a retain model")
    try:
        return np.array([by_index[str(i)][score] for i in range(len(by_index))], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        why = f"{metric}.value_by_index needs a number {score!r} for each of 0 to {len(by_index) - 1}"
        raise data.DataError(f"{path}: {why}") from None
