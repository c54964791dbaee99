"""Fronts: what a model reaches in two figures at once, over all settings of its guidance scales.

One setting gives one point (expression right, person found). A model that is better in one figure and worse in the
other at one setting may be better in both at another, so models are compared by all their points together. The front
is the set of points that no other point of the model exceeds in both figures.

Letters: K settings.
"""

from __future__ import annotations

import numpy as np


def front(points: np.ndarray) -> np.ndarray:
    """The points of (K, 2) that no other point dominates, sorted by the first figure: (F, 2), F <= K.

    A point dominates another if it is at least as high in both figures and higher in one. Equal points count once.
    """
    kept: list[np.ndarray] = []
    for point in np.unique(points, axis=0)[::-1]:  # by the first figure, then the second, the highest first
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return np.array(kept[::-1])


def area(points: np.ndarray) -> float:
    """The area that points (K, 2) in [0, 1] dominate, measured from (0, 0): in [0, 1], 1 for the point (1, 1).

    This is the hypervolume of two figures (Zitzler & Thiele 1999).
    """
    corners = front(points)
    widths = np.diff(corners[:, 0], prepend=0.0)
    return float((widths * corners[:, 1]).sum())


def shortfall(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far the front of points (K, 2) lies below that of others (L, 2): at most 0 where it lies on or above it.

    The smallest number that must be added to both of our figures so that every point of theirs is dominated: the
    additive epsilon indicator (Zitzler et al. 2003).
    """
    gaps = (theirs[:, None] - ours[None]).max(axis=2)  # (L, K): what one of our points lacks to one of theirs
    return float(gaps.min(axis=1).max())
