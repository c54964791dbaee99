"""The benchmark measures the ratio of times, on shapes small enough for a test."""

import json

import pytest
import torch

from gen_affect_lib import bench

TINY = bench.Shape("tiny", 0.01, 1, 4, 2, num_layers=1, attention_head_dim=16, num_attention_heads=1)


@pytest.fixture
def clock(monkeypatch):
    """A machine on which ours takes one second, diffusers' two, and every fourth pair is slowed down tenfold."""
    calls = {"count": 0}

    def seconds(step, device):
        step()
        pair, second = divmod(calls["count"], 2)
        calls["count"] += 1
        ours = (pair % 2 == 1) != bool(second)  # which model runs first alternates
        return (1.0 if ours else 2.0) * (10 if pair % 4 == 0 else 1)

    monkeypatch.setattr(bench, "seconds", seconds)


def test_the_ratio_holds_on_a_machine_that_is_busy_now_and_then(clock):
    result = bench.measure(TINY, "forward+backward", pairs=20, patience=60, device=torch.device("cpu"))
    assert result["ratio"] == 2 and result["noise"] == 0 and result["pairs"] == 20
    assert result["diffusers_ms"] == 2 * result["ours_ms"] == 2000


def test_both_compute_the_same():
    result = bench.measure(TINY, "forward", pairs=2, patience=60, device=torch.device("cpu"))
    assert 0 <= result["largest_difference"] < 1e-5


def test_it_stops_early_when_patience_is_over_but_not_before_ten_pairs(clock):
    assert bench.measure(TINY, "forward", pairs=50, patience=0, device=torch.device("cpu"))["pairs"] == 10


def test_the_report_is_written_and_says_what_reached_its_bar(clock, tmp_path, capsys):
    demanding = bench.Shape(**(TINY.__dict__ | {"name": "demanding", "bar": 2.5}))
    report = bench.run(tmp_path / "new" / "bench.json", pairs=4, shapes=(TINY, demanding))
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == report
    assert [(r["shape"]["name"], r["pass"], r["passed"]) for r in report["results"]] == [
        ("tiny", "forward", True),
        ("tiny", "forward+backward", True),
        ("demanding", "forward", False),
        ("demanding", "forward+backward", False),
    ]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_bars_are_those_that_were_asked_for():
    assert {shape.name: shape.bar for shape in bench.SHAPES} == {"dispatch-bound": 1.2, "kit": 1.0, "matrix-bound": 1.0}
