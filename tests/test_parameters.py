"""Every notebook's parameters: checked before anything runs, by one rule each, and told in one line."""

import json
import re
import runpy

import pytest
from helpers import NOTEBOOKS, ROOT

from rklu_pages import parameters


def cells(path):
    """(the cell of parameters, the code cell after it), as source."""
    code = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    at = next(i for i, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", []))
    return ["".join(cell["source"]) for cell in code[at : at + 2]]


def defaults(path):
    names = {}
    exec(cells(path)[0], names)
    return {k: v for k, v in names.items() if not k.startswith("__") and not isinstance(v, type)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_checks_all_its_parameters_first(path):
    given = defaults(path)
    calls = re.findall(r"parameters\.check\(\s*globals\(\), (.*?),?\s*\)\n", cells(path)[1])
    assert json.loads(f"[{', '.join(calls)}]") == list(given)
    checked = dict(given)
    parameters.check(checked, *given)
    assert checked == given


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_cannot_be_is_told_in_one_line(path):
    given = defaults(path)
    for name in given:
        for wrong in (None, [], object):
            with pytest.raises(ValueError) as told:
                parameters.check(given | {name: wrong}, *given)
            said = str(told.value)
            assert said.startswith(f"parameter {name} is {wrong!r}; accepted is ") and "\n" not in said
            assert said.endswith(parameters.RULES[name].accepted)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_where_a_list_is_meant_is_that_one(path):
    given = defaults(path)
    for name in [name for name in given if parameters.RULES[name].several]:
        namespace = {name: given[name][0]}
        parameters.check(namespace, name)
        assert namespace == {name: [given[name][0]]}


def test_a_name_that_the_page_does_not_have_is_refused():
    """papermill only warns of it, and the page would run at its defaults."""
    injected = '# Parameters\nseed = 1\nprofil = "smoke"\nsplits = [\n    "forget05",\n]\n'
    page = {"seed": 1, "profile": "mini", "splits": ["forget05"], "In": ["", 'profile = "mini"', injected]}
    with pytest.raises(ValueError, match="parameter profil: this page has no such parameter; it has seed, profile"):
        parameters.check(page, "seed", "profile", "splits")
    parameters.check(page | {"profil": "smoke"} | {"In": page["In"][:2]}, "seed", "profile", "splits")


def test_sets_come_from_the_smallest_to_the_largest():
    page = {"splits": ["forget10", "forget01", "forget05"]}
    parameters.check(page, "splits")
    assert page == {"splits": ["forget01", "forget05", "forget10"]}


@pytest.mark.parametrize(
    ("name", "wrong", "accepted"),
    [
        ("profile", "minni", "smoke, mini"),
        ("seeds", [0, "1"], "one or more of: a whole number, 0 or more"),
        ("seed", True, "a whole number"),
        ("methods", ["RKLU", "RKLU+XX"], "RKLU+RT"),
        ("methods", ["RKLU", "oracle"], "RKLU+RT"),  # no method: nothing was forgotten
        ("split", "forget1", "forget01, forget05, forget10"),
        ("rates", [0.1, -1], "a number above 0"),
        ("paper_cases", [("a question", "its beginning")], "three texts"),
        ("original", [1, "2"], "a number"),
    ],
)
def test_the_wrong_one_of_several_is_named(name, wrong, accepted):
    culprit = wrong[-1] if isinstance(wrong, list) else wrong
    with pytest.raises(ValueError) as told:
        parameters.check({name: wrong}, name)
    assert f"is {culprit!r}; accepted" in str(told.value) and accepted in str(told.value)


@pytest.mark.parametrize(
    ("page", "given"),
    [
        ("quickstart", {}),
        ("table3_fkl_vs_rkl", {"splits": ["forget01"], "seeds": [0]}),
        ("table1_general_capability", {"splits": ["forget01"]}),
        ("figure5_alpha", {"alphas": [1, 8], "seeds": [0]}),
    ],
)
def test_the_smoke_scale_takes_some_of_what_a_page_takes(page, given):
    found = runpy.run_path(str(ROOT / "notebooks" / "smoke.py"))["parameters"]
    assert found(ROOT / "notebooks" / f"{page}.ipynb") == {"profile": "smoke"} | given
