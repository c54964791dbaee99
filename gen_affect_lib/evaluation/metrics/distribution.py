"""The diversity of generated pictures, and the distance of their distribution to that of true drawings.

Letters: N people, M pictures of each, F features.
"""

from __future__ import annotations

import numpy as np

from gen_affect_lib.evaluation.metrics.bootstrap import Statistic


def distribution(features: np.ndarray, true_features: np.ndarray) -> dict[str, Statistic]:
    """Diversity and kernel distance of pictures of N people to true drawings of the same people and words.

    "diversity": mean distance (1 - cosine of standardised features) of pictures of different people with one word,
    divided by the same of true drawings; 0 if all show one mean face, 1 if they are as varied as true drawings.
    "kid": the kernel distance of Binkowski et al. (2018), 0 for equal distributions. The features are the judges',
    which were trained on drawings, in place of Inception's.

    Args:
        features, true_features: (N, M, F), with N at least 2.
    """
    mean, spread = true_features.mean(axis=(0, 1)), true_features.std(axis=(0, 1))
    spread = np.maximum(spread, 0.1 * spread.mean())  # a feature that hardly varies would outweigh all others
    ours, true = ((part - mean) / spread for part in (features, true_features))
    distances, true_distances = (1 - _mean_products(_unit(part)) for part in (ours, true))
    kernels = [_kernel_means(a, b) for a, b in ((ours, ours), (true, true), (ours, true))]

    def diversity(people: np.ndarray) -> float:
        return _mean_over_pairs(distances, people) / _mean_over_pairs(true_distances, people)

    def kernel_distance(people: np.ndarray) -> float:
        own, real, cross = (_mean_over_pairs(kernel, people) for kernel in kernels)
        return own + real - 2 * cross

    return {"diversity": diversity, "kid": kernel_distance}


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _mean_products(x: np.ndarray) -> np.ndarray:
    """Mean product of pictures of the same word, for each pair of people: (N, M, F) -> (N, N)."""
    return np.einsum("nmf,kmf->nk", x, x, optimize=True) / x.shape[1]


def _mean_over_pairs(table: np.ndarray, people: np.ndarray) -> float:
    """Mean of a table (N, N) over all pairs of different people; nan if a bootstrap sample holds only one person."""
    others = people[:, None] != people  # a sample repeats people, and a person's distance to itself does not count
    return float(table[np.ix_(people, people)][others].mean()) if others.any() else float("nan")


def _kernel_means(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of the kernel (x·y / F + 1)³ over all pictures of each pair of people: (N, M, F) twice -> (N, N)."""
    N, M, F = a.shape
    result = np.empty((N, N))
    for n in range(N):  # one person at a time keeps the memory small
        products = (a[n] @ b.reshape(-1, F).T / F + 1) ** 3  # (M, N M)
        result[n] = products.reshape(M, N, M).mean(axis=(0, 2))
    return result
