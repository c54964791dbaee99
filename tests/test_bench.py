"""The benchmark measures the ratio of times, on shapes small enough for a test."""

import json

import pytest
import torch

from gen_affect_lib import bench
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.sd35 import MEDIUM

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


# --- at the size of Stable Diffusion 3.5 ---

SMALL = MEDIUM | dict(attention_head_dim=8, num_attention_heads=2, pos_embed_max_size=8)
FEW = {"image_tokens": 12, "text_tokens": 5, "images": 3}


def test_a_real_sized_block_and_a_set_are_timed(tmp_path, capsys):
    report = bench.run_scale(tmp_path / "scale.json", pairs=2, patience=0, sizes=SMALL, tokens=FEW)
    assert json.loads((tmp_path / "scale.json").read_text())["results"] == report["results"]
    block, *sets = report["results"]
    assert "12 + 5 tokens" in block["name"] and [about in one["name"] for about, one in zip(bench.SETS, sets)] == [
        True,
        True,
    ]
    assert report["largest_difference"] < 1e-5, "both blocks compute the same"
    for result in report["results"]:
        assert result["ratio"] > 0 and result["tflops"] > 0
        assert result["share_of_peak"] == pytest.approx(result["tflops"] / report["peak_tflops"])
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_size_is_that_of_the_medium_model():
    assert bench.SCALE == {"image_tokens": 1024, "text_tokens": 333, "images": 4}
    assert bench.run_scale.__defaults__[3] is None and bench.MEDIUM["num_attention_heads"] == 24


def test_the_operations_of_a_block_are_counted_by_hand():
    """Projections, attention and MLPs of a block with two attentions; C = 16, L = 12 and M = 5 tokens."""
    model = MMDiT(**SMALL | {"num_layers": 2, "dual_attention_layers": (0,)})
    C, L, M = 16, 12, 5
    given = torch.randn(1, L, C), torch.randn(1, M, C), torch.randn(1, C)
    modulation = (9 + 6) * C * C
    image, text = L * C * C * (4 + 4 + 8), M * C * C * (4 + 8)
    attention = 2 * C * ((L + M) ** 2 + L**2)
    assert bench.flops_of(lambda: model.blocks[0](*given)) == 2 * (modulation + image + text + attention)
