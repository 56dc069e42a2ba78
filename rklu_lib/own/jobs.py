"""The request to unlearn a model of your own: read and checked before any weights are loaded."""

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from rklu_lib import chat, data, files, methods, models, parallel, profiles
from rklu_lib.methods import REFUSALS
from rklu_lib.own import checkpoints, inputs, measure, plan

PROSE_TOKENS, PROSE_CHUNKS = 128, 64  # tokens per chunk, and chunks at most, of the prose to measure a perplexity on


@dataclass(frozen=True)
class Job:
    """A checked request. corpora: {set: `inputs.Corpus`}; examples and items: {set: list}, see `inputs.encode`."""

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
        """The rule by which training stops and an epoch is kept, as sentences for the report."""
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
        """Dict, as JSON holds it, of all that decides the result. A run is resumed only with the same settings."""
        held = {"model": str(self.model), "method": self.method.name, "seed": self.seed, "save_dtype": self.save_dtype}
        held |= {"target": self.target, "reference": self.reference and str(self.reference), "torch": torch.__version__}
        held |= {"max_perplexity_rise": self.max_perplexity_rise, "profile": dataclasses.asdict(self.profile)}
        held |= {"files": {k: list(c.sources) for k, c in self.corpora.items() if c}}
        held["tokens"] = hashlib.sha256(repr(self.examples).encode()).hexdigest()[:16]  # prose, too
        return json.loads(json.dumps(held))


def prompts(model, tokenizer, given, profile):
    """Return (prompt template, notes). The template is `given`, else that of report.json in the model's folder, else
    the tokenizer's own, else the profile's. For the last, a note warns that the model may be tuned on another."""
    report = Path(model) / "report.json"
    if given is None and report.is_file():
        with contextlib.suppress(KeyError, TypeError):  # another program's report.json
            given = files.read_json(report, "restore it, or name a --template")["settings"]["template"]
    if given or tokenizer.chat_template:
        return given or chat.CHAT, ()
    why = f"no chat template: prompts are written as profile {profile.name} has them, {profile.template!r}"
    return profile.template, (f"{Path(model).name} has {why}; if it was tuned on others, name them in --template",)


def prepare(model, forget, out, *, retain=(), watch=(), holdout=(), prose=None, method="RKLU", profile="llama2-7b",
            template=None, alpha=None, lr=None, epochs=None, lora=None, dtype=None, save_dtype=None,
            **rest):  # fmt: skip
    """Return a `Job`: all but the weights is read, tokenised and checked. Arguments, errors: `unlearning.unlearn`."""
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
    chosen, corpora, out = methods.method(method), {"forget": inputs.read(forget)}, Path(out).expanduser()
    methods.check(chosen, retain)
    if retain and not chosen.retain:
        fix = "choose a method with +RT or +KL, or --watch it, which only measures"
        raise ValueError(f"{chosen.name} has no retain term and would ignore --retain; {fix}")
    if out.exists():
        if (out / "report.json").is_file():
            shutil.rmtree(unfinished(out), ignore_errors=True)  # left by a run killed after it wrote `out`
        begun = "; a run to it was begun, and --resume goes on once it is gone" if unfinished(out).exists() else ""
        raise ValueError(f"{out} exists; name a new directory{begun}")
    corpora |= {"retain": inputs.read(retain), "watch": inputs.read(watch), "holdout": inputs.read(holdout)}
    inputs.check_apart(corpora)
    try:  # fail now if the place cannot be written to
        tempfile.TemporaryDirectory(dir=files.nearest(out.parent)).cleanup()
    except OSError as error:
        raise OSError(f"{out} cannot be made ({error.strerror}); name another directory in --out") from None
    config, tokenizer = checkpoints.configuration(model), models.load_tokenizer(model)
    form, unsure = prompts(model, tokenizer, template, profile)
    profile = dataclasses.replace(profile, template=form)
    limit, examples, items = models.context(config), {}, {}
    for name, corpus in corpora.items():
        examples[name], items[name] = inputs.encode(corpus, tokenizer, profile.template, limit)
        models.check_lengths(limit, examples[name], name, [i.where for i in items[name]])
    examples["paraphrases"] = inputs.paraphrased(items["forget"], tokenizer, profile.template)
    models.check_lengths(limit, examples["paraphrases"], "forget, a paraphrase")
    if REFUSALS in chosen.needs and any(i.question is None for i in items["forget"]):
        raise ValueError(f"{chosen.name} answers with a refusal, and a document asks nothing; give it questions")
    text = data.load_prose("test", "fictional") if prose is None else data.read_text(prose)
    size = min(PROSE_TOKENS, limit - 1)
    n = min(PROSE_CHUNKS, len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) // size) or 1
    examples["prose"] = [data.passage(tokenizer, c) for c in data.chunks(text, n, size, tokenizer, prose or "prose")]
    own = checkpoints.dtype(model, config)
    saved = save_dtype or (dtype if dtype and dtype != "float32" else own if own in measure.SAVED else "float32")
    if saved not in measure.SAVED:
        raise ValueError(f"save_dtype must be {', '.join(measure.SAVED)}, not {saved!r}")
    said = {k: (*c.notes, *inputs.unplaced(c, tokenizer, form)) for k, c in corpora.items()}
    notes = [*unsure, *inputs.unsaid(items["forget"])]
    notes += [f"{note} (--{name})" for name, found in said.items() for note in found]
    if models.adapter_base(model):
        notes.append("the adapter was merged into the model it rests on; the result is a whole model")
    read = {"corpora": corpora, "examples": examples, "items": items, "notes": tuple(notes)}
    job = Job(model, out, chosen, profile, config, tokenizer, source_dtype=own, save_dtype=saved, **read, **rest)
    for name, value in (("target", job.target), ("max_perplexity_rise", job.max_perplexity_rise)):
        if value is not None and not 0 < value < (1 if name == "target" else math.inf):
            raise ValueError(f"{name} must be {'between 0 and 1' if name == 'target' else '> 0'}, not {value}")
    profiles.check_seed(job.seed)
    if job.probes < 0:
        raise ValueError(f"probes must be >= 0, not {job.probes}")
    if job.probes:
        checkpoints.check_cache(config, "--probes 0")
    if job.reference:
        models.check_vocabulary(job.reference, model, tokenizer)
    plan.refuse(job, plan.estimate(job))
    return job


def unfinished(out):
    """Return the folder that holds the state of a run until `out` is made."""
    return out.with_name(f".{out.name}.unfinished")


@contextlib.contextmanager
def alone(out):
    """Hold the lock of `out`. Raises ValueError if another process is making `out`, or has made it by now."""
    lock = FileLock(out.with_name(f".{out.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{out} is being made by another process; name another, or wait") from None
    try:
        if out.exists():
            raise ValueError(f"{out} exists by now; name another")
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
