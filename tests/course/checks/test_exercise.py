"""An exercise prints a verdict, and returns the answer or the library's component."""

import warnings

import nbformat
import numpy as np
import pytest
import torch

from gen_affect_lib.course.checks import Exercise, Wrong, compare, exercises
from gen_affect_lib.course.checks import exercise as exercise_module
from gen_affect_lib.errors import UserError
from tests.course.examples import double, doubles


@pytest.fixture
def exercise():
    return Exercise(
        "2.9",
        "double",
        "Twice",
        "implement",
        1,
        5,
        2,
        "It is used everywhere.",
        double,
        doubles,
        ("Twice is a sum.", "`x + x`"),
    )


def test_a_right_answer_is_returned(exercise, capsys):
    def mine(x):
        return x + x

    assert exercise(mine) is mine
    said = capsys.readouterr()
    assert said.out == "✓ Exercise 2.9, double: right.\n" and not said.err


def test_until_then_the_notebook_uses_the_librarys_component(exercise, capsys):
    def unfinished(x):
        raise NotImplementedError

    assert exercise(unfinished) is double
    said = capsys.readouterr()
    assert not said.out, "nbgrader gives points for a cell that writes to stdout only"
    assert (
        "unfinished" in said.err
        and "use the kit's own `double` until yours is right" in said.err
        and "check_double.hint(1)" in said.err
    )


def test_a_wrong_answer_gets_the_message_of_the_likely_mistake(exercise, capsys):
    assert exercise(lambda x: x * x) is double
    assert "not yet right. That is the square: multiply by 2." in capsys.readouterr().err


def test_an_error_names_the_line_that_it_came_from(exercise):
    def mine(x):
        return x.twice()

    verdict = exercise.judge(mine)
    assert verdict.state == "wrong" and "AttributeError" in verdict.message and "return x.twice()" in verdict.message


def test_judging_does_not_change_the_random_state(exercise):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    exercise.judge(double), exercise.judge(lambda x: x + x)
    assert torch.equal(torch.rand(1), expected)


def test_hints_come_one_by_one(exercise, capsys):
    exercise.hint(1)
    assert "Twice is a sum." in capsys.readouterr().out
    exercise.hint(2)
    assert "`x + x`" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"hint\(3\): there are hint\(1\) and hint\(2\)"):
        exercise.hint(3)


def test_a_missing_solution_is_reported(exercise, capsys, tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell(
        "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION",
        metadata={"nbgrader": {"grade_id": "double"}},
    )
    for content, words in (([], "does not contain the solution"), ([cell], "def double(x):\n    return 2 * x\n")):
        nbformat.write(nbformat.v4.new_notebook(cells=content), tmp_path / "02_patches.ipynb")
        monkeypatch.setattr(exercise_module, "notebooks", lambda only: [tmp_path / "02_patches.ipynb"])
        exercise.reveal()
        assert words in capsys.readouterr().out


def test_a_notebook_without_checks_has_no_exercises():
    assert exercises("00_quickstart") == []


@pytest.mark.parametrize(
    "setting",
    [
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_device("meta"),
        lambda: torch.set_grad_enabled(False),
        lambda: torch.use_deterministic_algorithms(True),
        lambda: np.seterr(all="raise"),
        lambda: warnings.simplefilter("error"),
    ],
)
def test_an_answer_is_judged_under_the_kits_own_settings(exercise, setting):
    def mine(x):
        warnings.warn("odd", stacklevel=1)
        assert np.float64(1e-300) * np.float64(1e-300) == 0
        return x * (torch.ones(1) + 1)

    def settings():
        return (
            torch.get_default_dtype(),
            torch.ones(1).device,
            torch.is_grad_enabled(),
            np.geterr(),
            warnings.filters[0],
        )

    with warnings.catch_warnings(), np.errstate():
        try:
            setting()
            before = settings()
            verdict = exercise.judge(mine)
            assert verdict.state == "right", verdict
            assert settings() == before, "and the notebook's are as before"
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
            torch.set_grad_enabled(True)
            torch.use_deterministic_algorithms(False)


def test_a_wrong_answer_has_a_share_of_the_cases():
    def right_for_two(*case):
        return case[0] if case[0] < 2 else 0

    cases = [(number,) for number in range(5)]
    with pytest.raises(Wrong) as wrong:
        compare(right_for_two, lambda number: number, *cases)
    assert wrong.value.share == 2 / 5
