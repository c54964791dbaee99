"""Training of the judges, on drawings of people on whom neither the encoders nor the generator are trained.

The identity judge gets two pictures of each person, with different expressions and appearances. Its loss is contrastive
(SimCLR, Chen et al. 2020), plus a loss on the person's factors. The expression judge predicts action units, words and
appearance of one picture. Half of the pictures are blurred and noisy, since generated pictures are softer than
drawings.

Letters: B pictures of a batch, K numbers of a group of factors, D numbers of an embedding, S side of a picture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen_affect_lib.avatars import Appearance, Expression, Identity
from gen_affect_lib.avatars.emotions import GROUPS, membership
from gen_affect_lib.avatars.factors import Choice
from gen_affect_lib.avatars.splits import JUDGES_SEED
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.judges.data import Drawings
from gen_affect_lib.evaluation.judges.networks import ExpressionJudge, IdentityJudge
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import loop

RECIPE = Recipe(batch_size=64, optimizer="muon", learning_rate=2e-3, warmup_steps=50, betas=(0.9, 0.99), seed=77)
FURTHER_LEARNING_RATE = 1.2e-3  # for training a trained judge further
# Earrings are two or three pixels wide, and a tilt must be exact to a degree: with equal weights they are learned last.
FINE = tuple(4.0 if name in ("earrings", "head_tilt") else 1.0 for name in Appearance.NAMES)


def softened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1], each with probability 0.5 blurred and noisy, by a random strength."""
    count, device = len(images), images.device
    row = torch.tensor([1.0, 4, 6, 4, 1], device=device) / 16
    kernel = (row[:, None] * row)[None, None].expand(3, 1, 5, 5)
    blurred = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    chosen, blur, noise = torch.rand(3, count, 1, 1, 1, generator=generator).to(device)
    chosen = (chosen < 0.5).float()
    grain = torch.randn(images.shape, generator=generator).to(device)
    return images + chosen * (blur * (blurred - images) + 0.08 * noise * grain)


# --- the losses -------------------------------------------------------------------------------------------------------


def factor_loss(kinds, predicted: Tensor, truth: Tensor, weights: tuple[float, ...] | None = None) -> Tensor:
    """The mean loss on a group of factors (B, K).

    Cross-entropy for choices; for numbers the absolute error as a fraction of their range. `weights`: one for each
    factor; None weights all equally.
    """
    losses, start = [], 0
    for kind in kinds:
        part, target = predicted[:, start : start + kind.size], truth[:, start : start + kind.size]
        if isinstance(kind, Choice):
            losses.append(0.4 * F.cross_entropy(part, target.argmax(1)))
        else:
            losses.append(2 * (part - target).abs().mean() / (getattr(kind, "high", 1) - getattr(kind, "low", -1)))
        start += kind.size
    losses = torch.stack(losses)
    return (losses if weights is None else losses * losses.new_tensor(weights)).mean()


