"""Handed-in projects run in the sandbox; one row for each, whatever it contains."""

import csv

import nbformat
import pytest

from gen_affect_lib import cli
from gen_affect_lib.course.projects import PROJECTS, collect
from gen_affect_lib.course.projects.report import AUTOMATIC
from gen_affect_lib.errors import UserError
from tests.course.handed_in import code, write

REPORT = f"""
from PIL import Image
from gen_affect_lib.course.projects import fusion
from gen_affect_lib.course.projects.report import Criterion, Report

criteria = (Criterion("area <b>", 12.5, {AUTOMATIC}, "Measured at " + PROFILE + "."),)
picture = (Image.new("RGB", (8, 8), "red"), "A red square instead of the fronts of two fusions.")
report = Report("fusion", criteria, {{"seeds": [0, 1]}}, (picture,))
"""
FORGED = REPORT.replace(f"12.5, {AUTOMATIC}", "200, 200")


def notebook(*cells):
    sources = ("PROFILE = 'gpu'", *cells)
    return nbformat.v4.new_notebook(cells=[code(source) for source in sources])


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """The rows of a folder with one submission of each kind, and the folder of the reports."""
    folder = tmp_path_factory.mktemp("projects")
    handed_in = folder / "in"
    write(notebook(REPORT, "1 / 0"), handed_in / "ada.ipynb")
    write(
        notebook("from gen_affect_lib.course.projects import fusion\nraise RuntimeError('too hot')"),
        handed_in / "b.ipynb",
    )
    write(notebook(FORGED), handed_in / "c.ipynb")
    write(notebook("print('a poem')"), handed_in / "d.ipynb")
    (handed_in / "e.docx").write_text("no notebook")
    options = ["--out", str(folder / "out"), "--profile", "smoke", "--seconds", "120"]
    assert cli.main(["course", "project", str(handed_in), *options]) == 0
    with (folder / "out" / "projects.csv").open(encoding="utf-8-sig") as stream:
        return {row["submission"]: row for row in csv.DictReader(stream)}, folder / "out"


def test_each_submission_has_one_row(collected):
    assert list(collected[0]) == ["ada", "b", "c", "d", "e.docx"]


def test_a_report_is_collected_with_the_profile_of_the_command(collected):
    rows, out = collected
    assert (rows["ada"]["project"], rows["ada"]["points"], rows["ada"]["of"]) == ("fusion", "12.5", "60")
    page = (out / rows["ada"]["page"]).read_text()
    assert "Measured at smoke." in page and "area &lt;b&gt;" in page and "A red square" in page


def test_a_cell_that_stops_is_named_and_costs_no_report(collected):
    assert "ZeroDivisionError" in collected[0]["ada"]["problem"]


def test_a_notebook_that_fails_is_a_row_with_its_problem(collected):
    row = collected[0]["b"]
    assert row["points"] == "" and "too hot" in row["problem"] and row["project"] == "fusion"


def test_more_points_than_a_project_has_are_refused(collected):
    row = collected[0]["c"]
    assert row["points"] == "" and "200 points" in row["problem"]


def test_what_is_no_project_says_so(collected):
    assert "no project" in collected[0]["d"]["problem"] and "no notebook" in collected[0]["e.docx"]["problem"]


def test_a_link_is_not_followed(tmp_path, monkeypatch):
    secret = tmp_path / "secret.json"
    secret.write_text('{"secret": true}')
    link = f"""
import os
from gen_affect_lib.course.projects import fusion
from gen_affect_lib.course.projects.report import place
place("fusion").mkdir(parents=True)
os.symlink({str(secret)!r}, place("fusion") / "report.json")
"""
    path = write(notebook(link), tmp_path / "in" / "fusion.ipynb")
    one = collect.collect_one(collect.Submission("fusion", path), "smoke", seconds=60)
    assert one.report is None and "no report" in one.problem


@pytest.mark.parametrize("project", PROJECTS)
def test_a_project_is_known_by_its_import_or_its_name(project):
    imported = [{"cell_type": "code", "source": f"from gen_affect_lib.course.projects.{project} import score"}]
    whole = [{"cell_type": "code", "source": f"from gen_affect_lib.course.projects import {project}"}]
    nothing = [{"cell_type": "code", "source": "pass"}]
    assert collect.project_of(imported, "x.ipynb") == collect.project_of(whole, "x.ipynb") == project
    assert collect.project_of(nothing, f"ada_{project}.ipynb") == project
    with pytest.raises(UserError, match="no project"):
        collect.project_of(nothing, "x.ipynb")


def test_nothing_to_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        collect.collect(tmp_path / "nowhere", tmp_path / "out", "smoke")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no notebook"):
        collect.collect(tmp_path / "empty", tmp_path / "out", "smoke")
    with pytest.raises(UserError, match="inside the folder"):
        collect.collect(tmp_path / "empty", tmp_path / "empty" / "out", "smoke")
