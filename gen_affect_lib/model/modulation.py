"""Conditioning of every block on the timestep and the pooled condition: conditioning vector, adaptive layer norm.

Letters: B images, L tokens, C channels of a token. Taught in notebook 03.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(timestep: Tensor, channels: int = 256, max_period: float = 10_000.0) -> Tensor:
    """Cosines, then sines, of timesteps (B,) in [0, 1000], fractions allowed: (B, channels), float32.

    The frequencies fall geometrically from 1 towards 1/max_period (Vaswani et al. 2017). The angles are computed in
    float32, since bfloat16 rounds 999 to 1000.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=timestep.device))
    angles = timestep.float()[:, None] * frequencies  # (B, 1) * (half,) -> (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ConditioningVector(nn.Module):
    """Timestep (B,) and pooled condition (B, P) to SiLU(MLP(timestep embedding) + MLP(pooled)): (B, C).

    In SD3, every layer that uses the sum (modulations, last norm) applies the SiLU itself; here it is computed once.
    """

    def __init__(self, pooled_dim: int, dim: int, frequency_channels: int = 256):
        super().__init__()
        self.frequency_channels = frequency_channels
        self.time = nn.Sequential(nn.Linear(frequency_channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.pooled = nn.Sequential(nn.Linear(pooled_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        waves = timestep_embedding(timestep, self.frequency_channels).to(pooled.dtype)
        return F.silu(self.time(waves) + self.pooled(pooled))


class Modulation(NamedTuple):
    """Shift, scale and gate of one residual branch: each (B, 1, C), the same for every token."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def layer_norm(x: Tensor) -> Tensor:
    """Normalize each token to mean 0 and variance 1 over its channels; modulation has the learned parameters."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift, in one pass over x. With shift and scale at zero it is x."""
    return torch.addcmul(shift, x, 1 + scale)


def gated_add(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """The residual x + gate·update, in one pass. With the gate at zero it is x."""
    return torch.addcmul(x, gate, update)


class Modulator(nn.Module):
    """Conditioning vector (B, C) to one `Modulation` per residual branch (adaLN-Zero, Peebles & Xie 2022).

    `MMDiT.init_weights` initializes it to zero: all gates are 0, so each block starts as the identity.
    """

    def __init__(self, dim: int, branches: int):
        super().__init__()
        self.branches = branches
        self.linear = nn.Linear(dim, branches * 3 * dim)

    def forward(self, c: Tensor) -> tuple[Modulation, ...]:
        rows = self.linear(c)[:, None].chunk(self.branches * 3, dim=-1)  # (B, n·3·C) -> n·3 of (B, 1, C)
        return tuple(Modulation(*rows[i : i + 3]) for i in range(0, len(rows), 3))


class AdaLayerNorm(nn.Module):
    """Layer norm with shift and scale from the conditioning vector (B, C); no gate, since no residual follows."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.linear(c)[:, None].chunk(2, dim=-1)  # (B, 2·C) -> two of (B, 1, C)
        return modulate(layer_norm(x), shift, scale)
