"""What can be read linearly of numbers that should not tell it: the action units from an identity, a person from an
expression, the background from either.

A probe is ridge regression (Alain & Bengio 2016): the best linear reader that some people teach it to be, asked about
other people. What it finds is there; what it does not find may still be there for a reader that is not linear.

Letters: M pictures, N people, F numbers of the representation that is probed, K numbers to be read from it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.evaluation.metrics.recognition import hits

RIDGES = tuple(10.0**power for power in range(-4, 5))  # by which the probe may be held back


class LinearProbe:
    """Reads targets (M, K) from features (M, F). How far it is held back is chosen on a fifth of the people it learns from.

    Args:
        people: (M,), who is on each picture: nobody is both learned from and chosen on.
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray, people: np.ndarray):
        x, y = (torch.from_numpy(np.asarray(part, np.float64)) for part in (features, targets))
        chosen_on = torch.from_numpy(np.isin(people, np.unique(people)[::5]))
        tried = self._readers(x[~chosen_on], y[~chosen_on], RIDGES)
        errors = torch.stack([(read(x[chosen_on]) - y[chosen_on]).square().sum() for read in tried])
        (self.read,) = self._readers(x, y, [RIDGES[int(errors.argmin())]])

    @staticmethod
    def _readers(x: Tensor, y: Tensor, ridges) -> list:
        """One for each ridge. What costs most, the products of all features with each other, they share."""
        middle, spread, mean = x.mean(dim=0), x.std(dim=0).clamp_min(1e-9), y.mean(dim=0)
        z = (x - middle) / spread
        few = len(z) < z.shape[1]  # with fewer pictures than features the products of pictures say the same, and sooner
        gram, cross = (z @ z.T, y - mean) if few else (z.T @ z, z.T @ (y - mean))  # (M, M), (M, K) or (F, F), (F, K)
        gram, cross = gram / len(z), cross / len(z)

        def reader(ridge: float):
            held = gram + ridge * torch.eye(len(gram), dtype=torch.float64)
            weights = torch.cholesky_solve(cross, torch.linalg.cholesky(held))
            weights = z.T @ weights if few else weights  # (F, K)
            return lambda features: (features - middle) / spread @ weights + mean

        return [reader(ridge) for ridge in ridges]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float64 (M, K)"""
        return self.read(torch.from_numpy(np.asarray(features, np.float64))).numpy()


def unseen(features: np.ndarray, targets: np.ndarray, people: np.ndarray, folds: int = 4) -> np.ndarray:
    """What probes say of each picture, float64 (M, K), none of which learned from the person on it."""
    fold = np.searchsorted(np.unique(people), people) % folds
    said = np.empty(targets.shape)
    for k in range(folds):
        said[fold == k] = LinearProbe(features[fold != k], targets[fold != k], people[fold != k])(features[fold == k])
    return said


def explained(said: np.ndarray, truth: np.ndarray, mean: np.ndarray | None = None) -> float:
    """The share of the variance of truth (M, K) that is explained: 1 is all, and 0 no more than the mean explains.

    `mean` (K,) is truth's own unless given. For an interval give that of all: some drawn again, and few of them, lie
    nearer to their own, and every drawing would come out too low.
    """
    mean = truth.mean(axis=0) if mean is None else mean
    return float(1 - ((truth - said) ** 2).sum() / ((truth - mean) ** 2).sum())


def hue_bins(appearances: list, bins: int = 8) -> np.ndarray:
    """In which part of the circle each background's hue lies, one-hot: float64 (M, bins)."""
    return np.eye(bins)[[int(one.background_hue * bins) % bins for one in appearances]]


def named(said: np.ndarray, truth: np.ndarray) -> float:
    """How often the largest of (M, K) is the right one of a one-hot truth (M, K)."""
    return float((said.argmax(axis=1) == truth.argmax(axis=1)).mean())


def found_again(features: np.ndarray, factors: np.ndarray, learned_from: int) -> np.ndarray:
    """Retrieval of people through a probe: whether each whom it did not learn from is found among them, bool
    (N - learned_from,).

    Args:
        features: (N, 2, F), two pictures of each person. factors: (N, K), who they are, in numbers.
        learned_from: how many of the N the probe learns to read factors from; all others are looked for.
    """
    factors = (factors - factors.mean(axis=0)) / np.maximum(factors.std(axis=0), 1e-9)
    people = np.repeat(np.arange(learned_from), 2)
    taught = features[:learned_from].reshape(2 * learned_from, -1)  # (N, 2, F) -> (2 N, F)
    probe = LinearProbe(taught, factors[people], people)
    reference, asked = (torch.from_numpy(probe(features[learned_from:, k])) for k in range(2))
    return hits(reference, asked).numpy()


def interval(measure, people: np.ndarray, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """The middle 95 % of `measure(rows)` when people (M,) are drawn again with replacement (bootstrap)."""
    rng, names = np.random.default_rng(seed), np.unique(people)
    rows = {name: np.flatnonzero(people == name) for name in names}
    values = [measure(np.concatenate([rows[n] for n in rng.choice(names, len(names))])) for _ in range(draws)]
    return tuple(float(v) for v in np.percentile(values, (2.5, 97.5)))
