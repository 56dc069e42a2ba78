"""TOFU's evaluation by the library's engine against a straightforward evaluator of the same model.

The straightforward evaluator scores each answer set in a separate pass, in the file's order, padded to the longest of
the set, with all logits; it generates with transformers in the file's order. Both ask all questions of `mini`'s
forget10 of its original model, which is trained first if it does not exist."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measure import RESULTS, measured, write

from rklu_lib import caches, evaluation, models, runs
from rklu_lib.records import RunSpec

ORIGINAL, SETS = RunSpec("mini", "forget10", "original"), ("forget", "retain", "authors", "facts")


def setting():
    """Return (model, tokenizer, {set: Questions}, number of tokens to generate)."""
    model, tokenizer = models.load(ORIGINAL.checkpoint_path)
    asked = evaluation.load_questions(ORIGINAL.values, "forget10", tokenizer)
    return model.eval(), tokenizer, asked, ORIGINAL.values.max_new_tokens


@torch.no_grad()
def straightforward_nll(model, prompts, answers, batch_size=32):
    tokens = [p + a for p, a in zip(prompts, answers, strict=True)]
    longest, values = max(map(len, tokens)), []
    for at in range(0, len(tokens), batch_size):
        ids = torch.zeros(len(tokens[at : at + batch_size]), longest, dtype=torch.int64)
        labels = torch.full_like(ids, -100)
        for row, (whole, prompt) in enumerate(zip(tokens[at:], prompts[at : at + batch_size], strict=False)):
            ids[row, : len(whole)] = torch.tensor(whole)
            labels[row, len(prompt) : len(whole)] = torch.tensor(whole[len(prompt) :])
        mask = (torch.arange(longest)[None] < torch.tensor([[len(t)] for t in tokens[at : at + batch_size]])).long()
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        loss = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
        values += (loss.sum(1) / (labels[:, 1:] != -100).sum(1)).tolist()
    return values


@torch.no_grad()
def straightforward_answers(model, tokenizer, prompts, max_new_tokens, batch_size=32):
    out = []
    for at in range(0, len(prompts), batch_size):
        ids, mask = caches.left_pad(prompts[at : at + batch_size], model.device)
        made = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        out += tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
    return out


def straightforward(model, tokenizer, asked, max_new_tokens):
    scores, answers = [], []
    for name in SETS:
        q = asked[name]
        for k in range(len(q.answers[0])):
            scores += straightforward_nll(model, q.prompts, [a[k] for a in q.answers])
        answers += straightforward_answers(model, tokenizer, q.prompts, max_new_tokens)
    return scores, [a.strip() for a in answers]


def engine(model, tokenizer, asked, max_new_tokens):
    scores, answers = [], []
    scored = evaluation.score(model, tokenizer, asked, max_new_tokens)
    for name in SETS:
        s = scored[name]
        right = (s["answer_nll"], s["paraphrased_nll"]) if asked[name].paraphrased else (s["answer_nll"],)
        scores += np.concatenate([*right, *s["wrong_nll"].T]).tolist()
        answers += s["generations"].tolist()
    return scores, answers


def one(form):
    arguments, kept = setting(), []

    def step():
        scores, answers = {"naive": straightforward, "engine": engine}[form](*arguments)
        kept[:] = [scores, answers]
        return float(np.mean(scores))

    result = measured(step, repeats=1)
    Path(RESULTS / f"{form}.scores").write_text(json.dumps(kept))
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(*sys.argv[1:])
    else:
        runs.ensure([ORIGINAL], checkpoints=True)
        write("evaluation", __file__, {"mini, forget10": {form: (form,) for form in ("naive", "engine")}})
        (scores, answers), (others, texts) = (
            json.loads((RESULTS / f"{form}.scores").read_text()) for form in ("naive", "engine")
        )
        worst = float(np.abs(np.subtract(scores, others)).max())
        same = float(np.mean([a == b for a, b in zip(answers, texts, strict=True)]))
        print(f"scores differ by at most {worst:.1e}; {same:.1%} of {len(answers)} answers are the same text")
