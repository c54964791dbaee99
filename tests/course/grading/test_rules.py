"""Parts of points, deadlines and points by hand."""

from datetime import datetime

import pytest

from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.grading.feedback import page
from gen_affect_lib.course.grading.grades import Grade
from gen_affect_lib.course.grading.rules import ByHand, Rules, deadline, read_manual, read_table
from gen_affect_lib.course.grading.sandbox import Outcome
from gen_affect_lib.errors import UserError

DAY = 86400.0


def graded(rules=None, handed_in=0.0) -> Grade:
    """Notebook 02: 2.1 right (1 point), 2.2 wrong in a third of the cases (2 points), the others unfinished."""
    verdicts = {
        "looks_ratio": {"state": "right", "message": "", "code": "", "share": 0.0},
        "unpatchify": {"state": "wrong", "message": "no.", "code": "", "share": 2 / 3},
    }
    return Grade("ada", "02_patches", Outcome(verdicts), handed_in=handed_in, rules=rules or Rules())


def state(grade, number):
    (exercise,) = [one for one in exercises("02") if one.number == number]
    return grade.shown(exercise)


def test_a_wrong_answer_gets_a_part_of_its_points_only_if_asked_for():
    assert graded().points == 1 and state(graded(), "2.2") == "wrong"
    partial = graded(Rules(partial=True))
    assert partial.points == 2.33 and state(partial, "2.2") == "wrong 1.33" and "2.33 of 15 points" in page(partial)


@pytest.mark.parametrize(
    "late, days, points",
    [(-1.0, 0, 1.0), (0.0, 0, 1.0), (1.0, 1, 0.9), (DAY, 1, 0.9), (DAY + 1, 2, 0.8), (99 * DAY, 99, 0.0)],
)
def test_each_day_that_has_begun_costs_a_part(late, days, points):
    grade = graded(Rules(due=1e9, late_percent=10), handed_in=1e9 + late)
    assert (grade.rules.days_late(grade.handed_in), grade.points) == (days, points)
    assert ("handed in late" in page(grade)) == bool(days)


def test_without_a_rule_late_work_is_only_marked():
    grade = graded(Rules(due=1e9), handed_in=1e9 + DAY)
    assert grade.points == 1 and grade.rules.days_late(grade.handed_in) == 1


def test_points_by_hand_replace_those_of_an_exercise_and_add_to_the_whole():
    manual = {("ada", "2.2"): ByHand(1.5, "a good idea"), ("ada", ""): ByHand(0.5, "neat"), ("bob", "2.1"): ByHand(0)}
    grade = graded(Rules(manual=manual))
    assert grade.points == 3 and state(grade, "2.2") == "1.5 by hand"
    assert "1.5 points were given by hand: a good idea." in page(
        grade
    ) and "0.5 points were given by hand: neat" in page(grade)


def test_points_by_hand_are_read(tmp_path):
    path = tmp_path / "manual.csv"
    assert read_manual(path) == {}
    path.write_text("submission;exercise;points;comment\nada;2.2;1,5;a; b\nada;unpatchify;2;\nbob;;-1;late twice\n")
    assert read_manual(path) == {("ada", "2.2"): ByHand(2.0, ""), ("bob", ""): ByHand(-1.0, "late twice")}


@pytest.mark.parametrize(
    "row, words",
    [
        ("ada,9.9,1,", "line 2: there is no exercise '9.9'"),
        ("ada,2.1,one,", "line 2: give submission"),
        (",2.1,1,", "line 2: give submission"),
        ("ada,2.1,nan,", "line 2: give submission"),
        ("", "has no rows"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, words):
    path = tmp_path / "manual.csv"
    path.write_text(f"submission,exercise,points,comment\n{row}\n")
    with pytest.raises(UserError, match=words):
        read_manual(path)


def test_a_deadline_is_a_date_or_a_time():
    assert deadline("2026-12-01") == datetime(2026, 12, 1, 23, 59, 59).timestamp()
    assert deadline("2026-12-01 18:00") == deadline("2026-12-01T18:00") == datetime(2026, 12, 1, 18).timestamp()
    assert deadline("2026-12-01T18:00+00:00") == 1796148000
    with pytest.raises(UserError, match="--due tomorrow is no date"):
        deadline("tomorrow")


def test_tables_of_spreadsheets_are_read(tmp_path):
    path = tmp_path / "table.csv"
    for content in (
        b"\xef\xbb\xbfName;ID\nJos\xc3\xa9 ;1\n",
        b"Name\tID\nJos\xe9\t1\n",
        b'Name,ID\r\n"Jos\xc3\xa9",1\r\n',
    ):
        path.write_bytes(content)
        assert read_table(path) == [{"name": "José", "id": "1"}]
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
