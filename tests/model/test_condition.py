"""What the MM-DiT is told, and what is left out when it is left out."""

import pytest
import torch

from gen_affect_lib.model.condition import ConditionEncoder


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = ConditionEncoder(dim=24, width=16, expression_tokens=3)
    torch.nn.init.normal_(encoder.no_identity)
    torch.nn.init.normal_(encoder.no_expression)
    return encoder


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 16, 8, 8, generator=generator), torch.rand(4, 21, generator=generator)


def test_tokens_for_the_fields_of_the_reference_and_for_the_expression(encoder, inputs):
    tokens, pooled = encoder(*inputs)
    assert tokens.shape == (4, 16 + 3, 24) and pooled.shape == (4, 24)


def test_pixels_are_read_as_well():
    tokens, _ = ConditionEncoder(in_channels=3, sample_size=64, dim=24, width=16)(torch.randn(2, 3, 64, 64), torch.rand(2, 21))
    assert tokens.shape == (2, 16 + 4, 24)


def test_identity_and_expression_reach_different_tokens(encoder, inputs):
    reference, expression = inputs
    tokens, pooled = encoder(reference, expression)
    other_person, _ = encoder(reference.flip(0), expression)
    other_face, other_pooled = encoder(reference, expression.flip(0))
    assert torch.equal(tokens[:, 16:], other_person[:, 16:]) and not torch.allclose(tokens[:, :16], other_person[:, :16])
    assert torch.equal(tokens[:, :16], other_face[:, :16]) and not torch.allclose(tokens[:, 16:], other_face[:, 16:])
    assert not torch.allclose(pooled, other_pooled)


@pytest.mark.parametrize("left_out, changed", [("keep_identity", 0), ("keep_expression", 1)])
def test_what_is_left_out_cannot_be_seen(encoder, inputs, left_out, changed):
    keep = torch.tensor([True, False, True, False])
    other = list(inputs)
    other[changed] = torch.where(keep.view(4, *[1] * (inputs[changed].ndim - 1)), inputs[changed], 7.0)
    a, b = encoder(*inputs, **{left_out: keep}), encoder(*other, **{left_out: keep})
    for one, two in zip(a, b):
        torch.testing.assert_close(one, two)
    whole, _ = encoder(*inputs)
    assert torch.equal(whole[keep], a[0][keep]) and not torch.allclose(whole[~keep], a[0][~keep])


def test_each_picture_is_read_by_itself(encoder, inputs):
    together, _ = encoder(*inputs)
    alone, _ = encoder(*(part[2:3] for part in inputs))
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-4)


def test_saving_and_loading_gives_the_same(encoder, inputs, tmp_path):
    encoder.save_pretrained(tmp_path)
    torch.testing.assert_close(ConditionEncoder.from_pretrained(tmp_path)(*inputs), encoder(*inputs))


def test_other_shapes_are_refused(encoder, inputs):
    reference, expression = inputs
    with pytest.raises(ValueError, match=r"give \(B, 16, 8, 8\)"):
        encoder(reference[:, :3], expression)
    with pytest.raises(ValueError, match=r"give \(4, 21\)"):
        encoder(reference, expression[:, :17])
