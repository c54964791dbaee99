"""Diversity and kernel distance of made-up features."""

import numpy as np
import pytest

from gen_affect_lib.evaluation.metrics.bootstrap import bootstrap
from gen_affect_lib.evaluation.metrics.distribution import distribution


def values(statistics, people):
    return {name: statistic(np.arange(people)) for name, statistic in statistics.items()}


def features(shift=0.0, seed=0, people=40):
    """People apart from each other, and pictures of each."""
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(people, 1, 32)) + 0.5 * rng.normal(size=(people, 4, 32))


def test_the_truth_is_as_diverse_as_itself_and_one_face_for_all_is_not_diverse():
    true = features()
    assert values(distribution(true, true), 40)["diversity"] == pytest.approx(1)
    mean_face = np.broadcast_to(true[3, :1], (40, 4, 32))
    assert values(distribution(mean_face, true), 40)["diversity"] == pytest.approx(0, abs=1e-6)
    between = (true + mean_face) / 2
    assert 0.2 < values(distribution(between, true), 40)["diversity"] < 0.8


def test_the_kernel_distance_is_about_zero_for_two_samples_of_one_distribution_and_grows_with_a_shift():
    alike, near, far = (values(distribution(features(shift, seed=1), features()), 40)["kid"] for shift in (0, 0.3, 1))
    assert abs(alike) < 0.1 * near and near < 0.5 * far


def test_a_sample_of_one_person_alone_is_nan_and_left_out_of_the_interval():
    figures = distribution(features(), features())
    with np.errstate(all="raise"):
        assert all(np.isnan(figure(np.array([3, 3, 3]))) for figure in figures.values())
        assert all(np.isfinite(bootstrap(figure, 3)).all() for figure in figures.values())
