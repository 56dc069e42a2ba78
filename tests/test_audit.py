"""Every finding of the audit of the printed numbers is there, and goes away when its cell is repaired."""

import json
import pkgutil
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from helpers import LOGS, needs_logs
from scipy import stats

from rklu_lib.methods import TABLE_8
from rklu_pages.audit import consistency, harmonic, lattice, power, summary
from rklu_pages.drawing import tables
from rklu_pages.results import paper

CACHED = (lattice.lattice_tests, lattice.scan_questions)


@pytest.fixture
def corrected(tmp_path, monkeypatch):
    """A function that changes one cell of one table, in a copy."""
    shutil.copytree(paper.PAPER, tmp_path / "paper")
    monkeypatch.setattr(paper, "PAPER", tmp_path / "paper")
    for function in CACHED:
        function.cache_clear()

    def change(name, row, column, value):
        path = tmp_path / "paper" / f"{name}.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        chosen = (table[list(row)] == pd.Series(row)).all(axis=1)
        assert chosen.sum() == 1
        table.loc[chosen, column] = value
        table.to_csv(path, index=False)

    yield change
    for function in CACHED:
        function.cache_clear()


# 1. Model utility


def test_three_utilities_are_impossible_under_any_rounding():
    rows = harmonic.utility_bounds().set_index(["set", "method"])
    impossible = rows[rows.verdict == "impossible"]
    assert list(impossible.index) == [("forget05", m) for m in ("GA+KL", "NPO+KL", "DPO+KL")]
    assert impossible.excess.round(4).tolist() == [0.0061, 0.1164, 0.4322]
    assert (impossible.excess_any > 0.005).all()
    assert (rows.loc["forget05"].loc[["NPO+KL", "DPO+KL"]].eval("model_utility > limit")).all()
    assert rows.loc[("forget05", "GA+KL")].model_utility < rows.loc[("forget05", "GA+KL")].limit


def test_the_fourth_utility_depends_on_rounding():
    row = harmonic.utility_bounds().set_index(["set", "method"]).loc[("forget10", "GA")]
    assert row.verdict == "only if cut off" and 0 < row.excess < 2e-5 and row.excess_any < -3e-4


def test_possible_rows_imply_truth_ratios_in_a_narrow_band():
    rows = harmonic.utility_bounds()
    band = rows.truth_ratio[rows.verdict == "possible"]
    assert len(band) == 38 and band.min() > 0.4 and band.max() < 0.6


def test_a_corrected_utility_is_possible(corrected):
    corrected("table8", {"set": "forget05", "method": "DPO+KL"}, "model_utility", "0.0785")
    rows = harmonic.utility_bounds().set_index(["set", "method"])
    assert rows.verdict[("forget05", "DPO+KL")] == "possible"
    assert (rows.verdict == "impossible").sum() == 2


def test_a_mean_over_seeds_obeys_the_bound_of_the_mean_components():
    nine = np.random.default_rng(0).uniform(1e-3, 1, (2000, 3, 9))
    utility = (9 / (1 / nine).sum(axis=2)).mean(axis=1)
    assert (utility <= harmonic.utility_bound(nine.mean(axis=1)[:, :6])).all()


def test_the_bound_is_reached_when_truth_ratios_are_one():
    six = np.array([[0.5, 0.25, 1, 1, 1, 1]])
    assert harmonic.utility_bound(six) == pytest.approx(stats.hmean([*six[0], 1, 1, 1]))


def test_exchanged_columns_repair_npo_kl_and_hardly_anything_else():
    rows = harmonic.exchanged_columns()
    repaired = rows[(rows.verdict == "impossible") & rows.in_band]
    assert repaired[["set", "method"]].to_numpy().tolist() == [["forget05", "NPO+KL"]]
    assert repaired.exchanged.iloc[0] == pytest.approx(0.45, abs=0.01)
    assert rows[rows.verdict == "possible"].in_band.sum() == 1
    table = paper.reported("table8").query("forget_rouge > retain_rouge and forget_probability > retain_probability")
    assert table[["set", "method"]].to_numpy().tolist() == [["forget05", "NPO+KL"]]


