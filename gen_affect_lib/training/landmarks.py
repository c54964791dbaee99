"""The training of the second look at the landmarks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from gen_affect_lib.avatars.splits import JUDGES_SEED
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.detector import to_input
from gen_affect_lib.encoders.landmark_net import SIZE, LandmarkNet, crop_face
from gen_affect_lib.encoders.onnx_files import round_weights
from gen_affect_lib.encoders.pack import save_landmarks
from gen_affect_lib.training.detector import Recipe, Scenes
from gen_affect_lib.training.optim import make_optimizers, step, warm_cosine


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
        look, there = crop_face(data.images[data.scene[face]], np.concatenate([middle - sides / 2, middle + sides / 2]))
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
    "laptop": Recipe(4000, JUDGES_SEED, {}, 18.0),
    "gpu": Recipe(20000, JUDGES_SEED, dict(widths=(32, 64, 96, 128)), 8.0),
}


def train(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> LandmarkNet:
    """Draw the scenes, train, and write `landmarks.onnx` and `config.json` to a folder."""
    recipe = RECIPES[profile]
    net = LandmarkNet(**recipe.sizes)
    fit(net, recipe.drawn(), minutes or recipe.minutes)
    save_landmarks(round_weights(net), Path(out_dir))
    return net
