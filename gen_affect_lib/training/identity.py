"""The identity encoder's recipe: the margin's warm-up, two views of everybody, hints, and the erasure at the end.

Hints: a drawn person's factors are known, so beside the margin loss a linear map reads them from the embedding. The
margin says only "not this one" about thousands of strangers; a hint says what to look at, which should save time (it was
not compared with training without). The map is thrown away afterwards. For photographs, where nobody knows the factors,
set `hint` to 0.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from gen_affect_lib.avatars import Appearance, Identity
from gen_affect_lib.avatars.factors import Hue
from gen_affect_lib.avatars.splits import TRAIN_SEED
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.identity import ArcFaceLoss, ArcFaceNet, embed, erase
from gen_affect_lib.encoders.onnx_files import round_weights
from gen_affect_lib.encoders.pack import save_recognizer
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import optim
from gen_affect_lib.training.identity_data import IdentityPictures


def fit(
    net: ArcFaceNet,
    data: IdentityPictures,
    minutes: float,
    *,
    batch_size: int = 48,
    learning_rate: float = 2e-3,
    margin: float = 0.4,
    scale: float = 32.0,
    hint: float = 4.0,
    further: bool = False,
    seed: int = 0,
    report=None,
) -> list[float]:
    """Train for so many minutes; the losses, step by step. `report(net, share of the time)` is called now and then.

    further: the network is trained already. Everybody's direction then starts at the mean of their embeddings, and the
        margin counts in full from the first step.
    """
    seed_everything(seed)
    device = pick_device()
    people, pictures, views = data.views.shape[:3]
    factors = torch.stack([torch.from_numpy(Identity.sample(int(who)).to_vector()) for who in data.seeds]).to(device)
    factors = (factors - factors.mean(dim=0)) / factors.std(dim=0).clamp_min(0.1)
    loss_of = ArcFaceLoss(people, net.embed.out_features, margin, scale).to(device)
    reader = nn.Linear(net.embed.out_features, factors.shape[1]).to(device)
    net.to(device, memory_format=torch.channels_last)
    if further:
        with torch.no_grad():
            means = [embed(net.eval(), data.views[:, k, 0]) for k in range(min(2, pictures))]
            loss_of.directions.copy_(F.normalize(sum(means)) * 0.05 * means[0].shape[1] ** 0.5)
    net.train()
    # Muon for the convolutions. Of the large matrices it would cost as much as the rest of a step, and a person's
    # direction is seen once in a thousand pictures: there AdamW keeps a pace of its own for each number.
    large = [*net.embed.parameters(), *loss_of.parameters(), *reader.parameters()]
    small = {name: weight for name, weight in net.named_parameters() if not name.startswith("embed.")}
    options = dict(lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    optimizers = [*optim.make_optimizers(small, **options), torch.optim.AdamW(large, fused=True, **options)]
    rng, flat = np.random.default_rng(seed), data.views.reshape(-1, *data.views.shape[3:])  # (N * K * V, 112, 112, 3)
    begin, progress, losses, reported = time.monotonic(), 0.0, [], 0.0
    with tqdm(desc="Identity", unit="step", mininterval=10) as bar:
        while progress < 1:
            rate = learning_rate * optim.warm_cosine(len(losses), progress, warmup=50)
            chosen = np.sort(rng.integers(0, len(flat), batch_size))
            person = torch.from_numpy(chosen // (pictures * views)).to(device)
            images = to_tensor(flat[chosen]).to(device, memory_format=torch.channels_last)
            warmth = 1.0 if further else min(1.0, max(0.0, (progress - 0.15) / 0.45))
            embeddings = net(images)
            loss = loss_of(embeddings, person, warmth)
            if hint:
                known = F.mse_loss(reader(embeddings), factors[person])
                loss = loss + hint * known
            loss.backward()
            optim.step(optimizers, net.parameters(), rate, clip=5.0)
            losses.append(loss.item())
            progress = (time.monotonic() - begin) / (60 * minutes)
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.2f}", warmth=f"{warmth:.2f}", refresh=False)
            if report and progress - reported >= 0.1:
                reported = progress
                report(net.eval(), progress)
                net.train()
    net.eval().cpu()
    chosen = np.sort(rng.choice(len(flat), min(len(flat), 24576), replace=False))
    nuisance = overtones(data.nuisance.reshape(people * pictures, -1)[chosen // views])  # (N, K, M) -> (N * K, M)
    erase(net, embed(net, flat[chosen]), torch.from_numpy(nuisance), torch.from_numpy(chosen % views))
    return losses


def overtones(nuisance: np.ndarray, highest: int = 6) -> np.ndarray:
    """Nuisance (M, K), and of each hue in it the cosines and sines of its multiples: float32 (M, K + …).

    What no linear map of an embedding finds in a hue's cosine and sine can still tell whether it is a green or a red:
    which eighth of the circle a hue lies in is a function of the multiples.
    """
    parts, start = [nuisance], nuisance.shape[1] - Appearance.VECTOR_SIZE
    for kind in Appearance.KINDS:
        if isinstance(kind, Hue):
            angle = np.arctan2(nuisance[:, start + 1], nuisance[:, start])
            parts += [part[:, None] for k in range(2, highest + 1) for part in (np.cos(k * angle), np.sin(k * angle))]
        start += kind.size
    return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Recipe:
    """How much of everything: people, pictures of each, the network's sizes, minutes."""

    people: int
    pictures: int
    sizes: dict
    minutes: float


RECIPES = {
    "smoke": Recipe(24, 4, dict(widths=(8, 16, 32), blocks=(0, 1, 1), squeeze=8), 0.05),
    "laptop": Recipe(7000, 8, dict(widths=(32, 64, 128), blocks=(0, 1, 1)), 35.0),
    "gpu": Recipe(20000, 12, dict(widths=(64, 128, 256), blocks=(1, 2, 2)), 20.0),
}


def train(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> ArcFaceNet:
    """Draw the people, train, and write `arcface.onnx` and `config.json` to a folder."""
    recipe = RECIPES[profile]
    data = IdentityPictures.cached(TRAIN_SEED, recipe.people, recipe.pictures)
    net = ArcFaceNet(**recipe.sizes)
    fit(net, data, minutes or recipe.minutes)
    save_recognizer(round_weights(net), Path(out_dir))
    return net
