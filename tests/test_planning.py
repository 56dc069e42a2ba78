"""What a plan says, against what is counted and measured: parameters, operations, memory held, disk, activations."""

import json

import pytest
import torch
from helpers import SHARED, rklu
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from rklu_lib import bases, budget, data, evaluation, methods, models, profiles, records, runs, training
from rklu_lib.commands import planning
from rklu_lib.execution import state
from rklu_lib.records import RunSpec
from rklu_lib.teacher import TeacherModel

# As the models' cards and checkpoints have them.
PARAMETERS = {"llama2-7b": 6_738_415_616, "llama-3.2-1b": 1_235_814_400, "smollm2": 134_515_008}
PARAMETERS |= {"phi-1.5": 1_418_270_720}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """No records, no models, no data."""
    monkeypatch.delenv("RKLU_TOFU", raising=False)
    monkeypatch.setenv("RKLU_MODELS", str(tmp_path))
    monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(records, "RUNS", tmp_path / "runs")


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_of_the_hubs_models_have_their_parameters(bare, name):
    assert budget.parameters(planning.configuration(profiles.profile(name))) == PARAMETERS[name]


def test_operations_are_those_that_are_counted(tiny_model, model, examples):
    model = tiny_model(model.config.model_type)
    model.set_attn_implementation("eager")  # the counter does not know a CPU's fused attention
    batch = data.collate([examples[0]] * 4, range(4))  # all of one length: no padding, which is not planned
    scored = models.ScoredLogits(model)
    scored.openings = False  # nor is what rows open with alike
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        scored(batch.input_ids, batch.mask)
    tokens, length = batch.input_ids.numel(), batch.input_ids.shape[1]
    said = budget.forward(model, tokens, len(batch.targets), length)
    assert said == pytest.approx(counter.get_total_flops(), rel=0.02)
    with FlopCounterMode(display=False) as counter:
        methods.cross_entropy(scored, batch).backward()
    assert 3 * said == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_a_cache_takes_what_it_is_said_to(model):
    cache = DynamicCache()
    model(torch.ones(3, 7, dtype=torch.int64), past_key_values=cache, use_cache=True)
    taken = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert taken == 3 * 7 * budget.cache_bytes(model.config, model.dtype)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_about_those_that_are_kept(tiny_model, model, checkpointing):
    model = tiny_model(model.config.model_type)
    batch = torch.ones(4, 50, dtype=torch.int64)
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
        model.train()
    weights = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def keep(t):
        if t.untyped_storage().data_ptr() not in weights:
            kept[t.untyped_storage().data_ptr()] = (t, t.untyped_storage().nbytes())
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = model.base_model(batch, use_cache=False).last_hidden_state
    said = budget.activations(model.config, "float32", batch.numel(), checkpointing)
    if checkpointing:  # one layer is made again while the inputs of all are there
        assert sum(n for _, n in kept.values()) < said < budget.activations(model.config, "float32", batch.numel())
    else:
        assert sum(n for _, n in kept.values()) == pytest.approx(said, rel=0.35)
    assert out.shape[:2] == batch.shape


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_held_and_what_resuming_needs_are_as_said(tiny_model, profile, examples, tmp_path, dtype):
    model = tiny_model().to(getattr(torch, dtype))
    n, size = model.num_parameters(), budget.BYTES[dtype]
    optimizer = training.adamw(model, 1e-5, 0.01)
    sum(p.float().sum() for p in model.parameters()).backward()
    optimizer.step()
    states = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t) and t.dim()]
    found = n * size + sum(p.grad.numel() * size for p in model.parameters())
    found += sum(t.numel() * t.element_size() for t in states)
    assert sum(budget.held(n, dtype).values()) == found
    training.finetune(model, examples[:4], profile, epochs=1, lr=1e-5, batch_size=4, seed=0, folder=tmp_path / "state")
    on_disk = sum(f.stat().st_size for f in (tmp_path / "state").iterdir())
    assert on_disk == pytest.approx(budget.state(n, dtype), rel=0.2)  # and what says which tensor is which


def test_scores_do_not_depend_on_the_room_for_caches(model, tokenizer, profile, monkeypatch):
    asked = evaluation.load_questions(profile, "forget10", tokenizer)["forget"]
    other = models.create(profile, tokenizer, 3).eval()
    for judged in (model, TeacherModel(model, model, 2.0) if model.config.model_type == "phi" else other):
        whole = evaluation.score(judged, tokenizer, {"forget": asked}, 6)["forget"]
        monkeypatch.setattr(budget, "CPU_BYTES", 2 * 60 * budget.cache_bytes(judged.config, judged.dtype))
        assert budget.rows(judged, 20, 64) == (1 if isinstance(judged, TeacherModel) else 3)
        tight = evaluation.score(judged, tokenizer, {"forget": asked}, 6)["forget"]
        monkeypatch.undo()
        for name in ("answer_nll", "paraphrased_nll", "wrong_nll"):
            torch.testing.assert_close(torch.tensor(tight[name]), torch.tensor(whole[name]), rtol=1e-4, atol=1e-5)
        assert tight["generations"].tolist() == whole["generations"].tolist()


