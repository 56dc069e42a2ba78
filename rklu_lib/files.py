"""Write files whole or not at all, and describe a damaged file in one line."""

import contextlib
import glob
import json
import os
import shutil
import uuid
from pathlib import Path

from safetensors import SafetensorError

MEND = "copy it again, or remove its folder if rklu made it: the same command makes it again"


class DamagedError(ValueError):
    """A file that is incomplete or damaged. The message names the file and the fix."""


def why(error):
    """Describe briefly what is wrong with a JSON text. `json.loads` does not only raise JSONDecodeError."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, {f'line {error.lineno}, ' if error.lineno > 1 else ''}column {error.colno}"
    return first_line(error).split(";")[0]


def first_line(error):
    """Return the first line of an error's message, or the error's type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_json(path, fix=MEND):
    """Return the content of a JSON file. Raises DamagedError, which names the fix, if the file is not valid JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not JSON ({why(error)}); {fix}") from None


@contextlib.contextmanager
def damaged(what, errors=Exception, fix=MEND):
    """Turn `errors` raised inside the `with` block into DamagedError: `what` is damaged, why, and the fix."""
    try:
        yield
    except errors as error:
        if "out of memory" in str(error):  # of the GPU: the file itself may be intact
            raise
        raise DamagedError(f"{what} ({first_line(error)}); {fix}") from error


def nearest(path):
    """Return the path if it exists, else the nearest existing folder above the path."""
    return next(p for p in (Path(path).resolve(), *Path(path).resolve().parents) if p.exists())


def clear(path):
    """Remove the temporary folders that killed processes left when they wrote `atomic_directory(path)`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}-{'[0-9a-f]' * 32}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def atomic_directory(path):
    """`with atomic_directory(path) as tmp`: the folder tmp replaces `path` at the end, unless an error was raised."""
    path = Path(path)
    tmp = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    tmp.mkdir(parents=True)  # not mkdtemp: only the owner may read its folders, but a store may be shared
    try:
        try:
            yield tmp
        except (SafetensorError, RuntimeError) as error:  # what writers of weights raise if the disk is full
            raise OSError(f"{path} cannot be written ({first_line(error)}); is the disk full?") from error
        for file in filter(Path.is_file, tmp.rglob("*")):  # safetensors lets only the owner read its files
            file.chmod(tmp.stat().st_mode & 0o666)
        old = tmp.with_name(tmp.name + "-old")
        if path.exists():
            path.rename(old)
        os.replace(tmp, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
