"""Scales: what is trained, on what, and how. The values live in profiles.yaml; a frozen dataclass names them."""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Profile:
    """All that decides a run beside its split, method and seed. Learning rates are peaks of `training.schedule`."""

    name: str
    source: str  # `fictional`, a folder in the hub's layout, or a hub id
    template: str  # the prompt, with {question}, then {answer}
    model: str | None = None  # hub id or directory of the base model; None: created and trained from scratch
    architecture: str = "llama"  # llama or phi, when created
    hidden_size: int = 0
    intermediate_size: int = 0
    n_layers: int = 0
    n_heads: int = 0
    vocab_size: int = 0
    max_positions: int = 512
    dtype: str = "float32"
    batch_size: int = 32
    micro_batch_size: int | None = None  # None: the whole batch at once
    finetune_batch_size: int = 32
    finetune_epochs: int = 5
    finetune_lr: float = 1e-5
    finetune_precision: str = "no"  # accelerate's mixed_precision of base models: no or bf16 (weights stay in `dtype`)
    augment_epochs: int = 10
    augment_lr: float = 1e-5
    unlearn_epochs: int = 10
    unlearn_lr: float = 1e-5
    family_lr: dict = field(default_factory=dict)  # method family -> its own peak learning rate
    alpha: float = 8.0
    retain_weight: float = 1.0
    npo_beta: float = 0.1
    dpo_beta: float = 0.1
    ta_scale: float = 2.5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_new_tokens: int = 128
    n_questions: int | None = (
        None  # score only the first so many of the forget and retain sets; None: all (retain: 300)
    )

    def __post_init__(self):
        if self.template.count("{question}") != 1 or not self.template.endswith("{answer}"):
            raise ValueError(
                f"profile {self.name}: template must hold {{question}} once and end in {{answer}}: {self.template!r}"
            )
        if self.architecture not in ("llama", "phi"):
            raise ValueError(f"profile {self.name}: architecture must be llama or phi, not {self.architecture!r}")
        if self.finetune_precision not in ("no", "bf16"):
            raise ValueError(
                f'profile {self.name}: finetune_precision must be "no" or bf16, not {self.finetune_precision!r} '
                "(YAML reads a bare no as false: quote it)"
            )
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type is float and not isinstance(value, int | float):
                raise ValueError(f"profile {self.name}: {f.name} must be a number, not {value!r} (YAML wants 1.0e-5)")
            if f.name.endswith(("epochs", "batch_size", "_lr")) and isinstance(value, int | float) and value <= 0:
                raise ValueError(f"profile {self.name}: {f.name} must be > 0, not {value}")
        if self.model is None and 0 in (self.hidden_size, self.n_layers, self.n_heads, self.vocab_size):
            raise ValueError(
                f"profile {self.name}: without a `model`, hidden_size, n_layers, n_heads and vocab_size are needed"
            )

    def learning_rate(self, family):
        """The unlearning peak learning rate of a method family."""
        return self.family_lr.get(family, self.unlearn_lr)


@cache
def _values():
    return yaml.safe_load(Path(__file__).with_name("profiles.yaml").read_text(encoding="utf-8"))


def names():
    """The profiles there are."""
    return tuple(_values())


def profile(name, **changes):
    """The profile called `name`, with `changes` to its fields. Raises ValueError for an unknown profile or field."""
    if name not in _values():
        raise ValueError(f"no profile {name!r}; there are {', '.join(names())}")
    known = {f.name for f in dataclasses.fields(Profile)}
    values = {"name": name} | _values()[name] | changes
    if unknown := set(values) - known:
        raise ValueError(
            f"profile {name}: no field {', '.join(sorted(unknown))}; fields are {', '.join(sorted(known))}"
        )
    return Profile(**values)
