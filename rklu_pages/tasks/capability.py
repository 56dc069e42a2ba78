"""General capability (Table 1): zero-shot multiple choice by lm-evaluation-harness, on a model in memory.

The tasks are the paper's seven, from the hub or from a folder of local files, or the tasks of `data/capability/`.
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
    """Return {task: {"accuracy", "stderr", "right", "chance", "n", "asked", ...}} of a transformers model, zero-shot.

    accuracy is lm-eval's `acc`, a share, and stderr its standard error. Where a task also has `acc_norm` (by
    log-probability over the option's length), it gives accuracy_norm, stderr_norm and right_norm. right: text, a 1 for
    each item answered rightly and a 0 for each other item, in order. chance: the mean of 1 / number of options. asked:
    digest of all prompts and targets, the same for two models asked the same.
    tasks: names that lm-eval or `data/capability` knows. folder: read `<task>.jsonl` there, one object per line with
    the fields of the task's own data set, instead of the hub. limit: only the first `limit` items of each task.
    Raises ValueError for no tasks, FileNotFoundError or DataError for a missing or empty file, before any question.
    """
    if not tasks:
        raise ValueError(f"an empty suite measures nothing; name some tasks, such as {', '.join(PAPER_TASKS)}")
    if folder:
        for task in tasks:
            data.read_json_lines(Path(folder) / f"{task}.jsonl", ())
    for noisy in ("lm_eval", "datasets"):  # they warn about options that are not used here
        logging.getLogger(noisy).setLevel(logging.ERROR)
    import datasets
    from lm_eval import simple_evaluate

    datasets.disable_progress_bars()  # in a notebook each would be an output
    manager = _manager(all((SUITE / f"{task}.yaml").exists() for task in tasks))
    with tempfile.TemporaryDirectory() as tmp, contextlib.redirect_stderr(io.StringIO()):  # hides progress bars
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
    """Return a subclass of lm-eval's HFLM that reads each context once for all its options. HFLM reads the context
    again with every option, more than twice the tokens on the paper's tasks. With its cache on (0.4.13) it scores wrong
    where two tasks cut the same text at different places."""
    from lm_eval.models.huggingface import HFLM

    class SharedContexts(HFLM):
        def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
            """Return [(log-likelihood, False)] of [(texts, context ids, option ids)]. False stands for "is what greedy
            decoding says", which is not computed since no accuracy needs it."""
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
    """Return the scores of one task, as described in `accuracy`, from lm-eval's samples."""
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
    """Return an accuracy's standard error over n items, as in lm-eval: sqrt(p (1 - p) / (n - 1)); NaN for n = 1."""
    return math.sqrt(accuracy * (1 - accuracy) / (n - 1)) if n > 1 else math.nan


def mcnemar(before, after, alternative="two-sided"):
    """Return {"lost", "gained", "p"}, McNemar's exact test of two models on the same items.

    before, after: texts of 0 and 1, as "right" of `accuracy`, of equal length. lost: right before and wrong after;
    gained: the reverse. p: the binomial p-value of `lost` in lost + gained tosses of a fair coin, two-sided or, with
    "greater", of as many or more; 1 where both counts are 0. Raises ValueError when the lengths differ.
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
    """Return lm-eval's index of our tasks; unless `embedded`, also of lm-eval's own, which takes longer to read."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(SUITE), include_defaults=not embedded)


def _local(config, task, folder, tmp):
    """Write a task configuration to `tmp` that reads items from `folder` and caches them in `tmp`; return its path."""
    files = {"data_files": {"test": str(Path(folder).resolve() / f"{task}.jsonl")}, "cache_dir": tmp}
    changes = {"include": str(config), "task": task, "dataset_path": "json", "dataset_name": None}
    changes |= {"dataset_kwargs": files, "training_split": None, "validation_split": None, "test_split": "test"}
    path = Path(tmp) / f"{task}.yaml"
    path.write_text(json.dumps(changes), encoding="utf-8")  # JSON is YAML
    return str(path)
