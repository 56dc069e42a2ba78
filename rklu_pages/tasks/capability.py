"""General capability (Table 1): zero-shot multiple choice by lm-evaluation-harness, around a model in memory.

The tasks are the paper's seven from the hub, the same from a folder of local files, or those of `data/capability/`.
"""

import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
import scipy

from rklu_lib import data, evaluation

SUITE = data.EMBEDDED / "capability"
PAPER_TASKS = ("piqa", "hellaswag", "arc_easy", "arc_challenge", "copa", "wsc273", "mathqa")


def accuracy(model, tokenizer, tasks, folder=None, limit=None, batch_size=16):
    """{task: {"accuracy", "stderr", "right", "chance", "n", "asked", ...}} of a transformers model, zero-shot.

    accuracy is lm-eval's `acc`, stderr its standard error; where the task has `acc_norm` too (log-probabilities divided
    by the options' lengths), accuracy_norm, stderr_norm and right_norm are of that. right: a 1 for each item answered
    rightly and a 0 for each other, in order, as text. chance: the mean of 1 / options. asked: digest of what the model
    was given, the same for two models asked the same.
    tasks: names that lm-eval or `data/capability` knows. folder: read `<task>.jsonl` there, one object per line with
    the fields of the task's own data set, instead of asking the hub. limit: only the first so many items of each.
    Raises ValueError on no tasks, FileNotFoundError or DataError on a missing or empty file, before the model is asked
    anything.
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

    datasets.disable_progress_bars()  # in a notebook they are outputs of their own
    manager = _manager(all((SUITE / f"{task}.yaml").exists() for task in tasks))
    with tempfile.TemporaryDirectory() as tmp, contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        asked = [_local(manager.task_index[t].yaml_path, t, folder, tmp) for t in tasks] if folder else list(tasks)
        found = simple_evaluate(
            _harness_model()(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=asked,
            task_manager=manager,
            num_fewshot=0,
            limit=limit,
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    return {t: _scores(sorted(found["samples"][t], key=lambda s: s["doc_id"])) for t in tasks}


@functools.cache
def _harness_model():
    """lm-eval's class for a transformers model, but that it reads each context once for all its options: its own reads
    it with every option anew, more than twice the tokens of the paper's tasks, and with its cache on (0.4.13) it scores
    wrong ones where two tasks cut one text at different places."""
    from lm_eval.models.huggingface import HFLM

    class SharedContexts(HFLM):
        def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
            """[(log-likelihood, False)] of [(texts, context ids, option ids)]. Whether the option is what greedy
            decoding says is not found out: no accuracy asks."""
            asked, likelihoods = {}, [None] * len(requests)
            for place, (_, context, option) in enumerate(requests):
                kept = context[-(self.max_length + 1 - len(option)) :]
                asked.setdefault(tuple(kept), []).append((place, tuple(option)))
            options = [[option for _, option in chosen] for chosen in asked.values()]
            nll, _ = evaluation.score_answers(self.model, list(asked), options, batch_size=self.batch_size)
            for chosen, values in zip(asked.values(), nll, strict=True):
                for (place, option), value in zip(chosen, values, strict=True):
                    likelihoods[place] = (-value * len(option), False)
            return likelihoods

    return SharedContexts


def _scores(samples):
    """What `accuracy` says of one task, from lm-eval's samples."""
    scores = {}
    for metric, ending in (("acc", ""), ("acc_norm", "_norm")):
        if metric in samples[0]:
            right = [int(s[metric]) for s in samples]
            mean = float(np.mean(right))
            scores |= {f"accuracy{ending}": mean, f"stderr{ending}": standard_error(mean, len(right))}
            scores[f"right{ending}"] = "".join(map(str, right))
    asked = json.dumps([[s["arguments"], s["target"]] for s in samples])
    scores |= {"chance": float(np.mean([1 / len(s["resps"]) for s in samples])), "n": len(samples)}
    return scores | {"asked": hashlib.sha256(asked.encode()).hexdigest()[:16]}


def standard_error(accuracy, n):
    """Of a mean of n rights and wrongs, as lm-eval has it: sqrt(p (1 - p) / (n - 1)); NaN for a single item."""
    return math.sqrt(accuracy * (1 - accuracy) / (n - 1)) if n > 1 else math.nan


def mcnemar(before, after, alternative="two-sided"):
    """McNemar's exact test of two models on the same items: {"lost", "gained", "p"}.

    before, after: as `accuracy`'s right, of equal length. lost: right before and wrong after; gained: the reverse. p:
    of so uneven a split of the lost and gained by a fair coin, or, with "greater", of so many lost; 1 where there are
    none. Raises ValueError when lengths differ.
    """
    pairs = list(zip(before, after, strict=True))
    lost, gained = (sum(pair == change for pair in pairs) for change in (("1", "0"), ("0", "1")))
    return {
        "lost": lost,
        "gained": gained,
        "p": scipy.stats.binomtest(lost, lost + gained, alternative=alternative).pvalue if lost + gained else 1.0,
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
