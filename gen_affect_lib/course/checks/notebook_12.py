"""The exercises of notebook 12: full scale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, compare, compare_modules, difference
from gen_affect_lib.course.checks.probes import filled, fresh_parameters, module_gradients
from gen_affect_lib.fullscale.adapter import FaceTokens
from gen_affect_lib.model.attention import QKV, attend, joint_attention

# --- 12.1 smallest_part ----------------------------------------------------------------------------------------------


def _test_smallest_part(answer) -> None:
    check_choice(
        answer,
        "attention",
        {
            "mlp": "the two MLPs of a block have 2 · 8 C² weights, more than anything else.",
            "modulation": "attention has 8 C² weights in both streams, and 12 C² in a dual block. Count the "
            "modulators: each maps C numbers to 6 C, and in a dual image stream to 9 C.",
        },
    )


check_smallest_part = Exercise(
    "12.1",
    "smallest_part",
    "Where the parameters are",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="From the shapes alone you can count the parameters of a model, before you download it.",
    reference=lambda: "attention",
    test=_test_smallest_part,
    hints=(
        "Per stream: queries, keys, values and output are C × C each. The MLP widens to 4 C and narrows again. The "
        "modulator maps C numbers to shift, scale and gate of each branch.",
        "In multiples of C², for both streams together: attention 8, or 12 in a dual block; the MLPs 16. A modulator "
        "has two branches, three in a dual image stream: 6 + 6, or 9 + 6.",
    ),
)

# --- 12.2 fill -------------------------------------------------------------------------------------------------------


def fill(model: nn.Module, read: Callable[[str], Tensor]) -> None:
    """Give each parameter of a model on the device meta the weights `read(name)`, one after the other."""
    for name, _ in list(model.named_parameters()):
        owner, _, kind = name.rpartition(".")
        setattr(model.get_submodule(owner), kind, nn.Parameter(read(name)))


def _test_fill(answer) -> None:
    ours, right = filled(answer), filled(fill)
    for seed, dtype in ((0, "float32"), (1, "bfloat16")):
        got, kinds, reads, most = ours(seed, dtype)
        want, *_ = right(seed, dtype)
        if missing := [name for name, count in reads.items() if not count]:
            raise Wrong(f"`{missing[0]}` was never read: there is a parameter in every module inside the modules.")
        if kinds != [dtype]:
            raise Wrong(
                f"the weights are {dtype} in the file and {' and '.join(kinds)} in the network, which needs more "
                "memory: take the tensors as they come."
            )
        if problem := difference(got, want, 0.0):
            raise Wrong(f"the weights are not those that were read: {problem}")
        if (times := max(reads.values())) > 1:
            raise Wrong(f"a weight was read {times} times: reading is slow, so read each once.")
        if most > 1:
            raise Wrong(
                f"the weights are right, but {most} of {len(reads)} were in memory beside the network at a time, so "
                "that it needs nearly twice its size: use each weight before you read the next."
            )


check_fill = Exercise(
    "12.2",
    "fill",
    "One tensor at a time",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="A second copy of a large model often decides whether it can be loaded at all.",
    reference=fill,
    test=_test_fill,
    hints=(
        '`model.named_parameters()` gives names such as "blocks.0.image.mlp.widen.weight". Before the last point '
        "stands the module, `model.get_submodule(…)`, after it the name of its parameter. Make a list of them first: "
        "what you iterate over must not change.",
        '`owner, _, kind = name.rpartition(".")`, and then '
        "`setattr(model.get_submodule(owner), kind, nn.Parameter(read(name)))`.",
    ),
)

# --- 12.3 FaceTokens -------------------------------------------------------------------------------------------------


class _Mistaken(FaceTokens):
    """`FaceTokens` with a mistake: where the faces are added, and how."""

    first = False
    keeps_text = True
    adds_pooled = True
    longer = False
    from_pooled_text = False

    def forward(self, features, vector, text, pooled):
        count, room = features.shape[1], text.shape[1]
        faces = self.to_text(features)
        pooled = pooled + self.to_pooled(vector) if self.adds_pooled else pooled
        if self.longer:
            return torch.cat([text, faces], dim=1), pooled
        if self.first:
            own = text[:, :count] if self.keeps_text else torch.zeros_like(faces)
            return torch.cat([own + faces, text[:, count:]], dim=1), pooled
        own = text[:, room - count :] if self.keeps_text else torch.zeros_like(faces)
        return torch.cat([text[:, : room - count], own + faces], dim=1), pooled


def _with(**change) -> type:
    return type("FaceTokens", (_Mistaken,), change)


def _test_face_tokens(answer) -> None:
    build = dict(dim=6, text_dim=10, pooled_dim=4)

    def given(features: int, room: int) -> tuple[Tensor, ...]:
        return torch.randn(2, features, 6), torch.randn(2, 6), torch.randn(2, room, 10), torch.randn(2, 4)

    compare_modules(
        answer,
        FaceTokens,
        build,
        given(3, 8),
        given(2, 5),
        given(4, 4),
        mistakes=[
            ("the faces are added to the first tokens, which are words: add them to the last ones.", _with(first=True)),
            (
                "the last tokens are replaced. At the start they would be zero, so the text would change: add to them.",
                _with(keeps_text=False),
            ),
            (
                "the first tokens are replaced: add to the last ones.",
                _with(first=True, keeps_text=False),
            ),
            (
                "the sequence is longer than before. Then the softmax has more keys, and the base's output changes "
                "even if they are zero: add to the last tokens.",
                _with(longer=True),
            ),
            ("the pooled text is returned as it came: add `to_pooled` of the vector to it.", _with(adds_pooled=False)),
        ],
    )
    fresh = fresh_parameters(answer)(build)
    if filled_with := [name for name in ("to_text.weight", "to_text.bias", "to_pooled.weight", "to_pooled.bias")
                       if bool(fresh[name].any())]:  # fmt: skip
        raise Wrong(
            f"a new adapter changes the text: `{filled_with[0]}` does not start at zero. `nn.init.zeros_` fills a "
            "parameter in place."
        )
    _, gradient = module_gradients(answer)(build, {}, *given(3, 8))
    if dead := [name for name in ("to_text.weight", "to_pooled.weight")
                if gradient.get(name) is None or not bool(gradient[name].any())]:  # fmt: skip
        raise Wrong(
            f"a new adapter leaves the text unchanged, and can never change it: the gradient of `{dead[0]}` is zero at "
            "the start. A map that starts at zero still has to be computed, and its *input* must not be zero."
        )


check_FaceTokens = Exercise(
    "12.3",
    "FaceTokens",
    "An adapter that changes nothing, and learns",
    "implement",
    difficulty=3,
    minutes=20,
    points=4,
    purpose="What is added to a trained network should not disturb it at first; zeros in the right place achieve this.",
    reference=FaceTokens,
    test=_test_face_tokens,
    hints=(
        "Two linear layers, `to_text` from `dim` to `text_dim` and `to_pooled` from `dim` to `pooled_dim`, whose "
        "weights and biases are filled with zeros. Of M text tokens the last N are `text[:, M - N :]`.",
        "`torch.cat([text[:, : M - N], text[:, M - N :] + self.to_text(features)], dim=1)`, and "
        "`pooled + self.to_pooled(vector)`.",
    ),
)

# --- 12.4 with_face --------------------------------------------------------------------------------------------------


def with_face(image: QKV, condition: QKV, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor | None]:
    """Outputs of joint attention (B, L, C) and (B, M, C), the image's plus its attention to a face (B, N, H, D)."""
    of_image, of_condition = joint_attention(image, condition)
    assert image.query is not None
    return of_image + attend(image.query, key, value), of_condition


