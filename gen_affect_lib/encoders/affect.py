"""What an expression means: from action units to words, valence and arousal and back, in closed form.

Nothing here is learned. A face is taken for a word that somebody shows more or less strongly, and not quite cleanly. By
Bayes' rule a vector x then speaks for each of the 135 words w (vector v_w) in the measure

    p(x | w) = mean over strengths s of exp(-|x - s v_w|² / 2σ²),     s from 0.6 to 1.1, σ = 0.25

and for the neutral face by the same formula with v = 0. Valence and arousal are those of the words, weighed by it. So
one function gives the meaning of anything that gives a vector, and a network that reads faces has exact targets.

Letters: M vectors, W = 135 words. The 21 numbers of a vector are those of `Expression.NAMES`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gen_affect_lib.avatars.emotions import EMOTIONS, emotion, families, groups, table
from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.errors import UserError

FAMILIES, GROUPS = tuple(families()), tuple(groups())
STRENGTHS = np.linspace(0.6, 1.1, 6)  # the range in which `Expression.sample` draws a word's strength
SPREAD = 0.25  # σ: a face so far from a word, in the units of the vector, still passes for it
LEVELS = (6, 25, 135)  # families, groups, words


@lru_cache(maxsize=1)
def word_vectors() -> np.ndarray:
    """float64 (135, 21): the expression of each word."""
    return np.array([one.expression_vector for one in table().values()])


@lru_cache(maxsize=1)
def word_affect() -> np.ndarray:
    """float64 (135, 2): valence and arousal of each word, in [-1, 1]."""
    return np.array([(one.valence, one.arousal) for one in table().values()])


@lru_cache(maxsize=1)
def branches() -> dict[int, np.ndarray]:
    """For 6, 25 and 135 classes: the class of each word, int (135,)."""
    rows = list(table().values())
    return {
        6: np.array([FAMILIES.index(row.family) for row in rows]),
        25: np.array([GROUPS.index(row.group) for row in rows]),
        135: np.arange(len(rows)),
    }


def log_likelihoods(vectors: np.ndarray) -> np.ndarray:
    """log p(x | w), up to a constant, of vectors (M, 21): float64 (M, 136), words, then the neutral face."""
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != Expression.VECTOR_SIZE:
        raise UserError(f"expression vectors have shape {vectors.shape}: give (M, {Expression.VECTOR_SIZE})")
    words = word_vectors()
    along = vectors @ words.T  # (M, W)
    square = (vectors**2).sum(axis=1, keepdims=True)  # (M, 1)
    # |x - s v|² = |x|² - 2 s x·v + s² |v|², one strength at a time to keep the memory small.
    terms = [-(square - 2 * s * along + s**2 * (words**2).sum(axis=1)) / (2 * SPREAD**2) for s in STRENGTHS]
    likelihood = np.logaddexp.reduce(terms, axis=0) - np.log(len(STRENGTHS))  # (M, W)
    return np.concatenate([likelihood, -square / (2 * SPREAD**2)], axis=1)


def posterior(vectors: np.ndarray) -> np.ndarray:
    """p(w | x) of vectors (M, 21), every word and the neutral face equally likely beforehand: float64 (M, 136)."""
    return shares(log_likelihoods(vectors))


def shares(logits: np.ndarray) -> np.ndarray:
    """The softmax of log likelihoods (M, 136): what is equally likely beforehand, by Bayes' rule."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def affect_of(vectors: np.ndarray) -> np.ndarray:
    """Valence and arousal in [-1, 1] of vectors (M, 21): float64 (M, 2). The neutral face counts as (0, 0)."""
    return posterior(vectors)[:, :-1] @ word_affect()


def class_logits(word_logits: np.ndarray, classes: int) -> np.ndarray:
    """Scores of 135 words (…, 135) to scores of 6 families, 25 groups or the words themselves: (…, classes).

    The probability of a branch is the sum of its words' probabilities.
    """
    if classes not in LEVELS:
        raise UserError(f"there are no {classes} classes: give 6 (families), 25 (groups) or 135 (words)")
    of = branches()[classes]
    word_logits = np.asarray(word_logits, np.float64)
    return np.stack([np.logaddexp.reduce(word_logits[..., of == c], axis=-1) for c in range(classes)], axis=-1)


def vector_of_word(word: str) -> np.ndarray:
    """float64 (21,) of one of the 135 words, or of `neutral`. Raises UserError with the nearest words for another."""
    if isinstance(word, str) and word.strip().lower() == "neutral":
        return np.zeros(Expression.VECTOR_SIZE)
    return word_vectors()[EMOTIONS.index(emotion(word).word)]


def weights_of_point(valence: float, arousal: float, reach: float = 0.05) -> np.ndarray:
    """How much each word, and last the neutral face, counts at a point of the plane: float64 (136,), sum 1.

    The nearer the more: exp(-distance² / 2 reach²). Raises UserError for a point outside [-1, 1].
    """
    for name, value in (("valence", valence), ("arousal", arousal)):
        if not -1 <= value <= 1:  # false for nan as well
            raise UserError(f"{name} is {value!r}: give a number from -1 to 1")
    points = np.concatenate([word_affect(), np.zeros((1, 2))])  # the neutral face stands at (0, 0)
    square = ((points - (valence, arousal)) ** 2).sum(axis=1)
    weights = np.exp(-(square - square.min()) / (2 * reach**2))
    return weights / weights.sum()


def vector_of_point(valence: float, arousal: float, reach: float = 0.05) -> np.ndarray:
    """The typical face at a point of the plane: float64 (21,).

    The words near the point are blended by `weights_of_point`. Two numbers cannot hold what 21 do: many words share one
    point. Raises UserError for a point outside [-1, 1].
    """
    vectors = np.concatenate([word_vectors(), np.zeros((1, Expression.VECTOR_SIZE))])
    return weights_of_point(valence, arousal, reach) @ vectors
