"""Answers to the exercises of notebook 03, as students write them."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from gen_affect_lib.model import attention as kits_attention
from gen_affect_lib.model import mmdit
from gen_affect_lib.model import modulation as kits_modulation
from gen_affect_lib.model.modulation import layer_norm
from gen_affect_lib.model.patches import PatchEmbed, unpatchify
from tests.course.checks.answers import Answers

# --- timestep_embedding ---


def by_outer(timestep, channels=256, max_period=10_000.0):
    speeds = float(max_period) ** -(torch.arange(channels // 2) / (channels // 2))
    angles = torch.outer(timestep.to(torch.float32), speeds)
    return torch.hstack([torch.cos(angles), torch.sin(angles)])


def in_the_type_it_gets(timestep, channels=256, max_period=10_000.0):
    k = torch.arange(channels // 2).to(timestep.dtype if timestep.is_floating_point() else torch.float32)
    angles = timestep[:, None] * max_period ** (-k / len(k))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


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


def nothing_at_the_end(self, image, condition, c):
    image, new = as_the_plan(self, image, condition, c)
    return image, new if hasattr(self.condition, "modulator") else None


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


# --- Projections, KeyValueProjections ---


class GivenProjections(nn.Module):
    """What the notebook gives."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.norm_q, self.norm_k = kits_attention.RMSNorm(dim // num_heads), kits_attention.RMSNorm(dim // num_heads)
        self.to_out = nn.Linear(dim, dim)


def projections(qkv):
    return type("Projections", (GivenProjections,), {"qkv": qkv})


def by_chunks(self, x, names="qk", order=(0, 1, 2)):
    parts = [part.unflatten(2, (self.num_heads, -1)) for part in self.to_qkv(x).chunk(3, dim=-1)]
    q, k, v = (parts[i] for i in order)
    norms = {"q": self.norm_q, "k": self.norm_k, "v": self.norm_q}
    return kits_attention.QKV(*(norms[n](part) if n in names else part for n, part in zip("qkv", (q, k, v))))


def one_head_after_another(self, x):
    size = x.shape[2] // self.num_heads
    rows = self.to_qkv(x)
    found = [
        torch.stack([rows[..., i + h * size : i + (h + 1) * size] for h in range(self.num_heads)], dim=2)
        for i in (0, x.shape[2], 2 * x.shape[2])
    ]
    return kits_attention.QKV(self.norm_q(found[0]), self.norm_k(found[1]), found[2])


def heads_before_thirds(self, x):
    q, k, v = self.to_qkv(x).unflatten(2, (self.num_heads, 3, -1)).unbind(3)
    return kits_attention.QKV(self.norm_q(q), self.norm_k(k), v)


def channels_before_heads(self, x):
    q, k, v = (part.unflatten(2, (-1, self.num_heads)).mT for part in self.to_qkv(x).chunk(3, dim=-1))
    return kits_attention.QKV(self.norm_q(q), self.norm_k(k), v)


def normed_before_the_split(self, x):
    q, k, v = self.to_qkv(x).chunk(3, dim=-1)
    q, k = (F.rms_norm(part, part.shape[-1:], eps=1e-6) for part in (q, k))
    q, k, v = (part.unflatten(2, (self.num_heads, -1)) for part in (q, k, v))
    return kits_attention.QKV(q * self.norm_q.weight, k * self.norm_k.weight, v)


def heads_before_tokens(self, x):
    return kits_attention.QKV(*(part.transpose(1, 2) for part in by_chunks(self, x)))


def of_detached_tokens(self, x):
    return by_chunks(self, x.detach() + 0 * x)  # the right numbers, and nothing before it would learn


