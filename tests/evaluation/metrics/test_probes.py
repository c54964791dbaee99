"""A probe finds what is there, does not find what is not, and never learns from the person it is asked about."""

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance
from gen_affect_lib.evaluation.metrics.probes import (
    LinearProbe,
    explained,
    found_again,
    hue_bins,
    interval,
    named,
    unseen,
)

RNG = np.random.default_rng(0)
PEOPLE = np.repeat(np.arange(150), 2)


def test_what_is_there_is_read_and_what_is_not_is_not():
    features = RNG.normal(size=(300, 20))
    there = features @ RNG.normal(size=(20, 3)) + 0.1 * RNG.normal(size=(300, 3))
    chance = RNG.normal(size=(300, 3))
    assert explained(unseen(features, there, PEOPLE), there) > 0.99
    assert -0.03 < explained(unseen(features, chance, PEOPLE), chance) < 0.03


def test_a_half_hidden_thing_is_read_by_half():
    truth = RNG.normal(size=(4000, 1))
    features = truth + RNG.normal(size=(4000, 1))
    people = np.arange(4000)
    assert explained(unseen(features, truth, people), truth) == pytest.approx(0.5, abs=0.04)


def test_more_numbers_than_pictures_do_not_make_it_see_what_is_not_there():
    features, chance = RNG.normal(size=(300, 500)), RNG.normal(size=(300, 2))
    assert explained(unseen(features, chance, PEOPLE), chance) > -0.1


def test_few_pictures_and_many_give_the_same_formula():
    """Features of no spread say nothing: zeros beside the others change how it is computed, and not the answer."""
    features, truth = RNG.normal(size=(60, 20)), RNG.normal(size=(60, 2))
    padded = np.concatenate([features, np.zeros((60, 80))], axis=1)
    np.testing.assert_allclose(
        LinearProbe(features, truth, PEOPLE[:60])(features), LinearProbe(padded, truth, PEOPLE[:60])(padded), atol=1e-8
    )


def test_it_does_not_learn_from_whom_it_is_asked_about():
    """Each person has a mark of their own, which tells everything to who has seen it."""
    marks = np.repeat(np.eye(150), 2, axis=0)
    fate = np.repeat(RNG.normal(size=(150, 1)), 2, axis=0)
    assert explained(LinearProbe(marks, fate, PEOPLE)(marks), fate) > 0.2
    assert explained(unseen(marks, fate, PEOPLE), fate) < 0.02


def test_the_mean_explains_nothing():
    truth = RNG.normal(size=(50, 4))
    assert explained(np.tile(truth.mean(axis=0), (50, 1)), truth) == pytest.approx(0)
    assert explained(truth, truth) == 1


def test_bins_of_hues_are_even_parts_of_the_circle():
    looks = [Appearance(background_hue=hue) for hue in (0.0, 0.124, 0.126, 0.5, 0.99)]
    assert hue_bins(looks).argmax(axis=1).tolist() == [0, 0, 1, 4, 7]
    assert named(hue_bins(looks), hue_bins(looks)) == 1


def test_people_are_found_again_where_the_numbers_tell_them_and_else_by_chance():
    factors = RNG.normal(size=(400, 6))
    telling = np.stack([factors @ RNG.normal(size=(6, 12))] * 2, axis=1) + 0.01 * RNG.normal(size=(400, 2, 12))
    found = found_again(telling, factors, 200)
    assert found.shape == (200,) and found.mean() > 0.95
    assert found_again(RNG.normal(size=(400, 2, 12)), factors, 200).mean() < 0.04


def test_the_interval_holds_the_mean_of_many_people_closer():
    values = RNG.normal(size=1000)
    few, many = (interval(lambda rows: values[rows].mean(), np.arange(count)) for count in (30, 1000))
    assert few[0] < values[:30].mean() < few[1] and many[1] - many[0] < 0.3 * (few[1] - few[0])


def test_the_interval_of_what_few_people_explain_holds_it():
    truth, people = RNG.normal(size=(20, 3)), np.arange(20)
    said = truth.mean(axis=0) + 0.01 * RNG.normal(size=truth.shape)
    value = explained(said, truth)
    low, high = interval(lambda rows: explained(said[rows], truth[rows], mean=truth.mean(axis=0)), people)
    assert low < value < high
    assert interval(lambda rows: explained(said[rows], truth[rows]), people)[1] < value, "with each drawing's own mean"
