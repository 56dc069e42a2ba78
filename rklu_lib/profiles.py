"""Scales: what is trained, on what data, and how. `Profile` names the settings; profiles.yaml holds their values."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
_CHOICES = {
    "architecture": ("llama", "phi"),
    "dtype": ("float32", "bfloat16"),
    "finetune_precision": ("no", "bf16"),
    "precision": ("no", "bf16"),
    "utility": ("every", "reported"),
    "capability": ("embedded", "paper"),
    "gauge": ("raw", "centred", "normalised"),
}
# 0 is allowed for sizes, which a named `model` brings itself, and for alpha and weights, as a control. A 0 in any other
# number would train nothing or divide by 0.
_MAY_BE_ZERO = {"hidden_size", "intermediate_size", "n_layers", "n_heads", "vocab_size"}
_MAY_BE_ZERO |= {"lora_rank", "alpha", "retain_weight", "ta_scale", "weight_decay", "js_beta", "wga_beta"}


@dataclass(frozen=True)
class Profile:
    """All settings of a run but its split, method and seed. Learning rates are the peaks of `training.schedule`."""

    name: str
    source: str  # of TOFU: `fictional`, a folder in the hub's layout, or a hub id
    template: str  # prompt with {question}, then {answer}; or `chat`: the tokenizer's chat template
    model: str | None = None  # hub id or directory of the pretrained model; None: trained from scratch
    original: str | None = None  # hub id or directory of an original model that is loaded, not trained
    oracle: str | None = None  # the same for the oracles, with {retain} for retain90, retain95 or retain99
    oracle_log: str | None = None  # the oracles' logs, used instead of oracles, with {retain}, see `logs`
    architecture: str = "llama"  # llama or phi, if trained from scratch
    hidden_size: int = 0
    intermediate_size: int = 0
    n_layers: int = 0
    n_heads: int = 0
    vocab_size: int = 0
    max_positions: int = 512
    dtype: str = "float32"
    batch_size: int = 32
    micro_batch_size: int | None = None  # None: the whole batch at once
    lora_rank: int = 0  # augment and unlearn with low-rank adapters, merged afterwards; 0: train all parameters
    gradient_checkpointing: bool = False  # keep only each layer's input, and run the layer again in the backward pass
    finetune_batch_size: int = 32
    finetune_epochs: int = 5
    finetune_lr: float = 1e-5
    finetune_precision: str = "no"  # original and oracle: no, or bf16 under autocast (weights stay in `dtype`)
    augment_epochs: int = 10
    augment_lr: float = 1e-5
    unlearn_epochs: int = 10
    unlearn_lr: float = 1e-5
    family_lr: dict = field(default_factory=dict)  # method family -> its own peak learning rate
    alpha: float = 8.0
    gauge: str = "raw"  # of the logits in Eq. 1: raw (as printed), centred or normalised
    retain_weight: float = 1.0
    npo_beta: float = 0.1
    dpo_beta: float = 0.1
    simnpo_beta: float = 4.5
    undial_beta: float = 10.0  # what is subtracted from the true token's logit
    wga_beta: float = 1.0
    rmu_steering: float = 2.0  # norm of the vector that early hidden states are trained towards
    js_beta: float = 0.5  # 0: forward KL, 1: reverse KL
    ta_scale: float = 2.5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    precision: str = "no"  # of augmenting, unlearning and scoring: no, or bf16 under autocast
    max_new_tokens: int = 128
    judge_every: int = 1  # score every n-th epoch of unlearning, and the last
    utility: str = "every"  # which scored epochs get a model utility: every, or reported (first, new best, last)
    n_retain: int | None = None  # of retain90, keep only the first n rows, and leave the others out of TOFU; None: all
    n_questions: int | None = None  # score only the first n of the forget and retain sets; None: all (retain: 300)
    capability: str = "embedded"  # tasks of Table 1: embedded (`data/capability`), or paper (its seven, from the hub)
    n_items: int | None = None  # ask only the first n items of each of these tasks; None: all
    passages: dict = field(default_factory=dict)  # values for the task `passages` (copyrighted text), of any field
    text: str = "fictional"  # the novel: `fictional`, `own` (the file that RKLU_NOVEL names), or a path
    prose: str = "fictional"  # general text: `fictional`, a folder with valid.txt and test.txt, or a hub id
    n_chunks: int = 400
    chunk_tokens: int = 512
    prompt_tokens: int = 200  # of a chunk; the model is to continue with the rest
    n_segments: int = 200  # chunks of general text to measure perplexity on; models from scratch read as many others
    novel_repeats: int = 1  # how often the original from scratch reads the novel per epoch

    def __post_init__(self):
        for f in dataclasses.fields(self):
            self._check(f.name, f.type, getattr(self, f.name))
        for family, rate in self.family_lr.items():
            self._check(f"family_lr[{family}]", float, rate)
        fields = [self.template.count(field) for field in ("{question}", "{answer}")]
        if self.template != "chat" and (fields != [1, 1] or not self.template.endswith("{answer}")):
            why = "template must hold {question} once and end in {answer}, its only one, or be `chat`"
            self._refuse(f"{why}: {self.template!r}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                self._refuse(f"{name} must be {' or '.join(allowed)}, not {getattr(self, name)!r}")
        if self.model is None and 0 in (self.hidden_size, self.n_layers, self.n_heads, self.vocab_size):
            self._refuse("without a `model`, hidden_size, n_layers, n_heads and vocab_size are needed")
        others = [name for name in (self.oracle, self.oracle_log) if name is not None]
        if len(others) != bool(self.original) or (self.original and not self.model):
            why = "with `original`, name the `model` that it was made from and either `oracle` or `oracle_log`"
            self._refuse(f"{why}; without it, neither of these two")
        if any(name.count("{retain}") != 1 for name in others):
            self._refuse(f"`oracle` or `oracle_log` must hold {{retain}} once: {others[0]!r}")
        if self.js_beta > 1:
            self._refuse(f"js_beta must be in [0, 1], not {self.js_beta}")
        if self.prompt_tokens >= self.chunk_tokens:
            self._refuse(f"prompt_tokens ({self.prompt_tokens}) must be fewer than chunk_tokens ({self.chunk_tokens})")

    def _check(self, name, kind, value):
        """Raise ValueError for a value of the wrong type, or a number that would break a run later."""
        base = next((t for t in (bool, int, float, str, dict) if t in (kind, *getattr(kind, "__args__", ()))), kind)
        if value is None and kind != base:
            return
        accepted = (int, float) if base is float else base
        if not isinstance(value, accepted) or (isinstance(value, bool) and base is not bool):
            hint = " (YAML wants 1.0e-5)" if base is float and isinstance(value, str) else ""
            self._refuse(f"{name} must be {_KINDS[base]}, not {value!r}{hint}")
        if base in (int, float):
            positive = name not in _MAY_BE_ZERO
            if not math.isfinite(value) or value < 0 or (positive and value == 0):
                self._refuse(f"{name} must be {'> 0' if positive else '>= 0'}, not {value}")

    def _refuse(self, why):
        raise ValueError(f"profile {self.name}: {why}")

    def learning_rate(self, family):
        """Return the peak learning rate of unlearning of a method family."""
        return self.family_lr.get(family, self.unlearn_lr)


def check_seed(seed):
    """Raise ValueError for a seed that one of the random generators would not take."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to {2**32 - 1}, not {seed!r}")


@cache
def _values():
    return yaml.safe_load(Path(__file__).with_name("profiles.yaml").read_text(encoding="utf-8"))


def names():
    """Return the names of all profiles."""
    return tuple(_values())


def profile(name, task="tofu", **changes):
    """Return the profile called `name` for a task ("tofu" or "passages"), with `changes` to its fields.

    An `unlearn_lr` among the changes applies to every method family, unless `family_lr` is changed as well.
    Raises ValueError for an unknown profile or field, or a value that is not allowed."""
    if name not in _values():
        raise ValueError(f"no profile {name!r}; there are {', '.join(_values())}")
    known = {f.name for f in dataclasses.fields(Profile)}
    values = {"name": name} | _values()[name]
    values |= values.get("passages", {}) if task == "passages" else {}
    values |= ({"family_lr": {}} if "unlearn_lr" in changes else {}) | changes
    if unknown := set(values) - known:
        raise ValueError(f"profile {name}: no field {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return Profile(**values)
