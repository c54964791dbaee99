"""Training of the network that refines a face's landmarks, on the detector's scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.detector import to_input
from gen_affect_lib.encoders.landmark_net import SIZE, LandmarkNet, crop_face
from gen_affect_lib.encoders.onnx_files import round_weights
from gen_affect_lib.encoders.pack import save_landmarks
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.training import loop
from gen_affect_lib.training.detector import SCENE_SETS, Scenes

RECIPE = Recipe(batch_size=32, optimizer="muon", learning_rate=2e-3, warmup_steps=50, betas=(0.9, 0.99))


def draw_batch(data: Scenes, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops uint8 (B, S, S, 3) of random faces, some mirrored, and their landmarks (B, 10) from -1 to 1.

    The true boxes get noise of 4 % in position and 6 % in size, because detected boxes are inexact.
    """
    crops, points = [], []
    for face in rng.integers(0, len(data.boxes), size):
        box, five = data.boxes[face], data.points[face]
        middle, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        middle = middle + rng.normal(0, 0.04, 2) * sides
        sides = sides * np.exp(rng.normal(0, 0.06, 2))
        crop, to_crop = crop_face(
            data.images[data.scene[face]], np.concatenate([middle - sides / 2, middle + sides / 2])
        )
        five = (five @ to_crop[:, :2].T + to_crop[:, 2]) * 2 / SIZE - 1
        if rng.random() < 0.5:
            crop, five = crop[:, ::-1], (five * (-1, 1))[[1, 0, 2, 4, 3]]  # left and right are swapped
        crops.append(crop)
        points.append(five.ravel())  # (5, 2) -> (10,)
    return np.stack(crops), np.stack(points).astype(np.float32)


def fit_landmarks(net: LandmarkNet, data: Scenes, recipe: Recipe) -> list[loop.Row]:
    """Train the network; returns the history. Loss: the mean absolute error of x and y in half sides of a crop."""
    seed_everything(recipe.seed)
    device, rng = pick_device(), np.random.default_rng(recipe.seed)
    net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)
    net.train()

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        crops, points = draw_batch(data, rng, recipe.batch_size)
        found = net(to_input(crops).to(device, memory_format=torch.channels_last))
        return F.l1_loss(found, torch.from_numpy(points).to(device)), {}

    history = loop.fit(objective, net, recipe, "landmarks")
    net.eval().cpu()
    return history


@dataclass(frozen=True)
class LandmarksConfig:
    """The sizes of the network, see `LandmarkNet`, and how it is trained."""

    recipe: Recipe
    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    squeeze: int = 24

    def network(self) -> LandmarkNet:
        return LandmarkNet(widths=self.widths, squeeze=self.squeeze)


CONFIGS = {
    "smoke": LandmarksConfig(replace(RECIPE, minutes=0.05), widths=(8, 8, 16, 16), squeeze=8),
    "laptop": LandmarksConfig(replace(RECIPE, minutes=18.0)),
    "gpu": LandmarksConfig(replace(RECIPE, minutes=8.0), widths=(32, 64, 96, 128)),
}


def train_landmarks(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> LandmarkNet:
    """Draw a profile's scenes, train a network on them, and write `landmarks.onnx` and `config.json`."""
    config = CONFIGS[profile]
    net = config.network()
    fit_landmarks(net, SCENE_SETS[profile].draw(), config.recipe.limited_to(minutes=minutes))
    round_weights(net)
    save_landmarks(net, Path(out_dir))
    return net
