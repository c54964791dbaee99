"""The codec's training: the whole autoencoder, or its decoder alone while the latents stay as they are."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.avatars.regions import face_weight
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import optim


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
    codec: LatentCodec,
    images: np.ndarray,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 4e-3,
    kl_weight: float = 2e-4,
    seed: int = 0,
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
    codec: LatentCodec,
    images: np.ndarray,
    look: Callable[[Tensor], Tensor] | None = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    look_weight: float = 1.0,
    seed: int = 0,
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
