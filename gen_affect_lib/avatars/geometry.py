"""The positions and sizes of the parts of one face, from the identity and the action units.

Coordinates are fractions of the picture in the frame of the head, before its turn and tilt; y points down.
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
ZOOM, ZOOM_X, ZOOM_Y = 1.08, 0.5, 0.62  # the figure is enlarged about this point


@dataclass(frozen=True)
class Geometry:
    """Positions and sizes that several parts of the drawing use, as fractions of the picture."""

    identity: Identity
    expression: Expression
    colors: dict[str, Color]
    half_width: float  # of the head at the temples
    jaw: float  # half the width of the jaw
    chin_y: float
    chin_half: float
    turn_x: float  # the shift of the features by a turn of the head
    turn_y: float
    eye_dx: float  # from the centre line to the centre of an eye
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
        """The closed outline of the head, widened by `grow` on all sides."""
        w, jaw, chin = self.half_width + grow, self.jaw + grow, self.chin_y + grow
        jaw_y = 0.685 + 0.3 * (self.chin_y - 0.80)
        top = TOP - grow

        def mirrored(side):
            return lambda x, y: (0.5 + side * x, y)

        right, left = mirrored(1), mirrored(-1)
        return pen.curve(
            right(0, top),
            (right(0.60 * w, top), right(w, top + 0.085), right(w, 0.44)),
            (right(w, 0.56), right(jaw + 0.012, 0.61), right(0.93 * jaw, jaw_y)),
            (right(0.78 * jaw, chin - 0.035), right(self.chin_half, chin), right(0, chin)),
            (left(self.chin_half, chin), left(0.78 * jaw, chin - 0.035), left(0.93 * jaw, jaw_y)),
            (left(jaw + 0.012, 0.61), left(w, 0.56), left(w, 0.44)),
            (left(w, top + 0.085), left(0.60 * w, top), left(0, top)),
            close=True,
        )
