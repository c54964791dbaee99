"""From nothing to a trained pipeline: the data, the codec, the networks and the loop, put together for a profile.

`train_profile` is the whole recipe; each of its lines is a function that a notebook can call on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from gen_affect_lib.avatars.folder import FaceFolder
from gen_affect_lib.avatars.pairs import PAIRS, PairCache, PairsConfig
from gen_affect_lib.codec import CODEC, LatentCodec
from gen_affect_lib.device import pick_device, processes, seed_everything
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.expression import ExpressionReading
from gen_affect_lib.encoders.pack import FACE_READING, FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.machine import cores
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import Profile
from gen_affect_lib.training.codec import fit_codec
from gen_affect_lib.training.trainer import Trainer, TrainingConfig

LATENTS = Producer("latents of pairs", 1, uses=(PAIRS, CODEC))
READ_IDENTITIES = Producer("identities of pairs", 1, uses=(PAIRS, FACE_READING))

FACES_FOR_A_PROCESS = 4000  # to read fewer takes less time than to start one
PREVIEW_WORDS = ("joy", "surprise", "anger", "sadness", "fear", "disgust", "amusement", "contempt")


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Pictures as the model meets them: what it is told of M of them, and what it is to draw.

    Attributes:
        latents: (M, C, s, s), in the codec's space.
        identities: (R, V, E), who is on each of the R pictures that serve as references, see `FaceReading.tokens`.
        references: (R,), which of the M pictures these are.
        expressions: (M, 48), see `ExpressionReading.representation`.
        pick: (rng, count) -> places in `references` and targets among the M, (count,) each: two pictures of one person.
    """

    latents: np.ndarray
    identities: np.ndarray
    references: np.ndarray
    expressions: np.ndarray
    pick: Callable

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
        reference, target = self.pick(rng, count)
        return {
            "identity": torch.from_numpy(np.asarray(self.identities[reference], np.float32)),
            "target": torch.from_numpy(np.asarray(self.latents[target], np.float32)),
            "expression": torch.from_numpy(self.expressions[target]),
        }


class LatentPairs:
    """Pairs in the codec's space, for the trainer. A batch is a function of the seed and of the step alone."""

    def __init__(self, train: Split, held_out: Split, seed: int = 0):
        self.train, self.held_out, self.seed = train, held_out, seed

    def batch(self, step: int, batch_size: int) -> dict[str, torch.Tensor]:
        return self.train.draw(np.random.default_rng([self.seed, step]), batch_size)

    def validation(self, size: int) -> dict[str, torch.Tensor]:
        return self.held_out.draw(np.random.default_rng(0), size)


def cache_split(cache: PairCache, codec, faces: FacePack, references: int) -> Split:
    """A split from rendered pairs. The first few pictures of each person serve as references.

    Latents and identities are kept beside the pictures, one file for each codec and each face pack.
    """
    config = asdict(cache.config)
    latents = codec.encoded(cache.flat_images, cache.folder / f"latents-{key(LATENTS, config, codec.mark)}.npy")
    images = cache.config.images
    asked = (
        np.arange(len(cache.flat_images)).reshape(-1, images)[:, :references].ravel()
    )  # (N, K) -> (N, R / N) -> (R,)
    config |= {"references": references}
    kept = cache.folder / f"identities-{key(READ_IDENTITIES, config, *faces.weights)}.npz"
    if not kept.is_file():
        found = read_references(cache, faces, asked)
        sure = [k for k, tokens in zip(asked, found) if tokens is not None]
        tokens = [tokens for tokens in found if tokens is not None]
        partial = kept.with_suffix(".partial.npz")
        np.savez(partial, references=np.array(sure), identities=np.array(tokens, np.float16))
        partial.replace(kept)
    with np.load(kept) as file:
        found, identities = file["references"], file["identities"]

    def pick(rng, count):
        place = rng.integers(0, len(found), count)
        person, picture = found[place] // images, found[place] % images
        return place, person * images + (picture + rng.integers(1, images, count)) % images

    return Split(latents, identities, found, represent(cache.flat_vectors), pick)


