"""The report beside the unlearned weights: report.json, report.html made from report.json, and a model card.

Forgotten text, and what the model says about it, is masked by default: a report that quotes the data defeats the
purpose of unlearning. The page needs report.json alone, so `rebuild` can make it again."""

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
    """Replace every word by the same mask, which hides the words and their lengths, but not their number."""
    return " ".join(MASK for _ in (text or "").split())


def content(job, found):
    """Return the report of a finished `jobs.Job`, a dict of all that the page shows. found: see `unlearning.run`."""
    before, after, forget = found["before"], found["after"], job.items["forget"]
    words = masked if job.redact else str
    sides = {"before": before, "after": after}
    told = {name: metrics.probability(m["nll"]["forget"]) for name, m in sides.items()}
    asked = {name: metrics.probability(m["nll"].get("paraphrases", np.zeros(0))) for name, m in sides.items()}
    again, n = _paraphrases(forget, asked, words), len(asked["after"])
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
        **({"paraphrased": {"n": n, **{name: p.mean() for name, p in asked.items()}}} if n else {}),
        "leak": {name: measure.rate(sum(p["leaks"] for p in m["probes"].values()), len(m["probes"]))
                 for name, m in sides.items() if m["probes"]},
        "rounding": {"trained": metrics.probability(found["trained"]).mean(), "copies": found["copies"]},
        "elsewhere": _elsewhere(job, before, after),
        "membership": {name: measure.auc(-m["nll"]["forget"], -m["nll"]["holdout"])
                       for name, m in sides.items() if "holdout" in m["nll"]},
        "answers": [
            {"where": Path(i.where).name, "question": words(i.question or ""), "answer": words(i.answer),
             "probability": {name: p[k] for name, p in told.items()},
             "rank": {"before": before["ranks"][k], "after": after["ranks"][k]}}
            | ({"paraphrases": again[k]} if again[k] else {})
            | {name: _probed(m["probes"][k], words) for name, m in sides.items() if k in m["probes"]}
            for k, i in enumerate(forget)
        ],
        "distributions": [_shown(*both, i, job.redact)
                          for *both, i in zip(before["shown"], after["shown"], forget, strict=False)],
    })  # fmt: skip


def _paraphrases(items, asked, words):
    """Return for each item a list with {"question", "probability": {"before", "after"}} of each of its paraphrases.
    asked: {"before", "after"} -> the probabilities of all items' paraphrases, one after the other."""
    pairs = (dict(zip(asked, pair, strict=True)) for pair in zip(*asked.values(), strict=True))
    return [[{"question": words(q), "probability": next(pairs)} for q in i.paraphrases] for i in items]


def plain(value):
    """Return a value as JSON can hold it: floats have five significant digits, and None replaces inf and NaN."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _elsewhere(job, before, after):
    """Return {set: {"n", "perplexity", "probability"}} of retain, watch and prose, the last two {"before", "after"}."""
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
    """Return one forgotten answer in the form that the token-distribution widget needs, masked if redact."""
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
    """Return the report as one self-contained HTML page, which loads no network and no fonts. All text is escaped."""
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
    """Return the model card, with the hub's metadata. The card quotes nothing of the forgotten data."""
    name = report["model"]["name"]
    base = {"base_model": name} if "/" in name else {}  # the hub does not know a local folder's name
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
    """Make report.html (its path is returned) and README.md again from report.json, and attack.json if there is one.
    Raises FileNotFoundError without a report, ValueError for a damaged file or an attack on other weights."""
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
