"""Errors and concordance of expression vectors, and the nearest word."""

import numpy as np
import pytest

from gen_affect_lib.avatars import EMOTIONS, Expression
from gen_affect_lib.evaluation.metrics.expression import concordance, nearest_words, unit_errors


def test_concordance_is_one_only_where_values_agree():
    values = np.linspace(-1, 1, 50)
    assert concordance(values, values) == pytest.approx(1)
    assert concordance(-values, values) == pytest.approx(-1)
    assert concordance(0.5 * values, values) == pytest.approx(2 * 0.5 / (0.25 + 1))
    assert concordance(values + 1, values) == pytest.approx(2 * values.var() / (2 * values.var() + 1))


def test_true_vectors_are_nearest_to_their_words():
    faces = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    assert (nearest_words(faces) == np.arange(135)).all()


def test_an_error_is_a_share_of_the_range():
    low, high = (Expression(au12=a, gaze_x=b).to_vector() for a, b in ((0.0, -1.0), (1.0, 1.0)))
    errors = dict(zip(Expression.NAMES, unit_errors(low, high)))
    assert errors["au12"] == 1 and errors["gaze_x"] == 1 and errors["au4"] == 0
