"""The built book: nothing is loaded from outside, mathematics renders, and a phone shows every page at its own width.

One strict build serves all tests. The browser tests need Chromium and skip without it; what those of `make slow` see is
kept as screenshots in _build/screens/ (the phone in the light, the desktop in the dark).
"""

import json
import re
import subprocess
import sys
from urllib.parse import unquote

import pytest
from browsing import documents
from bs4 import BeautifulSoup
from docutils import nodes
from helpers import ROOT, prose

from rklu_lib.records import BASES
from rklu_pages import page_heads

OUTSIDE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
CSS_LOAD = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", re.IGNORECASE)
SCRIPT_IMPORT = re.compile(r"""\bimport\b[^;"'`]*["'`]((?:https?:)?//[^"'`]+)""")
LOADING_ATTRIBUTES = ("src", "data", "poster", "background")
NAVIGATION_LINKS = set("canonical index search genindex next prev author copyright help top up".split())

# Elements of the article that reach beyond the window without standing in a box that scrolls.
STICKING_OUT = """() => [...document.querySelectorAll('.bd-article *')].filter(e => {
  if (e.getBoundingClientRect().right <= innerWidth + 1) return false;
  if (e.closest('mjx-assistive-mml, .visually-hidden')) return false;
  for (let a = e.parentElement; a && !a.matches('.bd-article'); a = a.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(a).overflowX)) return false;
  return true;
}).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 40))"""


@pytest.fixture(scope="session")
def pages(html):
    paths = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    return {path.relative_to(html).as_posix(): BeautifulSoup(path.read_text(), "html.parser") for path in paths}


def css_loads(text):
    return [first or second for first, second in CSS_LOAD.findall(text)]


def loads(page):
    """Every address a browser would fetch by itself to show this page."""
    for tag in page.find_all(True):
        for name in LOADING_ATTRIBUTES:
            if tag.has_attr(name):
                yield tag[name]
        yield from (part.split()[0] for part in tag.get("srcset", "").split(",") if part.strip())
        if tag.name == "link" and not set(tag.get("rel", [])) <= NAVIGATION_LINKS:
            yield tag.get("href", "")
        if tag.has_attr("style"):
            yield from css_loads(tag["style"])
        if tag.name == "style":
            yield from css_loads(tag.text)
        if tag.name == "script":
            yield from SCRIPT_IMPORT.findall(tag.text)


def test_every_document_of_the_contents_has_a_page(html, pages):
    assert {f"{name}.html" for name in documents()} <= set(pages)
    assert (html / "index.html").exists()


def test_pages_load_nothing_from_outside(pages):
    outside = {(name, url) for name, page in pages.items() for url in loads(page) if OUTSIDE.match(url)}
    assert not outside


def test_style_sheets_load_nothing_from_outside(html):
    sheets = [*html.rglob("*.css"), *html.rglob("*.svg")]
    assert sheets
    outside = {(s.name, url) for s in sheets for url in css_loads(s.read_text(errors="ignore")) if OUTSIDE.match(url)}
    assert not outside


def test_every_local_asset_is_there(html, pages):
    missing = {
        (name, url)
        for name, page in pages.items()
        for url in loads(page)
        if not OUTSIDE.match(url)
        and not url.startswith(("data:", "#"))
        and not (html / name).parent.joinpath(url.split("?")[0].split("#")[0]).exists()
    }
    assert not missing


def test_pages_go_without_the_themes_icon_script_and_show_the_icons(html, pages, visit):
    assert not [name for name, page in pages.items() if page.select('script[src*="fontawesome"]')]
    assert not list(html.rglob("fontawesome.js*"))
    page = visit().open("book/method")
    icon = page.locator(".bd-header-article .fa-download, .bd-header-article .fa-expand").first
    assert "Font Awesome" in icon.evaluate("e => getComputedStyle(e, '::before').fontFamily")
    assert page.evaluate("[...document.fonts].some((f) => f.family.includes('Awesome') && f.status === 'loaded')")
    page.keyboard.press("Control+k")
    lens, field = (page.locator(f"#pst-search-dialog {part}").bounding_box() for part in ("i", "input"))
    assert lens["x"] + lens["width"] <= field["x"]


def test_equations_carry_the_papers_numbers(pages):
    equations = pages["book/method.html"].select("div.math .eqno")
    assert [e.text.strip(" #¶\n")[:3] for e in equations[:5]] == ["(1)", "(2)", "(3)", "(4)", "(5)"]
    labels = [e.find_parent("div", class_="math")["id"] for e in equations[:5]]
    names = ["teacher", "kl", "retain", "objective", "truth-ratio"]
    assert labels == [f"equation-eq-{name}" for name in names]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ('<img srcset="//cdn.example/x.png 2x">', "//cdn.example/x.png"),
        ('<link rel="stylesheet" href="http://cdn.example/x.css">', "http://cdn.example/x.css"),
        ("<style>@import 'https://cdn.example/x.css';</style>", "https://cdn.example/x.css"),
        ('<p style="background: url(https://cdn.example/x.png)">', "https://cdn.example/x.png"),
        ('<script type="module">import d from "https://cdn.example/d.js"</script>', "https://cdn.example/d.js"),
    ],
)
def test_the_check_itself_finds_an_outside_asset(source, found):
    assert [u for u in loads(BeautifulSoup(source, "html.parser")) if OUTSIDE.match(u)] == [found]


