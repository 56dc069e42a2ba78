"""`rklu attack`: run every probe on a model and on a reference that never saw the data; write all results as JSON.

`prepare` reads and checks everything but the weights. `run` loads the reference, then the model, and asks both the
same. Texts in the file are masked unless `redact` is False, as in a report of `own`.
"""

import contextlib
import datetime
import hashlib
import os
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from rklu_lib import budget, chat, data, metrics, models, parallel, profiles, records
from rklu_lib.files import DamagedError, read_json
from rklu_lib.own import checkpoints, inputs, jobs
from rklu_lib.own.report import plain
from rklu_lib.robustness import exchange, membership, probes, relearning, rows
from rklu_lib.teacher import TeacherModel


@dataclass(frozen=True)
class Job:
    """An attack, prepared but without weights. known: content of the reference's attack file, if `reference` is a file.
    examples: {"forget", "holdout", "paraphrases", "assured", "unrelated", "right"} -> lists of `data.Example`; "wrong":
    a list of lists. items: the `own.inputs.Item` of each forget example. end: token that closes an answer. how: what
    two comparable attacks must share: files, template, a digest of the examples, seed, samples, sampled, precision.
    teacher: what `TeacherModel` takes beside the model; empty if the model itself is attacked."""

    model: str
    reference: str | None
    known: dict | None
    out: Path
    tokenizer: object
    end: int
    items: list
    examples: dict
    how: dict
    probes: tuple[str, ...]
    seed: int
    redact: bool
    notes: tuple[str, ...]
    teacher: tuple


