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
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import kept
from gen_affect_lib.keys import Producer, digest
from gen_affect_lib.tensors import to_tensor

CODEC = Producer("codec", 2)  # pictures to latents and back


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
    """An autoencoder whose latents have a sixteenth of the picture's side, unit variance, and tolerate noise.

    A codec that keeps whatever lowers the reconstruction error puts a part of it into a tail of small components. No
    generator learns them, and the decoder depends on them. Three choices avoid that:

    - **Unit variance without a KL term.** The encoder ends in batch normalisation without gain, so every latent channel
      has mean 0 and variance 1 at every training step, as rectified flow expects.
    - **Noise on the latents.** In training the decoder reads z + s·e, where e ~ N(0, 1), and s ~ |N(0, 0.4)| is drawn
      once per picture. The decoder cannot use information that little noise erases, so the encoder keeps what matters
      in large, smooth components (RAE, arXiv 2510.11690; l-DeTok, arXiv 2507.15856).
    - **A fine decoder.** It works at S/16, S/8, S/4 and S/2, so lines one pixel wide (frames, folds) are drawn by
      convolutions and not by one linear map per block of 4 x 4 pixels.

    No convolution of the encoder works at the full side: pixel-unshuffle (Shi et al. 2016) reduces the picture to a
    quarter of its side. The objective is in training/codec.py.

    Args:
        latent_channels: C. 16 at 128 px means 8 x 8 x 16 = 1,024 numbers.
        encoder_widths: channels at S/4, S/8 and S/16.
        encoder_blocks: residual blocks at each of them.
        decoder_widths: channels at S/16, S/8, S/4 and S/2.
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
        layers, self.last_of_side = [nn.Conv2d(latent_channels, decoder_widths[0], 3, padding=1)], []
        for level, (width, blocks) in enumerate(zip(decoder_widths, decoder_blocks)):
            if level:
                layers += [nn.Conv2d(decoder_widths[level - 1], 4 * width, 1), nn.PixelShuffle(2)]  # doubles the side
            layers += [GroupNormResidual(width) for _ in range(blocks)]
            self.last_of_side.append(len(layers) - 1)  # index of the last block at this side
        self.decoder = nn.Sequential(
            *layers, nn.GroupNorm(8, last), nn.SiLU(), nn.Conv2d(last, 12, 3, padding=1), nn.PixelShuffle(2)
        )  # -> (B, 3, S, S)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs) -> Self:
        """As in diffusers. Raises UserError for the codec of a checkpoint of version 0.1, which had other networks."""
        if "widths" in cls.load_config(folder):
            raise UserError(
                f"{folder} belongs to a checkpoint of version 0.1 for 64 pixels, which this version does not load: use "
                "data/checkpoints/gen_affect, or train again with `python -m gen_affect_lib train` in another folder"
            )
        return super().from_pretrained(folder, **kwargs)

    def latent_size(self, image_size: int) -> int:
        return image_size // self.downscale

    @property
    def mark(self) -> str:
        """12 hexadecimal digits that change with the encoder and its calibration, but not with the decoder."""
        weights = [t for name, t in self.state_dict().items() if not name.startswith("decoder.")]
        return digest(*(t.cpu().float().numpy().tobytes() for t in weights))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, s, s), before normalisation. Raises UserError unless S is a multiple of 16."""
        side = images.shape[-1]
        if images.ndim != 4 or images.shape[1] != 3 or side % self.downscale or images.shape[2] != side:
            raise UserError(
                f"images have shape {tuple(images.shape)}: give (B, 3, S, S) with S a multiple of {self.downscale}"
            )
        return self.encoder(images)

    def encode(self, images: Tensor) -> Tensor:
        return self.normalize(self.features(images))

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)

    def decode_with_features(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The decoded picture (B, 3, S, S), and what the last block of each side of the decoder gives, for a refiner.

        The features have shape (B, W, S/16, S/16), …, (B, W, S/2, S/2), W as in `decoder_widths`.
        """
        x, features = latents, []
        for index, layer in enumerate(self.decoder):
            x = layer(x)
            if index in self.last_of_side:
                features.append(x)
        return x, features

    def noised(self, latents: Tensor) -> Tensor:
        """Latents as the decoder sees them in training: z + s·e, with one s ~ |N(0, noise)| per picture. Same shape."""
        level = self.noise * torch.randn_like(latents[:, :1, :1, :1]).abs()  # (B, 1, 1, 1)
        return latents + level * torch.randn_like(latents)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (B, 3, S, S); with noise on the latents in training mode."""
        latents = self.encode(images)
        return self.decode(self.noised(latents) if self.training else latents)

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set the means and variances of the normalisation to those of images (B, 3, S, S) in [-1, 1].

        During training they are moving averages over encoders that change.
        """
        latents = torch.cat([self.features(part) for part in images.split(64)])
        assert self.normalize.running_mean is not None and self.normalize.running_var is not None
        self.normalize.running_mean.copy_(latents.mean(dim=(0, 2, 3)))
        self.normalize.running_var.copy_(latents.var(dim=(0, 2, 3)))

    @torch.no_grad()
    def encode_all(self, images: np.ndarray, out: np.ndarray | None = None, batch_size: int = 256) -> np.ndarray:
        """Images uint8 (M, S, S, 3) to latents float16 (M, C, s, s), in batches; written into `out` if it is given."""
        side = self.latent_size(images.shape[1])
        out = np.empty((len(images), self.latent_channels, side, side), np.float16) if out is None else out
        for start in tqdm(range(0, len(images), batch_size), desc="Encoding", unit="batch", leave=False):
            block = to_tensor(images[start : start + batch_size]).to(self.device, memory_format=torch.channels_last)
            latents = self.encode(block).cpu().numpy().astype(out.dtype)
            if not np.isfinite(latents).all():
                raise UserError("the latents are not finite: train the autoencoder again")
            out[start : start + batch_size] = latents
        return out

    def encoded(self, images: np.ndarray, path: Path) -> np.ndarray:
        """The result of `encode_all`, computed once and kept in a memory-mapped file."""
        side = self.latent_size(images.shape[1])
        shape = (len(images), self.latent_channels, side, side)

        def make(partial: Path) -> None:
            latents = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            self.encode_all(images, latents)
            latents.flush()

        return np.load(kept(path, make), mmap_mode="r")
