"""The recognizer: a face to an embedding whose direction identifies the person (ArcFace, Deng et al. 2019).

The network is a small IResNet. It is trained to classify each picture as one of the people of the training set, with
an additive margin: the loss adds a constant to the angle between the embedding and the direction of the correct person.
So embeddings of one person become similar until a margin separates them from those of others. This generalises to new
people.

Letters: B pictures, C people of the training set, E = 512 numbers of an embedding.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.encoders.views import SIZE, VIEWS
from gen_affect_lib.errors import UserError
from gen_affect_lib.tensors import to_tensor


class IResidual(nn.Module):
    """The block of IResNet: normalization before and after each convolution, none on the shortcut.

    The stride is in the first convolution, which makes it four times cheaper; in IResNet it is in the second.
    """

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


class ArcFaceNet(nn.Module):
    """From an aligned face to its embedding.

    Args:
        widths: channels at 28, 14 and 7 pixels a side.
        blocks: the number of residual blocks at each.
        squeeze: channels before the linear layer that reads all positions. Positions matter (the distance of the eyes),
            so there is no average pooling; few channels keep the layer small.
        embedding: E.

    The convolutions are initialised as by He et al. The last normalization has no gain, since only directions matter.
    """

    def __init__(self, widths=(32, 64, 128), blocks=(1, 1, 2), squeeze: int = 32, embedding: int = 512):
        super().__init__()
        self.sizes = dict(widths=list(widths), blocks=list(blocks), squeeze=squeeze, embedding=embedding)
        self.stem = nn.Sequential(  # (B, 3, 112, 112) -> (B, widths[0], 28, 28)
            nn.Conv2d(3, widths[0], 7, stride=4, padding=3, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        stages, before = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks)):
            for block in range(count):
                stages.append(IResidual(before, width, stride=2 if stage and not block else 1))
                before = width
        self.stages = nn.Sequential(*stages)  # -> (B, widths[2], 7, 7)
        self.squeeze = nn.Sequential(
            nn.BatchNorm2d(before), nn.Conv2d(before, squeeze, 1, bias=False), nn.BatchNorm2d(squeeze)
        )
        side = SIZE // 16
        self.embed = nn.Linear(squeeze * side * side, embedding)
        self.norm = nn.BatchNorm1d(embedding, affine=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """RGB in [-1, 1], (B, 3, 112, 112), to embeddings (B, E) of any norm, to be compared by their cosine.

        Raises UserError for another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            raise UserError(f"images have shape {tuple(images.shape)}: give (B, 3, {SIZE}, {SIZE}), see views.aligned")
        features = self.squeeze(self.stages(self.stem(images)))
        return self.norm(self.embed(features.flatten(1)))  # (B, squeeze, 7, 7) -> (B, squeeze * 49) -> (B, E)


class ArcFaceLoss(nn.Module):
    """Additive angular margin: cross-entropy over s cos(angle), with m added to the angle of the correct person.

    Args:
        people: C.
        embedding: E.
        margin: m in radians.
        scale: s, the inverse temperature of the softmax.
    """

    def __init__(self, people: int, embedding: int = 512, margin: float = 0.4, scale: float = 32.0):
        super().__init__()
        self.margin, self.scale = margin, scale
        self.directions = nn.Parameter(torch.randn(people, embedding) * 0.05)  # one per person

    def forward(self, embeddings: Tensor, person: Tensor, warmth: float = 1.0) -> Tensor:
        """The mean loss of embeddings (B, E) with class indices `person` (B,).

        `warmth`: the fraction of the margin that is applied, in [0, 1]. With the full margin from the first step the
        network does not learn, so training raises it from 0 to 1.
        """
        cosine = F.normalize(embeddings) @ F.normalize(self.directions).T  # (B, C)
        right = cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)  # (B, 1)
        m = warmth * self.margin
        # cos(angle + m) by the addition theorem. For angle + m > pi it would rise again, so a line replaces it.
        harder = right * math.cos(m) - (1 - right.square()).sqrt() * math.sin(m)
        harder = torch.where(right > -math.cos(m), harder, right - m * math.sin(m))
        logits = cosine.scatter(1, person[:, None], harder.to(cosine.dtype))
        return F.cross_entropy(self.scale * logits, person)


