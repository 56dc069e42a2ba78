"""`rklu unlearn` in a notebook, for the reader's own model: a form, a live chart, and tables of the report."""

import html
import json
import math
import shutil
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from IPython.display import HTML, DisplayHandle

from rklu_lib import bases, data, models, profiles, training, unlearn
from rklu_lib.own import inputs, jobs
from rklu_lib.own.report import COLOURS as SIDES
from rklu_pages.drawing import widgets
from rklu_pages.drawing.looks import COLOURS, STYLE
from rklu_pages.drawing.pictures import finished

EXAMPLE = data.ROOT / "data" / "records" / "smollm2" / "own" / "report.json"


def report(model, forget, out, **options):
    """Return the report of `rklu_lib.unlearn`, and show a chart that grows by a point per epoch while it runs.

    Where both model and forget are empty, return the recorded example. Empty options ("", 0) are not passed on.
    Raises ValueError where only one of the two is empty, and whatever `unlearn` raises."""
    if not (model or forget):
        return json.loads(EXAMPLE.read_text(encoding="utf-8"))
    if not (model and forget):
        raise ValueError(f"{'forget' if model else 'model'} is empty; name both, or neither to see the example")
    options = {k: v for k, v in options.items() if v or v is False}
    shown = DisplayHandle()
    shown.display(HTML(chart([])))
    follow = lambda notes: shown.update(HTML(chart(notes, options.get("target"))))  # noqa: E731
    return unlearn(model, forget, out, on_epoch=follow, **options)


def make_example(folder):
    """Make the recorded example again, in `folder`: SmolLM2 learns ten of TOFU's authors and unlearns the last of them;
    three of the others are watched. This takes an hour or two on two cores; the same call resumes it.

    The reference is the downloaded model, which never saw these authors: its probability of the answers is the target.
    """
    how = {"finetune_lr": 3e-4, "augment_lr": 3e-4, "finetune_batch_size": 8, "batch_size": 4}  # of few answers
    how |= {"finetune_precision": "no", "precision": "no", "micro_batch_size": 8, "max_new_tokens": 96}
    p = profiles.profile("smollm2", **how)
    rows, asked = data.load_tofu("forget05", p.source), data.load_tofu("forget05_perturbed", p.source)
    folder, original = Path(folder), Path(folder) / "ten-authors"
    if not original.exists():
        model, tokenizer = models.load(p.model, p.dtype)
        examples, state = bases.encoded(p, tokenizer, rows), folder / "state"
        how = {"epochs": p.finetune_epochs, "lr": p.finetune_lr, "batch_size": p.finetune_batch_size, "seed": 0}
        training.finetune(model, examples, p, **how, folder=state)
        models.save(model, tokenizer, original)
    told = [row | {"paraphrases": [again["paraphrased_question"]]} for row, again in zip(rows, asked, strict=True)]
    how = {"watch": rows[-80:-20], "reference": str(models.resolve(p.model)), "profile": p, "redact": False}
    how |= {"epochs": 6, "probes": 6}
    resume = jobs.unfinished(folder / "nine-authors").exists()
    unlearn(str(original), told[-20:], folder / "nine-authors", **how, resumable=True, resume=resume)
    EXAMPLE.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "nine-authors" / "report.json", EXAMPLE)


