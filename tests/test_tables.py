"""Tables on a page: what is saved is the table itself, what is read has a caption, and no text turns into markup."""

import io
import json
import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from helpers import NOTEBOOKS, ROOT
from hypothesis import given
from hypothesis import strategies as st

from rklu_pages.drawing import tables


def parsed(shown):
    return BeautifulSoup(shown._repr_html_(), "html.parser")


def saved(page, **how):
    href = page.find("a", class_="rk-csv")["href"]
    return pd.read_csv(io.StringIO(unquote(href.removeprefix("data:text/csv;charset=utf-8,"))), **how)


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=80)


@given(st.lists(words, min_size=1, max_size=4), st.floats(-1e6, 1e6))
def test_what_is_saved_is_the_table_to_ten_figures(said, number):
    table = pd.DataFrame({"said": said, "p": number}, index=pd.Index(range(len(said)), name="method"))
    page = parsed(tables.show(table, "A caption", "t", table.assign(p=0.0)))
    again = saved(page, index_col="method", keep_default_na=False, dtype={"said": str})
    again["said"] = [a.removeprefix("'") if a != s else a for a, s in zip(again.said, said, strict=True)]
    pd.testing.assert_frame_equal(again, table, rtol=1e-9)


def test_what_is_saved_has_one_line_of_heads():
    columns = pd.MultiIndex.from_tuples([("epoch", ""), ("forget quality", "paper"), ("forget quality", "ours")])
    table = pd.DataFrame([[1, 0.1, 0.2]], index=pd.Index(["GA"], name="method"), columns=columns)
    page = parsed(tables.show(table, "c", "t"))
    assert list(saved(page)) == ["method", "epoch", "forget quality, paper", "forget quality, ours"]
    unnamed = saved(parsed(tables.show(table["forget quality"].rename_axis(None), "c", "t")))
    assert list(unnamed) == ["name", "paper", "ours"] and unnamed.name.tolist() == ["GA"]


def test_no_text_becomes_a_formula_and_no_number_becomes_text():
    said = ["=1+1", "+RT", "-2+3", "@SUM(A1)", "\t=1", "-0.5", "-", "1e-3", "a=b", "\uff1d1+1"]
    table = pd.DataFrame({"=said": said, "p": [-0.5] * len(said)}, index=pd.Index(said, name="@name"))
    page = parsed(tables.show(table, "c", "t"))
    again = saved(page, dtype={"'=said": str})
    kept = ["'=1+1", "'+RT", "'-2+3", "'@SUM(A1)", "'\t=1", "-0.5", "-", "1e-3", "a=b", "'\uff1d1+1"]
    assert again["'=said"].tolist() == again["'@name"].tolist() == kept and again.p.tolist() == [-0.5] * len(said)
    assert [td.text for td in page.select("tr > td:first-of-type")] == [s.replace("\t", r"\t") for s in said]


@given(words)
def test_no_text_becomes_markup(text):
    table = pd.DataFrame({"said": [text]}, index=pd.Index(["GA"], name="method"))
    page = parsed(tables.show(table, text, "t"))
    tags = {"table", "caption", "thead", "tbody", "tr", "th", "td", "a"}
    assert {tag.name for tag in page.find_all()} == tags and page.caption.text == text
    assert page.td.text == (text.replace("*", "") if len(text) > tables.LONG else text)


def test_a_reader_is_told_yes_and_no_and_names_in_words_and_what_is_saved_keeps_its_own():
    table = pd.DataFrame({"forget_quality": [True, False], "n": [1, 2]}, index=pd.Index(["a_b", "c"], name="method"))
    page = parsed(tables.show(table, "c", "t"))
    assert [td.text for td in page.select("td")] == ["yes", "1", "no", "2"]
    assert [th.text for th in page.select("thead th")] == ["method", "forget quality", "n"]
    assert [th.text for th in page.select("tbody th")] == ["a_b", "c"]  # whose it is, is a name
    assert saved(page)["forget_quality"].tolist() == [True, False]


