"""From nothing to a trained pipeline: the data, the codec, the networks and the loop, put together for a profile.

`train_profile` is the whole recipe; each of its lines is a function that a notebook can call on its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from gen_affect_lib.avatars.folder import FaceFolder
from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import LatentCodec, fit_codec, to_images
from gen_affect_lib.device import pick_device, seed_everything
from gen_affect_lib.display import grid
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.model.condition import ConditionEncoder
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import Profile
from gen_affect_lib.training import Trainer, TrainingConfig

SHIPPED = CHECKPOINTS / "gen_affect"
PREVIEW_WORDS = ("joy", "surprise", "anger", "sadness", "fear", "disgust", "amusement", "contempt")


# --- data ------------------------------------------------------------------------------------------------------------


class LatentPairs:
    """Pairs in the codec's space, for the trainer. A batch is a function of the seed and of the step alone.

    Args:
        train, validation: each a tuple of latents (M, C, s, s), expressions (M, 21), and `pick(rng, count)`, which
            gives the indices of reference and target, (count,) each.
    """

    def __init__(self, train, validation, seed: int = 0):
        self.train, self.held_out, self.seed = train, validation, seed

    def batch(self, step: int, batch_size: int) -> dict[str, torch.Tensor]:
        return _gather(self.train, np.random.default_rng([self.seed, step]), batch_size)

    def validation(self, size: int) -> dict[str, torch.Tensor]:
        return _gather(self.held_out, np.random.default_rng(0), size)


def _gather(split, rng, count: int) -> dict[str, torch.Tensor]:
    latents, expressions, pick = split
    reference, target = pick(rng, count)
    return {
        "reference": torch.from_numpy(np.asarray(latents[reference], np.float32)),
        "target": torch.from_numpy(np.asarray(latents[target], np.float32)),
        "expression": torch.from_numpy(expressions[target]),
    }


def encode_cache(cache: PairCache, codec) -> tuple:
    """One split of `LatentPairs` from rendered pairs; the latents are kept beside them, one file for each codec."""
    mark = hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in codec.state_dict().values())).hexdigest()[:12]
    latents = codec.encoded(cache.flat_images, cache.folder / f"latents-{mark}.npy")
    return latents, cache.flat_expressions, cache.pick


def folder_splits(folder: FaceFolder, codec) -> tuple:
    """A user's pictures as training and held-out split. Every fifth person is held out; with fewer than five people
    all are trained on, and the validation loss then tells nothing about new people."""
    latents = codec.encode_all(folder.images)
    people = {name: number for number, name in enumerate(folder.identities)}
    owner = np.array([people[folder.entries[reference].identity] for reference, _ in folder.pairs])
    held_out = owner % 5 == 4 if len(people) >= 5 else np.ones(len(owner), bool)
    trained = ~held_out if len(people) >= 5 else held_out

    def split(pairs):
        def pick(rng, count):
            chosen = pairs[rng.integers(0, len(pairs), count)]
            return chosen[:, 0], chosen[:, 1]

        return latents, folder.vectors, pick

    return split(folder.pairs[trained]), split(folder.pairs[held_out])


# --- networks --------------------------------------------------------------------------------------------------------


def make_codec(profile: Profile, images: np.ndarray, out_dir: Path) -> LatentCodec:
    """The codec of an earlier run in `out_dir`, or a new one, trained on `images` uint8 (M, S, S, 3) and kept there."""
    kept = out_dir / "codec"
    if (kept / "config.json").is_file():
        return LatentCodec.from_pretrained(kept).to(pick_device())
    codec = LatentCodec(**profile.codec).to(pick_device())
    fit_codec(codec, images, steps=profile.codec_steps)
    codec.save_pretrained(kept)
    return codec


def make_networks(profile: Profile, codec, image_size: int) -> tuple[MMDiT, ConditionEncoder]:
    """MM-DiT and condition encoder that fit the codec's space, with fresh weights."""
    channels, side = codec.latent_channels, codec.latent_size(image_size)
    condition = ConditionEncoder(channels, side, **profile.condition)
    dim = condition.config.dim
    transformer = MMDiT(
        sample_size=side, in_channels=channels, joint_attention_dim=dim, pooled_projection_dim=dim, **profile.transformer
    )
    return transformer.to(pick_device()), condition.to(pick_device())


