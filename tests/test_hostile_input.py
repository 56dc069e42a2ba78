"""Input that means harm, or only looks like it: text stays text wherever it is shown, and nothing is executed."""

import csv
import dataclasses
import io
import json
import os
import pickle
import re
import shutil
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from helpers import rklu, write_lines
from safetensors.torch import load_file

from rklu_lib import chat, data, models
from rklu_lib.own import inputs, report, unlearning
from rklu_pages.drawing import tables

SCRIPT = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
HOSTILE = {
    "script": SCRIPT,
    "closing script": "</script><script>window.owned = 1</script>",
    "attribute": '" onmouseover="window.owned = 1" x=\'',
    "template": "{{ 7 * 7 }} {% for x in y %} ${7 * 7}",
    "escapes": "\x1b[31mred\x1b[0m \x1b]0;owned\x07 \x1b[2J \x9b31m",
    "raw": "```{raw} html\n<b id=evil>owned</b>\n```",
    "markdown": "[link](javascript:owned) ![image](https://example.org/x.png) <b id=evil>x</b>",
    "LaTeX": r"$\href{javascript:owned}{x}$ \input{/etc/passwd} $$\require{html}$$",
    "control": "".join(map(chr, range(1, 32))) + "\x7f\x80\x85\u2028\u2029",
    "right to left": "\u202eevil\u202c \u0623\u064a\u0646 \u2066x\u2069",
    "nothing": "a\x00b",
    "formula": '=HYPERLINK("https://example.org","x")',
    "delete": "a\x08\x08\x08b\rc",
}
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def rows():
    return [{"question": f"{text} {name}?", "answer": text} for name, text in HOSTILE.items()]


@pytest.fixture(scope="module")
def own(tmp_path_factory, profile, tokenizer):
    model = models.create(dataclasses.replace(profile, max_positions=512), tokenizer, 0)
    folder = tmp_path_factory.mktemp("hostile") / "own"
    models.save(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, own, profile):
    """The folder of a model that has unlearned `HOSTILE`, with all of it quoted; folder names are hostile too."""
    folder = tmp_path_factory.mktemp("made")
    model = shutil.copytree(own, folder / "own<b id=evil>`\n---\n\x1b[31m")
    options = {"profile": profile, "epochs": 1, "redact": False, "probes": 3, "by": SCRIPT}
    forget = write_lines(folder / "<img src=x onerror=owned>.jsonl", rows())
    unlearning.unlearn(str(model), str(forget), folder / "out`<b id=evil>\x1b[31m", **options)
    return folder / "out`<b id=evil>\x1b[31m"


def test_the_page_shows_it_as_text_and_executes_nothing(made, visit):
    window = visit(book=False)
    window.page.goto("about:blank")
    window.page.set_content((made / "report.html").read_text(encoding="utf-8"))
    window.page.wait_for_selector(".rk-widget .rk-card")
    assert window.page.evaluate("window.owned") is None
    assert window.page.locator("#evil, img, iframe, main script, a").count() == 0
    shown = window.page.evaluate("document.querySelector('main').textContent")
    html = {c: c for c in "\x00\r"}  # what HTML itself cannot hold
    for name, text in HOSTILE.items():
        if not set(text) & set(html):
            assert text.replace("\r", "\n") in shown, name
    for select in window.page.locator(".rk-widget select").all():  # every question, in the widget too
        for option in select.locator("option").all():
            select.select_option(value=option.get_attribute("value") or option.text_content())
    assert window.page.evaluate("window.owned") is None and window.page.locator("#evil, img").count() == 0


def test_a_turn_of_direction_ends_with_its_text(made):
    page = BeautifulSoup((made / "report.html").read_text(encoding="utf-8"), "html.parser")
    turned = [tag for tag in page.main.find_all(string=re.compile("\u202e"))]
    assert turned and all(t.find_parent(attrs={"dir": "auto"}) for t in turned)


def test_what_a_terminal_may_be_given_holds_no_escapes(made):
    for name in ("report.json", "README.md"):
        text = (made / name).read_text(encoding="utf-8")
        assert not UNPRINTABLE.search(text), name
    held = json.loads((made / "report.json").read_text(encoding="utf-8"))
    assert [a["answer"] for a in held["answers"]] == list(HOSTILE.values())  # and yet it is all there


