"""Answers in another process get the verdicts that they get in the notebook."""

import inspect
from importlib import import_module

import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.grading import judge, sandbox

CALL_THE_KITS = {"sample", "log_likelihoods"}
NUMBERS = [path.stem[:2] for path in notebooks() if exercises(path.stem)]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_answer_gets_the_verdict_that_it_gets_in_the_notebook(number, monkeypatch):
    """All right and wrong answers to one notebook, with all messages."""
    module = import_module(f"tests.course.checks.answers.answers_{number}")
    source = inspect.getsource(module).replace(
        "from tests.course.checks.answers import Answers", "from collections import namedtuple"
    )
    cells = ["from types import SimpleNamespace as Answers", source]
    expected = []
    for exercise in exercises(number):
        given = module.ANSWERS[exercise.name]
        for kind, answers in (("right", given.right), ("wrong", [answer for answer, _ in given.wrong])):
            for place, answer in enumerate(answers):
                which = f"ANSWERS['{exercise.name}'].{kind}[{place}]" + ("[0]" if kind == "wrong" else "")
                check = f"from gen_affect_lib.course.checks.notebook_{number} import check_{exercise.name} as check"
                cells.append(f"{check}\ncheck({which})")
                verdict = exercise.judge(answer)
                expected.append((exercise.name, verdict.state, verdict.message, round(verdict.share, 3)))
    got = []
    monkeypatch.setattr(
        judge._Judging,
        "_keep",
        lambda self, name, verdict: got.append((name, verdict.state, verdict.message, round(verdict.share, 3))),
    )
    monkeypatch.setattr(judge, "GUESSES", 100)
    outcome = judge.judge(
        {
            "cells": [{"number": number, "source": source} for number, source in enumerate(cells)],
            "notebook": number,
            "seconds": 600,
            "memory_gb": 4,
            "profile": "smoke",
            "helpers": {},
            "kit": str(sandbox._kit()),
            "container": None,
        }
    )
    assert outcome["errors"] == [] and outcome["problems"] == []
    for mine, theirs in zip(got, expected):
        # Some of the answers call the kit's own component, which only the judge notices.
        assert mine == theirs or (mine[0] in CALL_THE_KITS and "this is the kit's own" in mine[2])
    assert len(got) >= len(expected)
