"""Check what this machine has and lacks for each scale. Nothing is loaded, downloaded or written."""

import importlib.util
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from rich.text import Text

from rklu_lib import data, files, hub, models, profiles, records
from rklu_lib.commands import planning

EXTRAS = {"datasets": "hub", "lm_eval": "text", "sacrebleu": "text", "gguf": "gguf", "peft": "adapters"}
EXTRAS |= {"distributed": "cluster", "papermill": "book", "jupyter_book": "book", "pytest": "test"}
CARDS = ("llama-3.2-1b", "phi-1.5", "llama-2-7b-tofu", "llama2-7b")  # scales that need a GPU
SCALES = ("smoke", "mini", "smollm2", *CARDS)


@dataclass(frozen=True)
class Check:
    """One check: what was found; fine: yes, no, or None (missing, but optional); the fix; the scales that need it."""

    what: str
    found: str
    fine: bool | None = True
    fix: str = ""
    scales: tuple[str, ...] = ()


def checks():
    """Return all `Check`s of this machine, in the order in which a new user needs them."""
    return [*_packages(), _places(), _device(), *_room(), _tofu(), *_models(), *_texts(), _browser()]


def _packages():
    for package, extra in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        yield Check(f"package {package}", "installed" if there else "missing", there or None,
                    f"pip install 'rklu-lib[{extra}]'")  # fmt: skip


def _places():
    shut = [str(p) for p in (records.RECORDS, records.RUNS) if not os.access(files.nearest(p), os.W_OK)]
    fix = "name folders that you may write to in RKLU_RECORDS and RKLU_RUNS"
    return Check("records and runs", f"not writable: {', '.join(shut)}" if shut else "writable", not shut, fix, SCALES)


def _device():
    if torch.cuda.is_available():
        return Check("device", records.machine())
    fast = (
        "multiplies in bf16" if models.bf16("bf16") else "no bf16 instructions: float32 instead, several times slower"
    )
    return Check("device", f"{records.machine()}; {fast}", models.bf16("bf16") or None, "a GPU, or a newer processor")


def _room():
    there = torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else 0
    free = shutil.disk_usage(files.nearest(records.RUNS)).free / 1e9
    for scale in SCALES[2:]:
        card, disk = (math.ceil(needed / 1e9) for needed in planning.needs(scale))
        if scale in CARDS:
            found, fix = f"{there:.0f} GB" if there else "no GPU", f"a card of {card} GB or more, or several"
            yield Check(f"card for {scale}", found, there >= card, fix, (scale,))
        fix = f"{disk} GB for checkpoints and downloads: name other places in RKLU_RUNS and HF_HOME"
        yield Check(f"disk for {scale}", f"{free:.0f} GB free", free >= disk, fix, (scale,))


def _tofu():
    source = data.resolve_source("locuslab/TOFU")
    fix, scales = "export RKLU_TOFU=path/to/folder, in the hub's layout", tuple(s for s in SCALES if s != "smoke")
    if source == "locuslab/TOFU":
        return Check(
            "TOFU", "on the hub" if hub.reachable() else "the hub cannot be reached", hub.reachable(), fix, scales
        )
    needed = [name for name in data.FIELDS if name not in data.HOLDOUT_SPLIT.values()]  # only one page needs these
    lacking = [f"{name}.json" for name in needed if not (Path(source) / f"{name}.json").is_file()]
    found = f"{source} lacks {', '.join(lacking)}" if lacking else f"a folder, {source}"
    return Check("TOFU", found, not lacking, fix, scales)


def _models():
    for scale in SCALES:
        if not (name := profiles.profile(scale).original or profiles.profile(scale).model):
            continue
        recipe = ", or `rklu fetch smollm2`" if scale == "smollm2" else ""
        if (models.folder() / name / "config.json").is_file():
            found = f"in {models.folder()}"
        elif hub.cached(name):
            found = "in the hub's cache"
        else:
            found = "on the hub" if hub.reachable() else "nowhere, and the hub cannot be reached"
        fix = f"put it into {models.folder()} in the hub's layout{recipe}"
        yield Check(f"model {name}", found, not found.startswith("nowhere"), fix, (scale,))


def _texts():
    for name, what in (("RKLU_NOVEL", "a novel to forget"), ("RKLU_WIKITEXT", "WikiText-2")):
        path = os.environ.get(name)
        fine = bool(path) and Path(path).exists()
        found = "not named" if not path else path if fine else f"{path} does not exist"
        yield Check(f"{what}, for Tables 2, 6, 7", found, fine or None, f"export {name}=path")


def _browser():
    there = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return Check("browser, for tests of the pages", there or "none", bool(there) or None, "install chromium")


def lacking(found, scale):
    """Return the `Check`s in `found` that keep a scale from running."""
    return [check for check in found if check.fine is False and scale in check.scales]


def readiness(found):
    """Yield for each scale a line that says that it is ready, or what it lacks."""
    for scale in SCALES:
        missing = ", ".join(check.what for check in lacking(found, scale))
        yield f"{scale}: {'lacks ' + missing if missing else 'ready'}"


def show(found):
    """Return the `Check`s as a table for a terminal."""
    table = Table(box=None)
    for heading in ("", "what", "found", "to mend it"):
        table.add_column(heading, overflow="fold")
    for check in found:
        mark = {True: Text("yes", "green"), False: Text("no", "red"), None: Text("–", "yellow")}[check.fine]
        table.add_row(mark, check.what, Text(check.found), Text("" if check.fine else check.fix))
    return table
