"""Answers to the exercises of notebook 03, as students write them."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from tests.course.checks.answers import Answers

# --- Modulator ---


class Mod(NamedTuple):
    shift: torch.Tensor
    scale: torch.Tensor
    gate: torch.Tensor


class Base(nn.Module):
    def __init__(self, dim, branches):
        super().__init__()
        self.branches = branches
        self.linear = nn.Linear(dim, branches * 3 * dim)


class ByUnflatten(Base):
    def forward(self, c):
        table = self.linear(c).unflatten(1, (self.branches, 3, 1, -1))  # (B, n, 3, 1, C)
        return tuple(Mod(*branch.unbind(1)) for branch in table.unbind(1))


class BySlices(Base):
    def forward(self, c):
        y, C = self.linear(c).unsqueeze(1), c.shape[1]
        return [Mod(*(y[:, :, (3 * i + k) * C : (3 * i + k + 1) * C] for k in range(3))) for i in range(self.branches)]


class StillFlat(Base):
    def forward(self, c):
        return tuple(Mod(*branch.unbind(1)) for branch in self.linear(c).unflatten(1, (self.branches, 3, -1)).unbind(1))


class StillByKind(Base):
    def forward(self, c):
        table = self.linear(c).unflatten(1, (3, self.branches, 1, -1))
        return tuple(Mod(*branch.unbind(1)) for branch in table.unbind(2))


class AsItWas(Base):
    def forward(self, c):
        rows = self.linear(c).chunk(self.branches * 3, dim=-1)
        return tuple(Mod(*rows[i :: self.branches]) for i in range(self.branches))


class AxisInFront(Base):
    def forward(self, c):
        rows = self.linear(c)[None].chunk(self.branches * 3, dim=-1)
        return tuple(Mod(*rows[3 * i : 3 * i + 3]) for i in range(self.branches))


class ScaleFirst(Base):
    def forward(self, c):
        out = []
        for scale_shift_gate in self.linear(c)[:, None].chunk(self.branches, dim=-1):
            shift, scale, gate = scale_shift_gate.chunk(3, dim=-1)
            out.append(Mod(scale, shift, gate))
        return tuple(out)


class FlatTuple(Base):
    def forward(self, c):
        return self.linear(c)[:, None].chunk(self.branches * 3, dim=-1)


class OtherName(nn.Module):
    def __init__(self, dim, branches):
        super().__init__()
        self.branches, self.layer = branches, nn.Linear(dim, branches * 3 * dim)


# --- attention_weights ---


def by_matmul(query, key):
    q, k = query.movedim(2, 1), key.movedim(2, 1)
    return F.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=3)


def head_by_head(query, key):
    D = query.shape[3]
    maps = [
        torch.softmax(torch.bmm(query[:, :, h], key[:, :, h].transpose(1, 2)) / math.sqrt(D), 2)
        for h in range(query.shape[2])
    ]
    return torch.stack(maps, 1)


def scores(query, key):
    return torch.einsum("bihc,bjhc->bhij", query, key)


def no_scale(query, key):
    return torch.softmax(scores(query, key), -1)


def no_root(query, key):
    return torch.softmax(scores(query, key) / query.size(-1), -1)


def over_queries(query, key):
    return torch.softmax(scores(query, key) / query.size(-1) ** 0.5, 2)


def over_heads(query, key):
    return torch.softmax(scores(query, key) / query.size(-1) ** 0.5, 1)


def q_and_k_swapped(query, key):
    return torch.softmax(torch.einsum("bihc,bjhc->bhij", key, query) / query.size(-1) ** 0.5, -1)


def by_tokens(query, key):
    return torch.softmax(scores(query, key) / query.size(1) ** 0.5, -1)


def only_scores(query, key):
    return scores(query, key) / math.sqrt(query.size(-1))


def heads_last(query, key):
    return (torch.einsum("bihc,bjhc->bijh", query, key) / math.sqrt(query.size(-1))).softmax(2)


# --- attend ---


def by_the_kernel(query, key, value):
    out = F.scaled_dot_product_attention(*(x.movedim(1, 2) for x in (query, key, value)))
    return out.movedim(1, 2).flatten(2)


def one_head_at_a_time(query, key, value):
    weights = by_matmul(query, key)
    return torch.cat([weights[:, h] @ value[:, :, h] for h in range(query.shape[2])], dim=-1)


def heads_apart(query, key, value):
    return torch.einsum("bhij,bjhc->bihc", by_matmul(query, key), value)


def mixed(query, key, value):
    out = by_matmul(query, key) @ value.transpose(1, 2)
    return out.reshape(query.shape[0], query.shape[1], query.shape[2] * query.shape[3])


def taking_turns(query, key, value):
    return torch.einsum("bhij,bjhc->bich", by_matmul(query, key), value).flatten(2)


def heads_summed(query, key, value):
    return torch.einsum("bhij,bjhc->bic", by_matmul(query, key), value)


def of_keys(query, key, value):
    return one_head_at_a_time(query, key, key)


# --- RMSNorm ---


class Norm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))


class ByFunctional(Norm):
    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class ByLength(Norm):
    def forward(self, x):
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return self.weight * x / torch.sqrt(length**2 / x.shape[-1] + self.eps)


class LikeLayerNorm(Norm):
    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.weight, eps=self.eps)


class ByStd(Norm):
    def forward(self, x):
        return x * torch.rsqrt(((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True) + self.eps) * self.weight


class ToLengthOne(Norm):
    def forward(self, x):
        return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + self.eps) * self.weight


class WithoutRoot(Norm):
    def forward(self, x):
        return x / ((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class OneForAll(Norm):
    def forward(self, x):
        return x / (x.pow(2).mean() + self.eps).sqrt() * self.weight


class WithoutWeight(Norm):
    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)


class EpsOutside(Norm):
    def forward(self, x):
        return self.weight * (x / (x.pow(2).mean(-1, keepdim=True) ** 0.5 + self.eps))


class WithoutEps(Norm):
    def forward(self, x):
        return self.weight * (x / x.pow(2).mean(-1, keepdim=True) ** 0.5)


# --- joint_attention ---


def condition_first_throughout(image, condition):
    k, v = (torch.cat([getattr(condition, n), getattr(image, n)], 1) for n in ("key", "value"))
    if condition.query is None:
        return by_the_kernel(image.query, k, v), None
    seen = by_the_kernel(torch.cat([condition.query, image.query], 1), k, v)
    number = condition.query.size(1)
    return seen[:, number:], seen[:, :number]


def two_calls_all_seen(image, condition):
    k, v = torch.hstack([image.key, condition.key]), torch.hstack([image.value, condition.value])
    return [None if stream.query is None else one_head_at_a_time(stream.query, k, v) for stream in (image, condition)]


def two_calls_apart(image, condition):
    return one_head_at_a_time(*image), None if condition.query is None else one_head_at_a_time(*condition)


def always_joined(image, condition):
    q, k, v = (torch.cat(pair, 1) for pair in zip(image, condition))
    return one_head_at_a_time(q, k, v).split([image.query.size(1), condition.query.size(1)], 1)


def none_is_not_heard(image, condition):
    return (by_the_kernel(*image), None) if condition.query is None else always_joined(image, condition)


def split_the_wrong_way(image, condition):
    if condition.query is None:
        return two_calls_all_seen(image, condition)
    q, k, v = (torch.cat(pair, 1) for pair in zip(image, condition))
    return by_the_kernel(q, k, v).split([condition.query.size(1), image.query.size(1)], 1)


def condition_first_split_image_first(image, condition):
    if condition.query is None:
        return two_calls_all_seen(image, condition)
    q, k, v = (torch.cat(pair, 1) for pair in zip(condition, image))
    return by_the_kernel(q, k, v).split([image.query.size(1), condition.query.size(1)], 1)


def cross_attention(image, condition):
    return (
        by_the_kernel(image.query, condition.key, condition.value),
        None if condition.query is None else by_the_kernel(condition.query, image.key, image.value),
    )


def only_the_image_sees(image, condition):
    return two_calls_all_seen(image, condition)[0], None if condition.query is None else by_the_kernel(*condition)


def results_swapped(image, condition):
    return two_calls_all_seen(image, condition)[::-1]


def along_the_heads(image, condition):
    q, k, v = (torch.cat(pair, 2) for pair in zip(image, condition))
    return by_the_kernel(q, k, v).chunk(2, 2)


ANSWERS = {
    "Modulator": Answers(
        right=[ByUnflatten, BySlices],
        wrong=[
            (StillFlat, "the first is not"),
            (StillByKind, "the second is not"),
            (AsItWas, "nothing is repaired"),
            (AxisInFront, "comes first, (1, B, C)"),
            (ScaleFirst, "interchanged"),
            (FlatTuple, "one by one"),
            (OtherName, "there is no `linear.weight`"),
        ],
    ),
    "attention_weights": Answers(
        right=[by_matmul, head_by_head],
        wrong=[
            (no_scale, "the scale is missing"),
            (no_root, "not by its root"),
            (over_queries, "wrong axis"),
            (over_heads, "along the heads"),
            (q_and_k_swapped, "weights of keys over queries"),
            (by_tokens, "√L"),
            (only_scores, "softmax is missing"),
            (heads_last, "heads come last"),
        ],
    ),
    "attend": Answers(
        right=[by_the_kernel, one_head_at_a_time],
        wrong=[
            (heads_apart, "still apart"),
            (mixed, "are mixed"),
            (taking_turns, "alternate"),
            (heads_summed, "added up"),
            (of_keys, "should be the values"),
        ],
    ),
    "RMSNorm": Answers(
        right=[ByFunctional, ByLength],
        wrong=[
            (LikeLayerNorm, "subtracts the mean"),
            (ByStd, "the standard deviation"),
            (ToLengthOne, "not their sum"),
            (WithoutRoot, "root is missing"),
            (OneForAll, "whole tensor"),
            (WithoutWeight, "weight is missing"),
            (EpsOutside, "after the root"),
            (WithoutEps, "`eps` is missing"),
        ],
    ),
    "largest_score": Answers(
        right=[lambda: 8, lambda: 64**0.5],
        wrong=[
            (lambda: 64, "still divided"),
            (lambda: 1, "of length 1."),
            (lambda: 0.125, "length 1, divided"),
            (lambda: 512, "does not multiply"),
            (lambda: 5, "too small"),
            (lambda: "loud", "return a number"),
        ],
    ),
    "joint_attention": Answers(
        right=[condition_first_throughout, two_calls_all_seen],
        wrong=[
            (two_calls_apart, "itself only"),
            (always_joined, "but the last block"),
            (none_is_not_heard, "still has keys and values"),
            (split_the_wrong_way, "wrong place"),
            (condition_first_split_image_first, "split in another"),
            (cross_attention, "cross-attention"),
            (only_the_image_sees, "join the queries"),
            (results_swapped, "results are interchanged"),
            (along_the_heads, "torch.cat"),
        ],
    ),
    "learns_first": Answers(
        right=[lambda: "gates", lambda: " Gates"],
        wrong=[
            (lambda: "nothing", "once more"),
            (lambda: "modulators", "their rows"),
            (lambda: "layers", "a gate as a factor"),
            (lambda: "everything", "most weights"),
            (lambda: 1, "return one of"),
        ],
    ),
    "squares": Answers(
        right=[lambda: 18, lambda: 6 + 4 + 8.0],
        wrong=[
            (lambda: 12, "modulator is forgotten"),
            (lambda: 15, "*twice*"),
            (lambda: 16, "keys *and* values"),
            (lambda: 17, "`to_out`"),
            (lambda: 14, "narrows again"),
            (lambda: 36, "both streams"),
            (lambda: 20, "too large"),
        ],
    ),
}
