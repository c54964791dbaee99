"""Any image classifier of the Hugging Face hub as a reader of expressions.

Classifiers of emotions name a handful of feelings. Each name is taken for one of the 135 words (or neutral), and the
face is read as the mixture of their action units, weighed by the classifier's probabilities. That is coarser than our
own encoder, which reads the units themselves, but gives the same `ExpressionReading`, so either can stand at its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from gen_affect_lib.avatars.emotions import EMOTIONS
from gen_affect_lib.encoders.affect import vector_of_word
from gen_affect_lib.encoders.expression import LABELS, SHIPPED, ExpressionEncoder, ExpressionReading
from gen_affect_lib.errors import UserError
from gen_affect_lib.pictures import on_white, open_pictures

# What classifiers on the hub call their classes, where it is none of our words.
SYNONYMS = {
    "angry": "anger", "mad": "anger", "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happy": "happiness", "sad": "sadness", "surprised": "surprise", "contemptuous": "contempt", "calm": "contentment",
    "natural": "neutral", "none": "neutral",
}  # fmt: skip


def word_of_label(label: str) -> str | None:
    """The word that a class of some classifier means, or None."""
    name = label.strip().lower().replace("_", " ")
    name = SYNONYMS.get(name, name)
    return name if name in EMOTIONS or name == "neutral" else None


class HubExpressionEncoder:
    """An image classifier with its own preprocessing, read as expressions.

    Args:
        model: with `config.id2label`.
        processor: called as `processor(images=[…], return_tensors="pt")`.
        words: label -> word, for labels that `word_of_label` does not know. Raises UserError where one stays unknown.
    """

    def __init__(self, model, processor, words: dict[str, str] | None = None):
        self.model, self.processor = model.eval(), processor
        labels = [model.config.id2label[n] for n in range(model.config.num_labels)]
        meant = [(words or {}).get(label) or word_of_label(label) for label in labels]
        unknown = [label for label, word in zip(labels, meant) if word is None]
        if unknown:
            raise UserError(
                f"the classifier's label {unknown[0]!r} ({len(unknown)} of {len(labels)} labels) is none of the 135 "
                f"words: say what it means, such as words={{{unknown[0]!r}: 'joy'}}"
            )
        self.words = tuple(meant)
        self.vectors = np.stack([vector_of_word(word) for word in meant])  # (classes, 21)

    @torch.no_grad()
    def read(self, pictures: Sequence) -> ExpressionReading:
        """As `ExpressionEncoder.read`."""
        opened = [on_white(picture) for picture in open_pictures(pictures)]
        inputs = self.processor(images=opened, return_tensors="pt").to(self.model.device)
        probabilities = self.model(**inputs).logits.float().softmax(dim=1)  # (M, classes)
        return ExpressionReading.of_vectors(probabilities.cpu().numpy() @ self.vectors)


def load_expression_encoder(
    name: str | Path = SHIPPED, words: dict[str, str] | None = None
) -> ExpressionEncoder | HubExpressionEncoder:
    """Our own encoder from its folder, or any image classifier from a folder or, with a network, from the hub by name.

    Raises UserError where there is none, and where its labels are unknown and `words` does not explain them.
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
        raise UserError(f"{name} is no image classifier that loads here ({reason}): give the folder of one") from None
    return HubExpressionEncoder(model, processor, words)
