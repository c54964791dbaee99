"""Linear probes: what a linear map can predict from a representation, such as action units from identity embeddings.

A probe (Alain & Bengio 2016) is ridge regression, fitted on some people and evaluated on others. A low score does not
exclude that a nonlinear map could predict more.

Letters: M pictures, N people, F features of the representation, K target numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.avatars import Appearance
from gen_affect_lib.evaluation.metrics.recognition import hits

RIDGES = tuple(10.0**power for power in range(-4, 5))  # regularisation strengths to choose from


class LinearProbe:
    """Ridge regression from features (M, F) to targets (M, K), called with features.

    The regularisation strength is chosen on a fifth of the people; then the probe is fitted on all.

    Args:
        people: (M,), the person on each picture. Fitted and held-out pictures have no person in common.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray, people: np.ndarray):
        x, y = (torch.from_numpy(np.asarray(part, np.float64)) for part in (features, targets))
        held_out = torch.from_numpy(np.isin(people, np.unique(people)[::5]))
        candidates = self._fit(x[~held_out], y[~held_out], RIDGES)
        errors = torch.stack([(probe(x[held_out]) - y[held_out]).square().sum() for probe in candidates])
        (self.probe,) = self._fit(x, y, [RIDGES[int(errors.argmin())]])

    @staticmethod
    def _fit(x: Tensor, y: Tensor, ridges: Sequence[float]) -> list[Callable[[Tensor], Tensor]]:
        """One probe for each ridge. They share the Gram matrix, which costs the most."""
        center, spread, mean = x.mean(dim=0), x.std(dim=0).clamp_min(1e-9), y.mean(dim=0)
        z = (x - center) / spread
        dual = len(z) < z.shape[1]  # with fewer pictures than features the dual form is smaller, with the same solution
        gram, cross = (z @ z.T, y - mean) if dual else (z.T @ z, z.T @ (y - mean))  # (M, M), (M, K) or (F, F), (F, K)
        gram, cross = gram / len(z), cross / len(z)

        def probe(ridge: float) -> Callable[[Tensor], Tensor]:
            regularised = gram + ridge * torch.eye(len(gram), dtype=torch.float64)
            weights = torch.cholesky_solve(cross, torch.linalg.cholesky(regularised))
            weights = z.T @ weights if dual else weights  # (F, K)
            return lambda features: (features - center) / spread @ weights + mean

        return [probe(ridge) for ridge in ridges]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Predictions for features (M, F): float64 (M, K)."""
        return self.probe(torch.from_numpy(np.asarray(features, np.float64))).numpy()


def cross_validated(features: np.ndarray, targets: np.ndarray, people: np.ndarray, folds: int = 4) -> np.ndarray:
    """Predictions float64 (M, K) of probes that were not fitted on the person on the picture.

    Args:
        features: (M, F). targets: (M, K). people: (M,), the person on each picture.
    """
    fold = np.searchsorted(np.unique(people), people) % folds
    predicted = np.empty(targets.shape)
    for k in range(folds):
        probe = LinearProbe(features[fold != k], targets[fold != k], people[fold != k])
        predicted[fold == k] = probe(features[fold == k])
    return predicted


def explained(predicted: np.ndarray, truth: np.ndarray, mean: np.ndarray | None = None) -> float:
    """Coefficient of determination R² of predictions (M, K): the share of the variance of truth (M, K) explained.

    mean: (K,), by default the mean of `truth`. For a bootstrap interval pass the mean over all pictures: with
    the mean of each bootstrap sample, R² would be too low.
    """
    mean = truth.mean(axis=0) if mean is None else mean
    return float(1 - ((truth - predicted) ** 2).sum() / ((truth - mean) ** 2).sum())


def hue_bins(appearances: Sequence[Appearance], bins: int = 8) -> np.ndarray:
    """The part of the circle in which the hue of each background lies, one-hot: float64 (M, bins)."""
    return np.eye(bins)[[int(one.background_hue * bins) % bins for one in appearances]]


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The share of predictions (M, K) whose largest entry is that of a one-hot truth (M, K)."""
    return float((predicted.argmax(axis=1) == truth.argmax(axis=1)).mean())


def retrieved(features: np.ndarray, factors: np.ndarray, training_people: int) -> np.ndarray:
    """Retrieval of held-out people by the factors that a probe predicts: bool (N - training_people,).

    Args:
        features: (N, 2, F), two pictures of each person. factors: (N, K), the person's factors.
        training_people: how many of the N the probe is fitted on; the others are retrieved among each other.
    """
    factors = (factors - factors.mean(axis=0)) / np.maximum(factors.std(axis=0), 1e-9)
    people = np.repeat(np.arange(training_people), 2)
    training = features[:training_people].reshape(2 * training_people, -1)  # (N, 2, F) -> (2 N, F)
    probe = LinearProbe(training, factors[people], people)
    reference, other = (torch.from_numpy(probe(features[training_people:, k])) for k in range(2))
    return hits(reference, other).numpy()
