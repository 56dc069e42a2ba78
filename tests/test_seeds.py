"""Seeds summarised: against numbers computed by hand, and a bootstrap interval that covers what it should."""

import dataclasses

import numpy as np
import pytest
from helpers import record, seeded
from scipy import stats

from rklu_lib.records import Record
from rklu_pages.results import evidence, seeds


def test_means_and_spreads_are_those_computed_by_hand():
    runs = [seeded("RKLU", 0, [1e-4, 1e-2], [0.3, 0.5]), seeded("RKLU", 1, [1e-4, 1e-9], [0.7, 0.9])]
    table = seeds.summary([*runs, seeded("GA", 0, [0.2], [0.1])])
    row = table.loc["forget10", "RKLU"]
    assert row["seeds"] == 2 and row["utility, mean"] == pytest.approx(0.6)
    assert row["p, mean"] == pytest.approx(0.00505) and row["p, geometric mean"] == pytest.approx(1e-3)
    assert row["p, spread in decades"] == pytest.approx(np.sqrt(2)) and row["utility, spread"] == pytest.approx(
        0.2 / np.sqrt(2)
    )
    one = table.loc["forget10", "GA"]
    assert np.isnan(one["p, spread in decades"]) and one["p, mean"] == pytest.approx(0.2)


def with_oracle(monkeypatch, mine, oracle):
    one = Record(record("RKLU", [0.5], [0.5]).spec, record("RKLU", [0.5], [0.5]).content, {})
    asked = []

    def load(spec):
        asked.append(spec.method)
        return Record(spec, {}, {"truth_ratio_benchmark": np.array([oracle])})

    monkeypatch.setattr(seeds, "load", load)
    found = seeds.distance_interval(dataclasses.replace(one, questions={"truth_ratio_benchmark": np.array([mine])}))
    assert asked == ["oracle"]
    return found


@pytest.mark.parametrize("decimals", [1, 6])
def test_many_distances_at_once_are_scipys_one_by_one(decimals):
    """With one decimal most values occur several times, within a sample and across."""
    rng = np.random.default_rng(0)
    mine, other = rng.normal(size=(5, 40)).round(decimals), rng.normal(0.3, 1, size=(5, 23)).round(decimals)
    each = [stats.ks_2samp(a, b).statistic for a, b in zip(mine, other, strict=True)]
    np.testing.assert_allclose(evidence.ks_distances(mine, other), each, rtol=1e-12)
    np.testing.assert_allclose(evidence.ks_distances(mine.T, other.T, axis=0), each, rtol=1e-12)
    assert evidence.ks_distances(mine[0], other[0]) == pytest.approx(each[0])
    mine[1, 3] = np.nan
    with pytest.raises(ValueError, match="1 NaN of 315 values"):
        evidence.ks_distances(mine, other)


def test_an_interval_covers_the_distance_between_the_distributions(monkeypatch):
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(20):  # uniform on [0, 1] and on [0.3, 1.3]: the distance is 0.3
        distance, low, high = with_oracle(monkeypatch, rng.random(200), rng.random(200) + 0.3)
        assert low <= distance <= high
        covered += low <= 0.3 <= high
    assert covered >= 16  # a percentile interval covers half of them


def test_an_interval_holds_a_distance_that_is_as_small_as_chance_makes_it(monkeypatch):
    """Resamples of two alike samples lie further apart than these: the reflected interval ends below the estimate."""
    rng = np.random.default_rng(19)
    mine, oracle = rng.random((2, 200))
    distance, low, high = with_oracle(monkeypatch, mine, oracle)
    drawn = evidence.ks_distances(rng.choice(mine, (4000, 200)), rng.choice(oracle, (4000, 200)))
    assert 2 * distance - np.quantile(drawn, 0.025) < distance == high and low < distance


def test_an_interval_leaves_out_2_5_per_cent_of_the_resamples_at_either_end(monkeypatch):
    rng = np.random.default_rng(7)
    mine, oracle = rng.random(200), rng.random(200) + 0.3
    distance, low, high = with_oracle(monkeypatch, mine, oracle)
    drawn = evidence.ks_distances(rng.choice(mine, (4000, 200)), rng.choice(oracle, (4000, 200)))
    reflected = 2 * distance - np.quantile(drawn, [0.975, 0.025])  # a basic interval
    assert (low, high) == pytest.approx(tuple(reflected), abs=0.01)


def test_samples_far_apart_have_a_distance_of_one(monkeypatch):
    assert with_oracle(monkeypatch, np.arange(9.0), np.arange(9.0) + 50) == (1, 1, 1)


def test_what_is_not_told_from_the_oracle_need_not_be_equivalent_to_it(monkeypatch):
    rng = np.random.default_rng(4)
    held = {"truth_ratio_benchmark": rng.random((1, 20))}
    one = record("RKLU", [0.5], [0.5])
    oracles = [Record(dataclasses.replace(one.spec, method="oracle", seed=s), {}, held) for s in (0, 1)]
    mine = dataclasses.replace(one, questions={"truth_ratio_benchmark": rng.random((1, 20))})
    monkeypatch.setattr(seeds, "load", lambda spec: oracles[spec.seed])
    found = seeds.equivalences([oracles[1], mine])
    known, row = (found.xs(name, level="method").iloc[0] for name in ("oracle", "RKLU"))
    assert known["upper bound"] == 0 and known["within 0.2"] == "yes"
    assert row["forget quality"] > 0.05 and row["KS distance"] < row["upper bound"] and row["within 0.2"] == "no"
