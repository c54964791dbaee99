"""Which exercises a notebook has: those defined in its module `notebook_NN`."""

from importlib import import_module
from importlib.util import find_spec

from gen_affect_lib.course.checks.exercise import Exercise


def exercises(notebook: str) -> list[Exercise]:
    """The exercises of a notebook, "02" or "02_patches", in order; an empty list if it has no module of checks."""
    module = f"gen_affect_lib.course.checks.notebook_{notebook[:2]}"
    if find_spec(module) is None:
        return []
    found = [
        value
        for name, value in vars(import_module(module)).items()
        if name.startswith("check_") and isinstance(value, Exercise)
    ]
    return sorted(found, key=lambda exercise: int(exercise.number.partition(".")[2]))
