"""The refiner: it changes nothing at first, and its addition depends on features, identity and expression."""

import pytest
import torch
from torch import nn

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.model.refiner import ModulatedResidual, Refiner

WIDTHS = (16, 16, 8, 8)


def inputs(count=2):
    torch.manual_seed(1)
    codec = LatentCodec(4, (8, 8, 16), (1, 1, 1), WIDTHS, (1, 1, 1, 1)).eval()
    latents = torch.randn(count, 4, 4, 4)
    with torch.no_grad():
        picture, features = codec.decode_with_features(latents)
    return codec, latents, picture, features, torch.randn(count, 2, 32), torch.randn(count, 5)


def refiner(random: bool):
    torch.manual_seed(0)
    network = Refiner(WIDTHS, (16, 16, 8, 8), identity_dim=32, expression_dim=5, hidden=16).eval()
    for parameter in network.parameters() if random else ():
        nn.init.normal_(parameter, std=0.1)
    if random:
        nn.init.normal_(network.presence.weight)
    return network


def test_the_features_are_those_of_decoding_at_four_sides():
    codec, latents, picture, features, *_ = inputs()
    torch.testing.assert_close(picture, codec.decode(latents))
    assert [tuple(feature.shape) for feature in features] == [
        (2, 16, 4, 4), (2, 16, 8, 8), (2, 8, 16, 16), (2, 8, 32, 32)
    ]  # fmt: skip


def test_an_untrained_refiner_changes_nothing():
    *_, picture, features, identity, expression = inputs()
    added = refiner(random=False)(features, identity, expression)
    assert added.shape == picture.shape and not added.any()


def test_an_untrained_block_is_the_identity():
    x = torch.randn(2, 16, 4, 4)
    assert ModulatedResidual(16, 8)(x, torch.randn(2, 8)).equal(x)


@torch.no_grad()
def test_each_input_changes_the_addition_of_its_picture_alone():
    *_, features, identity, expression = inputs()
    network = refiner(random=True)
    before = network(features, identity, expression)
    changed = [feature.clone() for feature in features]
    changed[2][0] += torch.randn_like(changed[2][0])
    for others in (
        (changed, identity, expression),
        (features, identity + torch.tensor([1.0, 0.0])[:, None, None] * identity.flip(1), expression),
        (features, identity, expression + torch.tensor([[1.0], [0.0]])),
    ):
        after = network(*others)
        assert (after[0] - before[0]).abs().max() > 1e-3
        torch.testing.assert_close(after[1], before[1])


def test_inputs_of_different_numbers_are_refused():
    *_, features, identity, expression = inputs()
    with pytest.raises(UserError, match="one of each per picture"):
        refiner(False)(features, identity[:1], expression)
    with pytest.raises(UserError, match="give 4 maps"):
        refiner(False)(features[:3], identity, expression)
