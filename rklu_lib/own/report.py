"""What an unlearning leaves beside its weights: report.json, report.html from it, and a model card.

Forgotten text, and whatever the model said of it, is masked unless it is asked for: a report that quotes the data
defeats its purpose. `write` makes the page from report.json alone, so it can be made again.
"""

import datetime
import html
import json
from importlib.metadata import version
from pathlib import Path

import jinja2
import numpy as np
from huggingface_hub import ModelCard, ModelCardData

from rklu_lib import budget, data, files, metrics, records
from rklu_lib.own import measure
from rklu_lib.robustness import PROBES

ASSETS = Path(__file__).with_name("assets")
TEMPLATES = {"loader": jinja2.FileSystemLoader(ASSETS), "undefined": jinja2.StrictUndefined}
MASK, OTHER = "███", "•••"
COLOURS = {"original": "#444444", "unlearned": "#0072B2"}
SETTINGS = ("template", "dtype", "batch_size", "micro_batch_size", "augment_epochs", "augment_lr", "unlearn_epochs")
SETTINGS += ("unlearn_lr", "family_lr", "alpha", "gauge", "retain_weight", "npo_beta", "dpo_beta", "weight_decay")
SETTINGS += ("simnpo_beta", "undial_beta", "wga_beta", "js_beta", "rmu_steering", "lora_rank", "precision")
SETTINGS += ("max_grad_norm",)
_SCRIPTS = ("parts.js", "token_distributions.js")


def masked(text):
    """Text with every word masked alike, so that neither words nor their lengths can be read."""
    return " ".join(MASK for _ in (text or "").split())


def content(job, found):
    """The report of a finished `jobs.Job`, all that the page shows. found: what `unlearning.run` measured."""
    before, after, forget = found["before"], found["after"], job.items["forget"]
    words = masked if job.redact else str
    again = _paraphrases(forget, before, after, words)
    told = {name: metrics.probability(m["nll"]["forget"]) for name, m in (("before", before), ("after", after))}
    if found["reference"] is not None:
        told["reference"] = metrics.probability(found["reference"])
    kept, history = found["kept"], found["history"]
    return plain({
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "by": job.by, "machine": records.machine(), "code": records.code_version(),
        "packages": {name: version(name) for name in ("torch", "transformers", "tokenizers", "accelerate")},
        "model": {"name": Path(str(job.model)).name if Path(job.model).is_dir() else str(job.model),
                  "type": job.config.model_type, "parameters": budget.parameters(job.config),
                  "dtype": job.source_dtype, "sha256": found["weights"][job.model]},
        "out": {"name": job.out.name, "dtype": job.save_dtype, "sha256": found["weights"][job.out]},
        "method": job.method.name, "seed": job.seed,
        "settings": {name: job.settings["profile"][name] for name in SETTINGS},
        "files": {name: list(corpus.sources) for name, corpus in job.corpora.items() if corpus},
        "notes": list(job.notes), "redacted": job.redact,
        "rule": {"text": job.rule, "target": found["target"], "max_perplexity_rise": job.max_perplexity_rise,
                 "kept": kept + 1, "epochs": len(history), "met": found["target"] is not None
                 and history[kept]["forget_probability"] <= found["target"]},
        "epochs": history,
        "probability": {name: p.mean() for name, p in told.items()},
        **_together(again),
        "leak": {n: measure.rate(sum(p["leaks"] for p in m["probes"].values()), len(m["probes"]))
                 for n, m in (("before", before), ("after", after)) if m["probes"]},
        "rounding": {"trained": metrics.probability(found["trained"]).mean(), "copies": found["copies"]},
        "elsewhere": _elsewhere(job, before, after),
        "membership": {n: measure.auc(-m["nll"]["forget"], -m["nll"]["holdout"])
                       for n, m in (("before", before), ("after", after)) if "holdout" in m["nll"]},
        "answers": [
            {"where": Path(i.where).name, "question": words(i.question or ""), "answer": words(i.answer),
             "probability": {name: p[k] for name, p in told.items()},
             "rank": {"before": before["ranks"][k], "after": after["ranks"][k]}}
            | ({"paraphrases": again[k]} if again[k] else {})
            | {name: _probed(m["probes"][k], words) for name, m in (("before", before), ("after", after))
               if k in m["probes"]}
            for k, i in enumerate(forget)
        ],
        "distributions": [_shown(*both, i, job.redact)
                          for *both, i in zip(before["shown"], after["shown"], forget, strict=False)],
    })  # fmt: skip


def _paraphrases(items, before, after, words):
    """For each item its paraphrases and what they bring to light: {"question", "probability": {"before", "after"}}."""
    pairs = iter(zip(*(metrics.probability(m["nll"].get("paraphrases", np.zeros(0))) for m in (before, after)),
                     strict=True))  # fmt: skip
    sides = ("before", "after")
    return [[{"question": words(q), "probability": dict(zip(sides, next(pairs), strict=True))} for q in i.paraphrases]
            for i in items]  # fmt: skip


