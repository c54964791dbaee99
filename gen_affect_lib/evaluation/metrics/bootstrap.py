"""Bootstrap confidence intervals over people (Efron 1979), and the paired bootstrap of a difference.

Errors on pictures of one person are correlated, so people are resampled, not pictures. A statistic is a function of
the people: given the indices of some of the N people, with repetitions, it returns one number. The same function then
gives the value of all people, of each person, of each third of the skin tones, and of each bootstrap sample.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gen_affect_lib.evaluation.metrics.skin import THIRDS

Statistic = Callable[[np.ndarray], float]  # indices of people, int (K,) -> one number


def ratio(numerators: np.ndarray, denominators: np.ndarray | None = None) -> Statistic:
    """Sum of numerators over sum of denominators, both (N, …) with a row for each person; 0 where the latter is 0.

    Without denominators it is the mean of the numerators.
    """
    denominators = np.ones_like(numerators, float) if denominators is None else denominators
    above, below = (np.asarray(part, float).reshape(len(part), -1).sum(axis=1) for part in (numerators, denominators))
    return lambda people: float(above[people].sum() / max(below[people].sum(), 1e-12))


def of_rows(measure: Callable[[np.ndarray], float], owners: np.ndarray) -> Statistic:
    """The statistic of a measure that takes indices of rows. owners (M,): the person to whom each row belongs.

    Person n is the n-th of the sorted owners; all rows of a resampled person are taken.
    """
    rows = [np.flatnonzero(owners == owner) for owner in np.unique(owners)]
    return lambda people: measure(np.concatenate([rows[n] for n in people]))


def bootstrap(statistic: Statistic, people: int, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over N = `people` people: (low, high).

    Bootstrap samples in which the statistic is nan are left out.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, people, people)) for _ in range(draws)]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def estimate(statistic: Statistic, people: int, draws: int = 500, seed: int = 0) -> dict[str, float]:
    """A statistic of all people as "value", with the ends of its interval, "low" and "high"."""
    low, high = bootstrap(statistic, people, draws, seed)
    return {"value": statistic(np.arange(people)), "low": low, "high": high}


def difference(ours: Statistic, theirs: Statistic, people: int, draws: int = 500, seed: int = 0) -> dict[str, float]:
    """Ours minus theirs on the same people, with the interval of the paired bootstrap; keys as of `estimate`."""
    return estimate(lambda sample: ours(sample) - theirs(sample), people, draws, seed)


def per_person(statistic: Statistic, people: int) -> list[float]:
    """The statistic of each person alone."""
    return [statistic(np.array([n])) for n in range(people)]


def summary(statistics: dict[str, Statistic], thirds: np.ndarray, draws: int = 500) -> dict[str, dict[str, float]]:
    """Each statistic as `estimate` gives it, for each third of the skin tones, and the largest difference, "gap".

    thirds: int (N,), indices into `skin.THIRDS`. A third with fewer than two people is left out.
    """
    table = {}
    for name, statistic in statistics.items():
        tones = {t: statistic(np.flatnonzero(thirds == k)) for k, t in enumerate(THIRDS) if (thirds == k).sum() > 1}
        gap = max(tones.values()) - min(tones.values()) if tones else 0.0
        table[name] = estimate(statistic, len(thirds), draws) | tones | {"gap": gap}
    return table
