"""Notebooks at the smoke scale, from nothing: one process a core, one line a page, how much is left.

python notebooks/smoke.py notebooks/quickstart.ipynb ...

Of a page's forget sets, seeds and alphas some, see `SOME`. What is computed lies in _build/smoke, where a second call
finds it.
"""

import ast
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import papermill
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

OUT = Path("_build/smoke").resolve()
PLACES = {"RKLU_RECORDS": str(OUT / "records"), "RKLU_RUNS": str(OUT / "runs"), "OMP_NUM_THREADS": "1"}

# Of what a page takes several of, so many: the loops over more are compared by nbval, on the committed records.
SOME = {"splits": ["forget01"], "seeds": [0], "alphas": [1, 8]}


def parameters(path):
    """The parameters of a page at the smoke scale: `SOME` of where it takes more."""
    with warnings.catch_warnings():  # some pages say in a comment what papermill takes for a type
        warnings.simplefilter("ignore")
        known = {name: p["default"] for name, p in papermill.inspect_notebook(path).items()}
    few = {name: some for name, some in SOME.items() if len(ast.literal_eval(known.get(name, "[]"))) > len(some)}
    return {"profile": "smoke"} | few


def execute(path):
    """Execute one page; returns its seconds. What a page cannot do is raised as papermill says it."""
    begun = time.perf_counter()
    papermill.execute_notebook(path, OUT / Path(path).name, parameters(path), progress_bar=False)
    return time.perf_counter() - begun


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    os.environ.update(PLACES)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("pages"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("smoke scale", total=len(sys.argv) - 1)
        with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
            pages = {pool.submit(execute, path): path for path in sys.argv[1:]}
            for done in as_completed(pages):
                progress.console.print(f"{Path(pages[done]).stem}: {done.result():.0f} s")
                progress.advance(bar)
