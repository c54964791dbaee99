"""From the points and blendshapes of a face to the kit's action units, gaze and head turn.

`TABLE` is the usual correspondence of ARKit's blendshapes to FACS (https://arkit-face-blendshapes.com, and Ekman and
Friesen's manual), with the values at rest and at full strength that the landmarker gives. It is nearly blind for
cheekSquint, noseSneer and mouthDimple, and weak for browDown. `UnitModel` therefore reads units from the points and
from the picture of the face as well, as OpenFace does (Baltrusaitis et al. 2018).

Letters: M faces, F features, U learned units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.photo.landmarker import NAMES, Face

CROP, INNER = 112, slice(11, 101)  # pixels of the crop's side; its inner part
CONTRAST = 40.0  # the standard deviation of grey levels between brows and chin
CELLS, BINS = (8, 5), 9  # pixels of a cell's side, in the crop and in its inner part; directions
BLOCKS = (478 * 3, 52, (112 // 8) ** 2 * BINS, (90 // 5) ** 2 * BINS)  # parts of the features, see `stack`
FEATURES = sum(BLOCKS)
FURTHEST = 3.0  # standard deviations: further ones count as this, since photographs differ from renderings

# Unit: blendshapes (left and right are averaged, several are added), and their sum at rest and at full strength.
TABLE = {
    "au1": (("browInnerUp",), 0.15, 0.75),
    "au2": (("browOuterUp",), 0.25, 0.80),
    "au4": (("browDown",), 0.05, 0.50),
    "au5": (("eyeWide",), 0.04, 0.20),
    "au6": (("cheekSquint",), 0.02, 0.40),
    "au7": (("eyeSquint",), 0.40, 0.85),
    "au9": (("noseSneer",), 0.02, 0.40),
    "au10": (("mouthUpperUp",), 0.05, 0.60),
    "au12": (("mouthSmile",), 0.04, 0.85),
    "au14": (("mouthDimple",), 0.05, 0.40),
    "au15": (("mouthFrown",), 0.03, 0.50),
    "au17": (("mouthShrugLower",), 0.06, 0.60),
    "au20": (("mouthStretch",), 0.04, 0.55),
    "au24": (("mouthPress", "mouthRollLower", "mouthRollUpper"), 0.10, 0.80),
    "au25": (("mouthLowerDown", "mouthUpperUp", "jawOpen"), 0.06, 0.85),
    "au26": (("jawOpen",), 0.05, 0.60),
    "au43": (("eyeBlink",), 0.20, 0.75),
}
# Where head_yaw and head_pitch are 1, and pitch at rest, as the landmarker sees heads turned by 35 and 25 degrees.
TURN, PITCH_REST = np.radians((41.0, 25.0)), np.radians(-8.0)
# Landmarks of each eye: its outer and inner corner, the middle of the iris, and the outline of its opening.
EYES = (
    (33, 133, 468, (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)),
    (263, 362, 473, (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)),
)
EYE, REACH = 64, 0.8  # pixels of the side of the picture of an eye; half of that side in widths of the eye
DARK = 25  # the percentile of the brightness of an eye below which it is iris or pupil
# Offsets of the iris in widths of the eye where gaze_x and gaze_y are 1, and y at rest; the weight of the landmark in
# y. Up and down the offsets say little, so y is the least squares fit on rendered heads and stays near 0 when in doubt.
GAZE, GAZE_REST, LANDMARK = (0.155, 0.30), 0.122, 0.3


def face_crop(pixels: np.ndarray, face: Face) -> np.ndarray:
    """The face in grey, turned to the front as far as an affine map can: uint8 (CROP, CROP).

    The map takes the landmarks to the aligned points with the least squares. The crop shows 17 cm of the aligned frame,
    from brows to chin.

    Args:
        pixels: the picture in which the face was found, uint8 (H, W, 3), RGB.
    """
    flat = np.column_stack([face.landmarks[:, :2], np.ones(len(face.landmarks))])
    scale = CROP / 17.0
    wanted = (face.aligned[:, :2] * (1, -1) + (8.5, 7.5)) * scale  # in pixels of the crop
    to_crop = np.linalg.lstsq(flat, wanted, rcond=None)[0].T  # (2, 3)
    shrink = np.sqrt(abs(np.linalg.det(to_crop[:, :2])))
    if shrink < 0.7:  # average what bilinear sampling would skip
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 / shrink)
    crop = cv2.warpAffine(pixels, to_crop, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)


def hog(grey: np.ndarray, cell: int) -> np.ndarray:
    """Histograms of oriented gradients of a grey square (S, S), float32 (S / cell, S / cell, BINS).

    Dalal and Triggs 2005, in the short form of Felzenszwalb et al. 2010, as in OpenFace. In each cell of cell x cell
    pixels the gradients vote for BINS directions, modulo 180 degrees, with their lengths. The votes are divided by the
    lengths in four squares of 2 x 2 cells around the cell, so that the light's strength matters little, and the mean of
    the four quotients is taken.
    """
    grey, cells = grey.astype(np.float32), len(grey) // cell
    x, y = np.zeros_like(grey), np.zeros_like(grey)
    x[:, 1:-1], y[1:-1] = grey[:, 2:] - grey[:, :-2], grey[2:] - grey[:-2]
    direction = np.arctan2(y, x) % np.pi * (BINS / np.pi) - 0.5
    lower = np.floor(direction).astype(np.int64)
    length, share = np.hypot(x, y), direction - lower
    place = np.arange(len(grey)) // cell
    of_cell = place[:, None] * cells + place  # (S, S)
    votes = np.zeros(cells * cells * BINS)
    for direction, weight in ((lower % BINS, 1 - share), ((lower + 1) % BINS, share)):
        votes += np.bincount((of_cell * BINS + direction).ravel(), (length * weight).ravel(), len(votes))
    votes = votes.reshape(cells, cells, BINS)
    energy = (votes**2).sum(axis=2)
    squares = energy[:-1, :-1] + energy[1:, :-1] + energy[:-1, 1:] + energy[1:, 1:]
    # The constant, one grey level a pixel, keeps noise in smooth skin small.
    lengths = np.sqrt(np.pad(squares, 1, mode="edge") + cell**4)[..., None]
    around = (lengths[a : a + cells, b : b + cells] for a in (0, 1) for b in (0, 1))
    return np.mean([np.minimum(votes / one, 0.2) for one in around], axis=0).astype(np.float32)


def stack(points: np.ndarray, blendshapes: np.ndarray, crop: np.ndarray) -> np.ndarray:
    """What a model of units reads, float32 (F,): aligned points (478, 3), blendshapes (52,), histograms of a crop.

    The histograms are coarse over the whole crop (S, S), and finer between brows and chin.
    """
    grey = crop.astype(np.float32)
    grey *= CONTRAST / max(float(grey[INNER, INNER].std()), 4.0)  # dark skin and dim light count as much as bright ones
    parts = points, blendshapes, hog(grey, CELLS[0]), hog(grey[INNER, INNER], CELLS[1])
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def from_blendshapes(blendshapes: np.ndarray) -> dict[str, float]:
    """The 17 action units in [0, 1] by `TABLE`, from blendshapes (52,).

    Two units share their blendshape with another: in a smile, squinting is the raised cheek (AU6, Duchenne's
    smile) and no tightened lid (AU7), and the raised upper lip is part of the smile, not AU10.
    """
    b = dict(zip(NAMES, blendshapes.astype(float)))

    def both(name: str) -> float:
        return b[name] if name in b else (b[name + "Left"] + b[name + "Right"]) / 2

    units = {}
    for unit, (names, rest, full) in TABLE.items():
        units[unit] = (sum(map(both, names)) - rest) / (full - rest)
    smile = min(max(units["au12"], 0.0), 1.0)
    units["au6"] = max(units["au6"], smile * min(both("eyeSquint") / 0.5, 1.0))
    units["au7"] *= 1 - smile
    units["au10"] -= 0.8 * smile
    return {unit: float(np.clip(strength, 0, 1)) for unit, strength in units.items()}


def head_turn(face: Face) -> tuple[float, float]:
    """`head_yaw` and `head_pitch` in [-1, 1]: to the viewer's right and up."""
    ahead = face.rotation[2]  # where the average face's z axis points
    yaw, pitch = np.arctan2(ahead[0], ahead[2]), np.arcsin(np.clip(ahead[1], -1, 1)) - PITCH_REST
    return float(np.clip(yaw / TURN[0], -1, 1)), float(np.clip(pitch / TURN[1], -1, 1))


