"""Agreement of expression vectors: errors as shares of the range, concordance, the nearest word.

An expression vector holds the 21 numbers of `Expression.NAMES`: action units, gaze and head turn.
"""

from __future__ import annotations

import numpy as np

from gen_affect_lib.avatars import EMOTIONS, Expression
from gen_affect_lib.avatars.factors import Real

_KINDS = [kind for kind in Expression.KINDS if isinstance(kind, Real)]  # all 21
LOWEST = np.array([kind.low for kind in _KINDS])  # (21,): 0 for action units, -1 for the others
RANGES = np.array([kind.high for kind in _KINDS]) - LOWEST  # (21,): 1 and 2


def unit_errors(read: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Absolute errors of expression vectors (…, 21), each as a share of its range: (…, 21)."""
    return np.abs(read - true) / RANGES


def nearest_words(vectors: np.ndarray) -> np.ndarray:
    """The word whose expression has the smallest summed `unit_errors` to each of vectors (B, 21): its index, int (B,).

    For true vectors this is the best possible prediction of the word.
    """
    faces = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    return unit_errors(vectors[:, None], faces[None]).sum(axis=2).argmin(axis=1)  # (B, 135) -> (B,)


def concordance(read: np.ndarray, true: np.ndarray) -> float:
    """The concordance correlation coefficient (Lin 1989) of read and true (M,): in [-1, 1], 1 only if they are equal.

    2 cov(read, true) / (var(read) + var(true) + (mean(read) - mean(true))²)
    """
    read, true = np.asarray(read, np.float64), np.asarray(true, np.float64)
    covariance = ((read - read.mean()) * (true - true.mean())).mean()
    return float(2 * covariance / (read.var() + true.var() + (read.mean() - true.mean()) ** 2))
