"""Sphinx roles for numbers in prose: each names its source, and the build fails if the source says otherwise.

    RKLU has p = {recorded}`0.63 <smollm2/tofu/forget05/RKLU forget_quality>`
    (the paper prints {printed}`0.79 <table8 forget05 RKLU forget_quality>`), a KS distance of
    {shown}`0.075 <figure3_equivalence | smollm2 | forget05 | RKLU | KS distance>` to the oracle.

The page shows the number; its value at full precision and its source appear when one points at it. The number is typed
and not filled in, because the sentence around it says what it means: if a record changes, somebody must read it again.
"""

import csv
import functools
import io
import json
import re
from urllib.parse import unquote

import numpy as np
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import ReferenceRole

from rklu_lib import data, records
from rklu_pages.results import comparison, paper

RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def agrees(text, value):
    """Return whether a value rounds to the number in `text`, such as "0.63", "28,000", "9 × 10⁻⁸", "10⁻¹²" or "46 %".
    Raises ValueError if `text` is no number."""
    number, percent = re.subn(r"\s*%$", "", text)
    number = re.sub(r"^(?:(.+) × )?10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)$", lambda m: f"{m[1] or 1}e{m[2].translate(RAISED)}", number)
    number = number.replace(",", "").replace("−", "-")
    unit = paper.resolution(number)
    return abs(float(number) - (100 if percent else 1) * value) <= unit * (0.5 + 1e-9)


def recorded(target):
    """Return (value, source in words, files that it is read from) of "<path> <field>".

    path: in data/records, or one that begins with benchmarks/. A file; or a run's folder, whose file is seed0.json; a *
    stands for several seeds, whose mean is taken. field: a score at the reported epoch, at the last one (`field@last`)
    or at a given one (`field@3`); or a path of keys (`rounding/4-bit`). Raises OSError, KeyError or ValueError for what
    does not exist."""
    path, field = target.rsplit(maxsplit=1)
    field, _, epoch = field.partition("@")
    file = path if path.endswith(".json") else f"{path}/seed0.json"
    file = file if file.startswith("benchmarks/") else f"data/records/{file}"
    if not (found := sorted(data.CHECKOUT.glob(file))):
        raise FileNotFoundError(f"there is no {file}")
    contents = [json.loads(p.read_text(encoding="utf-8")) for p in found]
    of_run = "epochs" in contents[0] and "/" not in field
    values = [_score(c, field, epoch) if of_run else _inside(c, field) for c in contents]
    when = f", mean of {len(found)} seeds" if len(found) > 1 else ""
    when += (f", epoch {epoch}" if epoch.isdecimal() else f", {epoch or 'reported'} epoch") if of_run else ""
    return float(np.mean(values)), f"{field.replace('_', ' ')}{when} ({file})", found


def _inside(content, path):
    for key in path.split("/"):
        content = content[int(key) if isinstance(content, list) else key]
    return content


def _score(content, field, epoch):
    record = records.Record(None, content, {})
    if epoch.isdecimal():
        (scores,) = [e for e in record.epochs if e["epoch"] == int(epoch)]
    else:
        scores = record.reported(epoch or comparison.rule_of(record))
    return scores["forget_quality_benchmark" if field == "forget_quality" else field]


def printed(target):
    """Return (value, source in words, files) of "<table of the paper> <key> ... <column>", such as
    "table8 forget05 RKLU model_utility". Raises ValueError unless one row has these keys, KeyError for no column."""
    name, *keys, column = target.split()
    table = paper.reported(name)
    for key in keys:
        table = table[(table == key).any(axis=1)]
    source = f"{column.replace('_', ' ')} of {' '.join(keys)} (the paper's {name.replace('table', 'Table ')})"
    return float(_one(table[column].tolist(), target)), source, [paper.PAPER / f"{name}.csv"]


def _one(found, target):
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows fit {target}")
    return found[0]


@functools.cache
def _tables():
    """Return {name: (notebook, CSV text)} of all tables on the pages, as `tables.csv` put them into the outputs."""
    link = re.compile(r'download=\\"(\w+)\.csv\\" href=\\"data:text/csv;charset=utf-8,([^"\\]+)')
    pages = sorted((data.CHECKOUT / "notebooks").glob("*.ipynb"))
    return {m[1]: (page, unquote(m[2])) for page in pages for m in link.finditer(page.read_text(encoding="utf-8"))}


def shown(target):
    """Return (value, source in words, files) of "<table of a page> | <key> | ... | <column>".

    The table goes by the name of its CSV, a column with several heads by these heads in a row ("forget quality RKLU"),
    with or without the commas between them. Keys stand as far to the left as they can: they are names before numbers.
    Raises KeyError for what does not exist, ValueError unless one row has these keys."""
    name, *keys, column = (part.strip() for part in target.split("|"))
    page, text = _tables()[name]
    heads, *rows = csv.reader(io.StringIO(text))
    columns = [head.replace(",", "") for head in heads]
    found = [(max(map(row.index, keys), default=0), row) for row in rows if set(keys) <= set(row)]
    row = _one([row for at, row in found if at == min(found)[0]], target)
    if column.replace(",", "") not in columns:
        raise KeyError(f"{name} has the columns {'; '.join(columns)}")
    source = f"{column} of {' '.join(keys)} (table {name} of {page.stem})"
    return float(row[columns.index(column.replace(",", ""))]), source, [page]


class Sourced(ReferenceRole):
    """A role whose target is read by `find`. A page is built anew when a file changes that its numbers come from."""

    def __init__(self, find):
        super().__init__()
        self.find = find

    def run(self):
        try:
            value, source, files = self.find(self.target)
            wrong = "" if agrees(self.title, value) else f"it is {value:.6g}: {source}"
        except (OSError, KeyError, IndexError, ValueError) as error:
            value, source, files, wrong = np.nan, "", [], f"{type(error).__name__}: {error}"
        for path in files:
            self.env.note_dependency(str(path))
        if wrong:
            logging.getLogger(__name__).warning(f"{self.rawtext}: {wrong}", location=self.get_location())
        return [Number(self.rawtext, self.title, source=f"{value:.6g}, {source}")], []


class Number(nodes.inline):
    """A number whose source appears on an HTML page when one points at it; elsewhere the number alone."""


def _open(writer, node):
    writer.body.append(writer.starttag(node, "span", "", CLASS="rk-number", title=node["source"]))


def setup(app):
    alone = (lambda writer, node: None,) * 2
    app.add_node(Number, html=(_open, lambda writer, node: writer.body.append("</span>")), latex=alone, text=alone)
    app.add_role("recorded", Sourced(recorded))
    app.add_role("printed", Sourced(printed))
    app.add_role("shown", Sourced(shown))
    return {"version": "1", "parallel_read_safe": True}
