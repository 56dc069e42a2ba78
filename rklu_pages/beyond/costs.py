"""The page *What it costs*: the benchmarks' results and the memory plan of a large model, as tables."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator
from transformers import LlamaConfig

from rklu_lib import budget, data
from rklu_lib.records import load
from rklu_pages.drawing.looks import STYLE
from rklu_pages.drawing.pictures import finished
from rklu_pages.results import comparison

GB = 1e9  # cards are sold in powers of ten
# What SmolLM2 was to take on two cores: set after a trial on a part of TOFU, and before what is measured here.
TARGETS = {
    "training, tokens a second": ("at least", 400),
    "original and oracle of one set, trained and judged, minutes": ("at most", 110),
    "full evaluation of forget10, seconds": ("at most", 240),
    "a method on forget10, judged ten times, minutes": ("at most", 35),
    "times as fast as OpenUnlearning, float32": ("at least", 4),
    "times as fast as OpenUnlearning, bf16": ("at least", 4),
}
EPOCH = 216_000  # tokens of all of TOFU as the first target counts them, 54 for each pair


def _read(results, name):
    return json.loads((data.ROOT / Path(results) / f"{name}.json").read_text(encoding="utf-8"))


def machine(results):
    """Return the machines that the benchmarks of a folder ran on, as text."""
    return "; ".join(sorted({_read(results, p.stem)["machine"] for p in (data.ROOT / Path(results)).glob("*.json")}))


def ratios(results):
    """Return one row per comparison with the naive form: seconds of both, speed ratio, and share of extra memory."""
    rows = []
    for name in ("teacher", "losses", "evaluation"):
        for case, forms in _read(results, name)["results"].items():
            other = next(v for k, v in forms.items() if k != "naive")
            rows.append(
                (
                    f"{name}, {case}",
                    forms["naive"]["seconds"],
                    other["seconds"],
                    other["times_faster"],
                    other["memory_ratio"],
                )
            )
    for shape, forms in _read(results, "training")["tokens_per_second"].items():
        naive, ours = (max(forms[form]) for form in ("naive", "ours"))
        rows.append((f"training {shape}, per 10,000 tokens", 1e4 / naive, 1e4 / ours, ours / naive, float("nan")))
    columns = ["naive, s", "ours, s", "times as fast", "extra memory, share of naive"]
    names = pd.Index([r[0].replace("_", " ") for r in rows], name="what")
    return pd.DataFrame([r[1:] for r in rows], names, columns)


def peer(results):
    """Compare OpenUnlearning's evaluation with ours on one model and the same questions: time, memory, scores."""
    (forms,) = _read(results, "openunlearning")["results"].values()
    times = {"seconds": "seconds", "cpu_seconds": "processor's seconds", "extra_mib": "extra MiB"}
    rows = {form: {said: f[k] for k, said in times.items()} | f["scores"] for form, f in forms.items()}
    return pd.DataFrame(rows).rename(index=lambda name: name.replace("_", " ")).rename_axis("what")


def spent(records):
    """Return one row per record with the time its run took: minutes of training and of judging, the number of judged
    epochs, and the machine."""
    rows = [
        (r.spec.profile, r.spec.split, r.spec.method, *(r.content["seconds"][k] / 60 for k in ("train", "evaluate")),
         len(r.epochs), r.content["machine"])
        for r in records
    ]  # fmt: skip
    names = ["scale", "set", "method"]
    columns = [*names, "training, minutes", "judging, minutes", "epochs judged", "machine"]
    return pd.DataFrame(rows, columns=columns).set_index(names)


def every(profile):
    """Return all existing records of a scale about TOFU; compute nothing."""
    specs = [spec for split in data.ORACLE_SPLIT for spec in comparison.existing(profile, split)]
    return [record for spec in specs if (record := load(spec))]


