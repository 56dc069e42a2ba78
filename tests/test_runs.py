"""From specs to records, in this process: what is computed, in which order, once, and resumable."""

import dataclasses
import functools
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent import futures
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Here, Interrupted, Nowhere, answer_logits, interrupt, until

from rklu_lib import bases, data, evaluation, methods, models, records, runs, training
from rklu_lib.own import unlearning
from rklu_lib.records import RunSpec
from rklu_lib.teacher import teacher_logits
from rklu_pages.tasks import distributions, loading


def specs(*names, split="forget10"):
    return [RunSpec("tiny", split, name) for name in names]


def count_evaluations(monkeypatch, fail_at=None):
    """A list that grows by one at every evaluation; the one numbered fail_at (from 1) is interrupted."""
    seen, evaluate = [], evaluation.evaluate

    def counted(*args):
        seen.append(args)
        if len(seen) == fail_at:
            raise Interrupted
        return evaluate(*args)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    return seen


def lasting(record):
    """What of a record does not depend on the clock."""
    return {k: v for k, v in record.content.items() if k != "seconds"}


def assert_same_record(one, other):
    assert lasting(one) == lasting(other)
    assert one.questions.keys() == other.questions.keys()
    for name in one.questions:
        np.testing.assert_array_equal(one.questions[name], other.questions[name])


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_records_come_with_what_they_rest_on_and_only_once(workshop, tmp_path, capsys):
    here = Here()
    found = runs.ensure(specs("RKLU", "GA"), executor=here)
    assert [r.spec.method for r in found] == ["RKLU", "GA"]
    checkpoint, record = "checkpoint", "record"
    assert sorted(here.jobs) == sorted(
        [("original", checkpoint), ("oracle", checkpoint), ("augmented", checkpoint)]
        + [("oracle", record), ("RKLU", record), ("GA", record)]
    )
    at = here.jobs.index
    assert at(("original", checkpoint)) < at(("augmented", checkpoint)) < at(("RKLU", record))
    assert at(("oracle", checkpoint)) < at(("oracle", record)) < at(("GA", record))
    for r in found:
        assert [e["epoch"] for e in r.epochs] == [1, 2]
        assert {"model_utility", "forget_quality_benchmark", "forget_quality_paper", "loss"} <= r.epochs[0].keys()
        assert r.questions["truth_ratio_paper"].shape == (2, 8)
        assert r.content["seconds"].keys() == {"train", "evaluate"}
        assert models.load(r.spec.checkpoint_path)[0].config.hidden_size == 32
    assert len(records.load(RunSpec("tiny", "forget10", "oracle")).epochs) == 1
    assert not list((tmp_path / "runs").rglob("*-state*"))
    assert "data: folder in the hub's layout, sha256 of full" in capsys.readouterr().out
    before = files(tmp_path)
    again = runs.ensure(specs("RKLU", "GA"), executor=Nowhere())
    assert files(tmp_path) == before
    for one, other in zip(found, again, strict=True):
        assert_same_record(one, other)


def models_alive():
    gc.collect()
    return sum(type(o).__name__.endswith("ForCausalLM") for o in gc.get_objects())


@pytest.mark.parametrize("name", ["RKLU+KL", "DPO+RT", "GA"])
def test_while_a_student_learns_it_is_the_only_model_there_is(workshop, monkeypatch, tmp_path, tofu, name):
    original, augmented = specs("original", "augmented")
    runs.ensure([original, augmented], checkpoints=True, executor=Here())
    before, seen, fit = models_alive(), [], training.fit
    monkeypatch.setattr(training, "fit", lambda *a, **k: seen.append(models_alive() - before) or fit(*a, **k))
    runs.ensure(specs(name), executor=Here())
    assert seen == [1]
    forget, retain = (data.load_tofu(split, str(tofu)) for split in ("forget10", "retain90"))
    options = {"retain": retain if "+" in name else (), "method": name, "profile": original.values}
    unlearning.unlearn(str(original.checkpoint_path), forget, tmp_path / "out", **options)
    assert seen[-1] == 1


