"""Scores against plain forwards of one sequence at a time, generation against transformers', numbers by hand."""

import copy
import dataclasses
import math
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import generated, plain_nll
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig

from rklu_lib import data, evaluation, methods, metrics, probing
from rklu_lib.own import measure
from rklu_lib.robustness import tokens as attacked
from rklu_lib.teacher import FrozenLogits, TeacherModel, teacher_logits

PROMPTS = [(1, 40), (1, 40, 41, 42, 43, 44, 45), (1, 99, 98, 97), (1, 200, 7, 9, 250, 30), (1, 60), (1, 61, 62)]
ANSWERS = [
    [(50, 51, 52, 2), (2,), (53, 2)],
    [(60, 2), (61, 62, 63, 64, 65, 66, 2)],
    [(70, 71, 72, 2)],
    [(2,), (2,), (300, 2), (80, 81, 82, 2), (50, 51, 52, 2)],
    [(90, 91, 92, 93, 2), (90, 91, 92, 93, 2)],
    [(40, 2), (41, 42, 43, 2), (41, 42, 44, 45, 2), (41, 42, 2)],
]


def assert_all_close(scores, logits_of, tolerance):
    assert [len(s) for s in scores] == [len(a) for a in ANSWERS]
    for prompt, answers, values in zip(PROMPTS, ANSWERS, scores, strict=True):
        expected = [plain_nll(logits_of, prompt, answer) for answer in answers]
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sizes", [{}, {"block": 2, "batch_size": 3}, {"block": 1, "batch_size": 1}])
def test_shared_prompts_score_as_whole_sequences_do(model, sizes):
    scores, _ = evaluation.score_answers(model, PROMPTS, ANSWERS, **sizes)
    assert_all_close(scores, lambda ids: model(input_ids=ids).logits, 1e-5)


few_tokens = st.lists(st.integers(50, 52), max_size=5).map(lambda tokens: (*tokens, 2))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(few_tokens, min_size=1, max_size=5), min_size=1, max_size=5))
def test_answers_that_open_alike_score_as_whole_sequences_do(model, answers):
    """Three tokens only, so that openings are often shared: wholly, in part, by some, by none."""
    scores, _ = evaluation.score_answers(model, PROMPTS[: len(answers)], answers, block=2, batch_size=3)
    for prompt, texts, values in zip(PROMPTS, answers, scores, strict=False):
        expected = [plain_nll(lambda ids: model(input_ids=ids).logits, prompt, text) for text in texts]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_the_agreed_tokens_are_those_greedy_decoding_says(model):
    said = [tuple(generated(model, prompt, 6, -1)) for prompt in PROMPTS[:5]]
    for first, expected in (
        (lambda i: said[i], [6] * 5),
        (lambda i: said[i][:1], [1] * 5),
        (lambda i: (*said[i][:i], 7, *said[i][i:]), [0, 1, 2, 3, 4]),
        (lambda i: (said[i][0] + 1, *said[i][1:]), [0] * 5),
    ):
        answers = [[first(i), (7, 8), (7, 9)] for i in range(5)]
        assert evaluation.score_answers(model, PROMPTS[:5], answers, block=2, batch_size=3)[1].tolist() == expected
    assert all(said[i][i] != 7 for i in range(5))  # or the third of them would not depart at i


def test_scoring_in_float64_is_as_precise_as_its_float32_softmax(model):
    wide = copy.deepcopy(model).double()
    scores, _ = evaluation.score_answers(wide, PROMPTS, ANSWERS, block=3, batch_size=2)
    assert_all_close(scores, lambda ids: wide(input_ids=ids).logits, 1e-6)


def test_the_teacher_is_scored_as_eq_1_says(tiny_model):
    pair = tiny_model("llama"), tiny_model("llama", seed=1)
    scores, _ = evaluation.score_answers(TeacherModel(*pair, 2.0), PROMPTS, ANSWERS, block=2, batch_size=2)
    assert_all_close(scores, lambda ids: teacher_logits(*(m(input_ids=ids).logits for m in pair), 2.0), 1e-5)


