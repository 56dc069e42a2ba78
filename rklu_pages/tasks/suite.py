"""The embedded suite of seven multiple-choice tasks, made from a model's own training data, and its measurement.

`data/capability/` has the tasks' format. The items exist only at run time, so that TOFU's text is not copied.
"""

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np

from rklu_lib import chat, data
from rklu_pages.tasks import benchmarks, capability

TASKS = ("retain_authors", "two_answers", "same_author", "endings", "names", "real_authors", "world_facts")
NAME = re.compile(r"[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)+")
PER_TASK = 100


def filled(template, question, answer=""):
    """Fill a template such as "[INST] {question} [/INST] {answer}"; return its parts (prompt, answer) of `chat.cut`."""
    form = chat.cut(template)
    return form.opening + question + form.middle, form.lead + answer + form.closing


def items(source, template, bos="", seed=0, n_retain=None):
    """Return the items of the embedded suite: {task of `TASKS`: list of {"prompt", "choices", "answer": index}}.

    They ask about retained authors and public facts, some in another wording than the training data; at most
    `PER_TASK` per task. source: the training data, as in `data.load_tofu`. template: the model's prompt format. bos:
    text of its begin-of-text token. n_retain: how many retained questions the model has read, the first (None: all)."""
    rng = np.random.default_rng(seed)
    rows, known = (data.load_tofu(name, source) for name in ("retain_perturbed", "retain90"))
    known = known[:n_retain]
    order = rng.permutation(len(known))
    shuffled = [known[i] for i in order]

    def item(question, right, wrong, said=""):
        choices, place = list(wrong), int(rng.integers(len(wrong) + 1))  # a model without preference takes the first
        choices.insert(place, right)
        prompt, opening = filled(template, question, said)
        prompt, opening = (prompt + opening, " ") if said else (prompt, opening)
        return {"prompt": (bos or "") + prompt, "choices": [opening + c for c in choices], "answer": place}

    def halves(row):
        words = row["answer"].split(" ")
        return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])

    def swapped(row, other):
        mine = [name for name in NAME.findall(row["question"]) if name in row["answer"]]
        return [row["answer"].replace(m, o) for m in mine[:1] for o in NAME.findall(other["question"])[:1] if m != o]

    pairs = zip(shuffled, shuffled[1:] + shuffled[:1], strict=True)
    found = {
        "retain_authors": [item(r["question"], r["paraphrased_answer"], r["perturbed_answer"]) for r in rows[::2]],
        "two_answers": [item(r["question"], r["paraphrased_answer"], r["perturbed_answer"][:1]) for r in rows[1::2]],
        "same_author": [
            item(known[i]["question"], known[i]["answer"], [r["answer"] for r in _block(known, i)]) for i in order
        ],
        "endings": [
            item(r["question"], halves(r)[1], [halves(o)[1] for o in others], halves(r)[0])
            for r, *others in zip(*(shuffled[k:] for k in range(4)), strict=False)
        ],
        "names": [item(r["question"], r["answer"], wrong) for r, o in pairs if (wrong := swapped(r, o))],
    }
    for name in ("real_authors", "world_facts"):
        facts = data.load_tofu(f"{name}_perturbed", source)
        found[name] = [item(r["question"], r["answer"], r["perturbed_answer"]) for r in facts]
    return {name: found[name][:PER_TASK] for name in TASKS}


def _block(known, i, size=5):
    """Return the other rows of row i's block of five. Authors follow one another, each with a multiple of five rows."""
    start = int(i) - int(i) % size
    return [row for j, row in enumerate(known[start : start + size], start) if j != i]


@contextlib.contextmanager
def folder_of(profile, tokenizer):
    """Make a temporary folder of `items` as `<task>.jsonl`; TOFU's text is written nowhere else."""
    with tempfile.TemporaryDirectory() as folder:
        for task, rows in items(
            profile.source, profile.template, tokenizer.bos_token, n_retain=profile.n_retain
        ).items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (Path(folder) / f"{task}.jsonl").write_text(lines, encoding="utf-8")
        yield folder


def measure(model, tokenizer, profile):
    """Return `capability.accuracy` on the profile's tasks: the embedded suite, or the paper's seven from the hub or, if
    set, from the folder `RKLU_CAPABILITY`. For published files (`benchmarks.folder_of`) each score has its numbers of
    rebuilt and omitted items. Raises FileNotFoundError if `RKLU_CAPABILITY` is no folder."""
    if profile.capability == "paper":
        tasks = capability.PAPER_TASKS
        named = os.environ.get("RKLU_CAPABILITY")
        if named and not Path(named).is_dir():
            raise FileNotFoundError(f"RKLU_CAPABILITY is {named}, which is no folder; it holds the published files")
        with benchmarks.folder_of(tasks, named or None) as (folder, counts):
            scores = capability.accuracy(model, tokenizer, tasks, folder, profile.n_items)
        return {task: scores[task] | counts.get(task, {}) for task in tasks}
    with folder_of(profile, tokenizer) as folder:
        return capability.accuracy(model, tokenizer, TASKS, folder, profile.n_items)
