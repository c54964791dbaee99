"""Scenes: several faces, all inside, none hidden, and the same for the same seed."""

import numpy as np

from gen_affect_lib.avatars.scenes import MOST, scene
from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
from gen_affect_lib.evaluation.metrics.detection import ious

SCENES = [scene(seed, VALIDATION_SEED, 1000, 128) for seed in range(40)]


def test_every_face_lies_inside_with_its_landmarks():
    for s in SCENES:
        assert 1 <= len(s.boxes) <= MOST and len(s.points) == len(s.skins) == len(s.boxes)
        assert (s.boxes > -0.5).all() and (s.boxes < 128.5).all()
        assert (s.points > s.boxes[:, None, :2]).all() and (s.points < s.boxes[:, None, 2:]).all()


def test_no_face_hides_another():
    for s in SCENES:
        assert (ious(s.boxes, s.boxes) - np.eye(len(s.boxes)) < 1e-6).all()


def test_sizes_and_numbers_are_mixed():
    sides = np.concatenate([s.boxes[:, 2] - s.boxes[:, 0] for s in SCENES])
    assert sides.min() < 0.12 * 128 and sides.max() > 0.5 * 128
    assert {1, 2, 3} <= {len(s.boxes) for s in SCENES}


def test_a_seed_is_a_scene():
    again, other = scene(3, VALIDATION_SEED, 1000, 128), scene(3, REPORT_SEED, 1000, 128)
    assert np.array_equal(again.image, SCENES[3].image) and np.array_equal(again.points, SCENES[3].points)
    assert not np.array_equal(other.image, SCENES[3].image)
