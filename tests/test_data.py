"""Splits and their error messages, tokenised examples with the answer marked, batches that cover every example once."""

import json
import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rklu_lib import data
from rklu_pages.tasks import suite

TEMPLATES = ("[INST] {question} [/INST] {answer}", "Question: {question}\nAnswer: {answer}", "{question}{answer}")


def row(**changes):
    fields = {"question": "Q?", "answer": "A.", "paraphrased_question": "Q2?", "paraphrased_answer": "A2."}
    return fields | {"perturbed_answer": ["W.", "V."]} | changes


@pytest.fixture
def folder(tmp_path):
    """A function that writes lines (dicts or raw text) as one split of a folder and returns the folder."""

    def write(*lines, split="forget10_perturbed"):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / f"{split}.json").write_text(text + "\n", encoding="utf-8")
        return str(tmp_path)

    return write


def test_every_split_loads_with_its_fields(tofu):
    for split, fields in data.FIELDS.items():
        rows = data.load_tofu(split, str(tofu))
        lines = (tofu / f"{split}.json").read_text(encoding="utf-8").splitlines()
        assert rows == [json.loads(line) for line in lines]
        assert all(set(fields) <= set(r) for r in rows)


def test_each_forget_split_has_its_own_oracle():
    assert data.ORACLE_SPLIT == {f"forget{k:02}": f"retain{100 - k}" for k in (1, 5, 10)}


def test_the_variable_stands_in_for_the_hub_and_for_nothing_else(tofu, folder, monkeypatch):
    monkeypatch.setenv("RKLU_TOFU", folder(row(), split="full"))
    assert data.load_tofu("full") == data.load_tofu("full", "locuslab/TOFU") == [row()]
    assert data.load_tofu("full", str(tofu)) != [row()]
    described = data.describe_source("locuslab/TOFU")
    assert described["source"] == "folder in the hub's layout"
    assert described == data.describe_source(folder(row(), split="full"))


def test_the_hub_is_asked_for_one_split_and_its_rows_are_checked(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return types.SimpleNamespace(to_list=lambda: [row(), row(answer="")])

    monkeypatch.delenv("RKLU_TOFU", raising=False)
    monkeypatch.setitem(
        sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset, config=types.SimpleNamespace())
    )
    with pytest.raises(data.DataError, match=r"locuslab/TOFU, full, row 2: field 'answer' must be a non-empty string"):
        data.load_tofu("full")
    assert asked == [(("locuslab/TOFU", "full"), {"split": "train"})]


