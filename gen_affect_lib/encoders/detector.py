"""The face detector: a small network with the outputs of SCRFD (Guo et al. 2021), so that insightface can load it.

At three strides (8, 16 and 32 pixels) every position has two anchors, for smaller and larger faces. An anchor predicts
a score, the distances to the four sides of the box, and the offsets of the five landmarks; `decode` turns them into
faces as insightface does. The network predicts distances in units of the stride.

Letters: B pictures, F faces of one of them, A anchors (two per position) of all strides together.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
ANCHORS = 2  # per position
# The range of face sizes (square root of the area of the box, in pixels) that each anchor detects; two anchors per
# stride. Small strides detect relatively large faces, since finer positions give more exact landmarks.
SPANS = ((10, 28), (28, 56), (56, 84), (84, 128), (128, 208), (208, 420))


def conv(channels_in: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class FaceDetector(nn.Module):
    """Backbone, feature pyramid, and one head for all strides.

    Args:
        widths: channels at strides 4, 8, 16 and 32.
        neck: channels of the pyramid and of the head.
        exact: channels of the separate layers for landmarks. To locate a landmark to a tenth of a stride needs other
            features than to detect a face.
    """

    def __init__(self, widths=(24, 32, 64, 96), neck: int = 40, exact: int = 64):
        super().__init__()
        self.sizes = dict(widths=list(widths), neck=neck, exact=exact)
        w4, w8, w16, w32 = widths
        self.stem = conv(3, w4, kernel=7, stride=4)
        self.down = nn.ModuleList(
            [
                nn.Sequential(conv(w4, w8, stride=2), Residual(w8)),
                nn.Sequential(conv(w8, w16, stride=2), Residual(w16)),
                nn.Sequential(conv(w16, w32, stride=2), Residual(w32), Residual(w32)),
            ]
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, neck, 1) for width in widths[1:])
        self.smooth = nn.ModuleList(conv(neck, neck) for _ in STRIDES)
        self.tower = nn.Sequential(conv(neck, neck), conv(neck, neck))
        self.exact = nn.Sequential(conv(neck, exact), conv(exact, exact))
        self.score = nn.Conv2d(neck, ANCHORS, 3, padding=1)
        self.box = nn.Conv2d(neck, 4 * ANCHORS, 3, padding=1)
        self.point = nn.Conv2d(exact, 10 * ANCHORS, 3, padding=1)
        for layer, bias in ((self.score, -4.6), (self.box, 0.5), (self.point, 0.0)):  # score: sigmoid(-4.6) = 0.01
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(cast(Tensor, layer.bias), bias)
        # Predictions are multiplied by the geometric mean of an anchor's sizes, so the layers' outputs are of order 1.
        units = torch.tensor(SPANS).float().prod(dim=1).sqrt().reshape(len(STRIDES), ANCHORS)  # (6,) -> (3, 2)
        self.units: Tensor
        self.register_buffer("units", units / torch.tensor(STRIDES)[:, None], persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W), RGB, (value − 127.5) / 128, H and W multiples of 32, to nine tensors.

        Scores (B, A_s, 1) in [0, 1] for the strides 8, 16, 32; boxes (B, A_s, 4), the distances to left, top, right and
        bottom; landmarks (B, A_s, 10), x and y in turn. A_s = 2 H W / stride²: row by row, with the two anchors of a
        position in succession.
        """
        features, x = [], self.stem(images)
        for down in self.down:
            x = down(x)
            features.append(x)
        pyramid, above = [], None
        for lateral, smooth, feature in zip(reversed(self.lateral), reversed(self.smooth), reversed(features)):
            x = lateral(feature)
            above = x if above is None else x + F.interpolate(above, scale_factor=2, mode="nearest")
            pyramid.insert(0, smooth(above))
        scores, boxes, points = [], [], []
        for level, feature in enumerate(pyramid):
            x = self.tower(feature)
            scores.append(_rows(self.score(x), 1).sigmoid())
            boxes.append(_rows(self.box(x) * self._unit(level, 4), 4))
            points.append(_rows(self.point(self.exact(feature)) * self._unit(level, 10), 10))
        return scores + boxes + points

    def _unit(self, level: int, numbers: int) -> Tensor:
        return self.units[level].repeat_interleave(numbers)[None, :, None, None]  # (1, ANCHORS * numbers, 1, 1)


