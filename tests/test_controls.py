"""The controls beside a widget where a kernel is there: any question is put to the models; what fails is one line."""

import functools
import json

import pytest
import torch
from helpers import Here, answer_logits
from invented import ASKED, alphas, explorer, playground
from transformers import AutoModelForCausalLM, AutoTokenizer

from rklu_lib import data, models, profiles, records, runs
from rklu_pages.drawing import figures
from rklu_pages.drawing.widgets import controls
from rklu_pages.tasks import asking, cases, distributions, loading

NAMES = ["original", "oracle", "teacher", "RKLU"]


@pytest.fixture
def trained(workshop, monkeypatch):
    """The tiny study's models, trained here, and the recorded distributions of its first question."""
    monkeypatch.setattr(runs, "ensure", functools.partial(runs.ensure, executor=Here()))
    return [distributions.of("tiny", "forget10", names=NAMES)]


@pytest.fixture
def rows(profile):
    return data.load_tofu("forget10", profile.source)


def parts(live):
    """The field of questions, the line below it, and the widget."""
    field, widget = live.children[0], live.children[-1]
    return field, next(c for c in live.children if type(c).__name__ == "HTML"), widget


@torch.no_grad()
def probabilities(name, row):
    """What a trained model, as transformers itself reads and runs it, gives each token of a true answer."""
    folder = runs.named("tiny", "forget10", name).checkpoint_path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    example = data.encode(tokenizer, profiles.profile("tiny").template, row["question"], row["answer"])
    p = answer_logits(model, example).softmax(-1)
    return p[range(len(example.answer)), list(example.answer)].tolist()


def test_a_question_that_is_not_recorded_is_put_to_the_models(trained, rows):
    live = controls.token_distributions("tiny", "forget10", 0, trained)
    field, said, widget = parts(live)
    assert set(field.options) == {row["question"] for row in rows}
    assert [q["question"] for q in widget.questions] == [rows[0]["question"]]
    field.value = rows[3]["question"]
    shown = widget.questions[widget.question]
    assert shown["answer"] == rows[3]["answer"] and list(shown["models"]) == NAMES
    for name in ("original", "oracle", "RKLU"):
        expected = probabilities(name, rows[3])
        assert shown["models"][name]["true_probability"] == pytest.approx(expected, rel=1e-3)
    assert not field.disabled and "alert" not in said.value
    field.value = rows[0]["question"]
    assert widget.questions[widget.question]["models"] == trained[0]["models"]  # what is recorded is shown as it is
    widget.question = 1  # in the widget's own menu
    assert field.value == rows[3]["question"]
    folder = records.RECORDS / "tiny/tofu/forget10/distributions"
    assert [path.name for path in folder.iterdir()] == ["question0-seed0.json"]  # nothing is recorded


def test_a_chosen_model_is_run_where_it_is_not_recorded(trained, rows, monkeypatch):
    live = controls.token_distributions("tiny", "forget10", 0, trained)
    field, _, widget = parts(live)
    chosen = live.children[1].children[1]
    assert "augmented" in chosen.allowed_tags and "GA" not in chosen.allowed_tags  # nobody has trained that
    chosen.value = ["original", "augmented"]
    assert widget.models == ["original", "augmented"]
    shown = widget.questions[0]["models"]
    assert shown["augmented"]["true_probability"] == pytest.approx(probabilities("augmented", rows[0]), rel=1e-3)
    assert shown["augmented"]["kl_to_oracle"] and shown["oracle"] == trained[0]["models"]["oracle"]
    widget.models = ["RKLU"]  # ticked in the widget
    assert chosen.value == ["RKLU"]
    field.value = rows[2]["question"]
    assert set(widget.questions[widget.question]["models"]) == {"RKLU", "oracle"}
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("loaded again"))
    field.value = rows[1]["question"]
    assert set(widget.questions[widget.question]["models"]) == {"RKLU", "oracle"}