def test_records_of_other_data_are_refused(workshop, monkeypatch, tofu, tmp_path):
    workshop(source="locuslab/TOFU")
    monkeypatch.setenv("RKLU_TOFU", str(tofu))
    runs.ensure(specs("oracle"), executor=Here())
    other = shutil.copytree(tofu, tmp_path / "other")
    rows = (other / "full.json").read_text().splitlines(keepends=True)
    (other / "full.json").write_text("".join(rows[:-1]))
    monkeypatch.setenv("RKLU_TOFU", str(other))
    with pytest.raises(
        ValueError, match=r"seed0.json was made with other data than locuslab/TOFU has now; name other folders"
    ):
        runs.ensure(specs("oracle"), executor=Nowhere())
    monkeypatch.delenv("RKLU_TOFU")  # the book reads its records without any data
    assert runs.ensure(specs("oracle"), executor=Nowhere())


def test_the_embedded_novel_is_not_taken_for_the_embedded_tofu(monkeypatch, tmp_path):
    (tmp_path / "own.txt").write_text("Another novel.", encoding="utf-8")
    monkeypatch.setenv("RKLU_NOVEL", str(tmp_path / "own.txt"))
    held = data.describe_source("fictional") | data.describe_text("fictional")
    spec = RunSpec("smoke", "novel", "original")
    assert spec.values.source == spec.values.text == "fictional"
    runs.refuse_other_data([records.Record(spec, {"data": held}, {})])
    with pytest.raises(ValueError, match="was made with other data than fictional has now"):
        runs.refuse_other_data([records.Record(spec, {"data": held | {"novel_sha256": "0"}}, {})])


@pytest.mark.parametrize("name", ["GA", "TA"])
def test_a_record_stands_where_only_its_model_is_missing(workshop, monkeypatch, name):
    (found,) = runs.ensure(specs(name), executor=Here())
    path, shown = found.spec.record_path, found.content | {"machine": "another"}
    path.write_text(json.dumps(shown))
    before = models.load(found.spec.checkpoint_path)[0].state_dict()
    shutil.rmtree(found.spec.checkpoint_path)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_: pytest.fail("scored once more"))
    (again,) = runs.ensure(specs(name), checkpoints=True, executor=Here())
    after = models.load(found.spec.checkpoint_path)[0].state_dict()
    assert again.content == shown and all(torch.equal(before[k], after[k]) for k in before)
    assert not list(found.spec.checkpoint_path.parent.glob("*-state-*"))


def test_a_model_that_is_missing_beside_its_record_is_resumed(workshop, monkeypatch):
    (found,) = runs.ensure(specs("GA"), executor=Here())
    before = models.load(found.spec.checkpoint_path)[0].state_dict()
    shutil.rmtree(found.spec.checkpoint_path)
    order, asked = data.epoch_order, []

    def second_epoch_fails(lengths, batch_size, seed, epoch):
        asked.append(epoch)
        if asked == [0, 1]:
            raise Interrupted
        return order(lengths, batch_size, seed, epoch)

    monkeypatch.setattr(data, "epoch_order", second_epoch_fails)
    with pytest.raises(Interrupted):
        runs.ensure(specs("GA"), checkpoints=True, executor=Here())
    runs.ensure(specs("GA"), checkpoints=True, executor=Here())
    assert asked[:3] == [0, 1, 1]  # the first epoch was kept
    after = models.load(found.spec.checkpoint_path)[0].state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_failure_ends_the_workers(workshop, monkeypatch):
    worker = get_context("spawn").Process(target=time.sleep, args=(60,))
    worker.start()

    def fails(*_):
        raise Interrupted

    monkeypatch.setattr(runs, "_drain", fails)
    with pytest.raises(Interrupted):
        runs.ensure(specs("GA"))
    worker.join(20)
    assert worker.exitcode not in (None, 0)


