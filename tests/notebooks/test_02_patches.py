"""What notebook 02 builds by hand is what `model.patches` does, with the same weights."""

import pytest
import torch
from torch import nn

from gen_affect_lib.model import patches

BUILT = ("patchify", "unpatchify", "sincos_1d", "sincos_2d", "PatchEmbed")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("02_patches", BUILT, torch=torch, nn=nn)


@pytest.mark.parametrize("height, width, patch_size", [(8, 8, 2), (24, 40, 8), (6, 10, 1)])
def test_cutting_and_putting_together_are_the_same(by_hand, height, width, patch_size):
    images = torch.randn(2, 5, height, width)
    cut = by_hand["patchify"](images, patch_size)
    assert torch.equal(cut, patches.patchify(images, patch_size))
    assert torch.equal(by_hand["unpatchify"](cut, height, width, patch_size), images)


@pytest.mark.parametrize("channels, size, span", [(16, 4, 4), (64, 16, 8), (48, 7, 3)])
def test_positions_are_the_same(by_hand, channels, size, span):
    assert torch.equal(by_hand["sincos_2d"](channels, size, span), patches.sincos_2d(channels, size, span))
    places = torch.rand(9) * 100
    assert torch.equal(by_hand["sincos_1d"](places, channels), patches.sincos_1d(places, channels))


def test_the_embedding_is_the_same_with_the_same_weights(by_hand):
    sizes = dict(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=7)
    ours, library = by_hand["PatchEmbed"](**sizes), patches.PatchEmbed(**sizes)
    library.load_state_dict(ours.state_dict(), strict=True)
    for height, width in ((8, 8), (4, 14), (2, 6)):
        images = torch.randn(2, 3, height, width)
        assert torch.equal(ours(images), library(images))


def test_other_weights_give_other_tokens(by_hand):
    sizes = dict(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=4)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.allclose(by_hand["PatchEmbed"](**sizes)(images), patches.PatchEmbed(**sizes)(images))
