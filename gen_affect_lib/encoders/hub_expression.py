"""Any image classifier of the Hugging Face hub as an expression encoder.

Such classifiers distinguish a few emotions. Each label is mapped to an emotion word (or neutral), and the expression
vector is the mean of the words' vectors under the classifier's probabilities. That is coarser than our own encoder,
which predicts the action units, but both give an `ExpressionReading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from gen_affect_lib.avatars.emotions import EMOTIONS
from gen_affect_lib.encoders.affect import vector_of_word
from gen_affect_lib.encoders.expression import LABELS, SHIPPED, ExpressionEncoder
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.errors import UserError
from gen_affect_lib.pictures import open_pictures

# Labels of classifiers on the hub that are not words of our table.
SYNONYMS = {
    "angry": "anger", "mad": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happy": "happiness", "sad": "sadness", "surprised": "surprise", "contemptuous": "contempt", "calm": "contentment",
    "natural": "neutral", "none": "neutral",
}  # fmt: skip


def word_of_label(label: str) -> str | None:
    """The word for a label of a classifier, or None."""
    name = label.strip().lower().replace("_", " ")
    name = SYNONYMS.get(name, name)
    return name if name in EMOTIONS or name == "neutral" else None


class HubExpressionEncoder:
    """An image classifier with its own preprocessing as an expression encoder.

    Args:
        model: an image classifier with `config.id2label`.
        processor: its preprocessing, called as `processor(images=[…], return_tensors="pt")`.
        words: label → word; takes precedence over `word_of_label`.

    Raises UserError for a label without a word.
    """

    def __init__(self, model, processor, words: dict[str, str] | None = None):
        self.model, self.processor = model.eval(), processor
        labels = [model.config.id2label[n] for n in range(model.config.num_labels)]
        meant = [(words or {}).get(label) or word_of_label(label) for label in labels]
        unknown = [label for label, word in zip(labels, meant) if word is None]
        if unknown:
            raise UserError(
                f"the classifier's label {unknown[0]!r} ({len(unknown)} of {len(labels)} labels) is no known emotion "
                f"word: give one for it, such as words={{{unknown[0]!r}: 'joy'}}"
            )
        self.words = tuple(word for word in meant if word is not None)
        self.vectors = np.stack([vector_of_word(word) for word in self.words])  # (classes, 21)

    @torch.no_grad()
    def read(self, pictures: Sequence) -> ExpressionReading:
        """As `expression.ExpressionEncoder.read`."""
        inputs = self.processor(images=open_pictures(pictures), return_tensors="pt").to(self.model.device)
        probabilities = self.model(**inputs).logits.float().softmax(dim=1)  # (M, classes)
        return ExpressionReading.of_vectors(probabilities.cpu().numpy() @ self.vectors)


def load_expression_encoder(
    name: str | Path = SHIPPED, words: dict[str, str] | None = None
) -> ExpressionEncoder | HubExpressionEncoder:
    """Load our own encoder, or an image classifier from a folder or (with a connection) from the hub by name.

    Raises UserError if there is none, or if it has a label that neither `word_of_label` nor `words` maps to a word.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        if tuple((config.id2label or {}).values()) == LABELS:
            return ExpressionEncoder.from_pretrained(name)
        model = AutoModelForImageClassification.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{name} cannot be loaded as an image classifier ({reason}): give the folder of one") from None
    return HubExpressionEncoder(model, processor, words)
