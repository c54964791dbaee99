"""The course can be handed out, or every fault is named."""

import pytest

from gen_affect_lib.course.release import validate as validating
from gen_affect_lib.course.release.validate import validate
from gen_affect_lib.errors import UserError
from tests.course.handed_in import WRONG, answered, code, graded, solved, write


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook: called with it, gives nothing back."""

    def of(notebook):
        path = write(notebook, tmp_path / "02_patches.ipynb")
        monkeypatch.setattr(validating, "notebooks", lambda only=None: [path])

    return of


def test_a_course_without_faults_passes(course, capsys):
    course(solved())
    validate()
    (line,) = capsys.readouterr().out.splitlines()
    assert "solutions: 6 of 6 right" in line and "student edition: 6 of 6 unfinished" in line and line.endswith("ok")


def gives_an_answer_away(notebook):
    notebook.cells.insert(
        notebook.cells.index(graded(notebook, "check_looks_ratio")), code("def looks_ratio():\n    return 16")
    )


def stops_without_its_answers(notebook):
    notebook.cells.append(code("assert unpatchify.__module__ == '__main__', 'only with the solution'"))


def stops_always(notebook):
    notebook.cells.append(code("1 / 0"))


@pytest.mark.parametrize(
    "harm, words",
    [
        (gives_an_answer_away, "student edition: 2.1 looks_ratio is right and should be unfinished"),
        (stops_without_its_answers, "student edition: cell ["),
        (stops_always, "solutions: cell ["),
    ],
)
def test_every_fault_is_named(course, capsys, harm, words):
    notebook = solved()
    harm(notebook)
    course(notebook)
    with pytest.raises(UserError, match="1 of 1 notebooks cannot be handed out: 02_patches"):
        validate(jobs=1)
    assert words in capsys.readouterr().out


def test_a_solution_that_its_check_refuses_is_named(course, capsys):
    course(answered(unpatchify=WRONG["unpatchify"]))
    with pytest.raises(UserError, match="cannot be handed out"):
        validate()
    said = capsys.readouterr().out
    assert (
        "solutions: 2.2 unpatchify is wrong and should be right" in said
        and "only regrouped" in said
        and "FAILED" in said
    )
