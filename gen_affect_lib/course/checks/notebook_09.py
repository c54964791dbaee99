"""The exercises of notebook 09: what images of a set lend each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare
from gen_affect_lib.model.attention import QKV, attend
from gen_affect_lib.model.consistent import loop

# --- 9.1 shared ------------------------------------------------------------------------------------------------------


def shared(image: QKV, condition: QKV, one: int, lenders: int, lent, instead: bool) -> Tensor:
    """What image `one` of a set sees, (L, C): `loop` for the whole set, and one image of it."""
    numbers = torch.as_tensor(list(lent), dtype=torch.int64)
    return loop(image, condition, len(image.key), lenders, numbers, instead)[one]


def _shared(
    image: QKV,
    condition: QKV,
    one: int,
    lenders: int,
    lent,
    instead: bool,
    *,
    own: str = "right",
    others: str = "right",
    tokens: str = "lent",
    private: bool = True,
    told: bool = True,
    asks: str = "own",
) -> Tensor:
    """The same with choices, each of which but the first is a mistake."""
    N, L = image.key.shape[:2]
    rest = [token for token in range(L) if token not in list(lent)]
    whose = {
        "right": [n for n in range(lenders) if n != one],
        "self": list(range(lenders)),
        "one more": [n for n in range(min(lenders + 1, N)) if n != one],
        "all": [n for n in range(N) if n != one],
    }[others]
    drops = {
        "right": instead and one >= lenders,
        "never": False,
        "lenders too": instead,
        "always": one >= lenders,
        "all": False,
        "one late": instead and one > lenders,
    }[own]
    mine = rest if drops else list(range(L))
    if own == "all" and instead and one >= lenders:
        mine = []
    numbers = {"lent": list(lent), "all": list(range(L)), "rest": rest}[tokens]

    def everything(of_images: Tensor, of_conditions: Tensor) -> Tensor:
        parts = [of_images[one, mine], *([of_conditions[one]] if told else []), *(of_images[n, numbers] for n in whose)]
        return torch.cat(parts + ([] if private else [of_conditions[n] for n in whose]))[None]

    query = {"own": image.query[one], "lender": image.query[0]}[asks]
    return attend(query[None], everything(image.key, condition.key), everything(image.value, condition.value))[0]


def _one_softmax_each(image: QKV, condition: QKV, one: int, lenders: int, lent, instead: bool) -> Tensor:
    own = _shared(image, condition, one, 0, lent, False)
    return torch.stack(
        [
            own,
            *(
                attend(image.query[one, None], image.key[n, list(lent)][None], image.value[n, list(lent)][None])[0]
                for n in range(lenders)
                if n != one
            ),
        ]
    ).mean(dim=0)


def _test_shared(answer) -> None:
    image, condition = (QKV(*torch.randn(3, 4, tokens, 2, 8, dtype=torch.float64)) for tokens in (9, 5))
    cases = [
        (image, condition, one, lenders, lent, instead)
        for one, lenders, lent, instead in (
            (2, 2, [1, 4, 5], False),
            (1, 2, [1, 4, 5], False),
            (3, 1, [0, 2, 8], True),
            (0, 2, [0, 2, 8], True),
            (0, 1, [3, 7], True),
            (2, 2, [1, 4, 5], True),
            (1, 1, [0, 2, 8], True),
            (2, 4, [3, 7], True),
            (1, 4, list(range(9)), False),
            (3, 2, list(range(9)), True),
        )
    ]

    def mistaken(**wrong) -> Callable:
        return lambda *case: _shared(*case, **wrong)

    compare(
        answer,
        shared,
        *cases,
        tolerance=1e-9,
        mistakes=[
            (
                "the others' conditions are lent too. They are private, or every picture hears every word: lend image tokens alone.",
                mistaken(private=False),
            ),
            ("all other images lend. Only the first `lenders` of the set do.", mistaken(others="all")),
            (
                "a lender borrows from itself: its lent tokens are there twice and count double. Leave `one` out of those who lend to it.",
                mistaken(others="self"),
            ),
            (
                "`instead` is not used: with it, a borrower does without its own tokens of the numbers `lent`.",
                mistaken(own="never"),
            ),
            (
                "with `instead` the lenders lose their own lent tokens too. They are drawn with all of their own: only a borrower, an image from number "
                "`lenders` on, does without.",
                mistaken(own="lenders too"),
            ),
            (
                "image number `lenders` keeps its own tokens: numbers begin at 0, so the borrowers are `one >= lenders`.",
                mistaken(own="one late"),
            ),
            ("one image too many lends: the lenders are the numbers 0 to `lenders` − 1.", mistaken(others="one more")),
            (
                "a borrower does without its own tokens even where `instead` is False: there, lent tokens come beside them.",
                mistaken(own="always"),
            ),
            (
                "with `instead` a borrower keeps none of its own tokens. It does without those of the numbers `lent`, and keeps the rest.",
                mistaken(own="all"),
            ),
            ("all tokens of the lenders are lent. Take those of the numbers `lent` alone.", mistaken(tokens="all")),
            ("lent are the tokens that are *not* in `lent`.", mistaken(tokens="rest")),
            ("the condition is missing: each image also sees all tokens of its own condition.", mistaken(told=False)),
            ("the first image's queries ask. In this function each image asks with its own.", mistaken(asks="lender")),
            (
                "this is plain attention: nothing is lent.",
                lambda image, condition, one, lenders, lent, instead: _shared(image, condition, one, 0, lent, False),
            ),
            (
                "each image has a softmax of its own, and the answers are averaged. There is one softmax: join keys with keys and values with values "
                "along the tokens, and attend once.",
                _one_softmax_each,
            ),
        ],
    )


check_shared = Exercise(
    "9.1",
    "shared",
    "What one image sees",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="These few lines are the whole of consistent attention; the rest of the notebook decides who, when and what.",
    reference=shared,
    test=_test_shared,
    hints=(
        "Make three lists of tokens: its own that it keeps, its condition's, and those lent by each other lender. Join them along the axis of the "
        "tokens, for the keys and in the same way for the values.",
        "`image.key[n, lent]` are the lent keys of image n, (P, H, D). `torch.cat([image.key[one, own], condition.key[one], *(…)])[None]` "
        "is what `attend` wants, (1, tokens, H, D); its answer is (1, L, C).",
    ),
)

# --- 9.2 lending -----------------------------------------------------------------------------------------------------


def lending(face: Tensor, sigma: float, above: float = 0.0, below: float = 1.0, face_above: float = 0.15) -> Tensor:
    """The numbers of the tokens that lend at this step, ascending (P,), from the mask of the face (side, side)."""
    return _lending(face, sigma, above, below, face_above)


def _lending(
    face,
    sigma,
    above,
    below,
    face_above,
    *,
    window: bool = True,
    swapped: bool = False,
    turned: bool = False,
    late: bool = False,
    zero: bool = True,
    edge: bool = True,
    only: bool = False,
) -> Tensor:
    """The same with choices, each of which but the first is a mistake."""
    inside = above <= sigma <= below if edge else above < sigma < below
    if window and not inside:
        return torch.zeros(0, dtype=torch.int64)
    alone = sigma < face_above if late else sigma <= face_above
    alone = not alone if swapped else alone
    if zero:
        alone = alone and face_above > 0
    alone = not alone if turned else alone
    may = (face if only else ~face) if alone else torch.ones_like(face)
    return may.flatten().nonzero()[:, 0]


def _test_lending(answer) -> None:
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
        "early and late have changed places: sigma falls from 1 to 0, and the face lends while sigma is *above* "
        "`face_above`."
    )

    def mistaken(**wrong) -> Callable:
        return lambda *case: _lending(*case, **wrong)

    compare(
        answer,
        lending,
        *cases,
        mistakes=[
            (
                "the window is not used: where sigma is not between `above` and `below`, no token lends.",
                mistaken(window=False),
            ),
            ("the edges of the window belong to it: sigma may equal `above` or `below`.", mistaken(edge=False)),
            (early_and_late, mistaken(swapped=True)),
            (early_and_late, mistaken(turned=True)),
            (
                "where sigma equals `face_above` the face is alone already: it lends only while sigma is *above* it.",
                mistaken(late=True),
            ),
            (
                "with `face_above` at 0 there is no mask, and the face lends to the end, at sigma 0 too.",
                mistaken(zero=False),
            ),
            (
                "where the face is to be finished alone, it is all that lends: there the tokens *outside* it lend.",
                mistaken(only=True),
            ),
            (
                "the face never lends. It does, while sigma is above `face_above`.",
                lambda face, *rest: torch.cat(
                    [x for x in _lending(face, *rest)[:, None] if not face.flatten()[x]]
                    or [torch.zeros(0, dtype=torch.int64)]
                ),
            ),
            (
                "the mask of the face is not used.",
                lambda face, sigma, above, below, face_above: _lending(face, sigma, above, below, 0.0),
            ),
        ],
    )


check_lending = Exercise(
    "9.2",
    "lending",
    "Which tokens, and when",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A step of sampling is either about where things are or about what they do, and sigma tells which.",
    reference=lending,
    test=_test_lending,
    hints=(
        "Three answers are possible: no token, all tokens, or all outside the face. Ask for the window first.",
        "`(~face).flatten().nonzero()[:, 0]` are the numbers outside the face; the mask counts where `face_above > 0 and sigma <= face_above`.",
    ),
)

# --- 9.3 pair_agreement ----------------------------------------------------------------------------------------------


def pair_agreement(same: np.ndarray) -> float:
    """Over all pairs of different pictures, the mean of the share of what can be seen in which they agree: same (W, W, K)."""
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
        raise Wrong("NaN comes back: leave out what cannot be seen, as `np.nanmean` does.")
    half = "each pair is asked in one direction only. What cannot be seen depends on the second picture, so both directions count."
    compare(
        answer,
        pair_agreement,
        *cases,
        tolerance=1e-6,
        mistakes=[
            (
                "pictures are compared with themselves too, and there they agree in everything: leave the diagonal out.",
                lambda same: float(np.nanmean(same, axis=2).mean()),
            ),
            (
                "pictures are compared with themselves too, and all entries are pooled: leave the diagonal out, and take the mean of each pair first.",
                lambda same: float(np.nanmean(same)),
            ),
            (
                "what cannot be seen counts as a disagreement: the mean of a pair goes over what *can* be seen.",
                lambda same: without_self(same, np.nan_to_num(same).mean(axis=2)),
            ),
            (
                "what cannot be seen counts as an agreement: the mean of a pair goes over what *can* be seen.",
                lambda same: without_self(same, np.nan_to_num(same, nan=1.0).mean(axis=2)),
            ),
            (
                "the mean of all entries together gives a pair of which more can be seen more weight: first the mean of each pair, then that of all pairs.",
                lambda same: float(np.nanmean(same[~np.eye(len(same), dtype=bool)])),
            ),
            (
                "only neighbours are compared. A set can agree from picture to picture and drift from its beginning to its end.",
                neighbours,
            ),
            (
                "only neighbours are compared. A set can agree from picture to picture and drift from its beginning to its end.",
                earlier_neighbours,
            ),
            (
                "only the first picture is compared with the others: all pairs count.",
                lambda same: float(np.nanmean(same[0, 1:], axis=1).mean()),
            ),
            (half, lambda same: float(np.nanmean(same, axis=2)[np.triu_indices(len(same), 1)].mean())),
            (half, lambda same: float(np.nanmean(same, axis=2)[np.tril_indices(len(same), -1)].mean())),
        ],
    )


check_pair_agreement = Exercise(
    "9.3",
    "pair_agreement",
    "A set that agrees",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="What a figure means lies in its means: over what, in which order, and what is left out.",
    reference=pair_agreement,
    test=_test_pair_agreement,
    hints=(
        "Two means, one after the other: over the parts that can be seen, which makes a table (W, W), and over the pairs in it that are "
        "pairs of different pictures.",
        "`np.nanmean(same, axis=2)` is the table; `~np.eye(W, dtype=bool)` chooses what is not on its diagonal.",
    ),
)

# --- 9.4 as_good_as_alone --------------------------------------------------------------------------------------------


def _test_as_good_as_alone(answer) -> None:
    def above(name, error):
        return f"`{name}` agrees well, but its error of {error} lies above that of `alone`, which the left panel shows at 0.029."

    def left(name):
        return f"`{name}` has as small an error as `alone`, but another one that has so too lies further to the right."

    check_choice(
        answer,
        "mask_50",
        wrong={
            **{
                name: above(name, error)
                for name, error in {
                    "four": "0.037",
                    "no_mask": "0.037",
                    "two": "0.033",
                    "ours": "0.035",
                    "share_75": "0.032",
                    "above_25": "0.032",
                    "own_queries": "0.035",
                    "below_50": "0.030",
                    "last_blocks": "0.032",
                    "half_noise": "0.036",
                    "beside": "0.030",
                    "no_noise": "0.037",
                }.items()
            },
            **{name: left(name) for name in ("share_50", "above_50", "mask", "share_25", "above_75")},
            "first_blocks": "`first_blocks` lies a little above `alone`, and far to the left of others.",
            "ceiling": "the ceiling is of true drawings: no way to share reaches it. Read the blue dots.",
            "noise": "`noise` is no variant of ours, since no attention is shared in it; and blue dots lie further to the right at nearly its error.",
            "alone": "`alone` is what the others are held against.",
        },
    )


check_as_good_as_alone = Exercise(
    "9.4",
    "as_good_as_alone",
    "Agreement for nothing",
    "read",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A trade-off is read at a bound: fix what you are not willing to pay, and take the best of what is left.",
    reference=lambda: "mask_50",
    test=_test_as_good_as_alone,
    hints=(
        "Find the height of `alone` in the left panel, lay a level line at that height through the right panel, and forget all dots above it.",
        "The line lies a little below 0.0295. Of the dots below it, take the one furthest to the right.",
    ),
)

# --- 9.5 read_bank ---------------------------------------------------------------------------------------------------


def read_bank(image: QKV, condition: QKV, key: Tensor, value: Tensor) -> Tensor:
    """What the borrowers see, (G·N, L, C): each beside its own what was lent under its own condition, key and value (G, P, H, D)."""
    return _read(image, condition, *(x.repeat_interleave(len(image.key) // len(x), 0) for x in (key, value)))


def _read(image: QKV, condition: QKV, key: Tensor, value: Tensor) -> Tensor:
    return attend(image.query, *(torch.cat(parts, dim=1) for parts in zip(image[1:], condition[1:], (key, value))))


def _test_read_bank(answer) -> None:
    def case(conditions, count, lent):
        image, condition = (QKV(*torch.randn(3, conditions * count, tokens, 2, 8)) for tokens in (6, 3))
        return image, condition, *torch.randn(2, conditions, lent, 2, 8)

    def mistaken(spread: Callable, spread_value: Callable | None = None) -> Callable:
        def read(image, condition, key, value):
            count = len(image.key) // len(key)
            return _read(image, condition, spread(key, count), (spread_value or spread)(value, count))

        return read

    def in_blocks(x, count):
        return x.repeat_interleave(count, 0)

    def in_turns(x, count):
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
                "nothing that matters is changed: the conditions still take turns, A B A B, and the images of a batch stand in blocks, A A B B.",
                mistaken(in_turns),
            ),
            (
                "everybody reads what was lent under the first condition. Each borrower reads what was lent under its own.",
                mistaken(lambda x, count: x[:1].expand(len(x) * count, -1, -1, -1)),
            ),
            (
                "everybody reads the mean over the conditions, and so what guidance compares is mixed: each borrower reads under its own condition.",
                mistaken(lambda x, count: x.mean(dim=0, keepdim=True).expand(len(x) * count, -1, -1, -1)),
            ),
            (
                "everybody reads what was lent under all conditions: P tokens are lent to each borrower, those of its own condition.",
                mistaken(lambda x, count: x.flatten(0, 1)[None].expand(len(x) * count, -1, -1, -1)),
            ),
            (
                "the keys are in order now, and the values still take turns: a key belongs to its value.",
                mistaken(in_blocks, in_turns),
            ),
            (
                "the values are in order now, and the keys still take turns: a key belongs to its value.",
                mistaken(in_turns, in_blocks),
            ),
            (
                "the order of the conditions is reversed.",
                mistaken(lambda x, count: x.flip(0).repeat_interleave(count, 0)),
            ),
            (
                "nothing is lent: this is plain attention.",
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
    "9.5",
    "read_bank",
    "A bank that mixes accounts",
    "repair",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Whatever repeats along a batch has to know its order; with guidance a wrong one raises no error and looks nearly right.",
    reference=read_bank,
    test=_test_read_bank,
    hints=(
        "Write the letters of the conditions down, for G = 2 and N = 3: once as the images stand in the batch, and once as the copies of what was lent do.",
        "`Tensor.repeat` lays copies of the whole behind each other, A B A B A B. `Tensor.repeat_interleave(N, 0)` repeats each entry, A A A B B B.",
    ),
)

# --- 9.6 work_ratio --------------------------------------------------------------------------------------------------


def _test_work_ratio(answer) -> None:
    check_number(
        answer,
        612,
        within=0.5,
        wrong=[
            (27, "that is how many times more *queries* there are. Each of them asks more keys, too."),
            (
                729,
                "27² would be right if there were no condition: each query asks the 16 tokens of its condition as well, however large the set is.",
            ),
            (22.67, "that is by how many times more keys *one* query asks. There are more queries, too."),
            (1, "that would be of one image with the bank. Here all images lend, and the whole set is counted."),
            (
                135 * 2175 / (5 * 95),
                "count again: an image's own tokens are among those that it asks, 16 for each image and 16 of its condition.",
            ),
        ],
    )


check_work_ratio = Exercise(
    "9.6",
    "work_ratio",
    "A larger set",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="Whether a mechanism can be used for a large set is decided by one exponent, and it can be counted before anything is built.",
    reference=lambda: 612,
    test=_test_work_ratio,
    hints=(
        "Queries times keys: how many queries does a set of N images have, and how many keys does each of them ask?",
        "16 N queries, each asks 16 N + 16 keys.",
    ),
)
