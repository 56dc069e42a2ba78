"""The book's figures, drawn from records; every line and marker is labelled by name."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from adjustText import adjust_text
from scipy import optimize, stats

from rklu_pages.drawing.looks import COLOURS, STYLE, ink, look
from rklu_pages.drawing.pictures import finished

# Lines that colour alone would not tell apart on paper.
BASES = {"oracle": (4, 1.5), "teacher": (1, 1.5), "augmented": (4, 1.5, 1, 1.5)}
DASHES = {"": "", "KL": (4, 1.5), "RT": (1, 1.5), "MSE": (4, 1.5, 1, 1.5)}  # `looks.LINES` in seaborn's form
FLOOR = 1e-12  # smallest p that is drawn on a logarithmic axis
WIDE = 7.6  # inches: at a page's width letters then have the size of the text's


def forget_quality_axis(ax, floor=FLOOR):
    """Give `ax` the paper's double scale (Fig. 3): logarithmic below p = 0.05, linear above, with a line at 0.05."""
    span = np.log10(0.05 / floor)

    def forward(p):
        p = np.clip(np.asarray(p, float), floor, 1)
        return np.where(p < 0.05, np.log10(p / floor) / span, 1 + (p - 0.05) / 0.95)

    def inverse(y):
        y = np.asarray(y, float)
        return np.where(y < 1, floor * 10 ** (np.clip(y, 0, 1) * span), 0.05 + (y - 1) * 0.95)

    ax.set_yscale("function", functions=(forward, inverse))
    decades = [10.0**-k for k in range(int(-np.log10(floor)), 1, -3)]
    ax.set_yticks([*decades, 0.05, 0.25, 0.5, 0.75, 1.0])
    powers = [f"10{str(int(np.log10(d))).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}" for d in decades]
    ax.set_yticklabels([*powers, "0.05", "0.25", "0.5", "0.75", "1"])
    ax.minorticks_off()
    ax.set_ylim(floor, 1.05)
    ax.axhline(0.05, label="_the line at 0.05", color="#666666", linewidth=1, linestyle=(0, (4, 3)))


def _looks(names):
    """Return seaborn's `palette` and `markers` for these methods."""
    looks = {name: look(name) for name in names}
    return {"palette": {n: s["color"] for n, s in looks.items()}, "markers": {n: s["marker"] for n, s in looks.items()}}


def _name_ends(ax, ends, colours, pad=0.012):
    """Write the names of points, {name: (x, y)}, in a column to their right, moved up or down as little as needed.
    The name of a point far from the column (a single-shot method's only point) stands beside the point itself."""
    place = ax.transData + ax.transAxes.inverted()
    at = {name: place.transform(point) for name, point in ends.items()}
    right = max(x for x, _ in at.values())
    for name in [n for n, (x, _) in at.items() if x < right - 0.2]:
        shift = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        ax.annotate(name, at.pop(name), xycoords="axes fraction", color=ink(colours[name]), **shift)
    found = sorted((y, x, name) for name, (x, y) in at.items())
    gap = 11 / 72 / (ax.get_position().height * ax.figure.get_figheight())  # a text line's share of the axis
    steps = gap * np.arange(len(found))
    fitted = optimize.isotonic_regression([y for y, _, _ in found] - steps).x
    heights = np.clip(fitted, 0, max(0, 1 - steps[-1])) + steps
    for height, (y, x, name) in zip(heights, found, strict=True):
        style, colour = {"transform": ax.transAxes, "clip_on": False}, colours[name]
        way = [x, right + pad, right + 3 * pad], [y, height, height]
        ax.plot(*way, color=colour, linewidth=0.6, alpha=0.6, **style)
        ax.text(right + 3.5 * pad, height, name, color=ink(colour), va="center", fontsize=9, **style)


