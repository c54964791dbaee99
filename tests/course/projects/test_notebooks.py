"""What every starting notebook of a project has."""

import re

import nbformat
import pytest

from gen_affect_lib.course import project_notebooks
from gen_affect_lib.course.grading import submissions
from gen_affect_lib.course.projects import collect
from gen_affect_lib.course.projects.report import AUTOMATIC, BY_HAND
from gen_affect_lib.paths import NOTEBOOKS
from tests.notebooks.test_contract import ABSOLUTE, code_cells, outputs, pictures, printed, prose, tagged

LARGEST = 200_000  # bytes of a notebook with its outputs
README = (NOTEBOOKS / "projects" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=project_notebooks(), ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def test_the_overview_links_each_notebook_and_the_rubric_adds_up():
    assert project_notebooks()
    assert {f"{path.stem}.ipynb" for path in project_notebooks()} <= set(re.findall(r"\]\((\w+\.ipynb)\)", README))
    assert AUTOMATIC + BY_HAND == 100 and f"{AUTOMATIC} points" in README and f"{BY_HAND} points" in README
    rows = re.findall(r"(?m)^\| \*\*\w", README.split("## Rubric")[1])
    assert len(rows) * 10 == BY_HAND


def test_opens_with_what_a_student_must_know(notebook):
    opening = notebook.cells[0].source
    assert opening.startswith("# Project · ")
    assert all(f"**{part}" in opening for part in ("Objectives", "Prerequisites", "Time")) and "README.md" in opening
    assert len(re.findall(r"(?m)^- ", opening)) >= 2


def test_has_parameters_an_answer_and_a_report(path, notebook):
    (parameters,), (answer,) = tagged(notebook, "parameters"), tagged(notebook, "answer")
    assert "PROFILE = default_profile()" in parameters.source
    assert "baseline" in "".join(prose(notebook)).lower() and answer.cell_type == "code"
    last = code_cells(notebook)[-1].source
    assert re.search(r"(?m)^report = .*score\(", last) and last.splitlines()[-1] == "report"
    assert collect.project_of(submissions.read(path), "some.ipynb") == path.stem


def test_says_what_a_person_reads_and_what_to_check(notebook):
    text = "\n".join(prose(notebook))
    assert text.count("- [ ]") >= 4 and "arXiv" in text
    assert all(part in text for part in ("Hypothesis", "Derivation", "Ablation", "Failure"))


def test_was_run_whole_and_is_small(path, notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [
        output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert path.stat().st_size <= LARGEST
    assert notebook.metadata.kernelspec.name == "python3" and "papermill" not in notebook.metadata


def test_the_unfinished_answer_is_scored_as_the_baseline(notebook):
    """The report that is shown says that nothing was gained."""
    shown = "".join(printed(output) for output in code_cells(notebook)[-1].outputs)
    points = float(re.search(rf"([\d.]+) of {AUTOMATIC} points", shown).group(1))
    assert points <= AUTOMATIC / 2


def test_every_picture_is_described_and_no_path_is_absolute(notebook):
    alts = [output.metadata.get("image/png", {}).get("alt", "") for output in pictures(notebook)]
    assert alts and all(len(alt.split()) >= 5 for alt in alts) and len(set(alts)) == len(alts)
    for cell in notebook.cells:
        assert not ABSOLUTE.search(cell.source)
    for output in outputs(notebook):
        assert not ABSOLUTE.search(printed(output))
