"""What notebook 01 builds by hand does what the library does."""

import numpy as np
import pytest

from gen_affect_lib import avatars
from gen_affect_lib.avatars import ACTION_UNITS, EMOTIONS, Appearance, Avatar, Identity, geometry
from gen_affect_lib.errors import UserError

SIZE = 512
BUILT = ("Expression", "mouth_line", "in_picture", "change_map")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("01_avatar_world", BUILT, np=np, ACTION_UNITS=ACTION_UNITS, geometry=geometry)


def same(ours, theirs) -> bool:
    return np.array_equal(ours.to_vector(), theirs.to_vector()) and ours.to_vector().dtype == np.float32


# --- the expression --------------------------------------------------------------------------------------------------


def test_names_and_size_are_the_librarys(by_hand):
    assert by_hand["Expression"].NAMES == avatars.Expression.NAMES
    assert by_hand["Expression"].VECTOR_SIZE == avatars.Expression.VECTOR_SIZE


@pytest.mark.parametrize("word", EMOTIONS[::9])
def test_the_same_values_give_the_same_vector(by_hand, word):
    theirs = avatars.Expression.named(word)
    ours = by_hand["Expression"](**{name: getattr(theirs, name) for name in theirs.NAMES})
    assert same(ours, theirs)


def test_any_vector_decodes_alike_and_is_clipped_alike(by_hand):
    for vector in np.random.default_rng(0).normal(0, 1, (50, 21)):
        assert same(by_hand["Expression"].from_vector(vector), avatars.Expression.from_vector(vector))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_half_way_is_the_same_place(by_hand, t):
    a, b = avatars.Expression.named("joy"), avatars.Expression.named("terror")
    ours_a, ours_b = (by_hand["Expression"].from_vector(one.to_vector()) for one in (a, b))
    assert np.allclose(ours_a.interpolate(ours_b, t).to_vector(), a.interpolate(b, t).to_vector(), atol=1e-7)


@pytest.mark.parametrize("values", [{"au12": 1.5}, {"au4": -0.1}, {"gaze_x": -2.0}, {"head_yaw": float("nan")}])
def test_what_the_library_refuses_is_refused_by_hand(by_hand, values):
    with pytest.raises(UserError):
        avatars.Expression(**values)
    with pytest.raises(ValueError, match=next(iter(values))):
        by_hand["Expression"](**values)


def test_an_unknown_unit_and_a_wrong_shape_are_refused(by_hand):
    with pytest.raises(ValueError, match="au99"):
        by_hand["Expression"](au99=0.5)
    with pytest.raises(ValueError, match=r"\(20,\)"):
        by_hand["Expression"].from_vector(np.zeros(20))


# --- the mouth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "units", [{}, {"au12": 1.0}, {"au12": 0.5}, {"au15": 1.0}, {"au20": 1.0}, {"au15": 1.0, "au20": 1.0}]
)
@pytest.mark.parametrize("seed", [1_000_022, 1_000_025, 1_000_059])
def test_the_curve_by_hand_lies_on_the_line_that_the_library_draws(by_hand, units, seed):
    identity, expression = Identity.sample(seed), avatars.Expression(**units)
    face = geometry.Geometry.of(identity, expression)
    points = by_hand["in_picture"](by_hand["mouth_line"](**units, resting=face.mouth_half, count=41))
    pixels = Avatar(identity, expression, Appearance()).render(SIZE)
    line, lips = np.array(face.colors["line"]), np.array(face.colors["lips"])
    dark = np.abs(pixels / 255 - line).max(axis=2) < 0.3 * np.abs(line - lips).max()  # (SIZE, SIZE)
    off = []
    for x, y in points[2:-2] * SIZE:  # the ends may be covered by a fold beside the corner
        top = int(y) - 12
        rows = np.flatnonzero(dark[top : top + 25, int(x)])
        assert len(rows), "no line within 12 pixels"
        off.append(abs(top + rows.mean() + 0.5 - y))
    assert np.mean(off) < 0.7 and np.max(off) < 2.0, (
        f"off by {np.mean(off):.2f} pixels of {SIZE}, at most {np.max(off):.2f}"
    )


def test_a_curve_for_other_units_would_miss_it(by_hand):
    smile = by_hand["mouth_line"](au12=1.0)
    for other in ({}, {"au15": 1.0}, {"au12": 0.5}):
        assert np.abs(by_hand["mouth_line"](**other) - smile).max() > 0.02  # the line is 0.013 wide


# --- the map of changes ----------------------------------------------------------------------------------------------


def test_the_map_is_red_where_something_changed_and_nowhere_else(by_hand):
    before = np.full((8, 8, 3), 120, np.uint8)
    after = before.copy()
    after[2:4, 2:4] = 255
    red = by_hand["change_map"](before, after).astype(int)
    reddish = red[..., 0] - red[..., 1] > 60
    assert reddish[2:4, 2:4].all() and reddish.sum() == 4
