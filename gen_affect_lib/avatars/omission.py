"""Drawings without one small thing. The difference to the whole drawing shows where the thing is, and how strong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import skia

from gen_affect_lib.avatars import face
from gen_affect_lib.avatars.colors import Color
from gen_affect_lib.avatars.drawing import FACE, Avatar, draw, painted
from gen_affect_lib.avatars.geometry import Geometry
from gen_affect_lib.avatars.pen import Pen

THINGS = ("freckles", "frames", "curls", "folds", "earrings")


class WithoutLines(Pen):
    """A pen that omits the lines of one colour. In the shade of the hair these are strands and the rings of curls."""

    def __init__(self, canvas: skia.Canvas, color: Color):
        super().__init__(canvas)
        self.color = color

    def stroke(self, path, color, width, alpha=1.0):
        if color != self.color:
            super().stroke(path, color, width, alpha)

    def ring(self, x, y, radius, color, width, alpha=1.0):
        if color != self.color:
            super().ring(x, y, radius, color, width, alpha)


def without(avatar: Avatar, thing: str, size: int) -> np.ndarray:
    """The picture uint8 (size, size, 3) of an avatar without one of THINGS. Raises ValueError for another thing."""
    identity, expression, appearance = avatar.identity, avatar.expression, avatar.appearance
    if thing == "freckles":
        return replace(avatar, identity=replace(identity, freckles="none")).render(size)
    if thing == "frames":
        return replace(avatar, identity=replace(identity, glasses="none")).render(size)
    if thing == "earrings":
        return replace(avatar, appearance=replace(appearance, earrings="none")).render(size)
    if thing not in THINGS:
        raise ValueError(f"there is no thing {thing!r}: give one of {', '.join(THINGS)}")

    def paint(canvas: skia.Canvas) -> None:
        if thing == "folds":
            draw(Pen(canvas), identity, expression, appearance, [part for part in FACE if part is not face.folds])
        else:
            shade = Geometry.of(identity, expression).colors["hair_shade"]
            draw(WithoutLines(canvas, shade), identity, expression, appearance)

    return np.ascontiguousarray(painted(size, paint)[:, :, :3])
