"""Training of the refiner: the renderer says what is missing in a decoded picture.

The renderer draws an avatar with and without a thing. The difference d is a template: a decoded picture shows the
fraction s of the thing, found by least squares, and (1 − s)·d is missing. The refiner learns this difference and not
true minus decoded picture, whose errors (of a hair's outline, of a colour) are far larger than a freckle and would fill
its few channels. Where a person has no freckles, they are expected with the fraction 0: what the decoder invented is
removed, and the regression learns the probability of freckles, given the identity embedding.

Earrings belong to the appearance, which neither condition holds. At the ears the target is the true minus the decoded
picture: what the latents show of an earring is drawn sharper.

Letters: M pictures, B of a batch, K things, S side of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.device import on_device, seed_stage
from gen_affect_lib.model.refiner import Refiner
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import fine_detail, to_tensor
from gen_affect_lib.training import loop
from gen_affect_lib.training.finishing import Generated
from gen_affect_lib.training.latent_pairs import Split

REFINER_RECIPE = Recipe(batch_size=16, optimizer="muon", learning_rate=5e-3, warmup_steps=50, weight_decay=0.01)
THINGS = ("freckles", "curls", "folds", "earrings")
OPTIONAL = ("freckles", "earrings")  # their templates are drawn for everybody, so that false ones are removed
VISIBLE = 0.02  # mean |difference| of the channels, in [-1, 1], from which a pixel belongs to a thing
LEAST = 2.0  # sum of d² over pixels and channels: things below it weigh less
ELSEWHERE = 0.05  # weight of a squared change of a channel where no thing is; about 1 / (sum of d² of freckles)


@dataclass(frozen=True)
class Templates:
    """The things of M pictures.

    Attributes:
        differences: picture with the thing minus picture without it, halved: int8 (M, K, S, S, 3).
        present: whether the avatar has it, bool (M, K).
    """

    differences: np.ndarray
    present: np.ndarray


def templates(avatar: Avatar, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of one avatar in `Templates`: int8 (K, S, S, 3) and bool (K,)."""
    identity, appearance = avatar.identity, avatar.appearance
    wearing = {
        "freckles": replace(avatar, identity=replace(identity, freckles="some")),
        "earrings": replace(avatar, appearance=replace(appearance, earrings="hoop")),
    }
    present = np.array([identity.freckles != "none", True, True, appearance.earrings != "none"])
    differences = np.zeros((len(THINGS), size, size, 3), np.int8)
    for k, thing in enumerate(THINGS):
        shown = avatar if present[k] else wearing[thing]
        whole, bare = shown.render(size).astype(np.int16), without(shown, thing, size).astype(np.int16)
        differences[k] = np.rint((whole - bare) / 2)
    return differences, present


def templates_of(cache: PairCache, pictures: np.ndarray) -> Templates:
    """The templates of some pictures (M,) of a cache of drawn pairs, indices into `flat_images`."""
    rows = [
        templates(cache.avatar(int(picture)), cache.config.size)
        for picture in tqdm(pictures, desc="Drawing small things", unit="img")
    ]
    return Templates(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))


