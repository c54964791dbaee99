"""The identity and the appearance that a picture of a face shows: proportions, colours, hair, glasses and beard.

Only shapes and colours are measured. Gender, ethnicity and age are not read, and what is not sure keeps a plain value:
no glasses, no beard, no freckles.

Proportions are compared with people: factor = 0.5 + 0.2 z, with the z-score of the proportion among rendered CC0 heads
(`NORMS`). The z-score also undoes the landmarker's pull towards the average, since the heads were read by it too.

Colours are CIE L*a*b* (D65) of the pixels. Hair and coverings are found in the frame of the drawn head, into which the
picture and the silhouette of the person (`person.py`) are warped.

Letters: S the side of the frame in pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from gen_affect_lib.avatars import hair
from gen_affect_lib.avatars.colors import COVERING, EYE, HAIR, SKIN, lab
from gen_affect_lib.avatars.drawing import MAX_TILT, body, head, painted
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.geometry import EYE_Y, TOP, Geometry
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.photo.landmarker import Face
from gen_affect_lib.photo.person import person_mask

FRAME = 96  # S
BEHIND = 0.4  # how far the middle of the head is behind the face, in half widths of the face
LIGHTNESS = 0.5  # the weight of lightness in a difference of colours, since it changes with the light

DRAWN_SKULL = (EYE_Y - TOP) / (0.80 + 0.0175 - EYE_Y)

# Indices of the 478 landmarks; left and right as in the picture.
CHEEKS = [50, 101, 118, 205, 280, 330, 347, 425]
FOREHEAD = [9, 66, 69, 104, 108, 151, 296, 299, 333, 337]
CHIN, LEFT, RIGHT, CROWN = 152, 234, 454, 10
IRISES = ((468, [469, 470, 471, 472]), (473, [474, 475, 476, 477]))


# Mean and standard deviation of each proportion, and its change with blendshapes above 0.2, per unit. Of people: from
# 250 rendered heads (`photo/heads.py`, seeds 0 to 249) with and without expression. Of drawings: from 500 with and
# without expression (seeds 300,000 to 300,249). Other changes are left out: a narrow mouth, say, is read as a pucker.
Norms = dict[str, tuple[float, float, dict[str, float]]]
PEOPLE_NORMS: Norms = {
    "face_width": (0.8098, 0.0451, {"jawOpen": -0.184}),
    "jaw_width": (0.7957, 0.0187, {"jawOpen": -0.047}),
    "chin": (0.2326, 0.0228, {"jawOpen": -0.169}),
    "eye_size": (0.1973, 0.0103, {}),
    "eye_spacing": (0.4404, 0.0172, {}),
    "eye_tilt": (0.1859, 0.0454, {}),
    "brow_arch": (0.0971, 0.012, {}),
    "nose_width": (0.2856, 0.0157, {}),
    "nose_length": (0.4253, 0.0177, {}),
    "mouth_width": (0.4203, 0.0333, {"mouthSmile": 0.163}),
    "lip_fullness": (0.1307, 0.0219, {}),
}
DRAWN_NORMS: Norms = {
    "face_width": (0.8814, 0.0346, {"jawOpen": -0.179}),
    "jaw_width": (0.7681, 0.0264, {"jawOpen": -0.115}),
    "chin": (0.2068, 0.0214, {"jawOpen": -0.202}),
    "eye_size": (0.2291, 0.0114, {}),
    "eye_spacing": (0.4751, 0.0236, {}),
    "eye_tilt": (0.1469, 0.0604, {}),
    "brow_arch": (0.1098, 0.0119, {}),
    "nose_width": (0.3068, 0.0179, {}),
    "nose_length": (0.4281, 0.0176, {}),
    "mouth_width": (0.5256, 0.0401, {"mouthSmile": 0.162}),
    "lip_fullness": (0.1041, 0.0247, {}),
}


@dataclass(frozen=True)
class World:
    """What differs between the faces of people and drawn faces. The way of measuring is the same.

    Attributes:
        norms: mean, standard deviation and change with blendshapes, of each proportion.
        skull: from the eyes to the crown, in distances from the eyes to the chin.
        chroma: of hair and eyes, relative to the palettes of the drawing (`avatars.colors`).
        iris: its radius, relative to that of the landmarks.
    """

    norms: Norms
    skull: float
    chroma: float
    iris: float


PEOPLE = World(PEOPLE_NORMS, 1.0, 0.6, 1.0)  # eyes lie half-way between crown and chin, as courses of drawing teach
DRAWN = World(DRAWN_NORMS, DRAWN_SKULL, 1.0, 1.7)


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
        "jaw_width": apart(172, 397) / width,
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
    return np.linalg.norm((a - b) * [LIGHTNESS, 1, 1], axis=-1)


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
        person: the probability that a pixel shows the person, float32 (S, S).
    """

    colors: np.ndarray
    pixels: np.ndarray
    known: np.ndarray
    person: np.ndarray

    @classmethod
    def of(cls, face: Face, pixels: np.ndarray, skull: float) -> Frame:
        """By the line of the eyes, the width of the face and its chin; the tilt of the head is undone.

        skull: see `World`. The drawn head is lower above the eyes than a person's, so that part is compressed.
        """
        p, person = face.landmarks[:, :2].astype(np.float64), person_mask(pixels, face)
        eyes = (p[33] + p[263]) / 2
        across = (p[263] - p[33]) / np.linalg.norm(p[263] - p[33])
        down = np.array([-across[1], across[0]])
        middle = (p[LEFT] + p[RIGHT]) / 2
        center = eyes + across * ((middle - eyes) @ across)  # of the face, at the height of the eyes
        g = Geometry.of(Identity(), Expression())
        half = (p[RIGHT] - p[LEFT]) @ across / 2 / max(np.hypot(*face.rotation[2, 1:]), 0.5)  # as seen from the front
        center = center - across * half * BEHIND * face.rotation[2, 0]
        of_x = across * half / g.half_width  # one unit of the drawn frame in pixels
        of_y = down * ((p[CHIN] - eyes) @ down) / (g.chin_y - EYE_Y)
        small = min(np.linalg.norm(of_x), np.linalg.norm(of_y)) / FRAME
        if small > 1.5:  # average first, so that no pixels are skipped
            pixels = cv2.blur(pixels, (int(small), int(small)))
        places = (np.arange(FRAME) + 0.5) / FRAME
        x, y = np.meshgrid(places - 0.5, places - EYE_Y)
        y = np.where(y < 0, y * skull / DRAWN_SKULL, y)
        sampled = (center + x[..., None] * of_x + y[..., None] * of_y).astype(np.float32)  # (S, S, 2)
        columns, rows = sampled[..., 0], sampled[..., 1]
        warped, person = (cv2.remap(seen, columns, rows, cv2.INTER_LINEAR) for seen in (pixels, person))
        known = ((sampled >= 0) & (sampled < pixels.shape[1::-1])).all(axis=-1)
        return cls(to_lab(warped), warped, known, person)


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


