"""Finds submitted notebooks and reads them. A submission may be any file."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.errors import UserError


def find(folder: Path) -> list[Path]:
    """The notebooks in a folder and its subfolders, also those saved as .ipynb.txt; without Jupyter's checkpoints."""
    found = [path for path in folder.rglob("*") if ".ipynb" in path.name.lower() and path.is_file()]
    return sorted(
        path for path in found if not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
    )


def name_of(path: Path, folder: Path) -> str:
    """The name of a submission: its path in the folder, without .ipynb."""
    name = path.relative_to(folder).as_posix()
    name = name[: -len(".ipynb")] if name.lower().endswith(".ipynb") else name
    return _writable(name)


def read(path: Path) -> list[dict]:
    """The cells of a notebook's file, in the current format or an older one. Raises UserError if it is no notebook.

    nbformat is not used, because it refuses some files whose cells can be run.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError("the file is no notebook, or only a part of one") from error
    content = content if isinstance(content, dict) else {}
    sheets = content.get("worksheets")  # format 3
    sheets = [sheet for sheet in sheets if isinstance(sheet, dict)] if isinstance(sheets, list) else []
    cells = content.get("cells", [cell for sheet in sheets for cell in sheet.get("cells", ())])
    cells = [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    if not cells:
        raise UserError("the file contains no cells")
    return cells


def code_cells(cells: list[dict]) -> list[dict]:
    """The code cells that are not empty, for `sandbox.run`: [{"number": as after a run from the top, "source": …}]."""
    sources = [_source(cell) for cell in cells if cell.get("cell_type") == "code"]
    return [{"number": number, "source": source} for number, source in enumerate(filter(str.strip, sources), 1)]


def belongs_to(cells: list[dict], file_name: str) -> str:
    """The number of the notebook that a submission is a copy of, such as "02".

    It is found by nbgrader's marks, by the checks that the cells import, or by the name of the file. Raises UserError
    if none of these identifies it.
    """
    owners = {
        f"{prefix}{exercise.name}": path.stem[:2]
        for path in notebooks()
        for exercise in exercises(path.stem)
        for prefix in ("", "check_")
    }
    metadata = [cell.get("metadata") for cell in cells]
    marks = [one.get("nbgrader") for one in metadata if isinstance(one, dict)]
    grade_ids = [str(mark.get("grade_id")) for mark in marks if isinstance(mark, dict)]
    marked = [owners[grade_id] for grade_id in grade_ids if grade_id in owners]
    imported = re.findall(r"gen_affect_lib\.course\.checks\.notebook_(\d\d)", "\n".join(map(_source, cells)))
    named = [path.stem[:2] for path in notebooks() if path.stem in file_name.lower()]
    named = named or re.findall(r"^(\d\d)(?!\d)", file_name)
    for found in (marked, imported, named):
        known = Counter(number for number in found if number in owners.values())
        if known:
            return known.most_common(1)[0][0]
    raise UserError("the file is none of the notebooks with exercises")


def _source(cell: dict) -> str:
    text = cell.get("source", cell.get("input", ""))  # format 3 has "input"
    if isinstance(text, list):
        text = "".join(part for part in text if isinstance(part, str))
    return _writable(text) if isinstance(text, str) else ""


def _writable(text: str) -> str:
    """Replace surrogates, which broken files and file names from other systems may contain, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