def prepare(model, forget, out, *, reference=None, holdout=(), profile="llama2-7b", template=None, samples=128,
            sampled=20, skip=(), seed=0, redact=True, augmented=None):  # fmt: skip
    """Return a `Job`: read, tokenise and check everything but the weights.

    model, reference: folders or hub ids; or for reference the file of an earlier attack on it, to save the repetition.
    forget, holdout: files, hub data sets or rows, see `own.inputs.read`. out: the file to write. profile: its precision
    ("bf16": under autocast, from weights in float32) and, where a tokenizer has none, its template. template: as for
    `own.unlearning.unlearn`. samples: number of answers drawn for each of `sampled` questions, chosen at random.
    skip: names in `robustness.PROBES`. redact: mask texts in the file. augmented: attack the teacher (Eq. 1) of `model`
    and this, at the profile's alpha and gauge, by all probes that change no weights. Raises ValueError or OSError."""
    if parallel.processes() > 1:
        raise ValueError("a model is attacked by one process; start `rklu attack` without a launcher")
    skip = [*([skip] if isinstance(skip, str) else skip), *(rows.MOVING if augmented else ())]
    if unknown := sorted(set(skip) - set(rows.PROBES)):
        raise ValueError(f"no probe {', '.join(unknown)}; there are {', '.join(rows.PROBES)}")
    profiles.check_seed(seed)
    if min(samples, sampled) < 1:
        raise ValueError(f"samples and sampled must be >= 1, not {samples} and {sampled}; --skip sampling draws none")
    out = Path(out).expanduser()
    if out.exists() or not os.access(out.parent, os.W_OK):
        there = f"{out.parent} is no folder that can be written to; name another file in --out"
        fix = "name a new file or remove it; a model's report includes its folder's attack.json only"
        raise ValueError(f"{out} exists; {fix}" if out.exists() else there)
    corpora = {"forget": inputs.read(forget), "holdout": inputs.read(holdout)}
    inputs.check_apart(corpora)
    files = {k: list(c.sources) for k, c in corpora.items() if c}
    asked = [p for p in rows.PROBES if p not in skip and (p != "membership" or holdout)]
    if not asked:
        raise ValueError("no probe is left: membership needs --holdout, and --skip leaves out the others")
    remembered = bool(reference) and Path(reference).is_file()
    configs = {p: checkpoints.configuration(p) for p in (model, None if remembered else reference) if p}
    config, tokenizer = configs[model], models.load_tokenizer(model)
    if reference and not remembered:
        models.check_vocabulary(reference, model, tokenizer)
    p = profiles.profile(profile)
    template, unsure = jobs.prompts(model, tokenizer, template, p)
    profiles.profile(profile, template=template)  # raises ValueError for an invalid template
    if {"questions", "sampling"} & set(asked):
        checkpoints.check_cache(config, "--skip questions --skip sampling")
    limit, end = min(map(models.context, configs.values())), chat.end_token(tokenizer, template)
    examples, items = {}, {}
    for name, corpus in corpora.items():
        examples[name], items[name] = inputs.encode(corpus, tokenizer, template, limit)
    examples["paraphrases"] = inputs.paraphrased(items["forget"], tokenizer, template)
    examples["assured"] = probes.assured(items["forget"], tokenizer, template)
    examples |= _rated(items["forget"], tokenizer, template)
    unsure += _doubts(items)
    for name in ("paraphrases", "assured"):  # longer than the forget set's own: some may not fit
        fitting = [e for e in examples[name] if len(e) <= limit]
        if left := len(examples[name]) - len(fitting):
            unsure += (f"{left} {name} are longer than the model reads",)
        examples[name] = fitting
    places = {name: [i.where for i in found] for name, found in items.items()}
    places |= {"right": places["forget"], "wrong": [i.where for i in items["forget"] for _ in i.wrong]}
    for name, found in examples.items():
        flat = found if name != "wrong" else [e for each in found for e in each]
        models.check_lengths(limit, flat, name, places.get(name, ()))
        highest = max((max(e.prompt + e.answer) for e in flat), default=0)
        for path, size in ((p, c.get_text_config().vocab_size) for p, c in configs.items()):
            if highest >= size and not models.adapter_base(path):  # an adapter may add tokens of its own
                what = f"has {size} tokens, and its tokenizer gives number {highest}"
                raise ValueError(f"{path} {what}: weights and tokenizer are not of one model")
    size = min(128, limit - 1)
    prose = tokenizer(data.load_prose("test", "fictional"), add_special_tokens=False, verbose=False)["input_ids"]
    texts = [tuple(prose[at : at + size]) for at in range(0, len(prose) - size + 1, size)]
    examples["unrelated"] = [data.passage(tokenizer, t) for t in texts[: len(examples["forget"])]]
    how = {"files": files, "template": template, "examples": hashlib.sha256(repr(examples).encode()).hexdigest()[:16]}
    how |= {"seed": seed, "samples": samples, "sampled": sampled, "precision": p.precision}
    known = _known(reference, asked, how) if remembered else None
    needed = 4 * max(map(budget.parameters, configs.values())) * (2 if "relearning" in skip else 5)
    if needed > checkpoints.memory():
        fix = "take a larger machine" if "relearning" in skip else "--skip relearning needs two fifths"
        have = f"{needed / 1e9:.3g} GB, and {checkpoints.memory() / 1e9:.3g} are free"
        raise ValueError(f"weights in float32, a copy, its gradients and moments take {have}; {fix}")
    notes = [*unsure]
    notes += [f"{n} (--{k})" for k, c in corpora.items() for n in (*c.notes, *inputs.unplaced(c, tokenizer, template))]
    return Job(model, reference, known, out, tokenizer, end, items["forget"], examples, how, tuple(asked), seed,
               redact, tuple(notes), (augmented, p.alpha, p.gauge) if augmented else ())  # fmt: skip


def _known(path, asked, how):
    """Read the file of an attack on the reference. Raises ValueError unless its probes and settings are the same."""
    own = "name what `rklu attack` wrote of the reference, or the reference itself"
    content = read_json(path, own)
    if not isinstance(content, dict) or not {"rows", "seconds", "details"} <= content.keys():
        raise ValueError(f"{path} was not written by `rklu attack`; {own}")
    again = "attack the reference again as you attack this, or name the reference itself"
    older = {"precision": "no"}  # what files of before it was noted had; they note neither template nor examples
    for name, value in how.items():
        if content.setdefault(name, older.get(name, plain(value))) != plain(value):
            raise ValueError(f"{path} was made with {name} {data.shortened(content[name])}; {again}")
    if lacking := [p for p in asked if p not in content["seconds"]]:
        raise ValueError(f"{path} has nothing of {', '.join(lacking)}; {again}")
    return content


def _unrated(items):
    """Return the first item without question or paraphrased answer or with fewer wrong answers than others, or None."""
    most = max(1, *(len(i.wrong) for i in items))
    return next((i for i in items if not (i.question and i.right) or len(i.wrong) < most), None)


