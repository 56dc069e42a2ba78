"""Originals and oracles that others have made: loaded, or read from a log, never trained; tiny ones in their layout."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formats import FORMATS, llama
from helpers import Here
from transformers import LlamaConfig, LlamaForCausalLM

from rklu_lib import data, files, hub, logs, metrics, models, profiles, records, runs
from rklu_lib.records import RunSpec
from rklu_pages.results import comparison

# Llama 3.2's chat template, without tools: what it writes for a system prompt, a day and turns.
LLAMA32 = """{{- bos_token }}{%- set system_message = messages[0]['content']|trim %}\
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}{{- "Cutting Knowledge Date: December 2023\\n" }}\
{{- "Today Date: " + date_string + "\\n\\n" }}{{- system_message }}{{- "<|eot_id|>" }}\
{%- for message in messages[1:] %}\
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\
{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""


def llama32():
    """Llama 3's kind of tokenizer, with Llama 3.2's chat template, and a small Llama."""
    tokenizer = FORMATS["Llama-3"]()
    tokenizer.chat_template = LLAMA32
    shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(tokenizer), max_position_embeddings=4096)), tokenizer


NAMES = {"llama-3.2-1b": ("open-unlearning/tofu_Llama-3.2-1B-Instruct_", llama32)}
NAMES |= {"llama-2-7b-tofu": ("open-unlearning/tofu_Llama-2-7b-chat-hf_", llama)}


def their_ids(tokenizer, profile, question, answer=None):
    """Tokens as OpenUnlearning's `preprocess_chat_instance` makes them (src/data/utils.py), by its configurations."""
    if profile == "llama-2-7b-tofu":
        text = "[INST] " + question + " [/INST]" + (answer or "")
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]  # which Llama 2's own tokenizer puts there
    else:
        turns = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": question}]
        turns += [{"role": "assistant", "content": answer}] if answer else []
        asked = {"add_generation_prompt": not answer, "date_string": "10 Apr 2025"}
        ids = tokenizer.apply_chat_template(turns, **asked)["input_ids"]
    return ids + [tokenizer.eos_token_id] * bool(answer and ids[-1] != tokenizer.eos_token_id)


def their_log(path, profile, rows):
    """What its evaluation writes of a model: `evaluate_probability` and `truth_ratio`, an answer at a time."""
    model, tokenizer = models.load(path, profiles.profile(profile).dtype)

    @torch.no_grad()
    def loss(question, answer):
        n, ids = len(their_ids(tokenizer, profile, question)), their_ids(tokenizer, profile, question, answer)
        logits = model(torch.tensor([ids])).logits[0, n - 1 : -1].float()
        return F.cross_entropy(logits, torch.tensor(ids[n:])).item()

    right = [loss(row["question"], row["paraphrased_answer"]) for row in rows]
    wrong = [[loss(row["question"], text) for text in row["perturbed_answer"]] for row in rows]
    ratio = np.exp(-np.mean(wrong, axis=1)) / (np.exp(-np.array(right)) + 1e-10)

    def metric(name, values, value):
        return {"agg_value": value, "value_by_index": {str(i): {name: v} for i, v in enumerate(values)}}

    return {
        "forget_Q_A_PARA_Prob": metric("avg_loss", right, 0.5),
        "forget_Q_A_PERT_Prob": metric("avg_loss", wrong, 0.5),
        "forget_truth_ratio": metric("score", ratio.tolist(), 0.5),
        "model_utility": {"agg_value": 0.59},
    }


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, tofu):
    """RKLU_MODELS: originals, the oracles of forget10 and their logs."""
    folder = tmp_path_factory.mktemp("models")
    rows = data.load_tofu("forget10_perturbed", str(tofu))
    for profile, (name, make) in NAMES.items():
        for seed, kind in enumerate(("full", "retain90")):
            torch.manual_seed(seed)
            model, tokenizer = make()
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(10 if p.dim() > 1 else 1)
            models.save(model.to(torch.bfloat16), tokenizer, folder / f"{name}{kind}")
        log = folder / "open-unlearning" / "eval" / f"{name.split('/')[1]}retain90" / "TOFU_EVAL.json"
        log.parent.mkdir(parents=True)
        log.write_text(json.dumps(their_log(folder / f"{name}retain90", profile, rows), indent=4))
    return folder


@pytest.fixture
def workshop(elsewhere, tofu, tmp_path, monkeypatch):
    monkeypatch.setenv("RKLU_MODELS", str(elsewhere))
    monkeypatch.setenv("RKLU_TOFU", str(tofu))
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(records, "RUNS", tmp_path / "runs")
    monkeypatch.setitem(profiles._values()["llama-3.2-1b"], "unlearn_epochs", 1)
    monkeypatch.setitem(profiles._values()["llama-3.2-1b-log"], "unlearn_epochs", 1)


@pytest.mark.parametrize("profile", NAMES)
@pytest.mark.parametrize("answer", ["Setúbal, in 1984.", "A weaver.", "1984"])
def test_prompt_and_answer_are_openunlearnings_token_for_token(workshop, profile, answer):
    p = profiles.profile(profile)
    tokenizer, question = models.load_tokenizer(p.original), "Where was Mira Adeyo born?"
    example = data.encode(tokenizer, p.template, question, answer)
    assert list(example.prompt) == their_ids(tokenizer, profile, question)
    assert list(example.prompt + example.answer) == their_ids(tokenizer, profile, question, answer)


def specs(profile, *methods):
    return [RunSpec(profile, "forget10", name) for name in methods]


