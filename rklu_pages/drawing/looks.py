"""Colour, marker and line of every method, the same in all figures, and the style of the figures."""

import matplotlib.colors
import numpy as np
from seaborn.utils import relative_luminance

# After Okabe and Ito's colour-blind-safe palette; a family keeps its colour, its retain term changes the line.
COLOURS = {
    "RKLU": "#0072b2", "FKLU": "#3a9bd9", "GA": "#d55e00", "NPO": "#c48300", "DPO": "#cc79a7", "IDK": "#8a5a83",
    "SimNPO": "#b5179e", "UNDIAL": "#4b0082", "WGA": "#8b0000", "JS": "#1aa39b", "RMU": "#556b2f",
    "TA": "#009e73", "teacher": "#6b6b00", "original": "#444444", "augmented": "#7f7f7f", "oracle": "#000000",
}  # fmt: skip
MARKERS = {
    "RKLU": "o", "FKLU": "s", "GA": "v", "NPO": "^", "DPO": "D", "IDK": "P", "TA": "X", "teacher": "*", "original": "H",
    "SimNPO": "<", "UNDIAL": ">", "WGA": "p", "JS": "h", "RMU": "d", "oracle": "8", "augmented": "p",
}  # fmt: skip
LINES = {"": "-", "KL": "--", "RT": ":", "MSE": "-."}
STYLE = {
    "figure.dpi": 110, "savefig.dpi": 110, "figure.facecolor": "none", "axes.facecolor": "none", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "axes.axisbelow": True, "legend.frameon": False, "figure.constrained_layout.use": True,
}  # fmt: skip


def ink(colour, least=4.6):
    """Darken a colour for text until its contrast with white is at least `least` : 1; return hex. WCAG 2.2, 1.4.3, asks
    for 4.5, on the book's page, which is a little darker than white."""
    parts = np.array(matplotlib.colors.to_rgb(colour))
    while 1.05 / (relative_luminance(parts) + 0.05) < least:
        parts *= 0.97
    return matplotlib.colors.to_hex(parts)


def look(name):
    """Return matplotlib's colour, marker and line style of a method such as "NPO+RT" or "RKLU,alpha=4". A method
    that is not of this book is a grey dot."""
    family, _, retain = name.partition(",")[0].partition("+")
    colour, line = COLOURS.get(family, "#666666"), LINES.get(retain, "-")
    return {"color": colour, "marker": MARKERS.get(family, "."), "linestyle": line}
