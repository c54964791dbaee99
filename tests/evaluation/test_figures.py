"""Figures say what is known to be true of made-up readings, come with honest intervals, and tell true drawings from others."""

from types import SimpleNamespace

import numpy as np
import pytest

from gen_affect_lib.avatars import EMOTIONS, Appearance, Expression
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.evaluate import TITLES, both_judges
from gen_affect_lib.evaluation.figures import (
    Judged,
    Truth,
    appearance_agreement,
    bootstrap,
    consistency_figures,
    difference,
    distribution_figures,
    expression_figures,
    identity_figures,
    leakage,
    ratio,
    summary,
)  # fmt: skip
from gen_affect_lib.evaluation.sets import Plan

PLAN = Plan(people=8, words=6, seeds=2)
WORDS, ASKED = PLAN.targets()


def everybody(figure, people=8):
    return figure(np.arange(people))


def values(figures, people=8):
    return {name: everybody(figure, people) for name, figure in figures.items()}


def reading(**parts):
    """What two judges say of pictures, made up."""
    return SimpleNamespace(**{name: np.asarray(part) for name, part in parts.items()})


# --- means over people -----------------------------------------------------------------------------------------------


def test_a_ratio_is_a_mean_or_a_share_and_counts_people_as_often_as_they_come():
    right = np.array([[True, True], [False, True], [False, False]])
    assert everybody(ratio(right), 3) == 0.5
    assert ratio(right)(np.array([0, 0, 1])) == pytest.approx(5 / 6)
    distances, wrong = np.array([[3.0, 0], [1, 1]]), np.array([[1, 0], [1, 1]])
    assert everybody(ratio(distances, wrong), 2) == pytest.approx(5 / 3)
    assert everybody(ratio(np.zeros((2, 2)), np.zeros((2, 2))), 2) == 0, "no mistakes, no distance"


# --- leakage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_leakage_is_the_share_of_the_way_from_what_was_asked_for_to_the_reference(share):
    drawn = ASKED + share * (PLAN.shown[:, None] - ASKED)  # (N, M, 21)
    assert everybody(leakage(reading(vectors=drawn), ASKED, PLAN.shown)) == pytest.approx(share, abs=1e-6)


def test_a_faint_expression_is_no_leakage_and_a_faint_copy_is_less_of_it():
    faint = np.broadcast_to(0.6 * ASKED, (8, *ASKED.shape))
    assert everybody(leakage(reading(vectors=faint), ASKED, PLAN.shown)) == pytest.approx(0, abs=1e-6)
    copies = np.broadcast_to(0.6 * PLAN.shown[:, None], faint.shape)
    assert everybody(leakage(reading(vectors=copies), ASKED, PLAN.shown)) == pytest.approx(0.6, abs=1e-6)


def test_a_reference_that_shows_what_is_asked_for_leaks_nothing():
    shown = np.repeat(ASKED[:1], 8, axis=0)
    drawn = reading(vectors=np.broadcast_to(ASKED[:1], (8, 1, 21)))
    assert everybody(leakage(drawn, ASKED[:1], shown)) == 0


# --- claim (a) -------------------------------------------------------------------------------------------------------


def said(words):
    """A judge who is sure of these words (N, M), and reads their faces."""
    vectors = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    return reading(vectors=vectors[words], words=np.eye(135)[words])


def test_faces_as_asked_for_are_right_in_everything():
    figures = values(expression_figures(said(np.tile(WORDS, (8, 1))), WORDS, ASKED))
    assert [figures[f"expression_top1_{n}"] for n in (6, 25, 135)] == [1, 1, 1]
    assert figures["action_unit_error"] == figures["expression_error"] == figures["tree_distance_of_mistakes"] == 0
    assert figures["valence_concordance"] > 0.99 and figures["arousal_concordance"] > 0.99


def test_faces_of_other_words_are_wrong():
    figures = values(expression_figures(said(np.tile(np.roll(WORDS, 1), (8, 1))), WORDS, ASKED))
    assert figures["expression_top1_135"] == figures["expression_top1_25"] == 0
    assert figures["action_unit_error"] > 0.1 and figures["expression_error"] > 0.1
    assert figures["valence_concordance"] < 0.5 and 2 <= figures["tree_distance_of_mistakes"] <= 3


def test_a_word_beside_the_one_asked_for_is_right_in_its_group_and_a_mistake_of_distance_1():
    joy, glee = (EMOTIONS.index(word) for word in ("joy", "glee"))
    asked = Expression.named("joy").to_vector()[None]
    figures = values(expression_figures(said(np.full((8, 1), glee)), np.array([joy]), asked))
    assert [figures[f"expression_top1_{n}"] for n in (6, 25, 135)] == [1, 1, 0]
    assert figures["tree_distance_of_mistakes"] == 1


