"""Invented attack results of several methods become a table of distances to the oracle, and a heat map."""

import shutil

import numpy as np
import pandas as pd
import pytest

from rklu_lib import bases, data, files, profiles, records
from rklu_lib.robustness import relearning, rows, sampling
from rklu_pages.beyond import robustness

MEASURES = {("memorisation", "answer probability"): 0.2, ("memorisation", "exact memorisation"): 0.4}
MEASURES |= {("membership", "AUC, loss"): 0.5, ("sampling", "leak@1"): 0.1}


def result(moved, p=0.3, reference="abc", extra=()):
    """What an attack returns, of a model that lies `moved` above the oracle at every probe."""
    rows = [
        {"probe": probe, "measure": measure, "value": oracle + moved, "low": None, "high": None,
         "reference": {"value": oracle, "low": None, "high": None}, "distance": moved, "p": None}
        for (probe, measure), oracle in (MEASURES | dict(extra)).items()
    ]  # fmt: skip
    rows.append({"probe": "memorisation", "measure": "forget quality (p)", "value": p, "distance": p - 1, "p": None})
    took = {probe: {"model": 2.0, "reference": 1.0} for probe, _ in MEASURES}
    return {"rows": rows, "reference": {"name": "oracle", "sha256": reference}, "seconds": took}


@pytest.fixture
def results():
    return {"original": result(0.5, 1e-9), "RKLU": result(-0.1, 0.6), "oracle": result(0.0, 1.0)}


def test_distances_are_absolute_and_of_measures_that_all_have(results):
    results["RKLU"] = result(-0.1, 0.6, extra={("sampling", "leak@8"): 0.3}.items())  # the others drew too few
    table = robustness.distances(results)
    assert list(table.index) == ["original", "RKLU", "oracle"] and list(table.columns) == list(MEASURES)
    np.testing.assert_allclose(table.to_numpy(), np.array([[0.5], [0.1], [0.0]]) * np.ones((1, 4)))
    probes = robustness.by_probe(table)
    assert list(probes.columns) == ["memorisation", "membership", "sampling"]
    np.testing.assert_allclose(probes.loc["RKLU"], 0.1)


def test_a_probe_that_was_not_asked_leaves_its_cell_empty(results):
    results["NPO"] = result(0.3)
    results["NPO"]["rows"] = [r for r in results["NPO"]["rows"] if r["probe"] != "membership"]
    probes = robustness.by_probe(robustness.distances(results))
    assert np.isnan(probes.loc["NPO", "membership"]) and probes.isna().sum().sum() == 1
    np.testing.assert_allclose(probes.loc["NPO", "sampling"], 0.3)
    probes.loc["original", "sampling"] = 0.9
    (ax, _), values = robustness.heat_map(probes).figure.axes, probes.to_numpy().ravel()
    assert [t.get_text() for t in ax.texts] == [f"{v:.2f}" for v in values[~np.isnan(values)]]
    assert [t.get_text() for t in ax.texts if t.get_color() == "#ffffff"] == ["0.90"]  # readable on dark


def test_p_values_and_seconds_stand_apart(results):
    assert robustness.quality(results)["forget quality (p)"].to_dict() == {"original": 1e-9, "RKLU": 0.6, "oracle": 1.0}
    assert (robustness.seconds(results) == 2.0).all(axis=None)


def test_results_that_cannot_be_compared_are_refused(results):
    with pytest.raises(ValueError, match="the references differ"):
        robustness.distances(results | {"FKLU": result(0.1, reference="other")})
    with pytest.raises(ValueError, match="FKLU: no reference; give `rklu attack` the oracle as --reference"):
        robustness.distances(results | {"FKLU": {k: v for k, v in result(0.1).items() if k != "reference"}})


