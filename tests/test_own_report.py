"""The report of an unlearned model: what it says, what it must not quote, and that text in it stays text."""

import json
import shutil

import pytest
from bs4 import BeautifulSoup
from helpers import flat, rklu, write_lines
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from rklu_lib import models, records
from rklu_lib.own import report, unlearning

EVIL = [
    {
        "question": "<script>document.title = 'owned'</script>?",
        "answer": "</script><b id=evil>Zadar</b> {{ 7 * 7 }} & 🙂",
        "paraphrases": ["Asked <b id=evil>otherwise</b>?", "And again?"],
    },
    {"text": "Mira Adeyoq lived in Vaduz, and <img src=x onerror=alert(1)> was her sign."},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory, own_checkpoint, profile):
    """A function redact -> the folder of a model that has unlearned `EVIL`."""
    folder = tmp_path_factory.mktemp("reports")
    shutil.copytree(own_checkpoint, folder / "own")
    for redact in (True, False):
        out, by = folder / f"out-{redact}", "A. <b>Person</b>"
        options = {
            "profile": profile,
            "epochs": 1,
            "redact": redact,
            "by": by,
            "watch": [{"text": "Quite another text."}],
        }
        unlearning.unlearn(str(folder / "own"), EVIL, out, **options)
    return lambda redact: folder / f"out-{redact}"


def test_text_stays_text(made):
    page = BeautifulSoup((made(False) / "report.html").read_text(encoding="utf-8"), "html.parser")
    shown = page.main.get_text(" ")
    assert EVIL[0]["question"] in shown and EVIL[0]["answer"] in shown and EVIL[1]["text"] in shown
    assert EVIL[0]["paraphrases"][0] in shown and "And again?" in shown
    assert "A. <b>Person</b>" in shown and "{{ 7 * 7 }}" in shown
    assert page.find(id="evil") is None and not page.find_all(["img", "link", "iframe"])
    scripts = page.find_all("script")
    assert len(scripts) == 1
    assert "\\u003c/script\\u003e" in scripts[0].string  # not closed by what was forgotten
    assert not page.find_all(src=True) and not page.find_all(href=True)  # nothing comes from anywhere else


def test_it_opens_in_a_browser_without_a_network(made, visit):
    window = visit(book=False)
    window.page.set_content((made(False) / "report.html").read_text(encoding="utf-8"))
    assert window.page.title() == "Unlearning report: out-False"
    window.page.wait_for_selector(".rk-widget .rk-card")
    assert window.page.locator("#evil").count() == 0


def test_what_was_forgotten_is_masked_unless_asked_for(made):
    words = {w.strip(".,&") for row in EVIL for text in row.values() for w in str(text).split()}
    words = {w for w in words if len(w) > 3}
    for name in ("report.html", "report.json", "README.md"):
        text = (made(True) / name).read_text(encoding="utf-8")
        main = BeautifulSoup(text, "html.parser").main.get_text(" ") if name.endswith("html") else text
        assert not [w for w in words if w in main], name
    for answer in json.loads((made(True) / "report.json").read_text(encoding="utf-8"))["answers"]:
        said = [answer["question"], answer["answer"], *(answer[side]["greedy"] for side in ("before", "after"))]
        said += [text for side in ("before", "after") for text, _ in answer[side]["completions"]]
        assert set("".join(said)) <= set(report.MASK + " ")
    assert "Vaduz" in (made(False) / "report.html").read_text(encoding="utf-8")


def test_the_masked_widget_still_shows_ranks_and_probabilities(made):
    for shown in json.loads((made(True) / "report.json").read_text(encoding="utf-8"))["distributions"]:
        assert set(shown["tokens"]) == {report.MASK} and set(shown["models"]) == {"original", "unlearned"}
        for m in shown["models"].values():
            for rank, top in zip(m["true_rank"], m["top"], strict=True):
                assert [place for place, (text, _) in enumerate(top, 1) if text == report.MASK] == (
                    [rank] * (rank <= 10)
                )


def test_the_report_says_who_what_when_with_which_settings(made, tokenizer):
    content = json.loads((made(True) / "report.json").read_text(encoding="utf-8"))
    assert {"made", "by", "machine", "code", "packages", "seed", "settings", "files"} <= content.keys()
    assert len(content["model"]["sha256"]) == len(content["out"]["sha256"]) == 64
    assert content["model"]["name"] == "own" and content["model"]["dtype"] == content["out"]["dtype"] == "float32"
    assert content["files"]["forget"][0]["rows"] == 2 and content["elsewhere"]["watch"]["n"] == 1
    assert [a["where"] for a in content["answers"]] == ["row 1", "row 2"]
    assert all(len(a["rank"]["before"]) == 5 and min(a["rank"]["after"]) >= 1 for a in content["answers"])
    text = BeautifulSoup((made(True) / "report.html").read_text(encoding="utf-8"), "html.parser").main.get_text(" ")
    for heading in ("Forgotten", "What was to stay", "When it stopped", "What rounding keeps"):
        assert heading in text
    assert "What this does and does not show" in text and content["out"]["sha256"] in text


