"""How an answer is compared with a reference, and how a difference is described."""

import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from gen_affect_lib.course.checks import Wrong, check_choice, check_number, compare, compare_modules, difference
from tests.course.examples import doubles


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x: x.repeat(2), "the shape is"),
        (lambda x: (2 * x).detach(), "the gradients are not"),
        (lambda x: 2 * x + 0.01, "of the numbers are not"),
        (lambda x: x.mul_(2), "changes its arguments"),
        (lambda x: None, "is there a `return`"),
        (lambda x: (2 * x).tolist(), "was expected"),
        (lambda x: 2 * x * (x - x) / (x - x), "NaN"),
        (lambda x: (2 * x).long(), "of type torch.int64"),
        (lambda x: x.nothing, "AttributeError"),
    ],
)
def test_a_wrong_result_is_described(answer, words):
    with pytest.raises(Wrong, match=words):
        doubles(answer)


@pytest.mark.parametrize(
    "got, want",
    [
        (1.0, 1),
        (np.float64(0.5), 0.5),
        (torch.tensor(2.0), 2.0),
        ((1, [2.0]), [1, (2,)]),
        ({"a": 1}, {"a": 1.0}),
        ("b", "b"),
        (True, True),
        (np.array([1.0, np.inf]), np.array([1.0, np.inf])),
        (torch.zeros(0), torch.zeros(0)),
        (None, None),
        (torch.ones(3).double(), torch.ones(3)),
        (np.bool_(True), True),
        (float("nan"), float("nan")),
    ],
)
def test_equal_values_have_no_difference(got, want):
    assert difference(got, want) == ""


@pytest.mark.parametrize(
    "got, want",
    [
        (1.1, 1),
        (True, 1.0),
        (1, True),
        ("a", "b"),
        ({"a": 1}, {"b": 1}),
        ([1], [1, 2]),
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), np.ones(2)),
        (np.array([np.nan]), np.array([0.0])),
        (np.array([np.inf]), np.array([1.0])),
        (None, 1),
        (1, None),
        (float("nan"), 1.0),
        (1.0, float("nan")),
    ],
)
def test_different_values_have_a_difference(got, want):
    assert difference(got, want)


class Line(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)
        self.gate = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return x + self.gate * self.layer(x)


class SameLine(Line):
    def forward(self, x):
        return torch.addcmul(x, self.layer(x), self.gate)


class NoResidual(Line):
    def forward(self, x):
        return self.gate * self.layer(x)


class NoGate(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)


class Frozen(Line):
    def forward(self, x):
        return x + self.gate.detach() * self.layer(x)


def test_classes_are_compared_with_the_same_weights():
    case = (torch.randn(2, 4),)
    compare_modules(SameLine, Line, {"size": 4}, case)
    for kind, words in (
        (NoResidual, "the residual is lost"),
        (NoGate, "no `gate`"),
        (Frozen, "the gradient of `gate`"),
    ):
        with pytest.raises(Wrong, match=words):
            compare_modules(kind, Line, {"size": 4}, case, mistakes=[("the residual is lost.", NoResidual)])


def test_a_wrong_prediction_gets_the_message_that_belongs_to_it():
    check_choice(lambda: "B", "b", {"a": "no."})
    check_number(lambda: torch.tensor(4.0), 4)
    for answer, words in ((lambda: "a", "that is half"), (lambda: "z", "return one of 'a', 'b'")):
        with pytest.raises(Wrong, match=words):
            check_choice(answer, "b", {"a": "that is half."})
    for answer, words in ((lambda: 2, "Derive it on paper"), (lambda: 8, "squared"), (lambda: "4", "return a number")):
        with pytest.raises(Wrong, match=words):
            check_number(answer, 4, wrong=[(8, "squared")])


class Pair(NamedTuple):
    left: object
    right: object


@pytest.mark.parametrize(
    "got, want, words",
    [
        ((1, 2), Pair(1, 2), r"a `Pair\(left, right\)` was expected, and a tuple \(1, 2\) came back"),
        (Pair(1, 3), Pair(1, 2), "in `right`, 3 came back, and should be 2"),
        (None, [1, 2], "is there a `return`"),
        ([[1.0], [2.0]], np.ones((2, 1)), r"a list of 2 came back: make it an array, `np.array\(…\)`"),
        ([1.0], torch.ones(1), "a list of 1 came back: make it a tensor"),
        (torch.tensor(1.5), torch.tensor(2.0), r"^the result is 1.5, and should be 2\.$"),
        (np.array([0.1, 0.38942]), np.array([0.1, 0.38941]), "it is 0.38942, and should be 0.38941"),
    ],
)
def test_a_difference_is_described_precisely(got, want, words):
    assert re.search(words, difference(got, want, 1e-7))


def test_a_message_shows_the_call_with_the_names_of_its_arguments():
    def scaled(pair, by):
        return pair.left * by

    with pytest.raises(Wrong, match=r"called with pair=Pair\(left=a tensor \(3,\), right=0\), by=2, a tensor"):
        compare(lambda pair, by: by, scaled, (Pair(torch.ones(3), 0), 2))
    with pytest.raises(Wrong, match=r"the line `.*missing.*`: .*'missing'\. It was called with pair="):
        compare(lambda pair, by: pair.missing, scaled, (Pair(torch.ones(3), 0), 2))


def test_the_message_of_a_callback_is_shown_unchanged():
    def refuses(x):
        raise Wrong("the walk began at 1.")

    with pytest.raises(Wrong, match="^the walk began at 1.$"):
        compare(lambda x, see: see(x), lambda x, see: x, (1, refuses))


def test_a_coarse_tolerance_does_not_confuse_likely_mistakes():
    wrong = [(0.375, "the weight"), (1.5, "one column"), (0.0, "nothing at all")]
    for number, words in (
        (0.37, "the weight"),
        (1.48, "one column"),
        (0.2, "nothing at all"),
        (5.0, "Derive it on paper"),
    ):
        with pytest.raises(Wrong, match=words):
            check_number(lambda: number, 9.6, within=1.3, wrong=wrong)
