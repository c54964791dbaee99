"""Answers to the exercises of notebook 07, as students write them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.course.checks.answers import Answers

# --- ResamplerLayer ---


class KeysAndValues(nn.Module):
    """As the notebook gives it."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.norm_k = nn.RMSNorm(dim // num_heads, eps=1e-6)

    def forward(self, x):
        key, value = self.to_kv(x).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.norm_k(key), value


class Base(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.norm_query, self.norm_source, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim)
        self.source = KeysAndValues(dim, num_heads)
        self.to_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(approximate="tanh"), nn.Linear(2 * dim, dim))

    def heads(self, x):
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def look(self, asking, room):
        return self.kernel(self.source.norm_k(self.heads(self.to_q(asking))), *self.source(room))

    def kernel(self, q, k, v, **options):
        return F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2)

    def think(self, x):
        return x + self.mlp(self.norm_mlp(x))


class ByKernel(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.think(
            queries + self.to_out(self.look(n, torch.cat([n, self.norm_source(sources)], 1)))
        )  # the other order


class InTwoParts(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        q = self.source.norm_k(self.heads(self.to_q(n)))
        (k1, v1), (k2, v2) = self.source(self.norm_source(sources)), self.source(n)
        scores = torch.cat([q @ k1.mT, q @ k2.mT], -1) / (q.shape[-1] ** 0.5)
        w1, w2 = scores.softmax(-1).split([sources.shape[1], queries.shape[1]], -1)
        seen = torch.einsum("bhnd->bnhd", w1 @ v1 + w2 @ v2).flatten(2)
        x = self.to_out(seen) + queries
        return self.mlp(self.norm_mlp(x)) + x


class SourcesOnly(Base):
    def forward(self, queries, sources):
        return self.think(queries + self.to_out(self.look(self.norm_query(queries), self.norm_source(sources))))


class QueriesUnnormedPerHead(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        seen = self.kernel(self.heads(self.to_q(n)), *self.source(torch.cat([self.norm_source(sources), n], 1)))
        return self.think(queries + self.to_out(seen))


class WithoutScale(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        k, v = self.source(torch.cat([self.norm_source(sources), n], 1))
        return self.think(
            queries + self.to_out(self.kernel(self.source.norm_k(self.heads(self.to_q(n))), k, v, scale=1.0))
        )


class ScaledByAll(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        k, v = self.source(torch.cat([self.norm_source(sources), n], 1))
        seen = self.kernel(self.source.norm_k(self.heads(self.to_q(n))), k, v, scale=queries.shape[2] ** -0.5)
        return self.think(queries + self.to_out(seen))


class SoftmaxOverTheAsking(Base):
    axis = -2

    def kernel(self, q, k, v):
        return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(self.axis) @ v).transpose(1, 2).flatten(2)

    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.think(queries + self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1))))


class SoftmaxOverTheHeads(SoftmaxOverTheAsking):
    axis = 1


class NothingAdded(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.mlp(self.norm_mlp(self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1)))))


class Replaces(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.think(self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1))))


class OverwritesQueries(Base):
    def forward(self, queries, sources):
        queries = self.norm_query(queries)
        return self.think(queries + self.to_out(self.look(queries, torch.cat([self.norm_source(sources), queries], 1))))


class OneNormForBoth(Base):
    def forward(self, queries, sources):
        room = self.norm_source(torch.cat([sources, queries], 1))
        return self.think(queries + self.to_out(self.look(self.norm_query(queries), room)))


class SourcesRaw(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.think(queries + self.to_out(self.look(n, torch.cat([sources, n], 1))))


class MLPWithoutNorm(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        x = queries + self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1)))
        return x + self.mlp(x)


class EndsWithMLP(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        x = queries + self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1)))
        return self.mlp(self.norm_mlp(x))


class HeadsMixed(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        k, v = self.source(torch.cat([self.norm_source(sources), n], 1))
        seen = F.scaled_dot_product_attention(self.source.norm_k(self.heads(self.to_q(n))), k, v).reshape(queries.shape)
        return self.think(queries + self.to_out(seen))


class Detached(Base):
    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.think(queries + self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1)).detach()))


