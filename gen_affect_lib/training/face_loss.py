"""A perceptual loss on faces: it compares the face encoders' outputs for the predicted and the true picture.

At a low sigma the prediction of the clean latents is close to the target. Both are decoded, and their expression
vectors and identity embeddings are compared (the encoders of notebooks 05 and 06). A detail of two pixels, such as an
eyelid, has little effect on a loss on latents and a large one on this loss. The judges of `evaluation` are other
networks, so this loss does not train on the evaluation's measure.

Letters: B images of a batch, R of them at a low sigma, C channels and s side of the latents, S side of an image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.encoders.expression import ExpressionEncoder
from gen_affect_lib.encoders.pack import load_recognizer
from gen_affect_lib.encoders.views import VIEWS
from gen_affect_lib.training.perceptual import view_grid


class FaceLoss:
    """(predicted clean latents (B, C, s, s), true latents, sigma (B,)) -> the loss of each picture (B,).

    Args:
        codec: decodes the latents. It is frozen.
        units: weight of the mean absolute error of the expression vector.
        identity: weight of 1 − the cosine of the identity embeddings.
        below: pictures with a sigma of at least this have a loss of 0, because their predictions are too blurred.
    """

    def __init__(self, codec: LatentCodec, units: float = 1.0, identity: float = 0.1, below: float = 0.3):
        self.codec, self.units, self.identity, self.below = codec, units, identity, below
        self.expression = ExpressionEncoder.from_pretrained()
        self.recognizer = load_recognizer().eval()
        for network in (self.codec, self.expression.vit, self.recognizer):
            nn.Module.to(network.requires_grad_(False), codec.device)
        self.grid = view_grid(VIEWS["crop"]).to(codec.device)

    def __call__(self, predicted: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        near = (sigma < self.below).nonzero()[:, 0]  # (R,)
        loss = predicted.new_zeros(len(sigma))
        if len(near) == 0:
            return loss
        units, identity = self.read(self.codec.decode(predicted[near]))
        with torch.no_grad():
            true_units, true_identity = self.read(self.codec.decode(target[near]))
        units = (units - true_units).abs().mean(dim=1)
        cosine = (identity * true_identity).sum(dim=1)
        return loss.index_add(0, near, self.units * units + self.identity * (1 - cosine))

    def read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (R, 3, S, S) in [-1, 1] to expression vectors (R, 21) and unit identity embeddings (R, 512)."""
        crop = F.grid_sample(pictures, self.grid.expand(len(pictures), -1, -1, -1), align_corners=False)
        return self.expression.vectors(pictures), F.normalize(self.recognizer(crop), dim=1)
