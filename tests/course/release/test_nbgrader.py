"""nbgrader itself makes an assignment of a notebook, and grades what comes back."""

import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.paths import ROOT
from tests.course.handed_in import WRONG, graded

NAME = "02_patches"


def nbgrader(course, *arguments):
    """Run a command of nbgrader's in the folder of a course, with the kit to import from."""
    here = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # it calls alembic by its name
    environment = os.environ | {
        "PATH": here,
        "GEN_AFFECT_PROFILE": "smoke",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "GEN_AFFECT_OUTPUTS": str(course / "outputs"),
        "HF_HUB_OFFLINE": "1",
        "JUPYTER_CONFIG_DIR": str(course / "jupyter"),
        "IPYTHONDIR": str(course / "ipython"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def graded_course(tmp_path_factory):
    """A course of nbgrader with notebook 02 and a graded submission: one answer right, one wrong, two unfinished."""
    course = tmp_path_factory.mktemp("course")
    source = course / "source" / "ps1" / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    shutil.copyfile(notebooks("02")[0], source)
    nbgrader(course, "generate_assignment", "ps1", "--create")
    notebook = nbformat.read(course / "release" / "ps1" / source.name, as_version=4)
    graded(notebook, "looks_ratio").source = "def looks_ratio():\n    return 2**4"
    graded(notebook, "unpatchify").source = WRONG["unpatchify"]
    handed_in = course / "submitted" / "ada" / "ps1" / source.name
    handed_in.parent.mkdir(parents=True)
    nbformat.write(notebook, handed_in)
    nbgrader(course, "autograde", "ps1", "--create")
    return course


def test_its_release_contains_every_check_and_no_solution(graded_course):
    released = nbformat.read(graded_course / "release" / "ps1" / f"{NAME}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in released.cells)
    assert "BEGIN SOLUTION" not in text and "NotImplementedError" in text
    for exercise in exercises("02"):
        check = graded(released, f"check_{exercise.name}")
        assert f"= check_{exercise.name}(" in check.source and check.metadata.nbgrader.locked


def test_a_right_answer_gets_its_points_and_no_other_does(graded_course):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{graded_course / 'gradebook.db'}") as gradebook:
        submission = gradebook.find_submission_notebook(NAME, "ps1", "ada")
        points = {grade.name: (grade.auto_score, grade.max_score) for grade in submission.grades}
    assert points == {
        f"check_{exercise.name}": (exercise.points if exercise.name == "looks_ratio" else 0, exercise.points)
        for exercise in exercises("02")
    }


def test_the_notebook_ran_to_its_end(graded_course):
    ran = nbformat.read(graded_course / "autograded" / "ada" / "ps1" / f"{NAME}.ipynb", as_version=4)
    outputs = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.get("text", "") for output in outputs)
    assert "✓ Exercise 2.1" in said and "only regrouped" in said and "Nothing is written yet" in said