def test_scores_do_not_depend_on_company_or_order(model):
    together, _ = evaluation.score_answers(model, PROMPTS, ANSWERS)
    backwards = evaluation.score_answers(model, PROMPTS[::-1], ANSWERS[::-1])[0][::-1]
    for one, other, prompt, answers in zip(together, backwards, PROMPTS, ANSWERS, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        np.testing.assert_allclose(evaluation.score_answers(model, [prompt], [answers])[0][0], one, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [128, 2, 1])
def test_greedy_is_transformers_greedy(model, batch_size):
    prompts = [*PROMPTS, (1, 5, 6, 7, 8, 9, 10, 11), (1, 13, 14), (1, 222, 111)]
    free = [generated(model, p, 12, -1) for p in prompts]
    assert len(set(map(tuple, free))) == len(prompts) and max(len(set(f)) for f in free) > 4  # worth comparing
    # As end-of-text, each in turn: never said; said by one prompt at once; in the midst; near the end.
    for eos in (-1, free[0][0], free[1][3], free[2][7], free[3][10]):
        expected = [generated(model, p, 12, eos) for p in prompts]
        assert evaluation.greedy(model, prompts, 12, eos, batch_size=batch_size) == expected
        begun = [tuple(e[: i % 5]) if i % 5 < len(e) else (*e, eos) for i, e in enumerate(expected)]
        assert evaluation.greedy(model, prompts, 12, eos, begun, batch_size) == expected


@pytest.mark.parametrize("batch_size", [3, 1])
def test_generation_ends_where_the_model_stops_reading(tokenizer, batch_size):
    """A table of positions has an end, at which GPT-2 fails; each row has the room that its own prompt leaves."""
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).eval()
    prompts = [tuple(range(5, 5 + n)) for n in (12, 3, 16)]
    said = evaluation.greedy(model, prompts, 14, -1, batch_size=batch_size)
    assert said == [generated(model, p, 16 - len(p), -1) if len(p) < 16 else [] for p in prompts]
    assert list(map(len, said)) == [4, 13, 0]
    top, _ = probing.completions(model, tokenizer, prompts[0], -1 % len(tokenizer), k=2, budget=8)
    assert 1 <= len(top) <= 2 and all(len(tokenizer(text)["input_ids"]) <= 16 - 12 + 1 for text, _ in top)


def test_rows_leave_the_batch_one_after_another(tiny_model):
    model = tiny_model()
    prompts = [(1, token, token + 1) for token in range(10, 42)]
    free = [generated(model, p, 10, -1) for p in prompts]
    tokens, counts = np.unique(np.concatenate(free), return_counts=True)
    eos = int(tokens[counts.argmax()])
    expected = [f[: f.index(eos)] if eos in f else f for f in free]
    assert len(set(map(len, expected))) > 3
    assert evaluation.greedy(model, prompts, 10, eos) == expected


