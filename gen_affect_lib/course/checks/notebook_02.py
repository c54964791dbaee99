"""The exercises of notebook 02: patches and positions."""

from __future__ import annotations

import torch
from torch import Tensor

from gen_affect_lib.course.checks import Exercise, Wrong, check_number, compare, compare_modules
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
    purpose="Every image that the model generates goes through this function.",
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
    "The same patches by `unfold`",
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
    "Sines and cosines of a position",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The same vectors encode places here, and the noise level in notebook 03.",
    reference=patches.sincos_1d,
    test=_test_sincos_1d,
    hints=(
        "First the C/2 frequencies, a vector; then every coordinate times every frequency, a table (N, C/2); then "
        "sines and cosines of it.",
        "`torch.outer(coordinates.double(), speeds)` is the table. `torch.cat([….sin(), ….cos()], dim=1)` puts the "
        "blocks side by side.",
    ),
)

# --- 2.5 sincos_2d ---------------------------------------------------------------------------------------------------


def _two_dimensions(channels, size, span, *, line=None, row_first=False, together=None) -> Tensor:
    """Positions with one thing changed. line(size, span): the coordinates along one side."""
    coordinates = (line or (lambda size, span: torch.arange(size) * (span / size)))(size, span)
    width = channels if together else channels // 2
    along = patches.sincos_1d(coordinates, width)
    by_column, by_row = along[None].expand(size, size, -1), along[:, None].expand(size, size, -1)
    if together:
        return together(by_column, by_row).float()
    return torch.cat([by_row, by_column] if row_first else [by_column, by_row], dim=-1).float()


def _test_sincos_2d(answer) -> None:
    def mistaken(**change):
        return lambda *case: _two_dimensions(*case, **change)

    compare(
        answer,
        patches.sincos_2d,
        (16, 4, 4),
        (64, 16, 8),
        (48, 7, 3),
        mistakes=[
            (
                "row and column are interchanged: the first half of the channels encodes the column.",
                mistaken(row_first=True),
            ),
            (
                "`span` is not used. Coordinates run from 0 up to span, whatever the size of the table.",
                mistaken(line=lambda size, span: torch.arange(size)),
            ),
            (
                "the last coordinate is span itself. Neighbours are span / size apart, so the last is below it.",
                mistaken(line=lambda size, span: torch.linspace(0, span, size)),
            ),
            (
                "coordinates are divided by span and should be multiplied by span / size.",
                mistaken(line=lambda size, span: torch.arange(size) / span),
            ),
            (
                "row and column are added up, so that (1, 2) and (2, 1) are the same place: give each its own half of "
                "the channels.",
                mistaken(together=lambda column, row: column + row),
            ),
        ],
    )


check_sincos_2d = Exercise(
    "2.5",
    "sincos_2d",
    "Positions in two dimensions",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="This table is stored in every Stable Diffusion 3 checkpoint, number for number.",
    reference=patches.sincos_2d,
    test=_test_sincos_2d,
    hints=(
        "Compute one line of coordinates and its sines and cosines first, with half of the channels. Columns and rows "
        "use the same line.",
        "`line` is (size, channels / 2). `line[None].expand(size, size, -1)` depends on the column only, `line[:, "
        "None].expand(size, size, -1)` on the row only; concatenate them.",
    ),
)

# --- 2.6 PatchEmbed --------------------------------------------------------------------------------------------------


class _NoPositions(patches.PatchEmbed):
    def forward(self, images):
        return self.proj(patches.patchify(images, self.patch_size))


class _Corner(patches.PatchEmbed):
    def positions_of(self, h, w):
        return self.positions[:h, :w].reshape(h * w, -1)


class _Turned(patches.PatchEmbed):
    def positions_of(self, h, w):
        return super().positions_of(w, h)


class _First(patches.PatchEmbed):
    def positions_of(self, h, w):
        return self.positions.flatten(0, 1)[: h * w]


class _Before(patches.PatchEmbed):
    def forward(self, images):
        tokens = patches.patchify(images, self.patch_size)
        h, w = (side // self.patch_size for side in images.shape[-2:])
        return self.proj(tokens + self.positions_of(h, w).mean(-1, keepdim=True))


def _test_patch_embed(answer) -> None:
    compare_modules(
        answer,
        patches.PatchEmbed,
        dict(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=8),
        (torch.randn(2, 3, 8, 8),),
        (torch.randn(1, 3, 4, 12),),
        (torch.randn(2, 3, 16, 2),),
        mistakes=[
            ("the positions are not added: tokens are proj(patches) + positions.", _NoPositions),
            (
                "a small picture gets the positions of the table's upper left corner, not those in the middle.",
                _Corner,
            ),
            ("height and width are interchanged in the positions.", _Turned),
            (
                "the first positions of the flattened table are used, which belong to other places. Cut h rows and w "
                "columns out of the middle of the table, and then flatten.",
                _First,
            ),
            ("the positions are added before `proj`; they have the width of a token and are added to it.", _Before),
        ],
    )


check_PatchEmbed = Exercise(
    "2.6",
    "PatchEmbed",
    "The patch embedding",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="The way into the network, for pictures of any size.",
    reference=patches.PatchEmbed,
    test=_test_patch_embed,
    hints=(
        "For the middle: how many rows of the table are left over above and below h rows? Half of them are above.",
        "`top = (size - h) // 2`, `left = (size - w) // 2`; `positions[top : top + h, left : left + w].reshape(h * w, "
        "-1)`; `forward` returns `self.proj(patchify(images, p)) + self.positions_of(h, w)`.",
    ),
)
