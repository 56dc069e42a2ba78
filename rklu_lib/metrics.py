"""The paper's metrics (App. A.2, A.3), as TOFU's authors define them, from numpy arrays. No model is used here.

NLL means the mean negative log-likelihood per answer token, in nats. A missing score raises an error.
"""

import functools
import warnings
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import scipy  # scipy loads its submodules when they are used: importing `stats` takes as long as importing torch

UTILITY_SETS = ("retain", "authors", "facts")
UTILITY_COMPONENTS = tuple(f"{s}_{m}" for s in UTILITY_SETS for m in ("rouge", "probability", "truth_ratio"))


def finite(name, values, ndim):
    """Return values as a float64 array. Raises ValueError if not of `ndim` dimensions, empty or with NaN (not inf)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != ndim or values.size == 0:
        raise ValueError(f"{name} must be a non-empty array of {ndim} dimension(s); it has shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{name} holds {int(np.isnan(values).sum())} NaN of {values.size}; was every question scored?")
    return values


def probability(nll):
    """Return exp(-NLL), the length-normalised probability P(a|q)^(1/|a|). nll: (...). Returns (...), in [0, 1]."""
    return np.exp(-np.asarray(nll, dtype=np.float64))


def normalised_probability(answer_nll, wrong_nll):
    """Return the probability of the right answer among all options (TOFU: real authors and world facts), (n,).

    exp(-l(a)) / (exp(-l(a)) + sum_j exp(-l(w_j))), where l is an answer's NLL. answer_nll: (n,). wrong_nll: (n, k).
    Both in nats per token. Raises ValueError on shapes that do not match or on NaN."""
    right, wrong = finite("answer_nll", answer_nll, 1), finite("wrong_nll", wrong_nll, 2)
    if len(right) != len(wrong):
        raise ValueError(f"answer_nll has {len(right)} questions, wrong_nll {len(wrong)}")
    return scipy.special.softmax(-np.column_stack([right, wrong]), axis=1)[:, 0]


def truth_ratio(paraphrased_nll, perturbed_nll, form="benchmark"):
    """Return the truth ratio R of each question (Eq. 5), (n,). Above 1 the wrong answers are likelier than the right.

    paraphrased_nll: (n,), of the paraphrased right answer a~. perturbed_nll: (n, k), of the k wrong answers a^_j. Both
    in nats per token. form="benchmark": R = exp(l(a~) - mean_j l(a^_j)), with l the NLL: the geometric mean of the
    wrong answers' probabilities divided by the right one's. The TOFU authors' code computes it; published numbers use
    it. form="paper": the arithmetic mean instead, as Eq. 5 is printed. R is inf where it exceeds float64's range.
    Raises ValueError on an unknown form, wrong shapes or NaN."""
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
    """Return the p-value of the two-sided two-sample Kolmogorov-Smirnov test of two models' truth ratios (App. A.2).

    unlearned: (n,). oracle: (m,), of the model that never saw the forget set. Returns a float in [0, 1]. Above 0.05 the
    test does not tell the two models apart. Raises ValueError on empty samples or NaN."""
    with warnings.catch_warnings():  # scipy warns where its exact p is 1 + 4e-16 and it takes the asymptotic one
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(scipy.stats.ks_2samp(finite("unlearned", unlearned, 1), finite("oracle", oracle, 1)).pvalue)


def model_utility(components: Mapping[str, float]):
    """Return the harmonic mean of the nine utility components (App. A.3), a float in [0, 1]; 0 if any of them is 0.

    components: {name: value}. Raises ValueError unless there are exactly nine values, all in [0, 1]."""
    values = np.array(list(components.values()), dtype=np.float64)
    if len(values) != 9:
        raise ValueError(f"model utility needs nine components, got {len(values)}: {sorted(components)}")
    bad = {k: v for k, v in components.items() if not 0 <= v <= 1}
    if bad:
        raise ValueError(f"utility components must lie in [0, 1]: {bad}")
    return 0.0 if (values == 0).any() else float(len(values) / np.sum(1 / values))


def rouge_l(references, candidates):
    """Return the ROUGE-L recall of each candidate, with stemming, as TOFU uses it: two lists of n strings -> (n,).

    The ROUGE tokenizer keeps only a to z and digits, so a reference that is mostly in another script is compared
    character by character. Raises ValueError if the lists differ in length."""
    if len(references) != len(candidates):
        raise ValueError(f"{len(references)} references for {len(candidates)} candidates")
    foreign = [2 * sum(c < "\u0370" for c in text) < len(text) for text in map(_letters, references)]  # from Greek on
    rows = zip(foreign, references, candidates, strict=True)
    return np.array([_rouge_scorer(other).score(r, c)["rougeL"].recall for other, r, c in rows])


def _letters(text):
    return [c for c in text.lower() if c.isalnum()]


@functools.cache
def _rouge_scorer(foreign):
    """Return `RougeScorer(["rougeL"], use_stemmer=True)` with a cache of stems, since answers repeat few words."""
    from nltk.stem.porter import PorterStemmer  # not at the top: nltk imports scikit-learn and pandas if installed
    from rouge_score import rouge_scorer, tokenize

    stemmer = SimpleNamespace(stem=functools.lru_cache(maxsize=2**16)(PorterStemmer().stem))
    tokenizer = SimpleNamespace(tokenize=_letters if foreign else lambda text: tokenize.tokenize(text, stemmer))
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenizer)


def perplexity(nll):
    """Return exp of the mean NLL of n equally long segments. nll: (n,), nats per token. inf if it exceeds float64."""
    with np.errstate(over="ignore"):
        return float(np.exp(finite("nll", nll, 1).mean()))


def bleu(references, candidates):
    """Return corpus BLEU in %, as sacrebleu defines it (13a tokens, up to 4-grams), of two lists of equal length."""
    from sacrebleu import corpus_bleu

    references, candidates = zip(*zip(references, candidates, strict=True), strict=True)  # else it drops the rest
    return corpus_bleu(candidates, [references]).score


def utility_components(name, answer_nll, paraphrased_nll, wrong_nll, rouge):
    """Return the three components of one of TOFU's utility sets ("retain", "authors" or "facts"), {component: value}.

    answer_nll, paraphrased_nll, rouge: (n,). wrong_nll: (n, k). ROUGE and probability are means over the questions. The
    retain set uses `probability`, the two multiple-choice sets use `normalised_probability`. The truth ratio (benchmark
    form) enters as mean max(0, 1 - R). Raises ValueError for another set, lengths that differ, or NaN."""
    if name not in UTILITY_SETS:
        raise ValueError(f"no utility set {name!r}; there are {', '.join(UTILITY_SETS)}")
    answer_nll, rouge = finite("answer_nll", answer_nll, 1), finite("rouge", rouge, 1)
    ratio = truth_ratio(paraphrased_nll, wrong_nll)
    if not len(answer_nll) == len(rouge) == len(ratio):
        raise ValueError(f"{name}: {len(answer_nll)} answers, {len(rouge)} ROUGE scores, {len(ratio)} truth ratios")
    chance = probability(answer_nll) if name == "retain" else normalised_probability(answer_nll, wrong_nll)
    return {
        f"{name}_rouge": float(rouge.mean()),
        f"{name}_probability": float(np.mean(chance)),
        f"{name}_truth_ratio": float(np.mean(np.maximum(0, 1 - ratio))),
    }


def utility(scored):
    """Return {"model_utility": value, and its nine components} from per-question scores, {set: {score: array}}.
    The scores of each utility set are the arguments of `utility_components`; further scores are ignored."""
    names = ("answer_nll", "paraphrased_nll", "wrong_nll", "rouge")
    found = {}
    for name in UTILITY_SETS:
        found |= utility_components(name, **{k: scored[name][k] for k in names})
    return {"model_utility": model_utility(found), **found}
