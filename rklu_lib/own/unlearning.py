"""The paper's method on a model of one's own: checked first, trained until a rule is met, measured, reported.

`prepare` reads and checks everything but the weights; `run` loads them, augments, builds the teacher, distils, and
writes the checkpoint with its report beside it, whole or not at all; `unlearn` is both.
"""

import contextlib
import copy
import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model

from rklu_lib import chat, data, methods, metrics, models, parallel, probing, profiles, training
from rklu_lib.methods import AUGMENTED, REFUSALS
from rklu_lib.own import checkpoints, inputs, measure, plan, report

PROSE_TOKENS, PROSE_CHUNKS = 128, 64  # of general text, on which a perplexity is measured
WIDGET = 3  # forgotten answers whose token distributions the report shows
PURPOSES = ("forget", "retain", "watch", "holdout")


@dataclass(frozen=True)
class Job:
    """All that is known before any weights are loaded. examples and items: {purpose: list}, see `inputs.encode`."""

    model: str
    out: Path
    method: methods.Method
    profile: profiles.Profile
    config: object
    tokenizer: object
    corpora: dict
    examples: dict
    items: dict
    source_dtype: str
    save_dtype: str
    reference: str | None = None
    target: float | None = None
    max_perplexity_rise: float | None = None
    probes: int = 20
    redact: bool = True
    by: str = ""
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def rule(self):
        """When training stops and which epoch is kept, in words."""
        bound = self.max_perplexity_rise
        among = f" among those whose perplexity rose by no more than {bound:.0%}" if bound is not None else ""
        if self.reference or self.target is not None:
            level = f"{self.target:g}" if self.target is not None else f"that of {Path(self.reference).name}"
            return (
                f"Training stops at the first epoch{among} at which the forgotten answers' mean probability, in the "
                f"weights as saved, is at most {level}; that epoch is kept. If none is, the one of lowest probability."
            )
        return f"All {self.profile.unlearn_epochs} epochs are trained, and the last one{among} is kept."

    @property
    def settings(self):
        """What decides the result, as JSON: a run is resumed only with the same."""
        held = {"model": str(self.model), "method": self.method.name, "seed": self.seed, "save_dtype": self.save_dtype}
        held |= {"target": self.target, "reference": self.reference and str(self.reference)}
        held |= {"max_perplexity_rise": self.max_perplexity_rise, "profile": dataclasses.asdict(self.profile)}
        held |= {"files": {k: list(c.sources) for k, c in self.corpora.items() if c}}
        return json.loads(json.dumps(held))


def _template(tokenizer, given, profile):
    """The prompt's template: the one that is asked for, else the tokenizer's own, else the profile's."""
    return given or (chat.CHAT if tokenizer.chat_template else profile.template)


