"""Is this a photograph of a person, or a drawing of the kit or a picture that it generated?

A logistic regression on how flat the colours around the face are and on ten proportions of the face: drawn eyes are
large, and drawn noses narrow. It was fitted on drawings, generated pictures, rendered heads and the two photographs
that come with other packages, as they are, and smaller, larger, blurred, darker, grey and as JPEG.
"""

from __future__ import annotations

import cv2
import numpy as np

from gen_affect_lib.photo.landmarker import Face

FACE_WIDTH = 128  # to which a face is scaled, in pixels
WEIGHTS = {
    "flat": 9.5,
    "change": -0.2,
    "chin": -27.3,
    "mouth": 29.5,
    "nose": -35.3,
    "forehead": -80.2,
    "pupils": 57.7,
    "jaw": -75.2,
    "opening": 16.8,
    "brows": 46.4,
    "iris": 88.5,
    "lower jaw": 41.5,
}
BIAS = 33.5


def is_drawn(pixels: np.ndarray, face: Face) -> bool:
    """Whether a picture is a drawing or a generated picture, from its pixels (H, W, 3) and a face in it."""
    values = flatness(pixels, face) | proportions(face)
    return BIAS + sum(weight * values[name] for name, weight in WEIGHTS.items()) > 0


def flatness(pixels: np.ndarray, face: Face) -> dict[str, float]:
    """The share of flat places around a face, and the logarithm of the median change of colour within 5 x 5 pixels."""
    center, width = (face.box[:2] + face.box[2:]) / 2, float(face.box[2] - face.box[0])
    left, top = np.maximum(center - 0.75 * width, 0).astype(int)
    right, bottom = (center + 0.75 * width).astype(int)
    part, scale = pixels[top:bottom, left:right], FACE_WIDTH / width
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=smooth).astype(np.float32) / 255
    colors = cv2.cvtColor(part, cv2.COLOR_RGB2LAB)
    mean = cv2.blur(colors, (5, 5))
    deviation = np.sqrt(np.maximum(cv2.blur(colors**2, (5, 5)) - mean**2, 0)).sum(axis=2)
    return {"flat": float((deviation < 0.5).mean()), "change": float(np.log(np.median(deviation) + 0.1))}


def proportions(face: Face) -> dict[str, float]:
    """Distances in widths of the face, turned to the front."""
    p = face.aligned[:, :2]

    def apart(i: int, j: int) -> float:
        return float(np.linalg.norm(p[i] - p[j]))

    brows = (p[105, 1] - p[159, 1] + p[334, 1] - p[386, 1]) / 2
    values = {
        "chin": apart(2, 152),
        "mouth": apart(61, 291),
        "nose": apart(129, 358),
        "forehead": apart(10, 168),
        "pupils": apart(468, 473),
        "jaw": apart(172, 397),
        "opening": (apart(159, 145) + apart(386, 374)) / 2,
        "brows": float(brows),
        "iris": (apart(469, 471) + apart(474, 476)) / 2,
        "lower jaw": apart(149, 378),
    }
    return {name: value / apart(234, 454) for name, value in values.items()}
