"""Accuracy of the expression encoder on held-out people: action units, valence and arousal, words.

Two kinds of faces are drawn. Free faces have the training distribution, `Expression.sample`: half are varied words,
half random mixtures of action units. They test the units. Word faces show a word with the values of the table, or
varied (scaled by 0.6 to 1.1, with noise of 0.06 on each unit). They test words, valence and arousal. Words share units,
so each top-1 accuracy comes with the best that the units allow: the closed form of `encoders/affect.py` for true
vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gen_affect_lib.avatars import ACTION_UNITS, EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.emotions import LEVELS, branches, tree_distance
from gen_affect_lib.avatars.splits import READER_PICTURES, picture_seed
from gen_affect_lib.encoders.affect import affect_of, word_affect
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.evaluation.metrics.expression import concordance, unit_errors
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third


@dataclass(frozen=True)
class Faces:
    """M drawn faces with their ground truth.

    Attributes:
        images: uint8 (M, S, S, 3).
        vectors: float32 (M, 21), expression vectors.
        words: indices of the words, int (M,); None for free faces.
        people: seeds of the identities, int (M,).
        skin: thirds of the skin tones, int (M,).
    """

    images: np.ndarray
    vectors: np.ndarray
    words: np.ndarray | None
    people: np.ndarray
    skin: np.ndarray


def free_faces(seeds: Sequence[int], per_person: int = 2, size: int = 64) -> Faces:
    """Faces with the training distribution of expressions, of the people with these seeds."""
    return _draw(seeds, per_person, size, lambda picture, _: (Expression.sample(picture), None))


def word_faces(seeds: Sequence[int], per_person: int = 2, varied: bool = False, size: int = 64) -> Faces:
    """Faces that show words, of the people with these seeds; the counts of two words differ by at most one."""

    def of(picture: int, count: int) -> tuple[Expression, int]:
        word = 37 * count % len(EMOTIONS)  # 37 and 135 are coprime, so all words occur equally often
        vector = Expression.named(EMOTIONS[word]).to_vector()
        if varied:
            rng = np.random.default_rng([7, picture])
            vector = vector * rng.uniform(0.6, 1.1) + rng.normal(0, 0.06, len(vector)) * (vector != 0)
        return Expression.from_vector(np.clip(vector, -1, 1)), word

    return _draw(seeds, per_person, size, of)


def _draw(
    seeds: Sequence[int],
    per_person: int,
    size: int,
    expression_of: Callable[[int, int], tuple[Expression, int | None]],
) -> Faces:
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


def scores(reading: ExpressionReading, faces: Faces) -> dict[str, float]:
    """All figures of a reading of some faces.

    Returns:
        "action_unit_error", "gaze_and_head_error": mean absolute errors as shares of the ranges;
        "action_unit_error_of_zeros": the error of always predicting 0;
        "valence_concordance", "arousal_concordance": with those of the word, or for free faces with the closed form.
        For word faces also, for 6, 25 and 135 classes, "top1_N", "best_N" (of the true vectors) and "share_of_best_N",
        and "tree_distance_of_mistakes", the mean `tree_distance` of the wrong words.
    """
    errors = unit_errors(reading.vectors, faces.vectors).mean(axis=0)  # (21,)
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
    """`scores` of all faces, "all", and of those in each third of the skin tones."""

    def part(rows: np.ndarray) -> dict[str, float]:
        words = None if faces.words is None else faces.words[rows]
        some = Faces(faces.images[rows], faces.vectors[rows], words, faces.people[rows], faces.skin[rows])
        return scores(ExpressionReading(reading.vectors[rows], reading.affect[rows], reading.word_logits[rows]), some)

    table = {"all": scores(reading, faces)}
    return table | {name: part(faces.skin == n) for n, name in enumerate(THIRDS) if (faces.skin == n).any()}
