"""The paper's printed numbers, as typed into `data/paper/`.

Columns ending in `_pct` are per cent; `forget_quality` is a p-value, `perplexity` a perplexity, every other score a
fraction of 1, under the names the records use. The CSVs keep what is printed as text, oddities in a `note` column.
"""

import functools
import io

import pandas as pd

from rklu_lib import data

PAPER = data.EMBEDDED / "paper"
LABELS = ("profile", "set", "method", "example", "field", "text", "id", "where", "quote", "note")


def number(text):
    """The value of a printed number: "0.4046", "1.80e-4", "10^14"."""
    base, _, power = text.partition("^")
    return float(base) ** int(power) if power else float(text)


def resolution(text):
    """One unit in the last printed digit: "0.876" -> 1e-3, "1.80e-4" -> 1e-6. Raises ValueError on "10^14"."""
    float(text)
    mantissa, _, exponent = text.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def reported(name, printed=False):
    """One table of the paper ("table1" .. "table9"), "statements", or "published", as a DataFrame.

    "published" is not the paper's: forget quality and model utility after the last epoch, as OpenUnlearning prints them
    (its docs/repro.md, whose name of the method is in `note`) of the models that some profiles load.

    printed: keep scores as the text that is printed, instead of floats. Raises ValueError on a name that has no file.
    """
    path = PAPER / f"{name}.csv"
    if not path.is_file():
        raise ValueError(f"no table {name!r}; there are {', '.join(sorted(p.stem for p in PAPER.glob('*.csv')))}")
    return _table(path.read_text(encoding="utf-8"), printed).copy()


@functools.lru_cache(maxsize=64)  # by the text: the claims ask for the same few tables a thousand times
def _table(text, printed):
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    scores = [] if printed else [c for c in table if c not in LABELS]
    return table.assign(**{c: table[c].map(number) for c in scores})