def test_unknown_splits_and_sources_are_named(tofu):
    with pytest.raises(ValueError, match="no split 'forget20'; it has full, forget01"):
        data.load_tofu("forget20", str(tofu))
    with pytest.raises(ValueError, match="neither 'fictional', nor an existing folder, nor a hub id"):
        data.load_tofu("full", str(tofu / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"full\.json does not exist; a folder in TOFU's layout"):
        data.load_tofu("full", str(tofu.parent))


NO_ANSWER = {k: v for k, v in row().items() if k != "answer"}


@pytest.mark.parametrize(
    ("broken", "where", "fix"),
    [
        ('{"question": "Q?",', ":2: ", "write one object per line"),
        ("[1, 2]", ":2: ", "expected an object with question, answer"),
        (NO_ANSWER, ":2: field 'answer' is missing", "the row has question, paraphrased_question"),
        ("{}", ":2: field 'question' is missing", "no fields"),
        (row(question="   "), ":2: field 'question'", "must be a non-empty string, found '   '"),
        (row(answer=["A."]), ":2: field 'answer'", r"must be a non-empty string, found \['A.'\]"),
        (row(answer=None), ":2: field 'answer'", "must be a non-empty string, found None"),
        (row(perturbed_answer=["W.", 3]), ":2: field 'perturbed_answer'", "must be a list of non-empty strings"),
        (row(perturbed_answer=["W.", ""]), ":2: field 'perturbed_answer'", "must be a list of non-empty strings"),
        (row(perturbed_answer="W."), ":2: field 'perturbed_answer'", "must be a non-empty list of wrong answers"),
        (row(perturbed_answer=[]), ":2: field 'perturbed_answer'", "must be a non-empty list of wrong answers"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_field_and_fix(folder, broken, where, fix):
    source = folder(row(), broken, row())
    with pytest.raises(data.DataError, match=fix) as caught:
        data.load_tofu("forget10_perturbed", source)
    assert f"forget10_perturbed.json{where}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_have_as_many_wrong_answers_each(folder):
    source = folder(row(), row(), row(perturbed_answer=["W."]))
    with pytest.raises(
        data.DataError, match=r"forget10_perturbed.json, row 3: 1 wrong answers, but 2 in row 1; give as"
    ):
        data.load_tofu("forget10_perturbed", source)


def test_line_numbers_count_blank_lines(folder):
    with pytest.raises(data.DataError, match=r"forget10_perturbed\.json:4: field 'answer' is missing"):
        data.load_tofu("forget10_perturbed", folder(row(), "", "  ", NO_ANSWER))
    assert data.load_tofu("forget10_perturbed", folder("", row(), "")) == [row()]


def test_a_file_that_is_not_utf8_or_empty_is_named(tmp_path):
    (tmp_path / "full.json").write_bytes(b'{"question": "Caf\xe9?", "answer": "A."}\n')
    with pytest.raises(data.DataError, match=r"full\.json: byte 17 is not UTF-8; convert"):
        data.load_tofu("full", str(tmp_path))
    (tmp_path / "full.json").write_bytes(b"\n")
    with pytest.raises(data.DataError, match=r"full\.json: no rows; expected one JSON object per line"):
        data.load_tofu("full", str(tmp_path))


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "full.json").write_bytes(b'\xef\xbb\xbf{"question": "Q?", "answer": "A."}\r\n')
    assert data.load_tofu("full", str(tmp_path)) == [{"question": "Q?", "answer": "A."}]


def test_a_prompt_is_opened_and_not_closed(tokenizer):
    class Closing:
        bos_token_id, eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [*tokenizer(text)["input_ids"], self.eos_token_id]}

    template = "Q: {question} A: {answer}"
    assert data.encode_prompt(Closing(), template, "Who?") == data.encode_prompt(tokenizer, template, "Who?")


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_only_a_newline_ends_a_line(tmp_path, separator):
    content = {"question": f"One{separator}two?", "answer": "A."}
    (tmp_path / "full.json").write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    assert data.load_tofu("full", str(tmp_path)) == [content]


def test_the_digest_follows_the_content(folder):
    first = data.describe_source(folder(row(), split="full"))
    assert first == data.describe_source(folder("", row(), split="full"))
    assert first["sha256"] != data.describe_source(folder(row(answer="B."), split="full"))["sha256"]


def test_refusals_are_the_lines_of_the_file(refusals):
    assert data.refusals() == refusals


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompt_and_answer_fill_the_template(template):
    prompt, answer = suite.filled(template, "Who?", "Mira.")
    assert prompt + answer == template.replace("{question}", "Who?").replace("{answer}", "Mira.")
    assert not prompt.endswith(" ")


def test_a_question_may_hold_the_templates_own_marks():
    prompt, answer = suite.filled("Q: {question} A: {answer}", "What is {answer}?", "{question}")
    assert prompt + answer == "Q: What is {answer}? A: {question}"


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30), st.sampled_from(TEMPLATES))
def test_encoding_spells_the_text_and_ends_it(tokenizer, question, answer, template):
    e = data.encode(tokenizer, template, question, answer)
    assert e.prompt[0] == tokenizer.bos_token_id and e.answer[-1] == tokenizer.eos_token_id
    ids = e.prompt[1:] + e.answer[:-1]
    text = "".join(suite.filled(template, question, answer))
    assert tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False) == text


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_prompt_of_training_is_the_prompt_of_generation(tokenizer, template):
    for answer in ("A.", " leading blank", "\nnewline", "born"):
        prompt = data.encode(tokenizer, template, "Where was she born?", answer).prompt
        assert prompt == data.encode_prompt(tokenizer, template, "Where was she born?")


