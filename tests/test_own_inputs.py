"""Whatever people have becomes the same items; what cannot be used is one line that names the place and the fix."""

import contextlib
import json
import re
import sys
import types

import pandas as pd
import pytest

from rklu_lib import data
from rklu_lib.own import inputs
from rklu_lib.own.inputs import Item

PAIRS = [("Where?", "Karachi"), ('Say "x", y; z', "007"), ("أين ولدت؟", "كراتشي 🙂\nNA")]


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def chat(question, answer, system=None):
    before = [{"role": "system", "content": system}] if system else []
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": before + turns}


def forms(folder):
    """The same three pairs in every form a file can have."""
    rows = [{"question": q, "answer": a} for q, a in PAIRS]
    quoted = ['"{}","{}"'.format(*(v.replace('"', '""') for v in pair)) for pair in PAIRS]
    chats = [json.dumps(chat(*p)) for p in PAIRS]
    pd.DataFrame(rows).to_parquet(folder / "f.parquet")
    semicolons, tabs = ("\n".join(quoted).replace('","', f'"{mark}"') for mark in ";\t")
    asked = [json.dumps({"prompt": q, "completion": a}) for q, a in PAIRS]
    return {
        "JSON lines": write(folder, "a.jsonl", "\n".join(json.dumps(r) for r in rows) + "\n\n"),
        "array": write(folder, "b.json", json.dumps(rows, indent=2)),
        "array in one of TOFU's names": write(folder, "c.jsonl", json.dumps(rows)),
        "chats": write(folder, "d.jsonl", "\n".join(chats)),
        "commas": write(folder, "e.csv", "question,answer\n" + "\n".join(quoted)),
        "semicolons, a mark": write(
            folder, "g.csv", "\ufeffquestion;answer\n" + "\n".join(quoted).replace('","', '";"')
        ),
        "tabs": write(folder, "h.tsv", "question\tanswer\n" + tabs),
        "completions": write(folder, "i.jsonl", "\n".join(asked)),
        "responses": write(folder, "j.ndjson", "\n".join(asked).replace('"completion"', '"response"')),
        "Parquet": folder / "f.parquet",
        "rows": rows,
    }


def test_every_form_holds_the_same_pairs_as_text(tmp_path):
    for name, given in forms(tmp_path).items():
        corpus = inputs.read(given)
        assert [(i.question, i.answer) for i in corpus.items] == PAIRS, name
        assert sum(s["rows"] for s in corpus.sources) == 3 and not corpus.notes


def test_a_data_set_on_the_hub_is_asked_for_as_it_is_named(monkeypatch):
    asked, rows = [], [{"question": q, "answer": a} for q, a in PAIRS]
    split = types.SimpleNamespace(to_list=lambda: rows)

    def load_dataset(*names, split=None):
        asked.append((names, split))
        return found

    stub = types.SimpleNamespace(load_dataset=load_dataset, config=types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "datasets", stub)
    found = split
    corpus = inputs.read("someone/pairs:english:train")
    assert [(i.question, i.answer) for i in corpus.items] == PAIRS and asked == [
        (("someone/pairs", "english"), "train")
    ]
    found = {"train": split}  # no split was named, and there is one
    assert len(inputs.read("someone/pairs")) == 3 and asked[1] == (("someone/pairs", None), None)
    found = {"train": split, "test": split}
    with pytest.raises(
        data.DataError, match="pairs has the splits train, test; name one, such as .*pairs:default:train"
    ):
        inputs.read("someone/pairs")


def test_several_files_are_one_corpus_and_each_item_knows_its_place(tmp_path):
    one = write(tmp_path, "a.jsonl", '\n{"question": "Q?", "answer": "A."}\n')
    two = write(tmp_path, "b.jsonl", '{"text": "A document."}\n{"text": "Another."}\n')
    corpus = inputs.read([one, str(two), write(tmp_path, "c.txt", "All of it.\nIs one.")])
    assert [i.where for i in corpus.items] == [f"{one}:2", f"{two}:1", f"{two}:2", str(tmp_path / "c.txt")]
    assert corpus.items[-1] == Item(None, "All of it.\nIs one.", str(tmp_path / "c.txt"))
    page = write(tmp_path, "d.md", "# All of it.")
    assert inputs.read(page).items == (Item(None, "# All of it.", str(page)),)
    assert [(s["name"], s["rows"]) for s in corpus.sources] == [("a.jsonl", 1), ("b.jsonl", 2), ("c.txt", 1)]


def test_a_chat_gives_every_answer_and_says_what_was_left_out(tmp_path):
    long = chat("One?", "1.", system="Be brief.")
    long["messages"] += chat("Two?", "2.")["messages"]
    parts = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Three?"}]}, chat("", "3.")["messages"][1]]
    }
    corpus = inputs.read([long, parts])
    assert [(i.question, i.answer) for i in corpus.items] == [("One?", "1."), ("Two?", "2."), ("Three?", "3.")]
    assert [i.system for i in corpus.items] == ["Be brief.", "Be brief.", None]
    assert corpus.notes == ("a later turn of a chat is asked without the turns before it (1×)",)


