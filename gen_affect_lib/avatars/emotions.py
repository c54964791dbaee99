"""The emotion words of `data/emotions.csv`: their place in the tree, their action units, valence and arousal.

The tree (6 families, 25 groups, 135 words) is from Shaver, Schwartz, Kirson & O'Connor 1987, who clustered card sorts.
It is one model of how English speakers group emotion words, and has been criticised (Alvarado 1998).

The faces are FACS action units (Ekman & Friesen). The column `provenance` says where the units of a word come from:
    prototype  a published table lists this emotion (Du, Tao & Martinez 2014; others as cited by Keltner 2019 and
               Cordaro 2018). The table says *which* units move; the intensities are ours.
    derived    from the prototype of a similar word, by the rule that `note` states.
    authored   ours, for teaching.
Valence and arousal are coarse values of our own; `load_vad` reads measured ones from your copy of NRC-VAD.

Everything about words is derived from the table: to add a word, add a row.
"""

from __future__ import annotations

import csv
import difflib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer
from gen_affect_lib.paths import DATA

EMOTION_TABLE = Producer("emotion table", 1, data=(DATA / "emotions.csv",))

UNIT_COLUMNS = tuple(f"au{unit}" for unit in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 24, 25, 26, 43))
POSE_COLUMNS = ("gaze_x", "gaze_y", "head_yaw", "head_pitch")
EXPRESSION_COLUMNS = UNIT_COLUMNS + POSE_COLUMNS  # the order of Expression.NAMES
PROVENANCES = ("prototype", "derived", "authored")

# The range of each column.
RANGES = dict.fromkeys(UNIT_COLUMNS, (0.0, 1.0)) | dict.fromkeys((*POSE_COLUMNS, "valence", "arousal"), (-1.0, 1.0))
COLUMNS = ("word", "family", "group", *EXPRESSION_COLUMNS, "valence", "arousal", "provenance", "note")

# Pairs of words whose faces are intentionally alike. A test checks that all other pairs are distinguishable.
SYNONYMS: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Emotion:
    """One row of the table. `expression_vector` has 21 numbers in the order of `Expression.NAMES`."""

    word: str
    family: str
    group: str
    expression_vector: tuple[float, ...]
    valence: float  # -1 unpleasant … 1 pleasant
    arousal: float  # -1 asleep … 1 wide awake
    provenance: str
    note: str


