"""Figures as SVG that matplotlib draws once and that adapt to a light or a dark page."""

import html
import io
import re
from dataclasses import dataclass

import matplotlib.pyplot as plt

# Identical figures must give identical SVG on every machine, since nbval compares it.
_SVG = {"svg.hashsalt": "rklu", "svg.fonttype": "none"}
_IDS = re.compile(r' id="(?!m[0-9a-f]{10}|p[0-9a-f]{10})[^"]*"')  # markers and clips are referred to by theirs
_OWN = re.compile(r'<g id="own">.*?</g>\n', re.DOTALL)  # these artists, such as a colour scale, keep their colours
_FONT = re.compile(r"font: ((?:\w+ )*[\d.]+px)[^;\"]*(; text-anchor: \w+)?")


def _in_dark(match):
    """Return CSS for a colour in both schemes: in the dark, greys are inverted, other colours lightened, hue kept."""
    colour = match.group()
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    lightness = "calc(1.2 - l)" if max(parts) - min(parts) < 16 else "clamp(0.68, l + 0.18, 0.85)"
    return f"light-dark({colour}, oklch(from {colour} {lightness} c h))"


def _series(figure):
    """Return the labels of a figure's artists, in the order they are drawn."""
    artists = [a for ax in figure.axes for a in (*ax.lines, *ax.collections, *ax.containers)]
    labels = [str(artist.get_label()) for artist in artists]
    return list(dict.fromkeys(label for label in labels if not label.startswith("_")))


@dataclass(frozen=True)
class Picture:
    """A finished figure: SVG in a page, PNG where SVG cannot be shown, and one line of text in a terminal.

    series: names of the lines and markers drawn (default: the artists' labels). told: sentences that say what is to be
    seen, for who cannot see it.
    """

    figure: plt.Figure
    series: tuple = ()
    told: tuple = ()

    @property
    def names(self):
        return list(self.series) or _series(self.figure)

    def __repr__(self):
        labels = [[ax.get_ylabel(), ax.get_xlabel()] for ax in self.figure.axes if ax.get_xlabel()]
        axes = [" over ".join(filter(None, both)) for both in labels]
        titles = [title for ax in self.figure.axes if (title := ax.get_title() or ax.get_title("left"))]
        about = ["; ".join(dict.fromkeys(axes)), f"panels: {'; '.join(titles)}" if titles else ""]
        about.append(f"drawn: {'; '.join(self.names)}" if self.names else "")
        return " ".join(f"{part}." for part in (f"A chart, {'; '.join(filter(None, about))}", *self.told))

    def _saved(self, form):
        out = io.BytesIO()
        ground = "white" if form == "png" else "none"
        with plt.rc_context(_SVG):
            self.figure.savefig(out, format=form, facecolor=ground, metadata={"Date": None} if form == "svg" else None)
        return out.getvalue()

    def _svg(self):
        text = self._saved("svg").decode()
        text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
        text = _OWN.sub(lambda part: part.group().replace("#", "&own;"), text)
        text = _IDS.sub("", text)
        short = lambda part: part[0] if part[0][0] == ">" else f"{float(part[0]):.2f}"  # noqa: E731 - labels stay
        text = re.sub(r">[^<]*<|-?\d+\.\d{3,}", short, text)
        text = _FONT.sub(r"font: \1 var(--pst-font-family-base, sans-serif)\2", text)
        text = re.sub(r"#[0-9a-f]{6}\b", _in_dark, text).replace("&own;", "#")
        label = html.escape(repr(self), quote=True)
        width = float(re.search(r'width="([\d.]+)pt"', text)[1]) / 11  # 10 pt are nine tenths of an em
        text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
        told = f'role="img" fill="currentColor" aria-label="{label}" style="width: {width:.1f}em"'
        return text.replace("<svg", f"<svg {told}", 1)

    def _repr_mimebundle_(self, **_):
        names = html.escape("|".join(self.names), quote=True)
        page = f'<div class="rk-picture" data-series="{names}">{self._svg()}</div>'
        return {"text/html": page, "image/png": self._saved("png"), "text/plain": repr(self)}


def finished(figure, series=(), told=()):
    """Close a figure and return its `Picture`; pyplot would show an open figure a second time."""
    plt.close(figure)
    return Picture(figure, tuple(series), tuple(told))
