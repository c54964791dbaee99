"""How the judges learn: from drawings of people whom neither the encoders nor the model ever see.

The identity judge sees two pictures of each person, with different expressions and appearances, and is asked which of
the batch belong together (the contrastive loss of SimCLR, Chen et al. 2020); beside it, it names the person's factors.
The expression judge reads action units, words and appearance off one picture. Half of the pictures are blurred and
noisy, because what a model draws is softer than a drawing.

Letters: B pictures of a batch, K numbers of a group of factors, D numbers of an embedding, S side of a picture.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.avatars import Appearance, Expression, Identity
from gen_affect_lib.avatars.emotions import GROUPS, membership
from gen_affect_lib.avatars.factors import Choice
from gen_affect_lib.avatars.splits import JUDGES_SEED
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.judges.data import Drawings
from gen_affect_lib.evaluation.judges.networks import ExpressionJudge, IdentityJudge
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import optim

PEOPLE = {"smoke": 64, "laptop": 16_000, "gpu": 100_000}
MINUTES = {"smoke": 0.05, "laptop": 60.0, "gpu": 10.0}
SEED = 77
# Earrings are two or three pixels wide, and a tilt has to be read to a degree: left alone they are learned last.
FINE = tuple(4.0 if name in ("earrings", "head_tilt") else 1.0 for name in Appearance.NAMES)


def softened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures (B, 3, S, S) as they are, the others more or less blurred and with a little noise."""
    count, device = len(images), images.device
    row = torch.tensor([1.0, 4, 6, 4, 1], device=device) / 16
    kernel = (row[:, None] * row)[None, None].expand(3, 1, 5, 5)
    blurred = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    chosen, blur, noise = torch.rand(3, count, 1, 1, 1, generator=generator).to(device)
    chosen = (chosen < 0.5).float()
    grain = torch.randn(images.shape, generator=generator).to(device)
    return images + chosen * (blur * (blurred - images) + 0.08 * noise * grain)


# --- the losses -------------------------------------------------------------------------------------------------------


def factor_loss(kinds, said: Tensor, truth: Tensor, weights: tuple[float, ...] | None = None) -> Tensor:
    """How wrong a reading (B, K) of a group of factors is: cross-entropy of choices, distance of numbers in ranges.

    `weights`: how much each factor counts; None counts all alike.
    """
    losses, start = [], 0
    for kind in kinds:
        part, right = said[:, start : start + kind.size], truth[:, start : start + kind.size]
        if isinstance(kind, Choice):
            losses.append(0.4 * F.cross_entropy(part, right.argmax(1)))
        else:
            losses.append(2 * (part - right).abs().mean() / (getattr(kind, "high", 1) - getattr(kind, "low", -1)))
        start += kind.size
    losses = torch.stack(losses)
    return (losses if weights is None else losses * losses.new_tensor(weights)).mean()


