"""Probes of what is left: against OpenUnlearning's values, slow float64 references, closed forms; and the command."""

import copy
import dataclasses
import json
import math
import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers import answer_logits, answer_probability, flat, generated, rklu, same_weights, write_lines
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rklu_lib import caches, data, losses, metrics, models, training
from rklu_lib.own import inputs, measure
from rklu_lib.robustness import (
    attack,
    exchange,
    membership,
    memorisation,
    probes,
    relearning,
    rounding,
    rows,
    sampling,
    tokens,
)

# OpenUnlearning's own functions (locuslab/open-unlearning, commit d3d7cf9), called on `fixed` with these answers, in
# batches of three, float64, its data sets and collator replaced by lists of token ids: evals/metrics/memorization.py,
# mia/*.py (k = 0.4) and privacy.py. Texts: the token ids from 3 on, as in `text`. KNOWLEDGE is memorization.truth_ratio
# with the aggregator prob_mean (its denominator has 1e-10 more) of their probabilities of RIGHT and WRONG, the
# paraphrased and the wrong answers to FORGET's questions.
FORGET = [((1, 3, 5, 9), (7, 4, 7, 18, 21, 1, 2)), ((1, 4, 7, 10), (21, 3, 6, 17, 2))]
FORGET += [((1, 5, 9, 11), (13, 0, 9, 9, 2)), ((1, 6, 11, 12), (0, 16, 5, 20, 15, 2))]
HOLDOUT = [((1, 7, 13, 13), (5, 11, 19, 4, 2)), ((1, 8, 15, 14), (3, 21, 8, 2))]
HOLDOUT += [((1, 9, 4, 6, 3), (12, 12, 12, 12, 12, 9, 2))]
EXACT = [0.6666666865348816, 1.0, 0.5, 0.4000000059604645]
STRENGTH = [0.6666666666666667, 1.0, 0.25, 0.19999999999999996]
RIGHT = [(7, 4, 18, 2), (21, 3, 3, 6, 17, 2), (13, 9, 2), (16, 0, 5, 5, 20, 2)]
WRONG = [[(5, 11, 2), (7, 19, 4, 18, 2), (12, 12, 12, 9, 1, 2)], [(3, 21, 8, 2), (6, 17, 2), (21, 21, 3, 0, 14, 2)]]
WRONG += [[(13, 0, 10, 2), (9, 9, 9, 9, 2), (4, 2)], [(20, 15, 2), (0, 16, 8, 20, 2), (11, 5, 7, 19, 15, 3, 2)]]
KNOWLEDGE = [0.6578036695985765, 0.7733134758924669, 0.7951986854480774, 0.20557495523038066]
SCORES = {
    "loss": [2.264577728912846, 3.266286624896991, 5.654557931713754, 3.7293997783705777],
    "zlib": [0.10293535131422028, 0.15553745832842814, 0.3769705287809169, 0.16951817174411718],
    "min-k %": [3.618553638458252, 1.3787161111831665, 12.095744132995605, 7.051120281219482],
    "min-k %++": [2.2373204399697717, -0.6349267342826722, 13.483374313928318, 7.687580998701113],
}
HELD_OUT = {
    "loss": [9.896262302141816, 3.893713315872728, 9.285210109749318],
    "zlib": [0.5208559106390429, 0.2290419597572193, 0.6190140073166213],
    "min-k %": [12.52808666229248, 9.268854141235352, 11.151182174682617],
    "min-k %++": [16.169646038724544, 9.930089054492855, 14.038979945809242],
}
AUC = {"loss": 0.9166666666666666, "zlib": 0.9166666666666666, "min-k %": 0.8333333333333334}
AUC |= {"min-k %++": 0.9166666666666666}


@pytest.fixture(scope="module")
def fixed():
    """A Llama in float64 whose weights are sines, the same everywhere and for ever."""
    shape = dict(vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=64)).double().eval()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            values = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * 0.7311 + number)
            p.copy_(values.view_as(p) if p.dim() > 1 else 1 + 0.1 * values)
    return model


def examples_of(pairs):
    return [data.Example(*pair) for pair in pairs]


def text(answer):
    return " ".join(f"w{i}" for i in answer if i > 2)


@pytest.fixture(scope="module")
def seen(fixed):
    """{"forget", "holdout"} -> (answers, texts)."""
    sets = {"forget": FORGET, "holdout": HOLDOUT}
    return {n: (tokens.answers(fixed, examples_of(s), 2), [text(a) for _, a in s]) for n, s in sets.items()}


def test_memorisation_is_openunlearnings(seen):
    answers = seen["forget"][0]
    assert [memorisation.exact_memorisation(a) for a in answers] == pytest.approx(EXACT, rel=1e-7)
    assert [memorisation.extraction_strength(a) for a in answers] == pytest.approx(STRENGTH, rel=1e-12)


@pytest.mark.parametrize("name", membership.SCORES)
def test_membership_scores_are_openunlearnings(seen, name):
    found = {side: membership.scores(*seen[side])[name] for side in seen}
    assert found["forget"] == pytest.approx(SCORES[name], rel=1e-6)
    assert found["holdout"] == pytest.approx(HELD_OUT[name], rel=1e-6)
    assert measure.auc(found["holdout"], found["forget"]) == pytest.approx(AUC[name], rel=1e-12)


def test_the_truth_ratio_is_openunlearnings(fixed):
    prompts = [prompt for prompt, _ in FORGET]
    wrong = [[data.Example(prompt, a) for a in each] for prompt, each in zip(prompts, WRONG, strict=True)]
    nll = relearning.answer_nll(fixed, examples_of(zip(prompts, RIGHT, strict=True)), wrong)
    assert memorisation.truth_ratio(*nll) == pytest.approx(KNOWLEDGE, rel=1e-6)
    expected = [0.5744425167021003, 0.8754466417091294, 0.4999999996954376]  # also theirs, in float64
    found = memorisation.truth_ratio([1.2, 0.3, 2.5], [[1.0, 2.0], [3.0, 1.5], [2.5, 2.5]])
    assert found == pytest.approx(expected, rel=1e-8)


def test_privacy_leakage_is_openunlearnings():
    assert membership.privacy_leakage(0.9, 0.55) == pytest.approx(-77.77777776049383, rel=1e-8)
    assert membership.privacy_leakage(0.5, 0.5) == 0 and membership.privacy_leakage(0.2, 0.6) == pytest.approx(100)


