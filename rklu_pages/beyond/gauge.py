"""A constant added to all logits changes Eq. 1's teacher but no probability: does augmentation move it?"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from rklu_lib import data, runs
from rklu_lib.teacher import GAUGES, FrozenLogits, teacher_logits
from rklu_pages.drawing.looks import COLOURS, STYLE
from rklu_pages.drawing.pictures import finished
from rklu_pages.results import comparison, notes
from rklu_pages.results.verdicts import FAILS, HOLDS
from rklu_pages.tasks import loading

PERCENT = np.arange(101)
LINES = {"original": "-", "raw": "-", "centred": "--", "normalised": ":"}


@torch.no_grad()
def _tokens(original, augmented, true, alpha):
    """Return {quantity: (tokens,)} from both models' logits (tokens, vocab) and the true tokens' ids (tokens,)."""

    def of_true(values):
        return values.gather(1, true[:, None])[:, 0]

    found = {
        "mean logit, rise": augmented.mean(-1) - original.mean(-1),
        "log-partition, rise": augmented.logsumexp(-1) - original.logsumexp(-1),
        "true logit, rise": of_true(augmented - original),
        "true token's probability, original": of_true(original.softmax(-1)),
    }
    for name, fix in GAUGES.items():
        found[f"vocabulary lowered, {name}"] = (fix(augmented) > fix(original)).double().mean(-1)
        teacher = teacher_logits(original, augmented, alpha, name)
        found[f"true token's probability, {name}"] = of_true(teacher.softmax(-1))
    return found


def levels(profile, split, seed=0):
    """Return what augmentation did to the logits at the answer tokens of a forget set; read from its record if any.

    Returns {"tokens": number, "mean": {quantity: mean}, "percentiles": {quantity: values at 0, ..., 100 %}, ...}. The
    quantities are rises from the original to the augmented model, in nats, and for each gauge (`teacher.GAUGES`) two
    shares: the part of the vocabulary that Eq. 1 would lower, and its teacher's probability of the true token.
    """
    spec = runs.named(profile, split, "teacher", seed)
    path = spec.record_path.with_name(f"gauge-seed{seed}.json")
    content = notes.read(path)
    if content.get("settings") == spec.settings:
        return content
    loaded, tokenizer = loading.load_models(profile, split, ["original", "augmented"], seed)
    p = spec.values
    rows = data.load_tofu(split, p.source)
    examples = [data.encode(tokenizer, p.template, r["question"], r["answer"]) for r in rows]
    frozen = [FrozenLogits(model, data.batches(examples, 64)) for model in loaded.values()]
    parts = []
    for i, example in enumerate(examples):
        logits = [f.at([i])(0, None).double().cpu() for f in frozen]
        parts.append(_tokens(*logits, torch.tensor(example.answer), p.alpha))
    found = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    content = {
        "settings": spec.settings,
        "tokens": len(found["mean logit, rise"]),
        "mean": {name: float(f"{values.mean():.6g}") for name, values in found.items()},
        "percentiles": {n: [float(f"{v:.5g}") for v in np.percentile(values, PERCENT)] for n, values in found.items()},
    }
    return notes.write(path, content | {"data": data.describe_source(p.source)}, indent=None)


def table(content, percents=(5, 25, 50, 75, 95)):
    """Return the mean and some percentiles of every quantity of `levels`."""
    rows = {
        name: {"mean": content["mean"][name]} | {f"{p} %": values[p] for p in percents}
        for name, values in content["percentiles"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("at the answers' tokens")


def plot(content):
    """Plot distribution functions over the answer tokens: of rises (left), of the true token's probability (right)."""
    curves, share = content["percentiles"], PERCENT / 100
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
        for name, colour, line in (
            ("mean logit", "TA", "--"),
            ("log-partition", "GA", ":"),
            ("true logit", "RKLU", "-"),
        ):
            left.plot(curves[f"{name}, rise"], share, color=COLOURS[colour], linestyle=line, label=name)
        left.axvline(0, color="#999999", linewidth=0.8)
        left.set(xlabel="rise by augmentation, nats", ylabel="share of tokens below", xlim=(-2, 8))
        for name, line in LINES.items():
            colour = COLOURS["original" if name == "original" else "teacher"]
            label = name if name == "original" else f"teacher, {name}"
            style = {"linewidth": 5, "alpha": 0.4} if name == "raw" else {}  # the centred one lies on it
            curve = curves[f"true token's probability, {name}"]
            right.plot(curve, share, color=colour, linestyle=line, label=label, **style)
        right.set(xlabel="probability of the true token", xlim=(-0.01, 1.01))
        for ax in (left, right):
            ax.legend()
    return finished(figure)


def verdicts(content, found):
    """Decide the page's statements by `levels` and by records (`found`) of RKLU and the teacher in several gauges."""
    mean, half = content["mean"], {n: values[50] for n, values in content["percentiles"].items()}
    scores = {r.spec.label: comparison.ours(r) for r in found}
    kept = {label: s["forget_probability"] for label, s in scores.items()}
    rise, level = abs(mean["mean logit, rise"]), mean["log-partition, rise"]
    before = half["true token's probability, original"]
    after = {name: half[f"true token's probability, {name}"] for name in GAUGES}
    rows = [
        (
            "The mean logit moves by less than a tenth of what the log-partition does",
            rise < 0.1 * level,
            f"mean {mean['mean logit, rise']:+.2g}, log-partition {level:+.2g} nats",
        ),
        (
            "With centred logits, the teacher leaves the median true token as improbable as with raw ones (to 0.05)",
            abs(after["centred"] - after["raw"]) < 0.05,
            f"raw {after['raw']:.2g}, centred {after['centred']:.2g}",
        ),
        (
            "With normalised logits, the teacher leaves the median true token more than half of its probability",
            after["normalised"] > before / 2,
            f"original {before:.3g}, normalised {after['normalised']:.3g}",
        ),
        *(
            (
                f"With {name} logits RKLU forgets: its answers are less than half as probable as with normalised ones",
                kept[f"RKLU{suffix}"] < kept["RKLU,gauge=normalised"] / 2,
                f"{name} {kept[f'RKLU{suffix}']:.2g}, normalised {kept['RKLU,gauge=normalised']:.2g}",
            )
            for name, suffix in (("raw", ""), ("centred", ",gauge=centred"))
            if {f"RKLU{suffix}", "RKLU,gauge=normalised"} <= set(kept)
        ),
    ]
    table = pd.DataFrame(rows, columns=["statement", "here", "numbers"])
    return table.assign(here=table["here"].map({True: HOLDS, False: FAILS}))