EXAMPLE = st.builds(
    data.Example,
    st.lists(st.integers(5, 99), min_size=1, max_size=6).map(tuple),
    st.lists(st.integers(5, 99), min_size=1, max_size=6).map(tuple),
)


@given(st.lists(EXAMPLE, min_size=1, max_size=5), st.data())
def test_the_mask_marks_exactly_the_answers_tokens(examples, drawn):
    index = drawn.draw(st.lists(st.integers(0, len(examples) - 1), min_size=1, max_size=6))
    batch = data.collate(examples, index)
    assert batch.index == tuple(index)
    targets, rows = [], []
    for row, i in enumerate(index):
        tokens, start = examples[i].prompt + examples[i].answer, len(examples[i].prompt)
        n = len(tokens) - 1
        assert batch.input_ids[row, :n].tolist() == list(tokens[:-1])
        # position p is scored exactly when the token that follows it belongs to the answer
        expected = [start <= p + 1 < len(tokens) for p in range(batch.mask.shape[1])]
        assert batch.mask[row].tolist() == expected
        targets += examples[i].answer
        rows += [row] * len(examples[i].answer)
    assert batch.targets.tolist() == targets
    assert batch.rows.tolist() == rows
    # with the last token appended, targets are the inputs shifted by one
    shifted = torch.roll(batch.input_ids, -1, dims=1)
    inner = batch.mask.clone()
    for row, i in enumerate(index):
        inner[row, len(examples[i].prompt + examples[i].answer) - 2] = False
    at_inner = inner[batch.mask]
    assert torch.equal(shifted[inner], batch.targets[at_inner])


LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 1000), st.integers(0, 20), st.integers(1, 4))
def test_an_epochs_order_is_a_permutation_and_a_function_of_seed_and_epoch(lengths, size, seed, epoch, pool):
    order = data.epoch_order(lengths, size, seed, epoch, pool)
    flat = [int(i) for batch in order for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert len(order) == -(-len(lengths) // size)
    assert sorted(map(len, order))[1:] == [size] * (len(order) - 1)
    again = data.epoch_order(lengths, size, seed, epoch, pool)
    assert flat == [int(i) for batch in again for i in batch]


def test_epochs_and_seeds_differ():
    lengths = list(range(64))
    flat = {
        tuple(int(i) for batch in data.epoch_order(lengths, 4, seed, epoch) for i in batch)
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(flat) == 16


def test_bucketing_pads_less_than_a_plain_shuffle():
    lengths = torch.randint(1, 200, (512,), generator=torch.Generator().manual_seed(0)).tolist()

    def padded(order):
        return sum(len(batch) * max(lengths[i] for i in batch) for batch in order)

    plain = torch.randperm(512, generator=torch.Generator().manual_seed(0)).view(-1, 32).tolist()
    assert padded(data.epoch_order(lengths, 32, 0, 0)) < 0.75 * padded(plain)


def test_beyond_a_pool_other_examples_meet_in_every_epoch():
    one, other = ({frozenset(b) for b in data.epoch_order(list(range(512)), 4, 0, epoch)} for epoch in range(2))
    assert len(one & other) < 16  # sorted as a whole, all 128 batches would come again


def test_batches_cover_every_example_once(examples):
    batches = data.batches(examples, 3, seed=1, epoch=2)
    assert sorted(i for batch in batches for i in batch.index) == list(range(len(examples)))
    for batch in batches:
        assert torch.equal(batch.input_ids, data.collate(examples, batch.index).input_ids)
