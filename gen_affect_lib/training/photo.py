"""Training of the model that reads action units from a face, on rendered heads: ridge regression in closed form.

    python -m gen_affect_lib train-encoder photo --out DIR

Letters: N pictures, F features (photo/units.py), U = 17 units, S the side of a crop.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gen_affect_lib.avatars.factors import ACTION_UNITS, FACTORS, Expression
from gen_affect_lib.avatars.splits import TRAIN_SEED, VALIDATION_SEED
from gen_affect_lib.files import atomic
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.paths import CACHE
from gen_affect_lib.photo.heads import HEADS, Person, Scene, render_head
from gen_affect_lib.photo.landmarker import NAMES, SHA256, FaceLandmarker
from gen_affect_lib.photo.units import BLOCKS, FURTHEST, UnitModel, face_crop, from_blendshapes, stack

RENDERED = Producer("rendered heads", 2, uses=(FACTORS,), data=(HEADS,))
CHUNK = 100  # pictures that are kept together
UNITS = tuple(f"au{unit}" for unit in ACTION_UNITS)

# --- pictures --------------------------------------------------------------------------------------------------------

Sample = tuple[Person, Expression, Scene]
Faces = dict[str, np.ndarray]


def sample_expression(seed: int) -> Expression:
    """A random expression for training. In 2 of 5 cases one of `Expression.sample`, else 0 to 5 units and a pose."""
    rng = np.random.default_rng([21, seed])
    if rng.random() < 0.4:
        return Expression.sample(seed)
    vector = np.zeros(Expression.VECTOR_SIZE)
    active = rng.choice(len(ACTION_UNITS), rng.integers(0, 6), replace=False)
    vector[active] = rng.uniform(0.1, 1, len(active))
    vector[len(ACTION_UNITS) :] = np.clip(rng.normal(0, 0.35, 4), -1, 1)
    return Expression.from_vector(vector)


def samples(first: int, count: int) -> Iterator[Sample]:
    """One picture each of the people from seed `first` on."""
    for seed in range(first, first + count):
        yield Person.sample(seed), sample_expression(seed), Scene.sample(seed)


def read_heads(pictures: Iterable[Sample], landmarker: FaceLandmarker) -> Faces:
    """Render pictures and read the face of each; pictures in which no face is found are left out.

    Returns "points" float32 (N, 478, 3) and "blendshapes" float32 (N, 52), see `Face`; "rotation" (N, 3, 3); "crops"
    uint8 (N, S, S), see `face_crop`; "vectors", the true expressions, float32 (N, 21); "found", bool, of all pictures.
    """
    rows, found = [], []
    for person, expression, scene in pictures:
        picture = render_head(person, expression, scene)
        faces = landmarker.faces(picture)
        found.append(bool(faces))
        if faces:
            face = faces[0]
            crop = face_crop(picture, face)
            rows.append((face.aligned, face.blendshapes, face.rotation, crop, expression.to_vector()))
    names = ("points", "blendshapes", "rotation", "crops", "vectors")
    return {name: np.stack(column) for name, column in zip(names, zip(*rows))} | {"found": np.array(found)}


def rendered_people(first: int, count: int, minutes: float | None = None) -> Faces:
    """What `read_heads` gives, for one picture each of the people from seed `first` on.

    Read from the cache where it is there; written to it every CHUNK pictures. With `minutes`, rendering ends after that
    time, and fewer people are returned.
    """
    landmarker, parts, started = None, [], time.perf_counter()
    for start in tqdm(range(first, first + count, CHUNK), desc=f"heads from seed {first}", mininterval=5):
        size = min(CHUNK, first + count - start)
        path = CACHE / "heads" / f"{key(RENDERED, {'first': start, 'count': size}, SHA256)}.npz"
        if not path.is_file():
            if parts and minutes is not None and time.perf_counter() - started > 60 * minutes:
                break
            landmarker = landmarker or FaceLandmarker.load()
            with atomic(path) as partial:
                np.savez(partial, **read_heads(samples(start, size), landmarker))
        with np.load(path) as file:
            parts.append(dict(file))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# --- features --------------------------------------------------------------------------------------------------------


def mirrored_points(average: np.ndarray) -> np.ndarray:
    """Index of the mirror image of each of the 478 landmarks, from the symmetric average face (468, 3): int (478,)."""
    away = np.linalg.norm(average[:, None] * (-1, 1, 1) - average[None], axis=2)  # (468, 468)
    irises = [473, 476, 475, 474, 477, 468, 471, 470, 469, 472]  # centre, right, top, left and bottom of each
    return np.concatenate([away.argmin(axis=1), irises])


def _mirrored_name(name: str) -> str:
    for one, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(one):
            return name.removesuffix(one) + other
    return name


MIRRORED_NAMES = [NAMES.index(_mirrored_name(name)) for name in NAMES]


def mirrored(faces: Faces, points: np.ndarray) -> Faces:
    """The mirror images of faces. Action units have no side, so that the units stay the same.

    points: see `mirrored_points`.
    """
    return {
        "points": faces["points"][:, points] * np.float32((-1, 1, 1)),
        "blendshapes": faces["blendshapes"][:, MIRRORED_NAMES],
        "crops": faces["crops"][:, :, ::-1],
        "vectors": faces["vectors"],
    }


def varied(faces: Faces, rng: np.random.Generator) -> Faces:
    """The faces with inexact points, and with crops shifted, turned, scaled, blurred, noisy or unevenly lit."""
    crops = []
    for crop in faces["crops"]:
        side = crop.shape[0]
        change = cv2.getRotationMatrix2D((side / 2, side / 2), rng.normal(0, 1.5), float(np.exp(rng.normal(0, 0.02))))
        change[:, 2] += rng.normal(0, 1.0, 2)
        crop = cv2.warpAffine(crop, change, (side, side), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.1, 1.2))
        across, down = rng.normal(0, 0.15, 2)
        slope = np.linspace(-1, 1, side, dtype=np.float32)
        crop = 255 * (crop / 255) ** np.exp(rng.normal(0, 0.2)) * (1 + across * slope + down * slope[:, None])
        crop += rng.normal(0, rng.uniform(0, 6), crop.shape)
        crops.append(np.clip(crop, 0, 255).astype(np.uint8))
    noise = rng.normal(0, 0.03, faces["points"].shape).astype(np.float32)  # cm
    return faces | {"points": faces["points"] + noise, "crops": np.stack(crops)}


def feature_rows(faces: Faces) -> np.ndarray:
    """float32 (N, F), see `units.stack`."""
    return np.stack([stack(*row) for row in zip(faces["points"], faces["blendshapes"], faces["crops"])])


# --- regression ------------------------------------------------------------------------------------------------------

FLOORS = np.repeat((0.02, 0.005, 0.005, 0.005), BLOCKS).astype(np.float32)  # least scale of a feature: 0.2 mm, …
# The penalty counts a block of features as one, whatever the number of its features.
SIZES = np.repeat((sum(BLOCKS[:2]), sum(BLOCKS[:2]), *BLOCKS[2:]), BLOCKS)
SHARES = (np.repeat((1.0, 1.0, 0.75, 0.75), BLOCKS) / np.sqrt(SIZES)).astype(np.float32)
PENALTIES = (0.1, 0.3, 1.0)  # of the ridge regression, in thousandths; tried on the validation people


@dataclass
class Sums:
    """What ridge regression needs of the examples, summed up batch by batch: standardised features x, targets y."""

    middle: np.ndarray
    scale: np.ndarray
    gram: np.ndarray  # sum of x xᵀ, float32 (F, F)
    moment: np.ndarray  # sum of x yᵀ (F, U)
    inputs: np.ndarray  # sum of x (F,)
    targets: np.ndarray  # sum of y (U,)
    count: int = 0

    @classmethod
    def of(cls, some: np.ndarray, targets: int) -> Sums:
        """Empty sums, with the standardisation of some features (N, F)."""
        size = some.shape[1]
        zeros = lambda *shape: np.zeros(shape, np.float32)
        scale = np.maximum(some.std(axis=0), FLOORS)
        return cls(some.mean(axis=0), scale, zeros(size, size), zeros(size, targets), zeros(size), zeros(targets))

    def standard(self, features: np.ndarray) -> np.ndarray:
        return np.clip((features - self.middle) / self.scale, -FURTHEST, FURTHEST)

    def add(self, features: np.ndarray, targets: np.ndarray) -> None:
        x = self.standard(features) * SHARES
        self.gram += x.T @ x
        self.moment += x.T @ targets
        self.inputs += x.sum(axis=0)
        self.targets += targets.sum(axis=0)
        self.count += len(x)

    def ridge(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Weight (U, F) and bias (U,) for standardised features: least mean of squares + penalty / 1000 · |weight|²."""
        inputs, targets = self.inputs / self.count, self.targets / self.count
        covariance = self.gram / self.count - np.outer(inputs, inputs)
        covariance[np.diag_indices_from(covariance)] += penalty / 1000
        shared = self.moment / self.count - np.outer(inputs, targets)
        weight = np.linalg.solve(covariance, shared).T  # (U, F)
        return weight * SHARES, targets - weight @ inputs


