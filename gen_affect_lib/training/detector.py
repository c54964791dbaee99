"""Training of the face detector on drawn scenes. Each batch is scaled to a random size."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from gen_affect_lib.files import SEAL, is_whole, seal
from gen_affect_lib.keys import key
from gen_affect_lib.paths import CACHE
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.training import loop

RECIPE = Recipe(batch_size=16, optimizer="muon", learning_rate=2e-3, warmup_steps=50, betas=(0.9, 0.99), clip_norm=5.0)
# (side in pixels, divisor of the batch size): larger scenes take more time, so their batches are smaller.
SIDES = ((128, 1), (192, 2), (256, 4), (384, 8), (512, 16))
PROBABILITIES = (0.25, 0.35, 0.25, 0.1, 0.05)  # of SIDES


@dataclass
class Scenes:
    """M scenes with F faces in all.

    Attributes:
        images: uint8 (M, S, S, 3), RGB, memory-mapped.
        boxes: float32 (F, 4), x0, y0, x1, y1 in pixels.
        points: landmarks, float32 (F, 5, 2) in pixels.
        skins: skin tones, float32 (F,) in [0, 1].
        scene: int64 (F,), the index of each face's scene.
    """

    images: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    skins: np.ndarray
    scene: np.ndarray

    @classmethod
    def open(cls, folder: Path, first_person: int, people: int, count: int, size: int = 256) -> Scenes:
        """The scenes saved in a folder; if there are none, draw `count` of `size` pixels a side and save them.

        People: seeds from `first_person` on, `people` of them.
        """
        images, truth = folder / "images.npy", folder / "faces.npz"
        if not is_whole(folder / f"scenes{SEAL}"):
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
            seal(folder / f"scenes{SEAL}", [images, truth])
        with np.load(truth) as faces:
            return cls(np.load(images, mmap_mode="r"), **{name: faces[name] for name in faces.files})

    @classmethod
    def cached(cls, first_person: int, people: int, count: int, size: int = 256) -> Scenes:
        """`open` with a folder of the cache for these arguments."""
        config = dict(first_person=first_person, people=people, count=count, size=size)
        return cls.open(CACHE / "scenes" / f"{count}-{key(SCENES, config)}", **config)

    def at(self, chosen: np.ndarray, side: int, flip: np.ndarray) -> tuple[np.ndarray, list[Tensor], list[Tensor]]:
        """The scenes `chosen`, int (B,), scaled to `side` pixels, and mirrored where `flip`, bool (B,).

        Returns images uint8 (B, side, side, 3), and lists with the boxes (F, 4) and landmarks (F, 5, 2) of each scene.
        """
        images, boxes, points = [], [], []
        ratio = side / self.images.shape[1]
        interpolation = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        for k, mirrored in zip(chosen, flip):
            image = cv2.resize(self.images[k], (side, side), interpolation=interpolation)
            faces = self.scene == k
            box, five = self.boxes[faces] * ratio, self.points[faces] * ratio
            if mirrored:
                image = image[:, ::-1]
                box = np.stack([side - box[:, 2], box[:, 1], side - box[:, 0], box[:, 3]], axis=1)
                five = np.stack([side - five[..., 0], five[..., 1]], axis=-1)[
                    :, [1, 0, 2, 4, 3]
                ]  # left and right are swapped
            images.append(image)
            boxes.append(torch.from_numpy(box.astype(np.float32)))
            points.append(torch.from_numpy(five.astype(np.float32)))
        return np.stack(images), boxes, points


def fit_detector(net: FaceDetector, data: Scenes, recipe: Recipe) -> list[loop.Row]:
    """Train the detector; returns the history. `recipe.batch_size` is the batch size at 128 pixels, see SIDES."""
    seed_everything(recipe.seed)
    device, rng = pick_device(), np.random.default_rng(recipe.seed)
    net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)
    net.train()

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        side, divisor = SIDES[rng.choice(len(SIDES), p=PROBABILITIES)]
        count = max(1, recipe.batch_size // divisor)
        images, boxes, points = data.at(rng.integers(0, len(data.images), count), side, rng.random(count) < 0.5)
        outputs = net(to_input(images).to(device, memory_format=torch.channels_last))
        return detector_loss(outputs, [b.to(device) for b in boxes], [p.to(device) for p in points], side)

    history = loop.fit(objective, net, recipe, "detector")
    net.eval().cpu()
    return history


@dataclass(frozen=True)
class ScenesConfig:
    """How many scenes to draw, and how many people appear in them."""

    scenes: int
    people: int

    def draw(self) -> Scenes:
        """The scenes, from the cache if they have been drawn before."""
        return Scenes.cached(TRAIN_SEED, self.people, self.scenes)


SCENE_SETS = {
    "smoke": ScenesConfig(24, 100),
    "laptop": ScenesConfig(4000, JUDGES_SEED),
    "gpu": ScenesConfig(20000, JUDGES_SEED),
}


@dataclass(frozen=True)
class DetectorConfig:
    """The sizes of the network, see `FaceDetector`, and how it is trained."""

    recipe: Recipe
    widths: tuple[int, int, int, int] = (24, 32, 64, 96)
    neck: int = 40

    def network(self) -> FaceDetector:
        return FaceDetector(widths=self.widths, neck=self.neck)


CONFIGS = {
    "smoke": DetectorConfig(replace(RECIPE, minutes=0.05), widths=(8, 16, 16, 32), neck=16),
    "laptop": DetectorConfig(replace(RECIPE, minutes=20.0)),
    "gpu": DetectorConfig(replace(RECIPE, minutes=15.0), widths=(32, 64, 96, 128), neck=64),
}


def train_detector(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> FaceDetector:
    """Draw a profile's scenes, train a detector on them, and write `detector.onnx` and `config.json`."""
    config = CONFIGS[profile]
    net = config.network()
    fit_detector(net, SCENE_SETS[profile].draw(), config.recipe.limited_to(minutes=minutes))
    round_weights(net)
    save_detector(net, Path(out_dir))
    return net