def _one_softmax(image, condition, key, value):
    longer = QKV(
        condition.query,
        torch.cat([condition.key, key], dim=1),
        torch.cat([condition.value, value], dim=1),
    )
    return joint_attention(image, longer)


def _test_with_face(answer) -> None:
    def case(image: int, text: int, face: int) -> tuple:
        streams = [QKV(*torch.randn(3, 2, tokens, 3, 4)) for tokens in (image, text)]
        return *streams, *torch.randn(2, 2, face, 3, 4)

    def seen(image, key, value):
        return attend(image.query, key, value)

    def both(image, condition, key, value):
        of_image, of_condition = joint_attention(image, condition)
        assert of_condition is not None
        return of_image + seen(image, key, value), of_condition + attend(condition.query, key, value)

    def mean(image, condition, key, value):
        of_image, of_condition = joint_attention(image, condition)
        return (of_image + seen(image, key, value)) / 2, of_condition

    def of_text(image, condition, key, value):
        of_image, of_condition = joint_attention(image, condition)
        assert of_condition is not None
        return of_image, of_condition + attend(condition.query, key, value)

    def alone(image, condition, key, value):
        return seen(image, key, value), joint_attention(image, condition)[1]

    def without_text(image, condition, key, value):
        return seen(image, image.key, image.value) + seen(image, key, value), joint_attention(image, condition)[1]

    compare(
        answer,
        with_face,
        case(9, 5, 3),
        case(4, 6, 1),
        case(6, 2, 7),
        gradients=True,
        mistakes=[
            (
                "the keys are in one softmax with those of image and text. That is joint attention with more tokens: a "
                "new adapter would already take weight from the others. Two softmaxes, and the sum of their outputs.",
                _one_softmax,
            ),
            ("the text tokens attend to the face, too: only the image does, so that the text stays the base's.", both),
            ("the text tokens attend to the face instead of the image.", of_text),
            ("the mean of both outputs is taken: a zero would halve what the base computes. Add them.", mean),
            ("the output of joint attention is lost: add to it.", alone),
            (
                "the image no longer attends to the text: the first of both attentions is `joint_attention`.",
                without_text,
            ),
            (
                "the text's output is missing: it is that of joint attention.",
                lambda *given: (with_face(*given)[0], None),
            ),
        ],
    )


