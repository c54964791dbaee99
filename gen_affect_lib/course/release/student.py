"""The students' edition: the notebooks without solutions and outputs, with locked checks; and the projects."""

import copy
import hashlib
import json
from itertools import count
from pathlib import Path
from typing import NamedTuple

import nbformat

from gen_affect_lib.course import notebooks, project_notebooks
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.paths import NOTEBOOKS

MARK = ".student-edition"  # a file that marks a folder as an edition: nothing is written into another folder


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


class Edition(NamedTuple):
    """What writing an edition did. notebooks: all of the edition's notebooks in the folder. beside: {file that was
    changed since it was handed out, and is kept: the new one beside it}."""

    notebooks: list[Path]
    beside: dict[Path, Path]


def write_student(folder: Path) -> Edition:
    """Write the edition into a folder that is new, empty or an older edition. Work in the folder is never overwritten.

    A file that was changed since it was handed out, by a student or by Jupyter, stays as it is. If the edition has
    another version of it now, that is written beside it, as NAME_new.ipynb. The file `MARK` holds the digests of what
    was written, by which changed files are recognised. Raises UserError for a folder with other content.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists())):
        raise UserError(f"{folder} has other content: give a new folder, an empty one, or an older student edition")
    edition = {
        file.relative_to(NOTEBOOKS).as_posix(): nbformat.writes(
            student_edition(nbformat.read(file, as_version=4))
        ).encode()
        + b"\n"
        for file in (*notebooks(), *project_notebooks())
    }
    for name in ("README.md", "projects/README.md"):
        edition[name] = (NOTEBOOKS / name).read_bytes()
    handed_out, beside = _handed_out(folder), {}
    for name, content in edition.items():
        path, digests = folder / name, handed_out.setdefault(name, [])
        digest = _digest(content)
        if path.exists() and _digest(path.read_bytes()) not in (digest, *digests):
            if digest in digests:
                continue  # nothing new to hand out: the student's work was begun with this version
            beside[path] = _unused(path, content)
            path = beside[path]
        _write(path, content)
        if digest not in digests:
            digests.append(digest)
    write_json(folder / MARK, handed_out)
    return Edition([folder / file.name for file in notebooks()], beside)


def _handed_out(folder: Path) -> dict[str, list[str]]:
    """{file: the digests of all versions of it that were written here}; empty without a readable `MARK`."""
    try:
        content = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):  # of an older kit, or damaged: then every file counts as changed
        return {}
    return content if isinstance(content, dict) else {}


def _unused(path: Path, content: bytes) -> Path:
    """The path of a new version beside a changed file: one that does not exist, or holds this version already."""
    for number in count(1):
        other = path.with_name(f"{path.stem}_new{number if number > 1 else ''}{path.suffix}")
        if not other.exists() or other.read_bytes() == content:
            return other
    raise AssertionError


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as partial:
        partial.write_bytes(content)
