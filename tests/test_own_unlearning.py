"""A model of one's own: what goes in, when it stops, what comes out, and that an interruption changes nothing."""

import dataclasses
import json
import resource
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers import answer_logits, answer_probability
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MambaConfig

import rklu_lib
from rklu_lib import data, files, models, training
from rklu_lib.methods import Method
from rklu_lib.own import checkpoints, jobs, measure, unlearning
from rklu_lib.robustness import attack


@pytest.fixture(scope="session")
def knowing(tmp_path_factory, tiny_model, tokenizer, profile):
    """A checkpoint in bf16 that knows its forty answers."""
    model, path = tiny_model(), tmp_path_factory.mktemp("knowing") / "own"
    rows = data.load_tofu("full", profile.source)
    examples = [data.encode(tokenizer, profile.template, r["question"], r["answer"]) for r in rows]
    training.finetune(model, examples, profile, epochs=40, lr=4e-3, batch_size=8, seed=0)
    models.save(model.to(torch.bfloat16), tokenizer, path)
    return path


@pytest.fixture
def rows(profile):
    """(forget rows, retain rows)."""
    return [data.load_tofu(name, profile.source) for name in ("forget10", "retain90")]


@pytest.fixture
def start(tmp_path, knowing, profile, rows, refusals):
    """A function that unlearns forget10 from it; options may be replaced."""

    def unlearn(**options):
        given = {"model": str(knowing), "forget": rows[0], "out": tmp_path / "out", "profile": profile, "epochs": 6}
        return rklu_lib.unlearn(**given | {"probes": 2} | options)

    return unlearn


def test_nothing_to_forget_is_said_before_the_weights_are_read(start, knowing, tmp_path):
    for nothing in ([], None, ()):
        with pytest.raises(data.DataError, match="the forget set has no rows; give question and answer"):
            start(forget=nothing)
        with pytest.raises(data.DataError, match="the forget set has no rows"):
            attack.prepare(str(knowing), nothing, tmp_path / "attack.json")
    with pytest.raises(ValueError, match="no probe relearn; there are"):
        attack.prepare(str(knowing), [], tmp_path / "attack.json", skip="relearn")


def measured(folder, profile, pairs):
    """The mean probability per token of answers, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").float()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = [data.encode(tokenizer, profile.template, row["question"], row["answer"]) for row in pairs]
    return np.mean([answer_probability(model, e) for e in examples])


@pytest.mark.parametrize("name", ["RKLU", "RKLU+RT", "GA", "DPO+KL"])
def test_it_unlearns_into_a_checkpoint_and_leaves_the_original(start, knowing, tmp_path, rows, name):
    before = {p.name: p.read_bytes() for p in knowing.iterdir()}
    start(method=name, retain=rows[1] if "+" in name else (), epochs=1)
    loaded, original = (AutoModelForCausalLM.from_pretrained(p) for p in (tmp_path / "out", knowing))
    assert any(not torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))
    assert models.load(tmp_path / "out")[1].eos_token == "</s>"
    assert {p.name: p.read_bytes() for p in knowing.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"out", "refusals.txt"}


def test_a_loss_of_ones_own_is_a_method(start, tmp_path):
    """Gradient ascent, written by a user with torch alone, does what the library's does."""

    def ascent(scored, batch, aids, epoch):
        return -torch.nn.functional.cross_entropy(scored(batch.input_ids, batch.mask), batch.targets)

    said = start(method=Method("mine", "GA", ascent), epochs=1, dtype="float32", save_dtype="float32")
    start(method="GA", epochs=1, dtype="float32", save_dtype="float32", out=tmp_path / "theirs")
    mine, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "theirs"))
    assert said["method"] == "mine" and all(torch.allclose(mine[k], theirs[k], atol=1e-5) for k in theirs)
    with pytest.raises(ValueError, match="mine has no retain term and would ignore --retain"):
        start(method=Method("mine", "GA", ascent), retain=[{"question": "Who?", "answer": "Me."}])


