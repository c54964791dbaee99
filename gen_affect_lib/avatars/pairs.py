"""Training pairs: two pictures of one person with different expressions and appearances, rendered once into a cache.

The cache is a folder with one memory-mapped array per quantity and a manifest. Pictures are rendered in chunks of
identities, and the manifest has the checksum of every finished chunk. So an interrupted rendering resumes, and a
damaged chunk is rendered again. A cache with another key is replaced.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from gen_affect_lib.avatars.drawing import DRAWING, Avatar
from gen_affect_lib.avatars.factors import FACTORS, Appearance, Expression, Identity
from gen_affect_lib.avatars.splits import FIRST_SEED, PEOPLE, picture_seed
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import write_json
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.machine import cores
from gen_affect_lib.paths import CACHE

PAIRS = Producer("pairs", 1, uses=(FACTORS, DRAWING))
IDENTITIES_PER_CHUNK = 16


@dataclass(frozen=True)
class PairsConfig:
    """What to render.

    Attributes:
        split: a key of `splits.FIRST_SEED`.
        identities: number of people.
        images: number of pictures of each person, at least 2.
        size: side of a picture in pixels.

    Raises UserError for other values.
    """

    split: str = "train"
    identities: int = 1024
    images: int = 16
    size: int = 64

    def __post_init__(self):
        if self.split not in FIRST_SEED:
            raise UserError(f"split {self.split!r} does not exist: give one of {', '.join(FIRST_SEED)}")
        if not 1 <= self.identities <= PEOPLE[self.split]:
            raise UserError(f"{self.identities:,} identities: the split {self.split} has 1 to {PEOPLE[self.split]:,}")
        if self.images < 2:
            raise UserError(f"{self.images} image(s) of each person make no pair: give at least 2")

    @property
    def key(self) -> str:
        return key(PAIRS, asdict(self))


class PairCache:
    """The rendered pictures, from which `pick` forms pairs.

    Attributes (N identities, K images of each, S pixels):
        images: uint8 (N, K, S, S, 3), memory-mapped, RGB
        vectors: float32 (N, K, 21), the expression vectors
        identities: float32 (N, Identity.VECTOR_SIZE)
        seeds: int64 (N,), the seed of each identity
    """

    def __init__(self, config: PairsConfig, folder: Path):
        self.config, self.folder = config, folder
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.vectors = np.load(folder / "expressions.npy")
        self.seeds = FIRST_SEED[config.split] + np.arange(config.identities)
        self._identities: np.ndarray | None = None

    @property
    def identities(self) -> np.ndarray:
        if self._identities is None:
            self._identities = np.stack([Identity.sample(int(seed)).to_vector() for seed in self.seeds])
        return self._identities

    @classmethod
    def open(cls, config: PairsConfig, folder: Path | None = None, workers: int | None = None) -> PairCache:
        """Check the cache, render what is missing, and open it.

        Args:
            config: what to render.
            folder: by default a folder of the cache named after the configuration.
            workers: processes that render; by default one per core.

        Raises UserError if the disk is too small.
        """
        folder = folder or CACHE / "pairs" / f"{config.split}-{config.identities}x{config.images}-{config.size}px"
        manifest = _read_manifest(folder)
        arrays = _open_arrays(folder, config)
        if manifest.get("key") != config.key or not isinstance(manifest.get("chunks"), dict) or arrays is None:
            _start(folder, config)
            manifest, arrays = _read_manifest(folder), _open_arrays(folder, config)
            assert arrays is not None
        chunks = range(0, config.identities, IDENTITIES_PER_CHUNK)
        images, vectors = arrays
        done = manifest["chunks"]
        missing = [c for c in chunks if done.get(str(c)) != _checksum(images, vectors, c)]
        if missing:
            total = sum(min(IDENTITIES_PER_CHUNK, config.identities - start) for start in missing) * config.images
            try:
                with tqdm(total=total, desc="Rendering", unit="img") as bar:
                    for finished, (start, count) in enumerate(_render_all(folder, config, missing, workers), 1):
                        done[str(start)] = _checksum(images, vectors, start)
                        bar.update(count)
                        if finished % 32 == 0:
                            _write_manifest(folder, manifest)
            finally:  # keep finished chunks, whatever ended the rendering
                images.flush()
                vectors.flush()
                _write_manifest(folder, manifest)
        return cls(config, folder)

    @property
    def flat_images(self) -> np.ndarray:
        """uint8 (N * K, S, S, 3), a view."""
        return self.images.reshape(-1, *self.images.shape[2:])  # (N, K, S, S, 3) -> (N * K, S, S, 3)

    @property
    def flat_vectors(self) -> np.ndarray:
        """float32 (N * K, 21), a view."""
        return self.vectors.reshape(-1, self.vectors.shape[2])  # (N, K, 21) -> (N * K, 21)

    def avatar(self, picture: int) -> Avatar:
        """The avatar of a picture, given its index in `flat_images`."""
        n, k = divmod(picture, self.config.images)
        return avatar_of(int(self.seeds[n]), k)

    def pick(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Random pairs: flat indices of references and targets, int (count,) each; two pictures of one person each."""
        images = self.config.images
        person = rng.integers(0, self.config.identities, count)
        reference = rng.integers(0, images, count)
        target = (reference + rng.integers(1, images, count)) % images
        return person * images + reference, person * images + target


