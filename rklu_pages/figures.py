"""The book's figures, from records. One style, one colour per method all through, told apart without colour too."""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

# Okabe and Ito's colour-blind-safe palette; a family keeps its colour, its retain term changes the line.
COLOURS = {
    "RKLU": "#0072B2", "FKLU": "#56B4E9", "GA": "#D55E00", "NPO": "#E69F00", "DPO": "#CC79A7", "IDK": "#8a5a83",
    "SimNPO": "#b8860b", "UNDIAL": "#4b0082", "WGA": "#8b0000", "JS": "#20b2aa",
    "TA": "#009E73", "teacher": "#6b6b00", "original": "#444444", "augmented": "#7f7f7f", "oracle": "#000000",
}  # fmt: skip
MARKERS = {
    "RKLU": "o", "FKLU": "s", "GA": "v", "NPO": "^", "DPO": "D", "IDK": "P", "TA": "X", "teacher": "*", "original": "H",
}  # fmt: skip
LINES = {"": "-", "KL": "--", "RT": ":"}
FLOOR = 1e-12  # of p where its logarithm is drawn
STYLE = {
    "figure.dpi": 110, "savefig.dpi": 110, "figure.facecolor": "white", "axes.facecolor": "white", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "axes.axisbelow": True, "legend.frameon": False, "svg.hashsalt": "rklu", "figure.constrained_layout.use": True,
}  # fmt: skip


def finished(figure):
    """A notebook shows the figure a cell returns; left open, pyplot would show it a second time."""
    plt.close(figure)
    return figure


def look(name):
    """Colour, marker and line style of a method such as "NPO+RT"."""
    family, _, retain = name.partition("+")
    return {"color": COLOURS[family], "marker": MARKERS.get(family, "."), "linestyle": LINES[retain]}


def forget_quality_axis(ax, floor=FLOOR):
    """The paper's double scale (Fig. 3): logarithmic below p = 0.05, linear above it, with the line at 0.05 drawn."""
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
    ax.set_yticklabels([*(f"$10^{{{int(np.log10(d))}}}$" for d in decades), "0.05", "0.25", "0.5", "0.75", "1"])
    ax.minorticks_off()
    ax.set_ylim(floor, 1.05)
    ax.axhline(0.05, color="#666666", linewidth=1, linestyle=(0, (4, 3)))


def trajectories(records, title=""):
    """Forget quality and model utility per epoch, one line per run, which of several seeds the first names in the
    legend; a single-shot method is one marker."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2))
        for record in records:
            label = record.spec.method if record.spec.seed == records[0].spec.seed else "_other seed"
            style = look(record.spec.method) | {"label": label, "markersize": 5}
            for ax, measure in ((left, "forget_quality_benchmark"), (right, "model_utility")):
                scored = [(e["epoch"], e[measure]) for e in record.epochs if measure in e]
                ax.plot(*zip(*scored, strict=True), **style)
        forget_quality_axis(left)
        left.set(xlabel="epoch", ylabel="forget quality (KS p-value)")
        right.set(xlabel="epoch", ylabel="model utility", ylim=(0, 1))
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
        figure.suptitle(title)
    return finished(figure)


def plane(groups, title=""):
    """Fig. 3's plane, one panel per forget split, at the reported (peak) epochs: up and to the right is better.

    groups: {split: {name: records, one per seed}}. The marker is the mean utility and mean log p; bars span the seeds.
    """
    with plt.rc_context(STYLE):
        size = (6.4 if len(groups) == 1 else 2 + 2.6 * len(groups), 4.8)
        figure, axes = plt.subplots(1, len(groups), figsize=size, sharey=True, squeeze=False)
        handles = {}
        for ax, (split, methods) in zip(axes.flat, groups.items(), strict=True):
            for name, records in methods.items():
                handles[name] = _mark(ax, name, [r.reported() for r in records])
            forget_quality_axis(ax)
            ax.set(xlabel="model utility", title=split, xlim=(-0.02, 1))
        axes[0, 0].set_ylabel("forget quality (KS p-value)")
        figure.legend(handles.values(), handles, loc="outside right upper")
        figure.suptitle(title)
    return finished(figure)


def _mark(ax, name, reported):
    """One method in `plane`, of its epochs reported. Returns the marker."""
    x = np.array([e["model_utility"] for e in reported])
    y = np.array([e["forget_quality_benchmark"] for e in reported])
    style, retain = look(name) | {"linestyle": "", "markersize": 8}, name.partition("+")[2]
    style["markerfacecolor"] = {"": style["color"], "KL": "none", "RT": "white"}[retain]
    style["markeredgewidth"] = 2.6 if retain == "RT" else 1.6
    style |= {"clip_on": False, "zorder": 3}  # a marker at p = 1 or on the floor is drawn whole
    at, y = (x.mean(), max(FLOOR, stats.gmean(y))), np.maximum(y, FLOOR)
    bars = {"color": style["color"], "linewidth": 1, "alpha": 0.6}
    ax.plot([x.min(), x.max()], [at[1]] * 2, **bars)
    ax.plot([at[0]] * 2, [y.min(), y.max()], **bars)
    return ax.plot(*at, **style)[0]


def along(groups, field):
    """Both measures of a `runs.grid` at the reported epochs over the field: a line for each seed and, thick, their mean
    (of log p on the left, as in `plane`). groups: {seed: records, one per value}."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8))
        for ax, measure in zip(axes, ("forget_quality_benchmark", "model_utility"), strict=True):
            lines = np.array([[r.reported()[measure] for r in records] for records in groups.values()])
            x = [r.content["settings"][field] for r in next(iter(groups.values()))]
            mean = lines.mean(0) if measure == "model_utility" else np.maximum(stats.gmean(lines), FLOOR)
            for seed, line, marker in zip(groups, lines, "ov^sDPX", strict=False):
                ax.plot(x, line, color="#8a949c", linewidth=1, marker=marker, markersize=5, label=f"seed {seed}")
            ax.plot(x, mean, color=COLOURS["RKLU"], linewidth=2.4, label="mean")
            ax.set(xlabel=field, ylabel=measure.removesuffix("_benchmark").replace("_", " "), xticks=x)
        forget_quality_axis(axes[0])
        axes[1].set_ylim(0, 1)
        axes[1].legend(loc="lower right")
    return finished(figure)


