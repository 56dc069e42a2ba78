"""What several tests share: places, files, commands, jobs, records made by hand, and plain scores to compare with."""

import dataclasses
import json
import math
import re
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rklu_lib import cli, data, runs
from rklu_lib.records import Record, RunSpec

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHARED = ROOT.parent / "shared"
LOGS = SHARED / "tofu_logs" / "llama2-7b"
LAUNCHED = ROOT / "tests" / "launched.py"
TOWNS = ("Pellworm", "Quedlinburg", "Rovaniemi", "Setubal", "Tromso", "Uppsala", "Vaduz", "Wismar", "Ystad", "Zadar")
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the TOFU authors' logs are not here")


def tiny_fields(folder, **changes):
    """The fields, but for its name, of a profile on a folder's TOFU in which every stage takes a second or less."""
    values = dict(source=str(folder), template="Q: {question} A: {answer}", hidden_size=32)
    values |= dict(intermediate_size=64, n_layers=2, n_heads=2, vocab_size=320, max_positions=128, batch_size=4)
    values |= dict(finetune_batch_size=16, finetune_epochs=2, finetune_lr=3e-3, augment_epochs=2, augment_lr=2e-3)
    values |= dict(n_chunks=6, chunk_tokens=32, prompt_tokens=12, n_segments=5)
    return values | dict(unlearn_epochs=2, unlearn_lr=2e-3, max_new_tokens=4) | changes


def json_lines(*rows):
    """The text of a JSON-lines file with these rows, by `json` alone: no reader or writer of the library's."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_lines(path, rows):
    """A file of `json_lines`; returns its path."""
    path.write_text(json_lines(*rows), encoding="utf-8")
    return path


def rklu(*arguments, **environment):
    """What the command `rklu` with these arguments did, in this process, on a wide terminal without colours."""
    environment = {"COLUMNS": "160", "NO_COLOR": "1"} | environment
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], env=environment)


def flat(text):
    """Output without colours and the box that typer draws, on one line: however wide the terminal was."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))


def until(condition, seconds=500):
    """What a condition became: waits until it holds, or for so long."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


class Here(futures.Executor):
    """Runs each job when it is submitted, in this process, and notes it."""

    def __init__(self):
        self.jobs = []

    def submit(self, function, spec, stage, threads):
        assert function is runs.execute
        self.jobs.append((spec.method, stage))
        future = futures.Future()
        try:
            future.set_result(function(spec, stage, threads))
        except Exception as error:
            future.set_exception(error)
        return future


class Nowhere(futures.Executor):
    """Runs nothing."""

    def submit(self, function, spec, stage, threads):
        raise AssertionError(f"nothing was to be computed, but {spec.method} ({stage}) was")


class Interrupted(Exception):
    """What stops a run in a test, so that nothing else is taken for it."""


def interrupt(monkeypatch, spec, after=2):
    """Begin a run and interrupt it as its second epoch begins; returns the folder of its state."""
    order, asked = data.epoch_order, []

    def fails(*args):
        asked.append(args)
        if len(asked) == after:
            raise Interrupted
        return order(*args)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(data, "epoch_order", fails)
        runs.ensure([spec], executor=Here())
    return runs.state(spec)


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def answer_logits(model, example):
    """Logits (answer tokens, vocab) by one plain forward: independent of the library's batches, caches and heads."""
    ids = torch.tensor([[*example.prompt, *example.answer]])
    return model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]


@torch.no_grad()
def plain_nll(logits_of, prompt, answer):
    """Mean NLL per answer token from one forward over the whole sequence, in float64: independent of `evaluation`."""
    log_p = logits_of(torch.tensor([prompt + answer]))[0].double().log_softmax(-1)
    return -np.mean([log_p[len(prompt) - 1 + t, token].item() for t, token in enumerate(answer)])


def answer_probability(model, example):
    """Mean probability per token of an answer, by `plain_nll`: independent of `evaluation` and `own.measure`."""
    return math.exp(-plain_nll(lambda ids: model(input_ids=ids).logits, example.prompt, example.answer))


@torch.no_grad()
def log_likelihood(model, tokenizer, context, option):
    """log p of one text after another, each tokenised and read alone: shares no code with lm-eval or `evaluation`."""
    before, after = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (context, option))
    logp = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(logp[len(before) + k - 1, token].item() for k, token in enumerate(after))


@torch.no_grad()
def generated(model, prompt, length, eos):
    """transformers' own greedy continuation, without the end-of-text token: independent of the library's decoding."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length, eos_token_id=eos,
        pad_token_id=0,
    )  # fmt: skip
    tokens = out[0, len(prompt) :].tolist()
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


def record(method, qualities, utilities, probability=0.1, **content):
    """A record of forget10 with these forget qualities and utilities per epoch, made by hand: of no run."""
    epochs = [
        {"epoch": i, "forget_quality_benchmark": q, "model_utility": u}
        | {"forget_probability": probability, "forget_rouge": 0.5}
        for i, (q, u) in enumerate(zip(qualities, utilities, strict=True), 1)
    ]
    spec = RunSpec("mini", "forget10", method, 0, tuple(content.pop("overrides", ())))
    content = {
        "data": {"source": "made by hand", "sha256": "0"},
        "code": {"commit": "abc"},
        "machine": "none",
    } | content
    return Record(spec, content | {"epochs": epochs}, {})


def seeded(method, seed, qualities, utilities):
    """`record` of another seed."""
    made = record(method, qualities, utilities)
    return dataclasses.replace(made, spec=dataclasses.replace(made.spec, seed=seed))


def of_forget05(made):
    """The same record as one of another forget set."""
    return Record(RunSpec("mini", "forget05", made.spec.method), made.content, made.questions)


def with_ratios(record, *per_epoch):
    """The same record with these truth ratios per epoch, question by question."""
    return Record(record.spec, record.content, {"truth_ratio_benchmark": np.array(per_epoch)})


RKLU = record("RKLU", [0.001, 0.2, 0.2, 0.01], [0.5, 0.6, 0.7, 0.9], probability=0.01)
FKLU = record("FKLU", [0.001, 0.002, 0.02, 0.3e-3], [0.9, 0.8, 0.7, 0.9], probability=0.2)


def prose(path):
    """Return the text of a page: of a notebook, its markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
