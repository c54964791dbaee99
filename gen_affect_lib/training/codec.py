"""Training of the autoencoder, and of its decoder alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gen_affect_lib.avatars.regions import face_weight
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import loop

CODEC_RECIPE = Recipe(
    batch_size=32,
    optimizer="muon",
    learning_rate=4e-3,
    final_learning_rate=0.02,
    weight_decay=0.0,
    betas=(0.9, 0.99),
)
DECODER_RECIPE = replace(CODEC_RECIPE, learning_rate=2e-3)


def picture_loss(error: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """L1 loss on pixels and on differences of neighbouring pixels (edges): ().

    Weights are divided by 0.25 + brightness, because perceived contrast is relative to brightness (Weber's law).
    Without this, brows and lips on dark skin are lost first.

    Args:
        error: reconstruction − images, (B, 3, S, S).
        images: (B, 3, S, S) in [-1, 1].
        weight: of each pixel, (1, 1, S, S), see `face_weight`.
    """
    brightness = images.mean(dim=1, keepdim=True) / 2 + 0.5  # (B, 1, S, S) in [0, 1]
    weight = weight / (0.25 + brightness)
    weight = weight / weight.mean()
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * weight[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    return (error.abs() * weight).mean() + across.mean() + down.mean()


def codec_loss(codec: LatentCodec, images: Tensor, weight: Tensor, kl_weight: float) -> tuple[Tensor, Tensor]:
    """The loss of the autoencoder, and the mean squared error of its reconstruction.

    `picture_loss` plus `kl_weight` times the KL divergence of the latents from a unit normal (Kingma & Welling 2014),
    a mean over latents. images: (B, 3, S, S) in [-1, 1].
    """
    mean, log_variance = codec.posterior(images)
    latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    error = codec.decoder(latents) - images
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return picture_loss(error, images, weight) + kl_weight * kl, error.detach().square().mean()


def decoder_loss(
    codec: LatentCodec,
    images: Tensor,
    weight: Tensor,
    features: Callable[[Tensor], Tensor] | None,
    feature_weight: float,
) -> tuple[Tensor, Tensor]:
    """The loss of the decoder alone, and the mean squared error of its reconstruction.

    `picture_loss` plus `feature_weight` times a perceptual loss (Johnson et al. 2016): the mean squared difference of
    `features`, (B, 3, S, S) -> (B, F), between reconstruction and images; None: without it. Details of two pixels, such
    as an eyelid, have little effect on a mean over pixels and a large one on the features of a face encoder.
    """
    with torch.no_grad():
        mean, log_variance = codec.posterior(images)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    restored = codec.decoder(latents)
    loss = picture_loss(restored - images, images, weight)
    if features is not None:
        with torch.no_grad():
            target = features(images)
        loss = loss + feature_weight * (features(restored) - target).square().mean()
    return loss, (restored - images).detach().square().mean()


def fit_codec(codec: LatentCodec, images: np.ndarray, recipe: Recipe, kl_weight: float = 2e-4) -> list[loop.Row]:
    """Train the autoencoder on images uint8 (M, S, S, 3), then normalise its latents; returns the history."""

    def loss(batch: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return codec_loss(codec, batch, weight, kl_weight)

    history = _fit(codec, codec, loss, images, recipe, "autoencoder")
    some = np.sort(np.random.default_rng(recipe.seed).integers(0, len(images), 512))
    codec.calibrate(to_tensor(images[some]).to(codec.device))
    return history


def fit_decoder(
    codec: LatentCodec,
    images: np.ndarray,
    features: Callable[[Tensor], Tensor] | None,
    recipe: Recipe,
    feature_weight: float = 1.0,
) -> list[loop.Row]:
    """Train the decoder alone; returns the history.

    The latents do not change, so generators trained on them remain usable. Arguments: see `decoder_loss`.
    """

    def loss(batch: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return decoder_loss(codec, batch, weight, features, feature_weight)

    return _fit(codec, codec.decoder, loss, images, recipe, "decoder")


def _fit(
    codec: LatentCodec,
    part: nn.Module,
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    images: np.ndarray,
    recipe: Recipe,
    name: str,
) -> list[loop.Row]:
    """Train a part of the codec. loss_of: (batch, weight of each pixel) -> loss, mean squared error."""
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    weight = face_weight(images.shape[1]).to(codec.device)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        chosen = np.sort(rng.integers(0, len(images), recipe.batch_size))
        batch = to_tensor(images[chosen]).to(codec.device, memory_format=torch.channels_last)
        loss, error = loss_of(batch, weight)
        return loss, {"mse": error.item()}

    codec.train()
    history = loop.fit(objective, part, recipe, name)
    codec.eval()
    return history