def test_every_link_within_the_book_arrives(html, pages):
    anchors = {name: {tag["id"] for tag in page.find_all(id=True)} for name, page in pages.items()}
    missing, links = set(), 0
    for name, page in pages.items():
        article = page.select_one(".bd-article") or page
        for href in (unquote(a["href"]) for a in article.find_all("a", href=True)):
            if re.match(r"[a-z]+:|//", href):
                continue
            path, _, anchor = href.partition("#")
            target = (html / name).parent.joinpath(path).resolve() if path else html.resolve() / name
            inside = target.relative_to(html.resolve()).as_posix()
            links += 1
            if not target.exists() or (anchor and inside in anchors and anchor not in anchors[inside]):
                missing.add((name, href))
    assert links > 200 and not missing


def test_prose_is_spelt_as_in_a_dictionary(tmp_path):
    for path in [ROOT / "README.md", *(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]:
        (tmp_path / f"{path.stem}.md").write_text(prose(path), encoding="utf-8")
    code = [ROOT / "rklu_lib", ROOT / "rklu_pages", ROOT / "CHANGELOG.md"]  # docstrings, comments, what errors say
    command = [sys.executable, "-m", "codespell_lib", "--toml", ROOT / "pyproject.toml", tmp_path, *code]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_notebook_page_opens_with_how_to_run_it_before_any_code(pages):
    for name, page in pages.items():
        if not name.startswith("notebooks/"):
            continue
        box = page.select_one(".rk-run")
        assert f"papermill {name.removesuffix('.html')}.ipynb out.ipynb" in box.select_one("pre").text
        assert box.select_one("a.download"), name
        assert page.find(class_="cell") in box.find_all_next(class_="cell"), f"{name}: code before the box"


def test_the_verdict_at_a_pages_head_counts_its_claims():
    both = """<table><thead><tr><th>claim</th><th>the paper's tables</th><th>at mini</th></tr></thead>
    <tr><td>a</td><td>holds</td><td>holds</td></tr><tr><td>b</td><td>holds</td><td>does not hold</td></tr></table>"""
    assert page_heads.verdict(["<p>none</p>", both]) == ("the paper's claims", "1 × holds, 1 × does not hold")
    assert page_heads.verdict(["<table><tr><td>holds</td></tr></table>"]) is None
    two = both.replace("</th></tr>", "</th><th>at smoke</th></tr>").replace(
        "</td></tr>", "</td><td>not tested</td></tr>"
    )
    assert page_heads.verdict([two]) is None  # of two scales neither is the page's
    assert page_heads.verdict([two], "smoke") == ("the paper's claims", "2 × not tested")
    own = both.replace("the paper's tables", "seed").replace("<td>holds</td><td>", "<td>0</td><td>")
    assert page_heads.verdict([own]) == ("its statements", "1 × holds, 1 × does not hold")
    tests = both.replace("the paper's tables", "paper").replace("b</td><td>holds", "b</td><td>–")  # the book's own
    tests = tests.replace("a</td><td>holds", "a</td><td>Table 4")
    assert page_heads.verdict([tests]) == ("the paper's claims", "1 × holds")
    counted = """<table><thead><tr><th>verdict</th><th>the paper's tables</th><th>at mini</th></tr></thead>
    <tr><th>holds</th><td>9</td><td>4</td></tr><tr><th>not tested</th><td>0</td><td>5</td></tr></table>"""
    assert page_heads.verdict([counted, both], "mini") == ("the paper's claims", "4 × holds, 5 × not tested")


def test_a_pages_head_counts_the_runs_that_its_parameters_vary():
    folder = ROOT / "data" / "records" / "mini" / "tofu" / "forget10"
    given = {"profile": "mini", "split": "forget10", "seeds": [0, 1], "method": "RKLU"}
    plain = [folder / name / f"seed{s}.json" for name in (*BASES, "RKLU") for s in given["seeds"]]
    for parameter, field in (("alphas", "alpha"), ("rates", "unlearn_lr"), ("seed", "none")):
        varied = [p for s in given["seeds"] for p in folder.glob(f"RKLU,{field}=*/seed{s}.json")]
        made = [json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in (*plain, *varied)]
        hours, count, machines = page_heads.hours(given | {parameter: [1]})
        assert count == len(made) and hours == pytest.approx(sum(sum(m.values()) for m in made) / 3600)
        assert "cores" in machines and bool(varied) == (field != "none")


@pytest.mark.parametrize("name", ["claims", "what_it_costs", "table8_more_metrics"])
def test_a_pages_head_offers_the_smoke_scale_where_something_is_computed(name):
    notebook = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))
    said = " ".join(node.astext() for node in page_heads.box(name, notebook))
    source = "".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    assert ("runs.ensure" in source) == ("everything is trained anew" in said) == ("-p profile smoke" in said)


