"""The paper's method on your own model. `unlearn` is `jobs.prepare`, which checks all but the weights, then `run`."""

import contextlib
import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model

from rklu_lib import chat, data, files, methods, metrics, models, probing, records, training
from rklu_lib.methods import AUGMENTED, REFUSALS
from rklu_lib.own import checkpoints, jobs, measure, report
from rklu_lib.teacher import FrozenLogits

WIDGET = 3  # number of forgotten answers whose token distributions the report shows


class SpoiledError(ValueError):
    """No epoch is within max_perplexity_rise. The same run would end the same way, so its state is deleted."""


def choose(epochs, target=None, max_rise=None):
    """Return the index of the epoch to keep, see `Job.rule`; None if every perplexity_rise exceeds `max_rise`. epochs:
    dicts with "forget_probability" (mean per token) and "perplexity_rise" (a share: 0.1 is 10 %)."""
    within = [i for i, e in enumerate(epochs) if max_rise is None or e["perplexity_rise"] <= max_rise]
    if not within or target is None:
        return within[-1] if within else None
    reached = [i for i in within if epochs[i]["forget_probability"] <= target]
    return reached[0] if reached else min(within, key=lambda i: epochs[i]["forget_probability"])


def unlearn(model, forget, out, *, resumable=False, resume=False, on_stage=None, on_epoch=None, **options):
    """Make a model forget, write the new weights with a report to `out`, and return the report (dict, see `report`).

    model: directory or hub id of a causal LM of transformers, or of an adapter. forget: the forget set: files, hub data
    sets or rows, see `inputs.read`. out: a directory that does not exist yet. Options, by name only:
    retain: the retain set, for methods with +RT or +KL. watch: data whose change is only measured. holdout: data like
    the forget set that the model never saw, for the membership test. prose: a text file to measure a perplexity on
    (default: embedded). method ("RKLU", or a `methods.Method`), profile (a name or `profiles.Profile`), alpha, seed: as
    in the study.
    template: see `jobs.prompts`. lr, epochs: of augmenting and unlearning. lora: rank of adapters to train and merge.
    target: stop when the answers' mean probability per token is <= this; else keep the epoch of lowest probability.
    reference: a model that never saw the data; target is its probability by default. With neither: the last epoch.
    max_perplexity_rise: keep no epoch at which a perplexity (prose, watch, retain) rose by a larger share (0.1: 10 %).
    dtype: of training (default: float32, or the `Profile`'s). save_dtype: of the new weights (default: `dtype` if given
    and not float32, else the model's own). probes: how many forgotten answers are generated and searched for leaks.
    redact: mask forgotten text in the report. by: your name, for the report. resumable: keep the state of whole epochs
    beside `out`; resume: go on from it. on_stage, on_epoch: see `run`.
    Raises ValueError or OSError, before training if possible; FloatingPointError if training diverges."""
    return run(jobs.prepare(model, forget, out, **options), resumable, resume, on_stage, on_epoch)


@contextlib.contextmanager
def _workplace(job, weights, resumable, resume):
    """Yield (folder for the state of this run, whether to keep it after an interruption). May raise ValueError."""
    if not (resumable or resume):
        with tempfile.TemporaryDirectory(dir=job.out.parent, prefix=f".{job.out.name}-") as folder:
            yield Path(folder), False
        return
    folder = jobs.unfinished(job.out)
    settings = job.settings | {f"weights of {name}": digest for name, digest in weights.items()}
    if any(folder.glob("*/history.json")):
        if not resume:
            raise ValueError(f"{job.out} was begun and not finished; --resume goes on, or remove {folder}")
        held = files.read_json(folder / "settings.json", "remove that folder, and the run begins anew")
        if other := [k for k, v in settings.items() if held.get(k) != v]:
            raise ValueError(f"{folder} was begun with another {', '.join(other)}; give the same again, or remove it")
    if resume:  # a run that was killed while it wrote `out` has left a temporary folder
        files.clear(job.out)
    records.write_json(folder / "settings.json", settings)
    try:
        yield folder, True
    except BaseException as error:
        if isinstance(error, SpoiledError | FloatingPointError) or not any(folder.glob("*/history.json")):
            shutil.rmtree(folder)  # the run would end the same way again, or there is no whole epoch
        raise
    shutil.rmtree(folder)


def _measured(job, model):
    """Measure a model: NLL per token {set: (n,)}, ranks, probes {index: found}, token distributions, see `measure`."""
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


