"""Execute one job, in one process or several together: make a base model's checkpoint or a run's record."""

import contextlib
import hashlib
import json
import shutil
import time

import torch

from rklu_lib import bases, data, evaluation, files, logs, methods, models, parallel, records, training
from rklu_lib.methods import AUGMENTED, METHODS, REFUSALS
from rklu_lib.records import BASES, load
from rklu_lib.teacher import TeacherModel


def unlearned(spec, folder, judge):
    """Unlearn by one of `METHODS`; call `judge` after every epoch. Return (student or teacher, tokenizer, history)."""
    p, chosen = spec.values, METHODS[spec.method]
    original, tokenizer = models.load(spec.base("original").model_path, p.dtype)
    augmented = models.load(spec.base("augmented").checkpoint_path, p.dtype)[0] if AUGMENTED in chosen.needs else None
    if chosen.forget is None:
        if spec.method == "teacher":
            model = TeacherModel(original, augmented, p.alpha, p.gauge)
        else:
            model = training.task_arithmetic(original, augmented, p.ta_scale)
        return model, tokenizer, [{"epoch": 1} | judge(model, tokenizer)]
    forget = bases.forget_examples(spec, tokenizer)
    retained = bases.rows(p, data.ORACLE_SPLIT[spec.split]) if chosen.retain else []
    retain = bases.encoded(p, tokenizer, retained)
    refusals = methods.refused(p, tokenizer, forget, spec.seed) if REFUSALS in chosen.needs else []
    aids = methods.prepare(chosen, p, original, augmented, forget, retain, refusals)
    del augmented  # only the student is needed from here on
    noted = {"folder": folder, "on_epoch": lambda model, history: judge(model, tokenizer, history)}
    history = training.unlearn(chosen, p, original, aids, forget, retain, seed=spec.seed, **noted)
    return original, tokenizer, history


def has_checkpoint(spec):
    """Return whether the spec's model exists, trained with the spec's settings."""
    if spec.method == "teacher" or spec.log or spec.loaded:  # it has no checkpoint of its own
        return True
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return files.read_json(spec.checkpoint_path / "settings.json") == spec.trained.settings
    return False


def _save(spec, model, tokenizer, seconds):
    if parallel.main():
        notes = {"settings": spec.settings, "seconds": seconds | {"threads": torch.get_num_threads()}}
        models.save(model, tokenizer, spec.checkpoint_path, **notes)


def state(spec):
    """Return the folder for the state of an unfinished run. Its name depends on the settings and PyTorch's version, so
    that a run never resumes from the state of another."""
    digest = hashlib.sha256(json.dumps([spec.settings, torch.__version__]).encode()).hexdigest()[:8]
    return spec.checkpoint_path.with_name(f"{spec.checkpoint_path.name}-state-{digest}")


def execute(spec, stage="record", threads=None):
    """Execute one job whose dependencies (see `runs`) are done. stage: "checkpoint" (of a base model) or "record".

    Several processes may call it: the run is locked, and a finished job is not repeated. The processes of one launch
    work on the job together. From here on, this process rounds denormal numbers to zero."""
    torch.set_flush_denormal(True)  # a collapsed model has many: with them, an epoch of GA took five times as long
    if threads:
        torch.set_num_threads(threads)
    spec.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
    with parallel.locked(f"{spec.checkpoint_path}.lock"):
        recorded, kept = parallel.agreed((load(spec) is not None, has_checkpoint(spec)))
        if stage == "checkpoint" and spec.method in BASES:
            if not kept:
                lap = _clock()
                model, tokenizer, history = bases.train(spec, state(spec), lambda *_: {"seconds": lap()})
                _save(spec, model, tokenizer, {"train": sum(e.get("seconds", 0) for e in history)})
        elif not recorded:
            _record(spec)
        elif spec.method in METHODS and not kept:  # train again without scores: the record exists
            unscored = state(spec).with_suffix(".unscored")
            _save(spec, *unlearned(spec, unscored, lambda *_: {})[:2], {})
        for begun in ("", ".") if parallel.main() else ():  # states, and files of killed processes
            for folder in spec.checkpoint_path.parent.glob(f"{begun}{spec.checkpoint_path.name}-*"):
                shutil.rmtree(folder, ignore_errors=True)