def contrastive_loss(embedding: Tensor, temperature: float = 0.1) -> Tensor:
    """The NT-Xent loss of embeddings (2 B, D) of unit length, where i and i + B show the same person."""
    similarity = embedding @ embedding.T / temperature  # (2 B, 2 B)
    similarity.fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(embedding), device=embedding.device).roll(len(embedding) // 2))


def identity_loss(
    judge: IdentityJudge, data: Drawings, rng: np.random.Generator, batch_size: int, soften: Callable[[Tensor], Tensor]
) -> Tensor:
    """The loss on two pictures each of random people. `soften`: (B, 3, S, S) -> (B, 3, S, S), see `softened`."""
    people = rng.choice(len(data.images), min(batch_size // 2, len(data.images)), replace=False)
    views = np.stack([rng.permutation(data.images.shape[1])[:2] for _ in people], axis=1)  # (2, people)
    pixels = np.concatenate([data.images[people, view] for view in views])
    embedding, factors = judge(soften(to_tensor(pixels)))
    truth = torch.from_numpy(np.tile(data.identity[people], (2, 1))).to(factors.device)
    return 0.3 * contrastive_loss(embedding) + 5 * factor_loss(Identity.KINDS, factors, truth)


def expression_loss(
    judge: ExpressionJudge,
    data: Drawings,
    rng: np.random.Generator,
    batch_size: int,
    soften: Callable[[Tensor], Tensor],
) -> Tensor:
    """The loss on random pictures; the loss on words, only on pictures that show one. soften: as in `identity_loss`."""
    place = (rng.integers(0, len(data.images), batch_size), rng.integers(0, data.images.shape[1], batch_size))
    factors, words, appearance = judge(soften(to_tensor(data.images[place])))
    truth, dressed, word = (
        torch.from_numpy(part[place]).to(factors.device) for part in (data.expression, data.appearance, data.word)
    )
    units = factor_loss(Expression.KINDS, factors, truth)
    named = word >= 0
    logits, word = words[named].log_softmax(1), word[named]
    member = torch.from_numpy(membership(len(GROUPS))).to(factors.device)
    in_group = torch.logsumexp(logits[:, None] + member.T.log(), dim=2)  # (named, 25)
    words_loss = F.nll_loss(logits, word) + F.nll_loss(in_group, member.argmax(1)[word]) if len(word) else 0.0
    return 10 * units + 0.1 * words_loss + 10 * factor_loss(Appearance.KINDS, appearance, dressed, FINE)


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JudgeConfig:
    """The number of people to train on, and the training settings."""

    people: int
    recipe: Recipe


CONFIGS = {
    "smoke": JudgeConfig(64, replace(RECIPE, minutes=0.05)),
    "laptop": JudgeConfig(16_000, replace(RECIPE, minutes=60.0)),
    "gpu": JudgeConfig(100_000, replace(RECIPE, minutes=10.0)),
}


def train_identity_judge(
    out_dir: str | Path,
    minutes: float | None = None,
    profile: str = "laptop",
    start: IdentityJudge | ExpressionJudge | None = None,
) -> IdentityJudge:
    """Train the identity judge and save it in `out_dir`, in half precision. Arguments: see `_train`."""
    return _train(IdentityJudge, identity_loss, out_dir, minutes, profile, start)


def train_expression_judge(
    out_dir: str | Path,
    minutes: float | None = None,
    profile: str = "laptop",
    start: IdentityJudge | ExpressionJudge | None = None,
) -> ExpressionJudge:
    """Train the expression judge and save it in `out_dir`, in half precision. Arguments: see `_train`."""
    return _train(ExpressionJudge, expression_loss, out_dir, minutes, profile, start)


def _train(kind, loss_of, out_dir, minutes, profile, start):
    """Train a judge.

    `start`: a trained judge to continue from; if it is of the other kind, only its trunk is used. None: random weights.
    Raises UserError for a profile that does not exist and for minutes that are not above 0.
    """
    if profile not in CONFIGS:
        raise UserError(f"profile {profile!r} does not exist: give one of {', '.join(CONFIGS)}")
    config, further = CONFIGS[profile], isinstance(start, kind)
    recipe = config.recipe.limited_to(minutes=minutes)
    if further:
        recipe = replace(recipe, learning_rate=FURTHER_LEARNING_RATE)
    seed_everything(recipe.seed)
    data, generator = Drawings.cached(JUDGES_SEED, config.people), torch.Generator().manual_seed(recipe.seed)
    judge = kind()
    rng = np.random.default_rng([recipe.seed, further])  # further training draws other batches
    if start is not None:
        weights = start.state_dict()
        if not further:
            weights = {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}
        judge.load_state_dict(weights, strict=further)
    judge = judge.to(pick_device()).train()

    def soften(images: Tensor) -> Tensor:
        return softened(images.to(judge.device, memory_format=torch.channels_last), generator)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        return loss_of(judge, data, rng, recipe.batch_size, soften), {}

    loop.fit(objective, judge, recipe, f"{kind.NAME} judge", save=lambda: save(judge, out_dir))
    save(judge, out_dir)
    return judge.eval()


def save(judge: IdentityJudge | ExpressionJudge, out_dir: str | Path) -> None:
    """Write config.json and the weights in half precision, which `load` reads."""
    try:
        copy.deepcopy(judge).half().save_pretrained(Path(out_dir))
    except OSError as error:
        raise UserError(f"cannot write to {out_dir} ({error.strerror or error}): choose another folder") from error
