"""The paper's tables are typed as printed."""

import re

import numpy as np
import pytest
from helpers import SHARED

from rklu_pages.results import paper

TEXT = SHARED / "paper" / "rklu-naacl25.txt"
needs_text = pytest.mark.skipif(not TEXT.is_file(), reason="the paper's text is not here")
SETS = {"1%": "forget01", "5%": "forget05", "10%": "forget10"}


def test_nine_tables_and_the_statements_are_there():
    assert sorted(p.stem for p in paper.PAPER.glob("*.csv")) == [
        "published",
        "statements",
        *(f"table{k}" for k in range(1, 10)),
    ]


def test_a_missing_table_names_those_that_exist():
    with pytest.raises(ValueError, match="no table 'table10'.*table1, table2"):
        paper.reported("table10")


def test_printed_forms_are_read_as_numbers():
    assert [paper.number(t) for t in ("1.80e-4", "10^14", "0.876", "0")] == [1.8e-4, 1e14, 0.876, 0]
    assert [paper.resolution(t) for t in ("1.80e-4", "0.876", "57")] == pytest.approx([1e-6, 1e-3, 1])
    with pytest.raises(ValueError):
        paper.resolution("10^14")


def test_every_score_is_a_number_and_every_set_a_forget_set():
    for k in (1, 2, 3, 5, 6, 7, 8):
        table = paper.reported(f"table{k}")
        scores = table[[c for c in table if c not in paper.LABELS]]
        assert np.isfinite(scores.to_numpy()).all() and (scores.to_numpy() >= 0).all()
        assert "set" not in table or set(table["set"]) <= set(SETS.values())
    assert len(paper.reported("table8")) == 42


def text_rows(caption):
    """The block of lines above a caption, cells separated by tabs."""
    lines = TEXT.read_text(encoding="utf-8").split("\n")
    end = next(i for i, line in enumerate(lines) if line.startswith(caption)) - 1
    while not lines[end].strip():
        end -= 1
    start = end
    while lines[start - 1].strip():
        start -= 1
    return [[cell.strip() for cell in line.split("\t")] for line in lines[start : end + 1]]


def typed(name, *columns):
    return paper.reported(name, printed=True)[list(columns)].to_numpy().tolist()


def filled(rows, column):
    """Set names are printed once per block: carry them down."""
    current, out = None, []
    for row in rows:
        current = SETS.get(row[column], current)
        out.append([*row[:column], current, *row[column + 1 :]])
    return out


@needs_text
def test_table_1_is_typed_as_printed():
    printed = [[m.replace("RKL", "RKLU"), a, b] for m, a, b in text_rows("Table 1:")[2:]]
    table = paper.reported("table1", printed=True).pivot(index="method", columns="set", values="avg_accuracy_pct")
    assert {m: [a, b] for m, a, b in printed} == {
        m: list(v) for m, v in zip(table.index, table.to_numpy(), strict=True)
    }


@needs_text
@pytest.mark.parametrize("k", [2, 6, 7])
def test_tables_of_the_copyright_task_are_typed_as_printed(k):
    printed = [[re.sub(r"^10 ?¹⁴$|^\$?10\^\{(\d+)\}\$?$", lambda m: f"10^{m[1] or 14}", c) for c in row]
               for row in text_rows(f"Table {k}:")[1:]]  # fmt: skip
    printed = [["RKLU" if row[0] == "RKL" else row[0], *row[1:]] for row in printed]
    assert typed(f"table{k}", "method", "bleu_pct", "rouge_pct", "perplexity", "avg_accuracy_pct") == printed


@needs_text
def test_table_3_is_typed_as_printed():
    printed = filled(text_rows("Table 3:")[1:], 1)
    assert typed("table3", "method", "set", "forget_quality", "forget_rouge", "forget_probability") == printed


@needs_text
def test_table_5_is_typed_as_printed():
    printed = [[e.split()[1], m, *v] for e, *c in text_rows("Table 5:")[1:]
               for m, v in (("GA", c[:2]), ("GA+RT", c[2:]))]  # fmt: skip
    assert sorted(typed("table5", "epoch", "method", "forget_quality", "model_utility")) == sorted(printed)


@needs_text
def test_table_8_is_typed_as_printed():
    rows = [r for r in text_rows("Table 8:") if len(r) == 12 and re.match(r"\d", r[2])]
    assert typed("table8", *(c for c in paper.reported("table8") if c != "note")) == filled(rows, 0)


@needs_text
@pytest.mark.parametrize("k", [4, 9])
def test_case_studies_are_typed_as_printed(k):
    text = " ".join(TEXT.read_text(encoding="utf-8").split())
    for row in paper.reported(f"table{k}").itertuples():
        label = {"fill_in_blank": "Fill-in-Blank"}.get(row.field, row.field.replace("_", " ").title())
        assert f"{label}: {row.text}" in text


@needs_text
def test_statements_are_the_papers_own_words():
    text = TEXT.read_text(encoding="utf-8")
    assert [q for q in paper.reported("statements").quote if q not in text] == []


@needs_text
def test_no_spread_between_seeds_is_printed_and_bold_cells_cannot_be_seen():
    text = TEXT.read_text(encoding="utf-8")
    assert not re.search(r"±|standard deviation|confidence interval|variance", text)
    assert not any("**" in cell for k in (1, 2, 3, 5, 6, 7, 8) for row in text_rows(f"Table {k}:") for cell in row)
