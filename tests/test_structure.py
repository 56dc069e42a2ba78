"""The house's order: imports run one way, the library stays small and light, nothing names a machine."""

import ast
import graphlib
import json
import os
import re
import subprocess
import sys

import pytest
from helpers import NOTEBOOKS, ROOT

LIBRARY = sorted((ROOT / "rklu_lib").rglob("*.py"))
CORE = [path for path in LIBRARY if path.parent.name == "rklu_lib"]
OWN = [path for path in LIBRARY if path.parent.name == "own"]  # the tool for a model of one's own, on top of the core
ROBUSTNESS = [path for path in LIBRARY if path.parent.name == "robustness"]  # attacks on what was unlearned
COMMANDS = [path for path in LIBRARY if path.parent.name == "commands"]  # what single commands do beside running
NAMES = {path.stem: path for path in LIBRARY if path.stem not in ("__init__", "__main__")}
INDEX = ROOT / "book" / "index_of_results.md"
# A module may import from those before it, and from no other.
ORDER = ("profiles", "chat", "files", "hub", "budget", "data", "losses", "caches", "models", "metrics", "logs")
ORDER += ("parallel", "teacher", "methods", "training", "evaluation", "probing", "records", "bases", "execution")
ORDER += ("runs", "cluster")
ORDER += ("fetch", "planning", "doctor", "verify", "sampling", "inputs", "measure", "checkpoints", "plan", "jobs")
ORDER += ("report", "unlearning", "tokens", "membership", "memorisation", "probes", "relearning", "rounding")
ORDER += ("exchange", "rows", "attack", "terminal", "own_model", "cli")
ALONE = ("profiles", "chat", "files", "hub", "budget", "metrics", "losses", "caches")
HEAVY = ("papermill", "datasets", "matplotlib", "pandas", "jupyter_book", "anywidget", "lm_eval", "sacrebleu")


def imported(path):
    """The modules of rklu_lib that one of them imports, anywhere in its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[-1] for a in node.names if a.name.startswith("rklu_lib.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: relative import"
            if node.module in ("rklu_lib", "rklu_lib.own", "rklu_lib.commands", "rklu_lib.robustness"):
                names |= {a.name for a in node.names}
            elif node.module.startswith("rklu_lib."):
                names.add(node.module.split(".")[-1])
    return {n for n in names if n in NAMES}


def test_every_module_has_its_place():
    assert set(ORDER) == set(NAMES) and len(LIBRARY) == sum(map(len, (CORE, OWN, COMMANDS, ROBUSTNESS)))


def test_there_is_no_import_cycle():
    graph = {name: imported(path) for name, path in NAMES.items()}
    assert graph["runs"] and graph["training"]  # the reader of imports sees them
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_modules_import_only_from_those_before_them():
    for place, name in enumerate(ORDER):
        later = imported(NAMES[name]) - set(ORDER[:place])
        assert not later, f"{name} imports {later}"


@pytest.mark.parametrize("name", ALONE)
def test_the_ground_floor_imports_nothing_of_ours(name):
    assert imported(ROOT / "rklu_lib" / f"{name}.py") == set()


def test_the_library_knows_nothing_of_the_pages():
    assert not [path.name for path in LIBRARY if "rklu_pages" in path.read_text(encoding="utf-8")]


def test_metrics_know_no_torch_and_losses_no_model():
    def outside(name):
        tree = ast.parse((ROOT / "rklu_lib" / f"{name}.py").read_text(encoding="utf-8"))
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        return {n.split(".")[0] for n in names | {n.module for n in nodes if isinstance(n, ast.ImportFrom)}}

    computing = {"collections", "functools", "types", "warnings", "numpy", "scipy"}
    assert outside("metrics") == computing | {"nltk", "rouge_score", "sacrebleu"}
    assert outside("losses") == {"math", "torch"}


def test_runs_is_light_to_import_and_keeps_its_files_where_it_is_told(tmp_path):
    code = "import json, sys, rklu_lib.runs as r; d = r.records; "
    code += "print(json.dumps([sorted(sys.modules), str(d.RECORDS), str(d.RUNS)]))"
    places = {"RKLU_RECORDS": str(tmp_path / "a"), "RKLU_RUNS": str(tmp_path / "b")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | places, capture_output=True, text=True, check=True
    )
    modules, *told = json.loads(run.stdout)
    assert "rklu_lib.training" in modules
    assert not set(modules) & set(HEAVY)
    assert told == list(places.values())


def test_the_library_stays_small():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY}
    parts = [sum(lines[path] for path in part) for part in (CORE, OWN, COMMANDS, ROBUSTNESS)]
    assert all(n <= most for n, most in zip(parts, (3900, 1250, 800, 900), strict=True)), parts
    assert not {path.name: n for path, n in lines.items() if n > 300}


def _sources(notebook):
    """The source of each code cell; lines that only a notebook understands (magics) become comments."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            yield re.sub(r"(?m)^(\s*)[%!]", r"\1# ", "".join(cell["source"]))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_call_the_library_and_define_next_to_nothing(notebook):
    for source in _sources(notebook):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs in rklu_lib"


def test_the_index_says_how_many_seeds_a_page_shows():
    rows = [line for line in INDEX.read_text(encoding="utf-8").splitlines() if " seed" in line and "{doc}" in line]
    assert len(rows) > 10
    for row in rows:
        name = re.findall(r"notebooks/(\w+)`", row)[0]
        source = next(s for s in _sources(ROOT / "notebooks" / f"{name}.ipynb") if "profile = " in s)
        parameters = {n.targets[0].id: n.value for n in ast.parse(source).body if isinstance(n, ast.Assign)}
        seeds = len(ast.literal_eval(parameters["seeds"])) if "seeds" in parameters else 1
        assert row.rstrip(" |").endswith(("one seed", "two seeds", "three seeds")[seeds - 1]), row


# Built from pieces, so that this file does not name what it looks for.
FOLDERS = ("home", "Users", "root", "work", "mnt", "tmp", "content", "workspace")
MACHINE = re.compile(r"(?<![\w.:/~<}$)\]-])/(?:" + "|".join(FOLDERS) + r")/[\w.-]+|[A-Z]:\\\\?Users\\\\?\w+")


def test_the_pattern_knows_a_machines_path_from_a_link():
    for folder in FOLDERS:
        assert MACHINE.search(f'open("/{folder}/' + 'someone/file")')
    for harmless in ("https://example.org/home/page", "book/work/page", "../tmp/x", "and/or", "a /home"):
        assert not MACHINE.search(harmless)


def test_no_file_names_a_developers_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes())[:8192]:
            hits = MACHINE.finditer(content.decode("utf-8", errors="replace"))
            found += [f"{name}: {hit.group()}" for hit in hits]
    assert not found
