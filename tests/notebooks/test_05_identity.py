"""What notebook 05 builds by hand is what `encoders.identity` and `encoders.views` do, with the same weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.encoders import identity, views

BUILT = ("similarity", "ArcFaceLoss", "IResidual", "ArcFaceNet")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("05_identity", BUILT, np=np, torch=torch, nn=nn, F=F, Tensor=Tensor, math=math)


def test_the_alignment_is_the_same(by_hand):
    points = np.random.default_rng(0).normal(60, 20, (5, 2))
    assert np.allclose(by_hand["similarity"](points, views.PLACES), views.similarity(points, views.PLACES))


@pytest.mark.parametrize("warmth", [0.0, 0.4, 1.0])
def test_the_margin_is_the_same_with_the_same_directions(by_hand, warmth):
    sizes = dict(people=9, embedding=16, margin=0.45, scale=20.0)
    ours, library = by_hand["ArcFaceLoss"](**sizes), identity.ArcFaceLoss(**sizes)
    library.load_state_dict(ours.state_dict(), strict=True)
    embeddings, person = torch.randn(32, 16), torch.arange(32) % 9
    assert torch.equal(ours(embeddings, person, warmth), library(embeddings, person, warmth))


@pytest.mark.parametrize("blocks", [(0, 1, 1), (1, 2, 1)])
def test_the_network_is_the_same_with_the_same_weights(by_hand, blocks):
    sizes = dict(widths=(8, 16, 24), blocks=blocks, squeeze=4, embedding=32)
    ours, library = by_hand["ArcFaceNet"](**sizes), identity.ArcFaceNet(**sizes)
    library.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(4, 3, 112, 112)
    assert torch.equal(ours(images), library(images))  # in training: by the batch's statistics
    assert torch.equal(ours.eval()(images), library.eval()(images))  # and by the running ones
    assert not torch.allclose(by_hand["ArcFaceNet"](**sizes).eval()(images), library(images))
