"""Notebooks as students hand them in: the exercises of notebook 02 alone, which run in seconds."""

import copy
from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks

WRONG = {
    "looks_ratio": "def looks_ratio():\n    return 4",
    "unpatchify": "def unpatchify(patches, height, width, patch_size):\n    return "
    "patches.reshape(len(patches), -1, height, width)",
}


def solved():
    """Every exercise of notebook 02 answered, in a notebook of its own."""
    source = nbformat.read(notebooks("02")[0], as_version=4)
    kept = [
        cell for cell in source.cells if "nbgrader" in cell.metadata or "parameters" in cell.metadata.get("tags", ())
    ]
    imports = code(
        "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
        "from gen_affect_lib.model.patches import patchify"
    )
    return nbformat.v4.new_notebook(cells=copy.deepcopy([imports, *kept]), metadata=source.metadata)


def code(source: str):
    return nbformat.v4.new_code_cell(source)


def graded(notebook, grade_id: str):
    return next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def answered(**answers: str):
    """`solved` with other answers: name = the code of its cell."""
    notebook = solved()
    for name, source in answers.items():
        graded(notebook, name).source = source
    return notebook


def write(notebook, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