def test_what_is_loaded_is_not_trained_and_a_log_says_what_its_model_would(workshop):
    here = Here()
    names = ("oracle", "original", "RKLU", "NPO+RT")
    oracle, original, *unlearned = runs.ensure(specs("llama-3.2-1b", *names), executor=here)
    assert [j for j in here.jobs if j[1] == "checkpoint"] == [("augmented", "checkpoint")]
    made = {p.name for p in (records.RUNS / "llama-3.2-1b").rglob("seed0") if p.is_dir()}
    folders = {p.parent.name for p in (records.RUNS / "llama-3.2-1b").rglob("seed0") if p.is_dir()}
    assert made == {"seed0"} and folders == {"augmented", "RKLU", "NPO+RT"}
    assert original.content["seconds"]["train"] == 0

    here = Here()
    logged = runs.ensure(specs("llama-3.2-1b-log", "oracle", "RKLU"), executor=here)
    assert ("oracle", "checkpoint") not in here.jobs
    assert logged[0].epochs[0]["model_utility"] == 0.59  # the log's own
    for form in ("benchmark", "paper"):
        theirs, ours = (r.questions[f"truth_ratio_{form}"] for r in (logged[0], oracle))
        np.testing.assert_allclose(theirs, ours, rtol=0.05)  # both in bf16, in batches of other sizes
        mine = logged[1].questions[f"truth_ratio_{form}"][-1]
        assert logged[1].epochs[-1][f"forget_quality_{form}"] == pytest.approx(metrics.forget_quality(mine, theirs[0]))
    assert unlearned[0].epochs[-1]["forget_truth_ratio"] == logged[1].epochs[-1]["forget_truth_ratio"]

    table = comparison.compare([original, *unlearned], "table8", rule="last")
    assert table.loc["NPO+RT", ("forget quality", "published")] == 0.02
    assert table.loc["original", ("model utility", "published")] == 0.6
    assert comparison.as_text(table).loc["RKLU", ("forget quality", "published")] == "–"


@pytest.mark.parametrize("profile", ["llama-2-7b-tofu", "llama-2-7b-tofu-log"])
def test_settings_say_where_models_come_from_and_not_how_they_would_be_trained(profile):
    for spec in specs(profile, "original", "oracle", "RKLU"):
        settings = spec.settings
        assert settings["original"] == "open-unlearning/tofu_Llama-2-7b-chat-hf_full"
        assert ("oracle_log" in settings) == profile.endswith("-log") != ("oracle" in settings)
        assert not [name for name in settings if name.startswith("finetune") or name in ("model", "hidden_size")]
    assert "original" not in RunSpec("llama2-7b", "forget10", "RKLU").settings
    assert RunSpec(profile, "novel", "original").loaded == settings["original"]


def test_what_cannot_be_had_is_missed_before_anything_is_computed(workshop, monkeypatch, tmp_path):
    monkeypatch.setenv("RKLU_MODELS", str(tmp_path))
    here = Here()
    for name, lacking in (("", "Instruct_retain90"), ("-log", "Instruct_retain90/TOFU_EVAL.json")):
        with pytest.raises(FileNotFoundError, match=lacking) as refusal:
            runs.ensure(specs(f"llama-3.2-1b{name}", "oracle"), executor=here)
        assert f"put it into {tmp_path}" in str(refusal.value)
    assert not hub.reachable() and not here.jobs


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not JSON"),
        ("[]", "no forget_truth_ratio.value_by_index"),
        ('{"forget_truth_ratio": {"agg_value": 0.5}}', "no forget_truth_ratio.value_by_index"),
        ('{"forget_truth_ratio": {"value_by_index": {"0": {"score": 1}, "2": {"score": 1}}}}', ".* for each of 0 to 1"),
        ('{"forget_truth_ratio": {"value_by_index": {"0": {"prob": 1}}}}', ".* needs a number 'score'"),
        ('{"forget_truth_ratio": {"value_by_index": {"0": {"score": 1}}}, "model_utility": {}}', ".* number agg_value"),
    ],
)
def test_a_log_that_is_none_is_refused(tmp_path, content, why):
    (tmp_path / "TOFU_EVAL.json").write_text(content)
    with pytest.raises((data.DataError, files.DamagedError), match=f"TOFU_EVAL.json: {why}"):
        logs.read(tmp_path / "TOFU_EVAL.json")


def test_a_log_without_losses_has_the_benchmarks_form_alone(tmp_path):
    by_index = {str(i): {"score": v} for i, v in enumerate((0.2, 0.6, 0.5, 9.0))}
    of_all = {"model_utility": {"agg_value": 0.6}, "forget_Q_A_Prob": {"agg_value": 0.1}}
    (tmp_path / "log.json").write_text(json.dumps({"forget_truth_ratio": {"value_by_index": by_index}} | of_all))
    assert logs.read(tmp_path / "log.json")[0]["forget_probability"] == 0.1
    aggregates, questions = logs.read(tmp_path / "log.json", n=3)  # no mean of four beside a median of three
    assert aggregates == {"forget_truth_ratio": 0.5, "model_utility": 0.6}
    assert questions.keys() == {"truth_ratio_benchmark"}
    np.testing.assert_array_equal(questions["truth_ratio_benchmark"], [0.2, 0.6, 0.5])


def test_a_profile_names_what_is_loaded_whole_or_not_at_all():
    for changes in ({"oracle": None}, {"original": None}, {"oracle_log": "a/b/{retain}"}, {"model": None}):
        with pytest.raises(ValueError, match="llama-3.2-1b: with `original`, name|without a `model`"):
            profiles.profile("llama-3.2-1b", **changes)
    with pytest.raises(ValueError, match=r"must hold \{retain\} once: 'a/b'"):
        profiles.profile("llama-3.2-1b", oracle="a/b")