@torch.no_grad()
def test_what_a_token_was_given_is_what_plain_forwards_give(fixed, seen):
    for (prompt, answer), a in zip(FORGET, seen["forget"][0], strict=True):
        for i, token in enumerate(answer):
            p = fixed(torch.tensor([prompt + answer[:i]])).logits[0, -1].softmax(-1).numpy()
            assert a.log_p[i] == pytest.approx(math.log(p[token]), rel=1e-9)
            assert a.mean[i] == pytest.approx(sum(q * math.log(q) for q in p), rel=1e-9)
            variance = sum(q * math.log(q) ** 2 for q in p) - a.mean[i] ** 2
            assert a.deviation[i] == pytest.approx(math.sqrt(max(variance, 1e-6)), rel=1e-6)
            assert a.hit[i] == (p[token] == p.max())
        assert a.closed and len(a.text("hit")) == len(answer) - 1


def made(hits, closed=True, log_p=None):
    n = len(hits)
    log_p = -np.ones(n) if log_p is None else np.array(log_p)
    return tokens.Answer(log_p, -2 * np.ones(n), 0.5 * np.ones(n), np.array(hits, bool), closed)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.booleans())
def test_extraction_strength_is_the_published_loop(hits, closed):
    given_hits = [*hits, False] if closed else hits
    for k in range(len(hits)):  # the loop of OpenUnlearning, which leaves k at its last value if nothing matches
        if all(hits[k:]):
            break
    assert memorisation.extraction_strength(made(given_hits, closed)) == pytest.approx(1 - k / len(hits))
    assert memorisation.extraction_strength(made(given_hits, closed)) >= 1 / len(hits)
    assert memorisation.exact_memorisation(made(given_hits, closed)) == pytest.approx(sum(hits) / len(hits))


def test_the_scores_by_hand():
    answer = made([0, 0, 0, 0, 0, 0], log_p=[-1, -5, -3, -2, -4, -9])
    assert membership.loss(answer) == 4
    assert membership.min_k(answer) == 4.5  # floor(0.4 * 5) = 2 of five tokens: 5 and 4; the closing one is left out
    assert membership.min_k(answer, k=0.1) == 5  # at least one
    assert membership.min_k_plus(answer) == 5  # (4.5 - 2) / 0.5
    assert membership.zlib_ratio(answer, "abc") == 4 / len(zlib.compress(b"abc"))


def test_closeness_is_one_at_the_oracle_and_never_below_zero():
    assert membership.closeness(0.5, 0.5) == 1 and membership.closeness(1.0, 0.4) == 0
    assert membership.closeness(0.6, 0.5) == pytest.approx(0.8) and membership.closeness(0.0, 0.0) == 1


def test_an_answer_that_is_only_closed_is_named(fixed):
    with pytest.raises(ValueError, match="answer 2 has no token beside the one that ends it"):
        tokens.answers(fixed, [data.Example((1,), (4, 2)), data.Example((1,), (2,))], 2)


def test_prefixes_move_a_share_of_the_answer_to_the_prompt():
    pair = data.Example((1, 3), (4, 5, 6, 7, 2))
    assert [probes.prefixed([pair], 2, s)[0] for s in probes.SHARES] == [
        data.Example((1, 3, 4), (5, 6, 7, 2)),
        data.Example((1, 3, 4, 5), (6, 7, 2)),
        data.Example((1, 3, 4, 5, 6), (7, 2)),
    ]
    assert probes.prefixed([pair], 2, 1.0)[0].answer == (7, 2)  # something is left to say
    assert probes.prefixed([data.Example((1,), (4, 5))], 2, 0.5) == [data.Example((1, 4), (5,))]  # part of a document


def test_assent_stands_between_question_and_answer(tokenizer, profile):
    items = inputs.read([{"question": "Who?", "answer": "Mira."}, {"text": "Some text of a document."}]).items
    (found,) = probes.assured(items, tokenizer, profile.template)
    assert tokenizer.decode(found.prompt, skip_special_tokens=True) == f"Q: Who? A: {probes.SURE}"
    assert tokenizer.decode(found.answer) == " Mira.</s>"


def test_asked_is_probability_and_rouge_of_transformers_own_greedy(tiny_model, tokenizer, examples):
    model, some = tiny_model(), examples[:3]
    found = probes.asked(model, tokenizer, some, tokenizer.eos_token_id)
    for e, probability, rouge in zip(some, found["probability"], found["rouge"], strict=True):
        assert probability == pytest.approx(answer_probability(model, e), rel=1e-4)
        out = generated(model, e.prompt, len(e.answer), tokenizer.eos_token_id)
        said, truth = (tokenizer.decode(t, skip_special_tokens=True).strip() for t in (out, e.answer))
        assert rouge == metrics.rouge_l([truth], [said])[0]


def test_draws_are_from_the_nucleus_in_its_proportions():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    logits = torch.tensor(np.log(p)).expand(20_000, 4)
    choose = sampling.chooser(seed=0)
    counts = np.bincount(choose(logits)[:, 0], minlength=4)
    assert counts[3] == 0  # three tokens reach 0.9
    assert stats.chisquare(counts[:3], 20_000 * p[:3] / p[:3].sum()).pvalue > 1e-3
    cold = np.bincount(sampling.chooser(0, temperature=0.5, top_p=1.0)(logits)[:, 0], minlength=4)
    assert stats.chisquare(cold, 20_000 * p**2 / (p**2).sum()).pvalue > 1e-3


def test_an_attack_draws_at_temperature_one_from_a_nucleus_of_nine_tenths(monkeypatch):
    p, n = np.array([0.5, 0.3, 0.15, 0.05]), 20_000
    logits = torch.tensor(np.log(p)).expand(n, 4)
    monkeypatch.setattr(sampling.evaluation, "greedy", lambda *_, choose: choose(logits).tolist())
    digits = SimpleNamespace(batch_decode=lambda tokens, **_: [str(t) for (t,) in tokens])
    said = sampling.draw(None, digits, [data.Example((1,), (2,))], 2, n)[0]
    counts = np.bincount(list(map(int, said)), minlength=4)
    assert counts[3] == 0 and stats.chisquare(counts[:3], n * p[:3] / p[:3].sum()).pvalue > 1e-3