def start_from(pipeline: GenAffectPipeline) -> tuple:
    """A trained pipeline's codec, MM-DiT and condition encoder, where the training goes on."""
    device = pick_device()
    return pipeline.codec.to(device), pipeline.transformer.to(device), pipeline.condition_encoder.to(device)


def assemble(profile: Profile, codec, transformer, condition_encoder, image_size: int) -> GenAffectPipeline:
    pipeline = GenAffectPipeline(
        transformer,
        condition_encoder,
        codec,
        num_inference_steps=profile.sampling_steps,
        identity_scale=profile.identity_scale,
        expression_scale=profile.expression_scale,
        image_size=image_size,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- the whole -------------------------------------------------------------------------------------------------------


def make_trainer(profile: Profile, out_dir: str | Path, data: str | Path | None = None, retrain: bool = False):
    """All that `fit` needs, and the pipeline that its weights live in.

    Args:
        profile: the sizes.
        out_dir: where checkpoints, logs and the codec go.
        data: a user's image folder (see `avatars.folder`); None draws avatars.
        retrain: start from nothing where the profile would start from the shipped checkpoint; larger, and for longer.

    Returns:
        The trainer and the pipeline. Raises UserError for bad data and where `out_dir` cannot be written.
    """
    if retrain:
        profile = profile.retrained()
    out_dir, size = Path(out_dir), profile.pairs.size
    config = TrainingConfig(**profile.training)
    seed_everything(config.seed)
    shipped = profile.from_nothing is not None
    if shipped and not (SHIPPED / "model_index.json").is_file():
        raise UserError(f"{SHIPPED} is missing: restore it from the repository, or train from nothing with --from-nothing")
    if data is None:
        train, validation = PairCache.open(profile.pairs), PairCache.open(profile.validation)
        images = train.flat_images
    else:
        faces = FaceFolder(data, size)
        images = faces.images
    if shipped:
        codec, transformer, condition = start_from(GenAffectPipeline.from_pretrained(SHIPPED))
    else:
        codec = make_codec(profile, images, out_dir)
        transformer, condition = make_networks(profile, codec, size)
    if data is None:
        splits = encode_cache(train, codec), encode_cache(validation, codec)
    else:
        splits = folder_splits(faces, codec)
    pairs = LatentPairs(*splits, config.seed)
    pipeline = assemble(profile, codec, transformer, condition, size)

    def preview(step: int) -> np.ndarray:
        return preview_grid(pipeline, pairs.validation(4))

    return Trainer(config, transformer, condition, RectifiedFlow(), pairs, out_dir, preview), pipeline


@torch.no_grad()
def preview_grid(pipeline: GenAffectPipeline, batch: dict) -> np.ndarray:
    """Held-out people, one a row: the reference, then eight words, the same noise in every row."""
    codec = pipeline.codec
    references = to_images(codec.decode(batch["reference"].to(codec.device)))
    rows = []
    for reference in references:
        generator = torch.Generator().manual_seed(0)
        rows += [reference, *pipeline(reference, PREVIEW_WORDS, generator=generator).images]
    return np.array(grid(rows, ["reference", *PREVIEW_WORDS], columns=1 + len(PREVIEW_WORDS), tile=96))


def train_profile(
    profile: Profile, out_dir: str | Path, data: str | Path | None = None, resume: bool = False,
    minutes: float | None = None, retrain: bool = False,
) -> GenAffectPipeline:
    """Train, and save the pipeline with the averaged weights in `out_dir/pipeline`, in half precision.

    `minutes` replaces the profile's own limit. With `resume`, a run in `out_dir` goes on where it stopped.
    """
    trainer, pipeline = make_trainer(profile, out_dir, data, retrain)
    profile = profile.retrained() if retrain else profile
    limit = {"max_minutes": minutes} if minutes else {"max_steps": profile.steps, "max_minutes": profile.minutes}
    trainer.fit(**limit, resume=resume)
    with trainer.averaged_weights():
        pipeline.save_pretrained(Path(out_dir) / "pipeline")
    return pipeline
