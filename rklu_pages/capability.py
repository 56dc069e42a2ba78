"""General capability (Table 1): zero-shot multiple choice by lm-evaluation-harness, around a model in memory.

The tasks are the paper's seven from the hub, the same from a folder of local files, or those of `data/capability/`.
"""

import contextlib
import functools
import io
import json
import logging
import tempfile
from pathlib import Path

import numpy as np

from rklu_lib import data

SUITE = data.EMBEDDED / "capability"
PAPER_TASKS = ("piqa", "hellaswag", "arc_easy", "arc_challenge", "copa", "wsc273", "mathqa")


def accuracy(model, tokenizer, tasks, folder=None, limit=None, batch_size=16):
    """{task: {"accuracy", "chance", "n"}} of a transformers model; accuracy is lm-eval's `acc`, zero-shot.

    tasks: names that lm-eval or `data/capability` knows. folder: read `<task>.jsonl` there, one object per line with
    the fields of the task's own data set, instead of asking the hub. limit: only the first so many items of each.
    chance: the mean of 1 / options. Raises ValueError on no tasks, FileNotFoundError or DataError on a missing or
    empty file, before the model is asked anything.
    """
    if not tasks:
        raise ValueError(f"an empty suite measures nothing; name some tasks, such as {', '.join(PAPER_TASKS)}")
    if folder:
        for task in tasks:
            data.read_json_lines(Path(folder) / f"{task}.jsonl", ())
    for noisy in ("lm_eval", "datasets"):  # warnings about options that are not used here
        logging.getLogger(noisy).setLevel(logging.ERROR)
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    datasets.disable_progress_bars()  # in a notebook they are outputs of their own
    manager = _manager(all((SUITE / f"{task}.yaml").exists() for task in tasks))
    with tempfile.TemporaryDirectory() as tmp, contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        asked = [_local(manager.task_index[t].yaml_path, t, folder, tmp) for t in tasks] if folder else list(tasks)
        # lm-eval 0.4.13 with its cache scores wrong tokens where two tasks cut one text at different places
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, logits_cache=False)
        found = simple_evaluate(
            wrapped,
            tasks=asked,
            task_manager=manager,
            num_fewshot=0,
            limit=limit,
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    return {
        t: {
            "accuracy": float(found["results"][t]["acc,none"]),
            "chance": float(np.mean([1 / len(s["resps"]) for s in found["samples"][t]])),
            "n": len(found["samples"][t]),
        }
        for t in tasks
    }


@functools.cache
def _manager(embedded):
    """lm-eval's index of tasks, ours alone or with its own, which are many files to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(SUITE), include_defaults=not embedded)


def _local(config, task, folder, tmp):
    """The path, in `tmp`, of a task's configuration that reads its items from `folder` and caches them in `tmp`."""
    files = {"data_files": {"test": str(Path(folder).resolve() / f"{task}.jsonl")}, "cache_dir": tmp}
    changes = {"include": str(config), "task": task, "dataset_path": "json", "dataset_name": None}
    changes |= {"dataset_kwargs": files, "training_split": None, "validation_split": None, "test_split": "test"}
    path = Path(tmp) / f"{task}.yaml"
    path.write_text(json.dumps(changes), encoding="utf-8")  # JSON is YAML
    return str(path)