def test_a_large_model_gets_what_fits_and_a_small_one_what_it_had(bare):
    large, small = (planning.configuration(profiles.profile(name)) for name in ("llama2-7b", "smollm2"))
    rows = [budget.rows(_On(c), 240, evaluation.BATCH) for c in (large, small)]
    assert rows == [34, 256]  # 8 GiB, half of it, over 240 tokens of 512 KiB


class _On:
    def __init__(self, config):
        self.config, self.device, self.dtype = config, torch.device("cpu"), torch.bfloat16


def test_the_plan_of_smoke_counts_its_tokens(bare):
    spec = RunSpec("smoke", "forget10", "RKLU")
    p, tokenizer = spec.values, bases.new_tokenizer(spec.base("original"))
    _, steps = planning.study([spec])
    found = {s.name: s for s in steps}
    assert list(found)[0] == "original, checkpoint" and len(found) == len(runs.jobs([spec])) == 5
    pairs = [data.encode(tokenizer, p.template, *pair) for pair in bases.training_pairs(p, "full")]
    said = found["original, checkpoint"].trained / p.finetune_epochs
    # a tokenizer of 1,024 tokens that has read the text needs about as many as the rule of four characters says
    assert said == pytest.approx(sum(len(e.prompt + e.answer) for e in pairs), rel=0.35)


def test_a_plan_needs_nothing_and_says_what_it_takes(bare):
    def said(*args):
        done = rklu("plan", *args, COLUMNS="200")
        return done.output if done.exit_code == 0 else done.exit_code

    text = said("--profile", "llama2-7b", "--split", "forget10", "--card", "h100")
    assert "6,738,415,616 parameters" in text and "of 80 on this card: fits" in text
    assert "original, checkpoint" in text and "to download  meta-llama/Llama-2-7b-chat-hf" in text
    assert "does not fit" in said("--profile", "llama2-7b", "--card", "l4")
    loaded = said("--profile", "llama-3.2-1b", "--card", "rtx4090")
    assert "original, checkpoint" not in loaded and "fits" in loaded and "Instruct_retain90" in loaded
    hubs = planning.downloads([RunSpec("llama-3.2-1b", "forget10", "RKLU")])
    lacking = planning.needs("llama-3.2-1b")[1]
    for name in hubs:  # the original and the oracle
        (models.folder() / name).mkdir(parents=True)
    assert len(hubs) == 2 and planning.downloads([RunSpec("llama-3.2-1b", "forget10", "RKLU")]) == []
    assert lacking - planning.needs("llama-3.2-1b")[1] == 2 * 2 * PARAMETERS["llama-3.2-1b"]  # two models, in 16 bits
    assert said("--card", "abacus") == said("--split", "novel") == 2
    assert data.resolve_source("locuslab/TOFU") == "locuslab/TOFU"


def test_the_plan_counts_what_is_held_as_the_page_of_costs_does(bare):
    from rklu_pages.beyond import costs

    _, steps = planning.study([RunSpec("llama2-7b", "forget10", "RKLU")])
    kept = costs.memory_plan().loc["frozen teacher", "total"] * 1e9
    assert kept < steps[-1].memory < 1.1 * kept


def test_tofu_is_as_it_was_counted():
    if not (SHARED / "tofu").is_dir():
        pytest.skip("no TOFU here")
    for name, counted in planning._TOFU.items():
        rows, *chars = planning._characters(name, str(SHARED / "tofu"))
        assert rows == {"retain": 400}.get(name, counted[0])
        assert chars == pytest.approx(counted[1:], rel=0.02, abs=1)


def test_a_study_that_is_done_needs_nothing(bare):
    spec = RunSpec("smoke", "forget10", "oracle")
    records.write(spec, [{"epoch": 1, "forget_rouge": 0.5}], {"rouge": [[0.1]]}, {})
    assert planning.study([spec])[1] == [] and json.loads(spec.record_path.read_text())
    assert not state(spec).exists()


def test_the_plan_counts_each_frozen_pass(bare):
    """UNDIAL runs the original once over the forget set, RMU+MSE over the retain set: GA and RMU do neither."""
    steps = {
        name: planning.study([RunSpec("smoke", "forget10", name)])[1][-1] for name in ("GA", "UNDIAL", "RMU", "RMU+MSE")
    }
    made = planning.study([RunSpec("smoke", "forget10", "GA")])[0]
    once = made.passes(made.forget, 1)[1]
    assert steps["UNDIAL"].flops - steps["GA"].flops == pytest.approx(once)
    retained = (made.full[0] - made.forget[0], *made.full[1:])
    also = 3 * made.passes(made.forget, made.p.unlearn_epochs)[1]  # the retain term's batches, forward and back
    assert steps["RMU+MSE"].flops - steps["RMU"].flops == pytest.approx(also + made.passes(retained, 1)[1])
