"""The page for a model of one's own: the form does what the command does, and says in one line what it cannot."""

import json

import ipywidgets
import pytest
from helpers import write_lines

from rklu_lib import data
from rklu_pages.beyond import own_model


@pytest.fixture(scope="module")
def own(tmp_path_factory, own_checkpoint):
    """(folder of a model, file of what it is to forget)."""
    rows = [{"question": f"Who is <b>{n}</b>?", "answer": f"{n} is a miller."} for n in ("Mira", "Ivo")]
    return own_checkpoint, write_lines(tmp_path_factory.mktemp("own") / "forget.jsonl", rows)


def parts(form):
    """Its fields by their descriptions, its button, and what it says: message and chart."""
    fields = {w.description: w for w in form.children if hasattr(w, "value") and hasattr(w, "description")}
    (button,) = (w for w in form.children if isinstance(w, ipywidgets.Button))
    return fields, button, *(w for w in form.children if isinstance(w, ipywidgets.HTML))


def test_the_form_unlearns_and_shows_what_came_of_it(own, tmp_path, profile):
    model, forget = own
    form = own_model.controls(str(model), str(forget), str(tmp_path / "out"), profile=profile, probes=2, redact=False)
    fields, button, said, drawn = parts(form)
    fields["epochs"].value, fields["alpha"].value, fields["stop at p ="].value = 2, 4, 1e-4
    button.click()
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["settings"]["alpha"] == 4 and report["rule"]["target"] == 1e-4 and len(report["epochs"]) == 2
    assert "epoch 2: probability" in drawn.value and "<svg" in drawn.value
    assert f"{report['probability']['after']:.3g}" in said.value and "report.html" in said.value
    assert not button.disabled and type(form.children[-1]).__name__ == "TokenDistributions"
    assert set(form.children[-1].questions[0]["models"]) <= set(form.children[-1].colours)  # no bar without a colour
    told = own_model.summary(report)
    assert told.loc["answers that leak, of 2 probed", "after"] == report["leak"]["after"]["hits"]
    assert own_model.answers(report)["question"].tolist() == ["Who is <b>Mira</b>?", "Who is <b>Ivo</b>?"]


def test_what_the_form_cannot_do_is_one_line_and_text(own, tmp_path, profile):
    form = own_model.controls(str(own[0]), "<i>none</i>.jsonl", str(tmp_path / "out"), profile=profile)
    _, button, said, _ = parts(form)
    button.click()
    assert "&lt;i&gt;none&lt;/i&gt;.jsonl does not exist" in said.value and 'role="alert"' in said.value
    assert not button.disabled and not (tmp_path / "out").exists()


def test_the_chart_grows_with_the_epochs_and_marks_the_target():
    notes = [{"loss": 20.0, "forget_probability": 0.9 / n, "perplexity_rise": 0.01 * n} for n in (1, 2, 3)]
    for known in (notes[:1], notes):
        left, right = own_model.progress(known, target=0.4).figure.axes
        assert left.lines[0].get_ydata().tolist() == [n["forget_probability"] for n in known]
        assert right.lines[0].get_ydata() == pytest.approx([100 * n["perplexity_rise"] for n in known])
        assert set(left.lines[1].get_ydata()) == {0.4}
        assert left.get_ylim() == pytest.approx((0, 1.1 * 0.9))  # the height of what is drawn
    assert "no epoch yet" in own_model.chart([])


def test_a_page_wants_both_model_and_forget_set_or_neither(own, tmp_path, profile, capsys):
    with pytest.raises(ValueError, match="forget is empty; name both"):
        own_model.report(str(own[0]), "", "")
    found = own_model.report(*map(str, own), tmp_path / "out", profile=profile, epochs=1, target=0, watch="")
    assert len(found["epochs"]) == 1 and found["rule"]["target"] is None


def test_the_example_is_of_tofus_authors():
    found = own_model.report("", "", "")
    assert found["code"]["changed"] is False and found["model"]["type"] == "llama"
    assert found["probability"]["after"] < found["probability"]["before"]
    lines = own_model.verdict(found)
    assert "were brought down to" in lines[0] and f"{found['probability']['after']:.2g} per token" in lines[0]
    assert [line for line in lines if line.startswith("The perplexity of the watched answers changed by +")]
    worse = own_model.verdict(found | {"rule": found["rule"] | {"met": False}})
    assert "stayed above" in worse[0] and worse[1:] == lines[1:]
    assert len(own_model.explorer(found).questions) == len(found["distributions"]) > 0
    assert data.ROOT in own_model.EXAMPLE.parents
