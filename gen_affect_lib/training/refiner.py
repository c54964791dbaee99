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

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.device import has_bfloat16, on_device, seed_stage
from gen_affect_lib.model.refiner import Refiner
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import fine_detail, to_tensor
from gen_affect_lib.training import loop
from gen_affect_lib.training.finishing import Generated
from gen_affect_lib.training.latent_pairs import Split

REFINER_RECIPE = Recipe(batch_size=16, optimizer="muon", learning_rate=5e-3, warmup_steps=50, weight_decay=0.01)
THINGS = ("freckles", "curls", "folds", "earrings")
OPTIONAL = ("freckles", "earrings")  # drawn for everybody, so that false ones are removed
VISIBLE = 0.02  # mean |difference| of the channels, in [-1, 1], from which a pixel belongs to a thing
LEAST = 2.0  # sum of d² over pixels and channels: things below it weigh less
MANY = 512  # batch size of the loss of presence
ELSEWHERE = 0.05  # weight of a squared change of a channel where no thing is; about 1 / (sum of d² of freckles)


def templates(avatar: Avatar, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each thing: picture with it minus picture without it, halved, and whether the avatar has it.

    Returns int8 (K, S, S, 3) and bool (K,). If the avatar lacks one of `OPTIONAL`, the difference is drawn with it.
    """
    identity, appearance = avatar.identity, avatar.appearance
    wearing = {
        "freckles": replace(avatar, identity=replace(identity, freckles="some")),
        "earrings": replace(avatar, appearance=replace(appearance, earrings="hoop")),
    }
    present = np.array([identity.freckles != "none", True, True, appearance.earrings != "none"])
    differences, picture = np.zeros((len(THINGS), size, size, 3), np.int8), avatar.render(size)
    for k, thing in enumerate(THINGS):
        pair = (picture, without(avatar, thing, size)) if present[k] else (wearing[thing].render(size), picture)
        whole, bare = (one.astype(np.int16) for one in pair)
        differences[k] = np.rint((whole - bare) / 2)
    return differences, present


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
    """What the refiner learns from, for N latents, true or generated.

    Attributes:
        features: of the decoder, bfloat16, see `LatentCodec.decode_with_features`. They are computed once, since the
            decoder does not learn and its forward pass costs more than a step of the refiner.
        target, weight: see `missing`, float16 (N, 3, S, S) and (N, 1, S, S).
        identity: float32 (N, V, E), of another picture of the person.
        expression: float32 (N, 48).
        visible: whether each thing is visibly there, float32 (N, K), 0 or 1.
    """

    features: list[Tensor]
    target: Tensor
    weight: Tensor
    identity: Tensor
    expression: Tensor
    visible: Tensor


def examples_of(
    codec: LatentCodec, cache: PairCache, split: Split, generated: Generated, count: int, seed: int = 0
) -> Examples:
    """`count` pairs of a split with their true latents, a third of them noised, and all latents of a `Generated`."""
    references, targets = split.pick(np.random.default_rng(seed), count)
    true = torch.from_numpy(np.asarray(split.latents[targets], np.float32))
    seed_stage(seed, "refiner's examples")
    latents = torch.cat([codec.noised(true[: count // 3]), true[count // 3 :], generated.latents.float()])
    references = np.concatenate([references, generated.references])
    targets = np.concatenate([targets, generated.pictures])
    identity = torch.from_numpy(np.asarray(split.identities[references], np.float32))
    expression = torch.from_numpy(split.expressions[targets])
    return decoded_examples(codec, latents, identity, expression, cache, targets)


@torch.no_grad()
def decoded_examples(
    codec: LatentCodec, latents: Tensor, identity: Tensor, expression: Tensor, cache: PairCache, pictures: np.ndarray
) -> Examples:
    """Decode latents (N, C, s, s) of the pictures (N,) of a cache, indices into `flat_images`, and compare."""
    codec.eval()
    features: list[list[Tensor]] = [[] for _ in codec.last_of_side]
    targets, weights, visible = [], [], []
    for rows in tqdm(torch.arange(len(latents)).split(32), desc="Drawing small things", unit="batch"):
        made = [templates(cache.avatar(int(picture)), cache.config.size) for picture in pictures[rows.numpy()]]
        # (b, K, S, S, 3) -> (b, K, 3, S, S)
        halved = torch.from_numpy(np.stack([one[0] for one in made])).to(codec.device).movedim(-1, 2)
        differences = halved.float() * (2 / 127.5)
        present = torch.from_numpy(np.stack([one[1] for one in made])).to(codec.device)
        true = to_tensor(cache.flat_images[pictures[rows.numpy()]]).to(codec.device)
        with torch.autocast(codec.device.type, torch.bfloat16, enabled=has_bfloat16(codec.device)):
            decoded, found = codec.decode_with_features(latents[rows].to(codec.device))
        target, weight = missing(decoded.float(), true, differences, present)
        for side, feature in zip(features, found):
            side.append(feature.bfloat16().cpu())
        targets.append(target.half().cpu())
        weights.append(weight.half().cpu())
        visible.append((present & (differences.square().sum(dim=(2, 3, 4)) > LEAST)).float().cpu())
    return Examples(
        [torch.cat(side) for side in features],
        torch.cat(targets),
        torch.cat(weights),
        identity,
        expression,
        torch.cat(visible),
    )


def make_refiner(codec: LatentCodec, seed: int = 0) -> Refiner:
    """An untrained refiner for a codec, which changes no picture."""
    seed_stage(seed, "refiner")
    return on_device(Refiner(feature_widths=tuple(codec.config["decoder_widths"])))


def fit_refiner(
    refiner: Refiner, examples: Examples, recipe: Recipe, save: Callable[[], None] | None = None
) -> list[loop.Row]:
    """Train the refiner; returns the history, with "explained": 1 − loss / loss of a refiner that adds nothing.

    The layer that tells from the identity which things are there has a loss of its own, the cross-entropy of `visible`.
    It reads many more examples a step than the rest: one picture in four has freckles, and the layer has to find them
    among all that an identity embedding tells.

    Args:
        save: called every few minutes.
    """
    rng, device = np.random.default_rng(recipe.seed), refiner.device
    identity, expression = examples.identity.to(device), examples.expression.to(device)
    visible = examples.visible.to(device)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        rows = torch.from_numpy(rng.integers(0, len(examples.target), recipe.batch_size))
        target, weight = examples.target[rows].to(device).float(), examples.weight[rows].to(device).float()
        features = [side[rows].to(device) for side in examples.features]
        added = refiner(features, identity[rows], expression[rows]).float()
        loss = ((added - target).square() * weight).sum() / len(rows)
        nothing = (target.square() * weight).sum().item() / len(rows)
        many = torch.from_numpy(rng.integers(0, len(identity), MANY))
        logits = refiner.presence_logits(identity[many]).float()
        return loss + F.binary_cross_entropy_with_logits(logits, visible[many]), {
            "explained": 1 - loss.item() / max(nothing, 1e-9)
        }

    # Around the optimizer too, for Muon's matrix products. A cache would keep the weights of the first step.
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device), cache_enabled=False):
        history = loop.fit(objective, refiner, recipe, "refiner", save=save)
    refiner.eval()
    return history
