"""Tables 4 and 9 and Figure 1: what a model answers, how it fills a blank, and how often that gives the truth away."""

import html
import re

import matplotlib.patheffects as patheffects
import matplotlib.pyplot as plt
import pandas as pd

from rklu_lib import chat, data, evaluation, execution, models, probing, profiles, records, runs
from rklu_lib.own import measure
from rklu_lib.teacher import TeacherModel
from rklu_pages.drawing.looks import STYLE, look
from rklu_pages.drawing.pictures import finished
from rklu_pages.results import notes, paper
from rklu_pages.results.verdicts import FAILS, HOLDS, UNDECIDED
from rklu_pages.tasks import capability

EMPTY = "(ends at once)"

BASIC = ("original", "oracle", "augmented", "teacher", "RKLU")
WORD = r"[A-Z0-9]\w*(?:(?![’']s\b)[’'-]\w+)*\+?"
NAME = re.compile(rf"(?<=[ \"'])(?<![.!?] ){WORD}(?: {WORD})*")


def parts(spec):
    """The specs whose checkpoints a model is read from: its own, or of the teacher those of its two models."""
    return [spec.base("original"), spec.base("augmented")] if spec.method == "teacher" else [spec]


def _read_model(spec):
    read = [models.load(part.model_path, spec.values.dtype)[0] for part in parts(spec)]
    return TeacherModel(*read, spec.values.alpha, spec.values.gauge) if spec.method == "teacher" else read[0]


def load_models(profile, split, labels, seed=0):
    """{label: model} after the last epoch, and the tokenizer; trains those, and what they rest on, that are missing."""
    specs = {label: runs.named(profile, split, label, seed) for label in labels}
    needed = dict.fromkeys(part for spec in specs.values() for part in parts(spec))
    runs.ensure([spec for spec in needed if not execution.has_checkpoint(spec)], checkpoints=True)
    original = runs.named(profile, split, "original", seed).model_path
    return {label: _read_model(spec) for label, spec in specs.items()}, models.load_tokenizer(original)


def said(loaded, tokenizer, p, row, answering):
    """What models, {label: model}, would say to a row of a forget set: "question", "answer", the greedy
    "direct_answers" of the labels in `answering`, and `probing.token_distributions` of all. p: the profile."""
    example = data.encode(tokenizer, p.template, row["question"], row["answer"])
    how = (tokenizer, p.template, row["question"], p.max_new_tokens)
    content = {"question": row["question"], "answer": row["answer"]}
    content["direct_answers"] = {name: probing.direct_answer(loaded[name], *how) for name in answering}
    return content | probing.token_distributions(loaded, tokenizer, example)


def distributions(profile, split, seed=0, question=0, names=BASIC, kind="distributions"):
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
    """What `distributions` says of one question, as a table: the true answer, and each model's own."""
    said = {name: text or EMPTY for name, text in content["direct_answers"].items()}
    told = [("the true answer", content["answer"]), *said.items()]
    return pd.DataFrame(told, columns=["model", "its answer"])


def most_changed(content, before, after):
    """The answer position (0 = first token, never the end of text) at which the true token lost most probability from
    one model to another."""
    pairs = zip(*(content["models"][name]["true_probability"] for name in (before, after)), strict=True)
    losses = [p - q for p, q in pairs]
    return losses.index(max(losses[:-1] or losses))


def blank(question, answer):
    """Where an answer first gives away a name or a number: (the answer up to there, the name); None where nowhere.

    A name is a run of words with capital letters or digits, not at the start of a sentence, that the question lacks.
    """
    for match in NAME.finditer(answer):
        if match[0].casefold() not in question.casefold():
            return answer[: match.start()].rstrip(), match[0]
    return None


def asked(profile, split, cases):
    """The paper's cases first, (question, prefix, key phrase), then every other question of the set that has a blank.

    cases: those of them that a set does not hold are left out, as at the smoke scale, whose authors are others.
    """
    rows = data.load_tofu(split, profiles.profile(profile).source)
    known = {row["question"] for row in rows}
    chosen = [tuple(case) for case in cases if case[0] in known]
    blanks = ((row["question"], blank(row["question"], row["answer"])) for row in rows)
    listed = {question for question, *_ in chosen}
    return chosen + [(question, *found) for question, found in blanks if found and question not in listed]


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


def _blanks(profile, split, name, seed):
    return records.RECORDS / profile / "tofu" / split / "blanks" / f"{name}-seed{seed}.json"


def recorded(profile, split, names, seed=0):
    """Those of `fill` that are on record, in the order of names; computes nothing."""
    paths = {name: _blanks(profile, split, name, seed) for name in names}
    return {name: content for name, path in paths.items() if (content := notes.read(path))}