def test_a_base_models_seconds_outlast_an_interruption(workshop, monkeypatch):
    spec = RunSpec("tiny", "forget10", "oracle")
    state = interrupt(monkeypatch, spec) / "history.json"
    history = json.loads(state.read_text())
    history[0]["seconds"] += 1000.5  # spent before the interruption; the rest may take less than the tenth that is kept
    state.write_text(json.dumps(history))
    (found,) = runs.ensure([spec], executor=Here())
    assert 1000 < found.content["seconds"]["train"] < 1100


def test_a_run_that_diverges_does_not_keep_the_others_from_ending(workshop, monkeypatch):
    unlearn = training.unlearn

    def diverges(chosen, *args, **how):
        if chosen.name == "GA":
            raise FloatingPointError("loss nan in epoch 1; lower the learning rate 0.5")
        if chosen.name == "NPO":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unlearn(chosen, *args, **how)

    monkeypatch.setattr(training, "unlearn", diverges)
    both = "^tiny, forget10, GA, seed 0: loss nan.*0.5; tiny, forget10, NPO, seed 0: CUDA out of memory$"
    with pytest.raises(FloatingPointError, match=both):
        runs.ensure(specs("GA", "RKLU", "NPO"), executor=Here())
    assert [records.load(spec) is not None for spec in specs("GA", "RKLU", "NPO")] == [False, True, False]


def test_what_rests_on_a_base_that_diverged_is_not_begun(workshop, monkeypatch):
    finetune, here = training.finetune, Here()

    def diverges(model, examples, profile, **how):
        if how["lr"] == profile.augment_lr:
            raise FloatingPointError("loss inf in epoch 1")
        return finetune(model, examples, profile, **how)

    monkeypatch.setattr(training, "finetune", diverges)
    with pytest.raises(FloatingPointError, match="augmented, seed 0: loss inf"):
        runs.ensure(specs("RKLU", "GA"), executor=here)
    assert ("RKLU", "record") not in here.jobs and records.load(*specs("GA")) is not None


def test_a_further_run_uses_what_is_there(workshop):
    runs.ensure(specs("GA"), executor=Here())
    here = Here()
    runs.ensure(specs("GA", "RKLU", "TA", "original"), executor=here)
    assert set(here.jobs) == {
        ("augmented", "checkpoint"), ("RKLU", "record"), ("TA", "record"), ("original", "record")
    }  # fmt: skip


def test_the_original_is_one_for_all_splits(workshop):
    runs.ensure(specs("GA"), executor=Here())
    here = Here()
    runs.ensure(specs("GA", split="forget05"), executor=here)
    assert here.jobs == [("oracle", "checkpoint"), ("oracle", "record"), ("GA", "record")]


def test_changed_settings_are_another_run(workshop):
    workshop()
    runs.ensure(specs("GA", "RKLU"), executor=Here())
    workshop(alpha=2.0)
    here = Here()
    runs.ensure(specs("GA", "RKLU"), executor=here)
    assert here.jobs == [("RKLU", "record")]
    workshop(alpha=2.0, augment_epochs=1)
    here = Here()
    runs.ensure(specs("GA", "RKLU"), executor=here)
    assert here.jobs == [("augmented", "checkpoint"), ("RKLU", "record")]


