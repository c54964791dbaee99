"""A measure without a trained judge: the true drawing that is nearest to a generated face.

The true face of each candidate is drawn at several tilts of the head, which the conditioning leaves open, and compared
inside the face, away from background and clothes. A picture counts as right if the nearest of N true faces is the
requested one; chance is 1 / N. The ceiling is the score of true drawings, the floor the difference to another
candidate's face.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.regions import INNER_FACE, pixel_box

Picture = np.ndarray | Image.Image  # RGB: uint8 (P, P, 3), or PIL
TILTS = tuple(np.linspace(-1, 1, 9))


def crop(image: Picture) -> np.ndarray:
    """The inside of the face of a picture: float32 (h, w, 3) in [0, 1]."""
    pixels = np.asarray(image, np.float32) / 255
    x0, y0, x1, y1 = pixel_box(INNER_FACE, pixels.shape[0])
    return pixels[y0:y1, x0:x1]


def true_faces(identity: Identity, expression: Expression, size: int) -> np.ndarray:
    """Crops of true drawings of `size` pixels a side, one for each of TILTS: float32 (9, h, w, 3)."""
    appearances = (Appearance(head_tilt=float(tilt), earrings="none") for tilt in TILTS)
    return np.stack([crop(Avatar(identity, expression, appearance).render(size)) for appearance in appearances])


def difference(image: Picture, faces: np.ndarray) -> float:
    """Mean absolute difference, in [0, 1], to the nearest of true faces (tilts, h, w, 3)."""
    return float(np.abs(faces - crop(image)).mean(axis=(1, 2, 3)).min())


def strong_edges(image: Picture) -> float:
    """Share of the pairs of neighbouring pixels that differ by more than 0.15 in brightness, whose range is [0, 1]."""
    grey = np.asarray(image, np.float32).mean(axis=-1) / 255
    return float(np.mean([(np.abs(np.diff(grey, axis=axis)) > 0.15).mean() for axis in (0, 1)]))


def score(
    images: Sequence[Picture], identity: Identity, expressions: Sequence[Expression], others: Sequence[Identity]
) -> dict[str, float]:
    """Score the pictures of one person.

    Args:
        images: one picture for each expression.
        identity: the person.
        expressions: the requested `Expression` of each picture; together they are the candidates.
        others: the other candidate identities.

    Returns:
        expression_top1: share of pictures whose nearest true face of this person has the requested expression.
        identity_top1: share whose nearest true face with that expression is this person's.
        face_difference: mean difference to the true face, in [0, 1].
        face_difference_floor: mean difference to the true face of the next expression in the list.
    """
    size = np.asarray(images[0]).shape[0]
    truth = [true_faces(identity, expression, size) for expression in expressions]
    table = np.array([[difference(image, faces) for faces in truth] for image in images])  # (pictures, expressions)
    right = np.arange(len(images))
    known = []
    for image, expression, own in zip(images, expressions, table[right, right]):
        known.append(all(own < difference(image, true_faces(other, expression, size)) for other in others))
    return {
        "expression_top1": float((table.argmin(axis=1) == right).mean()),
        "identity_top1": float(np.mean(known)),
        "face_difference": float(table[right, right].mean()),
        "face_difference_floor": float(np.roll(table, -1, axis=1)[right, right].mean()),
    }


def score_people(
    draw: Callable[[Identity, list[Expression]], Sequence[Picture]],
    seeds: Sequence[int],
    words: Sequence[str],
    others: int = 19,
) -> dict[str, float]:
    """Mean of `score` over people, with the ceiling of each figure and the two chance levels.

    Args:
        draw: (identity, expressions) -> one picture for each expression.
        seeds: of the people.
        words: the requested expressions.
        others: number of other candidate identities; they have the seeds after the largest one.
    """
    expressions = [Expression.named(word) for word in words]
    strangers = [Identity.sample(max(seeds) + 1 + k) for k in range(others)]
    rows, best = [], []
    for seed in seeds:
        identity = Identity.sample(seed)
        rows.append(score(draw(identity, expressions), identity, expressions, strangers))
        true = [Avatar(identity, e, Appearance.sample(seed * 100 + k)).render(64) for k, e in enumerate(expressions)]
        best.append(score(true, identity, expressions, strangers))
    scores = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    ceiling = {
        f"{name}_ceiling": float(np.mean([row[name] for row in best])) for name in best[0] if "floor" not in name
    }
    return scores | ceiling | {"expression_top1_chance": 1 / len(words), "identity_top1_chance": 1 / (others + 1)}
