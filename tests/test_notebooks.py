"""Notebooks in git carry no outputs and take parameters; the test run executes them as well.

They import and never define; a cell tagged `example` shows what a reader would write.
"""

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stripped_with_parameters_and_nothing_defined(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), f"strip it: nbstripout {path}"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    own = [cell for cell in code if "example" not in cell.metadata.get("tags", [])]
    lines = [line for cell in own for line in cell.source.splitlines()]
    assert not any(line.startswith(("def ", "class ")) for line in lines), "notebooks import, they never define"


def test_there_are_notebooks():
    assert NOTEBOOKS
