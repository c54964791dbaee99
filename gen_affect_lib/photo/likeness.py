"""The identity and the appearance that a picture of a face shows: proportions, colours, hair, glasses and beard.

Only shapes and colours are measured. Gender, ethnicity and age are not read, and what is not sure keeps a plain value:
no glasses, no beard, no freckles.

Proportions are compared with people: factor = 0.5 + 0.2 z, with the z-score of the proportion among rendered CC0 heads
(`NORMS`). The z-score also undoes the landmarker's pull towards the average, since the heads were read by it too.

Colours are CIE L*a*b* (D65) of the pixels, hair and coverings are found in the frame of the drawn head, into which the
picture is warped.

Letters: S the side of the frame in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from gen_affect_lib.avatars import hair
from gen_affect_lib.avatars.drawing import body, head, painted
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.geometry import EYE_Y, TOP, Geometry
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.photo.landmarker import Face

FRAME = 96  # S
# From the eyes to the crown, in distances from the eyes to the chin: of people, whose eyes lie half-way, and as drawn.
SKULL, DRAWN_SKULL = 1.0, (EYE_Y - TOP) / (0.80 + 0.0175 - EYE_Y)

# Indices of the 478 landmarks; left and right as in the picture.
CHEEKS = [50, 101, 118, 205, 280, 330, 347, 425]
FOREHEAD = [9, 66, 69, 104, 108, 151, 296, 299, 333, 337]
CHIN, LEFT, RIGHT, CROWN = 152, 234, 454, 10
IRISES = ((468, [469, 470, 471, 472]), (473, [474, 475, 476, 477]))

# Mean, standard deviation, and the change by blendshapes at 1, of each proportion of people.
NORMS: dict[str, tuple[float, float, dict[str, float]]] = {}


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB (..., 3) to float32 L*a*b*, (..., 3)."""
    flat = pixels.reshape(1, -1, 3).astype(np.float32) / 255  # (..., 3) -> (1, N, 3)
    return cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(pixels.shape)


# --- proportions -----------------------------------------------------------------------------------------------------


def proportions(face: Face, colors: np.ndarray) -> dict[str, float]:
    """The proportions of a face, without units, by the name of the factor that they give.

    Args:
        face: with landmarks in pixels of `colors`.
        colors: the picture in L*a*b*, (H, W, 3).
    """
    p = face.aligned[:, :2]

    def apart(i: int, j: int) -> float:
        return float(np.linalg.norm(p[i] - p[j]))

    width, height = apart(LEFT, RIGHT), apart(168, CHIN)
    eye = (apart(33, 133) + apart(263, 362)) / 2
    slopes = p[33, 1] - p[133, 1] + p[263, 1] - p[362, 1]
    arch = p[105, 1] + p[334, 1] - (p[70, 1] + p[107, 1] + p[300, 1] + p[336, 1]) / 2
    return {
        "face_width": width / apart(CROWN, CHIN),
        "jaw_width": (apart(172, 397) + apart(58, 288)) / (2 * width),
        "chin": apart(17, CHIN) / width,
        "eye_size": eye / width,
        "eye_spacing": float(np.linalg.norm(p[33] + p[133] - p[263] - p[362])) / (2 * width),
        "eye_tilt": float(slopes) / eye,
        "brow_arch": float(arch) / width,
        "nose_width": apart(129, 358) / width,
        "nose_length": apart(168, 2) / height,
        "mouth_width": apart(61, 291) / height,
        "lip_fullness": lip_height(face.landmarks[:, :2], colors),
    }


