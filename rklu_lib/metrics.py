"""What the paper measures (App. A.2, A.3), as TOFU's authors define it. numpy in, numpy out; no model is seen here.

NLL means the mean negative log-likelihood per answer token, in nats. Missing evidence raises; nothing is guessed.
"""

import functools
import warnings
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import scipy  # its submodules where they are used: to import `stats` takes as long as to import torch

UTILITY_SETS = ("retain", "authors", "facts")
UTILITY_SCORES = ("rouge", "probability", "truth_ratio")
UTILITY_COMPONENTS = tuple(f"{s}_{m}" for s in UTILITY_SETS for m in UTILITY_SCORES)


def finite(name, values, ndim):
    """The values as a float64 array of `ndim` dimensions. Raises ValueError on another shape, on none, on NaN."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != ndim or values.size == 0:
        raise ValueError(f"{name} must be a non-empty array of {ndim} dimension(s); it has shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{name} holds {int(np.isnan(values).sum())} NaN of {values.size}; was every question scored?")
    return values


def probability(nll):
    """exp(-NLL): the length-normalised probability P(a|q)^(1/|a|). nll (...) -> (...), in [0, 1]."""
    return np.exp(-np.asarray(nll, dtype=np.float64))


def normalised_probability(answer_nll, wrong_nll):
    """Probability of the right option among all options (TOFU: real authors, world facts).

    answer_nll (n,), wrong_nll (n, k), nats per token -> (n,), exp(-l(a)) / (exp(-l(a)) + sum_j exp(-l(w_j))).
    Raises ValueError on shapes that do not match or on NaN.
    """
    right, wrong = finite("answer_nll", answer_nll, 1), finite("wrong_nll", wrong_nll, 2)
    if len(right) != len(wrong):
        raise ValueError(f"answer_nll has {len(right)} questions, wrong_nll {len(wrong)}")
    return scipy.special.softmax(-np.column_stack([right, wrong]), axis=1)[:, 0]


def truth_ratio(paraphrased_nll, perturbed_nll, form="benchmark"):
    """Truth ratio R of each question (Eq. 5); larger = the wrong answers are the likelier ones.

    paraphrased_nll (n,), perturbed_nll (n, k), nats per token -> (n,).
    form="benchmark": geometric mean over the k wrong answers, R = exp(l(a~) - mean_j l(a^_j)); what the TOFU authors'
    code computes and what published numbers use. form="paper": arithmetic mean of probabilities, as Eq. 5 is printed.
    R may be inf where the paraphrase has underflowed. Raises ValueError on unknown form, wrong shapes or NaN.
    """
    right, wrong = finite("paraphrased_nll", paraphrased_nll, 1), finite("perturbed_nll", perturbed_nll, 2)
    if len(right) != len(wrong):
        raise ValueError(f"paraphrased_nll has {len(right)} questions, perturbed_nll {len(wrong)}")
    if form == "benchmark":
        log_wrong = -wrong.mean(axis=1)
    elif form == "paper":
        log_wrong = np.logaddexp.reduce(-wrong, axis=1) - np.log(wrong.shape[1])
    else:
        raise ValueError(f"form must be 'benchmark' or 'paper', not {form!r}")
    with np.errstate(over="ignore"):
        return np.exp(right + log_wrong)


def forget_quality(unlearned, oracle):
    """p-value of the two-sided two-sample Kolmogorov-Smirnov test between two samples of truth ratios (App. A.2).

    unlearned (n,), oracle (m,) -> float in [0, 1]. Above 0.05 the unlearned model cannot be told from one that never
    saw the forget set. Raises ValueError on empty samples or NaN.
    """
    with warnings.catch_warnings():  # where scipy's exact sum is 1 + 4e-16 it takes the asymptotic one
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(scipy.stats.ks_2samp(finite("unlearned", unlearned, 1), finite("oracle", oracle, 1)).pvalue)


def model_utility(components: Mapping[str, float]):
    """Harmonic mean of the nine utility components (App. A.3), each in [0, 1]; 0 if any is 0.

    Raises ValueError unless there are exactly nine finite values in [0, 1].
    """
    values = np.array(list(components.values()), dtype=np.float64)
    if len(values) != 9:
        raise ValueError(f"model utility needs nine components, got {len(values)}: {sorted(components)}")
    bad = {k: v for k, v in components.items() if not 0 <= v <= 1}
    if bad:
        raise ValueError(f"utility components must lie in [0, 1]: {bad}")
    return 0.0 if (values == 0).any() else float(len(values) / np.sum(1 / values))


def rouge_l(references, candidates):
    """ROUGE-L recall with stemming, as TOFU uses it. Two equally long lists of n strings -> (n,).

    Its tokenizer knows a to z and digits alone: a reference that is mostly in another script is compared by character.
    """
    if len(references) != len(candidates):
        raise ValueError(f"{len(references)} references for {len(candidates)} candidates")
    foreign = [2 * sum(c < "\u0370" for c in text) < len(text) for text in map(_letters, references)]  # Greek on
    rows = zip(foreign, references, candidates, strict=True)
    return np.array([_rouge_scorer(other).score(r, c)["rougeL"].recall for other, r, c in rows])


def _letters(text):
    return [c for c in text.lower() if c.isalnum()]


@functools.cache
def _rouge_scorer(foreign):
    """`RougeScorer(["rougeL"], use_stemmer=True)`, whose stemmer remembers: answers say few words, and those often."""
    from nltk.stem.porter import PorterStemmer  # here: nltk imports scikit-learn and pandas, if they are there
    from rouge_score import rouge_scorer, tokenize

    stemmer = SimpleNamespace(stem=functools.lru_cache(maxsize=2**16)(PorterStemmer().stem))
    tokenizer = SimpleNamespace(tokenize=_letters if foreign else lambda text: tokenize.tokenize(text, stemmer))
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenizer)


def perplexity(nll):
    """exp of the mean NLL of equally long segments, (n,), nats per token; inf where that leaves floating point."""
    with np.errstate(over="ignore"):
        return float(np.exp(finite("nll", nll, 1).mean()))


def bleu(references, candidates):
    """Corpus BLEU in per cent, as sacrebleu defines it (13a tokens, up to 4-grams). Two equally long lists -> float."""
    from sacrebleu import corpus_bleu

    return corpus_bleu(candidates, [references]).score


def utility_components(name, answer_nll, paraphrased_nll, wrong_nll, rouge):
    """The three components of one of TOFU's utility sets ("retain", "authors" or "facts"), as {component: value}.

    answer_nll, paraphrased_nll, rouge (n,); wrong_nll (n, k). The retain set uses the plain probability, the two
    multiple-choice sets the normalised one; the truth ratio enters as mean max(0, 1 - R).
    """
    if name not in UTILITY_SETS:
        raise ValueError(f"no utility set {name!r}; there are {', '.join(UTILITY_SETS)}")
    chance = probability(answer_nll) if name == "retain" else normalised_probability(answer_nll, wrong_nll)
    ratio = truth_ratio(paraphrased_nll, wrong_nll)
    return {
        f"{name}_rouge": float(finite("rouge", rouge, 1).mean()),
        f"{name}_probability": float(np.mean(chance)),
        f"{name}_truth_ratio": float(np.mean(np.maximum(0, 1 - ratio))),
    }


def utility(scored):
    """{"model_utility" and its nine components} of the utility sets' per-question scores, {set: as `utility_components`
    takes them}; other scores of a set are passed over."""
    names = ("answer_nll", "paraphrased_nll", "wrong_nll", "rouge")
    found = {}
    for name in UTILITY_SETS:
        found |= utility_components(name, **{k: scored[name][k] for k in names})
    return {"model_utility": model_utility(found), **found}
