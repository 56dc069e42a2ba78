"""The plan of `rklu unlearn`: memory, disk, time, and a tokenised example, found without loading any weights."""

import shutil
import time

import torch
from rich.table import Table
from rich.text import Text

from rklu_lib import budget, data, files, models
from rklu_lib.methods import AUGMENTED
from rklu_lib.own import checkpoints

SHOWN = 512  # how many tokens of the first example's prompt, and of its answer, are printed


def estimate(job):
    """Return {"parameters", "memory", "memory_there", "disk", "disk_there", "seconds"} of a job; sizes are in bytes.

    memory: weights, gradients and AdamW's two moments of what is trained, in bf16 also the rounding compensation; on a
    CPU, if all parameters are augmented, the original too; activations on top. disk: the new weights, the best epoch's,
    and states of unfinished training. seconds: roughly, of 6 operations per parameter and token, forward alone 2."""
    n, p = budget.parameters(job.config), job.profile
    lora = budget.adapters(job.config, p.lora_rank)
    size, augments = budget.BYTES[p.dtype], AUGMENTED in job.method.needs
    beside = n * size if augments and not lora and models.device() == "cpu" else 0  # see `unlearning._train`
    tokens = {k: sum(map(len, examples)) for k, examples in job.examples.items()}
    trained = tokens["forget"] * (p.unlearn_epochs * (2 if job.method.retain else 1) + p.augment_epochs * augments)
    measured = sum(tokens.values()) * (p.unlearn_epochs + 6)
    disk = n * (budget.BYTES[job.save_dtype] + size) + (2 + augments) * budget.state(n, p.dtype, lora)
    return {
        "parameters": n,
        "memory": sum(budget.held(n, p.dtype, lora).values()) + beside,
        "memory_there": checkpoints.memory(),
        "disk": disk,
        "disk_there": shutil.disk_usage(files.nearest(job.out.parent)).free,
        "seconds": n * (6 * trained + 2 * measured) / (budget.EFFICIENCY * _speed(getattr(torch, p.dtype))),
    }


def _speed(dtype):
    """Return the floating-point operations per second of a product of two square matrices: the fastest of four."""
    n = 512 if models.device() == "cpu" else 8192  # a smaller product does not keep a GPU busy
    a, best = torch.ones(n, n, dtype=dtype, device=models.device()), float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - begun)
    return 2 * n**3 / best


def refuse(job, found):
    """Raise ValueError if memory or disk cannot hold what `estimate` found."""
    if found["memory"] > found["memory_there"]:
        half = " --dtype bfloat16 takes five eighths;" if job.profile.dtype == "float32" else ""
        taken = f"training takes {_gb(found['memory'])} for weights, gradients and moments"
        free = f"{_gb(found['memory_there'])} are free;{half} a larger machine or a smaller model is needed"
        raise ValueError(f"{taken}, and {free}")
    if found["disk"] > found["disk_there"]:
        there = f"{_gb(found['disk_there'])} are free beside {job.out}"
        raise ValueError(f"the result and the run's state take {_gb(found['disk'])}, and {there}; name another --out")


def _gb(n):
    return f"{n / 1e9:.3g} GB"


def show(job, found):
    """Return what `rklu unlearn --dry-run` prints, a list of rich renderables."""
    p, table = job.profile, Table(box=None, show_header=False)
    files = {k: ", ".join(f"{s['name']} ({s['rows']} rows)" for s in c.sources) for k, c in job.corpora.items() if c}
    part = f"adapters of rank {p.lora_rank} are " if p.lora_rank else ""
    augment = f"{p.augment_epochs} epochs of augmenting, then " if AUGMENTED in job.method.needs else ""
    rows = {
        "model": f"{job.model}: {job.config.model_type}, {found['parameters']:,} parameters, {job.source_dtype}",
        **files,
        "method": f"{job.method.name}: {augment}up to {p.unlearn_epochs} of unlearning; alpha {p.alpha:g}, "
        f"learning rate {p.learning_rate(job.method.family):g}, {len(job.examples['forget'])} examples in batches of "
        f"{p.batch_size}",
        "rule": job.rule,
        "weights": f"{part}trained in {p.dtype}, saved in {job.save_dtype}",
        "memory": f"{_gb(found['memory'])} and activations, of {_gb(found['memory_there'])} free ({models.device()})",
        "disk": f"up to {_gb(found['disk'])} of {_gb(found['disk_there'])} free",
        "time": f"about {_clock(found['seconds'])}, judged by one product of matrices: within a factor of three",
        "out": str(job.out),
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(data.printable(value)))
    first = job.examples["forget"][0]
    decode = job.tokenizer.decode
    said = ([decode([t]).replace("\n", "↵") for t in tokens[:SHOWN]] for tokens in (first.prompt, first.answer))
    prompt, answer = (data.printable("|".join(tokens)) for tokens in said)
    shown = Text("\nThe first example, one token between bars; only what is marked is scored:\n")
    shown.append(prompt, style="grey50").append("\n")
    shown.append(answer, style="bold underline green")
    return [table, shown, *(Text(data.printable(f"Note: {n}")) for n in job.notes)]


def _clock(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
