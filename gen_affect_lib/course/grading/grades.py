"""The grade of a submission, and the table of all grades."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import Path

from gen_affect_lib.course.checks import Exercise
from gen_affect_lib.course.grading.sandbox import Outcome
from gen_affect_lib.files import atomic

COLUMNS = ("submission", "notebook", "points", "of", "percent", "seconds", "problem")
NOT_REACHED = "not reached"


@dataclass
class Grade:
    """One submission's grade.

    submission: its path in the folder, without .ipynb. notebook: the name of the course's notebook, empty if it could
    not be determined. outcome: see `Outcome`. broken: why nothing could be run; else empty.
    """

    submission: str
    notebook: str = ""
    exercises: list[Exercise] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    broken: str = ""

    def state(self, exercise: Exercise) -> str:
        return self.outcome.verdicts.get(exercise.name, {"state": NOT_REACHED})["state"]

    @property
    def points(self) -> int:
        return sum(exercise.points for exercise in self.exercises if self.state(exercise) == "right")

    @property
    def of(self) -> int:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def percent(self) -> int:
        return round(100 * self.points / self.of) if self.of else 0

    @property
    def problem(self) -> str:
        """All problems of the submission in one line; empty if there are none."""
        errors = len(self.outcome.errors)
        stopped = [f"{errors} cell{'s' * (errors > 1)} stopped with an error"] if errors else []
        return "; ".join([*filter(None, [self.broken]), *self.outcome.problems, *stopped])


def write_table(grades: list[Grade], path: Path) -> None:
    """Write a CSV file: one row per submission, one column per exercise: right, wrong, unfinished or not reached."""
    known = {exercise.number: exercise for grade in grades for exercise in grade.exercises}
    ordered = sorted(known.values(), key=lambda exercise: tuple(map(int, exercise.number.split("."))))
    # "utf-8-sig" begins with a byte order mark, by which spreadsheets recognise UTF-8.
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8-sig", errors="replace") as stream:
        table = csv.writer(stream)
        table.writerow([*COLUMNS, *(f"{exercise.number} {exercise.name}" for exercise in ordered)])
        for grade in grades:
            own = {exercise.number for exercise in grade.exercises}
            table.writerow(
                [
                    _plain(grade.submission),
                    grade.notebook,
                    grade.points,
                    grade.of or "",
                    grade.percent if grade.of else "",
                    round(grade.outcome.seconds, 1),
                    _plain(grade.problem),
                    *(grade.state(exercise) if exercise.number in own else "" for exercise in ordered),
                ]
            )


def _plain(text: str) -> str:
    """The text, with an apostrophe if a spreadsheet would take it for a formula."""
    return re.sub(r"^(?=[=+\-@\t\r])", "'", text)