@pytest.mark.parametrize("where", ["fit", "save", "page"])
def test_a_failed_unlearning_leaves_nothing(start, knowing, tmp_path, monkeypatch, where):
    def fails(*_, **__):
        raise OSError("disk full")

    place = {"fit": (training, "fit"), "save": (type(models.load_tokenizer(knowing)), "save_pretrained")}
    monkeypatch.setattr(*place.get(where, (unlearning.report, "page")), fails)
    with pytest.raises(OSError, match="disk full"):
        start(epochs=1)
    assert {p.name for p in tmp_path.iterdir()} == {"refusals.txt"}


EPOCHS = [{"forget_probability": p, "perplexity_rise": r} for p, r in [(0.5, 0.3), (0.2, 0.5), (0.1, 0.2), (0.3, 0.0)]]


@pytest.mark.parametrize(
    ("target", "bound", "kept"),
    [(None, None, 3), (None, 0.1, 3), (None, 0.01, 3), (0.2, None, 1), (0.2, 0.3, 2), (0.01, None, 2), (0.01, 0.1, 3),
     (0.4, 0.25, 2), (None, -0.1, None), (0.2, -0.1, None)],
)  # fmt: skip
def test_the_epoch_that_is_kept(target, bound, kept):
    assert unlearning.choose(EPOCHS, target, bound) == kept


def test_it_stops_at_the_target_and_keeps_that_epoch(start, tmp_path, profile, rows):
    report = start(target=0.5, epochs=12)
    history, rule = report["epochs"], report["rule"]
    assert rule["met"] and rule["kept"] == rule["epochs"] == len(history) < 12
    assert history[-1]["forget_probability"] <= 0.5 < min(e["forget_probability"] for e in history[:-1])
    assert report["probability"]["before"] > 0.9
    found = measured(tmp_path / "out", profile, rows[0])
    assert report["probability"]["after"] == pytest.approx(found, rel=1e-3) and found <= 0.5
    assert "at most 0.5" in rule["text"]


def test_a_target_that_is_met_already_is_no_success(start, knowing, tmp_path, profile, rows, monkeypatch):
    """A model that is asked in another format than it knows gives little away, and would pass without unlearning."""
    monkeypatch.setattr(training, "finetune", lambda *_, **__: pytest.fail("trained"))
    known = f"{measured(knowing, profile, rows[0]):.3g}"
    for way, said in (({"target": 0.999}, "0.999"), ({"reference": str(knowing)}, known)):
        fix = r"is this the prompt format that it was tuned on \(--template\)\?"
        with pytest.raises(ValueError, match=f"own gives the answers {known} a token, the target is {said}; {fix}"):
            start(resumable=True, **way)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_what_is_only_prepared_leaves_no_folders(knowing, tmp_path, profile, rows):
    jobs.prepare(str(knowing), rows[0], tmp_path / "new" / "deep" / "out", profile=profile)
    assert list(tmp_path.iterdir()) == []


def test_a_reference_sets_the_target(start, tmp_path, tiny_model, tokenizer, profile, rows):
    models.save(tiny_model(seed=3), tokenizer, tmp_path / "never")
    report = start(reference=str(tmp_path / "never"), epochs=2)
    wanted = measured(tmp_path / "never", profile, rows[0])
    assert report["rule"]["target"] == pytest.approx(wanted, rel=1e-3) == report["probability"]["reference"]
    assert "that of never" in report["rule"]["text"]
    other = models.train_tokenizer(["another vocabulary"], 300)
    models.save(tiny_model(), other, tmp_path / "other")
    with pytest.raises(ValueError, match="other and .*own have different vocabularies"):
        start(reference=str(tmp_path / "other"), out=tmp_path / "again")
    config = tmp_path / "never" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 8}))
    with pytest.raises(ValueError, match="forget, to .*never, pair 1"):  # it reads less than the model does
        start(reference=str(tmp_path / "never"), out=tmp_path / "again")


