"""The notebook of examples/ runs, and shows what its file contains: one result for a cell."""

import pytest

from tests import notebook


@pytest.mark.filterwarnings("ignore")  # the kernel's client, not attnscope
def test_the_notebook_runs_and_shows_what_its_file_has():
    """After a change of the output: `python -m tests.golden`."""
    executed = notebook.execute()
    assert notebook.shown(executed) == notebook.shown(notebook.read())
    assert max(len(cell.get("outputs", [])) for cell in executed.cells) == 1
