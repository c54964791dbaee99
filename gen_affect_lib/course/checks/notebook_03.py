"""The exercises of notebook 03: the multimodal diffusion transformer."""

from __future__ import annotations

import torch
from torch import nn

from gen_affect_lib.course.checks import Exercise, check_choice, check_number, compare, compare_modules
from gen_affect_lib.model import attention
from gen_affect_lib.model.attention import QKV, attend, attention_weights
from gen_affect_lib.model.modulation import Modulation, Modulator

# --- 3.1 Modulator ---------------------------------------------------------------------------------------------------


class _Broken(Modulator):
    def forward(self, c):
        rows = self.linear(c).chunk(self.branches * 3, dim=-1)
        return tuple(Modulation(*rows[i :: self.branches]) for i in range(self.branches))


class _NoTokens(Modulator):
    def forward(self, c):
        return tuple(Modulation(*(row[:, 0] for row in mod)) for mod in super().forward(c))


class _ByKind(Modulator):
    def forward(self, c):
        return tuple(Modulation(*(row[:, None] for row in mod)) for mod in _Broken.forward(self, c))


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
    for branches in (2, 3, 1):  # with one branch, one of the mistakes hides
        compare_modules(
            answer,
            Modulator,
            dict(dim=4, branches=branches),
            (torch.randn(3, 4),),
            (torch.randn(1, 4),),
            mistakes=[
                (
                    "the first mistake is repaired, the second is not: the 3 · branches parts stand branch by branch, (shift, scale, gate) "
                    "of the first branch, then (shift, scale, gate) of the next.",
                    _ByKind,
                ),
                (
                    "the second mistake is repaired, the first is not: each part is still (B, C), which meets (B, L, C) along the wrong axis. "
                    "An axis of length 1 must stand where the tokens are.",
                    _NoTokens,
                ),
                ("nothing is repaired yet: this does what the broken one does.", _Broken),
                (
                    "the axis of length 1 stands in front, (1, B, C): there it lies along the images. The tokens are the second axis.",
                    _TokensFirst,
                ),
                ("shift and scale have changed places: the order is shift, scale, gate.", _AnotherOrder),
                ("the parts come one by one: put each three into a `Modulation`, one a branch.", _NoBranches),
            ],
        )


check_Modulator = Exercise(
    "3.1",
    "Modulator",
    "Two mistakes that raise nothing",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Shapes that fit by chance are the most expensive mistakes there are: nothing stops, and the model learns badly.",
    reference=Modulator,
    test=_test_modulator,
    hints=(
        "Write the shapes down: what is (B, C) multiplied by (B, L, C), which axes meet? Then look at which numbers `[i :: branches]` picks.",
        "`self.linear(c)[:, None]` has the tokens' axis. The parts of branch i are the three from number 3 · i on.",
    ),
)

# --- 3.2 attention_weights -------------------------------------------------------------------------------------------


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
            ("the dot products are divided by D, not by its root.", lambda q, k: _weights(q, k, power=1)),
            (
                "divided by √L: the scale goes with the channels D of a head, the last axis, not with the tokens.",
                lambda q, k: (_scores(q, k) / q.shape[1] ** 0.5).softmax(-1),
            ),
            (
                "divided by the root of C = H · D: each head compares only its own D channels.",
                lambda q, k: (_scores(q, k) / (q.shape[-1] * q.shape[-2]) ** 0.5).softmax(-1),
            ),
            (
                "the softmax runs along the wrong axis: for each *query* the weights of all keys add up to 1, and the keys come last.",
                lambda q, k: _weights(q, k, axis=-2),
            ),
            (
                "this softmax runs along the heads: for each query the weights of all keys add up to 1.",
                lambda q, k: _weights(q, k, axis=1),
            ),
            (
                "these are keys that look at queries: query and key have changed places. Rows are those who ask.",
                lambda q, k: _weights(k, q),
            ),
            (
                "the map lies on its side, (B, H, M, L): rows are those who ask.",
                lambda q, k: _weights(q, k).transpose(2, 3),
            ),
            ("these are the scores: the softmax is missing.", lambda q, k: _scores(q, k) / q.shape[-1] ** 0.5),
            (
                "the softmax comes before the scale: its rows do not add up to 1 any more.",
                lambda q, k: _scores(q, k).softmax(-1) / q.shape[-1] ** 0.5,
            ),
            (
                "the numbers are right, but the heads come last: a map for each head is (B, H, L, M).",
                lambda q, k: _weights(q, k).permute(0, 2, 3, 1),
            ),
        ],
    )


check_attention_weights = Exercise(
    "3.2",
    "attention_weights",
    "Who looks at whom",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The formula in the middle of every transformer, and the four places where it is got wrong.",
    reference=attention_weights,
    test=_test_attention_weights,
    hints=(
        "Name the axes: which of b, l, m, h, d stay, and over which do you sum? Then scale, then the softmax over those who are looked at.",
        '`torch.einsum("blhd,bmhd->bhlm", query, key)` makes all dot products. D is `query.shape[-1]`.',
    ),
)