def lip_height(points: np.ndarray, colors: np.ndarray) -> float:
    """The height of both lips by their colour, in widths of the face: landmarks hardly follow thin and full lips."""
    inside = [between(colors, points[i], points[j], 9)[2:7] for i, j in ((0, 13), (14, 17), (37, 82), (84, 87),
                                                                         (267, 312), (314, 317))]  # fmt: skip
    lip = np.median(np.concatenate(inside), axis=0)
    skin = np.median(at(colors, points[CHEEKS]), axis=0)
    heights = []
    for column in (-0.3, -0.15, 0.0, 0.15, 0.3):
        aside = column * (points[291] - points[61])
        top = 0.2 * points[2] + 0.8 * points[0] + 0.9 * aside
        bottom = 0.8 * points[17] + 0.2 * points[CHIN] + 0.9 * aside
        seen = between(colors, top, bottom, 64)
        nearer = _difference(seen, lip) < _difference(seen, skin)
        heights.append(nearer.mean() * np.linalg.norm(bottom - top))
    return float(np.mean(heights) / np.linalg.norm(points[RIGHT] - points[LEFT]))


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distance of colours (..., 3), in which lightness, which changes with the light, counts half."""
    return np.linalg.norm((a - b) * [0.5, 1, 1], axis=-1)


def at(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The values of a picture (H, W, C) at points (N, 2) in pixels: (N, C)."""
    x, y = points.astype(np.float32).T[:, None]  # (1, N) each
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def between(picture: np.ndarray, start: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """The values of a picture (H, W, C) along a line: (count, C)."""
    return at(picture, start + np.linspace(0, 1, count)[:, None] * (end - start))


# --- the frame of the drawn head -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """A picture, warped so that the face lies where the drawn face does: S x S, in the frame of the drawn head.

    Attributes:
        colors: L*a*b*, float32 (S, S, 3).
        pixels: RGB, uint8 (S, S, 3).
        known: bool (S, S), False outside the picture.
    """

    colors: np.ndarray
    pixels: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, face: Face, pixels: np.ndarray, skull: float = SKULL) -> Frame:
        """By the line of the eyes, the width of the face and its chin; the tilt of the head is undone.

        skull: from the eyes to the crown, in distances from the eyes to the chin. In people the eyes lie half-way, in
        the drawn head further up, so what is above the eyes is compressed.
        """
        p = face.landmarks[:, :2].astype(np.float64)
        eyes = (p[33] + p[263]) / 2
        across = (p[263] - p[33]) / np.linalg.norm(p[263] - p[33])
        down = np.array([-across[1], across[0]])
        middle = (p[LEFT] + p[RIGHT]) / 2
        center = eyes + across * ((middle - eyes) @ across)  # of the face, at the height of the eyes
        g = Geometry.of(Identity(), Expression())
        of_x = across * ((p[RIGHT] - p[LEFT]) @ across) / (2 * g.half_width)  # one unit of the drawn frame in pixels
        of_y = down * ((p[CHIN] - eyes) @ down) / (g.chin_y - EYE_Y)
        small = min(np.linalg.norm(of_x), np.linalg.norm(of_y)) / FRAME
        if small > 1.5:  # average first, so that no pixels are skipped
            pixels = cv2.blur(pixels, (int(small), int(small)))
        places = (np.arange(FRAME) + 0.5) / FRAME
        x, y = np.meshgrid(places - 0.5, places - EYE_Y)
        y = np.where(y < 0, y * skull / DRAWN_SKULL, y)
        sampled = (center + x[..., None] * of_x + y[..., None] * of_y).astype(np.float32)  # (S, S, 2)
        warped = cv2.remap(pixels, sampled, None, cv2.INTER_LINEAR)
        known = ((sampled >= 0) & (sampled < pixels.shape[1::-1])).all(axis=-1)
        return cls(to_lab(warped), warped, known)


@lru_cache(maxsize=1)
def style_masks() -> dict[str, np.ndarray]:
    """Where each hair style or covering is seen on the average drawn head: bool (S, S) by name."""
    masks = {}
    for style in hair.FRONT:
        g = Geometry.of(Identity(hair_style=style), Expression())
        front = _mask(lambda pen, g=g: hair.front(pen, g))
        behind = _mask(lambda pen, g=g: hair.back(pen, g)) & ~head_mask() & ~body_mask()
        drape = _mask(lambda pen, g=g: hair.drape(pen, g)) if style == "headscarf" else np.zeros_like(front)
        masks[style] = front & ~drape | behind | drape
    masks["bald"] = np.zeros((FRAME, FRAME), bool)  # whose front is a highlight
    return masks


@lru_cache(maxsize=1)
def head_mask() -> np.ndarray:
    """The drawn head with its ears: bool (S, S)."""
    return _mask(lambda pen: head(pen, Geometry.of(Identity(), Expression())))


@lru_cache(maxsize=1)
def body_mask() -> np.ndarray:
    """Neck and shoulders of the drawn figure: bool (S, S)."""
    return _mask(lambda pen: body(pen, Geometry.of(Identity(), Expression()), Appearance()))


def _mask(paint) -> np.ndarray:
    return painted(FRAME, lambda canvas: paint(Pen(canvas)))[..., 3] > 127
