"""The two-sample test tells pictures with a fault from drawings, and finds nothing between drawings and drawings."""

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.evaluation.metrics.two_sample import halves, picture_and_detail, two_sample_test
from gen_affect_lib.evaluation.power import blurred
from gen_affect_lib.evaluation.sets import Plan

PLAN = Plan(people=32, words=12, seeds=1, first_person=VALIDATION_SEED)


@pytest.fixture(scope="module")
def drawings():
    return [PLAN.true_drawings(appearance)[:, 0] for appearance in ("own", "other")]


def test_it_finds_a_blur(drawings):
    own, other = drawings
    assert two_sample_test(blurred(other, 1.0), own).accuracy > 0.9


def test_it_finds_nothing_between_drawings_and_other_drawings(drawings):
    own, other = drawings
    verdicts = two_sample_test(other, own)
    assert 0.35 < verdicts.accuracy < 0.65


def test_it_is_tested_on_a_quarter_of_the_people_with_as_many_pictures_of_each_kind_and_repeats_itself():
    rng = np.random.default_rng(0)
    pictures, drawings = rng.integers(0, 256, (2, 16, 8, 32, 32, 3), dtype=np.uint8)
    state = torch.get_rng_state()
    verdicts = two_sample_test(pictures // 2, drawings)
    assert (verdicts.tested == verdicts.tested[:, :1]).all() and verdicts.tested[:, 0].sum() == 4
    assert verdicts.right.shape == (16, 16) and (verdicts.right <= verdicts.tested).all()
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(two_sample_test(pictures // 2, drawings).right, verdicts.right)


def test_a_network_that_is_always_right_has_accuracy_1_and_people_of_training_do_not_count():
    black, white = np.zeros((16, 16, 32, 32, 3), np.uint8), np.full((16, 16, 32, 32, 3), 255, np.uint8)
    train_only = np.array([0, 2, 3, 5, 7])  # of eight people
    black[train_only + 8, 0] = 255  # a few wrong labels in training change nothing
    verdicts = two_sample_test(black, white)
    assert verdicts.accuracy == 1 and verdicts.right[train_only].sum() == 0


def test_detail_is_zero_on_a_plain_picture_and_shows_a_grid_of_two_grey_levels():
    plain = np.full((1, 64, 64, 3), 100, np.uint8)
    grid = plain.copy()
    grid[:, ::8] += 2
    read = [picture_and_detail(images).reshape(32, 32, 2, 2, 6)[..., 3:] for images in (plain, grid)]
    assert (read[0] == 128).all() and read[1].max() == 128 + round(10 * 4 / 3)


def test_a_symmetrical_picture_has_two_equal_halves_and_eyes_of_two_colours_do_not():
    left = np.random.default_rng(0).integers(0, 256, (1, 128, 64, 3), dtype=np.uint8)
    face = np.concatenate([left, left[:, :, ::-1]], axis=2)
    one, other = halves(face)[0]
    np.testing.assert_array_equal(one, other)
    face[0, 60, 80] = 0
    assert (halves(face)[0, 0] != halves(face)[0, 1]).any()
