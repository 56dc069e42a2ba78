"""Files that are there whole or not at all, and one line about those that are not what they were."""

import contextlib
import glob
import json
import os
import shutil
import uuid
from pathlib import Path

from safetensors import SafetensorError

MEND = "copy it again, or remove its folder if rklu made it: the same command makes it anew"


class DamagedError(ValueError):
    """A file that was written whole and no longer is; the message names it and the fix."""


def why(error):
    """What is wrong with a JSON text, briefly: `json.loads` also raises what is no JSONDecodeError."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, {f'line {error.lineno}, ' if error.lineno > 1 else ''}column {error.colno}"
    return first_line(error).split(";")[0]


def first_line(error):
    """An error in one line: those of other libraries run over several, or say nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_json(path, fix=MEND):
    """What a JSON file of ours, or of a checkpoint, holds. Raises DamagedError, with the fix, where it is not whole."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not JSON ({why(error)}); {fix}") from None


@contextlib.contextmanager
def damaged(what, errors=Exception, fix=MEND):
    """What is raised inside, by readers that raise what they like, becomes DamagedError: what, why, and the fix."""
    try:
        yield
    except errors as error:
        if "out of memory" in str(error):  # the card's: the file may be as whole as it was
            raise
        raise DamagedError(f"{what} ({first_line(error)}); {fix}") from error


def nearest(path):
    """The path, or the nearest folder above it that exists."""
    return next(p for p in (Path(path).resolve(), *Path(path).resolve().parents) if p.exists())


def clear(path):
    """Remove what killed processes left of an `atomic_directory`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}-{'[0-9a-f]' * 32}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def atomic_directory(path):
    """`with atomic_directory(path) as tmp`: what is written under tmp replaces `path`, unless something raised."""
    path = Path(path)
    tmp = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    tmp.mkdir(parents=True)  # not mkdtemp, whose folders only their owner may read: a store may be shared
    try:
        try:
            yield tmp
        except (SafetensorError, RuntimeError) as error:  # how the writers of weights say that the disk is full
            raise OSError(f"{path} cannot be written ({first_line(error)}); is the disk full?") from error
        for file in filter(Path.is_file, tmp.rglob("*")):  # safetensors lets only their owner read its files
            file.chmod(tmp.stat().st_mode & 0o666)
        old = tmp.with_name(tmp.name + "-old")
        if path.exists():
            path.rename(old)
        os.replace(tmp, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
