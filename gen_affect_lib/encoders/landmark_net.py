"""The landmark network: it refines the five landmarks of a detected face to a fraction of a pixel.

A detector processes every position of a picture, so it has little capacity per face: the error of its landmarks is a
tenth of the distance between the eyes, too much for alignment. As in insightface's packs, a second network therefore
reads an enlarged crop of the detector's box. Ours is small and predicts the same five points; insightface calls its
task `landmark_2d_5`.

Letters: B faces, S = 192 pixels a side of a crop.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from gen_affect_lib.encoders.detector import to_input
from gen_affect_lib.encoders.identity import IResidual

SIZE = 192  # insightface recognizes a landmark network by this input size
MARGIN = 1.5  # side of the crop over the larger side of the box
NAME = "landmark_2d_5"


class LandmarkNet(nn.Module):
    """Crops (B, 3, S, S), RGB, (value - 127.5) / 128, to landmarks (B, 10).

    The landmarks are x and y in turn, from -1 (left, top) to 1, in insightface's order.

    Args:
        widths: channels at 48, 24, 12 and 6 pixels a side.
        squeeze: channels before the linear layer that reads all positions.
    """

    def __init__(self, widths=(16, 32, 64, 96), squeeze: int = 24):
        super().__init__()
        self.sizes = dict(widths=list(widths), squeeze=squeeze)
        self.stem = nn.Sequential(  # (B, 3, 192, 192) -> (B, widths[0], 48, 48)
            nn.Conv2d(3, widths[0], 7, stride=4, padding=3, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.stages = nn.Sequential(*(IResidual(a, b, stride=2) for a, b in zip(widths, widths[1:])))
        self.squeeze = nn.Sequential(nn.Conv2d(widths[-1], squeeze, 1, bias=False), nn.BatchNorm2d(squeeze), nn.ReLU())
        self.point = nn.Linear(squeeze * (SIZE // 32) ** 2, 10)
        nn.init.zeros_(self.point.weight)

    def forward(self, crops: Tensor) -> Tensor:
        return self.point(self.squeeze(self.stages(self.stem(crops))).flatten(1))  # (B, squeeze, 6, 6) -> (B, 10)


def crop_face(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop of a picture (H, W, 3) around a box (4,), as insightface makes it.

    Returns uint8 (S, S, 3), black outside the picture, and the affine map (2, 3) from picture to crop.
    """
    scale = SIZE / (MARGIN * max(box[2] - box[0], box[3] - box[1]))
    shift = SIZE / 2 - scale * (box[:2] + box[2:]) / 2
    to_crop = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(image, to_crop, (SIZE, SIZE)), to_crop


@torch.no_grad()
def find_landmarks(net: LandmarkNet, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Landmarks in pixels (F, 5, 2) of the faces in boxes (F, 4) of a picture uint8 (H, W, 3), RGB."""
    if not len(boxes):
        return np.zeros((0, 5, 2), np.float32)
    crops, maps = zip(*(crop_face(image, box) for box in boxes))
    places = (net(to_input(np.stack(crops))).unflatten(1, (5, 2)).numpy() + 1) * SIZE / 2  # (F, 10) -> (F, 5, 2)
    scale, shift = np.stack([m[0, 0] for m in maps]), np.stack([m[:, 2] for m in maps])
    return (places - shift[:, None]) / scale[:, None, None]
