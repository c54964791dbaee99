"""Answers to the exercises of notebook 03, as students write them."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from gen_affect_lib.model import attention as kits_attention
from gen_affect_lib.model import mmdit
from gen_affect_lib.model.modulation import layer_norm
from tests.course.checks.answers import Answers

# --- timestep_embedding ---


def by_outer(timestep, channels=256, max_period=10_000.0):
    speeds = float(max_period) ** -(torch.arange(channels // 2) / (channels // 2))
    angles = torch.outer(timestep.to(torch.float32), speeds)
    return torch.hstack([torch.cos(angles), torch.sin(angles)])


def number_by_number(timestep, channels=256, max_period=10_000.0):
    half = channels // 2
    rows = []
    for t in timestep.tolist():
        angles = [t * math.exp(-math.log(max_period) * k / half) for k in range(half)]
        rows.append([*map(math.cos, angles), *map(math.sin, angles)])
    return torch.tensor(rows)


def clock(order="cs", of=lambda k, half: -k / half, turn=1.0, read=float):
    def answer(timestep, channels=256, max_period=10_000.0):
        k = torch.arange(channels // 2)
        angles = turn * torch.tensor([[read(t)] for t in timestep]) * float(max_period) ** of(k, channels // 2)
        return torch.cat([{"c": angles.cos(), "s": angles.sin()}[one] for one in order], 1)

    return answer


def alternating(timestep, channels=256, max_period=10_000.0):
    return by_outer(timestep, channels, max_period).unflatten(1, (2, -1)).mT.flatten(1)


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


def by_einsum(query, key, value):
    return torch.einsum("bhij,bjhc->bihc", by_matmul(query, key), value).reshape(len(query), query.shape[1], -1)


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


class ByMean(Norm):
    def forward(self, x):
        return self.weight * x * ((x**2).sum(-1, keepdim=True) / x.shape[-1] + self.eps) ** -0.5


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


# --- Stream ---


def modulated(x, mod):
    return layer_norm(x) * (1 + mod.scale) + mod.shift


class GivenStream(mmdit.Stream):
    """What the notebook gives."""

    def __init__(self, dim, num_heads):
        super().__init__(dim, num_heads, "rms_norm")


def stream(after):
    class Answer(GivenStream):
        def after(self, x, seen, mods):
            return after(self, x, seen, *mods)

    return Answer


def in_two_lines(self, x, seen, a, m):
    x = x + a.gate * self.attention.to_out(seen)
    return x + m.gate * self.mlp(modulated(x, m))


def in_one_sum(self, x, seen, a, m):
    first = torch.addcmul(x, a.gate, self.attention.to_out(seen))
    return torch.stack([first, m.gate * self.mlp(modulated(first, m))]).sum(0)


def no_first_gate(self, x, seen, a, m):
    x = x + self.attention.to_out(seen)
    return x + m.gate * self.mlp(modulated(x, m))


def no_second_gate(self, x, seen, a, m):
    x = x + a.gate * self.attention.to_out(seen)
    return x + self.mlp(modulated(x, m))


def no_gates(self, x, seen, a, m):
    x = x + self.attention.to_out(seen)
    return x + self.mlp(modulated(x, m))


def no_projection(self, x, seen, a, m):
    x = x + a.gate * seen
    return x + m.gate * self.mlp(modulated(x, m))


def no_norm(self, x, seen, a, m):
    x = x + a.gate * self.attention.to_out(seen)
    return x + m.gate * self.mlp(x * (1 + m.scale) + m.shift)


def side_by_side(self, x, seen, a, m):
    return x + a.gate * self.attention.to_out(seen) + m.gate * self.mlp(modulated(x, m))


def first_modulation_twice(self, x, seen, a, m):
    return in_two_lines(self, x, seen, a, a)


def no_skip(self, x, seen, a, m):
    x = x + a.gate * self.attention.to_out(seen)
    return m.gate * self.mlp(modulated(x, m))


def nothing_flows_back(self, x, seen, a, m):
    return in_two_lines(self, x, seen.detach(), a, m)


# --- MMDiTBlock ---


class GivenBlock(mmdit.MMDiTBlock):
    """What the notebook gives."""

    def __init__(self, dim, num_heads, last):
        super().__init__(dim, num_heads, "rms_norm", dual_attention=False, last=last)


def block(forward):
    class Answer(GivenBlock):
        def forward(self, image, condition, c):
            return forward(self, image, condition, c)

    return Answer


def as_the_plan(self, image, condition, c, meet=kits_attention.joint_attention):
    (a, mods_a), (b, mods_b) = self.image.before(image, c), self.condition.before(condition, c)
    seen_a, seen_b = meet(a, b)
    return self.image.after(image, seen_a, mods_a), self.condition.after(condition, seen_b, mods_b)


def with_a_list(self, image, condition, c):
    streams, tokens = (self.image, self.condition), (image, condition)
    ready = [stream.before(x, c) for stream, x in zip(streams, tokens)]
    seen = two_calls_all_seen(*(qkv for qkv, _ in ready))
    return [stream.after(x, s, mods) for stream, x, s, (_, mods) in zip(streams, tokens, seen, ready)]


def mods_exchanged(self, image, condition, c):
    (a, mods_a), (b, mods_b) = self.image.before(image, c), self.condition.before(condition, c)
    seen_a, seen_b = kits_attention.joint_attention(a, b)
    return self.image.after(image, seen_a, mods_b), self.condition.after(condition, seen_b, mods_a)


def one_after_the_other(self, image, condition, c):
    b, mods_b = self.condition.before(condition, c)
    a, mods_a = self.image.before(image, c)
    image = self.image.after(image, kits_attention.joint_attention(a, b)[0], mods_a)
    a, _ = self.image.before(image, c)
    return image, self.condition.after(condition, kits_attention.joint_attention(a, b)[1], mods_b)


ANSWERS = {
    "timestep_embedding": Answers(
        right=[by_outer, number_by_number],
        wrong=[
            (clock("sc"), "sines come first"),
            (alternating, "alternate"),
            (clock(of=lambda k, half: k / half), "frequencies grow"),
            (clock(of=lambda k, half: -k / max(half - 1, 1)), "not −k / (half − 1)"),
            (clock(of=lambda k, half: -2 * k / half), "count frequencies"),
            (clock(turn=2 * math.pi), "without 2π"),
            (clock(read=int), "fractions of a timestep"),  # a vector for every timestep, and only for whole ones
        ],
    ),
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
        right=[by_einsum, one_head_at_a_time],
        wrong=[
            (by_the_kernel, "did it"),
            (heads_apart, "still apart"),
            (mixed, "are mixed"),
            (taking_turns, "alternate"),
            (heads_summed, "added up"),
            (of_keys, "should be the values"),
        ],
    ),
    "RMSNorm": Answers(
        right=[ByMean, ByLength],
        wrong=[
            (ByFunctional, "did it"),
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
            (lambda: 5, "Derive it on paper"),
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
    "Stream": Answers(
        right=[stream(in_two_lines), stream(in_one_sum)],
        wrong=[
            (stream(no_first_gate), "attention's gate is missing"),
            (stream(no_second_gate), "MLP's gate is missing"),
            (stream(no_gates), "both gates"),
            (stream(no_projection), "`to_out`, is missing"),
            (stream(no_norm), "not normalised"),
            (stream(side_by_side), "begins at the *updated* x"),
            (stream(first_modulation_twice), "each branch has its own"),
            (stream(no_skip), "skip path is lost"),
            (stream(nothing_flows_back), "called with"),  # the right numbers, and attention would never learn
        ],
    ),
    "MMDiTBlock": Answers(
        right=[block(as_the_plan), block(with_a_list)],
        wrong=[
            (block(lambda *given: as_the_plan(*given, two_calls_apart)), "never meet"),
            (block(lambda *given: as_the_plan(*given, cross_attention)), "the other one only"),
            (block(lambda *given: as_the_plan(*given)[0]), "only the image tokens"),
            (block(lambda *given: as_the_plan(*given)[::-1]), "results are interchanged"),
            (block(mods_exchanged), "modulations of the other one"),
            (block(one_after_the_other), "updated already"),
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
            (lambda: 20, "Derive it on paper"),
        ],
    ),
    "without_pooled": Answers(
        right=[lambda: "grey", lambda: " Grey "],
        wrong=[
            (lambda: "the face", "targets are negatives"),
            (lambda: "the negative", "the faces themselves"),
            (lambda: "either", "by lot"),
            (lambda: None, "return one of"),
        ],
    ),
}
