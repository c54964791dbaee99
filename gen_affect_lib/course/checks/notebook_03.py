"""The exercises of notebook 03: the multimodal diffusion transformer."""

from __future__ import annotations

import math

import torch
from torch import nn

from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare, compare_modules
from gen_affect_lib.course.checks.compare import shape_difference
from gen_affect_lib.course.checks.probes import (
    after_attention,
    function_calls,
    module_calls,
    projected,
    zero_at_start,
)
from gen_affect_lib.model import attention, mmdit
from gen_affect_lib.model.attention import QKV, attend, attention_weights
from gen_affect_lib.model.modulation import Modulation, Modulator, layer_norm, modulate, timestep_embedding
from gen_affect_lib.model.patches import unpatchify

# --- 3.1 timestep_embedding ------------------------------------------------------------------------------------------


def _embedding(timestep, channels=256, max_period=10_000.0, *, last=0, turn=1.0, order="cs", sign=-1, step=1):
    """A timestep embedding with one thing changed."""
    half = channels // 2
    exponent = sign * math.log(max_period) * torch.arange(half) * step / max(half - last, 1)
    angles = turn * timestep.float()[:, None] * exponent.exp()
    waves = {"c": angles.cos(), "s": angles.sin()}
    if order == "alternating":
        return torch.stack([waves["c"], waves["s"]], dim=-1).flatten(1)
    return torch.cat([waves[letter] for letter in order], dim=-1)


