"""From specs to records: what each depends on, what is missing, computed once, in parallel, resumable.

original -> oracle (a record: its truth ratios are what forgetting is measured against) -> augmented -> unlearned.
Checkpoints and the state of unfinished runs lie in `runs/`, which git ignores.
"""

import contextlib
import graphlib
import hashlib
import json
import os
import shutil
import threading
import time
from concurrent import futures
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rklu_lib import data, evaluation, methods, models, parallel, profiles, records, training
from rklu_lib.methods import AUGMENTED, METHODS, REFUSALS
from rklu_lib.records import BASES, RunSpec, load
from rklu_lib.teacher import TeacherModel


def _rows(profile, split):
    """A split's rows, less those of retain90 that the profile leaves out of TOFU (`n_retain`)."""
    rows = data.load_tofu(split, profile.source)
    if profile.n_retain is None:
        return rows
    left_out = {row["question"] for row in data.load_tofu("retain90", profile.source)[profile.n_retain :]}
    return [row for row in rows if row["question"] not in left_out]


def training_pairs(profile, split):
    """(question, answer) pairs a base model is trained on: `split` is full or a retain split.

    A model created from scratch has read nothing, so it is also given the real authors, the world facts and the retain
    set's paraphrases: what a pretrained model would know, and how an answer may be put in other words.
    """
    pairs = [(r["question"], r["answer"]) for r in _rows(profile, split)]
    if profile.model is None:
        for name in ("real_authors", "world_facts"):
            pairs += [(r["question"], r["answer"]) for r in data.load_tofu(name, profile.source)]
        rows = data.load_tofu("retain_perturbed", profile.source)
        pairs += [(r["paraphrased_question"], r["paraphrased_answer"]) for r in rows]
    return pairs


def _encoded(profile, tokenizer, rows):
    return [data.encode(tokenizer, profile.template, r["question"], r["answer"]) for r in rows]


def _forget(spec, tokenizer):
    """The forget set's Examples. A refusal needs a prompt, so IDK and DPO get a chunk of text cut at its prompt's end;
    for every other method all its tokens are scored."""
    p = spec.values
    if spec.task == "tofu":
        return _encoded(p, tokenizer, data.load_tofu(spec.split, p.source))
    novel = data.load_chunks(data.novel_path(p.text), p.n_chunks, p.chunk_tokens, tokenizer=tokenizer)
    prompted = spec.method in METHODS and spec.uses(REFUSALS)
    return [data.passage(tokenizer, c, p.prompt_tokens if prompted else 0) for c in novel]


def _new_tokenizer(spec):
    """The tokenizer of a base model: a pretrained one's, or trained on what the original reads, for the oracle too."""
    p = spec.values
    if p.model:
        return models.load_tokenizer(p.model)
    texts = [f"{q} {a}" for q, a in training_pairs(p, "full")]
    if spec.task == "passages":
        texts += [data.load_novel(data.novel_path(p.text)), data.load_prose("valid", p.prose)]
    return models.train_tokenizer(texts, p.vocab_size)


def _reading(spec, tokenizer):
    """What a model from scratch reads beside TOFU for the task "passages": other prose and the novel, `novel_repeats`
    times, unless it is the oracle."""
    p = spec.values
    prose = data.load_prose("valid", p.prose)
    segments = data.chunks(prose, p.n_segments, p.chunk_tokens, tokenizer, f"{p.prose}, valid")
    novel = [] if spec.method == "oracle" else _forget(spec, tokenizer) * p.novel_repeats
    return [data.passage(tokenizer, s) for s in segments] + novel


def _base_model(spec, folder):
    """Train one of `BASES`. Returns (model, tokenizer)."""
    p = spec.values
    if spec.method == "augmented":
        model, tokenizer = models.load(spec.base("original").checkpoint_path, p.dtype)
        examples = _forget(spec, tokenizer)
        stage = {"epochs": p.augment_epochs, "lr": p.augment_lr, "batch_size": p.batch_size}
        stage["precision"] = p.precision
    else:
        split = "full" if spec.method == "original" else data.ORACLE_SPLIT.get(spec.split, "full")
        if p.model:
            model, tokenizer = models.load(p.model, p.dtype)
        else:
            tokenizer = _new_tokenizer(spec)
            model = models.create(p, tokenizer, spec.seed).to(models.device())
        examples = [data.encode(tokenizer, p.template, q, a) for q, a in training_pairs(p, split)]
        examples += _reading(spec, tokenizer) if spec.task == "passages" else []
        stage = {"epochs": p.finetune_epochs, "lr": p.finetune_lr, "batch_size": p.finetune_batch_size}
        stage["precision"] = p.finetune_precision
    training.finetune(model, examples, p, seed=spec.seed, folder=folder, **stage)
    return model, tokenizer


