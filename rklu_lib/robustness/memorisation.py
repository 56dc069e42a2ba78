"""Three scores of how much of an answer a model still holds, as OpenUnlearning defines them (Dorna et al., 2025).

Every score lies in [0, 1] and has no unit. The first two leave out the token that closes an answer, as the
published code does (src/evals/metrics); the NLLs that `truth_ratio` takes include this token."""

from rklu_lib import metrics


def exact_memorisation(answer):
    """Return the share of an answer's tokens that the model ranks first, each given the true tokens before it
    (Tirumala et al., 2022). answer: a `tokens.Answer`."""
    return float(answer.text("hit").mean())


def extraction_strength(answer):
    """Return (t - k) / t for an answer of t tokens, where k is the length of the shortest prefix after which the true
    token is always the likeliest (Carlini et al., 2021). answer: a `tokens.Answer`.

    As in the published code, k is at most t - 1, so the score is at least 1 / t even where the last token is not known.
    Its mean over short answers is therefore above 0 for a model that knows nothing."""
    hits = answer.text("hit")
    known = int(hits[::-1].cumprod().sum())
    return max(1, known) / len(hits)


def truth_ratio(paraphrased_nll, wrong_nll):
    """Return OpenUnlearning's knowledge score p / (p + p_wrong), above 0.5 where the paraphrased answer is likelier.
    p = exp(-NLL) of the paraphrased answer, p_wrong = exp(-mean NLL of the k wrong answers), all NLLs per token.
    TOFU's own ratio is `metrics.truth_ratio`. paraphrased_nll (n,), wrong_nll (n, k), in nats -> (n,), in [0, 1]."""
    return 1 / (1 + metrics.truth_ratio(paraphrased_nll, wrong_nll))
