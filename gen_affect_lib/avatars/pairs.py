"""Pairs for training: one person twice, with different expressions and appearances, rendered once into a cache.

The cache is a folder with one memory-mapped array per quantity and a manifest. Images are rendered identity by identity
in chunks; the manifest names every finished chunk with its checksum, so that an interrupted rendering goes on where it
stopped, and a damaged or outdated one is noticed and rendered anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CACHE, DATA

FIRST_SEED = {"train": 0, "validation": 1_000_000, "report": 2_000_000}
SEEDS_PER_SPLIT = 1_000_000
IDENTITIES_PER_CHUNK = 16


@dataclass(frozen=True)
class PairsConfig:
    """What to render: `identities` people of a split, `images` pictures of each, `size` pixels a side."""

    split: str = "train"
    identities: int = 1024
    images: int = 16
    size: int = 64

    def __post_init__(self):
        if self.split not in FIRST_SEED:
            raise UserError(f"split {self.split!r} does not exist: give one of {', '.join(FIRST_SEED)}")
        if not 1 <= self.identities <= SEEDS_PER_SPLIT:
            raise UserError(f"{self.identities} identities: a split has from 1 to {SEEDS_PER_SPLIT:,}")
        if self.images < 2:
            raise UserError(f"{self.images} image(s) of each person make no pair: give at least 2")


def fingerprint() -> str:
    """Changes whenever the factors, the drawing or the emotion table change, and only then."""
    here = Path(__file__).parent
    names = ("colors", "drawing", "face", "factors", "geometry", "hair", "pen", "emotions", "pairs")
    digest = hashlib.sha256()
    for path in (*(here / f"{name}.py" for name in names), DATA / "emotions.csv"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class PairCache:
    """The rendered pairs.

    Attributes (N identities, K images of each, S pixels):
        images: uint8 (N, K, S, S, 3), memory-mapped, RGB
        expressions: float32 (N, K, 21)
        identities: float32 (N, Identity.VECTOR_SIZE)
        seeds: int64 (N,), the seed of each identity
    """

    def __init__(self, config: PairsConfig, folder: Path):
        self.config, self.folder = config, folder
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.expressions = np.load(folder / "expressions.npy")
        self.seeds = FIRST_SEED[config.split] + np.arange(config.identities)
        self._identities: np.ndarray | None = None

    @property
    def identities(self) -> np.ndarray:
        if self._identities is None:
            self._identities = np.stack([Identity.sample(int(seed)).to_vector() for seed in self.seeds])
        return self._identities

    @classmethod
    def open(cls, config: PairsConfig, folder: Path | None = None, workers: int | None = None) -> PairCache:
        """Render what is missing, check what is there, and open it.

        `folder` is by default one in the cache named after what it holds. Raises UserError when the disk is too small.
        """
        mark = fingerprint()
        folder = folder or CACHE / "pairs" / f"{config.split}-{config.identities}x{config.images}-{config.size}px"
        manifest = _read_manifest(folder)
        if manifest.get("fingerprint") != mark or manifest.get("config") != asdict(config):
            _start(folder, config, mark)
            manifest = _read_manifest(folder)
        chunks = range(0, config.identities, IDENTITIES_PER_CHUNK)
        images = np.load(folder / "images.npy", mmap_mode="r+")
        expressions = np.load(folder / "expressions.npy", mmap_mode="r+")
        done = manifest["chunks"]
        missing = [c for c in chunks if done.get(str(c)) != _checksum(images, expressions, c)]
        if missing:
            total = sum(min(IDENTITIES_PER_CHUNK, config.identities - start) for start in missing) * config.images
            try:
                with tqdm(total=total, desc="Rendering", unit="img") as bar:
                    for finished, (start, count) in enumerate(_render_all(folder, config, missing, workers), 1):
                        done[str(start)] = _checksum(images, expressions, start)
                        bar.update(count)
                        if finished % 32 == 0:
                            _write_manifest(folder, manifest)
            finally:  # whatever stopped it: what is finished stays finished
                images.flush()
                expressions.flush()
                _write_manifest(folder, manifest)
        return cls(config, folder)

    @property
    def flat_images(self) -> np.ndarray:
        """uint8 (N * K, S, S, 3), a view."""
        return self.images.reshape(-1, *self.images.shape[2:])  # (N, K, S, S, 3) -> (N * K, S, S, 3)

    @property
    def flat_expressions(self) -> np.ndarray:
        """float32 (N * K, 21), a view."""
        return self.expressions.reshape(-1, self.expressions.shape[2])  # (N, K, 21) -> (N * K, 21)

    def pick(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` random pairs: flat indices of the reference and of the target, another picture of the same person."""
        images = self.config.images
        person = rng.integers(0, self.config.identities, count)
        reference = rng.integers(0, images, count)
        target = (reference + rng.integers(1, images, count)) % images
        return person * images + reference, person * images + target


def _read_manifest(folder: Path) -> dict:
    try:
        return json.loads((folder / "manifest.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def _write_manifest(folder: Path, manifest: dict) -> None:
    partial = folder / "manifest.json.partial"
    partial.write_text(json.dumps(manifest, indent=1))
    os.replace(partial, folder / "manifest.json")


def _start(folder: Path, config: PairsConfig, mark: str) -> None:
    """Empty arrays and a manifest without chunks; whatever older cache lay here goes."""
    shutil.rmtree(folder, ignore_errors=True)
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
    _write_manifest(folder, {"fingerprint": mark, "config": asdict(config), "chunks": {}})


def _checksum(images, expressions, start: int) -> int:
    rows = slice(start, start + IDENTITIES_PER_CHUNK)
    return zlib.crc32(np.ascontiguousarray(expressions[rows]), zlib.crc32(np.ascontiguousarray(images[rows])))


def _render_all(folder: Path, config: PairsConfig, starts: list[int], workers: int | None):
    """Render chunks, on several processes where there are many; yields (first identity, pictures drawn) as they end."""
    workers = min(workers or os.cpu_count() or 1, len(starts))
    if workers == 1 or len(starts) * IDENTITIES_PER_CHUNK * config.images < 2000:
        for start in starts:
            yield _render_chunk(folder, config, start)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_render_chunk, folder, config, start) for start in starts]):
            yield future.result()


def _render_chunk(folder: Path, config: PairsConfig, start: int) -> tuple[int, int]:
    images = np.load(folder / "images.npy", mmap_mode="r+")
    expressions = np.load(folder / "expressions.npy", mmap_mode="r+")
    last = min(start + IDENTITIES_PER_CHUNK, config.identities)
    for n in range(start, last):
        seed = FIRST_SEED[config.split] + n
        identity = Identity.sample(seed)
        for k in range(config.images):
            picture = seed * 1000 + k  # its own expression and appearance
            expression = Expression.sample(picture)
            expressions[n, k] = expression.to_vector()
            images[n, k] = Avatar(identity, expression, Appearance.sample(picture)).render(config.size)
    return start, (last - start) * config.images