@pytest.mark.parametrize("whole", [True, False])
def test_the_heat_map_shows_every_cell_on_one_scale(results, whole):
    table = robustness.distances(results)
    table = table if whole else robustness.by_probe(table)
    figure = robustness.heat_map(table, title="forget10")
    ax, bar = figure.figure.axes
    (mesh,) = ax.collections
    np.testing.assert_allclose(np.ravel(mesh.get_array()), table.to_numpy().ravel())
    assert mesh.get_clim() == (0, 1) and bar.get_ylabel() == "distance to oracle"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["original", "RKLU", "oracle"]
    wanted = [", ".join(c) for c in MEASURES] if whole else ["memorisation", "membership", "sampling"]
    assert [t.get_text() for t in ax.get_xticklabels()] == wanted
    assert sorted(t.get_text() for t in ax.texts) == sorted(f"{v:.2f}" for v in table.to_numpy().ravel())


def test_what_membership_gives_away_is_by_score_and_only_of_who_was_asked():
    row = {"probe": "membership", "measure": "AUC, loss", "leakage": -12.5, "closeness": 0.9}
    table = robustness.leakage({"RKLU": {"rows": [row]}, "GA": {"rows": [row | {"probe": "sampling"}]}})
    assert list(table.index) == ["RKLU"] and table.loc["RKLU", ("loss", "leakage")] == -12.5
    assert list(table.columns) == [("loss", "leakage"), ("loss", "closeness")]


def spread(value, low, high, reference, probe="questions", measure="asked, rouge"):
    held = dict(zip(("value", "low", "high"), reference, strict=True))
    row = {"probe": probe, "measure": measure, "value": value, "low": low, "high": high, "reference": held}
    return row | {"distance": value - held["value"]}


def test_the_family_between_the_divergences_lies_in_order_of_beta():
    def asked(value):
        held = {"value": 0.1, "low": 0.05, "high": 0.15}
        row = {"probe": "memorisation", "measure": "answer probability", "value": value, "low": value - 0.01}
        row |= {"high": value + 0.02, "reference": held, "distance": value - 0.1}
        others = [row | {"probe": "membership"}, row | {"measure": "forget quality (p)", "low": None}]
        return {"rows": [row, *others], "settings": {"js_beta": 0.5} if value == 0.3 else {"js_beta": value}}

    found = {"oracle": 0.1, "RKLU": 0.2, "RKLU+KL": 0.2, "JS,js_beta=0.9": 0.9, "JS": 0.3, "FKLU": 0.4}
    table = robustness.family({name: asked(value) for name, value in found.items()})
    assert table.beta.to_dict() == {"FKLU": 0, "JS": 0.5, "JS,js_beta=0.9": 0.9, "RKLU": 1}
    assert list(table.index) == ["FKLU", "JS", "JS,js_beta=0.9", "RKLU"]
    (ax,) = robustness.plot_family(table).figure.axes
    (line,) = (line for line in ax.lines if len(line.get_xdata()) == 4 and line.get_marker() == "o")
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.4], [0.5, 0.3], [0.9, 0.9], [1, 0.2]])
    assert [list(other.get_ydata()) for other in ax.lines if other.get_linestyle() == "--"] == [[0.1, 0.1]]


def test_a_reading_needs_intervals_that_do_not_touch():
    oracle = (0.3, 0.2, 0.4)
    rows = [
        spread(0.6, 0.41, 0.7, oracle, "memorisation"),  # wholly above
        spread(0.5, 0.39, 0.7, oracle),  # touches
        spread(0.1, 0.0, 0.19, oracle, measure="75% given, rouge"),  # wholly below
        spread(0.9, None, None, (0.9, None, None), measure="a p-value"),
    ]
    table = robustness.side_by_side({"RKLU": {"rows": rows}, "oracle": {"rows": [spread(*oracle, oracle)]}})
    assert list(table.loc["RKLU"].reading) == ["more", "alike", "less", ""]
    said = robustness.readings(table)
    assert said.loc["RKLU"].to_dict() == {"memorisation": "1 more", "questions": "1 less"}
    assert robustness.untold(said) == [] and robustness.untold(said.replace("1 more", "alike").iloc[:, :1]) == ["RKLU"]
    assert said.loc["oracle"].to_dict() == {"memorisation": "not asked", "questions": "alike"}
    assert list(said.index) == ["RKLU", "oracle"]
    text = robustness.as_text(table)
    assert set(text.index) == {"RKLU"} and text.interval.tolist()[2:] == ["0.000 to 0.190", "–"]
    assert text.iloc[0][["value", "reading", "oracle interval"]].to_list() == [0.6, "more", "0.200 to 0.400"]
    assert "p, paired" not in text  # none of these has one


