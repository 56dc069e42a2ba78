"""Time an epoch of RKLU with the frozen teacher against the loop that runs three models at every step."""

import copy
import json
import sys
from functools import partial

import torch
from measure import measured, write

from rklu_lib import data, losses, methods, models, profiles, training
from rklu_lib.teacher import teacher_logits

# Vocabulary and answer lengths are a large model's; the width is small enough for two cores.
SHAPE = dict(hidden_size=256, intermediate_size=704, n_layers=4, n_heads=8, vocab_size=32_000, max_positions=128)
EXAMPLES, PROMPT, ANSWER, BATCH, EPOCHS = 64, 24, 64, 16, 1


class Vocabulary:
    """The part of a tokenizer that `models.create` needs."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


def setting():
    profile = profiles.profile("mini", **SHAPE, batch_size=BATCH, unlearn_epochs=EPOCHS)
    original, augmented = (models.create(profile, Vocabulary(profile.vocab_size), seed) for seed in (0, 1))
    ids = torch.randint(3, profile.vocab_size, (EXAMPLES, PROMPT + ANSWER), generator=torch.Generator().manual_seed(0))
    examples = [data.Example(tuple(row[:PROMPT]), tuple(row[PROMPT:])) for row in ids.tolist()]
    return profile, original, augmented, examples


def naive(profile, original, augmented, examples):
    """Train with original and augmented model beside the student, all logits at all positions, and a masked loss."""
    student = copy.deepcopy(original)

    def term(index):
        batch = data.collate(examples, index)

        def loss(_):
            with torch.no_grad():
                pair = [m(input_ids=batch.input_ids).logits for m in (original, augmented)]
            held = teacher_logits(*pair, profile.alpha)
            return losses.reverse_kl(student(input_ids=batch.input_ids).logits, held, batch.mask)

        return loss

    order = data.epoch_order([PROMPT + ANSWER] * EXAMPLES, BATCH, 0, 0)
    history = training.fit(student, lambda epoch: [[term(i)] for i in order], epochs=1, epoch_steps=len(order), lr=1e-4)
    return history[-1]["loss"]


def one(form):
    profile, original, augmented, examples = setting()
    if form == "naive":
        print(json.dumps(measured(partial(naive, profile, original, augmented, examples), repeats=2)))
        return
    chosen = methods.method("RKLU")
    aids = methods.prepare(chosen, profile, original, augmented, examples, [], [])
    student = original  # `aids` replaces the two models, which are freed
    del original, augmented
    start = copy.deepcopy(student.state_dict())

    def epoch():
        student.load_state_dict(start)
        steps = [
            [lambda scored, i=i: chosen.forget(scored, data.collate(examples, i), aids, 0)]
            for i in data.epoch_order([PROMPT + ANSWER] * EXAMPLES, BATCH, 0, 0)
        ]
        return training.fit(student, lambda _: steps, epochs=1, epoch_steps=len(steps), lr=1e-4)[-1]["loss"]

    print(json.dumps(measured(epoch, repeats=2)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(*sys.argv[1:])
    else:
        write("teacher", __file__, {"RKLU epoch": {form: (form,) for form in ("naive", "frozen")}})
