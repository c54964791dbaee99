"""A report adds up its criteria, shows itself, and can be read back; a stranger's file is not believed."""

import json

import pytest
from PIL import Image

from gen_affect_lib.course.projects import report as frame
from gen_affect_lib.course.projects.report import Criterion, Report, gain, kept, reached, read_report
from gen_affect_lib.errors import UserError

ALT = "A red square, which stands for a picture of faces."


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def report():
    criteria = (Criterion("larger <area>", 10.0, 40.0, "Measured: 0.1."), Criterion("runs", 20.0, 20.0, "It runs."))
    return Report("fusion", criteria, {"seeds": [0, 1]}, ((Image.new("RGB", (8, 8), "red"), ALT),))


@pytest.mark.parametrize(
    "difference, points",
    [
        (estimate(0.1, 0.05, 0.15), 20),  # at the bar
        (estimate(0.3, 0.2, 0.4), 20),  # beyond it
        (estimate(0.05, 0.01, 0.09), 10),  # half of the way
        (estimate(0.05, -0.01, 0.11), 5),  # may be chance
        (estimate(0.0, -0.05, 0.05), 0),  # the baseline itself
        (estimate(-0.2, -0.3, -0.1), 0),
        (estimate(float("nan"), float("nan"), float("nan")), 0),
    ],
)
def test_a_gain_counts_in_proportion_and_half_where_it_may_be_chance(difference, points):
    assert gain("larger area", 20, difference, full=0.1).points == points


@pytest.mark.parametrize("value, points", [(0.2, 10), (0.0, 10), (-0.05, 10), (-0.075, 5), (-0.1, 0), (-1.0, 0)])
def test_what_must_be_kept_may_fall_by_the_margin(value, points):
    assert kept("right", 10, estimate(value, value - 0.1, value + 0.1), margin=0.05).points == pytest.approx(points)


@pytest.mark.parametrize("value, points", [(0.2, 0), (0.5, 5), (0.8, 10), (1.0, 10)])
def test_a_number_counts_between_two_bars(value, points):
    assert reached("F1", 10, estimate(value, value, value), none=0.2, full=0.8).points == pytest.approx(points)
    assert reached("error", 10, estimate(-value, 0, 0), none=-0.2, full=-0.8).points == pytest.approx(points)


def test_the_sentence_has_the_number_the_interval_and_the_bar():
    said = gain("larger area", 20, estimate(0.0512, 0.011, 0.093), full=0.1).said
    assert all(part in said for part in ("+0.051", "+0.011 to +0.093", "+0.1 on", "95 %"))


def test_points_out_of_range_are_refused():
    with pytest.raises(ValueError, match="not in 0 to 10"):
        Criterion("area", 11, 10, "too many")


def test_a_report_adds_up_and_prints_as_a_table(report):
    assert (report.points, report.of) == (30, 60)
    assert "fusion: 30 of 60 points" in str(report) and "10.0 of 40" in str(report)
    assert "larger &lt;area&gt;" in report._repr_html_() and "<area>" not in report._repr_html_()


def test_a_report_shows_its_table_and_its_pictures(report, capsys):
    report._ipython_display_()
    assert "30 of 60 points" in (printed := capsys.readouterr().out) and ALT in printed


def test_a_picture_needs_a_description():
    with pytest.raises(UserError, match="describe the picture"):
        Report("fusion", (), {}, ((Image.new("RGB", (8, 8)), "red"),))


def test_a_report_is_written_and_read_back(report, tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "OUTPUTS", tmp_path)
    folder = report.write()
    assert folder == tmp_path / "projects" / "fusion"
    again = read_report(folder / "report.json")
    assert (again.criteria, again.figures, again.project) == (report.criteria, report.figures, report.project)
    assert again.pictures[0][1] == ALT and again.pictures[0][0].tobytes() == report.pictures[0][0].tobytes()
    page = (folder / "report.html").read_text()
    assert ALT in page and "data:image/png;base64," in page and "<script" not in page and "30 of 60" in page


@pytest.mark.parametrize(
    "change",
    [
        {"criteria": [{"name": "area", "points": 1e9, "of": 10, "said": ""}]},
        {"criteria": [{"name": "area", "points": "nan", "of": 10, "said": ""}]},
        {"criteria": None},
        {"pictures": [{"alt": ALT, "png": "no picture"}]},
        {"figures": 3},
    ],
)
def test_a_file_that_is_no_report_is_refused(change, report, tmp_path):
    path = report.write(tmp_path) / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="no report"):
        read_report(path)


def test_a_missing_and_a_huge_file_are_refused(report, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no report"):
        read_report(tmp_path / "report.json")
    monkeypatch.setattr(frame, "LARGEST", 100)
    with pytest.raises(UserError, match="larger than"):
        read_report(report.write(tmp_path) / "report.json")
