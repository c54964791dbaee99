"""The exercises of notebook 09: what the images of a set share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare
from gen_affect_lib.model.attention import QKV, attend, joint_attention
from gen_affect_lib.model.consistent import Replace, shared_attention

# --- 9.1 shared_attention --------------------------------------------------------------------------------------------


def _shared(
    image: QKV,
    condition: QKV,
    anchors: QKV,
    tokens: Tensor,
    replace: Replace,
    *,
    own: str = "right",
    queries: str = "right",
    appended: bool = True,
    conditioned: bool = True,
) -> Tensor:
    """`shared_attention` with options; each but the first is a mistake."""
    query, key, value = image
    assert query is not None and anchors.query is not None
    drop = torch.zeros(key.shape[1], dtype=torch.bool)
    drop[tokens] = True
    drop = {
        "right": drop & (replace != Replace.NOTHING),
        "kept": drop & False,
        "always dropped": drop,
        "keys only with queries": drop & (replace == Replace.QUERIES_KEYS_VALUES),
        "all dropped": torch.full_like(drop, replace != Replace.NOTHING),
        "others dropped": ~drop & (replace != Replace.NOTHING),
    }[own]
    change = {
        "right": replace == Replace.QUERIES_KEYS_VALUES,
        "never": False,
        "with keys": replace != Replace.NOTHING,
        "always": True,
        "first": replace == Replace.QUERIES_KEYS_VALUES,
    }[queries]
    if change:
        query = query.clone()
        query[:, torch.arange(len(tokens)) if queries == "first" else tokens] = anchors.query
    parts = [
        [x[:, ~drop], *([y] if conditioned else []), *([z] if appended else [])]
        for x, y, z in ((key, condition.key, anchors.key), (value, condition.value, anchors.value))
    ]
    return attend(query, *(torch.cat(part, dim=1) for part in parts))


def _one_softmax_each(image: QKV, condition: QKV, anchors: QKV, tokens: Tensor, replace: Replace) -> Tensor:
    own = _shared(image, condition, anchors, tokens, replace, appended=False)
    query = image.query
    assert query is not None and anchors.query is not None
    if replace == Replace.QUERIES_KEYS_VALUES:
        query = query.index_copy(1, tokens, anchors.query)
    return (own + attend(query, anchors.key, anchors.value)) / 2


def _test_shared_attention(answer) -> None:
    def case(images: int, anchors: int, tokens: list[int], replace: Replace):
        image, condition = (QKV(*torch.randn(3, images, length, 2, 8, dtype=torch.float64)) for length in (9, 5))
        key, value = torch.randn(2, images, anchors * len(tokens), 2, 8, dtype=torch.float64)
        query = torch.randn(images, len(tokens), 2, 8, dtype=torch.float64)
        return image, condition, QKV(query, key, value), torch.tensor(tokens), replace

    cases = [
        case(2, 1, [1, 4, 5], Replace.NOTHING),
        case(3, 2, [0, 2, 8], Replace.NOTHING),
        case(2, 1, [1, 4, 5], Replace.KEYS_VALUES),
        case(1, 2, [3, 7], Replace.KEYS_VALUES),
        case(2, 1, [1, 4, 5], Replace.QUERIES_KEYS_VALUES),
        case(3, 2, [0, 2, 8], Replace.QUERIES_KEYS_VALUES),
        case(2, 1, list(range(9)), Replace.QUERIES_KEYS_VALUES),
    ]

    def mistaken(**wrong) -> Callable:
        return lambda *case: _shared(*case, **wrong)

    compare(
        answer,
        shared_attention,
        *cases,
        tolerance=1e-9,
        mistakes=[
            ("this is plain attention: nothing is shared and nothing replaced.",
             mistaken(own="kept", queries="never", appended=False)),
            ("the anchors' keys and values are missing: append them to those of the image and of its condition.",
             mistaken(appended=False)),
            ("the condition is missing: each image also attends to all tokens of its own condition.",
             mistaken(conditioned=False)),
            ("`replace` is not used: the anchors' tokens are always appended, and the image keeps all of its own.",
             mistaken(own="kept", queries="never")),
            ("the own keys and values at `tokens` stay: unless `replace` is `Replace.NOTHING`, they are left out.",
             mistaken(own="kept")),
            ("own keys and values are left out even with `Replace.NOTHING`, where the anchors' are only appended.",
             mistaken(own="always dropped")),
            ("with `Replace.KEYS_VALUES` the own keys and values at `tokens` are left out as well.",
             mistaken(own="keys only with queries")),
            ("all own keys and values are left out. Only those at `tokens` are; the others stay.",
             mistaken(own="all dropped")),
            ("the wrong ones are left out: leave out the own keys and values at `tokens`, and keep the others.",
             mistaken(own="others dropped")),
            ("the queries are not replaced: with `Replace.QUERIES_KEYS_VALUES` those at `tokens` become "
             "`anchors.query`.",
             mistaken(queries="never")),
            ("with `Replace.KEYS_VALUES` an image keeps its own queries.", mistaken(queries="with keys")),
            ("the queries are replaced whatever `replace` says.", mistaken(queries="always")),
            ("the anchors' queries replace those of the first tokens. They belong to the tokens `tokens`.",
             mistaken(queries="first")),
            ("there are two softmaxes, whose outputs are averaged. There is one: join all keys, and all values, along "
             "the dimension of the tokens, and call `attend` once.", _one_softmax_each),
        ],
    )  # fmt: skip


check_shared_attention = Exercise(
    "9.1",
    "shared_attention",
    "What an image attends to",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="These few lines are the whole of consistent attention; the rest of the notebook decides who shares, when "
    "and what.",
    reference=shared_attention,
    test=_test_shared_attention,
    hints=(
        "Three steps: replace queries if `replace` says so; leave out own keys and values if it says so; then join "
        "the keys of the image, of its condition and of the anchors, and the values in the same order.",
        "`query.index_copy(1, tokens, anchors.query)` replaces queries in a copy. A mask `own`, bool (L,), with "
        "`own[tokens] = False`, selects what is kept: `key[:, own]`. `torch.cat([...], dim=1)` joins.",
    ),
)

# --- 9.2 shared_tokens -----------------------------------------------------------------------------------------------


def shared_tokens(
    face: Tensor, sigma: float, above: float = 0.0, below: float = 1.0, face_above: float = 0.5
) -> Tensor:
    """Indices of the tokens that are shared at a step, ascending (P,), from the mask of the face (side, side)."""
    return _tokens(face, sigma, above, below, face_above)


def _tokens(
    face: Tensor,
    sigma: float,
    above: float,
    below: float,
    face_above: float,
    *,
    window: bool = True,
    swapped: bool = False,
    inverted: bool = False,
    late: bool = False,
    zero: bool = True,
    edge: bool = True,
    only: bool = False,
) -> Tensor:
    """The same with options; each but the first is a mistake."""
    inside = above <= sigma <= below if edge else above < sigma < below
    if window and not inside:
        return torch.zeros(0, dtype=torch.int64)
    masked = sigma < face_above if late else sigma <= face_above
    masked = not masked if swapped else masked
    if zero:
        masked = masked and face_above > 0
    masked = not masked if inverted else masked
    shared = (face if only else ~face) if masked else torch.ones_like(face)
    return shared.flatten().nonzero()[:, 0]


def _test_shared_tokens(answer) -> None:
    face = torch.zeros(3, 3, dtype=torch.bool)
    face[1, 1:], face[2, 0] = True, True
    larger = torch.rand(5, 5) < 0.4
    cases = [
        (face, 0.5, 0.0, 1.0, 0.15),
        (face, 0.1, 0.0, 1.0, 0.15),
        (face, 0.15, 0.0, 1.0, 0.15),
        (face, 0.0, 0.0, 1.0, 0.0),
        (larger, 0.3, 0.3, 0.8, 0.2),
        (larger, 0.8, 0.3, 0.8, 0.9),
        (larger, 0.9, 0.3, 0.8, 0.2),
        (larger, 0.2, 0.3, 0.8, 0.1),
        (face, 1.0, 0.0, 1.0, 1.0),
    ]

    early_and_late = (
        "early and late are interchanged: sigma falls from 1 to 0, and face tokens are shared while sigma is *above* "
        "`face_above`."
    )

    def mistaken(**wrong) -> Callable:
        return lambda *case: _tokens(*case, **wrong)

    compare(
        answer,
        shared_tokens,
        *cases,
        mistakes=[
            ("`above` and `below` are not used: outside of them no token is shared.", mistaken(window=False)),
            ("the ends are included: sigma may equal `above` or `below`.", mistaken(edge=False)),
            (early_and_late, mistaken(swapped=True)),
            (early_and_late, mistaken(inverted=True)),
            ("at sigma = `face_above` face tokens are not shared: they are while sigma is *above* it.",
             mistaken(late=True)),
            ("with `face_above` 0 there is no mask: face tokens are shared at all steps, at sigma 0 too.",
             mistaken(zero=False)),
            ("at low sigma only face tokens are shared: it should be the tokens *outside* the face.",
             mistaken(only=True)),
            ("face tokens are never shared. They are while sigma is above `face_above`.",
             lambda face, *rest: torch.cat(
                 [x for x in _tokens(face, *rest)[:, None] if not face.flatten()[x]]
                 or [torch.zeros(0, dtype=torch.int64)]
             )),
            ("the mask of the face is not used.",
             lambda face, sigma, above, below, face_above: _tokens(face, sigma, above, below, 0.0)),
        ],
    )  # fmt: skip


check_shared_tokens = Exercise(
    "9.2",
    "shared_tokens",
    "Which tokens, and when",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Early steps of sampling settle large forms, late ones details; sigma tells which step it is.",
    reference=shared_tokens,
    test=_test_shared_tokens,
    hints=(
        "There are three cases: no token, all tokens, or all outside the face. Test `above` and `below` first.",
        "`(~face).flatten().nonzero()[:, 0]` are the indices outside the face. The mask applies where "
        "`face_above > 0 and sigma <= face_above`.",
    ),
)

# --- 9.3 set_attention -----------------------------------------------------------------------------------------------


def set_attention(image: QKV, condition: QKV, count: int, face: Tensor, sigma: float) -> Tensor:
    """Attention output (G·N, L, C) of a set of N images under G conditions, the first image being the anchor."""
    return _set(image, condition, count, face, sigma)


def _set(
    image: QKV,
    condition: QKV,
    count: int,
    face: Tensor,
    sigma: float,
    *,
    order: str = "condition first",
    replace: Replace = Replace.QUERIES_KEYS_VALUES,
    every_token: bool = False,
    one_anchor: bool = False,
    chain: bool = False,
    conditions_too: bool = False,
    anchor_too: bool = True,
) -> Tensor:
    """The same with options; each is a mistake."""
    groups = len(image.key) // count
    tokens = torch.arange(face.numel()) if every_token else shared_tokens(face, sigma)
    outputs: list[Tensor] = [torch.empty(0)] * (groups * count)
    for g in range(groups):
        rows = [g * count + n if order == "condition first" else n * groups + g for n in range(count)]
        for n, row in enumerate(rows):
            source = rows[max(n - 1, 0)] if chain else 0 if one_anchor else rows[0]
            own, own_condition = (stream.map(lambda x: x[row : row + 1]) for stream in (image, condition))
            anchor = image.map(lambda x: x[source : source + 1, tokens])
            if conditions_too:
                key, value = (
                    torch.cat([x, y[source : source + 1]], dim=1)
                    for x, y in ((anchor.key, condition.key), (anchor.value, condition.value))
                )
                anchor = QKV(anchor.query, key, value)
            kind = Replace.NOTHING if n == 0 and anchor_too is False else replace
            outputs[row] = shared_attention(own, own_condition, anchor, tokens, kind)
    return torch.cat(outputs)


def _test_set_attention(answer) -> None:
    face = torch.zeros(3, 3, dtype=torch.bool)
    face[1, 1:] = True

    def case(groups, count, sigma):
        image, condition = (
            QKV(*torch.randn(3, groups * count, length, 2, 8, dtype=torch.float64)) for length in (9, 4)
        )
        return image, condition, count, face, sigma

    def last_block(image, condition, *rest):
        return image, condition._replace(query=None), *rest

    def not_in_the_last_block(image, condition, *rest):
        if condition.query is None:
            raise TypeError
        return _set(image, condition, *rest)

    def mistaken(**wrong) -> Callable:
        return lambda *case: _set(*case, **wrong)

    compare(
        answer,
        set_attention,
        case(2, 3, 0.8),
        case(3, 2, 0.3),
        case(1, 4, 0.5),
        case(3, 1, 0.9),
        last_block(*case(2, 2, 0.3)),
        tolerance=1e-9,
        mistakes=[
            (
                "everything is right but the last block: there `condition.query` is None (notebook 03). It is not "
                "needed here; images attend to keys and values of the condition.",
                not_in_the_last_block,
            ),
            (
                "all images attend to the first image of the *batch*, which is drawn under the first condition. Each "
                "attends to the first image of the set under its own condition.",
                mistaken(one_anchor=True),
            ),
            (
                "the batch is read in the wrong order: all N images under the first condition, then all N under the "
                "second. `unflatten(0, (G, N))` gives the two axes.",
                mistaken(order="image first"),
            ),
            ("all tokens are shared at every sigma: use `shared_tokens(face, sigma)`.", mistaken(every_token=True)),
            ("each image attends to the one before it. Only the first is an anchor.", mistaken(chain=True)),
            (
                "the anchor's condition tokens are shared, too: then every image is conditioned on the anchor's word.",
                mistaken(conditions_too=True),
            ),
            (
                "the anchor's tokens are appended. They should replace those of the image: queries, keys and values.",
                mistaken(replace=Replace.NOTHING),
            ),
            (
                "keys and values are replaced and the queries are not: `Replace.QUERIES_KEYS_VALUES`.",
                mistaken(replace=Replace.KEYS_VALUES),
            ),
            (
                "the anchor attends to its own shared tokens twice. It is drawn as if it were alone.",
                mistaken(anchor_too=False),
            ),
            (
                "this is plain attention: nothing is shared.",
                lambda image, condition, count, face, sigma: joint_attention(image, condition)[0],
            ),
        ],
    )


check_set_attention = Exercise(
    "9.3",
    "set_attention",
    "A whole set",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="With this function a set is drawn: the next sheet of pictures is made by your own attention.",
    reference=set_attention,
    test=_test_set_attention,
    hints=(
        "Give every image, the anchor included, the queries, keys and values of the anchor under the same condition. "
        "What does replacing the anchor's tokens by themselves change?",
        "`anchor = x.unflatten(0, (-1, count))[:, 0]` is (G, L, H, D), `.repeat_interleave(count, 0)` one for each "
        "image of the batch; take its tokens `shared_tokens(face, sigma)`; then one call of `shared_attention`.",
    ),
)

# --- 9.4 pair_agreement ----------------------------------------------------------------------------------------------


def pair_agreement(same: np.ndarray) -> float:
    """Mean over all pairs of different images of the fraction of visible attributes that agree: same (W, W, K)."""
    return float(np.nanmean(same, axis=2)[~np.eye(len(same), dtype=bool)].mean())


def _test_pair_agreement(answer) -> None:
    rng = np.random.default_rng(3)

    def table(pictures, parts, unseen):
        kinds = rng.integers(0, 2, (pictures, parts))
        same = (kinds[:, None] == kinds[None]).astype(float)  # (W, W, K)
        hidden = rng.random((pictures, parts)) < unseen  # in the second of a pair
        hidden[:, 0] = False
        return np.where(hidden[None], np.nan, same)

    cases = [(table(5, 4, 0.4),), (table(7, 9, 0.3),), (table(3, 5, 0.5),)]

    def without_self(same, each):
        return float(each[~np.eye(len(same), dtype=bool)].mean())

    def neighbours(same):
        k = np.arange(len(same))
        return float(np.nanmean(same[k, (k + 1) % len(same)], axis=1).mean())

    def earlier_neighbours(same):
        k = np.arange(len(same))
        return float(np.nanmean(same[k, k - 1], axis=1).mean())

    said = answer(cases[0][0].copy())
    if isinstance(said, (float, np.floating)) and np.isnan(said):
        raise Wrong("the result is NaN: leave out what is not visible, as `np.nanmean` does.")
    half = (
        "each pair is counted in one direction only. What is visible depends on the second image, so both directions "
        "count."
    )
    compare(
        answer,
        pair_agreement,
        *cases,
        tolerance=1e-6,
        mistakes=[
            (
                "images are compared with themselves too, where they agree in everything: leave out the diagonal.",
                lambda same: float(np.nanmean(same, axis=2).mean()),
            ),
            (
                "images are compared with themselves too, and all entries are pooled: leave out the diagonal, and "
                "take the mean of each pair first.",
                lambda same: float(np.nanmean(same)),
            ),
            (
                "what is not visible counts as a disagreement: the mean of a pair is over what *is* visible.",
                lambda same: without_self(same, np.nan_to_num(same).mean(axis=2)),
            ),
            (
                "what is not visible counts as an agreement: the mean of a pair is over what *is* visible.",
                lambda same: without_self(same, np.nan_to_num(same, nan=1.0).mean(axis=2)),
            ),
            (
                "the mean of all entries gives more weight to pairs with more visible attributes: first the mean of "
                "each pair, then that of all pairs.",
                lambda same: float(np.nanmean(same[~np.eye(len(same), dtype=bool)])),
            ),
            (
                "only neighbours are compared. Neighbours can agree while the set drifts from its first image to its "
                "last.",
                neighbours,
            ),
            (
                "only neighbours are compared. Neighbours can agree while the set drifts from its first image to its "
                "last.",
                earlier_neighbours,
            ),
            (
                "only the first image is compared with the others: all pairs count.",
                lambda same: float(np.nanmean(same[0, 1:], axis=1).mean()),
            ),
            (half, lambda same: float(np.nanmean(same, axis=2)[np.triu_indices(len(same), 1)].mean())),
            (half, lambda same: float(np.nanmean(same, axis=2)[np.tril_indices(len(same), -1)].mean())),
        ],
    )


check_pair_agreement = Exercise(
    "9.4",
    "pair_agreement",
    "A set that agrees",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A metric is defined by its means: over what, in which order, and what is left out.",
    reference=pair_agreement,
    test=_test_pair_agreement,
    hints=(
        "Two means, one after the other: over the visible attributes, which gives (W, W), and over its pairs of "
        "different images.",
        "`np.nanmean(same, axis=2)` is (W, W); `~np.eye(W, dtype=bool)` selects what is not on its diagonal.",
    ),
)

# --- 9.5 costly_decision ---------------------------------------------------------------------------------------------


def _test_costly_decision(answer) -> None:
    check_choice(
        answer,
        "face",
        wrong={
            "who": "that is `two`, with two anchors: its interval begins below the end of that of `alone`.",
            "noise": "that is `no_noise`: its interval begins below the end of that of `alone`.",
            "replace": "those are `beside` and `own_queries`: their intervals begin below the end of that of `alone`.",
        },
    )


check_costly_decision = Exercise(
    "9.5",
    "costly_decision",
    "Which decision costs expression?",
    "read",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A difference counts when it is larger than its uncertainty; most differences in this table are not.",
    reference=lambda: "face",
    test=_test_costly_decision,
    hints=(
        "Compare intervals and not values: where does that of `alone` end, and which begin above that?",
        "Two variants do. Look up in the list below the table what both change.",
    ),
)

# --- 9.6 read_bank ---------------------------------------------------------------------------------------------------


def read_bank(image: QKV, condition: QKV, key: Tensor, value: Tensor) -> Tensor:
    """Attention output (G·N, L, C) of images that also attend to the anchors' keys and values (G, P, H, D) that were
    recorded under their own condition."""
    return _read(image, condition, *(x.repeat_interleave(len(image.key) // len(x), 0) for x in (key, value)))


def _read(image: QKV, condition: QKV, key: Tensor, value: Tensor) -> Tensor:
    assert image.query is not None
    keys = torch.cat([image.key, condition.key, key], dim=1)
    return attend(image.query, keys, torch.cat([image.value, condition.value, value], dim=1))


def _test_read_bank(answer) -> None:
    def case(conditions, count, tokens):
        image, condition = (QKV(*torch.randn(3, conditions * count, length, 2, 8)) for length in (6, 3))
        return image, condition, *torch.randn(2, conditions, tokens, 2, 8)

    def mistaken(spread: Callable, spread_value: Callable | None = None) -> Callable:
        def read(image, condition, key, value):
            count = len(image.key) // len(key)
            return _read(image, condition, spread(key, count), (spread_value or spread)(value, count))

        return read

    def in_blocks(x, count):
        return x.repeat_interleave(count, 0)

    def alternating(x, count):
        return x.repeat(count, 1, 1, 1)

    compare(
        answer,
        read_bank,
        case(2, 3, 4),
        case(3, 2, 5),
        case(3, 1, 2),
        case(1, 4, 3),
        tolerance=1e-5,
        mistakes=[
            (
                "the order is still wrong: the conditions alternate, A B A B, but the images of a batch are in "
                "blocks, A A B B.",
                mistaken(alternating),
            ),
            (
                "all images attend to what was recorded under the first condition. Each should attend to that of its "
                "own.",
                mistaken(lambda x, count: x[:1].expand(len(x) * count, -1, -1, -1)),
            ),
            (
                "all images attend to the mean over the conditions, which mixes what guidance compares: each should "
                "attend to that of its own condition.",
                mistaken(lambda x, count: x.mean(dim=0, keepdim=True).expand(len(x) * count, -1, -1, -1)),
            ),
            (
                "all images attend to what was recorded under all conditions: each should attend to P tokens, those "
                "of its own condition.",
                mistaken(lambda x, count: x.flatten(0, 1)[None].expand(len(x) * count, -1, -1, -1)),
            ),
            (
                "the keys are in order now, but the values still alternate: each key belongs to a value.",
                mistaken(in_blocks, alternating),
            ),
            (
                "the values are in order now, but the keys still alternate: each key belongs to a value.",
                mistaken(alternating, in_blocks),
            ),
            (
                "the order of the conditions is reversed.",
                mistaken(lambda x, count: x.flip(0).repeat_interleave(count, 0)),
            ),
            (
                "this is plain attention: the key and value that were recorded are not used.",
                lambda image, condition, key, value: _read(
                    image,
                    condition,
                    key[:0, :0].new_zeros(len(image.key), 0, *key.shape[2:]),
                    value[:0, :0].new_zeros(len(image.key), 0, *key.shape[2:]),
                ),
            ),
        ],
    )


check_read_bank = Exercise(
    "9.6",
    "read_bank",
    "A bank that mixes conditions",
    "repair",
    difficulty=2,
    minutes=10,
    points=3,
    purpose="Repetition along a batch must follow its order; with guidance a wrong order raises no error and looks "
    "nearly right.",
    reference=read_bank,
    test=_test_read_bank,
    hints=(
        "Write down the conditions as letters, for G = 2 and N = 3: once in the order of the images in the batch, and "
        "once in that of the repeated keys.",
        "`Tensor.repeat` repeats the whole, A B A B A B. `Tensor.repeat_interleave(N, 0)` repeats each entry, A A A B "
        "B B.",
    ),
)

# --- 9.7 work_ratio --------------------------------------------------------------------------------------------------


def _test_work_ratio(answer) -> None:
    check_number(
        answer,
        688,
        within=0.5,
        wrong=[
            (27, "that is the factor of the number of *queries*. Each of them attends to more keys, too."),
            (
                729,
                "27² would be right if there were no condition: each query also attends to the 20 tokens of its "
                "condition, at any size of the set.",
            ),
            (25.47, "that is the factor of the number of keys of *one* query. There are more queries, too."),
            (1, "that would be one image with the bank. Here all images share, and the whole set is counted."),
            (
                135 * 8659 / (5 * 339),
                "count again: each query attends to the 64 tokens of each image of the set and to the 20 of its "
                "condition.",
            ),
        ],
    )


check_work_ratio = Exercise(
    "9.7",
    "work_ratio",
    "A larger set",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="One exponent decides whether a mechanism can be used for large sets, and it can be counted before "
    "anything is "
    "built.",
    reference=lambda: 688,
    test=_test_work_ratio,
    hints=(
        "Queries times keys: how many queries does a set of N images have, and how many keys for each of them?",
        "64 N queries, with 64 N + 20 keys each.",
    ),
)
