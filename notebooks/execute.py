"""Execute notebooks in place, as they are committed: outputs, and nothing that tells when or where.

Of a widget the page's form is kept; its live view belongs to the kernel that has just ended.

python notebooks/execute.py notebooks/quickstart.ipynb ...

A notebook that had to make records shows its progress bar, too: execute it once more.
"""

import sys

import nbformat
from nbclient import NotebookClient

for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=None, record_timing=False).execute()
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    nbformat.write(notebook, path)
    print(path, "executed")
