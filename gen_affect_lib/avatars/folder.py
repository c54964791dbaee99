"""A folder of your own pictures as a dataset, in the layout of Hugging Face's `imagefolder`.

    my_faces/
        metadata.jsonl      one JSON object a line: {"file_name": "ada_01.png", "identity": "ada", "expression": "glee"}
        ada_01.png          file_name may also name a file in a folder below, such as "ada/01.png"
        …

`expression` is an emotion word or "neutral"; or an object of action units ({"au12": 0.8, "au25": 0.4}; others are 0);
or the expression vector as a list of 21 numbers in the order of `Expression.NAMES`. A folder uses one of these forms
throughout; then `datasets.load_dataset("imagefolder", data_dir="my_faces")` reads it as well. Labels of other
collections count as words ("happy" is happiness), see `OTHER_LABELS`.

A line may also have `valence` and `arousal`, both in [-1, 1], and a `text` that describes the picture. Whoever opens
the folder may accept lines without `expression`, see `FaceFolder`.

All lines are checked when the dataset is opened, so a bad one is reported before a training starts. Pictures are read
when they are used.
"""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from gen_affect_lib.avatars.drawing import Avatar
from gen_affect_lib.avatars.factors import Appearance, Expression, Identity
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.pictures import centred, open_picture

METADATA = "metadata.jsonl"
KEYS = ("file_name", "identity", "expression")