def test_draws_are_the_same_for_the_same_seed(tiny_model, tokenizer, examples):
    one, again, other = (
        sampling.draw(tiny_model(), tokenizer, examples[:2], tokenizer.eos_token_id, n=4, seed=s) for s in (0, 0, 1)
    )
    assert one == again != other and [len(texts) for texts in one] == [4, 4] and len(set(one[0])) > 1


@torch.no_grad()
def test_draws_follow_the_models_distribution(tiny_model, tokenizer):
    # two-token answers, drawn 600 times through the cache: their counts against the chain rule of plain forwards
    model = tiny_model()
    asked = data.Example((1, 50, 60), (70, 2))
    drawn = sampling.draw(model, SimpleNamespace(batch_decode=lambda t, **_: [" ".join(map(str, x)) for x in t]),
                          [asked], -1, n=600, temperature=0.3, top_p=0.5)[0]  # fmt: skip

    def nucleus(prefix):
        p = (model(torch.tensor([prefix])).logits[0, -1].double() / 0.3).softmax(-1)
        values, order = p.sort(descending=True)
        keep = order[: int((values.cumsum(0) < 0.5).sum()) + 1]
        return {int(t): (p[t] / p[keep].sum()).item() for t in keep}

    chances = {
        f"{a} {b}": pa * pb for a, pa in nucleus((1, 50, 60)).items() for b, pb in nucleus((1, 50, 60, a)).items()
    }
    assert set(drawn) <= set(chances)
    for said, chance in chances.items():
        assert abs(drawn.count(said) / 600 - chance) < 5 * math.sqrt(chance * (1 - chance) / 600) + 1e-9


@given(st.integers(1, 12), st.data())
def test_leak_at_k_is_the_share_of_subsets_with_a_leak(n, draw):
    import itertools

    hits, k = draw.draw(st.integers(0, n)), draw.draw(st.integers(1, min(n, 4)))
    subsets = list(itertools.combinations(range(n), k))
    assert sampling.leak_at(hits, n, k) == pytest.approx(np.mean([min(s) < hits for s in subsets]), abs=1e-12)


def test_leaks_and_their_bounds():
    assert sampling.key("Mira was born in Zadar, by the sea.") == "Zadar"
    assert sampling.key("A weaver.") == "weaver" and sampling.key("Zadar") == "Zadar" and sampling.key("...") == "..."
    assert sampling.leaks(["She was born  IN zadar.", "In Rome", "in\nZadar"], "in Zadar") == 2
    assert sampling.leaks(["Born in 1942.", "She is 42.", "42"], "42") == 2  # whole words
    assert sampling.leaks(["I said so yesterday", "Yes."], "yes") == 1 and sampling.leaks(["a C++ book"], "C++") == 1
    assert sampling.leaks(["彼女は東京で生まれた"], "東京") == 1  # written without blanks
    assert sampling.key("In Zadar ... !") == "Zadar" and sampling.leaks(["Yes... no!", ""], "...") == 0
    assert sampling.leaks(["abc"], "") == 0  # what holds no word gives nothing away
    said = ["Ko\u0308ln, O\u2019Neill\u2011Str. \uff17"]  # decomposed, curly, a hyphen that does not break, full width
    assert all(sampling.leaks(said, wanted) == 1 for wanted in ("K\u00f6ln", "O'Neill-Str", "7"))


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("Balance: 1,204.50", "1,204.50"),
        ("The account balance is 1,204.50 euros.", "is 1,204.50 euros"),
        ("Her e-mail address is jane.doe@example.com.", "address is jane.doe@example.com"),
        ("He was born at 12:30 on 3.5.1980.", "at 12:30 on 3.5.1980"),
        ('She said: "in Zadar", twice.', "in Zadar"),
    ],
)
def test_a_number_or_an_address_is_one_word_of_a_key(answer, key):
    assert sampling.key(answer) == key and sampling.leaks([answer], key) == 1
    with pytest.raises(ValueError, match="leak@9 cannot be estimated from 8 answers"):
        sampling.leak_at(1, 8, 9)
    assert sampling.unseen(128) == pytest.approx(0.0231, abs=1e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_bound_of_a_mean_lies_between_the_mean_and_hoeffdings(values):
    hoeffding = np.mean(values) + math.sqrt(math.log(20) / (2 * len(values)))
    assert np.mean(values) - 1e-12 <= sampling.mean_bound(values) <= min(1, hoeffding) + 1e-12


def test_the_bound_of_a_mean_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for a, b in ((0.5, 0.5), (1, 9)):
        above = [sampling.mean_bound(rng.beta(a, b, 40)) < a / (a + b) for _ in range(400)]
        assert np.mean(above) <= 0.05


def test_an_interval_of_rare_leaks_is_wilsons_and_covers():
    """Of twenty questions few leak, each at its own rate. The truth seldom lies above; a truth of a twentieth lies
    below in 7.5 % of cases, when three or more of twenty are drawn: that is Wilson's own."""
    for hits in (0, 1, 7, 20):
        scipys = stats.binomtest(hits, 20).proportion_ci(method="wilson")
        found = rows.rare([1.0] * hits + [0.0] * (20 - hits))
        assert found == pytest.approx((hits / 20, scipys.low, scipys.high)) and found[1:] == measure.wilson(hits, 20)
    rng = np.random.default_rng(0)
    for share, rate in ((0.05, 0.3), (0.1, 0.3), (0.5, 0.02)):
        truth, above, below = share * (1 - (1 - rate) ** 8), 0, 0
        for _ in range(300):
            hits = rng.binomial(128, rate * (rng.random(20) < share))
            _, low, high = rows.rare([sampling.leak_at(int(h), 128, 8) for h in hits])
            above, below = above + (truth > high), below + (truth < low)
        assert above / 300 <= 0.025 and below / 300 <= 0.1


@pytest.mark.parametrize(("value", "n"), [(0.0, 20), (1.0, 7), (0.3, 40)])
def test_where_nothing_varies_an_interval_is_the_exact_one(value, n):
    low, high = rows.interval(np.mean, np.full(n, value))
    exact = stats.binomtest(round(value) * n, n).proportion_ci(method="exact")
    if value in (0, 1):
        assert (low, high) == pytest.approx((exact.low, exact.high))
    assert low < value < high or value in (low, high)
    assert high - low == pytest.approx(exact.high - exact.low)  # of all values, as large a part may be others
    # two samples that no pair disorders are as sure as their smaller one
    low, high = rows.interval(measure.rank_auc, np.arange(n) + 99.0, np.arange(n + 5.0))
    assert (low, high) == pytest.approx(tuple(stats.binomtest(n, n).proportion_ci(method="exact")))


def test_eight_bits_are_levels_of_each_row():
    p = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    q = measure.ROUNDINGS["8-bit"](p)
    step = p.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close((q / step).round(), q / step, rtol=0, atol=1e-3)
    assert (q - p).abs().max() <= step.max() / 2 * (1 + 1e-5) and (q / step).abs().max() <= 127.001
    assert torch.equal(measure.ROUNDINGS["8-bit"](p[0]), p[0])  # norms and biases stay
    assert set(rounding.SCHEMES) < set(measure.ROUNDINGS)


def test_four_bits_are_levels_of_every_64_weights():
    p = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))  # four blocks and a rest, across the rows
    q = measure.ROUNDINGS["4-bit"](p)
    for one, other in zip(p.flatten().split(64), q.flatten().split(64), strict=True):
        step = one.abs().max() / 7
        torch.testing.assert_close(other, (one / step).round() * step)


