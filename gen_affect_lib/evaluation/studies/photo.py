"""What the reading of expressions from pictures of heads finds: rendered heads whose action units are known.

    python -m gen_affect_lib compare photo

The people were never trained on. Three kinds of pictures: each unit alone at three strengths in three poses; mixtures
of 2 to 5 units; and words of the table, for the 25 groups. The table of blendshapes alone is the state before the
learned model.

Letters: N pictures, U = 17 units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars.emotions import EMOTIONS, GROUPS, branches, class_probabilities
from gen_affect_lib.avatars.factors import ACTION_UNITS, Expression
from gen_affect_lib.encoders.affect import posterior
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.keys import key
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import CACHE, REFERENCE
from gen_affect_lib.photo.heads import Person, Scene, render_head
from gen_affect_lib.photo.landmarker import SHA256, Face, FaceLandmarker
from gen_affect_lib.photo.units import UnitModel, face_crop, read_crop
from gen_affect_lib.training.photo import RENDERED, Sample

UNITS = tuple(f"au{unit}" for unit in ACTION_UNITS)
POSES = ((0.0, 0.0), (0.6, 0.1), (-0.4, -0.5))  # head_yaw and head_pitch: 21 degrees right; 14 left and 12 down
STRENGTHS = (0.35, 0.7, 1.0)


@dataclass(frozen=True)
class HeadsPlan:
    """Which pictures are made: of the people from seed `first` on. Mixtures and words are counts of all pictures."""

    first: int
    people: int = 6
    mixtures: int = 200
    words: int = 270

    def samples(self) -> Iterable[Sample]:
        """Person, expression and scene of each picture: single units, then mixtures, then words."""
        people = [Person.sample(self.first + one) for one in range(self.people)]
        for index, (who, expression) in enumerate(self._expressions()):
            yield people[who], expression, Scene.sample(self.first + index)

    def _expressions(self) -> Iterable[tuple[int, Expression]]:
        for who in range(self.people):
            for yaw, pitch in POSES:
                for unit in UNITS:
                    for strength in STRENGTHS:
                        yield who, Expression(head_yaw=yaw, head_pitch=pitch, **{unit: strength})
        for index in range(self.mixtures):
            rng = np.random.default_rng([31, self.first, index])
            chosen = rng.choice(UNITS, rng.integers(2, 6), replace=False)
            yaw, pitch = POSES[index % len(POSES)]
            strengths = rng.uniform(0.2, 1, len(chosen)).tolist()
            yield index % self.people, Expression(head_yaw=yaw, head_pitch=pitch, **dict(zip(chosen, strengths)))
        for index in range(self.words):
            # Every word equally often, by different people.
            yield (index + index // len(EMOTIONS)) % self.people, Expression.named(EMOTIONS[index % len(EMOTIONS)])

    @property
    def kinds(self) -> dict[str, slice]:
        singles = self.people * len(POSES) * len(UNITS) * len(STRENGTHS)
        ends = np.cumsum([0, singles, self.mixtures, self.words]).tolist()
        return {name: slice(*ends[k : k + 2]) for k, name in enumerate(("units", "mixtures", "words"))}


Found = tuple[Face, np.ndarray]  # a face and its crop, uint8 (S, S)


def faces_of(plan: HeadsPlan, chunk: int = 100) -> tuple[list[Found | None], np.ndarray]:
    """The faces found in a plan's pictures, None where none was, and the true expression vectors (N, 21).

    Read from the cache where they are there; written to it every `chunk` pictures.
    """
    samples = list(plan.samples())
    faces, landmarker = [], None
    for start in range(0, len(samples), chunk):
        path = CACHE / "heads" / f"{key(RENDERED, {'plan': vars(plan), 'start': start, 'size': chunk}, SHA256)}.npz"
        if not path.is_file():
            landmarker = landmarker or FaceLandmarker.load()
            pictures = [render_head(*sample) for sample in samples[start : start + chunk]]
            found = [landmarker.faces(picture)[:1] for picture in pictures]
            _save(path, [(some[0], face_crop(picture, some[0])) if some else None for picture, some in zip(pictures, found)])
        faces += _load(path)
    return faces, np.stack([expression.to_vector() for _, expression, _ in samples])


NAMES = tuple(Face.__dataclass_fields__)


def _save(path: Path, faces: list[Found | None]) -> None:
    there = [one for one in faces if one]
    fields = {name: np.array([vars(face)[name] for face, _ in there]) for name in NAMES}
    with atomic(path) as partial:
        np.savez(partial, there=[one is not None for one in faces], crops=[crop for _, crop in there], **fields)


def _load(path: Path) -> list[Found | None]:
    with np.load(path) as file:
        arrays = dict(file)
    rows = zip(*(arrays[name] for name in NAMES), arrays["crops"])
    there = iter([(Face(*values), crop) for *values, crop in rows])
    return [next(there) if one else None for one in arrays["there"]]


def accuracy(read: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Of each unit, from vectors (N, 21): "correlation" (Pearson) and "error" (mean absolute), and their "mean"."""
    rows = {}
    for index, unit in enumerate(UNITS):
        one, other = read[:, index], truth[:, index]
        spread = one.std() * other.std()
        correlation = float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > 1e-9 else 0.0
        rows[unit] = {"correlation": correlation, "error": float(np.abs(one - other).mean())}
    rows["mean"] = {name: float(np.mean([row[name] for row in rows.values()])) for name in ("correlation", "error")}
    return rows


def right_groups(read: np.ndarray, words: np.ndarray) -> float:
    """The share of vectors (N, 21) whose likeliest of the 25 groups, by the closed form, is that of their words (N,)."""
    groups = class_probabilities(posterior(read)[:, :-1], len(GROUPS)).argmax(axis=1)
    return float((groups == branches()[len(GROUPS)][words]).mean())


def measure(plan: HeadsPlan, model: UnitModel) -> dict:
    """The figures of a plan's people, before (blendshapes alone) and after (with the model).

    Returns:
        "pictures", "found" (share of the pictures with a face); for "before" and "after": "all" (single units and
        mixtures together), "units" and "mixtures", each as `accuracy` gives it; "groups": right of the 25 "before" and
        "after", "ceiling" (of the true vectors) and "floor" (always the largest group).
        Pictures without a face count as neutral faces.
    """
    faces, truth = faces_of(plan)
    neutral = Expression.neutral()
    words = np.arange(plan.words) % len(EMOTIONS)
    kinds = plan.kinds
    parts = {"all": slice(0, kinds["words"].start), "units": kinds["units"], "mixtures": kinds["mixtures"]}
    result: dict = {"pictures": len(faces), "found": float(np.mean([face is not None for face in faces]))}
    groups = {}
    for name, reader in (("before", None), ("after", model)):
        read = np.stack([(read_crop(*face, reader) if face else neutral).to_vector() for face in faces])
        result[name] = {part: accuracy(read[where], truth[where]) for part, where in parts.items()}
        groups[name] = right_groups(read[kinds["words"]], words)
    sizes = np.bincount(branches()[len(GROUPS)][words])
    groups |= {"ceiling": right_groups(truth[kinds["words"]], words), "floor": float(sizes.max() / len(words))}
    return result | {"groups": groups}
