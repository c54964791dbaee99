"""A run is compared with the reference within tolerances, and can become the reference."""

import json

import pytest

from gen_affect_lib.course import results
from gen_affect_lib.errors import UserError

REFERENCE = {"smoke": {"machine": {"torch": "2.13.0"}, "notebooks": {"02_patches": {"error": 0.5, "looks": 16.0}}}}


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "OUTPUTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "error, agrees", [(0.5, True), (0.52, True), (0.48, True), (0.53, False), (float("nan"), False)]
)
def test_numbers_agree_within_their_tolerance(error, agrees, capsys):
    assert results.compare_run("02_patches", "smoke", {"error": (error, 0.021), "looks": (16, 0)}, REFERENCE) is agrees
    printed = capsys.readouterr().out
    assert ("differs" in printed) is not agrees and "0.5" in printed and printed.count("✓") == 1 + agrees


def test_without_a_reference_nothing_is_compared(capsys):
    assert results.compare_run("02_patches", "gpu", {"error": (0.5, 0.1)}, REFERENCE)
    assert "no reference for `gpu`" in capsys.readouterr().out


def test_a_new_number_is_shown_as_unknown(capsys):
    assert results.compare_run("02_patches", "smoke", {"error": (0.5, 0.1), "new": (3, 0)}, REFERENCE)
    assert "unknown" in capsys.readouterr().out


def test_the_last_run_becomes_the_reference(tmp_path, capsys):
    path = tmp_path / "results.json"
    results.compare_run("02_patches", "smoke", {"error": (0.7, 0.1)}, REFERENCE)
    results.keep_reference("02_patches", "smoke", path)
    results.keep_reference("03_mmdit", "smoke", path)  # it compared nothing
    kept = results.load(path)
    assert kept["smoke"]["notebooks"] == {"02_patches": {"error": 0.7}} and kept["smoke"]["machine"]["torch"]
    assert results.compare_run("02_patches", "smoke", {"error": (0.7, 0)}, kept)


def test_a_broken_reference_is_named(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match="results.json is not valid JSON"):
        results.load(tmp_path / "results.json")
    assert results.load(tmp_path / "none.json") == {} and json.dumps(results.load()) is not None
