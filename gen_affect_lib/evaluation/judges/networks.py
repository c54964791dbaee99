"""The judges: networks that score generated pictures by the person, the expression and the appearance they show.

A model can score well with the encoders it was trained with although its pictures are bad. So the judges are
independent of the encoders: another architecture, other random seeds, other people (seeds 500,000 to 999,999). They
read pictures of 64 pixels and are trained on drawings, half of them blurred and noisy, because generated pictures are
less sharp. `training.py` trains them; `scores.py` measures their accuracy.

Letters: B pictures, F features, K numbers of a group of factors (`Identity.VECTOR_SIZE` and so on).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor, nn

from gen_affect_lib.avatars import EMOTIONS, Appearance, Expression, Identity
from gen_affect_lib.avatars.emotions import FAMILIES, GROUPS, class_probabilities
from gen_affect_lib.avatars.factors import Choice
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.metrics.expression import LOWEST
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pictures import square
from gen_affect_lib.tensors import require_finite, to_tensor

SIZE = 64  # pixels a side of a judge's input
JUDGES = CHECKPOINTS / "judges"


# --- what they return -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IdentityJudgement:
    """The identity judge's reading of B pictures.

    Attributes:
        embedding: float32 (B, 128), unit length; the cosine of two pictures of one person is high.
        factors: float32 (B, Identity.VECTOR_SIZE), for `Identity.from_vector`; choices as probabilities.
    """

    embedding: np.ndarray
    factors: np.ndarray

    def identities(self) -> list[Identity]:
        return [Identity.from_vector(vector) for vector in self.factors]


@dataclass(frozen=True)
class ExpressionJudgement:
    """The expression judge's reading of B pictures.

    Attributes:
        vectors: float32 (B, 21), expression vectors in the ranges of `Expression`.
        words: float32 (B, 135), probabilities of the words in the order of the table.
        appearance: float32 (B, Appearance.VECTOR_SIZE), for `Appearance.from_vector`; choices as probabilities.
    """

    vectors: np.ndarray
    words: np.ndarray
    appearance: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """Probabilities of the groups: (B, 25)."""
        return class_probabilities(self.words, len(GROUPS))

    @property
    def families(self) -> np.ndarray:
        """Probabilities of the families: (B, 6)."""
        return class_probabilities(self.words, len(FAMILIES))

    def appearances(self) -> list[Appearance]:
        return [Appearance.from_vector(vector) for vector in self.appearance]


# --- the networks -----------------------------------------------------------------------------------------------------


class BatchNormResidual(nn.Module):
    """Pre-activation residual block: batch norm, ReLU, and two 3 x 3 convolutions, of which the second starts at zero.

    The codec's block has group norm, which normalises each picture on its own, and SiLU instead.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(self.norm(x)))))


class Trunk(nn.Sequential):
    """A small ConvNet: (B, 3, 64, 64) in [-1, 1] -> (B, F). It has no pooling, because positions matter."""

    def __init__(self, widths: tuple[int, int, int], features: int):
        fine, middle, coarse = widths
        super().__init__(
            nn.PixelUnshuffle(4),  # (B, 3, 64, 64) -> (B, 48, 16, 16)
            nn.Conv2d(48, fine, 3, padding=1),
            BatchNormResidual(fine),
            nn.Conv2d(fine, middle, 2, stride=2),  # -> (B, middle, 8, 8)
            BatchNormResidual(middle),
            nn.Conv2d(middle, coarse, 2, stride=2),  # -> (B, coarse, 4, 4)
            BatchNormResidual(coarse),
            nn.BatchNorm2d(coarse),
            nn.ReLU(),
            nn.Conv2d(coarse, 32, 1),
            nn.Flatten(),  # (B, 32, 4, 4) -> (B, 512)
            nn.Linear(512, features),
            nn.BatchNorm1d(features),
            nn.ReLU(),
        )
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)


