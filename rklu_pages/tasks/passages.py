"""The pages on copyrighted text: continuations of a novel by each model, and tables of the scores."""

import pandas as pd

from rklu_lib import data, evaluation, profiles, records, runs
from rklu_pages.results import paper
from rklu_pages.tasks import accuracies

SCORES = ("bleu_pct", "rouge_pct", "perplexity", "avg_accuracy_pct")
TITLES = {"bleu_pct": "BLEU, %", "rouge_pct": "ROUGE-L, %", "avg_accuracy_pct": "mean accuracy, %"}


def specs(profile, methods, seed, changes=()):
    """Return the novel's specs: the original, the oracle if the model is trained from scratch, and these methods."""
    bases = ("original",) if profiles.profile(profile).model else ("original", "oracle")
    return [runs.RunSpec(profile, data.NOVEL, name, seed, tuple(changes)) for name in (*bases, *methods)]


def continuations(specs, chunk=0, tokens=48):
    """Return for each spec {"prompt", "truth", "continuation", ...} of one chunk of the novel: the last `tokens` tokens
    of the prompt, and the first of the text and of the model's continuation. ValueError for a chunk out of range."""
    if chunk >= (n := specs[0].values.n_chunks):
        raise ValueError(f"chunk {chunk}: the profile {specs[0].profile} has those from 0 to {n - 1}")

    def note(model, tokenizer, p):
        novel = data.chunks(data.load_novel(p.text), p.n_chunks, p.chunk_tokens, tokenizer, data.novel_path(p.text))
        asked = data.passage(tokenizer, novel[chunk], p.prompt_tokens)
        said = evaluation.greedy(model, [asked.prompt], tokens, tokenizer.eos_token_id)[0]
        parts = {"prompt": asked.prompt[-tokens:], "truth": asked.answer[:tokens], "continuation": said}
        return {name: tokenizer.decode(ids, skip_special_tokens=True) for name, ids in parts.items()}

    return accuracies.asked_once(specs, f"chunk{chunk}", lambda p: {"tokens": tokens}, note)


def scores(found, noted):
    """Return {method: last epoch's scores under the paper's column names}. found: records; noted: their notes of
    `accuracies.capabilities`. Without a note (None) a method has no accuracy."""
    pairs = zip(found, noted, strict=True)
    return {accuracies.label(r.spec): r.reported("last") | (accuracies.of_note(n) if n else {}) for r, n in pairs}


def recorded_scores(profile, methods, seed):
    """Return (records, `scores`) of the existing records of a novel at another scale, or None; compute nothing."""
    found = [record for record in map(records.load, specs(profile, methods, seed)) if record]
    return (found, scores(found, accuracies.capabilities([r.spec for r in found], measure=False))) if found else None


def table(rows, reported):
    """Return Table 2, 6 or 7: for each method of `scores` the paper's four numbers (NaN: not printed) beside ours."""
    printed = paper.reported(reported).set_index("method")
    columns = {}
    for m in SCORES:
        title = TITLES.get(m, m)
        columns[title, "paper"] = {n: printed[m].get(n, float("nan")) for n in rows}
        columns[title, "ours"] = {n: r.get(m, float("nan")) for n, r in rows.items()}
    return pd.DataFrame(columns).reindex(list(rows)).rename_axis("method")


def to_the_oracle(rows):
    """Return each model's distance to the oracle, which the paper could not measure: differences in BLEU and ROUGE-L
    (per cent) and in mean chunk NLL (nats per token), and the p-value of a KS test on the chunks' NLLs."""
    if "oracle" not in rows:
        return pd.DataFrame()
    oracle, columns = rows["oracle"], {}
    for m, title in (("bleu_pct", "BLEU"), ("rouge_pct", "ROUGE-L"), ("chunk_nll", "NLL")):
        columns[f"{title}, oracle"] = {n: oracle[m] for n in rows if n != "oracle"}
        columns[f"{title}, difference"] = {n: r[m] - oracle[m] for n, r in rows.items() if n != "oracle"}
    columns["KS p"] = {n: r["forget_quality_nll"] for n, r in rows.items() if n != "oracle"}
    return pd.DataFrame(columns).reindex([n for n in rows if n != "oracle"]).rename_axis("method")


def as_text(table):
    """Return a table as text: two decimals, p-values and numbers from 10,000 on to three figures, counts whole, a dash
    for NaN. A column "x ±" is put into x's cells, after the number."""

    def text(column):
        small, values = "p" in str(column).split(), table[column].astype(float)
        whole = pd.api.types.is_integer_dtype(table[column])
        return [
            "–" if pd.isna(v) else f"{v:.0f}" if whole or row == "(items)" else f"{v:.3g}" if small or abs(v) >= 1e4
            else f"{v:.2f}" for row, v in values.items()
        ]  # fmt: skip

    columns = {c: text(c) for c in table.columns}
    for column in table.columns:
        error = (*column[:-1], f"{column[-1]} ±") if isinstance(column, tuple) else f"{column} ±"
        if error in columns:
            pairs = zip(columns[column], columns.pop(error), strict=True)
            columns[column] = [number if e == "–" else f"{number} ± {e}" for number, e in pairs]
    return pd.DataFrame(columns, index=table.index)


def side_by_side(specs, noted):
    """Return one passage as a table: the end of what is given, how the novel goes on, and how every model does."""
    said = {"given": "… " + noted[0]["prompt"], "the novel": noted[0]["truth"]}
    said |= {s.label: n["continuation"] for s, n in zip(specs, noted, strict=True)}
    words = {name: " ".join(text.split()) or "(ends at once)" for name, text in said.items()}
    return pd.Series(words, name="what is written").to_frame()


def memorised(rows):
    """Return the base models' scores on the novel, from `scores`."""
    names = [n for n in ("Original", "oracle") if n in rows]
    columns = {"bleu_pct": "BLEU, %", "rouge_pct": "ROUGE-L, %", "exact": "exact", "chunk_nll": "chunk NLL"}
    return pd.DataFrame({t: {n: rows[n][m] for n in names} for m, t in columns.items()}).reindex(names)


def per_epoch(found):
    """Return BLEU and perplexity after every epoch: rows are epochs, columns (measure, method)."""
    columns = {}
    for m in ("bleu_pct", "perplexity"):
        for record in found:
            if record.spec.method not in records.BASES:
                columns[TITLES.get(m, m), record.spec.method] = {e["epoch"]: e[m] for e in record.epochs}
    return pd.DataFrame(columns).rename_axis("epoch")