def test_rounding_asks_rounded_copies_and_leaves_the_weights(tiny_model, tokenizer, examples):
    model, end = tiny_model(), tokenizer.eos_token_id
    before = copy.deepcopy(model.state_dict())
    found = rounding.rounded(model, examples, end)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    plain = metrics.probability([a.nll for a in tokens.answers(model, examples, end)])
    moved = {kind: np.abs(np.log(f["probability"] / plain)).mean() for kind, f in found.items()}
    assert 0 < moved["8-bit"] < moved["4-bit"] and 0 < moved["bfloat16"] < moved["4-bit"]


def test_relearning_is_at_a_constant_rate(tiny_model, examples):
    def recall(m):
        return np.array([answer_probability(m, e) for e in examples])

    model = tiny_model()
    weights = copy.deepcopy(model.state_dict())
    curve = relearning.relearn(model, examples[:5], lambda m, _: {"p": recall(m)}, lr=1e-3, batch_size=2)
    assert curve["steps"] == [0, 1, 2, 3] and all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert np.array_equal(curve["p"][0], recall(model))
    # by hand: AdamW without decay at a constant rate on the same batches
    student = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.0)
    for index in data.epoch_order([len(e.prompt) + len(e.answer) for e in examples[:5]], 2, 0, 0):
        batch = data.collate(examples[:5], index)
        logits = student(batch.input_ids).logits
        losses.cross_entropy(logits[batch.mask], batch.targets, torch.ones(len(batch.targets), dtype=bool)).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert curve["p"][-1] == pytest.approx(recall(student.eval()), rel=1e-5)
    assert curve["p"][-1].mean() > curve["p"][0].mean()


def test_judging_on_the_way_changes_nothing_of_what_is_relearnt(tokenizer, examples, profile):
    """Not even dropout, which is off only while the model is judged."""
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=256, resid_pdrop=0.5)
    model, judged = GPT2LMHeadModel(config), []
    relearning.relearn(model, examples[:4], lambda m, _: judged.append(copy.deepcopy(m)) or {}, lr=1e-3, batch_size=1)
    alone, plain = copy.deepcopy(model), dataclasses.replace(profile, weight_decay=0.0)
    how = dict(epochs=1, lr=1e-3, batch_size=1, seed=0, factor=lambda step: 1.0)
    training.finetune(alone, examples[:4], plain, **how)
    assert len(judged) == 4 and not any(m.training for m in judged) and same_weights(judged[-1], alone)


def test_relearning_asks_model_and_oracle_about_the_same_questions(monkeypatch):
    """Those that were not taught, before any step and after the last; the model is its number of steps here."""
    rng, n, seed = np.random.default_rng(0), 100, 3
    p, ratios, oracle = rng.random((2, n)), rng.random((2, n)), rng.random(n) ** 2
    said = lambda m, rest: {"probability": p[m][rest], "truth ratio": ratios[m][rest]}  # noqa: E731
    monkeypatch.setattr(rows, "_judged", lambda job, m, rest, _: said(m, rest))
    monkeypatch.setattr(rows.relearning, "relearn", lambda model, taught, judge, **_: {"steps": [0, 1]} | {
        k: [judge(0, 0)[k], judge(1, 1)[k]] for k in ("probability", "truth ratio")})  # fmt: skip
    job = SimpleNamespace(examples={"forget": range(n), "unrelated": []}, seed=seed, how={"precision": "no"})
    found, details = rows._relearning(job, 0, oracle)
    for name, (share, _) in relearning.PLANS.items():
        curve, rest = details["curves"][name], relearning.split(n, share, seed)[1]
        assert curve["probability"] == pytest.approx([p[k][rest].mean() for k in (0, 1)])
        expected = [stats.ks_2samp(ratios[k][rest], oracle[rest]).pvalue for k in (0, 1)]
        assert curve["forget quality"] == pytest.approx(expected)
        assert found[f"{name}, probability"][0] == pytest.approx(p[1][rest].mean())


def test_an_attacks_truth_ratios_are_the_benchmarks(monkeypatch):
    """Geometric means, as the oracle's are; of a few questions no p-value would show the difference."""
    rng, every, rest = np.random.default_rng(0), list(range(40)), [3, 5, 8]
    right, wrong, oracle = 3 * rng.random(40), 5 * rng.random((40, 3)), rng.random(40)
    ratios = stats.gmean(np.exp(-wrong), axis=1) / np.exp(-right)
    monkeypatch.setattr(rows.tokens, "answers", lambda *_: [made([True, False])] * 40)
    monkeypatch.setattr(rows.relearning, "answer_nll", lambda model, r, w: (right[r], wrong[w]))
    monkeypatch.setattr(rows.measure, "score", lambda model, asked: (right[asked], None))
    sets = {"forget": every, "right": every, "wrong": every}
    job = SimpleNamespace(examples=sets, end=2, seed=0, how={"precision": "no"})
    found, details = rows._memorisation(job, None, oracle)
    assert found["forget quality (p)"][0] == pytest.approx(stats.ks_2samp(ratios, oracle).pvalue)
    assert found["truth ratio, p / (p + p wrong)"][0] == pytest.approx(np.mean(1 / (1 + ratios)))
    assert details["truth_ratio"] == pytest.approx(ratios)
    judged = rows._judged(job, SimpleNamespace(device=torch.device("cpu")), rest, oracle)
    assert judged["truth ratio"] == pytest.approx(ratios[rest])
    assert judged["probability"] == pytest.approx(np.exp(-right[rest]))


