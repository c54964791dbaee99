"""The detector's recipe: scenes drawn once, and seen at many scales."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gen_affect_lib.avatars.scenes import SCENES, scene
from gen_affect_lib.avatars.splits import JUDGES_SEED, TRAIN_SEED
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.detector import FaceDetector, detector_loss, to_input
from gen_affect_lib.encoders.onnx_files import round_weights
from gen_affect_lib.encoders.pack import save_detector
from gen_affect_lib.keys import key
from gen_affect_lib.paths import CACHE
from gen_affect_lib.training import optim

# Sides to which scenes are scaled, and how many fit into a step: small pictures are the cheap ones.
SIDES = ((128, 16), (192, 8), (256, 4), (384, 2), (512, 1))
CHANCES = (0.25, 0.35, 0.25, 0.1, 0.05)


@dataclass
class Scenes:
    """M scenes with F faces in all.

    Attributes:
        images: uint8 (M, S, S, 3), RGB, memory-mapped.
        boxes: float32 (F, 4) in pixels. points: float32 (F, 5, 2). skins: float32 (F,).
        scene: int64 (F,), in which scene each face is.
    """

    images: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    skins: np.ndarray
    scene: np.ndarray

    @classmethod
    def open(cls, folder: Path, first_person: int, people: int, count: int, size: int = 256) -> Scenes:
        """Draw them into a folder, or map what is there already."""
        images, truth = folder / "images.npy", folder / "faces.npz"
        if not truth.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(images, "w+", np.uint8, (count, size, size, 3))
            drawn = []
            for k in tqdm(range(count), desc="Drawing scenes", unit="scene", mininterval=5):
                drawn.append(scene(k, first_person, people, size))
                array[k] = drawn[-1].image
            array.flush()
            np.savez(
                truth,
                boxes=np.concatenate([s.boxes for s in drawn]),
                points=np.concatenate([s.points for s in drawn]),
                skins=np.concatenate([s.skins for s in drawn]),
                scene=np.repeat(np.arange(count), [len(s.boxes) for s in drawn]),
            )
        with np.load(truth) as faces:
            return cls(np.load(images, mmap_mode="r"), **{name: faces[name] for name in faces.files})

    @classmethod
    def cached(cls, first_person: int, people: int, count: int, size: int = 256) -> Scenes:
        """The same, kept in the cache."""
        config = dict(first_person=first_person, people=people, count=count, size=size)
        return cls.open(CACHE / "scenes" / f"{count}-{key(SCENES, config)}", **config)

    def at(self, chosen: np.ndarray, side: int, flip: np.ndarray) -> tuple[np.ndarray, list[Tensor], list[Tensor]]:
        """Scenes scaled to a side, some mirrored: images (B, side, side, 3), boxes and landmarks of each."""
        images, boxes, points = [], [], []
        ratio = side / self.images.shape[1]
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        for k, mirrored in zip(chosen, flip):
            image = cv2.resize(self.images[k], (side, side), interpolation=how)
            mine = self.scene == k
            box, five = self.boxes[mine] * ratio, self.points[mine] * ratio
            if mirrored:
                image = image[:, ::-1]
                box = np.stack([side - box[:, 2], box[:, 1], side - box[:, 0], box[:, 3]], axis=1)
                five = np.stack([side - five[..., 0], five[..., 1]], axis=-1)[:, [1, 0, 2, 4, 3]]  # left is now right
            images.append(image)
            boxes.append(torch.from_numpy(box.astype(np.float32)))
            points.append(torch.from_numpy(five.astype(np.float32)))
        return np.stack(images), boxes, points


def fit(
    net: FaceDetector, data: Scenes, minutes: float, *, learning_rate: float = 2e-3, seed: int = 0, report=None
) -> list[dict]:
    """Train for so many minutes; the parts of the loss, step by step. `report(net, share of the time)` now and then."""
    seed_everything(seed)
    device = pick_device()
    net.to(device, memory_format=torch.channels_last).train()
    weights = dict(net.named_parameters())
    optimizers = optim.make_optimizers(weights, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    rng = np.random.default_rng(seed)
    begin, progress, log, reported = time.monotonic(), 0.0, [], 0.0
    with tqdm(desc="Detector", unit="step", mininterval=10) as bar:
        while progress < 1:
            rate = learning_rate * optim.warm_cosine(len(log), progress, warmup=50)
            side, count = SIDES[rng.choice(len(SIDES), p=CHANCES)]
            images, boxes, points = data.at(rng.integers(0, len(data.images), count), side, rng.random(count) < 0.5)
            outputs = net(to_input(images).to(device, memory_format=torch.channels_last))
            loss, parts = detector_loss(outputs, [b.to(device) for b in boxes], [p.to(device) for p in points], side)
            loss.backward()
            optim.step(optimizers, net.parameters(), rate, clip=5.0)
            log.append(parts)
            progress = (time.monotonic() - begin) / (60 * minutes)
            bar.update()
            bar.set_postfix({name: f"{np.mean([p[name] for p in log[-50:]]):.3f}" for name in parts}, refresh=False)
            if report and progress - reported >= 0.1:
                reported = progress
                report(net.eval(), progress)
                net.train()
    net.eval().cpu()
    return log


@dataclass(frozen=True)
class Recipe:
    """How much of everything: scenes, people to be in them, the network's sizes, minutes."""

    scenes: int
    people: int
    sizes: dict
    minutes: float

    def drawn(self) -> Scenes:
        """Its scenes, drawn once for all networks that learn from them."""
        return Scenes.cached(TRAIN_SEED, self.people, self.scenes)


RECIPES = {
    "smoke": Recipe(24, 100, dict(widths=(8, 16, 16, 32), neck=16), 0.05),
    "laptop": Recipe(4000, JUDGES_SEED, {}, 20.0),
    "gpu": Recipe(20000, JUDGES_SEED, dict(widths=(32, 64, 96, 128), neck=64), 15.0),
}


def train(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> FaceDetector:
    """Draw the scenes, train, and write `detector.onnx` and `config.json` to a folder."""
    recipe = RECIPES[profile]
    net = FaceDetector(**recipe.sizes)
    fit(net, recipe.drawn(), minutes or recipe.minutes)
    save_detector(round_weights(net), Path(out_dir))
    return net