def _rated(items, tokenizer, template):
    """Return {"right", "wrong"}, examples of TOFU's other answers; both empty unless every item has equally many."""
    if _unrated(items):
        return {"right": [], "wrong": []}
    one = lambda i, answer: data.encode(tokenizer, template, i.question, answer, i.system)  # noqa: E731
    return {"right": [one(i, i.right) for i in items], "wrong": [[one(i, w) for w in i.wrong] for i in items]}


def _doubts(items):
    """Return warnings, most with file and row: secrets that their own answer does not contain, answers unfit for a
    truth ratio, and a holdout of documents beside a forget set of pairs, or the reverse."""
    forget, notes = items["forget"], inputs.unsaid(items["forget"])
    if any(i.right or i.wrong for i in forget) and (odd := _unrated(forget)):
        what = "fields 'paraphrased_answer' and 'perturbed_answer', as many in every row, make truth ratios"
        notes += (f"{Path(odd.where).name}: {what}; none is taken",)
    if items["holdout"] and {bool(i.question) for i in forget} != {bool(i.question) for i in items["holdout"]}:
        notes += ("pairs and documents are held against each other: membership may tell these apart",)
    return notes


def _probed(job, side, oracle, kept, stage):
    """Run the probes on one side, "model" or "reference". Return ({probe: (rows, details, seconds)}, truth ratios).

    oracle: the reference's truth ratios; they are computed and returned where `side` is the reference. kept: (file,
    identity of this attack, {side: results from before an interruption}). New results go into the file and the dict."""
    (part, asked, begun), path = kept, getattr(job, side)
    model, found = models.load(path, "float32")[0], begun.setdefault(side, {})
    if side == "model" and job.teacher:
        model = TeacherModel(model, models.load(job.teacher[0], "float32")[0], *job.teacher[1:])
    models.check(model, job.examples["forget"], "forget")
    scoring = lambda: models.autocast(model.device.type, job.how["precision"])  # noqa: E731
    if oracle is None and path == job.reference and job.examples["right"]:
        with scoring():
            nll = relearning.answer_nll(model, job.examples["right"], job.examples["wrong"])
        oracle = metrics.truth_ratio(*nll)
    for name in (n for n in job.probes if n not in found):
        stage(f"{Path(path).name}: {name}", None, 0)
        started = time.perf_counter()
        with contextlib.nullcontext() if name in rows.MOVING else scoring():
            measures, details = rows.PROBES[name](job, model, oracle)
        found[name] = measures, plain(details), time.perf_counter() - started
        records.write_json(part, {"asked": asked, "found": begun})
    return {name: found[name] for name in job.probes}, oracle


def _begun(part, asked):
    """Return the results that `_probed` kept in a file, if that attack had the same identity and code; else {}."""
    with contextlib.suppress(FileNotFoundError, DamagedError, TypeError):
        content = read_json(part)
        return content["found"] if content["asked"] == asked else {}
    return {}


def _remembered(job):
    """Return what `_probed` would return for the reference, from the file of an earlier attack on it."""
    known, found = job.known, {}
    for name in job.probes:
        values = {r["measure"]: (r["value"], r["low"], r["high"]) for r in known["rows"] if r["probe"] == name}
        found[name] = values, known["details"]["model"][name], known["seconds"][name]["model"]
    ratios = known["details"]["model"].get("memorisation", {}).get("truth_ratio")
    return found, None if ratios is None else np.array([np.inf if r is None else r for r in ratios])