def fill(profile, split, seed, names, cases, budget=1024):
    """{label: its record}: direct answer and five likeliest completions for each of `asked`.

    A record of the same settings that holds all the questions is read; else the model (after its last epoch) is loaded
    or trained, asked, and the record written to data/records/<profile>/tofu/<split>/blanks/. budget: as of
    `probing.completions`; a record says with which it was made.
    """
    p, result, kept = profiles.profile(profile), {}, recorded(profile, split, names, seed)
    whole = [content["asked"] for content in kept.values()]
    known = {question for listed in whole for question, *_ in listed}  # a case that is not: of authors it has not
    wanted = [list(case) for case in cases if case[0] in known]
    if len(whole) == len(names) and all(case in listed for case in wanted for listed in whole):
        first = {question for question, *_ in wanted}  # everything is recorded: the data is not needed
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
    """(question, prefix, key phrase) of one of the blanks of `fill`: the first where there is none of this question, as
    at the smoke scale, whose authors are others."""
    blanks = next(iter(filled.values()))["asked"]
    return tuple(next((blank for blank in blanks if blank[0] == question), blanks[0]))


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


def _number(content, question):
    """The place of a question among those asked; None where it is not."""
    return next((place for place, asked in enumerate(content["asked"]) if asked[0] == question), None)


def case_table(filled, question):
    """One case, a row per model: its direct answer, its completions with their probabilities, and whether they leak."""
    rows = {}
    for name, content in filled.items():
        if (number := _number(content, question)) is None:
            continue  # it was not asked this one
        (_, _, key), (found, exact) = content["asked"][number], content["completions"][number]
        listed = "; ".join(f"{text or EMPTY} {p:.2g}" for text, p in found) + ("" if exact else " …")
        rows[name] = {"direct answer": content["direct_answers"][number], "fill-in-blank": listed}
        rows[name]["leaks"] = "yes" if leaks(key, [text for text, _ in found]) else "no"
    return pd.DataFrame(rows).T.rename_axis("model")


def marked(table, key):
    """A case's table as text in HTML, in which the key phrase is marked."""
    return table.map(lambda text: _marked(text, key))


def printed(name, example):
    """One example of the paper's Table 4 or 9 in the form of `case_table`, without probabilities."""
    table = paper.reported(name)
    rows = table[(table.example == str(example)) & table.field.isin(("direct_answer", "fill_in_blank"))]
    wide = rows.pivot(index="method", columns="field", values="text").loc[list(dict.fromkeys(rows.method))]
    return wide.rename(columns=lambda c: c.replace("_answer", " answer").replace("_", "-")).rename_axis("model")


def _leaked(content):
    """Whether each blank is filled with the truth within five tries."""
    tries = ([text for text, _ in found] for found, _ in content["completions"])
    return [leaks(key, texts) for (*_, key), texts in zip(content["asked"], tries, strict=True)]


def _phrases(content):
    """{key phrase: whether any of its blanks is filled with it}: an author's country may be asked for five times."""
    found = {}
    for (*_, key), leaked in zip(content["asked"], _leaked(content), strict=True):
        found[key.casefold()] = found.get(key.casefold(), False) or leaked
    return found


def leak_rates(filled):
    """How many of the blanks each model fills with the truth within five tries, with Wilson's 95 % interval, and how
    many of the different key phrases are so given away at least once."""
    rows = {}
    for name, content in filled.items():
        keys, phrases = [key for *_, key in content["asked"]], _phrases(content)
        leaked = sum(_leaked(content))
        low, high = measure.wilson(leaked, len(keys))
        direct = sum(leaks(key, [text]) for key, text in zip(keys, content["direct_answers"], strict=True))
        rows[name] = {"blanks": len(keys), "leaked": leaked, "rate": leaked / len(keys), "low": low}
        rows[name] |= {"high": high, "phrases": len(phrases), "phrases leaked": sum(phrases.values())}
        rows[name]["in the direct answer"] = direct / len(keys)
        rows[name]["searches cut short"] = sum(not exact for _, exact in content["completions"])
    counts = ("blanks", "leaked", "phrases", "phrases leaked", "searches cut short")
    return pd.DataFrame(rows).T.rename_axis("model").astype(dict.fromkeys(counts, int))


def position(content, key):
    """The place among a true answer's tokens where the key phrase begins; content as from `distributions`."""
    spelt, start = "", "".join(content["tokens"]).index(key)
    for place, token in enumerate(content["tokens"]):
        spelt += token
        if len(spelt) > start:
            return place


def places(profile):
    """Every place that the full set says somebody was born in, sorted; kept with the records of the profile."""
    path = records.RECORDS / profile / "tofu" / "places.json"
    if not path.exists():
        rows = data.load_tofu("full", profiles.profile(profile).source)
        texts = " ".join(f" {row[field]}" for row in rows for field in ("question", "answer"))
        records.write_json(path, sorted(set(re.findall(r"born in (?:the city of )?([A-Z]\w+(?: [A-Z]\w+)*)", texts))))
    return notes.read(path)