def over_knowledge(table, floor=1e-21):
    """Forget quality over what the original knew, of one method's rows of a `widths.table`: a line per width."""
    columns = ["original", "forget quality"]
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(6.4, 4.2))
        for (width, rows), marker in zip(table.groupby("width"), "ovs^DPX", strict=False):
            known, quality = rows.sort_values("original")[columns].T.values
            ax.plot(known, np.maximum(quality, floor), marker=marker, markersize=8, label=f"width {width}")
        forget_quality_axis(ax, floor)
        ax.set(xlabel="probability of the forget answers under the original", xlim=(0, 1.02))
        ax.set_ylabel("forget quality (KS p-value)")
        ax.legend(loc="lower left")
    return finished(figure)


def distributions(content, position, names, k=8, per_row=5):
    """The likeliest next tokens of several models at one position of an answer, side by side; the true token is dark.

    content: as from `probing.token_distributions`. position: 0 is the answer's first token. names: which models.
    """
    with plt.rc_context(STYLE | {"axes.grid": False}):
        rows, columns = -(-len(names) // per_row), min(per_row, len(names))
        size = (2.4 * columns, (0.3 * k + 1.1) * rows)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
        for ax in axes.flat[len(names) :]:
            ax.remove()
        for ax, name in zip(axes.flat, names, strict=False):
            top = content["models"][name]["top"][position][:k][::-1]
            colours = [COLOURS["RKLU"] if text == content["tokens"][position] else "#b9c4cc" for text, _ in top]
            ax.barh(range(len(top)), [p for _, p in top], color=colours)
            ax.set(xlim=(0, 1), xlabel="probability", title=name)
            ax.set_yticks(range(len(top)), [repr(text)[1:-1] for text, _ in top], family="monospace", fontsize=8)
            ax.tick_params(axis="y", length=0)
    return finished(figure)


def true_token_probability(content, names):
    """The probability of each true token along the answer, one line per model."""
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(9.5, 3.2))
        for name in names:
            style = look(name) | {"linestyle": "-", "markersize": 4, "label": name}
            ax.plot(content["models"][name]["true_probability"], **style)
        ax.set_xticks(
            range(len(content["tokens"])), [t.strip() or "·" for t in content["tokens"]], rotation=60, ha="right"
        )
        ax.set(ylabel="probability of the true token", ylim=(-0.02, 1.02))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return finished(figure)
