"""The codec of the 128 px model: an autoencoder whose latents tolerate noise, so that a generator can learn them all.

`LatentCodec` keeps whatever lowers the reconstruction error. Part of that is a tail of small components that no
generator learns, and its decoder depends on them. This codec differs in three ways:

- **Unit variance without a KL term.** The encoder ends in batch normalisation without gain, so every latent channel
  has mean 0 and variance 1 at every training step.
- **Noise on the latents.** In training the decoder reads z + s·e, where e ~ N(0, 1), and s ~ |N(0, 0.4)| is drawn once
  per picture. The decoder cannot use information that little noise erases, so the encoder keeps what matters in large,
  smooth components (RAE, arXiv 2510.11690; l-DeTok, arXiv 2507.15856).
- **A finer decoder.** It works at S/16, S/8, S/4 and S/2, so lines one pixel wide (frames, folds) are drawn by
  convolutions and not by one linear map per block of 4 x 4 pixels.

The interface is that of `LatentCodec`: encode, decode, encoded, encode_all, latent_channels, latent_size, mark. The
program that trained the shipped weights is in docs/gen_affect_128. Its producer is `codec.CODEC`.

Letters: B images, S the picture's side, C latent channels, s = S / 16 the latents' side.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from gen_affect_lib.codec import GroupNormResidual, LatentCodec
from gen_affect_lib.errors import UserError


class SharpCodec(ModelMixin, ConfigMixin):
    """Pictures (B, 3, S, S) in [-1, 1] to latents (B, C, S / 16, S / 16) of unit variance, and back.

    Args:
        latent_channels: C. 16 at 128 px means 8 x 8 x 16 = 1,024 numbers.
        encoder_widths: channels at S / 4, S / 8 and S / 16.
        encoder_blocks: residual blocks at each of them.
        decoder_widths: channels at S / 16, S / 8, S / 4 and S / 2.
        decoder_blocks: residual blocks at each of them.
        noise: standard deviation of the half-normal from which the noise level on the latents is drawn in training.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        encoder_widths: tuple[int, ...] = (64, 96, 128),
        encoder_blocks: tuple[int, ...] = (1, 2, 2),
        decoder_widths: tuple[int, ...] = (176, 128, 96, 48),
        decoder_blocks: tuple[int, ...] = (3, 3, 3, 2),
        noise: float = 0.4,
    ):
        super().__init__()
        self.latent_channels, self.downscale, self.noise = latent_channels, 16, noise
        first, last = encoder_widths[0], decoder_widths[-1]
        layers = [nn.PixelUnshuffle(4), nn.Conv2d(48, first, 3, padding=1)]  # (B, 3, S, S) -> (B, first, S/4, S/4)
        for level, (width, blocks) in enumerate(zip(encoder_widths, encoder_blocks)):
            if level:
                layers.append(nn.Conv2d(encoder_widths[level - 1], width, 2, stride=2))  # halves the side
            layers += [GroupNormResidual(width) for _ in range(blocks)]
        self.encoder = nn.Sequential(
            *layers, nn.GroupNorm(8, encoder_widths[-1]), nn.SiLU(), nn.Conv2d(encoder_widths[-1], latent_channels, 1)
        )
        self.normalize = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.02)
        layers = [nn.Conv2d(latent_channels, decoder_widths[0], 3, padding=1)]
        for level, (width, blocks) in enumerate(zip(decoder_widths, decoder_blocks)):
            if level:
                layers += [nn.Conv2d(decoder_widths[level - 1], 4 * width, 1), nn.PixelShuffle(2)]  # doubles the side
            layers += [GroupNormResidual(width) for _ in range(blocks)]
        self.decoder = nn.Sequential(
            *layers, nn.GroupNorm(8, last), nn.SiLU(), nn.Conv2d(last, 12, 3, padding=1), nn.PixelShuffle(2)
        )  # -> (B, 3, S, S)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)

    def latent_size(self, image_size: int) -> int:
        """s for pictures of S pixels a side."""
        return image_size // self.downscale

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, s, s). Raises UserError unless S is a multiple of 16."""
        side = images.shape[-1]
        if images.ndim != 4 or images.shape[1] != 3 or side % self.downscale or images.shape[2] != side:
            raise UserError(
                f"images have shape {tuple(images.shape)}: give (B, 3, S, S) with S a multiple of {self.downscale}"
            )
        return self.normalize(self.encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, s, s) -> (B, 3, S, S)."""
        return self.decoder(latents)

    def noised(self, latents: Tensor) -> Tensor:
        """Latents as the decoder sees them in training: z + s·e, with one s ~ |N(0, noise)| per picture. Same shape."""
        level = self.noise * torch.randn_like(latents[:, :1, :1, :1]).abs()  # (B, 1, 1, 1)
        return latents + level * torch.randn_like(latents)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (B, 3, S, S); with noise on the latents in training mode."""
        latents = self.encode(images)
        return self.decode(self.noised(latents) if self.training else latents)

    # How a data set is encoded, and by which mark its latents are known, does not depend on the network.
    encode_all, encoded, mark = LatentCodec.encode_all, LatentCodec.encoded, LatentCodec.mark
