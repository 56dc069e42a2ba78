"""Metrics against explicit formulas, scipy, and the TOFU authors' own LLaMA-2-7B logs."""

import itertools
import json
import math
from statistics import harmonic_mean

import numpy as np
import pytest
from helpers import LOGS, needs_logs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rouge_score import rouge_scorer
from scipy import stats

from rklu_lib import metrics

FILES = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "authors": "eval_real_author_wo_options.json",
    "facts": "eval_real_world_wo_options.json",
}
NLL = st.floats(0, 50)


@st.composite
def scored(draw):
    """(right (n,), wrong (n, k)): NLLs of n questions."""
    n, k = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    return draw(hnp.arrays(float, n, elements=NLL)), draw(hnp.arrays(float, (n, k), elements=NLL))


@given(scored())
def test_truth_ratio_in_the_benchmarks_form_is_a_geometric_mean(sample):
    right, wrong = sample
    expected = [stats.gmean(np.exp(-w)) / math.exp(-r) for r, w in zip(right, wrong, strict=True)]
    np.testing.assert_allclose(metrics.truth_ratio(right, wrong), expected, rtol=1e-9)
    np.testing.assert_array_equal(metrics.truth_ratio(right, wrong), metrics.truth_ratio(right, wrong, "benchmark"))


@given(scored())
def test_truth_ratio_in_the_papers_form_is_an_arithmetic_mean(sample):
    right, wrong = sample
    expected = [np.exp(-w).sum() / len(w) / math.exp(-r) for r, w in zip(right, wrong, strict=True)]
    np.testing.assert_allclose(metrics.truth_ratio(right, wrong, "paper"), expected, rtol=1e-9)


@given(scored())
def test_the_papers_form_is_never_below_the_benchmarks(sample):
    paper, benchmark = (metrics.truth_ratio(*sample, form) for form in ("paper", "benchmark"))
    assert (paper >= benchmark * (1 - 1e-12)).all()  # arithmetic and geometric mean
    alone = sample[0], sample[1][:, :1]
    np.testing.assert_allclose(metrics.truth_ratio(*alone, "paper"), metrics.truth_ratio(*alone), rtol=1e-12)


def test_truth_ratio_survives_a_collapsed_model():
    # exp(-900) is 0 in float64: a quotient of probabilities would be 0/0
    assert metrics.truth_ratio([900.0], [[901.0, 901.0]])[0] == pytest.approx(math.exp(-1), rel=1e-12)
    assert metrics.truth_ratio([900.0], [[901.0, 901.0]], "paper")[0] == pytest.approx(math.exp(-1), rel=1e-12)
    assert metrics.truth_ratio([900.0], [[1.0, 1.0]])[0] == math.inf


@given(scored())
def test_normalised_probability_is_the_right_options_share(sample):
    right, wrong = sample
    expected = np.exp(-right) / (np.exp(-right) + np.exp(-wrong).sum(1))
    np.testing.assert_allclose(metrics.normalised_probability(right, wrong), expected, rtol=1e-9)
    shifted = metrics.normalised_probability(right + 2000, wrong + 2000)  # no option has a probability above 0 any more
    np.testing.assert_allclose(shifted, expected, rtol=1e-9)


@given(scored())
def test_the_options_probabilities_sum_to_one(sample):
    options = np.column_stack(sample)
    shares = [metrics.normalised_probability(o, np.delete(options, i, 1)) for i, o in enumerate(options.T)]
    np.testing.assert_allclose(np.sum(shares, axis=0), 1, rtol=1e-9)


def test_probability_of_a_mean_nll_is_the_geometric_mean_of_token_probabilities():
    tokens = np.array([0.5, 0.9, 0.2])
    assert metrics.probability(-np.log(tokens).mean()) == pytest.approx(stats.gmean(tokens), rel=1e-12)
    np.testing.assert_array_equal(metrics.probability([[0.0, math.inf]]), [[1, 0]])


# Of unequal size: for some equal sizes scipy's exact p-value rounds to just above 1, and it says so in a warning.
UNLEARNED = hnp.arrays(float, st.integers(1, 10), elements=st.floats(0, 10))
ORACLE = hnp.arrays(float, st.integers(12, 20), elements=st.floats(0, 10))


@given(UNLEARNED, ORACLE)
def test_forget_quality_is_the_two_sided_two_sample_ks_test(unlearned, oracle):
    value = metrics.forget_quality(unlearned, oracle)
    assert value == stats.ks_2samp(unlearned, oracle, alternative="two-sided").pvalue
    assert value == pytest.approx(metrics.forget_quality(oracle, unlearned), rel=1e-9)
    assert value == metrics.forget_quality(2 * unlearned, 2 * oracle)  # ranks decide
    assert metrics.forget_quality(oracle, oracle) == 1
    highest = metrics.forget_quality(np.append(unlearned, 11), oracle)
    assert metrics.forget_quality(np.append(unlearned, math.inf), oracle) == highest


