"""What is read of an expression, in one representation for every source: a picture, a word, a point or a vector.

Letters: M faces, W = 135 words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gen_affect_lib.avatars.emotions import EMOTIONS, GROUPS
from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.encoders.affect import class_logits, log_likelihoods, softmax, word_affect


@dataclass(frozen=True)
class ExpressionReading:
    """The expressions of M faces, from any source.

    Attributes:
        vectors: float32 (M, 21), action units in [0, 1], gaze and head in [-1, 1], in the order of `Expression.NAMES`.
        affect: float32 (M, 2), valence and arousal in [-1, 1].
        word_logits: float32 (M, W + 1), logits of the words in the order of `EMOTIONS`, and of the neutral face.
    """

    vectors: np.ndarray
    affect: np.ndarray
    word_logits: np.ndarray

    SIZE = Expression.VECTOR_SIZE + 2 + len(GROUPS)  # of a row of `representation`

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of_vectors(cls, vectors) -> ExpressionReading:
        """The reading of vectors (M, 21) in closed form, see `affect`. Raises UserError for another shape."""
        vectors = np.asarray(vectors, np.float64)
        logits = log_likelihoods(vectors)
        affect = softmax(logits)[:, :-1] @ word_affect()  # `affect_of`, which would compute the logits again
        return cls(*(part.astype(np.float32) for part in (vectors, affect, logits)))

    @property
    def expressions(self) -> list[Expression]:
        return [Expression.from_vector(vector) for vector in self.vectors]

    def probabilities(self, classes: int = len(EMOTIONS)) -> np.ndarray:
        """The probabilities of families, groups or words: float64 (M, classes).

        A row sums to 1 minus the probability of the neutral face. `classes` is one of `emotions.LEVELS`. Raises
        UserError for another number.
        """
        logits = self.word_logits.astype(np.float64)
        logits = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        return np.exp(class_logits(logits[:, :-1], classes))

    def top(self, classes: int = len(EMOTIONS)) -> np.ndarray:
        """The index of the most probable family, group or word of each face, never the neutral face: int (M,)."""
        return class_logits(self.word_logits[:, :-1], classes).argmax(axis=1)

    @property
    def words(self) -> list[str]:
        """The most probable word of each face, or "neutral"."""
        return [(*EMOTIONS, "neutral")[index] for index in self.word_logits.argmax(axis=1)]

    @property
    def representation(self) -> np.ndarray:
        """float32 (M, 48): the vector, valence and arousal, and the probabilities of the groups.

        Every number has a name, and none encodes the identity.
        """
        parts = [self.vectors, self.affect, self.probabilities(len(GROUPS))]
        return np.concatenate(parts, axis=1).astype(np.float32)
