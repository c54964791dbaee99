"""Training pairs of the generator: latents of targets, identity tokens of references, expression representations.

Letters: M pictures, R references, C channels and s sides of the latents, V views, E numbers of an identity embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from gen_affect_lib.avatars.folder import METADATA, Entry, FaceFolder
from gen_affect_lib.avatars.pairs import PAIRS, PairCache, PairsConfig
from gen_affect_lib.codec import CODEC, LatentCodec, Latents, PixelCodec
from gen_affect_lib.encoders.affect import vector_of_point
from gen_affect_lib.encoders.pack import FACE_READING, FacePack
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.machine import cores

LATENTS = Producer("latents of pairs", 1, uses=(PAIRS, CODEC))
READ_IDENTITIES = Producer("identities of pairs", 1, uses=(PAIRS, FACE_READING))

Codec = LatentCodec | PixelCodec
FACES_PER_PROCESS = 4000  # starting a process takes longer than reading fewer faces


@dataclass(frozen=True)
class Split:
    """M pictures, of which R can be references.

    Attributes:
        latents: (M, C, s, s), of the codec.
        identities: (R, V, E), the identity tokens of the references, see `FaceReading.tokens`.
        references: (R,), the indices of the references among the M pictures.
        expressions: (M, 48), see `ExpressionReading.representation`.
        pick: (rng, count) -> random pairs: indices into `references` and indices of targets among the M pictures,
            (count,) each. Reference and target show the same person.
    """

    latents: Latents
    identities: np.ndarray
    references: np.ndarray
    expressions: np.ndarray
    pick: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, torch.Tensor]:
        """Random pairs: `identity` (count, V, E), `target` (count, C, s, s) and `expression` (count, 48), float32."""
        return self.at(*self.pick(rng, count))

    def at(self, reference: np.ndarray, target: np.ndarray) -> dict[str, torch.Tensor]:
        """The pairs of these indices (count,), as `draw` gives them."""
        return {
            "identity": torch.from_numpy(np.asarray(self.identities[reference], np.float32)),
            "target": torch.from_numpy(np.asarray(self.latents[target], np.float32)),
            "expression": torch.from_numpy(self.expressions[target]),
        }


class LatentPairs:
    """Pairs for the trainer, see `generator.Data`. A batch depends only on the seed and the step."""

    def __init__(self, train: Split, held_out: Split, seed: int = 0):
        self.train, self.held_out, self.seed = train, held_out, seed

    def batch(self, step: int, batch_size: int) -> dict[str, torch.Tensor]:
        return self.train.draw(np.random.default_rng([self.seed, step]), batch_size)

    def validation(self, size: int) -> dict[str, torch.Tensor]:
        return self.held_out.draw(np.random.default_rng(0), size)


def represent(vectors: np.ndarray) -> np.ndarray:
    """The expression representation of vectors (M, 21): float32 (M, 48)."""
    # In blocks, because the 136 probabilities of each vector need memory.
    blocks = np.array_split(vectors, max(1, len(vectors) // 4096))
    return np.concatenate([ExpressionReading.of_vectors(block).representation for block in blocks])


# Drawn pairs


def cache_split(cache: PairCache, codec: Codec, faces: FacePack, references: int) -> Split:
    """A split of rendered pairs. The first `references` pictures of each person can be references.

    Latents and identity tokens are cached beside the pictures, one file for each codec and each face pack. Pictures
    without a detected face are not references.
    """
    config = asdict(cache.config)
    latents = codec.encoded(cache.flat_images, cache.folder / f"latents-{key(LATENTS, config, codec.mark)}.npy")
    images = cache.config.images
    first = np.arange(len(cache.flat_images)).reshape(-1, images)[:, :references].ravel()  # (N, K) -> (R,)
    config |= {"references": references}
    kept = cache.folder / f"identities-{key(READ_IDENTITIES, config, *faces.weights)}.npz"
    read = _read_identities(kept)
    if read is None:
        tokens = read_references(cache, faces, first)
        found = [(place, one) for place, one in zip(first, tokens) if one is not None]
        if not found:
            raise UserError(f"no face was found in {len(first)} drawn pictures: train the face pack's detector longer")
        with atomic(kept) as partial:
            np.savez(
                partial,
                references=np.array([place for place, _ in found]),
                identities=np.array([one for _, one in found], np.float16),
            )
        read = _read_identities(kept)
        assert read is not None
    found, identities = read

    def pick(rng, count):
        place = rng.integers(0, len(found), count)
        person, picture = found[place] // images, found[place] % images
        return place, person * images + (picture + rng.integers(1, images, count)) % images

    return Split(latents, identities, found, represent(cache.flat_vectors), pick)


def _read_identities(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """References and their identity tokens; None if the file is missing or damaged, which its checksums show."""
    try:
        with np.load(path) as file:
            found, identities = file["references"], file["identities"]
    except Exception:  # numpy and zipfile raise all kinds of errors
        return None
    return (found, identities) if np.isfinite(identities).all() else None


def read_references(cache: PairCache, faces: FacePack, indices: np.ndarray) -> list[np.ndarray | None]:
    """For each picture of a cache in `indices` (R,): the identity tokens (V, E) of its most certain face, or None."""
    tokens = []
    with tqdm(total=len(indices), desc="Reading references", unit="face") as bar:
        for part in _read_parts(cache, faces, np.array_split(indices, max(1, len(indices) // 256))):
            tokens += part
            bar.update(len(part))
    return tokens


def _read_parts(cache: PairCache, faces: FacePack, parts: list[np.ndarray]) -> Iterator[list[np.ndarray | None]]:
    """Yield the tokens of each part in order. Several processes read them if there are many faces."""
    workers = min(cores(), sum(map(len, parts)) // FACES_PER_PROCESS)
    if not isinstance(faces, FacePack):
        workers = 1  # only a FacePack can be rebuilt in another process
    if workers < 2:
        yield from (_read_tokens(faces, cache.flat_images[part]) for part in parts)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_read_part, repeat(faces.arguments), repeat(cache.config), repeat(cache.folder), parts)


def _read_part(arguments: tuple, config: PairsConfig, folder: Path, part: np.ndarray) -> list[np.ndarray | None]:
    faces, cache = _reader(arguments, config, folder)
    return _read_tokens(faces, cache.flat_images[part])


@lru_cache(maxsize=1)  # once for all parts that a process reads
def _reader(arguments: tuple, config: PairsConfig, folder: Path) -> tuple[FacePack, PairCache]:
    torch.set_num_threads(1)  # there is one process per core already
    return FacePack(*arguments), PairCache(config, folder)


def _read_tokens(faces: FacePack, images: np.ndarray) -> list[np.ndarray | None]:
    found = [faces.read(image) for image in images]
    return [max(readings, key=lambda face: face.score).tokens if readings else None for readings in found]


# A user's folder


def meaning_of(entry: Entry) -> np.ndarray:
    """The expression vector of a line without an expression, from its valence and arousal: float32 (21,).

    Raises UserError if it has none of both.
    """
    if entry.affect is None:
        raise UserError(f"{METADATA} line {entry.line} has no expression: give a word, units, or valence and arousal")
    return vector_of_point(*entry.affect).astype(np.float32)


def folder_identities(folder: FaceFolder, faces: FacePack) -> np.ndarray:
    """The identity tokens of the largest face of each picture of a user's folder: (M, V, E).

    They are read from the squares that the generator learns from. Raises UserError for a picture whose square shows no
    face, with its line in the metadata.
    """
    tokens = []
    for entry, image in zip(folder.entries, folder.images):
        found = faces.read(image)
        if not found:
            raise UserError(
                f"{METADATA} line {entry.line}: no face found in the centred square of {entry.path.name} at "
                f"{folder.image_size} pixels a side: crop the picture around the face, or remove the line"
            )
        tokens.append(max(found, key=lambda face: float(np.prod(face.box[2:] - face.box[:2]))).tokens)
    return np.stack(tokens)


def folder_splits(folder: FaceFolder, codec: Codec, identities: np.ndarray) -> tuple[Split, Split]:
    """A user's pictures as training and held-out split; `identities` as from `folder_identities`.

    Every fifth person is held out. With fewer than five people both splits have all pairs, so the validation loss does
    not measure generalisation to new people.
    """
    latents, expressions = codec.encode_all(folder.images), represent(folder.vectors)
    people = {name: number for number, name in enumerate(folder.identities)}
    owner = np.array([people[folder.entries[reference].identity] for reference, _ in folder.pairs])
    held_out = owner % 5 == 4 if len(people) >= 5 else np.ones(len(owner), bool)
    trained = ~held_out if len(people) >= 5 else held_out

    def split(pairs: np.ndarray) -> Split:
        def pick(rng, count):
            chosen = pairs[rng.integers(0, len(pairs), count)]
            return chosen[:, 0], chosen[:, 1]

        return Split(latents, identities, np.arange(len(latents)), expressions, pick)

    return split(folder.pairs[trained]), split(folder.pairs[held_out])