@torch.no_grad()
def erase(net: ArcFaceNet, embeddings: Tensor, nuisance: Tensor, groups: Tensor) -> None:
    """Remove what a linear model can predict of `nuisance` from the embeddings, by a change of the last layer.

    Least-squares concept erasure (LEACE, Belrose et al. 2023): whiten, project out the directions that correlate with
    the nuisance, and undo the whitening. After training, the embeddings of one person still vary a little, mostly with
    the expression; erasure removes this dependence.

    Args:
        net: the network; changed in place.
        embeddings: (M, E), its embeddings of training pictures.
        nuisance: (M, K), quantities that must not be predictable from the embeddings.
        groups: int (M,), the view of each picture. Correlations are measured for each view, since they differ.
    """
    mean = embeddings.mean(dim=0)
    x = (embeddings - mean).double()
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))  # (E,), (E, E)
    kept = values > 1e-6 * values[-1]
    root = values.clamp_min(0).sqrt()
    whiten = (vectors[:, kept] / root[kept]) @ vectors[:, kept].T
    color = (vectors[:, kept] * root[kept]) @ vectors[:, kept].T
    traces = []
    for group in groups.unique():
        rows = groups == group
        z = nuisance[rows].double()
        traces.append((x[rows] - x[rows].mean(dim=0)).T @ ((z - z.mean(dim=0)) / z.std(dim=0).clamp_min(1e-6)) / len(z))
    directions, strengths, _ = torch.linalg.svd(whiten @ torch.cat(traces, dim=1), full_matrices=False)
    # The largest correlation of independent numbers in a sample (the edge of the Marchenko-Pastur law). Directions
    # below it are kept, since erasing chance correlations would cost differences between people.
    chance = (kept.sum() ** 0.5 + nuisance.shape[1] ** 0.5) / (len(x) / len(traces)) ** 0.5
    directions = directions[:, strengths > chance]
    blind = (torch.eye(len(mean), dtype=torch.double) - color @ directions @ directions.T @ whiten).float()  # (E, E)
    variance, center = net.norm.running_var, net.norm.running_mean
    assert variance is not None and center is not None
    spread = (variance + net.norm.eps).sqrt()
    weight, bias = net.embed.weight / spread[:, None], (net.embed.bias - center) / spread
    net.embed.weight.copy_(blind @ weight)
    net.embed.bias.copy_(blind @ (bias - mean) + mean)
    center.zero_()
    variance.fill_(1 - net.norm.eps)


Array = TypeVar("Array", Tensor, np.ndarray)


def to_tokens(directions: Array) -> Array:
    """Embeddings of norm 1, (…, E), as identity tokens of norm √E: each number is about unit scale."""
    return directions * directions.shape[-1] ** 0.5


class IdentityEncoder(nn.Module):
    """The identity as conditioning: tokens of the aligned crop and of a wider view with hair and coverings.

    Recognition compares embeddings of the crop. But the crop cuts off a bun or a turban, which the generator must draw.
    One network, trained on both views, embeds both.
    """

    def __init__(self, net: ArcFaceNet):
        super().__init__()
        self.net = net

    def forward(self, views: Tensor) -> Tensor:
        """Views (B, V, 3, 112, 112) in [-1, 1], in the order of `views.VIEWS`, to tokens (B, V, E) of norm √E.

        Raises UserError for another shape.
        """
        if views.ndim != 5 or views.shape[1] != len(VIEWS):
            raise UserError(f"views have shape {tuple(views.shape)}: give (B, {len(VIEWS)}, 3, {SIZE}, {SIZE})")
        embeddings = self.net(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (B * V, E) -> (B, V, E)
        return to_tokens(F.normalize(embeddings, dim=-1))


@torch.no_grad()
def embed(net: nn.Module, images: np.ndarray, batch_size: int = 128) -> Tensor:
    """Views uint8 (M, 112, 112, 3) to embeddings (M, E), on the CPU."""
    device = next(net.parameters()).device
    blocks = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return torch.cat([net(to_tensor(block).to(device, memory_format=torch.channels_last)).cpu() for block in blocks])
