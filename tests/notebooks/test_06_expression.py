"""What notebook 06 builds by hand is what `encoders` and `transformers` do."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gen_affect_lib.encoders import affect
from gen_affect_lib.encoders.expression import LABELS, make_vit

VIT = ("Attention", "MLP", "Layer", "PatchEmbeddings", "Embeddings", "Body", "ViTForImageClassification")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("06_expression", (*VIT, "log_likelihoods"), torch=torch, nn=nn, math=math, np=np, affect=affect)


@pytest.mark.parametrize("sizes", ({}, dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=16)))
def test_the_network_is_the_same_with_the_same_weights(by_hand, sizes):
    torch.manual_seed(0)
    library = make_vit(**sizes).eval()
    ours = by_hand["ViTForImageClassification"](library.config)
    ours.load_state_dict(library.state_dict(), strict=True)
    side = library.config.image_size
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        outputs = ours(pixels)
        assert outputs.shape == (2, len(LABELS))
        assert torch.allclose(outputs, library(pixels).logits, atol=1e-5)


def test_other_weights_give_other_answers(by_hand):
    config = make_vit().config
    pixels = torch.randn(1, 3, 40, 40)
    first, second = (by_hand["ViTForImageClassification"](config) for _ in range(2))
    assert not torch.allclose(first(pixels), second(pixels))


def test_the_likelihoods_are_the_same(by_hand):
    vectors = np.random.default_rng(0).normal(0, 0.3, (5, 21))
    assert by_hand["log_likelihoods"](vectors) == pytest.approx(affect.log_likelihoods(vectors))