def trajectories(records, title=""):
    """Plot forget quality and model utility per epoch, one line per run. The method's name stands at the end of the
    line for the first record's seed; a single-shot method is one marker."""
    measures = {"forget_quality_benchmark": "forget quality (KS p-value)", "model_utility": "model utility"}
    rows = [{"method": r.spec.method, "seed": r.spec.seed} | e for r in records for e in r.epochs]
    table = pd.DataFrame(rows)[["method", "seed", "epoch", *measures]]
    names = list(table["method"].unique())
    dashes = {name: DASHES[name.partition("+")[2]] for name in names}
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(2, figsize=(WIDE, 8.2), sharex=True)
        figure.subplots_adjust(left=0.1, right=0.86, top=0.95, bottom=0.06, hspace=0.09)
        for ax, (measure, label) in zip(axes, measures.items(), strict=True):
            scored = table.dropna(subset=[measure]).sort_values("epoch", kind="stable")
            sns.lineplot(
                scored, x="epoch", y=measure, hue="method", style="method", units="seed", estimator=None, ax=ax,
                dashes=dashes, markersize=6, linewidth=1.7, legend=False, **_looks(names),
            )  # fmt: skip
            single = scored[scored.groupby(["method", "seed"])["epoch"].transform("size") == 1]
            looks = _looks(names) | {"s": 45, "legend": False, "clip_on": False, "zorder": 3}
            if len(single):  # a line through one point is invisible
                sns.scatterplot(single, x="epoch", y=measure, hue="method", style="method", ax=ax, **looks)
            forget_quality_axis(ax) if ax is axes[0] else ax.set_ylim(0, 1)
            ax.set(ylabel=label, xlabel="epoch")
            last = scored[scored["seed"] == records[0].spec.seed].groupby("method").last()
            ends = {name: (row.epoch, max(FLOOR, row[measure])) for name, row in last.iterrows()}
            low = [name for name, (_, y) in ends.items() if ax is axes[0] and y <= FLOOR]
            if len(low) > 3:  # beside their lines these names would reach those of other lines
                ends = {name: end for name, end in ends.items() if name not in low}
                told = textwrap.fill(f"at the bottom after the last epoch: {', '.join(low)}", 70)
                ax.text(0.01, 0.97, told, transform=ax.transAxes, va="top", fontsize=9)
            if ends:
                _name_ends(ax, ends, _looks(names)["palette"])
        axes[0].set_title(title, loc="left")
    ended = table.dropna(subset=["forget_quality_benchmark"]).groupby(["method", "seed"], sort=False).last()
    ended = ended["forget_quality_benchmark"].groupby("method", sort=False).agg(stats.gmean)
    return finished(figure, names, [_sides("after the last epoch", ended.to_dict())])


def plane(panels, title="", abreast=1):
    """Plot forget quality over model utility (Fig. 3), one panel per forget set or scale; up and right is better.

    panels: {panel's name: {method: epochs, one per seed}}, as from `comparison.peaks`. The marker is at the mean of the
    utility and of log p; bars span the seeds. abreast: number of panels in a row.
    """
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    rows, columns = -(-len(panels) // abreast), min(abreast, len(panels))
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        wide, tall = (4.2 * columns if columns > 1 else WIDE), 0.9 + 4.3 * rows
        figure, axes = plt.subplots(rows, columns, figsize=(wide, tall), squeeze=False)
        figure.subplots_adjust(left=0.76 / wide, right=1 - 0.76 / wide, top=1 - 0.4 / tall, bottom=0.5 / tall)
        figure.subplots_adjust(hspace=0.24, wspace=0.4)
        for ax in axes.flat[len(panels) :]:
            ax.remove()
        for ax, (name, methods) in zip(axes.flat, panels.items(), strict=False):
            forget_quality_axis(ax)
            ax.set(xlim=(-0.02, 1))
            ax.set_title(f"{name} ({title})" if title else name, loc="left")
            _marks(ax, methods)
            ax.set(xlabel="model utility", ylabel="forget quality (KS p-value)")
    p = lambda epochs: stats.gmean([e["forget_quality_benchmark"] for e in epochs])  # noqa: E731
    return finished(figure, names, [_sides(name, {m: p(e) for m, e in of.items()}) for name, of in panels.items()])


def _sides(name, qualities):
    """Say which methods of a panel lie above 0.05 and which below; qualities: {method: forget quality}."""
    above = [m for m, p in qualities.items() if p > 0.05]
    below = [m for m in qualities if m not in above]
    said = [f"{side} 0.05: {', '.join(names)}" for side, names in (("above", above), ("below", below)) if names]
    return f"{name}: {'; '.join(said)}"


def truth_ratios(panels):
    """Plot the distribution functions of truth ratios. The largest vertical gap to the oracle's is the KS distance,
    which forget quality tests; the legend has it, to three digits. panels: {panel's name: {model: truth ratios (n,)}},
    with "oracle". A model's name may go on after a comma, as in "FKLU, 0.0004"."""
    names = list(dict.fromkeys(name for models in panels.values() for name in models))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(max(WIDE, 4.6 * len(panels)), 4.4), squeeze=False)
        for ax, (title, models) in zip(axes.flat, panels.items(), strict=True):
            for name, values in models.items():
                gap = stats.ks_2samp(values, models["oracle"]).statistic
                told = name if name == "oracle" else f"{name} ({gap:.3g})"
                line = {"linewidth": 2.4 if name == "oracle" else 1.4, "linestyle": "--" if "FKLU" in name else "-"}
                sns.ecdfplot(x=values, ax=ax, color=look(name)["color"], label=told, log_scale=True, **line)
            most = np.quantile(np.concatenate(list(models.values())), (0.002, 0.998))  # a few are far off
            ax.set(xlabel="truth ratio", ylabel="share of the questions", xlim=most)
            ax.set_title(title, loc="left")
            legend = ax.legend(title="model (KS distance)", loc="upper left", fontsize=9)
            for text, name in zip(legend.get_texts(), models, strict=True):
                text.set_color(ink(look(name)["color"]))
    return finished(figure, names)