def test_a_pages_head_links_to_its_records_where_a_repository_is_named():
    notebook = json.loads((ROOT / "notebooks/table8_more_metrics.ipynb").read_text(encoding="utf-8"))
    shown = "https://example.org/owner/name/tree/main"
    (plain,), (linked,) = (
        [line for node in page_heads.box("table8_more_metrics", notebook, to) for line in node.findall(nodes.paragraph)
         if line.astext().startswith("Records: ")] for to in (None, shown)
    )  # fmt: skip
    assert plain.astext() == linked.astext() and not list(plain.findall(nodes.reference))
    (link,) = linked.findall(nodes.reference)
    folder = link["refuri"].removeprefix(f"{shown}/")
    assert link.astext() == folder and (ROOT / folder).is_dir()
    theme = {"repository_url": "https://example.org/owner/name", "launch_buttons": {"binderhub_url": ""}}
    assert page_heads.repository(theme) is None  # an address stands there without being named
    assert page_heads.repository(theme | {"launch_buttons": {"binderhub_url": "https://mybinder.org"}}) == shown


def test_no_page_links_to_a_repository_that_nobody_named(pages):
    linked = {a["href"] for page in pages.values() for a in page.select("article a[href]")}
    assert not [href for href in linked if "executablebooks" in href]


@pytest.mark.parametrize(
    ("name", "link", "says"),
    [
        ("book/introduction", "glossary.html#term-forget-quality", "Kolmogorov–Smirnov"),
        ("book/introduction", "references.html#", "Balancing forget quality and model utility"),
        ("book/notation", "method.html#equation-eq-truth-ratio", None),
        ("notebooks/table1_general_capability", "glossary.html#term-retain-set", None),  # without formulas of its own
    ],
)
def test_a_term_a_reference_and_an_equation_are_seen_without_going_there(visit, name, link, says):
    page = visit().open(name)
    page.locator(f'article a[href*="{link}"]').first.hover()
    preview = page.get_by_role("tooltip")
    if says:
        assert says in preview.inner_text()
    else:
        preview.locator("mjx-container").wait_for()
    page.mouse.move(0, 0)
    preview.wait_for(state="detached")


def test_a_number_and_its_source_are_reached_by_keyboard_and_pointer(visit):
    page = visit().open("notebooks/at_a_glance")
    numbers, tip = page.locator(".rk-number"), page.locator(".tippy-box[data-state=visible]")  # others fade out
    stops = page.locator(".rk-number[tabindex='0']")
    assert 1 < stops.count() < numbers.count()
    numbers.first.focus()
    page.keyboard.press("ArrowRight")
    assert numbers.nth(1).evaluate("e => e === document.activeElement && e.tabIndex === 0")
    tip.wait_for()
    page.keyboard.press("Escape")
    tip.wait_for(state="detached")
    numbers.first.hover()
    tip.hover()  # the pointer may enter it
    assert "records/" in tip.inner_text()


def test_from_the_dark_a_page_is_printed_dark_on_white(visit):
    page = visit("desktop", "dark").open("notebooks/at_a_glance")
    page.emulate_media(media="print")
    for place in (".bd-article p", ".bd-article td", ".bd-article .highlight pre"):
        colour = page.locator(place).last.evaluate("e => getComputedStyle(e).color")
        assert max(map(int, re.findall(r"\d+", colour))) < 128, place
    assert page.locator("details.hide").first.is_hidden()


def test_formulas_are_not_tab_stops(visit):
    page = visit().open("book/method")
    assert page.locator("mjx-container").count() and not page.locator("mjx-container[tabindex='0']").count()


# Every size and every scheme once; `make slow` has the other two pairs.
PAIRS = [("desktop", "light"), ("phone", "dark")]
PAIRS += [pytest.param(*pair, marks=pytest.mark.slow) for pair in (("desktop", "dark"), ("phone", "light"))]


@pytest.mark.parametrize(("size", "scheme"), PAIRS)
def test_pages_in_a_browser(visit, request, size, scheme):
    visit = visit(size, scheme)
    screens = ROOT / "_build/screens"
    for name in documents():
        page = visit.open(name)
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{name} is {width[0]} px wide in a window of {width[1]} px"
        assert page.evaluate(STICKING_OUT) == [], f"{name} reaches beyond the {size}'s window"
        formulas, rendered = page.locator("div.math, span.math").count(), page.locator("mjx-container").count()
        assert rendered >= formulas, f"{name}: {rendered} of {formulas} formulas rendered"
        assert page.locator("mjx-merror").count() == 0, f"{name}: MathJax could not read a formula"
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        if size == "desktop":
            whole = page.viewport_size
            page.set_viewport_size({"width": 1100, "height": 800})  # a tablet's, on its side
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 1100, f"{name} is {wide} px wide in a window of 1100 px"
            page.set_viewport_size(whole)
        if request.node.get_closest_marker("slow"):  # a picture of a long page takes longer than all that is asked here
            page.screenshot(path=screens / f"{name.replace('/', '-')}-{size}-{scheme}.png", full_page=True)