def test_without_models_the_recorded_questions_are_there_and_how_to_get_the_others(workshop):
    field, said, widget = parts(controls.token_distributions("tiny", "forget10", 0, ASKED))
    assert field.options == tuple(content["question"] for content in ASKED)
    assert "not trained here" in said.value and "loading.load_models(" in said.value
    field.value = ASKED[1]["question"]
    assert widget.question == 1
    field.value = "<b>Who else?</b>"
    assert 'role="alert"' in said.value and "&lt;b&gt;Who else?" in said.value and widget.question == 1
    field.value = ""  # emptied, to be searched anew
    assert widget.question == 1 and not field.disabled


def test_the_command_it_names_trains_the_models(workshop, monkeypatch):
    monkeypatch.setattr(runs, "ensure", functools.partial(runs.ensure, executor=Here()))
    asked = asking.Models("tiny", "forget10")
    assert asked.lacking(NAMES) == NAMES
    shell, code = asked.command(["original", "oracle", "teacher"]).split(" -c ")
    assert shell == "python"
    exec(json.loads(code))
    assert asked.lacking(NAMES) == ["RKLU"]


def test_what_goes_wrong_is_one_line(trained, rows, monkeypatch):
    field, said, widget = parts(controls.token_distributions("tiny", "forget10", 0, trained))

    def fails(*_):
        raise RuntimeError("out of\nmemory <x>")

    with monkeypatch.context() as patch:
        patch.setattr(loading, "load_models", fails)
        field.value = rows[1]["question"]
    assert said.value == '<span role="alert">RuntimeError: out of memory &lt;x&gt;</span>'
    assert widget.question == 0 and not field.disabled
    field.value = rows[2]["question"]
    assert widget.question == 1 and "alert" not in said.value


def test_where_the_forget_set_cannot_be_read_the_line_says_so(trained, monkeypatch):
    def absent(*_):
        raise FileNotFoundError("no forget10.json")

    monkeypatch.setattr(data, "load_tofu", absent)
    field, said, _ = parts(controls.token_distributions("tiny", "forget10", 0, trained))
    assert field.options == (trained[0]["question"],) and "no forget10.json" in said.value


def test_the_alpha_explorer_asks_at_every_alpha_and_its_slider_is_the_fields(workshop, rows, monkeypatch):
    monkeypatch.setattr(runs, "ensure", functools.partial(runs.ensure, executor=Here()))
    found = runs.ensure(runs.grid("tiny", "forget10", ["RKLU"], "alpha", [2, 8], 0))
    labels = ["RKLU,alpha=2", "RKLU,alpha=8"]
    names = ["oracle", *labels, *(label.replace("RKLU", "teacher") for label in labels)]
    content = distributions.of("tiny", "forget10", 0, 0, names, kind="alpha")
    live = controls.alpha_explorer(found, content)
    field, _, widget = parts(live)
    alpha = live.children[1]
    assert [text for text, _ in alpha.options] == ["2", "8"] and alpha.value == widget.index == 1
    alpha.value = 0
    assert widget.index == 0
    widget.index = 1
    assert alpha.value == 1
    scores = [row["forget_quality"] for row in widget.rows]
    field.value = rows[2]["question"]
    assert (widget.question, widget.answer) == (rows[2]["question"], rows[2]["answer"])
    assert [row["forget_quality"] for row in widget.rows] == scores
    for label, row in zip(labels, widget.rows, strict=True):
        expected = probabilities(label, rows[2])
        assert row["models"]["RKLU"]["true_probability"] == pytest.approx(expected, rel=1e-3)
        assert isinstance(row["answer"], str)
    assert "".join(widget.tokens[widget.position :]).strip().startswith(cases.blank(widget.question, widget.answer)[1])
    field.value = rows[0]["question"]
    assert [row["answer"] for row in widget.rows] == [content["direct_answers"][label] for label in labels]


def test_a_picture_is_drawn_of_any_question_with_a_key_phrase(trained, rows):
    seen = []

    def draw(content, place):
        seen.append((content["question"], content["tokens"][place]))
        return figures.distributions(content, place, ["original", "RKLU"], k=3)

    live = controls.picture("tiny", "forget10", 0, trained[0], ["original", "RKLU"], draw)
    field, _, drawn = parts(live)
    keyed = [row for row in rows if cases.blank(row["question"], row["answer"])]
    assert 1 < len(keyed) < len(rows) and set(field.options) == {row["question"] for row in keyed}
    before = drawn.value
    field.value = keyed[-1]["question"]
    assert seen[-1][0] == keyed[-1]["question"] and "<svg" in drawn.value != before
    assert keyed[-1]["answer"] in live.children[2].value


