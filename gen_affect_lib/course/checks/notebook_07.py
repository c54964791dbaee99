"""The exercises of notebook 07: fusion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare, compare_modules
from gen_affect_lib.course.checks.probes import added, product, sine
from gen_affect_lib.evaluation.metrics.fronts import area, front
from gen_affect_lib.model import fusion
from gen_affect_lib.model.attention import attend

# --- 7.1 ResamplerLayer
# -----------------------------------------------------------------------------------------------------


class _Alone(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query = self.to_q(self.norm_query(queries)).unflatten(2, (self.num_heads, -1))
        _, key, value = self.source.qkv(self.norm_source(sources))
        return self.source.norm_k(query), key, value


class _OnlyQueries(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query = self.to_q(self.norm_query(queries)).unflatten(2, (self.num_heads, -1))
        _, key, value = self.source.qkv(self.norm_query(queries))
        return self.source.norm_k(query), key, value


class _QueryNotNormed(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, key, value = super().project(queries, sources)
        return self.to_q(self.norm_query(queries)).unflatten(2, (self.num_heads, -1)), key, value


class _QueryHeadsMixed(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, key, value = super().project(queries, sources)
        mixed = self.to_q(self.norm_query(queries)).reshape(len(queries), self.num_heads, queries.shape[1], -1)
        return self.source.norm_k(mixed.transpose(1, 2)), key, value


class _RawQueries(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, _, _ = super().project(queries, sources)
        _, key, value = self.source.qkv(torch.cat([self.norm_source(sources), queries], dim=1))
        return query, key, value


class _SourcesAsTheyCome(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, _, _ = super().project(queries, sources)
        _, key, value = self.source.qkv(torch.cat([sources, self.norm_query(queries)], dim=1))
        return query, key, value


class _NormedTogether(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, _, _ = super().project(queries, sources)
        _, key, value = self.source.qkv(self.norm_source(torch.cat([sources, queries], dim=1)))
        return query, key, value


class _AsksUnnormed(fusion.ResamplerLayer):
    def project(self, queries, sources):
        _, key, value = super().project(queries, sources)
        return self.source.norm_k(self.to_q(queries).unflatten(2, (self.num_heads, -1))), key, value


class _NoScale(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, key, value = super().project(queries, sources)
        return query * query.shape[-1] ** 0.5, key, value


class _ScaledByAll(fusion.ResamplerLayer):
    def project(self, queries, sources):
        query, key, value = super().project(queries, sources)
        return query / self.num_heads**0.5, key, value


def _reading(axis: int) -> type:
    class Along(fusion.ResamplerLayer):
        def forward(self, queries, sources):
            query, key, value = (
                x.transpose(1, 2) for x in self.project(queries, sources)
            )  # (B, L, H, D / H) -> (B, H, L, D / H)
            weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=axis)
            queries = queries + self.to_out((weights @ value).transpose(1, 2).flatten(2))
            return queries + self.mlp(self.norm_mlp(queries))

    return Along


class _ReplacesTwice(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        return self.mlp(self.norm_mlp(self.to_out(attend(*self.project(queries, sources)))))


class _ReplacesAll(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        seen = self.to_out(attend(*self.project(queries, sources)))
        return seen + self.mlp(self.norm_mlp(seen))


class _AddsToNormed(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        queries = self.norm_query(queries) + self.to_out(attend(*self.project(queries, sources)))
        return queries + self.mlp(self.norm_mlp(queries))


class _NoSecondPath(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        queries = queries + self.to_out(attend(*self.project(queries, sources)))
        return self.mlp(self.norm_mlp(queries))


class _MLPUnnormed(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        queries = queries + self.to_out(attend(*self.project(queries, sources)))
        return queries + self.mlp(queries)


class _NoWayOut(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        queries = queries + attend(*self.project(queries, sources))
        return queries + self.mlp(self.norm_mlp(queries))


class _NoMLP(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        return queries + self.to_out(attend(*self.project(queries, sources)))


class _HeadsMixed(fusion.ResamplerLayer):
    def forward(self, queries, sources):
        seen = attend(*self.project(queries, sources)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        queries = queries + self.to_out(seen.reshape(queries.shape))  # (B, H, N, D / H) without a transpose
        return queries + self.mlp(self.norm_mlp(queries))


def _test_reading(answer) -> None:
    cases = [(torch.randn(2, 5, 12) * 2, torch.randn(2, 7, 12) * 3 + 1), (torch.randn(1, 4, 12), torch.randn(1, 4, 12))]
    compare_modules(
        answer,
        fusion.ResamplerLayer,
        dict(dim=12, num_heads=3),
        *cases,
        mistakes=[
            (
                "the queries attend to the sources only: keys and values are made of both, joined along the tokens.",
                _Alone,
            ),
            ("the queries attend to each other only: keys and values are made of the sources, too.", _OnlyQueries),
            (
                "the keys are normalized per head, the queries are not: apply `self.source.norm_k` to them too.",
                _QueryNotNormed,
            ),
            (
                "the queries among keys and values are not normalized: sources and queries have their own norms.",
                _RawQueries,
            ),
            (
                "heads and tokens of the query are mixed: first (B, N, D) -> (B, N, H, D / H), then a transpose.",
                _QueryHeadsMixed,
            ),
            ("the sources are not normalized: `norm_source` is missing.", _SourcesAsTheyCome),
            (
                "the queries among keys and values went through `norm_source`. They have their own norm, `norm_query`.",
                _NormedTogether,
            ),
            ("`norm_query` is missing for the queries: each branch normalizes its input.", _AsksUnnormed),
            ("the scale is missing: the dot products are divided by the root of a head's D / H channels.", _NoScale),
            (
                "the scale uses the whole width D. A dot product sums over the channels of one head: divide by the "
                "root of D / H.",
                _ScaledByAll,
            ),
            (
                "the softmax is over the queries. It should be over the keys, the last axis: the weights of each "
                "query sum to 1.",
                _reading(2),
            ),
            ("the softmax is over the heads. It should be over the keys, the last axis.", _reading(1)),
            (
                "both residuals are missing: attention output and MLP output are added to the queries.",
                _ReplacesTwice,
            ),
            (
                "the attention output *replaces* the queries. It should be added to them, or the output of the layer "
                "before is lost.",
                _ReplacesAll,
            ),
            (
                "the attention output is added to the *normalized* queries: norms belong in the branches, never on "
                "the residual path.",
                _AddsToNormed,
            ),
            ("the residual of the MLP is missing: its output is added to the queries.", _NoSecondPath),
            ("the input of the MLP is not normalized: `norm_mlp` is missing.", _MLPUnnormed),
            ("`to_out` is missing: it mixes the heads before the residual.", _NoWayOut),
            ("the second branch is missing, the MLP.", _NoMLP),
            (
                "heads and tokens are mixed: bring (B, H, N, D / H) into the order (B, N, H, D / H) before you merge "
                "heads.",
                _HeadsMixed,
            ),
        ],
    )


check_ResamplerLayer = Exercise(
    "7.1",
    "ResamplerLayer",
    "Cross-attention from learned queries",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="Cross-attention from learned queries turns inputs of any length into a fixed number of tokens.",
    reference=fusion.ResamplerLayer,
    test=_test_reading,
    hints=(
        "Two branches, and each ends with `queries = queries + …`. The first: norm, queries, attention, `to_out`. The "
        "second: norm, MLP.",
        "`asking = self.norm_query(queries)` is used twice: it becomes the query (`to_q`, heads, "
        "`self.source.norm_k`), and it follows `self.norm_source(sources)` in the input of `self.source`, which makes "
        "keys and values. Then softmax over the last axis.",
    ),
)

# --- 7.2 Resampler ---------------------------------------------------------------------------------------------------


class _FirstLayerOnly(fusion.Resampler):
    def forward(self, identity, expression):
        sources = torch.cat([identity, expression], dim=1)
        return self.layers[0](self.queries.expand(len(sources), -1, -1), sources)


class _LastLayerOnly(fusion.Resampler):
    def forward(self, identity, expression):
        sources = torch.cat([identity, expression], dim=1)
        return self.layers[-1](self.queries.expand(len(sources), -1, -1), sources)


class _OneSource(fusion.Resampler):
    kept = 0

    def forward(self, *sources):
        return super().forward(sources[self.kept], sources[self.kept][:, :0])


class _OtherSource(_OneSource):
    kept = 1


class _QueriesAsSources(fusion.Resampler):
    def forward(self, identity, expression):
        sources = torch.cat([identity, expression], dim=1)
        queries = self.queries.expand(len(sources), -1, -1)
        for layer in self.layers:
            queries = sources = layer(queries, sources)
        return queries


class _AddedAgain(fusion.Resampler):
    def forward(self, identity, expression):
        sources = torch.cat([identity, expression], dim=1)
        queries = self.queries.expand(len(sources), -1, -1)
        for layer in self.layers:
            queries = queries + layer(queries, sources)
        return queries


def _test_resampler(answer) -> None:
    cases = [(torch.randn(3, 6, 12), torch.randn(3, 4, 12)), (torch.randn(1, 2, 12) * 2, torch.randn(1, 1, 12) + 1)]
    compare_modules(
        answer,
        fusion.Resampler,
        dict(dim=12, num_tokens=5, num_layers=3, num_heads=3),
        *cases,
        mistakes=[
            (
                "only the first layer is applied: the queries go through all layers, one after the other.",
                _FirstLayerOnly,
            ),
            (
                "each layer begins with the learned queries again, so that only the last one counts: give it the "
                "output of the layer before.",
                _LastLayerOnly,
            ),
            ("the expression is missing: the sources are the tokens of both.", _OneSource),
            ("the identity is missing: the sources are the tokens of both.", _OtherSource),
            (
                "the output of a layer replaces the sources, too. The sources are the same for all layers; only the "
                "queries change.",
                _QueriesAsSources,
            ),
            ("the queries are added once more: a layer contains its residuals already.", _AddedAgain),
            ("the sources come back as well: return the N queries alone.", fusion.FusedAndExact),
        ],
    )


check_Resampler = Exercise(
    "7.2",
    "Resampler",
    "A fixed number of tokens",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The cost of the generator then depends on N, which we choose, and not on the number of sources.",
    reference=fusion.Resampler,
    test=_test_resampler,
    hints=(
        "Join the sources along the tokens. The queries are a parameter (1, N, D): give every image of the batch a "
        "copy with `expand`.",
        "`for layer in self.layers: queries = layer(queries, sources)`.",
    ),
)

# --- 7.3 both_together -----------------------------------------------------------------------------------------------


def both_together(fuse: Callable, who: Tensor, what: Tensor) -> Tensor:
    """Each token's mixed second difference, as a share of its change with person and expression: (tokens,)."""
    return _share(_four(fuse, who, what))


