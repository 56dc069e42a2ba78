"""Two processes against one: data parallelism and sharding give its records, resume, refuse in one line."""

import json
import os
import re
import sys
from graphlib import TopologicalSorter

import numpy as np
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from helpers import LAUNCHED, tiny_fields

from rklu_lib import data, parallel, records, runs
from rklu_lib.records import RunSpec

CONFIGS = data.ROOT / "configs" / "accelerate"
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
FSDP2 |= {"FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}
KINDS = {"DDP": {}, "FSDP2": FSDP2}
METHODS = ("RKLU", "NPO", "RKLU+KL", "DPO")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tofu):
    """{method: its record, made by one process}."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RECORDS", folder / "records")
        patch.setattr(records, "RUNS", folder / "runs")
        patch.setattr("rklu_lib.profiles._values", lambda: {"tiny": tiny_fields(tofu, batch_size=7)})
        specs = [RunSpec("tiny", "forget10", name) for name in METHODS]
        for job in TopologicalSorter(runs._plan(specs, False)).static_order():
            runs.execute(*job)
        return {spec.method: runs.load(spec) for spec in specs}


def assert_same_record(one, other):
    assert (one.content["processes"], other.content["processes"]) == (1, 2)
    for epoch, found in zip(one.epochs, other.epochs, strict=True):
        assert found == pytest.approx(epoch, rel=1e-4, abs=1e-4)
    for name, values in one.questions.items():
        np.testing.assert_allclose(other.questions[name], values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_make_the_record_of_one_even_if_one_was_killed(launch, alone, kind):
    spec = alone["RKLU"].spec
    dead = launch(LAUNCHED, "run", "RKLU", "-p", "tiny", RKLU_DIES="1 1", **KINDS[kind])
    assert dead.returncode != 0 and runs.load(spec) is None
    states = list(runs.state(spec).parent.glob("*-state-*/history.json"))
    assert [len(json.loads(s.read_text())) for s in states] == [1]  # the epoch before
    asked = [word for name in METHODS for word in ("--method", name)]
    run = launch(LAUNCHED, "sweep", "-p", "tiny", "--split", "forget10", *asked, **KINDS[kind])
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("data:") == 1  # one process speaks
    for record in alone.values():
        assert_same_record(record, runs.load(record.spec))
    assert not list(runs.state(spec).parent.glob("*-state-*"))


def test_what_is_refused_is_refused_in_one_line(launch):
    run = launch(LAUNCHED, "run", "RKLUX", "-p", "tiny")
    assert run.returncode != 0
    assert len(re.findall("no method 'RKLUX'", run.stderr)) == 1
    assert "rklu_lib" not in run.stderr  # torchrun's report follows, but no traceback of ours


MASTER = """
import copy
import launched, torch
from torch.distributed.fsdp import FSDPModule
from rklu_lib import bases, data, methods, models, parallel, profiles, runs, training

p = profiles.profile("tiny")
tokenizer = bases.new_tokenizer(runs.RunSpec("tiny", "forget10", "RKLU"))
model = models.create(p, tokenizer, 0)
examples = bases.forget_examples(runs.RunSpec("tiny", "forget10", "RKLU"), tokenizer)
before, seen = copy.deepcopy(model), []
prepared = parallel.Student.prepared

def look(self, terms):
    prepared(self, terms)
    sharded = isinstance(terms.scored.model.base_model.layers[0], FSDPModule)
    assert sharded and {q.dtype for q in terms.parameters()} == {torch.float32}
    assert not sum(q.numel() for q in self.model.parameters())

def note(model, epoch):
    seen.append(model.dtype)
    return {}

parallel.Student.prepared = look
steps = lambda epoch: [training._terms(examples, range(len(examples)), p, methods.cross_entropy)]
training.fit(model, steps, epochs=1, epoch_steps=1, lr=1e-6, on_epoch=note)
assert seen == [torch.bfloat16] and model.dtype == torch.float32
for name, one in before.named_parameters():
    moved = (model.get_parameter(name) - one).abs()
    big = one.abs() > 1e-3  # where a step of bf16 is more than this rate's
    assert (moved[big] > 0).float().mean() > 0.95 and moved.max() < 2e-6, name
    assert (model.get_parameter(name)[big].bfloat16() == one[big].bfloat16()).float().mean() > 0.9, name
print("held")
"""


def test_sharded_weights_are_float32_and_move_by_less_than_a_bf16_step(tmp_path, launch):
    (tmp_path / "master.py").write_text(MASTER)
    paths = os.pathsep.join([os.path.dirname(LAUNCHED), *sys.path])
    run = launch(tmp_path / "master.py", **FSDP2, ACCELERATE_MIXED_PRECISION="bf16", PYTHONPATH=paths)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("held") == 2


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda f: f.stem)
def test_the_configurations_are_what_accelerate_reads_and_the_library_asks(file):
    config = load_config_from_file(str(file))
    assert config.num_processes == {"2-cards": 2, "8-cards": 8, "2-nodes": 16}[file.stem]
    assert config.num_machines == (2 if file.stem == "2-nodes" else 1) and config.mixed_precision == "bf16"
    assert config.fsdp_config["fsdp_version"] == 2 and not config.fsdp_config["fsdp_cpu_ram_efficient_loading"]
    assert file.name in file.read_text()  # the command in its first lines


def test_alone_everything_is_a_process_s_own(tmp_path):
    assert parallel.processes() == 1 and parallel.main() and parallel.fails_first()
    assert parallel.agreed(3) == 3 and parallel.share([4, 5]) == ([4, 5], True)
    assert parallel.shared(lambda part: [2 * i for i in part], [1, 2, 3]) == [2, 4, 6]
    with parallel.directory(tmp_path / "new") as tmp:
        (tmp / "file").touch()
    assert (tmp_path / "new" / "file").exists()