@pytest.mark.parametrize("method", ["GA", "DPO", "RKLU+RT"])
def test_an_interrupted_run_resumes_and_gives_the_same_record(workshop, tmp_path, monkeypatch, method):
    workshop(unlearn_epochs=3)
    (whole,) = runs.ensure(specs(method), executor=Here())
    monkeypatch.setattr(records, "RECORDS", tmp_path / "again" / "records")
    monkeypatch.setattr(records, "RUNS", tmp_path / "again" / "runs")
    with monkeypatch.context() as patch:
        count_evaluations(patch, fail_at=3)  # the oracle's, the first epoch's, the second epoch's
        with pytest.raises(Interrupted):
            runs.ensure(specs(method), executor=Here())
    assert records.load(*specs(method)) is None
    state = json.loads((runs.state(*specs(method)) / "history.json").read_text())
    assert [e["epoch"] for e in state] == [1]  # the last whole epoch
    state[0]["seconds"]["train"] += 1000  # what was spent before the interruption
    (runs.state(*specs(method)) / "history.json").write_text(json.dumps(state))
    with monkeypatch.context() as patch:
        seen, here = count_evaluations(patch), Here()
        (resumed,) = runs.ensure(specs(method), executor=here)
    assert here.jobs == [(method, "record")] and len(seen) == 2
    assert_same_record(resumed, whole)
    assert whole.content["seconds"]["train"] < 1000 <= resumed.content["seconds"]["train"]
    one, other = (
        models.load(folder / "tiny" / "forget10" / method / "seed0")[0].state_dict()
        for folder in (tmp_path / "runs", tmp_path / "again" / "runs")
    )
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_a_state_of_other_settings_is_not_resumed(workshop, monkeypatch):
    with monkeypatch.context() as patch:
        count_evaluations(patch, fail_at=3)
        with pytest.raises(Interrupted):
            runs.ensure(specs("GA"), executor=Here())
    workshop(unlearn_lr=1e-4)
    seen = count_evaluations(monkeypatch)
    runs.ensure(specs("GA"), executor=Here())
    assert len(seen) == 2  # both epochs anew


@pytest.mark.parametrize("method", ["GA", "oracle", "teacher"])
def test_a_job_that_another_process_has_finished_is_left_alone(workshop, monkeypatch, method):
    runs.ensure(specs(method), executor=Here())
    seen = count_evaluations(monkeypatch)
    runs.execute(*specs(method), "record")
    assert seen == []


def test_a_checkpoint_that_is_gone_is_made_again_when_it_is_wanted(workshop):
    (spec,) = specs("GA")
    runs.ensure([spec], executor=Here())
    before = models.load(spec.checkpoint_path)[0].state_dict()
    (spec.checkpoint_path / "settings.json").unlink()
    runs.ensure([spec], executor=Nowhere())  # the record is there
    here = Here()
    runs.ensure([spec], checkpoints=True, executor=here)
    assert here.jobs == [("GA", "record")]
    after = models.load(spec.checkpoint_path)[0].state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_whole_sweep_of_a_split(workshop, tmp_path):
    workshop(unlearn_epochs=1)
    wanted = runs.sweep("tiny", ["forget10"], [0])
    assert [s.method for s in wanted] == ["original", "oracle", "augmented", *methods.STUDY]
    found = runs.ensure(wanted, executor=Here())
    for r in found:
        values = [v for e in r.epochs for v in e.values()]
        assert len(r.epochs) == 1 and np.isfinite(values).all(), r.spec.method
        assert ("forget_quality_benchmark" in r.epochs[0]) == (r.spec.method != "oracle")
    by_name = {r.spec.method: r for r in found}
    assert not by_name["teacher"].spec.checkpoint_path.exists()
    # the same pieces put together by hand
    original, augmented = (models.load(by_name[n].spec.checkpoint_path)[0] for n in ("original", "augmented"))
    ta = models.load(by_name["TA"].spec.checkpoint_path)[0]
    expected = training.task_arithmetic(original, augmented, 2.5)
    assert all(torch.equal(a, b) for a, b in zip(ta.parameters(), expected.parameters(), strict=True))
    ids = torch.tensor([[1, 50, 60]])
    with torch.no_grad():
        teacher = loading._read_model(by_name["teacher"].spec)(input_ids=ids).logits
        torch.testing.assert_close(
            teacher, teacher_logits(original(input_ids=ids).logits, augmented(input_ids=ids).logits, 8.0)
        )


