"""The exercises of notebook 02: patches and positions."""

from __future__ import annotations

import torch
from torch import Tensor

from gen_affect_lib.course.checks import Exercise, Wrong, check_number, compare
from gen_affect_lib.course.checks.probes import operations
from gen_affect_lib.model import patches

# --- 2.1 looks_ratio -------------------------------------------------------------------------------------------------


def _test_looks_ratio(answer) -> None:
    check_number(
        answer,
        16,
        wrong=[
            (
                2,
                "that is the factor for the number of patches along one side. An image has two sides, and each token "
                "attends to every token.",
            ),
            (
                4,
                "that is the factor for the number of *tokens*. The number of pairs is the square of the number of "
                "tokens.",
            ),
            (8, "each side doubles in patches, so there are four times as many tokens, and 4² times as many pairs."),
            (1 / 16, "this is inverted: smaller patches make *more* pairs."),
            (256, "that would be right for patches of 2: here the patch is halved once."),
        ],
    )


check_looks_ratio = Exercise(
    "2.1",
    "looks_ratio",
    "Half the patch",
    "predict",
    difficulty=1,
    minutes=3,
    points=1,
    purpose="The number behind every choice of a patch size, and behind the latents of notebook 08.",
    reference=lambda: 16,
    test=_test_looks_ratio,
    hints=(
        "How many patches of 4 lie in one patch of 8? And how many pairs can be made of them?",
        "Four times as many tokens; the number of pairs is their square.",
    ),
)

# --- 2.2 unpatchify --------------------------------------------------------------------------------------------------


