"""The name of a run (`RunSpec`) and its stored result (`Record`), from which every number of the book comes.

A record is a JSON file of aggregates per epoch and, beside it, an .npz of scores per question. Each is written whole.
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from rklu_lib import __version__, data, files, parallel, profiles
from rklu_lib.methods import AUGMENTED, METHODS, method

RECORDS = Path(os.environ.get("RKLU_RECORDS", data.ROOT / "data" / "records"))
RUNS = Path(os.environ.get("RKLU_RUNS", data.ROOT / "runs"))
MEND = "restore it, or remove both files of the record: the same command makes them again"
BASES = ("original", "oracle", "augmented")
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "scipy", "rouge-score")

_AUGMENTING = {"augment_epochs", "augment_lr", "batch_size", "lora_rank"}
_OF_FAMILY = {"NPO": "npo_beta", "DPO": "dpo_beta", "TA": "ta_scale", "SimNPO": "simnpo_beta", "UNDIAL": "undial_beta"}
_OF_FAMILY |= {"WGA": "wga_beta", "JS": "js_beta", "RMU": "rmu_steering"}
_UNLEARNING = _AUGMENTING | {"unlearn_epochs", "unlearn_lr", "family_lr", "alpha", "retain_weight"}
_UNLEARNING |= {*_OF_FAMILY.values(), "micro_batch_size", "gauge", "judge_every"}
_PASSAGES = {"text", "prose", "n_chunks", "chunk_tokens", "prompt_tokens", "n_segments", "novel_repeats"}
_FINETUNING = {f.name for f in dataclasses.fields(profiles.Profile)}
_FINETUNING -= _UNLEARNING | _PASSAGES | {"name", "capability", "n_items", "passages"}
# How a base model that is loaded was made elsewhere: no settings of our runs.
_ELSEWHERE = {"model", "architecture", "hidden_size", "intermediate_size", "n_layers", "n_heads", "vocab_size"}
_ELSEWHERE |= {"max_positions"} | {f for f in _FINETUNING if f.startswith("finetune_")}
# Fields younger than some records: left out of `settings` at their default, so that those records still match.
_LATER = {"gradient_checkpointing", "judge_every", "n_retain", "precision", "utility"}
_LATER |= {"original", "oracle", "oracle_log", "lora_rank"}
SPLITS = (*data.ORACLE_SPLIT, data.NOVEL)


@dataclass(frozen=True, order=True)
class RunSpec:
    """One run, a cell of a table: profile, forget split, method or base model, seed, overrides of profile fields.

    The split `novel` belongs to the task "passages" (copyrighted text): its profile has the changes under `passages`.
    Raises ValueError for an unknown name, or for a run that cannot exist, such as a retain term on the novel."""

    profile: str
    split: str
    method: str
    seed: int = 0
    overrides: tuple[tuple[str, object], ...] = ()

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"no forget split {self.split!r}; there are {', '.join(SPLITS)}")
        if self.method not in BASES and method(self.method).retain and self.split == data.NOVEL:
            without = method(self.method).family
            raise ValueError(f"{self.method} needs a retain set, and a novel has none; {without} does without")
        profiles.check_seed(self.seed)
        if self.pretrained_novel and self.method == "oracle":  # unknown profiles and fields are refused, too
            raise ValueError(f"profile {self.profile}: no oracle for a novel that {self.values.model} may have read")

    @property
    def values(self):
        """The `profiles.Profile` with this spec's overrides."""
        return profiles.profile(self.profile, self.task, **dict(self.overrides))

    @property
    def task(self):
        """The task that the split belongs to: "tofu" or "passages"."""
        return "passages" if self.split == data.NOVEL else "tofu"

    @property
    def label(self):
        """Method and overrides as one folder name, such as `RKLU` or `RKLU,alpha=4`."""
        return ",".join([self.method, *(f"{k}={v}" for k, v in self.overrides)]).replace("/", "_")

    @property
    def record_path(self):
        """Path of the record: data/records/<profile>/<task>/<split>/<label>/seed<k>.json (data/records: RECORDS)."""
        return RECORDS / self.profile / self.task / self.split / self.label / f"seed{self.seed}.json"

    @property
    def checkpoint_path(self):
        """Folder of the trained model, below RUNS. All of TOFU's splits share one original model."""
        if self.trained != self:
            return self.trained.checkpoint_path
        split = () if self.method == "original" and self.task == "tofu" else (self.split,)
        return RUNS.joinpath(self.profile, *split, self.label, f"seed{self.seed}")

    @property
    def loaded(self):
        """Hub id or directory of an original or oracle that is loaded as it is; None for a model trained here."""
        pattern = {"original": self.values.original, "oracle": self.values.oracle}.get(self.method)
        return pattern and pattern.format(retain=data.ORACLE_SPLIT.get(self.split))

    @property
    def log(self):
        """The log from which an oracle's record is made, see `logs`; None if a model is scored instead."""
        pattern = self.values.oracle_log if self.method == "oracle" else None
        return pattern and pattern.format(retain=data.ORACLE_SPLIT[self.split])

    @property
    def model_path(self):
        """Hub id or directory of the model: `loaded` if there is one, else `checkpoint_path`."""
        return self.loaded or self.checkpoint_path

    @property
    def trained(self):
        """The spec whose training makes this model: self, but the novel's pretrained original is TOFU's original."""
        if self.method != "original" or not self.pretrained_novel:
            return self
        overrides = tuple((k, v) for k, v in self.overrides if k in _FINETUNING)
        return RunSpec(self.profile, "forget10", "original", self.seed, overrides)

    @property
    def pretrained_novel(self):
        """Whether this is about a novel that a pretrained model may have read elsewhere. Then there is no oracle."""
        return self.values.model is not None and self.task == "passages"

    @property
    def against(self):
        """Spec of the oracle (retain model) that this run is compared with; None for an oracle, or if there is none."""
        return None if self.method == "oracle" or self.pretrained_novel else self.base("oracle")

    @property
    def settings(self):
        """Dict of the profile fields that decide this run. A record with other values belongs to another run."""
        p = self.values
        fields = _FINETUNING - (_ELSEWHERE if p.original else set())
        fields |= _PASSAGES if self.task == "passages" else set()
        if self.method not in ("original", "oracle"):
            fields |= _AUGMENTING if self.uses(AUGMENTED) else set()
        if self.method in METHODS:
            m = METHODS[self.method]
            fields |= {"batch_size", "judge_every", "lora_rank", "unlearn_epochs"} if m.forget else set()
            if m.family in ("RKLU", "FKLU", "JS", "teacher"):
                fields |= {"alpha"} | ({"gauge"} if p.gauge != "raw" else set())  # raw (Eq. 1 as printed) is left out
            fields |= {"retain_weight"} if m.retain else set()
            fields |= {_OF_FAMILY[m.family]} if m.family in _OF_FAMILY else set()
        defaults = {f.name: f.default for f in dataclasses.fields(p) if f.name in _LATER}
        kept = {name: getattr(p, name) for name in sorted(fields)}
        kept = {name: value for name, value in kept.items() if name not in defaults or value != defaults[name]}
        if self.method in METHODS and METHODS[self.method].forget:
            kept["unlearn_lr"] = p.learning_rate(METHODS[self.method].family)
        return kept

    def uses(self, need):
        """Whether the method needs `need`, such as `methods.AUGMENTED`. KeyError for original and oracle."""
        return self.method == "augmented" or need in METHODS[self.method].needs

    def base(self, name):
        """The spec of the base model ("original", "oracle" or "augmented") of this run's profile, split and seed."""
        kept = _FINETUNING | _PASSAGES
        kept |= _AUGMENTING if name == "augmented" else set()
        overrides = tuple((k, v) for k, v in self.overrides if k in kept)
        return RunSpec(self.profile, self.split, name, self.seed, overrides)


