"""Power and equivalence: against scipy's own test and simulation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rklu_lib import metrics
from rklu_pages.results import audit, evidence

LOGS = Path(__file__).resolve().parents[2] / "shared" / "tofu_logs" / "llama2-7b"


@pytest.mark.parametrize("n", [5, 40, 200, 400])
def test_the_critical_distance_is_where_the_p_value_crosses(n):
    h = round(n * evidence.critical_distance(n))
    p = [metrics.forget_quality(np.arange(n), np.arange(n) + k - 0.5) for k in (h - 1, h)]
    assert p[1] < 0.05 <= p[0]
    # Smirnov's asymptotic law, to a few steps: sqrt(-log(0.025) / n)
    assert abs(h / n - math.sqrt(-math.log(0.025) / n)) <= 2.5 / n
    with pytest.raises(ValueError, match="no two samples of 2 differ"):
        evidence.critical_distance(2)


@given(st.integers(2, 8), st.data())
def test_distances_are_scipys_with_ties_too(n, data):
    rows = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    one, other = ([data.draw(rows) for _ in range(3)] for _ in range(2))
    expected = [stats.ks_2samp(a, b, method="asymp").statistic for a, b in zip(one, other, strict=True)]
    assert evidence.ks_distances(np.array(one, float), np.array(other, float)) == pytest.approx(expected)


def test_power_is_the_share_of_tests_that_reject():
    ratios, n = np.exp(np.random.default_rng(0).normal(0, 2, 3000)), 60
    rng, logs = np.random.default_rng(5), np.log(ratios)
    pairs = [(rng.choice(logs, n), rng.choice(logs, n) + 0.5 * logs.std()) for _ in range(400)]
    share = np.mean([metrics.forget_quality(a, b) < 0.05 for a, b in pairs])
    assert evidence.power(ratios, 0.5, n, draws=4000) == pytest.approx(share, abs=4 * math.sqrt(0.25 / 400))


def test_power_is_the_level_without_a_shift_and_grows_with_both():
    table = evidence.powers(
        np.exp(np.random.default_rng(1).normal(size=2000)), shifts=(0.0, 0.2, 0.5), sizes=(200, 400)
    )
    assert (table.loc[0.0] <= 0.06).all() and (table.loc[0.0] > 0.01).all()
    assert table.index.is_monotonic_increasing and (np.diff(table.to_numpy(), axis=0) > 0).all()
    assert (table[400][1:] > table[200][1:]).all()


@pytest.mark.skipif(not LOGS.is_dir(), reason="the TOFU authors' logs are not here")
def test_the_originals_shift_is_always_found_and_a_tenth_of_it_hardly_ever():
    log = json.loads((LOGS / "retain90" / "eval_log_forget.json").read_text(encoding="utf-8"))
    ratios = metrics.truth_ratio(*(list(log[k].values()) for k in ("avg_paraphrased_loss", "average_perturb_loss")))
    table = evidence.powers(ratios, (audit.ORIGINAL_SHIFT / 10, audit.ORIGINAL_SHIFT))
    assert (table.loc[audit.ORIGINAL_SHIFT] > 0.999).all() and (table.loc[audit.ORIGINAL_SHIFT / 10] < 0.35).all()


def test_equivalence_is_claimed_where_it_is_and_hardly_ever_at_the_margin():
    rng, margin = np.random.default_rng(2), 0.2
    # uniform samples moved by d are d apart
    claimed = {}
    for moved in (0.0, margin):
        samples = [(rng.random(300), rng.random(300) + moved) for _ in range(150)]
        claimed[moved] = np.mean([evidence.equivalence(*s, margin, draws=200)["equivalent"] for s in samples])
    assert claimed[margin] <= 0.05 and claimed[0.0] > 0.9


def test_no_difference_found_is_not_equivalence():
    rng = np.random.default_rng(3)
    few = rng.random(20), rng.random(20)
    assert metrics.forget_quality(*few) > 0.05 and not evidence.equivalence(*few)["equivalent"]
    found = evidence.equivalence(few[0], few[0])
    assert found["distance"] == found["upper"] == 0 and found["equivalent"]
    with pytest.raises(ValueError, match="3 and 2 truth ratios; equivalence needs the same questions"):
        evidence.equivalence([1, 2, 3], [1, 2])