def test_where_questions_can_be_exchanged_a_reading_needs_a_small_p_value():
    """Then intervals may touch, since two models' answers to the same questions go together."""
    oracle = (0.3, 0.2, 0.4)
    found = [(0.32, 0.22, 0.42, 0.001), (0.28, 0.18, 0.38, 0.009), (0.6, 0.41, 0.7, 0.02), (0.9, None, None, None)]
    rows = [spread(*three, oracle, measure=str(n)) | {"p": p} for n, (*three, p) in enumerate(found)]
    table = robustness.side_by_side({"RKLU": {"rows": rows}})
    assert list(table.reading) == ["more", "less", "alike", ""]
    assert table["p, paired"].tolist()[:3] == [0.001, 0.009, 0.02] and np.isnan(table["p, paired"].iloc[3])


def test_a_record_of_before_p_values_is_read_by_its_single_answers_where_it_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    oracle = (0.3, 0.2, 0.4)
    asked = [spread(0.35, 0.25, 0.45, oracle, "memorisation", "answer probability"), spread(0.35, 0.25, 0.45, oracle)]
    each = {"model": [0.35 + i / 1000 for i in range(20)], "reference": [0.3 + i / 1000 for i in range(20)]}
    details = {side: {"memorisation": {"each": {"answer probability": v}}, "questions": {}} for side, v in each.items()}
    path = tmp_path / "mini" / "tofu" / "forget01" / "attacks" / "RKLU-seed0.json"
    for kept, told in ((asked, ["more", "alike"]), ([row | {"p": 0.5} for row in asked], ["alike", "alike"])):
        records.write_json(path, {"rows": kept, "details": details}, indent=None)
        assert robustness.side_by_side(robustness.recorded("mini", "forget01")).reading.to_list() == told


def test_models_of_two_seeds_stand_under_each_other_without_their_oracles():
    table = pd.DataFrame({"memorisation": [0.0, 0.1]}, index=pd.Index(["oracle", "RKLU"], name="method"))
    both = robustness.by_seed({1: table.assign(membership=0.2), 0: table})
    assert both.index.name == "method" and both.memorisation.to_dict() == {"RKLU, seed 1": 0.1, "RKLU, seed 0": 0.1}
    assert both.membership.iloc[0] == 0.2 and np.isnan(both.membership.iloc[1])
    assert robustness.by_seed({1: pd.DataFrame(), 0: pd.DataFrame()}).empty


def test_it_is_said_how_many_answers_were_held_out():
    scores = {"AUC, loss": {"forget": [1.0, 2.0, 3.0], "holdout": [4.0]}}
    oracle = {"details": {"model": {"membership": {"each": scores}}}, "holdout": "others"}
    assert robustness.held_out({"oracle": oracle}) == "membership: 3 forgotten answers, 1 held out (others)"
    assert robustness.held_out({}) == robustness.held_out({"oracle": {"details": {"model": {}}}}) == ""


def test_what_is_kept_lies_between_the_oracle_and_the_original():
    def held(full, four):
        values = {"answer probability": full, "bfloat16, probability": full, "8-bit, probability": full}
        rows = [{"measure": m, "value": v} for m, v in (values | {"4-bit, probability": four}).items()]
        return {"rows": rows}

    asked = {"oracle": held(0.2, 0.1), "original": held(1.0, 0.9), "GA": held(0.1, 0.5)}
    table = robustness.kept(asked | {"teacher": {"rows": held(0.0, 0.0)["rows"][:1]}})  # it was not rounded
    assert list(table.index) == list(asked)
    assert table.loc["original"].tolist() == [1, 1, 1, 1] and table.loc["oracle"].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(table.loc["GA"], [-0.125, -0.125, -0.125, 0.5])


