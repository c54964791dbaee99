"""What the MM-DiT is told: who it is, from a reference picture, and what the face should do, from action units.

A plain first version: one small convolutional encoder and one MLP, trained along with the MM-DiT. It stands at the seam
(`tokens` and `pooled`) where a richer identity-expression representation fits without another change.

Letters: B images, C channels and s the side of the codec's space, D channels of a condition token, L tokens.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.codec import Residual

GRID = 8  # the reference is brought to this side first, whatever space it comes in


class ConditionEncoder(ModelMixin, ConfigMixin):
    """16 tokens that see the reference in its 4 x 4 fields, a few that see the expression, and one vector of both.

    Each of the two can be left out, picture by picture; then learned tokens stand in its place. Training leaves them
    out now and then, on their own, which is what guidance with two scales needs (Ho & Salimans 2022).

    Args:
        in_channels, sample_size: of the references in the codec's space; sample_size is a multiple of 8.
        dim: channels of a token and of the pooled vector.
        width: channels of the convolutions.
        expression_tokens: how many tokens tell the expression.
    """

    @register_to_config
    def __init__(
        self, in_channels: int = 16, sample_size: int = 8, dim: int = 160, width: int = 128, expression_tokens: int = 4
    ):
        super().__init__()
        fold = sample_size // GRID
        self.identity = nn.Sequential(
            nn.PixelUnshuffle(fold),  # (B, C, s, s) -> (B, C * fold², 8, 8)
            nn.Conv2d(in_channels * fold**2, width // 2, 3, padding=1),
            Residual(width // 2),
            nn.Conv2d(width // 2, width, 2, stride=2),  # -> (B, width, 4, 4)
            Residual(width),
            nn.Conv2d(width, dim, 1),
        )
        self.position = nn.Parameter(torch.randn(1, (GRID // 2) ** 2, dim) * 0.02)
        self.no_identity = nn.Parameter(torch.zeros(1, (GRID // 2) ** 2, dim))
        self.expression = nn.Sequential(
            nn.Linear(Expression.VECTOR_SIZE, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, expression_tokens * dim)
        )
        self.no_expression = nn.Parameter(torch.zeros(1, expression_tokens, dim))
        self.pool_identity = nn.Linear(dim, dim)
        self.pool_expression = nn.Linear(expression_tokens * dim, dim)

    def forward(
        self,
        reference: Tensor,
        expression: Tensor,
        keep_identity: Tensor | None = None,
        keep_expression: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Condition tokens (B, L, D) and pooled vector (B, D).

        Args:
            reference: (B, C, s, s) in the codec's space.
            expression: (B, 21), as `Expression.to_vector` gives it.
            keep_identity, keep_expression: bool (B,), False where that part is left out; None keeps all.
        """
        B, size = len(reference), self.config.sample_size
        if reference.shape != (B, self.config.in_channels, size, size):
            raise ValueError(
                f"reference has shape {tuple(reference.shape)}: give (B, {self.config.in_channels}, {size}, {size})"
            )
        if expression.shape != (B, Expression.VECTOR_SIZE):
            raise ValueError(
                f"expression has shape {tuple(expression.shape)}: give ({B}, {Expression.VECTOR_SIZE})"
            )
        identity = self.identity(reference).flatten(2).transpose(1, 2)  # (B, D, 4, 4) -> (B, 16, D)
        face = self.expression(expression).unflatten(1, (-1, self.config.dim))  # (B, n·D) -> (B, n, D)
        identity = _or(identity + self.position, self.no_identity, keep_identity)
        face = _or(face, self.no_expression, keep_expression)
        pooled = self.pool_identity(identity.mean(1)) + self.pool_expression(face.flatten(1))  # (B, n, D) -> (B, n·D)
        return torch.cat([identity, face], dim=1), pooled


def _or(tokens: Tensor, absent: Tensor, keep: Tensor | None) -> Tensor:
    """`tokens` (B, L, D) where keep (B,) is true, the learned stand-in (1, L, D) elsewhere."""
    return tokens if keep is None else torch.where(keep[:, None, None], tokens, absent)
