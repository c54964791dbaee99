"""The loss on faces: nothing where the faces are the same, more where they differ, and it teaches the network alone."""

import copy

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.face_loss import FaceLoss

NEAR = torch.full((3,), 0.1)
PEOPLE = [Identity.sample(1_000_000 + n) for n in range(3)]


def draw(identities, word):
    avatars = [Avatar(identity, Expression.named(word), Appearance.sample(n)) for n, identity in enumerate(identities)]
    return to_tensor(np.stack([avatar.render(128) for avatar in avatars]))


@pytest.fixture(scope="module")
def loss():
    return FaceLoss(LatentCodec.from_pretrained(SHIPPED / "codec").float())


@pytest.fixture(scope="module")
def smiling(loss):
    return loss.codec.encode(draw(PEOPLE, "joy"))


def only(loss, **weights):
    """One of its two parts alone."""
    part = copy.copy(loss)
    part.units, part.identity = weights.get("units", 0.0), weights.get("identity", 0.0)
    return part


def test_the_same_face_costs_nothing(loss, smiling):
    torch.testing.assert_close(loss(smiling, smiling, NEAR), torch.zeros(3), atol=1e-6, rtol=0)


def test_from_sigma_0_3_on_nothing_is_asked(loss, smiling):
    wrong = torch.zeros_like(smiling)
    sigma = torch.tensor([0.29, 0.3, 0.9])
    cost = loss(wrong, smiling, sigma)
    assert cost[0] > 0.01 and (cost[1:] == 0).all()
    assert (loss(wrong, smiling, torch.full((3,), 0.5)) == 0).all()


def test_each_picture_is_judged_on_its_own(loss, smiling):
    wrong = smiling.roll(1, 0)
    together = loss(wrong, smiling, torch.tensor([0.1, 0.8, 0.1]))
    alone = loss(wrong[2:], smiling[2:], NEAR[:1])
    assert together[1] == 0
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-4)


def test_it_grows_with_what_is_wrong_in_the_latents(loss, smiling):
    noise = torch.randn(smiling.shape, generator=torch.Generator().manual_seed(0))
    costs = [loss(smiling + amount * noise, smiling, NEAR).mean().item() for amount in (0, 0.1, 0.3, 1)]
    assert costs == sorted(costs) and costs[1] > 1e-3 and costs[3] > 3 * costs[1]


def test_another_expression_costs_in_the_units_and_another_person_in_the_identity(loss, smiling):
    raging, strangers = loss.codec.encode(draw(PEOPLE, "rage")), loss.codec.encode(draw(PEOPLE[1:] + PEOPLE[:1], "joy"))
    units, identity = only(loss, units=1.0), only(loss, identity=1.0)
    assert (units(raging, smiling, NEAR) > 2 * units(strangers, smiling, NEAR)).all()
    assert (identity(strangers, smiling, NEAR) > 2 * identity(raging, smiling, NEAR)).all()
    both = only(loss, units=0.5, identity=2.0)(raging, smiling, NEAR)
    torch.testing.assert_close(both, 0.5 * units(raging, smiling, NEAR) + 2 * identity(raging, smiling, NEAR))


def test_it_teaches_what_predicted_and_neither_readers_nor_codec(loss, smiling):
    predicted = (smiling + 0.2).requires_grad_()
    target = smiling.clone().requires_grad_()
    sigma = torch.tensor([0.1, 0.9, 0.1])
    loss(predicted, target, sigma).sum().backward()
    slopes = predicted.grad.abs().amax(dim=(1, 2, 3))
    assert (slopes[[0, 2]] > 0).all() and slopes[1] == 0 and predicted.grad.isfinite().all()
    assert target.grad is None, "the truth is not moved towards the guess"
    for network in (loss.codec, loss.expression.vit, loss.recognizer):
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
        assert not network.training


def test_a_step_along_its_slope_lowers_it(loss, smiling):
    predicted = loss.codec.encode(draw(PEOPLE, "rage")).requires_grad_()
    before = loss(predicted, smiling, NEAR).sum()
    (slope,) = torch.autograd.grad(before, predicted)
    with torch.no_grad():
        assert loss(predicted - 0.5 * slope / slope.norm(), smiling, NEAR).sum() < before


@pytest.mark.parametrize("amount", [0.0, 1.0, 100.0])
def test_it_is_finite_whatever_an_untrained_network_believes_in(loss, smiling, amount):
    wild = amount * torch.randn(smiling.shape, generator=torch.Generator().manual_seed(0))
    wild.requires_grad_()
    cost = loss(wild, smiling, NEAR)
    cost.sum().backward()
    assert cost.isfinite().all() and wild.grad.isfinite().all()


def test_the_face_is_cut_out_where_the_recognizer_expects_it(loss):
    """The same person with another expression is recognized; another person is not."""
    with torch.no_grad():
        _, who = loss.read(draw(PEOPLE, "joy"))
        _, again = loss.read(draw(PEOPLE, "surprise"))
    torch.testing.assert_close(who.norm(dim=1), torch.ones(3))
    likeness = who @ again.T
    assert (likeness.diagonal() > 0.5).all() and (likeness - 2 * torch.eye(3)).max() < 0.4