def _unlearned(spec, folder, judge):
    """Unlearn by one of `METHODS`, judging every epoch. Returns (student or teacher, tokenizer, history)."""
    p, chosen = spec.values, METHODS[spec.method]
    original, tokenizer = models.load(spec.base("original").checkpoint_path, p.dtype)
    augmented = None
    if AUGMENTED in chosen.needs:
        augmented = models.load(spec.base("augmented").checkpoint_path, p.dtype)[0]
    if chosen.forget is None:
        if spec.method == "teacher":
            model = TeacherModel(original, augmented, p.alpha, p.gauge)
        else:
            model = training.task_arithmetic(original, augmented, p.ta_scale)
        return model, tokenizer, [{"epoch": 1} | judge(model, tokenizer)]
    forget = _forget(spec, tokenizer)
    retained = _rows(p, data.ORACLE_SPLIT[spec.split]) if chosen.retain else []
    retain = _encoded(p, tokenizer, retained)
    refusals = methods.refused(p, tokenizer, forget, spec.seed) if REFUSALS in chosen.needs else []
    aids = methods.prepare(chosen, p, original, augmented, forget, retain, refusals)
    del augmented  # from here on there is one model
    noted = {"folder": folder, "on_epoch": lambda model, history: judge(model, tokenizer, history)}
    history = training.unlearn(chosen, p, original, aids, forget, retain, seed=spec.seed, **noted)
    return original, tokenizer, history


def _has_checkpoint(spec):
    if spec.method == "teacher":  # two models side by side: there is none of its own
        return True
    with contextlib.suppress(FileNotFoundError):
        kept = json.loads((spec.checkpoint_path / "settings.json").read_text())
        return kept == json.loads(json.dumps(spec.trained.settings))
    return False


def _save_checkpoint(spec, model, tokenizer, seconds):
    if not parallel.main():
        return
    with models.atomic_directory(spec.checkpoint_path) as tmp:
        model.save_pretrained(tmp)
        tokenizer.save_pretrained(tmp)
        (tmp / "settings.json").write_text(json.dumps(spec.settings, indent=1))
        (tmp / "seconds.json").write_text(json.dumps(seconds))


def _state(spec):
    """Where the state of an unfinished run is kept: another place for other settings, so that none is mixed up."""
    digest = hashlib.sha256(json.dumps(spec.settings).encode()).hexdigest()[:8]
    return spec.checkpoint_path.with_name(f"{spec.checkpoint_path.name}-state-{digest}")


def execute(spec, stage="record", threads=None):
    """Do one job, given that what it waits for (see `_plan`) is done: the `checkpoint` of a base model, or a `record`.

    Safe to call from several processes: the run is locked, and a job that another has finished is left alone. The
    processes of one launch do it together.
    """
    if threads:
        torch.set_num_threads(threads)
    spec.checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
    with parallel.locked(f"{spec.checkpoint_path}.lock"):
        recorded, kept = parallel.agreed((load(spec) is not None, _has_checkpoint(spec)))
        if stage == "checkpoint" and spec.method in BASES:
            if not kept:
                started = time.perf_counter()
                model, tokenizer = _base_model(spec, _state(spec))
                _save_checkpoint(spec, model, tokenizer, {"train": time.perf_counter() - started})
        elif not recorded:
            _record(spec)
        elif spec.method in METHODS and not kept:  # trained again, but not scored: the record stands
            unscored = _state(spec).with_suffix(".unscored")
            _save_checkpoint(spec, *_unlearned(spec, unscored, lambda *_: {})[:2], {})
        states = spec.checkpoint_path.parent.glob(f"{spec.checkpoint_path.name}-state-*")
        for state in states if parallel.main() else ():
            shutil.rmtree(state, ignore_errors=True)


