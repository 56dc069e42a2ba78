"""The pages on general capability and copyrighted text: what is asked of each model once, and the tables of it."""

import contextlib
import json

import numpy as np
import pandas as pd

from rklu_lib import data, evaluation, models, records, runs
from rklu_pages import paper, suite

SCORES = ("bleu_pct", "rouge_pct", "perplexity", "avg_accuracy_pct")
TITLES = {"bleu_pct": "BLEU, %", "rouge_pct": "ROUGE-L, %", "avg_accuracy_pct": "mean accuracy, %"}


def _path(spec, name):
    return spec.record_path.with_name(f"{name}-seed{spec.seed}.json")


def _settings(spec, extra):
    return json.loads(json.dumps(spec.settings | extra))


def _read(spec, name, extra):
    """What was noted of a model, or None where nothing was, or of a model or suite with other settings."""
    with contextlib.suppress(FileNotFoundError):
        content = json.loads(_path(spec, name).read_text(encoding="utf-8"))
        return content if content["settings"] == _settings(spec, extra) else None


def _noted(specs, name, extra, note):
    """For each spec what `note(model, tokenizer, profile)`, a dict, says of its model after the last epoch: asked once,
    and kept as `<name>-seed<k>.json` beside the record, with `extra(profile)` among the settings it belongs to."""
    specs = list(specs)
    if missing := [s for s in specs if _read(s, name, extra(s.values)) is None]:
        runs.ensure(missing, checkpoints=True)
    for spec in missing:
        said = note(*models.load(spec.checkpoint_path, spec.values.dtype), spec.values)
        content = {"settings": _settings(spec, extra(spec.values))} | said
        records.write_json(_path(spec, name), content | {"code": records.code_version(), "machine": records.machine()})
    return [_read(s, name, extra(s.values)) for s in specs]


def _asked(profile):
    return {"capability": profile.capability, "n_items": profile.n_items}


def noted_accuracy(spec):
    """{"avg_accuracy_pct": ...} where a model's capability has been noted, else {}."""
    noted = _read(spec, "capability", _asked(spec.values))
    return {"avg_accuracy_pct": mean_accuracy(noted)["accuracy"]} if noted else {}


def capabilities(specs):
    """For each spec {"tasks": {task: {"accuracy", "chance", "n"}}, ...}: `suite.measure` of its model."""

    def note(model, tokenizer, p):
        return {"tasks": suite.measure(model, tokenizer, p)}

    return _noted(specs, "capability", _asked, note)


def continuations(specs, chunk=0, tokens=48):
    """For each spec of the novel {"prompt", "truth", "continuation", ...}: the end of one chunk's prompt, how the text
    goes on and how the model does, so many tokens of each: an excerpt, not the chunk."""

    def note(model, tokenizer, p):
        novel = data.load_chunks(data.novel_path(p.text), p.n_chunks, p.chunk_tokens, tokenizer=tokenizer)
        asked = data.passage(tokenizer, novel[chunk], p.prompt_tokens)
        said = evaluation.greedy(model, [asked.prompt], tokens, tokenizer.eos_token_id)[0]
        parts = {"prompt": asked.prompt[-tokens:], "truth": asked.answer[:tokens], "continuation": said}
        return {name: tokenizer.decode(ids, skip_special_tokens=True) for name, ids in parts.items()}

    return _noted(specs, f"chunk{chunk}", lambda p: {"tokens": tokens}, note)


def _label(spec):
    return "Original" if spec.method == "original" else spec.method


def mean_accuracy(noted):
    """The mean over tasks, and that of guessing, in per cent."""
    tasks = noted["tasks"].values()
    return {k: 100 * float(np.mean([t[k] for t in tasks])) for k in ("accuracy", "chance")}


