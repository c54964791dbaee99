"""Fusion of identity and expression: condition tokens and a pooled vector for the MM-DiT (Gen-AFFECT's first idea).

The abstract says that an identity-expression representation is extracted and fused; it does not say how. Here learned
queries attend to the tokens of both, as in a Perceiver resampler (Jaegle et al. 2021; Alayrac et al. 2022). Three
simpler fusions with the same interface serve as baselines.

Letters: B images, V views of the identity, I and E tokens of identity and expression, N condition tokens, H heads, D
channels of a token. Taught in notebook 07.
"""

from collections.abc import Callable
from typing import cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import KeyValueProjections, attend, attention_weights


class ResamplerLayer(nn.Module):
    """One layer of the resampler: cross-attention from the queries (B, N, D) to sources and queries, then an MLP."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm_query, self.norm_source, self.norm_mlp = (nn.LayerNorm(dim) for _ in range(3))
        self.to_q = nn.Linear(dim, dim)
        self.source = KeyValueProjections(dim, num_heads, qk_norm="rms_norm")
        self.to_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(approximate="tanh"), nn.Linear(2 * dim, dim))

    def forward(self, queries: Tensor, sources: Tensor) -> Tensor:
        query, key, value = self.project(queries, sources)
        queries = queries + self.to_out(attend(query, key, value))
        return queries + self.mlp(self.norm_mlp(queries))

    def project(self, queries: Tensor, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, H, D / H), and keys and values (B, I + E + N, H, D / H)."""
        query = self.to_q(self.norm_query(queries)).unflatten(2, (self.num_heads, -1))  # (B, N, D) -> (B, N, H, D / H)
        attended = torch.cat([self.norm_source(sources), self.norm_query(queries)], dim=1)  # (B, I + E + N, D)
        _, key, value = self.source.qkv(attended)
        return self.source.norm_k(query), key, value

    def weights(self, queries: Tensor, sources: Tensor) -> Tensor:
        """Attention weights of the queries over sources, then queries: (B, H, N, I + E + N); rows sum to 1."""
        query, key, _ = self.project(queries, sources)
        return attention_weights(query, key)