check_with_face = Exercise(
    "12.4",
    "with_face",
    "A second softmax",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="This line is IP-Adapter, and with small changes PuLID, InstantID and their relatives.",
    reference=with_face,
    test=_test_with_face,
    hints=(
        "`joint_attention(image, condition)` gives both outputs. `attend(query, key, value)` is one attention without "
        "a condition. Whose queries attend to the face?",
        "`of_image + attend(image.query, key, value), of_condition`.",
    ),
)

# --- 12.5 one_softmax ------------------------------------------------------------------------------------------------


def one_softmax(own: Tensor, own_logsum: Tensor, face: Tensor, face_logsum: Tensor) -> Tensor:
    """The output (B, L, H, D) of one softmax over two groups of keys.

    From the outputs of a softmax over each, (B, L, H, D), and the logarithms of their sums of exponentials, (B, L, H).
    """
    weight = torch.sigmoid(own_logsum - face_logsum)[..., None]  # (B, L, H) -> (B, L, H, 1)
    return weight * own + (1 - weight) * face


def _test_one_softmax(answer) -> None:
    def case(keys: int, faces: int, size: float = 1.0) -> tuple[Tensor, ...]:
        scores, values = size * torch.randn(2, 5, 3, keys + faces), torch.randn(2, keys + faces, 3, 4)
        parts = []
        for some in (slice(0, keys), slice(keys, None)):
            weights = scores[..., some].softmax(dim=-1)
            seen = torch.einsum("blhk,bkhd->blhd", weights, values[:, some])
            parts += [seen, scores[..., some].logsumexp(dim=-1)]
        return tuple(parts)

    def by(weights: Callable) -> Callable:
        def mistaken(own, own_logsum, face, face_logsum):
            a, b = weights(own_logsum, face_logsum)
            return a[..., None] * own + b[..., None] * face

        return mistaken

    def naive(a, b):
        return a.exp() / (a.exp() + b.exp()), b.exp() / (a.exp() + b.exp())

    cases = case(7, 3), case(2, 6), case(4, 1), case(5, 5, 300.0)
    compare(
        answer,
        one_softmax,
        *cases,
        mistakes=[
            (
                "both outputs are added: that is decoupled attention, the sum of two softmaxes. In one softmax the "
                "weights of all keys add up to 1.",
                by(lambda a, b: (torch.ones_like(a), torch.ones_like(b))),
            ),
            (
                "the mean is taken: the group with the larger sum counts more.",
                by(lambda a, b: (0 * a + 0.5, 0 * b + 0.5)),
            ),
            ("the weights are swapped: the larger sum belongs to its own output.", by(lambda a, b: naive(b, a))),
            (
                "the weights are swapped: the larger sum belongs to its own output.",
                by(lambda a, b: (torch.sigmoid(b - a), torch.sigmoid(a - b))),
            ),
            (
                "the logarithms are taken as weights: the sums are their exponentials.",
                by(lambda a, b: (a / (a + b), b / (a + b))),
            ),
            (
                "the formula is right, and it overflows where the scores are large: exp of 89 is infinite in float32. "
                "Only the difference of the logarithms matters, and `torch.sigmoid` of it never overflows.",
                by(naive),
            ),
            (
                "the outputs are weighted by the sums, and not divided by their total.",
                by(lambda a, b: (a.exp(), b.exp())),
            ),
        ],
    )