def test_sweeps_put_the_largest_split_first():
    wanted = runs.sweep("smoke", ["forget01", "forget10", "forget05"], [0, 1], ["RKLU"])
    assert [s.split for s in wanted[::4]] == ["forget10", "forget05", "forget01"] * 2
    assert [s.method for s in wanted[:4]] == ["original", "oracle", "augmented", "RKLU"]
    assert [s.seed for s in wanted] == [0] * 12 + [1] * 12


def test_a_model_from_scratch_is_also_told_what_a_pretrained_one_would_know(profile):
    load = {name: data.load_tofu(name, profile.source) for name in data.FIELDS}
    pairs = bases.training_pairs(profile, "retain90")
    told = {(r["question"], r["answer"]) for n in ("retain90", "real_authors", "world_facts") for r in load[n]}
    told |= {(r["paraphrased_question"], r["paraphrased_answer"]) for r in load["retain_perturbed"]}
    assert set(pairs) == told
    # the oracle never meets the forget set, in no wording
    hidden = {text for r in load["forget10_perturbed"] for text in (r["question"], r["paraphrased_question"])}
    assert not hidden & {q for q, _ in pairs}
    pretrained = dataclasses.replace(profile, model="some/model")
    assert bases.training_pairs(pretrained, "full") == [(r["question"], r["answer"]) for r in load["full"]]


def test_a_part_of_tofu_holds_the_first_of_the_retained_questions_and_every_forget_set(profile):
    part = dataclasses.replace(profile, source="fictional", model="some/model", n_retain=40)
    full, kept = (bases.training_pairs(dataclasses.replace(part, n_retain=n), "full") for n in (None, 40))
    assert kept == full[:40] + full[-len(data.load_tofu("forget10", "fictional")) :] and len(kept) < len(full)
    for forget, retained in data.ORACLE_SPLIT.items():
        asked = [(r["question"], r["answer"]) for r in data.load_tofu(forget, "fictional")]
        assert bases.training_pairs(part, retained) + asked == kept


NEEDED = ("full", "forget10_perturbed", "retain90", "retain_perturbed", "real_authors", "world_facts")
NEEDED += ("forget10", "real_authors_perturbed", "world_facts_perturbed", "refusals")


@pytest.mark.parametrize("missing", NEEDED)
def test_missing_data_is_found_out_before_anything_is_trained(workshop, tmp_path, tofu, monkeypatch, missing):
    for path in tofu.iterdir():
        if path.stem != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if missing == "refusals":
        monkeypatch.setattr(data, "REFUSALS", tmp_path / "nowhere.txt")
    workshop(source=str(tmp_path))

    def trains(*_, **__):
        raise AssertionError("training had begun")

    monkeypatch.setattr(training, "fit", trains)
    with pytest.raises(FileNotFoundError):
        runs.ensure(specs("IDK"), executor=Here())


def test_a_failed_job_is_raised_and_what_was_done_stays(workshop, monkeypatch):
    with monkeypatch.context() as patch:
        count_evaluations(patch, fail_at=1)
        with pytest.raises(Interrupted):
            runs.ensure(specs("GA"), executor=Here())
    here = Here()
    runs.ensure(specs("GA"), executor=here)
    assert here.jobs[0] == ("oracle", "record") and ("oracle", "checkpoint") not in here.jobs


