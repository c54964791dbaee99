"""Read a photograph of a person: identity, expression and appearance of an avatar, and how sure each factor is.

Everything happens in memory: nothing of the photograph is written, and nothing leaves the machine. A reading is what
the face shows, not what somebody feels, and a likeness, not a recognition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.photo.kind import is_drawn
from gen_affect_lib.photo.landmarker import CERTAIN, Face, FaceLandmarker
from gen_affect_lib.photo.likeness import read_likeness, to_lab
from gen_affect_lib.photo.units import UnitModel, read_units
from gen_affect_lib.pictures import Source, choose_face, open_picture

UNITS = CHECKPOINTS / "photo"  # the learned model of units
SMALLEST, SIDEWAYS, DARKEST = 40, 0.6, 14  # pixels of the face's width; cosine of its turn; lightness of its skin
READ_WIDTH = 240  # of a face in pixels; larger ones are reduced


@dataclass(frozen=True)
class PhotoReading:
    """What a photograph shows of one person.

    Attributes:
        identity, expression, appearance: the factors of an avatar.
        confidence: of each factor of the three, in [0, 1], by name; 0: not read, a plain value stands there.
        landmarks: float32 (478, 2), in pixels of the photograph, upright.
        box: float32 (4,), left, top, right and bottom of the landmarks.
    """

    identity: Identity
    expression: Expression
    appearance: Appearance
    confidence: dict[str, float]
    landmarks: np.ndarray
    box: np.ndarray

    @property
    def avatar(self) -> Avatar:
        """The person with the expression of the photograph."""
        return Avatar(self.identity, self.expression, self.appearance)

    @property
    def neutral(self) -> Avatar:
        """The person without expression, looking ahead: the reference for a generator."""
        return Avatar(self.identity, Expression.neutral(), self.appearance)

    @property
    def meaning(self) -> ExpressionReading:
        """Words, valence and arousal of the expression, in closed form."""
        return ExpressionReading.of_vectors(self.expression.to_vector()[None])

    def __str__(self) -> str:
        """A table of the factors, with the confidence of each."""
        lines = []
        for values in (self.identity, self.expression, self.appearance):
            for name in values.NAMES:
                value, sure = getattr(values, name), self.confidence[name]
                if sure == 0 or isinstance(values, Expression) and abs(value) < 0.02:
                    continue
                shown = value if isinstance(value, str) else f"{value:.2f}"
                lines.append(f"{name.replace('_', ' '):24}{shown:>14}{sure:>12.0%}")
        return "\n".join([f"{'factor':24}{'read':>14}{'confidence':>12}", *lines, "shows: " + self.meaning.words[0]])

    def to_json(self) -> dict:
        """The reading as numbers and names, without the photograph."""
        groups = {"identity": self.identity, "expression": self.expression, "appearance": self.appearance}
        factors = {
            group: {name: _plain(getattr(values, name)) for name in values.NAMES} for group, values in groups.items()
        }
        sure = {name: round(value, 3) for name, value in self.confidence.items()}
        return factors | {"words": self.meaning.words, "confidence": sure, "box": self.box.round(1).tolist()}


def _plain(value) -> float | str:
    return value if isinstance(value, str) else round(float(value), 4)


@dataclass(frozen=True)
class Seen:
    """What a photograph was read from, and the reading: for those who read it in another way.

    Attributes:
        pixels: the surroundings of the face, uint8 (H, W, 3), RGB.
        face: with landmarks in pixels of `pixels`.
        reading: what `read_photo` gives.
    """

    pixels: np.ndarray
    face: Face
    reading: PhotoReading


def read_photo(
    picture: Source,
    which: int | str | None = None,
    landmarker: FaceLandmarker | None = None,
    name: str = "the photograph",
) -> PhotoReading:
    """Read the person in a photograph: the reading of `see_photo`, which says what is read and what is refused."""
    return see_photo(picture, which, landmarker, name).reading


def see_photo(
    picture: Source,
    which: int | str | None = None,
    landmarker: FaceLandmarker | None = None,
    name: str = "the photograph",
) -> Seen:
    """Find the person in a photograph and read them.

    Even light from the front and a face that looks ahead are read best. Profiles, masks, sunglasses and coloured light
    are not read well.

    Args:
        picture: a path, a PIL image or an array uint8, of any size and mode, see `pictures.open_picture`.
        which: for several people "largest", or a number from 0, counted from left to right.
        landmarker: loaded once for many photographs; by default for this one.
        name: of the picture in error messages, unless it is a file.

    Raises UserError for anything that is no picture, for a picture without a face or with several and no valid `which`,
    for a face that is too small, too dark or turned away, for a drawing, and if the landmarker is not installed.
    """
    opened = open_picture(picture, name)
    faces = (landmarker or FaceLandmarker.load()).faces(opened)
    return _see(np.asarray(opened), faces, which, _called(picture, name))


def read_if_photograph(
    picture: Source, which: int | str | None, landmarker: FaceLandmarker, name: str
) -> PhotoReading | None:
    """`read_photo` of a photograph; None for anything else, see `is_photograph`, and for what is no picture at all."""
    try:
        opened = open_picture(picture)
    except UserError:
        return None
    pixels, faces = np.asarray(opened), landmarker.faces(opened)
    if not _photographed(pixels, faces):
        return None
    return _see(pixels, faces, which, _called(picture, name)).reading


def _called(picture: Source, name: str) -> str:
    return f"{picture!s:.200}" if isinstance(picture, (str, Path)) else name


def _see(pixels: np.ndarray, faces: list[Face], which: int | str | None, what: str) -> Seen:
    face = _choose(faces, which, what)
    width = float(face.box[2] - face.box[0])
    if width < SMALLEST:
        raise UserError(f"the face in {what} is only {width:.0f} pixels wide: give one of at least {SMALLEST}")
    if face.rotation[2, 2] < SIDEWAYS:
        raise UserError(f"the face in {what} looks aside: give a photograph of a face that looks at the camera")
    part, near = _close_up(pixels, face)
    lightness = float(np.median(to_lab(part)[_inside(near, part.shape)][:, 0]))
    if lightness < DARKEST:
        raise UserError(f"the face in {what} is too dark to be read: give a photograph in even light")
    if is_drawn(part, near):
        raise UserError(f"{what} is a drawing and no photograph: give it as it is, with --as-drawn or as_drawn=True")
    if face.presence < CERTAIN:
        raise UserError(f"no person's face found in {what}: give a photograph of a person who looks at the camera")
    identity, appearance, confidence = read_likeness(near, part)
    expression = read_units(near, part, unit_model())
    confidence |= expression_confidence(near, width)
    reading = PhotoReading(identity, expression, appearance, confidence, face.landmarks[:, :2], face.box)
    return Seen(part, near, reading)


@lru_cache(maxsize=1)
def unit_model() -> UnitModel:
    """The shipped model of units, loaded once in a process. Raises UserError if it is missing or damaged."""
    return UnitModel.load(UNITS)


def is_photograph(picture: Source, landmarker: FaceLandmarker) -> bool:
    """Whether the largest face of a picture is photographed, and neither drawn nor generated. False without a face."""
    opened = open_picture(picture)
    return _photographed(np.asarray(opened), landmarker.faces(opened))


def _photographed(pixels: np.ndarray, faces: list[Face]) -> bool:
    if not faces:
        return False
    part, near = _close_up(pixels, choose_face(faces, "largest", ""))
    return near.presence >= CERTAIN and not is_drawn(part, near)


# How well a unit is read of rendered heads: the correlations of data/reference/photo.json.
UNIT_TRUST = {
    "au1": 0.84, "au2": 0.81, "au4": 0.72, "au5": 0.80, "au6": 0.82, "au7": 0.65, "au9": 0.78, "au10": 0.68,
    "au12": 0.89, "au14": 0.56, "au15": 0.61, "au17": 0.56, "au20": 0.68, "au24": 0.68, "au25": 0.57, "au26": 0.71,
    "au43": 0.95, "gaze_x": 0.93, "gaze_y": 0.41, "head_yaw": 0.99, "head_pitch": 0.86,
}  # fmt: skip


def expression_confidence(face: Face, width: float) -> dict[str, float]:
    """How sure each number of the expression is: less for small faces and for faces that look aside."""
    quality = float(np.clip((face.rotation[2, 2] - 0.5) / 0.4, 0, 1) * np.clip((width - 20) / 60, 0, 1))
    closed = face.blendshape("eyeBlink")
    hidden = {"gaze_x": 1 - closed, "gaze_y": 1 - closed}
    return {name: UNIT_TRUST[name] * quality * hidden.get(name, 1.0) for name in Expression.NAMES}


def _choose(faces: list[Face], which: int | str | None, what: str) -> Face:
    if not faces:
        raise UserError(f"no face found in {what}: give a photograph of a person who looks at the camera")
    return choose_face(faces, which, what)


def _close_up(pixels: np.ndarray, face: Face) -> tuple[np.ndarray, Face]:
    """The surroundings of a face, twice its height to each side and at most `READ_WIDTH` wide, and the face in them."""
    low, high = face.box[:2], face.box[2:]
    center, reach = (low + high) / 2, 2 * float(max(high - low))
    left, top = np.maximum(np.floor(center - reach), 0).astype(int)
    right, bottom = np.minimum(np.ceil(center + reach), pixels.shape[1::-1]).astype(int)
    part = pixels[top:bottom, left:right]
    scale = min(1.0, READ_WIDTH / float(high[0] - low[0]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    landmarks = (face.landmarks - [left, top, 0]) * scale
    box = (face.box - [left, top, left, top]) * scale
    return part, replace(face, landmarks=landmarks.astype(np.float32), box=box.astype(np.float32))


def _inside(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """The face without its surroundings: bool (H, W)."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(face.landmarks[:, :2].astype(np.int32)), 1)
    return mask > 0


def close_up(picture: Source, box: np.ndarray) -> Image.Image:
    """The square of a photograph around a face as large as an avatar's, for showing; white outside the picture."""
    opened, center, side = open_picture(picture), (box[:2] + box[2:]) / 2, 1.9 * float(max(box[2:] - box[:2]))
    left, top = center - side / 2 - [0, 0.06 * side]
    square = Image.new("RGB", (round(side), round(side)), "white")
    square.paste(opened, (-round(left), -round(top)))
    return square
