"""Execute notebooks in place, as they are committed: outputs, and nothing that tells when or where.

python notebooks/execute.py notebooks/quickstart.ipynb ...
"""

import sys

import nbformat
from nbclient import NotebookClient

for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=None, record_timing=False).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, path)
    print(path, "executed")
