"""Judges: networks that say who is on a picture, what the face does, and what was left open, to score what was drawn.

A model that is scored by the encoder it was trained with can please the encoder instead of drawing well. So the judges
share nothing with the encoders: another architecture, other seeds, other people (500,000 to 999,999). They read
pictures of 64 pixels, the size that the model draws, and are trained on drawings of which some are blurred and noisy,
because generated pictures are soft. `judge_training.py` trains them, `judge_scores.py` says how far to trust them.

Letters: B pictures, F features, K numbers of a group of factors (`Identity.VECTOR_SIZE` and so on).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from PIL import Image
from torch import Tensor, nn

from gen_affect_lib.avatars import EMOTIONS, Appearance, Expression, Identity
from gen_affect_lib.avatars.factors import Choice
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.judges.readings import ExpressionReading, IdentityReading
from gen_affect_lib.paths import CHECKPOINTS
from gen_affect_lib.pictures import open_picture, square
from gen_affect_lib.tensors import to_tensor

SIZE = 64  # side in pixels of what a judge reads
JUDGES = CHECKPOINTS / "judges"


# --- the networks -----------------------------------------------------------------------------------------------------


class BatchNormResidual(nn.Module):
    """Two convolutions beside the straight path."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)  # so that the block starts as nothing
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(self.norm(x)))))


class Trunk(nn.Sequential):
    """A small ConvNet: (B, 3, 64, 64) in [-1, 1] -> (B, F). It never pools: where something is says what it is."""

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


class _Judge(ModelMixin, ConfigMixin):
    """What both judges share: saved and loaded as diffusers' models are, and they read any kind of picture."""

    NAME: str

    @classmethod
    def load(cls, folder=None):
        """The trained judge, ready to read; by default the shipped one. Raises UserError where there is none."""
        folder = folder or JUDGES / cls.NAME
        try:
            return cls.from_pretrained(folder, local_files_only=True).float().eval()
        except (OSError, ValueError) as error:
            hint = f"python -m gen_affect_lib train-encoder {cls.NAME}-judge --out {folder}"
            raise UserError(f"no {cls.NAME} judge can be read from {folder}: train one with {hint}") from error

    def features(self, images) -> np.ndarray:
        """What the trunk makes of pictures, float32 (B, F): for comparing many pictures with many."""
        return self._outputs(images, lambda batch: (self.trunk(batch),))[0]

    @torch.no_grad()
    def _outputs(self, images, network=None, batch_size: int = 256) -> list[np.ndarray]:
        """Each output of the network, by default the whole judge, for all pictures. Raises UserError for what is no
        picture."""
        self.eval()  # a judge must not learn the statistics of what it judges
        pixels, parts = as_pixels(images), []
        for start in range(0, len(pixels), batch_size):
            batch = to_tensor(pixels[start : start + batch_size]).to(self.device, self.dtype)
            parts.append([output.float().cpu().numpy() for output in (network or self)(batch)])
        return [np.concatenate(part) for part in zip(*parts)]


class IdentityJudge(_Judge):
    """Who it is. forward: (B, 3, 64, 64) in [-1, 1] -> embedding (B, 128), unit length; factors (B, K), choices as
    logits.
    """

    NAME = "identity"

    @register_to_config
    def __init__(self, widths: tuple[int, int, int] = (48, 96, 96), features: int = 256, embedding_size: int = 128):
        super().__init__()
        self.trunk = Trunk(widths, features)
        self.embed = nn.Linear(features, embedding_size)
        self.factors = nn.Linear(features, Identity.VECTOR_SIZE)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(images)
        return F.normalize(self.embed(features), dim=1), self.factors(features)

    def read(self, images) -> IdentityReading:
        """images: a list of pictures (PIL, uint8 (H, W, 3) in RGB or paths), or an array (B, H, W, 3); any size."""
        embedding, factors = self._outputs(images)
        return IdentityReading(embedding, normalized(Identity.KINDS, torch.from_numpy(factors)).numpy())


class ExpressionJudge(_Judge):
    """What the face does, and how it is dressed. forward: (B, 3, 64, 64) in [-1, 1] -> factors (B, 21), words (B, 135)
    as logits, appearance (B, K), choices as logits.
    """

    NAME = "expression"

    @register_to_config
    def __init__(self, widths: tuple[int, int, int] = (48, 96, 96), features: int = 256):
        super().__init__()
        self.trunk = Trunk(widths, features)
        self.factors = nn.Linear(features, Expression.VECTOR_SIZE)
        self.words = nn.Linear(features, len(EMOTIONS))
        self.appearance = nn.Linear(features, Appearance.VECTOR_SIZE)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(images)
        return self.factors(features), self.words(features), self.appearance(features)

    def read(self, images) -> ExpressionReading:
        """images: a list of pictures (PIL, uint8 (H, W, 3) in RGB or paths), or an array (B, H, W, 3); any size."""
        factors, words, appearance = self._outputs(images)
        low = np.array([kind.low for kind in Expression.KINDS], dtype=np.float32)
        words = torch.from_numpy(words).softmax(1).numpy()
        appearance = normalized(Appearance.KINDS, torch.from_numpy(appearance)).numpy()
        return ExpressionReading(np.clip(factors, low, 1), words, appearance)


# --- in and out -----------------------------------------------------------------------------------------------------


def normalized(kinds, raw: Tensor) -> Tensor:
    """What a network says of a group of factors, (B, K), with the logits of every choice turned to probabilities."""
    parts = raw.split([kind.size for kind in kinds], dim=1)
    return torch.cat([p.softmax(1) if isinstance(k, Choice) else p for k, p in zip(kinds, parts)], dim=1)


def as_pixels(images) -> np.ndarray:
    """Pictures of any size as uint8 (B, 64, 64, 3): the centred square of each. Raises UserError for what is none."""
    whole = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3)
    if whole and len(images):
        return images
    if isinstance(images, (str, bytes, Image.Image)) or not hasattr(images, "__len__") or len(images) == 0:
        raise UserError(f"the judge got {type(images).__name__}: give a list of at least one picture")
    return np.stack([np.asarray(square(open_picture(one), SIZE)) for one in images])