def test_a_rise_is_held_against_the_oracles_on_the_answers_that_were_not_taught():
    rng, n = np.random.default_rng(0), 40
    before, everything = {"oracle": rng.random(n), "RKLU": rng.random(n)}, range(n)
    rest = relearning.split(n, 0.2, seed=3)[1]

    def attacked(name, taught, unrelated):
        after = {"20% of it, probability": [before[name][i] + taught for i in rest]}
        after["unrelated text, probability"] = [before[name][i] + unrelated for i in everything]
        details = {"memorisation": {"each": {"answer probability": before[name].tolist()}}}
        return {"seed": 3, "details": {"model": details | {"relearning": {"each": after}}}}

    found = {"oracle": attacked("oracle", 0.01, 0.002), "RKLU": attacked("RKLU", 0.05, 0.002)}
    table = robustness.rises(found | {"GA": {"seed": 3, "details": {"model": {"memorisation": {}}}}})
    assert list(table.loc["RKLU"].index) == ["20% of it", "unrelated text"] and "GA" not in table.index
    row = table.loc[("RKLU", "20% of it")]
    assert row.asked == 32 and row.before == pytest.approx(before["RKLU"][rest].mean())
    np.testing.assert_allclose(row[["rise", "oracle's rise"]].astype(float), [0.05, 0.01])
    assert row["p, paired"] < 0.001 and table.loc[("oracle", "20% of it"), "p, paired"] == 1
    assert robustness.rises({"GA": {"seed": 3, "details": {"model": {}}}}).empty


def test_relearning_is_drawn_as_it_went():
    curves = {"5% of it": {"taught": 2, "asked": 38, "steps": [0, 1], "probability": [0.1, 0.3]}}
    curves["unrelated text"] = {"taught": 8, "asked": 40, "steps": [0, 1, 2], "probability": [0.1, 0.1, 0.2]}
    found = {"details": {"model": {"relearning": {"curves": curves}}}}
    table = robustness.relearnt({"RKLU": found, "oracle": found, "GA": {"details": {"model": {}}}})
    assert list(table.taught.unique()) == ["5% of it (2)", "unrelated text"] and len(table) == 10
    axes = robustness.plot_relearning(table).figure.axes
    assert [ax.get_title() for ax in axes] == ["taught: 5% of it (2)", "taught: unrelated text"]
    for ax, curve in zip(axes, curves.values(), strict=True):
        assert [line.get_label() for line in ax.lines] == ["RKLU", "oracle"]
        for line in ax.lines:
            assert list(line.get_xdata()) == curve["steps"] and list(line.get_ydata()) == curve["probability"]
    for curve, p in zip(curves.values(), ([1.0, 0.2], [1.0, 0.5, 1e-9]), strict=True):
        curve["forget quality"] = p
    axes = robustness.plot_relearning(robustness.relearnt({"RKLU": found}), "forget quality").figure.axes
    assert [list(ax.lines[0].get_ydata()) for ax in axes] == [c["forget quality"] for c in curves.values()]
    assert axes[0].get_ylabel() == "forget quality of the rest" and axes[0].get_yscale() == "function"


def test_what_is_held_out_was_read_by_no_model(tofu, monkeypatch):
    """Authors left out of a profile's TOFU; else the holdout; else, from a folder without one, the embedded."""
    monkeypatch.setenv("RKLU_TOFU", str(tofu))
    rows, origin = robustness.holdout("mini", "forget01")
    assert rows == data.load_tofu("holdout01", str(tofu)) and origin.startswith("holdout01")
    part = profiles.profile("mini", n_retain=6)
    monkeypatch.setattr(profiles, "profile", lambda *_: part)
    rows, origin = robustness.holdout("mini", "forget01")
    read = {r["question"] for r in bases.rows(part, "full")}
    assert len(rows) == 2 and not read & {r["question"] for r in rows} and "of this scale" in origin
    monkeypatch.undo()
    folder = tofu.parent / "without"
    shutil.copytree(tofu, folder, ignore=shutil.ignore_patterns("holdout*"), dirs_exist_ok=True)
    bare = profiles.profile("mini", source=str(folder))
    monkeypatch.setattr(profiles, "profile", lambda *_: bare)
    rows, origin = robustness.holdout("mini", "forget05")
    assert rows == data.load_tofu("holdout05", "fictional") and "embedded" in origin


