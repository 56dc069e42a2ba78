"""Logs of OpenUnlearning (Dorna et al., 2025): an oracle's published scores, used in place of a run of ours.

Its evaluation writes a `TOFU_EVAL.json`, {metric: {"agg_value": …, "value_by_index": {"0": {score: value}, …}}}, with
the questions in the split's order. The logs of its retain models are in the hub's data set `open-unlearning/eval`.
Its truth ratio is the benchmark's form of Eq. 5 (`truth_ratio` in its src/evals/metrics/memorization.py).
"""

from pathlib import Path

import numpy as np

from rklu_lib import data, files, hub, metrics, models

_AGGREGATES = {"forget_Q_A_Prob": "forget_probability", "forget_Q_A_ROUGE": "forget_rouge"}
_AGGREGATES |= {"model_utility": "model_utility"}
_LOSSES = ("forget_Q_A_PARA_Prob", "forget_Q_A_PERT_Prob")  # paraphrased answer, wrong (perturbed) answers


def find(name):
    """Return a log's path: in `models.folder()`, else `name` itself, else from the hub (owner/data set/path)."""
    for path in (models.folder() / name, Path(name)):
        if path.is_file():
            return path
    owner, dataset, path = str(name).split("/", 2) if str(name).count("/") > 1 else (None, None, None)
    if not path or Path(name).is_absolute():
        raise FileNotFoundError(f"{name} is no file; a log is one, or a path on the hub, owner/data set/path")
    return Path(hub.file(f"{owner}/{dataset}", path, f"put it into {models.folder()} as {name}"))


def read(name, n=None):
    """Return (aggregates, scores per question) of a log, in the form in which `evaluation.evaluate` returns them.

    aggregates: forget_truth_ratio, the median over the first n questions (None: all); and, if the log has them,
    model_utility, and forget_probability and forget_rouge, which the log takes over all questions: not for fewer.
    Scores per question, (n,): truth_ratio_benchmark, and truth_ratio_paper if the log has the loss of each answer.
    Raises FileNotFoundError, DamagedError (no JSON), or DataError (not what OpenUnlearning's evaluation writes)."""
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
        raise data.DataError(f"{path}: {', '.join(_AGGREGATES)}, if present, need a number agg_value") from None
    whole = {k: v for k, v in aggregates.items() if n is None or not k.startswith("forget")}
    return whole | {"forget_truth_ratio": float(np.median(ratios))}, found


def _values(content, metric, score, path):
    """Return one score of all questions, in order: (n,), or (n, k) for k wrong answers. May raise DataError."""
    by_index = content.get(metric, {}).get("value_by_index", {}) if isinstance(content, dict) else {}
    if not by_index:
        raise data.DataError(f"{path}: no {metric}.value_by_index; it is in the TOFU_EVAL.json of a retain model")
    try:
        return np.array([by_index[str(i)][score] for i in range(len(by_index))], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        why = f"{metric}.value_by_index needs a number {score!r} for each of 0 to {len(by_index) - 1}"
        raise data.DataError(f"{path}: {why}") from None
