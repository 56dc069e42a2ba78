"""Many answers to one question: what greedy decoding hides may be one draw in a hundred away (Scholten et al., 2025).

Bounds here hold at a stated confidence for all the answers that a model might give, not only for those drawn.
"""

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
    """A function logits (rows, vocab) -> tokens (rows, 1) drawn at a temperature from the smallest set of tokens whose
    probability reaches top_p (Holtzman et al., 2020), by inverting its distribution function. The same for the same
    seed, whose numbers are drawn on the CPU."""
    generator, nucleus = torch.Generator().manual_seed(seed), transformers.TopPLogitsWarper(top_p)

    def choose(logits):
        below = nucleus(None, logits.float() / temperature).double().softmax(-1).cumsum(-1)
        drawn = torch.rand(len(logits), 1, dtype=torch.float64, generator=generator).to(logits.device)
        return torch.searchsorted(below, drawn * below[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)

    return choose


def draw(model, tokenizer, examples, end, n=128, seed=0, temperature=1.0, top_p=0.9):
    """n answers to each example's prompt, as lists of n strings; none is longer than the longest true answer.
    Batched through the model's cache, `evaluation.BATCH` at a time or as many as memory allows. seed: the answers are a
    function of it, of the examples, and of how many are drawn at a time."""
    prompts, longest = [e.prompt for e in examples for _ in range(n)], max(len(e.answer) for e in examples)
    tokens = evaluation.greedy(model, prompts, longest, end, choose=chooser(seed, temperature, top_p))
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [[t.strip() for t in texts[at : at + n]] for at in range(0, len(texts), n)]


def mean_bound(values, confidence=0.95):
    """An upper bound of the mean over all answers of a score in [0, 1], from n drawn, (n,): the integral of the upper
    Dvoretzky-Kiefer-Wolfowitz band of 1 - F, with Massart's constant (Scholten et al., 2025). It is no larger
    than Hoeffding's, mean + sqrt(log(1 / (1 - confidence)) / 2 n)."""
    values = np.sort(np.asarray(values, dtype=np.float64))
    band = math.sqrt(math.log(1 / (1 - confidence)) / (2 * len(values)))
    above = 1 - np.arange(len(values) + 1) / len(values)  # the share above each gap between neighbours
    return float(np.diff(values, prepend=0, append=1) @ np.minimum(1, above + band))


def unseen(n, confidence=0.95):
    """At most this share of all answers scores higher than the highest of n drawn: 1 - (1 - confidence)^(1/n)."""
    return 1 - (1 - confidence) ** (1 / n)


def key(answer):
    """What gives an answer away where nobody said: its second half up to the first mark that ends a clause, in whole
    words; much as in `own.measure.LEAK`, but of words. "She was born in Zadar." -> "born in Zadar"."""
    words = answer.split()
    for at in range(len(words) // 2, -1, -1):
        said = END.split(" ".join(words[at:]), maxsplit=1)[0].strip(' "“”«»()[]')
        if any(map(str.isalnum, said)):
            return said
    return answer.strip()


def leaks(texts, wanted):
    """How many of the texts contain `wanted`, whatever the case and the blanks; in whole words, as far as its script
    has them: "42" is not in "1942", and what is written without blanks, as in Japanese, is found within. One character
    in two codings is one (NFKC), as are kinds of apostrophes and hyphens. None do where it holds no letter or digit:
    that gives nothing away."""
    if not any(map(str.isalnum, wanted)):
        return 0
    fold = lambda text: unicodedata.normalize("NFKC", text.translate(ALIKE)).casefold()  # noqa: E731
    plain = lambda text: " ".join(fold(text).split())  # noqa: E731
    whole = [r"\b" if c.isdecimal() or c.lower() != c.upper() else "" for c in (plain(wanted)[:1], plain(wanted)[-1:])]
    said = re.compile(re.escape(plain(wanted)).join(whole))
    return sum(said.search(plain(text)) is not None for text in texts)


def leak_at(hits, n, k):
    """leak@k: the chance that at least one of k tries leaks, from `hits` leaks in n tries, without bias:
    1 - C(n - hits, k) / C(n, k) (Chen et al., 2021). Raises ValueError where k exceeds n."""
    if not 1 <= k <= n:
        raise ValueError(f"leak@{k} cannot be estimated from {n} answers; draw at least {k}")
    return 1 - math.comb(n - hits, k) / math.comb(n, k)
