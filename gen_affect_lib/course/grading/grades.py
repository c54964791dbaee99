"""The grade of a submission, the attempts that are kept, and the table of all grades."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import Exercise, exercises
from gen_affect_lib.course.grading.rules import ByHand, Rules
from gen_affect_lib.course.grading.sandbox import Outcome
from gen_affect_lib.files import atomic, write_json

COLUMNS = (
    "submission",
    "notebook",
    "points",
    "of",
    "percent",
    "seconds",
    "attempts",
    "handed_in",
    "days_late",
    "by_hand",
    "look_at",
    "problem",
)
NOT_REACHED = "not reached"
COUNTS = ("best", "last")  # which attempt of a submission counts


@dataclass
class Grade:
    """One submission's grade, or one attempt of several.

    submission: its unique name. notebook: the name of the course's notebook, empty if it could not be determined.
    outcome: see `Outcome`. broken: why nothing could be run; else empty. handed_in: seconds since 1970, by the file.
    digest: of what was handed in. graded_with: the kit's digest, and the limits in seconds and GB. attempts: how many
    there are of this submission. rules: how verdicts become points; not a part of what is kept.
    """

    submission: str
    notebook: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    broken: str = ""
    handed_in: float = 0.0
    digest: str = ""
    graded_with: list = field(default_factory=list)
    attempts: int = 1
    rules: Rules = field(default_factory=Rules)

    @property
    def exercises(self) -> list[Exercise]:
        return exercises(self.notebook) if self.notebook else []

    def state(self, exercise: Exercise) -> str:
        return self.outcome.verdicts.get(exercise.name, {"state": NOT_REACHED})["state"]

    def by_hand(self, number: str = "") -> ByHand | None:
        """What a person has given for an exercise, or for the whole submission."""
        return self.rules.manual.get((self.submission, number))

    def points_of(self, exercise: Exercise) -> float:
        """The points of an exercise, before what is lost for being late."""
        if by_hand := self.by_hand(exercise.number):
            return by_hand.points
        if self.state(exercise) == "right":
            return exercise.points
        share = self.outcome.verdicts.get(exercise.name, {}).get("share", 0.0) if self.rules.partial else 0.0
        return round(exercise.points * share, 2)

    def shown(self, exercise: Exercise) -> str:
        """The state of an exercise, with its points if they are neither all nor none."""
        if self.by_hand(exercise.number):
            return f"{plain_number(self.points_of(exercise))} by hand"
        points, state = self.points_of(exercise), self.state(exercise)
        return f"{state} {plain_number(points)}" if 0 < points < exercise.points else state

    @property
    def points(self) -> float:
        """All points, after what is lost for being late; points by hand for the whole are added."""
        whole = self.by_hand()
        earned = sum(self.points_of(exercise) for exercise in self.exercises)
        return round(earned * self.rules.kept(self.handed_in), 2) + (whole.points if whole else 0)

    @property
    def of(self) -> int:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def percent(self) -> int:
        return round(100 * self.points / self.of) if self.of else 0

    @property
    def problem(self) -> str:
        """All problems of the submission in one line, the first error first; empty if there are none."""
        errors = len(self.outcome.errors)
        stopped = []
        if errors:
            first = self.outcome.errors[0]
            others = f", and {errors - 1} more cell{'s' * (errors > 2)} stopped" if errors > 1 else ""
            said = first["error"]
            said = said.removeprefix("it ") if said.startswith("it ") else f"stopped with {said}"
            stopped = [f"cell [{first['cell']}] {said}{others}"]
        return "; ".join([*filter(None, [self.broken]), *self.outcome.problems, *stopped])


# --- attempts --------------------------------------------------------------------------------------------------------


def keep(grade: Grade, folder: Path) -> None:
    """Write an attempt into the folder of all attempts: one file each, named by the submission and the digest."""
    name = hashlib.sha256(f"{grade.submission}\0{grade.digest}".encode(errors="replace")).hexdigest()[:24]
    content = asdict(replace(grade, rules=Rules()))
    del content["rules"]
    write_json(folder / f"{name}.json", content)


def attempts(folder: Path) -> list[Grade]:
    """All attempts that were kept, by the time at which they were handed in. What cannot be read is left out."""
    found = []
    for path in folder.glob("*.json"):
        try:
            content = json.loads(path.read_text())
            content["outcome"] = Outcome(**content["outcome"])
            grade = Grade(**{one.name: content[one.name] for one in fields(Grade) if one.name != "rules"})
            known = {file.stem for file in notebooks()}
        except (OSError, ValueError, TypeError, KeyError):
            continue  # damaged, or of another version of the kit: it is graded again if it is still handed in
        if not grade.notebook or grade.notebook in known:
            found.append(grade)
    return sorted(found, key=lambda grade: (grade.handed_in, grade.digest))


def standing(attempts: Iterable[Grade], counts: str = "best") -> list[Grade]:
    """The attempt of each submission that counts, ordered by name: its best or its last; of equal ones the last."""
    of: dict[str, list[Grade]] = {}
    for grade in attempts:
        of.setdefault(grade.submission, []).append(grade)
    chosen = []
    for name in sorted(of):
        own = of[name]
        best = own[-1] if counts == "last" else max(reversed(own), key=lambda grade: grade.points)
        best.attempts = len(own)
        chosen.append(best)
    return chosen


# --- the table -------------------------------------------------------------------------------------------------------


def write_table(grades: list[Grade], path: Path) -> None:
    """Write a CSV file: one row per submission, one column per exercise: right, wrong, unfinished or not reached."""
    known = {exercise.number: exercise for grade in grades for exercise in grade.exercises}
    ordered = sorted(known.values(), key=lambda exercise: tuple(map(int, exercise.number.split("."))))
    rows = [[*COLUMNS, *(f"{exercise.number} {exercise.name}" for exercise in ordered)]]
    for grade in grades:
        own = {exercise.number for exercise in grade.exercises}
        rows.append(
            [
                grade.submission,
                grade.notebook,
                plain_number(grade.points),
                str(grade.of or ""),
                str(grade.percent) if grade.of else "",
                f"{grade.outcome.seconds:.1f}",
                str(grade.attempts),
                f"{datetime.fromtimestamp(grade.handed_in):%Y-%m-%d %H:%M}" if grade.handed_in else "",
                str(grade.rules.days_late(grade.handed_in) or ""),
                _given_by_hand(grade),
                "; ".join(grade.outcome.look_at),
                grade.problem,
                *(grade.shown(exercise) if exercise.number in own else "" for exercise in ordered),
            ]
        )
    write_rows(rows, path)


def _given_by_hand(grade: Grade) -> str:
    """What a person has given, in one line."""
    given = [(exercise.number, grade.by_hand(exercise.number)) for exercise in grade.exercises]
    given.append(("the whole", grade.by_hand()))
    words = [f"{name}: {plain_number(one.points)} {one.comment}".strip() for name, one in given if one]
    return "; ".join(words)


def write_rows(rows: list[list[str]], path: Path) -> None:
    """Write a CSV file that spreadsheets read as UTF-8, by its byte order mark, and in which no cell is a formula."""
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8-sig", errors="replace") as stream:
        csv.writer(stream).writerows([[_plain(cell) for cell in row] for row in rows])


def plain_number(points: float) -> str:
    """Points as text: 2, 2.5 or 2.33."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def _plain(text: str) -> str:
    """The text in one line, with an apostrophe if a spreadsheet would take it for a formula."""
    return re.sub(r"^(?=[=+\-@\t\r])", "'", re.sub(r"[\r\n\0]+", " ", text))
