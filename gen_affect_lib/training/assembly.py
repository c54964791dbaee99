"""Builds and trains the pipeline of a profile: training pictures, codec, networks and trainer.

`train_profile` does all of it. The parts are functions that a notebook can call on their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gen_affect_lib.avatars.folder import FaceFolder
from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import CODEC, LatentCodec
from gen_affect_lib.device import on_device, processes, seed_stage
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import write_json
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.keys import digest
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.refiner import Refiner
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import Profile
from gen_affect_lib.tensors import require_finite
from gen_affect_lib.training.checkpoint import has_checkpoint, require_same
from gen_affect_lib.training.codec import CODEC_RECIPE, fit_codec
from gen_affect_lib.training.latent_pairs import (
    Codec,
    LatentPairs,
    Split,
    cache_split,
    folder_identities,
    folder_splits,
    meaning_of,
)
from gen_affect_lib.training.logbook import writing_to
from gen_affect_lib.training.perceptual import PerceptualLoss
from gen_affect_lib.training.trainer import Trainer

RUN = "run.json"  # is in the folder of every run from its start on
TRAINED = "trained.json"  # is in the folder of a trained codec: what it was trained with, and the digest of its files
PREVIEW_WORDS = ("joy", "surprise", "anger", "sadness", "fear", "disgust", "amusement", "contempt")


# Training pictures: drawn ones, or a user's


class DrawnPictures:
    """The drawn pairs of a profile.

    Attributes:
        images: pictures of the training people, uint8 (M, S, S, 3).
        held_out: pictures of the validation people, likewise.
        mark: changes with the pictures.
    """

    def __init__(self, profile: Profile):
        self.train, self.validation = PairCache.open(profile.pairs), PairCache.open(profile.validation)
        self.images, self.held_out = self.train.flat_images, self.validation.flat_images
        self.references = profile.references
        self.mark = f"drawn pairs {profile.pairs.key} {profile.validation.key} {profile.references}"

    def splits(self, codec: Codec, faces: FacePack) -> tuple[Split, Split]:
        train = cache_split(self.train, codec, faces, self.references)
        return train, cache_split(self.validation, codec, faces, self.references)


class UserPictures:
    """A user's image folder, see `avatars.folder`. Raises UserError for an invalid folder and a picture without a face.

    `images` and `held_out` are both all of its pictures, uint8 (M, S, S, 3); `splits` selects the held-out people.
    `mark` changes with the pictures, people and expressions.
    """

    def __init__(self, path: str | Path, size: int, faces: FacePack):
        self.folder = FaceFolder(path, size, meaning_of)
        self.images = self.held_out = self.folder.images
        self.identities = folder_identities(self.folder, faces)  # here, so that a bad picture is named before training

        people = "\0".join(entry.identity for entry in self.folder.entries).encode("utf-8", "surrogatepass")
        self.mark = f"folder {digest(people, self.images.tobytes(), self.folder.vectors.tobytes())}"

    def splits(self, codec: Codec, faces: FacePack) -> tuple[Split, Split]:
        return folder_splits(self.folder, codec, self.identities)


Pictures = DrawnPictures | UserPictures


# Networks: with random weights, or shipped


@dataclass(frozen=True)
class Parts:
    """The networks that a training starts with, and the refiner of their codec, if there is one."""

    codec: Codec
    transformer: MMDiT
    condition_encoder: IdentityExpressionFusion
    refiner: Refiner | None = None


def random_parts(profile: Profile, pictures: Pictures, out_dir: Path) -> Parts:
    """A codec trained on the pictures, and networks with random weights."""
    codec = make_codec(profile, pictures, out_dir)
    seed_stage(profile.training.seed, "networks")
    return Parts(codec, *make_networks(profile, codec, profile.pairs.size))


def shipped_parts(pipeline: GenAffectPipeline, faces: FacePack) -> Parts:
    """The networks of the shipped pipeline. Raises UserError if it was trained with another recognizer."""
    pipeline.require_recognizer(faces)
    refiner = None if pipeline.refiner is None else on_device(pipeline.refiner)
    networks = on_device(pipeline.codec), on_device(pipeline.transformer), on_device(pipeline.condition_encoder)
    return Parts(*networks, refiner)


def load_shipped(size: int) -> GenAffectPipeline:
    """The shipped pipeline. Raises UserError if it is missing or generates pictures of another size."""
    hint = "train from nothing with --from-nothing"
    if not (SHIPPED / "model_index.json").is_file():
        raise UserError(f"{SHIPPED} is missing: restore it from the repository, or {hint}")
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
    if size != pipeline.config["image_size"]:
        raise UserError(
            f"the shipped checkpoint generates {pipeline.config['image_size']} pixels a side, not {size}: {hint}"
        )
    return pipeline


def make_codec(profile: Profile, pictures: Pictures, out_dir: Path) -> LatentCodec:
    """The codec saved in `out_dir`; if there is none of these pictures and sizes, train it and save it there.

    Raises UserError if there is one of others, and the folder has checkpoints that belong to it.
    """
    kept, seed = out_dir / "codec", profile.training.seed
    trained = {
        "data": pictures.mark,
        "codec": json.loads(json.dumps(vars(profile.codec))),
        "codec_steps": profile.codec_steps,
        "seed": seed,
        "versions": CODEC.versions,
    }
    known = _whole_codec(kept)
    if known is not None and has_checkpoint(out_dir):
        require_same(out_dir, known, trained)
    if known == trained:
        return on_device(LatentCodec.from_pretrained(kept))
    seed_stage(seed, "codec")
    codec = on_device(LatentCodec(**vars(profile.codec)))
    fit_codec(codec, pictures.images, replace(CODEC_RECIPE, steps=profile.codec_steps), PerceptualLoss(codec.device))
    require_finite(codec, f"{kept} was not written")
    with writing_to(out_dir):
        (kept / TRAINED).unlink(missing_ok=True)
        codec.save_pretrained(kept)
        write_json(kept / TRAINED, {"trained": trained, "files": _codec_digest(kept)})
    return codec


def _whole_codec(folder: Path) -> dict | None:
    """What the codec in a folder was trained with; None if there is none, or if a file is missing or damaged."""
    try:
        kept = json.loads((folder / TRAINED).read_text())
        return kept["trained"] if kept["files"] == _codec_digest(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _codec_digest(folder: Path) -> str:
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return digest(*(file.read_bytes() for file in files))


def make_networks(profile: Profile, codec: Codec, image_size: int) -> tuple[MMDiT, IdentityExpressionFusion]:
    """An MM-DiT and a fusion with random weights, for the codec's latents of pictures of `image_size` pixels."""
    channels, side = codec.latent_channels, codec.latent_size(image_size)
    condition_encoder = IdentityExpressionFusion(**vars(profile.fusion))
    dim = profile.fusion.dim
    transformer = MMDiT(
        sample_size=side,
        in_channels=channels,
        joint_attention_dim=dim,
        pooled_projection_dim=dim,
        **vars(profile.transformer),
    )
    return on_device(transformer), on_device(condition_encoder)


