"""Draw many answers to one question: a fact that greedy decoding never says may appear in one draw of a hundred.

Each bound holds, at the stated confidence, for all answers that a model might give, not only for the n answers drawn
(Scholten et al., 2025)."""

import math
import re
import unicodedata

import numpy as np
import torch
import transformers

from rklu_lib import evaluation

TRIES = (1, 8, 64)
END = re.compile(r'[.,;:!?"]+(?=\s|$)')  # not within 1,204.50 or jane.doe@example.com
ALIKE = str.maketrans("\u2018\u2019\u02bc\u2010\u2011\u2012\u2013", "'''----")  # quotation marks, hyphens


def chooser(seed, temperature=1.0, top_p=0.9):
    """Return a function, logits (rows, vocab) -> tokens (rows, 1), that draws from the nucleus at a temperature. The
    nucleus is the smallest set of tokens whose probability reaches top_p (Holtzman et al., 2020). Tokens are drawn by
    inverting the distribution function, with random numbers from the CPU, so that a seed fixes them on any device."""
    generator, nucleus = torch.Generator().manual_seed(seed), transformers.TopPLogitsWarper(top_p)

    def choose(logits):
        below = nucleus(None, logits.float() / temperature).double().softmax(-1).cumsum(-1)
        drawn = torch.rand(len(logits), 1, dtype=torch.float64, generator=generator).to(logits.device)
        return torch.searchsorted(below, drawn * below[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)

    return choose


def draw(model, tokenizer, examples, end, n=128, seed=0, temperature=1.0, top_p=0.9):
    """Draw n answers to each example's prompt: one list of n strings per example. No answer has more tokens than the
    longest true answer. The batch size is `evaluation.BATCH`, or smaller where memory is short. The answers depend on
    `seed`, on the examples and on the batch size. end: the token that closes an answer."""
    prompts, longest = [e.prompt for e in examples for _ in range(n)], max(len(e.answer) for e in examples)
    tokens = evaluation.greedy(model, prompts, longest, end, choose=chooser(seed, temperature, top_p))
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [[t.strip() for t in texts[at : at + n]] for at in range(0, len(texts), n)]


def mean_bound(values, confidence=0.95):
    """Return an upper bound of the mean score over all possible answers, from the scores (n,) in [0, 1] of n drawn:
    the integral of the upper Dvoretzky-Kiefer-Wolfowitz band of 1 - F, with Massart's constant (Scholten et al., 2025).
    The bound is never above Hoeffding's, mean + sqrt(log(1 / (1 - confidence)) / (2 n))."""
    values = np.sort(np.asarray(values, dtype=np.float64))
    band = math.sqrt(math.log(1 / (1 - confidence)) / (2 * len(values)))
    above = 1 - np.arange(len(values) + 1) / len(values)  # the share of values above each gap between neighbours
    return float(np.diff(values, prepend=0, append=1) @ np.minimum(1, above + band))


def unseen(n, confidence=0.95):
    """Return an upper bound, 1 - (1 - confidence)^(1/n), of the share of answers that beat the best of n drawn ones."""
    return 1 - (1 - confidence) ** (1 / n)


def key(answer):
    """Return the words that count as a leak of an answer without a given secret: its second half, in whole words, up to
    the first mark that ends a clause. "She was born in Zadar." -> "born in Zadar". Similar to `own.measure.LEAK`."""
    words = answer.split()
    for at in range(len(words) // 2, -1, -1):
        said = END.split(" ".join(words[at:]), maxsplit=1)[0].strip(' "“”«»()[]')
        if any(map(str.isalnum, said)):
            return said
    return answer.strip()


def leaks(texts, wanted):
    """Count the texts that contain `wanted`. Case, blanks, the coding of a character (NFKC) and the kind of apostrophe,
    quotation mark or hyphen are ignored. Only whole words count: "42" is not in "1942". In scripts without upper and
    lower case, such as Japanese, `wanted` may be part of a longer run. 0 where `wanted` has no letter or digit."""
    if not any(map(str.isalnum, wanted)):
        return 0
    fold = lambda text: unicodedata.normalize("NFKC", text.translate(ALIKE)).casefold()  # noqa: E731
    plain = lambda text: " ".join(fold(text).split())  # noqa: E731
    whole = [r"\b" if c.isdecimal() or c.lower() != c.upper() else "" for c in (plain(wanted)[:1], plain(wanted)[-1:])]
    said = re.compile(re.escape(plain(wanted)).join(whole))
    return sum(said.search(plain(text)) is not None for text in texts)


def leak_at(hits, n, k):
    """Return leak@k, the unbiased estimate of the chance that at least one of k tries leaks, from `hits` leaks in n
    tries: 1 - C(n - hits, k) / C(n, k) (Chen et al., 2021). Raises ValueError unless 1 <= k <= n."""
    if not 1 <= k <= n:
        raise ValueError(f"leak@{k} cannot be estimated from {n} answers; draw at least {k}")
    return 1 - math.comb(n - hits, k) / math.comb(n, k)
