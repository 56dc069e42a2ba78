"""Which model utilities are possible? Utility is the harmonic mean of nine scores, of which Table 8 prints six."""

import matplotlib.pyplot as plt
import numpy as np

from rklu_pages.drawing.pictures import finished
from rklu_pages.results.paper import reported, resolution

COMPONENTS = tuple(f"{s}_{m}" for s in ("retain", "facts", "authors") for m in ("rouge", "probability"))


def utility_bound(components):
    """Return the highest utility that six printed components x allow: 9 / (sum 1/x + 3), the three truth ratio scores
    at their maximum of 1 (App. A.3). components (n, 6), in (0, 1] -> (n,).

    The bound increases in every component and is jointly concave, so it also holds for means over seeds."""
    return 9 / ((1 / np.asarray(components)).sum(axis=1) + 3)


def utility_bounds():
    """Compare every row of Table 8 with `utility_bound`, by interval arithmetic on the last printed digit.

    excess: lowest utility minus highest bound that rounded digits allow (half a unit either way). excess_any: the same
    with a whole unit either way, which covers digits cut off; above 0 the row is impossible. limit: 9 / sum 1/x, the
    bound if the truth ratio scores could be infinite. truth_ratio: the harmonic mean of the three truth ratio scores
    that the row implies, inf where no value is large enough."""
    table, text = reported("table8"), reported("table8", printed=True)
    names = ["model_utility", *COMPONENTS]
    value, unit = table[names].to_numpy(), text[names].map(resolution).to_numpy()
    (utility, x), (v, u) = ((a[:, 0], a[:, 1:]) for a in (value, unit))
    rounded, loose = (utility - k * v - utility_bound(x + k * u) for k in (0.5, 1.0))
    out = table[["set", "method", "model_utility"]].assign(bound=utility_bound(x), excess=rounded, excess_any=loose)
    verdict = np.select([loose > 0, rounded > 0], ["impossible", "only if cut off"], "possible")
    total = (1 / x).sum(axis=1)
    return out.assign(limit=9 / total, truth_ratio=_implied_ratio(utility, total), verdict=verdict)


def _implied_ratio(utility, total):
    """Return the harmonic mean of three truth ratios that utility and `total` (sum 1/x of six) imply; inf if none."""
    left = 9 / np.asarray(utility) - np.asarray(total)
    return np.where(left > 0, 3 / np.where(left > 0, left, 1), np.inf)


def exchanged_columns():
    """Return the truth ratio that each row of Table 8 implies as printed, and with its forget and retain cells swapped.

    in_band: whether the swapped row's truth ratio lies in the range of the possible rows as printed (`utility_bounds`).
    A good repair brings an impossible row into this range. The number of possible rows that are still in the range
    after the swap tells how easily this happens by chance."""
    rows, table = utility_bounds(), reported("table8")
    names = ["forget_rouge", "forget_probability", *COMPONENTS[2:]]
    implied = _implied_ratio(table["model_utility"], (1 / table[names]).sum(axis=1))
    band = rows.truth_ratio[rows.verdict == "possible"]
    out = rows[["set", "method", "verdict"]].assign(as_printed=rows.truth_ratio, exchanged=implied)
    return out.assign(in_band=out.exchanged.between(band.min(), band.max()))


def plot_bounds(bounds):
    """Plot printed utility against the highest that the row's other cells allow; above the line is impossible."""
    figure, ax = plt.subplots(figsize=(5.2, 4.2))
    looks = {"possible": ("#8a99a8", "o"), "only if cut off": ("#E69F00", "s"), "impossible": ("#D55E00", "D")}
    for verdict, (colour, marker) in looks.items():
        rows = bounds[bounds.verdict == verdict]
        ax.plot(rows.bound, rows.model_utility, marker, color=colour, label=f"{verdict} ({len(rows)})")
    for _, r in bounds[bounds.verdict != "possible"].iterrows():
        away = (12, 7) if r.method == "DPO+KL" else (-8, -8)  # labels that would overlap
        spot = {"xytext": away, "textcoords": "offset points", "ha": "right"}
        ax.annotate(f"{r.method} {r['set']}", (r.bound, r.model_utility), **spot)
    ax.plot([1e-3, 1], [1e-3, 1], color="#444444", lw=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="highest utility the row allows",
        ylabel="model utility as printed",
        xlim=(3e-4, 1.5),
    )
    ax.legend(loc="lower right")
    return finished(figure)
