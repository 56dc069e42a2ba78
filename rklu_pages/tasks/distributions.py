"""What models would say to one question of a forget set, token by token and in words; Figure 1, the explorer."""

import re

import pandas as pd

from rklu_lib import data, probing, profiles, records, runs
from rklu_pages.results import notes
from rklu_pages.tasks.cases import EMPTY, blank
from rklu_pages.tasks.loading import load_models

BASIC = ("original", "oracle", "augmented", "teacher", "RKLU")


def said(loaded, tokenizer, p, row, answering):
    """What models, {label: model}, would say to a row of a forget set: "question", "answer", the greedy
    "direct_answers" of the labels in `answering`, and `probing.token_distributions` of all. p: the profile."""
    example = data.encode(tokenizer, p.template, row["question"], row["answer"])
    how = (tokenizer, p.template, row["question"], p.max_new_tokens)
    content = {"question": row["question"], "answer": row["answer"]}
    content["direct_answers"] = {name: probing.direct_answer(loaded[name], *how) for name in answering}
    return content | probing.token_distributions(loaded, tokenizer, example)


def of(profile, split, seed=0, question=0, names=BASIC, kind="distributions"):
    """What several models (labels as of `named`, after their last epoch) would say to one question of a forget set.

    Returns the recorded `probing.token_distributions` with the "question", the true "answer" and each model's greedy
    "direct_answers"; computes it, and the models, where it is not recorded yet. kind: the folder of such records.
    """
    path = records.RECORDS / profile / "tofu" / split / kind / f"question{question}-seed{seed}.json"
    content = notes.read(path) or {"settings": {}}
    every = tuple(dict.fromkeys((*content["settings"], *names)))  # another page may show what was asked before
    settings = {name: runs.named(profile, split, name, seed).settings for name in every}
    if all(content["settings"].get(name) == settings[name] for name in names):
        return content
    p = profiles.profile(profile)
    rows = data.load_tofu(split, p.source)
    if not 0 <= question < len(rows):
        raise ValueError(f"question {question}: {split} has those from 0 to {len(rows) - 1}")
    row = rows[question]
    content = said(*load_models(profile, split, every, seed), p, row, every)
    return notes.write(path, content | {"settings": settings, "data": data.describe_source(p.source)}, indent=None)


def in_words(content):
    """What `of` says of one question, as a table: the true answer, and each model's own."""
    said = {name: text or EMPTY for name, text in content["direct_answers"].items()}
    told = [("the true answer", content["answer"]), *said.items()]
    return pd.DataFrame(told, columns=["model", "its answer"])


def most_changed(content, before, after):
    """The answer position (0 = first token, never the end of text) at which the true token lost most probability from
    one model to another."""
    pairs = zip(*(content["models"][name]["true_probability"] for name in (before, after)), strict=True)
    losses = [p - q for p, q in pairs]
    return losses.index(max(losses[:-1] or losses))


def find(profile, split, question):
    """The place of a question in a forget set; of the first question that has a blank where the set lacks it.

    A recorded question is found without the data; a place is what it is.
    """
    if isinstance(question, int):
        return question
    for path in sorted((records.RECORDS / profile / "tofu" / split / "distributions").glob("question*-seed*.json")):
        if notes.read(path)["question"] == question:
            return int(re.match(r"question(\d+)-", path.name)[1])
    rows = data.load_tofu(split, profiles.profile(profile).source)
    first = next(i for i, row in enumerate(rows) if blank(row["question"], row["answer"]))
    return next((i for i, row in enumerate(rows) if row["question"] == question), first)


def held(profile, split, seed, questions):
    """Those of the questions, as of `find`, that are recorded or that the forget set has: a smaller scale has fewer."""
    questions = [find(profile, split, question) for question in questions]
    folder = records.RECORDS / profile / "tofu" / split / "distributions"
    missing = [q for q in questions if not (folder / f"question{q}-seed{seed}.json").exists()]
    n = len(data.load_tofu(split, profiles.profile(profile).source)) if missing else 0
    return [q for q in questions if q not in missing or q < n]


def position(content, key):
    """The place among a true answer's tokens where the key phrase begins; content: as of `of`."""
    spelt, start = "", "".join(content["tokens"]).index(key)
    for place, token in enumerate(content["tokens"]):
        spelt += token
        if len(spelt) > start:
            return place


def tokens_table(content, place, names):
    """The likeliest next tokens at one place of a true answer, as recorded: model, rank, token, probability."""
    tops = ((name, content["models"][name]["top"][place]) for name in names)
    rows = [(name, rank, text, p) for name, top in tops for rank, (text, p) in enumerate(top, 1)]
    return pd.DataFrame(rows, columns=["model", "rank", "token", "probability"]).set_index("model")


def alpha_state(records_, content=None):
    """What `widgets.AlphaExplorer` shows: one row per record of one method, by its alpha, and the question asked.

    content: as `distributions.of` the method and the teacher, "teacher,alpha=..."; what it lacks is left empty.
    """
    rows, content = [], content or {"models": {}, "direct_answers": {}}
    for record in records_:
        name, method, best = record.spec.label, record.spec.method, record.reported()
        models = {"teacher": name.replace(method, "teacher", 1), method: name}
        row = {key: best[key] for key in ("epoch", "model_utility")} | {"alpha": record.spec.values.alpha}
        row |= {"forget_quality": best["forget_quality_benchmark"], "answer": content["direct_answers"].get(name)}
        row["models"] = {k: content["models"][v] for k, v in models.items() if v in content["models"]}
        rows.append(row)
    return {"rows": rows} | {key: content[key] for key in ("question", "answer", "tokens") if key in content}
