"""Few steps: each sampler draws the same pictures once, and is compared with twenty Euler steps person by person."""

import json

import numpy as np
import pytest

from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import few_steps
from gen_affect_lib.evaluation.studies.few_steps import BAR, SAMPLERS, Sampler, compare_few_steps, table
from gen_affect_lib.flow import sample, schedule


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_evaluations_of_a_sampler_are_those_that_it_makes(name):
    import torch

    sampler, calls = SAMPLERS[name], []

    def velocity(x, sigma):
        calls.append(sigma)
        return x

    sample(velocity, torch.ones(1, 2), schedule(sampler.steps, sampler.shift), sampler.method)
    assert len(calls) == sampler.evaluations


def test_the_bar_has_twenty_steps_and_every_other_sampler_fewer_evaluations():
    assert SAMPLERS[BAR] == Sampler(20)
    assert all(sampler.evaluations < 20 for name, sampler in SAMPLERS.items() if name != BAR)


def test_each_sampler_draws_once_and_rows_tell_of_each_person(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "GALLERY", 20)
    monkeypatch.setattr(few_steps, "BAR", "euler_2")
    plan, path = Plan(people=2, words=2, seeds=1), tmp_path / "rows.json"
    result = compare_few_steps(plan, ["heun_2"], path)
    assert json.loads(path.read_text()) == result
    euler, heun = result["rows"]
    assert (euler["name"], heun["name"]) == ("euler_2", "heun_2"), "the bar is always there"
    assert (euler["evaluations"], heun["evaluations"]) == (2, 3)
    for row in (euler, heun):
        assert sum(row["people"]["right"]) >= 3 and sum(row["people"]["found"]) >= 3, "of 4 pictures"
        assert all(0.01 < face < 0.09 for face in row["people"]["face"])
        assert all(0.01 < edges < 0.1 for edges in row["people"]["edges"])
    monkeypatch.setattr(few_steps, "generate", lambda *_, **__: pytest.fail("drawn again"))
    assert compare_few_steps(plan, ["heun_2"], path) == result


def test_the_table_compares_with_the_bar_on_the_same_people():
    rng = np.random.default_rng(0)
    faces = rng.uniform(0.03, 0.08, 30)
    people = [
        dict(name=BAR, people=dict(right=[10] * 30, found=[8] * 30, face=faces.tolist(), edges=[0.05] * 30)),
        dict(
            name="euler_4",
            people=dict(right=[9] * 30, found=[8] * 30, face=(faces + 0.002).tolist(), edges=[0.04] * 30),
        ),
    ]
    rows = table(dict(plan=dict(people=30), words=["w"] * 10, rows=people))
    four = rows["euler_4"]
    assert four["right"]["value"] == pytest.approx(0.9) and four["to_bar_right"]["value"] == pytest.approx(-0.1)
    assert four["to_bar_found"]["value"] == 0 and rows[BAR]["to_bar_face"]["value"] == 0
    assert four["to_bar_face"]["low"] == pytest.approx(0.002) == four["to_bar_face"]["high"], "paired: no spread"
    assert four["face"]["high"] - four["face"]["low"] > 0.005


def test_what_is_said_has_the_figures_and_the_differences():
    people = [
        dict(name=name, people=dict(right=[right] * 4, found=[5] * 4, face=[face] * 4, edges=[0.05] * 4))
        for name, right, face in ((BAR, 10, 0.05), ("euler_4", 9, 0.052))
    ]
    said = few_steps.say(dict(plan=dict(people=4), words=["w"] * 10, rows=people)).splitlines()
    assert "right 0.9000 (-0.1000), found 0.5000 (+0.0000), face 0.0520 (+0.0020), edges 0.0500 (+0.0000)" in said[1]