# --- hair and coverings ----------------------------------------------------------------------------------------------


FALLING = {"bob", "long", "wavy", "headscarf"}
JAW = 0.68  # y in the frame, below which shoulders may follow
LONG = 0.16  # of `falling`: of 90 rendered heads, those with short hair stay below, those with long hair above
COVERED = 0.85  # the least hair on a forehead that is covered
BALD = 0.15  # the most hair above the brows of a bald head


def hair_map(frame: Frame) -> np.ndarray:
    """The probability that a pixel shows hair or a covering: float32 (S, S), 0.5 outside the picture.

    All that a person shows around the head, above the shoulders, is hair. Within the head and below colours decide:
    clusters of those of the hair around the head, against clusters of skin and clothes. Below, there is hair only if
    it falls beside the jaws.
    """
    y, x = (np.mgrid[:FRAME, :FRAME] + 0.5) / FRAME
    aside, inner, person = abs(x - 0.5), _eroded(head_mask(), 7), frame.known & (frame.person > 0.5)
    around = ~_dilated(head_mask(), 3) & (y < JAW)
    colors = frame.colors * np.array([LIGHTNESS, 1, 1], np.float32)
    cheeks = colors[frame.known & inner & (y > 0.50) & (y < 0.62) & (aside > 0.05)]
    if len(cheeks) < 20:
        return np.full((FRAME, FRAME), 0.5, np.float32)
    hairs = clusters(colors[person & (around & (y < 0.5) | (y < 0.24))], 3)
    hairs = [one for one in hairs if np.linalg.norm(one[0] - np.median(cheeks, axis=0)) > 8]
    clothes = _unlike(clusters(colors[person & body_mask() & (y > 0.9)], 3), hairs, 8)
    to_hair, to_rest = _distance(colors, hairs), _distance(colors, clusters(cheeks, 2) + clothes)
    likely = 1 / (1 + np.exp(((to_hair - to_rest) / 2).clip(-30, 30))) if hairs else np.full((FRAME, FRAME), 0.1)
    likely = np.where(around, np.where(to_hair < to_rest + 2, np.maximum(likely, 0.9), 0.2), likely) * frame.person
    if falling(likely) < LONG:
        likely = np.where(y > JAW, np.minimum(likely, 0.1), likely)
    return cv2.GaussianBlur(np.where(frame.known, likely, 0.5).astype(np.float32), (3, 3), 0)


