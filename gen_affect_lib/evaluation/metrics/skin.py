"""Thirds of the skin tones. Figures are also reported for each third, because a mean can hide errors on one group."""

from __future__ import annotations

import numpy as np

THIRDS = ("light", "middle", "dark")


def third(skin: np.ndarray | float) -> np.ndarray:
    """The third of each skin tone (…) in [0, 1]: int (…), an index into THIRDS."""
    return np.minimum(np.asarray(skin) * 3, 2).astype(int)


def means_by_third(values: np.ndarray, thirds: np.ndarray) -> dict[str, float]:
    """The mean of values (M,) in each third that occurs, and "gap", the largest difference of two of these means."""
    means = {name: float(np.mean(values[thirds == k])) for k, name in enumerate(THIRDS) if (thirds == k).any()}
    return {**means, "gap": max(means.values()) - min(means.values())}