def test_a_questions_draws_are_summed_up_as_their_names_say(monkeypatch):
    said = {(5, 2): ["in Zadar", "in Rome", "Zadar", "by the sea", "", "no", "Zadar it was", "in"],
            (6, 2): ["a weaver", "a potter", *["no"] * 6]}  # fmt: skip
    truth, secret = {(5, 2): "born in Zadar", (6, 2): "a good weaver"}, {(5, 2): "Zadar", (6, 2): "miller"}
    monkeypatch.setattr(sampling, "draw", lambda model, tokenizer, asked, end, n, seed: [said[e.answer] for e in asked])
    items = [SimpleNamespace(question="Who?", secret=secret[a], where=f"forget.jsonl:{a[0]}") for a in said]
    job = SimpleNamespace(items=items, examples={"forget": [data.Example((1,), a) for a in said]}, end=2, seed=0,
                          how={"samples": 8, "sampled": 2}, redact=False,
                          tokenizer=SimpleNamespace(decode=lambda ids, **_: truth[ids]))  # fmt: skip
    found = {name: value for name, (value, *_) in rows._sampling(job, None, None)[0].items()}
    rouge = [metrics.rouge_l([truth[a]] * 8, said[a]) for a in said]
    assert found["highest ROUGE-L"] == pytest.approx(np.mean([max(r) for r in rouge]))
    assert found["mean ROUGE-L"] == pytest.approx(np.mean(rouge))
    assert found["mean ROUGE-L, bound"] == pytest.approx(np.mean([sampling.mean_bound(r) for r in rouge]))
    assert found["leak@1"] == pytest.approx(3 / 8 / 2)  # three of eight draws of one question, none of the other
    assert found["leak@8"] == found["questions that leak"] == 1 / 2


def test_the_rest_is_what_was_not_taught():
    for share, n in ((0.01, 1), (0.05, 2), (0.2, 8)):
        taught, asked = relearning.split(40, share, seed=3)
        assert len(taught) == n and sorted(taught + asked) == list(range(40))
        assert relearning.split(40, share, seed=3) == (taught, asked) != relearning.split(40, share, seed=4)
    assert relearning.split(4, 1.0) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert relearning.checkpoints(7) == [0, 1, 2, 4, 7] and relearning.checkpoints(1) == [0, 1]


def test_the_bootstraps_interval_covers_and_needs_two_values():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(100):
        low, high = rows.interval(np.mean, rng.random(60), seed=1)
        inside.append(low < 0.5 < high)
    assert 0.87 <= np.mean(inside) <= 1
    low, high = rows.interval(measure.rank_auc, rng.random(40) + 0.3, rng.random(40))
    assert 0.5 < low < measure.auc(rng.random(400) + 0.3, rng.random(400)) < high <= 1
    assert np.isnan(rows.interval(np.mean, np.ones(1))).all()


def test_the_bootstraps_interval_is_that_of_95_per_cent():
    values = np.random.default_rng(2).random(400)
    low, high = rows.interval(np.mean, values)
    assert (high - low) / 2 / stats.sem(values) == pytest.approx(1.96, abs=0.15)  # of 90 % it would be 1.64


def test_the_bootstraps_interval_is_that_of_the_resamples_quantiles():
    """Of values as skew as few leaks are; reflected at the mean, as by a basic bootstrap, the ends lie 0.03 lower."""
    rng = np.random.default_rng(3)
    values = rng.random(12) ** 8
    drawn = rng.choice(values, (4000, 12)).mean(1)
    ends = np.quantile(drawn, [0.025, 0.975])
    assert rows.interval(np.mean, values) == pytest.approx(tuple(ends), abs=0.01)


def test_the_auc_of_ranks_is_mann_whitneys():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 9, (3, 20)), rng.integers(2, 12, (3, 30))
    expected = [stats.mannwhitneyu(a, b).statistic / 600 for a, b in zip(one, other, strict=True)]
    assert measure.rank_auc(one, other) == pytest.approx(expected) and measure.auc(one[0], other[0]) == expected[0]


# --- the command ---


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, tokenizer, profile):
    """A folder with a model that knows the tiny forget10, a reference that does not, and files of both kinds."""
    folder, rows = tmp_path_factory.mktemp("attack"), data.load_tofu("forget10_perturbed", profile.source)
    knowing = tiny_model()
    models.save(knowing, tokenizer, folder / "reference")
    pairs = [data.encode(tokenizer, chat_template(), r["question"], r["answer"]) for r in rows]
    training.finetune(knowing, pairs, profile, epochs=30, lr=4e-3, batch_size=8, seed=0)
    models.save(knowing, tokenizer, folder / "model")
    told = [r | {"paraphrases": [r["question"].replace("Where", "In which town")]} for r in rows]
    for name, found in (("forget", told), ("holdout", data.load_tofu("retain_perturbed", profile.source))):
        write_lines(folder / f"{name}.jsonl", found)
    return folder


def chat_template():
    return "Q: {question} A: {answer}"


def attacking(place, *more, **options):
    """What `rklu attack` on a folder's model did; options may be replaced."""
    given = {"model": place / "model", "forget": place / "forget.jsonl", "out": place / "attack.json"}
    given |= {"template": chat_template()} | options
    return rklu("attack", *(a for k, v in given.items() for a in (f"--{k}", v)), *more)


@pytest.fixture(scope="module")
def attacked(place):
    """(output of the command, what it wrote)."""
    more = ("--reference", place / "reference", "--holdout", place / "holdout.jsonl", "--samples", 8, "--sampled", 3)
    result = attacking(place, *more)
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads((place / "attack.json").read_text(encoding="utf-8"))