def falling(likely: np.ndarray) -> float:
    """How much of the places at the ears, beside the jaws and beside the neck hair fills, in a map of hair (S, S).

    It is the least share of the three on both sides: short hair ends above the jaws, and shoulders begin below.
    """
    y, x = (np.mgrid[:FRAME, :FRAME] + 0.5) / FRAME
    aside = ~_dilated(head_mask(), 3) & (abs(x - 0.5) > 0.1) & (abs(x - 0.5) < 0.28)
    bands = ((0.39, 0.51), (0.63, 0.70), (0.70, 0.80))
    places = [aside & side & (y > low) & (y < high) for side in (x < 0.5, x > 0.5) for low, high in bands]
    return min(float(likely[place].mean()) for place in places)


def fitting(likely: np.ndarray) -> set[str]:
    """The styles that are as long, and cover the forehead as far, as the hair in a map (S, S)."""
    if falling(likely) > LONG:
        return FALLING
    y, x = (np.mgrid[:FRAME, :FRAME] + 0.5) / FRAME
    if likely[(abs(x - 0.5) < 0.15) & (y > 0.27) & (y < 0.34)].mean() > COVERED:
        return {"fringe", *COVERINGS}
    above_brows = likely[(abs(x - 0.5) < 0.2) & (y > 0.15) & (y < 0.32)]
    return set(style_masks()) - FALLING - ({"bald"} if above_brows.mean() > BALD else set())


Cluster = tuple[np.ndarray, np.ndarray]  # the mean of colours and their standard deviation, (3,) each


def _unlike(groups: list[Cluster], others: list[Cluster], least: float) -> list[Cluster]:
    """Those of the clusters whose means are further than `least` from all the others'."""
    return [one for one in groups if all(np.linalg.norm(one[0] - other[0]) > least for other in others)]


def clusters(colors: np.ndarray, count: int) -> list[Cluster]:
    """Mean and standard deviation, (3,) each, of the clusters of colours (N, 3) that hold at least 8 % (k-means)."""
    if len(colors) < 20:
        return []
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
    _, labels, _ = cv2.kmeans(colors, count, np.empty(0, np.int32), stop, 1, cv2.KMEANS_PP_CENTERS)
    groups = [colors[labels[:, 0] == k] for k in range(count)]
    return [(one.mean(axis=0), np.maximum(one.std(axis=0), 4)) for one in groups if len(one) > 0.08 * len(colors)]


def _distance(colors: np.ndarray, groups: list[Cluster]) -> np.ndarray:
    """The square distance of each pixel to the nearest cluster, in its standard deviations, at most 60: (S, S)."""
    if not groups:
        return np.full(colors.shape[:2], 30.0)
    return np.min([(((colors - mean) / deviation) ** 2).sum(axis=-1).clip(0, 60) for mean, deviation in groups], axis=0)