def test_the_utility_of_idk_agrees_with_its_suspicious_cells():
    rows = harmonic.utility_bounds().set_index(["set", "method"]).truth_ratio
    assert all(0.48 < rows[name, "IDK"] < 0.53 for name in ("forget01", "forget05", "forget10"))


# 2. The lattice


@pytest.mark.parametrize("method", ["exact", "asymp"])
@pytest.mark.parametrize("n", [40, 200, 300])
def test_the_lattice_is_scipys(n, method):
    x, values = np.arange(n), lattice.ks_lattice(n, method)
    assert len(values) == n + 1
    for k in range(n // 20, n // 2, n // 40):
        assert values[k] == pytest.approx(stats.ks_2samp(x, x + k - 0.5, method=method).pvalue, rel=1e-9, abs=0)


def test_an_unknown_ks_method_raises():
    with pytest.raises(ValueError, match="exact"):
        lattice.ks_lattice(40, "auto")


def test_means_over_runs_are_all_of_them():
    single, pairs = lattice.ks_lattice(6), lattice.run_means(6, 2)
    assert np.allclose(pairs, np.unique(np.round([(a + b) / 2 for a in single for b in single], 14)), atol=1e-13)


def test_rounding_and_cutting_off_are_told_apart():
    assert lattice.printable("0.2657", np.array([0.26568]))[:2] == (True, False)
    assert lattice.printable("0.2656", np.array([0.26568]))[:2] == (False, True)
    assert lattice.printable("0.2655", np.array([0.26568]))[:2] == (False, False)


def test_a_random_number_passes_as_often_as_stated():
    values, rng = lattice.run_means(40, 3), np.random.default_rng(0)
    drawn = [f"{n / 1e4:.4f}" for n in rng.integers(2000, 8001, 1500)]
    passed = np.mean([any(lattice.printable(t, values)[:2]) for t in drawn])
    assert passed == pytest.approx(lattice.printable("0.4000", values)[2], abs=0.03)


def test_the_tail_counts_every_way_to_find_as_many():
    rows = pd.DataFrame({"rounded": [True, False, False], "cut_off": [False, True, False], "chance": [0.1, 0.2, 0.5]})
    test = lattice.lattice_test(rows.assign(either=rows.rounded | rows.cut_off))
    assert test["probability"] == pytest.approx(0.1 * 0.2 * 0.5 + 0.1 * 0.2 * 0.5 + 0.1 * 0.8 * 0.5 + 0.9 * 0.2 * 0.5)
    assert test["either"] == 2 and test["expected"] == pytest.approx(0.8)


def one_run(questions, method="exact", runs=1):
    tests = lattice.lattice_tests().set_index(["questions", "method", "runs"])
    return tests.loc[(questions, method, runs)]


def test_forget_qualities_are_p_values_of_one_exact_test():
    assert [one_run(n).either for n in (40, 200, 300, 400)] == [7, 8, 11, 0]
    assert all(one_run(n).probability < 1e-10 for n in (40, 200, 300))
    assert [one_run(n, "asymp").either for n in (40, 200, 300, 400)] == [0, 1, 1, 3]


def test_forget01_hits_are_no_chance_even_when_repeated_values_count_once():
    rows = lattice.lattice_rows()
    distinct = rows[rows["set"] == "forget01"].drop_duplicates("printed")
    test = lattice.lattice_test(distinct)
    assert test["either"] == 4 and len(distinct) == 11 and test["probability"] < 1e-7


def test_a_mean_of_three_runs_cannot_be_tested_with_many_questions():
    assert one_run(40, runs=3).expected < 2
    assert one_run(200, runs=3).expected > 10 and one_run(400, runs=3).expected > 10
    assert one_run(300, runs=3).expected > 9


def test_each_set_singles_out_its_number_of_questions():
    scan = lattice.scan_questions()
    assert scan.idxmax().to_dict() == {"forget01": 40, "forget05": 200, "forget10": 300}
    assert scan.max().tolist() == [7, 8, 11]
    assert all(scan[s].nlargest(2).iloc[1] <= 3 for s in scan)


def test_neither_one_run_nor_a_mean_of_three_explains_half_of_forget01():
    rows = lattice.row_evidence()
    rows = rows[rows.fits == "neither"]
    assert rows[rows["set"] == "forget01"].method.tolist() == [
        "GA+KL", "NPO", "NPO+KL", "NPO+RT", "RKLU", "RKLU+KL", "RKLU+RT"]  # fmt: skip
    assert rows[rows["set"] != "forget01"].method.tolist() == ["DPO+RT"]
    assert not rows[rows["set"] == "forget01"].two_runs.any()


def test_both_ways_to_shorten_a_number_are_used():
    rows = lattice.lattice_rows()
    assert (rows.cut_off & ~rows.rounded).sum() == 14 and (rows.rounded & ~rows.cut_off).sum() == 4
    gradient_ascent = rows[rows["set"] == "forget10"].set_index("method").loc["GA"]
    assert gradient_ascent.cut_off and not gradient_ascent.rounded
    assert rows.set_index("printed").loc["0.4046", ["rounded", "cut_off"]].tolist() == [True, False]


def test_half_of_table_5_is_no_single_test():
    rows = lattice.lattice_rows("table5")
    assert rows.printed[~rows.either].tolist() == ["0.0315", "3.44e-10", "5.99e-9", "2.612e-10"]


def test_a_changed_digit_leaves_the_lattice(corrected):
    corrected("table8", {"set": "forget10", "method": "RKLU"}, "forget_quality", "0.5187")
    assert one_run(300).either == 10


def test_three_runs_agree_only_when_their_spread_is_below_a_question():
    chance = lattice.agreement((0.01, 1.0))
    k = np.round(np.random.default_rng(0).normal(0.5, 1, (20_000, 3)) + np.random.default_rng(1).random((20_000, 1)))
    assert chance[0.01] > 0.95
    assert chance[1.0] == pytest.approx((np.ptp(k, axis=1) == 0).mean(), abs=0.01)


# 3. Consistency


def test_two_quantities_differ_between_tables():
    rows = consistency.printed_twice()
    rows = rows[~rows.equal & (rows.tables != "5 and 8")]
    assert rows[["tables", "row", "first", "second"]].to_numpy().tolist() == [
        ["1 and 2", "Original", 58.27, 57.66],
        ["3 and 8", "forget10 RKLU", 0.3284, 0.3437],
    ]
    assert rows.elsewhere.tolist() == ["", "forget10 FKLU"]


def test_the_other_quantities_printed_twice_agree():
    rows = consistency.printed_twice()
    assert rows[rows.tables != "5 and 8"].equal.sum() == 12


def test_a_corrected_table_3_agrees_with_table_8(corrected):
    corrected("table3", {"set": "forget10", "method": "RKLU"}, "forget_rouge", "0.3437")
    assert consistency.printed_twice().query("tables == '3 and 8'").equal.all()


def test_cells_are_equal_where_nothing_should_make_them_so():
    rows = consistency.equal_cells()
    top = rows[(rows.cells > 1) & ~rows.same_family]
    assert top[["first", "second", "cells"]].to_numpy().tolist() == [
        ["GA forget01", "IDK forget05", 4],
        ["GA+RT forget01", "RKLU+RT forget01", 2],
    ]
    assert top["columns"].tolist()[1] == "facts_rouge, authors_rouge"
    assert top.expected_pairs.tolist()[0] < 1e-7 and top.expected_pairs.tolist()[1] < 0.02
    copies = rows[rows["columns"] == "model_utility"]
    assert copies[["first", "second"]].to_numpy().tolist() == [["GA+RT forget01", "DPO+KL forget05"]]


def test_as_many_equal_cells_are_expected_as_near_ones_say():
    table = paper.reported("table8")
    units = (table[[c for c in table if c not in paper.LABELS]] / 1e-4).round().to_numpy()
    pairs = list(combinations(range(len(units)), 2))
    rates = [sum(0 < abs(a[i] - a[j]) <= 50 for i, j in pairs) / 100 / len(pairs) for a in units.T]
    two = 1 - np.prod([1 - r for r in rates])  # one or more; less those with one alone
    two -= sum(r * np.prod([1 - q for k, q in enumerate(rates) if k != one]) for one, r in enumerate(rates))
    rows = consistency.equal_cells()
    assert rows[rows.cells == 2].expected_pairs.to_numpy() == pytest.approx(len(pairs) * two, rel=1e-6)


def test_a_changed_cell_is_no_longer_equal(corrected):
    corrected("table8", {"set": "forget05", "method": "IDK"}, "facts_rouge", "0.4800")
    assert consistency.equal_cells().cells.max() == 3


def test_notation_slips():
    rows = consistency.notation()
    assert sorted(rows[rows.oddity == "per cent among fractions"].printed) == ["32.73", "47.37"]
    assert {"2.612e-10", "0.876"} <= set(rows[rows.oddity == "other decimals"].printed)
    assert len(rows) == 8


def test_a_corrected_slip_is_no_slip(corrected):
    corrected("table5", {"epoch": "0", "method": "GA+RT"}, "model_utility", "0.4737")
    assert "5" not in set(consistency.notation().query("oddity == 'per cent among fractions'").table)


HOLD = ["ga_rt_below_ga", "best_overall", "forget01_easy", "alpha_baselines", "capability_best", "more_data"]
HOLD += ["copyright_accuracy", "no_leak", "npo_large", "without_retain"]


def test_sentences_that_hold_and_sentences_that_do_not():
    said = consistency.statements()
    assert sorted(said.index[said.holds]) == sorted(HOLD)
    assert sorted(said.index[~said.holds]) == [
        "copyright_utility", "dpo_weakest", "ga_forgets", "ga_rt_table", "ga_utility", "retain_helps",
        "rkl_utility", "six_datasets", "top_five"]  # fmt: skip
    assert set(said.index) | {"three_seeds"} == set(paper.reported("statements").id)


@pytest.mark.parametrize(("key", "table", "row", "column", "value"), [
    ("rkl_utility", "table7", {"method": "RKLU"}, "avg_accuracy_pct", "57.21"),
    ("copyright_utility", "table2", {"method": "TA"}, "perplexity", "13.14"),
    ("without_retain", "table8", {"set": "forget10", "method": "NPO"}, "forget_quality", "0.9950"),
    ("without_retain", "table8", {"set": "forget10", "method": "RKLU"}, "forget_quality", "0.0182"),
    ("npo_large", "table8", {"set": "forget10", "method": "NPO"}, "model_utility", "0.6553"),
    ("forget01_easy", "table8", {"set": "forget05", "method": "GA"}, "forget_quality", "0.3900"),
    ("ga_forgets", "table8", {"set": "forget05", "method": "GA"}, "forget_quality", "0.3900"),
    ("best_overall", "table8", {"set": "forget10", "method": "NPO+RT"}, "forget_quality", "0.9958"),
    ("alpha_baselines", "table8", {"set": "forget10", "method": "NPO+RT"}, "model_utility", "0.5995"),
    ("capability_best", "table1", {"set": "forget10", "method": "TA"}, "avg_accuracy_pct", "58.00"),
    ("no_leak", "table4", {"method": "RKLU", "field": "fill_in_blank"}, "text", "Karachi, Lahore, a, b, c"),
    ("top_five", "table9", {"example": "2", "method": "RKLU", "field": "fill_in_blank"}, "text", "a, b, c, d, e"),
])  # fmt: skip
def test_a_sentence_is_judged_by_its_cells(corrected, key, table, row, column, value):
    before = consistency.statements().holds[key]
    corrected(table, row, column, value)
    assert consistency.statements().holds[key] != before


def test_more_data_is_worse_only_if_it_is_for_most_methods(corrected):
    for method in ("GA", "NPO", "IDK"):  # and DPO, as printed: four of seven
        corrected("table1", {"set": "forget10", "method": method}, "avg_accuracy_pct", "58.20")
    assert not consistency.statements().holds["more_data"]


# 4. Evidence


def test_more_questions_see_smaller_shifts():
    shifts = power.detectable_shifts(simulations=200)
    assert (np.diff(shifts, axis=0) < 0).all()
    assert shifts.loc[40].between(0.6, 0.9).all() and shifts.loc[300].between(0.2, 0.3).all()
    assert list(shifts.index) == [40, 200, 300, 400]  # forget10: as TOFU's evaluator asks, and all


def test_every_number_of_questions_has_its_own_curve_of_power():
    ax = power.plot_power(simulations=50).figure.axes[0]
    *curves, original = ax.lines
    assert [t.get_text() for t in ax.get_legend().texts] == [f"{n} questions" for n in power.SIZES]
    assert len({line.get_linestyle() for line in curves}) == len(curves) == len(power.SIZES)
    assert original.get_xdata()[0] == power.ORIGINAL_SHIFT
    half_way = [line.get_xdata()[np.argmax(line.get_ydata() >= 0.5)] for line in curves]
    assert half_way == sorted(half_way, reverse=True)


def test_power_by_bisection_is_power_by_simulation():
    rng = np.random.default_rng(7)
    seen = [stats.ks_2samp(rng.normal(size=40), rng.normal(0.6, size=40)).pvalue < 0.05 for _ in range(600)]
    assert (power.critical_shifts(40) < 0.6).mean() == pytest.approx(np.mean(seen), abs=0.07)


def test_perfect_unlearning_scores_near_one_on_the_same_questions():
    for n in power.SIZES:
        assert np.median(power.ideal_forget_quality(n)) > 0.95
        assert np.median(power.ideal_forget_quality(n, correlation=0.0)) < 0.7


@needs_logs
def test_the_facts_about_truth_ratios_are_in_the_logs():
    def log_ratio(model):
        log = json.loads((LOGS / model / "eval_log_forget.json").read_text())
        keys = sorted(log["avg_paraphrased_loss"], key=int)
        return np.array([log["avg_paraphrased_loss"][k] - np.mean(log["average_perturb_loss"][k]) for k in keys])

    original, oracle, other = log_ratio("full"), log_ratio("retain90"), log_ratio("retain95")
    assert len(original) == len(oracle) == 300
    assert (oracle.mean() - original.mean()) / oracle.std() == pytest.approx(power.ORIGINAL_SHIFT, abs=0.005)
    assert np.corrcoef(original, oracle)[0, 1] == pytest.approx(power.ORIGINAL_CORRELATION, abs=0.005)
    assert np.corrcoef(oracle[200:], other[:100])[0, 1] == pytest.approx(power.ORACLE_CORRELATION, abs=0.005)
    assert stats.ks_2samp(oracle[200:], other[:100]).pvalue > 0.99


def test_leads_survive_no_spread_and_dissolve_in_a_large_one():
    table = paper.reported("table8")
    none, large = power.rankings_surviving(table, 0), power.rankings_surviving(table, 100)
    assert len(none) == 33 and none.survives.sum() == 32 and not large.survives.any()
    assert none[~none.survives][["set", "ahead", "behind"]].to_numpy().tolist() == [["forget01", "RKLU+KL", "NPO+KL"]]


def test_a_lead_dissolves_where_it_says():
    table = paper.reported("table8")
    row = power.rankings_surviving(table, 0.2).iloc[0]
    assert power.rankings_surviving(table, row.dissolves_at * 0.99).survives.iloc[0]
    assert not power.rankings_surviving(table, row.dissolves_at * 1.01).survives.iloc[0]


def test_a_spread_per_cell_is_taken_and_a_missing_one_raises():
    table = paper.reported("table8")
    spread = dict.fromkeys(zip(table["set"], table.method, strict=True), 0.2)
    assert power.rankings_surviving(table, spread).equals(power.rankings_surviving(table, 0.2))
    del spread["forget05", "NPO"]
    with pytest.raises(ValueError, match="forget05.*NPO"):
        power.rankings_surviving(table, spread)


def test_leads_over_npo_in_forget01_are_less_than_a_question():
    rows = power.rankings_surviving(paper.reported("table8"), 0.2)
    rows = rows[(rows["set"] == "forget01") & rows.behind.str.startswith("NPO")]
    assert len(rows) == 3 and (rows.questions_apart.abs() < 1).all()


def test_utility_leads_are_in_the_scores_own_unit():
    rows = power.rankings_surviving(paper.reported("table8"), 0.02, score="model_utility")
    assert rows.survives.all() and rows.lead.min() == pytest.approx(0.0341)


def test_between_seed_spread_needs_two_seeds(tmp_path):
    assert power.between_seed_spread(tmp_path).empty
    for method, seed, qualities in (("RKLU", 0, (0.01, 0.1)), ("RKLU", 1, (0.001, 0.002)), ("GA", 0, (0.3, 0.1)),
                                    ("NPO,alpha=4", 0, (0.3, 0.1)), ("NPO,alpha=4", 1, (0.3, 0.1))):  # fmt: skip
        folder = tmp_path / "mini" / "tofu" / "forget10" / method
        folder.mkdir(parents=True, exist_ok=True)
        epochs = [{"forget_quality_benchmark": q, "model_utility": 0.5} for q in qualities]
        (folder / f"seed{seed}.json").write_text(json.dumps({"epochs": epochs}))
    rows = power.between_seed_spread(tmp_path)
    assert rows[["profile", "set", "method", "seeds"]].to_numpy().tolist() == [["mini", "forget10", "RKLU", 2]]
    assert rows.log10_sd.iloc[0] == pytest.approx(np.std([-1, np.log10(0.002)], ddof=1))


def test_the_summary_names_a_function_for_each_finding_and_sorts_by_severity():
    rows = summary.findings()
    assert all(callable(pkgutil.resolve_name(f"rklu_pages.audit.{f}")) for f in rows.function)
    order = rows.severity.map(summary.SEVERITIES.index)
    assert order.is_monotonic_decreasing and set(rows.severity) == set(summary.SEVERITIES)
    (line,) = rows.finding[rows["where"] == "Forget quality above 0.05"]
    half = power.detectable_shifts(power=0.5)["original and oracle"]
    for n in power.SIZES:
        assert f"{1 - half[n] / power.ORIGINAL_SHIFT:.0%} with {n} questions" in line


def test_what_no_sentence_of_the_paper_says_affects_no_conclusion():
    rows = summary.findings()
    mild = rows[rows.function.str.startswith("lattice") | rows.finding.str.contains("DPO methods have the weakest")]
    assert len(mild) == 9 and summary.SEVERITIES[2] not in set(mild.severity)


def test_a_repaired_table_has_fewer_findings(corrected):
    before = summary.findings()
    corrected("table8", {"set": "forget10", "method": "NPO+RT"}, "authors_rouge", "0.8760")
    after = summary.findings()
    assert len(after) == len(before) - 1


def test_a_table_of_sentences_wraps_and_keeps_every_row():
    rows = summary.findings()
    html = tables.show(rows, "Findings", "findings")._repr_html_().split("</table>")[0]
    assert html.count("<tr>") == len(rows) and "rk-sentences" in html and "*" not in html


def test_the_leads_that_survive_the_spread_of_our_own_seeds():
    spread = power.between_seed_spread().query("profile == 'mini' and set == 'forget10'").set_index("method")
    assert (spread["seeds"] == 3).all() and set(TABLE_8) <= set(spread.index)
    table = paper.reported("table8")
    rows = table[(table["set"] == "forget10") & table["method"].isin(spread.index)]
    lost = {}
    for score, column in {"forget_quality": "log10_sd", "model_utility": "utility_sd"}.items():
        by_cell = {("forget10", method): sd for method, sd in spread[column].items()}
        found = power.rankings_surviving(rows, by_cell, score=score)
        assert len(found) == len(TABLE_8) - 3  # each but RKLU's own
        lost[score] = set(found[~found["survives"]]["behind"])
    assert lost == {"forget_quality": {"NPO", "NPO+KL", "NPO+RT", "GA+RT", "TA"}, "model_utility": set()}
    # by hand: the lead over NPO, 0.72 decades, against 1.96 standard deviations of a difference of means of three
    sd = spread.loc[["RKLU", "NPO"], "log10_sd"]
    assert np.log10(0.5182 / 0.0995) < 1.96 * np.sqrt((sd**2).sum() / 3)
