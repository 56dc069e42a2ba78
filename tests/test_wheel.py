"""The package as `pip install` leaves it: its data are inside, and it writes where one stands, not into itself."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

CODE = """
from pathlib import Path
import rklu_lib
from rklu_lib import data, profiles, records
from rklu_lib.own import report
from rklu_pages.results import paper
assert Path(rklu_lib.__file__).is_relative_to(SITE), rklu_lib.__file__
assert len(data.load_tofu("full", "fictional")) > 100 and data.refusals() and data.load_prose("test", "fictional")
assert paper.PAPER.is_relative_to(SITE) and (paper.PAPER / "claims.yaml").is_file()
assert (report.ASSETS / "report.html.j2").is_file() and profiles.profile("smoke")
assert not records.RUNS.is_relative_to(SITE) and records.RUNS == Path.cwd() / "runs"
from rklu_lib import runs

short = (("finetune_epochs", 1), ("n_questions", 2), ("max_new_tokens", 2))
# in a process of its own, which imports the installed package again
print(runs.ensure([records.RunSpec("smoke", "forget01", "oracle", 0, short)], workers=1)[0].epochs)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's contents, built from a copy of what git would commit."""
    folder = tmp_path_factory.mktemp("wheel")
    names = ("rklu_lib", "rklu_pages", "data", "pyproject.toml", "setup.py", "README.md", "LICENSE")
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("records", "__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--quiet"]
    build = [*pip, "wheel", "--no-build-isolation", *offline, "--wheel-dir", folder / "wheels", folder / "source"]
    subprocess.run(build, check=True, capture_output=True, cwd=folder)
    (wheel,) = (folder / "wheels").glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", folder / "site", wheel], check=True, cwd=folder)
    return folder / "site"


def test_an_installed_package_runs_in_an_empty_folder_and_writes_only_there(site, tmp_path):
    before = sorted(p for p in site.rglob("*") if "__pycache__" not in p.parts)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RKLU_")} | {"PYTHONPATH": str(site)}
    code = f"from pathlib import Path\nSITE = Path({str(site)!r})\n{CODE}"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "model_utility" in run.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"data", "runs"}
    assert sorted(p for p in site.rglob("*") if "__pycache__" not in p.parts) == before


def test_the_command_is_there_from_a_wheel(site, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "120"}
    code = "from rklu_lib.cli import app; app(['unlearn', '--help'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "--max-perplexity-rise" in run.stdout and "Stopping:" in run.stdout