# --- 3.3 attend ------------------------------------------------------------------------------------------------------


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
                "the heads are still apart, (B, L, H, D): merge the last two axes, each token's heads behind one another.",
                lambda q, k, v: _seen(q, k, v).transpose(1, 2),
            ),
            (
                "heads and tokens are mixed: the axes stand as (B, H, L, D), and a reshape from there cuts the numbers anew. Bring them "
                "into the order (B, L, H, D) first.",
                lambda q, k, v: _seen(q, k, v).reshape(len(q), q.shape[1], -1),
            ),
            (
                "the channels of different heads take turns, (D, H). Within a token they stand head by head, (H, D).",
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


check_attend = Exercise(
    "3.3",
    "attend",
    "What comes back",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The mean of the values under the weights, and the way back from heads to tokens.",
    reference=attend,
    test=_test_attend,
    hints=(
        "Sum over those who are looked at, m; then merge heads and channels, but only when they stand side by side.",
        'The weights are "bhlm" and the values "bmhd"; ask einsum for "blhd", and flatten from the third axis on.',
    ),
)

# --- 3.4 RMSNorm -----------------------------------------------------------------------------------------------------


class RMSNorm(attention.RMSNorm):
    """The library's, with the arguments of the notebook's."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__(dim)


class _Written(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def size(self, x):
        return (x.square().mean(-1, keepdim=True) + self.eps).sqrt()

    def forward(self, x):
        return x / self.size(x) * self.weight


class _Centred(_Written):
    def forward(self, x):
        return super().forward(x - x.mean(-1, keepdim=True))


class _Spread(_Written):
    def forward(self, x):
        return x / (x.var(-1, keepdim=True, correction=0) + self.eps).sqrt() * self.weight


class _Length(_Written):
    def size(self, x):
        return (x.square().sum(-1, keepdim=True) + self.eps).sqrt()


class _NoRoot(_Written):
    def size(self, x):
        return x.square().mean(-1, keepdim=True) + self.eps


class _All(_Written):
    def size(self, x):
        return (x.square().mean() + self.eps).sqrt()


class _NoWeight(_Written):
    def forward(self, x):
        return x / self.size(x)


class _Outside(_Written):
    def size(self, x):
        return x.square().mean(-1, keepdim=True).sqrt() + self.eps


class _NoEps(_Written):
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
                "this takes the mean away as well, as a layer norm does. RMS norm leaves the mean and divides only.",
                _Centred,
            ),
            (
                "this divides by the spread about the mean. The root mean square is taken of the numbers themselves.",
                _Spread,
            ),
            ("this makes the *length* 1: take the mean of the squares, not their sum.", _Length),
            ("the root is missing: this divides by the mean square.", _NoRoot),
            ("one size is taken for the whole tensor: each vector along the last axis has its own.", _All),
            ("the learned weight is missing: it multiplies at the end.", _NoWeight),
            ("`eps` is added after the root, and belongs under it: with very small numbers the two differ.", _Outside),
            (
                "`eps` is missing: with very small numbers it counts, and with zeros it saves you from dividing by zero.",
                _NoEps,
            ),
        ],
    )


check_RMSNorm = Exercise(
    "3.4",
    "RMSNorm",
    "A size for every head",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="One line that keeps large transformers from freezing in the middle of training.",
    reference=RMSNorm,
    test=_test_rms_norm,
    hints=(
        "Read the name from its end: squares, their mean along the last axis (keep that axis), then the root. Nothing is subtracted.",
        "`x.square().mean(-1, keepdim=True) + self.eps` stands under the root; the weight multiplies the quotient.",
    ),
)

# --- 3.5 largest_score -----------------------------------------------------------------------------------------------


def _test_largest_score(answer) -> None:
    check_number(
        answer,
        8,
        within=0.05,
        wrong=[
            (64, "that is the dot product itself. It is still divided by √D."),
            (
                1,
                "that would be right for vectors of length 1. Here the mean of the squares is 1, so the squares of D channels add up to D.",
            ),
            (
                0.125,
                "that would be right for vectors of length 1, divided by √D. How long is a vector of 64 channels whose mean square is 1?",
            ),
            (512, "the scale divides by √D; it does not multiply."),
            (
                4096,
                "that is D². The squares add up to D, so each vector has the length √D, and the product of two lengths is D.",
            ),
        ],
    )


check_largest_score = Exercise(
    "3.5",
    "largest_score",
    "How loud can a query be?",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A bound that holds for every token is worth more than a good start.",
    reference=lambda: 8,
    test=_test_largest_score,
    hints=(
        "When is a dot product of two vectors of given lengths the largest? And how long is a vector of D numbers whose mean square is 1?",
        "Both have the length √D, and at best they point the same way: √D · √D. Then comes the scale of attention.",
    ),
)

# --- 3.6 joint_attention ---------------------------------------------------------------------------------------------


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

    def not_heard(image, condition):
        return (attend(*image), None) if condition.query is None else attention.joint_attention(image, condition)

    def split_at(place):
        def mistaken(image, condition):
            if condition.query is None:
                return attention.joint_attention(image, condition)
            seen = torch.cat(attention.joint_attention(image, condition), dim=1)
            return tuple(part for part in (seen[:, : place(image, condition)], seen[:, place(image, condition) :]))

        return mistaken

    def condition_first(image, condition):
        if condition.query is None:
            return attention.joint_attention(image, condition)
        seen = torch.cat(attention.joint_attention(image, condition)[::-1], dim=1)
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
            ("each stream still attends to itself alone: they do not meet.", apart),
            (
                "all is right but the last block: there `condition.query` is None, which `cat` cannot take. Then only the image asks, and the "
                "second result is None.",
                no_case_for_none,
            ),
            (
                "when the condition asks nothing it is still *seen*: its keys and values stay among those that the image looks at.",
                not_heard,
            ),
            ("the results have changed places: first what the image saw, then what the condition saw.", swapped),
            (
                "tokens were joined in one order and split in another: whoever comes first in the `cat` comes first in the split.",
                condition_first,
            ),
            (
                "the split is at the wrong place: the first part has as many tokens as the stream that stands first in the `cat`.",
                split_at(lambda image, condition: condition.query.shape[1]),
            ),
            (
                "this is cross-attention, each stream sees only the *other* one. In joint attention everybody sees everybody, oneself too.",
                crossed,
            ),
            ("the image sees both, but the condition sees only itself: join the queries too.", one_way),
            ("the condition sees both, but the image sees only itself.", other_way),
            ("keys and values are joined in different orders: each key must keep its own value.", values_swapped),
        ],
    )


check_joint_attention = Exercise(
    "3.6",
    "joint_attention",
    "Where the streams meet",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The idea of Stable Diffusion 3 in half a dozen lines, and the only way from one token of the condition to one place of the picture.",
    reference=attention.joint_attention,
    test=_test_joint_attention,
    hints=(
        "All keys in one list, all values in one list in the same order. Then one call of `attend` for everybody who asks.",
        "`torch.cat([…, …], dim=1)` three times, the image first each time; `seen.split([tokens of the image, tokens of the condition], dim=1)` "
        "at the end. Before that, the case without a query.",
    ),
)

# --- 3.7 learns_first ------------------------------------------------------------------------------------------------


def _test_learns_first(answer) -> None:
    check_choice(
        answer,
        "gates",
        {
            "nothing": "look at x + gate · f(x) once more. With the gate at 0 it is x, but what is its slope towards the *gate*?",
            "modulators": "their rows for shift and scale work inside f(x), and the way there leads through a gate that is 0.",
            "layers": "the way to them leads through a gate that is 0, and a slope times 0 is 0.",
            "everything": "most weights stand behind a gate that is 0, and a slope times 0 is 0. Which do not?",
        },
    )


check_learns_first = Exercise(
    "3.7",
    "learns_first",
    "Is it dead?",
    "predict",
    difficulty=3,
    minutes=5,
    points=1,
    purpose="Zeros at the start are harmless or fatal, and one derivative tells which.",
    reference=lambda: "gates",
    test=_test_learns_first,
    hints=(
        "Write one branch as x + g · f(x), where g and what is inside f are computed by weights. Differentiate towards g, and towards a weight inside f.",
        "Towards g the slope is f(x), towards what stands inside it is g · f′, and g is 0.",
    ),
)

# --- 3.8 squares -----------------------------------------------------------------------------------------------------


def _test_squares(answer) -> None:
    check_number(
        answer,
        18,
        wrong=[
            (12, "the modulator is forgotten: it makes shift, scale and gate for each of two branches."),
            (15, "the modulator makes shift, scale and gate *twice*: once for attention and once for the MLP."),
            (16, "one matrix makes queries, keys *and* values, 3 · C rows: that counts 3."),
            (17, "the way out of attention, `to_out`, is a matrix too."),
            (14, "the MLP widens four times, 4 · C rows, and narrows again: both ways count 4."),
            (36, "those are both streams of a block. One was asked for."),
            (7, "each of the wide ones counts as many squares as fit into it."),
            (5, "these are the layers; a wide one counts as many squares as fit into it."),
        ],
    )


check_squares = Exercise(
    "3.8",
    "squares",
    "Where do the weights sit?",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="Whoever can count weights in their head can choose the size of a model without trying.",
    reference=lambda: 18,
    test=_test_squares,
    hints=(
        "A `Stream` has a modulator, projections into and out of attention, and an MLP. Count each one's rows in units of C.",
        "Modulator: 2 branches of 3. Attention: 3 in and 1 out. The MLP: 4 up and 4 down.",
    ),
)