class _Judge(ModelMixin, ConfigMixin):
    """Common parts of both judges: loading and saving as in diffusers, and inference on any kind of picture."""

    NAME: str
    trunk: Trunk

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Self:
        """The trained judge in float32 and evaluation mode; by default the shipped one.

        Raises UserError if there is none.
        """
        folder = folder or JUDGES / cls.NAME
        try:
            judge = cls.from_pretrained(folder, local_files_only=True).float().eval()
        except Exception as error:  # a damaged file can raise anything
            hint = f"python -m gen_affect_lib train-encoder {cls.NAME}-judge --out {folder}"
            raise UserError(f"no {cls.NAME} judge can be loaded from {folder}: train one with {hint}") from error
        require_finite(judge, str(folder))
        return judge

    def features(self, images: Sequence | np.ndarray) -> np.ndarray:
        """The trunk's features of pictures as `read` takes them, to compare distributions: float32 (B, F)."""
        return self._outputs(images, lambda batch: (self.trunk(batch),))[0]

    @torch.no_grad()
    def _outputs(
        self,
        images: Sequence | np.ndarray,
        network: Callable[[Tensor], tuple[Tensor, ...]] | None = None,
        batch_size: int = 256,
    ) -> list[np.ndarray]:
        """Each output of a network, by default the whole judge, for all pictures: float32 (B, …)."""
        self.eval()  # the statistics of batch norm must not adapt to the judged pictures
        pixels, parts = as_pixels(images), []
        for start in range(0, len(pixels), batch_size):
            batch = to_tensor(pixels[start : start + batch_size]).to(self.device, self.dtype)
            parts.append([output.float().cpu().numpy() for output in (network or self)(batch)])
        return [np.concatenate(part) for part in zip(*parts)]


class IdentityJudge(_Judge):
    """Predicts an embedding and the factors of the person on a picture.

    forward: (B, 3, 64, 64) in [-1, 1] -> embedding (B, 128), unit length, and factors (B, K), choices as logits.
    """

    NAME = "identity"

    @register_to_config
    def __init__(self, widths: tuple[int, int, int] = (48, 96, 96), features: int = 256, embedding_size: int = 128):
        super().__init__()
        self.trunk = Trunk(widths, features)
        self.embed = nn.Linear(features, embedding_size)
        self.factors = nn.Linear(features, Identity.VECTOR_SIZE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(images)
        return F.normalize(self.embed(features), dim=1), self.factors(features)

    def read(self, images: Sequence | np.ndarray) -> IdentityJudgement:
        """Read pictures of any size: a list (PIL, uint8 (H, W, 3) in RGB, or paths) or an array (B, H, W, 3).

        Raises UserError for anything else.
        """
        embedding, factors = self._outputs(images)
        return IdentityJudgement(embedding, normalized(Identity.KINDS, torch.from_numpy(factors)).numpy())


class ExpressionJudge(_Judge):
    """Predicts the expression of a face and the appearance: clothes, earrings, background, tilt of the head.

    forward: (B, 3, 64, 64) in [-1, 1] -> expression vectors (B, 21), words (B, 135) as logits, and appearance (B, K),
    choices as logits.
    """

    NAME = "expression"

    @register_to_config
    def __init__(self, widths: tuple[int, int, int] = (48, 96, 96), features: int = 256):
        super().__init__()
        self.trunk = Trunk(widths, features)
        self.factors = nn.Linear(features, Expression.VECTOR_SIZE)
        self.words = nn.Linear(features, len(EMOTIONS))
        self.appearance = nn.Linear(features, Appearance.VECTOR_SIZE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(images)
        return self.factors(features), self.words(features), self.appearance(features)

    def read(self, images: Sequence | np.ndarray) -> ExpressionJudgement:
        """Read pictures of any size: a list (PIL, uint8 (H, W, 3) in RGB, or paths) or an array (B, H, W, 3).

        Raises UserError for anything else.
        """
        vectors, words, appearance = self._outputs(images)
        words = torch.from_numpy(words).softmax(1).numpy()
        appearance = normalized(Appearance.KINDS, torch.from_numpy(appearance)).numpy()
        return ExpressionJudgement(np.clip(vectors, LOWEST.astype(np.float32), 1), words, appearance)


Judges = tuple[IdentityJudge, ExpressionJudge]


def both_judges() -> Judges:
    """The shipped judges."""
    return IdentityJudge.load(), ExpressionJudge.load()


# --- in and out -----------------------------------------------------------------------------------------------------


def normalized(kinds: Sequence, outputs: Tensor) -> Tensor:
    """A network's outputs (B, K) for factors of these kinds, with the logits of each choice as probabilities."""
    parts = outputs.split([kind.size for kind in kinds], dim=1)
    return torch.cat([p.softmax(1) if isinstance(k, Choice) else p for k, p in zip(kinds, parts)], dim=1)


def as_pixels(images: Sequence | np.ndarray) -> np.ndarray:
    """The centred square of each picture as uint8 (B, 64, 64, 3). Raises UserError for what is not a picture."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3):
        if len(images):
            return images
    if isinstance(images, (str, bytes, Image.Image)) or not hasattr(images, "__len__") or len(images) == 0:
        raise UserError(f"the judge got {type(images).__name__}: give a list of at least one picture")
    return np.stack([np.asarray(square(one, SIZE)) for one in images])
