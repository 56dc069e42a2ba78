"""The book's example of the loss in transformers' Trainer is run as printed, and its loss is the library's."""

import copy
import re

import pytest
import torch
from helpers import ROOT
from transformers import TrainingArguments

from rklu_lib import data, methods, models

PAGE = ROOT / "book" / "rerun.md"


def padded(rows):
    longest = max(len(r["input_ids"]) for r in rows)

    def column(name, fill):
        return torch.tensor([r[name] + [fill] * (longest - len(r[name])) for r in rows])

    return {"input_ids": column("input_ids", 0), "labels": column("labels", -100)} | {
        "attention_mask": column("attention_mask", 0)
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # the Trainer's own
def test_the_trainer_of_the_book_follows_the_teacher(tmp_path, tiny_model, tokenizer, examples, profile):
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) if "Trainer" in c)
    names = {}
    exec(code, names)  # what a reader would paste
    original, augmented = tiny_model(), tiny_model(seed=1)
    rows = [
        {"input_ids": [*e.prompt, *e.answer], "labels": [-100] * len(e.prompt) + list(e.answer)}
        | {"attention_mask": [1] * len(e.prompt + e.answer)}
        for e in examples
    ]
    student = copy.deepcopy(original)
    options = {"output_dir": tmp_path, "max_steps": 30, "learning_rate": 5e-4, "per_device_train_batch_size": 8}
    options |= {"report_to": [], "save_strategy": "no", "remove_unused_columns": False, "use_cpu": True}
    arguments = TrainingArguments(**options, disable_tqdm=True, logging_steps=1, dataloader_pin_memory=False)
    trainer = names["Unlearner"](
        original, augmented, alpha=2.0, model=student, args=arguments, train_dataset=rows, data_collator=padded
    )
    batch = data.collate(examples, range(len(examples)))
    aids = methods.prepare(
        methods.method("RKLU"),
        profile.__class__(**vars(profile) | {"alpha": 2.0}),
        original,
        augmented,
        examples,
        [],
        [],
    )
    ours = methods.method("RKLU").forget(models.ScoredLogits(student), batch, aids, 0)
    torch.testing.assert_close(trainer.compute_loss(student.eval(), padded(rows)), ours, rtol=1e-3, atol=1e-4)
    twice = TrainingArguments(**options | {"max_steps": 1, "gradient_accumulation_steps": 2}, disable_tqdm=True,
                              logging_steps=1, dataloader_pin_memory=False)  # fmt: skip
    once = names["Unlearner"](
        original, augmented, alpha=2.0, model=copy.deepcopy(student), args=twice, train_dataset=rows[:8] * 2,
        data_collator=padded,
    )  # fmt: skip
    once.train()
    alone = trainer.compute_loss(student.eval(), padded(rows[:8])).item()
    assert once.state.log_history[0]["loss"] == pytest.approx(alone, rel=0.5)  # a mean, not a sum, over two batches
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
