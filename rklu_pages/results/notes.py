"""What pages keep of models beside their records, and where: JSON with its settings, made once and read again."""

from rklu_lib import data, files, records

MEND = "restore it, or remove it: the page makes it anew"


def place():
    """Where the records are, as a page says it: from the repository's root where they are in it."""
    inside = records.RECORDS.is_relative_to(data.ROOT)
    return (records.RECORDS.relative_to(data.ROOT) if inside else records.RECORDS).as_posix()


def read(path):
    """What is kept at a path, {} where nothing is. Raises DamagedError, with the fix, where it is not whole."""
    return files.read_json(path, MEND) if path.exists() else {}


def write(path, content, indent=1):
    """Keep `content`, a dict with its "settings", and by which code and machine it was made. Returns all of it."""
    content = content | {"code": records.code_version(), "machine": records.machine()}
    records.write_json(path, content, indent)
    return content
