"""The project of a new action unit: answers of known quality get few or many points, and wrong ones one clear line."""

from dataclasses import replace

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance, face
from gen_affect_lib.avatars.drawing import FACE
from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.course.projects import action_unit
from gen_affect_lib.course.projects.action_unit import BASELINE, NewUnit, change, check, mixture, only, person, score
from gen_affect_lib.course.projects.report import AUTOMATIC
from gen_affect_lib.errors import UserError

MOUTH = BASELINE.region


def puffed(intensity):
    """AU33: round cheeks with a fold around each."""

    def cheeks(pen, g):
        for side in (-1, 1):
            x, y, wide, high = 0.5 + side * (0.62 * g.jaw + 0.012), 0.655, 0.060, 0.070
            pen.ellipse(x, y, wide * intensity, high * intensity, g.colors["light"], 0.8 * intensity)
            arc = pen.curve(
                (x - 0.3 * side * wide, y - high),
                ((x - 1.15 * side * wide, y - 0.4 * high), (x - 0.95 * side * wide, y + 0.3 * high)),
                ((x - 0.7 * side * wide, y + high), (x + 0.2 * side * wide, y + high)),
            )
            pen.stroke(arc, g.colors["fold"], 0.004 + 0.010 * intensity, intensity)

    at = FACE.index(face.mouth)
    return [*FACE[:at], cheeks, *FACE[at:]] if intensity else FACE


GOOD = NewUnit("AU33 cheek puff", puffed, (0.26, 0.55, 0.74, 0.77))
NOTHING = NewUnit("nothing", lambda intensity: FACE, MOUTH)
JUMP = NewUnit("a jump", lambda intensity: action_unit.squeezed(float(intensity > 0.5)), MOUTH)


@pytest.fixture(scope="module")
def reports():
    return {unit.name: score(unit, "smoke") for unit in (GOOD, BASELINE, NOTHING, JUMP)}


def points(report, start):
    (criterion,) = [one for one in report.criteria if one.name.startswith(start)]
    return criterion.points / criterion.of


def test_a_report_has_all_points(reports):
    assert reports[GOOD.name].of == AUTOMATIC


def test_a_distinct_unit_gets_many_points_the_baseline_few_and_nothing_the_fewest(reports):
    good, same, nothing = (reports[unit.name].points for unit in (GOOD, BASELINE, NOTHING))
    assert good > 45 and 12 < same < 25 and nothing < 10


def test_the_baseline_is_equal_to_itself(reports):
    numbers = reports[BASELINE.name].figures["numbers"]
    assert numbers["r, difference"]["value"] == 0 and numbers["told apart, difference"]["value"] == 0


def test_a_jump_loses_the_points_of_smooth_growth(reports):
    assert points(reports[BASELINE.name], "no jump") > 0.9 and points(reports[BASELINE.name], "every step") > 0.9
    assert points(reports[JUMP.name], "no jump") == 0 and points(reports[JUMP.name], "every step") == 0


def test_a_unit_outside_its_region_loses_points():
    world, baseline = action_unit._measured_baseline(action_unit.FIRST_SEED["validation"], SMALL)
    elsewhere = action_unit.Measured.of(replace(BASELINE, region=(0.3, 0.2, 0.7, 0.4)), world, baseline.without)
    assert elsewhere.inside.max() < 0.05 < 0.95 < baseline.inside.min()


SMALL = action_unit.Sizes(40, 20, 3)


def pasted(intensity):
    return [*FACE, lambda pen, g: pen.ellipse(0.5, 0.69, 0.17, 0.10, g.colors["skin"], intensity)]


def test_a_mouth_that_is_painted_over_gets_fewer_points_than_the_baseline(reports):
    hidden = score(NewUnit("paste", pasted, (0.32, 0.58, 0.68, 0.80)), "smoke")
    assert hidden.figures["numbers"]["told apart, difference"]["value"] > 0.2
    assert points(hidden, "told apart") == 0 and "hide each other" in str(hidden)
    assert hidden.points < reports[BASELINE.name].points


def test_a_drawing_over_the_mouth_hides_the_other_units():
    world, baseline = action_unit._measured_baseline(action_unit.FIRST_SEED["validation"], SMALL)
    hidden = action_unit.Measured.of(NewUnit("paste", pasted, MOUTH), world, baseline.without)
    assert hidden.together.mean(axis=0).min() < 0.3 < 0.5 < baseline.together.mean(axis=0).min()


