"""Invented attack results of several methods become a table of distances to the oracle, and a heat map."""

import numpy as np
import pytest

from rklu_pages.beyond import robustness

MEASURES = {("memorisation", "answer probability"): 0.2, ("memorisation", "exact memorisation"): 0.4}
MEASURES |= {("membership", "AUC, loss"): 0.5, ("sampling", "leak@1"): 0.1}


def result(moved, p=0.3, reference="abc", extra=()):
    """What an attack returns, of a model that lies `moved` above the oracle at every probe."""
    rows = [
        {"probe": probe, "measure": measure, "value": oracle + moved, "low": None, "high": None,
         "reference": {"value": oracle, "low": None, "high": None}, "distance": moved}
        for (probe, measure), oracle in (MEASURES | dict(extra)).items()
    ]  # fmt: skip
    rows.append({"probe": "memorisation", "measure": "forget quality (p)", "value": p, "distance": p - 1})
    took = {probe: {"model": 2.0, "reference": 1.0} for probe, _ in MEASURES}
    return {"rows": rows, "reference": {"name": "oracle", "sha256": reference}, "seconds": took}


@pytest.fixture
def results():
    return {"original": result(0.5, 1e-9), "RKLU": result(-0.1, 0.6), "oracle": result(0.0, 1.0)}


def test_distances_are_absolute_and_of_measures_that_all_have(results):
    results["RKLU"] = result(-0.1, 0.6, extra={("rounding", "4-bit"): 0.3}.items())
    table = robustness.distances(results)
    assert list(table.index) == ["original", "RKLU", "oracle"] and list(table.columns) == list(MEASURES)
    np.testing.assert_allclose(table.to_numpy(), np.array([[0.5], [0.1], [0.0]]) * np.ones((1, 4)))
    probes = robustness.by_probe(table)
    assert list(probes.columns) == ["memorisation", "membership", "sampling"]
    np.testing.assert_allclose(probes.loc["RKLU"], 0.1)


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
