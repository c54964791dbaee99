"""Tests of the checks: right answers pass however they are written, wrong ones get a message that fits."""

from importlib import import_module

import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises

EXERCISES = [exercise for path in notebooks() for exercise in exercises(path.stem)]


def answers(exercise):
    module = import_module(f"tests.course.checks.answers.answers_{exercise.number.partition('.')[0]:0>2}")
    return module.ANSWERS[exercise.name]


@pytest.fixture(params=EXERCISES, ids=lambda exercise: f"{exercise.number}-{exercise.name}")
def exercise(request):
    return request.param


def test_right_answers_are_accepted(exercise):
    given = answers(exercise).right
    assert len(given) >= 2
    for answer in given:
        assert exercise.judge(answer).state == "right", (answer.__name__, exercise.judge(answer))


def test_wrong_answers_get_a_message_that_fits(exercise):
    given = answers(exercise).wrong
    assert len(given) >= (3 if exercise.is_code else 1)
    for answer, words in given:
        verdict = exercise.judge(answer)
        assert verdict.state == "wrong" and words in verdict.message, (answer.__name__, words, verdict)
    assert len({words for _, words in given}) == len(given), "two mistakes with the same message"


def test_nothing_written_is_unfinished(exercise):
    def stub(*_, **__):
        raise NotImplementedError

    class Stub:
        def __init__(self, *_, **__):
            raise NotImplementedError

    assert exercise.judge(Stub if isinstance(exercise.reference, type) else stub).state == "unfinished"


def test_the_reference_is_no_answer(exercise):
    assert exercise.judge(exercise.reference).state == "unfinished"


def test_a_function_that_returns_nothing_is_wrong(exercise):
    if isinstance(exercise.reference, type):
        return
    verdict = exercise.judge(lambda *_, **__: None)
    assert verdict.state == "wrong" and verdict.message


def test_every_answer_belongs_to_an_exercise():
    for path in notebooks():
        names = {exercise.name for exercise in exercises(path.stem)}
        if names:
            assert set(import_module(f"tests.course.checks.answers.answers_{path.stem[:2]}").ANSWERS) == names
