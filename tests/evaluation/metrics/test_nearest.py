"""The nearest true face: right for true faces, wrong for others, by chance for grey."""

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.evaluation.metrics.nearest import score, score_people

WORDS = ("joy", "anger", "surprise", "sadness")
EXPRESSIONS = [Expression.named(word) for word in WORDS]
PERSON, STRANGERS = Identity.sample(1_000_001), [Identity.sample(1_000_002 + k) for k in range(5)]


def drawn(identity, expressions):
    return [Avatar(identity, e, Appearance.sample(k)).render(64) for k, e in enumerate(expressions)]


def test_true_drawings_score_the_best():
    result = score(drawn(PERSON, EXPRESSIONS), PERSON, EXPRESSIONS, STRANGERS)
    assert result["expression_top1"] == result["identity_top1"] == 1
    assert result["face_difference"] < 0.5 * result["face_difference_floor"]


def test_wrong_expressions_and_wrong_people_score_0():
    shuffled = drawn(PERSON, EXPRESSIONS[1:] + EXPRESSIONS[:1])
    assert score(shuffled, PERSON, EXPRESSIONS, STRANGERS)["expression_top1"] == 0
    assert score(drawn(STRANGERS[0], EXPRESSIONS), PERSON, EXPRESSIONS, STRANGERS)["identity_top1"] == 0


def test_one_face_for_every_word_is_right_only_once():
    same = drawn(PERSON, EXPRESSIONS[:1]) * len(WORDS)
    assert score(same, PERSON, EXPRESSIONS, STRANGERS)["expression_top1"] == pytest.approx(1 / len(WORDS))


def test_scores_come_with_ceiling_and_chance():
    grey = score_people(
        lambda identity, expressions: [np.full((64, 64, 3), 128, np.uint8)] * len(expressions),
        [1_000_001],
        WORDS,
        others=3,
    )
    assert grey["expression_top1_ceiling"] == 1 and grey["expression_top1_chance"] == 0.25
    assert grey["face_difference"] > 2 * grey["face_difference_ceiling"]
