"""Training of the identity encoder, on both views of each person.

The loss is the additive angular margin loss (ArcFace) plus an auxiliary loss: a linear layer, discarded after training,
predicts the person's factors from the embedding. The margin loss uses only the labels of people; the factors also
describe how people differ. This should shorten training, but was not compared with training without it. For
photographs, whose factors are unknown, set `hint` to 0. After training, expression and appearance are erased from the
embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.avatars import Appearance, Identity
from gen_affect_lib.avatars.factors import Hue
from gen_affect_lib.avatars.splits import TRAIN_SEED
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.identity import ArcFaceLoss, ArcFaceNet, embed, erase
from gen_affect_lib.encoders.onnx_files import round_weights
from gen_affect_lib.encoders.pack import save_recognizer
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import loop, optim
from gen_affect_lib.training.identity_data import IdentityPictures

RECIPE = Recipe(batch_size=48, optimizer="muon", learning_rate=2e-3, warmup_steps=50, betas=(0.9, 0.99), clip_norm=5.0)


def fit_identity(
    net: ArcFaceNet,
    data: IdentityPictures,
    recipe: Recipe,
    *,
    margin: float = 0.4,
    scale: float = 32.0,
    hint: float = 4.0,
) -> list[loop.Row]:
    """Train the encoder, then erase nuisance factors from its embedding; returns the history.

    Args:
        margin, scale: see `ArcFaceLoss`. The margin is 0 for the first 15 % of the training, then rises linearly to its
            full value at 60 %.
        hint: weight of the auxiliary loss on the person's factors.
    """
    seed_everything(recipe.seed)
    device = pick_device()
    people, pictures, views = data.views.shape[:3]
    factors = torch.stack([torch.from_numpy(Identity.sample(int(who)).to_vector()) for who in data.seeds]).to(device)
    factors = (factors - factors.mean(dim=0)) / factors.std(dim=0).clamp_min(0.1)
    margin_loss = ArcFaceLoss(people, net.embed.out_features, margin, scale).to(device)
    factor_map = nn.Linear(net.embed.out_features, factors.shape[1]).to(device)
    net.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)
    net.train()
    rng = np.random.default_rng(recipe.seed)
    flat = data.views.reshape(-1, *data.views.shape[3:])  # (N, K, V, 112, 112, 3) -> (N * K * V, 112, 112, 3)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        chosen = np.sort(rng.integers(0, len(flat), recipe.batch_size))
        person = torch.from_numpy(chosen // (pictures * views)).to(device)
        embeddings = net(to_tensor(flat[chosen]).to(device, memory_format=torch.channels_last))
        warmth = min(1.0, max(0.0, (progress - 0.15) / 0.45))
        loss = margin_loss(embeddings, person, warmth)
        if hint:
            loss = loss + hint * F.mse_loss(factor_map(embeddings), factors[person])
        return loss, {"warmth": warmth}

    # Muon for the convolutions only. On the large matrices it would double the time of a step. Also, a person's class
    # weights are the target once in thousands of pictures; AdamW, which normalises each weight, suits this better.
    large = [*net.embed.parameters(), *margin_loss.parameters(), *factor_map.parameters()]
    small = {name: weight for name, weight in net.named_parameters() if not name.startswith("embed.")}
    large_adamw = torch.optim.AdamW(
        large, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    optimizers = [*optim.make_optimizers(small, recipe), large_adamw]
    history = loop.fit(objective, net, recipe, "identity", optimizers)
    net.eval().cpu()

    chosen = np.sort(rng.choice(len(flat), min(len(flat), 24576), replace=False))
    nuisance = harmonics(data.nuisance.reshape(people * pictures, -1)[chosen // views])  # (N, K, M) -> (N * K, M)
    erase(net, embed(net, flat[chosen]), torch.from_numpy(nuisance), torch.from_numpy(chosen % views))
    return history


def harmonics(nuisance: np.ndarray, highest: int = 6) -> np.ndarray:
    """Nuisance factors (M, K) with cos kθ and sin kθ appended, k from 2 to `highest`, for each of H hue angles θ.

    The factors contain only cos θ and sin θ. If only these are erased, a linear map may still tell which eighth of the
    circle a hue lies in, from the higher harmonics. Returns float32 (M, K + 2 (highest - 1) H).
    """
    parts, start = [nuisance], nuisance.shape[1] - Appearance.VECTOR_SIZE
    for kind in Appearance.KINDS:
        if isinstance(kind, Hue):
            angle = np.arctan2(nuisance[:, start + 1], nuisance[:, start])
            parts += [part[:, None] for k in range(2, highest + 1) for part in (np.cos(k * angle), np.sin(k * angle))]
        start += kind.size
    return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class IdentityConfig:
    """The number of people and of pictures of each, the sizes of the network, see `ArcFaceNet`, and its training."""

    people: int
    pictures: int
    recipe: Recipe
    widths: tuple[int, int, int] = (32, 64, 128)
    blocks: tuple[int, int, int] = (0, 1, 1)
    squeeze: int = 32
    embedding: int = 512

    def network(self) -> ArcFaceNet:
        return ArcFaceNet(widths=self.widths, blocks=self.blocks, squeeze=self.squeeze, embedding=self.embedding)

    def draw(self) -> IdentityPictures:
        """The pictures, from the cache if they have been drawn before."""
        return IdentityPictures.cached(TRAIN_SEED, self.people, self.pictures)


CONFIGS = {
    "smoke": IdentityConfig(24, 4, replace(RECIPE, minutes=0.05), widths=(8, 16, 32), squeeze=8),
    "laptop": IdentityConfig(7000, 8, replace(RECIPE, minutes=35.0)),
    "gpu": IdentityConfig(20000, 12, replace(RECIPE, minutes=20.0), widths=(64, 128, 256), blocks=(1, 2, 2)),
}


def train_identity(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> ArcFaceNet:
    """Draw a profile's people, train an encoder on them, and write `arcface.onnx` and `config.json`."""
    config = CONFIGS[profile]
    data, net = config.draw(), config.network()
    fit_identity(net, data, config.recipe.limited_to(minutes=minutes))
    round_weights(net)
    save_recognizer(net, Path(out_dir))
    return net