def key_values(qkv, **names):
    """A whole class. names: other names or sizes of its layers."""

    class KeyValueProjections(nn.Module):
        def __init__(self, dim, num_heads):
            super().__init__()
            self.num_heads = num_heads
            setattr(self, names.get("to_kv", "to_kv"), nn.Linear(dim, names.get("times", 2) * dim))
            self.norm_k = kits_attention.RMSNorm(names.get("norm", lambda dim, heads: dim // heads)(dim, num_heads))

    KeyValueProjections.qkv = qkv
    return KeyValueProjections


def two_parts(self, x):
    key, value = (part.unflatten(2, (self.num_heads, -1)) for part in self.to_kv(x).chunk(2, dim=-1))
    return kits_attention.QKV(None, self.norm_k(key), value)


def two_parts_by_view(self, x):
    seen = self.to_kv(x).view(*x.shape[:2], 2, self.num_heads, -1)
    return kits_attention.QKV(query=None, value=seen[:, :, 1], key=self.norm_k(seen[:, :, 0]))


def value_before_key(self, x):
    value, key = (part.unflatten(2, (self.num_heads, -1)) for part in self.to_kv(x).chunk(2, dim=-1))
    return kits_attention.QKV(None, self.norm_k(key), value)


def keys_as_they_are(self, x):
    return kits_attention.QKV(None, *(p.unflatten(2, (self.num_heads, -1)) for p in self.to_kv(x).chunk(2, dim=-1)))


def values_normed_too(self, x):
    seen = two_parts(self, x)
    return kits_attention.QKV(None, seen.key, self.norm_k(seen.value))


def keys_for_queries(self, x):
    seen = two_parts(self, x)
    return kits_attention.QKV(seen.key, seen.key, seen.value)


def head_then_kind(self, x):
    key, value = self.to_kv(x).unflatten(2, (self.num_heads, 2, -1)).unbind(3)
    return kits_attention.QKV(None, self.norm_k(key), value)


# --- MMDiT ---


def network(
    *, forward=None, last=lambda layer, layers: layer == layers - 1, embed="condition_embed", shut=True, zero=True
):
    """A whole class, as in the notebook, with one thing changed."""

    class MMDiT(nn.Module):
        def __init__(self, sample_size=8, patch_size=2, in_channels=16, num_layers=6, attention_head_dim=64,
                     num_attention_heads=3, joint_attention_dim=192, pooled_projection_dim=192, out_channels=None,
                     pos_embed_max_size=None):  # fmt: skip
            super().__init__()
            dim = num_attention_heads * attention_head_dim
            self.patch_size = patch_size
            table_size = pos_embed_max_size or sample_size // patch_size
            self.patch_embed = PatchEmbed(sample_size, patch_size, in_channels, dim, table_size)
            self.conditioning = kits_modulation.ConditioningVector(pooled_projection_dim, dim)
            setattr(self, embed, nn.Linear(joint_attention_dim, dim))
            blocks = [GivenBlock(dim, num_attention_heads, last(layer, num_layers)) for layer in range(num_layers)]
            self.blocks = nn.ModuleList(blocks)
            self.norm_out = kits_modulation.AdaLayerNorm(dim)
            self.proj_out = nn.Linear(dim, patch_size**2 * (out_channels or in_channels))
            for part in self.modules() if shut else ():
                if isinstance(part, (kits_modulation.Modulator, kits_modulation.AdaLayerNorm)):
                    nn.init.zeros_(part.linear.weight)
                    nn.init.zeros_(part.linear.bias)
            for parameter in self.proj_out.parameters() if zero else ():
                nn.init.zeros_(parameter)

    MMDiT.forward = forward or in_six_steps
    return MMDiT


def in_six_steps(self, hidden_states, encoder_hidden_states, pooled_projections, timestep, **change):
    height, width = hidden_states.shape[-2:]
    c = self.conditioning(timestep / change.get("slower", 1), pooled_projections)
    image, condition = self.patch_embed(hidden_states), self.condition_embed(encoder_hidden_states)
    for block in self.blocks[: change.get("until")]:
        image, new = block(image, condition, c)
        condition = condition if change.get("forgets") else new
    patches = self.proj_out(self.norm_out(image, c))
    return unpatchify(patches, *((width, height) if change.get("turned") else (height, width)), self.patch_size)


def changed(**change):
    return lambda self, *given: in_six_steps(self, *given, **change)


def with_names_of_its_own(self, hidden_states, encoder_hidden_states, pooled_projections, timestep):
    streams = [self.patch_embed(hidden_states), self.condition_embed(encoder_hidden_states)]
    about = self.conditioning(timestep, pooled_projections)
    for layer in range(len(self.blocks)):
        streams = self.blocks[layer](*streams, about)
    return unpatchify(self.proj_out(self.norm_out(streams[0], about)), *hidden_states.shape[2:], self.patch_size)


def tokens_only(self, hidden_states, encoder_hidden_states, pooled_projections, timestep):
    c = self.conditioning(timestep, pooled_projections)
    image, condition = self.patch_embed(hidden_states), self.condition_embed(encoder_hidden_states)
    for block in self.blocks:
        image, condition = block(image, condition, c)
    return self.proj_out(self.norm_out(image, c))


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
            (in_the_type_it_gets, "right for float32"),
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
    "Projections": Answers(
        right=[projections(by_chunks), projections(one_head_after_another)],
        wrong=[
            (projections(heads_before_thirds), "one head at a time"),
            (projections(channels_before_heads), "H groups of D neighbours"),
            (projections(lambda self, x: by_chunks(self, x, "")), "neither queries nor keys"),
            (projections(lambda self, x: by_chunks(self, x, "q")), "keys are not normalised"),
            (projections(lambda self, x: by_chunks(self, x, "k")), "queries are not normalised"),
            (projections(lambda self, x: by_chunks(self, x, "qkv")), "averaged, not compared"),
            (projections(normed_before_the_split), "split first, then norm"),
            (projections(lambda self, x: by_chunks(self, x, order=(1, 0, 2))), "parts are interchanged"),
            (projections(heads_before_tokens), "heads come before the tokens"),
            (projections(of_detached_tokens), "called with"),
            (projections(lambda self, x: tuple(by_chunks(self, x))), "parts have names"),
        ],
    ),
    "KeyValueProjections": Answers(
        right=[key_values(two_parts), key_values(two_parts_by_view)],
        wrong=[
            (key_values(value_before_key), "keys and values are interchanged"),
            (key_values(keys_as_they_are), "keys are not normalised"),
            (key_values(values_normed_too), "averaged, not compared"),
            (key_values(keys_for_queries), "there are queries"),
            (key_values(head_then_kind), "(H, 2, D)"),
            (key_values(two_parts, to_kv="kv"), "no `to_kv.weight` among the parameters"),
            (key_values(two_parts, times=3), "`to_kv.weight` has the shape"),
            (key_values(two_parts, norm=lambda dim, heads: dim), "`norm_k.weight` has the shape"),
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
            (block(nothing_at_the_end), "last block None"),
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
    "MMDiT": Answers(
        right=[network(), network(forward=with_names_of_its_own)],
        wrong=[
            (network(forward=changed(forgets=True)), "take over both results"),
            (network(forward=changed(slower=1000)), "expects it in [0, 1000]"),
            (network(forward=changed(turned=True)), "need not be square"),
            (network(forward=changed(until=-1)), "last block is left out"),
            (network(forward=changed(until=0)), "never used"),
            (network(forward=changed(until=1)), "only the first block"),
            (network(forward=tokens_only), "shape"),
            (network(last=lambda layer, layers: False), "blocks.2.condition.norm.linear.weight"),
            (network(embed="context_embed"), "no `condition_embed.weight` among the parameters"),
            (network(shut=False), "gates are open"),  # it computes the same, and would learn badly
            (network(zero=False), "does not output zeros"),
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