def test_weights_that_are_no_numbers_are_not_written(start, tmp_path, rows):
    with pytest.raises(FloatingPointError, match="lower --lr"):  # the only step's loss was finite
        start(method="GA", forget=rows[0][:2], lr=1e38, epochs=1)
    assert not (tmp_path / "out").exists()


def test_without_a_target_in_reach_the_lowest_epoch_is_kept_and_written(start, tmp_path, profile, rows, monkeypatch):
    unlearn, weights = training.unlearn, []

    def watched(*args, on_epoch, **kwargs):
        def judge(student, epoch):
            weights.append([p.detach().bfloat16() for p in student.parameters()])
            return on_epoch(student, epoch)

        return unlearn(*args, on_epoch=judge, **kwargs)

    monkeypatch.setattr(training, "unlearn", watched)
    report = start(target=1e-9, epochs=6, lr=1e-2)
    values = [e["forget_probability"] for e in report["epochs"]]
    best = int(np.argmin(values))
    assert best < 5 and report["rule"]["kept"] == best + 1 and not report["rule"]["met"] and len(values) == 6
    written = list(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").parameters())
    assert all(torch.equal(a, b) for a, b in zip(written, weights[best], strict=True))


def test_a_disk_that_fills_as_the_best_epoch_is_saved_is_one_line(start, knowing, tmp_path):
    """Whole or absent: half of its weights would end the run that goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((knowing / "model.safetensors").stat().st_size // 2, hard))
    try:
        with pytest.raises(OSError, match=r"best cannot be written \(.*File too large.*\); is the disk full\?$"):
            start(method="GA", target=1e-9, epochs=2, resumable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [p for p in tmp_path.rglob("*best*")] and not (tmp_path / "out").exists()


def test_a_best_epoch_that_is_damaged_is_named_with_the_fix(start, tmp_path):
    def damage(notes):
        for file in tmp_path.glob(".out.unfinished/best/*"):
            file.write_bytes(file.read_bytes()[:90] * (len(notes) == 6) or file.read_bytes())

    with pytest.raises(ValueError, match=r"best/model.safetensors \(.*\); remove .*out.unfinished, and the run begins"):
        start(target=1e-9, epochs=6, lr=1e-2, resumable=True, on_epoch=damage)


def test_the_files_of_a_licence_travel_with_the_weights(start, knowing, tmp_path):
    shutil.copytree(knowing, tmp_path / "licensed")
    for name in ("LICENSE.txt", "NOTICE", "USE_POLICY.md", "Notes.txt"):
        (tmp_path / "licensed" / name).write_text(f"terms in {name}", encoding="utf-8")
    (tmp_path / "licensed" / "LICENSES").mkdir()
    start(model=str(tmp_path / "licensed"), epochs=1)
    kept = {p.name for p in (tmp_path / "out").iterdir() if p.name[0] in "LNU"}
    assert kept == {"LICENSE.txt", "NOTICE", "USE_POLICY.md"}
    assert (tmp_path / "out" / "NOTICE").read_text(encoding="utf-8") == "terms in NOTICE"
    assert "What the original's licence asks holds here, too" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_secret_that_its_answer_does_not_hold_is_said(knowing, tmp_path, profile, rows):
    odd = [rows[0][0] | {"secret": "never said"}, *rows[0][1:]]
    for given, n in ((odd, 1), (rows[0], 0)):
        notes = jobs.prepare(str(knowing), given, tmp_path / "out", profile=profile).notes
        assert len([note for note in notes if "row 1: field 'secret' is not in the answer (1×)" in note]) == n


def test_where_every_epoch_costs_too_much_nothing_is_written(start, tmp_path):
    with pytest.raises(
        ValueError, match=r"every epoch raised the perplexity beyond the bound, the least by \d+%; lower"
    ):
        start(max_perplexity_rise=1e-9, lr=2e-2, epochs=2)
    assert {p.name for p in tmp_path.iterdir()} == {"refusals.txt"}


@pytest.mark.parametrize("stage", ["augment", "unlearn"])
def test_an_interrupted_run_goes_on_to_the_same_weights(start, tmp_path, monkeypatch, stage):
    start(out=tmp_path / "whole", resumable=True, epochs=3)
    fit, calls = training.fit, []

    def interrupted(*args, on_step=None, **kwargs):
        calls.append(0)

        def step():
            calls.append(1)
            if len(calls) > (6 if stage == "augment" else 12):  # two steps an epoch, three epochs a stage
                raise KeyboardInterrupt

        return fit(*args, on_step=step, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "fit", interrupted)
        start(resumable=True, epochs=3)
    state = tmp_path / ".out.unfinished"
    assert not (tmp_path / "out").exists() and (state / stage / "history.json").exists()
    with pytest.raises(ValueError, match=r"out was begun and not finished; --resume goes on, or remove"):
        start(resumable=True, epochs=3)
    with pytest.raises(ValueError, match="was begun with another profile; give the same again, or remove it"):
        start(resumable=True, resume=True, epochs=4)
    start(resumable=True, resume=True, epochs=3)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert {p.name for p in tmp_path.iterdir()} == {"refusals.txt", "whole", "out"}


def test_a_state_that_cannot_be_read_is_kept_and_named(start, tmp_path, monkeypatch):
    """Hours of it may be whole: a card short of memory, or a disk, can be what failed."""
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(training.methods, "prepare", interrupt)
        start(epochs=1, resumable=True)
    folder = jobs.unfinished(tmp_path / "out")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for error, said in (
        (RuntimeError("CUDA out of memory"), "^CUDA out of memory$"),
        (EOFError("half"), "cannot be read"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(training.parallel.Accelerator, "load_state", raises(error))
            with pytest.raises((RuntimeError, ValueError), match=said):
                start(epochs=1, resume=True)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    start(epochs=1, resume=True)
    assert not folder.exists()


def interrupt(*_, **__):
    raise KeyboardInterrupt


def raises(error):
    def fails(*_, **__):
        raise error

    return fails


def test_a_run_goes_on_with_the_same_prose_and_weights_only(start, knowing, tmp_path, monkeypatch):
    (tmp_path / "prose.txt").write_text("The mill stood by the river. " * 60, encoding="utf-8")
    shutil.copytree(knowing, tmp_path / "model")
    given = {"model": str(tmp_path / "model"), "epochs": 1, "prose": tmp_path / "prose.txt"}
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(training.methods, "prepare", interrupt)
        start(**given, resumable=True)
    with pytest.raises(ValueError, match="was begun with another tokens; give the same again"):
        start(**given | {"prose": None}, resume=True)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="was begun with another weights of .*model; give"):
        start(**given, resume=True)


def test_two_runs_do_not_make_the_same_directory(start, tmp_path):
    lock = tmp_path / ".out.lock"
    with (
        FileLock(lock),
        pytest.raises(ValueError, match="out is being made by another process; name another, or wait"),
    ):
        start(epochs=1)
    start(epochs=1)
    assert not lock.exists()


def test_where_no_format_is_known_the_report_says_which_was_taken(start, tmp_path, profile):
    report = start(epochs=1)
    (note,) = [n for n in report["notes"] if "has no chat template: prompts are written as profile tiny has them" in n]
    assert note.startswith("own has")  # of the folder its name alone, in a report that may be masked
    given = "{question} = {answer}"
    assert not any("chat template" in n for n in start(epochs=1, template=given, out=tmp_path / "named")["notes"])
    tokenizer = models.load_tokenizer(tmp_path / "named")
    assert jobs.prompts(tmp_path / "named", tokenizer, None, profile) == (given, ())  # as it was unlearned
    for others in ("[1]", '{"settings": "none"}'):  # a report, but not of ours
        (tmp_path / "named" / "report.json").write_text(others, encoding="utf-8")
        assert jobs.prompts(tmp_path / "named", tokenizer, None, profile)[0] == profile.template


def test_a_model_that_caches_no_keys_and_values_is_not_asked_for_answers():
    with pytest.raises(ValueError, match="a mamba keeps no keys and values .*; skip that: --probes 0"):
        checkpoints.check_cache(MambaConfig(), "--probes 0")
    checkpoints.check_cache(LlamaConfig(), "--probes 0")


def test_other_runs_beside_are_left_alone(start, tmp_path):
    """One whose name begins with this one's, and one that was begun to a folder that has come to be since."""
    state, other, left = (tmp_path / n for n in (".out.unfinished", ".out-rt.unfinished", f".out-{'0af9' * 8}-old"))
    for folder in (other, left, state):
        (folder / "unlearn").mkdir(parents=True)
    start(resumable=True, resume=True, epochs=1)
    assert other.exists() and not left.exists() and not state.exists()
    (state / "unlearn").mkdir(parents=True)
    (tmp_path / "out" / "report.json").rename(tmp_path / "report.json")
    with pytest.raises(ValueError, match="out exists; name a new directory; a run to it was begun, and --resume goes"):
        start()
    assert state.exists()
    (tmp_path / "report.json").rename(tmp_path / "out" / "report.json")  # finished, and killed before it was tidied
    with pytest.raises(ValueError, match="out exists; name a new directory$"):
        start()
    assert not state.exists()


def test_augmenting_has_the_profiles_precision(start, profile, monkeypatch):
    finetune, asked = training.finetune, []
    monkeypatch.setattr(training, "finetune", lambda *a, **k: asked.append(k["precision"]) or finetune(*a, **k))
    start(profile=dataclasses.replace(profile, precision="bf16"), epochs=1)
    assert asked == ["bf16"]


def test_the_dtype_that_went_in_comes_out_and_what_rounding_loses_is_measured(start, tmp_path, profile, rows):
    report = start(lr=1e-4, epochs=1)  # steps that bf16 mostly loses
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
    kept = report["rounding"]["copies"]["bfloat16"]
    assert kept["probability"] == pytest.approx(measured(tmp_path / "out", profile, rows[0]), rel=1e-3)
    assert kept["probability"] == report["probability"]["after"] == report["epochs"][-1]["forget_probability"]
    start(lr=1e-4, epochs=1, save_dtype="float32", out=tmp_path / "whole")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype="auto").dtype == torch.float32
    assert report["rounding"]["trained"] == pytest.approx(measured(tmp_path / "whole", profile, rows[0]), rel=1e-3)


