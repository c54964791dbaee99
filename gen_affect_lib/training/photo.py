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
from gen_affect_lib.photo.units import features

RENDERED = Producer("rendered heads", 1, uses=(FACTORS,), data=(HEADS,))
CHUNK = 250


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


def read_heads(pictures: Iterable[Sample], landmarker: FaceLandmarker) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render pictures and read the face of each.

    Returns:
        features float32 (N, F), expression vectors float32 (N, 21), and whether a face was found (N,).
        Features are 0 where none was.
    """
    read, vectors, found = [], [], []
    for person, expression, scene in pictures:
        faces = landmarker.faces(render_head(person, expression, scene))
        found.append(bool(faces))
        read.append(features(faces[0]) if faces else None)
        vectors.append(expression.to_vector())
    width = next(len(one) for one in read if one is not None)
    rows = [np.zeros(width, np.float32) if one is None else one for one in read]
    return np.stack(rows), np.stack(vectors), np.array(found)


def rendered_people(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and expression vectors (N, 21) of one picture each of the people from seed `first` on.

    Read from the cache where they are there; written to it every CHUNK pictures. Pictures in which no face was found
    are left out.
    """
    landmarker, parts = None, []
    for start in range(first, first + count, CHUNK):
        size = min(CHUNK, first + count - start)
        path = CACHE / "heads" / f"{key(RENDERED, {'first': start, 'count': size}, SHA256)}.npz"
        if not path.is_file():
            landmarker = landmarker or FaceLandmarker.load()
            read, vectors, found = read_heads(samples(start, size), landmarker)
            with atomic(path) as partial:
                np.savez(partial, read=read[found], vectors=vectors[found])
        with np.load(path) as file:
            parts.append((file["read"], file["vectors"]))
    read, vectors = (np.concatenate(part) for part in zip(*parts))
    return read, vectors
