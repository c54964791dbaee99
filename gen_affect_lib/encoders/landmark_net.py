"""A second look at a face: the five landmarks again, to a part of a pixel, by a network that sees nothing else.

A detector looks at every place of a picture, so it can spend little on each face; its landmarks are off by a tenth of
the distance of the eyes. That is enough to find a face, not to align one. insightface's packs have a second network for
this, which looks at the detector's box again, enlarged; ours is small and gives the same five points, which insightface
hands out as `landmark_2d_5`.

Letters: B faces, S = 192 pixels a side of what is looked at.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.detector_training import VALIDATION_PERSON, Recipe, Scenes, to_input
from gen_affect_lib.encoders.identity import IResidual
from gen_affect_lib.encoders.onnx_files import round_weights
from gen_affect_lib.optim import make_optimizers, step, warm_cosine

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


def draw_batch(data: Scenes, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Looks uint8 (B, S, S, 3) at random faces, some mirrored, and landmarks (B, 10).

    A detector's box is never quite right, so the true one is shifted and scaled a little.
    """
    looks, points = [], []
    for face in rng.integers(0, len(data.boxes), size):
        box, five = data.boxes[face], data.points[face]
        middle, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        middle = middle + rng.normal(0, 0.04, 2) * sides
        sides = sides * np.exp(rng.normal(0, 0.06, 2))
        look, there = look_at(data.images[data.scene[face]], np.concatenate([middle - sides / 2, middle + sides / 2]))
        five = (five @ there[:, :2].T + there[:, 2]) * 2 / SIZE - 1
        if rng.random() < 0.5:
            look, five = look[:, ::-1], (five * (-1, 1))[[1, 0, 2, 4, 3]]  # left is now right
        looks.append(look)
        points.append(five.ravel())  # (5, 2) -> (10,)
    return np.stack(looks), np.stack(points).astype(np.float32)


def fit(
    net: LandmarkNet, data: Scenes, minutes: float, *, batch_size: int = 32, learning_rate: float = 2e-3, seed: int = 0
) -> list[float]:
    """Train for so many minutes; the mean distance along x and y, in half looks, step by step."""
    seed_everything(seed)
    device = pick_device()
    net.to(device, memory_format=torch.channels_last).train()
    optimizers = make_optimizers(dict(net.named_parameters()), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    rng = np.random.default_rng(seed)
    begin, used, losses = time.monotonic(), 0.0, []
    with tqdm(desc="Landmarks", unit="step", mininterval=10) as bar:
        while used < 1:
            looks, points = draw_batch(data, rng, batch_size)
            found = net(to_input(looks).to(device, memory_format=torch.channels_last))
            loss = F.l1_loss(found, torch.from_numpy(points).to(device))
            loss.backward()
            step(optimizers, net.parameters(), learning_rate * warm_cosine(len(losses), used, warmup=50), clip=1.0)
            losses.append(loss.item())
            used = (time.monotonic() - begin) / (60 * minutes)
            bar.update()
            bar.set_postfix(off=f"{np.mean(losses[-50:]):.4f}", refresh=False)
    net.eval().cpu()
    return losses


RECIPES = {  # on the detector's scenes
    "smoke": Recipe(24, 100, dict(widths=(8, 8, 16, 16), squeeze=8), 0.05),
    "laptop": Recipe(4000, 500_000, {}, 18.0),
    "gpu": Recipe(20000, 500_000, dict(widths=(32, 64, 96, 128)), 8.0),
}


def train(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> LandmarkNet:
    """Draw the scenes, train, and write `landmarks.onnx` and `config.json` to a folder.

    Where the folder has a detector, `figures.json` gets how exact both together are, on validation people.
    """
    from gen_affect_lib.encoders.pack import DETECTOR, load_detector, note, save_landmarks
    from gen_affect_lib.evaluation.faces import measure_detector

    recipe, out_dir = RECIPES[profile], Path(out_dir)
    net = LandmarkNet(**recipe.sizes)
    fit(net, recipe.drawn(), minutes or recipe.minutes)
    save_landmarks(round_weights(net), out_dir)
    if (out_dir / DETECTOR).is_file():
        figures = measure_detector(load_detector(out_dir), VALIDATION_PERSON, min(500, recipe.scenes), net)
        note(out_dir / "figures.json", "landmarks", figures)
    return net
