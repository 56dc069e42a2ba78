"""`rklu attack`: every probe on a model and on a reference that never saw the data, a table, and attack.json.

`prepare` reads and checks everything but the weights; `run` loads first the reference, then the model, and asks both
the same. Text is masked in the file unless asked for, as in a report of `own`.
"""

import datetime
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from rklu_lib import budget, chat, data, metrics, models, parallel, profiles, records
from rklu_lib.own import checkpoints, inputs
from rklu_lib.own.report import masked, plain
from rklu_lib.robustness import membership, memorisation, probes, relearning, rounding, sampling, tokens


@dataclass(frozen=True)
class Job:
    """All that is known before any weights are loaded. examples: {"forget", "holdout", "paraphrases", "assured",
    "unrelated", "right"} -> lists of `data.Example`; "wrong": a list of such lists. items: those of `forget`."""

    model: str
    reference: str | None
    out: Path
    tokenizer: object
    end: int
    items: list
    examples: dict
    files: dict
    skip: tuple[str, ...]
    samples: int
    sampled: int
    seed: int
    redact: bool
    notes: tuple[str, ...]


def prepare(model, forget, out, *, reference=None, holdout=(), profile="llama2-7b", template=None, samples=128,
            sampled=20, skip=(), seed=0, redact=True):  # fmt: skip
    """A `Job`, with everything read, tokenised and checked but the weights.

    model, reference: directories or hub ids. forget, holdout: files, hub data sets or rows, see `own.inputs.read`.
    out: the file to write. template: as of `own.unlearning.unlearn`. samples: answers drawn to each of `sampled`
    questions. skip: names of `PROBES`. Raises ValueError or OSError, in one line, naming what is wrong and the fix.
    """
    if parallel.processes() > 1:
        raise ValueError("a model is attacked by one process; start `rklu attack` without a launcher")
    if unknown := sorted(set(skip) - set(PROBES)):
        raise ValueError(f"no probe {', '.join(unknown)}; there are {', '.join(PROBES)}")
    if min(samples, sampled) < 1:
        raise ValueError(f"samples and sampled must be >= 1, not {samples} and {sampled}; --skip sampling draws none")
    out = Path(out)
    if out.exists() or not out.parent.is_dir():
        raise ValueError(f"{out} exists; name a new file" if out.exists() else f"{out.parent} is no folder; make it")
    corpora = {"forget": inputs.read(forget), "holdout": inputs.read(holdout)}
    if both := inputs.shared(*corpora.values()):
        raise ValueError(f"{len(both)} questions stand in both files, such as {min(both)!r} (--forget and --holdout)")
    config, tokenizer = checkpoints.configuration(model), models.load_tokenizer(model)
    if reference:
        checkpoints.configuration(reference)
        if models.load_tokenizer(reference).get_vocab() != tokenizer.get_vocab():
            raise ValueError(f"{reference} has another vocabulary than {model}: the same answer is other tokens to it")
    template = template or (chat.CHAT if tokenizer.chat_template else profiles.profile(profile).template)
    limit, end = models.context(config), chat.end_token(tokenizer, template)
    examples, items = {}, {}
    for name, corpus in corpora.items():
        examples[name], items[name] = inputs.encode(corpus, tokenizer, template, limit)
    examples["paraphrases"] = inputs.paraphrased(items["forget"], tokenizer, template)
    examples["assured"] = probes.assured(items["forget"], tokenizer, template)
    examples |= _rated(items["forget"], tokenizer, template)
    for name, found in examples.items():
        flat = found if name != "wrong" else [e for each in found for e in each]
        models.check_lengths(limit, flat, name, [i.where for i in items.get(name, ())])
    size = min(128, (limit or 129) - 1)
    prose = tokenizer(data.load_prose("test", "fictional"), add_special_tokens=False, verbose=False)["input_ids"]
    texts = [tuple(prose[at : at + size]) for at in range(0, len(prose) - size + 1, size)]
    examples["unrelated"] = [data.passage(tokenizer, t) for t in texts[: len(examples["forget"])]]
    needed = 4 * budget.parameters(config) * (2 if "relearning" in skip else 5)
    if needed > checkpoints.memory():
        fix = "take a larger machine" if "relearning" in skip else "--skip relearning needs two fifths"
        have = f"{needed / 1e9:.3g} GB, and there are {checkpoints.memory() / 1e9:.3g}"
        raise ValueError(f"weights in float32, a copy, its gradients and moments take {have}; {fix}")
    notes = [f"{n} (--{k})" for k, c in corpora.items() for n in (*c.notes, *inputs.unplaced(c, tokenizer, template))]
    files = {k: list(c.sources) for k, c in corpora.items() if c}
    return Job(model, reference, out, tokenizer, end, items["forget"], examples, files, tuple(skip), samples, sampled,
               seed, redact, tuple(notes))  # fmt: skip


