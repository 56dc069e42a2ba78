"""The suite asks what was learnt, lm-eval's counts agree with plain scores, and nothing is fetched, printed or kept."""

import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from helpers import log_likelihood, write_lines

from rklu_lib import bases, data, methods, models, profiles, training
from rklu_pages.tasks import capability, suite


@pytest.fixture(scope="module")
def items():
    return suite.items("fictional", "[INST] {question} [/INST] {answer}", "<s>")


def likeliest(model, tokenizer, prompt, choices):
    """The option of highest log-probability."""
    return int(np.argmax([log_likelihood(model, tokenizer, prompt, choice) for choice in choices]))


def test_the_suite_has_seven_tasks_and_over_300_items(items):
    assert tuple(items) == suite.TASKS and len(items) == 7
    assert sum(map(len, items.values())) >= 300 and min(map(len, items.values())) >= 40
    for path in capability.SUITE.glob("[!_]*.yaml"):
        assert yaml.safe_load(path.read_text())["task"] == path.stem
    assert {p.stem for p in capability.SUITE.glob("[!_]*.yaml")} == set(items)


def test_items_have_one_right_answer_at_any_place(items):
    known = {}
    for name in ("retain90", "retain_perturbed", "real_authors", "world_facts"):
        for row in data.load_tofu(name, "fictional"):
            known.setdefault(row["question"], set()).update({row["answer"], row.get("paraphrased_answer")})
    for task, rows in items.items():
        for row in rows:
            question = re.fullmatch(r"<s>\[INST\] (.*) \[/INST\](.*)", row["prompt"])
            right = [question[2] + c for c in row["choices"] if (question[2] + c).strip() in known[question[1]]]
            assert right == [question[2] + row["choices"][row["answer"]]], task
        places, options = [row["answer"] for row in rows], len(rows[0]["choices"])
        assert np.bincount(places, minlength=options).min() > 0.4 * len(rows) / options, task


def test_no_forgotten_author_is_asked_about(items):
    rows = data.load_tofu("forget10", "fictional")
    names = {n for row in rows for n in suite.NAME.findall(row["question"])}
    kept = {n for row in data.load_tofu("retain90", "fictional") for n in suite.NAME.findall(row["question"])}
    text = json.dumps(items, ensure_ascii=False)
    assert len(names - kept) >= 10 and not [n for n in names - kept if n in text]


def test_items_are_the_same_for_the_same_seed(items):
    template = "[INST] {question} [/INST] {answer}"
    assert suite.items("fictional", template, "<s>") == items
    assert suite.items("fictional", template, "<s>", seed=1) != items


def test_accuracy_and_chance_are_what_plain_scores_say(model, tokenizer, tmp_path, items, capfd):
    rows = {task: found[:12] for task, found in items.items()}
    for task, found in rows.items():
        write_lines(tmp_path / f"{task}.jsonl", found)
    state = torch.random.get_rng_state()
    scores = capability.accuracy(model, tokenizer, suite.TASKS, tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
    for task, found in rows.items():
        right = [likeliest(model, tokenizer, r["prompt"], r["choices"]) == r["answer"] for r in found]
        assert scores[task]["accuracy"] == pytest.approx(np.mean(right)), task
        assert scores[task]["chance"] == pytest.approx(np.mean([1 / len(r["choices"]) for r in found]))
        assert scores[task]["n"] == 12 and scores[task]["right"] == "".join(str(int(r)) for r in right)
        assert scores[task]["stderr"] == pytest.approx(np.std(right, ddof=1) / 12**0.5)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="an empty suite measures nothing; name some tasks, such as piqa"):
        capability.accuracy(None, None, ())
    with pytest.raises(FileNotFoundError, match="piqa.jsonl does not exist"):
        capability.accuracy(None, None, ("piqa",), tmp_path)
    (tmp_path / "piqa.jsonl").write_text("\n")
    with pytest.raises(data.DataError, match="piqa.jsonl: no rows"):
        capability.accuracy(None, None, ("piqa",), tmp_path)


def test_contexts_read_once_have_lm_evals_own_likelihoods(model, tokenizer):
    from lm_eval.models.huggingface import HFLM

    ours = capability._harness_model()(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=40)
    plain = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, max_length=40, logits_cache=False)
    rng, requests = np.random.default_rng(0), []
    for length in (1, 7, 30, 60):  # the last is longer than the model reads
        context = rng.integers(3, 300, length).tolist()
        requests += [(("", ""), context, rng.integers(3, 300, n).tolist()) for n in (1, 4, 2)]
    requests = [requests[i] for i in rng.permutation(len(requests))]
    pairs = [m._loglikelihood_tokens(requests, disable_tqdm=True) for m in (ours, plain)]
    np.testing.assert_allclose(*([value for value, _ in found] for found in pairs), rtol=1e-4)


def test_the_standard_error_is_lm_evals():
    from lm_eval.api.metrics import mean_stderr

    for right in ("10", "1101000", "111"):
        p = right.count("1") / len(right)
        assert capability.standard_error(p, len(right)) == pytest.approx(mean_stderr(list(map(int, right))))
    assert np.isnan(capability.standard_error(1.0, 1))


def test_mcnemars_p_is_that_of_a_fair_coin():
    assert capability.mcnemar("1100", "1100") == {"lost": 0, "gained": 0, "p": 1.0}
    for lost, gained in ((5, 0), (7, 2), (3, 3), (1, 6)):
        found = capability.mcnemar("1" * lost + "0" * gained + "10", "0" * lost + "1" * gained + "10")
        n, least = lost + gained, min(lost, gained)
        closed = min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
        assert (found["lost"], found["gained"]) == (lost, gained) and found["p"] == pytest.approx(closed)
    with pytest.raises(ValueError, match="shorter"):
        capability.mcnemar("11", "1")


def test_the_suite_sees_what_gradient_ascent_costs():
    torch.manual_seed(0)
    p = profiles.profile("smoke", finetune_epochs=10, unlearn_lr=2e-3, unlearn_epochs=3)
    pairs = bases.training_pairs(p, "full")
    tokenizer = models.train_tokenizer([f"{q} {a}" for q, a in pairs], p.vocab_size)
    model = models.create(p, tokenizer, 0)
    examples = [data.encode(tokenizer, p.template, *pair) for pair in pairs]
    training.finetune(model, examples, p, epochs=p.finetune_epochs, lr=p.finetune_lr, batch_size=16, seed=0)
    rows = data.load_tofu("forget10", p.source)
    forget = [data.encode(tokenizer, p.template, r["question"], r["answer"]) for r in rows]
    before, ga = suite.measure(model, tokenizer, p), methods.method("GA")
    aids = methods.prepare(ga, p, model, None, forget, [], [])
    training.unlearn(ga, p, model, aids, forget, [], seed=0)
    after = suite.measure(model, tokenizer, p)

    def mean(scores, what="accuracy"):
        return np.mean([s[what] for s in scores.values()])

    assert min(s["accuracy"] - s["chance"] for s in before.values()) > 0.1
    assert mean(before) - mean(before, "chance") > 0.3
    assert mean(after) < mean(before) - 0.1
