"""What notebook 10 builds by hand is what the library computes."""

import numpy as np
import pytest

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.avatars.emotions import branches
from gen_affect_lib.evaluation import figures
from gen_affect_lib.evaluation.metrics.bootstrap import bootstrap, ratio


@pytest.fixture(scope="module")
def by_hand(definitions):
    names = ("right_group", "leakage", "interval")
    return definitions("10_evaluation", names, np=np, branches=branches, EMOTIONS=EMOTIONS)


class Judged:
    """Readings of 5 people's 8 pictures, at random."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.vectors = rng.normal(size=(5, 8, 21))
        self.words = rng.dirichlet(np.full(135, 0.02), size=(5, 8))


def test_the_right_group_is_the_librarys(by_hand):
    judged, words = Judged(), np.arange(0, 128, 16)
    judged.words[:, np.arange(0, 8, 2), words[::2]] += 1  # half of them surely right
    asked = np.zeros((8, 21))
    library = figures.expression_figures(judged, words, asked)["expression_top1_25"]
    for n in range(5):
        right = by_hand["right_group"](judged.words[n], [EMOTIONS[w] for w in words])
        assert right[::2].all() and library(np.array([n])) == pytest.approx(right.mean())


def test_leakage_is_the_librarys(by_hand):
    judged, rng = Judged(), np.random.default_rng(1)
    asked, shown = rng.normal(size=(8, 21)), rng.normal(size=(5, 21))
    library = figures.leakage(judged, asked, shown)
    for n in range(5):
        assert library(np.array([n])) == pytest.approx(by_hand["leakage"](judged.vectors[n], asked, shown[n]))
    assert by_hand["leakage"](np.tile(shown[0], (8, 1)), asked, shown[0]) == pytest.approx(1)
    assert by_hand["leakage"](0.6 * asked, asked, shown[0]) == pytest.approx(0)


def test_the_interval_is_the_librarys(by_hand):
    values = np.random.default_rng(2).random(30)
    assert by_hand["interval"](values) == pytest.approx(bootstrap(ratio(values), 30))
    assert by_hand["interval"](values)[0] < values.mean() < by_hand["interval"](values)[1]
