"""The two views of a face that the identity encoder reads: insightface's aligned crop and a wider one.

Alignment rotates, scales and shifts a picture so that its five landmarks are as close as possible to five fixed points.
In the complex plane such a map is z -> a z + b, and the least-squares solution for a and b is a formula.
"""

from __future__ import annotations

import cv2
import numpy as np

from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer

ALIGNMENT = Producer("aligned views", 1)

SIZE = 112  # pixels a side of both views
# insightface's positions of the eyes, the tip of the nose and the corners of the mouth in a crop of 112 pixels.
PLACES = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
# In the wider view the same points are closer together, so that it includes hair, coverings and shoulders.
WIDE_SCALE, WIDE_CENTER, WIDE_AT = 0.62, np.array([56.0, 64.0]), np.array([56.0, 62.0])
VIEWS = {"crop": PLACES, "wide": (PLACES - WIDE_CENTER) * WIDE_SCALE + WIDE_AT}


def similarity(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift from points (M, 2) to places (M, 2) with the least squared error.

    Returns float64 (2, 3), for cv2. Raises UserError for points that are not finite or that coincide.
    """
    points, places = np.asarray(points, np.float64), np.asarray(places, np.float64)
    if points.shape != places.shape or not np.isfinite(points).all():
        raise UserError(f"landmarks of shape {points.shape} cannot be aligned: give {places.shape} finite numbers")
    z, w = points @ (1, 1j), places @ (1, 1j)  # (M, 2) -> (M,) complex
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if spread < 1e-12:
        raise UserError("all landmarks are one point and cannot be aligned: give five different points")
    a = np.vdot(centred, w - w.mean()) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def aligned(image: np.ndarray, points: np.ndarray, view: str = "crop") -> np.ndarray:
    """One view of a face: uint8 (112, 112, 3), in the channel order of `image`.

    Args:
        image: uint8 (H, W, 3).
        points: the five landmarks in pixels, (5, 2), in insightface's order.
        view: "crop", which equals `insightface.utils.face_align.norm_crop`, or "wide". Outside the picture the crop is
            black, as in insightface; the wide view repeats the nearest pixel.

    Raises UserError for another view and for landmarks that cannot be aligned.
    """
    if view not in VIEWS:
        raise UserError(f"view {view!r} does not exist: give one of {', '.join(VIEWS)}")
    border = cv2.BORDER_CONSTANT if view == "crop" else cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, similarity(points, VIEWS[view]), (SIZE, SIZE), borderMode=border)