def read_table(path: Path) -> dict[str, Emotion]:
    """Read and check a table of emotions, word → Emotion in the order of the file.

    Raises UserError with the line and the column of the first wrong value.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: restore it from the repository, or unset GEN_AFFECT_DATA")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            odd = sorted(set(COLUMNS) ^ set(reader.fieldnames or ())) or ["their order"]
            raise UserError(f"{path.name} has other columns than expected ({', '.join(odd)}): give {','.join(COLUMNS)}")
        emotions: dict[str, Emotion] = {}
        family_of: dict[str, str] = {}
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            emotion = _parse(row, where)
            if emotion.word in emotions:
                raise UserError(f"{where}: {emotion.word!r} is in the table twice: remove one")
            if family_of.setdefault(emotion.group, emotion.family) != emotion.family:
                raise UserError(
                    f"{where}: group {emotion.group!r} belongs to family {family_of[emotion.group]!r}, not to "
                    f"{emotion.family!r}: give each group one family"
                )
            emotions[emotion.word] = emotion
    if not emotions:
        raise UserError(f"{path.name} has no emotions: give one line for each word")
    return emotions


def _parse(row: dict, where: str) -> Emotion:
    if None in row or None in row.values():
        raise UserError(f"{where}: give exactly {len(COLUMNS)} values, and quote a note that holds a comma")
    for column in ("word", "family", "group", "note"):
        if not row[column].strip():
            raise UserError(f"{where}: {column} is empty: give some text")
    if row["provenance"] not in PROVENANCES:
        raise UserError(f"{where}: provenance is {row['provenance']!r}: give one of {', '.join(PROVENANCES)}")
    numbers = {}
    for column, (low, high) in RANGES.items():
        try:
            numbers[column] = float(row[column])
        except ValueError:
            numbers[column] = math.nan
        if not low <= numbers[column] <= high:  # false for nan as well
            raise UserError(f"{where}: {column} is {row[column]!r}: give a number from {low:g} to {high:g}")
    return Emotion(
        word=row["word"],
        family=row["family"],
        group=row["group"],
        expression_vector=tuple(numbers[column] for column in EXPRESSION_COLUMNS),
        valence=numbers["valence"],
        arousal=numbers["arousal"],
        provenance=row["provenance"],
        note=row["note"],
    )


@lru_cache(maxsize=1)
def _table() -> dict[str, Emotion]:
    return read_table(DATA / "emotions.csv")


def table() -> dict[str, Emotion]:
    """Word → Emotion, in the order of `data/emotions.csv`."""
    return dict(_table())


def emotion(word: str) -> Emotion:
    """The emotion of a word. Raises UserError, with the most similar words, if the table does not have it."""
    if not isinstance(word, str):
        raise UserError(f"the emotion is {word!r:.60}: give a word, such as 'glee'")
    known = _table()
    key = word.strip().lower()
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key[:60], known, n=3, cutoff=0.6)
    # "happy" and "sad" are not in the table, but words with the same first letters are.
    near += [other for other in known if len(key) >= 3 and other[:3] == key[:3] and other not in near]
    hint = "did you mean " + ", ".join(near[:4]) + "?" if near else "see gen_affect_lib.avatars.EMOTIONS"
    raise UserError(f"{word!r:.60} is not one of the {len(known)} emotion words: {hint}")


def families() -> dict[str, tuple[str, ...]]:
    """Family → its groups, both in the order of the table."""
    tree: dict[str, dict[str, None]] = {}
    for one in _table().values():
        tree.setdefault(one.family, {})[one.group] = None
    return {family: tuple(names) for family, names in tree.items()}


def groups() -> dict[str, tuple[str, ...]]:
    """Group → its words, both in the order of the table."""
    tree: dict[str, list[str]] = {}
    for one in _table().values():
        tree.setdefault(one.group, []).append(one.word)
    return {group: tuple(words) for group, words in tree.items()}


def tree_distance(a: str, b: str) -> int:
    """The distance of two words in the tree: 0 the same word, 1 the same group, 2 the same family, 3 neither."""
    one, other = emotion(a), emotion(b)
    if one.word == other.word:
        return 0
    if one.group == other.group:
        return 1
    return 2 if one.family == other.family else 3


@lru_cache(maxsize=1)
def branches() -> dict[int, np.ndarray]:
    """Number of classes (6 families, 25 groups, 135 words) → the class of each word, int (W,)."""
    rows = list(_table().values())
    return {
        len(FAMILIES): np.array([FAMILIES.index(row.family) for row in rows]),
        len(GROUPS): np.array([GROUPS.index(row.group) for row in rows]),
        len(EMOTIONS): np.arange(len(rows)),
    }


def membership(classes: int) -> np.ndarray:
    """float32 (W, classes): 1 where a word belongs to a class. `classes` is one of `LEVELS`."""
    return np.eye(classes, dtype=np.float32)[branches()[classes]]


def class_probabilities(words: np.ndarray, classes: int) -> np.ndarray:
    """Sum probabilities of the words (…, W) within each class: float64 (…, classes).

    Raises UserError for another number of classes than those of `LEVELS`.
    """
    if classes not in LEVELS:
        names = zip(LEVELS, ("families", "groups", "words"))
        raise UserError(
            f"there are no {classes} classes: give {', '.join(f'{count} ({name})' for count, name in names)}"
        )
    return words @ membership(classes).astype(float)  # (…, W) @ (W, classes)


def load_vad(path: str | Path, low: float = 0.0) -> dict[str, tuple[float, float, float]]:
    """Valence, arousal and dominance from your own copy of the NRC-VAD lexicon (Mohammad 2018).

    The licence of the lexicon forbids redistribution, so the kit has no copy. The file has four tab-separated columns:
    term, valence, arousal, dominance.

    Args:
        path: your copy.
        low: the lowest value of its scale, 0 (first version) or -1 (second); the highest is 1.
    Returns:
        word → (valence, arousal, dominance), each rescaled to [-1, 1], for the words of the table that the file lists.
        Raises UserError for a file that is missing, malformed or on another scale.
    """
    path = Path(path)
    if low not in (0, -1):
        raise UserError(f"low is {low!r}: give 0 for the first version of NRC-VAD, -1 for the second")
    if not path.is_file():
        raise UserError(f"{path} is not a file: give the path of your own copy of NRC-VAD")
    rows = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path.name} is not a text file: give the tab-separated lexicon") from None
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and cells[-1].strip().lower() == "dominance"):
            continue
        try:
            values = [float(cell) for cell in cells[1:]]
        except ValueError:
            values = []
        if len(values) != 3:
            raise UserError(f"{path.name} line {number}: give term, valence, arousal and dominance between tabs")
        if not all(low <= value <= 1 for value in values):
            raise UserError(f"{path.name} line {number}: {line.strip()!r} is not in {low:g} … 1: try low={-1 - low:g}")
        rows[cells[0].strip().lower()] = values
    if low == -1 and rows and min(map(min, rows.values())) >= 0:
        raise UserError(f"{path.name} has no negative value, so its scale starts at 0: try low=0")
    found = {word: rows[word] for word in EMOTIONS if word in rows}
    if not found:
        raise UserError(f"{path.name} lists none of the {len(EMOTIONS)} words: give the English lexicon")
    scaled = {word: [2 * (value - low) / (1 - low) - 1 for value in values] for word, values in found.items()}
    return {word: (valence, arousal, dominance) for word, (valence, arousal, dominance) in scaled.items()}


EMOTIONS: tuple[str, ...] = tuple(_table())
FAMILIES, GROUPS = tuple(families()), tuple(groups())
LEVELS = (len(FAMILIES), len(GROUPS), len(EMOTIONS))  # the numbers of classes: 6, 25 and 135