class QueryHeadsMixed(Base):
    def heads(self, x):
        return x.view(len(x), self.num_heads, x.shape[1], -1)

    def forward(self, queries, sources):
        n = self.norm_query(queries)
        return self.think(queries + self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1))))


class InPlace(Base):
    """The output is right, and the learned queries are overwritten by what they have become for this batch."""

    def forward(self, queries, sources):
        n = self.norm_query(queries)
        with torch.no_grad():
            queries += self.to_out(self.look(n, torch.cat([self.norm_source(sources), n], 1)))
        return self.think(queries)


# --- Resampler ---


class Queries(nn.Module):
    """As the notebook gives it."""

    def __init__(self, dim, num_tokens, num_layers, num_heads):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_tokens, dim) * 0.5)
        self.layers = nn.ModuleList(ByKernel(dim, num_heads) for _ in range(num_layers))


class ByRepeating(Queries):
    def forward(self, identity, expression):
        x = self.queries.repeat(identity.shape[0], 1, 1)
        for layer in self.layers:
            x = layer(x, torch.cat((expression, identity), 1))  # attention does not depend on the order of the keys
        return x


class ByRecursion(Queries):
    def forward(self, identity, expression):
        def after(k):
            return self.layers[k](after(k - 1) if k else self.queries.expand(len(identity), -1, -1), sources)

        sources = torch.cat([identity, expression], dim=1)
        return after(len(self.layers) - 1)


class OneLayer(Queries):
    def forward(self, identity, expression):
        return self.layers[0](self.queries.repeat(len(identity), 1, 1), torch.cat([identity, expression], 1))


class StartsAgain(Queries):
    def forward(self, identity, expression):
        for layer in self.layers:
            x = layer(self.queries.repeat(len(identity), 1, 1), torch.cat([identity, expression], 1))
        return x


class WithoutExpression(Queries):
    def forward(self, identity, expression):
        x = self.queries.repeat(len(identity), 1, 1)
        for layer in self.layers:
            x = layer(x, identity)
        return x


class SourcesChange(Queries):
    def forward(self, identity, expression):
        x, sources = self.queries.repeat(len(identity), 1, 1), torch.cat([identity, expression], 1)
        for layer in self.layers:
            x = layer(x, sources)
            sources = x
        return x


class AddsOnceMore(Queries):
    def forward(self, identity, expression):
        x, sources = self.queries.repeat(len(identity), 1, 1), torch.cat([identity, expression], 1)
        for layer in self.layers:
            x = x + layer(x, sources)
        return x


class KeepsSources(ByRepeating):
    def forward(self, identity, expression):
        return torch.cat([super().forward(identity, expression), identity, expression], 1)


class QueriesThatDoNotLearn(ByRepeating):
    """The output is right, and the queries stay at their random start for ever."""

    def forward(self, identity, expression):
        x, sources = self.queries.data.repeat(len(identity), 1, 1), torch.cat([identity, expression], 1)
        for layer in self.layers:
            x = layer(x, sources)
        return x


class NotExpanded(Queries):
    def forward(self, identity, expression):
        x = self.queries
        for layer in self.layers:
            x = layer(x, torch.cat([identity, expression], 1))
        return x


# --- both_together ---


def length(x):
    return torch.sqrt((x * x).sum(-1))


def by_a_table(fuse, who, what):
    f = {(i, e): fuse(who.flip(0) if i else who, what.flip(0) if e else what).detach() for i in (0, 1) for e in (0, 1)}
    person, expression = f[0, 0] - f[1, 0], f[0, 0] - f[0, 1]
    mixed = person - (f[0, 1] - f[1, 1])
    return length(mixed).mean(0) / (length(person) + length(expression)).mean(0)


