"""Answers to the exercises of notebook 06, as students write them."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gen_affect_lib.encoders import affect
from tests.course.checks.answers import Answers

# --- log_likelihoods ---


def faces():
    return np.vstack([affect.word_vectors(), np.zeros(21)])  # (136, 21)


def exponents(vectors):
    """One table (M, 136) for each strength."""
    return np.array(
        [-((vectors[:, None, :] - s * faces()[None]) ** 2).sum(2) / 0.125 for s in (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)]
    )


def by_torch(vectors):
    return torch.logsumexp(torch.from_numpy(exponents(vectors)), dim=0).numpy() - np.log(6)


def largest_first(vectors):
    terms = exponents(vectors)
    top = terms.max(axis=0)
    return top + np.log(np.exp(terms - top).mean(axis=0))


def one_face_at_a_time(vectors):
    rows = []
    for x in vectors:
        total = np.full(136, -np.inf)
        for s in np.linspace(0.6, 1.1, 6):
            total = np.logaddexp(total, -(np.linalg.norm(x - s * faces(), axis=1) ** 2) / (2 * 0.25**2))
        rows.append(total - np.log(6))
    return np.array(rows)


def straight_from_the_formula(vectors):
    with np.errstate(all="ignore"):
        return np.log(np.exp(exponents(vectors)).sum(axis=0) / 6)


def mean_of_the_logs(vectors):
    return exponents(vectors).mean(0)


def best_strength(vectors):
    return exponents(vectors).max(0)


def words_only(vectors):
    return by_torch(vectors)[:, :135]


def without_one_over_s(vectors):
    return by_torch(vectors) + np.log(6)


def without_the_two(vectors):
    return torch.logsumexp(torch.from_numpy(2 * exponents(vectors)), dim=0).numpy() - np.log(6)


def full_strength(vectors):
    return -8 * ((vectors[:, None] - faces()) ** 2).sum(-1)


def sigma_not_squared(vectors):
    return torch.logsumexp(torch.from_numpy(exponents(vectors) * 0.125 / 0.5), dim=0).numpy() - np.log(6)


def without_the_minus(vectors):
    return torch.logsumexp(torch.from_numpy(-exponents(vectors)), dim=0).numpy() - np.log(6)


def with_a_tiny_number(vectors):
    return np.log(np.exp(exponents(vectors)).mean(axis=0) + 1e-300)


def not_below_a_tiny_number(vectors):
    return np.log(np.maximum(np.exp(exponents(vectors)).sum(axis=0), 1e-12)) - math.log(6)


def probabilities(vectors):
    return affect.posterior(vectors)


def log_probabilities(vectors):
    likelihood = by_torch(vectors)
    return likelihood - np.logaddexp.reduce(likelihood, axis=1)[:, None]


# --- Attention ---


class Heads(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(dim, dim) for _ in range(4))

    def parts(self, x):
        B, T, D = x.shape
        return [
            p(x).view(B, T, self.heads, D // self.heads).permute(0, 2, 1, 3)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        ]


class ByEinsum(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
        self.weights = torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True))
        return self.o_proj(torch.einsum("bhij,bhjd->bihd", self.weights, v).reshape(x.shape))


class HeadByHead(Heads):
    def forward(self, x):
        size = x.shape[2] // self.heads
        q, k, v = self.q_proj(x).split(size, 2), self.k_proj(x).split(size, 2), self.v_proj(x).split(size, 2)
        weights = [F.softmax(a @ b.mT / math.sqrt(size), 2) for a, b in zip(q, k)]
        self.weights = torch.stack(weights, 1)
        return self.o_proj(torch.cat([w @ c for w, c in zip(weights, v)], 2))


class AsGiven(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        self.weights = F.softmax(q @ k.mT / q.shape[-1] ** 0.5, 2)
        return self.o_proj((self.weights @ v).reshape(x.shape))


class OnlyMerged(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        self.weights = F.softmax(q @ k.mT / q.shape[-1] ** 0.5, -2)
        return self.o_proj((self.weights @ v).movedim(1, 2).flatten(2))


class OnlySoftmax(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        self.weights = F.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
        return self.o_proj((self.weights @ v).reshape(x.shape))


class Unscaled(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        self.weights = F.softmax(q @ k.mT, -1)
        return self.o_proj((self.weights @ v).movedim(1, 2).flatten(2))


class ScaledByAll(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        self.weights = F.softmax(q @ k.mT / x.shape[2] ** 0.5, -1)
        return self.o_proj((self.weights @ v).movedim(1, 2).flatten(2))


class ByTorch(Heads):
    def forward(self, x):
        return self.o_proj(F.scaled_dot_product_attention(*self.parts(x)).movedim(1, 2).flatten(2))


class KeepsTheScores(Heads):
    def forward(self, x):
        q, k, v = self.parts(x)
        self.weights = q @ k.mT / q.shape[-1] ** 0.5
        return self.o_proj((self.weights.softmax(-1) @ v).movedim(1, 2).flatten(2))


# --- Embeddings ---


class PatchEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.projection = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, pixels):
        return self.projection(pixels).flatten(2).transpose(1, 2)


class Tokens(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, N = config.hidden_size, (config.image_size // config.patch_size) ** 2
        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.position_embeddings = nn.Parameter(torch.zeros(1, N + 1, D))


class ByRepeat(Tokens):
    def forward(self, pixels):
        x = self.patch_embeddings(pixels)
        return torch.cat((self.cls_token.repeat(x.shape[0], 1, 1), x), 1) + self.position_embeddings


class ByPadding(Tokens):
    def forward(self, pixels):
        x = F.pad(self.patch_embeddings(pixels), (0, 0, 1, 0))
        first = F.pad(self.cls_token, (0, 0, 0, x.shape[1] - 1))
        return x + first + self.position_embeddings


class TokenLast(Tokens):
    def forward(self, pixels):
        x = self.patch_embeddings(pixels)
        return torch.cat((x, self.cls_token.repeat(x.shape[0], 1, 1)), 1) + self.position_embeddings


class Placeless(Tokens):
    def forward(self, pixels):
        x = self.patch_embeddings(pixels)
        return torch.cat((self.cls_token.repeat(x.shape[0], 1, 1), x), 1)


class OnlyPatchesHavePlaces(Tokens):
    def forward(self, pixels):
        x = self.patch_embeddings(pixels) + self.position_embeddings[:, 1:]
        return torch.cat((self.cls_token.repeat(x.shape[0], 1, 1), x), 1)


class OnePlaceTooFew(Tokens):
    def __init__(self, config):
        super().__init__(config)
        self.position_embeddings = nn.Parameter(self.position_embeddings[:, 1:].detach())

    def forward(self, pixels):
        x = self.patch_embeddings(pixels) + self.position_embeddings
        return torch.cat((self.cls_token.repeat(x.shape[0], 1, 1), x), 1)


class OnePictureOnly(Tokens):
    def forward(self, pixels):
        return torch.cat((self.cls_token, self.patch_embeddings(pixels)), 1) + self.position_embeddings


class NotLearned(Tokens):
    def forward(self, pixels):
        x = self.patch_embeddings(pixels)
        return torch.cat((self.cls_token.data.repeat(x.shape[0], 1, 1), x), 1) + self.position_embeddings


class OfFourPatches(Tokens):
    def __init__(self, config):
        super().__init__(config)
        self.position_embeddings = nn.Parameter(torch.zeros(1, 26, config.hidden_size))


class RandomStart(ByRepeat):
    def __init__(self, config):
        super().__init__(config)
        self.cls_token = nn.Parameter(torch.randn_like(self.cls_token) * 0.02)


# --- confusion_table ---


def by_a_loop(shown, read, count):
    table = np.zeros((count, count))
    for i, j in zip(shown, read):
        table[i, j] += 1
    for row in table:
        if row.sum():
            row /= row.sum()
    return table


def by_one_hot(shown, read, count):
    table = np.eye(count)[shown].T @ np.eye(count)[read]
    sums = table.sum(1)
    return table / np.where(sums == 0, 1, sums)[:, None]


def counted_once(shown, read, count):
    table = np.zeros((count, count))
    table[shown, read] += 1
    return table / np.maximum(table.sum(1, keepdims=True), 1)


def transposed(shown, read, count):
    return by_a_loop(shown, read, count).T


def by_columns(shown, read, count):
    return by_a_loop(read, shown, count).T


def read_first(shown, read, count):
    return by_a_loop(read, shown, count)


def only_counts(shown, read, count):
    return np.eye(count)[shown].T @ np.eye(count)[read]


def of_all(shown, read, count):
    return only_counts(shown, read, count) / len(read)


def nothing_by_nothing(shown, read, count):
    with np.errstate(all="ignore"):
        return only_counts(shown, read, count) / only_counts(shown, read, count).sum(1)[:, None]


def sums_along_the_wrong_axis(shown, read, count):
    table = only_counts(shown, read, count)
    return table / table.sum(1).clip(1)


def without_keepdims(shown, read, count):
    with np.errstate(all="ignore"):
        return only_counts(shown, read, count) / only_counts(shown, read, count).sum(axis=1)


# --- concordance ---


def by_errors(read, true):
    """1 minus the squared error over the squared error of independent numbers with the same means and variances."""
    expected = read.var() + true.var() + (read.mean() - true.mean()) ** 2
    return 1 - np.mean((read - true) ** 2) / expected


def by_cov(read, true):
    table = np.cov(read, true, bias=True)
    return 2 * table[0, 1] / (np.trace(table) + (np.mean(read) - np.mean(true)) ** 2)


def by_parts(below, factor=2):
    def answer(read, true):
        above = np.mean(read * true) - read.mean() * true.mean()
        return factor * above / below(read, true)

    return answer


def means_apart(read, true):
    return (read.mean() - true.mean()) ** 2


ANSWERS = {
    "log_likelihoods": Answers(
        right=[by_torch, largest_first, one_face_at_a_time],
        wrong=[
            (straight_from_the_formula, "each exp is 0 in floating point"),
            (mean_of_the_logs, "logarithms were averaged"),
            (best_strength, "only the best strength"),
            (words_only, "the neutral face is missing"),
            (without_one_over_s, "by log 6"),
            (without_the_two, "by 2σ²"),
            (full_strength, "full strength only"),
            (sigma_not_squared, "is squared"),
            (without_the_minus, "lost its minus"),
            (with_a_tiny_number, "hides −1500 behind −691"),
            (not_below_a_tiny_number, "a small constant in the logarithm"),
            (probabilities, "the probabilities p(w | x)"),
            (log_probabilities, "already divided by their sum"),
        ],
    ),
    "terror_shown_weakly": Answers(
        right=[lambda: "fear", lambda: " Fear"],
        wrong=[
            (lambda: "terror", "weaker than 0.6"),
            (lambda: "neutral", "far from zero"),
            (lambda: "joy", "does not turn"),
            (lambda: "panic", "return one of"),
        ],
    ),
    "Attention": Answers(
        right=[ByEinsum, HeadByHead],
        wrong=[
            (AsGiven, "both faults"),
            (OnlyMerged, "must add up to 1"),
            (OnlySoftmax, "only reshaped"),
            (Unscaled, "the scale is gone"),
            (ScaledByAll, "the whole width D"),
            (ByTorch, "weights are not kept"),
            (KeepsTheScores, "are not the weights after the softmax"),
        ],
    ),
    "Embeddings": Answers(
        right=[ByRepeat, ByPadding],
        wrong=[
            (TokenLast, "class token is last"),
            (Placeless, "position embeddings are missing"),
            (OnlyPatchesHavePlaces, "no position embedding"),
            (OnePlaceTooFew, "has the shape (1, 4, 12)"),
            (OnePictureOnly, "RuntimeError"),
            (NotLearned, "the gradient of `cls_token`"),
            (OfFourPatches, "has the shape (1, 26, 12)"),
            (RandomStart, "should start at zeros"),
        ],
    ),
    "concordance": Answers(
        right=[by_errors, by_cov],
        wrong=[
            (lambda read, true: np.corrcoef(read, true)[1, 0], "Pearson"),  # 1 for whoever is always half as large
            (by_parts(lambda r, t: r.var() + t.var()), "difference of the means is missing"),
            (by_parts(lambda r, t: r.var() + t.var() + r.mean() - t.mean()), "not squared"),
            (by_parts(lambda r, t: r.var() + t.var() + means_apart(r, t), 1), "factor 2"),
            (by_parts(lambda r, t: r.std() + t.std() + means_apart(r, t)), "standard deviations below"),
            (by_parts(lambda r, t: r.var(ddof=1) + t.var(ddof=1) + means_apart(r, t)), "M − 1"),
        ],
    ),
    "confusion_table": Answers(
        right=[by_a_loop, by_one_hot],
        wrong=[
            (counted_once, "once at most"),
            (transposed, "are swapped: a row"),
            (by_columns, "each column adds up"),
            (read_first, "and so are their sums"),
            (only_counts, "the numbers of faces"),
            (of_all, "the whole table"),
            (nothing_by_nothing, "gives 0/0"),
            (sums_along_the_wrong_axis, "`keepdims=True`"),
            (without_keepdims, "each divides a column"),
        ],
    ),
    "always_sadness": Answers(
        right=[lambda: 1 / 6, lambda: 0.167, lambda: np.float64(1 / 6)],
        wrong=[
            (lambda: 37 / 135, "each family has the same weight"),
            (lambda: 0, "one of the six cells"),
            (lambda: 1, "one cell of the diagonal"),
            (lambda: 1 / 135, "chance for 135"),
            (lambda: 16.7, "in per cent"),
            (lambda: 100 / 6, "from 0 to 1"),
        ],
    ),
}
