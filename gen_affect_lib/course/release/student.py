"""The students' edition: the same notebooks without their solutions and outputs, with the checks locked."""

import copy
import os
import shutil
import tempfile
from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import NOTEBOOKS

MARK = ".student-edition"  # a file that says what a folder is, so that only an edition is ever written over


def student_edition(notebook):
    """A copy of a notebook in which solutions are cleared as nbgrader clears them, and nothing has been run.

    Raises UserError where nbgrader is not installed.
    """
    try:
        from nbgrader.preprocessors import ClearSolutions, ComputeChecksums, LockCells
    except ImportError as error:
        raise UserError("the student edition is made by nbgrader: pip install nbgrader") from error
    edition = copy.deepcopy(notebook)
    for step in (ClearSolutions(), LockCells(), ComputeChecksums()):
        edition, _ = step.preprocess(edition, {})
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return edition


def write_student(folder: Path) -> list[Path]:
    """Write the whole edition into a folder that is new, empty or an older edition; return the notebooks' paths.

    All is made beside the folder first and moved in at the end, so that nothing half-written is left. Raises UserError for a
    folder that holds anything else.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists())):
        raise UserError(f"{folder} holds something else: name a new folder, an empty one, or an older student edition")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".student-") as name:
        for file in notebooks():
            nbformat.write(student_edition(nbformat.read(file, as_version=4)), Path(name) / file.name)
        shutil.copyfile(NOTEBOOKS / "README.md", Path(name) / "README.md")
        (Path(name) / MARK).touch()
        folder.mkdir(exist_ok=True)
        for file in sorted(Path(name).iterdir()):
            os.replace(file, folder / file.name)
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))