def test_nothing_changes_at_0_and_the_picture_is_the_kits():
    avatar = mixture(3)[0]
    np.testing.assert_array_equal(GOOD.render(avatar, 0.0, 64), avatar.render(64))
    assert change(GOOD.render(avatar, 1.0, 64), avatar.render(64)) > 0


def test_the_region_is_where_the_kit_draws_it():
    """An ellipse that fills the region in the frame of the head covers just these pixels."""
    x0, y0, x1, y1 = region = (0.4, 0.6, 0.6, 0.7)
    unit = NewUnit("box", lambda t: [*FACE, lambda pen, g: pen.rect(x0, y0, x1, y1, (0, 0, 1), t)], region)
    changed = (unit.render(person(4), 1.0, 100) != person(4).render(100)).any(axis=2)
    assert changed[unit.inside(100)].all() and changed.sum() < 1.2 * unit.inside(100).sum()


def test_mixtures_are_the_same_each_time_and_half_have_the_unit():
    assert mixture(5) == mixture(5)
    shown = [mixture(seed)[1] > 0 for seed in range(200)]
    assert 0.35 < np.mean(shown) < 0.65


def test_only_sets_one_unit():
    assert only(person(1), 12).expression == Expression(au12=1.0) and person(1).appearance == Appearance()


@pytest.mark.parametrize(
    "region, says",
    [
        ((0.1, 0.2, 0.3), "four numbers"),
        ((0.1, 0.1, 0.9, 0.9), "covers"),
        ((0.5, 0.6, 0.4, 0.7), "give x0 < x1"),
        ((0, 0, 1.2, 0.1), "between 0 and 1"),
    ],
)
def test_a_region_that_is_none_is_refused(region, says):
    with pytest.raises(UserError, match=says):
        NewUnit("x", puffed, region)


def test_wrong_answers_and_arguments_give_one_line():
    with pytest.raises(UserError, match="give a NewUnit"):
        score(puffed, "smoke")
    with pytest.raises(UserError, match="smoke, laptop or gpu"):
        score(GOOD, "huge")
    with pytest.raises(UserError, match="from 0 to 1"):
        GOOD.render(person(1), 1.5)


def test_the_quick_check_says_what_is_wrong():
    assert check(GOOD).startswith("nothing is wrong")
    assert "nothing has changed" in check(NOTHING)
    assert "does not grow at intensity 0.125" in check(JUMP)
    assert "not the kit's" in check(NewUnit("always", lambda t: action_unit.squeezed(0.5 + t / 2), MOUTH))
    bearded = NewUnit(
        "bearded", lambda t: [lambda pen, g: pen.ellipse(0.5, 0.775, 0.02, 0.01, (0, 0, 1), t), *FACE], MOUTH
    )
    assert "people: does a beard" in check(bearded)
    assert "of the change lies in the region" in check(replace(GOOD, region=(0.3, 0.2, 0.7, 0.4)))
    with pytest.raises(UserError, match="cannot be drawn: ZeroDivisionError"):
        check(NewUnit("broken", lambda t: [lambda pen, g: 1 / 0], MOUTH))
    with pytest.raises(UserError, match="return a list of parts"):
        check(NewUnit("no return", lambda t: None, MOUTH))


def test_an_error_in_a_drawing_is_one_line():
    named = NewUnit("named", lambda t: [*FACE, lambda pen, g: pen.line(0.4, 0.5, 0.6, 0.5, "black", 0.01, t)], MOUTH)
    with pytest.raises(UserError, match="cannot be drawn: TypeError") as raised:
        check(named)
    assert "\n" not in str(raised.value)


def test_a_spot_gets_as_many_points_as_a_movement():
    """The README tells the person who grades that the report cannot see this."""

    def spotted(intensity):
        def spot(pen, g):
            color = (0.02, 0.02, 0.02) if g.identity.skin < 0.55 else (0.95, 0.95, 0.95)
            pen.ellipse(0.62, 0.62, 0.03, 0.03, color, intensity)

        return [*FACE, spot]

    assert score(NewUnit("a spot", spotted, (0.5, 0.5, 0.75, 0.75)), "smoke").points > 45
