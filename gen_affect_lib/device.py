"""The device, the processes that train together, and the random seeds."""

from __future__ import annotations

import atexit
import gc
import hashlib
import os
import random
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T", bound=nn.Module)


def pick_device() -> torch.device:
    """The CUDA device if there is one, else the CPU. With several processes, each has its own GPU."""
    if "LOCAL_RANK" in os.environ:  # started by `accelerate launch`
        return processes().device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16: every CPU, and the GPUs that need not emulate it."""
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def on_device(network: T) -> T:
    """Move a network to `pick_device()`, in place."""
    network.to(pick_device())
    return network


def processes() -> Accelerator:
    """The processes that train together: those that `accelerate launch` has started, or this one alone."""
    from accelerate import Accelerator  # slow to import, and only training needs it
    from accelerate.utils import InitProcessGroupKwargs

    if "LOCAL_RANK" in os.environ:
        # Distributed training imports this module anyway. If the first import comes after the process group exists, the
        # module keeps a reference to the group, and so the group's threads, until the process ends.
        from torch import _dynamo  # noqa: F401

    # The others wait while the main process renders, which may take long.
    timeout = InitProcessGroupKwargs(timeout=timedelta(days=1))
    # No mixed precision: the trainer chooses its own.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[timeout])
    if accelerator.num_processes > 1:
        atexit.unregister(_end_process_group)
        atexit.register(_end_process_group)
    return accelerator


def _end_process_group() -> None:
    """End the process group before Python shuts down: if a thread of it frees a tensor later, the process aborts."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # its threads end when the last reference is freed; distributed networks hold references in cycles


def seed_stage(seed: int, stage: str) -> None:
    """Seed the global random state for one stage, from the seed and its name.

    The stage then does not depend on how many random numbers the stages before it have used, or on whether their
    results were read from a file.
    """
    seed_everything(int.from_bytes(hashlib.sha256(f"{seed} {stage}".encode()).digest()[:7], "little"))


def seed_everything(seed: int) -> None:
    """Seed the global random state of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