def read_references(cache: PairCache, faces: FacePack, asked: np.ndarray) -> list[np.ndarray | None]:
    """Who is on the pictures `asked` (R,) of a cache: for each, the tokens of its surest face, or None without a face."""
    found = []
    with tqdm(total=len(asked), desc="Reading references", unit="face") as bar:
        for tokens in _read_all(cache, faces, np.array_split(asked, max(1, len(asked) // 256))):
            found += tokens
            bar.update(len(tokens))
    return found


def _read_all(cache: PairCache, faces: FacePack, parts: list[np.ndarray]):
    """Read part by part, in several processes where there are many faces; yields the tokens of each part, in order."""
    workers = min(cores(), sum(map(len, parts)) // FACES_FOR_A_PROCESS)
    if not isinstance(faces, FacePack):
        workers = 1  # only a face pack can be made again in another process
    if workers < 2:
        yield from (_surest_tokens(faces, cache.flat_images[part]) for part in parts)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_read_part, repeat(faces.arguments), repeat(cache.config), repeat(cache.folder), parts)


def _read_part(arguments: tuple, config: PairsConfig, folder: Path, part: np.ndarray) -> list[np.ndarray | None]:
    faces, cache = _reader(arguments, config, folder)
    return _surest_tokens(faces, cache.flat_images[part])


@lru_cache(maxsize=1)  # once for all parts that a process reads
def _reader(arguments: tuple, config: PairsConfig, folder: Path) -> tuple[FacePack, PairCache]:
    torch.set_num_threads(1)  # there is a process for every core already
    return FacePack(*arguments), PairCache(config, folder)


def _surest_tokens(faces: FacePack, images: np.ndarray) -> list[np.ndarray | None]:
    found = [faces.read(image) for image in images]
    return [max(readings, key=lambda face: face.score).tokens if readings else None for readings in found]


def folder_splits(folder: FaceFolder, codec, faces: FacePack) -> tuple[Split, Split]:
    """A user's pictures as training and held-out split. Every fifth person is held out; with fewer than five people
    all are trained on, and the validation loss then tells nothing about new people.

    Raises UserError for a picture without a face.
    """
    latents, expressions = codec.encode_all(folder.images), represent(folder.vectors)
    identities = np.stack([faces.one(entry.path, "largest").tokens for entry in folder.entries])
    people = {name: number for number, name in enumerate(folder.identities)}
    owner = np.array([people[folder.entries[reference].identity] for reference, _ in folder.pairs])
    held_out = owner % 5 == 4 if len(people) >= 5 else np.ones(len(owner), bool)
    trained = ~held_out if len(people) >= 5 else held_out

    def split(pairs):
        def pick(rng, count):
            chosen = pairs[rng.integers(0, len(pairs), count)]
            return chosen[:, 0], chosen[:, 1]

        return Split(latents, identities, np.arange(len(latents)), expressions, pick)

    return split(folder.pairs[trained]), split(folder.pairs[held_out])


def represent(vectors: np.ndarray) -> np.ndarray:
    """What vectors (M, 21) mean, as the fusion is told it: float32 (M, 48)."""
    blocks = np.array_split(vectors, max(1, len(vectors) // 4096))  # 136 words for each vector are many numbers
    return np.concatenate([ExpressionReading.of_vectors(block).representation for block in blocks])


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


def make_networks(profile: Profile, codec, image_size: int) -> tuple[MMDiT, IdentityExpressionFusion]:
    """MM-DiT and fusion that fit each other and the codec's space, with fresh weights."""
    channels, side = codec.latent_channels, codec.latent_size(image_size)
    condition = IdentityExpressionFusion(**profile.fusion)
    dim = condition.config.dim
    transformer = MMDiT(
        sample_size=side,
        in_channels=channels,
        joint_attention_dim=dim,
        pooled_projection_dim=dim,
        **profile.transformer,
    )
    return transformer.to(pick_device()), condition.to(pick_device())


def start_from(pipeline: GenAffectPipeline) -> tuple:
    """A trained pipeline's codec, MM-DiT and fusion, where the training goes on."""
    device = pick_device()
    return pipeline.codec.to(device), pipeline.transformer.to(device), pipeline.condition_encoder.to(device)


def assemble(
    profile: Profile, codec, transformer, condition_encoder, faces: FacePack, image_size: int, prediction: str = "v"
) -> GenAffectPipeline:
    pipeline = GenAffectPipeline(
        transformer,
        condition_encoder,
        codec,
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
        raise UserError(
            f"{SHIPPED} is missing: restore it from the repository, or train from nothing with --from-nothing"
        )
    with processes().main_process_first():  # what it renders, trains and reads is there for the others
        if shipped:
            begin = GenAffectPipeline.from_pretrained(SHIPPED)
            if size != begin.config.image_size:
                raise UserError(
                    f"the shipped checkpoint draws {begin.config.image_size} pixels a side, not {size}: "
                    "train from nothing with --from-nothing"
                )
        if data is None:
            train, validation = PairCache.open(profile.pairs), PairCache.open(profile.validation)
            images, held_out = train.flat_images, validation.flat_images
        else:
            folder = FaceFolder(data, size)
            images = held_out = folder.images
        faces = FacePack()
        if shipped:
            begin.require_recognizer(faces)
            codec, transformer, condition = start_from(begin)
        else:
            codec = make_codec(profile, images, out_dir)
            transformer, condition = make_networks(profile, codec, size)
        if data is None:
            splits = [cache_split(cache, codec, faces, profile.references) for cache in (train, validation)]
        else:
            splits = folder_splits(folder, codec, faces)
    pairs = LatentPairs(*splits, config.seed)
    pipeline = assemble(profile, codec, transformer, condition, faces, size)
    places, _ = pairs.held_out.pick(np.random.default_rng(0), 4)
    shown = held_out[pairs.held_out.references[places]]

    def preview(step: int) -> np.ndarray:
        return preview_grid(pipeline, shown)

    return Trainer(config, transformer, condition, RectifiedFlow(), pairs, out_dir, preview), pipeline


def preview_grid(pipeline: GenAffectPipeline, references: np.ndarray) -> np.ndarray:
    """People from references uint8 (P, S, S, 3), one a row, then eight words, each drawn alone, the same noise in every row."""
    rows = []
    for reference in references:
        generator = torch.Generator().manual_seed(0)
        rows += [reference, *pipeline(reference, PREVIEW_WORDS, generator=generator, consistency=0).images]
    return np.array(grid(rows, ["reference", *PREVIEW_WORDS], columns=1 + len(PREVIEW_WORDS), tile=96))


def train_profile(
    profile: Profile,
    out_dir: str | Path,
    data: str | Path | None = None,
    resume: bool = False,
    minutes: float | None = None,
    retrain: bool = False,
) -> GenAffectPipeline:
    """Train, and save the pipeline with the averaged weights in `out_dir/pipeline`, in half precision.

    `minutes` replaces the profile's own limit. With `resume`, a run in `out_dir` goes on where it stopped.
    """
    trainer, pipeline = make_trainer(profile, out_dir, data, retrain)
    profile = profile.retrained() if retrain else profile
    limit = {"max_minutes": minutes} if minutes else {"max_steps": profile.steps, "max_minutes": profile.minutes}
    trainer.fit(**limit, resume=resume)
    if processes().is_main_process:
        with trainer.averaged_weights():
            pipeline.save_pretrained(Path(out_dir) / "pipeline")
    return pipeline