def dark_offset(face: Face, pixels: np.ndarray) -> float:
    """How far iris and pupil lie above the line between the corners of their eye, in its widths: the mean of both eyes.

    They are the darkest quarter of what lies between the lids, not far from the landmark of the iris, weighted by how
    dark they are. The landmark itself hardly follows them up and down.

    Args:
        pixels: the picture in which the face was found, uint8 (H, W, 3), RGB.
    """
    points, heights = face.landmarks[:, :2].astype(np.float64), []
    places = ((np.arange(EYE) + 0.5) / EYE * 2 - 1) * REACH
    x, y = np.meshgrid(places, places)  # (EYE, EYE), in widths of the eye
    for *corners, iris, outline in EYES:
        left, right = sorted(points[corners], key=lambda point: point[0])
        across, middle = right - left, (left + right) / 2
        down = np.array([-across[1], across[0]])
        sampled = (middle + x[..., None] * across + y[..., None] * down).astype(np.float32)
        eye = cv2.remap(pixels, sampled[..., 0], sampled[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        bright = cv2.GaussianBlur(eye.max(axis=2), (0, 0), 1.0).astype(np.float32)
        inside = (points - middle) @ np.stack([across, down], axis=1) / (across @ across)  # in widths of the eye
        opening = np.zeros((EYE, EYE), np.uint8)
        cv2.fillPoly(opening, [np.round((inside[list(outline)] / REACH + 1) / 2 * EYE - 0.5).astype(np.int32)], 1)
        radius = np.linalg.norm(inside[iris + 1 : iris + 5] - inside[iris], axis=1).mean()
        near = (opening > 0) & (np.abs(x - inside[iris, 0]) < 1.5 * radius)
        if near.any():
            weights = np.maximum(np.percentile(bright[near], DARK) - bright[near], 0) + 1e-6
            heights.append(-np.average(y[near], weights=weights))
    return float(np.mean(heights)) if heights else 0.0


def gaze(face: Face, dark: float) -> tuple[float, float]:
    """`gaze_x` and `gaze_y` in [-1, 1], relative to the head: to the viewer's right and up.

    The irises are compared with the middle between the corners of their eye, in the aligned face. gaze_y also takes
    the dark part of the eyes, `dark_offset`.
    """
    p, offsets = face.aligned[:, :2], []
    for outer, inner, iris, _ in EYES:
        offsets.append((p[iris] - (p[outer] + p[inner]) / 2) / np.linalg.norm(p[outer] - p[inner]))
    x, y = np.mean(offsets, axis=0)
    height = dark + LANDMARK * y
    return float(np.clip(x / GAZE[0], -1, 1)), float(np.clip((height - GAZE_REST) / GAZE[1], -1, 1))


def read_units(face: Face, pixels: np.ndarray, model: UnitModel | None = None) -> Expression:
    """The expression of a face in a picture (H, W, 3): units of the model as it gives them, the others by `TABLE`."""
    return read_crop(face, face_crop(pixels, face), dark_offset(face, pixels), model)


def read_crop(face: Face, crop: np.ndarray, dark: float, model: UnitModel | None = None) -> Expression:
    """`read_units` with the crop of the face (CROP, CROP) and the `dark_offset` of its eyes in place of the picture.

    Lips that are parted are not pressed together (AU24), and the blendshapes know parted lips from photographs.
    """
    values = from_blendshapes(face.blendshapes)
    parted = values["au25"]
    if model is not None:
        read = model.predict(stack(face.aligned, face.blendshapes, crop)[None])
        values |= dict(zip(model.units, read[0].tolist()))
        values["au24"] *= 1 - parted
    names = ("gaze_x", "gaze_y", "head_yaw", "head_pitch")
    values |= dict(zip(names, (*gaze(face, dark), *head_turn(face))))
    return Expression(**values)


@dataclass(frozen=True)
class UnitModel:
    """A linear model of units, of standardised features that are clipped to FURTHEST.

    Attributes:
        units: the action units, U names such as "au4".
        middle, scale: mean and standard deviation of the features, float32 (F,).
        weight, bias: float32 (U, F) and (U,).
    """

    units: tuple[str, ...]
    middle: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The units of M faces in [0, 1], from (M, F) to (M, U)."""
        standard = np.clip((features - self.middle) / self.scale, -FURTHEST, FURTHEST)
        return (standard @ self.weight.T + self.bias).clip(0, 1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "model.safetensors") as partial:
            save_file({name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}, partial)
        write_json(folder / "config.json", {"units": list(self.units), "features": FEATURES})

    @classmethod
    def load(cls, folder: Path) -> UnitModel:
        """The model that `save` has written. Raises UserError if it is missing, damaged or for other features."""
        try:
            config = json.loads((folder / "config.json").read_text())
            weights = load_file(folder / "model.safetensors")
            model = cls(tuple(config["units"]), *(weights[name] for name in ARRAYS))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{folder} holds no model of units ({error!r:.100}): restore it, or train it again"
            ) from error
        if model.weight.shape != (len(model.units), FEATURES):
            raise UserError(f"{folder} holds a model of other features than this kit's {FEATURES}: train it again")
        return model


ARRAYS = ("middle", "scale", "weight", "bias")