def prepare(model, forget, out, *, retain=(), watch=(), holdout=(), prose=None, method="RKLU", profile="llama2-7b",
            template=None, alpha=None, lr=None, epochs=None, lora=None, dtype=None, save_dtype=None,
            **rest):  # fmt: skip
    """A `Job`, with everything read, tokenised and checked but the weights. Arguments as of `unlearn`."""
    if parallel.processes() > 1:
        raise ValueError("a model of your own is unlearned by one process; start `rklu unlearn` without a launcher")
    changes = {"alpha": alpha, "augment_lr": lr, "unlearn_lr": lr, "augment_epochs": epochs, "unlearn_epochs": epochs}
    changes |= {"template": template, "lora_rank": lora}
    changes |= {"dtype": dtype or (None if isinstance(profile, profiles.Profile) else "float32")}
    changes = {k: v for k, v in changes.items() if v is not None}
    if isinstance(profile, profiles.Profile):
        profile = dataclasses.replace(profile, **changes | ({"family_lr": {}} if lr else {}))
    else:
        profile = profiles.profile(profile, **changes)
    chosen, corpora, out = methods.method(method), {"forget": inputs.read(forget)}, Path(out)
    methods.check(chosen, retain)
    if retain and not chosen.retain:
        fix = "choose a method with +RT or +KL, or --watch it, which only measures"
        raise ValueError(f"{method} would not look at --retain; {fix}")
    if out.exists():
        raise ValueError(f"{out} exists; name a new directory")
    corpora |= {"retain": inputs.read(retain), "watch": inputs.read(watch), "holdout": inputs.read(holdout)}
    for name in PURPOSES[1:]:
        if both := inputs.shared(corpora["forget"], corpora[name]):
            kind = f" (--forget and --{name})"
            raise ValueError(f"{len(both)} questions stand in both files, such as {min(both)!r}{kind}")
    out.parent.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryDirectory(dir=out.parent).cleanup()  # a place that cannot be written to is found out now
    config, tokenizer = checkpoints.configuration(model), models.load_tokenizer(model)
    profile = dataclasses.replace(profile, template=_template(tokenizer, template, profile))
    limit, examples, items = models.context(config), {}, {}
    for name, corpus in corpora.items():
        examples[name], items[name] = inputs.encode(corpus, tokenizer, profile.template, limit)
        models.check_lengths(limit, examples[name], name, [i.where for i in items[name]])
    if REFUSALS in chosen.needs and any(i.question is None for i in items["forget"]):
        raise ValueError(
            f"{method} answers with a refusal, and a document asks nothing; {chosen.family} needs questions"
        )
    text = data.load_prose("test", "fictional") if prose is None else data.read_text(prose)
    size = min(PROSE_TOKENS, (limit or PROSE_TOKENS + 1) - 1)
    n = min(PROSE_CHUNKS, len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) // size) or 1
    examples["prose"] = [data.passage(tokenizer, c) for c in data.chunks(text, n, size, tokenizer, prose or "prose")]
    own = checkpoints.dtype(model, config)
    saved = save_dtype or (dtype if dtype and dtype != "float32" else own if own in measure.SAVED else "float32")
    if saved not in measure.SAVED:
        raise ValueError(f"save_dtype must be {', '.join(measure.SAVED)}, not {saved!r}")
    for name, value in {k: rest.get(k) for k in ("target", "max_perplexity_rise")}.items():
        if value is not None and (value <= 0 or (name == "target" and value >= 1)):
            raise ValueError(f"{name} must be {'between 0 and 1' if name == 'target' else '> 0'}, not {value}")
    if (other := rest.get("reference")) and models.load_tokenizer(other).get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"{other} has another vocabulary than {model}, so that the same answer is other tokens to it")
    notes = [f"{n} (--{name})" for name, c in corpora.items() for n in c.notes]
    if models.adapter_base(model):
        notes.append("the adapter was merged into the model it rests on; the result is a whole model")
    read = {"corpora": corpora, "examples": examples, "items": items, "notes": tuple(notes)}
    job = Job(model, out, chosen, profile, config, tokenizer, source_dtype=own, save_dtype=saved, **read, **rest)
    plan.refuse(job, plan.estimate(job, resumable=True))
    return job


def choose(epochs, target=None, max_rise=None):
    """The place of the epoch to keep among {"forget_probability", "perplexity_rise"} of each, by `Job.rule`; None where
    every one raised the perplexity by more than `max_rise`."""
    within = [i for i, e in enumerate(epochs) if max_rise is None or e["perplexity_rise"] <= max_rise]
    if not within or target is None:
        return within[-1] if within else None
    reached = [i for i in within if epochs[i]["forget_probability"] <= target]
    return reached[0] if reached else min(within, key=lambda i: epochs[i]["forget_probability"])