def test_the_card_is_one_document_and_quotes_no_markup(made):
    text = (made / "README.md").read_text(encoding="utf-8")
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()
    assert yaml.safe_load(front).keys() <= {"library_name", "pipeline_tag", "tags", "base_model", "license"}
    outside = re.sub(r"`[^`\n]*`", "", body)
    assert "<" not in outside and "evil" not in outside and "\n---" not in body and "```" not in body


def test_the_page_can_be_made_again_and_the_terminal_is_told_plainly(made):
    page = (made / "report.html").read_text(encoding="utf-8")
    result = rklu("report", made)
    assert result.exit_code == 0 and (made / "report.html").read_text(encoding="utf-8") == page
    assert not UNPRINTABLE.search(result.output)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_dry_run_and_a_refusal_print_no_escapes(own, tmp_path, name):
    text = HOSTILE[name]
    forget = write_lines(tmp_path / "f\x1b[31m.jsonl", [{"question": text + "?", "answer": text}])
    given = ["--model", own, "--forget", forget, "--out", tmp_path / "out", "--profile", "smoke"]
    result = rklu("unlearn", *given, "--dry-run", TERM="dumb")
    assert result.exit_code == 0, result.output
    assert not UNPRINTABLE.search(result.output) and "The first example" in result.output
    write_lines(forget, [{text: 1}])
    refused = rklu("unlearn", *given, COLUMNS="80")
    assert refused.exit_code == 2 and refused.output.count("\n") == 1 and not UNPRINTABLE.search(refused.output)


def test_ten_megabytes_in_one_line_are_refused_in_one_short_line_or_read(own, tmp_path):
    long = "x" * 10_000_000
    given = ["--model", own, "--out", tmp_path / "out", "--profile", "smoke", "--dry-run"]
    for row, message in (
        ({"question": long, "answer": "A"}, "tokens; the model reads 512. Shorten it"),
        ({"question": "Q", "answer": [long]}, "must be a non-empty string"),
        ({long: 1}, "no field that is known here"),
        ({"messages": long}, "field 'messages' must be a non-empty list"),
        ({"messages": [{"role": long, "content": "x"}]}, "role 'xxx"),
    ):
        forget = write_lines(tmp_path / "f.jsonl", [row])
        result = rklu("unlearn", "--forget", forget, *given, COLUMNS="80")
        assert result.exit_code == 2 and message in result.output and len(result.output) < 700
    corpus = inputs.read(write_lines(tmp_path / "f.jsonl", [{"text": long}]))
    assert len(corpus.items[0].answer) == 10_000_000


def test_control_tokens_of_the_model_are_text_in_what_is_forgotten(tokenizer):
    for text in ("</s>", "<s>", "a</s>b", "<pad>"):
        ids = chat.encode_answer(tokenizer, "Q: {question} A: {answer}", text)
        assert ids[-1] == tokenizer.eos_token_id and not {0, 1, 2} & set(ids[:-1])
        assert tokenizer.decode(ids[:-1]).strip() == text


