"""From a model to its scores: TOFU's whole evaluation of one forget split (App. A.2, A.3).

To save time, a prompt is run once for all its answers, and so are tokens that several prompts, or a paraphrase and its
wrong variants, begin with. Logits are computed only where an answer is scored. Greedy generation runs in batches that
shrink. It starts where the model would first leave the true answer: scoring has shown what the model says up to there.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os.path import commonprefix

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from rklu_lib import budget, caches, chat, data, metrics, models, parallel

FORMS = ("benchmark", "paper")
BLOCK, BATCH = 64, 256  # most prompts, and most continuations, whose key-value caches are held at once; see `budget`
CHUNK = 256  # tokens whose logits are computed at once, so that these stay in a core's cache


@torch.no_grad()
def score_answers(model, prompts, answers, block=None, batch_size=None):
    """Return the mean NLL per token of every answer, and how far greedy decoding follows each prompt's first answer.

    prompts: n token-id tuples. answers: n lists of token-id tuples, any number per prompt; all tokens of an answer are
    scored, so an answer is closed by end-of-text where that counts. block: prompts at a time. batch_size: answers per
    forward pass. None for either: as many as memory allows, see `budget.rows`. Returns (nll, agreed): n float64 arrays
    in nats, one value per answer, and n integers, how many leading tokens of the first answer are the likeliest ones.
    Neither depends on block or batch_size beyond rounding."""
    head = models.output_layer(model.eval())
    nll, agreed = [np.zeros(len(a)) for a in answers], np.zeros(len(answers), int)
    shared = [tuple(commonprefix(a[1:])) for a in answers]
    cut = [max(0, len(s) - 1) for s in shared]
    longest = max((len(p) + max(map(len, a)) for p, a in zip(prompts, answers, strict=True)), default=0)
    batch_size = batch_size or budget.rows(model, longest, 16 if model.device.type == "cpu" else 128)
    block = block or budget.rows(model, longest, BLOCK)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]) + len(shared[i]), max(map(len, answers[i]))))
    for start in range(0, len(order), block):
        asked = order[start : start + block]
        hidden, cache, mask = caches.read(model, [prompts[i] for i in asked])
        first = head(hidden).log_softmax(-1).double().cpu().numpy()
        for row, i in enumerate(asked):
            nll[i] -= first[row, [a[0] for a in answers[i]]]
        jobs = [(row, i, 0, answers[i][0]) for row, i in enumerate(asked)]
        for row, i, k, value, hits in _scored(model, cache, mask, jobs, batch_size, count=True):
            nll[i][k] += value
            agreed[i] = 1 + hits if first[row].argmax() == answers[i][k][0] else 0
        opening, _, mask = _score_rest(model, cache, mask, [shared[i] for i in asked])
        jobs = [(row, i, k, t[cut[i] :]) for row, i in enumerate(asked) for k, t in enumerate(answers[i]) if k]
        for row, i, k, value, _ in _scored(model, cache, mask, jobs, batch_size):
            nll[i][k] += opening[row] + value
    return [total / [len(t) for t in a] for total, a in zip(nll, answers, strict=True)], agreed


def _scored(model, cache, mask, jobs, batch_size, count=False):
    """Yield (row, ..., nll, hits), see `_score_rest`, for jobs (row in cache, ..., tokens), the shortest first."""
    jobs.sort(key=lambda job: len(job[-1]))
    for at in range(0, len(jobs), batch_size):
        chosen = jobs[at : at + batch_size]
        rows = torch.tensor([job[0] for job in chosen], device=mask.device)
        nll, hits, _ = _score_rest(model, caches.rows(cache, rows), mask[rows], [job[-1] for job in chosen], count)
        for job, value, n in zip(chosen, nll, hits, strict=True):
            yield *job[:-1], value, n


def _score_rest(model, cache, mask, tokens, count=False):
    """Score n tuples `tokens` from their second token on, and extend `cache` by all tokens but each tuple's last.
    Return the summed NLL (n,), the number of tokens before the first that is not the likeliest (n,; zeros without
    `count`), and the mask (n, seq) of the extended cache."""
    ids = pad_sequence([torch.tensor(t, dtype=torch.int64) for t in tokens], batch_first=True).to(mask.device)
    if ids.shape[1] < 2:
        return np.zeros(len(tokens)), np.zeros(len(tokens), int), mask
    steps = torch.arange(ids.shape[1] - 1)
    fed = (steps < torch.tensor([[len(t) - 1] for t in tokens])).to(mask.device)
    positions, mask = mask.sum(1, keepdim=True) + steps.to(mask.device), torch.cat([mask, fed.to(mask.dtype)], dim=1)
    out = model.base_model(
        input_ids=ids[:, :-1], attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    head, nll, hits = models.output_layer(model), torch.zeros(fed.shape, device=fed.device), torch.zeros_like(fed)
    loss, likeliest = [], []
    for h, t in zip(out.last_hidden_state[fed].split(CHUNK), ids[:, 1:][fed].split(CHUNK), strict=True):
        logits = head(h).float()  # also for a float64 model: `nll` is float32
        loss.append(F.cross_entropy(logits, t, reduction="none"))
        if count:
            likeliest.append(logits.argmax(-1) == t)
    nll[fed] = torch.cat(loss)
    if count:
        hits[fed] = torch.cat(likeliest)
    return nll.double().sum(1).cpu().numpy(), hits.int().cumprod(1).sum(1).tolist(), mask


@torch.no_grad()
def greedy(model, prompts, max_new_tokens, eos_token_id, begun=None, batch_size=None, choose=None):
    """Return greedy continuations of n prompts (token-id tuples): n lists of token ids without the end-of-text token.

    A continuation has at most max_new_tokens, and fits with its prompt into the model's context. begun: the first
    tokens of each continuation, if known already; one that ends in end-of-text is complete. choose: a function from
    logits (rows, vocab) to next tokens (rows, 1), for other than greedy decoding. Rows that have ended are removed when
    they are over a quarter of the batch, since each removal copies the cache: the cost follows the answers' lengths."""
    head, choose = models.output_layer(model.eval()), choose or (lambda logits: logits.argmax(-1, keepdim=True))
    most = [min(max_new_tokens, models.context(model.config) - len(p)) for p in prompts]
    begun = [tuple(b[:max_new_tokens]) for b in begun or [()] * len(prompts)]
    result = [[t for t in b if t != eos_token_id] for b in begun]
    order = [i for i, b in enumerate(begun) if eos_token_id not in b and len(b) < most[i]]
    order.sort(key=lambda i: len(prompts[i]) + len(begun[i]))
    size = batch_size or budget.rows(model, max(map(len, prompts), default=0) + max_new_tokens, BATCH)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        hidden, cache, mask = caches.read(model, [prompts[i] + begun[i] for i in rows])
        cache, going = caches.roomy(cache), torch.ones(len(rows), dtype=torch.bool, device=mask.device)
        while True:
            ids = choose(head(hidden))
            going &= ids[:, 0] != eos_token_id
            for i, token, on in zip(rows, ids[:, 0].tolist(), going.tolist(), strict=True):
                if on:
                    result[i].append(token)
            going &= torch.tensor([len(result[i]) < most[i] for i in rows], device=ids.device)
            if not going.any():
                break
            if going.float().mean() < 0.75:
                rows = [i for i, on in zip(rows, going.tolist(), strict=True) if on]
                ids, mask, cache, going = ids[going], mask[going], caches.rows(cache, going), going[going]
            mask = F.pad(mask, (0, 1), value=1)
            where = {"attention_mask": mask, "position_ids": mask.sum(1, keepdim=True) - 1}
            out = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True, **where)
            hidden, cache = out.last_hidden_state[:, -1], out.past_key_values
    return result


