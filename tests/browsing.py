"""The built book on a local port, and a browser that sees nothing else: what the tests of pages and widgets share."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENS = {"phone": (360, 740), "desktop": (1360, 900)}


def documents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def fresh(html):
    """Is this build newer than everything it was made from?"""
    index = html / "searchindex.js"
    sources = [ROOT / "_config.yml", ROOT / "_toc.yml", *(ROOT / "book").rglob("*"), *ROOT.glob("notebooks/*.ipynb")]
    sources += (ROOT / "rklu_pages").rglob("*.py")  # it makes the pages' heads
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
        self.context.set_default_timeout(120_000)  # a page may have to share its cores with a training run
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


@pytest.fixture
def visit(request):
    """A function (size of `SCREENS`, scheme) -> `Visit`; after the test, none may have gone outside or seen an error.

    The book is built only for the tests that ask for it: with `book=False` there is no site, just a window.
    """
    visits = []

    def start(size="desktop", scheme="light", book=True):
        site = request.getfixturevalue("site") if book else "about:"
        visits.append(Visit(request.getfixturevalue("browser"), site, size, scheme))
        return visits[-1]

    yield start
    for made in visits:
        made.context.close()
        assert not made.outside, made.outside
        assert not made.errors, made.errors
