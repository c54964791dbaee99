"""Small things of a drawing: are freckles, frames, curls, folds and earrings present where they should be?

Who a person is and what its face does are known of every generated picture, its appearance is not. So a picture is
compared with two drawings of the right person and expression at the picture's tilt: one with the thing, one without it.
Their difference is the template of a matched filter. A thing counts as present if at least half of its drawn contrast
is there. Earrings belong to the appearance; they are compared between the two ears.

Letters: P pixels a side, T tilts, K shifts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from gen_affect_lib.avatars import Appearance, Expression, Identity, face
from gen_affect_lib.avatars.colors import EARRING
from gen_affect_lib.avatars.drawing import FACE, MAX_TILT, NECK, draw, earrings, painted
from gen_affect_lib.avatars.geometry import ZOOM, ZOOM_X, ZOOM_Y, Geometry
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.evaluation.metrics.nearest import TILTS, crop

THINGS = ("freckles", "frames", "curls", "folds")  # those that identity and expression fix
HALF = 0.5  # the share of the drawn contrast from which a thing counts as present
VISIBLE = 0.05  # the least mean contrast, in [0, 1], of a drawn thing that is looked for
SAME_COLOR = 0.09  # the largest mean difference, in [0, 1], of an earring's pixels to the drawn colours
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # in pixels; a generated feature may be off by one
PLAIN = Appearance(earrings="none")


def read_things(image: np.ndarray, identity: Identity, expression: Expression, faces: np.ndarray) -> dict[str, float]:
    """What a picture shows of each small thing.

    Args:
        image: uint8 (P, P, 3), of this person with this expression in any appearance.
        faces: `nearest.true_faces` of both, (T, h, w, 3).

    Returns:
        Each of THINGS: the share of its drawn contrast, see `contrast`.
        "earrings": 1 if at least one ear has one. "pair": 1 if both ears have the same.
    """
    pixels = image.astype(np.float32) / 255
    tilt = tilt_of(pixels, faces, identity, expression)
    drawn = Drawn(identity, expression, tilt, len(image))
    ears = worn(pixels, identity, expression, tilt)
    shares = {thing: contrast(pixels, *drawn.pair(thing)) for thing in THINGS}
    return shares | {"earrings": float(ears != ["none", "none"]), "pair": float(ears[0] == ears[1] != "none")}


# --- drawings with and without a thing --------------------------------------------------------------------------------


class WithoutLines(Pen):
    """A pen that leaves out the lines inside hair: rings of curls, and strands."""

    def __init__(self, canvas, color):
        super().__init__(canvas)
        self.color = color

    def ring(self, *args):
        pass

    def stroke(self, path, color, width, alpha=1.0):
        if color != self.color:
            super().stroke(path, color, width, alpha)


@dataclass(frozen=True)
class Drawn:
    """The true face of a person with an expression at a tilt, in a plain appearance: `whole`, and without a thing."""

    identity: Identity
    expression: Expression
    tilt: float
    size: int

    def _picture(self, identity: Identity, pen=Pen, parts=FACE) -> np.ndarray:
        look = replace(PLAIN, head_tilt=self.tilt)
        pixels = painted(self.size, lambda canvas: draw(pen(canvas), identity, self.expression, look, parts))
        return pixels[..., :3].astype(np.float32) / 255

    @cached_property
    def whole(self) -> np.ndarray:
        return self._picture(self.identity)

    def pair(self, thing: str) -> tuple[np.ndarray, np.ndarray]:
        """The drawing with a thing and without it: float32 (P, P, 3) in [0, 1] each.

        If the person does not have freckles or glasses, the first has got them (round ones).
        """
        identity = self.identity
        if thing in ("freckles", "frames"):
            name = {"freckles": "freckles", "frames": "glasses"}[thing]
            without = self._picture(replace(identity, **{name: "none"}))
            if has(thing, identity):
                return self.whole, without
            return self._picture(replace(identity, **{name: {"freckles": "some", "frames": "round"}[thing]})), without
        if thing == "folds":
            return self.whole, self._picture(identity, parts=[part for part in FACE if part is not face.folds])
        bare = replace(identity, glasses="none")  # frames are rings as well
        shade = Geometry.of(bare, self.expression).colors["hair_shade"]
        return self._picture(bare), self._picture(bare, pen=lambda canvas: WithoutLines(canvas, shade))


def has(thing: str, identity: Identity) -> bool:
    """Whether a person has freckles or frames."""
    return (identity.freckles if thing == "freckles" else identity.glasses) != "none"


# --- the matched filter -----------------------------------------------------------------------------------------------


def detail(image: np.ndarray) -> np.ndarray:
    """What stands out from a neighbourhood of 7 x 7 pixels: float32 (P, P, 3) -> the same."""
    pixels = torch.from_numpy(image).movedim(-1, 0)  # (3, P, P)
    mean = F.avg_pool2d(pixels, 7, stride=1, padding=3, count_include_pad=False)
    return (pixels - mean).movedim(0, -1).numpy()


def contrast(image: np.ndarray, whole: np.ndarray, without: np.ndarray) -> float:
    """How much of a thing's contrast a picture shows: 1 as drawn, 0 as without it; nan if the thing is hardly visible.

    The picture's detail is approximated by that of `without` plus a share of the difference to `whole`, by least
    squares, at the shift of at most a pixel at which this fits best. All pictures (P, P, 3) in [0, 1].
    """
    strength = np.abs(whole - without).mean(axis=2)  # (P, P)
    if not (strength > 0.02).any() or strength[strength > 0.02].mean() < VISIBLE:
        return float("nan")
    rows, columns = (np.flatnonzero((strength > 0.02).any(axis=axis)) for axis in (1, 0))
    size = len(image)
    y0, y1 = max(rows[0] - 3, 1), min(rows[-1] + 4, size - 1)
    x0, x1 = max(columns[0] - 3, 1), min(columns[-1] + 4, size - 1)
    seen, ground = detail(image), detail(without)[y0:y1, x0:x1]
    template = detail(whole)[y0:y1, x0:x1] - ground
    energy, best, share = float((template**2).sum()), float("inf"), 0.0
    for dy, dx in SHIFTS:
        rest = seen[y0 + dy : y1 + dy, x0 + dx : x1 + dx] - ground
        found = float((rest * template).sum()) / energy
        error = float(((rest - min(max(found, 0), 1) * template) ** 2).sum())
        if error < best:
            best, share = error, found
    return share


def tilt_of(image: np.ndarray, faces: np.ndarray, identity: Identity, expression: Expression) -> float:
    """The tilt of the head on a picture (P, P, 3) in [0, 1], to a quarter of the step of TILTS.

    It is that of the nearest true face. faces: `nearest.true_faces` of the person and expression, (T, h, w, 3).
    """
    size, seen = len(image), crop((255 * image).round().astype(np.uint8))

    def off(tilt: float) -> float:
        return float(np.abs(crop((255 * Drawn(identity, expression, tilt, size).whole).astype(np.uint8)) - seen).mean())

    errors = np.abs(faces - seen).mean(axis=(1, 2, 3))
    best, least, step = TILTS[int(errors.argmin())], float(errors.min()), TILTS[1] - TILTS[0]
    for _ in range(2):
        step /= 2
        for tilt in (best - step, best + step):
            if abs(tilt) <= 1 and (error := off(tilt)) < least:
                best, least = tilt, error
    return best


# --- earrings ---------------------------------------------------------------------------------------------------------


def worn(image: np.ndarray, identity: Identity, expression: Expression, tilt: float) -> list[str]:
    """The earrings at the left and the right ear of a picture (P, P, 3) in [0, 1]: "none", "stud", "hoop" or "drop"."""
    nearest = nearest_earrings(image, identity, expression, tilt)
    return [style if off < SAME_COLOR else "none" for style, off in nearest]


def nearest_earrings(
    image: np.ndarray, identity: Identity, expression: Expression, tilt: float
) -> list[tuple[str, float]]:
    """For the left and the right ear, the style whose drawing comes nearest to the picture (P, P, 3) in [0, 1].

    With it, the mean absolute difference of its pixels in [0, 1], the least over colours and shifts of a pixel.
    """
    size, geometry = len(image), Geometry.of(identity, expression)
    best = [("none", 1.0), ("none", 1.0)]
    for style in ("stud", "hoop", "drop"):
        for color in EARRING:
            look = Appearance(earrings=style, earring_color=color)
            drawn = painted(size, lambda canvas: _earrings(Pen(canvas), geometry, look, tilt))
            rows, columns = np.nonzero(drawn[..., 3] > 200)
            true = drawn[rows, columns, :3].astype(np.float32) / 255
            left = columns < size // 2
            for dy, dx in SHIFTS:
                seen = image[(rows + dy).clip(0, size - 1), (columns + dx).clip(0, size - 1)]
                off = np.abs(seen - true).mean(axis=1)
                for ear, own in enumerate((off[left].mean(), off[~left].mean())):
                    if own < best[ear][1]:
                        best[ear] = style, float(own)
    return best


def _earrings(pen: Pen, geometry: Geometry, look: Appearance, tilt: float) -> None:
    pen.zoom(ZOOM, ZOOM_X, ZOOM_Y)
    with pen.rotated(tilt * MAX_TILT, *NECK):
        earrings(pen, geometry, look)
