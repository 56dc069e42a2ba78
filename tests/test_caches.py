"""What prompts open with alike is run once, and nothing else changes: against one forward pass of each whole prompt."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import transformers

from rklu_lib import caches, evaluation, models
from rklu_lib.teacher import TeacherModel

OPENING = tuple(range(40, 52))  # twelve tokens, as a system prompt
PROMPTS = [(*OPENING, 5, 6, 7), (*OPENING, 8), (*OPENING, *range(60, 90)), OPENING, (*OPENING, 5, 6, 7)]


@pytest.fixture
def counted(monkeypatch):
    """A function (model) -> a list that grows by the shape of what each forward pass of the model is given."""

    def watch(model):
        shapes, forward = [], model.base_model.forward
        monkeypatch.setattr(
            model.base_model, "forward", lambda *a, **k: shapes.append(tuple(k["input_ids"].shape)) or forward(*a, **k)
        )
        return shapes

    return watch


@pytest.fixture
def windowed():
    """A small model whose attention sees the last sixteen tokens alone."""
    torch.manual_seed(0)
    shape = dict(vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    config = transformers.MistralConfig(**shape, num_key_value_heads=2, sliding_window=16)
    return transformers.MistralForCausalLM(config).eval()


def last(model, prompt):
    return model.base_model(input_ids=torch.tensor([prompt])).last_hidden_state[0, -1]


def step(model, cache, mask, ids):
    """(last hidden states, mask) after one token more of each row."""
    mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    where = {"attention_mask": mask, "position_ids": mask.sum(1, keepdim=True) - 1}
    out = model.base_model(input_ids=torch.as_tensor(ids), past_key_values=cache, use_cache=True, **where)
    return out.last_hidden_state[:, -1], mask


@torch.no_grad()
def test_a_common_opening_is_run_once_and_the_states_are_those_of_whole_prompts(model, counted):
    expected, shapes = torch.stack([last(model, p) for p in PROMPTS]), counted(model)
    hidden, cache, mask = caches.read(model, PROMPTS)
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
    assert shapes == [(1, 11), (5, 31)]  # one prompt is the opening alone: its last token is left to be run
    assert mask.sum(1).tolist() == list(map(len, PROMPTS)) and mask.shape == (5, cache.get_seq_length())


@torch.no_grad()
@pytest.mark.parametrize("prompts", [[PROMPTS[0]], [(1, *p) for p in ((2, 3), (2, 4))], [(7,), (*OPENING, 5)], [(7,)]])
def test_what_has_no_opening_worth_it_is_run_whole(model, counted, prompts):
    expected, shapes = torch.stack([last(model, p) for p in prompts]), counted(model)
    torch.testing.assert_close(caches.read(model, prompts)[0], expected, rtol=1e-5, atol=1e-5)
    assert len(shapes) == 1


@torch.no_grad()
def test_a_window_sees_what_it_saw(windowed):
    expected = torch.stack([last(windowed, p) for p in PROMPTS])
    torch.testing.assert_close(caches.read(windowed, PROMPTS)[0], expected, rtol=1e-5, atol=1e-5)


def test_scores_and_answers_after_a_common_opening_are_those_of_each_prompt_alone(tiny_model):
    pair = tiny_model(), tiny_model(seed=1)
    answers = [[(70, 71, 2), (72, 2), (72, 73, 2)], [(9, 2)], [(3, 4, 5, 2), (2,)], [(70, 2)], [(70, 71, 2)]]
    for model in (pair[0], TeacherModel(*pair, 2.0)):
        together, agreed = evaluation.score_answers(model, PROMPTS, answers)
        for i, (prompt, mine) in enumerate(zip(PROMPTS, answers, strict=True)):
            alone, n = evaluation.score_answers(model, [prompt], [mine])
            np.testing.assert_allclose(together[i], alone[0], rtol=1e-5)
            assert agreed[i] == n[0]
        one_by_one = [evaluation.greedy(model, [p], 6, 2)[0] for p in PROMPTS]
        assert evaluation.greedy(model, PROMPTS, 6, 2) == one_by_one


def test_gradients_go_through_an_opening_that_was_run_once(tiny_model):
    once, whole = tiny_model(), copy.deepcopy(tiny_model())
    ids = torch.tensor([(*OPENING, 5, 6, 7, 8), (*OPENING, 9, 9, 9, 3)])
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, -3:] = True
    for model, openings in ((once, True), (whole, False)):
        scored = models.ScoredLogits(model)
        scored.openings = openings
        scored(ids, mask).logsumexp(-1).sum().backward()
        assert scored.openings == openings
    for mine, theirs in zip(once.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("room", [1, 4, 100])
def test_tokens_that_come_one_by_one_are_seen_as_in_one_pass(model, monkeypatch, room):
    monkeypatch.setattr(caches, "ROOM", room)
    tail = torch.arange(5 * 9).reshape(5, 9) + 3
    expected = [last(model, (*p, *t)) for p, t in zip(PROMPTS, tail.tolist(), strict=True)]
    hidden, cache, mask = caches.read(model, PROMPTS)
    cache, places = caches.roomy(cache), []
    for ids in tail.split(1, dim=1):
        hidden, mask = step(model, cache, mask, ids)
        places.append(cache.layers[0].keys.data_ptr())
    torch.testing.assert_close(hidden, torch.stack(expected), rtol=1e-5, atol=1e-5)
    copies = len(list(itertools.groupby(places)))
    assert copies == math.ceil(9 / (room + 1))  # each time the room is full, and at no other time


@torch.no_grad()
def test_rows_chosen_from_a_cache_with_room_do_not_write_into_each_other(model):
    hidden, cache, mask = caches.read(model, PROMPTS[:2])
    mask = step(model, caches.roomy(cache), mask, [[3], [4]])[1]
    one, other = caches.rows(cache, torch.tensor([0])), caches.rows(cache, torch.tensor([0]))
    for chosen, token in ((one, 7), (other, 8)):
        step(model, chosen, mask[:1], [[token]])
    mask = step(model, cache, mask, [[9], [9]])[1]
    for chosen, token in ((one, 7), (other, 8)):
        said = step(model, chosen, mask[:1], [[5]])[0][0]
        torch.testing.assert_close(said, last(model, (*PROMPTS[0], 3, token, 5)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_window_is_left_to_slide(windowed):
    cache = caches.read(windowed, PROMPTS)[1]
    kinds = list(map(type, cache.layers))
    assert list(map(type, caches.roomy(cache).layers)) == kinds