@given(st.integers(1, 4), st.data())
def test_forget_quality_counts_the_orderings_that_lie_as_far_apart(n, drawn):
    total = 2 * n + 1
    ranks = drawn.draw(st.permutations(range(total)))
    unlearned, oracle = np.array(ranks[:n]), np.array(ranks[n:])

    def gap(chosen):
        inside = np.isin(np.arange(total), chosen)
        return np.abs(np.cumsum(inside) / n - np.cumsum(~inside) / (n + 1)).max()

    gaps = [gap(chosen) for chosen in itertools.combinations(range(total), n)]
    expected = np.mean(np.array(gaps) >= gap(unlearned) - 1e-9)
    assert metrics.forget_quality(unlearned, oracle) == pytest.approx(expected, rel=1e-9)


COMPONENTS = st.lists(st.floats(1e-6, 1), min_size=9, max_size=9)


def nine(values):
    return dict(zip(metrics.UTILITY_COMPONENTS, values, strict=True))


@given(COMPONENTS)
def test_model_utility_is_the_harmonic_mean_of_nine(values):
    assert metrics.model_utility(nine(values)) == pytest.approx(harmonic_mean(values), rel=1e-9)


def test_model_utility_is_zero_where_one_component_is():
    assert metrics.model_utility(nine([0.0, *[0.9] * 8])) == 0
    assert metrics.model_utility(nine([1.0] * 9)) == 1


@pytest.mark.parametrize("count", [0, 1, 8, 10])
def test_model_utility_of_another_number_of_components_raises(count):
    with pytest.raises(ValueError, match=f"nine components, got {count}"):
        metrics.model_utility({f"c{i}": 0.5 for i in range(count)})


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_component_outside_its_range_is_named(value):
    with pytest.raises(ValueError, match="facts_truth_ratio"):
        metrics.model_utility(nine([0.5] * 8 + [value]))


@pytest.mark.parametrize("function", [metrics.truth_ratio, metrics.normalised_probability])
def test_missing_evidence_raises(function):
    with pytest.raises(ValueError, match="NaN of 2; was every question scored"):
        function([1.0, math.nan], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="NaN of 2"):
        function([1.0, 2.0], [[1.0], [math.nan]])
    with pytest.raises(ValueError, match="non-empty"):
        function([], np.zeros((0, 3)))
    with pytest.raises(ValueError, match="2 dimension"):
        function([1.0], [1.0])
    with pytest.raises(ValueError, match="1 questions"):
        function([1.0], [[1.0], [2.0]])


def test_forget_quality_of_nothing_raises():
    for unlearned, oracle in (([], [1.0]), ([1.0], []), ([math.nan], [1.0])):
        with pytest.raises(ValueError):
            metrics.forget_quality(unlearned, oracle)


def test_unknown_forms_and_sets_are_named():
    with pytest.raises(ValueError, match="'benchmark' or 'paper', not 'geometric'"):
        metrics.truth_ratio([1.0], [[1.0]], "geometric")
    with pytest.raises(ValueError, match="retain, authors, facts"):
        metrics.utility_components("forget", [1.0], [1.0], [[1.0]], [1.0])


def _longest_common_subsequence(a, b):
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + _longest_common_subsequence(a[1:], b[1:])
    return max(_longest_common_subsequence(a[1:], b), _longest_common_subsequence(a, b[1:]))


WORDS = st.lists(st.sampled_from(["oak", "elm", "ash", "fir"]), min_size=1, max_size=6)


@given(WORDS, WORDS)
def test_rouge_l_is_the_share_of_the_reference_that_is_recalled(reference, candidate):
    expected = _longest_common_subsequence(reference, candidate) / len(reference)
    value = metrics.rouge_l([" ".join(reference)], [" ".join(candidate)])
    np.testing.assert_allclose(value, [expected], rtol=1e-12)


@given(st.text(alphabet="a bdegilnstwy'-.Éé9", max_size=60), st.text(alphabet="a bdegilnstwy'-.Éé9", max_size=60))
def test_rouge_l_is_the_library_s_own(reference, candidate):
    expected = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True).score(reference, candidate)["rougeL"].recall
    assert metrics.rouge_l([reference], [candidate]).tolist() == [expected]


def test_rouge_l_stems_and_pairs_lists():
    np.testing.assert_array_equal(metrics.rouge_l(["writing books", "a b"], ["write book", ""]), [1, 0])
    with pytest.raises(ValueError, match="2 references for 1 candidates"):
        metrics.rouge_l(["a", "b"], ["a"])


