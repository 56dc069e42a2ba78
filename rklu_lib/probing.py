"""What a model answers, how probable its tokens are, and which completions are the most probable ones."""

import collections
import functools
import heapq
import re

import torch
import torch.nn.functional as F

from rklu_lib import caches, chat, data, evaluation
from rklu_lib.models import context, output_layer


def direct_answer(model, tokenizer, template, question, max_new_tokens=64):
    """Return the model's greedy answer to a question, as text (§ 5, "Direct Answer")."""
    prompt = data.encode_prompt(tokenizer, template, question)
    tokens = evaluation.greedy(model, [prompt], max_new_tokens, chat.end_token(tokenizer, template))[0]
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


@torch.no_grad()
def token_distributions(models, tokenizer, example, k=10):
    """Return the next-token distributions of several models along one answer, each given the true answer's prefix.

    models: {name: model}. example: a `data.Example` of t answer tokens. k: how many of the likeliest tokens to keep.
    Returns {"tokens": the t true tokens as text, "models": {name: {"true_probability", "true_rank" (1 = likeliest),
    "entropy" (nats): t values each, "top": t lists of k pairs [token text, probability]}}}. If a model is named
    "oracle", each model also has "kl_to_oracle": t of KL(model || oracle), nats. Values have 4 significant digits."""
    ids = torch.tensor([example.prompt + example.answer])
    target = torch.tensor(example.answer)
    result = {"tokens": [tokenizer.decode([t]) for t in example.answer], "models": {}}
    logs = {}
    for name, model in models.items():
        hidden = model.eval().base_model(input_ids=ids[:, :-1].to(model.device)).last_hidden_state
        logs[name] = output_layer(model)(hidden[0, len(example.prompt) - 1 :]).cpu().log_softmax(-1)
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


def _rounded(tensor):
    return [float(f"{v:.4g}") for v in tensor.tolist()]


BOUNDARY = re.compile(r'[.,;:!?"\n]')


@functools.lru_cache(maxsize=2)
def _endings(tokenizer, end):
    """Return (tokens (n,), places (n,), texts): the tokens that end a completion, `end` included; for each token the
    place in `texts` of its own text before the boundary; and the list of these texts, without repetitions."""
    cut = {end: ""}
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if found := BOUNDARY.search(text):
            cut[token] = text[: found.start()]
    texts = list(dict.fromkeys(cut.values()))
    places = {text: place for place, text in enumerate(texts)}
    return torch.tensor(list(cut)), torch.tensor([places[text] for text in cut.values()]), texts


def _next(model, last, cache, rows):
    """Return the probabilities (rows, vocab) of the next token after the token `last` followed by each of `rows`.
    cache: of the tokens before `last`; None if there are none. Padding is on the right, so it needs no mask."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor((last, *row)) for row in rows], batch_first=True)
    past = {"past_key_values": caches.rows(cache, [0] * len(rows)), "use_cache": True} if cache else {}
    hidden = model.base_model(input_ids=ids.to(model.device), **past).last_hidden_state
    return output_layer(model)(hidden[range(len(rows)), list(map(len, rows))]).softmax(-1).cpu()


def fill_in_blank(model, tokenizer, template, question, prefix, k=5, max_tokens=32, budget=1024):
    """Return the k most probable completions of an answer that begins with `prefix` ("Fill-in-Blank", Table 4).

    A completion is the text up to the first of . , ; : ! ? " or a line's end or end-of-text, in at most `max_tokens`
    tokens. Its probability, given the prefix, is that of its likeliest token sequence times that of any boundary after
    this sequence. The search and the returned value are those of `completions`."""
    stem = data.encode_prompt(tokenizer, template, question) + data.encode_answer(tokenizer, template, prefix)[:-1]
    return completions(model, tokenizer, stem, chat.end_token(tokenizer, template), k, max_tokens, budget)


@torch.no_grad()
def completions(model, tokenizer, stem, end, k=5, max_tokens=32, budget=1024):
    """Return the k most probable completions of a sequence of token ids `stem`, as ([[text, probability], ...], exact).

    See `fill_in_blank` for what a completion is. `end` is the token that closes an answer. The search is best-first:
    probabilities only fall along a sequence, so completions come out in order. exact is False if `budget` sequences
    were extended and likelier completions may remain."""
    (endings, places, texts), found, best, looked, exact = _endings(tokenizer, end), {}, {}, 0, True
    max_tokens = min(max_tokens, context(model.config) - len(stem))
    ids = torch.tensor([stem[:-1]], device=model.device)  # run only once
    cache = model.base_model(input_ids=ids, use_cache=True).past_key_values if len(stem) > 1 else None
    queue = [(-1.0, (), None)]  # (-probability, tokens, text); the text is None while the completion is open
    while queue and len(found) < k:
        if queue[0][2] is not None:
            p, _, text = heapq.heappop(queue)
            found.setdefault(text, -p)
            continue
        rows = []  # open ones that are likelier than every finished completion must be extended, in any order
        while queue and queue[0][2] is None and len(rows) < 16:
            rows.append(heapq.heappop(queue))
        if looked >= budget:
            exact = False
            continue
        looked += len(rows)
        followed = _next(model, stem[-1], cache, [tokens for _, tokens, _ in rows])
        for (p, tokens, _), q in zip(rows, followed, strict=True):
            ends, said = collections.Counter(), tokenizer.decode(tokens)
            masses = torch.zeros(len(texts), dtype=torch.float64).index_add(0, places, q[endings].double())
            for text, mass in zip(texts, masses.tolist(), strict=True):
                ends[(said + text).strip()] += mass
            q[endings] = 0
            for text, mass in ends.items():
                heapq.heappush(queue, (p * mass, tokens, text))
                best[text] = max(best.get(text, 0), -p * mass)
            bound = heapq.nlargest(k, best.values())[-1] if len(best) >= k else 0  # below it: not chosen
            if len(tokens) < max_tokens:
                for token in (-p * q > bound).nonzero()[:, 0].tolist():
                    heapq.heappush(queue, (p * q[token].item(), (*tokens, token), None))
    return [[text, float(f"{p:.4g}")] for text, p in found.items()], exact
