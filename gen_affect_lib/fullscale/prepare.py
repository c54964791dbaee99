"""Photographs prepared for training: framed, read and encoded once, and kept in a folder.

The base's VAE and text encoders are needed here and not in training. Each picture has a file of its own, named after
its content and everything else that the file depends on, so an interrupted preparation continues where it was, and a
changed picture is prepared anew. `prepared.json` is written last.

    FOLDER/
        prepared.json           what it was made of, and one row for each picture
        expressions.npy         the expression of each row
        pictures/KEY.npz        latents, identity and landmarks of a picture
        texts/KEY.npz           tokens and pooled vector of a text

Letters: M pictures, V views of E numbers, C channels and h, w sides of the latents, L text tokens of T channels, P
channels of the pooled text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from gen_affect_lib.avatars.folder import METADATA, Entry, read_metadata
from gen_affect_lib.encoders.pack import FACE_READING
from gen_affect_lib.encoders.protocols import IdentityEncoder
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.fullscale.faces import portrait, representation
from gen_affect_lib.keys import Producer, digest, fingerprint, key
from gen_affect_lib.pictures import open_picture
from gen_affect_lib.tensors import to_tensor

PREPARED = Producer("prepared photographs", 1, uses=(FACE_READING,))
INDEX, EXPRESSIONS = "prepared.json", "expressions.npy"
NO_TEXT = ""  # the prompt of guidance, and of pictures without a text


class Encodes(Protocol):
    """What is used of `fullscale.base.Base`."""

    def encode(self, pictures: Tensor) -> Tensor: ...

    def encode_prompts(self, prompts: list[str]) -> Any: ...


@dataclass(frozen=True)
class Settings:
    """How pictures are prepared.

    Attributes:
        size: width and height in pixels, multiples of 16.
        default_text: the prompt of pictures without a `text`.
        framed: frame each picture around its face; False takes the centre of pictures that are framed already.

    Raises UserError for another size.
    """

    size: tuple[int, int] = (512, 512)
    default_text: str = "a photograph of a person"
    framed: bool = True

    def __post_init__(self):
        if any(side < 16 or side % 16 for side in self.size):
            raise UserError(f"a size of {self.size[0]} × {self.size[1]} pixels: give multiples of 16, such as 512x512")


@dataclass(frozen=True)
class Row:
    """A prepared picture: line and name in the folder of photographs, person, and the keys of picture and text."""

    line: int
    file_name: str
    identity: str
    picture: str
    text: str


def prepare(
    base: Encodes,
    base_mark: str,
    data: Path,
    faces: IdentityEncoder,
    meaning: Callable[[Entry], np.ndarray],
    folder: Path,
    settings: Settings,
    batch_size: int = 4,
    skip: Callable[[str], object] | None = None,
) -> Prepared:
    """Prepare an image folder. Called again, it continues or finds everything done.

    Args:
        base: encodes pictures and texts.
        base_mark: `mark_of` the base's VAE and text encoders.
        data: a folder with `metadata.jsonl`, see `avatars.folder`.
        faces: reads identity and landmarks.
        meaning: the expression vector of a line without expression.
        folder: is written to.
        skip: gets the message of a picture that cannot be used, which is then left out; None: the first one ends the
            preparation with a UserError.
    """
    entries = read_metadata(data)
    made_with = {
        "base": base_mark,
        "faces": list(faces.weights),
        "size": list(settings.size),
        "framed": settings.framed,
    }
    rows, expressions, waiting = [], [], []
    prompts = {entry.text or settings.default_text for entry in entries} | {NO_TEXT}
    text_keys = {prompt: key(PREPARED, {"text": prompt, "base": base_mark}) for prompt in sorted(prompts)}
    for prompt, name in tqdm(text_keys.items(), desc="Texts", unit="text", leave=False):
        _prepare_text(base, prompt, folder / "texts" / f"{name}.npz")

    for entry in tqdm(entries, desc="Reading and encoding", unit="picture"):
        name = key(PREPARED, made_with | {"picture": digest(entry.path.read_bytes())})
        path = folder / "pictures" / f"{name}.npz"
        try:
            vector = entry.vector if entry.vector is not None else meaning(entry)
            if _load(path) is None:
                waiting.append((path, *_read(entry, faces, settings)))
        except UserError as error:
            message = str(error) if str(error).startswith(METADATA) else f"{METADATA} line {entry.line}: {error}"
            if skip is None:
                raise UserError(message) from error
            skip(message)
            continue
        if len(waiting) >= batch_size:
            _encode(base, waiting)
        file_name = entry.path.relative_to(data.resolve()).as_posix()
        rows.append(Row(entry.line, file_name, entry.identity, name, text_keys[entry.text or settings.default_text]))
        expressions.append(representation(vector, entry.affect))
    _encode(base, waiting)
    if not rows:
        raise UserError(f"none of the {len(entries)} pictures in {data} can be used: see the messages above")
    with atomic(folder / EXPRESSIONS) as partial:
        np.save(partial, np.stack(expressions))
    index = made_with | {
        "expressions": fingerprint(folder / EXPRESSIONS),
        "recognizer": faces.mark,
        "no_text": text_keys[NO_TEXT],
        "versions": PREPARED.versions,
        "rows": [vars(row) for row in rows],
    }
    write_json(folder / INDEX, index, indent=0)
    return Prepared(folder)


def _prepare_text(base: Encodes, prompt: str, path: Path) -> None:
    if _load(path) is not None:
        return
    with torch.no_grad():
        prompts = base.encode_prompts([prompt])
    _save(path, tokens=prompts.tokens[0], pooled=prompts.pooled[0])


def _read(entry: Entry, faces: IdentityEncoder, settings: Settings) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """The framed picture of an entry, the identity tokens (V, E), and the landmarks (5, 2) as fractions."""
    picture = open_picture(entry.path, f"{METADATA} line {entry.line}:")
    face: Any = faces.one(picture, "largest", name=entry.path.name)
    if settings.framed:
        framed, places = portrait(picture, face.landmarks, settings.size)
        return framed, face.tokens, places
    if picture.size != settings.size:
        raise UserError(
            f"{entry.path.name} is {picture.width} × {picture.height} pixels, not {settings.size[0]} × "
            f"{settings.size[1]}: give pictures of that size"
        )
    return picture, face.tokens, (face.landmarks / picture.size).astype(np.float32)


@torch.no_grad()
def _encode(base: Encodes, waiting: list) -> None:
    """Encode and save the pictures that wait, and empty the list."""
    if not waiting:
        return
    paths, pictures, tokens, places = zip(*waiting)
    latents = base.encode(to_tensor(np.stack([np.asarray(picture) for picture in pictures])))  # (B, C, h, w)
    for path, latent, identity, landmarks in zip(paths, latents, tokens, places):
        _save(path, latents=latent, identity=torch.from_numpy(identity), landmarks=torch.from_numpy(landmarks))
    waiting.clear()


def _save(path: Path, **tensors: Tensor) -> None:
    arrays: dict[str, Any] = {
        name: tensor.detach().float().cpu().numpy().astype(np.float16) for name, tensor in tensors.items()
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"{path.parent.name} of the base are not finite in half precision: give a base in float32")
    with atomic(path) as partial:
        np.savez(partial, **arrays)


def _load(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None if it is missing or damaged, which its checksums show."""
    try:
        with np.load(path) as file:
            return dict(file)
    except Exception:  # numpy and zipfile raise all kinds of errors
        return None


