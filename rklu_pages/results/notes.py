"""What pages keep of models beside their records: JSON with the settings it belongs to, made once and read again."""

from rklu_lib import files, records

MEND = "restore it, or remove it: the page makes it anew"


def read(path):
    """What is kept at a path, {} where nothing is. Raises DamagedError, with the fix, where it is not whole."""
    return files.read_json(path, MEND) if path.exists() else {}


def write(path, content, indent=1):
    """Keep `content`, a dict with its "settings", and by which code and machine it was made. Returns all of it."""
    content = content | {"code": records.code_version(), "machine": records.machine()}
    records.write_json(path, content, indent)
    return content
