"""The classifier two-sample test: can small CNNs tell generated pictures from drawings?

Two networks are trained on both kinds of pictures of some people and tested on other people (Lopez-Paz & Oquab 2017).
An accuracy of 0.5 on them means that no difference was found, 1 that they can always tell. One network reads the whole
picture, the other compares the two halves of the upper face; their logits are added. A test that finds nothing is
worth as much as its power, which `evaluation/power.py` measures.

Letters: N people, M pictures of each, P pixels a side, B pictures of a batch, C channels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.avatars.regions import pixel_box

LEAST_PICTURES = 2400  # of each kind; with fewer, only coarse differences are found
EPOCHS, BATCH, LEARNING_RATE = 8, 64, 3e-3
TOLD = 0.01  # the loss at which all pictures are told apart, so that training can end
TRAIN, STOP, TEST = range(3)
PARTS = np.array([TRAIN, TEST, TRAIN, TRAIN, STOP, TRAIN, TEST, TRAIN])  # of eight people
# x0, y0, x1, y1: the left eye at any turn and tilt; the right eye is in the mirror image of the box.
LEFT_EYE = (26 / 128, 42 / 128, 66 / 128, 78 / 128)


# --- the two networks -------------------------------------------------------------------------------------------------


def _convolutions(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3 x 3 convolutions, each but the first of stride 2: (B, channels, h, w) -> (B, C, h / 2^n, w / 2^n)."""
    layers: list[nn.Module] = []
    for stride, width in zip((1, *(2 for _ in widths[1:])), widths):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _pooled(features: Tensor) -> Tensor:
    """Mean and largest value of each channel: (B, C, h, w) -> (B, 2 C)."""
    return torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)


