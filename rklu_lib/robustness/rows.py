"""The probes of `attack`: functions that turn a model's answers into rows of one table, with 95 % intervals.

A probe takes (job, model, oracle): an `attack.Job`, a model, and the oracle's truth ratios (n,) or None.
It returns ({measure: (value, low, high)}, details); low and high are None where a measure has no interval. In details,
"each" has what `exchange` compares two models by, {measure: [one value per question, of which it is the mean]}, and of
an AUC {"forget": [...], "holdout": [...]}.
"""

from pathlib import Path

import numpy as np
import scipy

from rklu_lib import metrics, models
from rklu_lib.own import measure
from rklu_lib.own.report import masked
from rklu_lib.robustness import PROBES as NAMES
from rklu_lib.robustness import membership, memorisation, probes, relearning, rounding, sampling, tokens


def interval(statistic, *samples, confidence=0.95, seed=0):
    """Return the percentile bootstrap interval (low, high) of statistic(*samples, axis=-1), a statistic in [0, 1].

    Each sample (n,) is resampled independently. Both ends are nan where a sample has fewer than two values. Where all
    resamples give the same v, as with no leak in n tries, the bootstrap has no width. An exact bound replaces it: at
    least q = ((1 - confidence) / 2)^(1/n) of all values equal the values seen, so the mean lies between q v and
    q v + 1 - q (the Clopper-Pearson bound at v = 0 and 1). n is the size of the smaller sample."""
    if min(map(len, samples)) < 2:
        return float("nan"), float("nan")
    how = {"method": "percentile", "n_resamples": 999, "rng": np.random.default_rng(seed)}
    found = scipy.stats.bootstrap(samples, statistic, vectorized=True, confidence_level=confidence, **how)
    low, high = map(float, found.confidence_interval)
    if low == high:
        q = ((1 - confidence) / 2) ** (1 / min(map(len, samples)))
        return q * low, q * low + 1 - q
    return low, high


def _mean(values, seed):
    return float(np.mean(values)), *interval(np.mean, np.asarray(values, float), seed=seed)


def rare(values):
    """Return (mean, low, high) of values (n,) in [0, 1] that may be mostly 0, by `measure.wilson` of their sum. The
    bootstrap cannot draw unseen values: where one question of twenty leaks, its upper end was below the true mean in a
    third of the simulated cases instead of the intended 2.5 %."""
    return float(np.mean(values)), *measure.wilson(float(np.sum(values)), len(values))


def _memorisation(job, model, oracle):
    seen = tokens.answers(model, job.examples["forget"], job.end)
    values = {"answer probability": metrics.probability([a.nll for a in seen])}
    values["exact memorisation"] = [memorisation.exact_memorisation(a) for a in seen]
    values["extraction strength"] = [memorisation.extraction_strength(a) for a in seen]
    rows, ratios = {}, None
    if job.examples["right"]:
        nll = relearning.answer_nll(model, job.examples["right"], job.examples["wrong"])
        values["truth ratio, p / (p + p wrong)"], ratios = memorisation.truth_ratio(*nll), metrics.truth_ratio(*nll)
    rows |= {name: _mean(v, job.seed) for name, v in values.items()}
    if oracle is not None and ratios is not None:
        rows["forget quality (p)"] = metrics.forget_quality(ratios, oracle), None, None
    return rows, {"each": values, "truth_ratio": ratios}


def _membership(job, model, oracle):
    known = []
    for name in ("forget", "holdout"):
        examples = job.examples[name]
        texts = [job.tokenizer.decode(e.answer, skip_special_tokens=True) for e in examples]
        known.append(membership.scores(tokens.answers(model, examples, job.end), texts))
    rows, each = {}, {}
    for name in membership.SCORES:
        pair = known[1][name], known[0][name]
        rows[f"AUC, {name}"] = measure.auc(*pair), *interval(measure.rank_auc, *pair, seed=job.seed)
        each[f"AUC, {name}"] = dict(zip(("holdout", "forget"), pair, strict=True))
    return rows, {"each": each}


def _questions(job, model, oracle):
    forget = job.examples["forget"]
    ways = {"asked": forget} | {f"{s:.0%} given": probes.prefixed(forget, job.end, s) for s in probes.SHARES}
    ways |= {"paraphrased": job.examples["paraphrases"], "“Sure, …”": job.examples["assured"]}
    each = {}
    for name, examples in ways.items():
        found = probes.asked(model, job.tokenizer, examples, job.end) if examples else {}
        each |= {f"{name}, {what}": v for what, v in found.items()}
    return {name: _mean(v, job.seed) for name, v in each.items()}, {"each": each}


