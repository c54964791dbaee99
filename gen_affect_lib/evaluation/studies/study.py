"""What all trained comparisons share: drawn pairs, a codec, and a trainer for each variant of our networks.

The networks train within minutes, so that many variants can be trained: pictures have 64 px, the codec is a small one
with 4 x 4 latents, and the MM-DiT has 16 image tokens (`Profile.compared`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.avatars.emotions import GROUPS, branches
from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.device import on_device, seed_everything
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.rivals.kl_codec import KLCodec, fit_kl_codec
from gen_affect_lib.evaluation.rivals.pca_codec import PCACodec, fit_pca_codec
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.flow import RectifiedFlow, sample
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import Profile
from gen_affect_lib.tensors import to_images
from gen_affect_lib.training import loop
from gen_affect_lib.training.assembly import assemble
from gen_affect_lib.training.codec import CODEC_RECIPE, fit_codec
from gen_affect_lib.training.face_loss import FaceLoss
from gen_affect_lib.training.latent_pairs import LatentPairs, Split, cache_split
from gen_affect_lib.training.trainer import Trainer


@dataclass(frozen=True)
class Variant:
    """How a variant differs from ours.

    Attributes:
        about: one phrase for a table.
        transformer, fusion, training: arguments of `MMDiT`, `IdentityExpressionFusion` and `TrainingConfig` that
            replace the profile's.
        network: builds the transformer.
        condition_encoder: builds the fusion.
        prediction: see `RectifiedFlow`.
        face_loss: arguments of `FaceLoss`; None: trained without it.
        same_picture: the target is the reference itself.
        blind_to: "identity" or "expression": the condition that is replaced by zeros.
    """

    about: str
    transformer: dict = field(default_factory=dict)
    fusion: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    network: Callable[..., MMDiT] = MMDiT
    condition_encoder: Callable[..., IdentityExpressionFusion] = IdentityExpressionFusion
    prediction: str = "v"
    face_loss: dict | None = None
    same_picture: bool = False
    blind_to: str | None = None


class BlindFusion(IdentityExpressionFusion):
    """A fusion whose identity or expression input is replaced by zeros."""

    blind_to: str

    def forward(self, identity, expression, keep_identity=None, keep_expression=None):
        if self.blind_to == "identity":
            identity = torch.zeros_like(identity)
        else:
            expression = torch.zeros_like(expression)
        return super().forward(identity, expression, keep_identity, keep_expression)


@dataclass(frozen=True)
class CodecKind:
    """An autoencoder of a comparison: `make` builds it for a profile, `fit` trains it on pictures with a recipe."""

    about: str
    make: Callable[[Profile], LatentCodec]
    fit: Callable[..., list[loop.Row]]


CODEC_KINDS = {
    "ours": CodecKind(
        "unit variance, noise on the latents", lambda profile: LatentCodec(**vars(profile.codec)), fit_codec
    ),
    "no_noise": CodecKind(
        "ours without noise on the latents", lambda profile: LatentCodec(noise=0.0, **vars(profile.codec)), fit_codec
    ),
    "kl": CodecKind(
        "ours with a KL term instead of noise", lambda profile: KLCodec(**vars(profile.codec)), fit_kl_codec
    ),
    "pca": CodecKind(
        "principal components of each patch", lambda profile: PCACodec(image_size=profile.pairs.size), fit_pca_codec
    ),
}
# Of all comparisons of networks. After a training this short its reconstructions are the best of the learned ones.
STUDY_CODEC = "kl"


def study_codec(name: str, profile: Profile, folder: Path) -> LatentCodec:
    """The codec of that kind that is saved in `folder`; if there is none, it is trained and saved there."""
    kind, kept = CODEC_KINDS[name], folder / f"codec-{name}"
    seed_everything(0)
    codec = kind.make(profile)
    if (kept / "config.json").is_file():
        return on_device(type(codec).from_pretrained(kept))
    codec = on_device(codec)
    with fast_on_cpu(codec.device):
        kind.fit(codec, PairCache.open(profile.pairs).flat_images, replace(CODEC_RECIPE, steps=profile.codec_steps))
    codec.save_pretrained(kept)
    return codec.eval()


@torch.inference_mode()
def generate(
    pipeline: GenAffectPipeline,
    plan: Plan,
    scales: tuple[float, float],
    sigmas: Tensor,
    method: str = "euler",
    batch_size: int = 64,
) -> np.ndarray:
    """The pictures of a plan with one sampling seed, each alone and from its own noise: uint8 (N, W, S, S, 3).

    The noise of a person depends only on the person's seed. Unlike the pipeline's call, people share a batch.

    Args:
        scales: of identity and of expression.
        sigmas, method: of `flow.sample`.
    """
    assert pipeline.face_pack is not None
    tokens = np.stack([pipeline.face_pack.one(reference, "largest").tokens for reference in plan.references])
    identities = torch.from_numpy(tokens).float().repeat_interleave(plan.words, 0)  # (N, V, E) -> (N W, V, E)
    expressions = torch.from_numpy(pipeline.read_expressions(plan.target_words)).repeat(plan.people, 1)  # (N W, 48)
    side = pipeline.codec.latent_size(pipeline.config["image_size"])
    shape = (plan.words, pipeline.codec.latent_channels, side, side)
    noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in plan.person_seeds])
    for network in pipeline.networks.values():
        network.eval()
    parts = []
    for part in torch.arange(len(noise)).split(batch_size):
        identity, shown, start = (x[part].to(pipeline.device) for x in (identities, expressions, noise))
        latents = sample(pipeline.guided_velocity(identity, shown, *scales), start, sigmas, method)
        parts.append(to_images(pipeline.decode(latents, identity, shown, *scales)))
    return np.concatenate(parts).reshape(plan.people, plan.words, *parts[0].shape[1:])  # (N W, …) -> (N, W, …)


class Scoring:
    """What the judges say of a plan's pictures: how many show the right expression, in how many the person is found.

    "right": the likeliest of the 25 groups is that of the target word. "found": among the 1,000 people of the gallery,
    which has other pictures of them than the references, the person's embedding is the nearest.
    """

    def __init__(self, plan: Plan):
        self.plan, self.judges = plan, both_judges()
        self.gallery = self.judges[0].read(plan.gallery()).embedding  # (1000, E)
        self.groups = branches()[len(GROUPS)][[EMOTIONS.index(word) for word in plan.target_words]]  # (W,)

    def __call__(self, images: np.ndarray) -> dict[str, list[int]]:
        """Of pictures uint8 (N, W, P, P, 3): how many of each person's W are "right" and "found"."""
        flat, shape = images.reshape(-1, *images.shape[2:]), images.shape[:2]  # (N, W, …) -> (N W, …)
        right = self.judges[1].read(flat).groups.argmax(axis=1).reshape(shape) == self.groups
        nearest = (self.judges[0].read(flat).embedding @ self.gallery.T).argmax(axis=1).reshape(shape)
        found = nearest == np.arange(self.plan.people)[:, None]
        return {"right": right.sum(axis=1).tolist(), "found": found.sum(axis=1).tolist()}


