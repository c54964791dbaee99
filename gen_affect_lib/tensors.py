"""Pictures to tensors and back."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.errors import UserError


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (…, S, S, 3) in RGB -> float32 (…, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).movedim(-1, -3).float() / 127.5 - 1


def to_images(tensor: Tensor) -> np.ndarray:
    """float (…, 3, S, S) in [-1, 1] -> uint8 (…, S, S, 3) in RGB; values outside are clipped."""
    return ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu().numpy()


def fine_detail(images: Tensor) -> Tensor:
    """What stands out from a neighbourhood of 7 x 7 pixels, each channel by itself: (…, S, S) -> the same shape."""
    planes = images.flatten(0, -3)  # (…, S, S) -> (n, S, S)
    mean = F.avg_pool2d(planes, 7, stride=1, padding=3, count_include_pad=False)
    return images - mean.view_as(images)


def require_finite(network: nn.Module, where: str) -> None:
    """Raise UserError if a weight or buffer of a network is NaN or infinite; `where` is for the message."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{where}: {name} holds numbers that are not finite in {tensor.dtype}: copy or train it again, or use "
                "dtype=torch.float32"
            )