def test_a_field_that_is_not_read_is_named(tmp_path):
    """Misspelt, or of another program: it would be lost without a word. Empty ones hold nothing to lose."""
    pair = {"question": "Q?", "answer": "A.", "secret": "A", "context": "Customer 4711", "paraphrase": ["Q!"]}
    other = chat("One?", "1.") | {"secret": "1"}
    corpus = inputs.read([pair, pair | {"question": "R?", "paraphrase": None}, other, {"text": "All.", "id": ""}])
    counted = {"context": 2, "paraphrase": 1, "secret": 1}
    assert corpus.notes == tuple(f"field '{name}' is not read ({n}×)" for name, n in counted.items())
    table = write(tmp_path, "a.csv", "question,answer,id,empty\nQ?,A.,3,\n")
    assert inputs.read(table).notes == ("field 'id' is not read (1×)",)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.xlsx", b"PK\x03\x04\xff"), ("a.jsonl.gz", b"\x1f\x8b\x08\xff"), ("mail.eml", b"From: Anna; Rossi\n")],
)
def test_a_file_of_another_kind_is_to_be_exported(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(data.DataError) as refused:
        inputs.read(tmp_path / name)
    said = str(refused.value)
    assert said.endswith("; export it as CSV, JSON lines or .txt") and "convert" not in said and "per line" not in said
    lines = write(tmp_path, "pairs.log", '{"question": "Q?", "answer": "A."}')
    assert len(inputs.read(lines)) == 1  # a name says nothing if the content can be read


def test_what_is_too_long_is_told_every_way_out(tokenizer):
    corpus = inputs.read({"question": "Q?", "answer": "A. " * 9999})
    with pytest.raises(data.DataError, match=r'the model reads 64\. Shorten it, .* or give it as {"text": …}'):
        inputs.encode(corpus, tokenizer, "Q: {question} A: {answer}", limit=64)


def test_other_wordings_of_a_question_and_an_empty_system_prompt_are_read():
    pair = {"question": "Two?", "answer": "2."}
    told = [pair | {"paraphrases": ["B?", "C?"]}, pair | {"paraphrased_question": "B?"}, pair]
    assert [i.paraphrases for i in inputs.read(told).items] == [("B?", "C?"), ("B?",), ()]
    silent = chat("One?", "1.")
    silent["messages"].insert(0, {"role": "system", "content": ""})
    assert [i.system for i in inputs.read([silent]).items] == [""]


def test_a_system_prompt_that_the_format_has_no_place_for_is_left_out_and_said(tokenizer):
    corpus = inputs.read(
        [chat("One?", "1.", system="Be brief."), {"question": "Two?", "answer": "2.", "system": "Be."}]
    )
    template = "Q: {question} A: {answer}"
    examples, _ = inputs.encode(corpus, tokenizer, template)
    assert examples[0] == data.encode(tokenizer, template, "One?", "1.")
    (note,) = inputs.unplaced(corpus, tokenizer, template)
    assert note.startswith("a system prompt is left out (2×)")
    assert inputs.unplaced(inputs.read([chat("One?", "1.")]), tokenizer, template) == ()


WRONG = {
    "a.jsonl:1: field 'paraphrases' must be a list": '{"question": "Q", "answer": "A", "paraphrases": [3]}',
    "a.jsonl:2: not JSON": '{"text": "x"}\n{"text"',
    "a.jsonl:1: field 'answer' is missing; the row has question": '{"question": "Q?"}',
    "a.jsonl:1: field 'answer' must be a non-empty string, found 7": '{"question": "Q?", "answer": 7}',
    "a.jsonl:1: no field that is known here, only foo; give question and answer, or messages": '{"foo": 1}',
    "a.jsonl:1: expected an object, found int": "3",
    "a.jsonl: no rows; give question": "\n\n",
    "a.jsonl:1: field 'messages' must be a non-empty list": '{"messages": []}',
    "a.jsonl:1: the chat ends without an answer": '{"messages": [{"role": "user", "content": "Q?"}]}',
    "message 1: role 'assistant' here; a chat is one": '{"messages": [{"role": "assistant", "content": "A"}]}',
    "message 1: role 'tool' here": '{"messages": [{"role": "tool", "content": "A"}]}',
    "message 1: field 'role' is missing": '{"messages": [{"from": "user", "value": "A"}]}',
    "a.jsonl:2: not JSON (Expecting value": '[{"text": "x"},\n oops]',
    "a.jsonl:1: not JSON (maximum recursion": "[" * 200_000,
    "a.jsonl:1: not JSON (Exceeds the limit": '[{"text": ' + "9" * 5000 + "}]",
    "e.csv:3: the header has 2 columns, this row has not; quote": "question,answer\nQ?,A\nQ?,A,B\n",
    "e.csv, after line 1: unexpected end of data; quote": 'question,answer\n"Q?,A\n',
    "e.csv:2: field 'answer' is missing": "question,reply\nQ?,A\n",
    "f.parquet: not Parquet": "nothing of the kind",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_used_is_one_line(tmp_path, message):
    name = next((n for n in ("e.csv", "f.parquet") if message.startswith(n)), "a.jsonl")
    with pytest.raises(data.DataError) as refused:
        inputs.read(write(tmp_path, name, WRONG[message]))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_places_that_hold_nothing_are_named(tmp_path):
    with pytest.raises(data.DataError, match="is a folder; name its files"):
        inputs.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone.csv does not exist; name a file \(.jsonl, .*owner/name:config"):
        inputs.read(tmp_path / "gone.csv")
    with pytest.raises(data.DataError, match=r"^nobody/nothing: [^\n]*owner/name:config:split\)$"):
        inputs.read("nobody/nothing:some:train")  # tests have no network


def test_a_document_is_split_and_every_token_of_it_is_scored_once(tokenizer):
    text = "Mira was born in Zadar. </s> <s> " * 40  # control tokens in a document are text
    corpus = inputs.read([{"text": text}, {"question": "Q?", "answer": "A."}])
    examples, items = inputs.encode(corpus, tokenizer, "Q: {question} A: {answer}", limit=64)
    parts = examples[:-1]
    assert len(parts) > 3 and all(len(e.prompt) + len(e.answer) <= 64 for e in parts)
    assert all(e.prompt == (tokenizer.bos_token_id,) for e in parts)
    scored = [t for e in parts for t in e.answer]
    assert tokenizer.decode(scored) == text
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(scored)
    assert items[0].where == f"row 1, part 1 of {len(parts)}" and "".join(i.answer for i in items[:-1]) == text
    assert (
        examples[-1] == data.encode(tokenizer, "Q: {question} A: {answer}", "Q?", "A.") and items[-1].question == "Q?"
    )


PLACES = [
    ("forget", "retain", {"question": " who\nIS Ann? ", "answer": "Another."}, "row 1 (--forget) and row 2 (--retain)"),
    ("forget", "watch", {"text": "A  document."}, "row 2 (--forget) and row 2 (--watch)"),
    ("forget", "holdout", {"question": "Ann, who is she?", "answer": "A."}, "row 1 (--forget) and row 2 (--holdout)"),
    ("retain", "watch", {"question": "Who is Ann?", "answer": "A."}, "row 1 (--retain) and row 2 (--watch)"),
    ("retain", "holdout", {"text": "A document."}, "row 2 (--retain) and row 2 (--holdout)"),
    ("watch", "holdout", {"text": "A document."}, None),  # only measured, both
    ("forget", "retain", {"question": "Who is Bob?", "answer": "A."}, None),
]


@pytest.mark.parametrize(("one", "other", "row", "places"), PLACES)
def test_what_stands_in_two_corpora_is_refused_whatever_its_case_and_blanks(one, other, row, places):
    ann = {"question": "Who is Ann?", "answer": "A.", "paraphrases": ["Ann, who is she?"]}
    corpora = {one: inputs.read([ann, {"text": "A document."}]), other: inputs.read([{"text": "Else."}, row])}
    with pytest.raises(data.DataError, match=re.escape(places)) if places else contextlib.nullcontext():
        inputs.check_apart(corpora)


def test_a_row_that_stands_there_again_is_taken_once(tmp_path):
    pair = {"question": "Q?", "answer": "A."}
    rows = [
        pair,
        pair | {"answer": "B."},
        pair,
        {"text": "A document."},
        {"text": "A document."},
        pair | {"system": "S"},
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = inputs.read(str(tmp_path / "f.jsonl"))
    assert [i.where.rpartition(":")[2] for i in corpus.items] == ["1", "2", "4", "6"]
    assert corpus.notes == ("a row that stood there already is taken once (2×)",)
    assert corpus.sources[0]["rows"] == 6
    assert len(inputs.read([tmp_path / "f.jsonl"] * 2).items) == 4
    assert len(inputs.read(pair).items) == 1  # one row, as it is


def test_a_csv_as_hands_and_spreadsheets_write_it(tmp_path):
    def read(text):
        (tmp_path / "f.csv").write_text(text)
        return [(i.question, i.answer, i.where.rpartition(":")[2]) for i in inputs.read(tmp_path / "f.csv").items]

    assert read("question, answer\nQ?,A.\n") == [("Q?", "A.", "2")]
    assert read('\n\nquestion,answer\n"Q\n?",A.\n,\nR?,B.\n,\n') == [("Q\n?", "A.", "5"), ("R?", "B.", "7")]
    with pytest.raises(data.DataError, match=r"f\.csv:2: column 'answer' occurs twice; rename one"):
        read("\nquestion,answer,answer \nQ?,A.,B.\n")
