"""Tables on a page: caption, formatted cells, and a link that saves the numbers as CSV."""

import html
import re
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width
LONG = 60  # cells with more characters make a table's cells wrap


@dataclass(frozen=True)
class Table:
    """A table as a notebook shows it: HTML in a page, plain text in a terminal."""

    markup: str
    plain: str

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return self.plain


def csv(table, name):
    """Return a link that saves a table as <name>.csv; the file is inside the link, so no server is needed.

    Numbers are rounded to ten figures: a float's last figures depend on the processor, and tests compare the pages.
    The file has one line of heads: heads over heads are joined ("forget quality, paper"), unnamed labels are a "name".
    """
    if table.columns.nlevels > 1:
        table = table.set_axis([", ".join(filter(None, map(str, heads))) for heads in table.columns], axis=1)
    if _has_names(table):
        table = table.rename_axis(index=["name" if n is None else n for n in table.index.names], columns=None)
    table = table.map(_saved).rename(index=_saved, columns=_saved).rename_axis(index=_saved)
    rows = table.to_csv(index=_has_names(table))
    link = f'<a class="rk-csv" download="{name}.csv" href="data:text/csv;charset=utf-8,{quote(rows)}">'
    return Table(f"{link}Download {name}.csv</a>", f"{name}.csv: {len(table)} rows")


def _saved(value):
    """Return a cell for the CSV. Text that a spreadsheet would take for a formula gets a leading apostrophe."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, str):  # pandas does not quote a lone carriage return: it would begin a row
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    formula = isinstance(value, str) and len(value) > 1 and value.startswith(FORMULA)
    return f"'{value}" if formula and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value) else value


def rounded(table, digits):
    """Return a table as `text` for `show`: numbers to `digits` decimals, and p-values, which are columns named "forget
    quality" or "p, ...", to two significant figures, or three where two would hide on which side of 0.05 they are."""
    small = [c for c in table.columns if c == "forget quality" or str(c).startswith("p, ")]
    figures = lambda p: f"{p:.{3 if f'{p:.2g}' == '0.05' else 2}g}"  # noqa: E731
    return table.round(digits).assign(**{c: table[c].map(figures, na_action="ignore") for c in small})


def show(table, caption, name, text=None, escape=True):
    """Return a `Table` with a caption and a link that saves all its numbers, to ten figures, as <name>.csv.

    text: a DataFrame of the formatted cells (default: the table itself). escape: False if these cells are HTML.
    Row labels are left out if they are only numbers and have no name. If a cell is longer than `LONG`, the cells wrap
    and every asterisk is removed, since quoted sentences mark emphasis by asterisks.
    """
    text = (table if text is None else text).map(_said).rename(columns=lambda name: str(name).replace("_", " "))
    labels, wraps = _has_names(text), text.map(lambda value: len(str(value)) > LONG).any(axis=None)
    if labels and text.index.nlevels == text.columns.nlevels == 1:  # index name in the corner: one row of heads
        text = text.rename_axis(index=None, columns=text.index.name)
    with pd.option_context("display.max_colwidth", None):
        classes = ["rk-sentences"] if wraps else None
        markup = text.to_html(border=0, index=labels, escape=escape, na_rep="–", classes=classes)
        plain = (text if escape else text.map(_unmarked)).to_string(index=labels, na_rep="–")
    markup = markup.replace("*", "") if wraps else markup
    start = markup.index(">") + 1
    markup = f"{markup[:start]}<caption>{html.escape(caption)}</caption>{markup[start:]}"
    return Table(f"{markup}\n{csv(table, name).markup}", f"{caption}\n\n{plain}")


def _unmarked(value):
    """Return an HTML cell as plain text."""
    return html.unescape(re.sub("<[^>]+>", "", value)) if isinstance(value, str) else value


def _said(value):
    """Return "yes" or "no" for a boolean, any other value as it is."""
    return ("yes" if value else "no") if isinstance(value, bool | np.bool_) else value


def _has_names(table):
    """Return whether a table's rows have labels, rather than just numbers."""
    return table.index.names != [None] or not pd.api.types.is_integer_dtype(table.index)