@dataclass(frozen=True)
class Questions:
    """One evaluation set of n questions, tokenised."""

    prompts: list
    answers: list  # per question: [answer, paraphrased answer, *wrong answers], or [answer, *wrong answers]
    references: list  # the answers as strings, for ROUGE
    paraphrased: bool  # whether `answers` have a paraphrased answer
    end: int  # the token that closes an answer

    def part(self, start, stop):
        """Return the questions start..stop, without stop."""
        return replace(self, **{k: getattr(self, k)[start:stop] for k in ("prompts", "answers", "references")})


def questions(rows, tokenizer, template, limit=None):
    """Return the `Questions` of a `*_perturbed` split's rows. limit: keep only the first so many (None: all)."""
    rows = rows[:limit]
    paraphrased = "paraphrased_answer" in rows[0]
    right = ("answer", "paraphrased_answer") if paraphrased else ("answer",)
    texts = [[row[field] for field in right] + row["perturbed_answer"] for row in rows]
    return Questions(
        [data.encode_prompt(tokenizer, template, row["question"]) for row in rows],
        [[data.encode_answer(tokenizer, template, text) for text in answers] for answers in texts],
        [row["answer"] for row in rows],
        paraphrased,
        chat.end_token(tokenizer, template),
    )


def load_questions(profile, split, tokenizer):
    """Return TOFU's four evaluation sets: {"forget", "retain", "authors" and "facts": `Questions`}.
    `profile.n_questions` limits the forget and the retain set; of the retain set at most 300 are used, as in TOFU."""
    names = {"forget": f"{split}_perturbed", "retain": "retain_perturbed"}
    names |= {"authors": "real_authors_perturbed", "facts": "world_facts_perturbed"}
    caps = {"forget": profile.n_questions, "retain": min(300, profile.n_questions or 300)}
    return {
        key: questions(data.load_tofu(name, profile.source), tokenizer, profile.template, caps.get(key))
        for key, name in names.items()
    }


