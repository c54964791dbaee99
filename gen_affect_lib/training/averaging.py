"""The exponential moving average (EMA) of the weights, which generates better pictures than the latest weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_average(average: dict[str, Tensor], parameters: dict[str, nn.Parameter], step: int, decay: float) -> None:
    """average ← decay · average + (1 − decay) · parameters, in place.

    At step t it is min(decay, (1 + t) / (10 + t)). With a constant decay, the random initial weights would dominate the
    average for many steps.
    """
    decay = min(decay, (1 + step) / (10 + step))
    lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
    lerp(list(average.values()), list(parameters.values()), 1 - decay)


@contextmanager
def averaged_weights(
    networks: nn.Module, parameters: dict[str, nn.Parameter], average: dict[str, Tensor]
) -> Iterator[nn.Module]:
    """Context in which the networks have the averaged weights and are in eval mode, to sample, validate or save.

    No gradients are computed in it. Weights, mode and torch's global random state are restored at the end.
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