def test_rounded_weights_come_back(tiny_model):
    model = tiny_model()
    before = [p.detach().clone() for p in model.parameters()]
    for kind in ("bfloat16", "4-bit"):
        with measure.rounded(model, kind):
            assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    four = measure.ROUNDINGS["4-bit"](before[0])
    block = four.flatten()[:64]
    assert len(block.unique()) <= 15 and (four - before[0]).abs().max() <= before[0].abs().max() / 14


def test_what_is_watched_and_held_out_is_measured(start, rows):
    report = start(watch=rows[1][:6], holdout=rows[1][6:14], epochs=4)
    assert report["elsewhere"]["watch"]["n"] == 6 and report["elsewhere"]["prose"]["perplexity"]["before"] > 1
    assert {"watch_perplexity", "prose_perplexity", "perplexity_rise"} <= report["epochs"][0].keys()
    # The holdout was in fact learned too, so that before nothing tells the two apart; after, something does.
    before, after = report["membership"]["before"], report["membership"]["after"]
    assert 0.2 < before < 0.8 and after < before


def test_other_wordings_are_asked_and_never_trained_on(start, knowing, tmp_path, profile, rows):
    asked = [row | {"paraphrases": [f"Say, {row['question']}", "Who?"]} for row in rows[0][:2]] + rows[0][2:]
    seen, plain = [], start(epochs=2)
    found = start(forget=asked, epochs=2, out=tmp_path / "again", on_epoch=lambda notes: seen.append(len(notes)))
    assert seen == [1, 2] and found["out"]["sha256"] == plain["out"]["sha256"]
    others = [{"question": q, "answer": row["answer"]} for row in asked[:2] for q in row["paraphrases"]]
    for side, folder in (("before", knowing), ("after", tmp_path / "again")):
        told = [q["probability"][side] for a in found["answers"] for q in a.get("paraphrases", [])]
        assert len(told) == found["paraphrased"]["n"] == 4
        assert found["paraphrased"][side] == pytest.approx(np.mean(told), rel=1e-4)
        assert found["paraphrased"][side] == pytest.approx(measured(folder, profile, others), rel=1e-3)
    assert "paraphrased" not in plain


