"""What the reading of expressions from pictures of heads finds: rendered heads whose action units are known.

    python docs/shipped.py photo

The people were never trained on. Three kinds of pictures: each unit alone at three strengths in three poses; mixtures
of 2 to 5 units; and words of the table, for the 25 groups. The table of blendshapes alone is the state before the
learned model.

Letters: N pictures, U = 17 units.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars import Appearance, Avatar
from gen_affect_lib.avatars.emotions import EMOTIONS, GROUPS, branches, class_probabilities
from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.affect import posterior
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.keys import key
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import CACHE, CHECKPOINTS, REFERENCE
from gen_affect_lib.photo.heads import Person, Scene, render_head
from gen_affect_lib.photo.landmarker import SHA256, Face, FaceLandmarker
from gen_affect_lib.photo.likeness import read_likeness
from gen_affect_lib.photo.reading import read_photo
from gen_affect_lib.photo.units import UnitModel, dark_offset, face_crop, read_crop
from gen_affect_lib.training.photo import RENDERED, UNITS, Sample, correlations

POSES = ((0.0, 0.0), (0.6, 0.1), (-0.4, -0.5))  # head_yaw and head_pitch: 21 degrees right; 14 left and 12 down
STRENGTHS = (0.35, 0.7, 1.0)


@dataclass(frozen=True)
class HeadsPlan:
    """Which pictures are made: of the people from seed `first` on. Mixtures and words are counts of all pictures."""

    first: int
    people: int = 8
    mixtures: int = 200
    words: int = 270
    poses: tuple = POSES
    strengths: tuple = STRENGTHS

    def samples(self) -> Iterable[Sample]:
        """Person, expression and scene of each picture: single units, then mixtures, then words."""
        people = [Person.sample(self.first + one) for one in range(self.people)]
        for index, (who, expression) in enumerate(self._expressions()):
            yield people[who], expression, Scene.sample(self.first + index)

    def _expressions(self) -> Iterable[tuple[int, Expression]]:
        for who in range(self.people):
            for yaw, pitch in self.poses:
                for unit in UNITS:
                    for strength in self.strengths:
                        yield who, Expression(head_yaw=yaw, head_pitch=pitch, **{unit: strength})
        for index in range(self.mixtures):
            rng = np.random.default_rng([31, self.first, index])
            chosen = rng.choice(UNITS, rng.integers(2, 6), replace=False)
            yaw, pitch = self.poses[index % len(self.poses)]
            strengths = rng.uniform(0.2, 1, len(chosen)).tolist()
            yield index % self.people, Expression(head_yaw=yaw, head_pitch=pitch, **dict(zip(chosen, strengths)))
        for index in range(self.words):
            # Every word equally often, by different people.
            yield (index + index // len(EMOTIONS)) % self.people, Expression.named(EMOTIONS[index % len(EMOTIONS)])

    @property
    def kinds(self) -> dict[str, slice]:
        singles = self.people * len(self.poses) * len(UNITS) * len(self.strengths)
        ends = np.cumsum([0, singles, self.mixtures, self.words]).tolist()
        return {name: slice(*ends[k : k + 2]) for k, name in enumerate(("units", "mixtures", "words"))}


Found = tuple[Face, np.ndarray, float]  # a face, its crop, uint8 (S, S), and the `dark_offset` of its eyes


def faces_of(plan: HeadsPlan, samples: list[Sample], chunk: int = 100) -> tuple[list[Found | None], np.ndarray]:
    """The faces in the pictures of a plan's samples, None where none was found, and the true vectors (N, 21).

    Read from the cache where they are there; written to it every `chunk` pictures.
    """
    faces, landmarker = [], None
    about = {"plan": asdict(plan), "size": chunk, "kept": ("face", "crop", "dark")}
    for start in range(0, len(samples), chunk):
        path = CACHE / "heads" / f"{key(RENDERED, about | {'start': start}, SHA256)}.npz"
        if not path.is_file():
            landmarker = landmarker or FaceLandmarker.load()
            pictures = [render_head(*sample) for sample in samples[start : start + chunk]]
            found = [landmarker.faces(picture)[:1] for picture in pictures]
            _save(path, [_found(some[0], picture) if some else None for picture, some in zip(pictures, found)])
        faces += _load(path)
    return faces, np.stack([expression.to_vector() for _, expression, _ in samples])


def _found(face: Face, picture: np.ndarray) -> Found:
    return face, face_crop(picture, face), dark_offset(face, picture)


NAMES = tuple(Face.__dataclass_fields__)


def _save(path: Path, faces: list[Found | None]) -> None:
    there = [one for one in faces if one]
    fields = {name: np.array([vars(face)[name] for face, *_ in there]) for name in NAMES}
    with atomic(path) as partial:
        np.savez(
            partial,
            allow_pickle=False,
            there=[one is not None for one in faces],
            crops=[crop for _, crop, _ in there],
            dark=[dark for *_, dark in there],
            **fields,
        )


def _load(path: Path) -> list[Found | None]:
    with np.load(path) as file:
        arrays = dict(file)
    rows = zip(*(arrays[name] for name in NAMES), arrays["crops"], arrays["dark"])
    there = iter([(Face(*values), crop, float(dark)) for *values, crop, dark in rows])
    return [next(there) if one else None for one in arrays["there"]]


def accuracy(read: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Of each unit, from vectors (N, 21): "correlation" (Pearson) and "error" (mean absolute), and their "mean"."""
    read, truth = read[:, : len(UNITS)], truth[:, : len(UNITS)]
    columns = correlations(read, truth), np.abs(read - truth).mean(axis=0)
    columns = [np.append(column, column.mean()).tolist() for column in columns]
    return {unit: {"correlation": r, "error": e} for unit, r, e in zip((*UNITS, "mean"), *columns)}


