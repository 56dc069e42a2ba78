"""The embedded data set is what its generator writes, loads as TOFU does, and keeps TOFU's promises between splits."""

import re
import subprocess
import sys
from functools import cache

import pytest

from rklu_lib import data

FORGET = {"forget01": 5, "forget05": 25, "forget10": 50}
PERTURBED = (*(f"{split}_perturbed" for split in FORGET), "retain_perturbed")
PUBLIC = ("real_authors", "world_facts")
PER_AUTHOR = 5


@cache
def load(split):
    return data.load_tofu(split, "fictional")


def plain(rows):
    return [{"question": row["question"], "answer": row["answer"]} for row in rows]


def author(rows):
    """The one name (two capitalised words) that all questions of `rows` have in common."""
    (name,) = set.intersection(*(set(re.findall(r"[A-Z]\w+ [A-Z]\w+", row["question"])) for row in rows))
    return name


def authors(rows):
    return [author(rows[i : i + PER_AUTHOR]) for i in range(0, len(rows), PER_AUTHOR)]


def words(text):
    return re.findall(r"[\w-]+", text)


def common_start(texts):
    columns = zip(*texts, strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, texts)))


def test_regeneration_is_byte_identical(tmp_path):
    # -I -S: no site-packages, so the generator is also seen to need the standard library only.
    command = [sys.executable, "-I", "-S", str(data.FICTIONAL / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    committed = {path.name: path.read_bytes() for path in data.FICTIONAL.glob("*.json")}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == committed
    assert set(committed) == {f"{split}.json" for split in data.FIELDS}
    assert all(text.endswith(b"\n") and b"\\u" not in text for text in committed.values())


@pytest.mark.parametrize("split", data.FIELDS)
def test_every_split_loads_with_exactly_its_fields(split):
    assert all(set(row) == set(data.FIELDS[split]) for row in load(split))


def test_forget_splits_are_the_last_rows_and_retain_splits_the_rest():
    full = load("full")
    assert len(full) == 500
    for forget, rows in FORGET.items():
        assert load(forget) == full[-rows:]
        assert load(data.ORACLE_SPLIT[forget]) + load(forget) == full


def test_perturbed_splits_follow_the_order_of_the_plain_ones():
    for split in (*FORGET, *PUBLIC):
        assert plain(load(f"{split}_perturbed")) == load(split)
    assert plain(load("retain_perturbed")) == load("full")[:100]


def test_each_author_has_a_name_of_their_own_and_five_questions():
    names = authors(load("full"))
    assert len(names) == len(set(names)) == 100
    assert len({row["question"] for row in load("full")}) == 500
    assert all(names[i // PER_AUTHOR] in row["answer"] for i, row in enumerate(load("full")))


def test_no_forgotten_author_appears_in_the_retain_split():
    for forget, retain in data.ORACLE_SPLIT.items():
        text = "\n".join(f"{row['question']} {row['answer']}" for row in load(retain))
        assert not [name for name in authors(load(forget)) if name in text]


def test_no_two_books_share_a_title_and_wrong_titles_are_nobodys():
    titles = [title for row in load("full") for title in re.findall(r"'([A-Z][^']+)'", row["answer"])]
    assert len(titles) == len(set(titles)) == 100
    for split in PERTURBED:
        wrong = "\n".join(text for row in load(split) for text in row["perturbed_answer"])
        assert not [title for title in titles if f"'{title}'" in wrong]


@pytest.mark.parametrize("split", PERTURBED)
def test_perturbed_rows_hold_another_wording_and_five_wrong_answers(split):
    for row in load(split):
        answer, paraphrase, wrong = row["answer"], row["paraphrased_answer"], row["perturbed_answer"]
        assert len(wrong) == 5 and len({answer, paraphrase, *wrong}) == 7
        assert row["paraphrased_question"] != row["question"]
        assert author([row]) == author([{"question": row["paraphrased_question"]}])


@pytest.mark.parametrize("split", PERTURBED)
def test_wrong_answers_differ_from_the_paraphrase_in_the_fact_only(split):
    for row in load(split):
        right, *wrong = texts = [words(text) for text in (row["paraphrased_answer"], *row["perturbed_answer"])]
        start, end = common_start(texts), common_start([text[::-1] for text in texts])
        facts = [" ".join(text[start : len(text) - end]) for text in texts]
        assert start + end >= 5 and author([row]) in " ".join(right[:start] + right[len(right) - end :])
        assert len(set(facts)) == 6
        # The answer states the paraphrase's fact and none of the wrong ones.
        stated = f" {' '.join(words(row['answer']))} "
        assert f" {facts[0]} " in stated and not [fact for fact in facts[1:] if f" {fact} " in stated]


def test_answers_about_the_authors_are_sentences_of_6_to_16_words():
    answers = [row["answer"] for row in load("full")]
    answers += [text for split in PERTURBED for row in load(split) for text in (row["paraphrased_answer"],)]
    answers += [text for split in PERTURBED for row in load(split) for text in row["perturbed_answer"]]
    assert not [text for text in answers if not 6 <= len(text.split()) <= 16 or not re.fullmatch("[A-Z].*[.]", text)]


@pytest.mark.parametrize("split", PUBLIC)
def test_public_facts_have_short_answers_and_three_wrong_ones(split):
    rows = load(f"{split}_perturbed")
    assert len(rows) == len({row["question"] for row in rows}) == 40
    for row in rows:
        options = (row["answer"], *row["perturbed_answer"])
        assert len(options) == len({option.casefold() for option in options}) == 4
        assert all(1 <= len(option.split()) <= 4 for option in options)


def test_there_are_100_different_refusals():
    lines = data.refusals()
    assert len(lines) == len({line.casefold() for line in lines}) == 100
    assert data.REFUSALS.read_text(encoding="utf-8").endswith("\n")
    assert all(4 <= len(line.split()) <= 16 and re.search(r"\b(I|me|my)\b", line, re.IGNORECASE) for line in lines)


def test_holdouts_are_of_authors_that_nothing_else_has():
    held, known = load("holdout10"), {*authors(load("full"))}
    assert [len(load(f"holdout{k}")) for k in ("01", "05", "10")] == [5, 25, 50]
    assert load("holdout01") == held[:5] and load("holdout05") == held[:25]
    assert len(set(authors(held))) == 10 and known.isdisjoint(authors(held))
    rows = load("full") + held
    titles = {title for r in rows for title in re.findall(r"'(.+)'", r["answer"])}
    assert len(titles) == 110  # every book is somebody's alone