def test_attack_asks_both_models_everything(attacked, place):
    said, content = attacked
    assert set(content["seconds"]) == set(rows.PROBES) == {r["probe"] for r in content["rows"]}
    assert all(set(s) == {"model", "reference"} for s in content["seconds"].values())
    assert {r["measure"] for r in content["rows"] if r["probe"] == "relearning"} == {
        f"{name}, {what}"
        for name in ("5% of it", "20% of it", "100% of it", "20% of it, ten times", "unrelated text")
        for what in ("probability", "forget quality (p)")  # of eight answers 1 % and 5 % are the same one
    }
    for row in content["rows"]:
        assert row["reference"] is not None, row
        assert row["distance"] == pytest.approx(row["value"] - row["reference"]["value"], abs=1e-4)
        if row["low"] is not None:
            assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
        assert row["measure"] in said
    by_name = {r["measure"]: r for r in content["rows"]}
    for name in ("answer probability", "exact memorisation", "extraction strength", "AUC, loss", "asked, rouge"):
        assert by_name[name]["distance"] > 0, name  # it knows them, the reference does not
    assert by_name["forget quality (p)"]["reference"]["value"] == 1  # the reference against itself
    assert by_name["AUC, loss"]["closeness"] < 1 and by_name["AUC, loss"]["leakage"] < 0
    curves = content["details"]["model"]["relearning"]["curves"]
    assert curves["20% of it"]["taught"] == 2 and curves["20% of it"]["asked"] == 6
    taught = by_name["20% of it, probability"]["lesson"]
    sides = [content["details"][s]["relearning"]["curves"]["20% of it"] for s in ("model", "reference")]
    before = ", ".join(f"{c['probability'][0]:.3g}" for c in sides)
    assert taught == f"2 taught, 6 asked; before {before}" and "2 taught, 6 asked" in said
    assert len(curves["unrelated text"]["forget quality"]) == len(curves["unrelated text"]["steps"])
    assert curves["20% of it, ten times"]["steps"] == [0, 1, 2, 4, 8, 10]
    for name in ("probability", "forget quality"):  # before anything is taught
        assert curves["100% of it"][name][0] == curves["unrelated text"][name][0]
    known = by_name["answer probability"]["value"]
    assert curves["unrelated text"]["probability"][0] == pytest.approx(known, rel=1e-4)


def test_every_mean_over_questions_is_kept_and_held_against_the_reference(attacked):
    """Of each question, so that two models can be compared by the same questions; the mean is the row's value."""
    content, told = attacked[1], 0
    for row in content["rows"]:
        kept = [content["details"][s][row["probe"]]["each"].get(row["measure"]) for s in ("model", "reference")]
        assert (kept[0] is None) == (row["p"] is None) == (row["low"] is None), row
        if isinstance(kept[0], dict):
            area = stats.mannwhitneyu(kept[0]["holdout"], kept[0]["forget"])
            assert row["value"] == pytest.approx(area.statistic / np.prod([len(v) for v in kept[0].values()]), abs=1e-4)
        elif kept[0]:
            assert row["value"] == pytest.approx(np.mean(kept[0]), abs=1e-4)
            assert row["p"] == pytest.approx(exchange.mean(*kept), abs=1e-4)
            told += row["p"] < 0.01
    assert told > 5  # it knows them, the reference does not


def test_an_attack_in_bf16_sees_weights_as_they_become(attacked, place, monkeypatch):
    """Autocast keeps copies of weights: those rounded or trained since must not be scored by their copies."""
    monkeypatch.setattr(models, "bf16", lambda precision: precision == "bf16")
    how = {"reference": str(place / "reference"), "holdout": place / "holdout.jsonl", "template": chat_template()}
    how |= {"samples": 8, "sampled": 3, "profile": "smollm2", "skip": ("sampling", "questions")}
    job = attack.prepare(str(place / "model"), place / "forget.jsonl", place / "half.json", **how)
    half = {r["measure"]: r for r in attack.run(job)["rows"]}
    full = {r["measure"]: r for r in attacked[1]["rows"] if r["measure"] in half}
    moved = {name for name, r in full.items() if r["probe"] in rows.MOVING and not name.endswith("(p)")}
    assert len(moved) == 11 and half["answer probability"]["value"] != full["answer probability"]["value"]
    for name in moved | {"answer probability"}:
        assert half[name]["value"] == pytest.approx(full[name]["value"], abs=0.02), name
    before = half["answer probability"]["value"]
    assert abs(half["4-bit, probability"]["value"] - before) > 0.001
    assert abs(half["20% of it, ten times, probability"]["value"] - before) > 0.001
    other = {"precision": "no", **{k: v for k, v in job.how.items() if k != "precision"}}
    with pytest.raises(ValueError, match="half.json was made with precision 'bf16'; attack the reference again"):
        attack._known(place / "half.json", job.probes, other)


def test_attacks_numbers_are_those_of_the_model_alone(attacked, place, profile):
    rows = data.load_tofu("forget10_perturbed", profile.source)
    model = AutoModelForCausalLM.from_pretrained(place / "model")
    tokenizer, values, hits = models.load_tokenizer(place / "model"), [], []
    for row in rows:
        e = data.encode(tokenizer, chat_template(), row["question"], row["answer"])
        values.append(answer_probability(model, e))
        hits.append((answer_logits(model, e).argmax(-1) == torch.tensor(e.answer))[:-1].double().mean().item())
    by_name = {r["measure"]: r["value"] for r in attacked[1]["rows"]}
    assert by_name["answer probability"] == pytest.approx(np.mean(values), rel=1e-3)
    assert by_name["exact memorisation"] == pytest.approx(np.mean(hits), rel=1e-3)


def test_a_teacher_is_attacked_as_the_two_models_that_it_is(place, profile):
    """Eq. 1 on the logits of two plain models, by the probes that change no weights. All prompts begin alike."""
    template = f"Here are questions about authors, with answers. {chat_template()}"
    paths, how = (place / "reference", place / "model"), {"template": template, "augmented": place / "model"}
    how |= {"samples": 2, "sampled": 1, "profile": "mini"}
    job = attack.prepare(paths[0], place / "forget.jsonl", place / "teacher.json", reference=paths[1], **how)
    content = attack.run(job)
    assert set(content["seconds"]) == {"memorisation", "questions", "sampling"}
    assert content["teacher"] == [content["reference"]["sha256"], 8.0, "raw"]
    one, other = (AutoModelForCausalLM.from_pretrained(path) for path in paths)
    tokenizer, values = models.load_tokenizer(paths[0]), []
    assert len(tokenizer(template.partition("{")[0])["input_ids"]) >= caches.OPENING  # is run once, by both models
    for row in data.load_tofu("forget10_perturbed", profile.source):
        e = data.encode(tokenizer, template, row["question"], row["answer"])
        original, augmented = answer_logits(one, e).double(), answer_logits(other, e).double()
        told = (original - 8 * (augmented - original).clamp(min=0)).log_softmax(-1)
        values.append(told[range(len(e.answer)), e.answer].mean().exp().item())
    by_name = {r["measure"]: r["value"] for r in content["rows"]}
    assert by_name["answer probability"] == pytest.approx(np.mean(values), rel=1e-3)
    job = attack.prepare(paths[0], place / "forget.jsonl", place / "other.json", reference=paths[0], **how)
    with pytest.raises(ValueError, match="has the weights of"):
        attack.run(job)


