"""Accuracy of the predicted factors of an identity or an appearance.

A choice is right when the likeliest option is the true one. A number is right when it is off by at most 1/16 of its
range, a hue by at most 1/16 of the circle; chance is about 1 in 8, as with eight bins, but there are no bin edges.
Factors that cannot be seen are nan: the colour of earrings if there are none, of hair under a covering.

Letters: B pictures, K numbers of all factors together.
"""

from __future__ import annotations

import numpy as np

from gen_affect_lib.avatars import Appearance, Identity
from gen_affect_lib.avatars.factors import Choice, Hue

TOLERANCE = 1 / 16  # of the range
COVERINGS = ("headscarf", "turban", "beanie")


def right_factors(cls: type[Identity] | type[Appearance], read: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Which factors of readings (B, K) are right: name -> float (B,), 1 right, 0 wrong, nan where it cannot be seen.

    Args:
        cls: whose factors they are.
        read, true: as `cls.to_vector` gives them, choices as probabilities. What can be seen is decided by `true`.
    """
    result, start = {}, 0
    for name, kind in zip(cls.NAMES, cls.KINDS):
        a, b = read[:, start : start + kind.size], true[:, start : start + kind.size]
        start += kind.size
        if isinstance(kind, Choice):
            result[name] = (a.argmax(axis=1) == b.argmax(axis=1)).astype(float)
        elif isinstance(kind, Hue):
            turns = np.arctan2(a[:, 1], a[:, 0]) - np.arctan2(b[:, 1], b[:, 0])
            result[name] = (np.abs(np.angle(np.exp(1j * turns))) <= 2 * np.pi * TOLERANCE).astype(float)
        else:
            result[name] = (np.abs(a - b)[:, 0] <= TOLERANCE * (kind.high - kind.low)).astype(float)
    if issubclass(cls, Appearance):
        result["earring_color"][[cls.from_vector(vector).earrings == "none" for vector in true]] = np.nan
    else:
        styles = [cls.from_vector(vector).hair_style for vector in true]
        covered, bald = np.isin(styles, COVERINGS), np.isin(styles, "bald")
        result["covering_color"][~covered] = np.nan
        result["hair_color"][covered | bald] = np.nan
    return result


def appearance_agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether two readings (…, K) of an appearance agree, factor by factor, by the rule of `right_factors`.

    float (…, 9): 1 where they agree, 0 where not, nan for the colour of earrings where `other` has none.
    """
    rows = right_factors(Appearance, one.reshape(-1, one.shape[-1]), other.reshape(-1, other.shape[-1]))
    return np.stack(list(rows.values()), axis=-1).reshape(*one.shape[:-1], -1)  # (…, 9)
