"""Two steps of every trained method, the frozen teacher and an evaluation, on a small model, for `test_gpu.py`.

`steps.py FILE` computes on the GPU if one is visible, else on the CPU, and writes named arrays.
"""

import contextlib
import copy
import dataclasses
import os
import sys
import traceback

import numpy as np
import torch

from rklu_lib import bases, data, evaluation, methods, metrics, models, profiles, training
from rklu_lib.models import ScoredLogits

PROFILE = profiles.profile(
    "smoke", hidden_size=96, n_questions=8, unlearn_epochs=2, max_new_tokens=8, micro_batch_size=3
)
HALF = {"bf16 weights": {"dtype": "bfloat16"}, "bf16 autocast": {"precision": "bf16"}}  # as in the large profiles
TRAINED = tuple(name for name, m in methods.METHODS.items() if m.forget)
if os.environ.get("REHEARSAL"):  # tests only the script: a teacher, a reference, a retain term
    TRAINED = ("RKLU", "NPO+KL", "DPO+RT")


def nudged(model, seed):
    """Add noise, the same on every device, to all weights of a model in place; return the model."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for theta in model.parameters():
            theta.add_((0.02 * torch.randn(theta.shape, generator=noise)).to(theta))
    return model


def setting(p=PROFILE):
    """Return (original, augmented, tokenizer, forget examples, retain examples), the same on every device."""
    tokenizer = models.train_tokenizer((f"{q} {a}" for q, a in bases.training_pairs(p, "full")), p.vocab_size)
    original = models.create(p, tokenizer, 0)
    augmented = nudged(copy.deepcopy(original), 1)
    forget, retain = (
        [data.encode(tokenizer, p.template, r["question"], r["answer"]) for r in data.load_tofu(split, p.source)[:8]]
        for split in ("forget10", "retain90")
    )
    where = models.device(), getattr(torch, p.dtype)
    return original.to(*where), augmented.to(*where), tokenizer, forget, retain


def unlearned(name, folder=None, stop=None, **changes):
    """Return (loss per epoch, change of all weights) of a method, with `changes` to `PROFILE`. stop: interrupt at the
    end of this epoch, before its state is saved, and return None."""
    p = dataclasses.replace(PROFILE, **changes)
    original, augmented, tokenizer, forget, retain = setting(p)
    chosen = methods.METHODS[name]
    refusals = methods.refused(p, tokenizer, forget, 0) if methods.REFUSALS in chosen.needs else []
    aids = methods.prepare(chosen, p, original, augmented, forget, retain if chosen.retain else [], refusals)
    nudged(original, 2)  # at the original itself +KL's gradient would be only rounding errors
    before = [theta.detach().clone() for theta in original.parameters()]

    def note(model, history):
        if len(history) == stop:
            raise InterruptedError
        return {}

    try:
        history = training.unlearn(chosen, p, original, aids, forget, retain, seed=0, folder=folder, on_epoch=note)
    except InterruptedError:
        return None
    moved = torch.cat([(a.detach() - b).flatten() for a, b in zip(original.parameters(), before, strict=True)])
    return np.array([e["loss"] for e in history]), moved.float().cpu().numpy()


def main(file):
    found = {"device": np.array(models.device())}
    for name, changes in ({n: {} for n in TRAINED} | HALF).items():
        with noted(name):
            found[f"{name} loss"], found[f"{name} moved"] = unlearned("RKLU" if changes else name, **changes)
    with noted("teacher, logits and scores"):
        found |= frozen()
    np.savez(file, **found)


@contextlib.contextmanager
def noted(name):
    """Print an exception and go on without its arrays, since the other comparisons are still worth having."""
    try:
        yield
    except Exception:
        print(f"{name}:", file=sys.stderr)
        traceback.print_exc()


def frozen():
    """Return {name: array} without training: the teacher's logits, a model's logits, its NLLs and utility parts."""
    found, (original, augmented, tokenizer, forget, _) = {}, setting()
    aids = methods.prepare(methods.METHODS["RKLU"], PROFILE, original, augmented, forget, [], [])
    found["teacher"] = aids.teacher.at(range(8))(0, None).float().cpu().numpy()
    batch = data.collate(forget, range(8)).to(models.device())
    with torch.no_grad():
        found["logits"] = ScoredLogits(original.eval())(batch.input_ids, batch.mask).float().cpu().numpy()
    asked = evaluation.load_questions(PROFILE, "forget10", tokenizer)
    scores, per_question = evaluation.evaluate(original, tokenizer, asked, PROFILE.max_new_tokens)
    found["nll"] = per_question["answer_nll"]
    return found | {"utility": np.array([scores[c] for c in metrics.UTILITY_COMPONENTS if "rouge" not in c])}


if __name__ == "__main__":
    main(sys.argv[1])
