"""What the adapter reads of a photograph: identity by insightface, expression, and where eyes and mouth are.

A face is personal data. Everything here is computed on this machine; nothing is sent anywhere.

Letters: h and w, rows and columns of image tokens; M faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.avatars.folder import METADATA, OTHER_LABELS, Entry
from gen_affect_lib.encoders import pack
from gen_affect_lib.encoders.affect import vector_of_point
from gen_affect_lib.encoders.expression import is_picture, read_expression
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.errors import UserError

# --- licences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Licence:
    """Terms of use: what they apply to, what they say in one sentence, and where they stand."""

    of: str
    says: str
    where: str

    def __str__(self) -> str:
        return f"{self.of}: {self.says} ({self.where})"


INSIGHTFACE = Licence(
    "insightface's face packs", "for non-commercial research only", "https://github.com/deepinsight/insightface"
)
STABILITY = Licence(
    "Stable Diffusion 3.5",
    "Stability AI Community License, free below one million US dollars of revenue a year",
    "https://stability.ai/license",
)


def require_consent(licences: list[Licence], accepted: bool, say: Callable[[str], object] = print) -> None:
    """Say the licences; raise UserError unless they are accepted."""
    for licence in licences:
        say(f"licence of {licence}")
    if licences and not accepted:
        raise UserError(
            f"the licence of {licences[0].of} ({licences[0].says}) has not been accepted: read it at "
            f"{licences[0].where}, and if it allows your use, give --accept-licence"
        )


def licences_of_faces(name: str | Path) -> list[Licence]:
    """The licence of a face pack: none for the kit's own, insightface's for its names and for all other folders."""
    folder = Path(name)
    return [] if folder.is_dir() and folder.resolve() == pack.FOLDER.resolve() else [INSIGHTFACE]


# --- identity --------------------------------------------------------------------------------------------------------


def open_faces(name: str | Path, accepted: bool, say: Callable[[str], object] = print) -> FacePack:
    """The face pack of a name ("buffalo_l", "antelopev2") or a folder, with one aligned view.

    The wider view is an invention of the kit's own recognizer; others were trained on aligned crops alone. Raises
    UserError if the licence is not accepted, and if the pack cannot be loaded.
    """
    require_consent(licences_of_faces(name), accepted, say)
    return FacePack(name, views=("crop",))


# --- expression ------------------------------------------------------------------------------------------------------


class PhotoReading(Protocol):
    """What the reading of photographs must give here."""

    @property
    def expression(self) -> Expression: ...


PhotoReader = Callable[[Image.Image | str | Path], PhotoReading]


def photo_reader() -> PhotoReader | None:
    """The kit's reading of photographs, of the largest face in each; None where its landmarker is not installed."""
    try:
        from gen_affect_lib.photo.landmarker import FaceLandmarker
        from gen_affect_lib.photo.reading import read_photo

        landmarker = FaceLandmarker.load()
    except (ImportError, UserError):
        return None
    return lambda picture: read_photo(picture, "largest", landmarker)


def meaning_by(reader: PhotoReader | None) -> Callable[[Entry], np.ndarray]:
    """For `FaceFolder`: the expression vector (21,) of a line without expression.

    It comes from valence and arousal if the line has them, else from the photograph. Raises UserError if neither can be
    had.
    """

    def meaning(entry: Entry) -> np.ndarray:
        if entry.affect is not None:
            return vector_of_point(*entry.affect).astype(np.float32)
        if reader is None:
            raise UserError(
                f"{METADATA} line {entry.line} has no expression, and this installation reads none from photographs: "
                "give a word, action units, or valence and arousal"
            )
        return reader(entry.path).expression.to_vector()

    return meaning


def representation(vector: np.ndarray, affect: tuple[float, float] | None = None) -> np.ndarray:
    """The expression representation float32 (48,) of a vector (21,); valence and arousal, if given, replace its own."""
    row = ExpressionReading.of_vectors(vector[None]).representation[0]
    if affect is not None:
        row[Expression.VECTOR_SIZE : Expression.VECTOR_SIZE + 2] = affect
    return row