class Bomb:
    """What a pickle may hold: a call that is made when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def trap(own, tmp_path):
    """(a copy of a model's folder, the folder that is made where anything of it was executed)."""
    shutil.copytree(own, tmp_path / "own")
    return tmp_path / "own", tmp_path / "executed"


def unlearn(model, folder, *more):
    forget = write_lines(folder / "f.jsonl", [{"question": "Where?", "answer": "Zadar."}])
    given = ["--model", model, "--forget", forget, "--out", folder / "out", "--profile", "smoke"]
    return rklu("unlearn", *given, "--epochs", 1, "--probes", 0, *more, COLUMNS="80")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def code(model, mark):
    (model / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass C: pass\n")


def test_a_pickle_beside_the_weights_is_not_read(trap, tmp_path):
    model, mark = trap
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl"):
        (model / name).write_bytes(pickle.dumps(Bomb(mark)))
    assert unlearn(model, tmp_path).exit_code == 0 and not mark.exists()
    (model / "model.safetensors").unlink()
    refused = unlearn(model, tmp_path, "--out", str(tmp_path / "again"))
    assert refused.exit_code == 2 and "a format that can run code" in refused.output.replace("\n", " ")
    assert not mark.exists()


def test_a_pickle_under_the_name_of_safetensors_is_not_read(trap, tmp_path):
    model, mark = trap
    (model / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
    refused = unlearn(model, tmp_path)
    assert refused.exit_code == 2 and "model.safetensors: not whole" in refused.output and not mark.exists()


def test_code_that_came_with_a_model_is_not_run(trap, tmp_path):
    model, mark = trap
    code(model, mark)
    names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C", "AutoModel": "evil.C"}
    edit(model / "config.json", auto_map=names)
    edit(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.C", "evil.C"]})
    known = unlearn(model, tmp_path)  # of a kind that transformers knows: its own code is taken
    assert known.exit_code == 0 and not mark.exists(), known.output
    edit(model / "config.json", auto_map=names, model_type="mine")
    refused = unlearn(model, tmp_path, "--out", str(tmp_path / "again"))
    assert refused.exit_code == 2 and "which is never run here" in refused.output and not mark.exists()
    assert refused.output.count("\n") == 1


def test_weights_are_read_from_the_models_folder_alone(trap, tmp_path):
    model, _ = trap
    names = load_file(model / "model.safetensors").keys()
    shutil.move(model / "model.safetensors", tmp_path / "secret.safetensors")
    for name in ("../secret.safetensors", str(tmp_path / "secret.safetensors")):
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        shutil.copy(tmp_path / "secret.safetensors", model / "other.safetensors")
        refused = unlearn(model, tmp_path)
        assert refused.exit_code == 2 and "outside the folder; nothing is read there" in refused.output


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('MARK') }}",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ lipsum.__globals__['os'].mkdir('MARK') }}",
        "{% for m in messages %}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_chat_template_reaches_nothing_but_text(trap, tmp_path, template):
    model, mark = trap
    text = template.replace("MARK", str(mark))
    edit(model / "tokenizer_config.json", chat_template=text)
    (model / "chat_template.jinja").write_text(text)
    refused = unlearn(model, tmp_path)
    assert refused.exit_code == 2 and "this chat template" in refused.output and refused.output.count("\n") == 1
    assert not mark.exists()


def test_a_table_of_the_book_shows_it_as_text_and_saves_no_formula(visit):
    said = [t.replace("\x00", "") for t in HOSTILE.values()]
    table = pd.DataFrame({"said": said, "p": [-0.5] * len(said)}, index=pd.Index(said, name="=name"))
    shown = tables.show(table, SCRIPT, "t")
    window = visit(book=False)
    window.page.set_content(f"<!doctype html><main>{shown._repr_html_()}</main>")
    assert window.page.evaluate("window.owned") is None
    assert window.page.locator("#evil, img, script").count() == 0
    cells = window.page.locator("td:nth-child(2)").all_text_contents()
    for text, cell in zip(said, cells, strict=True):
        expected = text.replace("*", "") if any(len(t) > tables.LONG for t in said) else text
        assert cell.strip() == expected.translate({9: r"\t", 10: r"\n", 13: r"\r"}).strip()  # as pandas spells them
    href = window.page.locator("a.rk-csv").get_attribute("href")
    saved = list(csv.reader(io.StringIO(unquote(href.removeprefix("data:text/csv;charset=utf-8,")), newline="")))
    assert all(not cell.startswith(tables.FORMULA) for row in saved for cell in row[:2])
    assert [row[2] for row in saved[1:]] == ["-0.5"] * len(said)


def test_masking_hides_every_one_of_them():
    for text in HOSTILE.values():
        assert set(report.masked(text)) <= set(report.MASK + " ")


def test_printable_keeps_what_people_write():
    for text in ("Ångström 日本 🙂", "أين ولدت؟", "a\tb\nc", "naïve – “x”"):
        assert data.printable(text) == text
    assert data.printable("a\x1b[31m\x00\u202e\x9b") == r"a\x1b[31m\x00\u202e\x9b"