def run(job, on_stage=None):
    """Do a `Job`, write its file and return the file's content. on_stage(name, steps, done) is called for each probe.
    The results of an interrupted attack are kept in `<out>.part`; the same attack continues from there.

    rows: one per measure: {"probe", "measure", "value", "low", "high" (95 %), "reference": the same three or None,
    "distance": value - reference, "p": of `exchange.p_values` or None}. With a reference an AUC also has "leakage" and
    "closeness" (`membership`); a row of relearning has a "lesson" (`_lesson`).
    seconds: {probe: {"model", "reference"}}. details: further results by probe.
    Raises ValueError where the reference has the model's weights, or another process is making the file. No row is a
    verdict by itself."""
    stage, oracle, sides = on_stage or (lambda *_: None), None, {}
    paths = {"model": job.model} | ({"reference": job.reference} if job.reference and not job.known else {})
    folders = {s: Path(p).resolve() if Path(p).is_dir() else Path(p) for s, p in paths.items()}
    identity = {s: {"name": folders[s].name, "sha256": checkpoints.sha256(paths[s])} for s in paths}
    identity |= {"reference": job.known["model"]} if job.known else {}
    identity |= {"teacher": (checkpoints.sha256(job.teacher[0]), *job.teacher[1:])} if job.teacher else {}
    alike = folders["model"] == folders.get("reference") and not job.teacher  # no probe is run twice
    if not alike and (own := identity["model"]["sha256"]) and own == identity.get("reference", {}).get("sha256"):
        raise ValueError(f"{job.reference} has the weights of {job.model} itself; name a model that never saw the data")
    asked = plain({
        **identity, "code": records.code_version(), "machine": records.machine(), **job.how, "redacted": job.redact,
    })  # fmt: skip
    with jobs.alone(job.out):
        part = job.out.with_name(f"{job.out.name}.part")
        kept = part, asked, _begun(part, asked)
        if job.known:
            sides["reference"], oracle = _remembered(job)
        elif job.reference:  # first, since the forget quality needs its truth ratios
            sides["reference"], oracle = _probed(job, "reference", None, kept, stage)
        sides["model"] = sides["reference"] if alike else _probed(job, "model", oracle, kept, stage)[0]
        details = plain({side: {p: found[1] for p, found in s.items()} for side, s in sides.items()})
        beside, measured, told = sides.get("reference", {}), [], exchange.p_values(details)
        for probe, (measures, noted, _) in sides["model"].items():
            held, others, _ = beside.get(probe, ({}, {}, None))
            found = [_row(probe, n, v, held.get(n)) | {"p": told.get((probe, n))} for n, v in measures.items()]
            curves = [d["curves"] for d in (noted, others) if "curves" in d]
            measured += [row | ({"lesson": _lesson(row["measure"], curves)} if curves else {}) for row in found]
        content = plain({
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), **asked,
            "packages": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
            "notes": job.notes, "rows": measured,
            "seconds": {p: {side: s[p][2] for side, s in sides.items()} for p in sides["model"]},
            "details": details,
        })  # fmt: skip
        records.write_json(job.out, content)
        part.unlink(missing_ok=True)
    return content


def _row(probe, measure, value, held):
    three = lambda x: dict(zip(("value", "low", "high"), x, strict=True))  # noqa: E731
    row = {"probe": probe, "measure": measure, **three(value), "reference": held and three(held)}
    row["distance"] = value[0] - held[0] if held else None
    if held and probe == "membership":
        row |= {"leakage": membership.privacy_leakage(value[0], held[0])}
        row |= {"closeness": membership.closeness(value[0], held[0])}
    return row


def _lesson(measure, curves):
    """Return a row of relearning in words: the numbers of answers taught and asked, and the asked answers' value before
    it, in the model and in the reference: "2 taught, 8 asked; before 0.631, 0.0427"."""
    name, _, what = measure.rpartition(", ")
    before = ", ".join(f"{c[name][what.removesuffix(' (p)')][0]:.3g}" for c in curves)
    return f"{curves[0][name]['taught']} taught, {curves[0][name]['asked']} asked; before {before}"


def show(content):
    """Return the rows of `run` as a table for a terminal."""
    table = Table("probe", "measure", "model", "reference", "distance", "p", "leakage, %", "seconds", box=None)
    number = lambda x: "–" if x is None else f"{x:.3g}"  # noqa: E731
    bounds = lambda r: "" if r["low"] is None else f" [{r['low']:.2g}, {r['high']:.2g}]"  # noqa: E731
    spread = lambda r: number(r["value"]) + bounds(r)  # noqa: E731
    last = None
    for row in map(dict, content["rows"]):
        row["measure"] += f"\n{row['lesson']}" if row.get("lesson") else ""
        first, last = row["probe"] != last, row["probe"]
        took = " + ".join(f"{s:.{s < 10:d}f}" for s in content["seconds"][last].values()) if first else ""
        held = spread(row["reference"]) if row["reference"] else "–"
        leaks = number(row["leakage"]) if "leakage" in row else ""
        told = (number(row["distance"]), number(row.get("p")))
        cells = (last if first else "", row["measure"], spread(row), held, *told, leaks, took)
        table.add_row(*map(Text, cells))
    return table