def unlearn(model, forget, out, *, resumable=False, resume=False, on_stage=None, **options):
    """Make a model forget, and say what came of it. Returns the report, a dict, see `report`; `out` has it as a page.

    model: a directory or hub id: any causal LM of transformers, or an adapter. forget: what to forget: files, hub data
    sets or rows, see `inputs.read`. out: the directory to make. Options, all by name:
    retain: what to keep, for +RT and +KL. watch: answers whose change is only measured. holdout: like the forgotten
    ones, but never trained on, for the membership test. prose: a text file (default: the embedded passages).
    method, profile (a name or a `profiles.Profile`), template, alpha, lr, epochs, seed: as in the study. lora: the rank
    of adapters to train in place of all parameters; they are merged into what is written.
    reference (a model that never saw the data), target (a probability), max_perplexity_rise (0.1: a tenth): `Job.rule`.
    dtype: what is trained in; save_dtype: what is written (default: the checkpoint's own). probes: forgotten answers
    that are generated and searched for leaks. redact: mask their text in the report. by: who does it.
    resumable: keep the state of whole epochs beside `out`; resume: go on from it. on_stage: as in `run`.
    Raises ValueError or OSError, in one line, before any training where it can be known.
    """
    return run(prepare(model, forget, out, **options), resumable, resume, on_stage)


@contextlib.contextmanager
def _workplace(job, resumable, resume):
    """Where the state of this run lies: a place that is gone afterwards, or one that an interruption leaves behind."""
    if not (resumable or resume):
        with tempfile.TemporaryDirectory(dir=job.out.parent, prefix=f".{job.out.name}-") as folder:
            yield Path(folder), False
        return
    folder = job.out.with_name(f".{job.out.name}.unfinished")
    if any(folder.glob("*/history.json")):
        if not resume:
            raise ValueError(f"{job.out} was begun and not finished; --resume goes on, or remove {folder}")
        held = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        if other := [k for k, v in job.settings.items() if held.get(k) != v]:
            raise ValueError(f"{folder} was begun with another {', '.join(other)}; give the same again, or remove it")
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(job.settings), encoding="utf-8")
    try:
        yield folder, True
    except (ValueError, FloatingPointError):  # the same again would fail again
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _measured(job, model):
    """What is measured of a model before and after: {purpose: nll (n,)}, ranks, probes, token distributions."""
    scored = {name: measure.score(model, e) for name, e in job.examples.items() if e}
    chosen = np.random.default_rng(job.seed).permutation(len(job.examples["forget"]))[: job.probes].tolist()
    asked = [[x[i] for i in sorted(chosen)] for x in (job.examples["forget"], job.items["forget"])]
    end = chat.end_token(job.tokenizer, job.profile.template)
    probes = dict(zip(sorted(chosen), measure.probe(model, job.tokenizer, *asked, end), strict=True)) if chosen else {}
    shown = [probing.token_distributions({"m": model}, job.tokenizer, e) for e in job.examples["forget"][:WIDGET]]
    nll = {name: s[0] for name, s in scored.items()}
    return {"nll": nll, "ranks": scored["forget"][1], "probes": probes, "shown": shown}


def _perplexities(job, nll):
    return {k: measure.perplexity(nll[k], job.examples[k]) for k in ("retain", "watch", "prose") if k in nll}