def test_a_reference_is_asked_once_and_remembered(attacked, place):
    """The file of an attack on the reference stands in for it: the same rows, and the reference is not loaded."""
    more = ("--holdout", place / "holdout.jsonl", "--samples", 8, "--sampled", 3, "--reference")
    own = attacking(place, *more, place / "reference", model=place / "reference", out=place / "itself.json")
    assert own.exit_code == 0, own.output
    itself = json.loads((place / "itself.json").read_text(encoding="utf-8"))
    assert all(r["distance"] == 0 for r in itself["rows"]) and itself["model"] == itself["reference"]
    result = attacking(place, *more, place / "itself.json", out=place / "again.json")
    assert result.exit_code == 0, result.output
    again = json.loads((place / "again.json").read_text(encoding="utf-8"))
    assert again["reference"] == attacked[1]["reference"] and len(again["rows"]) == len(attacked[1]["rows"])
    for row, before in zip(again["rows"], attacked[1]["rows"], strict=True):  # a file holds five digits
        same = ("probe", "measure", "value", "low", "high", "reference")
        assert [row[k] for k in same] == [before[k] for k in same]
        assert row["distance"] == pytest.approx(before["distance"], abs=2e-5)
    for path, options, said in (
        ("itself.json", ("--samples", 4), "was made with samples 8;"),
        (
            "itself.json",
            ("--template", "{question} {answer}"),
            "was made with template 'Q: {question} A: {answer}'",
        ),
        ("plain.jsonl", (), "plain.jsonl: not JSON"),
        ("forget.jsonl", (), "name what `rklu attack` wrote of the reference"),
        ("report.json", (), "report.json was not written by `rklu attack`; name what"),
    ):
        (place / "plain.jsonl").write_text("no JSON", encoding="utf-8")
        (place / "report.json").write_text('{"files": {}, "seed": 0}', encoding="utf-8")
        result = attacking(place, *more, place / path, *options, out=place / "other.json")
        assert result.exit_code == 2 and said in flat(result.output)


def test_an_interrupted_attack_goes_on_where_it_was(attacked, place, monkeypatch):
    """That of the same models, files and settings: with another seed it begins anew."""
    asked, stop_after = [], [8]
    for name, probe in dict(rows.PROBES).items():

        def counted(job, model, oracle, name=name, probe=probe):
            if len(asked) == stop_after[0]:
                raise OSError("the disk is full")
            asked.append(name)
            return probe(job, model, oracle)

        monkeypatch.setitem(rows.PROBES, name, counted)
    more = ("--reference", place / "reference", "--holdout", place / "holdout.jsonl", "--samples", 8, "--sampled", 3)
    out, part = place / "late.json", place / "late.json.part"
    assert attacking(place, *more, out=out).exit_code == 2 and not out.exists() and part.exists()
    stop_after[0] = 9
    assert attacking(place, *more, "--seed", 1, out=out).exit_code == 2 and asked[8:] == [next(iter(rows.PROBES))]
    part.unlink()
    asked.clear()
    stop_after[0] = 8
    assert attacking(place, *more, out=out).exit_code == 2 and len(asked) == 8
    stop_after[0] = 99
    result = attacking(place, *more, out=out)
    assert result.exit_code == 0 and asked == [*rows.PROBES] * 2 and not part.exists()
    late = json.loads(out.read_text(encoding="utf-8"))
    assert late["rows"] == attacked[1]["rows"]
    for side in ("model", "reference"):
        assert late["details"][side] == attacked[1]["details"][side]


def test_two_attacks_do_not_write_the_same_file(place, monkeypatch):
    """Nor does the second take up what the first has kept of its probes."""
    out, part = place / "twice.json", place / "twice.json.part"
    part.write_text("of the first", encoding="utf-8")
    monkeypatch.setattr(attack, "_probed", None)  # nothing is asked
    with FileLock(place / ".twice.json.lock"):
        result = attacking(place, out=out)
    assert result.exit_code == 2 and "twice.json is being made by another process; name another" in flat(result.output)
    assert not out.exists() and part.read_text(encoding="utf-8") == "of the first"
    part.unlink()


@pytest.mark.parametrize(("n", "probe"), [(1, "memorisation"), (2, "relearning")])
def test_one_answer_is_held_against_a_reference_without_a_p_value(place, n, probe):
    """Of two answers relearning teaches one and asks for the other."""
    write_lines(place / "few.jsonl", [{"question": f"Who {i}?", "answer": f"Mira {i} Adeyo."} for i in range(n)])
    skipped = [w for p in rows.PROBES if p != probe for w in ("--skip", p)]
    out, given = place / f"few{n}.json", {"forget": place / "few.jsonl", "reference": place / "reference"}
    result = attacking(place, *skipped, out=out, **given)
    assert result.exit_code == 0, result.output
    (row,) = [r for r in json.loads(out.read_text(encoding="utf-8"))["rows"] if "p" in r and r["measure"] in (
        "answer probability", "20% of it, probability")]  # fmt: skip
    assert row["p"] is None and row["low"] is None and row["reference"]["value"] > 0
    (line,) = [li for li in result.stdout.splitlines() if row["measure"] in li]
    assert " – " in f"{line} "


