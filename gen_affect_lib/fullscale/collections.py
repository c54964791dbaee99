"""Converters from public collections of acted expressions to an image folder with `metadata.jsonl`.

Nothing is downloaded: a user brings a copy, whose terms of use are said first.

- RAVDESS (Livingstone & Russo 2018): 24 actors, 8 emotions in two strengths, videos in 720p. The seven numbers of a
  name are modality, vocal channel, emotion, strength, statement, repetition, actor, as in
  Actor_06/02-01-03-02-01-01-06.mp4.
- CREMA-D (Cao et al. 2014): 91 actors, 6 emotions at four levels. A name has actor, sentence, emotion and level, as in
  VideoFlash/1001_DFA_ANG_XX.flv.
- FEAFA+ (Gan et al. 2022, arXiv 2111.02751): 24 action units as numbers from 0 to 1 for each frame. A sequence is a
  folder, as PV057.output, with frames and, beside each, a text file of the same number, as 00000994.auw; so read the
  programs farapy-data-tools (youknowitskyle) and resnet-for-au (jamesjg) on GitHub. The order of the numbers is the one
  in the public code of AUHead (ICLR 2026). The collection's own description was not at hand. Its second part, SN001
  and on, has labels only: the frames are those of DISFA.

Videos become one picture each. With a reader of photographs it is the frame whose reading is nearest to the label;
without one, the frame in the middle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.avatars.folder import METADATA, OTHER_LABELS
from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic
from gen_affect_lib.fullscale.faces import Licence, PhotoReader

VIDEOS, PICTURES = (".mp4", ".flv", ".avi", ".mov"), (".jpg", ".jpeg", ".png", ".bmp")
FRAMES = 7  # of a video that are compared
DISTINCT = 0.3  # smallest distance of two kept frames of one sequence, the largest difference of a unit
NUMBERS = 24  # of a frame of FEAFA+


class Item(NamedTuple):
    """A video or picture, the name of its copy, the person, and the expression vector float32 (21,)."""

    path: Path
    name: str
    identity: str
    vector: np.ndarray


def _labelled(word: str, strength: float) -> np.ndarray:
    return strength * Expression.named(OTHER_LABELS.get(word, word)).to_vector()


# --- the collections -------------------------------------------------------------------------------------------------

RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprise")
RAVDESS_STRENGTHS = {"01": 0.7, "02": 1.0}
CREMA_EMOTIONS = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness"
}  # fmt: skip
CREMA_LEVELS = {"LO": 0.5, "MD": 0.75, "HI": 1.0, "XX": 0.75}


def ravdess(source: Path, order: Sequence[str]) -> Iterator[Item]:
    files = {path: re.fullmatch(r"(\d\d)" + r"-(\d\d)" * 6, path.stem) for path in _files(source, VIDEOS)}
    videos = {path: match.groups() for path, match in files.items() if match and match[1] in ("01", "02")}
    silent = any(numbers[0] == "02" for numbers in videos.values())  # modality 01 is the same footage with sound
    for path, (modality, _, emotion, strength, _, _, actor) in videos.items():
        if (modality == "02") == silent and 1 <= int(emotion) <= 8 and strength in RAVDESS_STRENGTHS:
            word = RAVDESS_EMOTIONS[int(emotion) - 1]
            name = f"actor{actor}/{path.stem}.png"
            yield Item(path, name, f"ravdess {actor}", _labelled(word, RAVDESS_STRENGTHS[strength]))


def crema_d(source: Path, order: Sequence[str]) -> Iterator[Item]:
    for path in _files(source, VIDEOS):
        match = re.fullmatch(r"(\d{4})_[A-Z]{3}_([A-Z]{3})_([A-Z]{2})", path.stem)
        if match and match[2] in CREMA_EMOTIONS and match[3] in CREMA_LEVELS:
            vector = _labelled(CREMA_EMOTIONS[match[2]], CREMA_LEVELS[match[3]])
            yield Item(path, f"actor{match[1]}/{path.stem}.png", f"crema-d {match[1]}", vector)


# Eyes closed, lids raised, brows lowered, brows raised, each left and right; jaw drop; lower lip to the left, right;
# corners of the mouth raised, stretched, each left and right; upper, lower lip sucked; jaw forward; upper lip raised;
# lower lip lowered; chin raised; lips puckered; cheeks puffed; nose wrinkled. The kit has no unit for those with -.
FEAFA_UNITS = (
    *("au43", "au43", "au5", "au5", "au4", "au4", "au1+au2", "au1+au2", "au25+au26", "-", "-"),
    *("au12", "au12", "au20", "au20", "-", "-", "-", "au10", "-", "au17", "-", "-", "au9"),
)


def feafa(source: Path, order: Sequence[str]) -> Iterator[Item]:
    kept: dict[Path, list[np.ndarray]] = {}
    for path in _files(source, PICTURES):
        number = path.with_name(path.name.replace("_crop", ""))  # a cut frame, as 00000994_crop.jpg
        labels = next(
            (found for kind in (".auw", ".txt", ".csv") if (found := number.with_suffix(kind)).is_file()), None
        )
        if labels is None or path.parent == source:
            continue
        vector = _from_units(labels, order or FEAFA_UNITS)
        of_sequence = kept.setdefault(path.parent, [])
        if all(np.abs(vector - other).max() >= DISTINCT for other in of_sequence):
            of_sequence.append(vector)
            relative = path.relative_to(source)
            name = relative.with_suffix(".png").as_posix()
            sequence = re.search(r"(?:PV|SN)\d{3}", relative.parent.as_posix())
            yield Item(path, name, f"feafa {sequence[0] if sequence else relative.parts[0]}", vector)


def _from_units(path: Path, order: Sequence[str]) -> np.ndarray:
    """The expression vector of a file of numbers. A unit that is named several times (left, right) gets the mean."""
    try:
        numbers = [float(one) for one in re.split(r"[\s,;]+", path.read_text().strip())]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} holds no numbers ({error!s:.80}): give {len(order)} between spaces or commas"
        ) from error
    if len(numbers) != len(order) or not all(0 <= number <= 1 for number in numbers):
        raise UserError(f"{path} holds {len(numbers)} numbers: give {len(order)} from 0 to 1")
    values: dict[str, list[float]] = {}
    for units, number in zip(order, numbers):
        for unit in units.split("+"):
            if unit != "-":
                values.setdefault(unit, []).append(number)
    return Expression(**{unit: float(np.mean(some)) for unit, some in values.items()}).to_vector()


def read_order(path: Path) -> list[str]:
    """The units of 24 numbers, one line each: "au12", "au1+au2", or "-" for one that the kit does not have.

    Raises UserError for another count, and for a unit that does not exist.
    """
    try:
        order = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: give a text file with a unit or - in each line") from error
    unknown = [unit for line in order for unit in line.split("+") if unit != "-" and unit not in Expression.NAMES]
    if unknown:
        raise UserError(f"{path} names {unknown[0]}: give units such as au12 or au1+au2, or -, one a line")
    if len(order) != NUMBERS:
        raise UserError(f"{path} has {len(order)} lines: give {NUMBERS}, one for each number of a frame")
    return order


@dataclass(frozen=True)
class Collection:
    """A public collection: its terms of use, and how its files are found."""

    licence: Licence
    find: Callable[[Path, Sequence[str]], Iterator[Item]]


COLLECTIONS = {
    "ravdess": Collection(
        Licence("RAVDESS", "CC BY-NC-SA 4.0, not for commercial use", "https://zenodo.org/records/1188976"), ravdess
    ),
    "crema-d": Collection(
        Licence(
            "CREMA-D",
            "Open Database License 1.0, contents under the Database Contents License",
            "https://github.com/CheyneyComputerScience/CREMA-D",
        ),
        crema_d,
    ),
    "feafa": Collection(Licence("FEAFA+", "given for research on request", "https://www.iiplab.net/feafa+"), feafa),
}


def _files(source: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


# --- the conversion --------------------------------------------------------------------------------------------------


def convert(name: str, source: Path, folder: Path, reader: PhotoReader | None = None, order: Sequence[str] = ()) -> int:
    """Write an image folder from a copy of a collection; returns the number of pictures.

    Pictures that are there already are kept, so an interrupted conversion continues. Raises UserError for an unknown
    name, if the source holds no files of the collection's layout, and for a video that cannot be read.
    """
    if name not in COLLECTIONS:
        raise UserError(f"there is no converter for {name!r:.40}: give one of {', '.join(COLLECTIONS)}")
    if not source.is_dir():
        raise UserError(f"{source} is no folder: give your copy of {COLLECTIONS[name].licence.of}")
    items = list(COLLECTIONS[name].find(source, order))
    if not items:
        raise UserError(
            f"{source} holds no files named as in {COLLECTIONS[name].licence.of}: give the folder of your copy"
        )
    lines = []
    for item in tqdm(items, desc=name, unit="picture"):
        path = folder / item.name
        if not path.is_file():
            with atomic(path) as partial:
                _picture(item, reader).save(partial)
        units = {unit: round(float(value), 4) for unit, value in zip(Expression.NAMES, item.vector) if value}
        lines.append(json.dumps({"file_name": item.name, "identity": item.identity, "expression": units}))
    with atomic(folder / METADATA) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def _picture(item: Item, reader: PhotoReader | None) -> Image.Image:
    if item.path.suffix.lower() in PICTURES:
        return Image.open(item.path).convert("RGB")
    return nearest_frame(frames(item.path), item.vector, reader)


def frames(path: Path, count: int = FRAMES) -> list[Image.Image]:
    """Frames of a video, evenly spaced over its middle half. Raises UserError if it cannot be read."""
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(total // 4, max(total // 4, 3 * total // 4 - 1), count).round().astype(int).tolist())
    found = []
    for number in range(max(total, 0)):  # one after the other: some formats cannot be searched
        ok, frame = video.read()
        if not ok:
            break
        if number in wanted:
            found.append(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))
    video.release()
    if not found:
        raise UserError(f"{path} is no video that can be read: copy it again, or remove it")
    return found


def nearest_frame(found: list[Image.Image], vector: np.ndarray, reader: PhotoReader | None) -> Image.Image:
    """The frame whose reading is nearest to an expression vector (21,); without a reader, the middle one."""
    if reader is None:
        return found[len(found) // 2]
    distances = []
    for frame in found:
        try:
            distances.append(float(((reader(frame).expression.to_vector() - vector) ** 2).sum()))
        except UserError:  # no face in this frame
            distances.append(np.inf)
    return found[int(np.argmin(distances))]
