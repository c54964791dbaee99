"""Fusions of known quality: what they reach is rated; a whole report runs at smoke."""

import numpy as np
import pytest
import torch
from torch import nn

from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.course.projects import fusion
from gen_affect_lib.course.projects.fusion import Scores, compared, criteria_of, mean_area, require_fusion
from gen_affect_lib.course.projects.report import AUTOMATIC
from gen_affect_lib.errors import UserError
from gen_affect_lib.profiles import get_profile


def drawn(right, found, seed, parameters=1_000_000):
    """Scores of 32 people and two trainings, whose pictures are right and found with these probabilities."""
    rng = np.random.default_rng(seed)
    likely = np.array([(right, found), (1.1 * right, 0.8 * found), (1.2 * right, 0.6 * found), (0.8 * right, found)])
    shares = rng.binomial(6, np.broadcast_to(likely[None, :, :, None], (2, 4, 2, 32))) / 6
    return Scores(shares, parameters, [0.5, 0.5], np.zeros((32, 6, 8, 8, 3), np.uint8))


def points(ours, baseline):
    return sum(criterion.points for criterion in criteria_of(ours, baseline))


def test_answers_of_known_quality_are_told_apart():
    baseline = drawn(0.45, 0.25, 0)
    without_identity, better = drawn(0.45, 0.001, 1), drawn(0.6, 0.4, 2)
    assert sum(criterion.of for criterion in criteria_of(better, baseline)) == AUTOMATIC
    assert points(without_identity, baseline) <= 12 < points(baseline, baseline) == 20 < 55 <= points(better, baseline)


def test_a_larger_network_costs_points():
    baseline, large = drawn(0.45, 0.25, 0), drawn(0.45, 0.25, 0, parameters=1_300_000)
    assert points(baseline, baseline) - points(large, baseline) == 5


def test_the_interval_contains_the_trainings():
    """Two trainings that differ more than people do make a wide interval."""
    same, theirs = drawn(0.5, 0.5, 0).shares, drawn(0.3, 0.3, 1).shares
    apart = same.copy()
    apart[0] = drawn(0.2, 0.2, 2).shares[0]
    narrow, wide = (compared(shares, theirs, mean_area) for shares in (same, apart))
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])


class Doubled(nn.Module):
    identity_tokens = 4

    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, identity, expression):
        return torch.cat([self.scale * identity, expression, identity * expression.mean(dim=1, keepdim=True)], dim=1)


def test_an_answer_is_a_class_or_a_function_and_says_its_numbers_of_tokens():
    sizes = fusion.token_sizes(Doubled, get_profile("smoke"))
    assert sizes == {"identity_tokens": 4, "expression_tokens": 2}
    require_fusion(Doubled, 32, **sizes)
    encoder = fusion.with_fusion(Doubled)(dim=32, num_heads=2, **sizes)
    tokens, pooled = encoder(torch.zeros(3, 2, 512), torch.zeros(3, 48))
    assert tokens.shape == (3, 10, 32) and pooled.shape == (3, 32)


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda dim: 3, "no fusion"),
        (nn.Identity(), "no fusion"),
        (lambda dim: nn.Bilinear(dim, dim, 5), "for a batch of 2"),
        (lambda dim: Scaled(float("nan")), "not finite"),
    ],
)
def test_what_is_no_fusion_is_refused_in_one_line(answer, said):
    with pytest.raises(UserError, match=said):
        require_fusion(answer, 8, 2, 2)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, identity, expression):
        return self.factor * torch.cat([identity, expression], dim=1)


class Copied(fusion.Baseline):
    """The baseline under another name, as the student's cell contains it."""


def test_the_baseline_as_an_answer_is_equal_to_the_baseline():
    report = fusion.score(Copied, "smoke")
    assert report.of == AUTOMATIC and report.figures["plan"]["first_person"] == REPORT_SEED
    assert report.figures["answer"] == report.figures["baseline"]
    assert [criterion.points for criterion in report.criteria] == [0, 7, 8, 5]
    assert "area" in report.pictures[0][1].lower()
