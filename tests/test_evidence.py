"""Distances and equivalence: against scipy's own test and simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rklu_lib import metrics
from rklu_pages.results import evidence


@given(st.integers(2, 8), st.data())
def test_distances_are_scipys_with_ties_too(n, data):
    rows = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    one, other = ([data.draw(rows) for _ in range(3)] for _ in range(2))
    expected = [stats.ks_2samp(a, b, method="asymp").statistic for a, b in zip(one, other, strict=True)]
    assert evidence.ks_distances(np.array(one, float), np.array(other, float)) == pytest.approx(expected)


def test_equivalence_is_claimed_where_it_is_and_hardly_ever_at_the_margin():
    rng, margin = np.random.default_rng(2), 0.2
    # uniform samples moved by d are d apart
    claimed = {}
    for moved in (0.0, margin):
        samples = [(rng.random(300), rng.random(300) + moved) for _ in range(150)]
        claimed[moved] = np.mean([evidence.equivalence(*s, margin, draws=200)["equivalent"] for s in samples])
    assert claimed[margin] <= 0.05 and claimed[0.0] > 0.9


def test_the_upper_bound_has_95_per_cent_of_the_resamples_below_it():
    rng = np.random.default_rng(6)
    one, other = rng.normal(size=(2, 200)) + [[0.0], [0.4]]
    upper, chosen = evidence.equivalence(one, other)["upper"], rng.integers(200, size=(800, 200))
    drawn = np.array([_distance(one[k], other[k]) for k in chosen])  # many are equal: steps of 1 / 200
    assert (drawn < upper - 1e-9).mean() - 0.015 <= 0.95 <= (drawn <= upper + 1e-9).mean() + 0.015


def test_no_difference_found_is_not_equivalence():
    rng = np.random.default_rng(3)
    few = rng.random(20), rng.random(20)
    assert metrics.forget_quality(*few) > 0.05 and not evidence.equivalence(*few)["equivalent"]
    found = evidence.equivalence(few[0], few[0])
    assert found["distance"] == found["upper"] == 0 and found["equivalent"]
    with pytest.raises(ValueError, match="3 and 2 truth ratios; equivalence needs the same questions"):
        evidence.equivalence([1, 2, 3], [1, 2])


def _distance(one, other):
    return stats.ks_2samp(one, other, method="asymp").statistic


def test_exchanges_are_all_exchanges_where_they_are_few():
    """Seven questions have 128 exchanges; here they are made one by one, with scipy's own distance."""
    one, other, oracle = np.random.default_rng(4).random((3, 7)) + [[0.0], [0.3], [0.1]]
    swaps = [np.array(s) for s in product((False, True), repeat=7)]
    pairs = [(np.where(s, other, one), np.where(s, one, other)) for s in swaps]
    found = [_distance(*pair) for pair in pairs]
    assert evidence.paired(one, other) == pytest.approx(np.mean([d >= found[0] - 1e-9 for d in found]))
    apart = [abs(_distance(a, oracle) - _distance(b, oracle)) for a, b in pairs]
    assert evidence.nearer(one, other, oracle) == pytest.approx(np.mean([d >= apart[0] - 1e-9 for d in apart]))
    with pytest.raises(ValueError, match="3 and 2 values; exchanges need the same questions"):
        evidence.paired([1, 2, 3], [1, 2])


def test_which_of_two_models_is_nearer_does_not_depend_on_which_is_named_first():
    one, other, oracle = np.random.default_rng(0).random((3, 7)) + [[0.0], [0.5], [0.0]]
    swaps = [np.array(s) for s in product((False, True), repeat=7)]
    apart = [_distance(np.where(s, other, one), oracle) - _distance(np.where(s, one, other), oracle) for s in swaps]
    share = np.mean(np.abs(apart) >= abs(apart[0]) - 1e-9)
    assert apart[0] < -0.4 and share == 20 / 128  # the first is nearer
    assert evidence.nearer(one, other, oracle) == evidence.nearer(other, one, oracle) == pytest.approx(share)


def test_models_that_go_together_are_told_apart_as_often_as_the_level_says():
    """Of models alike whose ratios correlate at 0.7 the KS test hardly ever rejects at 5 %, exchanges as often."""
    rng, rejected = np.random.default_rng(5), np.zeros(2)
    for _ in range(400):
        common, own = rng.normal(size=(1, 100)), rng.normal(size=(2, 100))
        mine, oracle = np.sqrt(0.7) * common + np.sqrt(0.3) * own
        rejected += metrics.forget_quality(mine, oracle) < 0.05, evidence.paired(mine, oracle, draws=199) <= 0.05
    assert rejected[0] <= 4 and 8 <= rejected[1] <= 34
