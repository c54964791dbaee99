"""Answers to the exercises of notebook 07, as students write them."""

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


# --- dial_weights ---


def by_the_formula(identity_scale, expression_scale):
    """What the formula gives for velocities that are unit vectors."""
    nothing, person, both = torch.eye(3).unbind()
    v = nothing + identity_scale * (person - nothing) + expression_scale * (both - person)
    return tuple(v.tolist())


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
        ],
    ),
    "both_together": Answers(
        right=[by_a_table, in_one_batch],
        wrong=[
            (last_sign, "has a plus"),
            (both_at_once, "all four"),
            (not_a_share, "divide by"),
            (person_below, "only the change with the person"),
            (mean_first, "before the length"),
            (one_number, "one number for all"),
            (ratios_first, "its own ratio"),
            (mean_of_both_below, "twice too much"),
        ],
    ),
    "left_out": Answers(
        right=[two_draws, by_bernoulli],
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
        ],
    ),
    "dial_weights": Answers(
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
}
