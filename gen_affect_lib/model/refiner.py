"""The refiner: adds small things that the latents do not hold (freckles, curls, folds) to a decoded picture.

The codec keeps what is large. A freckle has two pixels; an encoder that is trained on reconstruction leaves it out, and
a generator of such latents cannot draw it. But freckles and curls can be predicted from the identity embedding, and
folds from the expression. The refiner reads both, and the features of the decoder, from which the position of the face
can be computed. It is applied after sampling, once per picture. Super-resolution networks of cascaded diffusion models
are conditioned in the same way (Saharia et al. 2022, arXiv 2205.11487); ours is a regression, since the drawing is
fixed by its inputs.

Letters: B pictures, S their side, V views of the identity with E numbers each, K kinds of things, W channels of a
feature map, H channels of the conditioning vector. Taught in notebook 08.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from gen_affect_lib.errors import UserError

INPUT_SCALE = 4.0  # a smaller input makes the learning rate of `presence` smaller


class ModulatedResidual(nn.Module):
    """A residual block whose normalised input gets shift and scale from the conditioning vector (FiLM).

    (B, W, h, w), (B, H) -> (B, W, h, w). The last convolution starts at zero, so the block starts as the identity.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width, affine=False)
        self.modulation = nn.Linear(hidden, 2 * width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(c)[..., None, None].chunk(2, dim=1)  # (B, 2·W) -> two of (B, W, 1, 1)
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x) * (1 + scale) + shift))))


class Refiner(ModelMixin, ConfigMixin):
    """Features of the decoder, identity and expression to what is to be added to the decoded picture.

    It walks through the sides of the decoder from the smallest to the largest; at each it adds the decoder's features
    and applies modulated blocks. The output starts at zero, so an untrained refiner changes nothing.

    Args:
        feature_widths: channels of the decoder's features at S/16, S/8, S/4 and S/2, see
            `LatentCodec.decode_with_features`.
        widths: the refiner's own channels there, multiples of 8.
        blocks: blocks at each side.
        identity_views, identity_dim, expression_dim: V, E and the size of an expression.
        things: K, the kinds of things whose presence is told from the identity.
        hidden: H.
    """

    @register_to_config
    def __init__(
        self,
        feature_widths: tuple[int, ...] = (176, 128, 96, 48),
        widths: tuple[int, ...] = (64, 48, 32, 24),
        blocks: int = 1,
        identity_views: int = 2,
        identity_dim: int = 512,
        expression_dim: int = 48,
        things: int = 4,
        hidden: int = 128,
    ):
        super().__init__()
        # Linear: an MLP of so many numbers learns the training people by heart.
        self.presence = nn.Linear(identity_views * identity_dim, things)
        self.condition = nn.Sequential(
            nn.Linear(things + expression_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        # GroupNorm without gain: features of different sides and channels have very different scales.
        self.read = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, wide, affine=False), nn.Conv2d(wide, width, 1))
            for wide, width in zip(feature_widths, widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, 4 * width, 1), nn.PixelShuffle(2)) for wide, width in zip(widths, widths[1:])
        )
        self.sides = nn.ModuleList(
            nn.ModuleList(ModulatedResidual(width, hidden) for _ in range(blocks)) for width in widths
        )
        self.last = nn.Conv2d(widths[-1], 12, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not among torch's overloads)

    def presence_logits(self, identity: Tensor) -> Tensor:
        """Whether each thing is there, from identities (B, V, E): (B, K), above 0 for yes."""
        return self.presence(identity.flatten(1) / INPUT_SCALE)

    def forward(self, features: Sequence[Tensor], identity: Tensor, expression: Tensor) -> Tensor:
        """The addition (B, 3, S, S), in units of the picture in [-1, 1].

        Args:
            features: of the decoder, (B, W, S/16, S/16) to (B, W, S/2, S/2).
            identity: (B, V, E), about unit scale.
            expression: (B, expression_dim).

        Raises UserError for inputs that do not fit together.
        """
        if len(features) != len(self.read) or not (identity.shape[0] == expression.shape[0] == features[0].shape[0]):
            raise UserError(
                f"{len(features)} feature maps of {len(features[0])} pictures, {len(identity)} identities and "
                f"{len(expression)} expressions: give {len(self.read)} maps and one of each per picture"
            )
        present = self.presence_logits(identity).sigmoid().detach()  # it has a loss of its own
        c = self.condition(torch.cat([present, expression], dim=1))  # (B, K + 48) -> (B, H)
        x = self.read[0](features[0])
        for level, blocks in enumerate(self.sides):
            if level:
                x = self.up[level - 1](x) + self.read[level](features[level])
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList)
                x = block(x, c)
        return F.pixel_shuffle(self.last(F.silu(x)), 2)  # (B, 12, S/2, S/2) -> (B, 3, S, S)