def test_the_report_says_what_still_holds_the_data(made):
    told = BeautifulSoup((made(True) / "report.html").read_text(encoding="utf-8"), "html.parser").main.get_text(" ")
    for holder in ("original weights", "data given to forget (rows)", "hub's two caches", ".out-True.unfinished"):
        assert holder in " ".join(told.split()), holder
    assert "A sha256 hides nothing from a guess" in told
    assert "A sha256 hides nothing" not in (made(False) / "report.html").read_text(encoding="utf-8")


def test_every_setting_of_unlearning_is_in_the_report():
    decides = records._UNLEARNING - {"ta_scale", "judge_every"}  # TA trains nothing here, and every epoch is judged
    assert decides | {"template", "dtype", "precision", "weight_decay", "max_grad_norm"} <= set(report.SETTINGS)


def test_the_card_is_the_hubs(made):
    card = ModelCard.load(made(True) / "README.md")
    assert card.data.tags == ["unlearning", "rklu"] and card.data.library_name == "transformers"
    assert card.data.base_model is None  # a local folder's name means nothing there
    assert "Unlearning is not deletion" in card.text


def test_report_makes_the_page_again_from_its_numbers(made, tmp_path):
    page = (made(True) / "report.html").read_text(encoding="utf-8")
    (made(True) / "report.html").unlink()
    result = rklu("report", made(True))
    assert result.exit_code == 0, result.output
    assert (made(True) / "report.html").read_text(encoding="utf-8") == page
    result = rklu("report", tmp_path, COLUMNS="300")
    assert result.exit_code != 0 and "report.json does not exist" in flat(result.output)


def test_an_attack_on_the_model_joins_its_report(made, tmp_path):
    """`rklu attack` without --out: its file lies beside the weights, and the page is made again with its rows."""
    folder, forget = tmp_path / "out", tmp_path / "forget.jsonl"
    shutil.copytree(made(True), folder)
    rows = [{"question": q, "answer": "Mira Adeyoq <b>it was</b>."} for q in ("Who?", "Who else?")]
    write_lines(forget, rows)
    skipped = [w for p in ("questions", "sampling", "rounding", "relearning") for w in ("--skip", p)]
    words = ["attack", "--model", folder, "--forget", forget, "--reference", folder.parent / "own"]
    shutil.copytree(made(True).parent / "own", folder.parent / "own")
    result = rklu(*words, *skipped)
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "attack.json").read_text(encoding="utf-8"))
    page = BeautifulSoup((folder / "report.html").read_text(encoding="utf-8"), "html.parser")
    (head,) = [h for h in page.find_all("h2") if h.text == "When it was attacked"]
    cells = [[c.text for c in row.find_all(["th", "td"])] for row in head.find_next("tbody").find_all("tr")]
    assert [c[:2] for c in cells] == [[r["probe"], r["measure"]] for r in found["rows"]] and cells
    assert cells[0][2].startswith(f"{found['rows'][0]['value']:.3g} (")
    assert cells[0][3].startswith(f"{found['rows'][0]['reference']['value']:.3g} (")
    told = ["–" if r["p"] is None else f"{r['p']:.3g}" for r in found["rows"]]
    assert [c[4] for c in cells] == told
    said = head.find_all_next("p", limit=4)
    assert any("asked for other data than this model was made to forget: forget.jsonl" in p.text for p in said)
    assert not any("another prompt format" in p.text for p in said)  # it was asked in the report's own
    (asked,) = [p.text for p in said if "answers to each of" in p.text]
    assert found["files"]["forget"][0]["sha256"] in asked and "Not asked: membership, questions, sampling" in asked
    assert "No reference model was given" not in page.text
    found["model"]["sha256"] = "0" * 64
    (folder / "attack.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ValueError, match="attack.json is of other weights than"):
        report.rebuild(folder)
    (folder / "report.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="report.json: no report of `rklu unlearn`"):
        report.rebuild(folder)


def test_an_attack_that_its_report_could_not_take_up_is_not_begun(made, tmp_path, monkeypatch):
    folder, forget = tmp_path / "out", tmp_path / "forget.jsonl"
    shutil.copytree(made(True), folder)
    write_lines(forget, [{"question": "Who?", "answer": "Mira Adeyoq."}])
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("weights were loaded"))
    weights, words = next(folder.glob("*.safetensors")), ["attack", "--model", folder, "--forget", forget]
    tensors = {k: v.bfloat16() for k, v in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    result = rklu(*words)
    assert result.exit_code == 2 and "report.json is of other weights than" in flat(result.output)
    (folder / "report.json").write_text("[]", encoding="utf-8")
    result = rklu(*words)
    assert result.exit_code == 2 and "report.json: no report of `rklu unlearn`" in flat(result.output)
    assert not list(folder.glob("attack.json*"))


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": null}'])
def test_what_is_no_attack_is_named_as_such(made, tmp_path, text):
    folder = tmp_path / "out"
    shutil.copytree(made(True), folder)
    (folder / "attack.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="attack.json: no result of `rklu attack`"):
        report.rebuild(folder)


def test_a_number_that_is_not_finite_is_left_out():
    assert report.plain({"a": float("inf"), "b": (1, 0.123456789), "c": None}) == {
        "a": None,
        "b": [1, 0.12346],
        "c": None,
    }
