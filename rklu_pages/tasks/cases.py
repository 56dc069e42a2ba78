"""Tables 4 and 9: what models answer, and how they fill a blank in place of the name that an answer gives away."""

import html
import re

import pandas as pd

from rklu_lib import chat, data, evaluation, probing, profiles, records, runs
from rklu_pages.results import notes, paper
from rklu_pages.tasks.loading import load_models

EMPTY = "(ends at once)"
WORD = r"[A-Z0-9]\w*(?:(?![’']s\b)[’'-]\w+)*\+?"
NAME = re.compile(rf"(?<=[ \"'])(?<![.!?] ){WORD}(?: {WORD})*")


def blank(question, answer):
    """Return (the answer up to its first new name or number, this name), the blank to be filled; None without one.

    A name is a run of words with capital letters or digits, not at the start of a sentence, that the question lacks.
    """
    for match in NAME.finditer(answer):
        if match[0].casefold() not in question.casefold():
            return answer[: match.start()].rstrip(), match[0]
    return None


def giveaway(question, answer):
    """Return `blank` of a question. Raises ValueError where its answer gives no name or number away."""
    if not (found := blank(question, answer)):
        raise ValueError(f"the answer to {question!r} gives no name or number away; choose another question")
    return found


def asked(profile, split, cases):
    """Return (question, prefix, key phrase) of the paper's cases, then of every other question that has a blank.

    Cases that the forget set does not hold are left out, as at the smoke scale, which has other authors.
    """
    rows = data.load_tofu(split, profiles.profile(profile).source)
    known = {row["question"] for row in rows}
    chosen = [tuple(case) for case in cases if case[0] in known]
    blanks = ((row["question"], blank(row["question"], row["answer"])) for row in rows)
    listed = {question for question, *_ in chosen}
    return chosen + [(question, *found) for question, found in blanks if found and question not in listed]


def _blanks(profile, split, name, seed):
    return records.RECORDS / profile / "tofu" / split / "blanks" / f"{name}-seed{seed}.json"


def recorded(profile, split, names, seed=0):
    """Return the existing records of `fill`, in the order of `names`; compute nothing."""
    paths = {name: _blanks(profile, split, name, seed) for name in names}
    return {name: content for name, path in paths.items() if (content := notes.read(path))}


def fill(profile, split, seed, names, cases, budget=1024):
    """Return {label: record} with the direct answer and the five likeliest completions for each of `asked`.

    A record with the same settings and all the questions is read. Otherwise the model (after its last epoch) is loaded
    or trained, asked, and its record written to data/records/<profile>/tofu/<split>/blanks/. budget: as for
    `probing.completions`; a record says which budget it was made with.
    """
    p, result, kept = profiles.profile(profile), {}, recorded(profile, split, names, seed)
    whole = [content["asked"] for content in kept.values()]
    known = {question for listed in whole for question, *_ in listed}  # others: authors that this scale lacks
    wanted = [list(case) for case in cases if case[0] in known]
    if len(whole) == len(names) and all(case in listed for case in wanted for listed in whole):
        first = {question for question, *_ in wanted}  # all is recorded: no data needed
        questions = wanted + [entry for entry in whole[0] if entry[0] not in first]
        questions = [entry for entry in questions if all(entry in listed for listed in whole)]
    else:
        questions = list(map(list, asked(profile, split, cases)))
    for name in names:
        settings = runs.named(profile, split, name, seed).settings
        content = kept.get(name)
        if content and content["settings"] == settings and all(q in content["asked"] for q in questions):
            result[name] = content
            continue
        loaded, tokenizer = load_models(profile, split, [name], seed)
        model = loaded[name].eval()
        prompts = [data.encode_prompt(tokenizer, p.template, question) for question, *_ in questions]
        said = evaluation.greedy(model, prompts, p.max_new_tokens, chat.end_token(tokenizer, p.template))
        answers = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in said]
        how = (model, tokenizer, p.template)
        filled = [list(probing.fill_in_blank(*how, q, prefix, budget=budget)) for q, prefix, _ in questions]
        content = {"settings": settings, "asked": questions, "direct_answers": answers, "completions": filled}
        content |= {"budget": budget, "data": data.describe_source(p.source)}
        result[name] = notes.write(_blanks(profile, split, name, seed), content, indent=None)
    return result


