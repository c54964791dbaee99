"""Training data of the identity encoder: several pictures of each of many people, aligned as at inference.

Expression, appearance and resolution are sampled independently for each picture; pictures of one person have only the
identity in common. The landmarks get noise, because detected landmarks are inexact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.drawing import DRAWING
from gen_affect_lib.avatars.factors import FACTORS
from gen_affect_lib.avatars.landmarks import LANDMARKS, landmarks
from gen_affect_lib.avatars.splits import picture_seed
from gen_affect_lib.encoders.views import ALIGNMENT, SIZE, VIEWS, aligned
from gen_affect_lib.files import SEAL, is_whole, seal
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.paths import CACHE

IDENTITY_PICTURES = Producer("identity pictures", 1, uses=(FACTORS, DRAWING, LANDMARKS, ALIGNMENT))

SIDES = (64, 96, 128, 192)  # sides in pixels of the pictures from which the views are cut
SHAKE = 0.015  # standard deviation of the noise on a landmark, as a fraction of the distance between the eyes


@dataclass
class IdentityPictures:
    """N people, K pictures of each, V = 2 views.

    Attributes:
        views: uint8 (N, K, V, 112, 112, 3), RGB, memory-mapped.
        nuisance: float32 (N, K, M), factors that the embedding must not depend on: expression and appearance.
        seeds: int64 (N,), the seeds of the people.
    """

    views: np.ndarray
    nuisance: np.ndarray
    seeds: np.ndarray

    @classmethod
    def open(cls, folder: Path, first_seed: int, people: int, pictures: int, shake: float = SHAKE) -> IdentityPictures:
        """The pictures saved in a folder; if there are none, draw and save them."""
        views, nuisance = folder / "views.npy", folder / "nuisance.npy"
        if not is_whole(folder / f"pictures{SEAL}"):
            folder.mkdir(parents=True, exist_ok=True)
            shape = (people, pictures, len(VIEWS), SIZE, SIZE, 3)
            array = np.lib.format.open_memmap(views, "w+", np.uint8, shape)
            factors = np.empty((people, pictures, Expression.VECTOR_SIZE + Appearance.VECTOR_SIZE), np.float32)
            for n in tqdm(range(people), desc="Drawing people", unit="person", mininterval=5):
                for k in range(pictures):
                    array[n, k], factors[n, k] = draw(first_seed + n, k, shake)
            array.flush()
            np.save(nuisance, factors)
            seal(folder / f"pictures{SEAL}", [views, nuisance])
        return cls(np.load(views, mmap_mode="r"), np.load(nuisance), first_seed + np.arange(people))

    @classmethod
    def cached(cls, first_seed: int, people: int, pictures: int, shake: float = SHAKE) -> IdentityPictures:
        """`open` with a folder of the cache for these arguments."""
        config = dict(first_seed=first_seed, people=people, pictures=pictures, shake=shake)
        folder = CACHE / "identity" / f"{people}x{pictures}-{key(IDENTITY_PICTURES, config)}"
        return cls.open(folder, first_seed, people, pictures, shake)


def portrait(seed: int, picture: int) -> tuple[Avatar, int]:
    """A person with the expression and appearance of one picture, and the side of that picture in pixels."""
    moment = picture_seed(seed, picture)
    avatar = Avatar(Identity.sample(seed), Expression.sample(moment), Appearance.sample(moment))
    return avatar, int(np.random.default_rng([11, moment]).choice(SIDES))


def draw(seed: int, picture: int, shake: float = SHAKE) -> tuple[np.ndarray, np.ndarray]:
    """The views of one picture of a person, uint8 (2, 112, 112, 3), and its nuisance factors (M,).

    shake: see SHAKE.
    """
    avatar, side = portrait(seed, picture)
    points = landmarks(avatar) * side
    rng = np.random.default_rng([12, picture_seed(seed, picture)])
    points = points + rng.normal(0, shake, points.shape) * np.linalg.norm(points[1] - points[0])
    image = avatar.render(side)
    views = np.stack([aligned(image, points, view) for view in VIEWS])
    return views, np.concatenate([avatar.expression.to_vector(), avatar.appearance.to_vector()])
