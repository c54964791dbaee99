"""A folder of your own pictures as a dataset, in the layout of Hugging Face's `imagefolder`.

    my_faces/
        metadata.jsonl      one JSON object a line: {"file_name": "ada_01.png", "identity": "ada", "expression": "glee"}
        ada_01.png          file_name may also name a file in a folder below, such as "ada/01.png"
        …

`expression` is an emotion word or "neutral"; or an object of action units ({"au12": 0.8, "au25": 0.4}; others are 0);
or the expression vector as a list of 21 numbers in the order of `Expression.NAMES`. A folder uses one of these forms
throughout; then `datasets.load_dataset("imagefolder", data_dir="my_faces")` reads it as well.

All entries are read and checked when the dataset is opened, so a bad entry is reported before a training starts.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.pictures import open_picture, square

METADATA = "metadata.jsonl"
KEYS = ("file_name", "identity", "expression")


@dataclass(frozen=True)
class Entry:
    """A checked line of metadata.jsonl: `expression` as written there, `vector` float32 (21,)."""

    line: int
    path: Path
    identity: str
    expression: str | dict | list
    vector: np.ndarray


class FaceFolder:
    """Pairs (reference, target) from a folder of pictures: the same identity, two different expressions.

    Args:
        folder: the folder with `metadata.jsonl`.
        image_size: side in pixels. Pictures are cropped to the centred square and made smaller, never larger.
    Attributes:
        entries: tuple of `Entry`, in the order of the file.
        images: uint8 (N, image_size, image_size, 3), RGB, one per entry.
        vectors: float32 (N, 21), the expression vector of each entry.
        pairs: int64 (P, 2), entries of reference and target; every such pair once.

    Raises UserError for the first bad entry, with its line.
    """

    def __init__(self, folder: str | Path, image_size: int = 64):
        self.folder = Path(folder)
        self.image_size = image_size
        self.entries = read_metadata(self.folder)
        self.images = np.stack([_read_picture(entry, image_size) for entry in self.entries])
        self.vectors = np.stack([entry.vector for entry in self.entries])
        self.pairs = _pair(self.entries)

    @property
    def identities(self) -> tuple[str, ...]:
        """The names of the people, without repetition, in the order of the file."""
        return tuple(dict.fromkeys(entry.identity for entry in self.entries))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        """One pair: `reference` and `target` uint8 (S, S, 3), `expression` of the target float32 (21,), `identity`."""
        reference, target = self.pairs[index]
        return {
            "reference": self.images[reference],
            "target": self.images[target],
            "expression": self.vectors[target],
            "identity": self.entries[target].identity,
        }


# --- reading ---------------------------------------------------------------------------------------------------------


def read_metadata(folder: str | Path) -> tuple[Entry, ...]:
    """Read and check `metadata.jsonl`. The pictures must exist; they are not opened.

    Raises UserError for the first bad line, with its number.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one that holds pictures and {METADATA}")
    path = folder / METADATA
    if not path.is_file():
        below = sorted(found.parent for found in folder.glob(f"*/{METADATA}"))
        hint = f"try {below[0]}" if below else "write one line of JSON for each picture"
        raise UserError(f"{folder} has no {METADATA}: {hint}")
    try:
        # Not str.splitlines: U+2028 and its like may stand in a text of JSON. Windows writes a byte-order mark.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): let this user read it") from error

    entries: list[Entry] = []
    line_of: dict[Path, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _parse_line(line, number, folder)
        if entry.path in line_of:
            raise UserError(
                f"{METADATA} line {number}: {entry.path.name} is in line {line_of[entry.path]} too: remove one"
            )
        if entries and type(entry.expression) is not type(entries[0].expression):
            raise UserError(
                f"{METADATA} line {number}: expression is {_form(entry.expression)}, but line {entries[0].line} gives "
                f"{_form(entries[0].expression)}: use one form in a folder"
            )
        line_of[entry.path] = number
        entries.append(entry)
    if not entries:
        raise UserError(f"{path} is empty: write one line of JSON for each picture")
    return tuple(entries)


def _parse_line(line: str, number: int, folder: Path) -> Entry:
    where = f"{METADATA} line {number}"
    try:
        record = json.loads(line, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg} at column {error.colno}): give one object a line") from None
    except RecursionError:
        raise UserError(f"{where} has too many brackets inside each other: give one flat object a line") from None
    if not isinstance(record, dict):
        raise UserError(f'{where} is not an object: give {{"file_name": …, "identity": …, "expression": …}}')
    for key in KEYS:
        if record.get(key) in (None, ""):
            raise UserError(f"{where} has no {key}: give {', '.join(KEYS)}")
    identity = record["identity"]
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise UserError(f"{where}: identity is {identity!r:.60}: give a name or a whole number for the person")
    expression = record["expression"]
    return Entry(
        line=number,
        path=_locate(record["file_name"], folder, where),
        identity=str(identity),
        expression=expression,
        vector=parse_expression(expression, where),
    )


