"""The kit's components are cut out of the checks, and nothing else of them goes to a submission."""

import inspect

import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.grading import reference

EXERCISES = [exercise for path in notebooks() for exercise in exercises(path.stem)]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.number)
def test_the_source_defines_the_component_and_no_check(exercise):
    source = reference.source(exercise.number.partition(".")[0].zfill(2), exercise.name)
    assert "check_" not in source and "Exercise" not in source and "_test_" not in source and "Wrong" not in source
    space = {"__name__": "component"}
    exec(source, space)
    made = space["reference"]
    if reference.place(exercise):
        assert made is exercise.reference
    elif not exercise.is_code:
        assert made() == exercise.reference()
    else:
        assert inspect.signature(made) == inspect.signature(exercise.reference)
        assert exercise.judge(made).state == "right"


def test_a_component_of_the_library_has_its_place():
    (unpatchify,) = [exercise for exercise in EXERCISES if exercise.name == "unpatchify"]
    assert reference.place(unpatchify) == ["gen_affect_lib.model.patches", "unpatchify"]
    (midpoint,) = [exercise for exercise in EXERCISES if exercise.name == "midpoint"]
    assert reference.place(midpoint) is None