def by_task(specs, noted):
    """Accuracy in per cent: a row for each model and for guessing, a column for each task and for their mean."""
    pairs = zip(specs, noted, strict=True)
    rows = {_label(s): {t: 100 * v["accuracy"] for t, v in n["tasks"].items()} for s, n in pairs}
    rows["(guessing)"] = {t: 100 * v["chance"] for t, v in noted[0]["tasks"].items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["(items)"] = {t: v["n"] for t, v in noted[0]["tasks"].items()}
    means = table.drop(index="(items)").mean(axis=1)
    return table.assign(mean=means.reindex(table.index))


def accuracies(by_split):
    """{method: {"avg_accuracy_pct"}} of the last split of {split: (specs, notes)}, and "<method> on <split>" of all, as
    the claims name them."""
    cell = {}
    for split, (specs, noted) in by_split.items():
        mine = {
            _label(s): {"avg_accuracy_pct": mean_accuracy(n)["accuracy"]} for s, n in zip(specs, noted, strict=True)
        }
        cell |= mine | {f"{name} on {split}": value for name, value in mine.items()}
    return cell


def table1(by_split):
    """Table 1: mean accuracy in per cent, the paper's and ours, for each split of {split: (specs, notes)}."""
    printed = paper.reported("table1")
    columns = {}
    for split, (specs, noted) in by_split.items():
        known = printed[printed["set"] == split].set_index("method")["avg_accuracy_pct"]
        ours = {_label(s): mean_accuracy(n)["accuracy"] for s, n in zip(specs, noted, strict=True)}
        columns[split, "paper"] = {name: known.get(name, float("nan")) for name in ours}
        columns[split, "ours"] = ours
        columns[split, "chance"] = dict.fromkeys(ours, mean_accuracy(noted[0])["chance"])
    return pd.DataFrame(columns).rename_axis("method")


def scores(found, noted):
    """{method: its last epoch's scores under the paper's column names}, of records and what `capabilities` noted."""
    rows = {}
    for record, note in zip(found, noted, strict=True):
        accuracy = mean_accuracy(note)
        rows[_label(record.spec)] = record.reported("last") | {
            "avg_accuracy_pct": accuracy["accuracy"], "chance_pct": accuracy["chance"]
        }  # fmt: skip
    return rows


def table(rows, reported):
    """Tables 2, 6 and 7: for each row of `scores` the paper's four numbers (NaN: not printed) beside ours."""
    printed = paper.reported(reported).set_index("method")
    columns = {}
    for m in SCORES:
        title = TITLES.get(m, m)
        columns[title, "paper"] = {n: printed[m].get(n, float("nan")) for n in rows}
        columns[title, "ours"] = {n: r[m] for n, r in rows.items()}
    return pd.DataFrame(columns).reindex(list(rows)).rename_axis("method")


def to_the_oracle(rows):
    """What the paper could not measure: each model's distance to one that never read the novel. Differences in BLEU and
    ROUGE-L (per cent), in mean chunk NLL (nats per token), and the p-value of a KS test on chunk NLLs."""
    if "oracle" not in rows:
        return pd.DataFrame()
    oracle, columns = rows["oracle"], {}
    for m, title in (("bleu_pct", "BLEU"), ("rouge_pct", "ROUGE-L"), ("chunk_nll", "NLL")):
        columns[f"{title}, oracle"] = {n: oracle[m] for n in rows if n != "oracle"}
        columns[f"{title}, difference"] = {n: r[m] - oracle[m] for n, r in rows.items() if n != "oracle"}
    columns["KS p"] = {n: r["forget_quality_nll"] for n, r in rows.items() if n != "oracle"}
    return pd.DataFrame(columns).reindex([n for n in rows if n != "oracle"]).rename_axis("method")


def as_text(table):
    """A table as text: two decimals, p-values and large numbers to three figures, a dash where there is none."""

    def text(column):
        small, values = "KS p" in str(column), table[column].astype(float)
        return ["–" if pd.isna(v) else f"{v:.3g}" if small or abs(v) >= 1e4 else f"{v:.2f}" for v in values]

    return pd.DataFrame({c: text(c) for c in table.columns}, index=table.index)


def side_by_side(specs, noted):
    """One passage continued by every model: what all were given, how the text goes on, what each said."""
    said = {"given": "… " + noted[0]["prompt"], "the text": noted[0]["truth"]}
    said |= {_label(s): n["continuation"] for s, n in zip(specs, noted, strict=True)}
    words = {name: " ".join(text.split()) or "(ends at once)" for name, text in said.items()}
    return pd.Series(words, name="words").to_frame()


def memorised(rows):
    """How well the base models know the novel, of `scores`."""
    names = [n for n in ("Original", "oracle") if n in rows]
    columns = {"bleu_pct": "BLEU, %", "rouge_pct": "ROUGE-L, %", "exact": "exact", "chunk_nll": "chunk NLL"}
    return pd.DataFrame({t: {n: rows[n][m] for n in names} for m, t in columns.items()}).reindex(names)


def per_epoch(found):
    """BLEU and perplexity after every epoch: rows are epochs, columns (measure, method)."""
    columns = {}
    for m in ("bleu_pct", "perplexity"):
        for record in found:
            if record.spec.method not in records.BASES:
                columns[TITLES.get(m, m), record.spec.method] = {e["epoch"]: e[m] for e in record.epochs}
    return pd.DataFrame(columns).rename_axis("epoch")