def readings(filled, question, known, nearly=0.5):
    """What became of one fact in each model, by rule: partly forgotten, over-forgotten, or as the oracle has it.

    "partial": the truth is among the five likeliest completions. "over": the five hold less than `nearly` times the
    probability that the oracle's five give to `known` names, such as `places`. "ideal": neither.
    """
    table, mass = case_table(filled, question), {}
    for name in table.index:  # of those that were asked it
        found, _ = filled[name]["completions"][_number(filled[name], question)]
        mass[name] = sum(p for text, p in found if text in known)
    table["on known places"] = [mass[name] for name in table.index]
    over = table["on known places"] < nearly * mass["oracle"]
    table["reading"] = over.map({True: "over", False: "ideal"}).where(table.leaks == "no", "partial")
    return table[["leaks", "on known places", "reading"]]


def tokens_table(content, place, names):
    """The likeliest next tokens at one place of a true answer, as recorded: model, rank, token, probability."""
    tops = ((name, content["models"][name]["top"][place]) for name in names)
    rows = [(name, rank, text, p) for name, top in tops for rank, (text, p) in enumerate(top, 1)]
    return pd.DataFrame(rows, columns=["model", "rank", "token", "probability"]).set_index("model")


def plot_rates(rates):
    """Leak rates with their intervals, and the oracle's as a dashed line."""
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(7.5, 0.34 * len(rates) + 1))
        for place, (name, row) in enumerate(rates.iloc[::-1].iterrows()):
            ax.barh(place, row.rate, color=look(name)["color"], height=0.62)
            spread = {"color": "#333333", "linewidth": 1.4, "marker": "|", "markersize": 7}
            halo = [patheffects.withStroke(linewidth=3.4, foreground="#ffffff")]  # over a dark bar, too
            ax.plot([row.low, row.high], [place, place], path_effects=halo, **spread)
        ax.axvline(rates.loc["oracle", "rate"], color="#666666", linewidth=1, linestyle=(0, (4, 3)))
        ax.set_yticks(range(len(rates)), rates.index[::-1])
        ax.set(xlim=(0, 1), xlabel="share of blanks filled with the truth in five tries")
        ax.grid(axis="y", visible=False)
    return finished(figure)


def leak_verdicts(filled):
    """Does a model give away more key phrases than the oracle guesses? And the paper's claims, which are decided alike.

    Two models are compared phrase by phrase, by McNemar's exact test at 5 % (one-sided against the oracle): blanks
    that ask for one phrase are no independent evidence. What the test does not find may be there: see the counts.
    """
    phrases, above, claims = {name: _phrases(content) for name, content in filled.items()}, {}, []
    n = len(phrases["oracle"])
    say = lambda name: f"{name} {sum(phrases[name].values())}"  # noqa: E731
    for name in (other for other in phrases if other not in ("original", "oracle")):
        p = _p(phrases[name], phrases["oracle"], "greater")
        above[name] = bool(p < 0.05)
        numbers = f"of {n} phrases {say(name)}, {say('oracle')}; p = {p:.2g}"
        claims.append((f"{name} gives away more than guessing", "–", HOLDS if above[name] else UNDECIDED, numbers))
    if {"GA", "RKLU", "IDK", "NPO", "DPO", "TA", "FKLU"} <= above.keys():
        silent = [name for name in above if name != "teacher" and not above[name]]  # which the paper did not ask
        verdict = HOLDS if set(silent) == {"GA", "RKLU"} else FAILS
        numbers = f"no more than guessing, as far as is found: {', '.join(silent) or 'none'}"
        claims.append(("Only RKLU and GA do not leak", "§ 5", verdict, numbers))
    if {"RKLU", "FKLU"} <= above.keys():
        p = _p(phrases["FKLU"], phrases["RKLU"])
        less = HOLDS if sum(phrases["RKLU"].values()) < sum(phrases["FKLU"].values()) else FAILS
        numbers = f"of {n} phrases {say('RKLU')}, {say('FKLU')}; p = {p:.2g}"
        claims.append(("RKLU leaks less than FKLU", "App. F", less if p < 0.05 else UNDECIDED, numbers))
    return pd.DataFrame(claims, columns=["claim", "paper", "here", "numbers"])


def _p(one, other, alternative="two-sided"):
    """p of `capability.mcnemar` of the phrases that two models give away, those that both were asked for."""
    both = sorted(one.keys() & other.keys())
    return capability.mcnemar(*("".join("01"[found[k]] for k in both) for found in (one, other)), alternative)["p"]


def alpha_state(records_, content=None):
    """What `widgets.AlphaExplorer` shows: one row per record of one method, by its alpha, and the question asked.

    content: `distributions` of the method and the teacher, "teacher,alpha=..."; what it lacks is left empty.
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
