"""A variational autoencoder with the networks of `LatentCodec`, as a rival: a KL term instead of noise.

Its encoder predicts a normal distribution of the latents, with mean and log-variance, and the KL divergence from a unit
normal limits what the latents hold (Kingma & Welling 2014; Rombach et al. 2022). The KL term shrinks components that
help the reconstruction little, but it removes none: they stay as a tail that a generator learns badly.

Letters: B images, S the picture's side, C latent channels, s = S / 16 the latents' side.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.training import loop
from gen_affect_lib.training.codec import Perceptual, fit_whole, reconstruction_loss

KL_WEIGHT = 2e-4


class KLCodec(LatentCodec):
    """Pictures (B, 3, S, S) in [-1, 1] to the means of the latents (B, C, s, s), and back.

    `shift` and `scale` normalise the latents to mean 0 and standard deviation 1; `calibrate` measures them. The
    arguments are those of `LatentCodec`, without noise.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        encoder_widths: tuple[int, ...] = (64, 96, 128),
        encoder_blocks: tuple[int, ...] = (1, 2, 2),
        decoder_widths: tuple[int, ...] = (176, 128, 96, 48),
        decoder_blocks: tuple[int, ...] = (3, 3, 3, 2),
    ):
        super().__init__(latent_channels, encoder_widths, encoder_blocks, decoder_widths, decoder_blocks)
        del self.normalize
        self.encoder[-1] = nn.Conv2d(encoder_widths[-1], 2 * latent_channels, 1)  # mean and log-variance
        self.start_narrow(self.encoder[-1])
        self.register_buffer("shift", torch.zeros(latent_channels))
        self.register_buffer("scale", torch.ones(latent_channels))

    @staticmethod
    def start_narrow(last: nn.Module) -> None:
        """Let the posterior start with a standard deviation of e^-3. With the usual 1, noise would mask the signal."""
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias[len(last.bias) // 2 :], -6.0)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each (B, C, s, s), before normalisation."""
        mean, log_variance = self.features(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 4)

    def encode(self, images: Tensor) -> Tensor:
        return (self.posterior(images)[0] - self.shift[:, None, None]) / self.scale[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents * self.scale[:, None, None] + self.shift[:, None, None])

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set shift and scale to mean and standard deviation of the latents of images (B, 3, S, S) in [-1, 1]."""
        mean = torch.cat([self.posterior(part)[0] for part in images.split(64)])
        self.shift.copy_(mean.mean(dim=(0, 2, 3)))
        self.scale.copy_(mean.std(dim=(0, 2, 3)).clamp_min(1e-4))


def kl_loss(codec: KLCodec, images: Tensor, weight: Tensor, perceptual: Perceptual | None) -> tuple[Tensor, Tensor]:
    """The loss of the variational autoencoder, and the mean squared error of its reconstruction.

    `reconstruction_loss` plus `KL_WEIGHT` times the KL divergence of the latents from a unit normal, a mean over
    latents. images: (B, 3, S, S) in [-1, 1].
    """
    mean, log_variance = codec.posterior(images)
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    loss, error = reconstruction_loss(codec.decoder(latents), images, weight, perceptual)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return loss + KL_WEIGHT * kl, error


def fit_kl_codec(
    codec: KLCodec, images: np.ndarray, recipe: Recipe, perceptual: Perceptual | None = None
) -> list[loop.Row]:
    """Train the autoencoder on images uint8 (M, S, S, 3), then normalise its latents; returns the history."""

    def loss(batch: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return kl_loss(codec, batch, weight, perceptual)

    return fit_whole(codec, loss, images, recipe, "KL autoencoder")