def targets(records, results):
    """Return one row per target and processor: the target, the lowest and the highest measurement in the records and
    benchmarks, and whether the worse of these meets it.

    Left out as inexact: training of forget10's oracle, of which only the second sitting is recorded, and judging TA,
    during which the machine did something else. The teacher, which is two models, is no full evaluation either."""
    speed, bases, scored, method, *peers = TARGETS
    found, pairs = [], {}
    for record in records:
        spec, seconds, machine = record.spec, record.content["seconds"], record.content["machine"]
        if spec.method in ("original", "oracle") and (spec.split, spec.method) != ("forget10", "oracle"):
            read = 1 - int(spec.split[-2:]) / 100 if spec.method == "oracle" else 1  # share of TOFU
            tokens = EPOCH * read * record.content["settings"]["finetune_epochs"]
            found.append((speed, machine, tokens / seconds["train"]))
            pairs.setdefault((spec.split, spec.seed, machine), []).append(sum(seconds.values()) / 60)
        if spec.split == "forget10" and len(record.epochs) == 10:
            found.append((method, machine, sum(seconds.values()) / 60))
        if spec.split == "forget10" and len(record.epochs) == 1 and spec.method not in ("TA", "teacher"):
            found.append((scored, machine, seconds["evaluate"]))
    found += [(bases, machine, sum(pair)) for (_, _, machine), pair in pairs.items() if len(pair) == 2]
    (forms,) = _read(results, "openunlearning")["results"].values()
    ratios = (forms[form]["times_faster"] for form in ("engine", "bf16"))
    found += [(peer, _read(results, "openunlearning")["machine"], r) for peer, r in zip(peers, ratios, strict=True)]
    table = pd.DataFrame(found, columns=["what", "processor", "measured"]).groupby(["what", "processor"]).measured
    table = table.agg(lowest="min", highest="max").reindex(list(TARGETS), level="what")
    asked = [TARGETS[what] for what, _ in table.index]
    met = [
        low >= value if bound == "at least" else high <= value
        for (bound, value), low, high in zip(asked, table.lowest, table.highest, strict=True)
    ]
    table.insert(0, "target", [f"{bound} {value}" for bound, value in asked])
    return table.assign(met=met)


def growth(results):
    """Return the measured sweep: varied quantity, its value, seconds per epoch, share of the matrix product rate."""
    rows = pd.DataFrame(_read(results, "scaling")["rows"])
    value = [row[row["varied"]] for _, row in rows.iterrows()]
    share = rows.flops / rows.matmul_rate / rows.seconds
    varied = rows.varied.replace({"hidden_size": "width", "vocab_size": "vocabulary"})
    return pd.DataFrame({"varied": varied, "value": value, "seconds": rows.seconds, "share of the product rate": share})


def exponents(table):
    """Return the slope of log seconds over log size for each quantity varied in a table of `growth`."""
    slopes = {}
    for name, part in table.groupby("varied", sort=False):
        slope = np.polyfit(np.log(part.value.astype(float)), np.log(part.seconds), 1)[0]
        slopes[name] = round(slope, 6)  # further digits differ between processors
    return pd.Series(slopes, name="exponent").rename_axis("varied").to_frame()


def plot_growth(table):
    """Plot seconds per epoch against each varied quantity, on logarithmic axes."""
    with plt.rc_context(STYLE):
        names = list(table.varied.unique())
        figure, axes = plt.subplots(1, len(names), figsize=(9.5, 3.2), sharey=True)
        for ax, name in zip(axes, names, strict=True):
            part = table[table.varied == name]
            ax.plot(part.value, part.seconds, "o-", color="#0072B2")
            ax.set(xscale="log", yscale="log", xlabel=name)
            ax.set_xticks(part.value, part.value, rotation=30)
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
        axes[0].set(ylabel="seconds per epoch")
    return finished(figure)


def memory_plan(answers=400, answer_tokens=60, bytes_each=2):
    """Return the memory (GB = 1e9 bytes) that unlearning LLaMA-2-7B needs without activations: with three models at
    once, and with the frozen teacher, whose states lie in main memory. bytes_each: bytes per weight, 2 or 4."""
    model = budget.empty(LlamaConfig())  # its defaults are the 7B shape
    parameters, head = model.num_parameters(), budget.products(model)[1]
    states = 2 * answers * answer_tokens * model.config.hidden_size
    shared = budget.held(parameters, "bfloat16" if bytes_each == 2 else "float32")
    forms = {
        "three models": shared | {"original and augmented": 2 * parameters * bytes_each},
        "frozen teacher": shared | {"output layers": 2 * head * bytes_each},
    }
    table = pd.DataFrame(forms).fillna(0).T / GB
    total, aside = table.sum(axis=1), pd.Series({"three models": 0.0, "frozen teacher": states * bytes_each / GB})
    return table.assign(total=total, **{"fits in 80 GB": total < 80, "in main memory": aside})


def lost_updates(results):
    """Return the share of weights that one AdamW step does not change, by learning rate, in bf16 and in float32."""
    rows = _read(results, "precision")["rows"]
    return pd.DataFrame(rows).pivot(index="lr", columns="dtype", values="unchanged").rename_axis("learning rate")


def followed(results):
    """Return, after 200 steps of 1e-5, the loss and the distance to float32's weights as a share of their own way."""
    rows = pd.DataFrame(_read(results, "precision")["followed"])
    table = rows.set_index(rows.weights + ", " + rows.optimiser)[["loss", "off"]].rename_axis("weights, optimiser")
    return table.rename(columns={"loss": "loss after 200 steps", "off": "share of the way off"})