def _marks(ax, reported):
    """Draw one panel of `plane`; reported: {method: reported epochs, one per seed}."""
    means = pd.DataFrame(index=list(reported), columns=["x", "p"], dtype=float)
    for name, epochs in reported.items():
        x, p = (np.array([e[measure] for e in epochs]) for measure in ("model_utility", "forget_quality_benchmark"))
        means.loc[name] = x.mean(), max(FLOOR, stats.gmean(p))
        low, high, bars = *np.maximum([p.min(), p.max()], FLOOR), look(name) | {"marker": "", "linestyle": "-"}
        ax.plot([x.min(), x.max()], [means.p[name]] * 2, linewidth=1, alpha=0.55, **bars)
        ax.plot([means.x[name]] * 2, [low, high], linewidth=1, alpha=0.55, **bars)
    # unclipped, so that markers at p = 1 or on the floor are drawn whole
    looks = _looks(reported) | {"s": 75, "legend": False, "clip_on": False, "zorder": 3}
    sns.scatterplot(means, x="x", y="p", hue=means.index, style=means.index, ax=ax, **looks)
    dots, colours = ax.collections[-1], [look(name)["color"] for name in reported]
    dots.set_edgecolor(colours)
    fills = {"KL": "none", "RT": "#ffffff"}
    dots.set_facecolor([fills.get(name.partition("+")[2], c) for name, c in zip(reported, colours, strict=True)])
    dots.set_linewidth([2.4 if name.endswith("+RT") else 1.5 for name in reported])
    crowd = means[means["x"] > 0.86]  # too many labels here: names go in the margin
    if len(crowd):
        _name_ends(ax, {name: (x, p) for name, x, p in crowd.itertuples()}, looks["palette"])
    spots = means.drop(crowd.index)  # marks that hide one another share a label
    spots = spots.groupby([spots["x"].round(2), spots["p"].map("{:.2g}".format)], sort=False)
    colour = lambda names: ink(looks["palette"][names[0]]) if len(names) == 1 else "#333333"  # noqa: E731
    texts = [ax.text(*s.iloc[0], ", ".join(s.index), color=colour(s.index), fontsize=9) for _, s in spots]
    lines = {"arrowstyle": "-", "color": "#7f7f7f", "linewidth": 0.6}
    # a fixed number of iterations: the default stops after a second, so a busy machine would draw another picture
    apart = {"expand": (1.25, 1.6), "force_text": (0.3, 0.5), "force_static": (0.3, 0.6), "iter_lim": 600}
    adjust_text(texts, ax=ax, objects=dots, arrowprops=lines, **apart)