@dataclass(frozen=True)
class Record:
    """A finished run. epochs: a dict of aggregates per scored epoch. questions: {score: (epochs, n)}, in that order."""

    spec: RunSpec
    content: dict
    questions: dict

    @property
    def epochs(self):
        return self.content["epochs"]

    def reported(self, rule="peak"):
        """Return the dict of the reported epoch: "peak", the first of highest forget quality (the paper's rule, which
        needs the oracle); "product", of highest forget quality times model utility, if that was scored (see
        `profiles.Profile.utility`); or "last". Raises KeyError for all but "last" of an oracle or of the novel, and
        ValueError for another rule."""
        keys = {
            "peak": lambda e: e["forget_quality_benchmark"],
            "product": lambda e: e["forget_quality_benchmark"] * e.get("model_utility", 0),
            "last": lambda e: e["epoch"],
        }
        if rule not in keys:
            raise ValueError(f"no reporting rule {rule!r}; there are {', '.join(keys)}")
        return max(self.epochs, key=keys[rule])


def leads(scores, before):
    """Return whether an epoch exceeds all in `before` in forget quality, by some form of Eq. 5: it may be the peak."""
    return any(all(scores[k] > e[k] for e in before) for k in scores if k.startswith("forget_quality"))


def load(spec):
    """Return the `Record` of a spec; None if there is none, or if its settings differ. May raise DamagedError."""
    return read(spec.record_path, spec) if spec.record_path.exists() else None


