"""Where the parts of one face lie, from the person's proportions and the action units that move them.

Coordinates are fractions of the picture, in the head's own frame, before turn and tilt; y points down.
"""

from __future__ import annotations

from dataclasses import dataclass

from gen_affect_lib.avatars.colors import Color, face_colors
from gen_affect_lib.avatars.factors import Expression, Identity

TOP = 0.195
EYE_Y = 0.475
BROW_Y = 0.385
MOUTH_Y = 0.69
EAR_Y = 0.50
ZOOM, ZOOM_X, ZOOM_Y = 1.08, 0.5, 0.62  # the whole figure is enlarged about this point

# Where each action unit shows on a face of middle proportions that looks straight ahead: x0, y0, x1, y1.
REGIONS = {
    1: (0.27, 0.25, 0.73, 0.44), 2: (0.27, 0.25, 0.73, 0.44), 4: (0.27, 0.31, 0.73, 0.46), 5: (0.29, 0.39, 0.71, 0.54),
    6: (0.25, 0.42, 0.75, 0.62), 7: (0.29, 0.42, 0.71, 0.55), 9: (0.40, 0.44, 0.60, 0.64), 10: (0.35, 0.57, 0.65, 0.76),
    12: (0.33, 0.57, 0.67, 0.78), 14: (0.33, 0.64, 0.67, 0.76), 15: (0.36, 0.62, 0.64, 0.79), 17: (0.39, 0.63, 0.61, 0.85),
    20: (0.34, 0.64, 0.66, 0.76), 24: (0.37, 0.64, 0.63, 0.77), 25: (0.37, 0.63, 0.63, 0.79), 26: (0.26, 0.55, 0.74, 0.91),
    43: (0.28, 0.41, 0.72, 0.54),
}  # fmt: skip


def region(unit: int, size: int) -> tuple[int, int, int, int]:
    """The pixels (x0, y0, x1, y1) of a picture of that side in which an action unit shows; x1 and y1 are outside."""
    x0, y0, x1, y1 = REGIONS[unit]
    zoomed = (
        ZOOM_X + ZOOM * (x0 - ZOOM_X),
        ZOOM_Y + ZOOM * (y0 - ZOOM_Y),
        ZOOM_X + ZOOM * (x1 - ZOOM_X),
        ZOOM_Y + ZOOM * (y1 - ZOOM_Y),
    )
    return tuple(round(size * place) for place in zoomed)


@dataclass(frozen=True)
class Geometry:
    """The measures that more than one part of the drawing needs."""

    identity: Identity
    expression: Expression
    colors: dict[str, Color]
    half_width: float  # of the head at the temples
    jaw: float  # half the width of the jaw
    chin_y: float
    chin_half: float
    turn_x: float  # how far a turn of the head shifts the features
    turn_y: float
    eye_dx: float  # from the middle to an eye
    eye_half: float
    eye_height: float
    nose_y: float
    mouth_half: float
    ear_y: float
    ear_half: float

    @classmethod
    def of(cls, identity: Identity, expression: Expression) -> Geometry:
        i, e = identity, expression
        half_width = 0.215 + 0.035 * i.face_width
        return cls(
            identity=i,
            expression=e,
            colors=face_colors(i.skin, i.hair_color),
            half_width=half_width,
            jaw=half_width * (0.70 + 0.24 * i.jaw_width),
            chin_y=0.80 + 0.035 * i.chin + 0.042 * e.au26,
            chin_half=0.055 + 0.07 * i.jaw_width,
            turn_x=0.040 * e.head_yaw,
            turn_y=-0.030 * e.head_pitch,
            eye_dx=0.101 + 0.022 * i.eye_spacing,
            eye_half=0.066 + 0.014 * i.eye_size,
            eye_height=0.048 + 0.016 * i.eye_size,
            nose_y=0.575 + 0.03 * i.nose_length,
            mouth_half=0.082 + 0.03 * i.mouth_width,
            ear_y=EAR_Y,
            ear_half=0.048 + 0.020 * i.ear_size,
        )

    def outline(self, pen, grow: float = 0.0):
        """The head's outline, closed; `grow` widens it all round."""
        w, jaw, chin = self.half_width + grow, self.jaw + grow, self.chin_y + grow
        jaw_y = 0.685 + 0.3 * (self.chin_y - 0.80)
        top = TOP - grow

        def mirrored(side):
            return lambda x, y: (0.5 + side * x, y)

        r, l = mirrored(1), mirrored(-1)
        return pen.curve(
            r(0, top),
            (r(0.60 * w, top), r(w, top + 0.085), r(w, 0.44)),
            (r(w, 0.56), r(jaw + 0.012, 0.61), r(0.93 * jaw, jaw_y)),
            (r(0.78 * jaw, chin - 0.035), r(self.chin_half, chin), r(0, chin)),
            (l(self.chin_half, chin), l(0.78 * jaw, chin - 0.035), l(0.93 * jaw, jaw_y)),
            (l(jaw + 0.012, 0.61), l(w, 0.56), l(w, 0.44)),
            (l(w, top + 0.085), l(0.60 * w, top), l(0, top)),
            close=True,
        )
