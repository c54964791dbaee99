"""Training of the model that reads action units from the points and blendshapes of a face, on rendered heads.

    python -m gen_affect_lib train-encoder photo --out DIR

Letters: N pictures, F features (photo/units.py), U units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars.factors import ACTION_UNITS, FACTORS, Expression
from gen_affect_lib.files import atomic
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.paths import CACHE
from gen_affect_lib.photo.heads import HEADS, Person, Scene, render_head
from gen_affect_lib.photo.landmarker import SHA256, FaceLandmarker
from gen_affect_lib.photo.units import face_crop

RENDERED = Producer("rendered heads", 2, uses=(FACTORS,), data=(HEADS,))
CHUNK = 100


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


Sample = tuple[Person, Expression, Scene]


def samples(first: int, count: int) -> Iterator[Sample]:
    """One picture each of the people from seed `first` on."""
    for seed in range(first, first + count):
        yield Person.sample(seed), sample_expression(seed), Scene.sample(seed)


def read_heads(pictures: Iterable[Sample], landmarker: FaceLandmarker) -> dict[str, np.ndarray]:
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


def rendered_people(first: int, count: int) -> dict[str, np.ndarray]:
    """What `read_heads` gives, for one picture each of the people from seed `first` on.

    Read from the cache where it is there; written to it every CHUNK pictures.
    """
    landmarker, parts = None, []
    for start in range(first, first + count, CHUNK):
        size = min(CHUNK, first + count - start)
        path = CACHE / "heads" / f"{key(RENDERED, {'first': start, 'count': size}, SHA256)}.npz"
        if not path.is_file():
            landmarker = landmarker or FaceLandmarker.load()
            with atomic(path) as partial:
                np.savez(partial, **read_heads(samples(start, size), landmarker))
        with np.load(path) as file:
            parts.append(dict(file))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
