"""Eq. 1 elementwise, its properties, and the frozen teacher against one that is recomputed."""

import copy

import numpy as np
import pytest
import torch
from helpers import answer_logits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rklu_lib import data
from rklu_lib.teacher import FrozenLogits, FrozenTeacher, TeacherModel, teacher_logits

LOGIT = st.floats(-100, 100)
ALPHA = st.floats(0, 50)


@st.composite
def pairs(draw):
    shape = draw(hnp.array_shapes(max_dims=3, max_side=5))
    return tuple(torch.from_numpy(draw(hnp.arrays(np.float64, shape, elements=LOGIT))) for _ in range(2))


@given(pairs(), ALPHA)
def test_teacher_is_eq_1_element_by_element(pair, alpha):
    original, augmented = pair
    expected = [o - alpha * max(0.0, a - o) for o, a in zip(*(t.flatten().tolist() for t in pair), strict=True)]
    torch.testing.assert_close(
        teacher_logits(original, augmented, alpha).flatten(), torch.tensor(expected, dtype=torch.float64)
    )


@given(pairs())
def test_strength_zero_gives_the_original(pair):
    assert torch.equal(teacher_logits(*pair, 0), pair[0])


@given(pairs(), ALPHA)
def test_only_logits_that_rose_are_lowered(pair, alpha):
    original, augmented = pair
    teacher, rose = teacher_logits(original, augmented, alpha), augmented > original
    assert torch.equal(teacher[~rose], original[~rose])
    assert (teacher <= original).all()
    if alpha > 1e-3:
        clearly = augmented > original + 1e-3
        assert (teacher[clearly] < original[clearly]).all()


@given(pairs(), ALPHA, ALPHA)
def test_a_stronger_teacher_is_nowhere_higher(pair, alpha, other):
    weak, strong = sorted((alpha, other))
    assert (teacher_logits(*pair, strong) <= teacher_logits(*pair, weak)).all()


def test_a_constant_added_to_the_augmented_logits_changes_the_teacher():
    # the book's "gauge of Eq. 1": the same augmented distribution, another teacher
    original, augmented = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])
    assert teacher_logits(original, augmented, 8).tolist() == [-7, 2]
    assert teacher_logits(original, augmented + 1, 8).tolist() == [-15, -6]


@pytest.mark.parametrize("gauge", ["centred", "normalised"])
@given(pairs(), ALPHA, LOGIT, LOGIT)
def test_in_a_fixed_gauge_constants_are_not_seen(gauge, pair, alpha, c, d):
    original, augmented = pair
    teacher = teacher_logits(original, augmented, alpha, gauge)
    shifted = teacher_logits(original + c, augmented + d, alpha, gauge)
    torch.testing.assert_close(shifted, teacher, rtol=1e-6, atol=1e-6)


@given(pairs(), ALPHA)
def test_normalised_logits_lower_what_became_more_probable(pair, alpha):
    before, after = (t.softmax(-1).clamp_min(1e-300).log() for t in pair)
    expected = before - alpha * (after - before).clamp_min(0)
    torch.testing.assert_close(teacher_logits(*pair, alpha, "normalised"), expected, rtol=1e-6, atol=1e-6)


