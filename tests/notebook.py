"""The notebook of examples/: it is executed here; `python -m tests.golden` writes its output into it."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FILE = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def read() -> NotebookNode:
    """Return the notebook as it is in the file."""
    return nbformat.read(FILE, as_version=4)


def execute() -> NotebookNode:
    """Return the notebook with the output of its cells.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = read()
    NotebookClient(notebook, timeout=120, kernel_name="python3", record_timing=False).execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def shown(notebook: NotebookNode) -> list[str]:
    """Return what the cells show as plain text, or print; a cell of a report shows the report and nothing else."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.get("text") or output["data"]["text/plain"] for output in outputs]


def write() -> None:
    """Execute the notebook, and write it with its output."""
    nbformat.write(execute(), FILE)
