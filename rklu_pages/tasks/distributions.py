"""Models' answers to one question of a forget set, as token distributions and in words (Figure 1, the explorer)."""

import re

import pandas as pd

from rklu_lib import data, probing, profiles, records, runs
from rklu_pages.results import notes
from rklu_pages.tasks.cases import EMPTY, blank
from rklu_pages.tasks.loading import load_models

BASIC = ("original", "oracle", "augmented", "teacher", "RKLU")


def said(loaded, tokenizer, p, row, answering):
    """Ask {label: model} the question in a forget set's row. Return "question", "answer", the greedy "direct_answers"
    of the labels in `answering`, and `probing.token_distributions` of all models. p: the profile."""
    example = data.encode(tokenizer, p.template, row["question"], row["answer"])
    how = (tokenizer, p.template, row["question"], p.max_new_tokens)
    content = {"question": row["question"], "answer": row["answer"]}
    content["direct_answers"] = {name: probing.direct_answer(loaded[name], *how) for name in answering}
    return content | probing.token_distributions(loaded, tokenizer, example)


def of(profile, split, seed=0, question=0, names=BASIC, kind="distributions"):
    """Return the answers of several models (labels as of `runs.named`, last epoch) to one question of a forget set.

    The result is as of `said`, with every model answering in words. It is read from its record if there is one;
    otherwise it is computed, the missing models are trained, and the record is written. question: place in the forget
    set, from 0. kind: the folder of the record. Raises ValueError for a place outside the forget set."""
    path = records.RECORDS / profile / "tofu" / split / kind / f"question{question}-seed{seed}.json"
    content = notes.read(path) or {"settings": {}}
    every = tuple(dict.fromkeys((*content["settings"], *names)))  # keep earlier models: another page may show them
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


def in_words(content, longest=200):
    """Return a table of the true answer and each model's own; content: as of `of`.

    Only for what is shown, an answer of more than `longest` characters is cut there and ends in " …", since a broken
    model says one word until its tokens are used up. The record keeps the whole, and so does longest=None."""
    told = {"the true answer": content["answer"]}
    told |= {name: text or EMPTY for name, text in content["direct_answers"].items()}
    cut = {name: text if text == text[:longest] else f"{text[:longest].rstrip()} …" for name, text in told.items()}
    return pd.DataFrame(cut.items(), columns=["model", "its answer"])


def divergences(contents, names):
    """Return each model's KL divergence to the oracle in nats, its mean over the tokens of a true answer: a row for
    each question, then one for their mean. contents: as of `of`; a model without a recorded divergence is left out."""
    rows = {}
    for content in contents:
        found = {name: content["models"][name].get("kl_to_oracle") for name in names if name != "oracle"}
        rows[content["question"]] = {name: sum(kl) / len(kl) for name, kl in found.items() if kl}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("question")
    return pd.concat([table, table.mean().to_frame("mean of these questions").T]).rename_axis("question")


def most_changed(content, before, *after):
    """Return the answer position (0 = first token, never the end of text) at which the true token lost the most
    probability from the model `before` to that model of `after` that gives it the most."""
    probability = {name: content["models"][name]["true_probability"] for name in (before, *after)}
    left = [max(kept) for kept in zip(*(probability[name] for name in after), strict=True)]
    losses = [p - q for p, q in zip(probability[before], left, strict=True)]
    return losses.index(max(losses[:-1] or losses))


def find(profile, split, question):
    """Return the place of a question in a forget set, or of the first question with a blank where the set lacks it.

    A recorded question is found without the data. A question given as a place is returned as it is.
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
    """Return the places (`find`) of the questions that are recorded or in the forget set; a small scale has fewer."""
    questions = [find(profile, split, question) for question in questions]
    folder = records.RECORDS / profile / "tofu" / split / "distributions"
    missing = [q for q in questions if not (folder / f"question{q}-seed{seed}.json").exists()]
    n = len(data.load_tofu(split, profiles.profile(profile).source)) if missing else 0
    return [q for q in questions if q not in missing or q < n]


def position(content, key):
    """Return the place among a true answer's tokens where the key phrase begins; content: as of `of`."""
    spelt, start = "", "".join(content["tokens"]).index(key)
    for place, token in enumerate(content["tokens"]):
        spelt += token
        if len(spelt) > start:
            return place


def tokens_table(content, place, names):
    """Return the recorded likeliest next tokens at one place of a true answer: model, rank, token, probability."""
    tops = ((name, content["models"][name]["top"][place]) for name in names)
    rows = [(name, rank, text, p) for name, top in tops for rank, (text, p) in enumerate(top, 1)]
    return pd.DataFrame(rows, columns=["model", "rank", "token", "probability"]).set_index("model")


def alpha_state(records_, content=None):
    """Return the state of `widgets.AlphaExplorer`: one row per record of one method, with its alpha, and the question.

    content: as of `of`, for the method and for "teacher,alpha=..."; models that it lacks are left out.
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