class WholePicture(nn.Module):
    """Reads `picture_and_detail`: (B, 32, 32, K) -> logits (B,), above 0 for "not drawn"."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (64, 96, 128, 160)):
        super().__init__()
        self.trunk, self.head = _convolutions(channels, widths), nn.Linear(2 * widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(_pooled(self.trunk(x.movedim(-1, 1))))[:, 0]


class TwoHalves(nn.Module):
    """Compares `halves`: (B, 2, h, w, 3) -> logits (B,), above 0 for "not drawn".

    Both halves go through the same trunk; the head gets the sum and the absolute difference of their features. Without
    this a CNN does not find two eyes of different colours in a few thousand pictures.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 48, 64)):
        super().__init__()
        self.trunk = _convolutions(3, widths)
        self.head = nn.Sequential(nn.Linear(4 * widths[-1], 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        features = _pooled(self.trunk(x.flatten(0, 1).movedim(-1, 1))).unflatten(0, (-1, 2))  # (2 B, …) -> (B, 2, 2 C)
        left, right = features.unbind(1)
        return self.head(torch.cat([left + right, (left - right).abs()], dim=1))[:, 0]


def picture_and_detail(images: np.ndarray) -> np.ndarray:
    """Each picture beside its fine detail, ten times enhanced, which shows blur and grids.

    uint8 (B, P, P, 3) -> (B, 32, 32, K): the pixels of each of 32 x 32 squares as K = 6 (P / 32)² channels.
    """
    parts, block = [], images.shape[1] // 32
    for start in range(0, len(images), 256):
        some = images[start : start + 256]
        pixels = torch.from_numpy(some).movedim(-1, 1).float()  # (B, 3, P, P)
        mean = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
        detail = (128 + 10 * (pixels - mean)).round().clamp(0, 255).byte().movedim(1, -1).numpy()
        both = np.concatenate([some, detail], axis=3)
        squares = both.reshape(-1, 32, block, 32, block, 6).transpose(0, 1, 3, 2, 4, 5)  # (B, 32, 32, P/32, P/32, 6)
        parts.append(squares.reshape(-1, 32, 32, 6 * block**2))
    return np.concatenate(parts)


def halves(images: np.ndarray) -> np.ndarray:
    """The left half of the upper face, and the right half mirrored: uint8 (B, P, P, 3) -> (B, 2, h, w, 3)."""
    x0, y0, x1, y1 = pixel_box(LEFT_EYE, images.shape[1])
    return np.stack([images[:, y0:y1, x0:x1], images[:, y0:y1, ::-1][:, :, x0:x1]], axis=1)


# --- the test ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdicts:
    """What the networks said about the pictures of the people that they were tested on.

    Attributes:
        right: float (N, 2 M), 1 where they were right; first the pictures, then the drawings.
        tested: float (N, 2 M), 1 for people of the test, 0 for those of training and early stopping.
    """

    right: np.ndarray
    tested: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / self.tested.sum())


def two_sample_test(pictures: np.ndarray, drawings: np.ndarray, seed: int = 0) -> Verdicts:
    """Train the networks on five of eight people, stop on one, and test on two.

    About two minutes on one core for 2,700 pictures of 128 px of each kind.

    Args:
        pictures, drawings: uint8 (N, M, P, P, 3), of the same people; N at least 8, P a multiple of 32.
    """
    people, count = pictures.shape[:2]
    labels = np.repeat([True, False], count)[None].repeat(people, axis=0)  # (N, 2 M), True for `pictures`
    part = PARTS[np.arange(people) % len(PARTS)]

    def of(k: int) -> tuple[np.ndarray, Tensor]:
        chosen = np.concatenate([pictures[part == k], drawings[part == k]], axis=1)
        flat = chosen.reshape(-1, *chosen.shape[2:])  # (N', 2 M, P, P, 3) -> (2 M N', P, P, 3)
        return flat, torch.from_numpy(labels[part == k].ravel()).float()

    (train, target), (stop, stop_target), (test, test_target) = of(TRAIN), of(STOP), of(TEST)
    logits = torch.zeros(len(test))
    with torch.random.fork_rng(devices=[]):
        for look, make in (
            (picture_and_detail, lambda: WholePicture(6 * (pictures.shape[2] // 32) ** 2)),
            (halves, TwoHalves),
        ):
            torch.manual_seed(seed)
            network = _fitted(make(), look(train), target, look(stop), stop_target)
            logits += _logits(network, look(test))
    right, tested = np.zeros(labels.shape), np.zeros(labels.shape)
    right[part == TEST] = ((logits > 0) == test_target.bool()).numpy().reshape(-1, 2 * count)  # (2 M N',) -> (N', 2 M)
    tested[part == TEST] = 1
    return Verdicts(right, tested)


def _fitted(network: nn.Module, train: np.ndarray, target: Tensor, stop: np.ndarray, stop_target: Tensor) -> nn.Module:
    """The network after the epoch with the lowest loss on `stop`."""
    steps = len(train) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps * EPOCHS, pct_start=0.2)
    lowest, best = float("inf"), network.state_dict()
    for _ in range(EPOCHS):
        network.train()
        for rows in torch.randperm(len(train))[: steps * BATCH].view(steps, BATCH).numpy():
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(_batch(train[rows]))
            loss = F.binary_cross_entropy_with_logits(logits.float(), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        loss = F.binary_cross_entropy_with_logits(_logits(network, stop), stop_target).item()
        if loss < lowest:
            lowest, best = loss, copy.deepcopy(network.state_dict())
        if lowest < TOLD:
            break
    network.load_state_dict(best)
    return network


def _batch(pixels: np.ndarray) -> Tensor:
    """uint8 -> bfloat16 in [-2, 2], of the same shape."""
    return (torch.from_numpy(pixels).to(torch.bfloat16) - 128) / 64


@torch.no_grad()
def _logits(network: nn.Module, pixels: np.ndarray) -> Tensor:
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        parts = [network(_batch(pixels[start : start + 128])) for start in range(0, len(pixels), 128)]
    return torch.cat(parts).float()