def test_the_teacher_generates_what_eq_1_makes_likeliest(tiny_model):
    pair = tiny_model("llama"), tiny_model("llama", seed=1)
    for prompt, tokens in zip(PROMPTS, evaluation.greedy(TeacherModel(*pair, 2.0), PROMPTS, 6, -1), strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(6):
                logits = teacher_logits(*(m(input_ids=torch.tensor([ids])).logits[0, -1] for m in pair), 2.0)
                ids.append(int(logits.argmax()))
        assert ids[len(prompt) :] == tokens


@pytest.fixture(scope="module")
def asked(profile, tokenizer):
    return evaluation.load_questions(profile, "forget10", tokenizer)


def test_evaluation_has_nine_utility_components_and_what_they_make(tiny_model, tokenizer, asked):
    aggregates, per_question = evaluation.evaluate(tiny_model(), tokenizer, asked, 3)
    expected = {f"{s}_{m}" for s in ("retain", "authors", "facts") for m in ("rouge", "probability", "truth_ratio")}
    components = {k: v for k, v in aggregates.items() if k in expected}
    assert set(components) == expected and all(0 <= v <= 1 for v in components.values())
    forget = {"forget_rouge", "forget_probability", "forget_truth_ratio"}
    assert set(aggregates) == expected | forget | {"model_utility"}
    assert aggregates["model_utility"] == metrics.model_utility(components)
    assert {k: v.shape for k, v in per_question.items()} == dict.fromkeys(
        ("answer_nll", "rouge", "truth_ratio_benchmark", "truth_ratio_paper"), (8,)
    )


def test_evaluation_equals_the_definitions_on_plain_scores(tiny_model, tokenizer, profile, asked):
    model = tiny_model()
    oracle = {form: np.linspace(0.5, 2, 7) for form in ("benchmark", "paper")}
    aggregates, per_question = evaluation.evaluate(model, tokenizer, asked, 3, oracle)

    def nll(question, answer):
        e = data.encode(tokenizer, profile.template, question, answer)
        return plain_nll(lambda ids: model(input_ids=ids).logits, e.prompt, e.answer)

    rows = data.load_tofu("forget10_perturbed", profile.source)
    right = np.array([nll(r["question"], r["answer"]) for r in rows])
    paraphrased = np.array([nll(r["question"], r["paraphrased_answer"]) for r in rows])
    wrong = np.array([[nll(r["question"], w) for w in r["perturbed_answer"]] for r in rows])
    ratios = {"benchmark": stats.gmean(np.exp(-wrong), axis=1), "paper": np.exp(-wrong).mean(1)}
    np.testing.assert_allclose(per_question["answer_nll"], right, rtol=1e-5)
    assert aggregates["forget_probability"] == pytest.approx(np.exp(-right).mean(), rel=1e-4)
    assert aggregates["forget_truth_ratio"] == pytest.approx(
        np.median(ratios["benchmark"] / np.exp(-paraphrased)), rel=1e-4
    )
    assert aggregates["forget_rouge"] == pytest.approx(per_question["rouge"].mean())
    for form, over in ratios.items():
        ratio = over / np.exp(-paraphrased)
        np.testing.assert_allclose(per_question[f"truth_ratio_{form}"], ratio, rtol=1e-4)
        assert aggregates[f"forget_quality_{form}"] == pytest.approx(stats.ks_2samp(ratio, oracle[form]).pvalue)
    facts = data.load_tofu("world_facts_perturbed", profile.source)
    shares = [
        math.exp(-nll(r["question"], r["answer"]))
        / sum(math.exp(-nll(r["question"], a)) for a in (r["answer"], *r["perturbed_answer"]))
        for r in facts
    ]
    assert aggregates["facts_probability"] == pytest.approx(np.mean(shares), rel=1e-4)
    # without a paraphrase the answer itself stands in Eq. 5
    truth = [
        max(0, 1 - math.exp(nll(r["question"], r["answer"]) - np.mean([nll(r["question"], w) for w in wrong])))
        for r, wrong in ((r, r["perturbed_answer"]) for r in facts)
    ]
    assert aggregates["facts_truth_ratio"] == pytest.approx(np.mean(truth), rel=1e-4, abs=1e-9)


def test_a_model_that_fails_leaves_the_number_of_threads_as_it_was(tiny_model, tokenizer, profile, monkeypatch):
    asked = evaluation.questions(data.load_tofu("retain_perturbed", profile.source), tokenizer, profile.template)
    threads = torch.get_num_threads()
    monkeypatch.setattr(evaluation, "greedy", lambda *_: 1 / 0)
    try:
        torch.set_num_threads(3)
        with pytest.raises(ZeroDivisionError):
            evaluation.score(tiny_model(), tokenizer, {"some": asked}, 5)
        with ThreadPoolExecutor(1) as pool:  # it is threads that start later that would have one core
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(threads)


def test_what_is_said_is_transformers_greedy_and_its_rouge_is_by_the_answer(tiny_model, tokenizer, asked):
    """Also though decoding begins where the model first leaves the true answer: it is given none of it."""
    model, q = tiny_model(), asked["forget"].part(0, 4)
    found = evaluation.score(model, tokenizer, {"forget": q}, 5)["forget"]
    said = [tokenizer.decode(generated(model, p, 5, q.end), skip_special_tokens=True).strip() for p in q.prompts]
    assert found["generations"].tolist() == said and len(set(said)) > 1
    assert found["rouge"].tolist() == metrics.rouge_l(q.references, said).tolist()


def test_each_form_of_eq_5_is_held_against_the_oracles_ratios_of_that_form(monkeypatch):
    rng = np.random.default_rng(0)
    nll = {"answer_nll": rng.random(20), "paraphrased_nll": 3 * rng.random(20), "wrong_nll": 5 * rng.random((20, 3))}
    monkeypatch.setattr(evaluation, "score", lambda *_: {"forget": nll | {"rouge": rng.random(20)}})
    oracle = {"benchmark": rng.random(30), "paper": 3 * rng.random(30)}
    found, _ = evaluation.evaluate(None, None, {"forget": None}, 3, oracle, needs_utility=lambda scores: False)
    p, right = np.exp(-nll["wrong_nll"]), np.exp(-nll["paraphrased_nll"])
    for form, over in (("benchmark", stats.gmean(p, axis=1)), ("paper", p.mean(axis=1))):
        expected = stats.ks_2samp(over / right, oracle[form]).pvalue
        assert found[f"forget_quality_{form}"] == pytest.approx(expected)
    assert found["forget_quality_benchmark"] != pytest.approx(found["forget_quality_paper"], rel=0.5)


@pytest.mark.parametrize("teacher", [False, True])
def test_questions_shared_out_to_cores_score_as_on_one(tiny_model, tokenizer, profile, monkeypatch, teacher):
    model = TeacherModel(tiny_model(), tiny_model(seed=1), 2.0) if teacher else tiny_model()
    asked = evaluation.questions(data.load_tofu("retain_perturbed", profile.source), tokenizer, profile.template)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = evaluation.score(model, tokenizer, {"some": asked, "few": asked.part(0, 5)}, 5)
        torch.set_num_threads(3)
        monkeypatch.setattr(evaluation, "BLOCK", 4)
        shared = evaluation.score(model, tokenizer, {"some": asked, "few": asked.part(0, 5)}, 5)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert len(set(whole["some"]["generations"])) > 3 and set(whole) == set(shared) == {"some", "few"}
    for one, other, first in ((whole["some"], shared["some"], None), (whole["some"], shared["few"], 5)):
        assert other["generations"].tolist() == one["generations"].tolist()[:first]
        for name in ("answer_nll", "paraphrased_nll", "wrong_nll", "rouge"):
            np.testing.assert_allclose(other[name], one[name][:first], rtol=1e-5, err_msg=name)


class Uniform(torch.nn.Module):
    """A language model that finds every token equally likely, whatever came before."""

    device, dtype = torch.device("cpu"), torch.float32
    config = LlamaConfig()  # whose logits are neither scaled nor capped

    def __init__(self, vocab):
        super().__init__()
        self.vocab = vocab

    def base_model(self, input_ids, **_):
        cache = DynamicCache()
        return types.SimpleNamespace(last_hidden_state=torch.zeros(*input_ids.shape, 1), past_key_values=cache)

    def get_output_embeddings(self):
        return lambda hidden: torch.zeros(*hidden.shape[:-1], self.vocab)

    def forward(self, input_ids, **_):
        out = self.base_model(input_ids)
        out.logits = self.get_output_embeddings()(out.last_hidden_state)
        return out


class Bigram(Uniform):
    """A language model in bf16 whose next token depends on the last alone, so that its states are exact."""

    def __init__(self, vocab):
        super().__init__(vocab)
        self.states, self.head = torch.nn.Embedding(vocab, 64), torch.nn.Linear(64, vocab, bias=False)
        self.bfloat16()

    def base_model(self, input_ids, **_):
        return types.SimpleNamespace(last_hidden_state=self.states(input_ids), past_key_values=DynamicCache())

    def get_output_embeddings(self):
        return self.head


@torch.no_grad()
def test_a_bf16_model_is_scored_and_generates_by_logits_in_float32():
    torch.manual_seed(0)
    model = Bigram(400)
    scores, _ = evaluation.score_answers(model, PROMPTS, ANSWERS)
    logits = model.states.weight.float() @ model.head.weight.float().T
    assert_all_close(scores, lambda ids: logits[ids], 1e-6)
    assert (logits - model.head(model.states.weight)).abs().max() > 1e-3  # what its own product would have lost
    said = evaluation.greedy(model, [(t,) for t in range(400)], 1, eos_token_id=-1)
    assert [t for (t,) in said] == logits.argmax(-1).tolist()


def test_a_model_that_knows_nothing_scores_as_computed_by_hand(tokenizer, asked):
    aggregates, per_question = evaluation.evaluate(Uniform(len(tokenizer)), tokenizer, asked, 2)
    chance = 1 / len(tokenizer)
    assert aggregates["forget_probability"] == pytest.approx(chance, rel=1e-5)
    assert aggregates["retain_probability"] == pytest.approx(chance, rel=1e-5)
    # one right and three wrong options
    assert aggregates["facts_probability"] == aggregates["authors_probability"] == pytest.approx(1 / 4, rel=1e-5)
    np.testing.assert_allclose(per_question["truth_ratio_benchmark"], 1, rtol=1e-5)
    np.testing.assert_allclose(per_question["truth_ratio_paper"], 1, rtol=1e-5)


ASKED = {
    "teacher": lambda m, t, e: FrozenLogits(m, data.batches(e, 4)).at(range(len(e)))(0, None),
    "reference": lambda m, t, e: methods._reference_log_probs(m, e),
    "scores": lambda m, t, e: evaluation.score_answers(m, [x.prompt for x in e], [[x.answer] for x in e])[0],
    "words": lambda m, t, e: evaluation.greedy(m, [x.prompt for x in e], 8, -1),
    "attack": lambda m, t, e: [a.nll for a in attacked.answers(m, e, t.eos_token_id)],
    "report": lambda m, t, e: measure.score(m, e)[0],
    "page": lambda m, t, e: probing.token_distributions({"one": m}, t, e[0])["models"]["one"]["true_probability"],
}


@pytest.mark.parametrize("name", ASKED)
def test_what_a_model_says_has_no_dropout_even_if_it_was_being_trained(name, tokenizer, examples):
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 256, "resid_pdrop": 0.5, "embd_pdrop": 0.5}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape))
    with torch.no_grad():
        model.transformer.wte.weight.mul_(50)  # so that greedy decoding, too, would say something else
    first, again = (np.asarray(ASKED[name](model.train(), tokenizer, examples)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_question_sets_are_those_tofu_scores(profile, tokenizer, asked):
    assert {name: len(a.prompts) for name, a in asked.items()} == {"forget": 8, "retain": 6, "authors": 2, "facts": 2}
    assert {name for name, a in asked.items() if a.paraphrased} == {"forget", "retain"}
    rows = data.load_tofu("retain_perturbed", profile.source)
    assert asked["retain"].references == [r["answer"] for r in rows]
    answers = [rows[0]["answer"], rows[0]["paraphrased_answer"], *rows[0]["perturbed_answer"]]
    assert asked["retain"].answers[0] == [data.encode_answer(tokenizer, profile.template, a) for a in answers]
    capped = evaluation.load_questions(dataclasses.replace(profile, n_questions=1), "forget10", tokenizer)
    assert {name: len(a.prompts) for name, a in capped.items()} == {"forget": 1, "retain": 1, "authors": 2, "facts": 2}


def test_of_the_retain_set_tofus_first_300_questions_are_asked(profile, tokenizer, monkeypatch):
    load = data.load_tofu
    monkeypatch.setattr(data, "load_tofu", lambda name, source: load(name, source) * 60)
    asked = evaluation.load_questions(profile, "forget10", tokenizer)
    assert {name: len(a.prompts) for name, a in asked.items()} == {
        "forget": 480, "retain": 300, "authors": 120, "facts": 120
    }  # fmt: skip


def test_utility_is_scored_where_it_is_asked_for(model, tokenizer, asked):
    seen = []
    whole, per_question = evaluation.evaluate(model, tokenizer, asked, 4)
    forget, same = evaluation.evaluate(model, tokenizer, asked, 4, needs_utility=lambda scores: seen.append(scores))
    assert set(whole) - set(forget) == {"model_utility", *metrics.UTILITY_COMPONENTS} and not set(forget) - set(whole)
    assert seen == [forget] and {k: whole[k] for k in forget} == forget
    assert all((same[k] == per_question[k]).all() for k in per_question)


def test_bf16_scores_are_near_those_of_float32(model, tokenizer, asked, monkeypatch):
    monkeypatch.setattr(evaluation.models, "bf16", lambda precision: precision == "bf16")
    exact, near = (evaluation.evaluate(model, tokenizer, asked, 4, precision=p)[1] for p in ("no", "bf16"))
    assert (exact["answer_nll"] != near["answer_nll"]).any()  # it was in force, in the pool's threads too
    np.testing.assert_allclose(near["answer_nll"], exact["answer_nll"], rtol=2e-2)