def right_groups(read: np.ndarray, words: np.ndarray) -> float:
    """The share of vectors (N, 21) whose likeliest of the 25 groups, by the closed form, is that of the words (N,)."""
    groups = class_probabilities(posterior(read)[:, :-1], len(GROUPS)).argmax(axis=1)
    return float((groups == branches()[len(GROUPS)][words]).mean())


def measure(plan: HeadsPlan, model: UnitModel) -> dict:
    """The figures of a plan's people, before (blendshapes alone) and after (with the model).

    Returns:
        "plan", "pictures", and "found", the share of the pictures with a face;
        "before" and "after": "all" (single units and mixtures together), "units" and "mixtures", each as of `accuracy`;
        "skin": the mean correlation of "all" in each third of the skin tones "before" and "after", with the "gap";
        "pose": the correlations of gaze and head turn, in the pictures of words;
        "groups": the share of words whose group of 25 is right, "before" and "after", with "ceiling" (from the true
        vectors), "floor" (always the largest group) and "chance" (1 / 25).
        A picture without a face counts as read neutral.
    """
    samples = list(plan.samples())
    faces, truth = faces_of(plan, samples)
    neutral = Expression.neutral()
    kinds, words = plan.kinds, np.arange(plan.words) % len(EMOTIONS)
    parts = {"all": slice(0, kinds["words"].start), "units": kinds["units"], "mixtures": kinds["mixtures"]}
    tones = third(np.array([person.tone for person, _, _ in samples[parts["all"]]]))
    result: dict = {"plan": asdict(plan), "pictures": len(faces)}
    result["found"] = float(np.mean([face is not None for face in faces]))
    skin, groups = {}, {}
    for name, reader in (("before", None), ("after", model)):
        read = np.stack([(read_crop(*face, reader) if face else neutral).to_vector() for face in faces])
        result[name] = {part: accuracy(read[where], truth[where]) for part, where in parts.items()}
        groups[name] = right_groups(read[kinds["words"]], words)
        there, true = read[parts["all"]], truth[parts["all"]]
        skin[name] = {
            THIRDS[k]: accuracy(there[tones == k], true[tones == k])["mean"]["correlation"] for k in np.unique(tones)
        }
        skin[name]["gap"] = max(skin[name].values()) - min(skin[name].values())
    pose = correlations(read[kinds["words"], len(UNITS) :], truth[kinds["words"], len(UNITS) :])
    sizes = np.bincount(branches()[len(GROUPS)][words])
    groups |= {"ceiling": right_groups(truth[kinds["words"]], words), "floor": float(sizes.max() / len(words))}
    result |= {"skin": skin, "pose": dict(zip(Expression.NAMES[len(UNITS) :], pose.tolist()))}
    return result | {"groups": groups | {"chance": 1 / len(GROUPS)}}


# The drawn styles that are right for each kind of rendered hair. A shaved head is a drawn buzz cut.
SHORT = {"buzz", "short", "side_part", "quiff", "fringe", "curly"}
HAIR = {
    "none": {"bald"},
    "shaved": {"buzz"},
    "short": SHORT,
    "full": SHORT | {"afro", "bun"},
    "long": {"bob", "long", "wavy", "ponytail", "braids"},
}
HAIR_FIRST, HAIR_PEOPLE = VALIDATION_SEED + 500, 140