class Resampler(nn.Module):
    """N learned queries, updated by `ResamplerLayer`s; identity (B, I, D), expression (B, E, D) to tokens (B, N, D).

    A token can depend on identity and expression jointly: for example on the smile of a person with full lips.
    """

    def __init__(self, dim: int, num_tokens: int, num_layers: int, num_heads: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_tokens, dim) * 0.5)
        self.layers = nn.ModuleList(ResamplerLayer(dim, num_heads) for _ in range(num_layers))

    @torch.no_grad()
    def start_as_concatenation(self, places: Tensor) -> None:
        """Initialize near concatenation: query n attends to source n in the first layer and copies it.

        The match is by the position embeddings of the sources, `places` (1, I + E, D). All other branches start near 0.
        With random queries, training takes much longer to separate identity and expression.
        """
        layers, dim = [cast(ResamplerLayer, layer) for layer in self.layers], places.shape[2]
        first = layers[0]
        # The queries are among the keys as well. Without a rotation each would attend to itself, not to its source.
        rotation = nn.init.orthogonal_(torch.empty(dim, dim, dtype=torch.float32)).to(places)  # no QR in half precision
        source = torch.arange(self.queries.shape[1]) % places.shape[1]
        self.queries.copy_(places[:, source] @ rotation)
        first.to_q.weight.copy_(rotation)
        for matrix in (*first.source.to_kv.weight.chunk(2), first.to_out.weight):
            nn.init.eye_(matrix)
        near_zero = [cast(nn.Linear, layer.mlp[-1]) for layer in layers] + [layer.to_out for layer in layers[1:]]
        for linear in near_zero:
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (first.to_q, first.source.to_kv, first.to_out, *near_zero):
            nn.init.zeros_(linear.bias)

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        sources = torch.cat([identity, expression], dim=1)  # (B, I + E, D)
        queries = self.queries.expand(sources.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, sources)
        return queries

    @torch.no_grad()
    def weights(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Attention weights of each condition token in each layer: (layers, B, H, N, I + E + N)."""
        sources, maps = torch.cat([identity, expression], dim=1), []
        queries = self.queries.expand(sources.shape[0], -1, -1)
        for layer in self.layers:
            maps.append(cast(ResamplerLayer, layer).weights(queries, sources))
            queries = layer(queries, sources)
        return torch.stack(maps)


class FusedAndExact(Resampler):
    """The N tokens of the resampler, followed by the identity tokens and the expression tokens themselves.

    So the MM-DiT attends to tokens that depend on identity and expression jointly, and to all that a concatenation has.
    """

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, I, D) and (B, E, D) -> (B, N + I + E, D)."""
        return torch.cat([super().forward(identity, expression), identity, expression], dim=1)


class Concatenation(nn.Module):
    """Identity tokens followed by expression tokens; relating them is left to the MM-DiT."""

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        return torch.cat([identity, expression], dim=1)


class Sum(nn.Module):
    """The mean expression token, added to each identity token."""

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        return identity + expression.mean(dim=1, keepdim=True)


class ResidualMLP(nn.Module):
    """Identity tokens plus an MLP of each of them and the mean expression token."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        mean = expression.mean(dim=1, keepdim=True).expand_as(identity)  # (B, 1, D) -> (B, I, D)
        return identity + self.mlp(torch.cat([identity, mean], dim=2))


# name -> constructor, called with D, N, layers and heads; a module maps identity (B, I, D) and expression (B, E, D) to
# condition tokens
FUSIONS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "resampler": Resampler,
    "fused_and_exact": FusedAndExact,
    "concatenation": lambda dim, num_tokens, num_layers, num_heads: Concatenation(),
    "sum": lambda dim, num_tokens, num_layers, num_heads: Sum(),
    "residual_mlp": lambda dim, num_tokens, num_layers, num_heads: ResidualMLP(dim),
}


class IdentityExpressionFusion(ModelMixin, ConfigMixin):
    """Identity embeddings and an expression to condition tokens (B, N, D) and a pooled vector (B, D).

    Either can be dropped for each image separately; learned tokens then replace it. Training drops them independently
    at random, as classifier-free guidance with two scales requires (Ho & Salimans 2022).

    Args:
        identity_views, identity_dim: V and the size of each embedding, as `encoders.identity.IdentityEncoder` and
            `encoders.pack.FaceReading.tokens` give them.
        expression_dim: size of an expression, as in `encoders.expression.ExpressionReading.representation`.
        dim: D.
        identity_tokens, expression_tokens: I (a multiple of V) and E, the numbers of tokens that are fused.
        condition_tokens, num_layers, num_heads: N, layers and heads of a resampler; the other fusions ignore them.
        fusion: a key of `FUSIONS`.

    Raises UserError if the sizes do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        identity_views: int = 2,
        identity_dim: int = 512,
        expression_dim: int = 48,
        dim: int = 160,
        identity_tokens: int = 6,
        expression_tokens: int = 4,
        condition_tokens: int = 16,
        num_layers: int = 2,
        num_heads: int = 5,
        fusion: str = "resampler",
    ):
        super().__init__()
        if fusion not in FUSIONS:
            raise UserError(f"fusion {fusion!r} is not known: give one of {', '.join(FUSIONS)}")
        if identity_tokens % identity_views:
            raise UserError(
                f"{identity_tokens} identity_tokens are not a multiple of {identity_views} views: give a multiple"
            )
        if dim % num_heads:
            raise UserError(f"dim {dim} is not divisible by {num_heads} heads: give a divisor")
        each = identity_tokens // identity_views
        # One projection for all views: their embeddings come from one network and lie in one space.
        self.view = nn.Linear(identity_dim, each * dim)
        self.expression = nn.Sequential(
            nn.Linear(expression_dim, dim), nn.SiLU(), nn.Linear(dim, expression_tokens * dim)
        )
        with torch.no_grad():  # inputs are mostly near 0; with this factor both kinds of tokens have similar norms
            cast(nn.Linear, self.expression[2]).weight.mul_(8)
        # Position embeddings: they distinguish the tokens of the views and of the expression.
        self.identity_place = nn.Parameter(torch.randn(1, identity_tokens, dim) * 0.02)
        self.expression_place = nn.Parameter(torch.randn(1, expression_tokens, dim) * 0.02)
        self.no_identity = nn.Parameter(torch.zeros(1, identity_tokens, dim))
        self.no_expression = nn.Parameter(torch.zeros(1, expression_tokens, dim))
        self.fuse = FUSIONS[fusion](dim, condition_tokens, num_layers, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.pool = nn.Linear(dim, dim)
        if isinstance(self.fuse, Resampler):
            nn.init.normal_(self.identity_place, std=0.5)
            nn.init.normal_(self.expression_place, std=0.5)
            self.fuse.start_as_concatenation(torch.cat([self.identity_place, self.expression_place], dim=1))

    def forward(
        self,
        identity: Tensor,
        expression: Tensor,
        keep_identity: Tensor | None = None,
        keep_expression: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Condition tokens (B, N, D) and pooled vector (B, D).

        Args:
            identity: (B, V, identity_dim), about unit scale.
            expression: (B, expression_dim).
            keep_identity, keep_expression: bool (B,), False for images whose identity or expression is dropped; None
                keeps all.

        Raises UserError for inputs of another shape.
        """
        tokens = self.norm(self.fuse(*self.tokens(identity, expression, keep_identity, keep_expression)))
        return tokens, self.pool(tokens.mean(dim=1))

    def tokens(
        self,
        identity: Tensor,
        expression: Tensor,
        keep_identity: Tensor | None = None,
        keep_expression: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Identity tokens (B, I, D) and expression tokens (B, E, D) before fusion; arguments as for `forward`."""
        B, dim = identity.shape[0], self.config["dim"]
        views, identity_dim, expression_dim = (
            self.config[size] for size in ("identity_views", "identity_dim", "expression_dim")
        )
        if identity.shape != (B, views, identity_dim):
            raise UserError(f"identity has shape {tuple(identity.shape)}: give (B, {views}, {identity_dim})")
        if expression.shape != (B, expression_dim):
            raise UserError(f"expression has shape {tuple(expression.shape)}: give ({B}, {expression_dim})")
        # (B, V, I / V · D) -> (B, V, I / V, D) -> (B, I, D)
        who = self.view(identity).unflatten(2, (-1, dim)).flatten(1, 2)
        what = self.expression(expression).unflatten(1, (-1, dim))  # (B, E · D) -> (B, E, D)
        who = _dropped(who, self.no_identity, keep_identity) + self.identity_place
        what = _dropped(what, self.no_expression, keep_expression) + self.expression_place
        return who, what


def _dropped(tokens: Tensor, learned: Tensor, keep: Tensor | None) -> Tensor:
    """`tokens` (B, L, D) where keep (B,) is True or None, the learned tokens (1, L, D) elsewhere."""
    return tokens if keep is None else torch.where(keep[:, None, None], tokens, learned)
