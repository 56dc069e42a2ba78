"""Membership inference: was this answer trained on? Four scores, their AUC, and its distance to an oracle's.

A score is higher the less a model seems to know an answer. The AUC is the chance that a held-out answer (label 1)
scores higher than a forgotten one (label 0), ties counting half: 1 where the forgotten ones stand out as known, 0.5
where they cannot be told from what was never seen, near 0 where they stand out as unknown, which also tells on them.
Scores and signs are OpenUnlearning's (Dorna et al., 2025; src/evals/metrics/mia).
"""

import zlib

import numpy as np


def loss(answer, text=None):
    """Mean NLL per token, the closing one included, in nats (Yeom et al., 2018). answer: a `tokens.Answer`."""
    return answer.nll


def zlib_ratio(answer, text):
    """`loss` over the length in bytes of the answer's text under zlib, nats per byte (Carlini et al., 2021): what is
    likely only because it is simple compresses well."""
    return answer.nll / len(zlib.compress(text.encode("utf-8")))


def _lowest(values, k):
    return -np.sort(values)[: max(1, int(k * len(values)))].mean()


def min_k(answer, text=None, k=0.4):
    """Min-k % (Shi et al., 2024): minus the mean of the lowest floor(k t) log-probabilities of an answer's t tokens, at
    least one, in nats; the closing token is left out."""
    return _lowest(answer.text("log_p"), k)


def min_k_plus(answer, text=None, k=0.4):
    """Min-k %++ (Zhang et al., 2025): `min_k` of log-probabilities less their mean over the vocabulary, in standard
    deviations, both under the model's own distribution; without unit."""
    return _lowest((answer.text("log_p") - answer.text("mean")) / answer.text("deviation"), k)


SCORES = {"loss": loss, "zlib": zlib_ratio, "min-k %": min_k, "min-k %++": min_k_plus}


def scores(answers, texts):
    """{score: (n,)} of n answers and their texts."""
    return {name: np.array([f(a, t) for a, t in zip(answers, texts, strict=True)]) for name, f in SCORES.items()}


def privacy_leakage(auc, oracle):
    """100 [(1 - AUC) - (1 - AUC_oracle)] / (1 - AUC_oracle), in per cent (MUSE, Shi et al., 2025). Below 0: more is
    known than by the oracle; above: it is conspicuously unknown. inf or nan for an oracle whose AUC is 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(100 * np.float64(oracle - auc) / np.float64(1 - oracle))


def closeness(auc, oracle):
    """1 - |AUC - AUC_oracle| / AUC_oracle, clipped to [0, 1] (OpenUnlearning's privacy score): 1 is the oracle's."""
    return float(np.clip(1 - abs(auc - oracle) / oracle, 0, 1)) if oracle else float(auc == oracle)