check_one_softmax = Exercise(
    "12.5",
    "one_softmax",
    "Joint from decoupled",
    "implement",
    difficulty=4,
    minutes=20,
    points=3,
    purpose="The same formula merges the pieces of a long sequence in FlashAttention and ring attention.",
    reference=one_softmax,
    test=_test_one_softmax,
    hints=(
        "Write both softmaxes out. With S₁ and S₂, the sums of the exponentials, the first group has the weight "
        "S₁ / (S₁ + S₂). Divide both by S₁.",
        "S₁ / (S₁ + S₂) = 1 / (1 + exp(log S₂ − log S₁)) = sigmoid(log S₁ − log S₂). `[..., None]` adds the axis D.",
    ),
)

# --- 12.6 training_bytes ---------------------------------------------------------------------------------------------


def training_bytes(frozen: float, trained: float, base_bytes: int = 2) -> float:
    """Bytes that weights, gradients, optimizer and average need in a training over a frozen base."""
    return _bytes(frozen, trained, base_bytes)


def _bytes(frozen, trained, base_bytes, of_trained=20, gradient_of_frozen=0):
    return (base_bytes + gradient_of_frozen) * frozen + of_trained * trained


def _test_training_bytes(answer) -> None:
    def by(**change):
        return lambda frozen, trained, base_bytes: _bytes(frozen, trained, base_bytes, **change)

    compare(
        answer,
        training_bytes,
        (2.2e9, 1.06e8, 2),
        (8.1e9, 3.05e7, 2),
        (0.0, 4.5e6, 4),
        (3.0e6, 2.0e5, 4),
        mistakes=[
            (
                "one number for each trained one is missing. There are five: the weight, its gradient, Adam's averages "
                "of the gradient and of its square, and the moving average of the weight.",
                by(of_trained=16),
            ),
            (
                "only weights and gradient are counted: add Adam's two averages and the average of the weights.",
                by(of_trained=8),
            ),
            ("only the weights are counted.", by(of_trained=4)),
            (
                "a frozen number has no gradient: that is why a base in bfloat16 needs only two bytes for each.",
                lambda frozen, trained, base_bytes: _bytes(frozen, trained, base_bytes, gradient_of_frozen=base_bytes),
            ),
            (
                "a frozen number has no gradient and no optimizer.",
                lambda frozen, trained, base_bytes: 20 * (frozen + trained),
            ),
            (
                "what is trained is kept in float32, four bytes each, whatever the base has: an update of a thousandth "
                "is lost in the eight bits of a bfloat16.",
                lambda frozen, trained, base_bytes: base_bytes * (frozen + 5 * trained),
            ),
            ("the weights of the frozen base are missing.", lambda frozen, trained, base_bytes: 20 * trained),
            (
                "this is in gigabytes: give bytes.",
                lambda frozen, trained, base_bytes: _bytes(frozen, trained, base_bytes) / 1e9,
            ),
            (
                "this counts numbers: multiply by the bytes of each.",
                lambda frozen, trained, base_bytes: frozen + 5 * trained,
            ),
        ],
    )


