"""One width beside another: what differs is the width, and a trend is one only if every step has it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from helpers import record, with_ratios

from rklu_lib import budget, models, profiles
from rklu_lib.commands.planning import configuration
from rklu_lib.records import Record, RunSpec
from rklu_pages.beyond import widths
from rklu_pages.drawing import figures
from rklu_pages.results import comparison

SERIES = ("mini-half", "mini", "mini-double")


@pytest.mark.parametrize("name", ["smoke", *SERIES])
def test_parameters_are_those_of_the_model(name):
    p = profiles.profile(name)
    tokenizer = models.train_tokenizer(["the forget set"], 300)
    made = models.create(p, tokenizer, 0)
    config = configuration(dataclasses.replace(p, vocab_size=len(tokenizer)))
    assert budget.parameters(config) == made.num_parameters()


def at_width(profile, method, ratios, quality=0.01, utility=0.5, changes=()):
    made = record(method, [quality], [utility])
    made = Record(
        RunSpec(profile, "forget10", method, 0, changes), made.content | {"settings": settings(profile)}, made.questions
    )
    return with_ratios(made, ratios)


def settings(profile):
    p = profiles.profile(profile)
    return {name: getattr(p, name) for name in ("hidden_size", "intermediate_size", "n_layers", "vocab_size")}


def series():
    """The original is at distance 1 from the oracle; the wider the model, the nearer RKLU comes, and NPO stays."""
    oracle, original = [1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0]
    reached = ([-1.0, -2.0, -3.0, 9.0], [-1.0, -2.0, 3.0, 4.0], oracle)
    found = []
    for profile, ratios in zip(SERIES, reached, strict=True):
        found += [at_width(profile, "oracle", oracle), at_width(profile, "original", original)]
        found += [at_width(profile, "RKLU", ratios), at_width(profile, "NPO", original)]
    return found


def test_scores_stand_below_each_other_narrow_to_wide():
    table = widths.table(series())
    rows = [("RKLU", w, "nothing", 0) for w in (96, 192, 384)] + [("NPO", w, "nothing", 0) for w in (96, 192, 384)]
    assert table.index.tolist() == rows
    np.testing.assert_allclose(table.xs("RKLU")["way"], [0.25, 0.5, 1])
    trends = widths.trends(table, ("way", "model utility"))
    assert trends["way"].tolist() == ["rises", "neither"]
    assert trends["model utility"].tolist() == ["neither", "neither"]
    assert widths.trends(-table, ("way",))["way"].tolist() == ["falls", "neither"]
    alone = widths.table([r for r in series() if r.spec.profile == "mini"])
    assert set(widths.trends(alone, ("way",))["way"]) == {"neither"}


def test_a_change_is_scored_against_the_models_it_rests_on():
    """The same student: half the way between the plain base models, no way at all between those of another schedule."""
    oracle, original, student = [1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0], [-1.0, -2.0, 3.0, 4.0]
    records = [at_width("mini-double", m, r) for m, r in (("oracle", oracle), ("original", original))]
    rate, schedule = (("augment_lr", 0.002),), (("finetune_epochs", 10),)
    records.append(at_width("mini-double", "RKLU", student, changes=rate))
    for method, ratios in (("oracle", oracle), ("original", student), ("RKLU", student)):
        records.append(at_width("mini-double", method, ratios, changes=schedule))
    table = widths.table(records)
    assert table.index.get_level_values("changed").tolist() == ["augment_lr=0.002", "finetune_epochs=10"]
    np.testing.assert_allclose(table["way"], [0.5, 0])


def test_a_change_of_the_fine_tuning_has_base_models_of_its_own():
    plain = widths.specs("mini", "forget10", ["RKLU"], [0])[-1:]
    labels = {change: [s.label for s in widths.changed(plain, change)] for change in ("alpha=4", "finetune_epochs=10")}
    assert labels["alpha=4"] == ["original", "oracle", "RKLU,alpha=4"]
    assert labels["finetune_epochs=10"] == [f"{m},finetune_epochs=10" for m in ("original", "oracle", "RKLU")]
    assert {s.profile for s in widths.changed(plain, "alpha=4")} == {"mini-double"}


def test_the_lines_over_knowledge_are_the_tables_rows():
    index = pd.MultiIndex.from_product([["RKLU"], [96, 192], ["nothing", "x"], [0]])
    index = index.set_names(["method", "width", "changed", "seed"])
    table = pd.DataFrame({"original": [0.9, 0.2, 0.5, 0.6], "forget quality": [1e-30, 0.5, 1e-3, 1e-4]}, index)
    narrow, wide = figures.over_knowledge(table, 1e-20).figure.axes[0].get_lines()[:2]
    np.testing.assert_allclose(narrow.get_xydata(), [[0.2, 0.5], [0.9, 1e-20]])
    np.testing.assert_allclose(wide.get_xydata(), [[0.5, 1e-3], [0.6, 1e-4]])


def test_what_the_base_models_know_is_one_row_per_width():
    table = widths.known(series())
    assert table.index.tolist() == [(96, 0), (192, 0), (384, 0)]
    assert table["million", "parameters"].is_monotonic_increasing
    assert set(table["forget probability"]) == {"original", "oracle"}


def test_the_planes_are_one_per_width_without_the_oracle():
    groups = comparison.peaks([r for r in series() if r.spec.method != "oracle"], by="profile")
    assert list(groups) == list(SERIES)
    assert {tuple(methods) for methods in groups.values()} == {("original", "RKLU", "NPO")}


def test_a_profile_without_a_series_stands_alone():
    assert [s.profile for s in widths.specs("smoke", "forget10", ["RKLU"], [0])] == ["smoke"]
    assert len(widths.specs("mini", "forget10", ["RKLU", "oracle"], [0, 1])) == 4 * len(widths.WIDTHS["mini"])
    assert set(widths.WIDTHS["mini"]) <= set(SERIES)
