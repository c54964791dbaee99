"""A second look at a face: the five landmarks again, to a part of a pixel, by a network that sees nothing else.

A detector looks at every place of a picture, so it can spend little on each face; its landmarks are off by a tenth of
the distance of the eyes. That is enough to find a face, not to align one. insightface's packs have a second network for
this, which looks at the detector's box again, enlarged; ours is small and gives the same five points, which insightface
hands out as `landmark_2d_5`.

Letters: B faces, S = 192 pixels a side of what is looked at.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from gen_affect_lib.encoders.detector import to_input
from gen_affect_lib.encoders.identity import IResidual

SIZE = 192  # by its input's size insightface knows such a network
MARGIN = 1.5  # a look is so many times as wide as the box
NAME = "landmark_2d_5"


class LandmarkNet(nn.Module):
    """From a look at a face (B, 3, S, S), RGB, (value - 127.5) / 128, to its landmarks (B, 10): x and y in turn, from -1
    (left, top) to 1, in insightface's order.

    Args:
        widths: channels at 48, 24, 12 and 6 pixels a side.
        squeeze: channels that are left before all places are read by one linear map.
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

    def forward(self, looks: Tensor) -> Tensor:
        return self.point(self.squeeze(self.stages(self.stem(looks))).flatten(1))  # (B, squeeze, 6, 6) -> (B, 10)


def look_at(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What insightface shows of a picture (H, W, 3) with a face in box (4,): uint8 (S, S, 3), and the map there (2, 3).

    Black where the picture ends.
    """
    scale = SIZE / (MARGIN * max(box[2] - box[0], box[3] - box[1]))
    shift = SIZE / 2 - scale * (box[:2] + box[2:]) / 2
    there = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(image, there, (SIZE, SIZE)), there


@torch.no_grad()
def find_landmarks(net: LandmarkNet, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Landmarks in pixels (F, 5, 2) of faces in boxes (F, 4) of a picture uint8 (H, W, 3), RGB."""
    if not len(boxes):
        return np.zeros((0, 5, 2), np.float32)
    looks, theres = zip(*(look_at(image, box) for box in boxes))
    places = (net(to_input(np.stack(looks))).unflatten(1, (5, 2)).numpy() + 1) * SIZE / 2  # (F, 10) -> (F, 5, 2)
    scale, shift = np.stack([t[0, 0] for t in theres]), np.stack([t[:, 2] for t in theres])
    return (places - shift[:, None]) / scale[:, None, None]
