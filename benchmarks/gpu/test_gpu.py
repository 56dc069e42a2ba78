"""Check that steps, teacher and scores on a GPU equal the CPU's for every method, and that a run resumes there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import steps

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return (arrays by this machine's device, arrays by its CPU)."""
    folder = tmp_path_factory.mktemp("steps")
    files = {folder / "device.npz": {}, folder / "cpu.npz": {"CUDA_VISIBLE_DEVICES": ""}}
    command = [sys.executable, steps.__file__]
    started = [subprocess.Popen([*command, str(f)], env=os.environ | hidden) for f, hidden in files.items()]
    assert [process.wait() for process in started] == [0, 0]  # both at once, to save time on the GPU
    found = [dict(np.load(file)) for file in files]
    assert str(found[0]["device"]) == ("cuda" if torch.cuda.is_available() else "cpu")
    assert str(found[1]["device"]) == "cpu"
    return found


@pytest.mark.parametrize("name", steps.TRAINED)
def test_two_steps_are_the_cpus(both, name):
    here, there = both
    np.testing.assert_allclose(here[f"{name} loss"], there[f"{name} loss"], rtol=1e-4, atol=1e-6)
    a, b = here[f"{name} moved"], there[f"{name} moved"]  # AdamW's first steps are almost signs: compare directions
    assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.999
    assert np.linalg.norm(b) > 0


@pytest.mark.parametrize("kind", steps.HALF)
def test_steps_in_bf16_go_where_float32_does_on_the_cpu(both, kind):
    """bf16 products, attention and optimiser are other code: compare only as closely as eight bits allow."""
    here, there = both
    np.testing.assert_allclose(here[f"{kind} loss"], there["RKLU loss"], rtol=0.05)
    a, b = here[f"{kind} moved"], there["RKLU moved"]
    assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.9


@pytest.mark.parametrize("name", ["teacher", "logits", "nll", "utility"])
def test_frozen_teacher_and_evaluation_are_the_cpus(both, name):
    np.testing.assert_allclose(both[0][name], both[1][name], rtol=1e-3, atol=1e-4)


def test_a_resumed_run_arrives_where_the_whole_one_does(tmp_path):
    loss, moved = steps.unlearned("RKLU")
    assert steps.unlearned("RKLU", folder=tmp_path / "state", stop=2) is None
    again, moved_again = steps.unlearned("RKLU", folder=tmp_path / "state")
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    np.testing.assert_allclose(moved_again, moved, rtol=1e-3, atol=1e-6)
