"""The script for one borrowed GPU, gone through in small on whatever is here: what it will do there, it does."""

import json
import os
import subprocess
import sys
import tarfile

import pytest

from rklu_lib import data


@pytest.mark.timeout(1200)
def test_the_script_is_rehearsed(tmp_path):
    environment = os.environ | {
        "PYTHON": sys.executable,
        "REHEARSAL": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "SECONDS_TOTAL": "1100",
        "SECONDS_RIGHT": "600",
    }
    command = [str(data.ROOT / "benchmarks" / "gpu" / "run.sh"), str(tmp_path / "out"), str(tmp_path / "parts")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    logs = {p.name: p.read_text()[-2000:] for p in (tmp_path / "out").glob("*.log")}
    stages = [line.split(":") for line in (tmp_path / "out" / "stages.txt").read_text().splitlines()]
    assert stages[0][0] == "seven_b" and sorted(name for name, _ in stages) == ["right", "seven_b", "study"]
    assert all(how.startswith(" exit 0,") for _, how in stages), (done.stderr, logs)
    measured = json.loads((tmp_path / "out" / "seven_b.json").read_text())
    assert measured["ours"]["seconds"] > 0 and measured["epoch"]["tokens_per_second"] > 0
    with tarfile.open(tmp_path / "out" / "records.tar.gz") as archive:
        names = {n.split("/")[-2] for n in archive.getnames() if n.endswith(".json")}
    assert {"RKLU", "TA", "oracle"} <= names
    again = subprocess.run(command, env=environment | {"STAGES": "study"}, capture_output=True, text=True, check=False)
    stages = [line.split(":")[0] for line in (tmp_path / "out" / "stages.txt").read_text().splitlines()]
    assert sorted(stages) == ["right", "seven_b", "study", "study"], (
        again.stderr
    )  # a second call does what is named alone
    assert len(list((tmp_path / "out").iterdir())) <= 8  # what one call brings back
