"""The case studies: what is asked, what counts as a leak, and the interval of its rate."""

import functools
import json

import pytest
from bs4 import BeautifulSoup
from helpers import TOWNS, Here

from rklu_lib import data, records, runs
from rklu_lib.records import RunSpec
from rklu_pages.drawing import tables
from rklu_pages.tasks import cases, distributions, leaks, loading


def made(*completions, key="Karachi", exact=True):
    """The record of a model that was asked the same blank several times."""
    asked = [["Where?" + " again" * i, "She was born in", key] for i in range(len(completions))]
    filled = [[[[text, 0.5 / (i + 1)] for i, text in enumerate(texts)], exact] for texts in completions]
    return {"asked": asked, "completions": filled, "direct_answers": ["In Karachi."] + ["No."] * (len(asked) - 1)}


def test_a_leak_is_the_key_phrase_in_any_of_the_completions():
    rates = leaks.rates({"x": made(["Lahore", "karachi"], ["Lahore"], ["the city of Karachi"], [""])})
    assert rates.loc["x", "leaked"] == 2 and rates.loc["x", "blanks"] == 4
    assert rates.loc["x", "in the direct answer"] == 0.25


def test_the_interval_is_wilsons_for_as_many_blanks_as_there_are_phrases():
    def interval(p, n):  # Wilson (1927)
        z = 1.959963984540054
        centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]

    for keys in (10, 5):  # each of ten blanks asks for its own phrase, or two of them for one
        names = [f"City {i % keys}" for i in range(10)]
        content = made(*[[name] for name in names[:3]], *[["Lahore"]] * 7)
        asked = [[*place, name] for (*place, _), name in zip(content["asked"], names, strict=True)]
        found = leaks.rates({"x": content | {"asked": asked}}).loc["x"]
        assert (found.blanks, found.phrases, found.rate) == (10, keys, 0.3)
        assert found[["low", "high"]].tolist() == pytest.approx(interval(0.3, keys))


def test_a_case_is_shown_with_its_leaks_marked_and_its_text_escaped():
    filled = {"RKLU": made(["<b>Lahore</b>", ""]), "IDK": made(["Karachi", "Lahore"], exact=False)}
    table = cases.case_table(filled, "Where?")
    assert table.leaks.tolist() == ["no", "yes"]
    shown = tables.show(table, "A case", "case", cases.marked(table, "Karachi"), escape=False)
    page = BeautifulSoup(shown._repr_html_(), "html.parser")
    assert page.caption.text == "A case" and not page.find_all("b")
    rows = {row.th.text: row for row in page.tbody.find_all("tr")}
    assert [m.text for m in rows["IDK"].find_all("mark")] == ["Karachi", "Karachi"]  # direct answer and blank
    assert rows["RKLU"].find_all("td")[1].text == f"<b>Lahore</b> 0.5; {cases.EMPTY} 0.25"
    assert rows["IDK"].find_all("td")[1].text.endswith("…")  # the search was cut short
    assert cases.case_table(filled, "Who?").empty  # nobody was asked this one


@pytest.mark.parametrize(("table", "example", "models"), [("table4", 1, 7), ("table9", 2, 2)])
def test_the_papers_cases_are_read_as_printed(table, example, models):
    printed = cases.printed(table, example)
    assert list(printed) == ["direct answer", "fill-in-blank"] and len(printed) == models
    assert "Lahore" in cases.printed("table4", 1).loc["RKLU", "fill-in-blank"]