def test_html_cells_are_kept_where_they_are_asked_for():
    table = pd.DataFrame({"p": [0.25]}, index=pd.Index(["GA"], name="method"))
    bold = pd.DataFrame({"p": ["<strong>0.25</strong>"]}, index=table.index)
    page = parsed(tables.show(table, "c", "t", bold, escape=False))
    assert page.strong.text == "0.25" and saved(page).p.tolist() == [0.25]
    plain = repr(tables.show(table, "c", "t", bold.replace("0.25", "I&#x27;m", regex=True), escape=False))
    assert "I'm" in plain and "<" not in plain  # in a terminal


def test_p_values_keep_two_figures_among_shares():
    table = pd.DataFrame({"forget quality": [1e-9, 0.63], "p, paired": [np.nan, 1.0], "KS distance": [0.07512, 1]})
    text = tables.rounded(table, 2)
    assert text["forget quality"].tolist() == ["1e-09", "0.63"] and text["KS distance"].tolist() == [0.08, 1.0]
    assert text["p, paired"].isna().tolist() == [True, False] and text["p, paired"].iloc[1] == "1"


def test_p_values_are_rounded_to_two_figures_but_not_to_the_line_that_they_are_held_against():
    table = pd.DataFrame({"forget quality": [1.26e-9, 0.0544, 0.0496], "p, paired": [0.999, 0.05, 1e-4]})
    text = tables.rounded(table, 4)
    assert text["forget quality"].tolist() == ["1.3e-09", "0.054", "0.0496"]
    assert text["p, paired"].tolist() == ["1", "0.05", "0.0001"]


def test_rows_without_names_are_not_numbered():
    numbered = pd.DataFrame({"claim": ["a", "b", "c"], "p": [1.0, float("nan"), 2.0]})
    for table in (numbered, numbered[numbered.claim != "b"]):
        page = parsed(tables.show(table, "c", "t"))
        assert [th.text for th in page.select("th")] == ["claim", "p"] and list(saved(page)) == ["claim", "p"]
    assert "–" in [td.text for td in parsed(tables.show(numbered, "c", "t")).select("td")]
    named = parsed(tables.show(numbered.set_index("claim"), "c", "t"))
    assert [th.text for th in named.select("thead th")] == ["claim", "p"]  # the name of the labels in the same row


def test_a_terminal_gets_plain_text():
    table = pd.DataFrame({"p": [0.5]}, index=pd.Index(["GA"], name="method"))
    said = repr(tables.show(table, "The caption", "t"))
    assert said.startswith("The caption\n\n") and "GA" in said and "<" not in said
    assert repr(tables.csv(table, "t")) == "t.csv: 1 rows"


def outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            yield cell["metadata"], {kind: "".join(text) for kind, text in output.get("data", {}).items()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_every_table_and_figure_of_the_book_has_a_caption_and_its_numbers(path):
    links, figures = 0, 0
    for metadata, data in outputs(path):
        html = data.get("text/html", "")
        links += html.count('class="rk-csv"')
        if "<table" in html:
            assert html.count("<table") == len(re.findall(r"<caption>[^<]{5,}</caption>", html)) == html.count("rk-csv")
        if "image/png" in data:
            figures += 1
            assert len(metadata["mystnb"]["figure"]["caption"]) > 40
            assert len(re.search('role="img"[^>]* aria-label="(.*?)"', html)[1]) > 40
    assert links or not figures


def test_no_two_downloads_of_the_book_have_the_same_name():
    pages = [data.get("text/html", "") for path in NOTEBOOKS for _, data in outputs(path)]
    names = [name for page in pages for name in re.findall(r'download="(.*?)"', page)]
    assert len(names) > 60 and len(set(names)) == len(names)


PAGE = """<!doctype html><html lang="en" data-theme="light"><title>A table</title><style>{css}</style>
<body><main class="bd-article"><h1>A table</h1>
<div class="cell_output"><div class="output text_html">{table}</div></div></main><script>{script}</script>"""


@pytest.fixture
def opened(visit):
    """A function (table, size of the window): the page of one table, with the book's style and script."""

    def start(shown, size="desktop"):
        page = visit(size, book=False).page
        css, script = (
            (ROOT / "book/_static" / name).read_text(encoding="utf-8") for name in ("custom.css", "tables.js")
        )
        page.set_content(PAGE.format(css=css, script=script, table=shown._repr_html_()))
        return page

    return start


def column(page, place):
    return [row.locator("th, td").nth(place).inner_text() for row in page.locator("tbody tr:visible").all()]


SCORED = pd.DataFrame(
    {"score": ["0.5", "–", "1.2e-09", "0.03 ± 0.1"], "said": ["b 10", "a", "b 9", "c"]},
    index=pd.MultiIndex.from_product([["forget01", "forget10"], ["GA", "RKLU"]], names=["set", "method"]),
)


def test_a_head_sorts_its_column_by_size_and_back(opened):
    page = opened(tables.show(SCORED, "Four.", "four"))
    assert column(page, 0) == [
        "forget01",
        "forget01",
        "forget10",
        "forget10",
    ]  # written in both rows
    head = page.get_by_role("columnheader", name="score")
    assert head.text_content() == "score↕\ufe0e" and head.get_attribute("scope") == "col"
    assert page.locator("tbody th").first.get_attribute("scope") == "row"
    assert page.get_by_role("region").count() == 0  # nothing scrolls
    for order, wanted in {
        "ascending": ["1.2e-09", "0.03 ± 0.1", "0.5", "–"],
        "descending": ["0.5", "0.03 ± 0.1", "1.2e-09", "–"],  # what is missing comes last
        "none": ["0.5", "–", "1.2e-09", "0.03 ± 0.1"],
    }.items():
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == order and column(page, 2) == wanted
    page.get_by_role("columnheader", name="said").get_by_role("button").click()
    assert column(page, 3) == ["a", "b 9", "b 10", "c"]  # words by letters, the numbers in them by size
    assert column(page, 1) == ["RKLU", "GA", "GA", "RKLU"]


def test_equal_numbers_are_sorted_by_the_letters_after_them(opened):
    table = pd.DataFrame({"p": [1.0, 2, 3, 4]}, index=pd.Index(["4-bit", "8-bit", "4 b", "4 a"], name="weights"))
    page = opened(tables.show(table, "Four.", "four"))
    page.get_by_role("columnheader", name="weights").get_by_role("button").click()
    assert column(page, 0) == ["4 a", "4 b", "4-bit", "8-bit"]


def test_rows_are_filtered_and_counted(opened):
    table = pd.DataFrame({"name": [f"row {i}" for i in range(20)], "kind": ["odd", "even"] * 10})
    page = opened(tables.show(table, "Twenty.", "twenty"))
    page.get_by_label("Filter rows").fill("ODD 1")
    assert column(page, 0) == ["row 10", "row 12", "row 14", "row 16", "row 18"]
    assert page.locator(".rk-tools output").inner_text() == "5 of 20 rows"


def test_on_a_phone_the_scores_come_first_and_names_stay(opened):
    columns = pd.MultiIndex.from_product([["epochs", "forget rouge", "forget quality"], ["paper", "ours"]])
    wide = pd.DataFrame([[f"{i}.{j}" for j in range(6)] for i in range(12)], columns=columns)
    wide.index = pd.Index([f"method {i}" for i in range(12)], name="method")
    page = opened(tables.show(wide, "Wide.", "wide"), "phone")
    assert column(page, 1)[:2] == ["0.4", "1.4"] and column(page, 3)[0] == "0.0"
    page.get_by_role("region", name="Wide.").focus()  # it scrolls
    page.get_by_label("Columns to show first").select_option("forget rouge")
    assert [column(page, place)[0] for place in (1, 2, 3)] == ["0.2", "0.3", "0.0"]
    page.locator(".rk-scroll").evaluate("e => (e.scrollLeft = 150)")
    edges = [page.locator(at).first.bounding_box()["x"] for at in (".rk-scroll", "tbody th")]
    assert edges[1] == pytest.approx(edges[0], abs=1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    place = "[...document.querySelectorAll('thead .rk-stuck')].map((e) => e.style.left)"
    before = page.evaluate(place)
    page.get_by_label("Filter rows").fill("no such row")  # nothing holds the heads in their places
    assert set(before) == {"0px"} and set(page.evaluate(place)) == {"auto"}
    page.get_by_label("Filter rows").fill("method 1")
    assert page.evaluate(place) == before


def test_a_table_with_its_tools_is_accessible(opened):
    page = opened(tables.show(pd.concat([SCORED] * 3), "Twelve.", "twelve"))
    report = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    assert report.violations_count == 0, report.generate_report()