def style_scores(likely: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """The mean log likelihood of each style's mask, given the map of hair (S, S)."""
    y = (np.arange(FRAME)[:, None] + 0.5) / FRAME
    counted = known & (y < 0.97) & ~(_eroded(head_mask(), 7) & (y > 0.45))  # the inside of the face shows no style
    yes, no = np.log(likely.clip(0.05, 0.95)), np.log(1 - likely.clip(0.05, 0.95))
    return {name: float(np.where(mask, yes, no)[counted].mean()) for name, mask in style_masks().items()}


def _eroded(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def _dilated(mask: np.ndarray, side: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


CLOTH = 32.0  # of `_contrast`: the hair of 125 rendered heads and 120 drawings stays below
COVERINGS = ("headscarf", "turban", "beanie")
NATURAL = ("black", "dark_brown", "brown", "auburn", "ginger", "blond", "platinum", "grey", "white")


def read_hair(frame: Frame, chroma: float) -> tuple[dict[str, str], dict[str, float]]:
    """Hair style, hair colour and colour of a covering, and how sure each is in [0, 1].

    A covering has the shape of one and a colour that hair does not have, or parts of different colours.
    """
    if _contrast(frame) > CLOTH:
        return {"hair_style": "beanie", "covering_color": "navy"}, {
            "hair_style": 0.2,
            "hair_color": 0.0,
            "covering_color": 0.1,
        }
    likely = hair_map(frame)
    fit, scores = fitting(likely), style_scores(likely, frame.known)
    scores = {name: score for name, score in scores.items() if name in fit}
    rows = (np.arange(FRAME)[:, None] + 0.5) / FRAME
    seen = frame.colors[(likely > 0.55) & frame.known & (rows < 0.5)]
    best = max(scores, key=lambda name: scores[name])
    if best == "bald" or len(seen) < 40:
        return {"hair_style": best}, {"hair_style": _margin(scores, best), "hair_color": 0.0, "covering_color": 0.0}
    color = np.median(seen, axis=0)
    hairs, cloths = _nearest(color, HAIR, chroma), _nearest(color, COVERING, chroma)
    natural = {name: distance for name, distance in hairs.items() if name in NATURAL}
    hue = min(hairs, key=lambda name: hairs[name])
    cloth = min(cloths, key=lambda name: cloths[name])
    if hue not in NATURAL and min(natural.values()) - hairs[hue] < 10:
        hue = min(natural, key=lambda name: natural[name])
    if best in COVERINGS and cloths[cloth] > hairs[hue]:
        best = max((name for name in scores if name not in COVERINGS), key=lambda name: scores[name])
    if best in COVERINGS:
        sure = float(np.clip(1.2 - cloths[cloth] / 30, 0, 1))
        return (
            {"hair_style": best, "covering_color": cloth},
            {"hair_style": _margin(scores, best), "hair_color": 0.0, "covering_color": sure},
        )
    sure = float(np.clip(1.2 - hairs[hue] / 30, 0, 1))
    return (
        {"hair_style": best, "hair_color": hue},
        {"hair_style": _margin(scores, best), "hair_color": sure, "covering_color": 0.0},
    )


def _contrast(frame: Frame) -> float:
    """The standard deviation of the lightness above the forehead, without the skin."""
    y, x = (np.mgrid[:FRAME, :FRAME] + 0.5) / FRAME
    aside, known = abs(x - 0.5), frame.known
    cheeks = frame.colors[known & (y > 0.50) & (y < 0.62) & (aside < 0.15) & (aside > 0.05)]
    above = frame.colors[known & (aside < 0.14) & (y > 0.17) & (y < 0.29)]
    if len(cheeks) == 0 or len(above) == 0:
        return 0.0
    other = above[_difference(above, np.median(cheeks, axis=0)) > 10]
    return float(other[:, 0].std()) if len(other) > 0.5 * len(above) else 0.0


def _margin(scores: dict[str, float], best: str) -> float:
    """How sure a style is: 0.5 where the next is equally likely, 0 where nothing fits, 1 far ahead of a poor second."""
    others = max(score for name, score in scores.items() if name != best)
    fits = np.clip(1 + (scores[best] + 0.1) / 0.6, 0, 1)  # a mean log likelihood of -0.7 is chance
    return float(fits * np.clip(0.5 + 5 * (scores[best] - others), 0, 1))


def _nearest(color: np.ndarray, palette: dict, chroma: float) -> dict[str, float]:
    """The difference of a colour in L*a*b* to each of a palette, whose chroma is scaled."""
    return {name: float(_difference(color, np.array(lab(one)) * [1, chroma, chroma])) for name, one in palette.items()}


# --- skin, eyes, glasses, beard --------------------------------------------------------------------------------------


def read_skin(points: np.ndarray, colors: np.ndarray) -> tuple[float, float]:
    """`skin` in [0, 1], and how sure it is, from points (478, 2) and the picture in L*a*b*.

    By the individual typology angle atan((L* - 50) / b*) (Chardon et al. 1991), which changes less with the light than
    the lightness. Shadows and highlights are left out: the darkest 30 % and the brightest 20 % of the points.
    """
    places = np.concatenate([points[CHEEKS], points[FOREHEAD]])
    seen = np.concatenate([at(colors, places + shift) for shift in _around(points)])
    low, high = np.percentile(seen[:, 0], [30, 80])
    color = np.median(seen[(seen[:, 0] >= low) & (seen[:, 0] <= high)], axis=0)
    tones = [_typology(np.array(lab(tone))) for tone in SKIN]  # falls from the lightest to the darkest
    skin = float(np.interp(-_typology(color), -np.array(tones), np.linspace(0, 1, len(SKIN))))
    left, right = (np.median(at(colors, points[side])[:, 0]) for side in (CHEEKS[:4], CHEEKS[4:]))
    even = np.clip(1.2 - abs(left - right) / 25, 0, 1)
    exposed = np.clip((color[0] - 12) / 15, 0, 1) * np.clip((98 - color[0]) / 8, 0, 1)
    colored = np.clip(1.5 - np.hypot(color[1] - 14, color[2] - 20) / 30, 0, 1)  # coloured light moves it elsewhere
    return skin, float(even * exposed * colored)


def _typology(color: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(color[0] - 50, max(color[2], 4.0))))


def _around(points: np.ndarray) -> np.ndarray:
    """Shifts about a point, (9, 2): a square of 3 % of the face's width."""
    reach = 0.03 * np.linalg.norm(points[RIGHT] - points[LEFT])
    return np.array([(x, y) for x in (-reach, 0, reach) for y in (-reach, 0, reach)])


def read_eyes(points: np.ndarray, colors: np.ndarray, world: World) -> tuple[str, float]:
    """`eye_color`, and how sure it is: of the iris without pupil, lids and highlights."""
    seen, radius = [], 0.0
    angles = np.radians([-20, 0, 20, 40, 60, 120, 140, 160, 180, 200])  # clockwise from the right, below the upper lid
    for center, rim in IRISES:
        radius = float(np.linalg.norm(points[rim] - points[center], axis=1).mean())
        ring = np.column_stack([np.cos(angles), np.sin(angles)]) * radius * world.iris
        seen += [at(colors, points[center] + share * ring) for share in (0.55, 0.65, 0.75)]
    seen = np.concatenate(seen)
    low, high = np.percentile(seen[:, 0], [20, 70])
    color = np.median(seen[(seen[:, 0] >= low) & (seen[:, 0] <= high)], axis=0)
    far = _nearest(color, EYE, world.chroma**2)  # irises are even less colourful than hair
    name, next_one = sorted(far, key=lambda one: far[one])[:2]
    sure = np.clip((far[next_one] - far[name]) / 10, 0, 1) * np.clip((radius - 2) / 4, 0, 1)
    return (name, float(sure)) if sure > 0.15 else ("brown", float(sure))


def read_glasses(face: Face, pixels: np.ndarray) -> tuple[str, float]:
    """`glasses`, and how sure it is: lines over the bridge of the nose and below both eyes, where skin has none."""
    band, step = _eye_band(face, pixels), 1 / 100
    colors = cv2.GaussianBlur(to_lab(band), (3, 3), 0)
    edges = np.zeros(band.shape[:2])
    edges[1:-1] = np.linalg.norm(colors[2:] - colors[:-2], axis=2) / 2

    def strongest(x: tuple[float, float], y: tuple[float, float]) -> float:
        x0, x1, y0, y1 = (round(value / step) for value in (x[0] + 0.8, x[1] + 0.8, y[0] + 0.25, y[1] + 0.25))
        return float(np.median(edges[y0:y1, x0:x1].max(axis=0)))

    rims = strongest((-0.42, -0.20), (0.15, 0.42)), strongest((0.20, 0.42), (0.15, 0.42))
    line = min(2 * strongest((-0.06, 0.06), (-0.12, 0.14)), *rims)
    if line < 8:
        return "none", float(np.clip((8 - line) / 5, 0, 1))
    return _frame_shape(edges), float(np.clip((line - 6) / 5, 0, 1))


def _frame_shape(edges: np.ndarray) -> str:
    """Round or square: how much lower the rim is below the middle of the eye than further in and out, in pixels."""
    heights = []
    for x in (0.20, 0.31, 0.42, 0.50):
        columns = [round((0.8 + side * x) * 100) for side in (-1, 1)]
        heights.append(np.mean([edges[38:72, x - 2 : x + 3].mean(axis=1).argmax() for x in columns]))
    inner, left, right, outer = heights
    return "round" if (left + right - inner - outer) / 2 > 1.2 else "square"


def _eye_band(face: Face, pixels: np.ndarray) -> np.ndarray:
    """The eyes, turned upright: uint8 (80, 160, 3), 100 pixels from outer corner to outer corner."""
    p = face.landmarks[:, :2].astype(np.float64)
    across = p[263] - p[33]
    down = np.array([-across[1], across[0]])
    x, y = np.meshgrid((np.arange(160) + 0.5) / 100 - 0.8, (np.arange(80) + 0.5) / 100 - 0.25)
    sampled = ((p[33] + p[263]) / 2 + x[..., None] * across + y[..., None] * down).astype(np.float32)
    side = int(np.linalg.norm(across) / 120)
    pixels = cv2.blur(pixels, (side, side)) if side > 1 else pixels
    return cv2.remap(pixels, sampled[..., 0], sampled[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


# Where a beard grows: on the chin, along both jaws, and above the lip.
CHIN_POINTS, JAW_LEFT, JAW_RIGHT, LIP_POINTS = [199, 175, 152, 171, 396], [136, 150, 169, 210], [365, 379, 394, 430], [
    164, 167, 393, 165, 391]  # fmt: skip


def read_beard(points: np.ndarray, colors: np.ndarray) -> tuple[str, float]:
    """`facial_hair`, and how sure it is: parts that are darker than any shadow, or darker and greyer than the cheeks.

    In a shadow, a* and b* shrink with the lightness; hair is greyer than that. On rendered heads without a beard, lit
    from all sides, chin and jaw are never darker than 0.42 of the cheeks, the lip never than 0.8. Stubble is not read.
    """
    skin = np.median(at(colors, points[CHEEKS + FOREHEAD]), axis=0)

    def hairy(indices: list[int], darkest: float = 0.40) -> float:
        seen = np.median(np.concatenate([at(colors, points[indices] + shift) for shift in _around(points)]), axis=0)
        ratio = seen[0] / max(skin[0], 1)
        shadow = skin[1:] * min(ratio, 1.0)
        greyer = np.linalg.norm(shadow) - np.linalg.norm(seen[1:])
        return float(max(1 + (darkest - ratio) / 0.1, min((0.72 - ratio) / 0.12, greyer / 4)))

    chin, jaw, lip = hairy(CHIN_POINTS), min(hairy(JAW_LEFT), hairy(JAW_RIGHT)), hairy(LIP_POINTS, 0.60)
    kinds = {"beard": min(chin, jaw), "goatee": min(chin, 1 - jaw), "moustache": min(lip, 1 - chin)}
    for kind, strength in kinds.items():
        if strength > 1:
            return kind, float(np.clip(strength / 2, 0, 1))
    return "none", float(np.clip(0.5 - max(kinds.values()), 0, 1))


# --- the whole likeness ----------------------------------------------------------------------------------------------

# How well a proportion gives the factor that a face was drawn with: the correlation on neutral validation drawings. Of
# drawings the size of the eyes and the arch of the brows cannot be read; of people it has not been measured.
TRUST = {
    "face_width": 0.55, "jaw_width": 0.75, "chin": 0.45, "eye_size": 0.1, "eye_spacing": 0.65, "eye_tilt": 0.85,
    "brow_arch": 0.1, "nose_width": 0.3, "nose_length": 0.3, "mouth_width": 0.8, "lip_fullness": 0.8,
}  # fmt: skip
NOT_READ = ("age", "brow_thickness", "ear_size", "freckles")  # they keep a plain value
PLAIN = {"age": 0.3, "freckles": "none", "hair_color": "dark_brown", "facial_hair": "none", "glasses": "none"}
SURE = 0.5  # the confidence from which glasses and beards are drawn


def z_scores(face: Face, colors: np.ndarray, world: World) -> dict[str, float]:
    """The proportions as z-scores of the world's norms, without what the expression changes."""
    scores = {}
    for name, value in proportions(face, colors).items():
        mean, deviation, changes = world.norms[name]
        change = sum(weight * max(face.blendshape(shape) - 0.2, 0) for shape, weight in changes.items())
        scores[name] = (value - change - mean) / deviation
    return scores


def read_likeness(
    face: Face, pixels: np.ndarray, world: World = PEOPLE
) -> tuple[Identity, Appearance, dict[str, float]]:
    """The identity and the appearance of a face, and the confidence of each factor in [0, 1], by name.

    Args:
        face: with landmarks in `pixels`.
        pixels: the picture, uint8 (H, W, 3).
    """
    colors, points = to_lab(pixels), face.landmarks[:, :2]
    frame = Frame.of(face, pixels, world.skull)
    width = float(np.linalg.norm(points[RIGHT] - points[LEFT]))
    ahead = float(np.clip((face.rotation[2, 2] - 0.8) / 0.15, 0, 1))  # 1 within 18 degrees, 0 from 37 on
    large = float(np.clip((width - 20) / 60, 0, 1))
    factors: dict[str, Any] = dict(PLAIN)
    sure: dict[str, float] = dict.fromkeys(NOT_READ, 0.0)
    for name, z in z_scores(face, colors, world).items():
        low = -1 if name == "eye_tilt" else 0
        middle, step = (0.0, 0.4) if name == "eye_tilt" else (0.5, 0.2)
        factors[name] = float(np.clip(middle + step * z, low, 1))
        sure[name] = TRUST[name] * ahead * large
    factors["skin"], sure["skin"] = read_skin(points, colors)
    hairs, hairs_sure = read_hair(frame, world.chroma)
    factors |= hairs
    factors["eye_color"], eyes_sure = read_eyes(points, colors, world)
    sure |= {name: value * large for name, value in (hairs_sure | {"eye_color": eyes_sure}).items()}
    for name, (value, confidence) in {
        "glasses": read_glasses(face, pixels),
        "facial_hair": read_beard(points, colors),
    }.items():
        confidence *= ahead * large
        factors[name], sure[name] = (value if confidence >= SURE else "none"), confidence
    appearance, appearance_sure = read_appearance(face, frame)
    return Identity(**factors), Appearance(**appearance), sure | appearance_sure


def read_appearance(face: Face, frame: Frame) -> tuple[dict[str, Any], dict[str, float]]:
    """Tilt of the head, colours of the background and of the clothes, where they are sure; the others stay plain."""
    y, x = (np.mgrid[:FRAME, :FRAME] + 0.5) / FRAME
    roll = np.degrees(np.arctan2(*(face.landmarks[263, 1::-1] - face.landmarks[33, 1::-1])))
    factors: dict[str, Any] = {"head_tilt": float(np.clip(roll / MAX_TILT, -1, 1))}
    sure: dict[str, float] = dict.fromkeys(Appearance.NAMES, 0.0) | {"head_tilt": 0.95}
    places = {
        "background": (((y < 0.1) | (abs(x - 0.5) > 0.42)) & (y < 0.6) & (frame.person < 0.3), 0.42, 0.4),
        "clothes": (body_mask() & (y > 0.93) & (abs(x - 0.5) > 0.12), 0.22, 0.5),
    }
    for name, (place, darkest, span) in places.items():
        seen = frame.pixels[place & frame.known]
        if len(seen) < 30:
            continue
        color = np.median(seen, axis=0) / 255
        spread = np.median(np.abs(seen / 255 - color))
        hue, lightness, saturation = colorsys.rgb_to_hls(*color.tolist())
        even = float(np.clip(1.3 - spread / 0.08, 0, 1))
        factors[f"{name}_lightness"] = float(np.clip((lightness - darkest) / span, 0, 1))
        sure[f"{name}_lightness"] = even
        if saturation > 0.12:  # a grey has no hue
            factors[f"{name}_hue"] = hue % 1
            sure[f"{name}_hue"] = even * float(np.clip(saturation / 0.3, 0, 1))
    return factors, sure
