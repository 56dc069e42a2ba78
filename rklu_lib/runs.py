"""Compute the records of specs: find what is missing and what it depends on, then run each job once, in parallel.

Order: original, oracle (a record, whose truth ratios forget quality is measured against), augmented, unlearned models.
Checkpoints and the state of unfinished runs lie in `runs/`, which git ignores. Interrupted runs are resumed.
"""

import contextlib
import errno
import gc
import graphlib
import json
import os
import sys
import threading
from concurrent import futures
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rklu_lib import bases, data, evaluation, parallel, profiles, records
from rklu_lib.execution import execute, has_checkpoint, state
from rklu_lib.methods import AUGMENTED, METHODS, REFUSALS, STUDY
from rklu_lib.records import BASES, RunSpec, load


def _plan(specs, checkpoints):
    """Return {missing job: list of the missing jobs that it waits for}. A job is (spec, "checkpoint" or "record").

    The plan covers the records of `specs` and, with `checkpoints`, their models. One job of a method makes both."""
    plan = {}

    def visit(spec, stage):
        spec = spec.trained if stage == "checkpoint" else spec
        if spec.method in METHODS:
            stage = "record"
            done = load(spec) is not None and (not checkpoints or has_checkpoint(spec))
        else:
            done = has_checkpoint(spec) if stage == "checkpoint" else load(spec) is not None
        if done:
            return []
        job = (spec, stage)
        if job not in plan:
            plan[job] = []
            if spec.method in METHODS:
                waits = visit(spec.against, "record") if spec.against else []
                waits += visit(spec.base("original"), "checkpoint")
                waits += visit(spec.base("augmented"), "checkpoint") if spec.uses(AUGMENTED) else []
            elif stage == "record":
                waits = visit(spec, "checkpoint") + (visit(spec.against, "record") if spec.against else [])
            else:
                waits = visit(spec.base("original"), "checkpoint") if spec.method == "augmented" else []
            plan[job] = waits
        return [job]

    for spec in specs:
        visit(spec, "record")
        if checkpoints:
            visit(spec, "checkpoint")
    return plan


def jobs(specs):
    """Return the jobs that the records of `specs` still need, in an order in which they can run; see `_plan`."""
    return list(graphlib.TopologicalSorter(_plan(specs, checkpoints=False)).static_order())


def epochs(job):
    """Return how many epochs a job trains; 1 for a job that only scores."""
    spec, stage = job
    if spec.method in METHODS:
        return spec.values.unlearn_epochs if METHODS[spec.method].forget else 1
    if stage == "record":
        return 1
    return spec.values.augment_epochs if spec.method == "augmented" else spec.values.finetune_epochs


def _epochs_done(job):
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return len(json.loads((state(job[0]) / "history.json").read_text()))
    return 0


def ensure(specs, workers=None, checkpoints=False, executor=None):
    """Return the records of `specs`, in order. Missing ones, and all that they depend on, are computed in parallel.

    workers: number of processes (default: the cores, at most one per missing job; 1 on a GPU). checkpoints: also make
    the models of `specs`. executor: a concurrent.futures executor that shares this disk, instead of local processes,
    such as that of `commands.cluster`. Processes launched together (accelerate, torchrun) work together on each job.
    The same call resumes an interrupted one. Data and models are checked before training: ValueError, OSError.
    Raises FloatingPointError, after all other jobs, for runs that diverged or ran out of GPU memory; OSError for a full
    disk; ChildProcessError for a killed worker."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    specs = list(specs)
    refuse_other_data(filter(None, map(load, specs)))
    plan = parallel.agreed(_plan(specs, checkpoints))
    if plan:
        for source, split in sorted({(s.values.source, s.split) for s, _ in plan}):
            names = ["full", "retain_perturbed"]
            names += [split, f"{split}_perturbed", data.ORACLE_SPLIT[split]] if split != data.NOVEL else []
            for name in (*names, *(f"{k}{e}" for k in ("real_authors", "world_facts") for e in ("", "_perturbed"))):
                data.load_tofu(name, source)
        for spec in {s.base("original") for s, _ in plan if s.task == "passages"}:
            tokenizer = bases.new_tokenizer(spec)
            evaluation.load_passages(spec.values, tokenizer)
            bases.reading(spec, tokenizer)
        for job in plan:
            bases.check(*job)
        if any(s.method in METHODS and s.uses(REFUSALS) for s, _ in plan):
            data.refusals()
        for source in sorted({s.values.source for s, _ in plan} if parallel.main() else ()):
            print("data: {source}, sha256 of full {sha256}".format(**data.describe_source(source)))
        records.writable()
        os.environ.update(worker_environment())
        cores = os.cpu_count() or 1
        workers = workers or (1 if torch.cuda.is_available() else min(cores, len(plan)))
        if parallel.processes() > 1:
            for job in graphlib.TopologicalSorter(plan).static_order():
                execute(*job)
        elif executor:
            _drain(plan, executor, None)
        else:
            has = dict(os.environ), records.RECORDS, records.RUNS
            with futures.ProcessPoolExecutor(workers, _context(), _begin, has) as pool:
                try:
                    _drain(plan, pool, max(1, cores // workers))
                except BaseException:  # finished epochs are kept; queued jobs must not go on unseen
                    for worker in active_children():
                        worker.terminate()
                    raise
    return [load(spec) for spec in specs]


def refuse_other_data(found):
    """Raise ValueError if a record is of another TOFU or novel than RKLU_TOFU and RKLU_NOVEL name now."""
    now = {}
    for record in found:
        p, held = record.spec.values, record.content["data"]
        tofu, novel = ("data", p.source), ("novel", p.text)  # two keys: at smoke both are named fictional
        if tofu not in now and Path(data.resolve_source(p.source)).is_dir():
            now[tofu] = data.describe_source(p.source)["sha256"]
        if record.spec.task == "passages" and novel not in now and os.environ.get("RKLU_NOVEL"):
            now[novel] = data.describe_text(p.text)["novel_sha256"]
        for name, digest in ((tofu, held["sha256"]), (novel, held.get("novel_sha256"))):
            if digest and now.get(name, digest) != digest:
                fix = "name other folders in RKLU_RECORDS and RKLU_RUNS"
                raise ValueError(f"{record.spec.record_path} was made with other data than {name[1]} has now; {fix}")


def _context():
    """Return how workers start: on Linux without a GPU, forked from a server that has imported all they need, which
    saves each worker ten seconds. Otherwise each starts anew, since CUDA does not survive a fork."""
    if sys.platform != "linux" or torch.cuda.is_available():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["rklu_lib.execution", "transformers.models.llama.modeling_llama"])
    return context


def _begin(environment, *places):
    """Give a worker the environment and the store of the process that asked for it; the fork server may have others.
    The worker ends with its parent: else, after a kill, it would go on with the old queue beside the next sweep's."""
    os.environ.clear()
    os.environ.update(environment)
    records.RECORDS, records.RUNS = places
    gc.freeze()  # the collector, called after every run, need not go through the imported modules again
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def worker_environment():
    """Return the environment of a worker process, in which glibc keeps freed memory, in one heap for all threads.

    Returning memory and requesting it again costs a tenth of the time. With one heap per thread, training 135 M
    parameters took 23 GB; with one heap, 16. A GLIBC_TUNABLES that is already set is not changed."""
    keep = ":".join(f"glibc.malloc.{k}={2**32}" for k in ("mmap_threshold", "trim_threshold"))
    return {"GLIBC_TUNABLES": f"{keep}:glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"} | os.environ