def score(model, tokenizer, asked, max_new_tokens, precision="no"):
    """Return the per-question scores of every set in `asked`: {name: `Questions`} -> {name: {score: array}}.

    answer_nll, paraphrased_nll, rouge: (n,). wrong_nll: (n, k). generations: (n,) strings. NLLs are in nats per token;
    without a paraphrase, paraphrased_nll is answer_nll. precision: "no", or "bf16" for autocast. The questions are
    split over the processes, and on a CPU over as many threads as torch has, one core each: generation and ROUGE have
    too little to multiply for several cores at once."""
    cores, shares = torch.get_num_threads(), []
    threads = cores if model.device.type == "cpu" else 1
    for name, q in asked.items():
        size = max(BLOCK // 4, math.ceil(len(q.prompts) / threads / parallel.processes()))
        shares += [(name, q.part(at, at + size)) for at in range(0, len(q.prompts), size)]
    work = lambda s: (s[0], _score(model, tokenizer, s[1], max_new_tokens, precision))  # noqa: E731
    with ExitStack() as after, ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        after.callback(torch.set_num_threads, cores)  # otherwise threads that start later would have one core
        scored = parallel.shared(lambda mine: list(pool.map(work, mine)), shares)
    parts = {name: [found for other, found in scored if other == name] for name in asked}
    return {name: {k: np.concatenate([p[k] for p in found]) for k in found[0]} for name, found in parts.items()}


def _score(model, tokenizer, asked, max_new_tokens, precision):
    with models.autocast(model.device.type, precision):  # here, because a new thread does not inherit its parent's
        nll, agreed = score_answers(model, asked.prompts, asked.answers)
        nll, begun = np.array(nll), [tokens[0][:n] for tokens, n in zip(asked.answers, agreed, strict=True)]
        tokens = greedy(model, asked.prompts, max_new_tokens, asked.end, begun)
    texts = [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
    return {
        "answer_nll": nll[:, 0],
        "paraphrased_nll": nll[:, 1 if asked.paraphrased else 0],
        "wrong_nll": nll[:, 2 if asked.paraphrased else 1 :],
        "rouge": metrics.rouge_l(asked.references, texts),
        "generations": np.array(texts),
    }


def evaluate(model, tokenizer, asked, max_new_tokens, oracle=None, precision="no", needs_utility=lambda scores: True):
    """Evaluate one model as TOFU does. Return (aggregates, per-question scores of the forget set).

    asked: as from `load_questions`. oracle: {form of Eq. 5: truth ratios (n,)} of the retain model on the same
    questions; without it (for the oracle itself) there is no forget quality. precision: as in `score`. needs_utility: a
    function of the forget set's aggregates: whether to score the other three sets, which takes two thirds of the time.

    aggregates: forget_rouge and forget_probability (means), forget_truth_ratio (median, benchmark form),
    forget_quality_<form>, and, if scored, model_utility with its nine components. Per question: answer_nll, rouge,
    truth_ratio_<form>, each (n,)."""
    forget = score(model, tokenizer, {"forget": asked["forget"]}, max_new_tokens, precision)["forget"]
    ratios = {form: metrics.truth_ratio(forget["paraphrased_nll"], forget["wrong_nll"], form) for form in FORMS}
    aggregates = {
        "forget_rouge": float(forget["rouge"].mean()),
        "forget_probability": float(metrics.probability(forget["answer_nll"]).mean()),
        "forget_truth_ratio": float(np.median(ratios["benchmark"])),
    }
    for form in oracle or ():
        aggregates[f"forget_quality_{form}"] = metrics.forget_quality(ratios[form], oracle[form])
    if needs_utility(aggregates):
        sets = {name: asked[name] for name in metrics.UTILITY_SETS}
        aggregates = metrics.utility(score(model, tokenizer, sets, max_new_tokens, precision)) | aggregates
    per_question = {f"truth_ratio_{form}": ratios[form] for form in FORMS}
    return aggregates, per_question | {k: forget[k] for k in ("answer_nll", "rouge")}


def load_passages(profile, tokenizer):
    """Return {"chunks": the novel, "prompted": its chunks to continue, "segments": other prose}, lists of `Example`."""
    size, text, prose = profile.chunk_tokens, data.load_novel(profile.text), data.load_prose("test", profile.prose)
    novel = data.chunks(text, profile.n_chunks, size, tokenizer, data.novel_path(profile.text))
    segments = data.chunks(prose, profile.n_segments, size, tokenizer, f"{profile.prose}, test")
    return {
        "chunks": [data.passage(tokenizer, c) for c in novel],
        "prompted": [data.passage(tokenizer, c, profile.prompt_tokens) for c in novel],
        "segments": [data.passage(tokenizer, c) for c in segments],
    }


def passage_nll(model, examples):
    """Return the mean NLL per scored token of each of n `data.Example`s: (n,), nats."""
    share = lambda p: score_answers(model, [e.prompt for e in p], [[e.answer] for e in p], batch_size=8)[0]  # noqa: E731
    return np.concatenate(parallel.shared(share, examples))


def evaluate_passages(model, tokenizer, asked, max_new_tokens, oracle=None, precision="no"):
    """Evaluate one model on passages (§ 4.3). Return (aggregates, per-chunk scores).

    asked: as from `load_passages`. max_new_tokens: most tokens of a greedy continuation. oracle: chunk NLLs (n,) of
    the model that never read the novel, or None. precision: as in `score`. aggregates: bleu_pct and rouge_pct (recall)
    of the continuations, exact (the share equal to the text, token by token), perplexity of the other prose, chunk_nll
    (mean, nats per token), and with an oracle forget_quality_nll: the p-value of the two-sample KS test of this
    model's chunk NLLs and the oracle's. Per chunk: chunk_nll, rouge, exact, each (n,)."""
    prompted, how = asked["prompted"], (max_new_tokens, tokenizer.eos_token_id)
    with models.autocast(model.device.type, precision):
        said = parallel.shared(lambda part: greedy(model, [e.prompt for e in part], *how), prompted)
        nll = {name: passage_nll(model, asked[name]) for name in ("chunks", "segments")}
    texts, truth = (tokenizer.batch_decode(t, skip_special_tokens=True) for t in (said, [e.answer for e in prompted]))
    scores = {"chunk_nll": nll["chunks"], "rouge": metrics.rouge_l(truth, texts)}
    scores["exact"] = np.array([float(tuple(s) == e.answer) for s, e in zip(said, prompted, strict=True)])
    aggregates = {
        "bleu_pct": metrics.bleu(truth, texts),
        "rouge_pct": 100 * float(scores["rouge"].mean()),
        "exact": float(scores["exact"].mean()),
        "perplexity": metrics.perplexity(nll["segments"]),
        "chunk_nll": float(scores["chunk_nll"].mean()),
    }
    tested = {} if oracle is None else {"forget_quality_nll": metrics.forget_quality(scores["chunk_nll"], oracle)}
    return aggregates | tested, scores