def test_a_group_is_named_by_all_its_words_together():
    """A judge who wavers between two words of a group may still know the group."""
    joy, glee, fear = (EMOTIONS.index(word) for word in ("joy", "glee", "fear"))
    wavering = said(np.full((8, 1), joy))
    wavering.words = np.zeros((8, 1, 135))
    wavering.words[..., [joy, glee, fear]] = 0.3, 0.3, 0.4
    figures = values(expression_figures(wavering, np.array([joy]), Expression.named("joy").to_vector()[None]))
    assert figures["expression_top1_25"] == figures["expression_top1_6"] == 1 and figures["expression_top1_135"] == 0


# --- claim (b) -------------------------------------------------------------------------------------------------------


def test_a_person_is_found_verified_and_alike_only_where_it_is_the_person():
    gallery, person = np.eye(20), np.arange(8)
    own = reading(who=np.repeat(gallery[:8, None], 3, axis=1))
    assert values(identity_figures(own, person, gallery, 0.5)) == dict(
        identity_cosine=1, identity_top1=1, identity_verified=1
    )
    assert set(values(identity_figures(own, np.roll(person, 1), gallery, 0.5)).values()) == {0}
    half = reading(who=(gallery[:8, None] + gallery[None, 10:13]) / 2**0.5)  # half another of the gallery
    half.who[:4, :, :8] *= 1.01
    figures = values(identity_figures(half, person, gallery, 0.71))
    assert figures["identity_cosine"] == pytest.approx(2**-0.5, rel=0.01)
    assert figures["identity_verified"] == 0.5


# --- claim (c) -------------------------------------------------------------------------------------------------------


def looks(*seeds):
    return np.stack([Appearance.sample(seed).to_vector() for seed in seeds])


def test_readings_of_one_look_agree_and_only_what_differs_does_not():
    one = np.stack([Appearance(earrings="hoop").to_vector(), Appearance(earrings="none").to_vector()])
    agreement = appearance_agreement(one, one)
    assert agreement.shape == (2, 9)
    assert (agreement[0] == 1).all() and np.nansum(agreement[1]) == 8, "nobody knows the colour of no earrings"
    other = np.stack([Appearance(earrings="hoop", background_hue=0.7, collar="hood").to_vector()] * 2)
    wrong = {name for name, right in zip(Appearance.NAMES, appearance_agreement(other, one)[0]) if not right}
    assert wrong == {"background_hue", "collar"}


def test_a_set_of_identical_pictures_agrees_in_everything_whoever_the_other_sets_show():
    rng = np.random.default_rng(0)
    who = rng.normal(size=(8, 2, 1, 16)).repeat(6, axis=2).reshape(8, 12, 16)  # each seed draws somebody else
    who /= np.linalg.norm(who, axis=2, keepdims=True)
    dressed = looks(*range(16)).reshape(8, 2, 1, -1).repeat(6, axis=2).reshape(8, 12, -1)
    figures = values(consistency_figures(reading(who=who, looks=dressed), seeds=2))
    assert figures == pytest.approx(dict(set_cosine=1, set_cosine_least=1, appearance_agreement=1))
    apart = values(consistency_figures(reading(who=who, looks=dressed), seeds=1))
    assert apart["set_cosine"] < 0.8 and apart["appearance_agreement"] < 1


def test_one_stranger_in_a_set_is_its_least_cosine():
    who = np.tile(np.eye(4)[0], (8, 6, 1))
    who[:, 4] = np.eye(4)[1]
    figures = values(consistency_figures(reading(who=who, looks=np.tile(looks(0), (8, 6, 1))), seeds=1))
    assert figures["set_cosine_least"] == 0 and figures["set_cosine"] == pytest.approx(10 / 15)


def test_sets_that_each_dress_anew_agree_hardly_more_than_by_chance():
    who = np.tile(np.eye(4)[0], (8, 6, 1))
    figures = values(consistency_figures(reading(who=who, looks=looks(*range(48)).reshape(8, 6, -1)), seeds=1))
    assert figures["set_cosine"] == 1 and figures["appearance_agreement"] < 0.4


def test_one_picture_is_no_set():
    assert consistency_figures(reading(who=np.ones((8, 2, 1)), looks=np.tile(looks(0), (8, 2, 1))), seeds=2) == {}


# --- distributions ---------------------------------------------------------------------------------------------------


def features(shift=0.0, seed=0, people=40):
    """People apart from each other, and pictures of each."""
    rng = np.random.default_rng(seed)
    return reading(features=shift + rng.normal(size=(people, 1, 32)) + 0.5 * rng.normal(size=(people, 4, 32)))


def test_the_truth_is_as_diverse_as_itself_and_one_face_for_all_is_not_diverse():
    true = features()
    assert values(distribution_figures(true, true), 40)["diversity"] == pytest.approx(1)
    mean_face = reading(features=np.broadcast_to(true.features[3, :1], (40, 4, 32)))
    assert values(distribution_figures(mean_face, true), 40)["diversity"] == pytest.approx(0, abs=1e-6)
    between = reading(features=(true.features + mean_face.features) / 2)
    assert 0.2 < values(distribution_figures(between, true), 40)["diversity"] < 0.8