def contrastive_loss(embedding: Tensor, temperature: float = 0.1) -> Tensor:
    """embedding (2 B, D), unit length, of which entries i and i + B show one person: cross-entropy of finding them."""
    likeness = embedding @ embedding.T / temperature  # (2 B, 2 B)
    likeness.fill_diagonal_(-torch.inf)
    return F.cross_entropy(likeness, torch.arange(len(embedding), device=embedding.device).roll(len(embedding) // 2))


def identity_loss(judge: IdentityJudge, data: Drawings, rng, batch_size: int, soften) -> Tensor:
    """The loss on a batch of random people, two pictures of each. `soften`: pictures (B, 3, S, S) -> the same."""
    people = rng.choice(len(data.images), min(batch_size // 2, len(data.images)), replace=False)
    views = np.stack([rng.permutation(data.images.shape[1])[:2] for _ in people], axis=1)  # (2, people)
    pixels = np.concatenate([data.images[people, view] for view in views])
    embedding, factors = judge(soften(to_tensor(pixels)))
    truth = torch.from_numpy(np.tile(data.identity[people], (2, 1))).to(factors.device)
    return 0.3 * contrastive_loss(embedding) + 5 * factor_loss(Identity.KINDS, factors, truth)


def expression_loss(judge: ExpressionJudge, data: Drawings, rng, batch_size: int, soften) -> Tensor:
    """The loss on a random batch; words are asked of the pictures that show one. `soften` as above."""
    place = (rng.integers(0, len(data.images), batch_size), rng.integers(0, data.images.shape[1], batch_size))
    factors, words, appearance = judge(soften(to_tensor(data.images[place])))
    truth, looks, word = (
        torch.from_numpy(part[place]).to(factors.device) for part in (data.expression, data.appearance, data.word)
    )
    units = factor_loss(Expression.KINDS, factors, truth)
    named = word >= 0
    logits, word = words[named].log_softmax(1), word[named]
    member = torch.from_numpy(membership(len(GROUPS))).to(factors.device)
    in_group = torch.logsumexp(logits[:, None] + member.T.log(), dim=2)  # (named, 25)
    spoken = F.nll_loss(logits, word) + F.nll_loss(in_group, member.argmax(1)[word]) if len(word) else 0.0
    return 10 * units + 0.1 * spoken + 10 * factor_loss(Appearance.KINDS, appearance, looks, FINE)


# --- training ---------------------------------------------------------------------------------------------------------


def train_identity_judge(out_dir, minutes: float | None = None, profile: str = "laptop", start=None) -> IdentityJudge:
    """Train the identity judge and save it, half precision, in `out_dir`; see `_train`."""
    return _train(IdentityJudge, identity_loss, out_dir, minutes, profile, start)


def train_expression_judge(
    out_dir, minutes: float | None = None, profile: str = "laptop", start=None
) -> ExpressionJudge:
    """Train the expression and appearance judge and save it, half precision, in `out_dir`; see `_train`."""
    return _train(ExpressionJudge, expression_loss, out_dir, minutes, profile, start)


def _train(kind, loss_of, out_dir, minutes, profile, start, batch_size: int = 64):
    """So many minutes of Muon and AdamW; the rate warms up and falls as a cosine of the time that has gone by.

    `start`: a trained judge to go on from; of the other kind only the trunk is taken. None starts from nothing.
    Saved every three minutes. Raises UserError for a profile that does not exist and a time that is not above 0.
    """
    if profile not in PEOPLE:
        raise UserError(f"profile {profile!r} does not exist: give one of {', '.join(PEOPLE)}")
    minutes = MINUTES[profile] if minutes is None else minutes
    if not minutes > 0:
        raise UserError(f"minutes is {minutes!r}: give a number above 0, such as 25")
    seed_everything(SEED)
    data, generator = Drawings.cached(JUDGES_SEED, PEOPLE[profile]), torch.Generator().manual_seed(SEED)
    judge, goes_on = kind(), isinstance(start, kind)
    rng = np.random.default_rng([SEED, goes_on])  # who goes on sees other batches
    if start is not None:
        known = start.state_dict()
        judge.load_state_dict(known if goes_on else _only_trunk(known), strict=goes_on)
    judge = judge.to(pick_device()).train()
    learning_rate = 1.2e-3 if goes_on else 2e-3  # trained weights move on with smaller steps
    weights = dict(judge.named_parameters())
    optimizers = optim.make_optimizers(weights, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)

    def soften(images):
        return softened(images.to(judge.device, memory_format=torch.channels_last), generator)

    begin = saved = time.monotonic()
    step, used, losses = 0, 0.0, []
    with tqdm(desc=f"{kind.NAME} judge", unit="step") as bar:
        while used < 1:
            rate = learning_rate * optim.warm_cosine(step, used, warmup=50)
            loss = loss_of(judge, data, rng, batch_size, soften)
            loss.backward()
            optim.step(optimizers, judge.parameters(), rate, clip=1.0)
            losses.append(loss.item())
            step, now = step + 1, time.monotonic()
            used = (now - begin) / (60 * minutes)
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", used=f"{used:.0%}", refresh=False)
            if now - saved > 180:
                save(judge, out_dir)
                saved = now
    save(judge, out_dir)
    return judge.eval()


def _only_trunk(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}


def save(judge: nn.Module, out_dir) -> None:
    """Write config.json and the weights in half precision, from which `load` reads them."""
    copy = type(judge).from_config(judge.config)
    copy.load_state_dict(judge.state_dict())
    try:
        copy.half().save_pretrained(Path(out_dir))
    except OSError as error:
        raise UserError(f"cannot write to {out_dir} ({error.strerror or error}): choose another folder") from error
