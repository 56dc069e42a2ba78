"""What comes from elsewhere: pinned, with hashes, for a reason, and nothing is imported that is not."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"rklu_lib", "rklu_pages"}
ELSEWHERE = {"cluster"}  # an extra for machines that have what it names


def locked(name="requirements.lock"):
    """{package: (version, its hashes)} of a lock file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^([\w.-]+)==(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)\n", text)
    assert len(entries) == len(re.findall(r"(?m)^[^\s#]", text))  # nothing else stands in it
    return {canonicalize_name(name): (v, re.findall("sha256:([0-9a-f]+)", hashes)) for name, v, hashes in entries}


def imports(folder):
    """{package at the top: a file that imports it} of all that a folder's modules import, anywhere in their code."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0]: path.name for name in names}
    return {k: v for k, v in found.items() if k not in sys.stdlib_module_names and k not in OURS}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-tools.lock"])
def test_every_package_is_pinned_with_hashes(name):
    held = locked(name)
    assert len(held) > (100 if name == "requirements.lock" else 10)
    assert all(hashes for _, hashes in held.values())


@pytest.mark.parametrize("folder", ["rklu_lib", "rklu_pages", "notebooks"])
def test_nothing_is_imported_that_is_neither_ours_nor_pinned(folder):
    held, owners = locked(), packages_distributions()
    for name, file in imports(folder).items():
        assert name in owners, f"{file} imports {name}, which no installed package brings"
        assert any(canonicalize_name(owner) in held for owner in owners[name]), f"{file} imports {name}: not pinned"


def dependencies():
    """(extra or "", requirement) of each dependency that is somebody else's."""
    groups = {"": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
    found = [(extra, Requirement(text)) for extra, texts in groups.items() for text in texts]
    return [(extra, r) for extra, r in found if r.name != PROJECT["name"]]


def test_what_the_library_and_pages_import_is_a_dependency_that_is_named():
    owners, named = packages_distributions(), {canonicalize_name(r.name) for _, r in dependencies()}
    brought = {"ipython", "traitlets"}  # by ipykernel and anywidget, whose other halves they are
    brought |= {"docutils", "sphinx", "nbformat", "distributed"}  # by jupyter-book, which is made of them; by dask
    for folder in OURS:
        for name in imports(folder):
            assert {canonicalize_name(o) for o in owners[name]} & (named | brought), name


def test_every_dependency_is_pinned_to_a_version_it_allows():
    held = locked()
    for extra, requirement in dependencies():
        if extra not in ELSEWHERE:
            assert requirement.specifier.contains(held[canonicalize_name(requirement.name)][0]), requirement


def test_every_dependency_has_a_reason():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    for _, requirement in dependencies():
        found = [line for line in lines if re.search(rf'"{re.escape(requirement.name)}[\[>=]', line)]
        assert found and all(len(line.partition("#")[2].strip()) > 8 for line in found), requirement


def test_what_is_installed_is_what_is_pinned():
    held = locked()
    for name in ("torch", "transformers", "numpy", "scipy", "safetensors", "tokenizers"):
        assert version(name).removesuffix("+cpu") == held[name][0]


def test_the_packages_go_where_bin_names_an_environment(tmp_path):
    """As with conda, see the README: there is no .venv then, and pip is that environment's."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n', encoding="utf-8")
    pip.chmod(0o755)
    run = subprocess.run(
        ["make", "venv", f"BIN={pip.parent}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert len(asked) == 4 and all("--require-hashes" in line for line in asked[:3]) and "--editable" in asked[3]
    assert not (tmp_path / ".venv" / "bin").exists()