def read(path, spec):
    """Return the `Record` at a path; None if its settings differ. Raises DamagedError if JSON or .npz is not whole."""
    content = files.read_json(path, MEND)
    if not isinstance(content, dict) or not {"settings", "epochs", "data"} <= content.keys():
        raise files.DamagedError(f"{path}: no record (it needs settings, data, epochs); {MEND}")
    if content["settings"] != spec.settings:
        return None
    try:
        with path.with_suffix(".npz").open("rb") as file, np.load(file) as arrays:
            return Record(spec, content, dict(arrays))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        why = "it does not exist" if isinstance(error, FileNotFoundError) else f"not whole: {error}"
        raise files.DamagedError(f"{path.with_suffix('.npz')}, a record's scores: {why}; {MEND}") from None


def write(spec, history, questions, seconds, threads=None):
    """Write the record of a finished run; with several processes only the first writes. history: one dict of
    aggregates per epoch. questions: {score: (epochs, n)}. seconds: {stage: seconds}. threads: thread counts, sorted."""
    if not parallel.main():
        return
    content = {
        "spec": {"profile": spec.profile, "split": spec.split, "method": spec.method, "seed": spec.seed}
        | ({"overrides": dict(spec.overrides)} if spec.overrides else {}),
        "settings": spec.settings,
        "data": data.describe_source(spec.values.source)
        | (data.describe_text(spec.values.text) if spec.task == "passages" else {}),
        "code": code_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": machine(),
        "processes": parallel.processes(),
        "threads": threads,  # of the run and of the runs it depends on; None: not known
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "epochs": [{k: v if isinstance(v, int) else float(f"{v:.6g}") for k, v in e.items()} for e in history],
    }
    spec.record_path.parent.mkdir(parents=True, exist_ok=True)
    for left in spec.record_path.parent.glob(f".{spec.record_path.stem}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=spec.record_path.parent, prefix=f".{spec.record_path.stem}-") as tmp:
        np.savez_compressed(Path(tmp) / "q.npz", **{k: np.asarray(v, np.float32) for k, v in questions.items()})
        os.replace(Path(tmp) / "q.npz", spec.record_path.with_suffix(".npz"))
    write_json(spec.record_path, content)  # last: if this file exists, the record is whole


def writable():
    """Raise OSError, with the fix, if records or runs cannot be written. Call this before computing anything."""
    for name, folder in (("RKLU_RECORDS", RECORDS), ("RKLU_RUNS", RUNS)) if parallel.main() else ():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=folder).cleanup()
        except OSError as error:
            fix = f"({error.strerror}); name a folder that can in {name}"
            raise OSError(f"{folder} cannot be written to {fix}") from None


def code_version():
    """Return {"version": of the package, "commit": of git, "changed": whether rklu_lib has uncommitted edits}.
    Without git or its history, the commit is `RKLU_COMMIT` from the environment, or None."""

    def git(*args):
        if not (data.CHECKOUT / ".git").exists() or not shutil.which("git"):  # not the user's own repository
            return ""
        how = {"cwd": data.CHECKOUT, "capture_output": True, "text": True, "check": False}
        return subprocess.run(["git", *args], **how).stdout.strip()

    return {
        "version": __version__,
        "commit": git("rev-parse", "--short=12", "HEAD") or os.environ.get("RKLU_COMMIT"),
        "changed": bool(git("status", "--porcelain", "--", "rklu_lib")),
    }


def machine():
    """Return the name of the GPU, or of the processor with its number of cores, as records hold it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def write_json(path, content, indent=1):
    """Write a JSON file atomically. indent: spaces per level; None: everything on one line, without spaces."""
    separators = (",", ":") if indent is None else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as tmp:
        text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False)
        (Path(tmp) / path.name).write_text(text + "\n", encoding="utf-8")
        os.replace(Path(tmp) / path.name, path)
