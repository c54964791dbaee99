"""Identity, expression and appearance: drawn, checked, encoded and blended."""

import dataclasses

import numpy as np
import pytest

from gen_affect_lib.avatars import ACTION_UNITS, Appearance, Expression, Identity
from gen_affect_lib.errors import UserError

GROUPS = (Identity, Expression, Appearance)


@pytest.mark.parametrize("group", GROUPS)
def test_the_same_seed_gives_the_same_and_another_seed_another(group):
    assert group.sample(5) == group.sample(5)
    assert len({group.sample(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("group", GROUPS)
def test_a_vector_holds_everything(group):
    for seed in range(20):
        one = group.sample(seed)
        vector = one.to_vector()
        assert vector.shape == (group.VECTOR_SIZE,) and vector.dtype == np.float32
        back = group.from_vector(vector)
        np.testing.assert_allclose(back.to_vector(), vector, atol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
def test_interpolation_starts_at_one_and_ends_at_the_other(group):
    a, b = group.sample(1), group.sample(2)
    np.testing.assert_allclose(a.interpolate(b, 0).to_vector(), a.to_vector(), atol=1e-6)
    np.testing.assert_allclose(a.interpolate(b, 1).to_vector(), b.to_vector(), atol=1e-6)
    a.interpolate(b, 0.5)  # every value on the way is valid


def test_a_hue_takes_the_short_way_round():
    red, almost_red = Appearance(background_hue=0.05), Appearance(background_hue=0.95)
    assert red.interpolate(almost_red, 0.5).background_hue == pytest.approx(0.0, abs=1e-9)


def test_skin_tones_are_drawn_evenly():
    skins = np.array([Identity.sample(seed).skin for seed in range(6000)])
    counts, _ = np.histogram(skins, bins=10, range=(0, 1))
    assert counts.min() > 500 and counts.max() < 700  # 600 expected, deviation 23


def test_identity_and_appearance_of_one_seed_are_independent():
    skins = [Identity.sample(seed).skin for seed in range(500)]
    tilts = [Appearance.sample(seed).head_tilt for seed in range(500)]
    assert abs(np.corrcoef(skins, tilts)[0, 1]) < 0.15


def test_there_are_at_least_twelve_hair_styles_and_coverings():
    styles = {Identity.sample(seed).hair_style for seed in range(2000)}
    assert len(styles) >= 12


def test_an_expression_is_seventeen_units_gaze_and_head_turn():
    assert Expression.NAMES == tuple(f"au{n}" for n in ACTION_UNITS) + ("gaze_x", "gaze_y", "head_yaw", "head_pitch")
    assert Expression.VECTOR_SIZE == 21
    assert not Expression.neutral().to_vector().any()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Expression(au12=1.5), "Expression.au12 is 1.5: give a number from 0 to 1"),
        (lambda: Expression(au12=float("nan")), "Expression.au12 is nan"),
        (lambda: Identity(hair_style="mullet"), "give one of bald, buzz"),
        (lambda: Appearance(background_hue=1.0), "up to but not including 1"),
        (lambda: Identity.sample(-1), "sample is -1: give a whole number from 0 up"),
        (lambda: Identity.sample(True), "a whole number from 0 up"),
        (lambda: Expression.from_vector(np.zeros(20)), r"shape \(20,\): give \(21,\)"),
        (lambda: Expression.from_vector([np.inf] * 21), "not finite"),
        (lambda: Expression.named("hapiness"), "happiness"),
        (lambda: Identity().interpolate(Appearance(), 0.5), "cannot interpolate Identity with Appearance"),
        (lambda: Identity().interpolate(Identity(), 2), "give a number from 0"),
    ],
)
def test_mistakes_get_one_clear_line(make, says):
    with pytest.raises(UserError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_factors_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Identity().skin = 0.5