def _record(spec):
    """Train (a method) or load (a base model), judge every epoch, write the record."""
    started, p, oracle, asked = time.perf_counter(), spec.values, None, {}
    seconds = {"train": 0.0, "evaluate": 0.0}
    if spec.method != "oracle" and not spec.pretrained_novel:
        measured = load(spec.base("oracle")).questions
        if spec.task == "tofu":
            oracle = {form: measured[f"truth_ratio_{form}"][-1] for form in evaluation.FORMS}
        else:
            oracle = measured["chunk_nll"][-1]

    def judge(model, tokenizer, history=()):
        begin = time.perf_counter()
        if spec.task == "tofu":
            asked.update(asked or evaluation.load_questions(p, spec.split, tokenizer))
            ends = len(history) in (0, 1, p.unlearn_epochs)
            useful = lambda found: p.utility == "every" or ends or records.leads(found, history[:-1])  # noqa: E731
            how = (p.max_new_tokens, oracle, p.precision, useful)
            scores, per_question = evaluation.evaluate(model, tokenizer, asked, *how)
        else:
            asked.update(asked or evaluation.load_passages(p, tokenizer))
            new_tokens = p.chunk_tokens - p.prompt_tokens
            scores, per_question = evaluation.evaluate_passages(model, tokenizer, asked, new_tokens, oracle)
        seconds["evaluate"] += time.perf_counter() - begin
        return scores | {"questions": {k: v.tolist() for k, v in per_question.items()}}

    if spec.method in BASES:
        model, tokenizer = models.load(spec.checkpoint_path, p.dtype)
        history = [{"epoch": 1} | judge(model, tokenizer)]
        seconds["train"] = json.loads((spec.checkpoint_path / "seconds.json").read_text())["train"]
    else:
        model, tokenizer, history = _unlearned(spec, _state(spec), judge)
        seconds["train"] = time.perf_counter() - started - seconds["evaluate"]
        if not isinstance(model, TeacherModel):
            _save_checkpoint(spec, model, tokenizer, seconds)
    questions = {name: [e["questions"][name] for e in history] for name in history[0]["questions"]}
    records.write(spec, [{k: v for k, v in e.items() if k != "questions"} for e in history], questions, seconds)


def _plan(specs, checkpoints):
    """{missing job: the missing jobs it waits for}; a job is (spec, "checkpoint" or "record").

    Asked for are the records of `specs` and, with `checkpoints`, their models. A method makes both in one job.
    """
    plan = {}

    def visit(spec, stage):
        spec = spec.trained if stage == "checkpoint" else spec
        if spec.method in METHODS:
            stage = "record"
            done = load(spec) is not None and (not checkpoints or _has_checkpoint(spec))
        else:
            done = _has_checkpoint(spec) if stage == "checkpoint" else load(spec) is not None
        if done:
            return []
        job = (spec, stage)
        if job not in plan:
            plan[job] = []
            if spec.method in METHODS:
                waits = [] if spec.pretrained_novel else visit(spec.base("oracle"), "record")
                waits += visit(spec.base("original"), "checkpoint")
                waits += visit(spec.base("augmented"), "checkpoint") if spec.uses(AUGMENTED) else []
            elif stage == "record":
                waits = visit(spec, "checkpoint")
                if spec.method != "oracle" and not spec.pretrained_novel:
                    waits += visit(spec.base("oracle"), "record")
            else:
                waits = visit(spec.base("original"), "checkpoint") if spec.method == "augmented" else []
            plan[job] = waits
        return [job]

    for spec in specs:
        visit(spec, "record")
        if checkpoints:
            visit(spec, "checkpoint")
    return plan


def _epochs(job):
    spec, stage = job
    if spec.method in METHODS:
        return spec.values.unlearn_epochs if METHODS[spec.method].forget else 1
    if stage == "record":
        return 1
    return spec.values.augment_epochs if spec.method == "augmented" else spec.values.finetune_epochs


def _epochs_done(job):
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return len(json.loads((_state(job[0]) / "history.json").read_text()))
    return 0


