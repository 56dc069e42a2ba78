"""How much of an answer a model still holds, token by token: OpenUnlearning's three scores (Dorna et al., 2025).

All are of one answer, in [0, 1], without unit; the token that closes an answer is left out (src/evals/metrics).
"""

from rklu_lib import metrics


def exact_memorisation(answer):
    """The share of an answer's tokens that are the likeliest, each given the true ones before it (Tirumala et al.,
    2022). answer: a `tokens.Answer`."""
    return float(answer.text("hit").mean())


def extraction_strength(answer):
    """The share of an answer, at its end, that is said word for word once what stands before is given (Carlini et al.,
    2021): (t - k) / t, where k is the shortest prefix after which every likeliest token is the true one.

    The published code looks no further than k = t - 1, so that of t tokens it cannot fall below 1 / t, whether or not
    the last of them is known; so does this. A mean over short answers of a model that knows nothing is not 0.
    """
    hits = answer.text("hit")
    known = int(hits[::-1].cumprod().sum())
    return max(1, known) / len(hits)


def truth_ratio(paraphrased_nll, wrong_nll):
    """p / (p + p_wrong), where p = exp(-NLL per token) of the paraphrased answer and p_wrong = exp(-mean over the wrong
    answers of theirs): OpenUnlearning's knowledge score, 1 where the truth is the likelier; not TOFU's ratio, which is
    `metrics.truth_ratio`. paraphrased_nll (n,), wrong_nll (n, k), nats per token -> (n,), in [0, 1]."""
    return 1 / (1 + metrics.truth_ratio(paraphrased_nll, wrong_nll))