@torch.no_grad()
def _four(fuse, who, what):
    """f(i, e), f(i', e), f(i, e') and f(i', e')."""
    return fuse(who, what), fuse(who.flip(0), what), fuse(who, what.flip(0)), fuse(who.flip(0), what.flip(0))


def _size(change):
    return change.norm(dim=2).mean(dim=0)  # (B, N, D) -> (N,)


def _share(
    four, mixed=lambda a, b, c, d: a - b - c + d, size=_size, below=lambda a, b, c, d: _size(a - b) + _size(a - c)
):
    return size(mixed(*four)) / below(*four)


def _test_both_together(answer) -> None:
    def by(**change):
        return lambda fuse, who, what: _share(_four(fuse, who, what), **change)

    inputs = torch.randn(4, 5, 6), torch.randn(4, 3, 6)
    compare(
        answer,
        both_together,
        (product, *inputs),
        (sine, torch.randn(6, 2, 3), torch.randn(6, 4, 3)),
        (added, *inputs),
        mistakes=[
            (
                "the sign of f(i′, e′) is wrong: with a minus the mixed difference of a sum is not 0. The last term "
                "has a plus.",
                by(mixed=lambda a, b, c, d: a - b - c - d),
            ),
            (
                "this is f(i, e) − f(i′, e′), the change of both at once. The mixed difference contains all four "
                "terms.",
                by(mixed=lambda a, b, c, d: a - d),
            ),
            ("all four are added up: two of them have a minus.", by(mixed=lambda a, b, c, d: a + b + c + d)),
            (
                "the order of the fused tokens is reversed, which changes person and expression at once. Reverse `who` "
                "or `what` before you call `fuse`.",
                by(mixed=lambda a, b, c, d: a - d, below=lambda a, b, c, d: 2 * _size(a - d)),
            ),
            (
                "this is the size of the mixed difference itself: divide by how much the token changes with person "
                "and with expression.",
                by(below=lambda a, b, c, d: 1.0),
            ),
            (
                "the denominator is only the change with the person: add the change with the expression.",
                by(below=lambda a, b, c, d: _size(a - b)),
            ),
            (
                "the denominator is only the change with the expression: add the change with the person.",
                by(below=lambda a, b, c, d: _size(a - c)),
            ),
            (
                "this is twice too much: the denominator is the mean of the sizes of the two changes. Add them.",
                by(below=lambda a, b, c, d: (_size(a - b) + _size(a - c)) / 2),
            ),
            (
                "the denominator is the change of both at once, f(i, e) − f(i′, e′). Take the change with the person "
                "alone and the change with the expression alone, and add their sizes.",
                by(below=lambda a, b, c, d: _size(a - d)),
            ),
            (
                "the denominator is the size of the token itself. Take the size of its *changes*.",
                by(below=lambda a, b, c, d: _size(a)),
            ),
            (
                "the mean over the batch comes before the length: vectors of different directions cancel. First the "
                "length of each, then the mean.",
                by(
                    size=lambda x: x.mean(0).norm(dim=1),
                    below=lambda a, b, c, d: (a - b).mean(0).norm(dim=1) + (a - c).mean(0).norm(dim=1),
                ),
            ),
            (
                "this is one number for all tokens: keep the tokens apart.",
                lambda fuse, who, what: both_together(fuse, who, what).mean(),
            ),
            (
                "each case has its own ratio here, and the mean comes last. Take the means over the batch of "
                "numerator and denominator, then divide.",
                by(size=lambda x: x.norm(dim=2), below=lambda a, b, c, d: (a - b).norm(dim=2) + (a - c).norm(dim=2)),
            ),
            (
                "each case has its own ratio here, and the mean comes last. Take the means over the batch of "
                "numerator and denominator, then divide.",
                lambda fuse, who, what: _share(
                    _four(fuse, who, what),
                    size=lambda x: x.norm(dim=2),
                    below=lambda a, b, c, d: (a - b).norm(dim=2) + (a - c).norm(dim=2),
                ).mean(0),
            ),
        ],
    )


