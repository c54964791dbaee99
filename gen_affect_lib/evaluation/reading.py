"""How well expressions are read from pictures of people never seen: units, valence and arousal, and words.

Two kinds of face are drawn. Free ones, as `Expression.sample` draws them for training (half of them shaken words, half
a few units by chance), test the units. Words, shown as they stand in the table or shaken (stronger or weaker by 0.6 to
1.1, each unit off by about 0.06), test words, valence and arousal. Words share units, so beside each top-1 stands the
best that the factors allow: the question answered from the true 21 numbers by the closed form of `encoders/affect.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gen_affect_lib.avatars import ACTION_UNITS, EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.emotions import LEVELS, branches, tree_distance
from gen_affect_lib.avatars.splits import READER_PICTURES, picture_seed
from gen_affect_lib.encoders.affect import affect_of, word_affect
from gen_affect_lib.encoders.expression import ExpressionReading
from gen_affect_lib.evaluation.judges.scores import RANGES
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third


@dataclass(frozen=True)
class Faces:
    """M faces: images uint8 (M, S, S, 3), vectors (M, 21), words' indices (M,) or None, people (M,), skin (M,)."""

    images: np.ndarray
    vectors: np.ndarray
    words: np.ndarray | None
    people: np.ndarray
    skin: np.ndarray  # thirds


def free_faces(seeds: Sequence[int], per_person: int = 2, size: int = 64) -> Faces:
    """Faces as training draws them, of these people."""
    return _draw(seeds, per_person, size, lambda picture, _: (Expression.sample(picture), None))


def word_faces(seeds: Sequence[int], per_person: int = 2, shaken: bool = False, size: int = 64) -> Faces:
    """Faces of words, dealt out evenly: each word as often as any other, give or take one."""

    def of(picture: int, count: int):
        word = 37 * count % len(EMOTIONS)  # no common divisor: every word, and all families already in few faces
        vector = Expression.named(EMOTIONS[word]).to_vector()
        if shaken:
            rng = np.random.default_rng([7, picture])
            vector = vector * rng.uniform(0.6, 1.1) + rng.normal(0, 0.06, len(vector)) * (vector != 0)
        return Expression.from_vector(np.clip(vector, -1, 1)), word

    return _draw(seeds, per_person, size, of)


def _draw(seeds, per_person: int, size: int, expression_of: Callable) -> Faces:
    images, vectors, words, people, skin = [], [], [], [], []
    for seed in seeds:
        identity = Identity.sample(seed)
        for k in range(per_person):
            picture = picture_seed(seed, READER_PICTURES + k)
            expression, word = expression_of(picture, len(images))
            images.append(Avatar(identity, expression, Appearance.sample(picture)).render(size))
            vectors.append(expression.to_vector())
            words.append(word)
            people.append(seed)
            skin.append(third(identity.skin))
    words = None if words[0] is None else np.array(words)
    return Faces(np.stack(images), np.stack(vectors), words, np.array(people), np.array(skin))


def concordance(read: np.ndarray, true: np.ndarray) -> float:
    """Lin's concordance correlation (1989): 1 only where values agree, not merely rise together."""
    read, true = np.asarray(read, np.float64), np.asarray(true, np.float64)
    covariance = ((read - read.mean()) * (true - true.mean())).mean()
    return float(2 * covariance / (read.var() + true.var() + (read.mean() - true.mean()) ** 2))


def unit_errors(reading: ExpressionReading, faces: Faces) -> np.ndarray:
    """Mean absolute error of each of the 21 numbers, as a share of its range: (21,)."""
    return (np.abs(reading.vectors - faces.vectors) / RANGES).mean(axis=0)


def scores(reading: ExpressionReading, faces: Faces) -> dict[str, float]:
    """All figures of some faces. With words: top-1 and its best at 6, 25 and 135, and how far in the tree mistakes lie.

    Valence and arousal are held against the word's own where there is a word, else against the closed form.
    """
    errors = unit_errors(reading, faces)
    truth = affect_of(faces.vectors) if faces.words is None else word_affect()[faces.words]
    result = {
        "action_unit_error": float(errors[: len(ACTION_UNITS)].mean()),
        "gaze_and_head_error": float(errors[len(ACTION_UNITS) :].mean()),
        "action_unit_error_of_zeros": float(np.abs(faces.vectors[:, : len(ACTION_UNITS)]).mean()),
        "valence_concordance": concordance(reading.affect[:, 0], truth[:, 0]),
        "arousal_concordance": concordance(reading.affect[:, 1], truth[:, 1]),
    }
    if faces.words is None:
        return result
    perfect = ExpressionReading.of_vectors(faces.vectors)
    for classes in LEVELS:
        true = branches()[classes][faces.words]
        right, best = (float((one.top(classes) == true).mean()) for one in (reading, perfect))
        result |= {f"top1_{classes}": right, f"best_{classes}": best, f"share_of_best_{classes}": right / best}
    top = reading.top(135)
    wrong = [tree_distance(EMOTIONS[a], EMOTIONS[b]) for a, b in zip(top, faces.words) if a != b]
    return result | {"tree_distance_of_mistakes": float(np.mean(wrong)) if wrong else 0.0}


def by_skin(reading: ExpressionReading, faces: Faces) -> dict[str, dict[str, float]]:
    """`scores` of all faces and of those with light, middle and dark skin."""

    def part(rows: np.ndarray) -> dict[str, float]:
        words = None if faces.words is None else faces.words[rows]
        some = Faces(faces.images[rows], faces.vectors[rows], words, faces.people[rows], faces.skin[rows])
        return scores(ExpressionReading(reading.vectors[rows], reading.affect[rows], reading.word_logits[rows]), some)

    table = {"all": scores(reading, faces)}
    return table | {name: part(faces.skin == n) for n, name in enumerate(THIRDS) if (faces.skin == n).any()}