def _rows(x: Tensor, numbers: int) -> Tensor:
    """(B, ANCHORS * numbers, h, w) -> (B, h * w * ANCHORS, numbers)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, numbers)


def centers(height: int, width: int, device=None) -> tuple[Tensor, Tensor, Tensor]:
    """All anchors of a picture: positions (A, 2) in pixels, strides (A,), indices into SPANS (A,)."""
    places, strides, spans = [], [], []
    for level, stride in enumerate(STRIDES):
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        grid = torch.stack([x, y], dim=-1).reshape(-1, 2)  # (h, w, 2) -> (h * w, 2)
        grid = grid.repeat_interleave(ANCHORS, dim=0)
        places.append(grid * stride)
        strides.append(torch.full((len(grid),), stride))
        spans.append(torch.arange(len(grid)) % ANCHORS + ANCHORS * level)
    return torch.cat(places).to(device), torch.cat(strides).to(device), torch.cat(spans).to(device)


def decode(outputs: list[Tensor], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The nine outputs to scores (B, A), boxes (B, A, 4) and landmarks (B, A, 5, 2), in pixels."""
    scores, boxes, points = (torch.cat(outputs[3 * k : 3 * k + 3], dim=1) for k in range(3))
    places, strides, _ = centers(height, width, scores.device)
    boxes, points = boxes * strides[:, None], points * strides[:, None]
    boxes = torch.cat([places - boxes[..., :2], places + boxes[..., 2:]], dim=-1)
    return scores[..., 0], boxes, places[:, None] + points.unflatten(-1, (5, 2))  # (B, A, 10) -> (B, A, 5, 2)


def assign(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The target of each anchor, int (A,): an index into boxes (F, 4), or -1; and which are ignored, bool (A,).

    A face is the target of the anchors of its size at the positions around its centre. Anchors of nearly its size, and
    positions a little further out, are ignored: they are neither positives nor negatives of the loss.
    """
    places, strides, spans = centers(height, width, boxes.device)
    low, high = torch.tensor(SPANS, device=boxes.device).float()[spans].T[..., None]  # (A, 1) each
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]  # (F, 2) each
    size = sides.prod(dim=1).sqrt()[None]  # (1, F)
    away = (places[:, None] - middle[None]).abs().amax(dim=-1)  # (A, F)
    reach = torch.maximum(0.16 * size, 0.75 * strides[:, None])
    mine = (away <= reach) & (size >= low / 1.1) & (size < high * 1.1)
    near = (away <= torch.maximum(0.4 * size, 1.5 * strides[:, None])) & (size >= low / 1.6) & (size < high * 1.6)
    nearest = torch.where(mine, away / size, torch.inf).min(dim=1) if boxes.shape[0] else None
    if nearest is None:
        nothing = torch.zeros(len(places), dtype=torch.bool, device=boxes.device)
        return torch.full((len(places),), -1, device=boxes.device), nothing
    face = torch.where(mine.any(dim=1), nearest.indices, -1)
    return face, near.any(dim=1) & (face < 0)


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU (Rezatofighi et al. 2019) of boxes (M, 4), pair by pair: (M,) each."""

    def area(low, high):
        return (high - low).clamp_min(0).prod(dim=-1)

    both = area(torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:]))
    either = area(a[:, :2], a[:, 2:]) + area(b[:, :2], b[:, 2:]) - both
    around = area(torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:]))
    iou = both / either.clamp_min(1e-6)
    return iou, iou - (around - either) / around.clamp_min(1e-6)


def detector_loss(outputs: list[Tensor], boxes: list[Tensor], points: list[Tensor], size: int) -> tuple[Tensor, dict]:
    """The loss of a batch of square pictures, with boxes (F, 4) and landmarks (F, 5, 2) each; and its three terms.

    The loss is score + 2 · box + 50 · landmarks. Score: quality focal loss (Li et al. 2020), in which the target is the
    IoU of the predicted box and easy anchors have little weight. Box: 1 − generalized IoU. Landmarks: mean absolute
    error of the coordinates, divided by the size of the face.
    """
    scores, found, places = decode(outputs, size, size)
    focal, fits, errors, positives = 0.0, [], [], 0
    for b in range(len(scores)):
        face, skip = assign(boxes[b], size, size)
        mine = face >= 0
        target = torch.zeros_like(scores[b])
        if mine.any():
            wanted = boxes[b][face[mine]]
            iou, generalized = overlap(found[b][mine], wanted)
            target[mine] = iou.detach().clamp(0, 1)
            fits.append(1 - generalized)
            side = (wanted[:, 2:] - wanted[:, :2]).prod(dim=1).sqrt()[:, None, None]
            errors.append(((places[b][mine] - points[b][face[mine]]) / side).abs().mean(dim=(1, 2)))
        score = scores[b][~skip].clamp(1e-6, 1 - 1e-6)
        target = target[~skip]
        focal = focal + ((score - target).square() * F.binary_cross_entropy(score, target, reduction="none")).sum()
        positives += int(mine.sum())
    focal = cast(Tensor, focal) / max(1, positives)
    fit = torch.cat(fits).mean() if fits else found.sum() * 0
    error = torch.cat(errors).mean() if errors else places.sum() * 0
    return focal + 2 * fit + 50 * error, {"score": focal.item(), "box": fit.item(), "points": error.item()}


def to_input(images: np.ndarray) -> Tensor:
    """uint8 RGB (B, H, W, 3) to the input of the detector: float (B, 3, H, W), (value − 127.5) / 128."""
    return (torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() - 127.5) / 128
