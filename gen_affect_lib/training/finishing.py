"""The last stage of training: the decoder learns to decode what the generator makes.

The codec trains its decoder on the latents of true pictures, with noise. Generated latents deviate from true ones in
another way, so a decoder that has seen them draws sharper pictures from them. The latents themselves do not change: the
encoder and the generator stay as they are.

`generated_latents` noises the latents of true pictures to a moderate sigma and lets the generator denoise them. The
result is generated, and still shows the true picture, with which the decoder's output is compared. In the second half
of the training a patch discriminator (Isola et al. 2017, arXiv 1611.07004) joins: a mean error over pixels prefers a
blurred line to a sharp one beside its place, and the discriminator does not.

Letters: B pictures of a batch, M generated latents, C channels and s side of the latents, S side of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from gen_affect_lib.avatars.regions import face_weight
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.flow import interpolate, sample
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training import loop
from gen_affect_lib.training.codec import CODEC_RECIPE, Perceptual, reconstruction_loss
from gen_affect_lib.training.latent_pairs import Split

FINISHING_RECIPE = replace(CODEC_RECIPE, learning_rate=1.2e-3, final_learning_rate=0.01)
SIGMAS = 0.1, 0.6  # to which true latents are noised: below, nothing is generated; above, it is another picture
SCALES = 1.0, 1.5  # guidance, for both conditions
STEP = 0.08  # of sigma
TRUE_SHARE = 0.2  # of a batch: noised true latents, so that reconstructions stay good
JOINS = 0.5  # progress at which the discriminator joins


@dataclass(frozen=True)
class Generated:
    """Latents that a generator made.

    Attributes:
        latents: float16 (M, C, s, s).
        pictures: the indices (M,) of the true pictures that they show.
        references: the indices (M,) of the references that they were made from, into `Split.references`.
    """

    latents: Tensor
    pictures: np.ndarray
    references: np.ndarray


@torch.no_grad()
def generated_latents(
    pipeline: GenAffectPipeline, split: Split, count: int, batch_size: int = 64, seed: int = 0
) -> Generated:
    """At least `count` latents: true ones, noised to a sigma of SIGMAS and denoised by the generator."""
    device = pipeline.transformer.device
    rng, random = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)
    for network in (pipeline.transformer, pipeline.condition_encoder):
        network.eval()
    made, pictures, references = [], [], []
    for _ in tqdm(range(-(-count // batch_size)), desc="Generating latents", unit="batch"):
        place, target = split.pick(rng, batch_size)
        batch = {name: tensor.to(device) for name, tensor in split.at(place, target).items()}
        sigma, scale = rng.uniform(*SIGMAS), float(rng.choice(SCALES))
        noise = torch.randn(batch["target"].shape, generator=random, device=device)
        sigmas = torch.linspace(sigma, 0, max(1, round(sigma / STEP)) + 1)
        velocity = pipeline.guided_velocity(batch["identity"], batch["expression"], scale, scale)
        made.append(sample(velocity, interpolate(batch["target"], noise, sigma), sigmas).cpu())
        pictures.append(target)
        references.append(place)
    latents = torch.cat(made).half()  # autocast cannot join half precision
    return Generated(latents, np.concatenate(pictures), np.concatenate(references))


class PatchDiscriminator(nn.Module):
    """Scores patches of 38 pixels, true pictures high and decoded ones low: (B, 3, S, S) -> (B, 1, h, w).

    It has no padding: a discriminator that sees the border judges by it, and the decoder answers with a seam.
    """

    def __init__(self, width: int = 48):
        super().__init__()
        normed = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2),
            nn.LeakyReLU(0.2),
            normed(nn.Conv2d(width, 2 * width, 4, stride=2)),
            nn.LeakyReLU(0.2),
            normed(nn.Conv2d(2 * width, 3 * width, 4, stride=2)),
            nn.LeakyReLU(0.2),
            normed(nn.Conv2d(3 * width, 1, 3)),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures)

    def loss(self, true: Tensor, decoded: Tensor) -> Tensor:
        """The hinge loss of true and decoded pictures (B, 3, S, S): ()."""
        return F.relu(1 - self(true)).mean() + F.relu(1 + self(decoded)).mean()


def finish_decoder(
    codec: LatentCodec,
    generated: Generated,
    images: np.ndarray,
    recipe: Recipe,
    perceptual: Perceptual | None = None,
    adversarial: float = 0.1,
) -> list[loop.Row]:
    """Train the decoder on generated latents; returns the history.

    Args:
        images: the true pictures, uint8 (N, S, S, 3), that `generated.pictures` indexes.
        perceptual: see `codec.reconstruction_loss`.
        adversarial: norm of the discriminator's gradient with respect to the pictures, as a fraction of the norm of
            the other losses' gradient; 0 trains without a discriminator.
    """
    rng, device = np.random.default_rng(recipe.seed), codec.device
    torch.manual_seed(recipe.seed)
    weight = face_weight(images.shape[1]).to(device)
    discriminator = PatchDiscriminator().to(device)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=5e-4, betas=(0.5, 0.99), weight_decay=0.0)

    def objective(progress: float) -> tuple[Tensor, loop.Row]:
        chosen = rng.integers(0, len(generated.latents), recipe.batch_size)
        true = to_tensor(images[generated.pictures[chosen]]).to(device, memory_format=torch.channels_last)
        latents = generated.latents[torch.from_numpy(chosen)].to(device, torch.float32)
        as_true = max(1, round(TRUE_SHARE * recipe.batch_size))
        with torch.no_grad():
            latents[:as_true] = codec.noised(codec.encode(true[:as_true]))
        decoded = codec.decode(latents)
        pictures = decoded.detach().requires_grad_(True)
        loss, error = reconstruction_loss(pictures, true, weight, perceptual)
        (gradient,) = torch.autograd.grad(loss, pictures)
        figures = {"mse": error.item()}
        if adversarial and progress >= JOINS:
            (against,) = torch.autograd.grad(-discriminator(pictures).mean(), pictures)
            strength = adversarial * min(1.0, (progress - JOINS) / 0.1)  # it is untrained at first
            gradient = gradient + strength * gradient.norm() / (against.norm() + 1e-8) * against
            figures["discriminator"] = _learn(discriminator, optimizer, true, pictures.detach())
        # Its value is the loss of the pictures, its gradient the one above.
        return loss.detach() + ((decoded - decoded.detach()) * gradient).sum(), figures

    codec.eval()  # the statistics of the normalisation belong to the latents
    return loop.fit(objective, codec.decoder, recipe, "decoder on generated latents")


def _learn(discriminator: PatchDiscriminator, optimizer: torch.optim.Optimizer, true: Tensor, decoded: Tensor) -> float:
    loss = discriminator.loss(true, decoded)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
