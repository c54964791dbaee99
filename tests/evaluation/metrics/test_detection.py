"""Average precision and landmark errors on cases that can be worked out by hand."""

import numpy as np
import pytest

from gen_affect_lib.evaluation.metrics.detection import average_precision, ious, landmark_errors, match

FACES = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)


def test_overlaps_of_boxes():
    assert np.allclose(ious(FACES[:1], np.array([[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60]])), [[1, 1 / 3, 0]])


def test_a_face_is_found_once_and_by_the_surest():
    found = np.array([[1, 0, 11, 10], [0, 0, 10, 10], [21, 0, 31, 10], [60, 0, 70, 10]], float)
    assert match(found, np.array([0.9, 0.8, 0.7, 0.6]), FACES).tolist() == [0, -1, 1, -1]
    assert match(found, np.array([0.8, 0.9, 0.7, 0.6]), FACES).tolist() == [-1, 0, 1, -1]
    assert match(found[:1], np.array([0.9]), np.zeros((0, 4))).tolist() == [-1]


def test_average_precision_by_hand():
    scores, matches = [np.array([0.9, 0.7]), np.array([0.8])], [np.array([0, 1]), np.array([-1])]
    # right, wrong, right: precision 1 up to a recall of 1/2, then 2/3
    assert average_precision(scores, matches, 2) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(scores, matches, 4) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert average_precision([np.array([0.9])], [np.array([0])], 1) == 1.0


def test_landmarks_are_measured_in_eye_distances():
    truth = np.array([[[0, 0], [50, 0], [25, 20], [10, 40], [40, 40]]], float)
    assert landmark_errors(truth + (3, 4), truth) == pytest.approx([0.1])
