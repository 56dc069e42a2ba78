"""Membership inference (was this answer trained on?): four scores, and distances between two models' AUCs.

The less a model seems to know an answer, the higher the score. The AUC (`own.measure.auc`) is the chance that a
held-out answer (label 1) scores higher than a forgotten answer (label 0); ties count half. The AUC is 1 where the
forgotten answers stand out as known, 0.5 where they cannot be told from unseen answers, and near 0 where they stand
out as unknown, which gives them away too.
Scores and signs are OpenUnlearning's (Dorna et al., 2025; src/evals/metrics/mia)."""

import zlib

import numpy as np


def loss(answer, text=None):
    """Return the mean NLL per token, closing token included, in nats (Yeom et al., 2018). answer: `tokens.Answer`."""
    return answer.nll


def zlib_ratio(answer, text):
    """Return `loss` divided by the zlib-compressed length of the answer's text, nats per byte (Carlini et al., 2021).
    A text that is likely only because it is simple compresses well, so this score does not take it for known."""
    return answer.nll / len(zlib.compress(text.encode("utf-8")))


def _lowest(values, k):
    return -np.sort(values)[: max(1, int(k * len(values)))].mean()


def min_k(answer, text=None, k=0.4):
    """Return Min-k % (Shi et al., 2024): minus the mean of the floor(k t) lowest log-probabilities of an answer's t
    tokens, in nats. At least one token is taken; the closing token is left out. k: a share in (0, 1]."""
    return _lowest(answer.text("log_p"), k)


def min_k_plus(answer, text=None, k=0.4):
    """Return Min-k %++ (Zhang et al., 2025): `min_k` of standardised log-probabilities, without unit. Mean and standard
    deviation are those of log p over the vocabulary, under the model's own distribution."""
    return _lowest((answer.text("log_p") - answer.text("mean")) / answer.text("deviation"), k)


SCORES = {"loss": loss, "zlib": zlib_ratio, "min-k %": min_k, "min-k %++": min_k_plus}


def scores(answers, texts):
    """Return {name in `SCORES`: values (n,)} of n `tokens.Answer`s and their n texts."""
    return {name: np.array([f(a, t) for a, t in zip(answers, texts, strict=True)]) for name, f in SCORES.items()}


def privacy_leakage(auc, oracle):
    """Return 100 [(1 - AUC) - (1 - AUC_oracle)] / (1 - AUC_oracle), in per cent (MUSE, Shi et al., 2025). Below 0 the
    model knows more than the oracle; above 0 it knows conspicuously less. inf or nan where the oracle's AUC is 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(100 * np.float64(oracle - auc) / np.float64(1 - oracle))


def closeness(auc, oracle):
    """Return 1 - |AUC - AUC_oracle| / AUC_oracle, clipped to [0, 1] (OpenUnlearning's privacy score); 1: equal AUCs."""
    return float(np.clip(1 - abs(auc - oracle) / oracle, 0, 1)) if oracle else float(auc == oracle)