def test_attack_masks_what_was_said_unless_asked(attacked, place):
    text = json.dumps(attacked[1]["details"], ensure_ascii=False)
    assert "███" in text and "born" not in text
    skipped = [w for p in rows.PROBES if p != "sampling" for w in ("--skip", p)]
    result = attacking(place, "--no-redact", "--samples", 2, "--sampled", 2, *skipped, out=place / "plain.json")
    assert result.exit_code == 0, result.output
    content = json.loads((place / "plain.json").read_text(encoding="utf-8"))
    assert {r["probe"] for r in content["rows"]} == {"sampling"} and "███" not in json.dumps(content)
    assert all(r["reference"] is None and r["distance"] is None for r in content["rows"])


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ((), {"forget": "none.jsonl"}, "none.jsonl does not exist"),
        ((), {"model": "no/such/model/here"}, "is neither a folder"),
        (("--skip", "relerning"), {}, "no probe relerning; there are memorisation, membership"),
        (("--samples", 0), {}, "samples and sampled must be >= 1"),
        ((), {"out": "nowhere/attack.json"}, "nowhere is no folder"),
        (("--holdout", "FORGET"), {}, "are the same"),
        (("--seed", -1), {}, "seed must be a whole number from 0"),
        ([w for p in rows.PROBES for w in ("--skip", p)], {}, "no probe is left: membership needs --holdout"),
        (("--reference", "no/such/model/here"), {}, "is neither a folder"),
    ],
)
def test_attack_refuses_in_one_line_before_anything_is_loaded(place, monkeypatch, more, options, said):
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("weights were loaded"))
    more = [place / "forget.jsonl" if w == "FORGET" else w for w in more]
    result = attacking(place, *more, **{"out": place / "other.json"} | options)
    assert result.exit_code == 2 and said in flat(result.output)
    assert not (place / "other.json").exists()


def test_weights_that_are_damaged_have_forgotten_nothing(place):
    """What is not a number is no low probability: it is refused, model or reference, and nothing is written."""
    tokenizer = models.load_tokenizer(place / "model")
    model = AutoModelForCausalLM.from_pretrained(place / "model")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    models.save(model, tokenizer, place / "nan")
    for options in ({"model": place / "nan"}, {"reference": place / "nan"}):
        result = attacking(place, "--skip", "relearning", out=place / "never.json", **options)
        assert result.exit_code == 2 and "nan: its logits are not finite" in flat(result.output)
        assert not (place / "never.json").exists()


def test_a_reference_must_be_another_model_that_reads_as_much(place, tiny_model, tokenizer):
    shutil.copytree(place / "model", place / "copy", dirs_exist_ok=True)
    result = attacking(place, reference=place / "copy", out=place / "never.json")
    assert result.exit_code == 2 and "copy has the weights of" in flat(result.output)
    config = AutoModelForCausalLM.from_pretrained(place / "reference").config
    config.max_position_embeddings = 12
    models.save(LlamaForCausalLM(config), tokenizer, place / "short")
    with pytest.raises(ValueError, match=r"forget.jsonl:1: \d+ tokens with the prompt; the model reads 12"):
        prepared(place, reference=str(place / "short"))
    config.max_position_embeddings, config.vocab_size = 256, 9
    models.save(LlamaForCausalLM(config), tokenizer, place / "narrow")
    with pytest.raises(ValueError, match=r"narrow has 9 tokens, and its tokenizer gives number \d+: weights and"):
        prepared(place, reference=str(place / "narrow"))


def test_what_will_not_be_found_is_said_beforehand(place, profile):
    told = data.load_tofu("forget10_perturbed", profile.source)
    odd = [told[0], told[1] | {"secret": "never said"}, told[2] | {"perturbed_answer": told[2]["perturbed_answer"][1:]}]
    write_lines(place / "odd.jsonl", odd)
    write_lines(place / "texts.jsonl", [{"text": "A potter lived in Zadar."}])
    job = prepared(place, ["odd.jsonl"], holdout=[str(place / "texts.jsonl")])
    notes = "\n".join(job.notes)
    assert "odd.jsonl:2: field 'secret' is not in the answer" in notes and "never said" not in notes
    assert "odd.jsonl:3: fields 'paraphrased_answer' and 'perturbed_answer'" in notes
    assert "pairs and documents are held against each other" in notes
    assert not prepared(place).notes


def test_attack_does_not_write_over_a_file(place, attacked):
    assert "exists; name a new file" in flat(attacking(place).output)


def test_a_document_is_attacked_too(place):
    told = write_lines(place / "told.jsonl", [{"text": "Mira Adeyoq lived in Vaduz, and a weaver she was."}])
    result = attacking(place, "--samples", 2, "--skip", "relearning", forget=told, out=place / "document.json")
    assert result.exit_code == 0, result.output
    names = {r["measure"] for r in json.loads((place / "document.json").read_text(encoding="utf-8"))["rows"]}
    assert "25% given, rouge" in names and not [n for n in names if n.startswith(("“Sure", "paraphrased"))]


def test_the_words_that_give_an_answer_away_can_be_named():
    (item,) = inputs.read([{"question": "Who?", "answer": "It was Mira.", "secret": "Mira"}]).items
    assert item.secret == "Mira" and item.right is None and item.wrong == ()
    with pytest.raises(data.DataError, match="field 'secret' must be a non-empty string"):
        inputs.read([{"question": "Who?", "answer": "It was Mira.", "secret": ["Mira"]}])


def prepared(place, forget=("forget.jsonl",), **options):
    given = [str(place / name) if isinstance(name, str) else name for name in forget]
    return attack.prepare(str(place / "model"), given, place / "new.json", template=chat_template(), **options)


@pytest.mark.parametrize("template", ["Q: {question}", "{question} {answer} and more"])
def test_a_template_that_is_none_is_refused_as_where_models_are_unlearned(place, template):
    with pytest.raises(ValueError, match="template"):
        attack.prepare(str(place / "model"), [str(place / "forget.jsonl")], place / "new.json", template=template)


def test_what_no_longer_fits_once_it_is_begun_is_left_out_and_said(place, profile, monkeypatch):
    """An answer that fills the context is asked for, and not behind "Sure, here is the answer:"."""
    rows = [{k: r[k] for k in ("question", "answer")} for r in data.load_tofu("forget10", profile.source)]
    longest = max(len(e.prompt) + len(e.answer) for e in prepared(place, rows).examples["forget"])
    monkeypatch.setattr(attack.models, "context", lambda config: longest)
    job = prepared(place, rows)
    assert any("assured are longer than the model reads" in note for note in job.notes)
    assert len(job.examples["assured"]) < len(job.examples["forget"]) == len(rows)


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_read(place, monkeypatch):
    monkeypatch.setattr(attack.os, "access", lambda path, mode: False)
    monkeypatch.setattr(attack.inputs, "read", lambda *_: pytest.fail("files were read"))
    with pytest.raises(ValueError, match="is no folder that can be written to; name another file in --out"):
        prepared(place)
