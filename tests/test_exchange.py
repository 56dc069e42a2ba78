"""Two models' answers to the same questions, exchanged: the p-value of every measure of an attack."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from rklu_lib.robustness import exchange


def enumerated(one, other, statistic):
    """The share of all exchanges, made one by one, with a statistic at least as large."""
    swaps = [np.array(s) for s in product((False, True), repeat=len(one))]
    found = [statistic(np.where(s, other, one), np.where(s, one, other)) for s in swaps]
    return np.mean([d >= statistic(one, other) - 1e-9 for d in found])


def area(values, n):
    """The chance that a held-out value is above a forgotten one, of scipy; the first n are of the forget set."""
    return stats.mannwhitneyu(values[n:], values[:n]).statistic / (n * (len(values) - n))


def test_few_questions_are_exchanged_in_every_way():
    one, other = np.random.default_rng(0).random((2, 8)) + [[0.2], [0.0]]
    assert exchange.mean(one, other) == enumerated(one, other, lambda x, y: abs(x.mean() - y.mean()))
    sides = [{"forget": v[:3], "holdout": v[3:]} for v in (one, other)]
    ranks = [stats.rankdata(v) for v in (one, other)]
    assert exchange.auc(*sides) == enumerated(*ranks, lambda x, y: abs(area(x, 3) - area(y, 3)))


def test_three_leaks_more_may_be_chance():
    """Where three questions leak in one model alone, a quarter of the exchanges have as many in one or the other."""
    assert exchange.mean([1.0] * 3 + [0.0] * 17, [0.0] * 20) == pytest.approx(0.25, abs=0.03)


def test_an_auc_does_not_depend_on_the_scale_of_the_scores():
    rng = np.random.default_rng(1)
    one = {"forget": rng.random(30), "holdout": rng.random(30) + 0.3}
    assert exchange.auc(one, {name: 7 * values + 3 for name, values in one.items()}) == 1
    turned = {"forget": one["holdout"], "holdout": one["forget"]}
    assert exchange.auc(one, turned) < 0.001


def test_models_that_are_alike_are_told_apart_as_often_as_the_level_says():
    """Their answers go together, since the questions are the same; a scale of its own does not make a model unlike."""
    rng, rejected = np.random.default_rng(3), np.zeros(2)
    for _ in range(300):
        common, own = rng.normal(size=(1, 40)), rng.normal(size=(2, 40))
        one, other = common + 0.5 * own
        sides = [{"forget": k * v[:20], "holdout": k * (v[20:] + 0.5)} for k, v in ((1, one), (5, other))]
        rejected += exchange.mean(one, other, 199) <= 0.05, exchange.auc(*sides, 199) <= 0.05
    assert (4 <= rejected).all() and (rejected <= 27).all()  # 15 of 300 are expected, with a deviation of 3.8


def test_every_measure_of_every_question_has_its_p_value():
    rng = np.random.default_rng(3)
    values = rng.random(50).tolist()
    scores = {"AUC, loss": {"forget": values, "holdout": rng.random(50).tolist()}}
    more = {"AUC, loss": {"forget": (np.array(values) - 0.9).tolist(), "holdout": scores["AUC, loss"]["holdout"]}}
    model = {
        "memorisation": {"each": {"high": [v + 0.1 for v in values], "same": values, "new": values}},
        "membership": {"each": more},
        "sampling": {"each": {"leak@1": [*values[:-1], None]}},  # no number, as of a value that is not finite
        "rounding": {"each": {"4-bit": values}},
        "relearning": {},
    }
    reference = {
        "memorisation": {"each": {"high": values, "same": values}},
        "membership": {"each": scores},
        "sampling": {"each": {"leak@1": values}},
        "rounding": {},
    }
    found = exchange.p_values({"model": model, "reference": reference})
    assert found.keys() == {
        *(("memorisation", name) for name in ("high", "same")),
        ("membership", "AUC, loss"),
        ("sampling", "leak@1"),
    }
    assert found["memorisation", "high"] <= 1 / 5000 and found["memorisation", "same"] == 1
    assert found["membership", "AUC, loss"] < 0.001 and np.isnan(found["sampling", "leak@1"])
    assert exchange.p_values({"model": model}) == {}


def test_a_million_values_are_exchanged_within_999_and_4999_times(monkeypatch):
    monkeypatch.setattr(exchange, "mean", lambda one, other, draws: draws)
    each = {str(n): [0.0] * n for n in (20, 500, 4000)}
    sides = {side: {"memorisation": {"each": each}} for side in ("model", "reference")}
    assert list(exchange.p_values(sides).values()) == [4999, 2000, 999]


def test_one_question_alone_tells_no_chance():
    """Exchanged or not, its two answers differ as much; of two questions, half of the exchanges do."""
    assert np.isnan(exchange.mean([0.9], [0.1])) and exchange.mean([0.9, 0.8], [0.1, 0.1]) == 0.5
    found = {"memorisation": {"each": {"answer probability": [0.9]}}}
    assert np.isnan(exchange.p_values({"model": found, "reference": found})["memorisation", "answer probability"])


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="3 and 2 values; exchanges need the same questions"):
        exchange.mean([1, 2, 3], [1, 2])