def _together(again):
    """The mean of all paraphrases: {"paraphrased": {"n", "before", "after"}}, or nothing where none were given."""
    found = [q["probability"] for questions in again for q in questions]
    if not found:
        return {}
    return {"paraphrased": {"n": len(found)} | {s: np.mean([p[s] for p in found]) for s in ("before", "after")}}


def plain(value):
    """A value as JSON can hold it: numbers to five digits, and none that is not finite."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _elsewhere(job, before, after):
    """What happened to what was to stay: {purpose: {"n", "perplexity", "probability": {"before", "after"}}}."""
    found = {}
    for name in ("retain", "watch", "prose"):
        if examples := job.examples[name]:
            nll = {"before": before["nll"][name], "after": after["nll"][name]}
            found[name] = {"n": len(examples)}
            found[name]["perplexity"] = {k: measure.perplexity(v, examples) for k, v in nll.items()}
            found[name]["probability"] = {k: metrics.probability(v).mean() for k, v in nll.items()}
    return found


def _probed(probe, words):
    top = [[words(text), p] for text, p in probe["completions"]]
    return {"greedy": words(probe["greedy"]), "completions": top, "leaks": probe["leaks"]}


def _shown(before, after, item, redact):
    """One forgotten answer as the token-distribution widget wants it."""
    models = {"original": before["models"]["m"], "unlearned": after["models"]["m"]}
    question, tokens = item.question or item.where, before["tokens"]
    if redact:
        question, tokens = Path(item.where).name, [MASK] * len(tokens)
        for m in models.values():
            m["top"] = [[[MASK if rank == place else OTHER, p] for place, (_, p) in enumerate(top, 1)]
                        for rank, top in zip(m["true_rank"], m["top"], strict=True)]  # fmt: skip
    answer = masked(item.answer) if redact else item.answer
    return {"question": question, "answer": answer, "tokens": tokens, "models": models}


def page(report):
    """The report as one page of HTML that needs nothing else, no network and no fonts. Every text is escaped."""
    environment = jinja2.Environment(**TEMPLATES, autoescape=True)
    environment.filters["number"] = lambda x: "–" if x is None else f"{x:.3g}"
    environment.filters["percent"] = lambda x: "–" if x is None else f"{100 * x:.1f} %"
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    state = {"questions": report["distributions"], "models": list(COLOURS), "colours": COLOURS}
    state |= {"question": 0, "position": 0, "k": 5, "scale": "linear"}
    parts = {"script": script.replace("export default", "const widget ="), "state": state}
    parts["style"] = (ASSETS / "widgets.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(r=report, leak=measure.LEAK, probes=PROBES, **parts)


def card(report):
    """The model card, with the hub's metadata; it says what was done and quotes nothing of what was forgotten."""
    name = report["model"]["name"]
    base = {"base_model": name} if "/" in name else {}  # a local folder's name means nothing on the hub
    base |= {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["unlearning", "rklu"]}
    environment = jinja2.Environment(**TEMPLATES)
    environment.filters["perplexity"] = lambda x: "∞" if x is None else f"{x:.4g}"  # JSON has no infinity
    environment.filters["name"] = lambda text: f"`{' '.join(data.printable(text).replace('`', chr(39)).split())}`"
    environment.filters["plain"] = lambda text: html.escape(" ".join(data.printable(text).split()), quote=False)
    text = environment.get_template("card.md.j2").render(r=report)
    return ModelCard(f"---\n{ModelCardData(**base).to_yaml()}\n---\n\n{text}\n")


def write(report, folder):
    """Write report.json, report.html and README.md into a folder."""
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)  # a terminal may show it
    (folder / "report.json").write_text(text, encoding="utf-8")
    _write(page(report), card(report), folder)


def _write(page, card, folder):
    (folder / "report.html").write_text(page, encoding="utf-8")
    card.save(folder / "README.md")


def rebuild(folder):
    """Make report.html and README.md again from report.json, and from attack.json where `rklu attack` has put one
    there. Raises FileNotFoundError where there is no report, ValueError for an attack on other weights."""
    file, attack = (Path(folder) / name for name in ("report.json", "attack.json"))
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; `rklu unlearn` writes it beside the weights")
    odd, again = (jinja2.UndefinedError, KeyError, TypeError), "remove it, and attack the model again"
    held = files.read_json(file, "restore it, or run `rklu unlearn` again")
    with files.damaged(f"{file}: no report of `rklu unlearn`", odd, "restore it, or run that again"):
        texts = page(held), card(held)
    if attack.is_file():
        with files.damaged(f"{attack}: no result of `rklu attack`", odd, again):
            held["attack"] = files.read_json(attack, again)
            if held["attack"]["model"]["sha256"] != held["out"]["sha256"]:
                raise ValueError(f"{attack} is of other weights than {folder} holds; {again}")
            texts = page(held), card(held)
    _write(*texts, Path(folder))
    return Path(folder) / "report.html"
