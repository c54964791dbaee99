"""Grades a folder of submitted notebooks: a table of points, and a page of feedback each. There is no database."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.grading import sandbox, submissions
from gen_affect_lib.course.grading.feedback import page
from gen_affect_lib.course.grading.grades import Grade, write_table
from gen_affect_lib.course.jobs import run_parallel
from gen_affect_lib.errors import UserError


def grade_folder(
    folder: Path,
    out: Path | None = None,
    *,
    seconds: float = sandbox.SECONDS,
    memory_gb: float = sandbox.MEMORY_GB,
    jobs: int | None = None,
) -> Path:
    """Grade every notebook in a folder and its subfolders; return the path of the table, grades.csv.

    out: the folder for grades.csv and feedback/SUBMISSION.html; by default FOLDER_grades beside `folder`. seconds,
    memory_gb: limits for one submission. jobs: how many run at once. The table is written again whenever a submission
    ends. Raises UserError if `folder` contains no notebooks, or `out` cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the folder that contains the submitted notebooks")
    out = Path(out) if out is not None else folder.resolve().parent / f"{folder.resolve().name}_grades"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder for the grades")
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"--out {out} is inside the folder of submissions: give a folder outside {folder}")
    found = submissions.find(folder)
    if not found:
        raise UserError(f"there is no notebook in {folder}: give the folder that contains the submitted .ipynb files")
    out.mkdir(parents=True, exist_ok=True)

    def work(path: Path, stopped: Callable[[], bool]) -> Grade:
        name = submissions.name_of(path, folder)
        return grade_file(path, name, seconds=seconds, memory_gb=memory_gb, stopped=stopped)

    width = min(48, max(len(submissions.name_of(path, folder)) for path in found))
    grades: list[Grade] = []
    for grade in run_parallel(work, found, jobs):
        grades.append(grade)
        _write(out / "feedback" / f"{grade.submission}.html", page(grade))
        write_table(sorted(grades, key=lambda grade: grade.submission), out / "grades.csv")
        points = f"{grade.points:3} of {grade.of:3} points {grade.outcome.seconds:5.0f} s" if grade.of else " " * 25
        print(f"{grade.submission:{width}}  {points}  {grade.problem}".rstrip(), flush=True)
    return out / "grades.csv"


def grade_file(path: Path, submission: str, **limits: Any) -> Grade:
    """Grade one file, whatever it contains. limits: seconds, memory_gb and stopped, as for `sandbox.run`."""
    grade = Grade(submission)
    try:
        cells = submissions.read(path)
        number = submissions.belongs_to(cells, path.name)
        grade.notebook = notebooks(number)[0].stem
        grade.exercises = exercises(number)
        grade.outcome = sandbox.run(submissions.code_cells(cells), number, **limits)
    except UserError as error:
        grade.broken = str(error)
    except Exception as error:  # an error of the grader must not stop the grading of other submissions
        traceback.print_exc()
        grade.broken = f"grading it failed with {type(error).__name__}: {error}"
    return grade


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="replace")
