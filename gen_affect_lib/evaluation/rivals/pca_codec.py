"""A linear autoencoder: the principal components of each patch of 16 x 16 pixels, fitted in seconds without training.

Faces are drawn at the same place in all pictures, so each place of the picture has its own mean and its own components.
No linear map of as many numbers keeps more variance. As a rival of the kit's codec it shows that this is not enough: it
reconstructs well, and a generator learns its latents badly.

Letters: B images, M images of a data set, S the picture's side, s = S / 16 the latents' side, C latent channels,
D = 768 numbers of a patch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor

PATCH = 16


class PCACodec(LatentCodec):
    """Pictures (B, 3, S, S) in [-1, 1] to latents (B, C, s, s), and back; `LatentCodec` without its networks.

    A component of standard deviation d is divided by √d: with d alone, the many small components would have the largest
    part of a generator's loss; undivided, noise would hide them. All are then scaled to unit variance together.

    Args:
        latent_channels: C, components of each patch.
        image_size: S.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 64, image_size: int = 64):
        ModelMixin.__init__(self)
        side, numbers = image_size // PATCH, 3 * PATCH * PATCH
        self.latent_channels, self.downscale = latent_channels, PATCH
        self.mean: Tensor
        self.basis: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(numbers, side, side))
        self.register_buffer("basis", torch.zeros(side, side, numbers, latent_channels))
        self.register_buffer("scale", torch.ones(latent_channels, side, side))

    def encode(self, images: Tensor) -> Tensor:
        size = self.config["image_size"]
        if images.shape[1:] != (3, size, size):
            raise UserError(f"images have shape {tuple(images.shape)}: give (B, 3, {size}, {size})")
        patches = F.pixel_unshuffle(images, PATCH) - self.mean  # (B, 3, S, S) -> (B, D, s, s)
        return torch.einsum("bdhw,hwdc->bchw", patches, self.basis) / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        patches = torch.einsum("bchw,hwdc->bdhw", latents * self.scale, self.basis) + self.mean
        return F.pixel_shuffle(patches, PATCH)  # (B, D, s, s) -> (B, 3, S, S)


@torch.no_grad()
def fit_pca_codec(codec: PCACodec, images: np.ndarray, recipe: Recipe, pictures: int = 4096) -> list:
    """Fit the components to `pictures` of images uint8 (M, S, S, 3), chosen with the recipe's seed. Returns []: there
    is no history of a training."""
    chosen = np.random.default_rng(recipe.seed).permutation(len(images))[:pictures]
    patches = F.pixel_unshuffle(to_tensor(images[np.sort(chosen)]).to(codec.device), PATCH)  # (M, D, s, s)
    codec.mean.copy_(patches.mean(dim=0))
    for row in range(codec.mean.shape[1]):
        for column in range(codec.mean.shape[2]):
            x = patches[:, :, row, column] - codec.mean[:, row, column]  # (M, D)
            with torch.autocast(x.device.type, enabled=False):  # bfloat16 is too coarse for the small components
                variances, components = torch.linalg.eigh(x.T @ x / len(x))  # ascending
            codec.basis[row, column] = components.flip(1)[:, : codec.latent_channels]
            kept = variances.flip(0)[: codec.latent_channels].clamp_min(1e-6)
            codec.scale[:, row, column] = kept**0.25
    codec.scale.mul_((codec.scale**2).mean().sqrt())  # a latent's variance is the square of its scale until here
    return []
