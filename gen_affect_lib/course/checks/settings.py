"""The settings under which answers are judged, whatever a notebook has set."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_settings(seed: int = 0) -> Iterator[None]:
    """Torch's default dtype, device, gradients and algorithms, NumPy's errors and the warnings are those of a fresh
    process, and torch's random numbers are seeded; all of them are as before afterwards."""
    dtype, exact = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)
    try:
        with (
            torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=()),
        ):
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(exact)
