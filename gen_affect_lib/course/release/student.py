"""The students' edition: the notebooks without solutions and outputs, with locked checks."""

import copy
import os
import shutil
import tempfile
from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import NOTEBOOKS

MARK = ".student-edition"  # a file that marks a folder as an edition: no other folder is overwritten


def student_edition(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of a notebook without outputs, with the solutions cleared by nbgrader.

    Raises UserError if nbgrader is not installed.
    """
    try:
        from nbconvert.exporters.exporter import ResourcesDict
        from nbgrader.preprocessors import ClearSolutions, ComputeChecksums, LockCells
    except ImportError as error:
        raise UserError("nbgrader, which makes the student edition, is not installed: pip install nbgrader") from error
    edition = copy.deepcopy(notebook)
    for step in (ClearSolutions(), LockCells(), ComputeChecksums()):
        edition, _ = step.preprocess(edition, ResourcesDict())
    for cell in edition.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return edition


def write_student(folder: Path) -> list[Path]:
    """Write the whole edition into a folder that is new, empty or an older edition; return the notebooks' paths.

    The files are written to a temporary folder and then moved, so that no partly written edition remains. Raises
    UserError for a folder with other content.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists())):
        raise UserError(f"{folder} has other content: give a new folder, an empty one, or an older student edition")
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
