"""Thirds of the skin tones, and means in each."""

import numpy as np

from gen_affect_lib.avatars import Identity
from gen_affect_lib.evaluation.metrics.skin import means_by_third, third


def test_thirds_of_the_skin():
    assert third(np.array([0.0, 0.33, 0.34, 0.66, 0.67, 1.0])).tolist() == [0, 0, 1, 1, 2, 2]
    assert [third(Identity(skin=tone).skin) for tone in (0, 0.3, 0.34, 0.66, 0.67, 1)] == [0, 0, 1, 1, 2, 2]


def test_means_of_thirds_and_their_largest_difference():
    means = means_by_third(np.array([1.0, 0, 1, 1]), np.array([0, 0, 2, 2]))
    assert means == {"light": 0.5, "dark": 1.0, "gap": 0.5}
