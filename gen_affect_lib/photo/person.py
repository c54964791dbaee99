"""Where a picture shows a person: Google's selfie segmentation.

A network of 249 KB, Apache 2.0 (see data/checkpoints/person/README.md), with the constants of
`mediapipe/modules/selfie_segmentation/` in github.com/google-ai-edge/mediapipe. It sees head and shoulders of one
person at 256 x 256 pixels, and it runs in OpenCV, as the face landmarker does.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import cv2
import numpy as np

from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.photo.landmarker import Face, read_network

WEIGHTS = CHECKPOINTS / "person" / "selfie_segmentation.tflite"
SHA256 = "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27"
SIDE = 256  # pixels that the network sees
REACH, ABOVE = 2.8, 0.57  # side of the seen square in heights of the face; share of it below the face's middle


def person_mask(pixels: np.ndarray, face: Face) -> np.ndarray:
    """The probability that a pixel shows the person with this face: float32 (H, W); 0 far from the face.

    pixels: the picture in which the face was found, uint8 (H, W, 3), RGB.
    """
    center, side = (face.box[:2] + face.box[2:]) / 2, REACH * float(max(face.box[2:] - face.box[:2]))
    scale = SIDE / side
    to_square = np.array([[scale, 0, SIDE / 2 - scale * center[0]], [0, scale, SIDE * (1 - ABOVE) - scale * center[1]]])
    if scale < 0.7:  # average what bilinear sampling would skip
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 / scale)
    square = cv2.warpAffine(pixels, to_square, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    network = _network()
    network.setInput((square.astype(np.float32) / 255).transpose(2, 0, 1)[None])
    mask = np.asarray(network.forward(), np.float32).reshape(SIDE, SIDE)  # (1, 256, 256, 1) -> (256, 256)
    return cv2.warpAffine(mask, to_square, pixels.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


@lru_cache(maxsize=1)
def _network():
    try:
        weights = WEIGHTS.read_bytes()
    except OSError as error:
        raise UserError(f"{WEIGHTS} cannot be read: restore it") from error
    if hashlib.sha256(weights).hexdigest() != SHA256:
        raise UserError(f"{WEIGHTS} is damaged: restore it")
    return read_network(str(WEIGHTS))
