"""What the quickstart says of its words is so, and `make demo`, which runs it, takes no longer than it may."""

import ast
import json

import nbformat
import papermill
import pytest

from gen_affect_lib.avatars.emotions import emotion, families
from gen_affect_lib.course import timings
from gen_affect_lib.paths import NOTEBOOKS

QUICKSTART = NOTEBOOKS / "00_quickstart.ipynb"


@pytest.fixture(scope="module")
def shown() -> dict:
    """The names that the notebook's cells set to plain values: FAMILIES, WORDS."""
    found = {}
    for cell in nbformat.read(QUICKSTART, as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in ("FAMILIES", "WORDS"):
                    found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_the_portrait_has_every_family_with_words_of_its_own(shown):
    assert list(shown["FAMILIES"]) == list(families())
    for family, words in shown["FAMILIES"].items():
        assert {emotion(word).family for word in words} == {family} and 1 < len(words) <= 5


def test_words_of_the_portrait_go_from_calm_to_excited(shown):
    for words in shown["FAMILIES"].values():
        arousal = [emotion(word).arousal for word in words]
        assert arousal == sorted(arousal) and arousal[0] < arousal[-1]


def test_the_demonstration_takes_three_minutes_at_most():
    measured = timings.load()["laptop"]["notebooks"]["00_quickstart"]
    assert measured["seconds"] <= 180


def test_the_result_says_what_was_drawn_by_what(folders):
    papermill.execute_notebook(
        QUICKSTART,
        folders / "run.ipynb",
        parameters={"PROFILE": "smoke"},
        cwd=NOTEBOOKS,
        kernel_name="python3",
        progress_bar=False,
    )
    result = json.loads((folders / "outputs" / "quickstart.json").read_text())
    assert result["profile"] == "smoke" and result["device"] and result["seconds"] > 0
    assert result["checkpoint"] == "trained here" and result["training_steps"] > 0
    assert 0 <= result["scores"]["expression_top1"] <= 1 and len(result["words"]) == 12
    assert (folders / "outputs" / "expressions.png").stat().st_size > 10_000
