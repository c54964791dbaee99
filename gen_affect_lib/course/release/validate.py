"""Whether the course can be handed out: all solutions are right, and without them every exercise is unfinished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.grading import sandbox, submissions
from gen_affect_lib.course.jobs import run_parallel
from gen_affect_lib.course.release.student import student_edition
from gen_affect_lib.errors import UserError


class Report(NamedTuple):
    """The results of running both editions of a notebook.

    right: exercises that are right with their solutions. unfinished: exercises that are unfinished without them.
    faults: everything that differs from this, one line each.
    """

    path: Path
    right: int
    unfinished: int
    faults: list[str]


def validate(only: str | None = None, jobs: int | None = None) -> None:
    """Run every notebook at smoke, with its solutions and as students get it, and print a line for each.

    only: as for `course.notebooks`. jobs: how many run at once. Raises UserError that names the notebooks with faults,
    which are printed before.
    """
    chosen, failed = notebooks(only), []
    for report in run_parallel(_both_editions, chosen, jobs):
        name, count = report.path.stem, len(exercises(report.path.stem))
        print(
            f"{name:22} solutions: {report.right} of {count} right   "
            f"student edition: {report.unfinished} of {count} unfinished   {'FAILED' if report.faults else 'ok'}",
            flush=True,
        )
        for fault in report.faults:
            print(f"    {fault}", flush=True)
        if report.faults:
            failed.append(name)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(chosen)} notebooks cannot be handed out: {', '.join(sorted(failed))}; "
            "the lines above say why"
        )


def _both_editions(path: Path, stopped: Callable[[], bool]) -> Report:
    notebook = nbformat.read(path, as_version=4)
    counts: dict[str, int] = {}
    faults: list[str] = []
    for edition, content, expected in (
        ("solutions", notebook, "right"),
        ("student edition", student_edition(notebook), "unfinished"),
    ):
        outcome = sandbox.run(submissions.code_cells(content.cells), path.stem[:2], stopped=stopped)
        count = 0
        for exercise in exercises(path.stem):
            verdict = outcome.verdicts.get(exercise.name, {"state": "not reached", "message": ""})
            if verdict["state"] == expected:
                count += 1
            else:
                faults.append(
                    f"{edition}: {exercise.number} {exercise.name} is {verdict['state']} and should be {expected}. "
                    f"{verdict['message']}".rstrip()
                )
        faults += [f"{edition}: cell [{error['cell']}] stopped with {error['error']}" for error in outcome.errors]
        faults += [f"{edition}: {problem}" for problem in outcome.problems]
        counts[expected] = count
    return Report(path, counts["right"], counts["unfinished"], faults)