def fast_on_cpu(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 on CPUs that multiply bfloat16 matrices in hardware (AMX); elsewhere it does nothing."""
    return torch.autocast("cpu", torch.bfloat16, enabled=device.type == "cpu" and has_amx(), cache_enabled=False)


def has_amx() -> bool:
    return torch.cpu._is_amx_tile_supported()


def train(trainer: Trainer, steps: int | None, minutes: float | None) -> dict:
    """Train, or resume, in bfloat16 where that is fast; leaves the averaged weights in the networks.

    Returns what a row says of the training: "steps", "seconds", "parameters" (trained ones), "images_per_second", and
    "loss", the last one of validation at each sigma.
    """
    trainer.objective.bfloat16 |= trainer.device.type == "cpu" and has_amx()
    history = trainer.fit(steps, minutes)
    with torch.no_grad():  # these networks are not trained further
        for parameter, average in zip(trainer.parameters.values(), trainer.average.values()):
            parameter.copy_(average)
    losses = next(row for row in reversed(history) if "validation/sigma_0.5" in row)
    return {
        "steps": trainer.step,
        "seconds": round(trainer.seconds),
        "parameters": sum(p.numel() for p in trainer.parameters.values()),
        "images_per_second": round(trainer.step * trainer.config.batch_size / trainer.seconds, 1),
        "loss": {sigma: round(losses[f"validation/sigma_{sigma}"], 4) for sigma in ("0.2", "0.5", "0.8")},
    }


class Study:
    """What all variants have in common: a codec, the latents of the drawn pairs, the face pack."""

    def __init__(self, profile: Profile, codec: LatentCodec):
        self.profile, self.codec, self.faces = profile, codec, FacePack()
        self.splits = [
            cache_split(PairCache.open(config), codec, self.faces, profile.references)
            for config in (profile.pairs, profile.validation)
        ]

    def trainer(self, variant: Variant, seed: int, folder: Path) -> tuple[Trainer, GenAffectPipeline]:
        """A variant's trainer, with random weights, and the pipeline of its networks."""
        seed_everything(seed)
        profile, train = self.profile, self.splits[0]
        sizes = vars(profile.fusion) | variant.fusion
        if variant.blind_to is None:
            fusion = variant.condition_encoder(**sizes)
        else:
            fusion = BlindFusion(**sizes)
            fusion.blind_to = variant.blind_to
        dim, channels = sizes["dim"], self.codec.latent_channels
        transformer = variant.network(
            **dict(
                sample_size=self.codec.latent_size(profile.pairs.size),
                in_channels=channels,
                joint_attention_dim=dim,
                pooled_projection_dim=dim,
            )
            | vars(profile.transformer)
            | variant.transformer
        )
        if variant.same_picture:
            train = _reconstructing(train)
        settings = dict(seed=seed, validate_every=10_000, preview_every=10_000, validation_size=512)
        config = dataclasses.replace(profile.training, **dict(warmup_steps=50) | variant.training | settings)
        pipeline = assemble(
            profile,
            self.codec,
            on_device(transformer),
            on_device(fusion),
            self.faces,
            profile.pairs.size,
            variant.prediction,
        )
        face_loss = None if variant.face_loss is None else FaceLoss(self.codec, **variant.face_loss)
        flow, pairs = RectifiedFlow(variant.prediction), LatentPairs(train, self.splits[1], seed)
        return Trainer(config, transformer, fusion, flow, pairs, folder, extra_loss=face_loss), pipeline

    def trained(
        self, name: str, variant: Variant, seed: int, minutes: float | None, steps: int | None, folder: Path
    ) -> tuple[dict, GenAffectPipeline]:
        """Train a variant, or resume it in `folder`. Returns what a row says of the training, and the pipeline with
        the averaged weights."""
        trainer, pipeline = self.trainer(variant, seed, folder / f"{name}-{seed}")
        about = {"name": name, "about": variant.about, "seed": seed}
        return about | train(trainer, steps, minutes), pipeline


def _reconstructing(split: Split) -> Split:
    def pick(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        place, _ = split.pick(rng, count)
        return place, split.references[place]

    return dataclasses.replace(split, pick=pick)