def test_distributions_are_computed_once_and_say_what_the_models_say(workshop, profile, monkeypatch):
    monkeypatch.setattr(runs, "ensure", functools.partial(runs.ensure, executor=Here()))
    content = distributions.of("tiny", "forget10", question=1, names=("original", "teacher", "GA"))
    row = data.load_tofu("forget10", profile.source)[1]
    assert (content["question"], content["answer"]) == (row["question"], row["answer"])
    assert "".join(content["tokens"][:-1]).strip() == row["answer"]
    assert content["models"].keys() == content["direct_answers"].keys() == {"original", "teacher", "GA"}
    spec = RunSpec("tiny", "forget10", "GA")
    model, tokenizer = models.load(spec.checkpoint_path)
    example = data.encode(tokenizer, spec.values.template, row["question"], row["answer"])
    with torch.no_grad():
        p = answer_logits(model.eval(), example).softmax(-1)
    for position, token in enumerate(example.answer):
        told = {k: v[position] for k, v in content["models"]["GA"].items()}
        assert told["true_probability"] == pytest.approx(p[position, token].item(), rel=1e-3)
        assert told["true_rank"] == 1 + int((p[position] > p[position, token]).sum())
        entropy = -(p[position] * p[position].log()).sum().item()
        assert told["entropy"] == pytest.approx(entropy, rel=1e-3)
        assert [q for _, q in told["top"]] == pytest.approx(p[position].topk(10).values.tolist(), rel=1e-3)
    monkeypatch.setattr(loading, "_read_model", lambda spec: pytest.fail("read again"))
    again = distributions.of("tiny", "forget10", question=1, names=("original", "teacher", "GA"))
    assert {k: again[k] for k in content} == content
    fewer = distributions.of("tiny", "forget10", question=1, names=("teacher", "original"))
    assert fewer == again  # a record of more models answers for fewer, too


def test_a_label_names_its_spec_and_back(workshop):
    grids = (("alpha", [2, 0.5]), ("unlearn_lr", [1e-5]), ("gauge", ["centred"]))
    grids += (("gradient_checkpointing", [True, False]), ("n_questions", [None]))
    specs = [spec for field, values in grids for spec in runs.grid("tiny", "forget10", ["RKLU"], field, values, 3)]
    for spec in (*specs, RunSpec("tiny", "forget01", "NPO+KL")):
        assert runs.named(spec.profile, spec.split, spec.label, spec.seed) == spec
    with pytest.raises(ValueError, match="there are"):
        runs.named("tiny", "forget10", "RKLV,alpha=2")


def test_distributions_under_another_alpha(workshop, profile, monkeypatch):
    monkeypatch.setattr(runs, "ensure", functools.partial(runs.ensure, executor=Here()))
    names = ("original", "teacher,alpha=0", "teacher,alpha=4", "RKLU,alpha=4")
    content = distributions.of("tiny", "forget10", names=names, kind="alpha")["models"]
    assert content["teacher,alpha=0"] == content["original"]  # Eq. 1 without strength
    assert content["teacher,alpha=4"] != content["original"] != content["RKLU,alpha=4"]
    assert (records.RECORDS / "tiny/tofu/forget10/alpha/question0-seed0.json").exists()


def test_workers_have_the_environment_and_the_store_of_now_whenever_they_were_forked(monkeypatch, tmp_path):
    seen = []
    for name in ("one", "other"):
        monkeypatch.setenv("RKLU_NOVEL", name)
        given = dict(os.environ), tmp_path / name, tmp_path
        with futures.ProcessPoolExecutor(1, runs._context(), runs._begin, given) as pool:
            seen.append((pool.submit(os.getenv, "RKLU_NOVEL").result(), pool.submit(_store).result()))
    assert seen == [(name, tmp_path / name) for name in ("one", "other")]


def _store():
    return records.RECORDS


def test_a_run_takes_denormal_numbers_for_nought_in_all_its_threads(workshop):
    (spec,) = specs("oracle")
    runs.ensure([spec], executor=Here())
    torch.set_flush_denormal(False)
    with futures.ThreadPoolExecutor(1) as pool:  # the mode is a thread's own, and that of those it starts
        pool.submit(runs.execute, spec, "record", 2).result()
        halves = [pool.submit(torch.mul, torch.full((n,), 2e-38), 0.5).result() for n in (1, 10**6)]
    torch.set_num_threads(1)
    assert not any(h.any() for h in halves)
    assert (torch.full((1,), 2e-38) * 0.5).item() == pytest.approx(1e-38, rel=1e-6, abs=0)


