"""Who is it? A face becomes 512 numbers whose direction says whose face it is (ArcFace, Deng et al. 2019).

The network is a small IResNet. It learns by naming the person on each picture among all people of the training set,
with a handicap: the angle to the right person's direction counts as if it were larger by a margin. So pictures of one
person are drawn together until they fit with room to spare, and people never seen before fall apart just as well.

Letters: B pictures, C people of the training set, E = 512 numbers of an embedding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.encoders.views import SIZE, VIEWS
from gen_affect_lib.tensors import to_tensor


class IResidual(nn.Module):
    """IResNet's block: normalization before and after each convolution, and nothing but addition on the straight path.

    The stride stands in the first convolution, not in the second as in IResNet: a quarter of the work.
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
        blocks: how many residual blocks at each.
        squeeze: channels that are left before all places are read by one linear map. Where something is matters (the
            distance of the eyes), so places are not averaged away; with few channels the map stays small.
        embedding: E.

    Weights: He et al.'s for the convolutions; the last normalization has no gain, since only directions count.
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
        """RGB in [-1, 1], (B, 3, 112, 112), to embeddings (B, E) of any length: compare them by the cosine.

        Raises ValueError for another shape.
        """
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            raise ValueError(f"images have shape {tuple(images.shape)}: give (B, 3, {SIZE}, {SIZE}), see views.aligned")
        features = self.squeeze(self.stages(self.stem(images)))
        return self.norm(self.embed(features.flatten(1)))  # (B, squeeze, 7, 7) -> (B, squeeze * 49) -> (B, E)


class ArcFaceLoss(nn.Module):
    """Additive angular margin: cross-entropy over s cos(angle), where the right person's angle counts m radians more.

    Args:
        people: C.
        embedding: E.
        margin: m in radians; `forward` takes the share of it that counts, for a warm-up from 0.
        scale: s, how sharp the softmax is.
    """

    def __init__(self, people: int, embedding: int = 512, margin: float = 0.4, scale: float = 32.0):
        super().__init__()
        self.margin, self.scale = margin, scale
        self.directions = nn.Parameter(torch.randn(people, embedding) * 0.05)  # one for each person

    def forward(self, embeddings: Tensor, person: Tensor, warmth: float = 1.0) -> Tensor:
        """Embeddings (B, E) and the numbers of the people (B,) to the mean loss.

        A margin from the first step on would ask for more than the network can give, and it would learn nothing at
        all; so `warmth` goes from 0 to 1 in training.
        """
        cosine = F.normalize(embeddings) @ F.normalize(self.directions).T  # (B, C)
        right = cosine.gather(1, person[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)  # (B, 1)
        m = warmth * self.margin
        # cos(angle + m) by the addition theorem. Past pi it would rise again: from there on a straight line goes down.
        harder = right * math.cos(m) - (1 - right.square()).sqrt() * math.sin(m)
        harder = torch.where(right > -math.cos(m), harder, right - m * math.sin(m))
        logits = cosine.scatter(1, person[:, None], harder.to(cosine.dtype))
        return F.cross_entropy(self.scale * logits, person)


@torch.no_grad()
def erase(net: ArcFaceNet, embeddings: Tensor, nuisance: Tensor, groups: Tensor) -> None:
    """Make the last linear map blind to what can be read linearly of `nuisance`, at the least change of the embeddings.

    Least-squares concept erasure (LEACE, Belrose et al. 2023): whiten, project off the directions that vary together
    with the nuisance, and undo the whitening. Training makes the pictures of one person alike, never quite the same;
    the rest that is left has much of the expression in it, and this takes it out.

    Args:
        embeddings: (M, E) of training pictures, by this network.
        nuisance: (M, K), what they must not tell.
        groups: (M,) whole numbers: which view each is. The views' traces of the nuisance differ, so each is erased.
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
    # Numbers that have nothing to do with each other correlate too, in a sample: this is by how much at most (the edge of
    # the Marchenko-Pastur law). What lies below is left, since erasing chance would cost true differences of people.
    chance = (kept.sum() ** 0.5 + nuisance.shape[1] ** 0.5) / (len(x) / len(traces)) ** 0.5
    directions = directions[:, strengths > chance]
    blind = (torch.eye(len(mean), dtype=torch.double) - color @ directions @ directions.T @ whiten).float()  # (E, E)
    spread = (net.norm.running_var + net.norm.eps).sqrt()
    weight, bias = net.embed.weight / spread[:, None], (net.embed.bias - net.norm.running_mean) / spread
    net.embed.weight.copy_(blind @ weight)
    net.embed.bias.copy_(blind @ (bias - mean) + mean)
    net.norm.running_mean.zero_()
    net.norm.running_var.fill_(1 - net.norm.eps)


class IdentityEncoder(nn.Module):
    """The identity as a condition sees it: the aligned crop, and beside it a wider view with hair and coverings.

    The crop is what recognition compares; but it cuts a bun or a turban off, and a generator that is to draw the person
    must know of them. One network reads both views: it was trained on both to name the same person.
    """

    def __init__(self, net: ArcFaceNet):
        super().__init__()
        self.net = net

    def forward(self, views: Tensor) -> Tensor:
        """Views (B, V, 3, 112, 112) in [-1, 1], in the order of `views.VIEWS`, to tokens (B, V, E) of length √E."""
        if views.ndim != 5 or views.shape[1] != len(VIEWS):
            raise ValueError(f"views have shape {tuple(views.shape)}: give (B, {len(VIEWS)}, 3, {SIZE}, {SIZE})")
        tokens = self.net(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (B * V, E) -> (B, V, E)
        return F.normalize(tokens, dim=-1) * tokens.shape[-1] ** 0.5  # about unit scale each, as networks like it


@torch.no_grad()
def embed(net: nn.Module, images: np.ndarray, batch_size: int = 128) -> Tensor:
    """Views uint8 (M, 112, 112, 3) to embeddings (M, E), on the CPU."""
    device = next(net.parameters()).device
    blocks = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return torch.cat([net(to_tensor(block).to(device, memory_format=torch.channels_last)).cpu() for block in blocks])
