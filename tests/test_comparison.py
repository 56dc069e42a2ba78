"""The paper's numbers beside ours, on records made by hand, whose answers are known."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import FKLU, RKLU, of_forget05, record, seeded, with_ratios
from scipy import stats

from rklu_lib import records, runs
from rklu_lib.records import Record, RunSpec
from rklu_pages.drawing import figures
from rklu_pages.results import comparison, paper


def test_the_peak_is_the_first_epoch_of_the_highest_forget_quality():
    assert RKLU.reported()["epoch"] == 2
    assert RKLU.reported("last")["epoch"] == 4
    assert RKLU.reported("product")["epoch"] == 3
    with pytest.raises(ValueError, match="no reporting rule 'best'; there are peak, product, last"):
        RKLU.reported("best")


def test_the_truth_ratios_are_those_of_the_epoch_reported_also_where_few_were_judged():
    every = dataclasses.replace(RKLU, questions={"truth_ratio_benchmark": np.arange(8.0).reshape(4, 2)})
    assert comparison.truth_ratio(every).tolist() == [2, 3] and comparison.truth_ratio(every, "last").tolist() == [6, 7]
    content = RKLU.content | {"epochs": [e for e in RKLU.epochs if e["epoch"] in (2, 4)]}
    few = dataclasses.replace(every, content=content, questions={"truth_ratio_benchmark": np.array([[2, 3], [6, 7]])})
    assert comparison.truth_ratio(few).tolist() == [2, 3] and comparison.truth_ratio(few, "last").tolist() == [6, 7]


def test_the_best_of_the_papers_rows_is_marked():
    ga = record("GA", [0.1], [0.65])
    table = comparison.compare([ga, RKLU, FKLU], "table8", measures=("model_utility",))
    text = comparison.marked(table).stack([0, 1], future_stack=True)
    found = [(name[0], cell) for name, cell in text.items() if "strong" in cell]
    # GA's 0.65 is above RKLU's 0.6; FKLU's 0.7 would be above both, but is no row of the paper's Table 8
    assert found == [("GA", "<strong>0.6500</strong>"), ("RKLU", "<strong>0.5529</strong>")]


def test_all_that_share_the_highest_score_are_marked():
    table = comparison.compare([record("GA", [0.2], [0.5]), RKLU], "table8", measures=("forget_quality",))
    assert table["forget quality", "ours"].nunique() == 1
    marked = comparison.marked(table)["forget quality", "ours"]
    assert len(marked) == 2 and marked.str.startswith("<strong>").all()


def test_a_table_without_a_row_of_the_papers_has_nothing_in_bold():
    table = comparison.compare([FKLU], "table8", measures=("model_utility",))
    assert not comparison.marked(table).map(lambda cell: "strong" in cell).any(axis=None)


def test_after_the_last_epoch_each_seed_has_its_own_row():
    records = comparison.recorded("mini", "forget10", ["oracle", "RKLU"], [0, 2])
    table = comparison.after(records, ("forget_quality", "retain_probability"))
    assert list(table.index) == [("oracle", 0), ("oracle", 2), ("RKLU", 0), ("RKLU", 2)]
    assert table["forget quality"].isna().tolist() == [True, True, False, False]
    last = comparison.load(RunSpec("mini", "forget10", "RKLU", 2)).epochs[-1]
    expected = [last["forget_quality_benchmark"], last["retain_probability"]]
    assert table.loc[("RKLU", 2)].tolist() == expected


def test_truth_ratios_tell_too_little_from_too_much():
    oracle = with_ratios(record("oracle", [1.0], [0.8]), [1.0, 2.0, 3.0, 4.0])
    del oracle.epochs[0]["forget_quality_benchmark"]
    little = with_ratios(record("FKLU", [0.1, 0.2], [0.8, 0.8]), [9.0] * 4, [1.0, 2.0, 2.1, 2.6])
    much = with_ratios(record("GA", [0.1], [0.8]), [3.0, 4.0, 5.0, 6.0])
    table = comparison.truth_ratios([oracle, little, much])
    assert table["above the oracle's median"].to_dict() == {
        "oracle": 0.5,
        "FKLU": 0.25,
        "GA": 1.0,
    }  # FKLU at its peak, the second epoch
    assert table.loc["oracle", "50 %"] == 2.5


def test_a_truth_ratio_at_the_oracles_median_is_not_above_it():
    oracle = with_ratios(record("oracle", [1.0], [0.8]), [1.0, 2.0, 3.0])
    table = comparison.truth_ratios([oracle, with_ratios(record("GA", [0.1], [0.8]), [2.0, 2.0, 2.5])])
    assert table["above the oracle's median"].to_dict() == pytest.approx({"oracle": 1 / 3, "GA": 1 / 3})


def test_the_papers_value_stands_beside_ours():
    table = comparison.compare([FKLU, RKLU], reported="table3")
    printed = paper.reported("table3").query("set == 'forget10'").set_index("method")
    for name in ("FKLU", "RKLU"):
        assert table.loc[name, ("forget quality", "paper")] == printed.loc[name, "forget_quality"]
        assert math.isnan(table.loc[name, ("model utility", "paper")])  # Table 3 prints none
    assert table.loc["RKLU", ("forget quality", "ours")] == 0.2 and table.loc["RKLU", ("", "epoch")] == "2"
    assert comparison.as_text(table).loc["RKLU", ("model utility", "paper")] == "–"
    with pytest.raises(ValueError, match="no table 'table10'"):
        comparison.compare([RKLU], reported="table10")


def test_several_seeds_are_one_row_with_their_mean_and_spread():
    found = [seeded("GA", seed, *scores) for seed, scores in enumerate([([0.1, 0.3], [0.9, 0.4]), ([0.5], [0.6])])]
    table = comparison.compare([*found, RKLU], "table8", measures=("forget_quality", "model_utility"))
    row = table.loc["GA"]
    assert row["", "epoch"] == "2 / 1" and list(table.index) == ["GA", "RKLU"]
    assert row["forget quality", "ours"] == pytest.approx(0.4) and row["model utility", "ours"] == pytest.approx(0.5)
    assert row["model utility", "spread"] == pytest.approx(0.2 / math.sqrt(2))
    text = comparison.as_text(table)
    assert text.loc["GA", ("model utility", "ours")] == "0.5000 ± 0.141"
    assert text.loc["GA", ("forget quality", "ours")] == "0.4"  # the spread of a p-value is its largest seed's
    assert text.loc["RKLU", ("model utility", "ours")] == "0.6000"  # one seed has none
    assert "spread" not in text.columns.get_level_values(1)
    assert comparison.marked(table).loc["RKLU", ("model utility", "ours")] == "<strong>0.6000</strong>"
    assert comparison.by_rule({"peak": table}).loc["GA", ("peak", "model utility")] == pytest.approx(0.5)


def test_each_method_is_named_once_among_lines_of_several_seeds():
    picture = figures.trajectories(
        [seeded("GA", 0, [0.1], [0.9]), seeded("GA", 1, [0.2], [0.8]), seeded("NPO", 0, [0.3], [0.7])]
    )
    for ax, values in zip(picture.figure.axes, ([0.1, 0.2, 0.3], [0.9, 0.8, 0.7]), strict=True):
        assert [line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [1]] == values
        assert sorted(text.get_text() for text in ax.texts) == ["GA", "NPO"]
    assert picture.names == ["GA", "NPO"]


def test_the_mean_of_three_seeds_is_arithmetic():
    table = comparison.compare([seeded("GA", k, [p], [0.3]) for k, p in enumerate((0.9, 0.1, 0.2))], "table8")
    assert table.loc["GA", ("forget quality", "ours")] == pytest.approx(0.4)


def test_p_values_have_three_figures_and_shares_four_decimals():
    """And a share that is above 0, but not to four decimals, is no 0."""
    found = [record("GA", [1.2345e-9], [4e-5]), record("NPO", [0.12345], [0.12345]), record("DPO", [0.0], [6e-5])]
    found += [record("IDK", [0.5], [0.0])]
    text = comparison.as_text(comparison.compare(found, "table8", ("forget_quality", "model_utility")))
    assert text["forget quality", "ours"].tolist() == ["1.23e-09", "0.123", "0", "0.5"]
    assert text["model utility", "ours"].tolist() == ["4e-05", "0.1235", "0.0001", "0.0000"]


def test_several_splits_stand_in_one_table():
    table = comparison.compare([of_forget05(RKLU), of_forget05(FKLU), RKLU], "table8", measures=("forget_quality",))
    assert list(table.index) == [("forget05", "RKLU"), ("forget05", "FKLU"), ("forget10", "RKLU")]
    printed = paper.reported("table8").set_index(["set", "method"])["forget_quality"]
    for split in ("forget05", "forget10"):
        assert table.loc[(split, "RKLU"), ("forget quality", "paper")] == printed[split, "RKLU"]
    marked = comparison.marked(table).map(lambda cell: cell.startswith("<strong>"))
    assert marked.sum(axis=None) == 4  # the paper's and ours, in either split


def test_aggregates_name_the_set_where_there_are_several():
    measures = ("forget_quality_benchmark", "forget_rouge")
    one = comparison.aggregates([RKLU, FKLU], measures)
    assert one.index.tolist() == ["RKLU", "FKLU"] and one["forget quality"].tolist() == [0.2, 0.02]
    both = comparison.aggregates([of_forget05(RKLU), RKLU], measures)
    assert both.index.tolist() == [("forget05", "RKLU"), ("forget10", "RKLU")]
    assert both.index.names == ["set", "model"] and both["forget rouge"].tolist() == [0.5, 0.5]


def test_a_method_the_paper_does_not_print_has_no_value_there():
    table = comparison.compare([record("teacher", [0.1], [0.3])], reported="table8")
    assert table.loc["teacher", ("forget quality", "ours")] == 0.1
    assert table.xs("paper", axis=1, level=1).isna().all(axis=None)


def test_epochs_and_rules_side_by_side():
    table = comparison.per_epoch([FKLU, record("TA", [0.1], [0.2])])
    assert table.loc[3, ("forget quality", "FKLU")] == 0.02 and table.loc[1, ("model utility", "TA")] == 0.2
    assert math.isnan(table.loc[2, ("forget quality", "TA")])
    rules = {rule: comparison.compare([RKLU], "table3", rule=rule) for rule in ("peak", "last")}
    rows = comparison.by_rule(rules)
    assert rows.loc["RKLU", ("peak", "forget quality")] == 0.2 and rows.loc["RKLU", ("last", "epoch")] == "4"


def test_what_a_ranking_owes_to_its_rule():
    def printing(made, *values):
        for epoch, value in zip(made.epochs, values, strict=True):
            epoch["forget_quality_paper"] = value
        return made

    dash = printing(record("GA", [0.8, 0.001], [0.3, 0.0]), 0.1, 0.2)
    kept = [printing(record(name, [p], [0.5]), p) for name, p in (("NPO", 0.4), ("IDK", 0.02))]
    values = comparison.under_rules([dash, *kept], "forget_quality")
    assert values.loc["GA"].tolist() == [0.8, 0.001, 0.8, 0.2]
    assert comparison.under_rules([dash], "model_utility").loc["GA"].tolist() == [0.3, 0.0, 0.3, 0.0]
    found = comparison.agreement(values)
    assert (found["leader, peak"], found["leader, last"]) == ("GA", "NPO")
    assert found["τ, last"] == pytest.approx(-1 / 3)  # of three pairs, one stays in order and two turn round
    assert found["τ, product"] == pytest.approx(1) and found["τ, peak, Eq. 5 as printed"] == pytest.approx(1 / 3)
    assert (found["peak / last, median"], found["largest of"]) == (1, "GA") and found["largest"] == pytest.approx(800)


def test_a_grid_is_one_row_per_run():
    oracle = with_ratios(record("TA", [1.0], [0.8]), [1.0, 2.0, 3.0, 4.0])
    original = with_ratios(record("TA", [0.01], [0.8]), [-1.0, -2.0, -3.0, -4.0])
    near, same, far = [0.5, 2.5, 3.5, 4.5], [1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, 9.0]
    made = [
        record("GA", [0.1, 0.3], [0.8, 0.4], settings={"unlearn_lr": lr}, overrides=[("unlearn_lr", lr)])
        for lr in (1e-3, 2e-3, 3e-3)
    ]
    scored = [
        with_ratios(r, original.questions["truth_ratio_benchmark"][0], e)
        for r, e in zip(made, (near, same, far), strict=True)
    ]
    table = comparison.balances(scored, "unlearn_lr", original, oracle)
    assert table["unlearn_lr"].tolist() == [1e-3, 2e-3, 3e-3] and table["epoch"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(table["way"], [0.75, 1.0, 0.25])  # the original's distance is 1
    np.testing.assert_allclose(table["kept"], 0.5)
    np.testing.assert_allclose(table["balance"], [0.375, 0.5, 0.125])
    assert comparison.balances(scored, "unlearn_lr", original, oracle, "product")["epoch"].tolist() == [2, 2, 2]
    wide = comparison.by_seed({3: table, 1: table.assign(balance=7.0)}, "unlearn_lr")
    assert wide.columns[:4].tolist() == [("epoch", "seed 3"), ("epoch", "seed 1"), ("forget quality", "seed 3"),
                                         ("forget quality", "seed 1")]  # fmt: skip
    assert wide.index.tolist() == table["unlearn_lr"].tolist() and (wide["balance", "seed 1"] == 7).all()
    assert wide["kept", "seed 3"].tolist() == table["kept"].tolist()
    specs = runs.grid("mini", "forget10", ["GA"], "unlearn_lr", [1e-3, 2e-3, 3e-3], 0)
    assert [s for r in made for s in [r.spec]] == specs
    assert {s.values.learning_rate("GA") for s in specs} == {1e-3, 2e-3, 3e-3}


def test_provenance_names_the_folder_that_the_records_are_in(monkeypatch, tmp_path):
    assert "Records: `data/records/mini/tofu/`" in comparison.provenance([FKLU]).data
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    assert f"Records: `{tmp_path.as_posix()}/mini/tofu/`" in comparison.provenance([FKLU]).data


def test_provenance_names_records_machine_and_the_command():
    text = comparison.provenance([FKLU, RKLU]).data
    for part in (
        "`forget10/FKLU/seed0.json`, `forget10/RKLU/seed0.json`",
        "commit abc",
        "made by hand",
        "Machine: none",
    ):
        assert part in text
    assert "rklu sweep --profile mini --split forget10 --seed 0" in text
    assert "--split forget05 --split forget10" in comparison.provenance([of_forget05(RKLU), RKLU]).data
    gentle = dataclasses.replace(RKLU, spec=RunSpec("mini", "forget10", "RKLU", 0, (("alpha", 4.0),)))
    one = "run each, such as `rklu run 'RKLU,alpha=4.0' --profile mini --split forget10 --seed 0`"
    assert one in comparison.provenance([RKLU, gentle]).data
    again = Record(RunSpec("mini", "forget10", "RKLU", 2), RKLU.content, RKLU.questions)
    assert "--split forget10 --seed 0 --seed 2 --method RKLU --method FKLU`" in (
        comparison.provenance([record("original", [0.1], [0.8]), RKLU, again, FKLU]).data
    )
    grid = record("GA", [0.1], [0.8], overrides=[("alpha", 2.0)])
    assert "rklu sweep" not in comparison.provenance([grid]).data


def test_the_papers_double_axis_is_monotonic_and_inverted_exactly():
    figure, ax = figures.plt.subplots()
    figures.forget_quality_axis(ax)
    transform = ax.yaxis.get_transform()
    p = np.array([1e-12, 1e-6, 1e-3, 0.049, 0.05, 0.051, 0.5, 1.0])
    y = transform.transform(p)
    assert (np.diff(y) > 0).all()
    np.testing.assert_allclose(transform.inverted().transform(y), p, rtol=1e-9)
    figures.plt.close(figure)


def test_every_method_has_a_look_of_its_own():
    looks = [tuple(figures.look(name).items()) for name in runs.METHODS]
    assert len(set(looks)) == len(looks)
    assert tuple(figures.look("a reader's own+OWN").items()) not in looks  # drawn all the same


def test_a_grid_over_seeds_is_drawn_with_its_mean():
    runs_of = {
        s: [record("RKLU", [p], [u], settings={"alpha": a}) for a, p, u in zip((2, 4), ps, us, strict=True)]
        for s, ps, us in ((0, (0.01, 0.2), (0.5, 0.25)), (1, (0.04, 0.8), (0.7, 0.75)))
    }
    picture = figures.along(runs_of, "alpha")
    quality, utility = picture.figure.axes
    assert picture.names == ["seed 0", "seed 1", "mean"]
    drawn = [line.get_ydata() for line in utility.lines[:3]]
    np.testing.assert_allclose(drawn, [[0.5, 0.25], [0.7, 0.75], [0.6, 0.5]])
    assert sorted(text.get_text() for text in utility.texts) == sorted(picture.names)
    np.testing.assert_allclose(quality.lines[2].get_ydata(), [0.02, 0.4])  # the mean of log p
    assert all(list(line.get_xdata()) == [2, 4] for line in utility.lines[:3])
    alone = figures.along({0: runs_of[0]}, "alpha")  # one seed has no mean
    assert alone.names == ["seed 0"] == [text.get_text() for text in alone.figure.axes[1].texts]


def test_distributions_of_truth_ratios_show_the_distance_that_is_tested():
    drawn = np.random.default_rng(0)
    oracle, other = drawn.lognormal(size=50), drawn.lognormal(0.5, size=50)
    picture = figures.truth_ratios({"forget05": {"oracle": oracle, "RKLU": other}, "forget10": {"oracle": oracle}})
    assert picture.names == ["oracle", "RKLU"]
    first, second = picture.figure.axes
    told = f"RKLU ({stats.ks_2samp(other, oracle).statistic:.3g})"
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["oracle", told]
    assert [text.get_text() for text in second.get_legend().get_texts()] == ["oracle"]
    line = first.lines[1].get_xydata()  # each step ends at a share of k / n
    np.testing.assert_allclose(line[1:, 0], np.sort(other))
    np.testing.assert_allclose(line[1:, 1], np.arange(1, 51) / 50)


def placed(ax, name):
    """Where `plane` put a method's marker: its name is written in the marker's colour, its bars cross there."""
    colour = figures.look(name)["color"]
    across, up = [line for line in ax.lines if line.get_color() == colour][:2]
    return up.get_xdata()[0], across.get_ydata()[0]


def test_marks_that_hide_one_another_have_one_label():
    several = [record("NPO", [0.7659], [0.0]), record("TA", [0.7659], [0.001]), record("GA", [0.3], [0.0])]
    (ax,) = figures.plane(comparison.peaks(several)).figure.axes
    assert sorted(text.get_text() for text in ax.texts if text.get_text()) == ["GA", "NPO, TA"]


def test_many_that_end_on_the_floor_are_named_together():
    low = [record(name, [0.1, 1e-20], [0.9, 0.8]) for name in ("GA", "NPO", "IDK", "DPO")]
    quality, utility = figures.trajectories([*low, RKLU]).figure.axes
    assert sorted(text.get_text() for text in quality.texts) == [
        "RKLU",
        "at the bottom after the last epoch: DPO, GA, IDK, NPO",
    ]
    assert sorted(text.get_text() for text in utility.texts) == ["DPO", "GA", "IDK", "NPO", "RKLU"]
    quality, _ = figures.trajectories(low).figure.axes  # nobody else
    assert [text.get_text() for text in quality.texts] == ["at the bottom after the last epoch: DPO, GA, IDK, NPO"]


def test_the_plane_has_a_panel_for_each_split_and_a_marker_for_each_method():
    several = [RKLU, record("RKLU", [0.4], [0.2]), FKLU, *map(of_forget05, (RKLU, FKLU))]
    picture = figures.plane(comparison.peaks(several))
    assert [ax.get_title("left") for ax in picture.figure.axes] == ["forget10", "forget05"]
    assert picture.names == ["RKLU", "FKLU"]
    for ax in picture.figure.axes:
        assert sorted(text.get_text() for text in ax.texts if text.get_text()) == ["FKLU", "RKLU"]
    ax = picture.figure.axes[0]
    x, y = placed(ax, "RKLU")
    assert x == pytest.approx((RKLU.reported()["model_utility"] + 0.2) / 2) and y == pytest.approx((0.2 * 0.4) ** 0.5)
    marks = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(marks, [placed(ax, name) for name in picture.names])


def test_panels_abreast_hold_what_is_printed_and_what_is_recorded():
    printed = comparison.in_print("table8", "forget10")  # Table 8, read by eye
    assert list(printed) == ["GA", "NPO", "DPO", "IDK", "TA", "RKLU"]
    assert printed["RKLU"] == [{"forget_quality_benchmark": 0.5182, "model_utility": 0.5529}]
    picture = figures.plane({"paper": printed} | comparison.peaks([RKLU, FKLU]), abreast=2)
    left, right = picture.figure.axes
    assert left.get_position().y0 == right.get_position().y0 and left.get_position().x1 < right.get_position().x0
    assert placed(left, "NPO") == (0.2553, 0.0995) and placed(right, "RKLU")[0] == RKLU.reported()["model_utility"]


def test_a_seed_below_the_floor_pulls_the_mean_as_far_as_it_lies():
    pair = [record("GA", [0.01], [0.4]), record("GA", [1e-20], [0.6]), record("NPO", [0.0], [0.5])]
    ax = figures.plane(comparison.peaks(pair)).figure.axes[0]
    assert placed(ax, "GA")[1] == pytest.approx(1e-11)  # the mean of the values, not of those drawn at the floor
    assert placed(ax, "NPO")[1] == figures.FLOOR


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    crowded = [
        seeded(m, 0, [0.0, 1e-11 + 1e-12 * k], [0.5, 0.501]) for k, m in enumerate(("GA", "NPO", "DPO", "IDK", "RKLU"))
    ]
    picture = figures.trajectories(crowded)
    for ax in picture.figure.axes:
        heights = sorted(text.get_position()[1] for text in ax.texts)
        inches = np.diff(heights) * ax.get_position().height * picture.figure.get_figheight()
        assert len(heights) == 5 and (inches > 9 / 72).all()  # the letters are 9 points tall


def test_a_method_at_its_own_rate_is_the_method_itself():
    own, other = (comparison.at_rate("mini", "forget10", "FKLU", 1, rate) for rate in (5e-3, 2e-3))
    assert own == RunSpec("mini", "forget10", "FKLU", 1) and other.label == "FKLU,unlearn_lr=0.002"
    made = [record(m, [p], [0.5]) for m, p in (("RKLU", 0.3), ("FKLU", 0.1), ("RKLU", 0.4))]
    specs = [
        comparison.at_rate("mini", "forget10", m, 1, r) for m, r in (("RKLU", 2e-3), ("FKLU", 2e-3), ("RKLU", 5e-3))
    ]
    made = [dataclasses.replace(r, spec=spec) for r, spec in zip(made, specs, strict=True)]
    table = comparison.by_rate(made, measures=("forget_quality",))
    assert comparison.ahead(table["forget quality"]).tolist() == ["RKLU", "RKLU"]
    assert comparison.ahead(table["forget quality"].assign(FKLU=[0.3, 0.5])).tolist() == ["–", "FKLU"]
    assert table.loc[(1, 2e-3)].tolist() == [0.3, 0.1]
    assert table.loc[(1, 5e-3), ("forget quality", "RKLU")] == 0.4
    assert math.isnan(table.loc[(1, 5e-3), ("forget quality", "FKLU")])


def test_methods_that_were_run_at_several_rates_are_found_and_no_other_setting():
    found = comparison.at_several("unlearn_lr", "mini", ["RKLU", "NPO", "FKLU"], 1)["forget10"]
    assert [r.spec.label for r in found] == ["RKLU", "RKLU,unlearn_lr=0.005", "FKLU", "FKLU,unlearn_lr=0.002"]
    assert comparison.at_several("unlearn_lr", "smoke", ["RKLU"], 99) == {}
    pretrained = comparison.at_several("unlearn_lr", "smollm2", ["RKLU", "SimNPO"])
    judged_once = {r.spec.label for r in pretrained["forget05"]}
    assert {"RKLU", "RKLU,judge_every=10,unlearn_lr=5e-05"} < judged_once and "SimNPO" not in judged_once
    assert "forget10" not in pretrained  # RKLU alone, and at one rate
    beside = comparison.at_several("alpha", "mini", ["NPO", "RKLU"], 1)["forget10"]
    assert {r.spec.method for r in beside} == {"RKLU"} and len({r.content["settings"]["alpha"] for r in beside}) > 4
    table = comparison.by_rate(found, ("forget_quality",), rule="last")["forget quality"]
    assert table.loc[(1, 2e-3), "RKLU"] == found[0].epochs[-1]["forget_quality_benchmark"]
    assert table.loc[(1, 2e-3), "FKLU"] == found[3].epochs[-1]["forget_quality_benchmark"]
    ends = comparison.ends(found)
    assert list(ends) == ["RKLU, 0.002", "FKLU, 0.002", "RKLU, 0.005", "FKLU, 0.005"]
    assert ends["RKLU, 0.005"] == [found[1].epochs[-1]]
    students = comparison.at_several("unlearn_lr", "smollm2", ["RKLU", "FKLU"])["forget10"]
    best = comparison.at_best_rates(students)
    assert set(best) == {"RKLU, 0.0001", "FKLU, 0.0008"}  # p = 0.037 of FKLU's three, the highest
    (chosen,) = [r for r in students if r.spec.label.startswith("FKLU") and "0.0008" in r.spec.label]
    np.testing.assert_array_equal(best["FKLU, 0.0008"], comparison.truth_ratio(chosen, "last"))


def test_what_is_recorded_comes_in_the_methods_order_and_nothing_else():
    found = comparison.recorded("mini", "forget01", ["RKLU", "FKLU"], [0, 1, 99])
    assert [(r.spec.method, r.spec.seed) for r in found] == [("RKLU", 0), ("RKLU", 1), ("FKLU", 0), ("FKLU", 1)]
    assert comparison.recorded("mini", "forget01", ["RKLU"], []) == []
    names = ["UNDIAL", "RKLU"]  # the first was judged after its last epoch alone, the second after each and so
    assert [r.spec.label for r in comparison.recorded("smollm2", "forget05", names, [0])] == ["RKLU"]
    found = comparison.recorded("smollm2", "forget05", names, [0], once=True)
    assert [(r.spec.label, len(r.epochs)) for r in found] == [("UNDIAL,judge_every=10", 1), ("RKLU", 10)]


def test_no_second_original_stands_beside_methods_of_one_seed():
    """Of smollm2's forget05 the second original is recorded, and the methods' second runs, but those judged once."""
    labels = lambda found: [(r.spec.label, r.spec.seed) for r in found]  # noqa: E731
    both, names = [0, 1], ["original", "RKLU"]
    assert labels(comparison.recorded("smollm2", "forget05", ["original"], both)) == [("original", 0), ("original", 1)]
    assert labels(comparison.recorded("smollm2", "forget05", names, both)) == [("original", 0), ("RKLU", 0)]
    assert labels(comparison.recorded("smollm2", "forget05", names, [1])) == []
    assert len(comparison.recorded("smollm2", "forget05", names, both, once=True)) == 4
