"""Which factors of a reading are right, and whether two appearances agree."""

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance, Identity
from gen_affect_lib.evaluation.metrics.factors import COVERINGS, appearance_agreement, right_factors


def test_the_truth_is_right_in_everything_that_can_be_seen():
    truth = np.stack([Identity.sample(seed).to_vector() for seed in range(40)])
    for name, right in right_factors(Identity, truth, truth).items():
        assert np.nanmin(right) == 1, name
    covered = [Identity.sample(seed).hair_style in COVERINGS for seed in range(40)]
    assert (np.isnan(right_factors(Identity, truth, truth)["covering_color"]) == ~np.array(covered)).all()


@pytest.mark.parametrize("off, right", [(0.0, 1), (0.06, 1), (-0.06, 1), (0.065, 0), (-0.07, 0), (0.5, 0)])
def test_a_number_is_right_within_a_sixteenth_also_round_the_circle(off, right):
    read = Appearance(background_hue=(0.99 + off) % 1, background_lightness=0.5 + off, head_tilt=2 * off)
    truth = Appearance(background_hue=0.99, background_lightness=0.5, head_tilt=0.0)
    result = right_factors(Appearance, read.to_vector()[None], truth.to_vector()[None])
    assert [result[name][0] for name in ("background_hue", "background_lightness", "head_tilt")] == [right] * 3


def test_equal_appearances_agree_and_different_ones_only_where_they_are_equal():
    one = np.stack([Appearance(earrings="hoop").to_vector(), Appearance(earrings="none").to_vector()])
    agreement = appearance_agreement(one, one)
    assert agreement.shape == (2, 9)
    assert (agreement[0] == 1).all() and np.nansum(agreement[1]) == 8, "the colour of no earrings cannot be seen"
    other = np.stack([Appearance(earrings="hoop", background_hue=0.7, collar="hood").to_vector()] * 2)
    wrong = {name for name, right in zip(Appearance.NAMES, appearance_agreement(other, one)[0]) if not right}
    assert wrong == {"background_hue", "collar"}