def mark_of(folder: Path, parts: Sequence[str]) -> str:
    """A fingerprint of some parts of a base: configurations, and size and first and last MB of each file of weights.

    Hashing all of it would take minutes for a text encoder of 10 GB.
    """
    pieces = []
    for part in parts:
        for file in sorted((folder / part).rglob("*")):
            if file.suffix == ".json":
                pieces += [file.relative_to(folder).as_posix().encode(), file.read_bytes()]
            elif file.suffix == ".safetensors":
                size = file.stat().st_size
                with open(file, "rb") as opened:
                    head = opened.read(1_000_000)
                    opened.seek(max(0, size - 1_000_000))
                    pieces += [file.relative_to(folder).as_posix().encode(), str(size).encode(), head, opened.read()]
    return digest(*pieces)


# --- reading what was prepared ---------------------------------------------------------------------------------------


class Prepared:
    """A prepared folder. Raises UserError if it is not complete.

    Attributes:
        index: what `prepared.json` holds.
        rows: list of `Row`.
        expressions: float32 (M, 48).
        mark: changes with everything that training uses of it.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.index = json.loads((self.folder / INDEX).read_text())
            self.rows = [Row(**row) for row in self.index["rows"]]
            self.expressions = np.load(self.folder / EXPRESSIONS)
            if fingerprint(self.folder / EXPRESSIONS) != self.index["expressions"]:
                raise ValueError("its expressions are of another preparation")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.folder} holds no prepared photographs: run `python -m gen_affect_lib fullscale prepare` first"
            ) from error
        self.mark = f"prepared {digest(json.dumps(self.index, sort_keys=True).encode())}"
        self.text = lru_cache(maxsize=512)(self._text)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h and w."""
        return self._picture(0)["latents"].shape

    def latents(self, number: int) -> np.ndarray:
        """float32 (C, h, w)."""
        return self._picture(number)["latents"].astype(np.float32)

    def identity(self, number: int) -> np.ndarray:
        """float32 (V, E)."""
        return self._picture(number)["identity"].astype(np.float32)

    def landmarks(self, most: int = 100) -> np.ndarray:
        """The landmarks of at most so many pictures, spread over all: float32 (·, 5, 2), as fractions."""
        chosen = np.unique(np.linspace(0, len(self) - 1, most).round().astype(int))
        return np.stack([self._picture(int(number))["landmarks"] for number in chosen]).astype(np.float32)

    def _text(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens float32 (L, T) and pooled vector (P,) of a text, by its key."""
        arrays = self._require(self.folder / "texts" / f"{name}.npz")
        return arrays["tokens"].astype(np.float32), arrays["pooled"].astype(np.float32)

    def _picture(self, number: int) -> dict[str, np.ndarray]:
        return self._require(self.folder / "pictures" / f"{self.rows[number].picture}.npz")

    def _require(self, path: Path) -> dict[str, np.ndarray]:
        arrays = _load(path)
        if arrays is None:
            raise UserError(f"{path} is missing or damaged: run `python -m gen_affect_lib fullscale prepare` again")
        return arrays


class FacePairs:
    """Pairs of prepared pictures for the trainer, see `training.generator.Data`. A batch depends only on seed and step.

    Targets are drawn evenly. The reference is another picture of the same person, with another expression where there
    is one; the picture itself if it is the person's only one. With five or more people every fifth one is held out;
    with fewer, validation uses the pairs of training and does not measure generalisation.

    Attributes:
        alone: how many people of the training have one picture only.
    """

    def __init__(self, prepared: Prepared, seed: int = 0, drop_text: float = 0.1):
        self.prepared, self.seed, self.drop_text = prepared, seed, drop_text
        people: dict[str, list[int]] = {}
        for number, row in enumerate(prepared.rows):
            people.setdefault(row.identity, []).append(number)
        names = list(people)
        held = names[4::5] if len(names) >= 5 else names
        trained = [name for name in names if name not in set(held)] if len(names) >= 5 else names
        self.trained, self.held_out = (
            np.array([number for name in some for number in people[name]]) for some in (trained, held)
        )
        self.of_person = people
        self.alone = sum(len(people[name]) == 1 for name in trained)

    def batch(self, step: int, batch_size: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        targets = rng.choice(self.trained, batch_size)
        return self._at(rng, targets, self.drop_text)

    def validation(self, size: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(0)
        return self._at(rng, rng.choice(self.held_out, size), 0.0)

    def _at(self, rng: np.random.Generator, targets: np.ndarray, drop_text: float) -> dict[str, Tensor]:
        """`identity` (B, V, E), `expression` (B, 48), `target` (B, C, h, w), `text` (B, L, T), `pooled` (B, P)."""
        references = [self._reference(rng, int(target)) for target in targets]
        texts = [
            self.prepared.text(self.prepared.index["no_text"] if drop else self.prepared.rows[target].text)
            for target, drop in zip(targets, rng.random(len(targets)) < drop_text)
        ]
        arrays = {
            "identity": [self.prepared.identity(reference) for reference in references],
            "expression": self.prepared.expressions[targets],
            "target": [self.prepared.latents(int(target)) for target in targets],
            "text": [tokens for tokens, _ in texts],
            "pooled": [pooled for _, pooled in texts],
        }
        return {name: torch.from_numpy(np.stack(some)) for name, some in arrays.items()}

    def _reference(self, rng: np.random.Generator, target: int) -> int:
        own, shown = self.of_person[self.prepared.rows[target].identity], self.prepared.expressions
        others = [number for number in own if number != target]
        differing = [number for number in others if not np.array_equal(shown[number], shown[target])]
        choices = differing or others or [target]
        return int(choices[rng.integers(len(choices))])
