"""The expression of a face, from a picture, a word or numbers, in one common representation.

A small Vision Transformer (Dosovitskiy et al. 2021), stored as an image classifier of `transformers`, predicts the
expression vector (21 numbers: action units, gaze, head), valence and arousal, and logits of the emotion words and the
neutral face. Valence, arousal and words also follow from the vector in closed form (`affect.py`). So a word, a point of
valence and arousal, a vector and a picture all give an `ExpressionReading`.

Letters: M faces, S the side of a picture, T tokens of D channels, W = 135 words.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from gen_affect_lib.avatars.regions import EXPRESSION_CROP, pixel_box
from gen_affect_lib.encoders import protocols
from gen_affect_lib.encoders.affect import (
    vector_of_point,
    vector_of_word,
)
from gen_affect_lib.encoders.reading import ExpressionReading
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pictures import open_pictures, square
from gen_affect_lib.tensors import require_finite, to_tensor

SHIPPED = CHECKPOINTS / "expression"
UNITS, VECTOR = len(ACTION_UNITS), Expression.VECTOR_SIZE
LABELS = (*Expression.NAMES, "valence", "arousal", *EMOTIONS, "neutral")  # of the outputs
PICTURE_SIZE = 64  # pixels a side of the pictures that the network's input is cropped from


def make_vit(
    image_size: int = 40,
    patch_size: int = 8,
    hidden_size: int = 160,
    num_hidden_layers: int = 4,
    num_attention_heads: int = 4,
) -> ViTForImageClassification:
    """A ViT with new weights, 1.3 M parameters: 25 patches of 8 x 8 pixels and a class token, 160 wide, 4 layers.

    The arguments are fields of `ViTConfig`. The configuration also has the box of the face, so that it is saved too.
    """
    # Larger initial weights than usual, above all for the position embeddings: every avatar has its brows in the same
    # patches, so tokens should differ by position from the start. Measured: the same error after half as many pictures.
    config = ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=4 * hidden_size,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
        id2label=dict(enumerate(LABELS)),
        label2id={name: n for n, name in enumerate(LABELS)},
    )
    config.update({"picture_size": PICTURE_SIZE, "face_box": list(pixel_box(EXPRESSION_CROP, PICTURE_SIZE))})
    vit = ViTForImageClassification(config)
    for places in (vit.vit.embeddings.position_embeddings, vit.vit.embeddings.cls_token):
        torch.nn.init.normal_(places, std=0.2)
    return vit


def crop_faces(images: np.ndarray, config: ViTConfig) -> Tensor:
    """The input of the network, float32 (M, 3, 40, 40) in [-1, 1], from pictures uint8 (M, S, S, 3)."""
    x0, y0, x1, y1 = config.face_box
    return to_tensor(images[:, y0:y1, x0:x1])  # (M, 40, 40, 3) -> (M, 3, 40, 40)


def split_outputs(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs (M, 159) as vectors (M, 21), affect (M, 2), and logits of words and the neutral face (M, W + 1)."""
    return outputs[:, :VECTOR], outputs[:, VECTOR : VECTOR + 2], outputs[:, VECTOR + 2 :]


class ExpressionEncoder:
    """Reads pictures with a ViT whose outputs are `LABELS`."""

    def __init__(self, vit: ViTForImageClassification):
        self.vit = vit.eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path = SHIPPED) -> ExpressionEncoder:
        """Load a folder of `save_pretrained`. Raises UserError for any other folder."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} has no config.json: give the folder of a saved expression encoder")
        config = ViTConfig.from_pretrained(folder)
        if tuple((config.id2label or {}).values()) != LABELS:
            raise UserError(
                f"{folder} is an image classifier with other labels: load it with encoders.hub_expression, or train an "
                "encoder for your emotions.csv with `python -m gen_affect_lib train-encoder expression`"
            )
        vit = ViTForImageClassification.from_pretrained(folder, config=config, dtype=torch.float32)
        require_finite(vit, str(folder))
        return cls(vit)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, in half precision."""
        halved = ViTForImageClassification(self.vit.config).half()
        halved.load_state_dict(self.vit.state_dict())
        require_finite(halved, f"{folder} was not written")
        halved.save_pretrained(folder)

    def vectors(self, pictures: Tensor) -> Tensor:
        """Expression vectors (M, 21) of pictures (M, 3, S, S) in [-1, 1], S a multiple of the `picture_size`.

        Differentiable with respect to the pictures, and not clipped to the ranges.
        """
        return split_outputs(self.vit(self._faces(pictures)).logits)[0]

    def _faces(self, pictures: Tensor) -> Tensor:
        size = self.vit.config.picture_size
        if pictures.shape[-1] % size or pictures.shape[-2] != pictures.shape[-1]:
            raise UserError(
                f"pictures have shape {tuple(pictures.shape)}: give square ones, a multiple of {size} a side"
            )
        pictures = F.avg_pool2d(pictures, pictures.shape[-1] // size)
        x0, y0, x1, y1 = self.vit.config.face_box
        return pictures[..., y0:y1, x0:x1]

    def features(self, pictures: Tensor) -> Tensor:
        """The normalized hidden states of all layers, (M, F), for pictures as for `vectors`; differentiable.

        For a perceptual loss: pictures of similar faces have similar features.
        """
        states = self.vit(self._faces(pictures), output_hidden_states=True).hidden_states[1:]
        return torch.cat(
            [F.layer_norm(state, state.shape[-1:]).flatten(1) for state in states], dim=1
        )  # (M, T, D) each

    @torch.no_grad()
    def read_arrays(self, images: np.ndarray, batch_size: int = 256) -> ExpressionReading:
        """The expressions on pictures uint8 (M, 64, 64, 3), RGB. Raises UserError for another shape or type."""
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
        """The expressions on pictures of any size and mode: PIL images, RGB arrays uint8 or paths.

        Each shows one face, framed like an avatar; crop other pictures first. Raises UserError for anything that is not
        a picture.
        """
        size = self.vit.config.picture_size
        return self.read_arrays(np.stack([np.asarray(square(picture, size)) for picture in open_pictures(pictures)]))


@lru_cache(maxsize=1)
def shipped() -> ExpressionEncoder:
    """The encoder of the kit, loaded once."""
    return ExpressionEncoder.from_pretrained()


def is_picture(source) -> bool:
    """Whether `read_expression` treats it as a picture. A string is a file name if it has a suffix."""
    named = isinstance(source, str) and bool(Path(source).suffix)
    return named or isinstance(source, (Path, Image.Image)) or getattr(source, "ndim", 0) == 3


def read_expression(source, encoder: protocols.ExpressionEncoder | None = None) -> ExpressionReading:
    """One expression from any source, as a reading with M = 1.

    Args:
        source: a word; a point (valence, arousal); an expression vector (21,); an `Expression`; or a picture of a face
            (PIL image, RGB array or path).
        encoder: reads pictures; by default the shipped encoder.

    Raises UserError for anything else, for an unknown word, and for a number outside its range.
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
            f'an expression is {source!r:.60}: give a word such as "glee", a point (valence, arousal), an Expression, '
            f"a vector of {VECTOR} numbers, or a picture of a face"
        )
    # `Expression` checks the ranges.
    return Expression(**dict(zip(Expression.NAMES, numbers.tolist()))).to_vector()
