"""What publishes the work: citation, workflow, containers, buttons. Not run here, but held to their schemas."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers import ROOT
from packaging.requirements import Requirement

SCHEMAS = {"CITATION.cff": "vendor.citation-file-format", ".github/workflows/pages.yml": "vendor.github-workflows"}


@pytest.mark.parametrize("file", SCHEMAS)
def test_files_that_others_read_follow_their_schemas(file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[file], ROOT / file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_what_is_here():
    jobs = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text())["jobs"]
    commands = [step["run"].split() for step in jobs["check"]["steps"] if "run" in step]
    assert ["bash", ".ci/run"] in commands and (ROOT / ".ci/run").exists()
    targets = {c[1] for c in commands if c[0] == "make"}
    assert targets and targets <= set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))


def test_one_setting_gives_pages_their_launch_buttons(tmp_path):
    for name in ("Makefile", "_config.yml", "configs/launch.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    url = "https://example.org/owner/name"
    command = ["make", "--silent", "_build/_config.yml", f"REPOSITORY={url}"]
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"MAKEFLAGS": ""})
    plain, made = (yaml.safe_load((tmp_path / name).read_text()) for name in ("_config.yml", "_build/_config.yml"))
    assert made["repository"]["url"] == url and "binderhub_url" in made["launch_buttons"]
    assert {k: v for k, v in made.items() if k not in ("repository", "launch_buttons")} == plain


def test_the_containers_take_the_pinned_torch_and_the_dockerfile_that_is_here():
    lock, dockerfile = ((ROOT / name).read_text() for name in ("requirements.lock", "Dockerfile"))
    command = re.search(r"sed -nE '(.*?)' requirements.lock > pins.txt", dockerfile)[1]
    pins = subprocess.run(
        ["sed", "-nE", command], input=lock, capture_output=True, text=True, check=True
    ).stdout.split()
    assert pins and [str(Requirement(pin)) for pin in pins] == pins  # what pip can read, line by line
    assert len(pins) == len(re.findall(r"(?m)^[\w.-]+==", lock)) and len([p for p in pins if p[:7] == "torch=="]) == 1
    python = re.search(r"FROM python:([\d.]+)", dockerfile)[1]
    assert f"python={python}" in (ROOT / "environment.yml").read_text()
    for file in sorted((ROOT / ".devcontainer").rglob("devcontainer.json")):
        build = json.loads(file.read_text())["build"]
        assert (file.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
        assert (file.parent / build["context"]).resolve() == ROOT
        arguments = set(re.findall(r"(?m)^ARG (\w+)", dockerfile))
        assert set(build.get("args", {})) <= arguments