def chosen(filled, question):
    """Return (question, prefix, key phrase) of this question among the blanks of `fill`. Where it is not among them, as
    at the smoke scale, print so and return the first. Raises ValueError for a question given by its place."""
    if isinstance(question, int):
        raise ValueError(f"question {question}: give the question's text, not its number")
    blanks = next(iter(filled.values()))["asked"]
    if (found := next((blank for blank in blanks if blank[0] == question), None)) is None:
        print(f"not among the blanks of this set: {question}\ninstead: {blanks[0][0]}")
    return tuple(found or blanks[0])


def gives_away(key, texts):
    """Return whether one of the texts contains the key phrase, in any case."""
    return any(key.casefold() in text.casefold() for text in texts)


def _marked(text, key):
    """Return a text as HTML with the first occurrence of the key phrase marked."""
    at = text.casefold().find(key.casefold())
    if at < 0:
        return html.escape(text)
    parts = text[:at], text[at : at + len(key)], text[at + len(key) :]
    return "{}<mark>{}</mark>{}".format(*map(html.escape, parts))


def _number(content, question):
    """Return the place of a question among the asked questions; None where it was not asked."""
    return next((place for place, asked in enumerate(content["asked"]) if asked[0] == question), None)


def case_table(filled, question):
    """Return one case, a row per model: direct answer, completions with probabilities, and whether they leak."""
    rows = {}
    for name, content in filled.items():
        if (number := _number(content, question)) is None:
            continue  # this model was not asked this question
        (_, _, key), (found, exact) = content["asked"][number], content["completions"][number]
        listed = "; ".join(f"{text or EMPTY} {p:.2g}" for text, p in found) + ("" if exact else " …")
        rows[name] = {"direct answer": content["direct_answers"][number], "fill-in-blank": listed}
        rows[name]["leaks"] = "yes" if gives_away(key, [text for text, _ in found]) else "no"
    return pd.DataFrame(rows).T.rename_axis("model")


def marked(table, key):
    """Return a table of `case_table` as HTML text with the key phrase marked."""
    return table.map(lambda text: _marked(text, key))


def printed(name, example):
    """Return one example of the paper's Table 4 or 9 in the form of `case_table`, without probabilities."""
    table = paper.reported(name)
    rows = table[(table.example == str(example)) & table.field.isin(("direct_answer", "fill_in_blank"))]
    wide = rows.pivot(index="method", columns="field", values="text").loc[list(dict.fromkeys(rows.method))]
    return wide.rename(columns=lambda c: c.replace("_answer", " answer").replace("_", "-")).rename_axis("model")


def places(profile):
    """Return all birthplaces named in the full set, sorted; they are kept with the records of the profile."""
    path = records.RECORDS / profile / "tofu" / "places.json"
    if not path.exists():
        rows = data.load_tofu("full", profiles.profile(profile).source)
        texts = " ".join(f" {row[field]}" for row in rows for field in ("question", "answer"))
        records.write_json(path, sorted(set(re.findall(r"born in (?:the city of )?([A-Z]\w+(?: [A-Z]\w+)*)", texts))))
    return notes.read(path)


def readings(filled, question, known, nearly=0.5):
    """Return for each model whether it forgot one fact partly, too much, or as the oracle, by a fixed rule.

    "partial": the truth is among the five likeliest completions. "over": these give `known` names, such as `places`,
    less than `nearly` times the probability that the oracle's five give them. "ideal": neither. "not told": neither,
    but the oracle's five contain no known name, so that "over" cannot be decided.
    """
    table, mass = case_table(filled, question), {}
    for name in table.index:  # the models that were asked this question
        found, _ = filled[name]["completions"][_number(filled[name], question)]
        mass[name] = sum(p for text, p in found if text in known)
    table["probability of known birthplaces"] = [mass[name] for name in table.index]
    over = table["probability of known birthplaces"] < nearly * mass["oracle"]
    neither = "ideal" if mass["oracle"] else "not told"
    table["reading"] = over.map({True: "over", False: neither}).where(table.leaks == "no", "partial")
    return table[["leaks", "probability of known birthplaces", "reading"]]
