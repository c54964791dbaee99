"""The device, the processes and the seeds, decided in one place."""

import atexit
import gc
import os
import random
from datetime import timedelta

import numpy as np
import torch


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU. Of several processes, each gets a GPU of its own."""
    if "LOCAL_RANK" in os.environ:  # `accelerate launch` started several
        return processes().device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processes():
    """The processes that train together, as an `accelerate.Accelerator`: this one alone, or those that were launched."""
    from accelerate import Accelerator  # here, because only training needs it
    from accelerate.utils import InitProcessGroupKwargs

    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))  # while the main one renders, which may take long
    # The trainer chooses its precision itself.
    several = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[patience])
    if several.num_processes > 1:
        atexit.unregister(_part)
        atexit.register(_part)
    return several


def _part() -> None:
    """End the group while Python still runs: one of its threads that lets go of a tensor later aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()  # its threads end with the last who holds it: networks that were shared, which lie in cycles


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
