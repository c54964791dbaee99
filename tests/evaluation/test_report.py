"""The rows of a comparison are kept in a file under their heading."""

import json

import pytest

from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.report import Rows, heading, read_rows, write_rows
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.profiles import PROFILES

SMOKE = PROFILES["smoke"]
PLAN = Plan(people=2, words=3, seeds=2)


def test_rows_of_a_comparison_are_kept_and_found_again(tmp_path):
    about, rows = heading(SMOKE, PLAN, 0.5, None), [{"name": "ours", "seed": 0}]
    assert read_rows(tmp_path / "rows.json", about) == []
    result = write_rows(tmp_path / "rows.json", rows, about)
    assert json.loads((tmp_path / "rows.json").read_text()) == result and result["words"] == list(PLAN.target_words)
    assert read_rows(tmp_path / "rows.json", about) == rows


@pytest.mark.parametrize(
    "other, name",
    [
        (lambda: heading(SMOKE, PLAN, 1.0, None), "minutes"),
        (lambda: heading(SMOKE, PLAN, 0.5, 9), "steps"),
        (lambda: heading(SMOKE, Plan(people=3, words=3, seeds=2), 0.5, None), "plan"),
        (lambda: heading(PROFILES["laptop"], PLAN, 0.5, None), "profile"),
    ],
)
def test_rows_of_another_comparison_are_not_taken_for_this_ones(tmp_path, other, name):
    path = tmp_path / "rows.json"
    write_rows(path, [{"name": "ours", "seed": 0}], heading(SMOKE, PLAN, 0.5, None))
    with pytest.raises(UserError, match=f"rows.json holds a comparison with another {name}: give --json") as error:
        read_rows(path, other())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"rows": 3}', '{"figures": {}}'])
def test_a_file_that_holds_no_comparison_is_named_and_kept(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UserError, match="rows.json holds no comparison: give --json another name, or remove it"):
        read_rows(path, heading(SMOKE, PLAN, 0.5, None))
    assert path.read_text() == content


def test_rows_are_saved_after_each_one_and_those_that_are_there_are_not_missing(tmp_path):
    path, about = tmp_path / "rows.json", heading(SMOKE, PLAN, 0.5, None)
    rows = Rows(path, about)
    assert list(rows.missing(["ours", "sum"], 2)) == [(0, "ours"), (0, "sum"), (1, "ours"), (1, "sum")]
    rows.add({"name": "drawings"})
    rows.add({"name": "sum", "seed": 0})
    again = Rows(path, about)  # as after an interruption
    assert again.rows == rows.rows and "drawings" in again and "ours" not in again
    assert list(again.missing(["ours", "sum"], 2)) == [(0, "ours"), (1, "ours"), (1, "sum")]
    assert again.save()["rows"] == rows.rows