def correlations(read: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the columns of (N, U) and (N, U): (U,), 0 for a constant column."""
    read, truth = read - read.mean(axis=0), truth - truth.mean(axis=0)
    spread = np.sqrt((read**2).mean(axis=0) * (truth**2).mean(axis=0))
    return (read * truth).mean(axis=0) / np.maximum(spread, 1e-9)


def settle(weight: np.ndarray, bias: np.ndarray, features: np.ndarray, truth: np.ndarray) -> tuple:
    """Scale and shift each unit for the least squared error on these pictures, after clipping to [0, 1].

    The regression predicts small values for units that are 0 and too small ones for strong units. Returns weight (U, F)
    and bias (U,).
    """
    read = features @ weight.T + bias
    least = np.full(len(bias), np.inf)
    scale, shift = np.ones(len(bias)), np.zeros(len(bias))
    for s in np.linspace(0.9, 1.5, 7):
        for b in np.linspace(-0.3, 0.05, 15):
            error = ((np.clip(read * s + b, 0, 1) - truth) ** 2).mean(axis=0)
            better = error < least
            least, scale, shift = np.where(better, error, least), np.where(better, s, scale), np.where(better, b, shift)
    return weight * scale[:, None], bias * scale + shift


def fit_units(train: Faces, validation: Faces, average: np.ndarray, seed: int = 0) -> UnitModel:
    """The model of the units that it reads better than the table of blendshapes, on the validation people.

    Each face is learned with its mirror image and with a varied copy, see `varied`. The penalty of each unit is chosen,
    and its scale and shift are set, on the validation people.

    Args:
        average: the average face, see `mirrored_points`.
    """
    rng, points, batch, sums = np.random.default_rng(seed), mirrored_points(average), 400, None
    for start in tqdm(range(0, len(train["vectors"]), batch), desc="features", mininterval=5):
        faces = {name: train[name][start : start + batch] for name in ("points", "blendshapes", "crops", "vectors")}
        for some in (faces, mirrored(faces, points), varied(faces, rng)):
            rows = feature_rows(some)
            sums = sums or Sums.of(rows, len(UNITS))
            sums.add(rows, some["vectors"][:, : len(UNITS)])
    assert sums is not None
    rows, truth = sums.standard(feature_rows(validation)), validation["vectors"][:, : len(UNITS)]
    fits = [sums.ridge(penalty) for penalty in PENALTIES]
    scores = np.stack([correlations(np.clip(rows @ weight.T + bias, 0, 1), truth) for weight, bias in fits])
    best = scores.argmax(axis=0)
    weight = np.stack([fits[penalty][0][unit] for unit, penalty in enumerate(best)])
    bias = np.array([fits[penalty][1][unit] for unit, penalty in enumerate(best)])
    weight, bias = settle(weight, bias, rows, truth)
    table = np.array([list(from_blendshapes(one).values()) for one in validation["blendshapes"]])
    learned = correlations(np.clip(rows @ weight.T + bias, 0, 1), truth)
    better = np.flatnonzero(learned > correlations(table, truth))
    units = tuple(UNITS[unit] for unit in better)
    arrays = sums.middle, sums.scale, weight[better], bias[better]
    return UnitModel(units, *(array.astype(np.float32) for array in arrays))


# --- the command -----------------------------------------------------------------------------------------------------

PEOPLE = {"smoke": (60, 40), "laptop": (4000, 300), "gpu": (8000, 1000)}  # for training and for validation


def train_units(out_dir: Path, minutes: float | None = None, profile: str = "laptop") -> UnitModel:
    """Render a profile's people, fit the model and write it to a folder.

    Args:
        minutes: after that long, no more people are rendered, and the model is fitted on those that are there.
    """
    landmarker = FaceLandmarker.load()
    train, validation = PEOPLE[profile]
    held_out = rendered_people(VALIDATION_SEED, validation)
    model = fit_units(rendered_people(TRAIN_SEED, train, minutes), held_out, landmarker.average)
    model.save(Path(out_dir))
    return model