def _rated(items, tokenizer, template):
    """{"right", "wrong"}: examples of TOFU's other answers, where every item has them and as many; else empty lists."""
    if not all(i.question and i.right for i in items) or {len(i.wrong) for i in items} - {len(items[0].wrong) or -1}:
        return {"right": [], "wrong": []}
    takes = chat.takes_system(tokenizer, template)
    one = lambda i, answer: data.encode(tokenizer, template, i.question, answer, i.system if takes else None)  # noqa: E731
    return {"right": [one(i, i.right) for i in items], "wrong": [[one(i, w) for w in i.wrong] for i in items]}


def _mean(values, seed):
    return float(np.mean(values)), *metrics.interval(np.mean, np.asarray(values, float), seed=seed)


def _memorisation(job, model, oracle):
    seen = tokens.answers(model, job.examples["forget"], job.end)
    values = {"answer probability": metrics.probability([a.nll for a in seen])}
    values["exact memorisation"] = [memorisation.exact_memorisation(a) for a in seen]
    values["extraction strength"] = [memorisation.extraction_strength(a) for a in seen]
    rows, ratios = {}, None
    if job.examples["right"]:
        nll = relearning.answer_nll(model, job.examples["right"], job.examples["wrong"])
        values["truth ratio, p / (p + p wrong)"], ratios = memorisation.truth_ratio(*nll), metrics.truth_ratio(*nll)
    rows |= {name: _mean(v, job.seed) for name, v in values.items()}
    if oracle is not None and ratios is not None:
        rows["forget quality (p)"] = metrics.forget_quality(ratios, oracle), None, None
    return rows, {"each": {k: list(v) for k, v in values.items()}, "truth_ratio": ratios}


def _membership(job, model, oracle):
    known = []
    for name in ("forget", "holdout"):
        examples = job.examples[name]
        texts = [job.tokenizer.decode(e.answer, skip_special_tokens=True) for e in examples]
        known.append(membership.scores(tokens.answers(model, examples, job.end), texts))
    rows = {}
    for name in membership.SCORES:
        pair = known[1][name], known[0][name]
        rows[f"AUC, {name}"] = metrics.auc(*pair), *metrics.interval(metrics.rank_auc, *pair, seed=job.seed)
    return rows, {}


def _questions(job, model, oracle):
    forget = job.examples["forget"]
    ways = {"asked": forget} | {f"{s:.0%} given": probes.prefixed(forget, job.end, s) for s in probes.SHARES}
    ways |= {"paraphrased": job.examples["paraphrases"], "“Sure, …”": job.examples["assured"]}
    rows = {}
    for name, examples in ways.items():
        found = probes.asked(model, job.tokenizer, examples, job.end) if examples else {}
        rows |= {f"{name}, {what}": _mean(v, job.seed) for what, v in found.items()}
    return rows, {}


