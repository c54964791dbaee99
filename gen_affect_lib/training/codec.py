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

Perceptual = Callable[[Tensor, Tensor], Tensor]  # restored and true pictures (B, 3, S, S) -> loss ()


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


def reconstruction_loss(
    restored: Tensor, images: Tensor, weight: Tensor, perceptual: Perceptual | None
) -> tuple[Tensor, Tensor]:
    """The loss of reconstructions (B, 3, S, S) in [-1, 1], and their mean squared error.

    `picture_loss`, plus `perceptual` (restored, images) -> () if there is one; see `PerceptualLoss`.
    """
    error = restored - images
    loss = picture_loss(error, images, weight)
    if perceptual is not None:
        loss = loss + perceptual(restored, images)
    return loss, error.detach().square().mean()


def fit_codec(
    codec: LatentCodec, images: np.ndarray, recipe: Recipe, perceptual: Perceptual | None = None
) -> list[loop.Row]:
    """Train the autoencoder on images uint8 (M, S, S, 3), then calibrate it; returns the history.

    The codec adds noise to the latents itself, see `LatentCodec.noised`. `perceptual`: see `reconstruction_loss`.
    """

    def loss(batch: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return reconstruction_loss(codec(batch), batch, weight, perceptual)

    return fit_whole(codec, loss, images, recipe, "autoencoder")


def fit_decoder(
    codec: LatentCodec, images: np.ndarray, recipe: Recipe, perceptual: Perceptual | None = None
) -> list[loop.Row]:
    """Train the decoder alone; returns the history. Arguments: see `fit_codec`.

    The latents do not change, so generators trained on them remain usable.
    """

    def loss(batch: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            codec.normalize.eval()  # its statistics belong to the latents
            latents = codec.noised(codec.encode(batch))
        return reconstruction_loss(codec.decode(latents), batch, weight, perceptual)

    return fit_pictures(codec, codec.decoder, loss, images, recipe, "decoder")


def fit_whole(
    codec: LatentCodec,
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    images: np.ndarray,
    recipe: Recipe,
    name: str,
) -> list[loop.Row]:
    """Train all of the codec, then calibrate it on 512 of the images; returns the history. See `fit_pictures`."""
    history = fit_pictures(codec, codec, loss_of, images, recipe, name)
    some = np.sort(np.random.default_rng(recipe.seed).integers(0, len(images), 512))
    codec.calibrate(to_tensor(images[some]).to(codec.device))
    return history


def fit_pictures(
    codec: LatentCodec,
    part: nn.Module,
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    images: np.ndarray,
    recipe: Recipe,
    name: str,
) -> list[loop.Row]:
    """Train a part of the codec on images uint8 (M, S, S, 3); returns the history.

    loss_of: (batch (B, 3, S, S), weight of each pixel (1, 1, S, S)) -> loss, mean squared error.
    """
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