def run(job, resumable=False, resume=False, on_stage=None):
    """Do a `Job`. on_stage(name, steps, done) is told of each stage and returns what to call after each step."""
    stage = on_stage or (lambda *_: None)
    with _workplace(job, resumable, resume) as (folder, keeps):
        reference, target = None, job.target
        if job.reference:
            stage("measuring the reference", None, 0)
            model = models.load(job.reference, job.profile.dtype)[0]
            reference = measure.score(model, job.examples["forget"])[0]
            target = float(metrics.probability(reference).mean()) if target is None else target
            del model
        stage("measuring the original", None, 0)
        model, tokenizer = models.load(job.model, job.profile.dtype)
        for name in ("forget", "retain"):
            models.check(model, job.examples[name], name)
        before = _measured(job, model)
        history = _train(job, model, before, target, folder, keeps, stage)
        kept = choose(history, target, job.max_perplexity_rise)
        if kept is None:
            least = min(e["perplexity_rise"] for e in history)
            fix = "lower --lr or --alpha, or allow more"
            raise ValueError(f"every epoch raised the perplexity beyond the bound, the least by {least:.0%}; {fix}")
        if kept < len(history) - 1:
            with training.adapted(model, job.profile.lora_rank):  # the file has base and adapters apart
                load_model(model, folder / "best.safetensors", device=str(model.device))
        stage("measuring what came out", None, 0)
        trained, copies = measure.score(model, job.examples["forget"])[0], {}
        for kind in sorted({"bfloat16", "4-bit", job.save_dtype}):
            with measure.rounded(model, kind):
                nll = measure.score(model, job.examples["forget"])[0]
                copies[kind] = {"probability": float(metrics.probability(nll).mean())}
                copies[kind]["kept"] = measure.kept_share(before["nll"]["forget"], trained, nll)
        measure.round_(model, job.save_dtype)  # from here on the weights are those on disk
        after = _measured(job, model)
        with models.atomic_directory(job.out) as tmp:
            model.to(getattr(torch, job.save_dtype)).save_pretrained(tmp)
            tokenizer.save_pretrained(tmp)
            found = {"before": before, "after": after, "reference": reference, "target": target, "copies": copies}
            found |= {"trained": trained, "history": history, "kept": kept, "weights": checkpoints.sha256(tmp)}
            content = report.content(job, found)
            report.write(content, tmp)
    return content


def _history(folder):
    """What `training.fit` noted of the epochs that are done already, in an interrupted run."""
    file = folder / "history.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def _train(job, model, before, target, folder, keeps, stage):
    """Augment, build the teacher, distil: `model` becomes the student. Returns the epochs' notes."""
    p, chosen, forget, retain = job.profile, job.method, job.examples["forget"], job.examples["retain"]
    steps, augmented = -(-len(forget) // p.batch_size), None
    if AUGMENTED in chosen.needs:
        on_step = stage("augmenting", steps * p.augment_epochs, steps * len(_history(folder / "augment")))
        augmented = copy.deepcopy(model)
        how = {"epochs": p.augment_epochs, "lr": p.augment_lr, "batch_size": p.batch_size, "seed": job.seed}
        how["lora_rank"] = p.lora_rank
        training.finetune(augmented, forget, p, **how, folder=folder / "augment" if keeps else None, on_step=on_step)
    refusals = methods.refused(p, job.tokenizer, forget, job.seed) if REFUSALS in chosen.needs else []
    aids = methods.prepare(chosen, p, model, augmented, forget, retain, refusals)
    del augmented  # from here on there is one model
    state, was = folder / "unlearn", _perplexities(job, before["nll"])
    noted = _history(state)
    bounded = target is not None or job.max_perplexity_rise is not None

    def judge(student, _):
        with measure.rounded(student, job.save_dtype):  # as it would be saved: rounding can undo small steps
            nll = {k: measure.score(student, job.examples[k])[0] for k in ("forget", *was)}
        now = _perplexities(job, nll)
        note = {"forget_probability": float(metrics.probability(nll["forget"]).mean())}
        note |= {"perplexity_rise": max(now[k] / was[k] - 1 for k in now)}
        note |= {f"{k}_perplexity": v for k, v in now.items()}
        noted.append(note)
        best = choose(noted, target, job.max_perplexity_rise)
        note["stop"] = target is not None and best is not None and noted[best]["forget_probability"] <= target
        if bounded and best == len(noted) - 1 and not note["stop"]:
            save_model(student, folder / "best.safetensors")
        return note

    on_step = stage("unlearning", steps * p.unlearn_epochs, steps * len(noted))
    return training.unlearn(chosen, p, model, aids, forget, retain, seed=job.seed, on_epoch=judge, on_step=on_step,
                            folder=state if keeps else None)  # fmt: skip
