"""Drawings with known factors, to train the judges and to evaluate them."""

from __future__ import annotations

import numpy as np
from tqdm.auto import tqdm

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.drawing import DRAWING
from gen_affect_lib.avatars.factors import FACTORS
from gen_affect_lib.avatars.splits import picture_seed
from gen_affect_lib.evaluation.judges.networks import SIZE
from gen_affect_lib.files import SEAL, is_whole, seal
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.paths import CACHE

JUDGES_DRAWINGS = Producer("drawings for judges", 1, uses=(FACTORS, DRAWING))

IMAGES = 4  # of each person
_WORDS_STREAM = 9  # a random stream for words, independent of the factors


class Drawings:
    """N people with I pictures of each.

    Attributes:
        images: uint8 (N, I, 64, 64, 3)
        identity: float32 (N, Identity.VECTOR_SIZE)
        expression: float32 (N, I, 21)
        appearance: float32 (N, I, Appearance.VECTOR_SIZE)
        word: int64 (N, I), the index of the emotion word. -1 for the odd pictures of each person, whose expression is a
            mixture of action units, see `Expression.sample`.
    """

    PARTS = ("images", "identity", "expression", "appearance", "word")

    def __init__(self, first_seed: int, people: int, images: int = IMAGES):
        self.images = np.empty((people, images, SIZE, SIZE, 3), np.uint8)
        self.identity = np.empty((people, Identity.VECTOR_SIZE), np.float32)
        self.expression = np.empty((people, images, Expression.VECTOR_SIZE), np.float32)
        self.appearance = np.empty((people, images, Appearance.VECTOR_SIZE), np.float32)
        self.word = np.full((people, images), -1)
        for n in tqdm(range(people), desc="Drawing", unit="person"):
            identity = Identity.sample(first_seed + n)
            self.identity[n] = identity.to_vector()
            for k in range(images):
                seed = picture_seed(first_seed + n, k)  # its own expression and appearance
                if k % 2 == 0:
                    self.word[n, k] = np.random.default_rng([_WORDS_STREAM, seed]).integers(len(EMOTIONS))
                    expression = Expression.named(EMOTIONS[self.word[n, k]])
                else:
                    expression = Expression.sample(seed)
                appearance = Appearance.sample(seed)
                self.expression[n, k], self.appearance[n, k] = expression.to_vector(), appearance.to_vector()
                self.images[n, k] = Avatar(identity, expression, appearance).render(SIZE)

    @classmethod
    def cached(cls, first_seed: int, people: int, images: int = IMAGES) -> Drawings:
        """The same from the cache; drawn again if the version of the drawing code has changed."""
        mark = key(JUDGES_DRAWINGS, dict(first_seed=first_seed, people=people, images=images))
        folder = CACHE / "judges" / f"{first_seed}-{people}x{images}-{mark}"
        if not is_whole(folder / f"drawings{SEAL}"):
            drawings = cls(first_seed, people, images)
            folder.mkdir(parents=True, exist_ok=True)
            for part in cls.PARTS:
                np.save(folder / f"{part}.npy", getattr(drawings, part))
            seal(folder / f"drawings{SEAL}", [folder / f"{part}.npy" for part in cls.PARTS])
        drawings = cls.__new__(cls)
        for part in cls.PARTS:
            setattr(drawings, part, np.load(folder / f"{part}.npy", mmap_mode="r" if part == "images" else None))
        return drawings