def _whole_number(digits: str) -> int | str:
    """A number of JSON; as text if it has more digits than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _locate(file_name, folder: Path, where: str) -> Path:
    if not isinstance(file_name, str):
        raise UserError(f"{where}: file_name is {file_name!r:.60}: give a path relative to the folder")
    name = file_name if file_name.isprintable() else ascii(file_name)
    try:
        path = (folder / file_name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL, half a character
        raise UserError(f"{where}: {name:.60} is no name of a file ({error!s:.60}): rename it") from error
    # resolve() also follows links, so neither "../" nor a link reads a file outside the folder.
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{where}: {name:.60} leaves the folder: give a path of a file inside {folder}")
    if not os.path.isfile(path):
        raise UserError(f"{where}: {name:.60} does not exist in {folder}: add the picture or remove the line")
    return path


def parse_expression(expression: str | dict | list, where: str = "expression") -> np.ndarray:
    """An expression as in the metadata (word, object of units, list of 21 numbers) → expression vector, float32 (21,).

    Raises UserError, starting with `where`, for an unknown word or unit and for a number outside its range.
    """
    try:
        if isinstance(expression, str):
            return Expression.named(expression).to_vector()
        if isinstance(expression, dict):
            for name in expression:
                if name not in Expression.NAMES:
                    near = difflib.get_close_matches(name.lower(), Expression.NAMES, n=1)
                    hint = f"did you mean {near[0]}?" if near else "give names such as au12 or gaze_x"
                    raise UserError(f"{name!r:.60} is not one of the {Expression.VECTOR_SIZE} numbers: {hint}")
            # `datasets` adds the units of other lines to each line, with the value null.
            return Expression(**{name: value for name, value in expression.items() if value is not None}).to_vector()
        if isinstance(expression, list):
            if len(expression) != Expression.VECTOR_SIZE:
                raise UserError(f"the list has {len(expression)} numbers: give {Expression.VECTOR_SIZE}")
            return Expression(**dict(zip(Expression.NAMES, expression))).to_vector()
        raise UserError(f"{expression!r:.60} is no expression: give a word, an object of units or a list of numbers")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _form(expression: str | dict | list) -> str:
    return {str: "a word", dict: "an object", list: "a list"}[type(expression)]


def _read_picture(entry: Entry, size: int) -> np.ndarray:
    """The centred square as uint8 (size, size, 3), RGB."""
    where = f"{METADATA} line {entry.line}"
    picture = open_picture(entry.path, f"{where}:")
    width, height = picture.size
    if min(width, height) < size:
        raise UserError(
            f"{where}: {entry.path.name} is {width} × {height} pixels: give at least {size} × {size}, or a smaller "
            "image_size"
        )
    return np.asarray(square(picture, size))


def _pair(entries: tuple[Entry, ...]) -> np.ndarray:
    pictures = Counter(entry.identity for entry in entries)
    expressions = {name: {e.vector.tobytes() for e in entries if e.identity == name} for name in pictures}
    for name, count in pictures.items():
        if count == 1:
            raise UserError(f"identity {name!r} has only one picture: give at least two with different expressions")
        if len(expressions[name]) == 1:
            raise UserError(f"all {count} pictures of {name!r} show one expression: give at least two different ones")
    members = {name: [i for i, entry in enumerate(entries) if entry.identity == name] for name in pictures}
    return np.array(
        [
            (reference, target)
            for people in members.values()
            for reference in people
            for target in people
            if entries[reference].vector.tobytes() != entries[target].vector.tobytes()
        ],
        dtype=np.int64,
    )


# --- writing ---------------------------------------------------------------------------------------------------------


def write_folder(avatars: Iterable[tuple[str, str, Avatar]], folder: str | Path, size: int = 128) -> Path:
    """Draw avatars into a folder that `FaceFolder` reads, with a dataset card. Returns the folder.

    Args:
        avatars: (name of the person, emotion word or "neutral", avatar) for each picture; each person and word once.
        folder: created if needed; pictures with the same names are replaced.
        size: side of a picture in pixels.

    Raises UserError if a person has one word twice.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for person, word, avatar in avatars:
        file_name = f"{person}_{word}.png"
        with atomic(folder / file_name) as partial:
            Image.fromarray(avatar.render(size)).save(partial, optimize=True)
        lines.append(json.dumps({"file_name": file_name, "identity": person, "expression": word}, ensure_ascii=False))
    if len(set(lines)) < len(lines):
        raise UserError(f"a person has one word twice among {len(lines)} pictures: give each person and word once")
    for name, text in (
        (METADATA, "\n".join(lines) + "\n"),
        ("README.md", _CARD.format(pictures=len(lines), size=size)),
    ):
        with atomic(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return folder


SAMPLE_PEOPLE = {"noa": 19, "kim": 9, "sky": 34, "rowan": 16}  # name → number among the validation people
SAMPLE_WORDS = ("neutral", "joy", "surprise", "anger", "sadness", "fear")


def sample_avatars() -> list[tuple[str, str, Avatar]]:
    """The 24 avatars of `data/sample_folder`; clothes and background differ from picture to picture."""
    avatars = []
    for person, number in SAMPLE_PEOPLE.items():
        for word in SAMPLE_WORDS:
            look = Appearance.sample(VALIDATION_SEED + len(avatars))
            avatars.append(
                (person, word, Avatar(Identity.sample(VALIDATION_SEED + number), Expression.named(word), look))
            )
    return avatars


_CARD = """---
pretty_name: Drawn faces with known expressions
license: mit
task_categories:
- image-to-image
size_categories:
- n<1K
---
# Drawn faces with known expressions

{pictures} pictures of {size} × {size} pixels. Every face is drawn from numbers by `gen_affect_lib.avatars`; no person
was photographed, and the names below are nobody's. Clothes and background differ from picture to picture, so that only
the face tells who it is.

`metadata.jsonl` has one line per picture: `file_name`, `identity` (the person), `expression` (an emotion word of
`data/emotions.csv`, or "neutral"). The expressions are FACS action units, listed there: a drawing convention for
teaching, not evidence of what anybody feels.

Read it with `gen_affect_lib.avatars.folder.FaceFolder(folder)`, or with
`datasets.load_dataset("imagefolder", data_dir=folder)`. It was made by `write_folder` in
`gen_affect_lib/avatars/folder.py`; copy its layout for pictures of your own, with the consent of the people on them.
"""
