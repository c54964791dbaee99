"""Pictures to tensors and back."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (…, S, S, 3) in RGB -> float32 (…, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).movedim(-1, -3).float() / 127.5 - 1


def to_images(tensor: Tensor) -> np.ndarray:
    """float (…, 3, S, S) in [-1, 1] -> uint8 (…, S, S, 3) in RGB; values outside are clipped."""
    return ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu().numpy()
