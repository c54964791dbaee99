"""Retrieval and verification on embeddings whose answers are known."""

import pytest
import torch

from gen_affect_lib.evaluation.metrics.recognition import retrieval, threshold_at, verification


def test_equal_embeddings_are_always_found():
    torch.manual_seed(0)
    people = torch.randn(200, 64)
    assert retrieval(people, 3 * people) == 1.0 and verification(people, 3 * people) == 1.0


def test_shuffled_pairs_are_never_found():
    torch.manual_seed(0)
    people = torch.randn(200, 64)
    assert retrieval(people, people.roll(1, 0)) == 0.0 and verification(people, people.roll(1, 0)) < 0.02


def test_unrelated_embeddings_are_found_by_chance():
    torch.manual_seed(0)
    assert retrieval(torch.randn(400, 64), torch.randn(400, 64)) < 0.02


def test_the_stated_share_of_different_people_exceeds_the_threshold():
    torch.manual_seed(0)
    a, b = torch.randn(300, 32), torch.randn(300, 32)
    table = torch.nn.functional.normalize(b) @ torch.nn.functional.normalize(a).T
    strangers = table[~torch.eye(300, dtype=torch.bool)]
    for share in (0.1, 0.01):
        assert (strangers > threshold_at(a, b, share)).float().mean().item() == pytest.approx(share, abs=0.001)