def read_expressions(sources: list, reader: PhotoReader | None) -> np.ndarray:
    """Representations float32 (M, 48) of words, points, vectors, `Expression`s or photographs.

    Raises UserError for anything else, and for photographs where none can be read.
    """
    rows = []
    for source in sources:
        if is_picture(source):
            if reader is None:
                raise UserError(
                    f"{source!s:.100} is a photograph, and this installation reads no expression from it: give a word"
                )
            source = reader(source).expression
        elif isinstance(source, str):
            word = source.strip().lower()
            source = OTHER_LABELS.get(word, word)
        rows.append(read_expression(source).representation[0])
    return np.stack(rows)


# --- places ----------------------------------------------------------------------------------------------------------

EYES_AT, FACE_UNIT = 0.42, 0.2  # of a portrait's height: how far down the eyes are, and from the eyes to the mouth


def eyes_and_mouth(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle between the eyes and the middle of the mouth, (2,) each, of five landmarks (5, 2)."""
    return landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)


def portrait_box(landmarks: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> tuple[float, ...]:
    """The part of a photograph that is framed like all others: x0, y0, x1, y1 in its pixels.

    The eyes are at `EYES_AT` of the height, and the distance from the eyes to the mouth is `FACE_UNIT` of it. Where the
    photograph ends, the part is moved inside, and made smaller if it does not fit.

    Args:
        landmarks: float (5, 2) in pixels.
        size: width and height of the result, which give its shape.
        shape: width and height of the photograph.

    Raises UserError if eyes and mouth are at one place.
    """
    eyes, mouth = eyes_and_mouth(np.asarray(landmarks, float))
    unit = np.linalg.norm(mouth - eyes)
    if not unit > 0:
        raise UserError("the eyes and the mouth are at one place: give a picture with a frontal face")
    aspect = size[0] / size[1]
    height = min(unit / FACE_UNIT, shape[1], shape[0] / aspect)
    width = height * aspect
    left = np.clip((eyes[0] + mouth[0]) / 2 - width / 2, 0, shape[0] - width)
    top = np.clip(eyes[1] - EYES_AT * height, 0, shape[1] - height)
    return float(left), float(top), float(left + width), float(top + height)


def portrait(picture: Image.Image, landmarks: np.ndarray, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """A photograph framed by `portrait_box` in `size`, (width, height), and its landmarks as fractions (5, 2).

    Raises UserError if the part has fewer pixels than `size`: enlarging would teach a model to blur.
    """
    x0, y0, x1, y1 = portrait_box(landmarks, size, picture.size)
    if x1 - x0 < size[0] - 1:
        raise UserError(
            f"the portrait in it is {x1 - x0:.0f} × {y1 - y0:.0f} pixels: give a larger picture, or a smaller --size "
            f"than {size[0]} × {size[1]}"
        )
    framed = picture.resize(size, Image.Resampling.LANCZOS, box=(x0, y0, x1, y1))
    return framed, ((landmarks - (x0, y0)) / (x1 - x0, y1 - y0)).astype(np.float32)


def face_mask(landmarks: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Which of h × w image tokens cover brows, eyes or mouth on one of M faces: bool (h, w).

    The counterpart of `avatars.regions.face_tokens` for photographs. From the line between the eyes it reaches 0.5 of
    their distance up, over the brows, and 0.3 down; from the line between the corners of the mouth 0.3 up and down.
    Both lines are 0.3 longer at each end.

    Args:
        landmarks: float (M, 5, 2), as fractions of the picture.
        grid: (h, w).
    """
    h, w = grid
    inside = np.zeros(grid, bool)
    # In tokens: what is square in the picture is square here, since patches are.
    for left_eye, right_eye, _, left_mouth, right_mouth in np.asarray(landmarks, float) * (w, h):
        along = right_eye - left_eye
        down = np.array([-along[1], along[0]])
        for left, right, above, below in ((left_eye, right_eye, 0.5, 0.3), (left_mouth, right_mouth, 0.3, 0.3)):
            steps = 2 * max(h, w) + 1
            for across in np.linspace(-0.3, 1.3, steps):
                for beside in np.linspace(-above, below, steps):
                    x, y = left + across * (right - left) + beside * down
                    if 0 <= x < w and 0 <= y < h:
                        inside[int(y), int(x)] = True
    return torch.from_numpy(inside)
