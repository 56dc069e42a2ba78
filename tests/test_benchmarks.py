"""Each published file becomes the rows that lm-eval's own task reads; what cannot be rebuilt is counted."""

import bz2
import itertools
import json
import re

import numpy as np
import pytest
from helpers import SHARED, log_likelihood
from lm_eval.tasks.hellaswag.utils import preprocess

from rklu_lib import profiles
from rklu_lib.data import DataError
from rklu_pages.tasks import benchmarks, capability, suite

REAL = SHARED / "capability"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the published files are not on this machine")
# {task: (items in the file that are the task's, items left out)}
REAL_COUNTS = {"piqa": (1838, 0), "hellaswag": (10042, 21), "arc_easy": (2376, 0), "arc_challenge": (1172, 0),
               "copa": (500, 1), "wsc273": (273, 0), "mathqa": (2985, 0)}  # fmt: skip


def said(instruction, answer):
    return {"instruction": instruction, "input": "", "output": "", "answer": answer}


def arc(question, *options, answer="answer1"):
    form = "/".join(f"answer{k + 1}" for k in range(len(options)))
    listed = " ".join(f"Answer{k + 1}: {option}" for k, option in enumerate(options))
    text = f"Please choose the correct answer to the question: {question}\n\n{listed}\n\nAnswer format: {form}"
    return said(text, answer)


def piqa(goal, *solutions, answer="solution1"):
    listed = "\n\n".join(f"Solution{k + 1}: {text}" for k, text in enumerate(solutions))
    form = "Answer format: solution1/solution2"
    return said(f"Please choose the correct solution to the question: {goal}\n\n{listed}\n\n{form}", answer)


