"""Aligned views: insightface's crop to the byte, and a wider one that keeps what the crop cuts off."""

import numpy as np
import pytest
from insightface.utils import face_align

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.encoders.views import PLACES, VIEWS, aligned, similarity
from gen_affect_lib.errors import UserError

AVATAR = Avatar(Identity.sample(1_000_004), Expression.sample(3), Appearance.sample(5))
POINTS = landmarks(AVATAR) * 192


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_crop_is_insightface_s_norm_crop():
    image = AVATAR.render(192)
    theirs = face_align.norm_crop(image, POINTS, 112)
    assert np.abs(aligned(image, POINTS).astype(int) - theirs).max() <= 1


def test_a_turned_enlarged_shifted_face_is_brought_back():
    turn = 1.7 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    moved = PLACES @ turn.T + (30, -12)
    matrix = similarity(moved, PLACES)
    assert np.allclose(moved @ matrix[:, :2].T + matrix[:, 2], PLACES, atol=1e-4)


def test_the_wide_view_shows_what_the_crop_cuts_off():
    """The top of a bun, just below the picture's edge, lies outside of the crop and inside the wider view."""
    top = np.array([0.5, 0.015]) * 192
    places = {view: similarity(POINTS, VIEWS[view]) @ (*top, 1) for view in VIEWS}
    assert places["crop"][1] < 0 < 5 < places["wide"][1]


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_landmarks_that_cannot_be_aligned_are_refused(points):
    with pytest.raises(UserError, match="landmarks"):
        aligned(np.zeros((64, 64, 3), np.uint8), points)


def test_an_unknown_view_is_refused():
    with pytest.raises(UserError, match="crop, wide"):
        aligned(np.zeros((64, 64, 3), np.uint8), POINTS, "side")