def _clock():
    """Return a function that returns the seconds since its last call (at first: since now)."""
    marks = [time.perf_counter()]
    return lambda: marks.append(time.perf_counter()) or marks[-1] - marks[-2]


def _threads(spec):
    """Return all numbers of threads of a run and its base models (they change rounding); None if one is unknown."""
    rests = [spec] if spec.method in BASES else []
    rests += [spec.base("original")] if spec.method not in ("original", "oracle") else []
    rests += [spec.base("augmented")] if spec.method in METHODS and spec.uses(AUGMENTED) else []
    oracle = spec.against and load(spec.against)
    made = [base for base in rests if not (base.loaded or base.log)]
    known = {files.read_json(base.checkpoint_path / "seconds.json").get("threads") for base in made}
    known |= {torch.get_num_threads(), *((oracle.content.get("threads") or [None]) if oracle else ())}
    return None if None in known else sorted(known)


def _record(spec):
    """Train by a method, load a base model or read an oracle's log; score the epochs that are due; write the record."""
    p, oracle, asked, lap = spec.values, None, {}, _clock()
    if spec.against:
        measured = load(spec.against).questions
        if spec.task == "tofu":
            oracle = {f: measured[k][-1] for f in evaluation.FORMS if (k := f"truth_ratio_{f}") in measured}
        else:
            oracle = measured["chunk_nll"][-1]

    def judge(model, tokenizer, history=()):
        """Return an epoch's scores, if due, and its seconds. In the history, the seconds survive an interruption."""
        train, due = lap(), not len(history) % p.judge_every or len(history) == p.unlearn_epochs
        return (judged(model, tokenizer, history) if due else {}) | {"seconds": {"train": train, "evaluate": lap()}}

    def judged(model, tokenizer, history):
        if spec.task == "tofu":
            asked.update(asked or evaluation.load_questions(p, spec.split, tokenizer))
            before = [e for e in history[:-1] if "questions" in e]
            ends = not before or len(history) == p.unlearn_epochs
            useful = lambda found: p.utility == "every" or ends or records.leads(found, before)  # noqa: E731
            how = (p.max_new_tokens, oracle, p.precision, useful)
            scores, each = evaluation.evaluate(model, tokenizer, asked, *how)
        else:
            asked.update(asked or evaluation.load_passages(p, tokenizer))
            how = (p.chunk_tokens - p.prompt_tokens, oracle, p.precision)
            scores, each = evaluation.evaluate_passages(model, tokenizer, asked, *how)
        return scores | {"questions": {k: v.tolist() for k, v in each.items()}}

    seconds = {"train": 0.0, "evaluate": 0.0}
    if spec.log:
        scores, per_question = logs.read(spec.log, p.n_questions)
        history = [{"epoch": 1} | scores | {"questions": {k: v.tolist() for k, v in per_question.items()}}]
    elif spec.method in BASES:
        model, tokenizer = models.load(spec.model_path, p.dtype)
        history = [{"epoch": 1} | judge(model, tokenizer)]
        made = {} if spec.loaded else files.read_json(spec.checkpoint_path / "seconds.json")
        seconds = {"train": made.get("train", 0.0), "evaluate": history[0].pop("seconds")["evaluate"]}
    else:
        model, tokenizer, history = unlearned(spec, state(spec), judge)
        spent = [e.pop("seconds", seconds) for e in history]  # states of older versions have no seconds
        seconds = {kind: sum(s[kind] for s in spent) for kind in seconds}
        if not isinstance(model, TeacherModel):
            _save(spec, model, tokenizer, seconds)
    history = [e for e in history if "questions" in e]
    questions = {name: [e["questions"][name] for e in history] for name in history[0]["questions"]}
    epochs = [{k: v for k, v in e.items() if k != "questions"} for e in history]
    records.write(spec, epochs, questions, seconds, _threads(spec))
