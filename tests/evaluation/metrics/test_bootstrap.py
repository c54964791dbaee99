"""Statistics of people, and confidence intervals that are as wide as they should be."""

import numpy as np
import pytest

from gen_affect_lib.evaluation.metrics.bootstrap import (
    bootstrap,
    difference,
    estimate,
    of_rows,
    per_person,
    ratio,
    summary,
)


def everybody(statistic, people):
    return statistic(np.arange(people))


def test_a_ratio_is_a_mean_or_a_share_and_counts_repeated_people():
    right = np.array([[True, True], [False, True], [False, False]])
    assert everybody(ratio(right), 3) == 0.5
    assert ratio(right)(np.array([0, 0, 1])) == pytest.approx(5 / 6)
    distances, wrong = np.array([[3.0, 0], [1, 1]]), np.array([[1, 0], [1, 1]])
    assert everybody(ratio(distances, wrong), 2) == pytest.approx(5 / 3)
    assert everybody(ratio(np.zeros((2, 2)), np.zeros((2, 2))), 2) == 0, "no mistakes, no distance"


def test_a_statistic_of_rows_takes_all_rows_of_each_repeated_person():
    owners, values = np.array([7, 3, 7, 9]), np.array([1.0, 10, 2, 100])
    total = of_rows(lambda rows: values[rows].sum(), owners)
    assert [total(np.array(people)) for people in ([0], [1], [2], [1, 1, 0])] == [10, 3, 100, 16]


def test_a_statistic_of_each_person_alone():
    assert per_person(ratio(np.array([[1.0, 0], [1, 1]])), 2) == [0.5, 1]


def test_an_interval_holds_the_value_and_narrows_with_people():
    rng = np.random.default_rng(0)
    widths = []
    for people in (20, 80, 320):
        figure = ratio(rng.normal(size=(people, 3)))
        low, high = bootstrap(figure, people)
        assert low < everybody(figure, people) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.35) and widths[2] == pytest.approx(widths[1] / 2, rel=0.35)


def test_people_with_equal_values_have_an_interval_of_width_0():
    assert bootstrap(ratio(np.full((30, 2), 0.25)), 30) == (0.25, 0.25)


def test_a_difference_is_taken_on_the_same_people():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 4))
    ours, same, worse = ratio(scores), ratio(scores.copy()), ratio(scores - 0.1)
    assert difference(ours, same, 30) == dict(value=0, low=0, high=0)
    assert difference(ours, worse, 30) == pytest.approx(dict(value=0.1, low=0.1, high=0.1))
    low, high = bootstrap(ours, 30)
    assert high - low > 0.3, "the interval of each alone is wide"
    other = difference(ours, ratio(rng.normal(size=(30, 4))), 30)
    assert other["low"] < other["value"] < other["high"]


def test_a_summary_has_the_thirds_of_the_tones_and_the_largest_gap():
    tones = np.array([0, 0, 0, 1, 1, 2, 2])
    figure = ratio(np.array([1.0, 1, 1, 0.5, 0.7, 0.2, 0.4])[:, None])
    row = summary({"some": figure}, tones)["some"]
    assert row["value"] == pytest.approx(4.8 / 7) and row["low"] < row["value"] < row["high"]
    assert (row["light"], row["middle"], row["dark"]) == pytest.approx((1, 0.6, 0.3)) and row["gap"] == pytest.approx(
        0.7
    )
    row = summary({"some": figure}, np.array([0, 0, 0, 0, 0, 0, 2]))["some"]
    assert "dark" not in row and "middle" not in row and row["gap"] == 0, "one person is too few for a third"


def test_an_estimate_is_the_value_with_the_ends_of_its_interval():
    statistic = ratio(np.random.default_rng(0).random((30, 2)))
    low, high = bootstrap(statistic, 30, draws=50, seed=3)
    assert estimate(statistic, 30, draws=50, seed=3) == dict(value=everybody(statistic, 30), low=low, high=high)