check_training_bytes = Exercise(
    "12.6",
    "training_bytes",
    "What a training keeps",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Whether a training fits on a card can be computed in one line, before a card is rented.",
    reference=training_bytes,
    test=_test_training_bytes,
    hints=(
        "Five numbers for each trained one, in float32: the weight, its gradient, Adam's averages of the gradient and "
        "of its square, and the moving average of the weight.",
        "`base_bytes * frozen + 5 * 4 * trained`.",
    ),
)

# --- 12.7 anchor_bytes -----------------------------------------------------------------------------------------------


def anchor_bytes(layers: int, dual: int, conditions: int, anchors: int, tokens: int, dim: int, size: int = 2) -> int:
    """Bytes that the anchors of a set keep in one sampling step."""
    return _kept(layers, dual, conditions, anchors, tokens, dim, size)


def _kept(
    layers, dual, conditions, anchors, tokens, dim, size, attentions=lambda n, d: n + d, rows=lambda a: 2 * a + 1
):
    return attentions(layers, dual) * conditions * rows(anchors) * tokens * dim * size


def _test_anchor_bytes(answer) -> None:
    def by(**change):
        return lambda *given: _kept(*given, **change)

    def without(place: int):
        return lambda *given: _kept(*(1 if n == place else one for n, one in enumerate(given)))

    compare(
        answer,
        anchor_bytes,
        (24, 13, 2, 1, 1024, 1536, 2),
        (38, 0, 2, 1, 4096, 2432, 2),
        (7, 3, 3, 2, 64, 192, 4),
        (5, 0, 1, 3, 16, 160, 4),
        mistakes=[
            (
                "a dual block has two attentions, and the anchors' tokens are shared in both.",
                by(attentions=lambda n, d: n),
            ),
            (
                "`layers` counts all blocks, dual ones too: each dual block adds one attention.",
                by(attentions=lambda n, d: n + 2 * d),
            ),
            (
                "the queries are missing: keys and values are 2 · A · P tokens, the mean queries P more.",
                by(rows=lambda a: 2 * a),
            ),
            (
                "the mean of the queries over the anchors is kept, one for all: 2 A + 1, not 3 A.",
                by(rows=lambda a: 3 * a),
            ),
            ("values are missing: keys, values, and the mean queries.", by(rows=lambda a: a + 1)),
            ("each condition of guidance has keys and values of its own.", without(2)),
            ("this counts numbers: multiply by the bytes of each.", without(6)),
        ],
    )


check_anchor_bytes = Exercise(
    "12.7",
    "anchor_bytes",
    "What a set keeps",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The same count decides how long a prompt a language model can keep: it is the key-value cache.",
    reference=anchor_bytes,
    test=_test_anchor_bytes,
    hints=(
        "Per attention and condition: keys and values of A · P tokens, and the mean queries of P tokens, C channels "
        "each (notebook 09, section 8). How many attentions are there?",
        "`(layers + dual) * conditions * (2 * anchors + 1) * tokens * dim * size`.",
    ),
)

# --- 12.8 proof_of_reading -------------------------------------------------------------------------------------------


def _test_proof_of_reading(answer) -> None:
    check_choice(
        answer,
        "gap",
        {
            "falls": "both curves fall: an adapter that gets strangers' faces also learns what all pictures share.",
            "training": "a training loss also falls if pictures are learned by heart: look at people held out.",
            "maps": "a map shows where queries and keys agree, and not whether what is read there helps.",
        },
    )


check_proof_of_reading = Exercise(
    "12.8",
    "proof_of_reading",
    "Does it read the face?",
    "read",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A falling loss is no evidence until something that should not work has been tried, too.",
    reference=lambda: "gap",
    test=_test_proof_of_reading,
    hints=(
        "The grey curve belongs to an adapter for which the faces are useless. What does it reach?",
        "What the two have in common does not come from the face. What remains?",
    ),
)
