"""Identity and expression become one: tokens and a pooled vector for the MM-DiT (Gen-AFFECT's first idea).

The abstract says that an identity-expression representation is extracted and fused; how, it does not say. Here learned
queries read both and carry away what the generator turns out to need, as in a Perceiver resampler (Jaegle et al. 2021;
Alayrac et al. 2022). Beside it stand three plainer ways that others use, at the same seam, to compare with.

Letters: B images, V views of the identity, I and E tokens of identity and expression, N condition tokens, H heads, D
channels of a token. Taught in notebook 07.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import LentProjections, attend, attention_weights


class Reading(nn.Module):
    """One layer of the resampler: the queries (B, N, D) look at the sources and at each other, and think it over."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm_query, self.norm_source, self.norm_mlp = (nn.LayerNorm(dim) for _ in range(3))
        self.to_q = nn.Linear(dim, dim)
        self.source = LentProjections(dim, num_heads, qk_norm="rms_norm")
        self.to_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(approximate="tanh"), nn.Linear(2 * dim, dim))

    def forward(self, queries: Tensor, sources: Tensor) -> Tensor:
        query, key, value = self.ask(queries, sources)
        queries = queries + self.to_out(attend(query, key, value))
        return queries + self.mlp(self.norm_mlp(queries))

    def ask(self, queries: Tensor, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, H, D / H), and keys and values (B, I + E + N, H, D / H)."""
        query = self.to_q(self.norm_query(queries)).unflatten(2, (self.num_heads, -1))  # (B, N, D) -> (B, N, H, D / H)
        seen = torch.cat([self.norm_source(sources), self.norm_query(queries)], dim=1)
        _, key, value = self.source.qkv(seen)
        return self.source.norm_k(query), key, value

    def weights(self, queries: Tensor, sources: Tensor) -> Tensor:
        """How much each query looks at each source, and at the queries behind them: (B, H, N, I + E + N), sum 1."""
        query, key, _ = self.ask(queries, sources)
        return attention_weights(query, key)


class Resampler(nn.Module):
    """Learned queries read both, a few layers long. What they carry may hang on both at once: how *this* mouth smiles."""

    def __init__(self, dim: int, num_tokens: int, num_layers: int, num_heads: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_tokens, dim) * 0.5)
        self.layers = nn.ModuleList(Reading(dim, num_heads) for _ in range(num_layers))

    @torch.no_grad()
    def start_as_concatenation(self, places: Tensor) -> None:
        """Begin with what works at once: query n looks at source n, by its place (1, I + E, D), and carries it away; all
        later branches begin all but closed. From queries that look everywhere at once, who and what take long to come apart."""
        first, dim = self.layers[0], places.shape[2]
        # Turned, or each query would find its own key, which is among those looked at, before that of its source.
        turn = nn.init.orthogonal_(torch.empty(dim, dim, dtype=torch.float32)).to(
            places
        )  # there is none in half precision
        mine = torch.arange(self.queries.shape[1]) % places.shape[1]
        self.queries.copy_(places[:, mine] @ turn)
        first.to_q.weight.copy_(turn)
        for matrix in (*first.source.to_kv.weight.chunk(2), first.to_out.weight):
            nn.init.eye_(matrix)
        closed = [layer.mlp[-1] for layer in self.layers] + [layer.to_out for layer in self.layers[1:]]
        for linear in closed:
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (first.to_q, first.source.to_kv, first.to_out, *closed):
            nn.init.zeros_(linear.bias)

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        sources = torch.cat([identity, expression], dim=1)  # (B, I + E, D)
        queries = self.queries.expand(len(sources), -1, -1)
        for layer in self.layers:
            queries = layer(queries, sources)
        return queries

    @torch.no_grad()
    def weights(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Where each condition token looks: (layers, B, H, N, I + E + N)."""
        sources, maps = torch.cat([identity, expression], dim=1), []
        queries = self.queries.expand(len(sources), -1, -1)
        for layer in self.layers:
            maps.append(layer.weights(queries, sources))
            queries = layer(queries, sources)
        return torch.stack(maps)


class Concatenation(nn.Module):
    """Side by side: the MM-DiT's own attention has to find out what belongs together."""

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        return torch.cat([identity, expression], dim=1)


class Sum(nn.Module):
    """The mean of the expression's tokens, added to each token of the identity."""

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        return identity + expression.mean(dim=1, keepdim=True)


