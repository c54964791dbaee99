"""Timestep and condition: close timesteps have different embeddings, and modulation starts at zero."""

import pytest
import torch

from gen_affect_lib.model.modulation import (
    AdaLayerNorm,
    ConditioningVector,
    Modulator,
    gated_add,
    layer_norm,
    modulate,
    timestep_embedding,
)


def test_time_zero_is_all_cosines_then_no_sines():
    assert timestep_embedding(torch.zeros(1), 8)[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_frequencies_fall_from_one_to_the_period():
    waves = timestep_embedding(torch.tensor([1.0]), 256)[0]
    assert waves[128].item() == pytest.approx(torch.tensor(1.0).sin().item())
    assert waves[-1].item() == pytest.approx(10_000 ** (-127 / 128), rel=1e-4)


def test_fractions_of_a_timestep_are_told_apart():
    a, b = timestep_embedding(torch.tensor([500.0, 500.25]))
    assert (a - b).abs().max() > 0.1


def test_whole_numbers_and_fractions_agree():
    assert torch.equal(timestep_embedding(torch.tensor([7])), timestep_embedding(torch.tensor([7.0])))


def test_times_stay_apart_in_half_precision():
    """999 and 1000 are the same number in bfloat16, so the embedding must be computed before rounding."""
    vector = ConditioningVector(pooled_dim=4, dim=16).bfloat16()
    a, b = vector(torch.tensor([999.0, 1000.0]), torch.zeros(2, 4, dtype=torch.bfloat16))
    assert (a - b).abs().max() > 0.01


def test_time_and_pooled_condition_both_steer():
    vector = ConditioningVector(pooled_dim=4, dim=16)
    time, pooled = torch.tensor([3.0]), torch.ones(1, 4)
    assert not torch.equal(vector(time, pooled), vector(time + 1, pooled))
    assert not torch.equal(vector(time, pooled), vector(time, 2 * pooled))


def test_layer_norm_leaves_mean_zero_and_variance_one():
    x = 5 + 3 * torch.randn(2, 4, 64)
    assert layer_norm(x).mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(layer_norm(x).var(-1, correction=0), torch.ones(2, 4), rtol=1e-4, atol=1e-4)


def test_with_shift_and_scale_at_zero_nothing_is_modulated():
    x, zero = torch.randn(2, 4, 8), torch.zeros(2, 1, 8)
    assert torch.equal(modulate(x, zero, zero), x)


def test_modulation_scales_then_shifts():
    x, shift, scale = torch.randn(2, 4, 8), torch.randn(2, 1, 8), torch.randn(2, 1, 8)
    torch.testing.assert_close(modulate(x, shift, scale), x * (1 + scale) + shift)


def test_a_closed_gate_lets_nothing_through():
    x, update, gate = torch.randn(2, 4, 8), torch.randn(2, 4, 8), torch.randn(2, 1, 8)
    assert torch.equal(gated_add(x, torch.zeros_like(gate), update), x)
    torch.testing.assert_close(gated_add(x, gate, update), x + gate * update)


def test_a_modulator_reads_shift_scale_gate_branch_after_branch():
    modulator = Modulator(dim=4, branches=2)
    c = torch.randn(3, 4)
    rows = modulator.linear(c)  # (3, 2·3·4)
    attention, mlp = modulator(c)
    assert attention.shift.shape == (3, 1, 4)
    for i, part in enumerate([*attention, *mlp]):
        assert torch.equal(part[:, 0], rows[:, 4 * i : 4 * i + 4])


def test_adaptive_norm_reads_shift_before_scale():
    norm = AdaLayerNorm(4)
    x, c = torch.randn(2, 3, 4), torch.randn(2, 4)
    shift, scale = norm.linear(c).chunk(2, dim=1)
    torch.testing.assert_close(norm(x, c), layer_norm(x) * (1 + scale[:, None]) + shift[:, None])
