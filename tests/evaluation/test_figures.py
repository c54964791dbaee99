"""Figures have the known values for made-up judgements, and tell true drawings from other pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars import EMOTIONS, Appearance, Expression
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.figures import (
    GroundTruth,
    Judgements,
    consistency_figures,
    distribution_figures,
    expression_figures,
    identity_figures,
    leakage,
)  # fmt: skip
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import TITLES
from gen_affect_lib.evaluation.sets import Plan

PLAN = Plan(people=8, words=6, seeds=2)
WORDS, TARGETS = PLAN.targets()


def everybody(figure, people=8):
    return figure(np.arange(people))


def values(figures, people=8):
    return {name: everybody(figure, people) for name, figure in figures.items()}


def judged(**parts):
    """Made-up judgements."""
    return SimpleNamespace(**{name: np.asarray(part) for name, part in parts.items()})


# --- leakage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_leakage_is_the_share_of_the_way_from_the_target_to_the_reference(share):
    drawn = TARGETS + share * (PLAN.reference_vectors[:, None] - TARGETS)  # (N, M, 21)
    assert everybody(leakage(judged(vectors=drawn), TARGETS, PLAN.reference_vectors)) == pytest.approx(share, abs=1e-6)


def test_a_weak_expression_is_no_leakage_and_a_weak_copy_is_less_of_it():
    faint = np.broadcast_to(0.6 * TARGETS, (8, *TARGETS.shape))
    assert everybody(leakage(judged(vectors=faint), TARGETS, PLAN.reference_vectors)) == pytest.approx(0, abs=1e-6)
    copies = np.broadcast_to(0.6 * PLAN.reference_vectors[:, None], faint.shape)
    assert everybody(leakage(judged(vectors=copies), TARGETS, PLAN.reference_vectors)) == pytest.approx(0.6, abs=1e-6)


def test_a_reference_that_shows_the_target_leaks_nothing():
    shown = np.repeat(TARGETS[:1], 8, axis=0)
    drawn = judged(vectors=np.broadcast_to(TARGETS[:1], (8, 1, 21)))
    assert everybody(leakage(drawn, TARGETS[:1], shown)) == 0


# --- claim (a) -------------------------------------------------------------------------------------------------------


def certain(words):
    """A judge that is certain of these words (N, M), and reads their vectors."""
    vectors = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    return judged(vectors=vectors[words], words=np.eye(135)[words])


def test_target_faces_are_right_in_everything():
    figures = values(expression_figures(certain(np.tile(WORDS, (8, 1))), WORDS, TARGETS))
    assert [figures[f"expression_top1_{n}"] for n in (6, 25, 135)] == [1, 1, 1]
    assert figures["action_unit_error"] == figures["expression_error"] == figures["tree_distance_of_mistakes"] == 0
    assert figures["valence_concordance"] > 0.99 and figures["arousal_concordance"] > 0.99


def test_faces_of_other_words_are_wrong():
    figures = values(expression_figures(certain(np.tile(np.roll(WORDS, 1), (8, 1))), WORDS, TARGETS))
    assert figures["expression_top1_135"] == figures["expression_top1_25"] == 0
    assert figures["action_unit_error"] > 0.1 and figures["expression_error"] > 0.1
    assert figures["valence_concordance"] < 0.5 and 2 <= figures["tree_distance_of_mistakes"] <= 3


def test_another_word_of_the_group_is_right_in_its_group_and_a_mistake_of_distance_1():
    joy, glee = (EMOTIONS.index(word) for word in ("joy", "glee"))
    asked = Expression.named("joy").to_vector()[None]
    figures = values(expression_figures(certain(np.full((8, 1), glee)), np.array([joy]), asked))
    assert [figures[f"expression_top1_{n}"] for n in (6, 25, 135)] == [1, 1, 0]
    assert figures["tree_distance_of_mistakes"] == 1


def test_the_probability_of_a_group_is_the_sum_of_its_words():
    """A judge can be uncertain between two words of a group and still be right about the group."""
    joy, glee, fear = (EMOTIONS.index(word) for word in ("joy", "glee", "fear"))
    uncertain = certain(np.full((8, 1), joy))
    uncertain.words = np.zeros((8, 1, 135))
    uncertain.words[..., [joy, glee, fear]] = 0.3, 0.3, 0.4
    figures = values(expression_figures(uncertain, np.array([joy]), Expression.named("joy").to_vector()[None]))
    assert figures["expression_top1_25"] == figures["expression_top1_6"] == 1 and figures["expression_top1_135"] == 0


# --- claim (b) -------------------------------------------------------------------------------------------------------


def test_a_person_is_retrieved_and_verified_only_where_it_is_the_person():
    gallery, person = np.eye(20), np.arange(8)
    own = judged(embeddings=np.repeat(gallery[:8, None], 3, axis=1))
    assert values(identity_figures(own, person, gallery, 0.5)) == dict(
        identity_cosine=1, identity_top1=1, identity_verified=1
    )
    assert set(values(identity_figures(own, np.roll(person, 1), gallery, 0.5)).values()) == {0}
    half = judged(embeddings=(gallery[:8, None] + gallery[None, 10:13]) / 2**0.5)  # half another of the gallery
    half.embeddings[:4, :, :8] *= 1.01
    figures = values(identity_figures(half, person, gallery, 0.71))
    assert figures["identity_cosine"] == pytest.approx(2**-0.5, rel=0.01)
    assert figures["identity_verified"] == 0.5


# --- claim (c) -------------------------------------------------------------------------------------------------------


def appearances(*seeds):
    return np.stack([Appearance.sample(seed).to_vector() for seed in seeds])


def test_a_set_of_identical_pictures_agrees_in_everything_whatever_the_other_sets_show():
    rng = np.random.default_rng(0)
    who = rng.normal(size=(8, 2, 1, 16)).repeat(6, axis=2).reshape(8, 12, 16)  # each seed draws somebody else
    who /= np.linalg.norm(who, axis=2, keepdims=True)
    dressed = appearances(*range(16)).reshape(8, 2, 1, -1).repeat(6, axis=2).reshape(8, 12, -1)
    figures = values(consistency_figures(judged(embeddings=who, appearance=dressed), seeds=2))
    assert figures == pytest.approx(dict(set_cosine=1, set_cosine_least=1, appearance_agreement=1, tilt_agreement=1))
    apart = values(consistency_figures(judged(embeddings=who, appearance=dressed), seeds=1))
    assert apart["set_cosine"] < 0.8 and apart["appearance_agreement"] < 1


def test_one_stranger_in_a_set_is_its_least_cosine():
    who = np.tile(np.eye(4)[0], (8, 6, 1))
    who[:, 4] = np.eye(4)[1]
    figures = values(
        consistency_figures(judged(embeddings=who, appearance=np.tile(appearances(0), (8, 6, 1))), seeds=1)
    )
    assert figures["set_cosine_least"] == 0 and figures["set_cosine"] == pytest.approx(10 / 15)


def test_sets_with_an_appearance_for_each_picture_agree_hardly_more_than_by_chance():
    who = np.tile(np.eye(4)[0], (8, 6, 1))
    figures = values(
        consistency_figures(judged(embeddings=who, appearance=appearances(*range(48)).reshape(8, 6, -1)), seeds=1)
    )
    assert figures["set_cosine"] == 1 and figures["appearance_agreement"] < 0.4


def test_one_picture_is_no_set():
    assert (
        consistency_figures(
            judged(embeddings=np.ones((8, 2, 1)), appearance=np.tile(appearances(0), (8, 2, 1))), seeds=2
        )
        == {}
    )


# --- distributions ---------------------------------------------------------------------------------------------------


def test_one_person_is_no_distribution():
    one = judged(features=np.ones((1, 4, 32)))
    assert distribution_figures(one, one) == {}


# --- the shipped judges ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "GALLERY", 60)
        return GroundTruth(Plan(people=8, words=6, seeds=1), both_judges())


def test_true_drawings_score_far_above_shuffled_pairs(truth):
    ceiling, floor = values(truth.ceiling()), values(truth.floor())
    assert ceiling.keys() == floor.keys() == TITLES.keys()
    for name in ("expression_top1_25", "valence_concordance", "identity_cosine", "identity_top1", "identity_verified"):
        assert ceiling[name] > 0.85 and floor[name] < 0.2, name
    for name in ("action_unit_error", "expression_error"):
        assert ceiling[name] < 0.25 * floor[name], name
    assert abs(ceiling["leakage"]) < 0.1 and ceiling["tree_distance_of_mistakes"] < floor["tree_distance_of_mistakes"]


def test_one_appearance_for_a_set_makes_it_consistent(truth):
    ceiling, floor = values(truth.ceiling()), values(truth.floor())
    assert ceiling["appearance_agreement"] > 0.85 and floor["appearance_agreement"] < 0.4
    assert ceiling["tilt_agreement"] > 0.85 and floor["tilt_agreement"] < 0.4
    assert ceiling["set_cosine"] > floor["set_cosine"]


def test_true_drawings_are_distributed_as_other_drawings_of_the_same_people(truth):
    ceiling = values(truth.ceiling())
    assert ceiling["diversity"] == pytest.approx(1, abs=0.1) and abs(ceiling["kid"]) < 0.1


def test_a_copy_of_the_reference_has_a_high_leakage(truth):
    copies = Judgements(truth.judges, truth.plan.references[:, None, None].repeat(6, axis=2))
    figures, ceiling = values(truth.figures(copies)), values(truth.ceiling())
    assert figures["leakage"] > 0.8
    # It is found by another picture of the person, as a true drawing is.
    assert figures["identity_cosine"] == pytest.approx(ceiling["identity_cosine"], abs=0.05)
    assert (truth.references * truth.gallery[:8]).sum(axis=1).max() < 0.99
    assert figures["action_unit_error"] > 4 * ceiling["action_unit_error"]


def test_one_mean_face_for_all_has_no_diversity(truth):
    mean = truth.plan.references.mean(axis=0).astype(np.uint8)
    figures = values(truth.figures(Judgements(truth.judges, np.broadcast_to(mean, (8, 1, 6, *mean.shape)))))
    assert abs(figures["diversity"]) < 1e-3 and figures["kid"] > 1 and figures["identity_top1"] < 0.2
