"""The built book: nothing is loaded from outside, mathematics renders, and a phone shows every page at its own width.

One strict build serves all tests. The browser tests need Chromium and skip without it; what they see is kept as
screenshots in _build/screens/ (phone and desktop, light and dark).
"""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENS = {"phone": (360, 740), "desktop": (1360, 900)}
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


def documents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def fresh(html):
    """Is this build newer than everything it was made from?"""
    index = html / "searchindex.js"
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "book").rglob("*"), *ROOT.glob("notebooks/*.ipynb")]
    return index.exists() and index.stat().st_mtime > max(s.stat().st_mtime for s in sources)


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The directory of built pages: `make html`'s where it is fresh, otherwise a strict build of its own."""
    if fresh(ROOT / "_build/html"):
        return ROOT / "_build/html"
    out = tmp_path_factory.mktemp("book")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", out]
    built = subprocess.run([*command, "-W", "-n", "--keep-going"], capture_output=True, text=True)
    assert built.returncode == 0, f"the strict build failed:\n{built.stdout[-3000:]}\n{built.stderr[-3000:]}"
    return out / "_build/html"


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


@pytest.fixture(scope="session")
def site(html):
    """The built pages on a local port; yields the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the pages were not opened in a browser")
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *quiet])
        yield chromium
        chromium.close()


class Visit:
    """A browser window on the site that refuses everything else, and remembers what went wrong."""

    def __init__(self, browser, site, size, scheme):
        width, height = SCREENS[size]
        self.site, self.outside, self.errors = site, [], []
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: message.type == "error" and self._note(message.text))
        self.page.on("pageerror", self._note)

    def _note(self, error):
        self.errors.append(f"{self.page.url}: {error}")

    def _route(self, route):
        url = route.request.url
        if url.startswith((self.site, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def open(self, name):
        self.page.goto(f"{self.site}{name}.html", wait_until="load")
        self.page.evaluate("async () => { await window.MathJax?.startup.promise; await document.fonts.ready }")
        return self.page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SCREENS)
def test_pages_in_a_browser(browser, site, size, scheme):
    visit = Visit(browser, site, size, scheme)
    screens = ROOT / "_build/screens"
    screens.mkdir(parents=True, exist_ok=True)
    for name in documents():
        page = visit.open(name)
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{name} is {width[0]} px wide in a window of {width[1]} px"
        assert page.evaluate(STICKING_OUT) == [], f"{name} reaches beyond the {size}'s window"
        formulas, rendered = page.locator("div.math, span.math").count(), page.locator("mjx-container").count()
        assert rendered >= formulas, f"{name}: {rendered} of {formulas} formulas rendered"
        assert page.locator("mjx-merror").count() == 0, f"{name}: MathJax could not read a formula"
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.screenshot(path=screens / f"{name.replace('/', '-')}-{size}-{scheme}.png", full_page=True)
    visit.context.close()
    assert visit.outside == []
    assert visit.errors == []
