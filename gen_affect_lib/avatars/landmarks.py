"""The five landmarks and the box of a drawn face: the ground truth for detectors.

In photographs, annotators mark the landmarks. In a drawing, they follow from the positions of the features
(`geometry.py`, `face.py`) and from the turn, tilt and zoom in `drawing.draw`.
"""

from __future__ import annotations

import math

import numpy as np
import skia

from gen_affect_lib.avatars.drawing import DRAWING, MAX_TILT, NECK, Avatar
from gen_affect_lib.avatars.geometry import EYE_Y, MOUTH_Y, ZOOM, ZOOM_X, ZOOM_Y, Geometry
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.keys import Producer

LANDMARKS = Producer("landmarks", 1, uses=(DRAWING,))  # landmarks and boxes

# Left and right as seen in the picture.
NAMES = ("left eye", "right eye", "nose tip", "left mouth corner", "right mouth corner")


def landmarks(avatar: Avatar) -> np.ndarray:
    """The landmarks in insightface's order (`NAMES`): float32 (5, 2), x and y as fractions of the picture."""
    g = Geometry.of(avatar.identity, avatar.expression)
    e = avatar.expression
    eye_y = EYE_Y - 0.008 * avatar.identity.eye_tilt  # half-way between the inner and the outer corner
    half, corner_y = _mouth(g)
    points = np.array(
        [
            (0.5 - g.eye_dx, eye_y),
            (0.5 + g.eye_dx, eye_y),
            (0.5 + 0.45 * g.turn_x, g.nose_y - 0.012 * e.au9),
            (0.5 - half, corner_y),
            (0.5 + half, corner_y),
        ]
    )
    return _in_picture(points + (g.turn_x, g.turn_y), avatar).astype(np.float32)


def face_box(avatar: Avatar) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1) around the outline of the head, as fractions of the picture.

    It reaches from the crown to the chin, without ears and hair, so it does not depend on the hair style.
    """
    g = Geometry.of(avatar.identity, avatar.expression)
    outline = g.outline(Pen)
    points = np.array([tuple(point) for point in _along(outline)])
    points = _in_picture(points, avatar)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _mouth(g: Geometry) -> tuple[float, float]:
    """Half the width of the mouth and the y of its corners, as in `face.mouth`."""
    e = g.expression
    half = g.mouth_half * (1 + 0.34 * e.au12 + 0.40 * e.au20 - 0.26 * e.au24 + 0.10 * e.au14 - 0.14 * e.au26)
    y = MOUTH_Y + 0.016 * e.au26
    return half, y - 0.048 * e.au12 + 0.046 * e.au15 - 0.006 * e.au14 + 0.006 * e.au20


def _along(path: skia.Path, steps: int = 64):
    """Points at equal distances along a path; its control points may lie outside it."""
    measure = skia.PathMeasure(path, False)
    for k in range(steps):
        yield measure.getPosTan(measure.getLength() * k / steps)[0]


def _in_picture(points: np.ndarray, avatar: Avatar) -> np.ndarray:
    """Points (M, 2) from the frame of the head to the picture: tilted about the neck, then zoomed."""
    angle = math.radians(avatar.appearance.head_tilt * MAX_TILT)
    turn = np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )  # clockwise, for row vectors
    tilted = (points - NECK) @ turn + NECK
    return (tilted - (ZOOM_X, ZOOM_Y)) * ZOOM + (ZOOM_X, ZOOM_Y)
