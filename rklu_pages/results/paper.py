"""The paper's printed numbers, as typed into `data/paper/`.

Columns have the names that the records use. Columns ending in `_pct` are in per cent, `forget_quality` is a p-value,
and every other score but `perplexity` is a fraction of 1. The CSVs keep numbers as printed; `note` explains oddities.
"""

import functools
import io

import pandas as pd

from rklu_lib import data

PAPER = data.EMBEDDED / "paper"
LABELS = ("profile", "set", "method", "example", "field", "text", "id", "where", "quote", "note")


def number(text):
    """Return the value of a printed number such as "0.4046", "1.80e-4" or "10^14"."""
    base, _, power = text.partition("^")
    return float(base) ** int(power) if power else float(text)


def resolution(text):
    """Return one unit of the last printed digit: "0.876" -> 1e-3, "1.80e-4" -> 1e-6. Raises ValueError on "10^14"."""
    float(text)
    mantissa, _, exponent = text.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def reported(name, printed=False):
    """Return one table of the paper ("table1" .. "table9"), "statements" or "published", as a DataFrame.

    "published" is not from the paper. It has the forget quality and model utility after the last epoch that
    OpenUnlearning prints for the models that some profiles load (docs/repro.md, whose method names are in `note`).

    printed: keep scores as printed text instead of floats. Raises ValueError for a name that has no file."""
    path = PAPER / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"no table {name!r}; there are {', '.join(sorted(p.stem for p in PAPER.glob('*.csv')))}")
    return _table(path.read_text(encoding="utf-8"), printed).copy()


@functools.lru_cache(maxsize=64)  # by the text: the claims read the same few tables a thousand times
def _table(text, printed):
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    scores = [] if printed else [c for c in table if c not in LABELS]
    return table.assign(**{c: table[c].map(number) for c in scores})
