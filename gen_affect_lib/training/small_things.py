"""Training the decoder to draw small things that the latents encode: curls, folds of the skin, earrings.

They cover few pixels, so a mean over all pixels hardly counts them, and the codec's decoder leaves them out or draws
them faintly, although the latents encode hair style and expression. The renderer says where they are: it draws the same
avatar with and without a thing, and the difference of the two pictures weights a loss.

Only the decoder is trained, so the generator of the latents remains valid. Measured on the shipped codec after 400
steps of 16 pictures, in reconstructions of 80 validation people: curls with at least half of their drawn contrast 0.08
to 0.19, earrings right on both ears 0.38 to 0.63, strong edges 0.94 to 0.92 of the true ones, folds 0.31 to 0.27. The
shipped weights are without it.

Letters: B pictures of a batch, M pictures, S their side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.avatars.regions import face_weight
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import loop
from gen_affect_lib.training.codec import picture_loss
from gen_affect_lib.training.finishing import Generated

THINGS = ("curls", "folds", "earrings")
LEAST = 3e-4  # mean of |difference| over the picture, in [0, 1]: things that change less than this weigh less
TYPICAL = 0.3  # the error, in [-1, 1], where a thing is missing


def thing_weight(avatar: Avatar, size: int) -> np.ndarray:
    """The weight of each pixel in `thing_loss`: float32 (size, size).

    Each thing that the avatar has gets a total weight of 1, or less if it is hardly visible. It is spread like the
    difference of the pictures with and without the thing, widened by a pixel. So large and small things count alike.
    """
    full, total = avatar.render(size).astype(np.float32), np.zeros((size, size), np.float32)
    for thing in THINGS:
        where = np.abs(full - without(avatar, thing, size)).max(axis=2) / 255  # (S, S)
        where = F.max_pool2d(torch.from_numpy(where)[None], 3, stride=1, padding=1)[0].numpy()
        total += where / max(float(where.sum()), LEAST * size * size)
    return total


def thing_loss(error: Tensor, weight: Tensor) -> Tensor:
    """Squared error of pixels and of differences of neighbouring pixels where small things are: ().

    Squared, since the L1 loss has its minimum at the median: where a line is a pixel wide and its place is not certain,
    the median is the picture without it. It is divided by TYPICAL, so that at this error it equals the L1 loss.

    Args:
        error: reconstruction − pictures, (B, 3, S, S).
        weight: of each pixel, (B, 1, S, S), see `thing_weight`.
    """
    across = (error[..., :, 1:] - error[..., :, :-1]).square() * weight[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).square() * weight[..., 1:, :]
    total = (error.square() * weight).sum() + across.sum() + down.sum()
    return total / (TYPICAL * len(error) * error.shape[1] * len(THINGS))


def draw_small_things(
    codec: LatentCodec,
    generated: Generated,
    images: np.ndarray,
    weights: np.ndarray,
    recipe: Recipe,
    things_weight: float = 2.0,
    save: Callable[[], None] | None = None,
) -> list[loop.Row]:
    """Train the decoder to draw small things, and to change nothing else; returns the history.

    The target is the true picture where small things are, and elsewhere what the decoder draws at first. So nothing
    that it has learned against a discriminator is averaged away. The loss is `picture_loss` plus `things_weight` times
    `thing_loss`. Half of a batch are generated latents, a quarter are true latents, a quarter true latents with noise.

    Args:
        generated: see `finishing.generated_latents`.
        images: the true pictures, uint8 (N, S, S, 3), that `generated.pictures` indexes.
        weights: float16 (N, S, S), see `thing_weight`.
        save: called every few minutes.
    """
    rng, device, size = np.random.default_rng(recipe.seed), codec.device, images.shape[1]
    torch.manual_seed(recipe.seed)
    weight, first = face_weight(size).to(device), copy.deepcopy(codec.decoder).requires_grad_(False)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        chosen = rng.integers(0, len(generated.latents), recipe.batch_size)
        pictures = generated.pictures[chosen]
        true = to_tensor(images[pictures]).to(device, memory_format=torch.channels_last)
        places = torch.from_numpy(weights[pictures].astype(np.float32))[:, None].to(device)
        latents = generated.latents[torch.from_numpy(chosen)].to(device, torch.float32)
        half, quarter = len(chosen) // 2, len(chosen) // 4
        with torch.no_grad():
            latents[:half] = codec.encode(true[:half]).float()
            latents[:quarter] = codec.noised(latents[:quarter])
            drawn = first(latents).float()
            inside = (places * (size * size / 8)).clamp_max(1)  # (B, 1, S, S): 1 where a thing is
            target = inside * true + (1 - inside) * drawn
        restored = codec.decode(latents).float()
        base, things = picture_loss(restored - target, true, weight), thing_loss(restored - true, places)
        return base + things_weight * things, {"pictures": base.item(), "things": things.item()}

    codec.eval()  # the statistics of the normalisation belong to the latents
    bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    # Around the optimizer too, for Muon's matrix products. A cache would keep the weights of the first step.
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
        return loop.fit(objective, codec.decoder, recipe, "small things", save=save)
