"""The patch critic of the decoder's last stage."""

import torch.nn.functional as F
from torch import Tensor, nn


class PatchCritic(nn.Module):
    """Tells drawn from decoded pictures by patches of 38 px (Isola et al. 2017): (B, 3, S, S) -> (B, 1, h, w).

    No padding: a critic that sees the border learns to judge by it, and the decoder answers with a seam.
    """

    def __init__(self, width: int = 48):
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2), nn.LeakyReLU(0.2),
            spectral(nn.Conv2d(width, 2 * width, 4, stride=2)), nn.LeakyReLU(0.2),
            spectral(nn.Conv2d(2 * width, 3 * width, 4, stride=2)), nn.LeakyReLU(0.2),
            spectral(nn.Conv2d(3 * width, 1, 3)),
        )  # fmt: skip
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def critic_loss(critic: PatchCritic, drawn: Tensor, decoded: Tensor) -> Tensor:
    """Hinge loss of the critic: drawn patches above 1, decoded ones below -1. Pictures (B, 3, S, S) -> ()."""
    return F.relu(1 - critic(drawn)).mean() + F.relu(1 + critic(decoded)).mean()
