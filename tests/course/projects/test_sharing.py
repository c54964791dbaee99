"""Ways of sharing of known quality: a bad one gets few points, the baseline few, the shipped bank many."""

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.course.projects import sharing
from gen_affect_lib.course.projects.report import AUTOMATIC
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.rivals.sharing import EVERYTHING
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.model.attention import joint_attention


@pytest.fixture(scope="module")
def sets():
    """More than at smoke: with few pictures the intervals are too wide to tell the ways apart."""
    return sharing.Sets(Plan(5, 4, 1, REPORT_SEED), "smoke")


@pytest.fixture(scope="module")
def known(sets):
    return {"baseline": sets(sharing.BASELINE), "bank": sets(sharing.SHIPPED_BANK)}


def alone(count):
    return joint_attention


def nothing(count):
    """Attention that returns zeros, with which no picture is of use."""

    def attention(image, condition, *, block, sigma):
        seen, seen_condition = joint_attention(image, condition)
        return torch.zeros_like(seen), seen_condition

    return attention


def points(sets, known, answer):
    return sharing.report(sets.plan, sets(answer), known["baseline"], known["bank"]).points


def test_the_baseline_as_an_answer_draws_the_same_pictures(sets, known):
    assert np.abs(sets(alone).images.astype(int) - known["baseline"].images).mean() < 0.5


def test_answers_of_known_quality_are_told_apart(sets, known):
    bad, everything = points(sets, known, nothing), points(sets, known, EVERYTHING)
    equal, good = points(sets, known, alone), points(sets, known, sharing.SHIPPED_BANK)
    assert bad <= 5 and everything < equal <= 20 < 40 <= good


def test_a_whole_report_at_smoke_has_all_points_and_every_number():
    report = sharing.score(alone, "smoke")
    assert report.of == AUTOMATIC and report.project == "sharing"
    assert report.figures["plan"]["first_person"] == REPORT_SEED
    assert len(report.figures["answer"]["of_use"]) == report.figures["plan"]["people"]
    assert report.criteria[0].points == 0 and "95 % interval" in report.criteria[0].said


def test_what_is_no_way_of_sharing_is_refused(sets):
    with pytest.raises(UserError, match="no way of sharing"):
        sets(3)
    with pytest.raises(UserError, match="no way of sharing"):
        sets(lambda count: count)
    with pytest.raises(UserError, match="profile"):
        sharing.plan("huge")