def assemble(
    profile: Profile,
    codec: Codec,
    transformer: MMDiT,
    condition_encoder: IdentityExpressionFusion,
    faces: FacePack,
    image_size: int,
    prediction: str = "v",
    refiner: Refiner | None = None,
) -> GenAffectPipeline:
    """A pipeline of these networks, with the profile's sampling steps and guidance scales."""
    pipeline = GenAffectPipeline(
        transformer,
        condition_encoder,
        codec,
        refiner,
        recognizer=faces.mark,
        prediction=prediction,
        num_inference_steps=profile.sampling_steps,
        identity_scale=profile.identity_scale,
        expression_scale=profile.expression_scale,
        image_size=image_size,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.face_pack = faces
    return pipeline


# The whole


def make_trainer(
    profile: Profile, out_dir: str | Path, data: str | Path | None = None, retrain: bool = False
) -> tuple[Trainer, GenAffectPipeline]:
    """The trainer of a profile, and the pipeline with the networks that it trains.

    Args:
        profile: the sizes of data and networks, and the training settings.
        out_dir: the folder for checkpoints, logs and the codec.
        data: a user's image folder (see `avatars.folder`); None: drawn pairs.
        retrain: start from random weights even if the profile starts from the shipped checkpoint.

    Raises UserError for invalid data, and if `out_dir` cannot be written.
    """
    if retrain:
        profile = profile.retrained()
    out_dir, size = Path(out_dir), profile.pairs.size
    with processes().main_process_first():  # the others then load the files that it has written
        shipped = load_shipped(size) if profile.from_nothing else None
        faces = FacePack()
        pictures = DrawnPictures(profile) if data is None else UserPictures(data, size, faces)
        if processes().is_main_process:  # a run that is killed before its first checkpoint can be resumed as well
            with writing_to(out_dir):
                write_json(out_dir / RUN, {"profile": profile.name, "data": pictures.mark})
        parts = shipped_parts(shipped, faces) if shipped else random_parts(profile, pictures, out_dir)
        train, held_out = pictures.splits(parts.codec, faces)
    networks = parts.transformer, parts.condition_encoder
    pipeline = assemble(profile, parts.codec, *networks, faces, size, refiner=parts.refiner)
    places, _ = held_out.pick(np.random.default_rng(0), 4)
    shown = pictures.held_out[held_out.references[places]], np.asarray(held_out.identities[places], np.float32)

    def preview(step: int) -> np.ndarray:
        return preview_grid(pipeline, *shown)

    config, pairs = profile.training, LatentPairs(train, held_out, profile.training.seed)
    marks = {"data": pictures.mark, "codec": parts.codec.mark, "recognizer": faces.mark}
    seed_stage(config.seed, "training")
    return Trainer(config, *networks, RectifiedFlow(), pairs, out_dir, preview, marks=marks), pipeline


def preview_grid(pipeline: GenAffectPipeline, references: np.ndarray, identities: np.ndarray) -> np.ndarray:
    """A row for each reference, uint8 (P, S, S, 3): the reference, then a generated picture for each of PREVIEW_WORDS.

    identities: the identity tokens of the references as the training has them, float32 (P, V, E).
    The pictures are generated without consistent attention, from the same noise in all rows. Returns uint8 (H, W, 3).
    """
    cells = []
    for reference, identity in zip(references, identities):
        generator = torch.Generator().manual_seed(0)
        cells += [reference, *pipeline(identity, PREVIEW_WORDS, generator=generator, consistency=0).images]
    return np.array(grid(cells, ["reference", *PREVIEW_WORDS], columns=1 + len(PREVIEW_WORDS), tile=96))


def train_profile(
    profile: Profile,
    out_dir: str | Path,
    data: str | Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    retrain: bool = False,
) -> GenAffectPipeline:
    """Train, and save the pipeline with the averaged weights in `out_dir/pipeline`, in half precision.

    Args:
        resume: continue the run in `out_dir`. Raises UserError if there is none.
        minutes: the training time; None keeps the profile's limit.

    The other arguments and the errors are those of `make_trainer`.
    """
    if resume and not (Path(out_dir) / RUN).is_file() and not has_checkpoint(Path(out_dir)):
        raise UserError(f"{out_dir} contains no run: leave out --resume, or give the folder of a run")
    trainer, pipeline = make_trainer(profile, out_dir, data, retrain)
    trainer.fit(max_minutes=minutes, resume=resume)
    if processes().is_main_process:
        with trainer.averaged_weights():
            pipeline.save_pretrained(Path(out_dir) / "pipeline")
    return pipeline
