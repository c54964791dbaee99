"""How the expression encoder learns: faces drawn from known factors, and what those factors mean in closed form.

python -m gen_affect_lib train-encoder expression --out DIR --minutes M
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.encoders.affect import posterior, word_affect
from gen_affect_lib.encoders.expression import UNITS, VECTOR, ExpressionEncoder, crop_faces, make_vit, split_outputs
from gen_affect_lib.profiles import get_profile
from gen_affect_lib.training import optim

# Sizes of the network, pictures in a batch, learning rate, and how long where no minutes are given.
# Steps rather than seconds at smoke, so that every machine ends up with the same.
RECIPES = {
    "smoke": dict(
        network=dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2),
        batch=16,
        rate=2e-3,
        limit=dict(steps=1000),
    ),
    "laptop": dict(network={}, batch=32, rate=1e-3, limit=dict(minutes=45.0)),
    "gpu": dict(network={}, batch=128, rate=1e-3, limit=dict(minutes=10.0)),
}
SETTLED_ON = 6000  # pictures
WEIGHTS = (10.0, 1.0, 0.2)  # of the errors of the vector, of valence and arousal, and of the words


def targets(vectors: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """What faces with vectors (B, 21) should be read as: the vectors, affect (B, 2), words and neutral (B, 136)."""
    words = posterior(vectors)
    affect = words[:, :-1] @ word_affect()
    return tuple(torch.from_numpy(np.asarray(part, np.float32)) for part in (vectors, affect, words))


def losses(outputs: Tensor, vectors: Tensor, affect: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three errors, before they are weighed. The mean of |e| / 2 and e²: squares pull at first, when most units are
    wrong, and absolute values later, when most should be exactly 0."""
    read_vectors, read_affect, read_words = split_outputs(outputs)

    def error(difference: Tensor) -> Tensor:
        return (0.5 * difference.abs() + difference.square()).mean()

    cross_entropy = -(words * F.log_softmax(read_words, dim=1)).sum(dim=1).mean()
    return error(read_vectors - vectors), error(read_affect - affect), cross_entropy


def fit(
    vit: nn.Module,
    images: np.ndarray,
    vectors: np.ndarray,
    batch: int,
    rate: float,
    minutes: float | None = None,
    steps: int | None = None,
    save=lambda: None,
    save_every: float = 180.0,
    seed: int = 0,
) -> list[tuple[float, float, float]]:
    """Train for so many minutes, or steps, on pictures uint8 (M, S, S, 3) with expressions (M, 21). The three errors,
    step by step.

    The learning rate warms up over 100 steps and falls as a half cosine of the time gone by. `save` is called now and
    then, so that an interrupted training leaves something.
    """
    device = next(vit.parameters()).device
    rng = np.random.default_rng(seed)
    optimizer = optim.adamw(vit.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.02)
    vit.train()
    begin = saved = time.monotonic()
    history = []
    with tqdm(desc="Expression encoder", unit="step", mininterval=5.0) as bar:
        while (used := len(history) / steps if steps else (time.monotonic() - begin) / (60 * minutes)) < 1:
            picked = np.sort(rng.integers(0, len(images), batch))
            pixels = crop_faces(images[picked], vit.config).to(device)
            errors = losses(vit(pixels).logits, *(t.to(device) for t in targets(vectors[picked])))
            sum(weight * error for weight, error in zip(WEIGHTS, errors)).backward()
            now = rate * optim.warm_cosine(len(history), used, warmup=100)
            optim.step([optimizer], vit.parameters(), now, clip=1.0)
            history.append(tuple(error.item() for error in errors))
            bar.update()
            if len(history) % 50 == 0:
                recent = np.mean(history[-200:], axis=0)
                bar.set_postfix({name: f"{v:.3f}" for name, v in zip(("vector", "affect", "words"), recent)})
            if time.monotonic() - saved > save_every:
                saved = time.monotonic()
                save()
    vit.eval()
    return history


@torch.no_grad()
def settle(vit: nn.Module, images: np.ndarray, vectors: np.ndarray) -> None:
    """Stretch and shift each of the 21 outputs so that, cut to its range, it errs least on these pictures, on average.

    While it is unsure, a network says a little of everything, between 0 and what a unit may be. Most units of most
    faces are exactly 0, so the least absolute error lies lower, and further up once a unit is there for sure. Both
    numbers go into the last linear map, so that nothing is added to the network.
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
    vit.classifier.weight[:VECTOR] *= scale[:, None]
    vit.classifier.bias[:VECTOR] = vit.classifier.bias[:VECTOR] * scale + shift


def train(out_dir: str | Path, minutes: float | None = None, profile: str | None = None) -> ExpressionEncoder:
    """Draw the data of a profile (people below `splits.JUDGES_SEED`), train from nothing, and save in `out_dir`."""
    profile = get_profile(profile).retrained()
    recipe = RECIPES[profile.name]
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    seed_everything(0)
    data = PairCache.open(profile.pairs)
    encoder = ExpressionEncoder(make_vit(**recipe["network"]).to(pick_device()))
    history = fit(
        encoder.vit,
        data.flat_images,
        data.flat_vectors,
        recipe["batch"],
        recipe["rate"],
        save=lambda: encoder.save_pretrained(out_dir),
        **({"minutes": minutes} if minutes else recipe["limit"]),
    )
    some = np.linspace(0, len(data.flat_images) - 1, min(SETTLED_ON, len(data.flat_images))).astype(int)
    settle(encoder.vit, data.flat_images[some], data.flat_vectors[some])
    encoder.save_pretrained(out_dir)
    np.save(out_dir / "history.npy", np.array(history, np.float32))
    return encoder