def avatar_of(person: int, k: int) -> Avatar:
    """Picture k of the person with this seed: an avatar with a random expression and appearance."""
    seed = picture_seed(person, k)
    return Avatar(Identity.sample(person), Expression.sample(seed), Appearance.sample(seed))


def _read_manifest(folder: Path) -> dict:
    try:
        return dict(json.loads((folder / "manifest.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _open_arrays(folder: Path, config: PairsConfig) -> tuple[np.memmap, np.memmap] | None:
    """The arrays of pictures and expression vectors, to be written; None if they are missing or damaged."""
    n, k, s = config.identities, config.images, config.size
    try:
        images, vectors = (np.lib.format.open_memmap(folder / name, "r+") for name in ("images.npy", "expressions.npy"))
    except Exception:  # numpy raises all kinds of errors for damaged files
        return None
    if (images.shape, images.dtype) != ((n, k, s, s, 3), np.uint8):
        return None
    if (vectors.shape, vectors.dtype) != ((n, k, Expression.VECTOR_SIZE), np.float32):
        return None
    return images, vectors


def _write_manifest(folder: Path, manifest: dict) -> None:
    write_json(folder / "manifest.json", manifest)


def _start(folder: Path, config: PairsConfig) -> None:
    """Replace the folder by one with zero arrays and a manifest without chunks. Raises UserError for a full disk."""
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
    folder.mkdir(parents=True)
    n, k, s = config.identities, config.images, config.size
    needed = n * k * s * s * 3
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        shutil.rmtree(folder)
        raise UserError(
            f"the pairs need {needed / 2**30:.1f} GiB and {folder.parent} has {free / 2**30:.1f} GiB free: "
            "choose a smaller profile or point GEN_AFFECT_CACHE at another disk"
        )
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (n, k, s, s, 3))
    np.lib.format.open_memmap(folder / "expressions.npy", "w+", np.float32, (n, k, Expression.VECTOR_SIZE))
    _write_manifest(folder, {"key": config.key, "config": asdict(config), "versions": PAIRS.versions, "chunks": {}})


def _checksum(images: np.ndarray, vectors: np.ndarray, start: int) -> int:
    rows = slice(start, start + IDENTITIES_PER_CHUNK)
    return zlib.crc32(vectors[rows].tobytes(), zlib.crc32(images[rows].tobytes()))


def _render_all(folder: Path, config: PairsConfig, starts: list[int], workers: int | None) -> Iterator[tuple[int, int]]:
    """Render chunks, in several processes if there are many. Yields (first identity, pictures rendered) per chunk."""
    workers = min(workers or cores(), len(starts))
    if workers == 1 or len(starts) * IDENTITIES_PER_CHUNK * config.images < 2000:
        for start in starts:
            yield _render_chunk(folder, config, start)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_render_chunk, folder, config, start) for start in starts]):
            yield future.result()


def _render_chunk(folder: Path, config: PairsConfig, start: int) -> tuple[int, int]:
    images = np.load(folder / "images.npy", mmap_mode="r+")
    vectors = np.load(folder / "expressions.npy", mmap_mode="r+")
    last = min(start + IDENTITIES_PER_CHUNK, config.identities)
    for n in range(start, last):
        for k in range(config.images):
            avatar = avatar_of(FIRST_SEED[config.split] + n, k)
            vectors[n, k] = avatar.expression.to_vector()
            images[n, k] = avatar.render(config.size)
    return start, (last - start) * config.images
