"""Looking inside: what a model answers, and which tokens it was choosing between."""

import torch
import torch.nn.functional as F

from rklu_lib import data, evaluation


def direct_answer(model, tokenizer, template, question, max_new_tokens=64):
    """The model's greedy answer to a question, as text (§ 5, "Direct Answer")."""
    prompt = data.encode_prompt(tokenizer, template, question)
    tokens = evaluation.greedy(model, [prompt], max_new_tokens, tokenizer.eos_token_id)[0]
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


@torch.no_grad()
def token_distributions(models, tokenizer, example, k=10):
    """The next-token distributions of several models along one answer, all given the true answer's prefix.

    models: {name: model}. example: a `data.Example` of t answer tokens. k: how many of the likeliest tokens to keep.
    Returns {"tokens": the t true tokens as text, "models": {name: {"true_probability", "true_rank" (1 = likeliest),
    "entropy" (nats): t values each, "top": t lists of [token text, probability]}}}; with an "oracle" among the models
    also "kl_to_oracle": t values of KL(model || oracle) over the whole vocabulary, nats.
    """
    ids = torch.tensor([example.prompt + example.answer])
    target = torch.tensor(example.answer)
    result = {"tokens": [tokenizer.decode([t]) for t in example.answer], "models": {}}
    logits = {name: model.eval()(input_ids=ids[:, :-1].to(model.device)).logits[0] for name, model in models.items()}
    logs = {name: x[len(example.prompt) - 1 :].float().cpu().log_softmax(-1) for name, x in logits.items()}
    for name, log_p in logs.items():
        true = log_p.gather(-1, target[:, None])
        values, tokens = log_p.exp().topk(k, dim=-1)
        result["models"][name] = {
            "true_probability": _rounded(true[:, 0].exp()),
            "true_rank": ((log_p > true).sum(-1) + 1).tolist(),
            "entropy": _rounded(-(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1)),
            "top": [
                [[tokenizer.decode([t]), p] for t, p in zip(row, _rounded(value), strict=True)]
                for row, value in zip(tokens.tolist(), values, strict=True)
            ],
        }
        if "oracle" in logs:
            divergence = F.kl_div(logs["oracle"], log_p, reduction="none", log_target=True).sum(-1)
            result["models"][name]["kl_to_oracle"] = _rounded(divergence.clamp(min=0))  # rounding can leave -1e-9
    return result


def most_changed(content, before, after):
    """The answer position (0 = first token) at which the true token lost most probability from one model to another."""
    pairs = zip(*(content["models"][name]["true_probability"] for name in (before, after)), strict=True)
    losses = [p - q for p, q in pairs]
    return losses.index(max(losses))


def _rounded(tensor):
    return [float(f"{v:.4g}") for v in tensor.tolist()]