def measure_hair(first: int = HAIR_FIRST, people: int = HAIR_PEOPLE) -> dict[str, dict[str, int]]:
    """How often the length of hair is read of rendered heads, whose hair is known.

    Returns for each kind of hair "people", "right" and "bald", how many were read as bald.
    """
    landmarker = FaceLandmarker.load()
    counts: dict[str, dict[str, int]] = {kind: {"people": 0, "right": 0, "bald": 0} for kind in HAIR}
    for seed in range(first, first + people):
        person = Person.sample(seed)
        pixels = render_head(person, Expression.neutral(), Scene.sample(seed), 256)
        style = read_likeness(landmarker.faces(pixels)[0], pixels)[0].hair_style
        count = counts[person.hair_style]
        count["people"] += 1
        count["right"] += style in HAIR[person.hair_style]
        count["bald"] += style == "bald"
    return counts


# An earlier model was measured on the first 8 people, and a gap between skin tones led to a change: these are others.
FIRST = REPORT_SEED + 100


def write_figures(path: Path = REFERENCE / "photo.json") -> dict:
    """Measure the shipped model on people of the report, and write the figures. A cut-off call continues."""
    result = measure(HeadsPlan(FIRST), UnitModel.load(CHECKPOINTS / "photo")) | {"hair": measure_hair()}
    result |= {"machine": describe_machine()}
    result = json.loads(json.dumps(result), parse_float=lambda number: round(float(number), 4))
    write_json(path, result)
    return result


def table(result: dict) -> str:
    """The figures of `measure` as Markdown."""
    before, after = result["before"], result["after"]
    lines = [
        "| unit | correlation, blendshapes alone | with the model | single units | mixtures | error before | after |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for unit in (*UNITS, "mean"):
        r = [f"{some[unit]['correlation']:.2f}" for some in (before["all"], *(after[p] for p in after))]
        e = [f"{some['all'][unit]['error']:.3f}" for some in (before, after)]
        lines.append(f"| {unit} | " + " | ".join(r + e) + " |")
    skin, groups = result["skin"], result["groups"]
    tones = lambda name: ", ".join(f"{tone} {value:.2f}" for tone, value in skin[name].items())
    return "\n".join(
        [
            *lines,
            "",
            f"{result['pictures']:,} pictures, a face found in {result['found']:.1%}. Mean correlation by skin tone: "
            f"{tones('after')}; blendshapes alone: {tones('before')}.",
            "",
            f"Right group of 25 by the closed form, of the pictures of words: {groups['after']:.2f}; blendshapes alone "
            f"{groups['before']:.2f}; from the true units {groups['ceiling']:.2f} (ceiling), always the largest group "
            f"{groups['floor']:.2f} (floor). Correlations of gaze and head turn in these pictures: "
            + ", ".join(f"{name} {value:.2f}" for name, value in result["pose"].items())
            + ".",
        ]
    )


def hair_table(result: dict) -> str:
    """The figures of `measure_hair` as Markdown."""
    rows = [f"| {kind} | {n['people']} | {n['right']} | {n['bald']} |" for kind, n in result["hair"].items()]
    return "\n".join(["| hair | people | length read right | read as bald |", "| --- | --- | --- | --- |", *rows])


def matching_sheets(folder: Path, first: int = REPORT_SEED + 1000, people: int = 12, seed: int = 0) -> list[int]:
    """Write two sheets for a blind test: rendered heads in order, and their avatars in random order, with letters.

    The heads are neutral, in even light, upright and before one background, and the avatars wear the same clothes, so
    that only the faces and the hair tell who is who. Whoever takes the test says which letter belongs to which number.

    Args:
        folder: for `heads.png` and `avatars.png`.
    Returns:
        the key: at each place of the avatars' sheet, the number (from 1) of its head. It is written nowhere.
    """
    landmarker, rng = FaceLandmarker.load(), np.random.default_rng(seed)
    pictures, avatars, number = [], [], first
    while len(pictures) < people:
        scene = Scene(lamp=(rng.uniform(-0.3, 0.3), 0.35, 0.6), ambient=0.4, noise=2.0, seed=number)
        picture = render_head(Person.sample(number), Expression.neutral(), scene, 320)
        number += 1
        try:
            reading = read_photo(picture, landmarker=landmarker)
        except UserError:  # some smooth renderings are taken for drawings: the next person takes the place
            continue
        pictures.append(picture)
        avatars.append(Avatar(reading.identity, reading.expression, Appearance()).render(320))
    order = rng.permutation(people)
    letters = [chr(ord("A") + place) for place in range(people)]
    folder.mkdir(parents=True, exist_ok=True)
    grid(pictures, [str(number) for number in range(1, people + 1)], columns=4, tile=240).save(folder / "heads.png")
    grid([avatars[one] for one in order], letters, columns=4, tile=240).save(folder / "avatars.png")
    return (order + 1).tolist()
