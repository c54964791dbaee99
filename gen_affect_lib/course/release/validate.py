"""Whether the course can be handed out: its own answers pass, and without them it fails only where it should."""

from __future__ import annotations

from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks.exercises import exercises
from gen_affect_lib.course.grading import sandbox, submissions
from gen_affect_lib.course.grading.jobs import side_by_side
from gen_affect_lib.course.release.student import student_edition
from gen_affect_lib.errors import UserError


def validate(only: str | None = None, jobs: int | None = None) -> None:
    """Run every notebook at smoke, as it is and as students get it, and print a line for each.

    Raises UserError naming the notebooks in which something is not as it should be; what, has been printed by then.
    """
    failed = []
    for path, solved, stripped, faults in side_by_side(_both_editions, notebooks(only), jobs):
        count = len(exercises(path.stem))
        print(
            f"{path.stem:22} solutions: {solved} of {count} right   student edition: {stripped} of {count} unfinished   "
            + ("ok" if not faults else "FAILED"),
            flush=True,
        )
        for fault in faults:
            print(f"    {fault}", flush=True)
        if faults:
            failed.append(path.stem)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(notebooks(only))} notebooks cannot be handed out: {', '.join(sorted(failed))}; "
            "the lines above say why"
        )


def _both_editions(path: Path, stopped) -> tuple[Path, int, int, list[str]]:
    """(the notebook, answers that are right, stubs that are unfinished, everything that is not as it should be)"""
    notebook = nbformat.read(path, as_version=4)
    counts, faults = [], []
    for edition, content, wanted in (
        ("solutions", notebook, "right"),
        ("student edition", student_edition(notebook), "unfinished"),
    ):
        outcome = sandbox.run(submissions.code_cells(content.cells), path.stem[:2], stopped=stopped)
        count = 0
        for exercise in exercises(path.stem):
            verdict = outcome.verdicts.get(exercise.name, {"state": "not reached", "message": ""})
            if verdict["state"] == wanted:
                count += 1
            else:
                faults.append(
                    f"{edition}: {exercise.number} {exercise.name} is {verdict['state']} and should be {wanted}. "
                    f"{verdict['message']}".rstrip()
                )
        faults += [f"{edition}: cell [{error['cell']}] stopped with {error['error']}" for error in outcome.errors]
        faults += [f"{edition}: {problem}" for problem in outcome.problems]
        counts.append(count)
    return path, *counts, faults
