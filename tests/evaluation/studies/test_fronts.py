"""Fronts: each variant is trained once and scored with every pair of scales, and ours is compared with the others."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars import pairs
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import fronts
from gen_affect_lib.evaluation.studies.fronts import (
    BASELINES,
    GUIDANCE,
    SCALES,
    compare_fronts,
    scales_of,
    shares,
    table,
)
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.training.trainer import Trainer

SMOKE = PROFILES["smoke"]
PLAN = Plan(people=3, words=2, seeds=1)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(sets, "GALLERY", 30)
        folder = tmp_path_factory.mktemp("fronts")

        def run(names, seeds=1):
            return compare_fronts(SMOKE, PLAN, None, 2, seeds, names, folder / "rows.json", folder)

        first = run(["ours", "identity_only"])
        yield SimpleNamespace(first=first, both=run(["ours"], 2), path=folder / "rows.json", run=run)


def test_every_pair_of_scales_is_scored_and_a_missing_condition_is_not_scaled():
    assert len(SCALES) == len(set(SCALES)) == len(GUIDANCE) ** 2
    assert scales_of(BASELINES["ours"]) == SCALES
    assert scales_of(BASELINES["identity_only"]) == tuple((scale, 1.0) for scale in GUIDANCE)
    assert scales_of(BASELINES["expression_only"]) == tuple((1.0, scale) for scale in GUIDANCE)


def test_rows_hold_the_counts_of_each_person_and_the_ceiling(compared):
    names = [(row["name"], row.get("seed")) for row in compared.both["rows"]]
    assert names == [("drawings", None), ("reconstructed", None), ("ours", 0), ("identity_only", 0), ("ours", 1)]
    assert json.loads(compared.path.read_text()) == json.loads(json.dumps(compared.both))
    for row in compared.both["rows"]:
        for point in row["points"]:
            for figure in ("right", "found"):
                assert len(point[figure]) == 3 and all(0 <= count <= 2 for count in point[figure])
    drawings, _, ours, identity_only, _ = compared.both["rows"]
    assert drawings["points"] == [{"right": [2, 2, 2], "found": [2, 2, 2]}]
    assert [tuple(point["scales"]) for point in ours["points"]] == list(SCALES)
    assert len(identity_only["points"]) == len(GUIDANCE)


def test_what_is_done_is_not_done_again(compared, monkeypatch):
    monkeypatch.setattr(Trainer, "learn", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(fronts, "generate", lambda *_: pytest.fail("drawn again"))
    assert compared.run(["ours", "identity_only"], 1)["rows"] == compared.both["rows"]


def measured(**fronts_of):
    """A comparison of 40 people and 10 words; each training of a variant: a list of (right, found) shares."""
    rows = [
        dict(name=name, steps=1, points=[dict(right=[10 * r] * 40, found=[10 * f] * 40) for r, f in points])
        for name, trainings in fronts_of.items()
        for points in trainings
    ]
    return dict(words=["w"] * 10, plan=dict(people=40), rows=rows)


def test_shares_have_a_row_for_each_training_and_a_column_for_each_person():
    found = shares(measured(ours=[[(0.9, 0.5), (0.5, 0.9)], [(0.8, 0.4), (0.4, 0.8)]], other=[[(0.8, 0.5)]]))
    assert found["ours"].shape == (2, 2, 2, 40) and found["other"].shape == (1, 1, 2, 40)
    np.testing.assert_allclose(found["ours"][1, :, :, 7], [(0.8, 0.4), (0.4, 0.8)])


def test_the_table_has_areas_differences_and_shortfalls():
    rows = table(measured(ours=[[(0.9, 0.5), (0.5, 0.9)]], other=[[(0.8, 0.5), (0.5, 0.8)]]), draws=20)
    assert rows["ours"]["area"]["value"] == pytest.approx(0.65) and rows["ours"]["behind"]["value"] == 0
    assert rows["other"]["area"]["value"] == pytest.approx(0.55) and rows["other"]["behind"]["value"] == pytest.approx(
        0.1
    )
    assert rows["other"]["shortfall"]["value"] == pytest.approx(0.0, abs=1e-9), "the corners of both are level"
    assert rows["other"]["behind"]["low"] == pytest.approx(0.1), "all people alike: no interval"


def test_the_interval_contains_the_variance_between_trainings():
    rows = table(measured(ours=[[(0.5, 0.5)], [(1.0, 1.0)]], other=[[(0.9, 0.9)]]), draws=200)
    assert rows["ours"]["area"]["value"] == pytest.approx(0.625)
    assert (rows["ours"]["area"]["low"], rows["ours"]["area"]["high"]) == pytest.approx((0.25, 1.0))
    assert rows["other"]["area"]["low"] == pytest.approx(0.81) == rows["other"]["area"]["high"]


def test_the_interval_contains_the_variance_between_people():
    result = measured(ours=[[(1.0, 1.0)]])
    result["rows"][0]["points"][0]["found"] = [10] * 20 + [0] * 20
    area = table(result)["ours"]["area"]
    assert area["value"] == pytest.approx(0.5)
    spread = 1.96 * np.sqrt(0.25 / 40)
    assert (area["low"], area["high"]) == pytest.approx((0.5 - spread, 0.5 + spread), abs=0.04)


def test_the_table_is_said_in_a_line_for_each_variant():
    said = fronts.say(measured(ours=[[(0.9, 0.5)]], other=[[(0.8, 0.5)]]))
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["ours", "other"]
    assert "0.400 [0.400, 0.400]" in said and "0.050 [0.050, 0.050]" in said