def along(groups, field):
    """Plot both measures of a `runs.grid` at the reported epochs over `field`: a line per seed and, thick, their mean.
    For forget quality it is the mean of log p, as in `plane`. One seed is the thick line by itself. groups: {seed:
    records, one per value}."""
    rows = [
        {"seed": f"seed {seed}", field: r.content["settings"][field]} | r.reported()
        for seed, records in groups.items()
        for r in records
    ]
    table, seeds = pd.DataFrame(rows), [f"seed {seed}" for seed in groups]
    names = [*seeds, "mean"] if len(seeds) > 1 else seeds
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(2, figsize=(WIDE, 6.4), sharex=True)
        figure.subplots_adjust(left=0.1, right=0.9, top=0.98, bottom=0.08, hspace=0.1)
        for ax, measure in zip(axes, ("forget_quality_benchmark", "model_utility"), strict=True):
            sns.lineplot(
                table, x=field, y=measure, hue="seed", style="seed", markers=True, dashes=False, ax=ax, legend=False,
                palette=["#7c868e"] * len(groups), linewidth=1,
            )  # fmt: skip
            by_value = table.groupby(field)[measure]
            mean = by_value.mean() if measure == "model_utility" else by_value.agg(stats.gmean).clip(lower=FLOOR)
            ax.plot(mean, color=COLOURS["RKLU"], linewidth=2.6)
            lines = dict(zip(names, ax.lines[-len(names) :], strict=True))
            ax.set(xlabel=field, ylabel=measure.removesuffix("_benchmark").replace("_", " "), xticks=mean.index)
            forget_quality_axis(ax) if ax is axes[0] else ax.set_ylim(0, 1)
            ends = {name: line.get_xydata()[-1] for name, line in lines.items()}
            colours = {name: line.get_color() for name, line in lines.items()}
            _name_ends(ax, {name: (x, max(FLOOR, y)) for name, (x, y) in ends.items()}, colours)
    return finished(figure, names)


def over_knowledge(table, floor=1e-21):
    """Plot one method's rows of a `widths.table`: forget quality over what the original knew, one line per width."""
    columns = ["original", "forget quality"]
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(WIDE, 4.4))
        for (width, rows), marker in zip(table.groupby("width"), "ovs^DPX", strict=False):
            known, quality = rows.sort_values("original")[columns].T.values
            ax.plot(known, np.maximum(quality, floor), marker=marker, markersize=8, label=f"width {width}")
        forget_quality_axis(ax, floor)
        ax.set(xlabel="probability of the forget answers under the original", xlim=(0, 1.02))
        ax.set_ylabel("forget quality (KS p-value)")
        ax.legend(loc="lower left")
    return finished(figure)


def distributions(content, position, names, k=8, per_row=3):
    """Plot the k likeliest next tokens of several models at one position of an answer; the true token's bar is dark.

    content: as from `probing.token_distributions`. position: 0 is the answer's first token. names: the models shown.
    """
    with plt.rc_context(STYLE | {"axes.grid": False}):
        rows, columns = -(-len(names) // per_row), min(per_row, len(names))
        size = (WIDE * columns / per_row, (0.26 * k + 0.9) * rows)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
        figure.get_layout_engine().set(h_pad=0.12)
        for ax in axes.flat[len(names) :]:
            ax.remove()
        for ax, name in zip(axes.flat, names, strict=False):
            top = content["models"][name]["top"][position][:k][::-1]
            colours = [COLOURS["RKLU"] if text == content["tokens"][position] else "#8592a0" for text, _ in top]
            ax.barh(range(len(top)), [p for _, p in top], color=colours)
            ax.set(xlim=(0, 1), xlabel="probability", title=name)
            how = {"family": "monospace", "fontsize": 9, "parse_math": False}  # a token may be a dollar sign
            ax.set_yticks(range(len(top)), [repr(text)[1:-1].replace(" ", "␣") for text, _ in top], **how)
            ax.tick_params(axis="y", length=0)
    return finished(figure, names)


def true_token_probability(content, names):
    """Plot the probability of each true token along the answer, one line per model."""
    table = pd.DataFrame({name: content["models"][name]["true_probability"] for name in names})
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, ax = plt.subplots(figsize=(WIDE, 4.2))
        figure.subplots_adjust(left=0.09, right=0.85, top=0.97, bottom=0.3)
        dashes = {name: BASES.get(name, "") for name in names}
        sns.lineplot(table, dashes=dashes, markersize=6, legend=False, ax=ax, **_looks(names))
        ticks = [t.strip() or "·" for t in content["tokens"]]
        ax.set_xticks(range(len(ticks)), ticks, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
        ax.set(ylabel="probability of the true token", xlabel="token of the true answer", ylim=(-0.02, 1.02))
        _name_ends(ax, {name: (table.index[-1], p) for name, p in table.iloc[-1].items()}, _looks(names)["palette"])
    return finished(figure, names)
