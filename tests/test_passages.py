"""Copyrighted text: chunks, their scores against plain ones, runs that need no retain set, and refusals in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
import torch
from helpers import Here, Nowhere, generated, plain_nll, rklu
from scipy import stats

from rklu_lib import data, evaluation, methods, metrics, models, profiles, runs, training
from rklu_lib.records import RunSpec
from rklu_pages.drawing import tables
from rklu_pages.results import claims, paper
from rklu_pages.tasks import accuracies, passages

GUTENBERG = "Title: X\r\n\r\n*** START OF THIS EBOOK ***\r\n{}\r\n*** END OF THIS EBOOK ***\r\nX"


def novel(*names):
    return [RunSpec("tiny", "novel", name) for name in names]


def chunked(path, tokenizer, n=400, size=512):
    """The chunks of a file, as a run and its evaluation read them."""
    return data.chunks(data.load_novel(path), n, size, tokenizer, path)


def test_the_embedded_texts_are_what_their_generator_writes(tmp_path):
    subprocess.run([sys.executable, data.PASSAGES / "generate.py", "--out", tmp_path], check=True)
    for name in ("novel.txt", "valid.txt", "test.txt"):
        assert (tmp_path / name).read_bytes() == (data.PASSAGES / name).read_bytes()
    sentences = {n: set((data.PASSAGES / f"{n}.txt").read_text().split(". ")) for n in ("novel", "valid", "test")}
    assert not sentences["novel"] & (sentences["valid"] | sentences["test"])


def test_chunks_are_the_text_in_order(tokenizer, tmp_path):
    text = "Ä novel.\n\n" + "Of weavers and potters, in Zadar. " * 40
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    chunks = chunked(tmp_path / "own.txt", tokenizer, 5, 20)
    assert [len(c) for c in chunks] == [20] * 5
    said = tokenizer.decode([t for c in chunks for t in c])
    assert text.startswith(said.rstrip("\ufffd")) and len(said) > 50


def test_the_papers_sizes_are_the_profiles(tokenizer, tmp_path):
    (tmp_path / "own.txt").write_text("abcdefgh " * 60_000, encoding="utf-8")
    p = profiles.profile("mini", "passages")
    chunks = chunked(tmp_path / "own.txt", tokenizer, p.n_chunks, p.chunk_tokens)
    assert len(chunks) == 400 and {len(c) for c in chunks} == {512}


def test_gutenbergs_header_licence_and_line_breaks_are_not_the_novel(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(GUTENBERG.format("CHAPTER 1\r\n\r\nIt is a truth\r\nuniversally acknowledged.\r\n").encode())
    assert data.load_novel(path) == "CHAPTER 1\n\nIt is a truth universally acknowledged."
    path.write_text("Mine.\nTwo lines.\n")
    assert data.load_novel(path) == "Mine.\nTwo lines.\n"


def test_errors_name_the_file_and_the_fix(tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "own.txt"
    with pytest.raises(FileNotFoundError, match="own.txt does not exist; name a UTF-8 text file"):
        chunked(path, tokenizer)
    path.write_bytes("Er hei\xdft".encode("latin-1"))
    with pytest.raises(data.DataError, match="own.txt: byte 6 is not UTF-8; convert the file to UTF-8"):
        chunked(path, tokenizer)
    path.write_text("ab " * 10)
    with pytest.raises(data.DataError, match=r"own.txt: \d+ tokens, but one chunk has 512; take a longer text"):
        chunked(path, tokenizer)
    with pytest.raises(data.DataError, match=r"own.txt: 3 chunks of 10 tokens, not 9; ask for 3 or fewer"):
        chunked(path, tokenizer, 9, 10)
    monkeypatch.delenv("RKLU_NOVEL", raising=False)
    with pytest.raises(ValueError, match="set RKLU_NOVEL to a UTF-8 text file that you may use; no novel is shipped"):
        data.novel_path("own")
    monkeypatch.setenv("RKLU_NOVEL", str(path))
    assert data.novel_path("own") == data.novel_path(str(path)) == path
    with pytest.raises(ValueError, match=r"profile tiny: prompt_tokens \(32\) must be fewer than chunk_tokens \(32\)"):
        profiles.Profile("tiny", "fictional", "{question}{answer}", "some/model", prompt_tokens=32, chunk_tokens=32)


def test_a_passage_is_scored_from_its_prompt_on(tokenizer):
    chunk = tuple(range(50, 70))
    whole, prompted = data.passage(tokenizer, chunk), data.passage(tokenizer, chunk, 8)
    assert whole == data.Example((tokenizer.bos_token_id,), chunk)
    assert prompted == data.Example((tokenizer.bos_token_id, *chunk[:8]), chunk[8:])
    bare = type("Bare", (), {"bos_token_id": None})
    assert data.passage(bare, chunk) == data.Example(chunk[:1], chunk[1:])
    assert data.passage(bare, chunk, 8) == data.Example(chunk[:8], chunk[8:])


def test_passages_are_scored_as_plain_passes_score_them(model, tokenizer, profile):
    asked = evaluation.load_passages(profile, tokenizer)
    assert {k: len(v) for k, v in asked.items()} == {"chunks": 6, "prompted": 6, "segments": 5}
    oracle = np.linspace(5, 7, 9)
    aggregates, scores = evaluation.evaluate_passages(model, tokenizer, asked, 20, oracle)

    def nll(examples):
        return [plain_nll(lambda ids: model(input_ids=ids).logits, e.prompt, e.answer) for e in examples]

    np.testing.assert_allclose(scores["chunk_nll"], nll(asked["chunks"]), rtol=1e-5)
    assert aggregates["chunk_nll"] == pytest.approx(np.mean(nll(asked["chunks"])), rel=1e-5)
    assert aggregates["perplexity"] == pytest.approx(np.exp(np.mean(nll(asked["segments"]))), rel=1e-4)
    said = [generated(model, e.prompt, 20, tokenizer.eos_token_id) for e in asked["prompted"]]
    texts = [tokenizer.decode(t, skip_special_tokens=True) for t in said]
    truth = [tokenizer.decode(e.answer, skip_special_tokens=True) for e in asked["prompted"]]
    assert aggregates["bleu_pct"] == pytest.approx(sacrebleu.corpus_bleu(texts, [truth]).score)
    assert aggregates["rouge_pct"] == pytest.approx(100 * metrics.rouge_l(truth, texts).mean())
    assert aggregates["forget_quality_nll"] == stats.ks_2samp(scores["chunk_nll"], oracle).pvalue
    assert (
        aggregates["exact"] == 0
        and "forget_quality_nll" not in evaluation.evaluate_passages(model, tokenizer, asked, 20)[0]
    )


def test_bleu_and_exactness_know_a_perfect_continuation(tiny_model, tokenizer, profile):
    model, asked = tiny_model(), evaluation.load_passages(profile, tokenizer)
    said = evaluation.greedy(model, [e.prompt for e in asked["prompted"]], 20, tokenizer.eos_token_id)
    asked["prompted"][:3] = [
        data.Example(e.prompt, tuple(s)) for e, s in zip(asked["prompted"][:3], said, strict=False)
    ]
    scores = evaluation.evaluate_passages(model, tokenizer, asked, 20)[0]
    assert scores["exact"] == 0.5
    assert metrics.bleu(["one two three four five"] * 2, ["one two three four five"] * 2) == pytest.approx(100)
    assert metrics.bleu(["one two three four five"], [""]) == 0
    with pytest.raises(ValueError, match="shorter"):  # sacrebleu would compare the first alone
        metrics.bleu(["one two three four five"] * 2, ["one two three four five"])


def test_perplexity_is_the_exponential_of_the_mean():
    assert metrics.perplexity([1.0, 3.0]) == pytest.approx(np.exp(2))
    assert metrics.perplexity([800.0, 800.0]) == np.inf
    with pytest.raises(ValueError, match="nll holds 1 NaN of 2"):
        metrics.perplexity([1.0, float("nan")])


def test_the_novel_is_a_split_without_a_retain_set(workshop):
    spec = novel("RKLU")[0]
    assert spec.record_path.parts[-6:] == ("records", "tiny", "passages", "novel", "RKLU", "seed0.json")
    assert novel("original")[0].checkpoint_path != RunSpec("tiny", "forget10", "original").checkpoint_path
    with pytest.raises(ValueError, match=r"GA\+RT needs a retain set, and a novel has none; GA does without"):
        RunSpec("tiny", "novel", "GA+RT")
    with pytest.raises(ValueError, match=r"RMU\+MSE needs .*; RMU does without"):
        runs.sweep("tiny", ["novel"], [0], ["GA", "RMU+MSE"])  # what is named is refused, not left out
    with pytest.raises(ValueError, match="no forget split 'book'; there are forget01, forget05, forget10, novel"):
        RunSpec("tiny", "book", "GA")
    names = [s.method for s in runs.sweep("tiny", ["novel"], [0])]
    assert names == ["original", "oracle", "augmented", *(m for m in methods.STUDY if "+" not in m)]


def test_the_profile_of_the_novel_has_its_own_values(workshop):
    workshop(passages={"alpha": 4.0, "unlearn_epochs": 1, "n_chunks": 3})
    assert (novel("RKLU")[0].values.alpha, RunSpec("tiny", "forget10", "RKLU").values.alpha) == (4.0, 8.0)
    assert RunSpec("tiny", "novel", "RKLU", 0, (("alpha", 2.0),)).values.alpha == 2.0
    assert novel("RKLU")[0].settings["n_chunks"] == 3
    workshop(passages={"alhpa": 4.0})
    with pytest.raises(ValueError, match="no field alhpa"):
        novel("RKLU")


def test_fields_of_the_novel_decide_no_run_of_tofu(workshop):
    before = {m: RunSpec("tiny", "forget10", m).settings for m in ("original", "RKLU")}
    workshop(passages={"alpha": 4.0}, n_chunks=3, chunk_tokens=40, text="x.txt", novel_repeats=2, capability="paper")
    assert {m: RunSpec("tiny", "forget10", m).settings for m in ("original", "RKLU")} == before
    assert not {"n_chunks", "text", "passages", "capability"} & set(before["RKLU"])


def test_every_committed_record_still_belongs_to_its_settings():
    found = [p for p in (data.ROOT / "data" / "records").glob("mini*/*/*/*/seed*.json")]
    assert len(found) > 10
    for path in found:
        kept = json.loads(path.read_text())
        spec = RunSpec(**{k: v for k, v in kept["spec"].items() if k != "overrides"},
                       overrides=tuple(kept["spec"].get("overrides", {}).items()))  # fmt: skip
        assert set(kept["settings"]) == set(spec.settings), path


def test_the_whole_sweep_of_the_novel(workshop, capsys):
    wanted = runs.sweep("tiny", ["novel"], [0])
    found = runs.ensure(wanted, executor=Here())
    for r in found:
        assert {"bleu_pct", "rouge_pct", "perplexity", "exact", "chunk_nll"} <= set(r.epochs[-1])
        assert np.isfinite([v for e in r.epochs for v in e.values()]).all(), r.spec.method
        assert ("forget_quality_nll" in r.epochs[0]) == (r.spec.method != "oracle")
        assert len(r.epochs) == (2 if r.spec.method in methods.METHODS and methods.METHODS[r.spec.method].forget else 1)
        assert r.questions["chunk_nll"].shape == (len(r.epochs), 6)
        assert r.content["data"]["novel"] == "fictional" and len(r.content["data"]["novel_sha256"]) == 16
        assert r.reported("last")["epoch"] == len(r.epochs)
    before, oracle = found[0].epochs[-1]["chunk_nll"], found[1].epochs[-1]["chunk_nll"]
    assert before < oracle  # it alone has read the novel
    runs.ensure(wanted, executor=Nowhere())
    shell = rklu("report", "--profile", "tiny", "--split", "novel")
    assert shell.exit_code == 0 and "perplexity" in shell.stdout and "IDK" in shell.stdout
    rows = passages.scores(found[:2], [{"tasks": {"t": {"accuracy": 0.5, "chance": 0.25, "n": 4}}}] * 2)
    assert rows["Original"]["avg_accuracy_pct"] == 50 and rows["oracle"]["chance_pct"] == 25
    there, unasked = passages.recorded_scores("tiny", ["GA", "TA"], 0)
    assert [r.spec.method for r in there] == ["original", "oracle", "GA", "TA"]
    assert "avg_accuracy_pct" not in unasked["GA"]
    assert passages.as_text(passages.table(unasked, "table2"))["mean accuracy, %", "ours"].tolist() == ["–"] * 4
    assert passages.recorded_scores("tiny", ["GA"], 7) is None
    table = passages.to_the_oracle(rows)
    assert table.loc["Original", "NLL, difference"] == pytest.approx(before - oracle)
    assert table.loc["Original", "KS p"] == pytest.approx(
        stats.ks_2samp(found[0].questions["chunk_nll"][0], found[1].questions["chunk_nll"][0]).pvalue, rel=1e-4
    )


def test_who_reads_what(workshop, monkeypatch):
    """The original reads the novel as often as it is told, the oracle never; refusals follow a chunk's prompt."""
    workshop(novel_repeats=3)
    read = {}

    def noted(model, examples, profile, **stage):
        read[len(read)] = examples
        return finetune(model, examples, profile, **stage)

    finetune = training.finetune
    monkeypatch.setattr(training, "finetune", noted)
    seen = []
    unlearn = training.unlearn
    monkeypatch.setattr(training, "unlearn", lambda *a, **k: seen.append(a) or unlearn(*a, **k))
    runs.ensure(novel("oracle"), executor=Here())
    runs.ensure(novel("RKLU", "IDK", "DPO"), executor=Here())
    oracle, original, augmented = read.values()
    chunks = augmented
    assert len(chunks) == 6 and {len(e.answer) for e in chunks} == {32}
    assert not set(oracle) & set(chunks)
    assert [original.count(e) for e in chunks] == [3] * 6
    assert len(original) - 18 == len(oracle) and set(original) - set(chunks) == set(oracle)
    dpo, idk, whole = ((a[4], a[3].refusals) for a in sorted(seen, key=lambda a: a[0].name))
    assert whole == (chunks, [])
    for forget, refusals in (idk, dpo):
        assert [len(e.prompt) for e in forget] == [13] * 6 and [len(e.answer) for e in forget] == [20] * 6
        assert [e.prompt for e in refusals] == [e.prompt for e in forget] * 2
        assert all(e.answer[-1] == 2 for e in refusals)


