"""What a face does, read from a picture or told in words or numbers: always as one and the same representation.

A small Vision Transformer (Dosovitskiy et al. 2021), in the form in which `transformers` keeps an image classifier,
reads 21 numbers (action units, gaze, head), valence and arousal, and the 135 words with the neutral face. All of these
follow from the 21 numbers in closed form too (`affect.py`); the network learns to say them of a picture. So a word, a
point in valence and arousal, a vector and a picture are all brought to an `ExpressionReading`.

Letters: M faces, S the side of a picture, T tokens, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from gen_affect_lib.avatars.emotions import EMOTIONS
from gen_affect_lib.avatars.factors import ACTION_UNITS, Expression
from gen_affect_lib.encoders.affect import (
    class_logits,
    log_likelihoods,
    shares,
    vector_of_point,
    vector_of_word,
    word_affect,
)
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pictures import open_pictures, square
from gen_affect_lib.tensors import to_tensor

SHIPPED = CHECKPOINTS / "expression"
UNITS, VECTOR = len(ACTION_UNITS), Expression.VECTOR_SIZE
LABELS = (*Expression.NAMES, "valence", "arousal", *EMOTIONS, "neutral")  # what the 159 outputs stand for
FACE_BOX = (12, 15, 52, 55)  # x0, y0, x1, y1 in a picture of 64: what the network looks at


def make_vit(**sizes) -> ViTForImageClassification:
    """A ViT with fresh weights, 1.3 M parameters: 25 patches of 8 x 8 pixels and a class token, 160 wide, 4 layers.

    `sizes` are fields of `ViTConfig`. The face box stands in the configuration, so that it is saved along.
    """
    sizes = dict(image_size=40, patch_size=8, hidden_size=160, num_hidden_layers=4, num_attention_heads=4) | sizes
    # Larger first weights than usual, above all for the places: every avatar has its brows in the same patches, so a
    # token should know from the start where it stands. Measured: the same error after half as many pictures.
    vit = ViTForImageClassification(ViTConfig(
        **sizes, intermediate_size=4 * sizes["hidden_size"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.05, id2label=dict(enumerate(LABELS)), label2id={name: n for n, name in enumerate(LABELS)},
        picture_size=64, face_box=list(FACE_BOX),
    ))  # fmt: skip
    for places in (vit.vit.embeddings.position_embeddings, vit.vit.embeddings.cls_token):
        torch.nn.init.normal_(places, std=0.2)
    return vit


def crop_faces(images: np.ndarray, config: ViTConfig) -> Tensor:
    """Pictures uint8 (M, S, S, 3), S the `picture_size`, for the network: float32 (M, 3, 40, 40) in [-1, 1]."""
    x0, y0, x1, y1 = config.face_box
    return to_tensor(images[:, y0:y1, x0:x1])  # (M, 40, 40, 3) -> (M, 3, 40, 40)


def split_outputs(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network's numbers (M, 159): vectors (M, 21), affect (M, 2), scores of words and the neutral face (M, 136)."""
    return outputs[:, :VECTOR], outputs[:, VECTOR : VECTOR + 2], outputs[:, VECTOR + 2 :]


@dataclass(frozen=True)
class ExpressionReading:
    """What M faces do, whatever told it.

    Attributes:
        vectors: float32 (M, 21), action units in [0, 1], gaze and head in [-1, 1], in the order of `Expression.NAMES`.
        affect: float32 (M, 2), valence and arousal in [-1, 1].
        word_logits: float32 (M, 136), log scores of the 135 words in order, and of the neutral face.
    """

    vectors: np.ndarray
    affect: np.ndarray
    word_logits: np.ndarray

    SIZE = VECTOR + 2 + 25  # of a row of `representation`

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of_vectors(cls, vectors) -> ExpressionReading:
        """What vectors (M, 21) mean, by the closed form."""
        vectors = np.asarray(vectors, np.float64)
        logits = log_likelihoods(vectors)
        affect = shares(logits)[:, :-1] @ word_affect()  # `affect_of`, without a second look at all words
        return cls(*(part.astype(np.float32) for part in (vectors, affect, logits)))

    @property
    def expressions(self) -> list[Expression]:
        return [Expression.from_vector(vector) for vector in self.vectors]

    def probabilities(self, classes: int = 135) -> np.ndarray:
        """Of 6 families, 25 groups or 135 words: float64 (M, classes). What is missing to 1 is the neutral face's."""
        logits = self.word_logits.astype(np.float64)
        logits = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        return np.exp(class_logits(logits[:, :-1], classes))

    def top(self, classes: int = 135) -> np.ndarray:
        """The likeliest family, group or word of each face, as its index: int (M,)."""
        return class_logits(self.word_logits[:, :-1], classes).argmax(axis=1)

    @property
    def words(self) -> list[str]:
        """The likeliest word of each face, or `neutral`."""
        return [(*EMOTIONS, "neutral")[index] for index in self.word_logits.argmax(axis=1)]

    @property
    def representation(self) -> np.ndarray:
        """float32 (M, 48): the vector, valence and arousal, and the probabilities of the 25 groups. Every number has a
        name, and none has room for who the person is."""
        return np.concatenate([self.vectors, self.affect, self.probabilities(25)], axis=1).astype(np.float32)


