"""The students of a course: who has handed in what, who has not, and the files that Moodle and Canvas import."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.grading.grades import Grade, plain_number, write_rows
from gen_affect_lib.course.grading.rules import read_table
from gen_affect_lib.errors import UserError

FORMATS = ("csv", "moodle", "canvas")
_IDS = ("id", "identifier", "id number", "student id", "sis user id", "sis login id", "login", "username", "user name")
_EMAILS = ("email", "email address", "e-mail")
_NAMES = ("full name", "name", "student")


@dataclass(frozen=True)
class Student:
    """row: {column: text}, as in the roster, columns in lower case. ids: everything that names only this student."""

    name: str
    ids: tuple[str, ...]
    email: str
    row: dict[str, str]

    @property
    def id(self) -> str:
        return self.ids[0] if self.ids else self.email or self.name


def read_roster(path: Path) -> list[Student]:
    """The students in a CSV file: Moodle's grading worksheet, Canvas' gradebook, or a list of names, IDs or emails.

    Raises UserError if the file has no such column.
    """
    students = []
    for row in read_table(path):
        name = next((row[column] for column in _NAMES if row.get(column)), "")
        if not name:
            name = " ".join(filter(None, (row.get("first name", ""), row.get("last name") or row.get("surname", ""))))
        email = next((row[column] for column in _EMAILS if row.get(column)), "")
        ids = [row[column] for column in _IDS if row.get(column)]
        if "points possible" in name.lower():  # Canvas' second line
            continue
        if name or email or ids:
            students.append(Student(name, tuple(ids), email, row))
    if not students:
        raise UserError(f"--roster {path} has no column that names a student: call one id, name or email")
    return students


def belongs_to(submission: str, students: Sequence[Student]) -> Student | None:
    """The student whose ID, email or name the name of a submission contains; None if there is none, or several.

    An ID counts more than a name. Case, accents and what separates words do not count; Canvas joins the words of a
    name, the last name first.
    """
    words = _words(submission)
    joined = {"".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, start + 5)}

    def by_id(student: Student) -> bool:
        ids = [*student.ids, student.email, student.email.partition("@")[0]]
        ids += [re.sub(r"^participant ", "", one.lower()) for one in ids]  # Moodle: "Participant 1234567"
        return any("".join(_words(one)) in joined for one in ids if len("".join(_words(one))) >= 2)

    def by_name(student: Student) -> bool:
        name = _words(student.name)
        turned = [*name[-1:], *name[:-1]]
        return len(name) > 0 and (set(name) <= set(words) or {"".join(name), "".join(turned)} & joined != set())

    for test in (by_id, by_name):
        found = [student for student in students if test(student)]
        if len(found) == 1:
            return found[0]
    return None


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text.replace("ł", "l").replace("Ł", "l").replace("ß", "ss")).casefold()
    return re.findall(r"[a-z0-9]+", "".join(letter for letter in plain if not unicodedata.combining(letter)))


def by_student(grades: Sequence[Grade], students: Sequence[Student]) -> dict[tuple[str, str], Grade]:
    """{(the student's ID, notebook): the best grade}."""
    best: dict[tuple[str, str], Grade] = {}
    for grade in grades:
        student = belongs_to(grade.submission, students) if grade.notebook else None
        if student is not None:
            key = student.id, grade.notebook
            if key not in best or grade.points > best[key].points:
                best[key] = grade
    return best


def write_students(grades: Sequence[Grade], students: Sequence[Student], form: str, folder: Path) -> list[Path]:
    """Write the grades of all students as `form` says, the missing ones included; return the files.

    csv: students.csv, a row for each student. canvas: canvas.csv, for *Import* in the gradebook. moodle: a worksheet
    moodle_NOTEBOOK.csv for each notebook, for *Upload grading worksheet* of its assignment.
    """
    best = by_student(grades, students)
    names = [path.stem for path in notebooks() if any(path.stem == grade.notebook for grade in grades)]
    of = {grade.notebook: grade.of for grade in grades}

    def points(student: Student, name: str) -> str:
        grade = best.get((student.id, name))
        return plain_number(grade.points) if grade else ""

    if form == "canvas":
        own = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
        rows = [[*own, *names], ["    Points Possible", *[""] * 4, *(str(of[name]) for name in names)]]
        for student in students:
            texts = [student.row.get(column.lower(), "") for column in own]
            rows.append([texts[0] or student.name, *texts[1:], *(points(student, name) for name in names)])
        return [_written(rows, folder / "canvas.csv")]
    if form == "moodle":
        files = []
        for name in names:
            rows = [["Identifier", "Full name", "Email address", "Grade", "Maximum Grade", "Feedback comments"]]
            for student in students:
                grade = best.get((student.id, name))
                said = _comment(grade) if grade else "Nothing was handed in."
                row = [student.row.get("identifier", student.id), student.name, student.email, points(student, name)]
                rows.append([*row, str(of[name]), said])
            files.append(_written(rows, folder / f"moodle_{name}.csv"))
        return files
    rows = [["id", "name", "email", *names, "points", "missing"]]
    for student in students:
        total = sum(best[student.id, name].points for name in names if (student.id, name) in best)
        missing = [name for name in names if (student.id, name) not in best]
        each = [points(student, name) for name in names]
        rows.append([student.id, student.name, student.email, *each, plain_number(total), ", ".join(missing)])
    return [_written(rows, folder / "students.csv")]


def _comment(grade: Grade) -> str:
    words = [f"{exercise.number}: {grade.shown(exercise)}" for exercise in grade.exercises]
    return "; ".join([*words, *filter(None, [grade.problem])])[:1000]


def _written(rows: list[list[str]], path: Path) -> Path:
    write_rows(rows, path)
    return path