def _in_its_own_type(timestep, channels=256, max_period=10_000.0):
    half = channels // 2
    frequencies = max_period ** (-torch.arange(half) / half)
    if timestep.is_floating_point():
        frequencies = frequencies.to(timestep.dtype)
    angles = timestep[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _test_timestep_embedding(answer) -> None:
    times = torch.tensor([0.0, 0.25, 1.5, 3.7])  # small: the rounding of large angles would hide which mistake it is
    cases = [(times, 4), (times, 8, 100.0), (times[:1], 16), (torch.tensor([3, 999]), 32, 2.0)]
    compare(
        answer,
        timestep_embedding,
        *cases,
        mistakes=[
            (
                "the sines come first. Here, and in diffusers, the cosines come first.",
                lambda *case: _embedding(*case, order="sc"),
            ),
            (
                "cosines and sines alternate: first all cosines, then all sines.",
                lambda *case: _embedding(*case, order="alternating"),
            ),
            (
                "the frequencies grow: the first is 1, and they fall towards 1 / max_period.",
                lambda *case: _embedding(*case, sign=1),
            ),
            (
                "the last frequency is exactly 1 / max_period: the exponent is −k / half, not −k / (half − 1).",
                lambda *case: _embedding(*case, last=1),
            ),
            (
                "the exponent counts channels, and should count frequencies: there are half as many.",
                lambda *case: _embedding(*case, step=2),
            ),
            ("an angle is timestep times frequency, without 2π.", lambda *case: _embedding(*case, turn=2 * math.pi)),
            (
                "fractions of a timestep are lost: it must not become an integer.",
                lambda timestep, *case: _embedding(timestep.long(), *case),
            ),
        ],
        tolerance=1e-3,
    )
    compare(answer, timestep_embedding, (torch.tensor([0.0, 3.7, 500.25, 999.0]), 256), tolerance=1e-3)
    compare(
        answer,
        timestep_embedding,
        *((torch.tensor([0.5, 100.5], dtype=kind), 8) for kind in (torch.float16, torch.float64)),
        mistakes=[
            (
                "right for float32. For other types the result has the type of `timestep`, or its accuracy: compute in "
                "float32, whatever that type is.",
                _in_its_own_type,
            ),
        ],
        tolerance=1e-3,
    )


check_timestep_embedding = Exercise(
    "3.1",
    "timestep_embedding",
    "The timestep as a vector",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Through this vector a denoising network knows the noise level of its input.",
    reference=timestep_embedding,
    test=_test_timestep_embedding,
    hints=(
        "Compute the frequencies first, a vector of channels / 2 numbers, then all angles at once by broadcasting.",
        "`torch.exp(-math.log(max_period) / half * torch.arange(half))`; angles: `timestep.float()[:, None] * "
        "frequencies`; then `torch.cat` of cosines and sines.",
    ),
)

# --- 3.2 Modulator ---------------------------------------------------------------------------------------------------


class _Broken(Modulator):
    def forward(self, c):
        rows = self.linear(c).chunk(self.branches * 3, dim=-1)
        return tuple(Modulation(*rows[i :: self.branches]) for i in range(self.branches))


class _NoTokens(Modulator):
    def forward(self, c):
        return tuple(Modulation(*(row[:, 0] for row in mod)) for mod in super().forward(c))


class _ByKind(_Broken):
    def forward(self, c):
        return tuple(Modulation(*(row[:, None] for row in mod)) for mod in super().forward(c))


class _TokensFirst(Modulator):
    def forward(self, c):
        return tuple(Modulation(*(row.transpose(0, 1) for row in mod)) for mod in super().forward(c))


class _AnotherOrder(Modulator):
    def forward(self, c):
        return tuple(Modulation(mod.scale, mod.shift, mod.gate) for mod in super().forward(c))


class _NoBranches(Modulator):
    def forward(self, c):
        return tuple(row for mod in super().forward(c) for row in mod)


def _test_modulator(answer) -> None:
    for branches in (2, 3, 1):  # with one branch, one of the mistakes has no effect
        compare_modules(
            answer,
            Modulator,
            dict(dim=4, branches=branches),
            (torch.randn(3, 4),),
            (torch.randn(1, 4),),
            mistakes=[
                (
                    "the first mistake is repaired, the second is not: the 3 · branches parts are ordered by branch: "
                    "(shift, scale, gate) of the first branch, then (shift, scale, gate) of the next.",
                    _ByKind,
                ),
                (
                    "the second mistake is repaired, the first is not: each part is still (B, C), which is broadcast "
                    "along the wrong axis of (B, L, C). It needs an axis of length 1 for the tokens.",
                    _NoTokens,
                ),
                ("nothing is repaired yet: this returns what the broken one returns.", _Broken),
                (
                    "the axis of length 1 comes first, (1, B, C), which is the axis of the images. The tokens are the "
                    "second axis.",
                    _TokensFirst,
                ),
                ("shift and scale are interchanged: the order is shift, scale, gate.", _AnotherOrder),
                (
                    "the parts are returned one by one: return one `Modulation` of three parts for each branch.",
                    _NoBranches,
                ),
            ],
        )


check_Modulator = Exercise(
    "3.2",
    "Modulator",
    "Two mistakes that raise nothing",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Shapes that fit by chance are the most expensive mistakes there are: nothing stops, and the model learns "
    "badly.",
    reference=Modulator,
    test=_test_modulator,
    hints=(
        "Write the shapes down: which axes does broadcasting align when (B, C) is multiplied by (B, L, C)? Then look "
        "at which parts `[i :: branches]` selects.",
        "`self.linear(c)[:, None]` has an axis for the tokens. The parts of branch i are the three from index 3 · i "
        "on.",
    ),
)

# --- 3.3 attention_weights -------------------------------------------------------------------------------------------


def _scores(query, key):
    return query.transpose(1, 2) @ key.permute(0, 2, 3, 1)  # (B, H, L, D) @ (B, H, D, M) -> (B, H, L, M)


def _weights(query, key, power=0.5, axis=-1):
    return (_scores(query, key) / query.shape[-1] ** power).softmax(dim=axis)


def _test_attention_weights(answer) -> None:
    cases = [(torch.randn(2, 3, 4, 6) * 2, torch.randn(2, 5, 4, 6)), (torch.randn(1, 7, 2, 3), torch.randn(1, 7, 2, 3))]
    compare(
        answer,
        attention_weights,
        *cases,
        gradients=True,
        mistakes=[
            (
                "the scale is missing: divide the dot products by √D before the softmax.",
                lambda q, k: _weights(q, k, power=0),
            ),
            ("the dot products are divided by D, not by its root: divide by √D.", lambda q, k: _weights(q, k, power=1)),
            (
                "divided by √L: the scale depends on the number D of channels of a head, the last axis, and not on "
                "the number of tokens.",
                lambda q, k: (_scores(q, k) / q.shape[1] ** 0.5).softmax(-1),
            ),
            (
                "divided by √C with C = H · D: a dot product sums over the D channels of one head.",
                lambda q, k: (_scores(q, k) / (q.shape[-1] * q.shape[-2]) ** 0.5).softmax(-1),
            ),
            (
                "the softmax runs along the wrong axis: for each *query* the weights of all keys add up to 1, and the "
                "keys come last.",
                lambda q, k: _weights(q, k, axis=-2),
            ),
            (
                "this softmax runs along the heads: for each query the weights of all keys add up to 1.",
                lambda q, k: _weights(q, k, axis=1),
            ),
            (
                "these are weights of keys over queries: query and key are interchanged. Rows belong to queries.",
                lambda q, k: _weights(k, q),
            ),
            (
                "the result is transposed, (B, H, M, L): rows belong to queries.",
                lambda q, k: _weights(q, k).transpose(2, 3),
            ),
            ("these are the scores: the softmax is missing.", lambda q, k: _scores(q, k) / q.shape[-1] ** 0.5),
            (
                "the softmax comes before the scale: its rows do not add up to 1 any more.",
                lambda q, k: _scores(q, k).softmax(-1) / q.shape[-1] ** 0.5,
            ),
            (
                "the numbers are right, but the heads come last: return one (L, M) map for each head, (B, H, L, M).",
                lambda q, k: _weights(q, k).permute(0, 2, 3, 1),
            ),
        ],
    )


check_attention_weights = Exercise(
    "3.3",
    "attention_weights",
    "Attention weights",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The formula in the middle of every transformer.",
    reference=attention_weights,
    test=_test_attention_weights,
    hints=(
        "Name the axes: which of b, l, m, h, d stay, and over which do you sum? Then scale, then the softmax over the "
        "keys.",
        '`torch.einsum("blhd,bmhd->bhlm", query, key)` makes all dot products. D is `query.shape[-1]`.',
    ),
)

# --- 3.4 attend ------------------------------------------------------------------------------------------------------


def _seen(query, key, value):
    return _weights(query, key) @ value.transpose(1, 2)  # (B, H, L, M) @ (B, H, M, D) -> (B, H, L, D)


def _test_attend(answer) -> None:
    cases = [
        (torch.randn(2, 3, 4, 6), *torch.randn(2, 2, 5, 4, 6)),
        tuple(torch.randn(3, 1, 7, 2, 3)),
        (torch.randn(2, 6, 3, 2), *torch.randn(2, 2, 4, 3, 2)),
    ]
    compare(
        answer,
        attend,
        *cases,
        gradients=True,
        mistakes=[
            (
                "the heads are still apart, (B, L, H, D): merge the last two axes, which concatenates each token's "
                "heads.",
                lambda q, k, v: _seen(q, k, v).transpose(1, 2),
            ),
            (
                "heads and tokens are mixed: the axes are in the order (B, H, L, D), and a reshape then mixes numbers "
                "of different tokens. Bring them into the order (B, L, H, D) first.",
                lambda q, k, v: _seen(q, k, v).reshape(len(q), q.shape[1], -1),
            ),
            (
                "the channels of different heads alternate, (D, H). Within a token they are ordered by head, (H, D).",
                lambda q, k, v: _seen(q, k, v).permute(0, 2, 3, 1).flatten(2),
            ),
            (
                "the heads were added up or averaged: each head's D numbers are kept, behind one another.",
                lambda q, k, v: _seen(q, k, v).mean(1),
            ),
            (
                "the heads were added up or averaged: each head's D numbers are kept, behind one another.",
                lambda q, k, v: _seen(q, k, v).sum(1),
            ),
            ("the keys are averaged here, and should be the values.", lambda q, k, v: attend(q, k, k)),
        ],
    )
    if "scaled_dot_product_attention" in function_calls(answer)(*cases[0]):
        raise Wrong(
            "right, but PyTorch's `scaled_dot_product_attention` did it: write the mean of the values yourself."
        )


check_attend = Exercise(
    "3.4",
    "attend",
    "The weighted mean of the values",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The mean of the values under the weights, and the way back from heads to tokens.",
    reference=attend,
    test=_test_attend,
    hints=(
        "Sum over the keys, m; then merge heads and channels, once their axes are adjacent.",
        'The weights are "bhlm" and the values "bmhd"; ask einsum for "blhd", and flatten from the third axis on.',
    ),
)

# --- 3.5 RMSNorm -----------------------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """The formula written out. The library's class calls PyTorch's function."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def size(self, x):
        return (x.square().mean(-1, keepdim=True) + self.eps).sqrt()

    def forward(self, x):
        return x / self.size(x) * self.weight


class _Centred(RMSNorm):
    def forward(self, x):
        return super().forward(x - x.mean(-1, keepdim=True))


class _Spread(RMSNorm):
    def forward(self, x):
        return x / (x.var(-1, keepdim=True, correction=0) + self.eps).sqrt() * self.weight


class _Length(RMSNorm):
    def size(self, x):
        return (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


class _NoRoot(RMSNorm):
    def size(self, x):
        return x.square().mean(-1, keepdim=True) + self.eps


class _All(RMSNorm):
    def size(self, x):
        return (x.square().mean() + self.eps).sqrt()


class _NoWeight(RMSNorm):
    def forward(self, x):
        return x / self.size(x)


class _Outside(RMSNorm):
    def size(self, x):
        return x.square().mean(-1, keepdim=True).sqrt() + self.eps


class _NoEps(RMSNorm):
    def size(self, x):
        return x.square().mean(-1, keepdim=True).sqrt()


def _test_rms_norm(answer) -> None:
    cases = [(torch.randn(2, 5, 3, 8) * 4 + 1,), (torch.randn(4, 8) * 1e-3,), (torch.randn(2, 3, 8) + 2,)]
    compare_modules(
        answer,
        RMSNorm,
        dict(dim=8),
        *cases,
        mistakes=[
            (
                "this also subtracts the mean, as a layer norm does. RMS norm only divides.",
                _Centred,
            ),
            (
                "this divides by the standard deviation. The root mean square is that of the numbers themselves.",
                _Spread,
            ),
            ("this makes the *length* 1: take the mean of the squares, not their sum.", _Length),
            ("the root is missing: this divides by the mean of the squares.", _NoRoot),
            ("one root mean square is taken for the whole tensor: each vector along the last axis has its own.", _All),
            ("the learned weight is missing: it multiplies at the end.", _NoWeight),
            (
                "`eps` is added after the root, and belongs under it: the results differ for very small numbers.",
                _Outside,
            ),
            (
                "`eps` is missing: it matters for very small numbers, and for zeros it prevents a division by zero.",
                _NoEps,
            ),
        ],
    )
    if "rms_norm" in module_calls(answer)(dict(dim=8), *cases[0]):
        raise Wrong("right, but PyTorch's `rms_norm` did it: write the formula itself.")


check_RMSNorm = Exercise(
    "3.5",
    "RMSNorm",
    "Length removed: the RMS norm",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="One line that prevents saturated attention in large transformers.",
    reference=RMSNorm,
    test=_test_rms_norm,
    hints=(
        "Read the name from right to left: squares, their mean along the last axis (keep that axis), then the root. "
        "Nothing is subtracted.",
        "`x.square().mean(-1, keepdim=True) + self.eps` is under the root; the weight multiplies the quotient.",
    ),
)

# --- 3.6 Projections -------------------------------------------------------------------------------------------------


class Projections(attention.Projections):
    """The library's class with the arguments of the notebook's."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads, "rms_norm")


def _projections(*, axes=(3, "heads", "channels"), norms="qk", order="qkv") -> type[Projections]:
    """Projections whose `qkv` has one thing changed. axes: how the channels of the fused matrix are split."""

    class Changed(Projections):
        def qkv(self, x):
            sizes = {"heads": self.num_heads, "channels": x.shape[2] // self.num_heads}
            split = self.to_qkv(x).unflatten(2, [sizes.get(axis, axis) for axis in axes])  # (B, L, 3·C) -> 3 axes
            if axes.index("heads") > axes.index("channels"):
                split = split.transpose(3, 4)
            parts = dict(zip(order, split.unbind(2 + axes.index(3))))
            for name in norms:
                parts[name] = (self.norm_k if name == "k" else self.norm_q)(parts[name])
            return QKV(*(parts[name] for name in "qkv"))

    return Changed


class _HeadsFirst(Projections):
    def qkv(self, x):
        return super().qkv(x).map(lambda part: part.transpose(1, 2))


class _NormedWhole(Projections):
    def qkv(self, x):
        query, key, value = self.to_qkv(x).chunk(3, dim=-1)

        def normed(part, norm):
            whole = part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            return whole.unflatten(2, (self.num_heads, -1)) * norm.weight  # (B, L, C) -> (B, L, H, D)

        return QKV(normed(query, self.norm_q), normed(key, self.norm_k), value.unflatten(2, (self.num_heads, -1)))


def _compare_projected(answer, reference, weights: dict, mistakes: list) -> None:
    """Compare what two classes of projections make of tokens, with the same weights. mistakes: as for `compare`."""
    compare(
        projected(answer),
        projected(reference),
        *[(_PROJECTED, weights, torch.randn(2, n, 12)) for n in (5, 1, 2)],
        mistakes=[(words, projected(mistaken)) for words, mistaken in mistakes],
        tolerance=1e-4,
    )


def _projected_weights(reference) -> dict[str, torch.Tensor]:
    return {name: 0.5 * torch.randn_like(value) for name, value in reference(**_PROJECTED).state_dict().items()}


_PROJECTED = dict(dim=12, num_heads=2)


def _test_projections(answer) -> None:
    mistakes = [
        (
            "queries, keys and values are taken from one head at a time. The first C of the 3 · C numbers are the "
            "queries of all heads: split them as (3, H, D), and not as (H, 3, D).",
            _projections(axes=("heads", 3, "channels")),
        ),
        (
            "heads and channels are interchanged: the C channels are H groups of D neighbours, (H, D).",
            _projections(axes=(3, "channels", "heads")),
        ),
        ("neither queries nor keys are normalised: `norm_q` and `norm_k`.", _projections(norms="")),
        ("the keys are not normalised: `norm_k`.", _projections(norms="q")),
        ("the queries are not normalised: `norm_q`.", _projections(norms="k")),
        ("the values are normalised, too. They are averaged, not compared: leave them.", _projections(norms="qkv")),
        (
            "the norm is taken over all C channels. Each head is compared on its own: split first, then norm.",
            _NormedWhole,
        ),
        ("the parts are interchanged: first the queries, then the keys, then the values.", _projections(order="kqv")),
        ("the heads come before the tokens. Return (B, L, H, D); `attend` knows what to do with it.", _HeadsFirst),
    ]
    _compare_projected(answer, Projections, _projected_weights(Projections), mistakes)


check_Projections = Exercise(
    "3.6",
    "Projections",
    "One matrix, three results",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Fused projections are in every fast transformer, and the order of the split is their most common mistake.",
    reference=Projections,
    test=_test_projections,
    hints=(
        "Write down what the 3 · C numbers of a token are: C for the queries, C for the keys, C for the values, each H "
        "heads of D neighbouring channels.",
        "`self.to_qkv(x).view(B, L, 3, H, D).unbind(2)` gives three tensors (B, L, H, D). Two of them are normalised.",
    ),
)

# --- 3.7 largest_score -----------------------------------------------------------------------------------------------


def _test_largest_score(answer) -> None:
    check_number(
        answer,
        8,
        within=0.05,
        wrong=[
            (64, "that is the dot product itself, which is still divided by √D."),
            (
                1,
                "that would be right for vectors of length 1. Here the mean of the squares is 1, so the squares of D "
                "channels add up to D.",
            ),
            (
                0.125,
                "that would be right for vectors of length 1, divided by √D. How long is a vector of 64 channels "
                "whose mean square is 1?",
            ),
            (512, "the scale divides by √D; it does not multiply."),
            (
                4096,
                "that is D². The squares add up to D, so each vector has the length √D, and the product of two "
                "lengths is D.",
            ),
        ],
    )


check_largest_score = Exercise(
    "3.7",
    "largest_score",
    "The largest score",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="This bound holds for all weights, at every step of a training.",
    reference=lambda: 8,
    test=_test_largest_score,
    hints=(
        "When is a dot product of two vectors of given lengths the largest? And how long is a vector of D numbers "
        "whose mean square is 1?",
        "Both have the length √D, and at best they point the same way: √D · √D. Then comes the scale of attention.",
    ),
)

# --- 3.8 joint_attention ---------------------------------------------------------------------------------------------


def _joined(image, condition):
    return [torch.cat([one, other], dim=1) for one, other in zip(image[1:], condition[1:])]


def _test_joint_attention(answer) -> None:
    def qkv(tokens):
        return QKV(*torch.randn(3, 2, tokens, 4, 6))

    def apart(image, condition):
        return attend(*image), None if condition.query is None else attend(*condition)

    def no_case_for_none(image, condition):
        seen = attend(torch.cat([image.query, condition.query], dim=1), *_joined(image, condition))
        return seen[:, : image.query.shape[1]], seen[:, image.query.shape[1] :]

    def joined(image, condition):
        """Both outputs of joint attention, for a condition with queries."""
        of_image, of_condition = attention.joint_attention(image, condition)
        assert of_condition is not None
        return of_image, of_condition

    def not_heard(image, condition):
        return (attend(*image), None) if condition.query is None else attention.joint_attention(image, condition)

    def split_at(place):
        def mistaken(image, condition):
            if condition.query is None:
                return attention.joint_attention(image, condition)
            seen = torch.cat(joined(image, condition), dim=1)
            return tuple(part for part in (seen[:, : place(image, condition)], seen[:, place(image, condition) :]))

        return mistaken

    def condition_first(image, condition):
        if condition.query is None:
            return attention.joint_attention(image, condition)
        seen = torch.cat(joined(image, condition)[::-1], dim=1)
        return seen[:, : image.query.shape[1]], seen[:, image.query.shape[1] :]

    def crossed(image, condition):
        return attend(image.query, *condition[1:]), None if condition.query is None else attend(
            condition.query, *image[1:]
        )

    def one_way(image, condition):
        seen = attention.joint_attention(image, condition)[0]
        return seen, None if condition.query is None else attend(*condition)

    def other_way(image, condition):
        return attend(*image), attention.joint_attention(image, condition)[1]

    def swapped(image, condition):
        return attention.joint_attention(image, condition)[::-1]

    def values_swapped(image, condition):
        key, value = torch.cat([image.key, condition.key], 1), torch.cat([condition.value, image.value], 1)
        if condition.query is None:
            return attend(image.query, key, value), None
        seen = attend(torch.cat([image.query, condition.query], 1), key, value)
        return seen[:, : image.query.shape[1]], seen[:, image.query.shape[1] :]

    cases = [
        (qkv(5), qkv(3)),
        (qkv(4), qkv(4)),
        (qkv(2), qkv(6)),
        (qkv(5), qkv(3)._replace(query=None)),
        (qkv(4), qkv(0)),
    ]
    compare(
        answer,
        attention.joint_attention,
        *cases,
        mistakes=[
            ("each stream still attends to itself only.", apart),
            (
                "everything is right but the last block: there `condition.query` is None, which `cat` does not "
                "accept. In that block only the image has queries, and the second result is None.",
                no_case_for_none,
            ),
            (
                "a condition without queries still has keys and values, and the image attends to them.",
                not_heard,
            ),
            ("the results are interchanged: first the output of the image, then that of the condition.", swapped),
            (
                "tokens were joined in one order and split in another: the stream that comes first in the `cat` comes "
                "first in the split.",
                condition_first,
            ),
            (
                "the split is at the wrong place: the first part has as many tokens as the first stream of the `cat`.",
                split_at(lambda image, condition: condition.query.shape[1]),
            ),
            (
                "this is cross-attention: each stream attends to the *other* one only. In joint attention every token "
                "attends to all tokens of both.",
                crossed,
            ),
            ("the image attends to both, but the condition only to itself: join the queries too.", one_way),
            ("the condition attends to both, but the image only to itself.", other_way),
            ("keys and values are joined in different orders: each key must keep its value.", values_swapped),
        ],
    )


check_joint_attention = Exercise(
    "3.8",
    "joint_attention",
    "Where the streams meet",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The idea of Stable Diffusion 3 in half a dozen lines, and the only way from one token of the condition "
    "to one place of the picture.",
    reference=attention.joint_attention,
    test=_test_joint_attention,
    hints=(
        "All keys in one list, all values in one list in the same order. Then one call of `attend` for all queries.",
        "`torch.cat([…, …], dim=1)` three times, the image first each time; `seen.split([tokens of the image, tokens "
        "of the condition], dim=1)` at the end. Before that, the case without a query.",
    ),
)

# --- 3.9 Stream ------------------------------------------------------------------------------------------------------


class Stream(mmdit.Stream):
    """The library's class with the arguments of the notebook's."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads, "rms_norm")


def _stream(
    *,
    gates=(True, True),
    project=True,
    norm=layer_norm,
    residual=True,
    mod_of_mlp=1,
    input_of_mlp="updated",
) -> type[Stream]:
    """A stream whose `after` has one thing changed."""

    class Changed(Stream):
        def after(self, x, attended, mods):  # type: ignore[override]
            attention, mlp = mods[0], mods[mod_of_mlp]
            update = self.attention.to_out(attended) if project else attended
            new = x + (attention.gate if gates[0] else 1) * update
            seen = {"updated": new, "old": x}[input_of_mlp]
            update = self.mlp(modulate(norm(seen), mlp.shift, mlp.scale))
            return (new if residual else 0) + (mlp.gate if gates[1] else 1) * update

    return Changed


def _test_stream(answer) -> None:
    build = dict(dim=8, num_heads=2)
    reference = Stream(**build)
    weights = {name: 0.5 * torch.randn_like(value) for name, value in reference.state_dict().items()}
    cases = [(build, weights, torch.randn(2, n, 8), torch.randn(2, 8), torch.randn(2, n, 8)) for n in (5, 1)]
    mistakes = [
        ("the attention's gate is missing: x + gate · to_out(seen).", _stream(gates=(False, True))),
        ("the MLP's gate is missing: x + gate · MLP(…).", _stream(gates=(True, False))),
        ("both gates are missing: each branch is multiplied by its gate.", _stream(gates=(False, False))),
        ("the output projection of attention, `to_out`, is missing.", _stream(project=False)),
        (
            "the input of the MLP is not normalised: modulate(layer_norm(x), shift, scale).",
            _stream(norm=lambda x: x),
        ),
        (
            "the MLP gets the tokens from before attention. The second branch begins at the *updated* x.",
            _stream(input_of_mlp="old"),
        ),
        ("shift, scale and gate of attention are used for the MLP: each branch has its own.", _stream(mod_of_mlp=0)),
        ("the skip path is lost at the end: return x + gate · MLP(…).", _stream(residual=False)),
    ]
    compare(
        after_attention(answer),
        after_attention(Stream),
        *cases,
        mistakes=[(words, after_attention(mistaken)) for words, mistaken in mistakes],
        tolerance=1e-4,
    )


check_Stream = Exercise(
    "3.9",
    "Stream",
    "After attention",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Two residual branches with gates: the pattern of every diffusion transformer.",
    reference=Stream,
    test=_test_stream,
    hints=(
        "Two residual branches, one after the other, each x + gate · f(…). Which f, which input, which gate?",
        "First `x + attention.gate * self.attention.to_out(seen)`; call it x; then `x + mlp.gate * self.mlp(modulate("
        "layer_norm(x), mlp.shift, mlp.scale))`.",
    ),
)

# --- 3.10 KeyValueProjections ----------------------------------------------------------------------------------------


class KeyValueProjections(attention.KeyValueProjections):
    """The library's class with the arguments of the notebook's."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__(dim, num_heads, "rms_norm")


class _ValuesFirst(KeyValueProjections):
    def qkv(self, x):
        value, key = self.to_kv(x).unflatten(2, (2, self.num_heads, -1)).unbind(2)  # 2 of (B, L, H, D)
        return QKV(None, self.norm_k(key), value)


class _KeysNotNormed(KeyValueProjections):
    def qkv(self, x):
        return QKV(None, *self.to_kv(x).unflatten(2, (2, self.num_heads, -1)).unbind(2))  # 2 of (B, L, H, D)


class _ValuesNormed(KeyValueProjections):
    def qkv(self, x):
        seen = super().qkv(x)
        return QKV(None, seen.key, self.norm_k(seen.value))


class _QueriesToo(KeyValueProjections):
    def qkv(self, x):
        seen = super().qkv(x)
        return QKV(seen.key, seen.key, seen.value)


class _PerHead(KeyValueProjections):
    def qkv(self, x):
        key, value = self.to_kv(x).unflatten(2, (self.num_heads, 2, -1)).unbind(3)  # 2 of (B, L, H, D)
        return QKV(None, self.norm_k(key), value)


def _test_key_value_projections(answer) -> None:
    weights = _projected_weights(KeyValueProjections)
    if problem := shape_difference(answer, _PROJECTED, weights):
        raise Wrong(problem)
    mistakes = [
        ("keys and values are interchanged: the first half of the 2 · C numbers are the keys.", _ValuesFirst),
        ("the keys are not normalised: `norm_k`.", _KeysNotNormed),
        ("the values are normalised, too. They are averaged, not compared: leave them.", _ValuesNormed),
        ("there are queries. This stream has none: the first part of the QKV is None.", _QueriesToo),
        ("the 2 · C numbers are split as (H, 2, D). Keys of all heads come first: (2, H, D).", _PerHead),
    ]
    _compare_projected(answer, KeyValueProjections, weights, mistakes)


check_KeyValueProjections = Exercise(
    "3.10",
    "KeyValueProjections",
    "Keys and values alone",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A module of your own from its first line: layers with names in `__init__`, and what uses them.",
    reference=KeyValueProjections,
    test=_test_key_value_projections,
    hints=(
        "It is `Projections` without queries: one linear layer to 2 · C numbers, one norm, two parts after the split.",
        "`super().__init__()` first. Then `self.to_kv = nn.Linear(dim, 2 * dim)` and `self.norm_k = RMSNorm(dim // "
        "num_heads)`. In `qkv`, view as (B, L, 2, H, D), unbind, and return `QKV(None, …, …)`.",
    ),
)

# --- 3.11 MMDiTBlock -------------------------------------------------------------------------------------------------


class MMDiTBlock(mmdit.MMDiTBlock):
    """The library's class with the arguments of the notebook's."""

    def __init__(self, dim: int, num_heads: int, last: bool):
        super().__init__(dim, num_heads, "rms_norm", dual_attention=False, last=last)


def _block(*, attend_to=attention.joint_attention, result=lambda image, condition: (image, condition), swap=False):
    """A block with one thing changed."""

    class Changed(MMDiTBlock):
        def forward(self, image, condition, c, *_):  # type: ignore[override]
            image_qkv, image_mods = self.image.before(image, c)
            condition_qkv, condition_mods = self.condition.before(condition, c)
            of_image, of_condition = attend_to(image_qkv, condition_qkv)
            if swap and condition_mods:
                image_mods, condition_mods = condition_mods, image_mods
            image = self.image.after(image, of_image, image_mods)
            return result(image, self.condition.after(condition, of_condition, condition_mods))

    return Changed


class _TwiceBefore(MMDiTBlock):
    def forward(self, image, condition, c, *_):  # type: ignore[override]
        condition_qkv, condition_mods = self.condition.before(condition, c)
        image_qkv, image_mods = self.image.before(image, c)
        new = self.image.after(image, attention.joint_attention(image_qkv, condition_qkv)[0], image_mods)
        image_qkv, _ = self.image.before(new, c)
        of_condition = attention.joint_attention(image_qkv, condition_qkv)[1]
        return new, self.condition.after(condition, of_condition, condition_mods)  # type: ignore[arg-type]


class _NoneAtTheEnd(MMDiTBlock):
    def forward(self, image, condition, c, *_):  # type: ignore[override]
        image, condition = super().forward(image, condition, c)
        return image, condition if isinstance(self.condition, mmdit.Stream) else None


def _alone(image, condition):
    return attend(*image), None if condition.query is None else attend(*condition)


def _crossed(image, condition):
    of_image = attend(image.query, condition.key, condition.value)
    return of_image, None if condition.query is None else attend(condition.query, image.key, image.value)


def _test_block(answer) -> None:
    for last in (False, True):
        compare_modules(
            answer,
            MMDiTBlock,
            dict(dim=8, num_heads=2, last=last),
            (torch.randn(2, 5, 8), torch.randn(2, 3, 8), torch.randn(2, 8)),
            (torch.randn(1, 4, 8), torch.randn(1, 4, 8), torch.randn(1, 8)),
            mistakes=[
                ("the streams never meet: both must go through `joint_attention`.", _block(attend_to=_alone)),
                (
                    "each stream attends to the other one only: `joint_attention` has the tokens of both.",
                    _block(attend_to=_crossed),
                ),
                (
                    "only the image tokens come back: the next block needs the condition tokens, too.",
                    _block(result=lambda image, condition: image),
                ),
                (
                    "the results are interchanged: first the image, then the condition.",
                    _block(result=lambda image, condition: (condition, image)),
                ),
                (
                    "each stream got the modulations of the other one in `after`.",
                    _block(swap=True),
                ),
                (
                    "in the last block None came back for the condition. Its `after` returns the condition tokens as "
                    "they are: call it in both kinds of block.",
                    _NoneAtTheEnd,
                ),
                (
                    "the condition attends to image tokens that are updated already. Both streams attend at the same "
                    "time, in one call of `joint_attention`.",
                    _TwiceBefore,
                ),
            ],
            tolerance=1e-4,
        )


check_MMDiTBlock = Exercise(
    "3.11",
    "MMDiTBlock",
    "The block",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Stable Diffusion 3 is 24 of these blocks, one after another.",
    reference=MMDiTBlock,
    test=_test_block,
    hints=(
        "`before` for each stream, then one call of `joint_attention`, then `after` for each stream. What has to be "
        "kept from `before` until `after`?",
        "`before` returns a QKV and the modulations; `joint_attention` takes the two QKVs and returns two results; "
        "`after` takes the tokens, its result and its modulations.",
    ),
)

# --- 3.12 learns_first -----------------------------------------------------------------------------------------------


def _test_learns_first(answer) -> None:
    check_choice(
        answer,
        "gates",
        {
            "nothing": "look at x + gate · f(x) once more. With the gate at 0 it is x, but what is its derivative "
            "with respect to the *gate*?",
            "modulators": "their rows for shift and scale are inside f(x), and their gradient has the gate as a "
            "factor, which is 0.",
            "layers": "their gradient has a gate as a factor, and the gate is 0.",
            "everything": "the gradient of most weights has a gate as a factor, and the gate is 0. Which do not?",
        },
    )


check_learns_first = Exercise(
    "3.12",
    "learns_first",
    "What learns first?",
    "predict",
    difficulty=3,
    minutes=5,
    points=1,
    purpose="Some initialisations with zeros learn and others do not; one derivative tells which.",
    reference=lambda: "gates",
    test=_test_learns_first,
    hints=(
        "Write one branch as x + g · f(x), where g and what is inside f are computed by weights. Differentiate with "
        "respect to g, and with respect to a weight inside f.",
        "The derivative with respect to g is f(x). With respect to a weight inside f it is g · f′, and g is 0.",
    ),
)

# --- 3.13 MMDiT ------------------------------------------------------------------------------------------------------


def _mmdit(
    *,
    timesteps=lambda timestep: timestep,
    keep_condition=True,
    blocks=lambda blocks: blocks,
    norm_with=lambda c: c,
    sides=lambda height, width: (height, width),
) -> type[mmdit.MMDiT]:
    """The network with one thing changed in `forward`."""

    class Changed(mmdit.MMDiT):
        def forward(self, hidden_states, encoder_hidden_states, pooled_projections, timestep):  # type: ignore[override]
            c = self.conditioning(timesteps(timestep), pooled_projections)
            image, condition = self.patch_embed(hidden_states), self.condition_embed(encoder_hidden_states)
            for block in blocks(self.blocks):
                image, updated = block(image, condition, c)
                condition = updated if keep_condition else condition
            patches = self.proj_out(self.norm_out(image, norm_with(c)))
            height, width = sides(*hidden_states.shape[-2:])
            return unpatchify(patches, height, width, self.config["patch_size"])

    return Changed


def _test_mmdit(answer) -> None:
    build = dict(
        sample_size=4,
        patch_size=2,
        in_channels=3,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=5,
        pooled_projection_dim=6,
        pos_embed_max_size=4,
    )

    def inputs(batch, height, width, tokens):
        return torch.randn(batch, 3, height, width), torch.randn(batch, tokens, 5), torch.randn(batch, 6)

    compare_modules(
        answer,
        mmdit.MMDiT,
        build,
        (*inputs(2, 4, 4, 3), torch.tensor([3.7, 998.25])),
        (*inputs(1, 2, 6, 3), torch.tensor([250.5])),
        mistakes=[
            (
                "the condition tokens stay as they were before the first block: take over both results of a block.",
                _mmdit(keep_condition=False),
            ),
            (
                "the timestep is divided by 1000: `ConditioningVector` expects it in [0, 1000].",
                _mmdit(timesteps=lambda timestep: timestep / 1000),
            ),
            ("the last norm does not get `c`: it gets zeros.", _mmdit(norm_with=torch.zeros_like)),
            (
                "height and width are interchanged in `unpatchify`: pictures need not be square.",
                _mmdit(sides=lambda height, width: (width, height)),
            ),
            ("the last block is left out.", _mmdit(blocks=lambda blocks: blocks[:-1])),
            ("the blocks are never used.", _mmdit(blocks=lambda blocks: ())),
            ("only the first block is used.", _mmdit(blocks=lambda blocks: blocks[:1])),
        ],
        tolerance=1e-4,
    )
    zero, expected = zero_at_start(answer)(build), zero_at_start(mmdit.MMDiT)(build)
    if any(name not in zero for name in expected if name.endswith(".linear.weight")):
        raise Wrong("right once trained, but a new network's gates are open: call `adaln_zero` at the end of __init__.")
    if not {"proj_out.weight", "proj_out.bias"} <= set(zero):
        raise Wrong("right once trained, but a new network does not output zeros: weight and bias of `proj_out` are 0.")


check_MMDiT = Exercise(
    "3.13",
    "MMDiT",
    "The whole network",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="All parts in order. What you write here has the names, the shapes and the results of Stable Diffusion 3's "
    "network.",
    reference=mmdit.MMDiT,
    test=_test_mmdit,
    hints=(
        "`forward` is six steps: the vector c, image tokens, condition tokens, all blocks, norm and projection, "
        "pictures. Two variables change from block to block.",
        "`nn.ModuleList(MMDiTBlock(dim, heads, last=layer == num_layers - 1) for layer in range(num_layers))`; in "
        "`forward`, `image, condition = block(image, condition, c)`; at the end `unpatchify(self.proj_out(self."
        "norm_out(image, c)), height, width, self.patch_size)`.",
    ),
)

# --- 3.14 squares ----------------------------------------------------------------------------------------------------


def _test_squares(answer) -> None:
    check_number(
        answer,
        18,
        wrong=[
            (12, "the modulator is forgotten: it computes shift, scale and gate for each of two branches."),
            (15, "the modulator computes shift, scale and gate *twice*: once for attention and once for the MLP."),
            (16, "one matrix computes queries, keys *and* values, with 3 · C rows: it counts 3."),
            (17, "the output projection of attention, `to_out`, is a matrix too: it counts 1."),
            (14, "the MLP widens C to 4 · C channels and narrows again: each of its two matrices counts 4."),
            (36, "that is the number for both streams of a block. Give that of one stream."),
            (7, "a matrix with n · C rows counts as n squares."),
            (5, "that is the number of layers. A matrix with n · C rows counts as n squares."),
        ],
    )


check_squares = Exercise(
    "3.14",
    "squares",
    "Where are the weights?",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="If you can count weights, you can choose the size of a model without trying.",
    reference=lambda: 18,
    test=_test_squares,
    hints=(
        "A `Stream` has a modulator, projections into and out of attention, and an MLP. Count each one's rows in "
        "units of C.",
        "The modulator: 3 for each of 2 branches. Attention: 3 for the input, 1 for the output. The MLP: 4 and 4.",
    ),
)

# --- 3.15 without_pooled ---------------------------------------------------------------------------------------------


def _test_without_pooled(answer) -> None:
    check_choice(
        answer,
        "grey",
        {
            "the face": "half of the targets are negatives. How large is the error of the face on those?",
            "the negative": "half of the targets are the faces themselves. How large is the error of the negative on "
            "those?",
            "either": "a network is a function: for one input it has one output, and does not choose by lot.",
        },
    )


check_without_pooled = Exercise(
    "3.15",
    "without_pooled",
    "Without the pooled vector",
    "predict",
    difficulty=3,
    minutes=5,
    points=1,
    purpose="What a squared error makes of a question with two answers: the reason why a generator needs noise.",
    reference=lambda: "grey",
    test=_test_without_pooled,
    hints=(
        "For one and the same face the target is x in half of the examples and −x in the other half. Which output y "
        "has the smallest mean of (y − x)² and (y + x)²?",
        "The derivative is 2(y − x) + 2(y + x) = 4y. Which picture has all values 0?",
    ),
)