def test_the_kernel_distance_is_about_zero_for_two_samples_of_one_distribution_and_grows_with_a_shift():
    alike, near, far = (
        values(distribution_figures(features(shift, seed=1), features()), 40)["kid"] for shift in (0, 0.3, 1)
    )
    assert abs(alike) < 0.1 * near and near < 0.5 * far


def test_one_person_alone_is_no_distribution_and_one_drawn_again_and_again_no_number():
    assert distribution_figures(features(people=1), features(people=1)) == {}
    figures = distribution_figures(features(), features())
    with np.errstate(all="raise"):
        assert all(np.isnan(figure(np.array([3, 3, 3]))) for figure in figures.values())
        assert all(np.isfinite(bootstrap(figure, 3)).all() for figure in figures.values())


# --- intervals -------------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_value_and_narrows_with_people():
    rng = np.random.default_rng(0)
    widths = []
    for people in (20, 80, 320):
        figure = ratio(rng.normal(size=(people, 3)))
        low, high = bootstrap(figure, people)
        assert low < everybody(figure, people) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.35) and widths[2] == pytest.approx(widths[1] / 2, rel=0.35)


def test_people_who_are_all_alike_leave_nothing_to_chance():
    assert bootstrap(ratio(np.full((30, 2), 0.25)), 30) == (0.25, 0.25)


def test_a_difference_is_taken_on_the_same_people():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 4))
    ours, same, worse = ratio(scores), ratio(scores.copy()), ratio(scores - 0.1)
    assert difference(ours, same, 30) == dict(value=0, low=0, high=0)
    assert difference(ours, worse, 30) == pytest.approx(dict(value=0.1, low=0.1, high=0.1))
    low, high = bootstrap(ours, 30)
    assert high - low > 0.3, "alone each is far from sure"
    other = difference(ours, ratio(rng.normal(size=(30, 4))), 30)
    assert other["low"] < other["value"] < other["high"]


def test_a_summary_tells_thirds_of_the_tones_and_the_largest_gap():
    tones = np.array([0, 0, 0, 1, 1, 2, 2])
    figure = ratio(np.array([1.0, 1, 1, 0.5, 0.7, 0.2, 0.4])[:, None])
    row = summary({"some": figure}, tones)["some"]
    assert row["value"] == pytest.approx(4.8 / 7) and row["low"] < row["value"] < row["high"]
    assert (row["light"], row["middle"], row["dark"]) == pytest.approx((1, 0.6, 0.3)) and row["gap"] == pytest.approx(
        0.7
    )
    row = summary({"some": figure}, np.array([0, 0, 0, 0, 0, 0, 2]))["some"]
    assert "dark" not in row and "middle" not in row and row["gap"] == 0, "one person is no third"


# --- the shipped judges ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "GALLERY", 60)
        return Truth(Plan(people=8, words=6, seeds=1), both_judges())


def test_true_drawings_score_far_above_shuffled_pairs(truth):
    ceiling, floor = values(truth.ceiling()), values(truth.floor())
    assert ceiling.keys() == floor.keys() == TITLES.keys()
    for name in ("expression_top1_25", "valence_concordance", "identity_cosine", "identity_top1", "identity_verified"):
        assert ceiling[name] > 0.85 and floor[name] < 0.2, name
    for name in ("action_unit_error", "expression_error"):
        assert ceiling[name] < 0.25 * floor[name], name
    assert abs(ceiling["leakage"]) < 0.1 and ceiling["tree_distance_of_mistakes"] < floor["tree_distance_of_mistakes"]


def test_one_look_for_a_set_makes_it_consistent(truth):
    ceiling, floor = values(truth.ceiling()), values(truth.floor())
    assert ceiling["appearance_agreement"] > 0.85 and floor["appearance_agreement"] < 0.4
    assert ceiling["set_cosine"] > floor["set_cosine"]


def test_true_drawings_are_spread_as_others_of_the_same_people_are(truth):
    ceiling = values(truth.ceiling())
    assert ceiling["diversity"] == pytest.approx(1, abs=0.1) and abs(ceiling["kid"]) < 0.1


def test_a_copy_of_the_reference_is_found_out_by_its_leakage(truth):
    copies = Judged(truth.judges, truth.plan.references[:, None, None].repeat(6, axis=2))
    figures, ceiling = values(truth.figures(copies)), values(truth.ceiling())
    assert figures["leakage"] > 0.8 and figures["identity_cosine"] > ceiling["identity_cosine"]
    assert figures["action_unit_error"] > 4 * ceiling["action_unit_error"]


def test_one_mean_face_for_all_is_found_out_by_its_diversity(truth):
    mean = truth.plan.references.mean(axis=0).astype(np.uint8)
    figures = values(truth.figures(Judged(truth.judges, np.broadcast_to(mean, (8, 1, 6, *mean.shape)))))
    assert abs(figures["diversity"]) < 1e-3 and figures["kid"] > 1 and figures["identity_top1"] < 0.2
