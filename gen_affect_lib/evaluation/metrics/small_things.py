"""Small things of a drawing: are freckles, frames, curls, folds and earrings present where they should be?

Who a person is and what its face does are known of every generated picture, its appearance is not. So a picture is
compared with two drawings of the right person and expression at the picture's tilt: one with the thing, one without it.
Their difference is the template of a matched filter. A thing counts as present if at least half of its drawn contrast
is there. Earrings belong to the appearance; they are compared between the two ears.

Letters: P pixels a side, T tilts, K pixels of a thing and around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.colors import EARRING
from gen_affect_lib.avatars.drawing import MAX_TILT, NECK, earrings, painted
from gen_affect_lib.avatars.geometry import ZOOM, ZOOM_X, ZOOM_Y, Geometry
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.avatars.regions import INNER_FACE, pixel_box
from gen_affect_lib.evaluation.metrics.nearest import TILTS, crop
from gen_affect_lib.tensors import fine_detail

THINGS = ("freckles", "frames", "curls", "folds")  # those that identity and expression fix
HALF = 0.5  # the share of the drawn contrast from which a thing counts as present
# A drawn thing is looked for if it has this mean contrast, in [0, 1], and this number of pixels.
VISIBLE, LEAST_PIXELS = 0.03, 20
LEAST_RIM = 0.2  # the least share of the contrast between an earring and its rim
SAME_COLOR = 0.10  # the largest mean difference, in [0, 1], of an earring's pixels to the drawn colours
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # in pixels; a generated feature may be off by one
PLAIN = Appearance(earrings="none")
OTHER = Appearance(
    earrings="none", background_hue=0.05, background_lightness=0.1, clothes_hue=0.55, clothes_lightness=0.1
)  # differs from PLAIN in every pixel that is not head


def read_things(image: np.ndarray, drawn: Drawn) -> dict[str, float]:
    """What a picture uint8 (P, P, 3) shows of each small thing, compared with the true drawing at its tilt.

    Returns:
        Each of THINGS: the share of its drawn contrast, see `contrast`.
        "earrings": 1 if at least one ear has one. "pair": 1 if both ears have the same.
    """
    pixels = image.astype(np.float32) / 255
    ears = worn(pixels, drawn)
    shares = {thing: contrast(pixels, *drawn.pair(thing)) for thing in THINGS}
    return shares | {"earrings": float(ears != ["none", "none"]), "pair": float(ears[0] == ears[1] != "none")}


def face_error(image: np.ndarray, drawn: Drawn) -> float:
    """Mean absolute difference, in [0, 1], of a picture uint8 (P, P, 3) to the true drawing, inside the face.

    Only pixels that no appearance changes are compared.
    """
    return float(np.abs(image.astype(np.float32) / 255 - drawn.whole)[drawn.inside].mean())


# --- drawings with and without a thing --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """The true face of a person with an expression at a tilt, in a plain appearance: `whole`, and without a thing."""

    identity: Identity
    expression: Expression
    tilt: float
    size: int

    def _avatar(self, identity: Identity, look: Appearance = PLAIN) -> Avatar:
        return Avatar(identity, self.expression, replace(look, head_tilt=self.tilt))

    def _picture(self, identity: Identity, look: Appearance = PLAIN) -> np.ndarray:
        return _in_unit_range(self._avatar(identity, look).render(self.size))

    def _without(self, identity: Identity, thing: str) -> np.ndarray:
        return _in_unit_range(without(self._avatar(identity), thing, self.size))

    @cached_property
    def whole(self) -> np.ndarray:
        return self._picture(self.identity)

    @cached_property
    def inside(self) -> np.ndarray:
        """The pixels inside the face that no appearance changes: bool (P, P)."""
        same = (self.whole == self._picture(self.identity, look=OTHER)).all(axis=2)
        x0, y0, x1, y1 = pixel_box(INNER_FACE, self.size)
        box = np.zeros_like(same)
        box[y0:y1, x0:x1] = True
        return same & box

    def pair(self, thing: str) -> tuple[np.ndarray, np.ndarray]:
        """The drawing with a thing and without it: float32 (P, P, 3) in [0, 1] each.

        A person without freckles, or without glasses, has them in the first (round ones). Curls are compared without
        frames, whose lines may cross them.
        """
        identity = self.identity
        if thing == "curls":
            identity = replace(identity, glasses="none")
        elif thing in ("freckles", "frames") and not has(thing, identity):
            identity = replace(identity, **{"freckles": dict(freckles="some"), "frames": dict(glasses="round")}[thing])
        whole = self.whole if identity is self.identity else self._picture(identity)
        return whole, self._without(identity, thing)


def _in_unit_range(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


def has(thing: str, identity: Identity) -> bool:
    """Whether a person has freckles or frames."""
    return (identity.freckles if thing == "freckles" else identity.glasses) != "none"


# --- the matched filter -----------------------------------------------------------------------------------------------


def detail(image: np.ndarray) -> np.ndarray:
    """`tensors.fine_detail` of an image: float32 (P, P, 3) -> the same."""
    return fine_detail(torch.from_numpy(image).movedim(-1, 0)).movedim(0, -1).numpy()  # by way of (3, P, P)


def contrast(image: np.ndarray, whole: np.ndarray, without: np.ndarray) -> float:
    """How much of a thing's contrast a picture shows: 1 as drawn, 0 as without it; nan if the thing is hardly visible.

    Around the thing, the picture's detail is approximated by a·(detail of `without`) + b·(detail of the thing), by
    least squares, at the shift of at most a pixel at which this fits best; b is returned. With the factor a, lines
    around it may be fainter than drawn without being taken for the thing. All pictures (P, P, 3) in [0, 1].
    """
    strength = np.abs(whole - without).mean(axis=2)  # (P, P)
    thing = strength > 0.02
    if thing.sum() < LEAST_PIXELS or strength[thing].mean() < VISIBLE:
        return float("nan")
    grown = F.max_pool2d(torch.from_numpy(thing)[None, None].float(), 5, stride=1, padding=2)[0, 0].numpy()
    rows, columns = np.nonzero(grown)  # (K,): the pixels of the thing and those at most two pixels away
    seen, ground = detail(image), detail(without)
    template = (detail(whole) - ground)[rows, columns]  # (K, 3)
    ground = ground[rows, columns]
    energy, cross = float((template**2).sum()), float((ground * template).sum())
    # The ridge keeps a near 1 where there is nothing else around the thing.
    system = np.array([[float((ground**2).sum()) + 0.05 * energy, cross], [cross, energy]])
    best, share, limit = float("inf"), 0.0, len(image) - 1
    for dy, dx in SHIFTS:
        rest = seen[(rows + dy).clip(0, limit), (columns + dx).clip(0, limit)] - ground
        a, b = np.linalg.solve(system, [float((rest * ground).sum()), float((rest * template).sum())])
        error = float(((rest - a * ground - min(max(b, 0), 1) * template) ** 2).sum())
        if error < best:
            best, share = error, float(b)
    return share


def tilt_of(image: np.ndarray, faces: np.ndarray, identity: Identity, expression: Expression) -> float:
    """The tilt of the head on a picture uint8 (P, P, 3), to a quarter of the step of TILTS.

    It is that of the nearest true face. faces: `nearest.true_faces` of the person and expression, (T, h, w, 3).
    """
    seen = crop(image)

    def off(tilt: float) -> float:
        return float(np.abs(crop(255 * Drawn(identity, expression, tilt, len(image)).whole) - seen).mean())

    errors = np.abs(faces - seen).mean(axis=(1, 2, 3))
    best, least, step = TILTS[int(errors.argmin())], float(errors.min()), TILTS[1] - TILTS[0]
    for _ in range(2):
        step /= 2
        for tilt in (best - step, best + step):
            if abs(tilt) <= 1 and (error := off(tilt)) < least:
                best, least = tilt, error
    return best


# --- earrings ---------------------------------------------------------------------------------------------------------


def worn(image: np.ndarray, drawn: Drawn) -> list[str]:
    """The earrings at the left and the right ear of a picture (P, P, 3) in [0, 1]: "none", "stud", "hoop" or "drop"."""
    nearest = nearest_earrings(image, drawn)
    return [style if off < SAME_COLOR and share > LEAST_RIM else "none" for style, off, share in nearest]


def nearest_earrings(image: np.ndarray, true_face: Drawn) -> list[tuple[str, float, float]]:
    """For the left and the right ear, the style whose drawing comes nearest to the picture (P, P, 3) in [0, 1].

    With it, the mean absolute difference of its pixels in [0, 1], the least over colours and shifts of a pixel; and the
    share of the drawn contrast between its colour and its dark rim.
    """
    size, geometry = len(image), Geometry.of(true_face.identity, true_face.expression)
    best = [("none", 1.0, 0.0), ("none", 1.0, 0.0)]
    for style in ("stud", "hoop", "drop"):
        for color in EARRING:
            look = Appearance(earrings=style, earring_color=color)
            drawn = painted(size, lambda canvas: _earrings(Pen(canvas), geometry, look, true_face.tilt))
            rows, columns = np.nonzero(drawn[..., 3] > 200)
            true = drawn[rows, columns, :3].astype(np.float32) / 255  # (K, 3)
            for ear, own in enumerate((columns < size // 2, columns >= size // 2)):
                expected = true[own] - true[own].mean(axis=0)
                for dy, dx in SHIFTS:
                    seen = image[(rows[own] + dy).clip(0, size - 1), (columns[own] + dx).clip(0, size - 1)]
                    off = float(np.abs(seen - true[own]).mean())
                    if off < best[ear][1]:
                        best[ear] = style, off, float((seen * expected).sum() / max((expected**2).sum(), 1e-6))
    return best


def _earrings(pen: Pen, geometry: Geometry, look: Appearance, tilt: float) -> None:
    pen.zoom(ZOOM, ZOOM_X, ZOOM_Y)
    with pen.rotated(tilt * MAX_TILT, *NECK):
        earrings(pen, geometry, look)
