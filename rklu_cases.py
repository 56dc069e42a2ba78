"""Tables 4 and 9 and Figure 1: what a model answers, how it fills a blank, and how often that gives the truth away."""

import html
import json
import re

import pandas as pd
from IPython.display import HTML
from scipy.stats import binomtest

from rklu_lib import data, evaluation, paper, probing, profiles, records, runs

EMPTY = "(ends at once)"


def asked(profile, split, cases):
    """The paper's cases first, (question, prefix, key phrase), then every question of the set that has a blank.

    cases: those of them that a set does not hold are left out, as at the smoke scale, whose authors are others.
    """
    rows = data.load_tofu(split, profiles.profile(profile).source)
    known = {row["question"] for row in rows}
    chosen = [tuple(case) for case in cases if case[0] in known]
    blanks = ((row["question"], probing.blank(row["question"], row["answer"])) for row in rows)
    return chosen + [(question, *found) for question, found in blanks if found]


def fill(profile, split, seed, names, cases):
    """{label: its record}: direct answer and five likeliest completions for each of `asked`.

    A record of the same settings and questions is read; else the model (after its last epoch) is loaded or trained,
    asked, and the record written to data/records/<profile>/tofu/<split>/blanks/.
    """
    questions = json.loads(json.dumps(asked(profile, split, cases)))
    folder, p, result = records.RECORDS / profile / "tofu" / split / "blanks", profiles.profile(profile), {}
    for name in names:
        path = folder / f"{name}-seed{seed}.json"
        key = json.loads(json.dumps({"settings": runs.named(profile, split, name, seed).settings, "asked": questions}))
        if path.exists() and key.items() <= (content := json.loads(path.read_text(encoding="utf-8"))).items():
            result[name] = content
            continue
        loaded, tokenizer = runs.load_models(profile, split, [name], seed)
        model = loaded[name].eval()
        prompts = [data.encode_prompt(tokenizer, p.template, question) for question, *_ in questions]
        said = evaluation.greedy(model, prompts, p.max_new_tokens, tokenizer.eos_token_id)
        answers = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in said]
        filled = [list(probing.fill_in_blank(model, tokenizer, p.template, q, prefix)) for q, prefix, _ in questions]
        origin = {"data": data.describe_source(p.source), "code": records.code_version(), "machine": records.machine()}
        result[name] = key | {"direct_answers": answers, "completions": filled} | origin
        records.write_json(path, result[name], indent=None)
    return result


def leaks(key, texts):
    """Does one of these texts hold the key phrase?"""
    return any(key.casefold() in text.casefold() for text in texts)


def _marked(text, key):
    """HTML in which the key phrase is marked."""
    at = text.casefold().find(key.casefold())
    if at < 0:
        return html.escape(text)
    parts = text[:at], text[at : at + len(key)], text[at + len(key) :]
    return "{}<mark>{}</mark>{}".format(*map(html.escape, parts))


def case_table(filled, number):
    """One case, a row per model: its direct answer, its completions with their probabilities, and whether they leak."""
    rows = {}
    for name, content in filled.items():
        (_, _, key), (found, exact) = content["asked"][number], content["completions"][number]
        listed = "; ".join(f"{text or EMPTY} {p:.2g}" for text, p in found) + ("" if exact else " …")
        rows[name] = {"direct answer": content["direct_answers"][number], "fill-in-blank": listed}
        rows[name]["leaks"] = "yes" if leaks(key, [text for text, _ in found]) else "no"
    return pd.DataFrame(rows).T.rename_axis("model")


def shown(table, key, caption):
    """A case's table as HTML: cells wrap, the key phrase is marked."""
    head = "".join(f"<th>{html.escape(c)}</th>" for c in [table.index.name, *table])
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{_marked(v, key)}</td>" for v in row) + "</tr>"
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    )
    table = f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return HTML(f'<table class="dataframe rk-cases">{table}</table>')


def printed(name, example):
    """One example of the paper's Table 4 or 9 in the form of `case_table`, without probabilities."""
    table = paper.reported(name)
    rows = table[(table.example == str(example)) & table.field.isin(("direct_answer", "fill_in_blank"))]
    wide = rows.pivot(index="method", columns="field", values="text").loc[list(dict.fromkeys(rows.method))]
    return wide.rename(columns=lambda c: c.replace("_answer", " answer").replace("_", "-")).rename_axis("model")


def leak_rates(filled):
    """How many of the blanks each model fills with the truth within five tries, with Wilson's 95 % interval."""
    rows = {}
    for name, content in filled.items():
        keys = [key for *_, key in content["asked"]]
        tries = [[text for text, _ in found] for found, _ in content["completions"]]
        leaked = sum(map(leaks, keys, tries))
        interval = binomtest(leaked, len(keys)).proportion_ci(method="wilson")
        direct = sum(leaks(key, [text]) for key, text in zip(keys, content["direct_answers"], strict=True))
        rows[name] = {"blanks": len(keys), "leaked": leaked, "rate": leaked / len(keys), "low": interval.low}
        rows[name] |= {"high": interval.high, "in the direct answer": direct / len(keys)}
        rows[name]["searches cut short"] = sum(not exact for _, exact in content["completions"])
    return pd.DataFrame(rows).T.rename_axis("model").astype({"blanks": int, "leaked": int, "searches cut short": int})


def position(content, key):
    """The place among a true answer's tokens where the key phrase begins; content as from `runs.distributions`."""
    spelt, start = "", "".join(content["tokens"]).index(key)
    for place, token in enumerate(content["tokens"]):
        spelt += token
        if len(spelt) > start:
            return place


def places(profile):
    """Every place that the full set says somebody was born in."""
    rows = data.load_tofu("full", profiles.profile(profile).source)
    texts = " ".join(f" {row[field]}" for row in rows for field in ("question", "answer"))
    return set(re.findall(r"born in (?:the city of )?([A-Z]\w+(?: [A-Z]\w+)*)", texts))


def readings(filled, number, known, nearly=0.5):
    """What became of one fact in each model, by rule: partly forgotten, over-forgotten, or as the oracle has it.

    "partial": the truth is among the five likeliest completions. "over": the five hold less than `nearly` times the
    probability that the oracle's five give to `known` names, such as `places`. "ideal": neither.
    """
    table = case_table(filled, number)
    mass = {n: sum(p for text, p in c["completions"][number][0] if text in known) for n, c in filled.items()}
    table["on known places"] = [mass[name] for name in table.index]
    over = table["on known places"] < nearly * mass["oracle"]
    table["reading"] = over.map({True: "over", False: "ideal"}).where(table.leaks == "no", "partial")
    return table[["leaks", "on known places", "reading"]]