def _sampling(job, model, oracle):
    places = np.random.default_rng(job.seed).permutation(len(job.items))[: job.sampled].tolist()
    items, n, words = [job.items[i] for i in places], job.samples, masked if job.redact else str
    asked = [job.examples["forget"][i] for i in places]  # a document is continued from its first half
    asked = [e if i.question else probes.prefixed([e], job.end, 0.5)[0] for e, i in zip(asked, items, strict=True)]
    truth = [job.tokenizer.decode(e.answer, skip_special_tokens=True).strip() for e in asked]
    drawn = sampling.draw(model, job.tokenizer, asked, job.end, n, job.seed)
    rouge = [sampling.rouge(texts, said) for texts, said in zip(drawn, truth, strict=True)]
    wanted = [i.secret or sampling.key(said) for i, said in zip(items, truth, strict=True)]
    hits = [sampling.leaks(texts, w) for texts, w in zip(drawn, wanted, strict=True)]
    rows = {"highest ROUGE-L": _mean([r.max() for r in rouge], job.seed)}
    rows["mean ROUGE-L"] = _mean([r.mean() for r in rouge], job.seed)
    rows["mean ROUGE-L, bound"] = float(np.mean([sampling.mean_bound(r) for r in rouge])), None, None
    for k in (k for k in sampling.TRIES if k <= n):
        rows[f"leak@{k}"] = _mean([sampling.leak_at(h, n, k) for h in hits], job.seed)
    leaking = sum(h > 0 for h in hits)
    rows["questions that leak"] = leaking / len(hits), *metrics.wilson(leaking, len(hits))
    each = [
        {"where": Path(i.where).name, "leaks": h, "of": n, "highest": r.max(), "mean": r.mean(),
         "one try": sampling.leak_interval(h, n, 1), "said": words(texts[int(r.argmax())])}
        for i, h, r, texts in zip(items, hits, rouge, drawn, strict=True)
    ]  # fmt: skip
    return rows, {"questions": each, "share above the highest, at most": sampling.unseen(n)}


def _rounding(job, model, oracle):
    found, names = rounding.rounded(model, job.examples["forget"], job.end), {"exact": "exact memorisation"}
    rows = {f"{kind}, {names.get(k, k)}": _mean(v, job.seed) for kind, s in found.items() for k, v in s.items()}
    return rows, {"schemes": rounding.SCHEMES}


def _relearning(job, model, oracle):
    forget, rows, curves = job.examples["forget"], {}, {}
    everything = list(range(len(forget)))
    plans = {f"{s:.0%} of it": relearning.split(len(forget), s, job.seed) for s in relearning.SHARES}
    taught = {name: [forget[i] for i in places] for name, (places, _) in plans.items()}
    taught["unrelated text"], plans["unrelated text"] = job.examples["unrelated"], (None, everything)
    for name, (_, rest) in plans.items():
        curve = relearning.relearn(model, taught[name], lambda m: _judged(job, m, rest, oracle), seed=job.seed)  # noqa: B023
        rows[f"{name}, probability"] = _mean(curve["probability"][-1], job.seed)
        if "forget quality" in curve:
            rows[f"{name}, forget quality (p)"] = curve["forget quality"][-1], None, None
        curve["probability"] = [float(p.mean()) for p in curve["probability"]]
        curves[name] = curve | {"taught": len(taught[name]), "asked": len(rest)}
    return rows, {"curves": curves, "rate": relearning.RATE, "batch": relearning.BATCH}


def _judged(job, model, rest, oracle):
    """What is asked while something is learnt again: the probability of the answers in `rest`, and their truth ratios
    against the reference's as it was."""
    found = {"probability": relearning.recall(model, [job.examples["forget"][i] for i in rest])}
    if oracle is not None and job.examples["right"]:
        right, wrong = ([job.examples[k][i] for i in rest] for k in ("right", "wrong"))
        ratios = metrics.truth_ratio(*relearning.answer_nll(model, right, wrong))
        found["forget quality"] = metrics.forget_quality(ratios, oracle[rest])
    return found