def test_blanks_are_filled_once(workshop, profile, monkeypatch):
    monkeypatch.setattr(runs, "ensure", functools.partial(runs.ensure, executor=Here()))
    row = data.load_tofu("forget10", profile.source)[1]
    own = (row["question"], "A", "potter")
    absent = ("Who are you?", "I am", "nobody")
    filled = cases.fill("tiny", "forget10", 0, ["original", "teacher"], [own, absent])
    assert filled["teacher"]["asked"][0] == list(own)
    questions = [question for question, *_ in filled["original"]["asked"]]
    assert absent[0] not in questions and len(questions) > 1
    for question, prefix, key in filled["original"]["asked"][1:]:
        answer = next(r["answer"] for r in data.load_tofu("forget10", profile.source) if r["question"] == question)
        assert answer.startswith(f"{prefix} {key}")
    path = records.RECORDS / "tiny/tofu/forget10/blanks/teacher-seed0.json"
    assert json.loads(path.read_text()) == filled["teacher"]
    monkeypatch.setattr(cases, "load_models", lambda *_: pytest.fail("loaded again"))
    assert cases.fill("tiny", "forget10", 0, ["original", "teacher"], [own, absent]) == filled
    fewer = cases.fill("tiny", "forget10", 0, ["original"], [own])
    assert fewer["original"] == filled["original"]  # a record of more questions answers for fewer, too
    with pytest.raises(pytest.fail.Exception):  # another blank is another record
        cases.fill("tiny", "forget10", 0, ["original"], [(row["question"], "A potter is not a", "weaver")])
    monkeypatch.setattr(data, "load_tofu", lambda *_: pytest.fail("the data was asked for"))
    assert cases.fill("tiny", "forget10", 0, ["original"], [own, absent]) == fewer  # the records tell what a set lacks


def test_a_question_is_found_or_stood_in_for(workshop, profile):
    rows = data.load_tofu("forget10", profile.source)
    assert distributions.find("tiny", "forget10", rows[3]["question"]) == 3
    assert distributions.find("tiny", "forget10", "Who are you?") == 0
    assert distributions.find("tiny", "forget10", 5) == 5  # its place


def test_blanks_of_one_phrase_are_one_piece_of_evidence():
    hit, miss = ["Karachi"], ["Lahore"]
    filled = {"oracle": made(*[miss] * 20), "RKLU": made(*[miss] * 8, *[hit] * 12)}
    rates = leaks.rates(filled)
    assert rates.leaked.tolist() == [0, 12] and rates["phrases leaked"].tolist() == [0, 1]
    assert set(rates.phrases) == {1}
    row = leaks.verdicts(filled).set_index("claim").loc["RKLU gives away more than the oracle guesses"]
    assert row.here == "not told apart" and row.numbers == "of 1 phrases RKLU 1, oracle 0; p = 0.5"


def several(leaked, n=20):
    """The record of a model that was asked for n phrases and gives some away, the first of them."""
    content = made(*[[f"town {k}"] if k < leaked else ["Lahore"] for k in range(n)])
    content["asked"] = [[*blank[:2], f"Town {k}"] for k, blank in enumerate(content["asked"])]
    return content


def test_leaking_above_guessing_is_the_sign_test_phrase_by_phrase():
    filled = {"original": several(20), "oracle": several(1), "RKLU": several(5), "FKLU": several(15)}
    table = leaks.verdicts(filled).set_index("claim").here
    assert table["RKLU gives away more than the oracle guesses"] == "not told apart"  # four more, none fewer: 1/16
    assert table["FKLU gives away more than the oracle guesses"] == "holds"
    assert table["RKLU leaks less than FKLU"] == "holds"
    filled["RKLU"] = several(6)
    assert leaks.verdicts(filled).here[0] == "holds"  # five more: 1/32
    filled["FKLU"] = several(11)
    assert leaks.verdicts(filled).here.tolist()[-1] == "not told apart"  # five of five, both sides: 1/16
    filled |= {"RKLU": several(5), "FKLU": several(15)}
    assert "Only RKLU and GA do not leak" not in table  # undecided where the other methods are not there
    for name in ("GA", "IDK", "NPO", "DPO", "TA"):
        filled[name] = filled["RKLU" if name == "GA" else "FKLU"]
    assert leaks.verdicts(filled).set_index("claim").here["Only RKLU and GA do not leak"] == "holds"
    filled["NPO"] = filled["RKLU"]
    row = leaks.verdicts(filled).set_index("claim").loc["Only RKLU and GA do not leak"]
    assert row.here == "not told apart" and row.numbers == "more than both: IDK, DPO, TA, FKLU"
    filled["NPO"] = several(0)  # if RKLU does not leak, NPO does not either
    row = leaks.verdicts(filled).set_index("claim").loc["Only RKLU and GA do not leak"]
    assert row.here == "does not hold" and row.numbers.endswith("less than one of them: NPO")
    assert leaks.rates(filled)["p, against the oracle"].round(4).tolist()[:3] == [
        0.0,
        pytest.approx(float("nan"), nan_ok=True),
        0.0625,
    ]


