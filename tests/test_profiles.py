"""Every scale loads; a name, field or value that cannot be meant is refused at once, with the fix."""

import dataclasses
import math

import pytest

from rklu_lib import profiles

NAMES = tuple(profiles._values())
GOOD = dict(name="x", source="fictional", template="{question} {answer}", model="some/model")


def test_the_scales_are_the_documented_ones():
    loaded = ("llama-2-7b-tofu", "llama-2-7b-tofu-log", "llama-3.2-1b", "llama-3.2-1b-log")
    mini = ("mini", "mini-search", "mini-half", "mini-double", "mini-phi")
    assert NAMES == ("smoke", *mini, "smollm2", "phi-1.5", "llama2-7b", *loaded)


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_loads(name):
    p = profiles.profile(name)
    assert p.name == name
    for field in dataclasses.fields(p):
        if field.type in (int, float, str):
            allowed = (int, float) if field.type is float else field.type
            assert isinstance(getattr(p, field.name), allowed), field.name
    assert (p.model is None) == (p.hidden_size > 0)


def test_the_papers_settings_are_the_defaults():
    p = profiles.Profile(**GOOD)
    stated = dict(alpha=8.0, batch_size=32, finetune_epochs=5, augment_epochs=10, unlearn_epochs=10, weight_decay=0.01)
    stated |= dict(npo_beta=0.1, dpo_beta=0.1, retain_weight=1.0, ta_scale=2.5)
    assert {k: getattr(p, k) for k in stated} == stated
    for name in ("phi-1.5", "llama2-7b"):
        full = profiles.profile(name)
        assert {k: getattr(full, k) for k in stated} == stated
    assert profiles.profile("llama2-7b").unlearn_lr == 1e-5 and profiles.profile("phi-1.5").unlearn_lr == 2e-5


def test_mini_phi_is_mini_in_another_architecture():
    mini, phi = profiles.profile("mini"), profiles.profile("mini-phi")
    assert phi == dataclasses.replace(mini, name="mini-phi", architecture="phi", passages=phi.passages)


@pytest.mark.parametrize(("name", "factor"), [("mini-half", 0.5), ("mini-double", 2)])
def test_the_other_widths_are_mini_with_rates_that_go_with_one_over_the_width(name, factor):
    mini, other = profiles.profile("mini"), profiles.profile(name)
    widths = ("hidden_size", "intermediate_size", "n_heads")
    rates = ("finetune_lr", "augment_lr", "unlearn_lr")
    changed = {k: int(getattr(mini, k) * factor) for k in widths} | {k: getattr(mini, k) / factor for k in rates}
    changed["family_lr"] = {family: rate / factor for family, rate in mini.family_lr.items()}
    assert other == dataclasses.replace(mini, name=name, **changed)


def test_both_architectures_unlearn_the_novel_in_as_many_updates_by_the_same_rules():
    mini, phi = (profiles.profile(name, "passages") for name in ("mini", "mini-phi"))
    shape = {"hidden_size", "intermediate_size", "n_heads", "n_chunks", "batch_size", "novel_repeats", "passages"}
    shape |= {f"finetune_{k}" for k in ("batch_size", "epochs", "lr")} | {"name", "architecture"}
    differ = {f.name for f in dataclasses.fields(mini) if getattr(mini, f.name) != getattr(phi, f.name)}
    assert differ == shape
    # an epoch of the paper: 400 chunks, 32 at a time
    assert [math.ceil(p.n_chunks / p.batch_size) for p in (mini, phi)] == [13, 13]


def test_changes_apply_and_the_profile_stays():
    assert profiles.profile("mini", alpha=4).alpha == 4
    assert profiles.profile("mini").alpha == 8
    with pytest.raises(dataclasses.FrozenInstanceError):
        profiles.profile("mini").alpha = 4


def test_a_family_may_have_its_own_learning_rate():
    p = profiles.Profile(**GOOD, unlearn_lr=1e-3, family_lr={"GA": 1e-4})
    assert (p.learning_rate("GA"), p.learning_rate("RKLU")) == (1e-4, 1e-3)


def test_unknown_names_and_fields_are_answered_with_what_there_is():
    with pytest.raises(ValueError, match="no profile 'medium'; there are smoke, mini, mini-search, mini-half"):
        profiles.profile("medium")
    with pytest.raises(ValueError, match="profile mini: no field aplha; there are alpha, architecture"):
        profiles.profile("mini", aplha=4)


WRONG = [
    ({"alpha": "8"}, "alpha must be a number, not '8'"),
    ({"unlearn_lr": "1e-5"}, r"unlearn_lr must be a number, not '1e-5' \(YAML wants 1.0e-5\)"),
    ({"weight_decay": None}, "weight_decay must be a number, not None"),
    ({"unlearn_epochs": 0}, "unlearn_epochs must be > 0, not 0"),
    ({"batch_size": -1}, "batch_size must be > 0, not -1"),
    ({"micro_batch_size": 0}, "micro_batch_size must be > 0, not 0"),
    ({"finetune_lr": 0.0}, "finetune_lr must be > 0"),
    ({"template": "{question}"}, r"template must hold \{question\} once and end in \{answer\}"),
    ({"template": "{question} {question} {answer}"}, r"template must hold \{question\} once"),
    ({"template": "{question} {answer}</s>"}, r"template must hold .* and end in \{answer\}"),
    ({"architecture": "gpt2"}, "architecture must be llama or phi, not 'gpt2'"),
    ({"model": None}, "without a `model`, hidden_size, n_layers, n_heads and vocab_size are needed"),
]
# What would otherwise fail after hours of training, or never.
LATE = [
    {"unlearn_epochs": "10"},
    {"batch_size": 2.5},
    {"n_questions": "300"},
    {"dtype": "float33"},
    {"alpha": -8.0},
    {"alpha": float("nan")},
    {"npo_beta": 0.0},
    {"family_lr": {"GA": "3e-4"}},
    {"family_lr": {"GA": -3e-4}},
    {"template": None},
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_value_that_cannot_be_meant_is_named(changes, message):
    with pytest.raises(ValueError, match=f"profile x: {message}"):
        profiles.Profile(**GOOD | changes)


@pytest.mark.parametrize("changes", LATE, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items()))
def test_every_value_is_checked_at_birth(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        profiles.Profile(**GOOD | changes)