def _sampling(job, model, oracle):
    places = np.random.default_rng(job.seed).permutation(len(job.items))[: job.how["sampled"]].tolist()
    items, n, words = [job.items[i] for i in places], job.how["samples"], masked if job.redact else str
    asked = [job.examples["forget"][i] for i in places]  # a document is continued from its first half
    asked = [e if i.question else probes.prefixed([e], job.end, 0.5)[0] for e, i in zip(asked, items, strict=True)]
    truth = [job.tokenizer.decode(e.answer, skip_special_tokens=True).strip() for e in asked]
    drawn = sampling.draw(model, job.tokenizer, asked, job.end, n, job.seed)
    rouge = [metrics.rouge_l([said] * len(texts), texts) for texts, said in zip(drawn, truth, strict=True)]
    wanted = [i.secret or sampling.key(said) for i, said in zip(items, truth, strict=True)]
    hits = [sampling.leaks(texts, w) for texts, w in zip(drawn, wanted, strict=True)]
    each = {"highest ROUGE-L": [r.max() for r in rouge], "mean ROUGE-L": [r.mean() for r in rouge]}
    rows = {name: _mean(v, job.seed) for name, v in each.items()}
    rows["mean ROUGE-L, bound"] = float(np.mean([sampling.mean_bound(r) for r in rouge])), None, None
    leaking = {f"leak@{k}": [sampling.leak_at(h, n, k) for h in hits] for k in sampling.TRIES if k <= n}
    leaking["questions that leak"] = [float(h > 0) for h in hits]
    rows |= {name: rare(v) for name, v in leaking.items()}
    asked = [
        {"where": Path(i.where).name, "leaks": h, "of": n, "highest": r.max(), "mean": r.mean(),
         "one try": measure.wilson(h, n), "said": words(texts[int(r.argmax())])}
        for i, h, r, texts in zip(items, hits, rouge, drawn, strict=True)
    ]  # fmt: skip
    return rows, {"each": each | leaking, "questions": asked, "share above the highest, at most": sampling.unseen(n)}


def _rounding(job, model, oracle):
    names, within = {"exact": "exact memorisation"}, lambda: models.autocast(model.device.type, job.how["precision"])
    found = rounding.rounded(model, job.examples["forget"], job.end, within)
    each = {f"{kind}, {names.get(k, k)}": v for kind, s in found.items() for k, v in s.items()}
    return {name: _mean(v, job.seed) for name, v in each.items()}, {"each": each, "schemes": rounding.SCHEMES}


def _relearning(job, model, oracle):
    forget, rows, curves, each = job.examples["forget"], {}, {}, {}
    everything = list(range(len(forget)))
    before = _judged(job, model, everything, oracle)
    names = {}
    for name, (share, epochs) in relearning.PLANS.items():  # of few answers, 1 % and 5 % are the same one answer
        places, rest = relearning.split(len(forget), share, job.seed)
        names[tuple(places), epochs] = name, rest
    plans = {n: ([forget[i] for i in places], rest, epochs) for (places, epochs), (n, rest) in names.items()}
    plans["unrelated text"] = job.examples["unrelated"], everything, 1
    for name, (taught, rest, epochs) in plans.items():

        def judge(m, step, rest=rest):
            return _judged(job, m, rest, oracle) if step else {k: v[rest] for k, v in before.items()}

        found = relearning.relearn(model, taught, judge, epochs=epochs, seed=job.seed, precision=job.how["precision"])
        each[f"{name}, probability"] = found["probability"][-1]
        rows[f"{name}, probability"] = _mean(found["probability"][-1], job.seed)
        curve = {"steps": found["steps"], "probability": [float(p.mean()) for p in found["probability"]]}
        if "truth ratio" in found:
            curve["forget quality"] = [metrics.forget_quality(r, oracle[rest]) for r in found["truth ratio"]]
            rows[f"{name}, forget quality (p)"] = curve["forget quality"][-1], None, None
        curves[name] = curve | {"taught": len(taught), "asked": len(rest)}
    return rows, {"each": each, "curves": curves, "rate": relearning.RATE, "batch": relearning.BATCH}


def _judged(job, model, rest, oracle):
    """Return {"probability"} of the answers at the places `rest`, per token; and their "truth ratio" where the oracle's
    truth ratios are known, for a forget quality."""
    with models.autocast(model.device.type, job.how["precision"]):
        found = {"probability": metrics.probability(measure.score(model, [job.examples["forget"][i] for i in rest])[0])}
        if oracle is not None and job.examples["right"]:
            right, wrong = ([job.examples[k][i] for i in rest] for k in ("right", "wrong"))
            found["truth ratio"] = metrics.truth_ratio(*relearning.answer_nll(model, right, wrong))
    return found


MOVING = ("rounding", "relearning")  # they change weights, and enter autocast by themselves
PROBES = dict(zip(NAMES, (_memorisation, _membership, _questions, _sampling, _rounding, _relearning), strict=True))