def _grid(rows: Tensor, height: int, width: int, p: int) -> Tensor:
    return rows.reshape(len(rows), height // p, width // p, p, p, -1)  # (B, L, p·p·K) -> (B, h, w, p, p, K)


def _test_unpatchify(answer) -> None:
    # The sizes of the axes differ, so that interchanged axes are noticed: no square images, no patch as large as K.
    cases = [
        (torch.randn(2, (height // p) * (width // p), p * p * K), height, width, p)
        for K, height, width, p in ((3, 8, 12, 2), (5, 6, 3, 3), (1, 4, 6, 1))
    ]
    compare(
        answer,
        patches.unpatchify,
        *cases,
        gradients=True,
        mistakes=[
            (
                "the numbers are only regrouped, in the order in which they are stored: a `permute` has to bring the "
                "axes (B, h, w, p, p, K) into the order (B, K, h, p, w, p) before the last reshape.",
                lambda rows, height, width, p: rows.reshape(len(rows), -1, height, width),
            ),
            (
                "h and the rows of pixels within a patch are interchanged: in the image the order is h, then p (a row "
                "of patches, then a row of pixels in it), and the same for the width.",
                lambda rows, height, width, p: (
                    _grid(rows, height, width, p).permute(0, 5, 3, 1, 4, 2).reshape(len(rows), -1, height, width)
                ),
            ),
            (
                "each patch is transposed: the first p is the row within a patch and goes to h, the second is the "
                "column and goes to w.",
                lambda rows, height, width, p: (
                    _grid(rows, height, width, p).permute(0, 5, 1, 4, 2, 3).reshape(len(rows), -1, height, width)
                ),
            ),
            (
                "the channels were taken as the first of the three axes within a patch. `patchify` puts them last: "
                "(p, p, K).",
                lambda rows, height, width, p: (
                    rows.reshape(len(rows), height // p, width // p, -1, p, p)
                    .permute(0, 3, 1, 4, 2, 5)
                    .reshape(len(rows), -1, height, width)
                ),
            ),
        ],
    )


check_unpatchify = Exercise(
    "2.2",
    "unpatchify",
    "The way back",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Whoever can undo a reshape has understood it; every image that the model draws goes through this "
    "function.",
    reference=patches.unpatchify,
    test=_test_unpatchify,
    hints=(
        "Read the three arrows above from right to left: give the axes their names again, put them back in order, and "
        "merge h with p and w with p.",
        "`patches.reshape(B, h, w, p, p, K)`, then `.permute(…)` to (B, K, h, p, w, p), then `.reshape(B, K, height, "
        "width)`.",
    ),
)

# --- 2.3 patchify_by_unfold ------------------------------------------------------------------------------------------


def _test_patchify_by_unfold(answer) -> None:
    def unfolded(images, p):
        return torch.nn.functional.unfold(images, p, stride=p)  # (B, K·p·p, L)

    compare(
        answer,
        patches.patchify,
        (torch.randn(2, 3, 8, 12), 2),
        (torch.randn(1, 5, 6, 9), 3),
        (torch.randn(2, 2, 4, 6), 1),
        gradients=True,
        mistakes=[
            (
                "these are still `unfold`'s own axes, (B, K·p·p, L): the axis of the tokens comes before that of their "
                "numbers.",
                unfolded,
            ),
            (
                "within a token the channels come first, as `unfold` leaves them, (K, p, p). `patchify` puts them "
                "last: (p, p, K).",
                lambda images, p: unfolded(images, p).transpose(1, 2),
            ),
            (
                "without `stride` the windows overlap, one at every pixel: give `stride=p` too.",
                lambda images, p: (
                    torch.nn.functional.unfold(images, p)
                    .transpose(1, 2)
                    .unflatten(2, (-1, p, p))
                    .permute(0, 1, 3, 4, 2)
                    .flatten(2)
                ),
            ),
            (
                "rows and columns within a patch are interchanged: the order is (row, column, channel).",
                lambda images, p: (
                    unfolded(images, p).transpose(1, 2).unflatten(2, (-1, p, p)).permute(0, 1, 4, 3, 2).flatten(2)
                ),
            ),
        ],
    )
    if not {"aten.im2col", "aten.unfold"} & set(operations(answer)(torch.randn(1, 2, 4, 4), 2)):
        raise Wrong("the numbers are right, but they do not come from `F.unfold`, which is the point here: call it.")


check_patchify_by_unfold = Exercise(
    "2.3",
    "patchify_by_unfold",
    "A cut from the shelf",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Two libraries that cut the same patches may still order their numbers differently, and weights then fit "
    "only one.",
    reference=patches.patchify,
    test=_test_patchify_by_unfold,
    hints=(
        "`F.unfold(images, p, stride=p)` gives (B, K·p·p, L). Name the three parts of its middle axis before you move "
        "anything.",
        "`.unflatten(1, (K, p, p))` gives (B, K, p, p, L); `patchify` returns (B, L, p, p, K), flattened from the "
        "third axis on.",
    ),
)

# --- 2.4 sincos_1d ---------------------------------------------------------------------------------------------------


def _angles(coordinates: Tensor, channels: int, base: float = 10_000.0) -> Tensor:
    speeds = base ** -(torch.arange(channels // 2, dtype=torch.float64) / (channels / 2))
    return torch.outer(coordinates.double(), speeds)


def _test_sincos_1d(answer) -> None:
    cases = [(torch.arange(5.0), 8), (torch.tensor([0.0, 0.25, 31.0]), 6), (torch.arange(2000.0, 2004.0), 16)]

    def interleaved(coordinates, channels):
        angles = _angles(coordinates, channels)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (N, C/2, 2) -> (N, C)

    def by_all_channels(coordinates, channels):
        speeds = 10_000.0 ** -(torch.arange(channels // 2, dtype=torch.float64) / channels)
        angles = torch.outer(coordinates.double(), speeds)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def both(angles, first=torch.sin, second=torch.cos):
        return torch.cat([first(angles), second(angles)], dim=1)

    def with_exponents(exponents):
        return lambda x, channels: both(
            torch.outer(x.double(), 10_000.0 ** -exponents(torch.arange(channels // 2).double(), channels / 2))
        )

    compare(
        answer,
        patches.sincos_1d,
        *cases,
        mistakes=[
            (
                "the angles are right, but the result was rounded to float32: return float64.",
                lambda x, channels: both(_angles(x, channels)).float(),
            ),
            (
                "the exponent divides by C/2 − 1. It is k / (C/2), which stays below 1.",
                with_exponents(lambda k, half: k / (half - 1)),
            ),
            ("k starts at 0, so that the first frequency is 1.", with_exponents(lambda k, half: (k + 1) / half)),
            ("sines and cosines alternate, but should form two blocks: all sines, then all cosines.", interleaved),
            (
                "the cosines come first: the order is all sines, then all cosines.",
                lambda x, channels: both(_angles(x, channels), torch.cos, torch.sin),
            ),
            (
                "the frequencies rise instead of falling: the exponent is −k / (C/2).",
                lambda x, channels: both(_angles(x, channels, 1e-4)),
            ),
            (
                "the exponent divides by C. There are C/2 frequencies, and k / (C/2) runs from 0 almost to 1.",
                by_all_channels,
            ),
            (
                "the numbers are right for small coordinates only: compute the angles in float64 "
                "(`dtype=torch.float64`, `.double()`), or large coordinates lose digits.",
                lambda x, channels: both(
                    (x[:, None] * (10_000.0 ** -(torch.arange(channels // 2) / (channels / 2)))).float()
                ).double(),
            ),
        ],
        tolerance=1e-9,
    )


check_sincos_1d = Exercise(
    "2.4",
    "sincos_1d",
    "The clock",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The same clock tells patches their place here and the network its noise level in notebook 03.",
    reference=patches.sincos_1d,
    test=_test_sincos_1d,
    hints=(
        "First the C/2 frequencies, a vector; then every coordinate times every frequency, a table (N, C/2); then "
        "sines and cosines of it.",
        "`torch.outer(coordinates.double(), speeds)` is the table. `torch.cat([….sin(), ….cos()], dim=1)` puts the "
        "blocks side by side.",
    ),
)