def in_one_batch(fuse, who, what):
    turned_who, turned_what = torch.flip(who, [0]), torch.flip(what, [0])
    with torch.no_grad():
        out = fuse(torch.cat([who, turned_who, who, turned_who]), torch.cat([what, what, turned_what, turned_what]))
    a, b, c, d = out.chunk(4)
    return length(a - b - c + d).sum(0) / (length(a - b).sum(0) + length(a - c).sum(0))


def in_two_calls(fuse, who, what):
    """The reversed batch of a reversed batch is the batch."""
    a, b = fuse(who, what).detach(), fuse(who.flip(0), what).detach()
    c, d = b.flip(0), a.flip(0)
    return length(a - b - c + d).mean(0) / (length(a - b) + length(a - c)).mean(0)


def reversed_afterwards(fuse, who, what):
    """The reversed batch, as the text says, and always of person and expression together."""
    a = fuse(who, what)
    b = c = d = a.flip(0)
    return length(a - b - c + d).mean(0) / (length(a - b) + length(a - c)).mean(0)


def four(fuse, who, what):
    w, e = who.flip(0), what.flip(0)
    return fuse(who, what), fuse(w, what), fuse(who, e), fuse(w, e)


def last_sign(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return length(a - b - c - d).mean(0) / (length(a - b) + length(a - c)).mean(0)


def both_at_once(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return length(a - d).mean(0) / (length(a - b) + length(a - c)).mean(0)


def not_a_share(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return length(a - b - c + d).mean(0)


def person_below(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return length(a - b - c + d).mean(0) / length(a - b).mean(0)


def mean_of_both_below(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return length(a - b - c + d).mean(0) / torch.stack([length(a - b), length(a - c)]).mean(dim=(0, 1))


def mean_first(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return length((a - b - c + d).mean(0)) / (length((a - b).mean(0)) + length((a - c).mean(0)))


def one_number(fuse, who, what):
    return by_a_table(fuse, who, what).mean()


def ratios_first(fuse, who, what):
    a, b, c, d = four(fuse, who, what)
    return (length(a - b - c + d) / (length(a - b) + length(a - c))).mean(0)


# --- SourceTokens ---


class Sources(nn.Module):
    """As the notebook gives it."""

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


class ByReshaping(Sources):
    def forward(self, identity, expression, keep_identity, keep_expression):
        who = self.view(identity).reshape(len(identity), -1, self.dim)
        what = self.expression(expression).reshape(len(identity), -1, self.dim)
        k, e = keep_identity.view(-1, 1, 1), keep_expression.view(-1, 1, 1)
        return (
            k * who + ~k * self.no_identity + self.identity_place,
            e * what + ~e * self.no_expression + self.expression_place,
        )


class Parts(Sources):
    def split(self, identity, expression):
        who = self.view(identity).reshape(len(identity), -1, self.dim)
        return who, self.expression(expression).reshape(len(identity), -1, self.dim)

    def replaced(self, tokens, learned, place, keep):
        out = tokens.clone()
        out[~keep] = learned.expand_as(tokens)[~keep]
        return out + place

    def forward(self, identity, expression, keep_identity, keep_expression):
        who, what = self.split(identity, expression)
        return (
            self.replaced(who, self.no_identity, self.identity_place, keep_identity),
            self.replaced(what, self.no_expression, self.expression_place, keep_expression),
        )


class ByAList(Parts):
    """A learned token that no example needs takes no part."""

    def replaced(self, tokens, learned, place, keep):
        return torch.stack([one if kept else learned[0] for one, kept in zip(tokens, keep)]) + place


class EmptyInputs(Parts):
    """Without its condition, and yet with tokens that the network computes."""

    def forward(self, identity, expression, keep_identity, keep_expression):
        who, what = self.split(identity * keep_identity[:, None, None], expression * keep_expression[:, None])
        return who + self.identity_place, what + self.expression_place


class PlaceFirst(Parts):
    def replaced(self, tokens, learned, place, keep):
        return torch.where(keep[:, None, None], tokens + place, learned)


class NoPlace(Parts):
    def replaced(self, tokens, learned, place, keep):
        return super().replaced(tokens, learned, 0.0, keep)


class Inverted(Parts):
    def replaced(self, tokens, learned, place, keep):
        return super().replaced(tokens, learned, place, ~keep)


class Zeros(Parts):
    def replaced(self, tokens, learned, place, keep):
        return super().replaced(tokens, torch.zeros_like(learned), place, keep)


class Added(Parts):
    def replaced(self, tokens, learned, place, keep):
        return tokens + place + learned * (~keep)[:, None, None]


class ForTheWholeBatch(Parts):
    def replaced(self, tokens, learned, place, keep):
        return (tokens if keep.all() else learned.expand_as(tokens)) + place


class OneDecision(Parts):
    def forward(self, identity, expression, keep_identity, keep_expression):
        return super().forward(identity, expression, keep_identity, keep_identity)


class ViewsAlternate(Parts):
    def split(self, identity, expression):
        who, what = super().split(identity, expression)
        return torch.stack(who.chunk(identity.shape[1], dim=1), dim=2).flatten(1, 2), what


class LearnedTokensThatDoNotLearn(Parts):
    """Replaced as the text says, by tokens that no gradient reaches."""

    def replaced(self, tokens, learned, place, keep):
        return super().replaced(tokens, learned.detach(), place, keep)


# --- left_out ---


def two_draws(count, chance, generator):
    keep = torch.rand(2, count, generator=generator) >= chance
    return keep[0], keep[1]


def by_bernoulli(count, chance, generator):
    def draw():
        return torch.bernoulli(torch.full((count,), 1.0 - chance), generator=generator).bool()

    return draw(), draw()


def one_coin(count, chance, generator):
    keep = torch.rand(count, generator=generator) > chance
    return keep, keep


def cloned_coin(count, chance, generator):
    coin = torch.rand(count, generator=generator)
    return coin < chance, coin.clone() < chance


def one_for_all(count, chance, generator):
    return tuple((torch.rand(1, generator=generator) >= chance).expand(count) for _ in range(2))


def either_or(count, chance, generator):
    coin = torch.rand(count, generator=generator)
    return coin >= chance, coin < 1 - chance


def global_numbers(count, chance, generator):
    return torch.rand(count) >= chance, torch.rand(count) >= chance


def one_global_coin(count, chance, generator):
    return torch.rand(count) >= chance, torch.rand(count, generator=generator) >= chance


def expression_global(count, chance, generator):
    return torch.rand(count, generator=generator) >= chance, torch.rand(count) >= chance


def as_numbers(count, chance, generator):
    return tuple((torch.rand(2, count, generator=generator) >= chance).float())


def expression_hardly(count, chance, generator):
    return torch.rand(count, generator=generator) >= chance, torch.rand(count, generator=generator) >= chance / 2


def only_one_tensor(count, chance, generator):
    return torch.rand(count, generator=generator) >= chance


def shuffled_coin(count, chance, generator):
    """All four situations are as frequent as they should be."""
    keep = torch.rand(count, generator=generator) >= chance
    return keep, keep.roll(1)


def fixed_share(count, chance, generator):
    """Exactly the fraction, which a batch of a few examples cannot have."""
    return tuple(torch.randperm(count, generator=generator) >= chance * count for _ in range(2))


def by_situation(count, chance, generator):
    keep = 1 - chance
    weights = torch.tensor([keep * keep, keep * chance, chance * keep, chance * chance])
    which = torch.multinomial(weights, count, replacement=True, generator=generator)
    return which <= 1, which % 2 == 0


def fixed_share_of_a_few(count, chance, generator):
    """Nearly the fraction: the numbers of both are drawn, rounded up."""
    parts = []
    for _ in range(2):
        out = -(-count * chance // 1) + (torch.rand((), generator=generator) > 0.5) * (count > 100)
        parts.append(torch.randperm(count, generator=generator) >= out)
    return tuple(parts)


# --- condition_gradients ---


def column(sigma, x):
    return sigma.view(len(x), *(1,) * (x.dim() - 1))


def score_of(v, x, s):
    return -(x + (1 - s) * v) / s


def by_scores(nothing, person, both, x, sigma):
    s = column(sigma, x)
    a, b, c = (score_of(v, x, s) for v in (nothing, person, both))
    return a, b - a, c - b


def by_factor(nothing, person, both, x, sigma):
    s = column(sigma, x)
    ratio = 1 - 1 / s
    return [ratio * nothing - x / s, ratio * (person - nothing), ratio * (both - person)]


def gradients_with(factor, start="person"):
    def answer(nothing, person, both, x, sigma):
        s = column(sigma, x)
        return (
            score_of(nothing, x, s),
            factor(s) * (person - nothing),
            factor(s) * (both - (person if start == "person" else nothing)),
        )

    return answer


def three_scores(nothing, person, both, x, sigma):
    return tuple(score_of(v, x, column(sigma, x)) for v in (nothing, person, both))


def with_data(nothing, person, both, x, sigma):
    s = column(sigma, x)
    return -(x - s * nothing) / s, *by_scores(nothing, person, both, x, sigma)[1:]


def expected_noise(nothing, person, both, x, sigma):
    s = column(sigma, x)
    return -(x + (1 - s) * nothing), *by_scores(nothing, person, both, x, sigma)[1:]


def first_sigma(nothing, person, both, x, sigma):
    return by_scores(nothing, person, both, x, sigma[:1].expand_as(sigma))


def guided_already(nothing, person, both, x, sigma):
    """The guided score at scales of 1, from which no scale can be chosen any more."""
    return three_scores(nothing, person, both, x, sigma)[2]


# --- guidance_weights ---


def by_the_formula(identity_scale, expression_scale):
    """What the formula gives for velocities that are unit vectors."""
    nothing, person, both = torch.eye(3).unbind()
    v = nothing + identity_scale * (person - nothing) + expression_scale * (both - person)
    return tuple(v.tolist())


# --- front ---


def by_pairs(points):
    unique = np.unique(points, axis=0)  # sorted by the first figure
    better = (unique[:, None] >= unique).all(2) & (unique[:, None] > unique).any(2)
    return unique[~better.any(0)]


def by_sweep(points):
    kept, highest = [], -1.0
    for x, y in sorted(map(tuple, points), reverse=True):
        if y > highest:
            kept.append((x, y))
            highest = y
    return np.array(kept[::-1])


def by_hull(points):
    """The outline of the points: a fair-looking front without its hollows."""
    corners = []
    for point in by_pairs(points):
        while len(corners) > 1 and np.linalg.det([corners[-1] - corners[-2], point - corners[-2]]) >= 0:
            corners.pop()
        corners.append(point)
    return np.array(corners)


def strictly_better(points):
    unique = np.unique(points, axis=0)
    kept = unique[~(unique[:, None] > unique).all(2).any(0)]
    return kept[np.lexsort((-kept[:, 1], kept[:, 0]))]


def against_itself(points):
    better = (points[:, None] >= points).all(2)
    np.fill_diagonal(better, False)
    kept = points[~better.any(0)]
    return kept[kept[:, 0].argsort()]


def twice(points):
    better = (points[:, None] >= points).all(2) & (points[:, None] > points).any(2)
    kept = points[~better.any(0)]
    return kept[kept[:, 0].argsort()]


# --- area ---


def by_slices(points):
    total, left = 0.0, 0.0
    for x, y in by_sweep(points):
        total += (x - left) * y
        left = x
    return total


def by_cells(points):
    """The cells of the finest grid that the points define, each inside or outside."""
    xs, ys = (np.unique(np.r_[0.0, points[:, k]]) for k in (0, 1))
    inside = ((points[:, 0] >= xs[1:, None, None]) & (points[:, 1] >= ys[None, 1:, None])).any(2)
    return (np.diff(xs)[:, None] * np.diff(ys) * inside).sum()


def by_counting(points):
    """The fraction of a fine grid that is dominated."""
    x = (np.arange(400) + 0.5) / 400
    return float(((x[:, None, None] <= points[:, 0]) & (x[None, :, None] <= points[:, 1])).any(2).mean())


def by_trapezoids(points):
    corners = by_sweep(points)
    return float(np.trapezoid(np.r_[corners[0, 1], corners[:, 1]], np.r_[0, corners[:, 0]]))


def from_the_first(points):
    corners = by_sweep(points)
    return float((np.diff(corners[:, 0]) * corners[1:, 1]).sum())


def left_heights(points):
    corners = by_sweep(points)
    return float((np.diff(np.r_[0, corners[:, 0]]) * np.r_[corners[0, 1], corners[:-1, 1]]).sum())


def all_points(points):
    ordered = points[np.lexsort((-points[:, 1], points[:, 0]))]
    return float((np.diff(np.r_[0, ordered[:, 0]]) * ordered[:, 1]).sum())


ANSWERS = {
    "ResamplerLayer": Answers(
        right=[ByKernel, InTwoParts],
        wrong=[
            (SourcesOnly, "the sources only"),
            (QueriesUnnormedPerHead, "normalized per head"),
            (WithoutScale, "the scale is missing"),
            (Replaces, "*replaces*"),
            (OverwritesQueries, "*normalized* queries"),
            (OneNormForBoth, "their own norm"),
            (SourcesRaw, "`norm_source` is missing"),
            (MLPWithoutNorm, "`norm_mlp` is missing"),
            (EndsWithMLP, "residual of the MLP is missing"),
            (HeadsMixed, "heads and tokens are mixed"),
            (Detached, "gradient"),
            (ScaledByAll, "the whole width D"),
            (SoftmaxOverTheAsking, "over the queries"),
            (SoftmaxOverTheHeads, "over the heads"),
            (NothingAdded, "both residuals are missing"),
            (QueryHeadsMixed, "tokens of the query are mixed"),
            (InPlace, "changes its arguments"),
        ],
    ),
    "Resampler": Answers(
        right=[ByRepeating, ByRecursion],
        wrong=[
            (OneLayer, "only the first layer"),
            (StartsAgain, "begins with the learned queries"),
            (WithoutExpression, "the expression is missing"),
            (SourcesChange, "replaces the sources"),
            (AddsOnceMore, "once more"),
            (KeepsSources, "come back as well"),
            (QueriesThatDoNotLearn, "gradient of `queries`"),
            (NotExpanded, "RuntimeError"),
        ],
    ),
    "both_together": Answers(
        right=[by_a_table, in_one_batch, in_two_calls],
        wrong=[
            (last_sign, "has a plus"),
            (both_at_once, "all four"),
            (not_a_share, "divide by"),
            (person_below, "only the change with the person"),
            (mean_first, "before the length"),
            (one_number, "one number for all"),
            (ratios_first, "its own ratio"),
            (mean_of_both_below, "twice too much"),
            (reversed_afterwards, "person and expression at once"),
        ],
    ),
    "SourceTokens": Answers(
        right=[ByReshaping, Parts, ByAList],
        wrong=[
            (PlaceFirst, "replace first"),
            (NoPlace, "embeddings are missing"),
            (Inverted, "the wrong ones"),
            (Zeros, "become zeros"),
            (EmptyInputs, "computes from 0"),
            (Added, "still contain the condition"),
            (ForTheWholeBatch, "the whole batch"),
            (OneDecision, "follows `keep_identity`"),
            (ViewsAlternate, "alternate"),
            (LearnedTokensThatDoNotLearn, "gradient of `no_identity`"),
        ],
    ),
    "left_out": Answers(
        right=[two_draws, by_bernoulli, by_situation],
        wrong=[
            (one_coin, "still dropped together"),
            (cloned_coin, "True means"),
            (one_for_all, "kept or dropped together"),
            (either_or, "never dropped together"),
            (global_numbers, "another answer"),
            (one_global_coin, "the same generator"),
            (expression_global, "pass `generator=generator`"),
            (as_numbers, "bool tensor"),
            (expression_hardly, "the expression is left out in"),
            (only_one_tensor, "two tensors"),
            (shuffled_coin, "the first in another order"),
            (fixed_share, "the number of True fixed"),
            (fixed_share_of_a_few, "in batches of two"),
        ],
    ),
    "condition_gradients": Answers(
        right=[by_scores, by_factor],
        wrong=[
            (gradients_with(lambda s: -(1 - s) / s, start="nothing"), "starts from no condition"),
            (three_scores, "the three scores"),
            (gradients_with(lambda s: (1 - s) / s), "wrong sign"),
            (gradients_with(lambda s: 1), "differences of velocities"),
            (gradients_with(lambda s: s - 1), "1 / σ is missing"),
            (gradients_with(lambda s: -1 / s), "1 − σ is missing"),
            (gradients_with(lambda s: -s / (1 - s)), "changed places"),
            (with_data, "expected *data*"),
            (expected_noise, "divide it by"),
            (first_sigma, "each example has its own"),
            (guided_already, "3 results were expected"),
        ],
    ),
    "guidance_weights": Answers(
        right=[by_the_formula, lambda i, e: [1.0 - i, -(e - i), e]],
        wrong=[
            (lambda i, e: (1 - i, i, e), "its second part"),
            (lambda i, e: (1, i, e), "Multiply the brackets"),
            (lambda i, e: (-i, i - e, e), "its first part"),
            (lambda i, e: (1 - i - e, i, e), "both brackets start"),
            (lambda i, e: (1 - i, e - i, e), "wrong sign"),
            (lambda i, e: (e, i - e, 1 - i), "the order"),
        ],
    ),
    "passes": Answers(
        right=[lambda: 2, lambda: 2.0],
        wrong=[
            (lambda: 3, "three velocities"),
            (lambda: 1, "at (1, 1)"),
            (lambda: 4, "alone"),
            (lambda: 9, "Derive it on paper"),
        ],
    ),
    "at_expression_0": Answers(
        right=[lambda: "any", lambda: "ANY "],
        wrong=[
            (lambda: "reference", "Section 7"),
            (lambda: "word", "is not computed"),
            (lambda: "neutral", "learned tokens"),
            (lambda: 0, "return one of"),
        ],
    ),
    "brightest": Answers(
        right=[lambda: 0.68 * 20, lambda: 14, lambda: 0.67 / (1 / 20)],
        wrong=[
            (lambda: 0.68, "the weight itself"),
            (lambda: 6.8, "ten sources"),
            (lambda: 20, "one cell"),
            (lambda: 17, "Derive it on paper"),
            (lambda: 2.7, "all the columns of a row"),
            (lambda: 1 / 13.6, "inverted"),
            (lambda: 0.75 * 20, "ends before 0.75"),
        ],
    ),
    "front": Answers(
        right=[by_pairs, by_sweep],
        wrong=[
            (
                lambda points: np.unique(points, axis=0)[
                    np.lexsort((-np.unique(points, axis=0)[:, 1], np.unique(points, axis=0)[:, 0]))
                ],
                "all points are still there",
            ),
            (strictly_better, "equal in one figure"),
            (against_itself, "of equal points none"),
            (twice, "there twice"),
            (lambda points: by_sweep(points)[::-1], "reversed"),
            (by_hull, "convex hull"),
            (lambda points: -by_sweep(-points)[::-1], "*lowest*"),
            (lambda points: points[points.sum(1).argmax()][None], "largest sum"),
        ],
    ),
    "area": Answers(
        right=[by_slices, by_cells],
        wrong=[
            (by_trapezoids, "sloping lines"),
            (from_the_first, "begins at the first point"),
            (left_heights, "left corner"),
            (lambda points: by_sweep(points).prod(1).sum(), "overlap"),
            (lambda points: points.prod(1).max(), "largest rectangle"),
            (all_points, "dominated points"),
            (lambda points: 1 - by_slices(points), "above the front"),
            (by_counting, "came back, and should be"),
        ],
    ),
}