class ExpressionEncoder:
    """Reads pictures with a ViT whose outputs are `LABELS`."""

    def __init__(self, vit: ViTForImageClassification):
        self.vit = vit.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path = SHIPPED) -> ExpressionEncoder:
        """Load what `save_pretrained` wrote. Raises UserError for a folder that holds something else."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} has no config.json: give the folder of a saved expression encoder")
        config = ViTConfig.from_pretrained(folder)
        if tuple(config.id2label.values()) != LABELS:
            raise UserError(f"{folder} is another image classifier: load it with encoders.hub_expression")
        return cls(ViTForImageClassification.from_pretrained(folder, config=config, dtype=torch.float32))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, in half precision."""
        halved = ViTForImageClassification(self.vit.config).half()
        halved.load_state_dict(self.vit.state_dict())
        halved.save_pretrained(folder)

    def vectors(self, pictures: Tensor) -> Tensor:
        """The 21 numbers of pictures (M, 3, S, S) in [-1, 1], S the `picture_size`: (M, 21), not cut to their ranges,
        with gradients to the pictures."""
        return split_outputs(self.vit(self._faces(pictures)).logits)[0]

    def _faces(self, pictures: Tensor) -> Tensor:
        x0, y0, x1, y1 = self.vit.config.face_box
        return pictures[..., y0:y1, x0:x1]

    def look(self, pictures: Tensor) -> Tensor:
        """What the layers make of the same pictures: (M, F), about unit scale, with gradients. Two pictures that look
        alike to it show the same face."""
        states = self.vit(self._faces(pictures), output_hidden_states=True).hidden_states[1:]
        return torch.cat(
            [F.layer_norm(state, state.shape[-1:]).flatten(1) for state in states], dim=1
        )  # (M, T, D) each

    @torch.no_grad()
    def read_arrays(self, images: np.ndarray, batch_size: int = 256) -> ExpressionReading:
        """What faces do, in pictures uint8 (M, 64, 64, 3), RGB."""
        config, device = self.vit.config, next(self.vit.parameters()).device
        size = config.picture_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UserError(f"pictures are {images.dtype} {images.shape}: give uint8 (M, {size}, {size}, 3)")
        starts = range(0, len(images), batch_size)
        parts = [self.vit(crop_faces(images[s : s + batch_size], config).to(device)).logits.cpu() for s in starts]
        vectors, affect, logits = (part.numpy() for part in split_outputs(torch.cat(parts)))
        low = np.where(np.arange(VECTOR) < UNITS, 0.0, -1.0)
        return ExpressionReading(np.clip(vectors, low, 1).astype(np.float32), affect.clip(-1, 1), logits)

    def read(self, pictures: Sequence) -> ExpressionReading:
        """What faces do, in pictures of any size and mode: PIL images, RGB arrays uint8 (H, W, 3) or paths.

        Each shows one face, about as an avatar does; for others cut the face out first. Raises UserError for what is no
        picture.
        """
        size = self.vit.config.picture_size
        return self.read_arrays(np.stack([np.asarray(square(picture, size)) for picture in open_pictures(pictures)]))


@lru_cache(maxsize=1)
def shipped() -> ExpressionEncoder:
    """The encoder that comes with the kit, read once."""
    return ExpressionEncoder.from_pretrained()


def is_picture(source) -> bool:
    """Whether `understand` takes it for a picture: no word has a dot, and every picture's name has one."""
    named = isinstance(source, str) and bool(Path(source).suffix)
    return named or isinstance(source, (Path, Image.Image)) or getattr(source, "ndim", 0) == 3


def understand(source, encoder=None) -> ExpressionReading:
    """The reading of one thing, whatever tells it.

    Args:
        source: a word; a point (valence, arousal); a vector of 21 numbers; an `Expression`; or a face (PIL,
            RGB array or path).
        encoder: reads pictures; None takes the shipped one.

    Raises UserError for what is none of these, an unknown word, and a number out of its range.
    """
    if is_picture(source):
        return (encoder or shipped()).read([source])
    if isinstance(source, str):
        vector = vector_of_word(source)
    else:
        vector = source.to_vector() if isinstance(source, Expression) else _vector_of_numbers(source)
    return ExpressionReading.of_vectors(vector[None])


def _vector_of_numbers(source) -> np.ndarray:
    try:
        numbers = np.asarray(source, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape == (2,):
        return vector_of_point(*numbers.tolist())
    if numbers.shape != (VECTOR,):
        raise UserError(
            f'an expression is {source!r:.60}: give a word such as "glee", a point (valence, arousal), an Expression, a '
            f"vector of {VECTOR} numbers, or a picture of a face"
        )
    # Built rather than passed on, so that a number out of its range is an error with the number's name.
    return Expression(**dict(zip(Expression.NAMES, numbers.tolist()))).to_vector()
