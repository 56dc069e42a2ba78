"""The paper's numbers beside ours, and verdicts: on records made by hand, whose answers are known."""

import io
import math
import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from rklu_lib import comparison, figures, paper, runs
from rklu_lib.records import Record, RunSpec


def record(method, qualities, utilities, probability=0.1, **content):
    """A record of forget10 with these forget qualities and utilities per epoch."""
    epochs = [
        {"epoch": i, "forget_quality_benchmark": q, "model_utility": u}
        | {"forget_probability": probability, "forget_rouge": 0.5}
        for i, (q, u) in enumerate(zip(qualities, utilities, strict=True), 1)
    ]
    spec = RunSpec("mini", "forget10", method, 0, tuple(content.pop("overrides", ())))
    content = {
        "data": {"source": "made by hand", "sha256": "0"},
        "code": {"commit": "abc"},
        "machine": "none",
    } | content
    return Record(spec, content | {"epochs": epochs}, {})


RKLU = record("RKLU", [0.001, 0.2, 0.2, 0.01], [0.5, 0.6, 0.7, 0.9], probability=0.01)
FKLU = record("FKLU", [0.001, 0.002, 0.02, 0.3e-3], [0.9, 0.8, 0.7, 0.9], probability=0.2)


def test_the_peak_is_the_first_epoch_of_the_highest_forget_quality():
    assert RKLU.reported()["epoch"] == 2
    assert RKLU.reported("last")["epoch"] == 4
    assert RKLU.reported("product")["epoch"] == 3
    with pytest.raises(ValueError, match="no reporting rule 'best'; there are peak, product, last"):
        RKLU.reported("best")


def test_the_papers_value_stands_beside_ours():
    table = comparison.compare([FKLU, RKLU], reported="table3", split="forget10")
    printed = paper.reported("table3").query("set == 'forget10'").set_index("method")
    for name in ("FKLU", "RKLU"):
        assert table.loc[name, ("forget quality", "paper")] == printed.loc[name, "forget_quality"]
        assert math.isnan(table.loc[name, ("model utility", "paper")])  # Table 3 prints none
    assert table.loc["RKLU", ("forget quality", "ours")] == 0.2 and table.loc["RKLU", ("", "epoch")] == 2
    assert comparison.shown(table).loc["RKLU", ("model utility", "paper")] == "–"
    with pytest.raises(ValueError, match="no table 'table10'"):
        comparison.compare([RKLU], reported="table10", split="forget10")


def test_a_method_the_paper_does_not_print_has_no_value_there():
    table = comparison.compare([record("teacher", [0.1], [0.3])], reported="table8", split="forget10")
    assert table.loc["teacher", ("forget quality", "ours")] == 0.1
    assert table.xs("paper", axis=1, level=1).isna().all(axis=None)


def verdict(rows, claim):
    return rows.set_index("claim").loc[claim, "here"]


PASSES, BETTER = "RKLU passes 0.05 without a retain set", "RKLU forgets better than FKLU, with one teacher"


def test_a_verdict_follows_its_records_and_the_rule():
    rows = comparison.verdicts([FKLU, RKLU])
    assert verdict(rows, PASSES) == verdict(rows, BETTER) == "holds"
    assert verdict(comparison.verdicts([FKLU, RKLU], rule="last"), PASSES) == "does not hold"
    weak = record("RKLU", [0.001], [0.9])
    rows = comparison.verdicts([FKLU, weak])
    assert verdict(rows, PASSES) == verdict(rows, BETTER) == "does not hold"
    assert rows.set_index("claim").loc[PASSES, "numbers"] == "p = 0.001"


def test_nothing_is_decided_without_evidence():
    rows = comparison.verdicts([RKLU])
    assert verdict(rows, PASSES) == "holds" and verdict(rows, BETTER) == "not tested"
    assert set(comparison.verdicts([]).here) == {"not tested"}
    assert set(comparison.verdicts([RKLU], methods=["RKLU"]).claim) == {PASSES}


@pytest.mark.parametrize("claim", comparison.CLAIMS, ids=lambda c: c[0])
def test_every_claim_can_hold_and_can_fail(claim):
    """Each test is tried on both orders of its measures, so none of them is decided beforehand."""
    text, where, (test, needs) = claim
    assert text and where and needs
    outcomes = set()
    for best in (0, 1):
        for method in needs:
            high = {m: float(best if m == method else 1 - best) for m in needs}
            reported = {
                m: {"forget_quality": 0.9 * v + 0.01, "model_utility": v, "forget_probability": v}
                for m, v in high.items()
            }
            outcomes.add(bool(test(reported)[0]))
    assert outcomes == {True, False}


def test_epochs_and_rules_side_by_side():
    table = comparison.per_epoch([FKLU, record("TA", [0.1], [0.2])])
    assert table.loc[3, ("forget quality", "FKLU")] == 0.02 and table.loc[1, ("model utility", "TA")] == 0.2
    assert math.isnan(table.loc[2, ("forget quality", "TA")])
    rules = {rule: comparison.compare([RKLU], "table3", "forget10", rule=rule) for rule in ("peak", "last")}
    rows = comparison.by_rule(rules)
    assert rows.loc["RKLU", ("peak", "forget quality")] == "0.2" and rows.loc["RKLU", ("last", "epoch")] == "4"


def test_a_grid_is_one_row_per_run():
    made = [
        record("GA", [0.1, 0.3], [0.8, 0.1], settings={"unlearn_lr": lr}, overrides=[("unlearn_lr", lr)])
        for lr in (1e-3, 2e-3)
    ]
    table = comparison.along(made, "unlearn_lr", rule="product")
    assert table["unlearn_lr"].tolist() == [1e-3, 2e-3] and table["epoch"].tolist() == [1, 1]
    np.testing.assert_allclose(table["product"], 0.08)
    specs = runs.grid("mini", "forget10", ["GA"], "unlearn_lr", [1e-3, 2e-3], 0)
    assert [s for r in made for s in [r.spec]] == specs
    assert {s.values.learning_rate("GA") for s in specs} == {1e-3, 2e-3}


def test_provenance_names_records_machine_and_the_command():
    text = comparison.provenance([FKLU, RKLU]).data
    for part in ("`FKLU/seed0.json`, `RKLU/seed0.json`", "commit abc", "made by hand", "Machine: none"):
        assert part in text
    assert "rklu sweep --profile mini --split forget10 --seed 0" in text
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


def test_the_csv_link_holds_the_table():
    table = pd.DataFrame({"answer": ['says "yes", then no', "süß"]}, index=pd.Index(["RKLU", "GA"], name="method"))
    link = re.search(r'href="data:text/csv;charset=utf-8,([^"]*)"', comparison.csv(table, "t").data)[1]
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(unquote(link)), index_col="method"), table)