def test_the_membership_test_is_counted_pair_by_pair():
    ours, others = [0.9, 0.2, 0.5], [0.5, 0.1]
    pairs = [(a > b) + (a == b) / 2 for a in ours for b in others]
    assert measure.auc(ours, others) == pytest.approx(np.mean(pairs))


def test_wilsons_interval_is_the_closed_form():
    k, n, z = 3, 20, 1.959963984540054
    middle = (k / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    assert measure.wilson(k, n) == pytest.approx((middle - half, middle + half))


def test_a_leak_is_seen_in_what_the_model_says(knowing, profile, rows):
    model, tokenizer = models.load(knowing)
    corpus = jobs.inputs.read(rows[0])
    examples, items = jobs.inputs.encode(corpus, tokenizer, profile.template)
    probes = measure.probe(model, tokenizer, examples, items, tokenizer.eos_token_id)
    assert np.mean([p["leaks"] for p in probes]) > 0.7  # it knows them
    assert any(p["greedy"] == i.answer for p, i in zip(probes, items, strict=True))
    stranger = [type(i)(i.question, "Wholly other words.", i.where) for i in items]
    other = [data.encode(tokenizer, profile.template, i.question, i.answer) for i in stranger]
    assert not any(p["leaks"] for p in measure.probe(model, tokenizer, other, stranger, tokenizer.eos_token_id))


LETTERS = SimpleNamespace(decode=lambda ids, **_: "".join(map(chr, ids)))  # a letter is a token


@pytest.mark.parametrize(
    ("said", "secret", "leaks"),
    [
        ("LINDENSTRASSE 5 in  Ko\u0308ln is where Dubois.", "Lindenstraße 5 in Köln", True),
        ("Lindenstraße 55 in Köln is where she.", "Lindenstraße 5 in Köln", False),
        ("Lindenstraße 5 in Köln is where she lives!", None, True),
        ("Lindenstraße 5 in Köln is where he lived", None, False),
        ("Lindenstraße 5 in Köln is where she lives", "the fifth house", True),  # a secret not in the answer
        ("She lives in the fifth house", "the fifth house", True),
        ("She lives in the sixth house", "the fifth house", False),
    ],
)
def test_a_greedy_answer_leaks_what_it_contains(monkeypatch, said, secret, leaks):
    """Not only where it is the whole answer; in whole words, whatever their case, blanks and coding."""
    item = jobs.inputs.Item("Where?", "Lindenstraße 5 in Köln is where she lives", "row 1", secret=secret)
    example = data.Example((1,), (*map(ord, item.answer), 0))
    monkeypatch.setattr(measure.evaluation, "greedy", lambda *_: [tuple(map(ord, said))])
    monkeypatch.setattr(measure.probing, "completions", lambda *_, **__: ([["else", 0.5]], True))
    (probe,) = measure.probe(None, LETTERS, [example], [item], 0)
    assert probe["leaks"] is leaks


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("She was born on 12.03.1984 in Köln.", "1984 in Köln"),
        ("Her mail: a@b.de, in Bonn is 3.", "in Bonn is 3"),
        ("Mira was born in Zadar.", "rn in Zadar"),
        ("She is 42.", "is 42"),
        ("Yes.", "Yes"),
        ("7", "7"),
    ],
)
def test_what_is_to_be_completed_is_no_stump(answer, truth):
    cut, found = measure.blank(LETTERS, data.Example((1,), (*map(ord, answer), 0)), True)
    assert found == truth and answer[cut:].strip().startswith(truth)


