"""The space that the model works in: pixels, or the latents of a small autoencoder (Rombach et al. 2022).

Both codecs offer the same four things, so that nothing else has to know which one is at work:
    encode(images (B, 3, S, S) in [-1, 1]) -> (B, latent_channels, S / downscale, S / downscale), about unit scale
    decode(latents) -> images
    encoded(images uint8 (M, S, S, 3), path) -> an array of M latents, (M, C, s, s), that can be indexed by an array
    mark: another one where the latents are others

Letters: B images, S the picture's side, C channels, s the latents' side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.keys import Producer, digest
from gen_affect_lib.tensors import to_tensor

CODEC = Producer("codec", 1)  # pictures to latents and back


class PixelCodec(ModelMixin, ConfigMixin):
    """The identity: the model works on the pixels themselves."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.register_buffer("unit", torch.ones(1))  # a model without a tensor has no device and cannot be saved
        self.latent_channels, self.downscale = 3, 1
        self.mark = "pixels"

    def latent_size(self, image_size: int) -> int:
        return image_size

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def encoded(self, images: np.ndarray, path: Path | None = None):
        return _Pixels(images)


class _Pixels:
    """Pictures as numbers in [-1, 1], converted only when they are asked for."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> np.ndarray:
        return to_tensor(self.images[index]).numpy()


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the straight path; the second starts at zero, and so the block as nothing."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class LatentCodec(ModelMixin, ConfigMixin):
    """A variational autoencoder that shrinks a picture eight times a side.

    All the work is done at a quarter and an eighth of the side, where convolutions are cheap: the way there and back is
    a rearrangement of pixels (pixel-unshuffle, Shi et al. 2016). `shift` and `scale` bring the latents to about
    mean 0 and deviation 1, which is what rectified flow wants to see; `calibrate` measures them.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 16, widths: tuple[int, int] = (64, 128), blocks: tuple[int, int] = (1, 3)
    ):
        super().__init__()
        self.latent_channels, self.downscale = latent_channels, 8
        fine, coarse = widths
        few, many = blocks
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),  # (B, 3, S, S) -> (B, 48, S/4, S/4)
            nn.Conv2d(48, fine, 3, padding=1),
            *(Residual(fine) for _ in range(few)),
            nn.Conv2d(fine, coarse, 2, stride=2),  # -> (B, coarse, S/8, S/8)
            *(Residual(coarse) for _ in range(few)),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
            nn.Conv2d(coarse, 2 * latent_channels, 1),  # mean and log-variance
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, coarse, 3, padding=1),
            *(Residual(coarse) for _ in range(many)),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),  # (B, 4 fine, S/8, S/8) -> (B, fine, S/4, S/4)
            *(Residual(fine) for _ in range(many)),
            nn.GroupNorm(8, fine),
            nn.SiLU(),
            nn.Conv2d(fine, 48, 3, padding=1),
            nn.PixelShuffle(4),  # -> (B, 3, S, S)
        )
        # A deviation of e^-3 at the start: with the usual 1 the noise hides what the decoder should learn from.
        nn.init.constant_(self.encoder[-1].bias[latent_channels:], -6.0)
        self.register_buffer("shift", torch.zeros(latent_channels))
        self.register_buffer("scale", torch.ones(latent_channels))
        self.to(memory_format=torch.channels_last)

    def latent_size(self, image_size: int) -> int:
        return image_size // self.downscale

    @property
    def mark(self) -> str:
        """Twelve hexadecimal digits that change with the latents: with the encoder and its calibration, not the decoder."""
        weights = [t for name, t in self.state_dict().items() if not name.startswith("decoder.")]
        return digest(*(t.cpu().float().numpy().tobytes() for t in weights))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each (B, C, s, s), before calibration."""
        side = images.shape[-1]
        if images.ndim != 4 or images.shape[1] != 3 or side % self.downscale or images.shape[2] != side:
            raise ValueError(
                f"images have shape {tuple(images.shape)}: give (B, 3, S, S) with S a multiple of {self.downscale}"
            )
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 4)

    def encode(self, images: Tensor) -> Tensor:
        mean, _ = self.posterior(images)
        return (mean - self.shift[:, None, None]) / self.scale[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents * self.scale[:, None, None] + self.shift[:, None, None])

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set shift and scale from the latents of some pictures (B, 3, S, S)."""
        mean, _ = self.posterior(images)
        self.shift.copy_(mean.mean(dim=(0, 2, 3)))
        self.scale.copy_(mean.std(dim=(0, 2, 3)).clamp_min(1e-4))

    @torch.no_grad()
    def encode_all(self, images: np.ndarray, out: np.ndarray | None = None, batch_size: int = 256) -> np.ndarray:
        """Pictures uint8 (M, S, S, 3) to latents float16 (M, C, s, s), in batches, into `out` where it is given."""
        side = self.latent_size(images.shape[1])
        out = np.empty((len(images), self.latent_channels, side, side), np.float16) if out is None else out
        for start in tqdm(range(0, len(images), batch_size), desc="Encoding", unit="batch", leave=False):
            block = to_tensor(images[start : start + batch_size]).to(self.device, memory_format=torch.channels_last)
            out[start : start + batch_size] = self.encode(block).cpu().numpy()
        return out

    def encoded(self, images: np.ndarray, path: Path) -> np.ndarray:
        """`encode_all` once, kept in a memory-mapped file."""
        side = self.latent_size(images.shape[1])
        shape = (len(images), self.latent_channels, side, side)
        if not path.is_file():
            partial = path.with_suffix(".partial")
            latents = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            self.encode_all(images, latents).flush()
            partial.replace(path)
        return np.load(path, mmap_mode="r")