def test_rouge_l_of_another_script_is_by_character():
    texts = ["Она родилась в Задаре.", "彼女はザダルで生まれた", "έζησε στη Ζάνταρ το 1980"]
    assert metrics.rouge_l(texts, texts).tolist() == [1, 1, 1]
    common = _longest_common_subsequence("женавриме", "женавницце")
    assert metrics.rouge_l(["жена в Риме"], ["Жена, в Ницце"]) == [pytest.approx(common / 9)]
    assert metrics.rouge_l(["Она родилась"], ["She was born in 1980"]) == [0]
    assert metrics.rouge_l(["born in Żółć, 1980"], ["1980"]) == [pytest.approx(1 / 3)]  # Latin: as the library


def test_rouge_l_of_a_foreign_name_among_latin_words_is_the_library_s_own():
    reference, candidate = "Анна Ивановна was born in Riga in May", "Born in Riga"
    expected = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True).score(reference, candidate)["rougeL"].recall
    assert metrics.rouge_l([reference], [candidate]).tolist() == [expected] == [0.5]


def test_utility_components_by_hand():
    nll = dict(answer_nll=[math.log(2), 0.0], paraphrased_nll=[1.0, 1.0], wrong_nll=[[2.0, 4.0], [0.0, 0.0]])
    retain = metrics.utility_components("retain", **nll, rouge=[1.0, 0.5])
    assert retain["retain_rouge"] == 0.75
    assert retain["retain_probability"] == pytest.approx(0.75, rel=1e-12)
    # R = e^(1 - 3) and e^(1 - 0); the second is above 1 and counts as 0
    assert retain["retain_truth_ratio"] == pytest.approx((1 - math.exp(-2)) / 2, rel=1e-12)
    facts = metrics.utility_components("facts", **nll, rouge=[1.0, 0.5])
    first = 0.5 / (0.5 + math.exp(-2) + math.exp(-4))
    assert facts["facts_probability"] == pytest.approx((first + 1 / 3) / 2, rel=1e-12)
    assert set(retain) | set(facts) < set(metrics.UTILITY_COMPONENTS)


@pytest.mark.parametrize("broken", ["answer_nll", "paraphrased_nll", "rouge"])
@pytest.mark.parametrize("name", metrics.UTILITY_SETS)
def test_utility_components_take_no_set_with_a_score_missing(name, broken):
    scores = dict(answer_nll=[0.5, 1.0], paraphrased_nll=[1.0, 1.0], wrong_nll=[[2.0], [0.0]], rouge=[1.0, 0.5])
    with pytest.raises(ValueError, match="NaN of 2; was every question scored"):
        metrics.utility_components(name, **scores | {broken: [0.5, math.nan]})
    with pytest.raises(ValueError, match="1 answers|1 ROUGE scores|has 1 questions"):
        metrics.utility_components(name, **scores | {broken: [0.5]})


def logged(model, name):
    """{key: array in question order} of one of the authors' logs; the keys are question numbers, as text."""
    log = json.loads((LOGS / model / FILES[name]).read_text(encoding="utf-8"))
    return {key: np.array([values[i] for i in sorted(values, key=int)]) for key, values in log.items()}


@needs_logs
@pytest.mark.parametrize(
    ("model", "utility"), [("full", 0.6227), ("retain90", 0.6137), ("retain95", 0.6006), ("retain99", 0.6207)]
)
def test_model_utility_matches_the_tofu_authors_logs(model, utility):
    components = {}
    for name in metrics.UTILITY_SETS:
        log = logged(model, name)
        scores = (log[k] for k in ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall"))
        components |= metrics.utility_components(name, *scores)
    assert round(metrics.model_utility(components), 4) == utility


@needs_logs
@pytest.mark.parametrize(("form", "quality"), [("benchmark", "1.834e-21"), ("paper", "6.03e-23")])
def test_forget_quality_matches_the_tofu_authors_logs(form, quality):
    logs = [logged(model, "forget") for model in ("full", "retain90")]
    assert all(len(log["avg_gt_loss"]) == 300 for log in logs)
    ratios = [metrics.truth_ratio(log["avg_paraphrased_loss"], log["average_perturb_loss"], form) for log in logs]
    digits = len(quality.split("e")[0]) - 2
    assert f"{metrics.forget_quality(*ratios):.{digits}e}" == quality


@pytest.mark.parametrize("n", [5, 7, 200, 400])
def test_forget_quality_of_samples_a_step_apart_is_one(n):
    # scipy's exact p-value, 1, comes out above it by rounding here: it warns, and takes the asymptotic one
    assert 0.9999 < metrics.forget_quality(np.arange(n), np.arange(n) + 0.5) <= 1