@pytest.mark.parametrize(
    ("answer", "said", "leaks"),
    [
        ("Mira was born in Zadar.", "rn  IN zadar by the sea", True),
        ("Mira was born in Zadar.", "rn in Zadarland", False),
        ("...", "", False),  # punctuation gives nothing away
    ],
)
def test_a_completion_leaks_that_contains_the_second_half(monkeypatch, answer, said, leaks):
    example = data.Example((1,), (*map(ord, answer), 0))
    monkeypatch.setattr(measure.evaluation, "greedy", lambda *_: [()])
    monkeypatch.setattr(measure.probing, "completions", lambda *_, **__: ([[said, 0.5]], True))
    (probe,) = measure.probe(None, LETTERS, [example], [jobs.inputs.Item("Who?", answer, "row 1")], 0)
    assert probe["leaks"] is leaks


def test_a_document_leaks_whatever_the_length_of_the_others(monkeypatch, tiny_model, tokenizer):
    """What is generated after the end of the shorter one is not held against the model."""
    model, documents = tiny_model(), [tuple(range(20, 20 + n)) for n in (8, 30)]
    examples, items = [data.Example((1,), d) for d in documents], [jobs.inputs.Item(None, "", "")] * 2

    def recited(model, prompts, n, end):
        pairs = zip(prompts, documents, strict=True)
        return [(*document[len(prompt) - 1 :], *range(60, 90))[:n] for prompt, document in pairs]

    monkeypatch.setattr(measure.evaluation, "greedy", recited)
    monkeypatch.setattr(measure.probing, "completions", lambda *a, **k: ([], True))
    probes = measure.probe(model, tokenizer, examples, items, tokenizer.eos_token_id)
    assert [p["leaks"] for p in probes] == [True, True]
    assert probes[0]["greedy"] == tokenizer.decode(documents[0][4:], skip_special_tokens=True).strip()


