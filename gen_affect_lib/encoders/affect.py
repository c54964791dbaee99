"""The meaning of expression vectors in closed form: from action units to words, valence and arousal, and back.

Nothing is learned here. The model: a face shows one of the W words w, with vector v_w, at a random strength s and with
Gaussian noise. The likelihood of an expression vector x given w is

    p(x | w) = mean over strengths s of exp(-|x - s v_w|² / 2σ²),     s from 0.6 to 1.1, σ = 0.25

up to a constant; given the neutral face it is the same with v = 0. Bayes' rule gives the posterior of the words. The
valence and arousal of x are the means of those of the words under the posterior. So every expression vector has word
probabilities, valence and arousal in closed form; they are training targets of the expression encoder.

Letters: M expression vectors of 21 numbers in the order of `Expression.NAMES`; W = 135 words.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gen_affect_lib.avatars.emotions import EMOTION_TABLE, EMOTIONS, LEVELS, branches, emotion, table
from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer

EXPRESSION_MEANING = Producer("expression meaning", 1, uses=(EMOTION_TABLE,))

STRENGTHS = np.linspace(0.6, 1.1, 6)  # the range in which `Expression.sample` scales a word
SPREAD = 0.25  # σ, in the units of the vector


@lru_cache(maxsize=1)
def word_vectors() -> np.ndarray:
    """float64 (W, 21): the expression vector of each word."""
    return np.array([one.expression_vector for one in table().values()])


@lru_cache(maxsize=1)
def word_affect() -> np.ndarray:
    """float64 (W, 2): valence and arousal of each word, in [-1, 1]."""
    return np.array([(one.valence, one.arousal) for one in table().values()])


def log_likelihoods(vectors: np.ndarray) -> np.ndarray:
    """log p(x | w), up to a constant, of vectors (M, 21): float64 (M, W + 1), the words and then the neutral face.

    Raises UserError for another shape.
    """
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != Expression.VECTOR_SIZE:
        raise UserError(f"expression vectors have shape {vectors.shape}: give (M, {Expression.VECTOR_SIZE})")
    words = word_vectors()
    along = vectors @ words.T  # (M, W)
    square = (vectors**2).sum(axis=1, keepdims=True)  # (M, 1)
    # |x - s v|² = |x|² - 2 s x·v + s² |v|², which needs no array of all differences (M, W, 21).
    terms = [-(square - 2 * s * along + s**2 * (words**2).sum(axis=1)) / (2 * SPREAD**2) for s in STRENGTHS]
    likelihood = np.logaddexp.reduce(terms, axis=0) - np.log(len(STRENGTHS))  # (M, W)
    return np.concatenate([likelihood, -square / (2 * SPREAD**2)], axis=1)


def posterior(vectors: np.ndarray) -> np.ndarray:
    """p(w | x) of vectors (M, 21) under a uniform prior over the words and the neutral face: float64 (M, W + 1)."""
    return softmax(log_likelihoods(vectors))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of logits (M, K) to probabilities (M, K)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def affect_of(vectors: np.ndarray) -> np.ndarray:
    """Valence and arousal in [-1, 1] of vectors (M, 21): float64 (M, 2). The neutral face counts as (0, 0)."""
    return posterior(vectors)[:, :-1] @ word_affect()


def class_logits(word_logits: np.ndarray, classes: int) -> np.ndarray:
    """Log scores of the words (…, W) to those of families, groups or words (…, classes); `classes` is one of `LEVELS`.

    The probability of a family or group is the sum of those of its words. Raises UserError for another number.
    """
    if classes not in LEVELS:
        names = zip(LEVELS, ("families", "groups", "words"))
        raise UserError(
            f"there are no {classes} classes: give {', '.join(f'{count} ({name})' for count, name in names)}"
        )
    of = branches()[classes]
    word_logits = np.asarray(word_logits, np.float64)
    return np.stack([np.logaddexp.reduce(word_logits[..., of == c], axis=-1) for c in range(classes)], axis=-1)


def vector_of_word(word: str) -> np.ndarray:
    """float64 (21,): the expression vector of a word or of "neutral". Raises UserError for an unknown word."""
    if isinstance(word, str) and word.strip().lower() == "neutral":
        return np.zeros(Expression.VECTOR_SIZE)
    return word_vectors()[EMOTIONS.index(emotion(word).word)]


def weights_of_point(valence: float, arousal: float, reach: float = 0.05) -> np.ndarray:
    """The weights of the words and the neutral face at a point: float64 (W + 1,), sum 1, ∝ exp(-distance² / 2 reach²).

    The distance is between points (valence, arousal); `reach` has the same units.

    Raises UserError for a point outside [-1, 1].
    """
    for name, value in (("valence", valence), ("arousal", arousal)):
        if not -1 <= value <= 1:  # false for nan as well
            raise UserError(f"{name} is {value!r}: give a number from -1 to 1")
    points = np.concatenate([word_affect(), np.zeros((1, 2))])  # the neutral face is at (0, 0)
    square = ((points - (valence, arousal)) ** 2).sum(axis=1)
    weights = np.exp(-(square - square.min()) / (2 * reach**2))
    return weights / weights.sum()


def vector_of_point(valence: float, arousal: float, reach: float = 0.05) -> np.ndarray:
    """The expression vector at a point of valence and arousal: float64 (21,), the mean under `weights_of_point`.

    Two numbers do not determine 21, so the result is an average of the words near the point. Raises UserError for a
    point outside [-1, 1].
    """
    vectors = np.concatenate([word_vectors(), np.zeros((1, Expression.VECTOR_SIZE))])
    return weights_of_point(valence, arousal, reach) @ vectors
