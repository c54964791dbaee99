"""The two views of a face that the identity encoder reads: insightface's aligned crop, and a wider one around it.

Alignment turns, shifts and scales a picture so that the five landmarks come as near as they can to five fixed places.
In the plane such a map is z -> a z + b with complex a and b, so the best one in the least-squares sense is a formula.
"""

from __future__ import annotations

import cv2
import numpy as np

from gen_affect_lib.errors import UserError

SIZE = 112  # pixels a side of both views
# Where insightface wants the eyes, the tip of the nose and the corners of the mouth in a crop of 112 pixels.
PLACES = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)
# The wider view: the same places drawn together, so that hair, coverings and shoulders come into it.
WIDE_SCALE, WIDE_CENTER, WIDE_AT = 0.62, np.array([56.0, 64.0]), np.array([56.0, 62.0])
VIEWS = {"crop": PLACES, "wide": (PLACES - WIDE_CENTER) * WIDE_SCALE + WIDE_AT}


def similarity(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that brings points (M, 2) nearest to places (M, 2): float64 (2, 3), for cv2.

    Raises UserError where the points coincide or are not numbers.
    """
    points, places = np.asarray(points, np.float64), np.asarray(places, np.float64)
    if points.shape != places.shape or not np.isfinite(points).all():
        raise UserError(f"landmarks of shape {points.shape} cannot be aligned: give {places.shape} finite numbers")
    z, w = points @ (1, 1j), places @ (1, 1j)  # (M, 2) -> (M,) complex
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if spread < 1e-12:
        raise UserError("landmarks that all lie at one place cannot be aligned: give five different points")
    a = np.vdot(centred, w - w.mean()) / spread
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def aligned(image: np.ndarray, points: np.ndarray, view: str = "crop") -> np.ndarray:
    """One view of a face: uint8 (112, 112, 3) in the order of colours of `image`.

    Args:
        image: uint8 (H, W, 3).
        points: the five landmarks in pixels, (5, 2), in insightface's order.
        view: "crop", which is `insightface.utils.face_align.norm_crop`, or "wide". What lies outside the picture is the
            nearest pixel of it in the wide view, and black in the crop, as insightface does it.
    """
    if view not in VIEWS:
        raise UserError(f"view {view!r} does not exist: give one of {', '.join(VIEWS)}")
    border = cv2.BORDER_CONSTANT if view == "crop" else cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, similarity(points, VIEWS[view]), (SIZE, SIZE), borderMode=border)