# Labels of collections of photographs, and the word of the table that each counts as.
OTHER_LABELS = {
    "happy": "happiness", "sad": "sadness", "angry": "anger", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "disgusted": "disgust", "surprised": "surprise", "contemptuous": "contempt", "calm": "neutral",
    "anxious": "anxiety", "excited": "excitement", "proud": "pride", "amused": "amusement",
    "joyful": "joy", "worried": "worry",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A checked line of metadata.jsonl.

    Attributes:
        expression, vector: as written there, and as a vector float32 (21,); None if the line has no expression.
        affect: valence and arousal, or None.
        text: a description of the picture, or None.
    """

    line: int
    path: Path
    identity: str
    expression: str | dict | list | None
    vector: np.ndarray | None
    affect: tuple[float, float] | None = None
    text: str | None = None


class FaceFolder:
    """Pairs (reference, target) from a folder of pictures: the same identity, two different expressions.

    A person with one picture only makes a pair of the picture with itself. A model trained on such pairs tends to
    copy the reference, with its pose and light, in place of drawing the person; `copies` marks them, and a warning
    counts them.

    Args:
        folder: the folder with `metadata.jsonl`.
        image_size: side in pixels, or width and height. Pictures are cropped around their centre to this shape and made
            smaller, never larger.
        meaning: the expression vector float32 (21,) of a line that has none, such as one that is read from the picture.
            None: every line must have an expression.

    Attributes:
        entries: tuple of `Entry`, in the order of the file.
        images: uint8 (N, height, width, 3), RGB, one per entry; all are read when it is first used.
        vectors: float32 (N, 21), the expression vector of each entry.
        pairs: int64 (P, 2), entries of reference and target; every such pair once.
        copies: bool (P,), whether reference and target are one picture.

    Raises UserError for the first bad line, with its number, and for a bad picture when it is read.
    """

    def __init__(
        self,
        folder: str | Path,
        image_size: int | tuple[int, int] = 64,
        meaning: Callable[[Entry], np.ndarray] | None = None,
    ):
        self.folder = Path(folder)
        self.image_size = image_size
        self.entries = read_metadata(self.folder)
        self.vectors = np.stack([_vector(entry, meaning) for entry in self.entries])
        self.pairs = _pair(self.entries, self.vectors)
        self.copies = self.pairs[:, 0] == self.pairs[:, 1]
        if self.copies.any():
            warnings.warn(
                f"{self.copies.sum()} of {len(self.identities)} people have one picture only, which a model tends to "
                "copy: give more pictures of each, with different expressions",
                stacklevel=2,
            )

    @cached_property
    def images(self) -> np.ndarray:
        return np.stack([self.picture(number) for number in range(len(self.entries))])

    def picture(self, number: int) -> np.ndarray:
        """The picture of an entry, read from its file: uint8 (height, width, 3), RGB."""
        size = self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)
        return _read_picture(self.entries[number], size)

    @property
    def identities(self) -> tuple[str, ...]:
        """The names of the people, without repetition, in the order of the file."""
        return tuple(dict.fromkeys(entry.identity for entry in self.entries))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        """One pair: `reference` and `target` uint8 (height, width, 3), `expression` of the target float32 (21,),
        `identity`, and `copy`, whether both are one picture."""
        reference, target = self.pairs[index]
        return {
            "reference": self.picture(reference),
            "target": self.picture(target),
            "expression": self.vectors[target],
            "identity": self.entries[target].identity,
            "copy": bool(self.copies[index]),
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
        there = next((one for one in entries if one.expression is not None), entry)
        this, other = entry.expression, there.expression
        if this is not None and other is not None and type(this) is not type(other):
            raise UserError(
                f"{METADATA} line {number}: expression is {_form(this)}, but line {there.line} gives "
                f"{_form(other)}: use one form in a folder"
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
    for key in KEYS[:2]:
        if record.get(key) in (None, ""):
            raise UserError(f"{where} has no {key}: give {', '.join(KEYS)}")
    identity, text = record["identity"], record.get("text")
    if text is not None and not isinstance(text, str):
        raise UserError(f"{where}: text is {text!r:.60}: give a description of the picture, or leave it out")
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise UserError(f"{where}: identity is {identity!r:.60}: give a name or a whole number for the person")
    expression = None if record.get("expression") == "" else record.get("expression")
    return Entry(
        line=number,
        path=_locate(record["file_name"], folder, where),
        identity=str(identity),
        expression=expression,
        vector=None if expression is None else parse_expression(expression, where),
        affect=_affect(record, where),
        text=text or None,
    )


def _affect(record: dict, where: str) -> tuple[float, float] | None:
    valence, arousal = record.get("valence"), record.get("arousal")
    if valence is None and arousal is None:
        return None
    for name, value in (("valence", valence), ("arousal", arousal)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1:  # nan as well
            raise UserError(
                f"{where}: {name} is {value!r:.60}: give both valence and arousal, from -1 to 1, or neither"
            )
    assert valence is not None and arousal is not None
    return float(valence), float(arousal)


def _vector(entry: Entry, meaning: Callable[[Entry], np.ndarray] | None) -> np.ndarray:
    if entry.vector is not None:
        return entry.vector
    if meaning is None:
        raise UserError(f"{METADATA} line {entry.line} has no expression: give {', '.join(KEYS)}")
    return meaning(entry)


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
            word = expression.strip().lower()
            return Expression.named(OTHER_LABELS.get(word, word)).to_vector()
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


def _read_picture(entry: Entry, size: tuple[int, int]) -> np.ndarray:
    """The centre of a picture in the shape of `size`, (width, height): uint8 (height, width, 3), RGB."""
    where = f"{METADATA} line {entry.line}"
    picture = open_picture(entry.path, f"{where}:")
    if any(there < wanted for there, wanted in zip(picture.size, size)):
        raise UserError(
            f"{where}: {entry.path.name} is {picture.width} × {picture.height} pixels: give at least {size[0]} × "
            f"{size[1]}, or a smaller image_size"
        )
    return np.asarray(centred(picture, size))


def _pair(entries: Sequence[Entry], vectors: np.ndarray) -> np.ndarray:
    keys = [vector.tobytes() for vector in vectors]
    members: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        members.setdefault(entry.identity, []).append(number)
    for name, people in members.items():
        if len(people) > 1 and len({keys[number] for number in people}) == 1:
            raise UserError(
                f"all {len(people)} pictures of {name!r} show one expression: give at least two different ones"
            )
    return np.array(
        [
            (reference, target)
            for people in members.values()
            for reference in people
            for target in people
            if keys[reference] != keys[target] or len(people) == 1
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