PROBES = {"memorisation": _memorisation, "membership": _membership, "questions": _questions, "sampling": _sampling,
          "rounding": _rounding, "relearning": _relearning}  # fmt: skip


def _probed(job, path, oracle, stage):
    """({probe: (rows, details, seconds)} of one model, the oracle's truth ratios; None: this model is the oracle)."""
    model, found = models.load(path, "float32")[0], {}
    models.check(model, job.examples["forget"], "forget")
    if oracle is None and path == job.reference and job.examples["right"]:
        oracle = metrics.truth_ratio(*relearning.answer_nll(model, job.examples["right"], job.examples["wrong"]))
    for name, probe in PROBES.items():
        if name in job.skip or (name == "membership" and not job.examples["holdout"]):
            continue
        stage(f"{Path(path).name}: {name}", None, 0)
        begun = time.perf_counter()
        found[name] = *probe(job, model, oracle), time.perf_counter() - begun
    return found, oracle


def run(job, on_stage=None):
    """Do a `Job`, write its file and return what that holds. on_stage(name, steps, done): told of each probe.

    rows: one per measure: {"probe", "measure", "value", "low", "high" (95 %), "reference": the same three, "distance":
    value - reference}; an AUC has "leakage" and "closeness" too, see `membership`. seconds: {probe: {"model",
    "reference"}}. details: what the probes note beside, "relearning" its curves. No row is a verdict by itself.
    """
    stage, oracle, sides = on_stage or (lambda *_: None), None, {}
    for side in ("reference", "model"):  # the reference first: its truth ratios are what the model's are held against
        if path := getattr(job, side):
            sides[side], oracle = _probed(job, path, oracle, stage)
    beside, rows = sides.get("reference", {}), []
    for probe, (measures, *_) in sides["model"].items():
        held = beside.get(probe, ({},))[0]
        rows += [_row(probe, name, value, held.get(name)) for name, value in measures.items()]
    content = plain({
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": records.machine(), "code": records.code_version(),
        "packages": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        **{side: {"name": Path(getattr(job, side)).name, "sha256": checkpoints.sha256(getattr(job, side))}
           for side in sides},
        "files": job.files, "notes": job.notes, "redacted": job.redact, "seed": job.seed,
        "samples": job.samples, "sampled": job.sampled, "rows": rows,
        "seconds": {p: {side: s[p][2] for side, s in sides.items()} for p in sides["model"]},
        "details": {side: {p: found[1] for p, found in s.items()} for side, s in sides.items()},
    })  # fmt: skip
    records.write_json(job.out, content)
    return content


def _row(probe, measure, value, held):
    three = lambda x: dict(zip(("value", "low", "high"), x, strict=True))  # noqa: E731
    row = {"probe": probe, "measure": measure, **three(value), "reference": held and three(held)}
    row["distance"] = value[0] - held[0] if held else None
    if held and probe == "membership":
        row |= {"leakage": membership.privacy_leakage(value[0], held[0])}
        row |= {"closeness": membership.closeness(value[0], held[0])}
    return row


def show(content):
    """The rows of `run` as a table for a terminal."""
    table = Table("probe", "measure", "model", "reference", "distance", "seconds", box=None)
    number = lambda x: "–" if x is None else f"{x:.3g}"  # noqa: E731
    bounds = lambda r: "" if r["low"] is None else f" [{number(r['low'])}, {number(r['high'])}]"  # noqa: E731
    spread = lambda r: number(r["value"]) + bounds(r)  # noqa: E731
    last = None
    for row in content["rows"]:
        first, last = row["probe"] != last, row["probe"]
        took = " + ".join(f"{s:.3g}" for s in content["seconds"][last].values()) if first else ""
        held = spread(row["reference"]) if row["reference"] else "–"
        cells = (last if first else "", row["measure"], spread(row), held, number(row["distance"]), took)
        table.add_row(*map(Text, cells))
    return table