MATHQA = "one and one ? The options: A ) 1 , B ) 2 , C ) 3 , D ) 4 , E ) nonE oF thEsE"
HELLASWAG = [
    ["Tea: A man boils water. he", "0", "pours it.", "sings it.", "eats it.", "buys it."],
    ["Home: How to tea. Boil water.", "3", "Cold.", "Warm.", "Hot.", "Now."],
    ["Tea: A man boils water. 2 men", "1", "pour.", "sing.", "eat.", "buy."],  # where does the last sentence begin?
    ["Home: How to [tea]. Boil water.", "2", "Cold.", "Warm.", "Hot.", "Now."],  # the harness would take it out again
]
COPA = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE copa-corpus SYSTEM "copa.dtd">
<copa-corpus version="1.0">{}</copa-corpus>"""
WSC = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<collection>{}</collection>'


def copa(number, choice="The road was wet.", right=1):
    head = f'<item id="{number}" asks-for="effect" most-plausible-alternative="{right}">'
    return f"{head}<p>It rained on {number}.</p><a1>{choice}</a1><a2>It sang.</a2></item>"


def schema(before, pronoun, after, right):
    text = f"<text><txt1>{before}</txt1><pron> {pronoun} </pron><txt2>{after}\n</txt2></text>"
    answers = "<answers><answer>The cup </answer><answer> the\n shelf</answer></answers>"
    return f"<schema>{text}{answers}<correctAnswer> {right} </correctAnswer></schema>"


@pytest.fixture
def folder(tmp_path):
    """All seven, of invented items, in the layout they are published in."""
    items = {
        "piqa.json": [piqa("dry a cup", "Use a towel. ", "Use a river.", answer="solution2"), piqa("a\n\nb", "c", "d")],
        "arc-easy.json": [arc("What melts?", "Ice", "Rye", "Tin", answer="answer2"), arc("?", "a Answer3: b", "c")],
        "arc-challenge.json": [arc("What burns?", "Ice", "Rye"), arc("What?", "Ice", "Rye", answer="answer3")],
        "mathqa.json": [said(MATHQA, "B"), said(MATHQA.replace("nonE", "none"), "B"), said("Two ?", "A")],
    }
    for name, rows in items.items():
        (tmp_path / name).write_text(json.dumps(rows), encoding="utf-8")
    lines = "".join(f"{line}\n" for item in HELLASWAG for line in item)
    (tmp_path / benchmarks.FILES["hellaswag"]).write_bytes(bz2.compress(lines.encode()))
    asked = [copa(1), copa(1001), copa(2, " It dried."), copa(401, right=2), copa(500)]
    (tmp_path / benchmarks.FILES["copa"]).write_text(COPA.format("\n".join(asked)))
    schemas = [
        schema("\nThe cup fell off the shelf \nbecause", "it", " was round.", "A."),
        schema("", "It", "fell.", "B"),
    ]
    (tmp_path / benchmarks.FILES["wsc273"]).write_text(WSC.format("".join([*schemas, schema("The cup", "it", "", "A")])
                                                                  .replace("<txt2>\n", "<txt2>x\n")))  # fmt: skip
    return tmp_path


def test_instructions_are_taken_apart(folder):
    assert benchmarks.rows("piqa", folder) == (
        [{"goal": "dry a cup", "sol1": "Use a towel. ", "sol2": "Use a river.", "label": 1}], 1
    )  # fmt: skip
    three = {"text": ["Ice", "Rye", "Tin"], "label": ["A", "B", "C"]}
    assert benchmarks.rows("arc_easy", folder) == ([{"question": "What melts?", "choices": three, "answerKey": "B"}], 1)
    two = {"text": ["Ice", "Rye"], "label": ["A", "B"]}
    assert benchmarks.rows("arc_challenge", folder) == (
        [{"question": "What burns?", "choices": two, "answerKey": "A"}], 1
    )  # fmt: skip
    options = "a ) 1 , b ) 2 , c ) 3 , d ) 4 , e ) none of these"
    assert benchmarks.rows("mathqa", folder) == ([{"Problem": "one and one ?", "options": options, "correct": "b"}], 2)


def test_a_context_is_cut_where_its_last_sentence_begins(folder):
    rows, left_out = benchmarks.rows("hellaswag", folder)
    assert [(r["ctx_a"], r["ctx_b"]) for r in rows] == [("A man boils water.", "he"), ("How to tea. Boil water.", "")]
    assert [(r["activity_label"], r["label"]) for r in rows] == [("Tea", "0"), ("Home", "3")] and left_out == 2
    assert rows[0]["endings"] == HELLASWAG[0][2:]


def test_superglues_items_of_copa_come_first_and_its_twins_not_at_all(folder):
    rows, left_out = benchmarks.rows("copa", folder)
    assert [r["premise"] for r in rows] == ["It rained on 401.", "It rained on 500.", "It rained on 1."]
    assert [r["label"] for r in rows] == [1, 0, 0] and left_out == 1
    assert set(rows[0]) == {"premise", "choice1", "choice2", "question", "label"}


def test_a_schemas_pronoun_is_found_where_it_stands(folder):
    rows, left_out = benchmarks.rows("wsc273", folder)
    assert rows[0] == {"text": "The cup fell off the shelf because it was round.", "pronoun": "it", "pronoun_loc": 35,
                       "options": ["The cup", "the shelf"], "label": 0}  # fmt: skip
    for row in rows:
        assert row["text"][row["pronoun_loc"] :].startswith(row["pronoun"])
    assert (rows[1]["pronoun_loc"], rows[1]["label"], left_out) == (0, 1, 0)


@needs_real
@pytest.mark.parametrize("task", benchmarks.FILES)
def test_the_published_files_are_rebuilt_as_counted(task):
    rows, left_out = benchmarks.rows(task, REAL)
    assert (len(rows) + left_out, left_out) == REAL_COUNTS[task]
    if task == "piqa":
        found = [json.loads(json.dumps(piqa(r["goal"], r["sol1"], r["sol2"]))) for r in rows]
        kept = json.loads((REAL / "piqa.json").read_text(encoding="utf-8"))
        assert [f["instruction"] for f in found] == [k["instruction"] for k in kept]
    elif task.startswith("arc"):
        kept = json.loads((REAL / benchmarks.FILES[task]).read_text(encoding="utf-8"))
        found = [arc(r["question"], *r["choices"]["text"])["instruction"] for r in rows]
        assert found == [k["instruction"] for k in kept]
    elif task == "hellaswag":  # what the harness asks is what the file says, but for the capital of the last sentence
        text = bz2.decompress((REAL / benchmarks.FILES[task]).read_bytes()).decode().split("\n")
        contexts = {line.casefold() for line in text[::6]}
        for r in rows:
            query = preprocess(f"{r['activity_label']}: {r['ctx_a']} {r['ctx_b'].capitalize()}")
            assert query.casefold() in contexts
            assert [preprocess(ending) for ending in r["endings"]] == r["endings"]
    elif task == "copa":
        assert rows[0]["premise"] == "The man turned on the faucet." and len(rows[:100]) == 100
    elif task == "wsc273":
        assert all(r["text"][r["pronoun_loc"] :].startswith(r["pronoun"]) for r in rows)
        assert sum(r["label"] for r in rows) == 136
    else:
        assert {len(re.findall(r"[abcd] \) .*?, |e \) .*?$", r["options"])) for r in rows} == {5}
        assert all(r["options"] == r["options"].lower() for r in rows)


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("piqa.json", "{", r"piqa.json: not JSON \(.*\); take the file as it is published"),
        ("piqa.json", "{}", "piqa.json: expected a list of objects with instruction and answer, found dict"),
        ("piqa.json", '[{"instruction": "x"}]', "piqa.json, item 1: field 'answer' must be text, found None"),
        ("piqa.json", "[]", "piqa.json: none of 0 items could be rebuilt"),
        ("mathqa.json", '[{"instruction": "x", "answer": "A"}]', "mathqa.json: none of 1 items could be rebuilt"),
        ("hellaswag_val_full.txt.bz2", "x", "bz2: not UTF-8 text compressed by bzip2"),
        ("balanced-copa-dev-all.xml", "<copa-corpus>", "all.xml: not XML"),
        ("balanced-copa-dev-all.xml", "<c><item/></c>", "all.xml: <item> needs id, asks-for and most-plausible-alt"),
        ("balanced-copa-dev-all.xml", f"<c>{copa(1, '')}</c>", r"all.xml, item 1: no text in <a1>"),
        ("WSCollection.xml", "<c><schema/></c>", r"WSCollection.xml, schema 1: no text in <text/pron>"),
    ],
)
def test_a_malformed_file_is_named_with_the_fix(tmp_path, name, text, error):
    (tmp_path / name).write_text(text)
    task = next(task for task, file in benchmarks.FILES.items() if file == name)
    with pytest.raises(DataError, match=error) as raised:
        benchmarks.rows(task, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_broken_item_of_hellaswag_is_named_by_its_line(tmp_path):
    lines = "\n".join(HELLASWAG[0] + HELLASWAG[1][:4])
    (tmp_path / benchmarks.FILES["hellaswag"]).write_bytes(bz2.compress(lines.encode()))
    with pytest.raises(DataError, match=r"bz2:7: expected six lines an item: .*; found 'Home: How to tea"):
        benchmarks.rows("hellaswag", tmp_path)


def test_a_folder_of_published_files_lacks_one(folder):
    (folder / "mathqa.json").unlink()
    with pytest.raises(FileNotFoundError, match="mathqa.json does not exist; a folder of the published files holds pi"):
        with benchmarks.folder_of(capability.PAPER_TASKS, folder):
            pass


def test_a_ready_folder_and_the_hub_are_left_as_they_are(tmp_path):
    for ready in (tmp_path, None):
        with benchmarks.folder_of(capability.PAPER_TASKS, ready) as (found, counts):
            assert (found, counts) == (ready, {})


def asked(task, row):
    """What lm-eval's task gives a model of a row, said once more: the contexts (one, or one for each option), the
    options (or one continuation, where 0.4.13 has a blank more than it needs), and the right option."""
    if task == "piqa":
        return [f"Question: {row['goal']}\nAnswer:"], [row["sol1"], row["sol2"]], row["label"]
    if task.startswith("arc"):
        right = row["choices"]["label"].index(row["answerKey"])
        return [f"Question: {row['question']}\nAnswer:"], row["choices"]["text"], right
    if task == "hellaswag":
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}".strip()
        return [context], row["endings"], int(row["label"])
    if task == "mathqa":
        options = re.findall(r"[a-e] \) (.*?)(?= , [b-e] \) |$)", row["options"])
        return [f"Question: {row['Problem']}\nAnswer:"], options, "abcde".index(row["correct"])
    if task == "copa":
        link = {"cause": "because", "effect": "therefore"}[row["question"]]
        options = [row[choice][0].lower() + row[choice][1:] for choice in ("choice1", "choice2")]
        return [f"{row['premise'].strip()[:-1]} {link}"], options, row["label"]
    before, after = row["text"][: row["pronoun_loc"]], row["text"][row["pronoun_loc"] + len(row["pronoun"]) :]
    inside = row["text"][row["pronoun_loc"] - 2] != "."  # as the harness has it, where nothing is before it too
    options = [o.replace("The ", "the ", 1) if inside and o.startswith("The ") else o for o in row["options"]]
    own = "'s" if row["pronoun"].lower() in ("my", "his", "her", "our", "their") else ""
    return [f"{before}{option}{own}" for option in options], [after], row["label"]


def agree(model, tokenizer, monkeypatch, folder, n):
    """lm-eval's counts on a folder of published files are those of log-likelihoods one by one."""
    monkeypatch.setenv("RKLU_CAPABILITY", str(folder))
    model.config.max_position_embeddings = 4096  # byte-level tokens: some items are long
    scores = suite.measure(model, tokenizer, profiles.profile("llama2-7b", n_items=n))
    assert tuple(scores) == capability.PAPER_TASKS
    for task, found in scores.items():
        rows, left_out = benchmarks.rows(task, folder)
        assert (found["rebuilt"], found["left_out"], found["n"]) == (len(rows), left_out, len(rows[:n]))
        right, normed = "", ""
        for row in rows[:n]:
            contexts, options, answer = asked(task, row)
            pairs = itertools.product(contexts, options)
            scored = np.array([log_likelihood(model, tokenizer, before, f" {after}") for before, after in pairs])
            right += str(int(scored.argmax() == answer))
            if len(options) == len(scored):
                normed += str(int((scored / [len(o) for o in options]).argmax() == answer))
        assert found["right"] == right, task
        assert found["accuracy"] == pytest.approx(right.count("1") / len(right))
        assert found.get("right_norm", normed) == normed, task
        assert ("accuracy_norm" in found) == (task not in ("copa", "wsc273"))
    return scores


def test_lm_evals_count_on_rebuilt_items_is_that_of_plain_scores(tiny_model, tokenizer, monkeypatch, folder):
    scores = agree(tiny_model(), tokenizer, monkeypatch, folder, 3)
    assert [scores[t]["chance"] for t in ("hellaswag", "arc_easy", "mathqa")] == pytest.approx([1 / 4, 1 / 3, 1 / 5])


@needs_real
def test_lm_evals_count_on_real_items_is_that_of_plain_scores(tiny_model, tokenizer, monkeypatch):
    agree(tiny_model(), tokenizer, monkeypatch, REAL, 12)