def test_the_playgrounds_fields_are_its_strengths():
    live = controls.divergence_playground(**{k: getattr(playground(), k) for k in ("tokens", "original", "augmented")})
    fields, widget = live.children[0].children, live.children[1]
    fields[0].value, widget.shift = 3.25, -0.75
    assert widget.alpha == 3.25 and fields[1].value == -0.75


def test_without_a_kernel_only_the_widgets_own_form_is_there(workshop):
    live = controls.token_distributions("tiny", "forget10", 0, ASKED)
    alone, forms = explorer()._repr_mimebundle_()[0], live._repr_mimebundle_()[0]
    assert {k: forms[k] for k in ("text/html", "text/plain")} == {k: alone[k] for k in ("text/html", "text/plain")}
    assert forms[controls.VIEW]["model_id"] == live.model_id  # in JupyterLab all of it
    assert set(forms) == set(alone)


LIVE = """async ([source, state]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const widget = (await import(url)).default, listeners = {};
  window.model = {
    get: (name) => state[name],
    set: (name, value) => (state[name] = value),
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    save_changes() {},
    receive(change) { // as from a kernel: every value is there before the first listener hears of any
      Object.assign(state, change);
      for (const name in change) for (const listener of listeners[`change:${name}`] ?? []) listener();
    },
  };
  const el = document.body.appendChild(document.createElement("div"));
  widget.render({ model: window.model, el });
}"""


def live(page, widget):
    """Host a widget as JupyterLab does: what the kernel sends reaches `model.receive`."""
    names = [name for name in widget.trait_names(sync=True) if not name.startswith("_")]
    state = {name: getattr(widget, name) for name in names if name not in ("layout", "tabbable", "tooltip")}
    page.evaluate(LIVE, [widget._esm, state])


def test_a_widget_shows_what_its_kernel_sends_in_whatever_order(visit):
    page = visit(book=False).page
    shown = explorer()
    live(page, shown)
    asked = {"question": 2, "questions": [*shown.questions, {**shown.questions[1], "question": "And then?"}]}
    for change in (asked, dict(reversed(asked.items()))):
        page.evaluate("change => model.receive(change)", change)
        menu = page.get_by_label("Question")
        assert menu.evaluate("e => e.selectedOptions[0].text") == "And then?" and menu.locator("option").count() == 3
        assert page.locator(".rk-answer button").count() == len(shown.questions[1]["tokens"])
    page.evaluate("model.receive({ models: ['RKLU'] })")
    assert page.get_by_role("checkbox", name="RKLU").is_checked()
    assert not page.get_by_role("checkbox", name="original").is_checked() and page.locator(".rk-card").count() == 1


@pytest.mark.parametrize("order", [1, -1])
def test_the_alpha_explorer_shows_another_question(visit, order):
    page, shown = visit(book=False).page, alphas()
    live(page, shown)
    page.get_by_label("Position in the true answer").fill("3")
    rows = [row | {"answer": "Elsewhere."} for row in shown.rows]
    for row in rows:
        row["models"] = {k: {name: values[:2] for name, values in m.items()} for k, m in row["models"].items()}
    change = {"rows": rows, "question": "And then?", "answer": "In Ystad.", "tokens": [" In", " Ystad"], "position": 1}
    page.evaluate("change => model.receive(change)", dict(list(change.items())[::order]))
    assert "In Ystad." in page.get_by_text("And then?").locator("..").inner_text()
    position = page.get_by_label("Position in the true answer")
    assert (position.input_value(), position.get_attribute("max")) == ("1", "1")
    assert "Elsewhere." in page.locator(".rk-said").inner_text()
    page.evaluate("model.receive({ index: 1 })")
    assert page.get_by_label("α, strength").input_value() == "1"
