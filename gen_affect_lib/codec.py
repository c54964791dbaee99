"""The space that the model works in: pixels, or the latents of a small autoencoder (Rombach et al. 2022).

Both codecs offer the same four things, so that nothing else has to know which one is at work:
    encode(images (B, 3, S, S) in [-1, 1]) -> (B, latent_channels, S / downscale, S / downscale), about unit scale
    decode(latents) -> images
    encoded(images uint8 (M, S, S, 3), path) -> an array of M latents, (M, C, s, s), that can be indexed by an array
    mark: another one where the latents are others

Letters: B images, S the picture's side, C channels, s the latents' side.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib import optim


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (…, S, S, 3) in RGB -> float32 (…, 3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).movedim(-1, -3).float() / 127.5 - 1


def to_images(tensor: Tensor) -> np.ndarray:
    """float (…, 3, S, S) in [-1, 1] -> uint8 (…, S, S, 3) in RGB; what lies outside is clipped."""
    return ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).cpu().numpy()


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
    def __init__(self, latent_channels: int = 16, widths: tuple[int, int] = (64, 128), blocks: tuple[int, int] = (1, 3)):
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
        return hashlib.sha256(b"".join(t.cpu().float().numpy().tobytes() for t in weights)).hexdigest()[:12]

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


def face_weight(size: int, strength: float = 3.0) -> Tensor:
    """How much each pixel counts, (1, 1, S, S), mean 1: more where brows, eyes and mouth are.

    A plain mean over pixels lets the backdrop win, and the first thing lost is the expression of dark skin.
    """
    y, x = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    inside = torch.exp(-(((x - 0.5) / 0.24) ** 4) - ((y - 0.53) / 0.26) ** 4)
    weight = 1 + strength * inside
    return (weight / weight.mean())[None, None]


def picture_loss(error: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """How far a restored picture is off, from its `error` (B, 3, S, S): L1 on values and on differences of neighbours
    (edges), weighted by `face_weight`.

    Eyes judge a difference against the brightness that it stands in (Weber's law), so errors in dark places count for
    more: without that, brows and lips on dark skin are the first thing lost."""
    brightness = images.mean(dim=1, keepdim=True) / 2 + 0.5  # (B, 1, S, S) in [0, 1]
    weight = weight / (0.25 + brightness)
    weight = weight / weight.mean()
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * weight[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    return (error.abs() * weight).mean() + across.mean() + down.mean()


def codec_loss(codec: LatentCodec, images: Tensor, weight: Tensor, kl_weight: float) -> tuple[Tensor, Tensor]:
    """The training loss and the reconstruction's mean squared error: `picture_loss`, plus the KL divergence from a unit
    normal (Kingma & Welling 2014)."""
    mean, log_variance = codec.posterior(images)
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    error = codec.decoder(latents) - images
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return picture_loss(error, images, weight) + kl_weight * kl, error.detach().square().mean()


def decoder_loss(
    codec: LatentCodec, images: Tensor, weight: Tensor, look: Callable[[Tensor], Tensor] | None, look_weight: float
) -> tuple[Tensor, Tensor]:
    """The same for the decoder alone, the latents being what they are. `look` (B, 3, S, S) -> (B, F): what a network
    that reads faces makes of a picture. What it makes of the restored one should be the same: a lid or a fold of two
    pixels weighs next to nothing in a mean over pixels, and much to whoever reads a face (Johnson et al. 2016)."""
    with torch.no_grad():
        mean, log_variance = codec.posterior(images)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    restored = codec.decoder(latents)
    loss = picture_loss(restored - images, images, weight)
    if look is not None:
        with torch.no_grad():
            seen = look(images)
        loss = loss + look_weight * (look(restored) - seen).square().mean()
    return loss, (restored - images).detach().square().mean()


def fit_codec(
    codec: LatentCodec, images: np.ndarray, *, minutes: float | None = None, steps: int | None = None,
    batch_size: int = 32, learning_rate: float = 4e-3, kl_weight: float = 2e-4, seed: int = 0,
) -> list[float]:
    """Train the autoencoder on pictures, uint8 (M, S, S, 3), for so many steps or minutes; the errors, step by step.

    The rate warms up and falls as a cosine of the share of the steps, or of the minutes, that has gone by. `kl_weight`
    counts against the loss per pixel.
    """
    def loss(batch, weight):
        return codec_loss(codec, batch, weight, kl_weight)

    errors = _fit(codec, codec, loss, images, minutes, steps, batch_size, learning_rate, seed)
    some = np.sort(np.random.default_rng(seed).integers(0, len(images), 512))
    codec.calibrate(to_tensor(images[some]).to(codec.device))
    return errors


def fit_decoder(
    codec: LatentCodec, images: np.ndarray, look: Callable[[Tensor], Tensor] | None = None, *,
    minutes: float | None = None, steps: int | None = None, batch_size: int = 32, learning_rate: float = 2e-3,
    look_weight: float = 1.0, seed: int = 0,
) -> list[float]:
    """Train the decoder on while the encoder stays: the latents, and every generator that learned them, stay good."""
    def loss(batch, weight):
        return decoder_loss(codec, batch, weight, look, look_weight)

    return _fit(codec, codec.decoder, loss, images, minutes, steps, batch_size, learning_rate, seed)


def _fit(codec, part: nn.Module, loss_of, images, minutes, steps, batch_size, learning_rate, seed) -> list[float]:
    """`part` of the codec learns; loss_of(batch, weight of each pixel) -> loss, mean squared error."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    codec.train()
    optimizers = optim.make_optimizers(dict(part.named_parameters()), lr=learning_rate, betas=(0.9, 0.99))
    weight = face_weight(images.shape[1]).to(codec.device)
    begin, step, progress, errors = time.monotonic(), 0, 0.0, []
    with tqdm(total=steps, desc="Autoencoder", unit="step") as bar:
        while progress < 1:
            rate = learning_rate * optim.warm_cosine(step, progress, warmup=100, low=0.02)
            picked = np.sort(generator.integers(0, len(images), batch_size))
            batch = to_tensor(images[picked]).to(codec.device, memory_format=torch.channels_last)
            loss, error = loss_of(batch, weight)
            loss.backward()
            optim.step(optimizers, part.parameters(), rate, clip=1.0)
            errors.append(error.item())
            step += 1
            progress = step / steps if steps else (time.monotonic() - begin) / (60 * minutes)
            bar.update()
            bar.set_postfix(mse=f"{np.mean(errors[-50:]):.4f}")
    codec.eval()
    return errors