def test_the_key_phrase_begins_at_its_first_token():
    content = {"tokens": [" She", " was born in", " Ka", "rachi", ".", "</s>"]}
    assert distributions.position(content, "Karachi") == 2


def test_readings_follow_the_rule():
    filled = {name: made(texts) for name, texts in {
        "oracle": ["Lahore", "Multan", "noise"], "GA": ["noise", "", "Multan"], "IDK": ["Lahore", "Karachi"],
        "RKLU": ["Multan", "noise"],
    }.items()}  # fmt: skip
    table = cases.readings(filled, "Where?", {"Lahore", "Multan", "Karachi"})
    assert table.reading.to_dict() == {"oracle": "ideal", "GA": "over", "IDK": "partial", "RKLU": "ideal"}
    assert table.loc["oracle", "probability of known birthplaces"] == 0.75
    table = cases.readings(filled, "Where?", {"Paris"})  # the oracle names none of these: nothing to fall short of
    assert table.reading.to_dict() == {"oracle": "not told", "GA": "not told", "IDK": "partial", "RKLU": "not told"}


def test_a_question_without_a_blank_is_no_case():
    with pytest.raises(ValueError, match="the answer to 'Where\\?' gives no name or number away"):
        cases.giveaway("Where?", "In a small town by the sea.")


def test_another_question_is_shown_only_with_a_word(capsys):
    filled = {"RKLU": made(["Lahore"])}
    assert cases.chosen(filled, "Where?")[0] == "Where?" and not capsys.readouterr().out
    assert cases.chosen(filled, "Who?")[0] == "Where?"
    assert capsys.readouterr().out == "not among the blanks of this set: Who?\ninstead: Where?\n"
    with pytest.raises(ValueError, match="question 28: give the question's text"):
        cases.chosen(filled, 28)


def test_places_are_where_people_were_born(workshop):
    assert cases.places("tiny") == cases.places("tiny") == sorted(set(TOWNS))  # the second time from the file


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        (
            "In which city was Ann Ode born?",
            "Ann Ode was born in Karachi, Pakistan.",
            ("Ann Ode was born in", "Karachi"),
        ),
        ("Who is she?", "The author's name is Ann-Lu Ode.", ("The author's name is", "Ann-Lu Ode")),
        ("Her first?", 'It was "The Long Way", a novel.', ('It was "', "The Long Way")),
        ("Her first?", "It was 'The Quiet O'Hara-Lee', a novel.", ("It was '", "The Quiet O'Hara-Lee")),
        ("When?", "She was born in 1975. Later she moved.", ("She was born in", "1975")),
        ("Of what is Ann Ode part?", "Ann Ode is part of the LGBTQ+ community.", ("Ann Ode is part of the", "LGBTQ+")),
        ("Whose?", "Of course Ann Ode's books.", ("Of course", "Ann Ode")),
        ("What did Ann Ode do?", "It was Ann Ode's work. Nobody else did it.", None),  # the question's own name
        ("What is he?", "A civil engineer.", None),
    ],
)
def test_the_blank_is_the_first_name_that_the_question_lacks(question, answer, expected):
    assert cases.blank(question, answer) == expected


def test_a_model_is_read_from_its_own_checkpoint_and_the_teacher_from_two():
    spec = RunSpec("mini", "forget10", "teacher", 1)
    assert loading.parts(spec) == [spec.base("original"), spec.base("augmented")]
    student = RunSpec("mini", "forget10", "RKLU", 1)
    assert loading.parts(student) == [student]


def test_a_record_keeps_the_models_that_another_page_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    monkeypatch.setattr(distributions, "load_models", lambda profile, split, names, seed: (dict.fromkeys(names), None))
    monkeypatch.setattr(distributions, "said", lambda loaded, tokenizer, p, row, answering: {"models": list(loaded)})
    first = distributions.of("smoke", "forget10", names=["original", "RKLU"])
    assert distributions.of("smoke", "forget10", names=["RKLU"]) == first | {"machine": records.machine()}
    second = distributions.of("smoke", "forget10", names=["oracle", "RKLU"])
    assert second["models"] == ["original", "RKLU", "oracle"] == list(second["settings"])
    assert distributions.of("smoke", "forget10", names=["original"])["models"] == second["models"]
