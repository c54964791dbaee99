"""What notebook 04 builds by hand is what the library does: its own functions and class, run here against `flow`."""

import math

import pytest
import torch
from torch import nn

from gen_affect_lib import flow

IN_THE_LIBRARY = (
    "interpolate",
    "velocity",
    "timestep",
    "shift_sigma",
    "sample_sigma",
    "schedule",
    "RectifiedFlow",
    "sample",
    "guide_one",
    "guide",
)
BESIDE_IT = ("beside", "gaussian_velocity", "beliefs", "mixture_velocity")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("04_rectified_flow", IN_THE_LIBRARY + BESIDE_IT, torch=torch, math=math, nn=nn)


def batch():
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 6, 3, 4, 5, generator=generator)
    return data, noise, torch.tensor([0.0, 0.01, 0.2, 0.5, 0.9, 1.0])


class Network(nn.Module):
    """Any network: what counts is that both sides call the same one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, sigma):
        return self.layer(x).tanh() + sigma[:, None, None, None]


def test_the_path_is_the_same(by_hand):
    data, noise, sigma = batch()
    assert by_hand["interpolate"](data, noise, sigma).equal(flow.interpolate(data, noise, sigma))
    assert by_hand["interpolate"](data, noise, 0.3).equal(flow.interpolate(data, noise, 0.3))
    assert by_hand["velocity"](data, noise).equal(flow.velocity(data, noise))
    assert by_hand["timestep"](sigma).equal(flow.timestep(sigma))


@pytest.mark.parametrize("distribution", ["logit_normal", "uniform"])
@pytest.mark.parametrize("shift, mean, std", [(1.0, 0.0, 1.0), (3.0, -0.7, 0.5)])
def test_the_sigmas_are_the_same(by_hand, distribution, shift, mean, std):
    ours, theirs = (
        draw(500, distribution, shift, mean=mean, std=std, generator=torch.Generator().manual_seed(1))
        for draw in (by_hand["sample_sigma"], flow.sample_sigma)
    )
    assert ours.equal(theirs)
    assert by_hand["shift_sigma"](ours, 2.5).equal(flow.shift_sigma(ours, 2.5))
    assert by_hand["schedule"](13, shift).equal(flow.schedule(13, shift))
    assert by_hand["schedule"](13, shift, dtype=torch.float64).equal(flow.schedule(13, shift, dtype=torch.float64))


@pytest.mark.parametrize("prediction", ["v", "x"])
def test_the_objective_is_the_same_with_its_gradients(by_hand, prediction):
    data, noise, sigma = batch()
    network = Network()
    results = []
    for objective in (by_hand["RectifiedFlow"](prediction), flow.RectifiedFlow(prediction)):
        loss = objective.loss(network, data, noise, sigma)
        gradient = torch.autograd.grad(loss.mean(), network.layer.weight)[0]
        with torch.no_grad():
            velocity = objective.velocity_of(network)(noise, sigma)
        results.append((loss, gradient, velocity))
    for ours, theirs in zip(*results):
        assert ours.equal(theirs)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("num_steps, shift", [(1, 1.0), (9, 3.0)])
def test_the_samplers_are_the_same_and_report_the_same_steps(by_hand, method, num_steps, shift):
    _, noise, _ = batch()
    velocity_fn, sigmas = Network(), flow.schedule(num_steps, shift)
    walks = []
    for sample in (by_hand["sample"], flow.sample):
        walk = []
        end = sample(velocity_fn, noise, sigmas, method, callback=lambda *step: walk.append(step))
        walks.append((walk, end))
    (ours, our_end), (theirs, their_end) = walks
    assert our_end.equal(their_end) and len(ours) == len(theirs) == num_steps
    for a, b in zip(ours, theirs):
        assert a[:2] == b[:2] and a[2].equal(b[2])


def test_guidance_is_the_same(by_hand):
    data, noise, _ = batch()
    full = data * noise
    assert by_hand["guide_one"](data, noise, 2.5).equal(flow.guide_one(data, noise, 2.5))
    assert by_hand["guide"](data, noise, full, 1.5, 3.0).equal(flow.guide(data, noise, full, 1.5, 3.0))


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_exact_velocity_of_a_mixture_agrees_with_the_slope_of_its_density(by_hand, spread):
    """Tweedie's formula, which the notebook does not use: E[data | x] = (x + sigma**2 grad log p(x)) / (1 - sigma)."""
    generator = torch.Generator().manual_seed(2)
    means = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25], dtype=torch.float64)
    sigma = torch.linspace(0.1, 0.9, 40, dtype=torch.float64)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    s = sigma[:, None]
    variance = (1 - s) ** 2 * spread**2 + s**2
    log_terms = weights.log() - (x[:, None] - (1 - s)[..., None] * means).square().sum(-1) / (2 * variance)
    slope = torch.autograd.grad(torch.logsumexp(log_terms, dim=1).sum(), x)[0]
    data = (x.detach() + s**2 * slope) / (1 - s)
    expected = (x.detach() - data) / s  # from x = (1 - sigma) data + sigma noise, in the mean
    found = by_hand["mixture_velocity"](x.detach(), sigma, means, weights, spread)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
