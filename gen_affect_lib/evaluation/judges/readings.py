"""What the judges say of pictures, as numbers. Letters: B pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gen_affect_lib.avatars import Appearance, Identity
from gen_affect_lib.avatars.emotions import FAMILIES, GROUPS, membership


@dataclass(frozen=True)
class IdentityReading:
    """`embedding`: float32 (B, 128), unit length: the product of two is high for one person, whatever the face does.
    `factors`: float32 (B, Identity.VECTOR_SIZE), what `Identity.from_vector` reads; choices are probabilities.
    """

    embedding: np.ndarray
    factors: np.ndarray

    def identities(self) -> list[Identity]:
        return [Identity.from_vector(vector) for vector in self.factors]


@dataclass(frozen=True)
class ExpressionReading:
    """`factors`: float32 (B, 21), in the ranges of `Expression`. `words`, `groups`, `families`: probabilities of the
    135 words, 25 groups and 6 families in the order of the table, (B, 135), (B, 25), (B, 6).
    `appearance`: float32 (B, Appearance.VECTOR_SIZE), what `Appearance.from_vector` reads.
    """

    factors: np.ndarray
    words: np.ndarray
    appearance: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        return self.words @ membership(len(GROUPS))

    @property
    def families(self) -> np.ndarray:
        return self.words @ membership(len(FAMILIES))

    def appearances(self) -> list[Appearance]:
        return [Appearance.from_vector(vector) for vector in self.appearance]
