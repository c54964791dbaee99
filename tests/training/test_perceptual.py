"""The perceptual loss: nothing where pictures are equal, sensitive to small changes of the face, for any size."""

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.regions import INNER_FACE, pixel_box
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.perceptual import PerceptualLoss


@pytest.fixture(scope="module")
def loss():
    return PerceptualLoss()


def draw(size, **units):
    people = [Avatar(Identity.sample(1_000_000 + n), Expression(**units), Appearance.sample(n)) for n in range(3)]
    return to_tensor(np.stack([person.render(size) for person in people]))


@pytest.mark.parametrize("size", [64, 128])
def test_it_is_zero_for_equal_pictures_and_grows_with_their_difference(loss, size):
    true = draw(size)
    values = [loss(draw(size, au12=amount), true).item() for amount in (0.0, 0.2, 0.6)]
    assert values[0] == pytest.approx(0, abs=1e-6) and values[0] < values[1] < values[2]


def test_closed_eyes_count_more_than_an_equal_difference_in_the_background(loss):
    true, closed = draw(128), draw(128, au43=1.0)
    change = (closed - true).square().mean()
    x0, y0, x1, y1 = pixel_box(INNER_FACE, 128)
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    noise[:, :, :, x0:x1] = 0
    other = true + noise * (change / noise.square().mean()).sqrt()
    assert loss(closed, true) > 2 * loss(other, true)


def test_gradients_reach_the_decoded_pictures_and_no_weights(loss):
    decoded, true = draw(64, au26=1.0).requires_grad_(), draw(64)
    loss(decoded, true).backward()
    assert decoded.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    for network in (loss.encoder.vit, loss.network):
        assert all(not p.requires_grad and p.grad is None for p in network.parameters()) and not network.training
