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
