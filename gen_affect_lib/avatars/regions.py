"""Typical regions of the face in a portrait, for crops, weights of losses and the choice of tokens.

Coordinates are fractions of the picture, x to the right and y down. `landmarks.py` computes the position of the face of
a given avatar.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.emotions import EMOTIONS
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.geometry import ZOOM, ZOOM_X, ZOOM_Y
from gen_affect_lib.avatars.landmarks import landmarks

# x0, y0, x1, y1: brows to mouth at any turn and tilt, the input of the expression encoder.
EXPRESSION_CROP = (12 / 64, 15 / 64, 52 / 64, 55 / 64)
# The inside of the face, without background and clothes, for comparisons of pictures by their pixels.
INNER_FACE = (0.27, 0.27, 0.73, 0.85)
# Centre and half extents of the region of brows, eyes and mouth, in which errors have a higher weight in a loss.
FACE_CENTER, FACE_EXTENT = (0.5, 0.53), (0.24, 0.26)
# In a portrait, y of the crown and of the chin are in these ranges, and typically at these values.
PORTRAIT_TOP, PORTRAIT_BOTTOM = (0.06, 0.26), (0.74, 0.94)
TYPICAL_TOP, TYPICAL_BOTTOM = 0.16, 0.84

# x0, y0, x1, y1 in the frame of the head: the region that each action unit changes on an average face, looking ahead.
UNIT_BOXES = {
    1: (0.27, 0.25, 0.73, 0.44), 2: (0.27, 0.25, 0.73, 0.44), 4: (0.27, 0.31, 0.73, 0.46), 5: (0.29, 0.39, 0.71, 0.54),
    6: (0.25, 0.42, 0.75, 0.62), 7: (0.29, 0.42, 0.71, 0.55), 9: (0.40, 0.44, 0.60, 0.64), 10: (0.35, 0.57, 0.65, 0.76),
    12: (0.33, 0.57, 0.67, 0.78), 14: (0.33, 0.64, 0.67, 0.76), 15: (0.36, 0.62, 0.64, 0.79),
    17: (0.39, 0.63, 0.61, 0.85), 20: (0.34, 0.64, 0.66, 0.76), 24: (0.37, 0.64, 0.63, 0.77),
    25: (0.37, 0.63, 0.63, 0.79), 26: (0.26, 0.55, 0.74, 0.91), 43: (0.28, 0.41, 0.72, 0.54),
}  # fmt: skip


def pixel_box(box: tuple[float, float, float, float], size: int) -> tuple[int, int, int, int]:
    """A box in pixels of a picture of `size` pixels a side: x0, y0, x1, y1, with x1 and y1 exclusive."""
    x0, y0, x1, y1 = (round(size * edge) for edge in box)
    return x0, y0, x1, y1


def unit_box(unit: int, size: int) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1) in which an action unit shows, x1 and y1 exclusive."""
    x0, y0, x1, y1 = UNIT_BOXES[unit]
    left, right = (ZOOM_X + ZOOM * (x - ZOOM_X) for x in (x0, x1))
    top, bottom = (ZOOM_Y + ZOOM * (y - ZOOM_Y) for y in (y0, y1))
    return pixel_box((left, top, right, bottom), size)


def is_portrait(top: float, bottom: float) -> bool:
    """Whether a head that reaches from `top` to `bottom` (y, fractions of the picture) is as large as in a portrait."""
    return PORTRAIT_TOP[0] < top < PORTRAIT_TOP[1] and PORTRAIT_BOTTOM[0] < bottom < PORTRAIT_BOTTOM[1]


def face_weight(size: int, strength: float = 3.0) -> Tensor:
    """The weight of each pixel in a loss, (1, 1, S, S), mean 1: 1 + `strength` times as high on brows, eyes and mouth.

    In an unweighted mean over pixels the background dominates; expressions on dark skin are then lost first.
    """
    y, x = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    (center_x, center_y), (extent_x, extent_y) = FACE_CENTER, FACE_EXTENT
    inside = torch.exp(-(((x - center_x) / extent_x) ** 4) - ((y - center_y) / extent_y) ** 4)
    weight = 1 + strength * inside
    return (weight / weight.mean())[None, None]


@cache
def face_tokens(side: int) -> Tensor:
    """Which of side × side image tokens cover brows, eyes or mouth: bool (side, side).

    Taken from the landmarks of 100 avatars with different expressions and tilts, with a margin that reaches from the
    brow above the eyes to the lip below the mouth, and mirrored.
    """
    inside = np.zeros((side, side), bool)
    for seed in range(100):
        avatar = Avatar(Identity.sample(seed), Expression.named(EMOTIONS[seed]), Appearance.sample(seed))
        left_eye, right_eye, _, left_mouth, right_mouth = landmarks(avatar)
        for left, right, reach in ((left_eye, right_eye, 0.05), (left_mouth, right_mouth, 0.02)):
            for across in np.linspace(0, 1, 2 * side + 1):
                for down in (-1.5 * reach, 0, reach):
                    x, y = left + across * (right - left) + (0, down)
                    inside[int(y * side), int(x * side)] = True
    return torch.from_numpy(inside | inside[:, ::-1])