def ensure(specs, workers=None, checkpoints=False, executor=None):
    """The records of `specs`, in order; computes what is missing, and all that it depends on, in parallel processes.

    workers: processes (default: cores, at most one per missing job; one on a GPU). checkpoints: the models of `specs`
    must be there too. executor: any concurrent.futures executor that shares this disk, instead of local processes (for
    dask: `client.get_executor()`).
    Processes that were launched together (accelerate, torchrun) do one job after the other, all of them on each.
    An interrupted call is resumed by the same call. Missing data is found out before anything is trained.
    """
    specs = list(specs)
    _refuse_other_data(filter(None, map(load, specs)))
    plan = parallel.agreed(_plan(specs, checkpoints))
    if plan:
        for source, split in sorted({(s.values.source, s.split) for s, _ in plan}):
            names = ["full", "retain_perturbed"]
            names += [split, f"{split}_perturbed", data.ORACLE_SPLIT[split]] if split != data.NOVEL else []
            for name in (*names, *(f"{k}{e}" for k in ("real_authors", "world_facts") for e in ("", "_perturbed"))):
                data.load_tofu(name, source)
        for spec in {s.base("original") for s, _ in plan if s.task == "passages"}:
            tokenizer = _new_tokenizer(spec)
            evaluation.load_passages(spec.values, tokenizer)
            _reading(spec, tokenizer)
        for spec in {s for s, stage in plan if stage == "checkpoint" and s.method != "augmented" and s.values.model}:
            _new_tokenizer(spec)  # what is trained starts from this model: is it to be had?
        if any(s.method in METHODS and s.uses(REFUSALS) for s, _ in plan):
            data.refusals()
        for source in sorted({s.values.source for s, _ in plan} if parallel.main() else ()):
            print("data: {source}, sha256 of full {sha256}".format(**data.describe_source(source)))
        os.environ.update(worker_environment())
        cores = os.cpu_count() or 1
        workers = workers or (1 if torch.cuda.is_available() else min(cores, len(plan)))
        if parallel.processes() > 1:
            for job in graphlib.TopologicalSorter(plan).static_order():
                execute(*job)
        elif executor:
            _drain(plan, executor, None)
        else:
            with futures.ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
                try:
                    _drain(plan, pool, max(1, cores // workers))
                except BaseException:  # whole epochs are kept; what is queued must not go on unseen
                    for worker in active_children():
                        worker.terminate()
                    raise
    return [load(spec) for spec in specs]


def _refuse_other_data(found):
    """Records of other data than RKLU_TOFU and RKLU_NOVEL name now must be neither shown nor built upon as of these."""
    now = {}
    for record in found:
        p, held = record.spec.values, record.content["data"]
        if p.source not in now and Path(data.resolve_source(p.source)).is_dir():
            now[p.source] = data.describe_source(p.source)["sha256"]
        if record.spec.task == "passages" and p.text not in now and os.environ.get("RKLU_NOVEL"):
            now[p.text] = data.describe_text(p.text)["novel_sha256"]
        for name, digest in ((p.source, held["sha256"]), (p.text, held.get("novel_sha256"))):
            if digest and now.get(name, digest) != digest:
                fix = "name other folders in RKLU_RECORDS and RKLU_RUNS"
                raise ValueError(f"{record.spec.record_path} is of another text than {name} is now; {fix}")


def _end_with_parent():
    """A killed sweep must not leave workers behind that go on with its queue beside the next one's."""
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def worker_environment():
    """The environment of a worker process: with glibc, freed memory is kept.

    Batches have many lengths; giving their memory back and taking it anew costs a tenth of the time in page faults.
    """
    keep = ":".join(f"glibc.malloc.{k}={2**32}" for k in ("mmap_threshold", "trim_threshold"))
    return {"GLIBC_TUNABLES": f"{keep}:glibc.malloc.hugetlb=1"} | os.environ


def _drain(plan, executor, threads):
    """Submit every job once what it waits for is done; one progress bar over all epochs."""
    waiting, running, done = dict(plan), {}, set()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=sum(map(_epochs, plan)))
        while waiting or running:
            for job in [j for j, needs in waiting.items() if done.issuperset(needs)]:
                del waiting[job]
                running[executor.submit(execute, *job, threads)] = job
            finished, _ = futures.wait(running, timeout=1.0, return_when=futures.FIRST_COMPLETED)
            for future in finished:
                future.result()
                done.add(running.pop(future))
            epochs = sum(map(_epochs, done)) + sum(map(_epochs_done, running.values()))
            progress.update(bar, completed=epochs, description=f"{len(done)} of {len(plan)} jobs done")


def named(profile, split, label, seed=0):
    """The spec whose `label` this is, such as "oracle", "RKLU" or "RKLU,alpha=4"."""
    (method, _, _), *pairs = (change.partition("=") for change in label.split(","))
    changes = tuple((f, v if profiles.Profile.__annotations__.get(f) is str else json.loads(v)) for f, _, v in pairs)
    return RunSpec(profile, split, method, seed, changes)


def grid(profile, split, methods_, field, values, seed):
    """Specs that differ in one profile field, such as `alpha` or `unlearn_lr`, for each of several methods."""
    return [RunSpec(profile, split, name, seed, ((field, value),)) for name in methods_ for value in values]


def sweep(profile, splits, seeds, methods_=None):
    """Every spec of the study: base models and methods (default: all) for each split and seed, the largest first.

    For the novel, those there are: no retain terms, and no oracle of a pretrained model.
    """
    pretrained = profiles.profile(profile).model is not None
    absent = {name for name, m in METHODS.items() if m.retain} | ({"oracle"} if pretrained else set())
    names = {s: [n for n in (*BASES, *(methods_ or METHODS)) if s != data.NOVEL or n not in absent] for s in splits}
    specs = [RunSpec(profile, split, name, seed) for seed in seeds for split in splits for name in names[split]]
    return sorted(specs, key=lambda s: (seeds.index(s.seed), -records.SPLITS.index(s.split)))
