"""The optimizers that everything here is trained with, and the steps that they take."""

import pytest
import torch
from torch import nn

from gen_affect_lib.recipe import Recipe
from gen_affect_lib.training.optim import Muon, adamw, learning_rate, make_optimizers, orthogonalized, step, warm_cosine


@pytest.mark.parametrize("shape", [(64, 64), (64, 300), (300, 64)])
def test_all_directions_of_an_orthogonalized_matrix_are_about_equally_long(shape):
    torch.manual_seed(0)
    # Singular values from 1 to 1/100: what is left out by plain descent for a hundred steps.
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, -2, 64)) @ v
    lengths = torch.linalg.svdvals(orthogonalized(matrix))
    assert 0.5 < lengths.min() and lengths.max() < 1.3
    assert (orthogonalized(matrix) * (u @ v)).sum() / 64 > 0.7, "it points where U V does"


def test_the_length_of_a_gradient_does_not_matter():
    matrix = torch.randn(64, 128)
    torch.testing.assert_close(orthogonalized(1e-3 * matrix), orthogonalized(1e3 * matrix), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3, 3), (256, 64)])
def test_a_step_of_muon_is_a_fifth_of_the_learning_rate_in_every_weight(shape):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    before, weight.grad = weight.detach().clone(), torch.randn(shape)
    Muon([weight], lr=0.1).step()
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.02, rel=0.25)


def test_weight_decay_shrinks_what_has_no_gradient_to_speak_of():
    weight = nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.zeros(64, 64)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((64, 64), 0.95))


def test_every_parameter_is_stepped_by_one_optimizer_and_gains_do_not_decay():
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.GroupNorm(8, 64), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 2, 1))
    muon, adamw = make_optimizers(dict(net.named_parameters()), Recipe(optimizer="muon", weight_decay=0.1))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [net[2].weight.shape]
    decayed, plain = adamw.param_groups
    assert {id(p) for p in decayed["params"]} == {id(net[0].weight), id(net[3].weight)}
    assert plain["weight_decay"] == 0 and all(p.ndim == 1 for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) + 1 == len(list(net.parameters()))


def test_a_network_without_matrices_to_speak_of_gets_adamw_alone():
    net = nn.Linear(3, 2)
    optimizers = make_optimizers(dict(net.named_parameters()), Recipe(optimizer="muon"))
    assert [type(optimizer) for optimizer in optimizers] == [torch.optim.AdamW]


def test_muon_finds_a_direction_that_its_gradient_hardly_shows():
    """A map whose inputs differ a hundredfold in strength: the weak ones are learned, too."""
    left = {}
    for name in ("muon", "sgd"):
        torch.manual_seed(0)
        scale = torch.logspace(0, -2, 64)
        target, weight = torch.randn(64, 64) / 8, nn.Parameter(torch.zeros(64, 64))
        optimizer = Muon([weight], lr=0.02) if name == "muon" else torch.optim.SGD([weight], lr=0.02)
        for _ in range(200):
            x = torch.randn(256, 64) * scale
            loss = (x @ (weight - target).T).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[name] = (weight - target).detach()[:, 48:].square().mean().item()
    assert left["muon"] < 0.5 * left["sgd"]


def test_adamw_decays_matrices_alone_and_keeps_the_order_of_the_parameters():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    decayed, plain = adamw(net.parameters(), Recipe(betas=(0.9, 0.98), weight_decay=0.1)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(net[0].weight), id(net[2].weight)]
    assert [id(p) for p in plain["params"]] == [id(p) for p in net.parameters() if p.ndim == 1]
    assert decayed["betas"] == plain["betas"] == (0.9, 0.98)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0) and decayed["fused"] and plain["fused"]


def test_the_rate_warms_up_and_falls_to_its_lowest():
    assert [warm_cosine(n, 0.0, warmup=4) for n in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert [warm_cosine(99, used, warmup=4, final=0.1) for used in (0, 0.5, 1, 2)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert warm_cosine(0, 0.0, warmup=0) == 1
    recipe = Recipe(learning_rate=0.1, warmup_steps=4, final_learning_rate=0.5)
    assert learning_rate(recipe, 1, 1.0) == pytest.approx(0.1 * 0.5 * 0.5)


def test_a_step_takes_the_learning_rate_and_clears_the_gradients():
    one, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizers = [torch.optim.SGD([one], lr=9.0), torch.optim.SGD([other], lr=9.0)]
    one.grad, other.grad = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])
    step(optimizers, 0.5)
    torch.testing.assert_close(one.detach(), torch.tensor([-1.5, -2.0]))
    torch.testing.assert_close(other.detach(), torch.tensor([-0.5, -1.0]))
    assert one.grad is None and other.grad is None