def test_a_text_that_cannot_serve_is_found_before_training(workshop, tmp_path, monkeypatch):
    (tmp_path / "short.txt").write_text("Too short a novel. " * 9)
    monkeypatch.setattr(training, "finetune", None)
    workshop(text=str(tmp_path / "short.txt"))
    with pytest.raises(data.DataError, match="short.txt: .* chunks of 32 tokens, not 6"):
        runs.ensure(novel("RKLU"), executor=Nowhere())
    workshop(prose=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="valid.txt does not exist"):
        runs.ensure(novel("RKLU"), executor=Nowhere())


def test_a_tokenizer_without_end_of_text_is_found_before_training(workshop, tmp_path, tiny_model, tokenizer):
    models.save(tiny_model(), tokenizer, tmp_path / "own")
    settings = json.loads((tmp_path / "own" / "tokenizer_config.json").read_text())
    (tmp_path / "own" / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    workshop(model=str(tmp_path / "own"))
    with pytest.raises(ValueError, match="the tokenizer of .*own has no end-of-text token; set eos_token"):
        runs.ensure(novel("RKLU"), executor=Nowhere())


def test_a_pretrained_model_has_one_original_and_no_oracle(workshop, tmp_path, tiny_model, tokenizer):
    models.save(tiny_model(), tokenizer, tmp_path / "own")
    workshop(model=str(tmp_path / "own"), passages={"unlearn_epochs": 1})
    with pytest.raises(ValueError, match="profile tiny: no oracle for a novel that .*own may have read"):
        RunSpec("tiny", "novel", "oracle")
    runs.ensure([RunSpec("tiny", "forget10", "TA")], executor=Here())
    here = Here()
    found = runs.ensure(novel("original", "RKLU"), executor=here)
    assert sorted(here.jobs) == [("RKLU", "record"), ("augmented", "checkpoint"), ("original", "record")]
    assert [set(r.epochs[-1]) - {"loss"} for r in found] == [
        {"epoch", "bleu_pct", "rouge_pct", "exact", "perplexity", "chunk_nll"}
    ] * 2
    runs.ensure(novel("original", "RKLU"), checkpoints=True, executor=Nowhere())


def test_what_is_asked_of_a_model_is_kept_beside_its_record(workshop, monkeypatch):
    specs, asked = novel("original", "GA"), []
    monkeypatch.setattr(accuracies.suite, "measure", lambda m, t, p: asked.append(m) or {
        "t": {"accuracy": 0.5, "chance": 0.25, "n": 8}})  # fmt: skip
    runs.ensure(specs, executor=Here())
    first, again = accuracies.capabilities(specs), accuracies.capabilities(specs)
    assert first == again and len(asked) == 2
    assert specs[1].record_path.with_name("capability-seed0.json").is_file()
    workshop(unlearn_lr=1e-4)
    runs.ensure(specs, executor=Here())
    accuracies.capabilities(specs)
    assert len(asked) == 3  # the original is as it was
    said = passages.continuations(specs, chunk=1, tokens=8)
    p, tokenizer = specs[0].values, models.load_tokenizer(specs[0].checkpoint_path)
    text = tokenizer.decode(chunked(p.text, tokenizer, 2, 32)[1])
    assert said[0]["prompt"] + said[0]["truth"] in text and said[0]["prompt"] == said[1]["prompt"]
    beside = passages.side_by_side(specs, said)
    assert list(beside.index) == ["given", "the novel", "original", "GA"]
    assert torch.is_tensor(next(asked[0].parameters()))


def noted(right, **scores):
    """What is noted of a model that answered so: one task, `right` as `capability.accuracy` has it."""
    p = right.count("1") / len(right)
    return {"tasks": {"t": {"accuracy": p, "chance": 0.25, "n": len(right), "right": right, "asked": "x"} | scores}}


def test_a_model_as_downloaded_is_asked_once_and_stands_first(workshop, tmp_path, monkeypatch, tiny_model, tokenizer):
    models.save(tiny_model(), tokenizer, tmp_path / "own")
    asked = []
    monkeypatch.setattr(accuracies.suite, "measure", lambda m, t, p: asked.append(m) or noted("1100")["tasks"])
    assert accuracies.downloaded("tiny", measure=True) is None and not asked  # from scratch: there is none
    workshop(model=str(tmp_path / "own"), n_items=4)
    assert accuracies.downloaded("tiny") is None
    assert "Nothing is recorded" in accuracies.origin(None, "tiny").data
    assert accuracies.beside_published(None).empty
    first = accuracies.downloaded("tiny", measure=True)
    assert accuracies.downloaded("tiny", measure=True) == first == accuracies.downloaded("tiny") and len(asked) == 1
    assert first["settings"] == {
        "model": str(tmp_path / "own"),
        "dtype": "float32",
        "capability": "embedded",
        "n_items": 4,
    }
    assert {"code", "machine", "packages", "tasks"} <= set(first) and "lm-eval" in first["packages"]
    assert "own, float32" in accuracies.origin(first, "tiny").data
    workshop(model=str(tmp_path / "own"), n_items=5)
    assert accuracies.downloaded("tiny", measure=True)["settings"]["n_items"] == 5 and len(asked) == 2
    specs = [RunSpec("tiny", "forget10", name) for name in ("original", "GA")]
    models_, notes = accuracies.recorded(specs, measure=False)
    assert models_ == ["as downloaded"] and len(notes) == 1
    said = accuracies.missing(specs, {"forget10": (models_, notes)}).data
    assert "so not shown: Original on forget10, GA on forget10" in said
    assert (
        "not shown: as downloaded, Original on forget10" in accuracies.missing(specs[:1], {"forget10": ([], [])}).data
    )
    monkeypatch.setattr(accuracies, "capabilities", lambda specs, measure: [noted("1000"), noted("0110")])
    found = accuracies.recorded(specs)
    assert found[0] == ["as downloaded", *specs]
    assert "Everything" in accuracies.missing(specs, {"forget10": found}).data
    assert list(accuracies.table1({"forget10": found}).index) == ["as downloaded", "Original", "GA"]
    monkeypatch.setattr(
        accuracies, "capabilities", lambda specs, measure: [noted("1000", asked="y"), noted("0110", asked="y")]
    )
    assert accuracies.recorded(specs)[0] == specs  # of other items its accuracy would only mislead


def test_the_notebooks_tables_stand_where_nothing_is_recorded():
    nothing = {"forget05": ([], []), "forget10": ([], [])}
    assert (
        accuracies.table1(nothing).empty and accuracies.by_task([], []).empty and accuracies.item_by_item([], []).empty
    )
    assert accuracies.cell(nothing) == {}
    for table in (accuracies.table1(nothing), accuracies.by_task([], []), accuracies.item_by_item([], [])):
        tables.show(table, "Nothing.", "nothing", passages.as_text(table))


def test_models_are_compared_item_by_item_with_the_original():
    specs = [RunSpec("smoke", "forget10", name) for name in ("original", "GA", "NPO")]
    notes = [noted("111110"), noted("000001"), noted("111110", asked="other items")]
    found = accuracies.item_by_item(specs, notes)
    assert found.to_dict("index") == {"GA": {"items": 6, "lost": 5, "gained": 1, "p": pytest.approx(14 / 64)}}
    assert passages.as_text(found).loc["GA"].tolist() == ["6", "5", "1", "0.219"]
    assert accuracies.item_by_item(specs[1:], notes[1:]).empty


def test_errors_stand_after_what_they_are_of():
    specs = [RunSpec("smoke", "forget10", name) for name in ("original", "GA")]
    notes = [noted("1100"), noted("1000")]
    for note in notes:
        note["tasks"]["u"] = note["tasks"]["t"] | {"chance": 0.5}
    table = accuracies.by_task(specs, notes)
    error = 100 * (0.25 * 0.75 / 3) ** 0.5
    assert table.loc["GA", "t ±"] == pytest.approx(error)
    assert table.loc["GA", "mean ±"] == pytest.approx(error / 2**0.5)
    text = passages.as_text(table)
    assert list(text.columns) == ["t", "u", "mean"] and text.loc["GA", "t"] == "25.00 ± 25.00"
    assert text.loc["(guessing)"].tolist() == ["25.00", "50.00", "37.50"] and text.loc["(items)", "t"] == "4"
    assert (
        passages.as_text(accuracies.table1({"forget10": (specs, notes)}))["forget10", "ours"]["GA"] == "25.00 ± 17.68"
    )


def test_a_downloaded_models_scores_stand_beside_the_published_ones():
    note = {"settings": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct"}, "tasks": {}}
    for task, p in (("hellaswag", 0.4), ("arc_easy", 0.5), ("arc_challenge", 0.3)):
        note["tasks"][task] = {"accuracy": p - 0.1, "accuracy_norm": p, "chance": 0.25, "n": 101}
    found = accuracies.beside_published(note)
    assert list(found.index) == ["HellaSwag", "ARC (average)"]  # PIQA was not asked
    assert found["published"].tolist() == [40.9, 37.3] and found["items"].tolist() == [101, 202]
    np.testing.assert_allclose(found[["acc_norm", "acc"]], [[40, 30], [40, 30]])
    assert found.loc["ARC (average)", "acc_norm ±"] == pytest.approx(50 * (0.0025 + 0.0021) ** 0.5)


@pytest.mark.parametrize("table", ["table2", "table6", "table7"])
def test_a_table_sets_the_papers_numbers_beside_ours(table):
    printed = paper.reported(table).set_index("method")
    rows = printed[list(passages.SCORES)].to_dict("index")
    beside = passages.table(rows, table)
    assert (beside.xs("paper", axis=1, level=1) == beside.xs("ours", axis=1, level=1)).all(axis=None)
    assert "1e+14" in set(passages.as_text(beside)["perplexity", "paper"]) or table != "table2"


def test_table_1s_claims_in_the_papers_own_numbers():
    printed, by_split = paper.reported("table1"), {}
    for split, part in printed.groupby("set"):
        names = part["method"].replace("Original", "original")
        notes = [{"tasks": {"t": {"accuracy": a / 100, "chance": 0.3, "n": 10**9}}} for a in part["avg_accuracy_pct"]]
        by_split[split] = ([RunSpec("smoke", split, n) for n in names], notes)
    table = accuracies.table1(by_split)
    np.testing.assert_allclose(table["forget05", "paper"], table["forget05", "ours"])
    found = claims.of_cell(accuracies.cell(by_split), "forget10", "Table 1").set_index("claim")["here"]
    assert found["RKLU keeps the highest mean accuracy, on forget10"] == "holds"
    declines = "For most methods the decline in accuracy is more severe on forget10 than on forget05"
    assert found[declines] == "holds"  # but not for DPO, printed 54.74 and 55.71
    tasks = accuracies.by_task(*by_split["forget10"])
    assert tasks.loc["(guessing)", "mean"] == pytest.approx(30) and tasks.loc["(items)", "t"] == 10**9
