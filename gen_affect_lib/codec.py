"""The space that the model works in: pixels, or the latents of a small autoencoder (Rombach et al. 2022).

Both codecs have the same interface:
    encode(images (B, 3, S, S) in [-1, 1]) -> latents (B, C, s, s) of about unit scale
    decode(latents) -> images
    encode_all(images uint8 (M, S, S, 3)) -> latents (M, C, s, s), which can be indexed with an array of indices
    encoded(images, path) -> the same, computed once and kept in a file
    latent_channels, latent_size(S): C and s
    mark: a string that changes whenever the latents do

Letters: B images, M images of a data set, S the side of an image, C channels of the latents, s their side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.keys import Producer, digest
from gen_affect_lib.tensors import to_tensor

CODEC = Producer("codec", 1)  # pictures to latents and back


class Latents(Protocol):
    """Latents (M, C, s, s) of a data set: an array, or something that is indexed like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index, /) -> np.ndarray: ...


class PixelCodec(ModelMixin, ConfigMixin):
    """The identity function: the model works on pixels."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.register_buffer("unit", torch.ones(1))  # without a tensor a model has no device and cannot be saved
        self.latent_channels, self.downscale = 3, 1
        self.mark = "pixels"

    def latent_size(self, image_size: int) -> int:
        return image_size

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def encode_all(self, images: np.ndarray) -> Latents:
        return _Pixels(images)

    def encoded(self, images: np.ndarray, path: Path) -> Latents:
        return _Pixels(images)  # nothing to keep


class _Pixels:
    """Images as numbers in [-1, 1], converted when they are indexed."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> np.ndarray:
        return to_tensor(self.images[index]).numpy()


class GroupNormResidual(nn.Module):
    """A residual block of two 3 x 3 convolutions. The second starts at zero, so the block starts as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class LatentCodec(ModelMixin, ConfigMixin):
    """A variational autoencoder whose latents have an eighth of the image's side.

    All convolutions are at a quarter and an eighth of the side, where they are cheap. Pixel-unshuffle (Shi et al. 2016)
    reduces an image to a quarter of its side, and pixel-shuffle inverts it. `shift` and `scale` normalise the
    latents to about mean 0 and standard deviation 1, as rectified flow expects; `calibrate` measures them.

    Args:
        latent_channels: C.
        widths: channels at a quarter and at an eighth of the side.
        blocks: residual blocks at each of the two sides, in the encoder and in the decoder.
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
            *(GroupNormResidual(fine) for _ in range(few)),
            nn.Conv2d(fine, coarse, 2, stride=2),  # -> (B, coarse, S/8, S/8)
            *(GroupNormResidual(coarse) for _ in range(few)),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
            nn.Conv2d(coarse, 2 * latent_channels, 1),  # mean and log-variance
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, coarse, 3, padding=1),
            *(GroupNormResidual(coarse) for _ in range(many)),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),  # (B, 4 fine, S/8, S/8) -> (B, fine, S/4, S/4)
            *(GroupNormResidual(fine) for _ in range(many)),
            nn.GroupNorm(8, fine),
            nn.SiLU(),
            nn.Conv2d(fine, 48, 3, padding=1),
            nn.PixelShuffle(4),  # -> (B, 3, S, S)
        )
        # The posterior starts with a standard deviation of e^-3. With the usual 1, noise would mask the signal.
        last = self.encoder[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias[latent_channels:], -6.0)
        self.register_buffer("shift", torch.zeros(latent_channels))
        self.register_buffer("scale", torch.ones(latent_channels))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)

    def latent_size(self, image_size: int) -> int:
        return image_size // self.downscale

    @property
    def mark(self) -> str:
        """12 hexadecimal digits that change with the encoder and its calibration, but not with the decoder."""
        weights = [t for name, t in self.state_dict().items() if not name.startswith("decoder.")]
        return digest(*(t.cpu().float().numpy().tobytes() for t in weights))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each (B, C, s, s), before normalisation.

        Raises UserError for images of another shape than (B, 3, S, S), S a multiple of 8.
        """
        side = images.shape[-1]
        if images.ndim != 4 or images.shape[1] != 3 or side % self.downscale or images.shape[2] != side:
            raise UserError(
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
        """Set shift and scale to mean and standard deviation of the latents of images (B, 3, S, S) in [-1, 1]."""
        mean, _ = self.posterior(images)
        self.shift.copy_(mean.mean(dim=(0, 2, 3)))
        self.scale.copy_(mean.std(dim=(0, 2, 3)).clamp_min(1e-4))

    @torch.no_grad()
    def encode_all(self, images: np.ndarray, out: np.ndarray | None = None, batch_size: int = 256) -> np.ndarray:
        """Images uint8 (M, S, S, 3) to latents float16 (M, C, s, s), in batches; written into `out` if it is given."""
        side = self.latent_size(images.shape[1])
        out = np.empty((len(images), self.latent_channels, side, side), np.float16) if out is None else out
        for start in tqdm(range(0, len(images), batch_size), desc="Encoding", unit="batch", leave=False):
            block = to_tensor(images[start : start + batch_size]).to(self.device, memory_format=torch.channels_last)
            out[start : start + batch_size] = self.encode(block).cpu().numpy()
        return out

    def encoded(self, images: np.ndarray, path: Path) -> np.ndarray:
        """The result of `encode_all`, computed once and kept in a memory-mapped file."""
        side = self.latent_size(images.shape[1])
        shape = (len(images), self.latent_channels, side, side)
        if not path.is_file():
            with atomic(path) as partial:
                latents = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
                self.encode_all(images, latents)
                latents.flush()
        return np.load(path, mmap_mode="r")
