"""Notes: further measurements of a model that pages keep beside its record, as JSON with the settings behind them."""

from rklu_lib import data, files, records

MEND = "restore it, or remove it: the page makes it again"


def place():
    """Return the folder of the records as text, relative to the repository's root if the folder lies in it."""
    inside = records.RECORDS.is_relative_to(data.ROOT)
    return (records.RECORDS.relative_to(data.ROOT) if inside else records.RECORDS).as_posix()


def read(path):
    """Read the note at a path; {} where there is no file. Raises DamagedError, with the fix, for a damaged file."""
    return files.read_json(path, MEND) if path.exists() else {}


def write(path, content, indent=1):
    """Write `content`, a dict with "settings", together with code version and machine. Return all that was written."""
    content = content | {"code": records.code_version(), "machine": records.machine()}
    records.write_json(path, content, indent)
    return content
