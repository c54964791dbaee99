"""A perceptual loss on the features of the kit's encoders (Johnson et al. 2016), for training the codec.

A detail of two pixels, such as an eyelid, has little effect on a mean over pixels and a large one on the features of an
encoder. The judges of `evaluation` are other networks, so this loss does not train on the evaluation's measure.

Letters: B pictures, S their side.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.encoders.expression import ExpressionEncoder
from gen_affect_lib.encoders.pack import load_recognizer
from gen_affect_lib.encoders.views import SIZE, VIEWS, similarity


class PerceptualLoss:
    """(decoded pictures (B, 3, S, S) in [-1, 1], true pictures) -> the loss ().

    The sum of two differences of features: the mean squared difference of all layers of the expression encoder, and the
    mean absolute difference of all feature maps of the recognizer, for both views of the face.

    Args:
        device: of the pictures.
        expression, recognizer: weights of the two differences.
    """

    def __init__(self, device: torch.device | str = "cpu", expression: float = 2.0, recognizer: float = 0.5):
        self.expression, self.recognizer = expression, recognizer
        self.encoder = ExpressionEncoder.from_pretrained()
        self.network = load_recognizer().eval()
        for network in (self.encoder.vit, self.network):
            nn.Module.to(network.requires_grad_(False), device)
        self.grids = torch.cat([view_grid(places) for places in VIEWS.values()]).to(device)  # (2, 112, 112, 2)

    def __call__(self, decoded: Tensor, true: Tensor) -> Tensor:
        with torch.no_grad():
            true_features, true_maps = self.encoder.features(true), self.maps(true)
        loss = self.expression * (self.encoder.features(decoded) - true_features).square().mean()
        differences = [(one - other).abs().mean() for one, other in zip(self.maps(decoded), true_maps)]
        return loss + self.recognizer * torch.stack(differences).mean()

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """The recognizer's feature maps of both views, each with root mean square 1 over its channels."""
        grids = self.grids.repeat_interleave(len(pictures), 0)  # (2, …) -> (2 * B, …)
        views = F.grid_sample(pictures.repeat(2, 1, 1, 1), grids, padding_mode="border", align_corners=False)
        found = [self.network.stem(views)]
        for stage in self.network.stages:
            found.append(stage(found[-1]))
        return [one * (one.square().mean(dim=1, keepdim=True) + 1e-4).rsqrt() for one in found]


def view_grid(places: np.ndarray) -> Tensor:
    """The grid with which `grid_sample` cuts one of `VIEWS` from a picture: (1, 112, 112, 2) in [-1, 1].

    All pictures are aligned by the landmarks of one typical face. This is enough where the two pictures of a comparison
    have the same pose.
    """
    typical = landmarks(Avatar(Identity.sample(0), Expression(), Appearance()))
    to_view = torch.from_numpy(similarity(typical, places / SIZE)).float()  # in fractions of the side
    at = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(at, at, indexing="ij")
    found = (torch.stack([x, y], dim=2) - to_view[:, 2]) @ torch.linalg.inv(to_view[:, :2]).T  # (112, 112, 2)
    return (2 * found - 1)[None]
