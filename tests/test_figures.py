"""Figures on pages: what a caption counts is drawn, and one drawing serves light and dark."""

import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from helpers import NOTEBOOKS, ROOT

from rklu_pages.drawing import figures, looks
from rklu_pages.drawing.pictures import finished

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
COUNTED = r"\b({}) (?:\w+ )?(models?|methods?|lines|rows|bars|gauges|sizes|baselines|sets|panels)\b"
NUMBER = re.compile(COUNTED.format("|".join(WORDS.split()[1:])), re.IGNORECASE)


def captioned(path):
    """The code cells of a notebook that draw a figure with a caption."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if "figure" in cell["metadata"].get("mystnb", {})]


PAGES = [path for path in NOTEBOOKS if captioned(path)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_caption_counts_what_is_drawn(path):
    for cell in captioned(path):
        caption = cell["metadata"]["mystnb"]["figure"]["caption"]
        pages = ["".join(o["data"]["text/html"]) for o in cell["outputs"] if "text/html" in o.get("data", {})]
        (names,) = [BeautifulSoup(page, "html.parser").select_one(".rk-picture")["data-series"] for page in pages]
        names = [name for name in names.split("|") if name]
        counts = [WORDS.split().index(word.lower()) for word, _ in NUMBER.findall(caption)]
        assert not names[1:] or len(names) in counts, f"{len(names)} drawn ({', '.join(names)}), caption: {caption}"


@pytest.fixture
def picture():
    with plt.rc_context(figures.STYLE):
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0, 1], color=figures.COLOURS["RKLU"], label='R<"KLU')
        ax.plot([0, 1], [1, 0], color="#000000", label="_unnamed")
        ax.set(xlabel="epoch", ylabel="utility")
    return finished(figure)


def test_a_picture_says_what_it_draws(picture):
    assert picture.names == ['R<"KLU'] and repr(picture) == 'A chart, utility over epoch; drawn: R<"KLU.'
    page = BeautifulSoup(picture._repr_mimebundle_()["text/html"], "html.parser")
    assert page.svg["aria-label"] == repr(picture) and page.div["data-series"] == 'R<"KLU'
    assert {"epoch", "utility"} <= {text.text.strip() for text in page.find_all("text")}  # letters, not outlines


def test_a_scale_of_colours_is_the_same_in_a_dark_page():
    with plt.rc_context(figures.STYLE):
        figure, (one, other) = plt.subplots(1, 2)
        for ax, gid in ((one, "own"), (other, None)):
            ax.pcolormesh(np.array([[0.0, 1.0]]), cmap="Blues").set_gid(gid)
            ax.set(xlabel="probe")
    drawn = finished(figure)
    svg = drawn._repr_mimebundle_()["text/html"]
    assert "&own;" not in svg and repr(drawn) == "A chart, probe."  # there is no name of the other axis
    scale = [matplotlib.colors.to_hex(c) for c in plt.get_cmap("Blues")([0.0, 1.0])]
    for colour in scale:  # once as it is, once for both schemes
        assert len(re.findall(rf"fill: {colour}", svg)) == len(re.findall(rf"fill: light-dark\({colour}", svg)) == 1


def test_labels_are_what_they_say_and_only_coordinates_are_shortened():
    with plt.rc_context(figures.STYLE):
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0.0021234, 0.0251234])
        ax.set_yticks([0.0025, 0.025], ["0.0025", "0.025"])
    svg = finished(figure)._repr_mimebundle_()["text/html"]
    drawn = BeautifulSoup(svg, "html.parser")
    assert {"0.0025", "0.025"} <= {text.text.strip() for text in drawn.find_all("text")}
    assert not re.search(r"\d\.\d{3}", " ".join(path["d"] for path in drawn.find_all("path")))


def test_a_picture_is_the_same_drawn_twice(picture):
    assert picture._repr_mimebundle_()["text/html"] == picture._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_a_line_stands_out_from_the_page_in_both_schemes(visit, picture, scheme, dark):
    page = visit("desktop", scheme, book=False).page
    page.set_content(f"<style>:root {{ color-scheme: light dark }}</style>{picture._repr_mimebundle_()['text/html']}")
    light = """e => {
      const c = document.createElement("canvas").getContext("2d");
      c.fillStyle = getComputedStyle(e).stroke;
      c.fillRect(0, 0, 1, 1);
      const [r, g, b] = c.getImageData(0, 0, 1, 1).data;
      return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
    }"""
    shown = [path.evaluate(light) for path in page.locator("svg path[style*=stroke]").all()]
    assert (max(shown) > 0.95) == dark and (min(shown) < 0.05) != dark  # the black line


def test_names_are_written_in_colours_that_can_be_read():
    """The contrast of WCAG 2.2 with the book's page is at least 4.5."""
    assert looks.ink("#000000") == "#000000" and looks.ink("#757575") == "#757575"  # 4.61 with white
    page = re.search(r"--pst-color-background: (#\w{6})", (ROOT / "book/_static/custom.css").read_text())[1]
    for name, colour in looks.COLOURS.items():
        luminances = []
        for one in (page, looks.ink(colour)):
            parts = matplotlib.colors.to_rgb(one)
            linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
        assert luminances[0] / luminances[1] >= 4.5, name


def test_who_cannot_see_a_plane_is_told_what_it_shows():
    of = lambda p: [{"forget_quality_benchmark": p, "model_utility": 0.5}]  # noqa: E731
    drawn = figures.plane({"paper, forget10": {"RKLU": of(0.5), "GA": of(1e-9)}, "ours": {"RKLU": of(0.01)}})
    label = BeautifulSoup(drawn._repr_mimebundle_()["text/html"], "html.parser").svg["aria-label"]
    assert label == (
        "A chart, forget quality (KS p-value) over model utility; panels: paper, forget10; ours; drawn: RKLU; GA. "
        "paper, forget10: above 0.05: RKLU; below 0.05: GA. ours: below 0.05: RKLU."
    )
