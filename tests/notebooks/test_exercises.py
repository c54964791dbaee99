"""Every exercise stands in its notebook with what belongs to it."""

import re

import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.checks.exercise import BEGIN, END


def graded(cell) -> dict:
    return cell.metadata.get("nbgrader", {})


def place(notebook, grade_id) -> int:
    found = [number for number, cell in enumerate(notebook.cells) if graded(cell).get("grade_id") == grade_id]
    assert len(found) == 1, f"{grade_id} stands {len(found)} times"
    return found[0]


def test_each_exercise_is_asked_answered_and_checked(path, notebook):
    places = []
    for exercise in exercises(path.stem):
        answer = place(notebook, exercise.name)
        places.append(answer)
        ask, check = notebook.cells[answer - 1], notebook.cells[place(notebook, f"check_{exercise.name}")]
        assert ask.cell_type == "markdown" and ask.source.startswith(exercise.heading + "\n"), exercise.heading
        source = notebook.cells[answer].source
        assert source.count(BEGIN) == source.count(END) >= 1
        assert re.search(rf"(?m)^(?:def|class) {exercise.name}\b", source)
        assert graded(notebook.cells[answer])["solution"] and not graded(notebook.cells[answer])["grade"]
        assert graded(check)["grade"] and graded(check)["locked"] and graded(check)["points"] == exercise.points
        module = f"gen_affect_lib.course.checks.notebook_{path.stem[:2]}"
        assert check.source == (
            f"from {module} import check_{exercise.name}\n\n{exercise.name} = check_{exercise.name}({exercise.name})"
        )
    assert places == sorted(places), "numbered in the order of the notebook"


def test_no_other_cell_is_graded(path, notebook):
    names = {exercise.name for exercise in exercises(path.stem)}
    known = names | {f"check_{name}" for name in names}
    assert {graded(cell)["grade_id"] for cell in notebook.cells if graded(cell)} == known


def test_the_kit_answers_its_own_exercises(path, notebook):
    for exercise in exercises(path.stem):
        check = notebook.cells[place(notebook, f"check_{exercise.name}")]
        assert [output.get("text") for output in check.outputs] == [
            f"✓ Exercise {exercise.number}, {exercise.name}: right.\n"
        ]


def test_numbers_run_and_names_are_used_once(path):
    chosen = exercises(path.stem)
    assert [exercise.number for exercise in chosen] == [f"{int(path.stem[:2])}.{k}" for k in range(1, len(chosen) + 1)]
    assert len({exercise.name for exercise in chosen}) == len(chosen)


def test_solutions_are_revealed_without_their_marks(path):
    for exercise in exercises(path.stem):
        text = exercise.solution()
        assert exercise.name in text and "SOLUTION" not in text
        compile(text, exercise.name, "exec")


@pytest.mark.parametrize(
    "least, kind", [(30, ("implement", "repair", "predict", "read")), (20, ("implement", "repair"))]
)
def test_there_are_enough_of_each_kind(least, kind):
    chosen = [[exercise for exercise in exercises(path.stem) if exercise.kind in kind] for path in notebooks()]
    assert sum(map(len, chosen)) >= least
    if least == 30:
        assert all(len(found) >= 3 for path, found in zip(notebooks(), chosen) if not path.stem.startswith("00"))
