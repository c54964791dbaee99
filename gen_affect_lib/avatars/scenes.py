"""Training data for the face detector: pictures with several faces on a cluttered background, and their ground truth.

About a third of the scenes are portraits at several distances. The others have one to six figures of many sizes in
front of random shapes, some in the colours of skin and hair, and of decoys: shoulders without a head, pairs of dots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import skia

from gen_affect_lib.avatars.colors import face_colors
from gen_affect_lib.avatars.drawing import DRAWING, Avatar, body, draw
from gen_affect_lib.avatars.factors import FACTORS, Appearance, Expression, Identity
from gen_affect_lib.avatars.geometry import Geometry
from gen_affect_lib.avatars.landmarks import LANDMARKS, face_box, landmarks
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.keys import Producer

SCENES = Producer("scenes", 1, uses=(FACTORS, DRAWING, LANDMARKS))

PORTRAITS = 0.35  # fraction of the scenes
MOST = 6  # figures in a scene
HAIR = ("black", "dark_brown", "brown", "auburn", "ginger", "blond", "grey", "white")


@dataclass(frozen=True)
class Scene:
    """One picture with F faces.

    Attributes:
        image: uint8 (S, S, 3), RGB.
        boxes: float32 (F, 4), x0 y0 x1 y1 in pixels, see `face_box`; all inside the picture.
        points: float32 (F, 5, 2), the landmarks in pixels.
        skins: float32 (F,), the skin of each person from 0 (lightest) to 1.
    """

    image: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    skins: np.ndarray


class _Cutout(Pen):
    """Draws a figure without its plain background, which is the only rectangle that `draw` draws."""

    def rect(self, *args, **kwargs):
        pass


def scene(seed: int, first_person: int, people: int, size: int = 256) -> Scene:
    """The scene of a seed, of `size` pixels a side, with people from [first_person, first_person + people)."""
    rng = np.random.default_rng([17, first_person, int(seed)])

    def person() -> Avatar:
        who, moment = first_person + int(rng.integers(people)), int(rng.integers(2**31))
        return Avatar(Identity.sample(who), Expression.sample(moment), Appearance.sample(moment))

    pixels = np.zeros((size, size, 4), np.uint8)
    faces, taken = [], []
    with skia.Surface(pixels) as canvas:
        canvas.scale(size, size)
        portrait = rng.random() < PORTRAITS
        if portrait:
            avatar = person()
            side = float(np.exp(rng.uniform(math.log(0.6), math.log(1.3))))
            x, y = _inside(rng, face_box(avatar), side)
            Pen(canvas).rect(0, 0, 1, 1, tuple(rng.random(3)))
            _place(canvas, avatar, x, y, side, Pen)
            faces.append((avatar, x, y, side))
        else:
            clutter(Pen(canvas), rng)
            for _ in range(int(rng.integers(1, MOST + 1))):
                avatar = person()
                side = float(np.exp(rng.uniform(math.log(0.12), math.log(0.9))))
                for _ in range(12):  # attempts to find a free place
                    x, y = _inside(rng, face_box(avatar), side)
                    x0, y0, x1, y1 = (side * edge for edge in face_box(avatar))
                    place = (x, y, x + side, y + side), (x + x0, y + y0, x + x1, y + y1)
                    # Figures may overlap, but none may hide the face of another.
                    if not any(_overlap(place[0], face) or _overlap(whole, place[1]) for whole, face in taken):
                        plain = replace(avatar, appearance=replace(avatar.appearance, background_style="plain"))
                        _place(canvas, plain, x, y, side, _Cutout if rng.random() < 0.7 else Pen)
                        faces.append((avatar, x, y, side))
                        taken.append(place)
                        break
    boxes = [np.array(face_box(avatar)) * side + (x, y, x, y) for avatar, x, y, side in faces]
    points = [landmarks(avatar) * side + (x, y) for avatar, x, y, side in faces]
    return Scene(
        np.ascontiguousarray(pixels[:, :, :3]),
        np.array(boxes, np.float32).reshape(-1, 4) * size,
        np.array(points, np.float32).reshape(-1, 5, 2) * size,
        np.array([avatar.identity.skin for avatar, *_ in faces], np.float32),
    )


def _inside(rng, box, side: float) -> tuple[float, float]:
    """A random position (x, y) of a figure such that its face is inside the picture."""
    x0, y0, x1, y1 = (side * edge for edge in box)
    return float(rng.uniform(-x0, 1 - x1)), float(rng.uniform(-y0, 1 - y1))


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _place(canvas, avatar: Avatar, x: float, y: float, side: float, pen) -> None:
    canvas.save()
    canvas.translate(x, y)
    canvas.scale(side, side)
    canvas.clipRect(skia.Rect(0, 0, 1, 1), doAntiAlias=True)
    draw(pen(canvas), avatar.identity, avatar.expression, avatar.appearance)
    canvas.restore()


def clutter(pen: Pen, rng: np.random.Generator) -> None:
    """A background of random shapes without a face."""
    pen.rect(0, 0, 1, 1, tuple(rng.random(3)))
    for _ in range(int(rng.integers(10, 45))):
        x, y = rng.uniform(-0.1, 1.1, 2)
        r = float(np.exp(rng.uniform(math.log(0.01), math.log(0.35))))
        color = _color(rng)
        kind = rng.integers(7)
        if kind == 0:
            pen.ellipse(x, y, r, r * rng.uniform(0.5, 1.5), color)
        elif kind == 1:
            pen.rect(x, y, x + r, y + r * rng.uniform(0.4, 2), color)
        elif kind == 2:
            pen.fill(pen.polygon(rng.uniform(-r, r, (int(rng.integers(3, 7)), 2)) + (x, y)), color)
        elif kind == 3:
            for k in range(int(rng.integers(3, 9))):  # stripes
                pen.line(x, y + 0.03 * k, x + r, y + 0.03 * k + rng.uniform(-0.01, 0.01), color, 0.012)
        elif kind == 4:
            pen.ring(x, y, r, color, rng.uniform(0.004, 0.03))
        elif kind == 5:  # a pair of equal dots, which is no face
            for side in (-1, 1):
                pen.ellipse(x + side * 0.4 * r, y, 0.13 * r, 0.13 * r, (0.97, 0.97, 0.97))
                pen.ellipse(x + side * 0.4 * r, y, 0.07 * r, 0.07 * r, (0.05, 0.04, 0.05))
        else:  # shoulders and a neck, without a head
            moment = int(rng.integers(2**31))
            pen.canvas.save()
            pen.canvas.translate(x, y)
            pen.canvas.scale(r, r)
            body(pen, Geometry.of(Identity(skin=float(rng.random())), Expression()), Appearance.sample(moment))
            pen.canvas.restore()


def _color(rng) -> tuple[float, float, float]:
    if rng.random() < 0.6:
        return tuple(rng.random(3))
    colors = face_colors(float(rng.random()), HAIR[int(rng.integers(len(HAIR)))])
    return colors[("skin", "hair", "lips")[int(rng.integers(3))]]
