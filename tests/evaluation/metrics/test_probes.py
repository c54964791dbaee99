"""A probe finds what is in the features and nothing else, and is never fitted on the person it is evaluated on."""

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance
from gen_affect_lib.evaluation.metrics.bootstrap import bootstrap
from gen_affect_lib.evaluation.metrics.probes import (
    LinearProbe,
    accuracy,
    cross_validated,
    explained,
    hue_bins,
    retrieved,
)

RNG = np.random.default_rng(0)
PEOPLE = np.repeat(np.arange(150), 2)


def test_what_depends_on_the_features_is_predicted_and_noise_is_not():
    features = RNG.normal(size=(300, 20))
    there = features @ RNG.normal(size=(20, 3)) + 0.1 * RNG.normal(size=(300, 3))
    chance = RNG.normal(size=(300, 3))
    assert explained(cross_validated(features, there, PEOPLE), there) > 0.99
    assert -0.03 < explained(cross_validated(features, chance, PEOPLE), chance) < 0.03


def test_features_with_as_much_noise_as_signal_explain_half():
    truth = RNG.normal(size=(4000, 1))
    features = truth + RNG.normal(size=(4000, 1))
    people = np.arange(4000)
    assert explained(cross_validated(features, truth, people), truth) == pytest.approx(0.5, abs=0.04)


def test_more_features_than_pictures_explain_no_noise():
    features, chance = RNG.normal(size=(300, 500)), RNG.normal(size=(300, 2))
    assert explained(cross_validated(features, chance, PEOPLE), chance) > -0.1


def test_the_dual_form_gives_the_same_predictions():
    """Features that are always zero change how the probe is computed, and not its predictions."""
    features, truth = RNG.normal(size=(60, 20)), RNG.normal(size=(60, 2))
    padded = np.concatenate([features, np.zeros((60, 80))], axis=1)
    np.testing.assert_allclose(
        LinearProbe(features, truth, PEOPLE[:60])(features), LinearProbe(padded, truth, PEOPLE[:60])(padded), atol=1e-8
    )


def test_it_is_not_fitted_on_the_person_it_is_evaluated_on():
    """Each person has a feature of their own, which tells everything about people in the training set only."""
    marks = np.repeat(np.eye(150), 2, axis=0)
    fate = np.repeat(RNG.normal(size=(150, 1)), 2, axis=0)
    assert explained(LinearProbe(marks, fate, PEOPLE)(marks), fate) > 0.2
    assert explained(cross_validated(marks, fate, PEOPLE), fate) < 0.02


def test_the_mean_explains_nothing():
    truth = RNG.normal(size=(50, 4))
    assert explained(np.tile(truth.mean(axis=0), (50, 1)), truth) == pytest.approx(0)
    assert explained(truth, truth) == 1


def test_bins_of_hues_are_equal_parts_of_the_circle():
    looks = [Appearance(background_hue=hue) for hue in (0.0, 0.124, 0.126, 0.5, 0.99)]
    assert hue_bins(looks).argmax(axis=1).tolist() == [0, 0, 1, 4, 7]
    assert accuracy(hue_bins(looks), hue_bins(looks)) == 1


def test_people_are_retrieved_by_features_that_depend_on_their_factors_and_else_by_chance():
    factors = RNG.normal(size=(400, 6))
    telling = np.stack([factors @ RNG.normal(size=(6, 12))] * 2, axis=1) + 0.01 * RNG.normal(size=(400, 2, 12))
    found = retrieved(telling, factors, 200)
    assert found.shape == (200,) and found.mean() > 0.95
    assert retrieved(RNG.normal(size=(400, 2, 12)), factors, 200).mean() < 0.04


def test_the_interval_of_what_is_explained_holds_the_value_with_the_mean_of_all():
    truth = RNG.normal(size=(20, 3))
    predicted = truth.mean(axis=0) + 0.01 * RNG.normal(size=truth.shape)
    value = explained(predicted, truth)
    low, high = bootstrap(lambda rows: explained(predicted[rows], truth[rows], mean=truth.mean(axis=0)), 20, 200)
    assert low < value < high
    own_mean = bootstrap(lambda rows: explained(predicted[rows], truth[rows]), 20, 200)
    assert own_mean[1] < value
