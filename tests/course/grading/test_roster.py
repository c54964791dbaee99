"""Submissions belong to the students of a roster, and the missing ones are named."""

import csv

import pytest

from gen_affect_lib.course.grading.grades import Grade
from gen_affect_lib.course.grading.roster import belongs_to, read_roster, write_students
from gen_affect_lib.course.grading.sandbox import Outcome
from gen_affect_lib.errors import UserError

MOODLE = """Identifier,Full name,Email address,Status,Grade
Participant 1234567,Ada Lovelace,ada@uni.edu,Submitted,
Participant 1234568,Łukasz Żak,lukasz.zak@uni.edu,Submitted,
Participant 1234569,Bob Builder,bob@uni.edu,No submission,
"""
CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section
    Points Possible,,,,
"Lovelace, Ada",501,s001,alovelace,A
"Żak, Łukasz",502,s002,lzak,A
"""


def roster(tmp_path, text):
    (tmp_path / "roster.csv").write_text(text, encoding="utf-8")
    return read_roster(tmp_path / "roster.csv")


@pytest.mark.parametrize(
    "submission, name",
    [
        ("Ada Lovelace_1234567_assignsubmission_file_/02_patches", "Ada Lovelace"),
        ("02_patches_lovelace_ada", "Ada Lovelace"),
        ("lukasz.zak@uni.edu/02", "Łukasz Żak"),
        ("Lukasz_ZAK/02", "Łukasz Żak"),
        ("week1/1234569/02", "Bob Builder"),
        ("bob/02", "Bob Builder"),
        ("02_patches", None),
        ("Ada Lovelace and Bob Builder/02", None),
        ("12345678/02", None),
    ],
)
def test_a_submission_belongs_to_whom_its_name_names(tmp_path, submission, name):
    student = belongs_to(submission, roster(tmp_path, MOODLE))
    assert (student and student.name) == name


@pytest.mark.parametrize("submission", ["lovelaceada_LATE_501_77812_02_patches-1", "alovelace/02", "s001_02"])
def test_canvas_names_files_in_its_own_way(tmp_path, submission):
    student = belongs_to(submission, roster(tmp_path, CANVAS))
    assert student is not None and student.name == "Lovelace, Ada"


def test_a_file_without_students_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no column that names a student"):
        roster(tmp_path, "Grade,Comment\n1,2\n")


def grades():
    def grade(submission, *right):
        verdicts = {name: {"state": "right", "message": "", "code": ""} for name in right}
        return Grade(submission, "02_patches", Outcome(verdicts))

    return [grade("Ada Lovelace/02", "looks_ratio"), grade("ada@uni.edu/02", "unpatchify"), grade("Lukasz Zak/02")]


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def test_moodle_gets_a_worksheet_with_its_identifiers(tmp_path):
    (path,) = write_students(grades(), roster(tmp_path, MOODLE), "moodle", tmp_path)
    assert path.name == "moodle_02_patches.csv"
    head, ada, lukasz, bob = rows(path)
    assert head[:5] == ["Identifier", "Full name", "Email address", "Grade", "Maximum Grade"]
    assert ada[:5] == ["Participant 1234567", "Ada Lovelace", "ada@uni.edu", "2", "15"], "the better of two"
    assert "2.2: right" in ada[5] and lukasz[3] == "0"
    assert bob[3:] == ["", "15", "Nothing was handed in."]


def test_canvas_gets_a_column_for_each_notebook(tmp_path):
    (path,) = write_students(grades(), roster(tmp_path, CANVAS), "canvas", tmp_path)
    head, possible, ada, lukasz = rows(path)
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "02_patches"]
    assert possible == ["    Points Possible", "", "", "", "", "15"]
    assert ada == ["Lovelace, Ada", "501", "s001", "alovelace", "A", "1"] and lukasz[5] == "0"


def test_a_table_names_who_is_missing(tmp_path):
    (path,) = write_students(grades(), roster(tmp_path, MOODLE), "csv", tmp_path)
    head, ada, lukasz, bob = rows(path)
    assert head == ["id", "name", "email", "02_patches", "points", "missing"]
    assert ada[3:] == ["2", "2", ""] and lukasz[3:] == ["0", "0", ""] and bob[3:] == ["", "0", "02_patches"]