def assert_none(specs):
    assert not specs


def test_the_oracle_is_asked_once_and_records_are_read(tmp_path, tofu, monkeypatch):
    monkeypatch.setenv("RKLU_TOFU", str(tofu))
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(records, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(robustness.loading.execution, "has_checkpoint", lambda spec: True)
    monkeypatch.setattr(robustness.runs, "ensure", lambda specs, checkpoints: assert_none(specs))
    asked = []

    def prepare(model, rows, out, **how):
        return model, rows, how

    def run(job):
        asked.append(job)
        return result(0.1) | {"samples": 4, "sampled": 2, "seed": 0}

    monkeypatch.setattr(robustness.attack, "prepare", prepare)
    monkeypatch.setattr(robustness.attack, "run", run)
    found = robustness.attacked("mini", "forget01", ["RKLU", "GA"], samples=4, sampled=2)
    assert list(found) == ["RKLU", "GA"] and [job[0].parent.name for job in asked] == ["oracle", "RKLU", "GA"]
    file = tmp_path / "mini" / "tofu" / "forget01" / "attacks" / "oracle-seed0.json"
    assert asked[0][2]["reference"] == asked[0][0] and asked[1][2]["reference"] == file == asked[2][2]["reference"]
    assert asked[1][1] == data.load_tofu("forget01_perturbed", str(tofu))
    again = robustness.attacked("mini", "forget01", ["RKLU", "GA"], samples=4, sampled=2)
    assert again == found and len(asked) == 3
    assert robustness.attacked("mini", "forget01", ["RKLU"], samples=4, sampled=2, probes=["rounding"])["RKLU"]
    assert len(asked) == 3  # a record of all probes has this one, too
    robustness.attacked("mini", "forget01", ["IDK"], samples=4, sampled=2, probes=["rounding"])
    assert [job[0].parent.name for job in asked[3:]] == ["IDK"] and len(asked[3][2]["skip"]) == 5
    robustness.attacked("mini", "forget01", ["IDK"], samples=4, sampled=2)  # of all probes, anew
    assert len(asked) == 5 and not asked[4][2]["skip"]
    assert list(robustness.recorded("mini", "forget01")) == ["oracle", "GA", "IDK", "RKLU"]
    file.rename(file.with_name("RKLU,judge_every=10,alpha=4-seed1.json"))
    assert list(robustness.recorded("mini", "forget01", 1)) == ["RKLU,alpha=4"]
    assert robustness.recorded("mini", "forget05") == {}
    assert robustness.readings(robustness.side_by_side({})).empty and robustness.kept({}).empty


ATTACKS = sorted((data.ROOT / "data" / "records").glob("*/tofu/*/attacks/*.json"))


@pytest.mark.parametrize("path", ATTACKS, ids=lambda path: f"{path.parts[-5]}-{path.stem}")
def test_the_records_leaks_are_those_of_their_hits(path):
    """leak@k and its interval, which was another formula's when most of these were made, from what each holds."""
    content = files.read_json(path)
    noted = content["details"]["model"].get("sampling")
    found = {r["measure"]: (r["value"], r["low"], r["high"]) for r in content["rows"] if r["probe"] == "sampling"}
    assert bool(noted) == bool(found)
    for k in (k for k in sampling.TRIES if f"leak@{k}" in found):
        tries = [sampling.leak_at(q["leaks"], q["of"], k) for q in noted["questions"]]
        assert found[f"leak@{k}"] == pytest.approx(rows.rare(tries), rel=1e-4, abs=1e-6)
