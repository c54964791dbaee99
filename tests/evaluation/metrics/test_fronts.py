"""Fronts: no point of a front dominates another, the area counts what they dominate, and a shortfall is a distance."""

import numpy as np
import pytest

from gen_affect_lib.evaluation.metrics.fronts import area, front, shortfall


def test_a_front_leaves_out_points_that_another_point_dominates():
    points = np.array([(0.5, 0.9), (0.9, 0.5), (0.5, 0.8), (0.4, 0.4), (0.9, 0.5), (0.7, 0.7)])
    np.testing.assert_array_equal(front(points), [(0.5, 0.9), (0.7, 0.7), (0.9, 0.5)])


def test_a_point_with_one_equal_figure_is_dominated():
    np.testing.assert_array_equal(front(np.array([(0.9, 0.5), (0.9, 0.6), (0.8, 0.6)])), [(0.9, 0.6)])


def test_the_area_is_that_of_the_union_of_rectangles():
    assert area(np.array([(0.8, 0.5)])) == pytest.approx(0.4)
    assert area(np.array([(0.9, 0.5), (0.5, 0.9)])) == pytest.approx(0.5 * 0.9 + 0.4 * 0.5)
    assert area(np.array([(1.0, 1.0), (0.2, 0.3)])) == 1 and area(np.array([(0.0, 1.0)])) == 0


def test_the_area_agrees_with_counting():
    rng = np.random.default_rng(0)
    points, places = rng.random((16, 2)), rng.random((100_000, 2))
    dominated = (places[:, None] <= points[None]).all(axis=2).any(axis=1)
    assert area(points) == pytest.approx(dominated.mean(), abs=0.006)


def test_a_dominated_point_changes_no_area():
    points = np.array([(0.9, 0.5), (0.5, 0.9)])
    assert area(np.vstack([points, (0.45, 0.85)])) == area(points)
    assert area(np.vstack([points, (0.75, 0.75)])) > area(points)


def test_the_shortfall_is_what_both_figures_lack():
    ours = np.array([(0.9, 0.5), (0.5, 0.9)])
    assert shortfall(ours, ours) == 0
    assert shortfall(ours, ours - 0.1) == pytest.approx(-0.1)
    assert shortfall(ours, np.array([(0.95, 0.4)])) == pytest.approx(0.05)
    assert shortfall(ours, np.array([(0.7, 0.7)])) == pytest.approx(0.2), "between our points we have only their corner"
    assert shortfall(ours, np.array([(0.2, 0.2), (0.5, 0.93)])) == pytest.approx(0.03), "the worst point counts"