def missing(decoded: Tensor, true: Tensor, differences: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """What is to be added to decoded pictures, and the weight of each pixel in the loss.

    Args:
        decoded, true: (B, 3, S, S) in [-1, 1].
        differences: d of each thing, (B, K, 3, S, S), in the same units.
        present: bool (B, K).

    Returns the target (B, 3, S, S) and the weights (B, 1, S, S). Σ weight · target² is 1 for a thing that is missing.
    """
    bare = true[:, None] - present[:, :, None, None, None] * differences  # without each thing: (B, K, 3, S, S)
    fine, shown_detail = fine_detail(differences), fine_detail(decoded[:, None] - bare)
    power = fine.square().sum(dim=(2, 3, 4))  # (B, K)
    shown = ((shown_detail * fine).sum(dim=(2, 3, 4)) / power.clamp_min(1e-6)).clamp(0, 1)
    fraction = present.to(true) - shown  # to be added
    earrings = THINGS.index("earrings")
    fraction[:, earrings] = 0
    target = (fraction[:, :, None, None, None] * differences).sum(dim=1)
    where = (differences.abs().mean(dim=2, keepdim=True) > VISIBLE).to(true)  # (B, K, 1, S, S)
    ears = where[:, earrings]
    target = (1 - ears) * target + ears * (true - decoded)
    energy = differences.square().sum(dim=(2, 3, 4)).clamp_min(LEAST)  # (B, K)
    weight = (where / energy[:, :, None, None, None]).sum(dim=1)  # (B, 1, S, S)
    return target, torch.where(weight > 0, weight, ELSEWHERE)


@dataclass(frozen=True)
class Examples:
    """What the refiner learns from: N latents, true or generated, with the condition of each.

    Attributes:
        latents: float16 (N, C, s, s).
        identity: float16 (N, V, E), of another picture of the person.
        expression: float32 (N, 48).
        pictures: (N,), the index of the true picture in `images` and `templates`.
        images: uint8 (M, S, S, 3).
        templates: of the M pictures.
    """

    latents: Tensor
    identity: Tensor
    expression: Tensor
    pictures: np.ndarray
    images: np.ndarray
    templates: Templates


def examples_of(cache: PairCache, split: Split, generated: Generated, count: int, seed: int = 0) -> Examples:
    """`count` pairs of a split with their true latents, and the generated latents of a `Generated`."""
    references, targets = split.pick(np.random.default_rng(seed), count)
    references, targets = (
        np.concatenate([references, generated.references]),
        np.concatenate([targets, generated.pictures]),
    )
    pictures, rows = np.unique(targets, return_inverse=True)  # (M,), (N,)
    true = torch.from_numpy(np.asarray(split.latents[targets[:count]], np.float16))
    return Examples(
        latents=torch.cat([true, generated.latents]),
        identity=torch.from_numpy(np.asarray(split.identities[references], np.float16)),
        expression=torch.from_numpy(split.expressions[targets]),
        pictures=rows,
        images=cache.flat_images[pictures],
        templates=templates_of(cache, pictures),
    )


def make_refiner(codec: LatentCodec, seed: int = 0) -> Refiner:
    """An untrained refiner for a codec, which changes no picture."""
    seed_stage(seed, "refiner")
    widths = tuple(codec.config["decoder_widths"])
    return on_device(Refiner(feature_widths=widths))


def fit_refiner(refiner: Refiner, codec: LatentCodec, examples: Examples, recipe: Recipe, save=None) -> list[loop.Row]:
    """Train the refiner on a codec that stays as it is; returns the history.

    A third of a batch are noised latents, as in the codec's training: generated latents are not exact either.
    """
    rng, device = np.random.default_rng(recipe.seed), codec.device
    torch.manual_seed(recipe.seed)
    bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        chosen = rng.integers(0, len(examples.latents), recipe.batch_size)
        pictures, rows = examples.pictures[chosen], torch.from_numpy(chosen)
        true = to_tensor(examples.images[pictures]).to(device)
        things = torch.from_numpy(examples.templates.differences[pictures]).to(device).movedim(-1, 2)  # (B, K, 3, S, S)
        differences = things.float() * (2 / 127.5)
        present = torch.from_numpy(examples.templates.present[pictures]).to(device)
        latents = examples.latents[rows].to(device, torch.float32)
        noised = len(chosen) // 3
        with torch.no_grad():
            latents[:noised] = codec.noised(latents[:noised])
            decoded, features = codec.decode_with_features(latents)
            target, weight = missing(decoded.float(), true, differences, present)
        added = refiner(features, examples.identity[rows].to(device).float(), examples.expression[rows].to(device))
        loss = ((added.float() - target).square() * weight).sum() / len(chosen)
        left = (target.square() * weight).sum().item() / len(chosen)
        return loss, {"explained": 1 - loss.item() / max(left, 1e-9)}

    codec.eval()
    # Around the optimizer too, for Muon's matrix products. A cache would keep the weights of the first step.
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
        return loop.fit(objective, refiner, recipe, "refiner", save=save)
