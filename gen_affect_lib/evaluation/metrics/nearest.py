"""A first measure that needs no trained judge: which true drawing is nearest to a generated face?

The true face of every answer is drawn at several tilts of the head, since the tilt is left open, and compared inside
the face, where background and clothes do not reach. If the nearest of N true faces is the one that was asked for, the
picture counts as right; chance is 1 / N. Beside each figure belong its ceiling (true drawings, scored the same way) and
its floor (true drawings of another answer).
"""

import numpy as np

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.regions import INNER_FACE, pixel_box

TILTS = tuple(np.linspace(-1, 1, 9))


def crop(image) -> np.ndarray:
    """The inside of the face of a picture (S, S, 3): float32 in [0, 1]."""
    image = np.asarray(image, np.float32) / 255
    x0, y0, x1, y1 = pixel_box(INNER_FACE, image.shape[0])
    return image[y0:y1, x0:x1]


def true_faces(identity: Identity, expression: Expression, size: int) -> np.ndarray:
    """Crops of the true face, one for each tilt: float32 (tilts, h, w, 3)."""
    looks = (Appearance(head_tilt=float(tilt), earrings="none") for tilt in TILTS)
    return np.stack([crop(Avatar(identity, expression, look).render(size)) for look in looks])


def difference(image, faces: np.ndarray) -> float:
    """Mean absolute difference, in [0, 1], to the nearest of some true faces (tilts, h, w, 3)."""
    return float(np.abs(faces - crop(image)).mean(axis=(1, 2, 3)).min())


def score(images, identity: Identity, expressions, others) -> dict[str, float]:
    """Score the pictures of one person.

    Args:
        images: one picture (S, S, 3) for each expression, RGB uint8 or PIL.
        identity: who they should show.
        expressions: the `Expression` that each should show; they are also the answers to choose among.
        others: further identities that the person is to be told from.

    Returns:
        expression_top1: share of pictures whose nearest true face of this person has the expression asked for.
        identity_top1: share whose nearest true face with that expression is this person's, not another's.
        face_difference: mean difference to the true face, in [0, 1].
        face_difference_floor: the same to the true face of the next expression in the list.
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


def score_people(draw, seeds, words, others: int = 19) -> dict[str, float]:
    """Mean scores over people, with the ceiling. The people to be told apart are the next ones after the last seed.

    draw(identity, expressions) -> one picture for each expression.
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
