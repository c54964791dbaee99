"""The course: its notebooks, their exercises, and what grades them and hands them out. Four packages, three modules:

- `checks`: the exercises, and how an answer is checked in the notebook;
- `grading`: submitted notebooks are run and graded, and feedback is written;
- `release`: the notebooks are run, measured, validated, and written without their solutions;
- `projects`: the reports that score a student's own project, and the command that collects them;
- `results`, `timings`: numbers and times of earlier runs, kept in `data/reference`;
- `jobs`: several runs at once, for grading and validation.

A notebook is a file `NN_name.ipynb` in the folder of the notebooks: `notebooks` finds it, and all of the above
works on what it finds. No other list names the notebooks. The starting notebooks of the projects are in the folder
`projects` below it, and `project_notebooks` finds them.
"""

import json
from pathlib import Path

from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import NOTEBOOKS

__all__ = ["notebooks", "project_notebooks", "read_measured"]


def notebooks(only: str | None = None) -> list[Path]:
    """The course's notebooks in order. only: numbers or names separated by commas, such as "2,05_identity".

    Raises UserError for a notebook that does not exist.
    """
    found = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if only is None:
        return found
    chosen = set()
    for word in filter(None, (part.strip() for part in only.split(","))):
        matching = {
            path for path in found if path.stem == word.removesuffix(".ipynb") or path.stem[:2] == word.zfill(2)
        }
        if not matching:
            raise UserError(f"there is no notebook {word!r}: give one of " + ", ".join(path.stem for path in found))
        chosen |= matching
    return sorted(chosen)


def project_notebooks() -> list[Path]:
    """The starting notebooks of the projects."""
    return sorted((NOTEBOOKS / "projects").glob("*.ipynb"))


def read_measured(path: Path) -> dict:
    """A file of measurements, {profile: {"machine": {…}, "notebooks": {name: …}}}; empty if the file does not exist.

    Raises UserError if it is not JSON.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path.name} is not valid JSON ({error}): restore it from the repository, or delete it"
        ) from error