@contextlib.contextmanager
def _named(job, failed):
    """Add the run's name and a fix to an error. A run that diverged is noted in `failed`: the other jobs go on."""
    spec = job[0]
    name = f"{spec.profile}, {spec.split}, {spec.label}, seed {spec.seed}"
    try:
        yield
    except (FloatingPointError, torch.OutOfMemoryError) as error:  # another job may need less GPU memory
        failed.append(f"{name}: {error}")
    except OSError as error:
        fix = "free some of the disk, or name another in RKLU_RUNS and RKLU_RECORDS; the same command goes on"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "disk full" in str(error)
        raise OSError(f"{name}: {error}; {fix}") if full else error from None
    except futures.BrokenExecutor:
        fix = "the same command goes on from the last whole epoch; with fewer --workers each has more memory"
        raise ChildProcessError(f"{name}: a worker was killed, by a system short of memory perhaps; {fix}") from None


def _drain(plan, executor, threads):
    """Submit each job when the jobs it waits for are done. Runs that failed (see `_named`) are raised at the end."""
    waiting, running, done, failed = dict(plan), {}, set(), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=sum(map(epochs, plan)))
        while running or any(map(done.issuperset, waiting.values())):
            for job in [j for j, needs in waiting.items() if done.issuperset(needs)]:
                del waiting[job]
                running[executor.submit(execute, *job, threads)] = job
            finished, _ = futures.wait(running, timeout=1.0, return_when=futures.FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                with _named(job, failed):
                    future.result()
                    done.add(job)
            shown = sum(map(epochs, done)) + sum(map(_epochs_done, running.values()))
            progress.update(bar, completed=shown, description=f"{len(done)} of {len(plan)} jobs done")
    if failed:
        raise FloatingPointError("; ".join(sorted(failed)))


def named(profile, split, label, seed=0):
    """Return the spec with this `label`, such as "oracle", "RKLU" or "RKLU,alpha=4"."""
    (method, _, _), *pairs = (change.partition("=") for change in label.split(","))
    texts = [f for f, kind in profiles.Profile.__annotations__.items() if kind is str]
    words = {"True": "true", "False": "false", "None": "null"}  # a label has Python's, JSON its own
    try:
        changes = tuple((f, v if f in texts else json.loads(words.get(v, v))) for f, _, v in pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"{label}: {error.doc!r} is no value of a field; write it as in alpha=4") from None
    return RunSpec(profile, split, method, seed, changes)


def grid(profile, split, methods_, field, values, seed):
    """Return a spec for each method and each value of one profile field, such as `alpha` or `unlearn_lr`."""
    return [RunSpec(profile, split, name, seed, ((field, value),)) for name in methods_ for value in values]


def sweep(profile, splits, seeds, methods_=None):
    """Return every spec of the study: base models and methods (default: `STUDY`) for each split and seed.

    Order: by seed as given, then the novel, then TOFU's splits from the largest. For the novel, a pretrained model has
    no oracle, and the default methods are those without a retain term."""
    pretrained = profiles.profile(profile).model is not None
    absent = {n for n, m in METHODS.items() if m.retain and not methods_} | ({"oracle"} if pretrained else set())
    names = {s: [n for n in (*BASES, *(methods_ or STUDY)) if s != data.NOVEL or n not in absent] for s in splits}
    specs = [RunSpec(profile, split, name, seed) for seed in seeds for split in splits for name in names[split]]
    return sorted(specs, key=lambda s: (seeds.index(s.seed), -records.SPLITS.index(s.split)))
