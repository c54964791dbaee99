"""Reads identities from many drawn pictures at once, on whatever device the networks are.

`FacePack` reads one picture at a time through onnxruntime, which is what a user needs. A training set has hundreds of
thousands of references. The same networks (detector, landmarks, recognizer) run here as torch modules on whole batches;
the crops are sampled bilinearly without the rounding to 8 bits that cv2 does. Embeddings agree with `FacePack`'s to a
cosine above 0.99 (a test says so).

Letters: B pictures, S pixels a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gen_affect_lib.encoders.detector import decode
from gen_affect_lib.encoders.landmark_net import MARGIN
from gen_affect_lib.encoders.landmark_net import SIZE as LOOK
from gen_affect_lib.encoders.pack import load_detector, load_landmarks, load_recognizer
from gen_affect_lib.encoders.views import SIZE, VIEWS


class BatchedReader:
    """Call it with pictures uint8 (B, S, S, 3), RGB, one face each: identity tokens (B, 2, 512) as
    `FaceReading.tokens` gives them, and the detector's score of each picture's surest face (B,)."""

    def __init__(self, device):
        self.detector, self.landmarks, self.recognizer = (
            load().to(device).requires_grad_(False) for load in (load_detector, load_landmarks, load_recognizer)
        )
        self.places = {name: torch.tensor(places, dtype=torch.float32, device=device) for name, places in VIEWS.items()}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pictures = images.movedim(-1, 1).float()  # (B, S, S, 3) -> (B, 3, S, S), 0 to 255
        side = max(128, -(-pictures.shape[-1] // 32) * 32)
        seen = pictures
        if side != pictures.shape[-1]:
            seen = F.interpolate(pictures, size=(side, side), mode="bilinear", align_corners=False)
        scores, boxes, _ = decode(self.detector((seen - 127.5) / 128), side, side)
        score, best = scores.max(dim=1)
        box = boxes[torch.arange(len(boxes), device=boxes.device), best] * (pictures.shape[-1] / side)  # (B, 4)

        middle, width = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).amax(dim=1)
        scale = LOOK / (MARGIN * width)  # (B,)
        shift = LOOK / 2 - scale[:, None] * middle
        zero = torch.zeros_like(scale)
        there = torch.stack(
            [torch.stack([scale, zero, shift[:, 0]], 1), torch.stack([zero, scale, shift[:, 1]], 1)], dim=1
        )  # picture -> look, (B, 2, 3)
        look = warp(pictures, there, LOOK, "zeros")
        five = (self.landmarks((look - 127.5) / 128).unflatten(1, (5, 2)) + 1) * LOOK / 2
        five = (five - shift[:, None]) / scale[:, None, None]  # (B, 5, 2) in pixels of the picture

        views = [
            warp(pictures, similarity(five, places), SIZE, "zeros" if name == "crop" else "border")
            for name, places in self.places.items()
        ]
        tokens = self.recognizer(torch.cat(views) / 127.5 - 1).unflatten(0, (len(views), -1))  # (2 B, E) -> (2, B, E)
        return F.normalize(tokens, dim=-1).transpose(0, 1) * tokens.shape[-1] ** 0.5, score


def similarity(points: Tensor, places: Tensor) -> Tensor:
    """`views.similarity` for a batch: points (B, 5, 2) to places (5, 2), maps (B, 2, 3)."""
    z, w = torch.view_as_complex(points.contiguous()), torch.view_as_complex(places)  # (B, 5), (5,)
    centred = z - z.mean(dim=1, keepdim=True)
    a = (centred.conj() * (w - w.mean())).sum(dim=1) / centred.abs().square().sum(dim=1)
    b = w.mean() - a * z.mean(dim=1)
    return torch.stack([torch.stack([a.real, -a.imag, b.real], 1), torch.stack([a.imag, a.real, b.imag], 1)], dim=1)


def warp(pictures: Tensor, maps: Tensor, side: int, padding: str) -> Tensor:
    """cv2.warpAffine for a batch: pictures (B, 3, S, S), maps (B, 2, 3) from their pixels to those of the result
    (B, 3, side, side)."""
    linear, shift = maps[:, :, :2], maps[:, :, 2]
    axis = torch.arange(side, device=pictures.device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    at = torch.stack([x, y], dim=-1)[None] - shift[:, None, None]  # (B, side, side, 2)
    at = at @ torch.linalg.inv(linear).transpose(1, 2)[:, None]
    grid = (at + 0.5) * 2 / pictures.shape[-1] - 1  # pixel centres lie at whole numbers, as in cv2
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode=padding, align_corners=False)
