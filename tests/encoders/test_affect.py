"""Words, valence and arousal follow from the 21 numbers of an expression vector."""

import numpy as np
import pytest

from gen_affect_lib.avatars import EMOTIONS, Expression
from gen_affect_lib.avatars.emotions import families, groups, table
from gen_affect_lib.encoders.affect import (
    SPREAD,
    STRENGTHS,
    affect_of,
    branches,
    class_logits,
    log_likelihoods,
    posterior,
    vector_of_point,
    vector_of_word,
    weights_of_point,
    word_affect,
    word_vectors,
)
from gen_affect_lib.errors import UserError


def test_the_likelihood_is_the_formula_on_top_of_the_file():
    vectors = np.random.default_rng(0).normal(0, 0.4, (3, 21))
    for vector, row in zip(vectors, log_likelihoods(vectors)):
        for w in (0, 17, 134):
            distances = [((vector - s * word_vectors()[w]) ** 2).sum() for s in STRENGTHS]
            assert row[w] == pytest.approx(np.log(np.mean([np.exp(-d / (2 * SPREAD**2)) for d in distances])))
        assert row[-1] == pytest.approx(-(vector**2).sum() / (2 * SPREAD**2))


@pytest.mark.parametrize("strength", (0.65, 0.8, 1.0, 1.1))
def test_every_word_is_found_again_from_its_units_however_strongly_it_is_shown(strength):
    assert (posterior(strength * word_vectors()).argmax(axis=1) == np.arange(135)).all()


def test_a_still_face_is_neutral():
    probabilities = posterior(np.zeros((1, 21)))[0]
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.argmax() == 135 and probabilities[135] > 0.8
    assert np.abs(affect_of(np.zeros((1, 21)))).max() < 0.1


def test_words_have_the_valence_and_arousal_of_the_table():
    difference = np.abs(affect_of(word_vectors()) - word_affect())
    assert difference.mean() < 0.01 and difference.max() < 0.12


def test_a_point_of_the_plane_is_found_again_from_its_face():
    points = word_affect()
    again = affect_of(np.stack([vector_of_point(*point) for point in points]))
    assert np.linalg.norm(again - points, axis=1).mean() < 0.08
    assert np.linalg.norm(again - points, axis=1).max() < 0.25


def test_the_face_of_a_point_far_from_all_words_is_still_a_face():
    for point in ((-1, -1), (1, 1), (1, -1), (-1, 1)):
        Expression(**dict(zip(Expression.NAMES, vector_of_point(*point))))  # raises outside the ranges


@pytest.mark.parametrize("point", ((1.2, 0), (0, -1.01), (float("nan"), 0)))
def test_a_point_outside_the_plane_is_refused(point):
    with pytest.raises(UserError, match="from -1 to 1"):
        vector_of_point(*point)


def test_probabilities_of_a_branch_are_the_sum_of_its_words():
    probabilities = posterior(np.random.default_rng(1).normal(0, 0.5, (4, 21)))[:, :-1]
    rows = list(table().values())
    for classes, names, attribute in ((6, families(), "family"), (25, groups(), "group")):
        summed = np.exp(class_logits(np.log(probabilities), classes))
        for column, name in enumerate(names):
            own = [i for i, row in enumerate(rows) if getattr(row, attribute) == name]
            assert summed[:, column] == pytest.approx(probabilities[:, own].sum(axis=1))
    assert len(set(branches()[25])) == 25 and len(set(branches()[6])) == 6
    with pytest.raises(UserError, match="6 .* 25 .* 135"):
        class_logits(np.zeros(135), 7)


def test_words_are_taken_as_the_table_takes_them_and_neutral_is_one():
    assert (vector_of_word("Glee ") == word_vectors()[EMOTIONS.index("glee")]).all()
    assert (vector_of_word("neutral") == 0).all()
    with pytest.raises(UserError, match="happiness"):
        vector_of_word("happyness")


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"\(M, 21\)"):
        log_likelihoods(np.zeros(21))


@pytest.mark.parametrize("point", [(0.75, 0.45), (-0.6, 0.35), (0.0, 0.0), (1.0, -1.0)])
def test_nearer_words_count_more_at_a_point(point):
    weights = weights_of_point(*point)
    places = np.array([*((one.valence, one.arousal) for one in table().values()), (0.0, 0.0)])
    assert weights.shape == (136,) and weights.sum() == pytest.approx(1)
    order = np.argsort(np.hypot(*(places - point).T), kind="stable")
    assert (np.diff(weights[order]) <= 1e-12).all()