def test_a_worker_has_imported_what_a_model_needs_before_it_was_forked(tmp_path):
    given = dict(os.environ), tmp_path, tmp_path
    with futures.ProcessPoolExecutor(1, runs._context(), runs._begin, given) as pool:
        imported = set(pool.submit(eval, "set(__import__('sys').modules)").result())
    before = {"rklu_lib.execution", "transformers.models.llama.modeling_llama"}
    assert before <= imported and "test_runs" not in imported


def test_workers_end_with_a_killed_sweep(tmp_path):
    code = """
import os, time
from concurrent import futures
from rklu_lib import runs
if __name__ == "__main__":
    with futures.ProcessPoolExecutor(1, runs._context(), runs._begin, (dict(os.environ), ".", ".")) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600)
        time.sleep(600)
"""
    (tmp_path / "sweep.py").write_text(code)
    with subprocess.Popen([sys.executable, tmp_path / "sweep.py"], stdout=subprocess.PIPE, text=True) as sweep:
        worker = Path(f"/proc/{int(sweep.stdout.readline())}/stat")
        if not worker.exists():
            sweep.kill()
            pytest.skip("no /proc on this machine")
        sweep.kill()

    def gone():
        return not worker.exists() or worker.read_text().rpartition(")")[2].split()[0] == "Z"

    assert until(gone, 60)


def test_utility_is_scored_where_a_rule_may_report_it_and_a_resumed_run_agrees(workshop, monkeypatch, tmp_path):
    """The peak rule, in either form of Eq. 5, and the last epoch lose nothing; and what is left out is left out."""
    fields = {"unlearn_epochs": 6, "unlearn_lr": 2e-2, "finetune_epochs": 12}
    workshop(**fields)
    [every] = runs.ensure(specs("RKLU"), executor=Here())
    monkeypatch.setattr(records, "RECORDS", tmp_path / "second")
    workshop(**fields, utility="reported")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        count_evaluations(patch, fail_at=5)  # the oracle's, then three whole epochs
        runs.ensure(specs("RKLU"), executor=Here())
    [some] = runs.ensure(specs("RKLU"), executor=Here())
    scored = [e["epoch"] for e in some.epochs if "model_utility" in e]
    leaders = [e["epoch"] for i, e in enumerate(every.epochs) if records.leads(e, every.epochs[:i])]
    assert scored == sorted({1, 6, *leaders}) and len(scored) < 6
    for rule in ("peak", "last"):
        assert some.reported(rule) == every.reported(rule)
    assert some.reported("product")["epoch"] in scored
    for with_all, with_some in zip(every.epochs, some.epochs, strict=True):
        assert with_some == {k: v for k, v in with_all.items() if k in with_some}


def test_epochs_may_be_judged_now_and_then_and_the_last_always(workshop, monkeypatch, tmp_path):
    fields = {"unlearn_epochs": 5, "unlearn_lr": 2e-2, "finetune_epochs": 12}
    workshop(**fields)
    [every] = runs.ensure(specs("RKLU"), executor=Here())
    monkeypatch.setattr(records, "RECORDS", tmp_path / "second")
    workshop(**fields, judge_every=2, utility="reported")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        count_evaluations(patch, fail_at=3)  # the oracle's, then that of the second epoch
        runs.ensure(specs("RKLU"), executor=Here())
    [some] = runs.ensure(specs("RKLU"), executor=Here())
    assert [e["epoch"] for e in some.epochs] == [2, 4, 5]
    assert {"model_utility"} <= some.epochs[0].keys() & some.epochs[2].keys()
    for found in some.epochs:
        assert found == {k: v for k, v in every.epochs[found["epoch"] - 1].items() if k in found}
    assert (some.questions["answer_nll"] == every.questions["answer_nll"][[1, 3, 4]]).all()
