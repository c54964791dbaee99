"""A loss on faces instead of latents: do the encoders read the same of the picture that the network believes in?

At a low sigma the network's guess of the clean picture is nearly one. It is decoded and shown to the readers of notebooks
05 and 06, next to the true picture, and what they read should agree: the action units, and who it is. A lid of two
pixels weighs little in the latents and much here. The judges of `evaluation` are other networks and see none of this.

Letters: B images of a batch, R of them at a low sigma, C channels and s the side of the codec's space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.encoders.expression import ExpressionEncoder
from gen_affect_lib.encoders.pack import load_recognizer
from gen_affect_lib.encoders.views import SIZE, VIEWS, similarity


class FaceLoss:
    """Call it with the predicted and the true latents (B, C, s, s) and sigma (B,): the loss of each picture (B,).

    Args:
        codec: decodes; nothing in it learns.
        units, identity: how much a mean error of 1 in the 21 numbers, and a cosine of 0 instead of 1, count.
        below: the sigma from which on a guess is too blurred to be read; such pictures add nothing.
    """

    def __init__(self, codec, units: float = 1.0, identity: float = 0.1, below: float = 0.3):
        self.codec, self.units, self.identity, self.below = codec, units, identity, below
        self.expression = ExpressionEncoder.from_pretrained()
        self.recognizer = load_recognizer().eval()
        for network in (self.codec, self.expression.vit, self.recognizer):
            network.requires_grad_(False).to(codec.device)
        self.grid = _crop_grid().to(codec.device)

    def __call__(self, predicted: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        near = (sigma < self.below).nonzero()[:, 0]  # (R,)
        loss = predicted.new_zeros(len(sigma))
        if len(near) == 0:
            return loss
        units, who = self.read(self.codec.decode(predicted[near]))
        with torch.no_grad():
            true_units, true_who = self.read(self.codec.decode(target[near]))
        units = (units - true_units).abs().mean(dim=1)
        return loss.index_add(0, near, self.units * units + self.identity * (1 - (who * true_who).sum(dim=1)))

    def read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (R, 3, S, S) in [-1, 1] to the 21 numbers of each face (R, 21) and a direction of length 1 (R, 512)."""
        crop = F.grid_sample(pictures, self.grid.expand(len(pictures), -1, -1, -1), align_corners=False)
        return self.expression.vectors(pictures), F.normalize(self.recognizer(crop), dim=1)


def _crop_grid() -> Tensor:
    """Where each pixel of insightface's crop of a typical face lies in a picture: (1, 112, 112, 2), from -1 to 1.

    The two pictures that are compared are tilted alike, so one alignment serves all.
    """
    typical = landmarks(Avatar(Identity.sample(0), Expression(), Appearance()))
    places = torch.from_numpy(
        similarity(typical, VIEWS["crop"] / SIZE)
    ).float()  # picture -> crop, in shares of the side
    at = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(at, at, indexing="ij")
    where = (torch.stack([x, y], dim=2) - places[:, 2]) @ torch.linalg.inv(places[:, :2]).T  # (112, 112, 2)
    return (2 * where - 1)[None]
