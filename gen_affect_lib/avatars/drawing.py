"""The avatar: from factors to a picture. The same factors give the same bytes.

Coordinates are fractions of the picture, y downward. The head has its own coordinate frame: a tilt rotates the frame
about the neck, and a turn or a nod shifts the features within it. `face.py` draws the parts that move with the
expression, `hair.py` hair and coverings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import skia

from gen_affect_lib.avatars import face, hair
from gen_affect_lib.avatars.colors import BLACK, EARRING, WHITE, from_hue, mix
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.geometry import ZOOM, ZOOM_X, ZOOM_Y, Geometry
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer

DRAWING = Producer("drawing", 1)  # from factors to pixels: this file, face, hair, geometry, colors and pen

MAX_TILT = 9.0  # degrees
NECK = (0.5, 0.86)


@dataclass(frozen=True)
class Avatar:
    """A face with known factors. `render` draws it; notebooks display it."""

    identity: Identity = field(default_factory=Identity)
    expression: Expression = field(default_factory=Expression)
    appearance: Appearance = field(default_factory=Appearance)

    def __post_init__(self):
        for name, kind in (("identity", Identity), ("expression", Expression), ("appearance", Appearance)):
            if not isinstance(getattr(self, name), kind):
                raise UserError(f"Avatar's {name} is a {type(getattr(self, name)).__name__}: give an {kind.__name__}")

    def render(self, size: int = 256) -> np.ndarray:
        """The picture: uint8 (size, size, 3), RGB. Raises UserError unless size is a whole number in 8 … 4096."""
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 8 <= size <= 4096:
            raise UserError(f"size {size!r} is not the side of a picture: give a whole number of pixels from 8 to 4096")
        whole = painted(size, lambda canvas: draw(Pen(canvas), self.identity, self.expression, self.appearance))
        return np.ascontiguousarray(whole[:, :, :3])

    def _repr_png_(self) -> bytes:
        opaque = np.dstack([self.render(256), np.full((256, 256), 255, np.uint8)])
        return bytes(skia.Image.fromarray(opaque).encodeToData())


def painted(size: int, paint: Callable[[skia.Canvas], None]) -> np.ndarray:
    """What `paint` draws on a transparent canvas of side 1: uint8 (size, size, 4), RGBA, colours times opacity."""
    pixels = np.zeros((size, size, 4), dtype=np.uint8)
    with skia.Surface(pixels) as canvas:
        canvas.scale(size, size)
        paint(canvas)
    return pixels


FACE = (face.marks, face.beard, face.folds, face.nose, face.mouth, face.moustache, face.eyes)  # from back to front


def draw(
    pen: Pen,
    identity: Identity,
    expression: Expression,
    appearance: Appearance,
    parts: Sequence[Callable[[Pen, Geometry], None]] = FACE,
) -> None:
    """Draw from back to front: background, back hair, body, head, face, front hair, brows, glasses, earrings.

    parts: of the face, in their order.
    """
    g = Geometry.of(identity, expression)
    tilt = (appearance.head_tilt * MAX_TILT, *NECK)
    background(pen, appearance)
    pen.zoom(ZOOM, ZOOM_X, ZOOM_Y)
    with pen.rotated(*tilt):
        hair.back(pen, g)
    body(pen, g, appearance)
    with pen.rotated(*tilt):
        head(pen, g)
        with pen.moved(g.turn_x, g.turn_y):
            for part in parts:
                part(pen, g)
        hair.front(pen, g)
        with pen.moved(g.turn_x, g.turn_y):
            face.brows(pen, g)
            face.glasses(pen, g)
        earrings(pen, g, appearance)


def background(pen: Pen, a: Appearance) -> None:
    color = from_hue(a.background_hue, 0.42 + 0.4 * a.background_lightness, 0.5)
    pen.rect(0, 0, 1, 1, color)
    if a.background_style == "halo":
        pen.ellipse(0.5, 0.47, 0.43, 0.43, mix(color, WHITE, 0.3))
    elif a.background_style == "split":
        pen.fill(pen.polygon([(0, 1), (1, 0.12), (1, 1)]), mix(color, BLACK, 0.16))


def body(pen: Pen, g: Geometry, a: Appearance) -> None:
    """Neck, shoulders and collar."""
    cloth = from_hue(a.clothes_hue, 0.22 + 0.5 * a.clothes_lightness, 0.5)
    dark, light = mix(cloth, BLACK, 0.3), mix(cloth, WHITE, 0.35)
    if a.collar == "hood":
        pen.ellipse(0.5, 0.93, 0.26, 0.11, dark)
    pen.fill(pen.polygon([(0.415, 0.70), (0.585, 0.70), (0.595, 0.95), (0.405, 0.95)]), g.colors["shade"])
    shoulders = pen.path(
        "M .40 .895 C .30 .915 .14 .93 .07 1.02 L .93 1.02 C .86 .93 .70 .915 .60 .895 C .58 .95 .42 .95 .40 .895 Z"
    )
    pen.fill(shoulders, cloth)
    if a.collar == "crew":
        pen.stroke(pen.path("M .395 .895 C .42 .958 .58 .958 .605 .895"), dark, 0.024)
    elif a.collar == "v_neck":
        pen.fill(pen.path("M .41 .89 L .5 .995 L .59 .89 Z"), g.colors["skin"])
        pen.stroke(pen.path("M .395 .893 L .5 1.0 L .605 .893"), dark, 0.022)
    elif a.collar == "shirt":
        wings = pen.path(
            "M .395 .865 L .5 .955 L .42 1.01 L .345 .915 Z M .605 .865 L .5 .955 L .58 1.01 L .655 .915 Z"
        )
        pen.fill(wings, light)
        pen.stroke(pen.path("M .5 .955 L .5 1.02"), dark, 0.012)
    elif a.collar == "turtleneck":
        tube = pen.path("M .392 .835 C .45 .855 .55 .855 .608 .835 L .615 .93 C .55 .96 .45 .96 .385 .93 Z")
        pen.fill(tube, mix(cloth, BLACK, 0.14))
        pen.stroke(pen.path("M .389 .88 C .45 .90 .55 .90 .611 .88"), dark, 0.010)
    elif a.collar == "hood":
        pen.stroke(pen.path("M .375 .90 C .36 .95 .45 .985 .5 1.0 C .55 .985 .64 .95 .625 .90"), dark, 0.034)
        for side in (-1, 1):
            pen.line(0.5 + side * 0.045, 0.965, 0.5 + side * 0.05, 1.01, light, 0.012)
    if g.identity.hair_style == "headscarf":
        hair.drape(pen, g)


def head(pen: Pen, g: Geometry) -> None:
    for side in (-1, 1):
        x = 0.5 + side * g.half_width - 0.3 * g.turn_x
        pen.ellipse(x, g.ear_y, 0.036, g.ear_half, g.colors["skin"])
        pen.ellipse(x + side * 0.006, g.ear_y, 0.016, 0.6 * g.ear_half, g.colors["shade"])
    outline = g.outline(pen)
    pen.fill(outline, g.colors["skin"])
    with pen.clipped(outline):  # a soft shadow on one side makes the head look round
        pen.ellipse(0.5 + 0.42 - g.turn_x, 0.56, 0.24, 0.42, g.colors["shade"], 0.45)


def earrings(pen: Pen, g: Geometry, a: Appearance) -> None:
    """Drawn over hair and coverings, so that they are always visible."""
    color = EARRING[a.earring_color]
    rim = mix(color, BLACK, 0.45)
    for side in (-1, 1):
        x = 0.5 + side * (g.half_width + 0.004) - 0.3 * g.turn_x
        y = g.ear_y + g.ear_half + 0.004
        if a.earrings == "stud":
            pen.ellipse(x, y, 0.020, 0.020, rim)
            pen.ellipse(x, y, 0.015, 0.015, color)
        elif a.earrings == "hoop":
            pen.ring(x, y + 0.03, 0.032, rim, 0.016)
            pen.ring(x, y + 0.03, 0.032, color, 0.010)
        elif a.earrings == "drop":
            pen.line(x, y - 0.005, x, y + 0.035, rim, 0.009)
            pen.ellipse(x, y + 0.055, 0.020, 0.028, rim)
            pen.ellipse(x, y + 0.055, 0.015, 0.022, color)