@given(pairs(), ALPHA)
def test_centred_logits_lower_what_rose_more_than_the_mean(pair, alpha):
    original, augmented = (t.numpy() - t.numpy().mean(axis=-1, keepdims=True) for t in pair)
    expected = torch.from_numpy(original - alpha * np.maximum(augmented - original, 0))
    torch.testing.assert_close(teacher_logits(*pair, alpha, "centred"), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("alpha", [-1e-9, -8, float("nan")])
def test_a_negative_strength_raises(alpha):
    with pytest.raises(ValueError, match="alpha must be >= 0"):
        teacher_logits(torch.zeros(3), torch.zeros(3), alpha)


def test_two_vocabularies_raise():
    with pytest.raises(ValueError, match=r"two shapes: original \(2, 3\), augmented \(2, 1\)"):
        teacher_logits(torch.zeros(2, 3), torch.zeros(2, 1), 8)


@pytest.fixture(scope="module", params=["llama", "phi"])
def both(request, tiny_model):
    """(original, augmented) of one architecture."""
    return tiny_model(request.param), tiny_model(request.param, seed=1)


@torch.no_grad()
def plain_logits(model, examples, index):
    """Logits that predict the answers of some examples, end to end, one example and one whole forward at a time."""
    return torch.cat([answer_logits(model, examples[i]) for i in index])


@torch.no_grad()
def test_teacher_model_is_the_teacher_of_its_two_models(both, examples):
    teacher = TeacherModel(*both, 8.0).eval()
    ids = torch.tensor([examples[0].prompt + examples[0].answer])
    expected = teacher_logits(*(m(input_ids=ids).logits for m in both), 8.0)
    torch.testing.assert_close(teacher(input_ids=ids).logits, expected)
    # and it can be queried step by step, as generation does
    head = teacher(input_ids=ids[:, :-2], use_cache=True)
    tail = teacher(input_ids=ids[:, -2:], past_key_values=head.past_key_values, use_cache=True)
    torch.testing.assert_close(tail.logits, expected[:, -2:], rtol=1e-4, atol=1e-4)


def test_frozen_logits_equal_recomputed_ones(both, examples):
    frozen = FrozenLogits(both[0], data.batches(examples, 3))
    for index in ([0], [5, 2, 2, 7]):
        torch.testing.assert_close(
            frozen.at(index)(0, None), plain_logits(both[0], examples, index), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(KeyError):
        frozen.at([len(examples)])


def test_frozen_logits_outlive_their_model(both, examples):
    model = copy.deepcopy(both[0])
    frozen = FrozenLogits(model, data.batches(examples, 3))
    before = frozen.at([1, 3])(0, None)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(frozen.at([1, 3])(0, None), before)


def test_frozen_teacher_equals_a_recomputed_one(both, examples):
    batches = data.batches(examples, 4)
    teacher = FrozenTeacher(*(FrozenLogits(m, batches) for m in both), alpha=8.0)
    index = [6, 0, 3]
    expected = teacher_logits(*(plain_logits(m.eval(), examples, index).double() for m in both), 8.0)
    torch.testing.assert_close(teacher.at(index)(0, None).double(), expected, rtol=1e-4, atol=1e-3)
    assert teacher.at(index)(0, None).dtype == torch.float32 and not teacher.at(index)(0, None).requires_grad


@torch.no_grad()
def test_the_gauge_reaches_both_forms_of_the_teacher(both, examples):
    frozen = FrozenTeacher(*(FrozenLogits(m, data.batches(examples, 4)) for m in both), 8.0, "normalised")
    logits = [plain_logits(m.eval(), examples, [2]) for m in both]
    expected = teacher_logits(*logits, 8.0, "normalised")
    torch.testing.assert_close(frozen.at([2])(0, None), expected, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(expected, teacher_logits(*logits, 8.0), atol=0.1)
    ids = torch.tensor([examples[2].prompt + examples[2].answer])
    said = TeacherModel(*both, 8.0, "normalised").eval()(input_ids=ids).logits
    torch.testing.assert_close(said[0, len(examples[2].prompt) - 1 : -1], expected, rtol=1e-4, atol=1e-3)


def test_what_frozen_models_remember_does_not_depend_on_the_batches(both, examples):
    one, many = (FrozenLogits(both[0], data.batches(examples, size)) for size in (1, len(examples)))
    index = range(len(examples))
    torch.testing.assert_close(one.at(index)(0, None), many.at(index)(0, None), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_logits_of_a_bf16_model_come_from_a_float32_product(tiny_model, examples):
    pair = [tiny_model(seed=seed).bfloat16() for seed in (0, 1)]
    batch = data.collate(examples, [3])
    states = [m.base_model(input_ids=batch.input_ids).last_hidden_state[0].float() for m in pair]
    expected = [h @ m.get_output_embeddings().weight.float().T for h, m in zip(states, pair, strict=True)]
    frozen, kept = [FrozenLogits(m, [batch]) for m in pair], batch.mask[0]
    for one, logits in zip(frozen, expected, strict=True):
        assert torch.equal(one.at([3])(0, None), logits[kept])
    assert torch.equal(FrozenTeacher(*frozen, 8.0).at([3])(0, None), teacher_logits(*expected, 8.0)[kept])
    assert torch.equal(TeacherModel(*pair, 8.0)(input_ids=batch.input_ids).logits[0], teacher_logits(*expected, 8.0))
