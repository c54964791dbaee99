"""Landmarks and boxes lie where the drawing shows the features, whatever the face does."""

from dataclasses import replace

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.landmarks import face_box, landmarks

SIZE = 256
MOVED = Expression(head_yaw=0.8, head_pitch=-0.7, au20=0.6, au26=0.4)


def changed(avatar: Avatar, **factors) -> np.ndarray:
    """Where (x, y in fractions) the picture changes when factors of the identity do."""
    other = replace(avatar, identity=replace(avatar.identity, **factors))
    y, x = np.nonzero(np.any(avatar.render(SIZE) != other.render(SIZE), axis=2))
    return (np.stack([x, y], axis=1) + 0.5) / SIZE


@pytest.fixture(params=[(Expression(), 0.0), (MOVED, 1.0), (replace(MOVED, head_yaw=-1.0), -1.0)])
def avatar(request) -> Avatar:
    expression, tilt = request.param
    identity = Identity(hair_style="buzz", facial_hair="none", glasses="none", mouth_width=0.7, eye_color="brown")
    return Avatar(identity, expression, Appearance(head_tilt=tilt, earrings="none"))


def test_eyes_lie_where_their_color_shows(avatar):
    places = changed(avatar, eye_color="blue")
    points = landmarks(avatar)
    for eye in points[:2]:
        near = places[np.linalg.norm(places - eye, axis=1) < 0.1]
        middle = (near.min(axis=0) + near.max(axis=0)) / 2
        assert np.linalg.norm(middle - eye) < 0.015
    assert points[0, 0] < points[1, 0]


def test_the_nose_lies_where_its_width_shows(avatar):
    places = changed(avatar, nose_width=0.9)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    assert np.linalg.norm(middle - landmarks(avatar)[2]) < 0.03


def test_the_mouth_ends_at_its_corners(avatar):
    """Fuller lips change pixels between the corners of the mouth, and none beyond them."""
    places = changed(avatar, lip_fullness=1.0)
    left, right = landmarks(avatar)[3:]
    assert abs(places[:, 0].min() - left[0]) < 0.03 and abs(places[:, 0].max() - right[0]) < 0.03
    assert left[0] < landmarks(avatar)[2, 0] < right[0]


def test_expression_moves_the_corners():
    def corners(**units):
        return landmarks(Avatar(expression=Expression(**units)))[3:]

    still = corners()
    assert (corners(au12=1.0)[:, 1] < still[:, 1]).all() and (corners(au15=1.0)[:, 1] > still[:, 1]).all()
    assert np.ptp(corners(au20=1.0)[:, 0]) > np.ptp(still[:, 0]) > np.ptp(corners(au24=1.0)[:, 0])


def test_the_box_holds_the_landmarks_and_falls_with_the_jaw(avatar):
    x0, y0, x1, y1 = face_box(avatar)
    points = landmarks(avatar)
    assert (points > (x0, y0)).all() and (points < (x1, y1)).all()
    open_mouth = replace(avatar, expression=replace(avatar.expression, au26=1.0))
    assert face_box(open_mouth)[3] > y1


def test_hair_does_not_change_the_box():
    boxes = {face_box(Avatar(Identity(hair_style=style))) for style in ("bald", "afro", "turban", "long")}
    assert len(boxes) == 1


def test_the_box_is_as_wide_as_the_head():
    """Straight and tilted: the skin of a bald head ends at the box."""
    for tilt in (0.0, 1.0):
        look = Appearance(head_tilt=tilt, earrings="none")
        avatar = Avatar(Identity(hair_style="bald", ear_size=0.0), Expression(), look)
        wider = replace(avatar, identity=replace(avatar.identity, face_width=0.55))
        y, x = np.nonzero(np.any(avatar.render(SIZE) != wider.render(SIZE), axis=2))
        x0, y0, x1, y1 = face_box(avatar)
        brow = (y / SIZE > y0 + 0.1) & (y / SIZE < y0 + 0.2)
        assert abs(x[brow].min() / SIZE - x0) < 0.05 and abs(x[brow].max() / SIZE - x1) < 0.05