check_both_together = Exercise(
    "7.3",
    "both_together",
    "More than a sum",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="A test without training that tells whether a network can combine two inputs, or only passes both on.",
    reference=both_together,
    test=_test_both_together,
    hints=(
        "Call `fuse` four times: with neither input permuted, with the people, with the expressions, and with both. "
        "Then subtract and add.",
        "The length is `.norm(dim=2)`, the mean over the batch `.mean(dim=0)`. Numerator: the mixed difference. "
        "Denominator: the sum of the lengths of the two changes.",
    ),
)

# --- 7.4 SourceTokens ------------------------------------------------------------------------------------------------


class SourceTokens(nn.Module):
    """What `fusion.IdentityExpressionFusion.tokens` computes, as a module of its own."""

    def __init__(self, identity_dim, expression_dim, dim, views, identity_tokens, expression_tokens):
        super().__init__()
        self.dim = dim
        self.view = nn.Linear(identity_dim, identity_tokens // views * dim)
        self.expression = nn.Sequential(
            nn.Linear(expression_dim, dim), nn.SiLU(), nn.Linear(dim, expression_tokens * dim)
        )
        self.identity_place = nn.Parameter(torch.randn(1, identity_tokens, dim) * 0.5)
        self.expression_place = nn.Parameter(torch.randn(1, expression_tokens, dim) * 0.5)
        self.no_identity = nn.Parameter(torch.zeros(1, identity_tokens, dim))
        self.no_expression = nn.Parameter(torch.zeros(1, expression_tokens, dim))

    def forward(self, identity, expression, keep_identity, keep_expression):
        who, what = self.projected(identity, expression)
        who = self.dropped(who, self.no_identity, self.identity_place, keep_identity)
        return who, self.dropped(what, self.no_expression, self.expression_place, keep_expression)

    def projected(self, identity, expression):
        who = self.view(identity).unflatten(2, (-1, self.dim)).flatten(1, 2)  # (B, V, I / V · D) -> (B, I, D)
        return who, self.expression(expression).unflatten(1, (-1, self.dim))  # (B, E · D) -> (B, E, D)

    def dropped(self, tokens, learned, place, keep):
        return torch.where(keep[:, None, None], tokens, learned) + place


def _dropping(rule: Callable) -> type:
    class Dropping(SourceTokens):
        def dropped(self, tokens, learned, place, keep):
            return rule(tokens, learned, place, keep[:, None, None])

    return Dropping


class _OneDecision(SourceTokens):
    def forward(self, identity, expression, keep_identity, keep_expression):
        return super().forward(identity, expression, keep_identity, keep_identity)


class _EmptyInputs(SourceTokens):
    def forward(self, identity, expression, keep_identity, keep_expression):
        who, what = self.projected(identity * keep_identity[:, None, None], expression * keep_expression[:, None])
        return who + self.identity_place, what + self.expression_place


class _ViewsMixed(SourceTokens):
    def projected(self, identity, expression):
        who, what = super().projected(identity, expression)
        who = who.unflatten(1, (identity.shape[1], -1)).transpose(1, 2).flatten(1, 2)  # (B, I, D), views alternate
        return who, what


def _test_source_tokens(answer) -> None:
    sizes = dict(identity_dim=7, expression_dim=5, dim=6, views=2, identity_tokens=6, expression_tokens=3)

    def case(*kept: tuple[bool, bool]):
        identity, expression = torch.randn(len(kept), 2, 7), torch.randn(len(kept), 5)
        return identity, expression, *torch.tensor(kept).unbind(1)

    cases = [case((True, True), (True, True)), case((True, False), (False, True), (False, False), (True, True))]
    compare_modules(
        answer,
        SourceTokens,
        sizes,
        *cases,
        mistakes=[
            (
                "the learned tokens have no position embedding: replace first, then add the positions to all tokens.",
                _dropping(lambda tokens, learned, place, keep: torch.where(keep, tokens + place, learned)),
            ),
            (
                "the position embeddings are missing.",
                _dropping(lambda tokens, learned, place, keep: torch.where(keep, tokens, learned)),
            ),
            (
                "the wrong ones are replaced: where keep is True the tokens of the example stay.",
                _dropping(lambda tokens, learned, place, keep: torch.where(keep, learned, tokens) + place),
            ),
            (
                "dropped tokens become zeros. They become the learned tokens, `no_identity` and `no_expression`.",
                _dropping(lambda tokens, learned, place, keep: tokens * keep + place),
            ),
            (
                "the *input* of a dropped condition becomes 0, and its tokens are those that the network computes from "
                "0. Replace the tokens, by `no_identity` and `no_expression`.",
                _EmptyInputs,
            ),
            (
                "nothing is replaced where keep is False.",
                _dropping(lambda tokens, learned, place, keep: (tokens + 0 * learned) + place),
            ),
            (
                "the learned tokens are *added* to those of the example, which still contain the condition. They take "
                "their place.",
                _dropping(lambda tokens, learned, place, keep: tokens + ~keep * learned + place),
            ),
            (
                "the whole batch is replaced if one example is dropped: each example has its own decision.",
                _dropping(
                    lambda tokens, learned, place, keep: (tokens if keep.all() else learned + 0 * tokens) + place
                ),
            ),
            ("the expression follows `keep_identity`: each condition has its own decision.", _OneDecision),
            (
                "the tokens of the views alternate. All tokens of the first view come first: (B, V, k · D) -> (B, V, "
                "k, D) -> (B, V · k, D).",
                _ViewsMixed,
            ),
        ],
    )


check_SourceTokens = Exercise(
    "7.4",
    "SourceTokens",
    "Tokens, and what replaces them",
    "implement",
    difficulty=3,
    minutes=20,
    points=4,
    purpose="Classifier-free guidance needs a network that also knows what to predict without a condition.",
    reference=SourceTokens,
    test=_test_source_tokens,
    hints=(
        "Three steps for each condition: project and split into tokens of D numbers; replace where keep is False; add "
        "the positions.",
        "`self.view(identity)` is (B, V, k · D): `unflatten(2, (-1, dim))`, then `flatten(1, 2)`. "
        "`torch.where(keep[:, None, None], tokens, learned)` chooses for each example.",
    ),
)

# --- 7.5 left_out ----------------------------------------------------------------------------------------------------


def left_out(count: int, chance: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which of `count` examples keep their identity, and which their expression: bool (count,) each."""
    return torch.rand(count, generator=generator) >= chance, torch.rand(count, generator=generator) >= chance


def _test_left_out(answer) -> None:
    shuffled = True
    for chance, seed in (
        (0.1, 11),
        (0.3, 12),
    ):  # a seed that `judge` does not use: an answer without the generator must not draw the same numbers
        count = 20_000
        given = answer(count, chance, torch.Generator().manual_seed(seed))
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise Wrong(
                "two tensors were expected: which keep the identity, and which keep the expression. Are both returned?"
            )
        for part in given:
            if not isinstance(part, torch.Tensor) or part.dtype != torch.bool or part.shape != (count,):
                raise Wrong(
                    f"each of the two is a bool tensor ({count},), one for each example; "
                    f"{f'{part.dtype} {tuple(part.shape)}' if isinstance(part, torch.Tensor) else repr(part)} came."
                )
        who, what = given
        if len(who.unique()) == 1 or len(what.unique()) == 1:
            raise Wrong("all examples of a batch are kept or dropped together: sample a number for each.")
        for name, part in (("identity", who), ("expression", what)):
            share = 1 - part.float().mean().item()
            if abs(share - (1 - chance)) < 0.02:
                raise Wrong(
                    f"the {name} is left out in {share:.0%} of the examples, and *kept* in the others: True means "
                    "that it is kept."
                )
            if abs(share - chance) > 0.02:
                raise Wrong(f"with a chance of {chance:g} the {name} is left out in {share:.0%} of the examples.")
        both = (~who & ~what).float().mean().item()
        if both > chance - 0.02:
            raise Wrong("identity and expression are still dropped together: sample for each independently.")
        if both < chance**2 / 4:
            raise Wrong(
                "both are never dropped together. With independent samples that happens too, and guidance needs it."
            )
        if abs(both - chance**2) > 0.015:
            raise Wrong(
                f"the two are dependent: with independent samples, both are dropped in {chance**2:.0%} of the "
                f"examples, here in {both:.0%}."
            )
        again = answer(count, chance, torch.Generator().manual_seed(seed))
        if not all(map(torch.equal, given, again)):
            raise Wrong(
                "the same generator gives another answer: pass `generator=generator`, so that a run can be repeated."
            )
        shuffled = shuffled and who.sum().item() == what.sum().item()  # by chance less than once in 10,000 answers
    if shuffled:
        raise Wrong(
            "as many expressions are left out as identities, each time. Is the second tensor the first in another "
            "order, or is the number of True fixed? Draw a second random number for each example."
        )
    batches = [answer(2, 0.3, torch.Generator().manual_seed(100 + k)) for k in range(150)]
    small = torch.stack([torch.stack(tuple(batch)) for batch in batches])  # (150, 2, 2)
    if abs(1 - small.float().mean().item() - 0.3) > 0.08:
        raise Wrong(
            f"in batches of two, with a chance of 0.3, {1 - small.float().mean().item():.0%} are left out. Do not fix "
            "how many are left out of a batch: each example has a random number of its own."
        )
    kept = answer(100, 0.0, torch.Generator().manual_seed(0))
    if not (kept[0].all() and kept[1].all()):
        raise Wrong("with a chance of 0 nothing must be left out.")


check_left_out = Exercise(
    "7.5",
    "left_out",
    "Dropped together",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Guidance compares predictions under several conditions, and needs a model that was trained under each.",
    reference=left_out,
    test=_test_left_out,
    hints=(
        "How many random numbers does the broken one draw for an example, and how many decisions does it make with "
        "them?",
        "A second `torch.rand(count, generator=generator)`, for the expression alone.",
    ),
)

# --- 7.6 condition_gradients -----------------------------------------------------------------------------------------


def condition_gradients(nothing: Tensor, person: Tensor, both: Tensor, x: Tensor, sigma: Tensor):
    """The score without condition, the gradients of log p(i | x) and of log p(e | x, i): (B, ...) each."""
    return _gradients(nothing, person, both, x, sigma)


def _gradients(
    nothing,
    person,
    both,
    x,
    sigma,
    *,
    factor=lambda s: -(1 - s) / s,
    second_from_nothing=False,
    score=lambda v, x, s: -(x + (1 - s) * v) / s,
    expand=lambda sigma, x: sigma.reshape(-1, *[1] * (x.ndim - 1)),
):
    s = expand(sigma, x)
    start = nothing if second_from_nothing else person
    return score(nothing, x, s), factor(s) * (person - nothing), factor(s) * (both - start)


def _test_condition_gradients(answer) -> None:
    def case(*shape: int):
        sigma = 0.05 + 0.9 * torch.rand(shape[0], dtype=torch.float64)
        return (*torch.randn(4, *shape, dtype=torch.float64), sigma)

    def by(**change) -> Callable:
        return lambda *case: _gradients(*case, **change)

    def scores(nothing, person, both, x, sigma):
        return tuple(_gradients(v, v, v, x, sigma)[0] for v in (nothing, person, both))

    compare(
        answer,
        condition_gradients,
        case(4, 2),
        case(3, 2, 4, 4),
        case(1, 5),
        tolerance=1e-8,
        mistakes=[
            (
                "the gradient of the expression starts from no condition. It is the change by the expression where the "
                "person is given: start from `person`.",
                by(second_from_nothing=True),
            ),
            (
                "these are the three scores. The last two are *differences* of scores: what the condition adds.",
                scores,
            ),
            ("the last two have the wrong sign: the score is minus the expected noise over sigma.",
             by(factor=lambda s: (1 - s) / s)),
            ("the last two are differences of velocities: multiply them by −(1 − σ) / σ.", by(factor=lambda s: 1.0)),
            ("the factor 1 / σ is missing in the last two.", by(factor=lambda s: -(1 - s))),
            ("the factor 1 − σ is missing in the last two.", by(factor=lambda s: -1 / s)),
            ("σ and 1 − σ have changed places in the factor.", by(factor=lambda s: -s / (1 - s))),
            (
                "the first one contains the expected *data*, x − σ v. The score contains the expected noise, x + (1 − "
                "σ) v.",
                by(score=lambda v, x, s: -(x - s * v) / s),
            ),
            ("the first one is the expected noise with a minus: divide it by σ.",
             by(score=lambda v, x, s: -(x + (1 - s) * v))),
            ("the sigma of the first example is used for all: each example has its own.",
             by(expand=lambda sigma, x: sigma[0])),
        ],
    )  # fmt: skip


check_condition_gradients = Exercise(
    "7.6",
    "condition_gradients",
    "Guidance as scores",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The two scales of guidance are exponents of probabilities, and this is what they multiply.",
    reference=condition_gradients,
    test=_test_condition_gradients,
    hints=(
        "By Bayes' rule log p(i | x) = log p(x | i) − log p(x) + a number that does not depend on x. Its gradient is "
        "a difference of two scores.",
        "In that difference x cancels: −(1 − σ) / σ · (person − nothing). The same with `both` and `person` for the "
        "expression. Give sigma the shape (B, 1, …, 1) first.",
    ),
)

# --- 7.7 guidance_weights --------------------------------------------------------------------------------------------


def guidance_weights(identity_scale: float, expression_scale: float) -> tuple[float, float, float]:
    """The weights of the velocities with nothing, with the identity, and with both."""
    return 1 - identity_scale, identity_scale - expression_scale, expression_scale


def _test_guidance_weights(answer) -> None:
    compare(
        answer,
        guidance_weights,
        (2.0, 3.0),
        (1.0, 1.0),
        (0.0, 1.5),
        (1.5, 0.0),
        (4.0, 2.5),
        mistakes=[
            (
                "the weight of v_i is missing its second part: v_i occurs in both brackets, once with a minus.",
                lambda i, e: (1 - i, i, e),
            ),
            (
                "these are the factors of the two brackets, and 1 for the term in front of them. Multiply the "
                "brackets out: each velocity then has one weight.",
                lambda i, e: (1, i, e),
            ),
            (
                "the weight of v_∅ is missing its first part: it also occurs before the brackets, with factor 1.",
                lambda i, e: (-i, i - e, e),
            ),
            (
                "this is the formula in which both brackets start from v_∅. Here the second starts from v_i.",
                lambda i, e: (1 - i - e, i, e),
            ),
            (
                "the middle one has the wrong sign: v_i is added with the first bracket and subtracted with the "
                "second.",
                lambda i, e: (1 - i, e - i, e),
            ),
            ("the order is nothing, identity, both.", lambda i, e: (e, i - e, 1 - i)),
        ],
    )


check_guidance_weights = Exercise(
    "7.7",
    "guidance_weights",
    "Two scales, three weights",
    "implement",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="As a weighted sum the formula shows what it costs: a velocity whose weight is 0 need not be computed.",
    reference=guidance_weights,
    test=_test_guidance_weights,
    hints=(
        "Multiply the two brackets out and collect what belongs to each velocity.",
        "v_∅ appears twice, v_i twice, v_ie once. At (1, 1) only v_ie may be left.",
    ),
)

# --- 7.8 passes ------------------------------------------------------------------------------------------------------


def _test_passes(answer) -> None:
    check_number(
        answer,
        2,
        wrong=[
            (
                3,
                "the formula has three velocities, but insert the scales into your weights: one of them has the "
                "weight 0.",
            ),
            (1, "that is right at (1, 1), where all weights but one are 0. Here two are left."),
            (4, "there is no velocity with the expression alone in the formula."),
            (0, "with no evaluation nothing would be generated."),
        ],
    )


check_passes = Exercise(
    "7.8",
    "passes",
    "What a picture costs",
    "predict",
    difficulty=2,
    minutes=3,
    points=1,
    purpose="Guidance is paid for in evaluations of the network, at every step of every picture.",
    reference=lambda: 2,
    test=_test_passes,
    hints=(
        "Compute `guidance_weights` in your head: which of the three weights are not 0?",
        "1 − 2, 2 − 2 and 2: which of these velocities must be computed?",
    ),
)

# --- 7.9 at_expression_0 ---------------------------------------------------------------------------------------------


def _test_at_expression_0(answer) -> None:
    check_choice(
        answer,
        "any",
        {
            "reference": "the identity tokens hardly contain it, by design. Section 7 measures it.",
            "word": "at expression scale 0 the velocity under both conditions has the weight 0 and is not computed.",
            "neutral": "the learned tokens were not trained on neutral faces only, but on every expression that was "
            "dropped.",
        },
    )


check_at_expression_0 = Exercise(
    "7.9",
    "at_expression_0",
    "What is left at 0?",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A scale of 0 shows what the learned tokens stand for, and what the other condition does not contain.",
    reference=lambda: "any",
    test=_test_at_expression_0,
    hints=(
        "Which velocity has a weight other than 0 at (1, 0)? Under which condition was it trained, and which "
        "expressions did the faces then have?",
        "Only v_i is left. It was trained with the expression dropped, on faces with all kinds of expressions.",
    ),
)

# --- 7.10 brightest ---------------------------------------------------------------------------------------------------


def _test_brightest(answer) -> None:
    # 0.68 over 1 / 20, with the shipped weights; the colour bar, which ends there, can be read to about ±0.03.
    check_number(
        answer,
        13.6,
        within=0.7,
        wrong=[
            (0.68, "that is the weight itself, or near it. Divide it by the weight of a cell in an even row."),
            (6.8, "a row has more cells than the ten sources or the ten queries: both are among the keys."),
            (2.72, "take all the columns of a row, not those of the expression alone."),
            (20.0, "that would be a weight of 1, all of it on one cell. Read the colour bar."),
            (0.0735, "inverted: divide the weight of the brightest by that of an even row."),
            (15.0, "the colour bar ends before 0.75, and the brightest cell has the colour of its end."),
        ],
    )


check_brightest = Exercise(
    "7.10",
    "brightest",
    "How uneven is the attention?",
    "read",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A weight means something only in comparison with the weight of uniform attention.",
    reference=lambda: 13.6,
    test=_test_brightest,
    hints=(
        "Count the columns: three of the crop, three of the wider view, four of the expression and ten queries. "
        "Every row adds up to 1.",
        "An even row has 1 / 20 in each cell. The colour bar shows the weight of the brightest cell.",
    ),
)

# --- 7.11 front ------------------------------------------------------------------------------------------------------


def _not_dominated(points: np.ndarray, dominates: Callable) -> np.ndarray:
    kept = [p for k, p in enumerate(points) if not any(dominates(q, p) for j, q in enumerate(points) if j != k)]
    return np.array(kept).reshape(-1, 2)


def _sorted(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort((-points[:, 1], points[:, 0]))]


def _weakly(q, p):
    return (q >= p).all() and (q > p).any()


def _hull(points: np.ndarray) -> np.ndarray:
    """The corners of the front's upper convex hull."""
    kept: list[np.ndarray] = []
    for point in front(points):
        while len(kept) > 1:
            (x1, y1), (x2, y2), (x3, y3) = kept[-2], kept[-1], point
            if (y2 - y1) * (x3 - x1) > (y3 - y1) * (x2 - x1):
                break
            kept.pop()
        kept.append(point)
    return np.array(kept)


FRONT_CASES = [
    ([[0.2, 0.9], [0.5, 0.5], [0.9, 0.2], [0.4, 0.4], [0.1, 0.95], [0.6, 0.1]],),
    ([[0.5, 0.7], [0.5, 0.3], [0.8, 0.3], [0.3, 0.7], [0.9, 0.1]],),
    ([[0.6, 0.6], [0.6, 0.6], [0.7, 0.2], [0.1, 0.8]],),
    ([[0.3, 0.4]],),
    ([[0.4142, 0.618], [0.7071, 0.3333], [0.1373, 0.8731]],),
]


def _test_front(answer) -> None:
    cases = [(np.array(points),) for (points,) in FRONT_CASES]
    compare(
        answer,
        front,
        *cases,
        tolerance=1e-9,
        mistakes=[
            ("all points are still there: leave out those that another one dominates.",
             lambda p: _sorted(np.unique(p, axis=0))),
            (
                "a point that is equal in one figure and lower in the other stays. It is dominated, too: at least as "
                "high in both and higher in one.",
                lambda p: _sorted(_not_dominated(np.unique(p, axis=0), lambda q, r: (q > r).all())),
            ),
            (
                "of equal points none is left: a point dominates another only if it is *higher* in one of them.",
                lambda p: _sorted(_not_dominated(p, lambda q, r: (q >= r).all())),
            ),
            ("equal points are there twice: keep one of them.", lambda p: _sorted(_not_dominated(p, _weakly))),
            ("the order is reversed: from the lowest to the highest first figure.", lambda p: front(p)[::-1]),
            ("the points are in their old order: sort them by the first figure.",
             lambda p: _not_dominated(p[np.sort(np.unique(p, axis=0, return_index=True)[1])], _weakly)),
            (
                "only the corners of the convex hull are left. A point below a line between two others is on the front "
                "if neither of them is at least as high in both figures.",
                _hull,
            ),
            ("these are the points with the *lowest* figures: more is better here.", lambda p: -front(-p)[::-1]),
            ("this is the point with the largest sum. The front has all points that nothing dominates.",
             lambda p: p[[p.sum(1).argmax()]]),
        ],
    )  # fmt: skip


check_front = Exercise(
    "7.11",
    "front",
    "What no other setting exceeds",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Two models that are each tuned differently can only be compared by all that each of them can reach.",
    reference=front,
    test=_test_front,
    hints=(
        "For every point: is there another one that is at least as high in both figures and higher in one?",
        "Sorted from the highest first figure down (ties: the higher second one first), a point is kept if its second "
        "figure is higher than all before. Reverse what you kept.",
    ),
)

# --- 7.12 area -------------------------------------------------------------------------------------------------------


def _under(points, heights=lambda corners: corners[:, 1], begin=0.0):
    corners = front(points)
    return float((np.diff(corners[:, 0], prepend=begin) * heights(corners)).sum())


def _test_area(answer) -> None:
    cases = [(np.array(points),) for (points,) in FRONT_CASES]
    compare(
        answer,
        area,
        *cases,
        tolerance=1e-9,
        mistakes=[
            (
                "the points are joined by sloping lines. Between two settings nothing was measured: the area is made "
                "of rectangles, and each has the height of its *right* corner.",
                lambda p: float(np.trapezoid(*(lambda c: (np.r_[c[0, 1], c[:, 1]], np.r_[0.0, c[:, 0]]))(front(p)))),
            ),
            (
                "this begins at the first point of the front: the area is measured from (0, 0).",
                lambda p: _under(p, begin=front(p)[0, 0]),
            ),
            (
                "each rectangle has the height of its left corner: what lies above its right corner is dominated by no "
                "point.",
                lambda p: _under(p, lambda c: np.r_[c[0, 1], c[:-1, 1]]),
            ),
            ("the rectangles overlap, and are counted more than once: each begins where the one before ends.",
             lambda p: float(front(p).prod(1).sum())),
            ("this is the largest rectangle of one point: the area is that of all together.",
             lambda p: float(p.prod(1).max())),
            ("dominated points are counted: take the front first.",
             lambda p: float((np.diff(_sorted(p)[:, 0], prepend=0.0) * _sorted(p)[:, 1]).sum())),
            ("this is the area above the front: subtract it from 1.", lambda p: 1 - area(p)),
        ],
    )  # fmt: skip


check_area = Exercise(
    "7.12",
    "area",
    "The area under a front",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The hypervolume turns a whole front into one number, with which models can be ranked.",
    reference=area,
    test=_test_area,
    hints=(
        "A point (a, b) dominates the rectangle from (0, 0) to (a, b). Draw the union of these rectangles for three "
        "points.",
        "Go along the front from left to right: each rectangle begins where the one before ends, and has the height of "
        "its own point. `np.diff(…, prepend=0)` gives the widths.",
    ),
)
