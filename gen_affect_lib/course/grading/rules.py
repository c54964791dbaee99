"""How verdicts become points: parts of points, points by hand, and what is handed in late."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.errors import UserError

MANUAL = "manual.csv"  # in the folder of grades, written by a person
_COLUMNS = ("submission", "exercise", "points", "comment")


@dataclass(frozen=True)
class ByHand:
    """Points that a person gives, and why."""

    points: float
    comment: str = ""


@dataclass(frozen=True)
class Rules:
    """partial: whether a wrong answer gets the part of the points that its right cases are of all cases. due: the
    deadline, in seconds since 1970; None without one. late_percent: of the points, lost for each day that has begun
    since then. manual: {(submission, number of the exercise, or empty for the whole): points}."""

    partial: bool = False
    due: float | None = None
    late_percent: float = 0.0
    manual: Mapping[tuple[str, str], ByHand] = field(default_factory=dict)

    def days_late(self, handed_in: float) -> int:
        """Days since the deadline, the last one begun; 0 if it was handed in until then."""
        return max(0, math.ceil((handed_in - self.due) / 86400)) if self.due is not None else 0

    def kept(self, handed_in: float) -> float:
        """The share of the points that is left after what is lost for being late."""
        return max(0.0, 1 - self.late_percent / 100 * self.days_late(handed_in))


def deadline(text: str) -> float:
    """A date, or a date and time, as in 2026-12-01 or 2026-12-01 18:00, in this machine's time zone unless it has one.

    A date alone is its last second. Raises UserError for anything else.
    """
    try:
        date = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UserError(f"--due {text} is no date: give one as in 2026-12-01 or 2026-12-01T18:00") from error
    if len(text.strip()) <= len("2026-12-01"):
        date = date.replace(hour=23, minute=59, second=59)
    return date.timestamp()


def read_manual(path: Path) -> dict[tuple[str, str], ByHand]:
    """Points given by hand; empty without the file.

    A row has a submission, the number or name of an exercise (empty: points for the whole), points and a comment.
    Raises UserError that names the line for a row that cannot be used.
    """
    if not path.exists():
        return {}
    known = {exercise.name: exercise.number for one in notebooks() for exercise in exercises(one.stem)}
    numbers = set(known.values())
    found = {}
    for line, row in enumerate(read_table(path), 2):
        submission, exercise, points = (row.get(name, "") for name in _COLUMNS[:3])
        where = f"{path.name}, line {line}"
        exercise = known.get(exercise, exercise)
        if exercise and exercise not in numbers:
            raise UserError(f"{where}: there is no exercise {exercise!r}: give a number such as 2.1, or its name")
        try:
            number = float(points.replace(",", "."))
            if not math.isfinite(number) or not submission:
                raise ValueError
        except ValueError as error:
            raise UserError(f"{where}: give {', '.join(_COLUMNS)}; the points are a number") from error
        found[submission, exercise] = ByHand(number, row.get("comment", ""))
    return found


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a line of names, which become lower case. Commas, semicolons or tabs separate.

    Raises UserError if the file cannot be read or has no rows.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        text = path.read_bytes().decode("cp1252", "replace")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise UserError(f"{path} is no table: {error}; save it as CSV") from error
    if not rows:
        raise UserError(f"{path} has no rows: give a CSV file whose first line names the columns")
    return [
        {str(name).strip().lower(): value.strip() for name, value in row.items() if isinstance(value, str)}
        for row in rows
    ]