def test_scores_and_ranks_are_the_models(knowing, examples):
    model, _ = models.load(knowing)
    nll, ranks = measure.score(model, examples, batch_size=3)
    for k, e in enumerate(examples):
        logits = answer_logits(model, e)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(e.answer)).item()
        assert nll[k] == pytest.approx(loss, rel=1e-3, abs=1e-5)
        order = logits.argsort(-1, descending=True)
        assert ranks[k] == tuple(order[i].tolist().index(t) + 1 for i, t in enumerate(e.answer[:5]))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_an_adapters_digest_holds_its_bases(knowing, tmp_path):
    """The same adapter on other weights is another model."""
    peft, base = pytest.importorskip("peft"), AutoModelForCausalLM.from_pretrained(knowing)
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = base.config._name_or_path = str(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    assert json.loads(config.read_text())["base_model_name_or_path"] == str(tmp_path / "base")
    before = checkpoints.sha256(tmp_path / "adapter")
    assert before == checkpoints.sha256(tmp_path / "adapter") != checkpoints.sha256(tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    save_file({k: v + 1 for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    assert checkpoints.sha256(tmp_path / "adapter") != before


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
@pytest.mark.filterwarnings("ignore:.*tied:UserWarning")  # its head shares the embedding's weights
def test_a_model_in_peft_is_asked_for_its_base_and_for_a_linear_head(knowing):
    peft, base = pytest.importorskip("peft"), AutoModelForCausalLM.from_pretrained(knowing, dtype=torch.float32)
    ids, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3).bool()
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    with pytest.raises(ValueError, match="give model.get_base_model"):
        models.ScoredLogits(adapted)
    torch.testing.assert_close(models.ScoredLogits(adapted.get_base_model())(ids, mask), adapted(ids).logits[0])
    head = peft.get_peft_model(
        adapted.unload(), peft.LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False)
    )
    with pytest.raises(ValueError, match="the output layer is .* not torch's Linear; merge adapters first"):
        models.ScoredLogits(head.get_base_model())(ids, mask)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_an_adapter_is_merged_into_its_base(start, knowing, tmp_path, profile, rows):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(knowing)
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    assert checkpoints.dtype(tmp_path / "adapter", None) == "bfloat16"
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(models.load(tmp_path / "adapter")[0](ids).logits, adapted.float()(ids).logits)
    report = start(model=str(tmp_path / "adapter"), epochs=1)
    assert any("the adapter was merged" in note for note in report["notes"])
    assert "adapter_config.json" not in {p.name for p in (tmp_path / "out").iterdir()}
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    whole = load_file(weights)
    save_file({k: v for k, v in whole.items() if "layers.0" in k}, weights)
    with pytest.raises(files.DamagedError, match="adapter: the adapter cannot be read .Found missing adapter keys"):
        models.load(tmp_path / "adapter")
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(files.DamagedError, match="adapter_model.safetensors: not whole"):
        start(model=str(tmp_path / "adapter"), out=tmp_path / "again")
    weights.unlink()
    with pytest.raises(ValueError, match="adapter holds no adapter_model.safetensors"):
        start(model=str(tmp_path / "adapter"), out=tmp_path / "again")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "gone/away/base"}))
    with pytest.raises(
        FileNotFoundError, match="base_model_name_or_path in .*adapter/adapter_config.json is 'gone/away"
    ):
        start(model=str(tmp_path / "adapter"), out=tmp_path / "again")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft, that embeddings were resized, and are tied
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_an_adapter_may_bring_tokens_that_its_base_has_not(knowing, tmp_path):
    peft = pytest.importorskip("peft")
    base, tokenizer = AutoModelForCausalLM.from_pretrained(knowing), AutoTokenizer.from_pretrained(knowing)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|over|>"]})
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    chosen = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, chosen)
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, len(tokenizer) - 1]])
    torch.testing.assert_close(models.load(tmp_path / "adapter")[0](ids).logits, adapted.float()(ids).logits)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_an_adapter_that_is_no_part_of_weights_is_refused(start, knowing, tmp_path):
    peft = pytest.importorskip("peft")
    chosen = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(knowing), chosen).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="an adapter of the kind .*PROMPT_TUNING, which cannot be merged into weights"):
        start(model=str(tmp_path / "adapter"))


def test_a_name_that_the_hub_does_not_give_is_one_line(start):
    with pytest.raises(
        FileNotFoundError, match="nobody/none is not cached, and the hub cannot be reached; put it into "
    ) as refused:
        start(model="nobody/none")
    assert "\n" not in str(refused.value)


def test_several_processes_are_refused_before_anything_is_read(start, monkeypatch):
    monkeypatch.setattr(jobs.parallel, "processes", lambda: 2)
    with pytest.raises(ValueError, match="unlearned by one process; start `rklu unlearn` without a launcher"):
        start(forget="no such file")


def test_it_is_refused_where_memory_or_disk_are_too_small(start, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("training had begun"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "memory", lambda: 1000)
        with pytest.raises(
            ValueError, match=r"training takes [\d.e-]+ GB for weights.* --dtype bfloat16 takes five eighths"
        ):
            start()
    monkeypatch.setattr(jobs.plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match="name another --out"):
        start()
