"""The exponential moving average (EMA) of the weights. It gives better pictures than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_average(average: dict[str, Tensor], parameters: dict[str, nn.Parameter], step: int, decay: float) -> None:
    """average ← decay · average + (1 − decay) · parameters, in place.

    The decay grows with the run up to `decay`; otherwise the random weights of the start would stay in it for long.
    """
    decay = min(decay, (1 + step) / (10 + step))
    lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
    lerp(list(average.values()), list(parameters.values()), 1 - decay)


@contextmanager
def averaged_weights(
    networks: nn.Module, parameters: dict[str, nn.Parameter], average: dict[str, Tensor]
) -> Iterator[nn.Module]:
    """Inside, the networks have the averaged weights and are in eval mode: to sample, to validate, to save.

    No gradients are computed inside. Weights, mode and torch's global random state are restored at the end.
    """
    current: list[Tensor] = list(parameters.values())
    copy = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
    kept = [parameter.detach().clone() for parameter in current]
    was_training = networks.training
    devices = [current[0].device] if current[0].device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        copy(current, list(average.values()))
        try:
            yield networks.eval()
        finally:
            copy(current, kept)
            networks.train(was_training)