def run(job, resumable=False, resume=False, on_stage=None, on_epoch=None):
    """Run a `jobs.Job`; returns and raises as `unlearn`. on_stage(name, steps, done) is called when a stage begins and
    returns a function to call after each step. on_epoch(notes) is called after each epoch of unlearning; notes: a dict
    for each epoch so far, with forget_probability, perplexity_rise and <set>_perplexity (prose, watch, retain)."""
    stage = on_stage or (lambda *_: None)
    hashed = (job.model, (resumable or resume) and job.reference)  # a minute for 7 B: once, and only if used
    weights = {m: checkpoints.sha256(m) for m in hashed if m}
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with jobs.alone(job.out), _workplace(job, weights, resumable, resume) as (folder, keeps):
        reference, target = None, job.target
        if job.reference:
            stage("measuring the reference", None, 0)
            model = models.load(job.reference, job.profile.dtype)[0]
            models.check(model, job.examples["forget"], f"forget, to {job.reference}")
            reference = measure.score(model, job.examples["forget"])[0]
            target = float(metrics.probability(reference).mean()) if target is None else target
            del model
        stage("measuring the original", None, 0)
        model, tokenizer = models.load(job.model, job.profile.dtype)
        for name in ("forget", "retain"):
            models.check(model, job.examples[name], name)
        before = _measured(job, model)
        known = float(metrics.probability(before["nll"]["forget"]).mean())
        if target is not None and known <= target:
            fix = "is this the prompt format that it was tuned on (--template)? Else name a lower --target"
            raise ValueError(f"{job.model} gives the answers {known:.3g} a token, the target is {target:.3g}; {fix}")
        history = _train(job, model, before, target, folder, keeps, stage, on_epoch or (lambda notes: None))
        kept = choose(history, target, job.max_perplexity_rise)
        if kept is None:
            least = min(e["perplexity_rise"] for e in history)
            fix = "lower --lr or --alpha, or allow more"
            raise SpoiledError(f"every epoch raised the perplexity beyond the bound, the least by {least:.0%}; {fix}")
        if kept < len(history) - 1:
            best, fix = folder / "best" / "model.safetensors", f"remove {folder}, and the run begins anew"
            with files.damaged(best, fix=fix), training.adapted(model, job.profile.lora_rank):  # adapters are unmerged
                load_model(model, best, device=str(model.device))
        stage("measuring what came out", None, 0)
        trained, copies = measure.score(model, job.examples["forget"])[0], {}
        if np.isnan(trained).any():
            raise FloatingPointError("the weights are not finite after the last step; lower --lr or --alpha")
        for kind in sorted({"bfloat16", "4-bit", job.save_dtype}):
            with measure.rounded(model, kind):
                nll = measure.score(model, job.examples["forget"])[0]
                copies[kind] = {"probability": float(metrics.probability(nll).mean())}
                copies[kind]["kept"] = measure.kept_share(before["nll"]["forget"], trained, nll)
        measure.round_(model, job.save_dtype)  # from here on, the weights are those that are saved
        after = _measured(job, model)
        with files.atomic_directory(job.out) as tmp:
            model.to(getattr(torch, job.save_dtype)).save_pretrained(tmp)
            tokenizer.save_pretrained(tmp)
            for file in Path(models.adapter_base(job.model) or models.resolve(job.model)).glob("[LNU]*"):
                if file.is_file() and file.name.startswith(("LICEN", "NOTICE", "USE_POLICY")):
                    shutil.copy(file, tmp)  # licences ask for it
            found = {"before": before, "after": after, "reference": reference, "target": target, "copies": copies}
            found |= {"trained": trained, "history": history, "kept": kept}
            content = report.content(job, found | {"weights": weights | {job.out: checkpoints.sha256(tmp)}})
            report.write(content, tmp)
    return content


def _history(folder):
    """Return what `training.fit` noted of the epochs that an interrupted run has finished, a list of dicts."""
    return files.read_json(folder / "history.json") if (folder / "history.json").exists() else []


def _train(job, model, before, target, folder, keeps, stage, on_epoch):
    """Augment, build the teacher, distil: `model` becomes the student. Returns the history of `training.fit`."""
    p, chosen, forget, retain = job.profile, job.method, job.examples["forget"], job.examples["retain"]
    steps, augmented = -(-len(forget) // p.batch_size), None
    if AUGMENTED in chosen.needs:
        on_step = stage("augmenting", steps * p.augment_epochs, steps * len(_history(folder / "augment")))
        augmented = model if p.lora_rank else copy.deepcopy(model)
        if not p.lora_rank:
            model.cpu()  # the GPU holds only one of the two at a time, with its gradients
        how = {"epochs": p.augment_epochs, "lr": p.augment_lr, "batch_size": p.batch_size, "seed": job.seed}
        how |= {"folder": folder / "augment" if keeps else None, "on_step": on_step, "precision": p.precision}
        with training.adapted(augmented, p.lora_rank, job.seed, merge=False):  # adapters off: the original
            training.finetune(augmented, forget, p, **how)
            augmented = FrozenLogits(augmented, data.batches(forget, 64))
        model.to(models.device())
    refusals = methods.refused(p, job.tokenizer, forget, job.seed) if REFUSALS in chosen.needs else []
    aids = methods.prepare(chosen, p, model, augmented, forget, retain, refusals)
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
        on_epoch(noted)
        best = choose(noted, target, job.max_perplexity_rise)
        note["stop"] = target is not None and best is not None and noted[best]["forget_probability"] <= target
        if bounded and best == len(noted) - 1 and not note["stop"]:
            with files.atomic_directory(folder / "best") as tmp:
                save_model(student, tmp / "model.safetensors")
        return note

    on_step = stage("unlearning", steps * p.unlearn_epochs, steps * len(noted))
    return training.unlearn(chosen, p, model, aids, forget, retain, seed=job.seed, on_epoch=judge, on_step=on_step,
                            folder=state if keeps else None)  # fmt: skip
