"""Training of the expression encoder on drawn faces, whose expression vectors are known.

Valence, arousal and the probabilities of words follow from the vectors in closed form (`encoders/affect.py`).

python -m gen_affect_lib train-encoder expression --out DIR --minutes M
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTForImageClassification

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.device import on_device, seed_everything
from gen_affect_lib.encoders.affect import posterior, word_affect
from gen_affect_lib.encoders.expression import UNITS, VECTOR, ExpressionEncoder, crop_faces, make_vit, split_outputs
from gen_affect_lib.profiles import get_profile
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.training import loop

RECIPE = Recipe(batch_size=32, betas=(0.9, 0.98), weight_decay=0.02)
SETTLED_ON = 6000  # training pictures for `settle`
PARTS = ("vector", "affect", "words")  # of the loss; affect is valence and arousal
WEIGHTS = (10.0, 1.0, 0.2)  # of the parts


def targets(vectors: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Float32 targets: expression vectors (B, 21), valence and arousal (B, 2), words and neutral (B, 136)."""
    words = posterior(vectors)
    affect = words[:, :-1] @ word_affect()
    own, affect, words = (torch.from_numpy(np.asarray(part, np.float32)) for part in (vectors, affect, words))
    return own, affect, words


def losses(outputs: Tensor, vectors: Tensor, affect: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The losses on vector, affect and words, each (), before they are weighted by WEIGHTS. outputs: (B, 159).

    For words it is the cross-entropy. For an error e of vector or affect it is |e| / 2 + e²: the square dominates
    early, when errors are large, and the absolute value later, when most units must be exactly 0.
    """
    read_vectors, read_affect, read_words = split_outputs(outputs)

    def error(difference: Tensor) -> Tensor:
        return (0.5 * difference.abs() + difference.square()).mean()

    cross_entropy = -(words * F.log_softmax(read_words, dim=1)).sum(dim=1).mean()
    return error(read_vectors - vectors), error(read_affect - affect), cross_entropy


def fit_expression(
    vit: ViTForImageClassification,
    images: np.ndarray,
    vectors: np.ndarray,
    recipe: Recipe,
    save: Callable[[], None] | None = None,
    save_every: float = 180.0,
) -> list[loop.Row]:
    """Train a ViT on pictures uint8 (M, S, S, 3) with expressions (M, 21); returns the history.

    `save` is called every `save_every` seconds, so that an interrupted training is not lost.
    """
    device, rng = next(vit.parameters()).device, np.random.default_rng(recipe.seed)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        chosen = np.sort(rng.integers(0, len(images), recipe.batch_size))
        pixels = crop_faces(images[chosen], vit.config).to(device)
        parts = losses(vit(pixels).logits, *(target.to(device) for target in targets(vectors[chosen])))
        vector, affect, words = (weight * part for weight, part in zip(WEIGHTS, parts))
        loss = vector + affect + words
        return loss, {name: part.item() for name, part in zip(PARTS, parts)}

    vit.train()
    history = loop.fit(objective, vit, recipe, "expression", save=save, save_every=save_every)
    vit.eval()
    return history


@torch.no_grad()
def settle(vit: ViTForImageClassification, images: np.ndarray, vectors: np.ndarray) -> None:
    """Scale and shift each of the 21 expression outputs for the lowest mean absolute error on these pictures.

    The network predicts small values for many units that are exactly 0. A grid search finds scale and shift; both are
    folded into the last linear layer, so the architecture does not change.

    Args:
        images: uint8 (M, S, S, 3).
        vectors: the true expression vectors, (M, 21).
    """
    device = next(vit.parameters()).device
    blocks = [crop_faces(images[start : start + 256], vit.config).to(device) for start in range(0, len(images), 256)]
    outputs = torch.cat([split_outputs(vit(block).logits)[0] for block in blocks])  # (M, 21)
    truth = torch.from_numpy(np.array(vectors)).to(device)
    lowest = torch.tensor([0.0] * UNITS + [-1.0] * (VECTOR - UNITS), device=device)
    least = torch.full((VECTOR,), torch.inf, device=device)
    scale, shift = torch.ones(VECTOR, device=device), torch.zeros(VECTOR, device=device)
    for s in np.linspace(0.9, 1.6, 15):
        for b in np.linspace(-0.25, 0.05, 31):
            error = ((outputs * s + b).clamp(max=1).maximum(lowest) - truth).abs().mean(dim=0)
            better = error < least
            least, scale, shift = error.minimum(least), scale.where(~better, float(s)), shift.where(~better, float(b))
    assert isinstance(vit.classifier, nn.Linear)
    vit.classifier.weight[:VECTOR] *= scale[:, None]
    vit.classifier.bias[:VECTOR] = vit.classifier.bias[:VECTOR] * scale + shift


@dataclass(frozen=True)
class ExpressionConfig:
    """The sizes of the ViT, see `make_vit`, and how it is trained."""

    recipe: Recipe
    hidden_size: int = 160
    num_hidden_layers: int = 4
    num_attention_heads: int = 4

    def network(self) -> ViTForImageClassification:
        return make_vit(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
        )


CONFIGS = {
    # The limit is in steps, not minutes, so that every machine trains equally far.
    "smoke": ExpressionConfig(replace(RECIPE, batch_size=16, learning_rate=2e-3, steps=1000), 32, 1, 2),
    "laptop": ExpressionConfig(replace(RECIPE, minutes=45.0)),
    "gpu": ExpressionConfig(replace(RECIPE, batch_size=128, minutes=10.0)),
}


def train_expression(
    out_dir: str | Path, minutes: float | None = None, profile: str | None = None
) -> ExpressionEncoder:
    """Draw a profile's people (seeds below JUDGES_SEED), train an encoder on them and save it with its history."""
    sizes = get_profile(profile).retrained()
    config = CONFIGS[sizes.name]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    seed_everything(config.recipe.seed)
    data = PairCache.open(sizes.pairs)
    encoder = ExpressionEncoder(on_device(config.network()))
    history = fit_expression(
        encoder.vit,
        data.flat_images,
        data.flat_vectors,
        config.recipe.limited_to(minutes=minutes),
        save=lambda: encoder.save_pretrained(out_dir),
    )
    some = np.linspace(0, len(data.flat_images) - 1, min(SETTLED_ON, len(data.flat_images))).astype(int)
    settle(encoder.vit, data.flat_images[some], data.flat_vectors[some])
    encoder.save_pretrained(out_dir)
    np.save(out_dir / "history.npy", np.array([[row[name] for name in PARTS] for row in history], np.float32))
    return encoder