def progress(notes, target=None):
    """Plot after each epoch the mean probability of the forgotten answers and the largest rise of a perplexity in per
    cent. notes: the report's "epochs". target: the probability at which training stops."""
    table = pd.DataFrame(notes or [{"epoch": 1, "forget_probability": np.nan, "perplexity_rise": np.nan}])
    table["epoch"] = np.arange(1, len(table) + 1)
    table["rise"] = 100 * table["perplexity_rise"].astype(float)  # null is infinite, which JSON lacks
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2))
        for ax, column, colour in ((left, "forget_probability", "RKLU"), (right, "rise", "GA")):
            seaborn.lineplot(table, x="epoch", y=column, marker="o", color=COLOURS[colour], ax=ax)
            ax.set(xlim=(0.7, max(2, len(table)) + 0.3), xticks=range(1, max(2, len(table)) + 1))
        height = 1.1 * np.nanmax([target or 1e-3, *table.forget_probability])
        left.set(ylabel="probability, forgotten answers", ylim=(0, height))
        right.set(ylabel="largest rise of a perplexity, %")
        if target is not None:
            left.axhline(target, color="#666666", linewidth=1, linestyle=(0, (4, 3)))
            left.annotate("target", (0.99, target), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    return finished(figure)


def chart(notes, target=None):
    """Return `progress` as HTML, with the last values in words below it."""
    told = "no epoch yet"
    if notes:
        told = "epoch {}: probability {:.3g}, rise of a perplexity {:.1%}".format(
            len(notes), notes[-1]["forget_probability"], notes[-1]["perplexity_rise"]
        )
    return f"{progress(notes, target)._repr_mimebundle_()['text/html']}<p>{told}</p>"


def summary(found):
    """Return a report's main measurements as a table: one row each, columns before, after and reference."""
    rows = {"mean probability of a forgotten token": found["probability"]}
    if found.get("paraphrased"):
        rows[f"the same, paraphrased questions ({found['paraphrased']['n']})"] = found["paraphrased"]
    if found["leak"]:
        rows[f"answers that leak, of {found['leak']['after']['n']} probed"] = {
            side: leak["hits"] for side, leak in found["leak"].items()
        }
    for name, told in found["elsewhere"].items():
        rows[f"perplexity, {name} ({told['n']})"] = told["perplexity"]
        rows[f"mean probability of a token, {name}"] = told["probability"]
    if found["membership"]:
        rows["membership inference, AUC"] = found["membership"]
    columns = ["before", "after", "reference"]
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("measured")
    return table[[c for c in columns if c in table]]


def verdict(found):
    """Return the outcome of a report as a list of sentences."""
    told, rule, lines = found["probability"], found["rule"], []
    if rule["target"] is not None:
        reached = "were brought down to" if rule["met"] else "stayed above"
        level = f"their mean probability is {told['after']:.2g} per token, the target {rule['target']:.2g}"
        lines.append(f"The forgotten answers {reached} the target: {level}.")
    else:
        lines.append(f"The forgotten answers went from {told['before']:.2g} to {told['after']:.2g} per token.")
    if found["leak"]:
        lines.append(
            "Of {n} probed answers {hits} still leak (95 %: {low:.0%} to {high:.0%}).".format(**found["leak"]["after"])
        )
    for name, part in found["elsewhere"].items():
        after = part["perplexity"]["after"]
        rise = (math.inf if after is None else after) / part["perplexity"]["before"] - 1  # null: JSON has no infinity
        what = {"retain": "the retain file", "watch": "the watched answers", "prose": "other prose"}[name]
        lines.append(f"The perplexity of {what} changed by {rise:+.0%}.")
    kept = found["rounding"]["copies"]["4-bit"]["kept"]
    if kept is not None:
        lines.append(f"With weights rounded to four bits, {kept:.0%} of the unlearning remains, in log-probability.")
    return lines


def answers(found, n=5):
    """Return the first n probed answers as a table: the question, the true answer, and what the model said before and
    after unlearning."""
    probed = [a for a in found["answers"] if "after" in a][:n]
    rows = [(a["question"] or a["where"], a["answer"], *(a[s]["greedy"] for s in ("before", "after"))) for a in probed]
    return pd.DataFrame(rows, columns=["question", "what was to be forgotten", "before", "after"])


def explorer(found):
    """Return the token-distribution widget for the answers whose distributions a report holds."""
    return widgets.TokenDistributions(found["distributions"], models=list(SIDES), colours=SIDES)


def controls(model="", forget="", out="unlearned", **options):
    """Return a form for JupyterLab: model, file, method, alpha, epochs, target; a live chart; the report's summary.

    A click trains in the kernel; an error is shown in one line. options: further options of `rklu_lib.unlearn`.
    """
    style = {"description_width": "7em"}
    files = sorted(str(p) for kind in inputs.KINDS for p in Path().glob(f"*{kind}"))
    fields = {
        "model": ipywidgets.Text(model, description="model", placeholder="a folder, or owner/name", style=style),
        "forget": ipywidgets.Combobox(value=forget, options=files, description="forget set", style=style,
                                      placeholder="pairs, chats or documents: .jsonl, .csv, .parquet, .txt"),
        "out": ipywidgets.Text(out, description="write to", style=style),
        "method": ipywidgets.Dropdown(options=["RKLU", "FKLU", "NPO", "GA"], description="method", style=style),
        "alpha": ipywidgets.FloatSlider(8, min=0.5, max=16, step=0.5, description="alpha", style=style),
        "epochs": ipywidgets.IntSlider(5, min=1, max=20, description="epochs", style=style),
        "target": ipywidgets.FloatLogSlider(0.05, min=-4, max=0, description="stop at p =", style=style),
    }  # fmt: skip
    for field in fields.values():
        field.layout.width = "36em"
    button = ipywidgets.Button(description="Unlearn", button_style="primary")
    bar, said, drawn = ipywidgets.IntProgress(), ipywidgets.HTML(), ipywidgets.HTML()
    form = ipywidgets.VBox([*fields.values(), button, bar, said, drawn])

    def on_stage(name, steps, done):
        said.value, bar.max, bar.value = html.escape(name), steps or 1, done

        def step():
            bar.value += 1

        return step

    def clicked(_):
        asked = {name: field.value for name, field in fields.items()}
        asked["target"] = min(asked["target"], 0.999)
        button.disabled, drawn.value = True, chart([])
        follow = lambda notes: setattr(drawn, "value", chart(notes, asked["target"]))  # noqa: E731
        try:
            found = unlearn(**asked, on_stage=on_stage, on_epoch=follow, **options)
        except (ValueError, OSError, FloatingPointError) as error:
            said.value = f'<span role="alert">{html.escape(str(error))}</span>'
        else:
            told = summary(found).to_html(border=0, na_rep="–", float_format="{:.3g}".format)
            said.value = f"{told}The report: <code>{html.escape(str(Path(asked['out']) / 'report.html'))}</code>"
            form.children = [*form.children, explorer(found)] if found["distributions"] else form.children
        button.disabled = False

    button.on_click(clicked)
    return form
