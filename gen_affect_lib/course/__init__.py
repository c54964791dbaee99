"""What runs the course as a whole: every notebook in order, and the times that they state."""

import json
from pathlib import Path

from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import NOTEBOOKS

__all__ = ["notebooks", "read_measured"]


def notebooks(only: str | None = None) -> list[Path]:
    """The notebooks of the course in order. `only` keeps those named, by number or by name, separated by commas."""
    found = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if only is None:
        return found
    chosen = []
    for word in filter(None, (part.strip() for part in only.split(","))):
        fitting = [path for path in found if path.stem == word.removesuffix(".ipynb") or path.stem[:2] == word.zfill(2)]
        if not fitting:
            raise UserError(f"there is no notebook {word!r}: give one of " + ", ".join(path.stem for path in found))
        chosen += fitting
    return sorted(set(chosen))


def read_measured(path: Path) -> dict:
    """A file of measurements, {profile: {"machine": {…}, "notebooks": {name: …}}}; empty where there is none."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path.name} is no JSON ({error}): take it from the repository again, or delete it") from error