class ResidualMLP(nn.Module):
    """An MLP sees a token of the identity and the mean of the expression, and says by how much to change the token."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, identity: Tensor, expression: Tensor) -> Tensor:
        shown = expression.mean(dim=1, keepdim=True).expand_as(identity)  # (B, 1, D) -> (B, I, D)
        return identity + self.mlp(torch.cat([identity, shown], dim=2))


FUSIONS = ("resampler", "concatenation", "sum", "residual_mlp")


class IdentityExpressionFusion(ModelMixin, ConfigMixin):
    """From who it is and what the face shall do to condition tokens (B, N, D) and a pooled vector (B, D).

    Each of the two can be left out, picture by picture; then learned tokens stand in its place. Training leaves them
    out now and then, each on its own, which is what guidance with two scales needs (Ho & Salimans 2022).

    Args:
        identity_views, identity_dim: V and the numbers of each view, as `encoders.identity.IdentityEncoder` gives them,
            and `encoders.pack.FaceReading.tokens` of a picture.
        expression_dim: the numbers of an expression, as in `encoders.expression.ExpressionReading.representation`.
        dim: D.
        identity_tokens, expression_tokens: I (a multiple of V) and E: how many tokens each is spread over.
        condition_tokens, num_layers, num_heads: N, layers and heads of the resampler; the others have no use for them.
        fusion: one of `FUSIONS`.
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
                f"{identity_tokens} identity_tokens are no multiple of {identity_views} views: give a multiple"
            )
        if dim % num_heads:
            raise UserError(f"{num_heads} heads do not share a dim of {dim} evenly: give a divisor")
        each = identity_tokens // identity_views
        # One map for all views: one network made their embeddings, which lie in one space.
        self.view = nn.Linear(identity_dim, each * dim)
        self.expression = nn.Sequential(
            nn.Linear(expression_dim, dim), nn.SiLU(), nn.Linear(dim, expression_tokens * dim)
        )
        with torch.no_grad():  # 48 numbers that are mostly near 0 become tokens about as loud as the identity's
            self.expression[2].weight.mul_(8)
        # Which token is which: without it attention could not tell the views from each other, nor from the expression.
        self.identity_place = nn.Parameter(torch.randn(1, identity_tokens, dim) * 0.02)
        self.expression_place = nn.Parameter(torch.randn(1, expression_tokens, dim) * 0.02)
        self.no_identity = nn.Parameter(torch.zeros(1, identity_tokens, dim))
        self.no_expression = nn.Parameter(torch.zeros(1, expression_tokens, dim))
        self.fuse = {
            "resampler": lambda: Resampler(dim, condition_tokens, num_layers, num_heads),
            "concatenation": Concatenation,
            "sum": Sum,
            "residual_mlp": lambda: ResidualMLP(dim),
        }[fusion]()
        self.norm = nn.LayerNorm(dim)
        self.pool = nn.Linear(dim, dim)
        if fusion == "resampler":
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
            keep_identity, keep_expression: bool (B,), False where that part is left out; None keeps all.
        """
        tokens = self.norm(self.fuse(*self.tokens(identity, expression, keep_identity, keep_expression)))
        return tokens, self.pool(tokens.mean(dim=1))

    def tokens(self, identity, expression, keep_identity=None, keep_expression=None) -> tuple[Tensor, Tensor]:
        """What is fused, from the same arguments: tokens of the identity (B, I, D) and of the expression (B, E, D)."""
        config, B = self.config, len(identity)
        if identity.shape != (B, config.identity_views, config.identity_dim):
            raise ValueError(
                f"identity has shape {tuple(identity.shape)}: give (B, {config.identity_views}, {config.identity_dim})"
            )
        if expression.shape != (B, config.expression_dim):
            raise ValueError(f"expression has shape {tuple(expression.shape)}: give ({B}, {config.expression_dim})")
        # (B, V, I / V · D) -> (B, V, I / V, D) -> (B, I, D)
        person = self.view(identity).unflatten(2, (-1, config.dim)).flatten(1, 2)
        shown = self.expression(expression).unflatten(1, (-1, config.dim))  # (B, E · D) -> (B, E, D)
        person = _or(person, self.no_identity, keep_identity) + self.identity_place
        shown = _or(shown, self.no_expression, keep_expression) + self.expression_place
        return person, shown


def _or(tokens: Tensor, absent: Tensor, keep: Tensor | None) -> Tensor:
    """`tokens` (B, L, D) where keep (B,) is true, the learned stand-in (1, L, D) elsewhere."""
    return tokens if keep is None else torch.where(keep[:, None, None], tokens, absent)
