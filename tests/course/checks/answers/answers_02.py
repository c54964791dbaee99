"""Answers to the exercises of notebook 02, as students write them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.course.checks.answers import Answers

# --- unpatchify ---


def by_einops_in_words(patches, height, width, patch_size):
    p = patch_size
    rows = patches.unflatten(1, (height // p, width // p)).unflatten(3, (p, p, -1))
    return rows.movedim(5, 1).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def by_a_loop(patches, height, width, patch_size):
    p = patch_size
    picture = torch.zeros(len(patches), patches.shape[2] // (p * p), height, width)
    for number in range(patches.shape[1]):
        row, column = number // (width // p) * p, number % (width // p) * p
        picture[:, :, row : row + p, column : column + p] = (
            patches[:, number].reshape(len(patches), p, p, -1).permute(0, 3, 1, 2)
        )
    return picture


def only_reshaped(patches, height, width, patch_size):
    return patches.reshape(patches.shape[0], -1, height, width)


def patches_on_their_side(patches, height, width, patch_size):
    p = patch_size
    x = patches.view(len(patches), height // p, width // p, p, p, -1)
    return torch.einsum("bhwijk->bkhjwi", x).reshape(len(patches), -1, height, width)


def channels_first(patches, height, width, patch_size):
    p = patch_size
    x = patches.view(len(patches), height // p, width // p, -1, p, p)
    return torch.einsum("bhwkij->bkhiwj", x).reshape(len(patches), -1, height, width)


def pixels_before_patches(patches, height, width, patch_size):
    p = patch_size
    x = patches.view(len(patches), height // p, width // p, p, p, -1)
    return torch.einsum("bhwijk->bkihjw", x).reshape(len(patches), -1, height, width)


# --- patchify_by_unfold ---


def unfold_then_view(images, patch_size):
    B, K = images.shape[:2]
    columns = F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)
    return columns.reshape(B, -1, K, patch_size**2).transpose(2, 3).reshape(B, -1, patch_size**2 * K)


def tensor_unfold(images, patch_size):
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (B, K, h, w, p, p)
    return windows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def without_unfold(images, patch_size):
    B, K, height, width = images.shape
    grid = images.reshape(B, K, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def no_transpose(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size)


def channels_stay_first(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size).mT


def without_stride(images, patch_size):
    x = F.unfold(images, patch_size).mT
    return x.unflatten(2, (images.shape[1], -1)).transpose(2, 3).flatten(2)


def through_numpy(images, patch_size):
    return torch.from_numpy(unfold_then_view(images, patch_size).detach().numpy())


# --- sincos_1d ---


def by_exp_and_log(coordinates, channels):
    half = channels // 2
    speeds = torch.exp(-np.log(10_000) * torch.arange(half, dtype=torch.float64) / half)
    x = coordinates.to(torch.float64)[:, None] * speeds[None]
    return torch.hstack([torch.sin(x), torch.cos(x)])


def hand_by_hand(coordinates, channels):
    speeds = [10_000 ** (-k / (channels // 2)) for k in range(channels // 2)]
    columns = [torch.sin(coordinates.double() * w) for w in speeds] + [
        torch.cos(coordinates.double() * w) for w in speeds
    ]
    return torch.stack(columns, 1)


def cosines_first(coordinates, channels):
    return by_exp_and_log(coordinates, channels).roll(channels // 2, 1)


def taking_turns(coordinates, channels):
    x = by_exp_and_log(coordinates, channels)
    y = torch.empty_like(x)
    y[:, 0::2], y[:, 1::2] = x.chunk(2, 1)
    return y


def divided_by_all(coordinates, channels):
    w = 10_000 ** (-torch.arange(channels // 2).double() / channels)
    x = coordinates.double()[:, None] * w
    return torch.cat([x.sin(), x.cos()], 1)


def rising(coordinates, channels):
    w = 10_000 ** (torch.arange(channels // 2).double() / (channels // 2))
    x = coordinates.double()[:, None] * w
    return torch.cat([x.sin(), x.cos()], 1)


# --- sincos_2d ---


def by_meshgrid(channels, size, span):
    steps = torch.arange(size).double() * span / size
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    parts = [by_exp_and_log(x.flatten(), channels // 2).unflatten(0, (size, size)) for x in (columns, rows)]
    return torch.cat(parts, -1).float()


def cell_by_cell(channels, size, span):
    along = by_exp_and_log(torch.arange(size).double() / size * span, channels // 2)
    return torch.stack(
        [torch.stack([torch.cat([along[c], along[r]]) for c in range(size)]) for r in range(size)]
    ).float()


def placed(steps=lambda size, span: torch.arange(size).double() * span / size, swap=False):
    def answer(channels, size, span):
        along = by_exp_and_log(steps(size, span), channels // 2)
        column, row = along.expand(size, size, -1), along.unsqueeze(1).expand(size, size, -1)
        return torch.cat([row, column] if swap else [column, row], 2).float()

    return answer


def summed(channels, size, span):
    along = by_exp_and_log(torch.arange(size).double() * span / size, channels)
    return (along[None] + along[:, None]).float()


# --- PatchEmbed ---


class Embed(nn.Module):
    def __init__(self, sample_size, patch_size, in_channels, dim, table_size):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(patch_size * patch_size * in_channels, dim)
        self.register_buffer("positions", by_meshgrid(dim, table_size, sample_size // patch_size))

    def places(self, h, w):
        spare_rows, spare_columns = self.positions.shape[0] - h, self.positions.shape[1] - w
        return self.positions.narrow(0, spare_rows // 2, h).narrow(1, spare_columns // 2, w).flatten(0, 1)

    def forward(self, images):
        h, w = (side // self.patch_size for side in images.shape[2:])
        return self.places(h, w) + self.proj(unfold_then_view(images, self.patch_size))


class ByConvolution(Embed):
    def forward(self, images):
        p, K = self.patch_size, images.shape[1]
        weight = self.proj.weight.unflatten(1, (p, p, K)).permute(0, 3, 1, 2)
        tokens = torch.nn.functional.conv2d(images, weight, self.proj.bias, stride=p)  # (B, C, h, w)
        return tokens.flatten(2).mT + self.places(*tokens.shape[2:])


class Nowhere(Embed):
    def places(self, h, w):
        return 0


class UpperLeft(Embed):
    def places(self, h, w):
        return self.positions[:h, :w].flatten(0, 1)


class Sideways(Embed):
    def places(self, h, w):
        return super().places(w, h)


class Flattened(Embed):  # right for pictures as large as the table, the only ones that many people try
    def places(self, h, w):
        return self.positions.reshape(-1, self.positions.shape[2])[: h * w]


ANSWERS = {
    "looks_ratio": Answers(
        right=[lambda: 16, lambda: 4.0**2],
        wrong=[
            (lambda: 4, "number of *tokens*"),
            (lambda: 2, "one side"),
            (lambda: 8, "each side doubles"),
            (lambda: "many", "return a number"),
        ],
    ),
    "unpatchify": Answers(
        right=[by_einops_in_words, by_a_loop],
        wrong=[
            (only_reshaped, "only regrouped"),
            (patches_on_their_side, "is transposed"),
            (channels_first, "as the first of the three"),
            (pixels_before_patches, "interchanged"),
        ],
    ),
    "patchify_by_unfold": Answers(
        right=[unfold_then_view, tensor_unfold],
        wrong=[
            (no_transpose, "own axes"),
            (channels_stay_first, "channels come first"),
            (without_stride, "overlap"),
            (through_numpy, "gradients are not"),
            (without_unfold, "do not come from `F.unfold`"),
        ],
    ),
    "sincos_1d": Answers(
        right=[by_exp_and_log, hand_by_hand],
        wrong=[
            (cosines_first, "cosines come first"),
            (taking_turns, "alternate"),
            (divided_by_all, "divides by C"),
            (rising, "rise instead"),
        ],
    ),
    "sincos_2d": Answers(
        right=[by_meshgrid, cell_by_cell],
        wrong=[
            (placed(swap=True), "interchanged"),
            (placed(lambda size, span: torch.arange(size)), "`span` is not used"),
            (placed(lambda size, span: torch.linspace(0, span, size)), "span itself"),
            (placed(lambda size, span: torch.arange(size) / span), "divided by span"),
            (summed, "added up"),  # a vector for every place, and the same for (1, 2) and (2, 1)
        ],
    ),
    "PatchEmbed": Answers(
        right=[Embed, ByConvolution],
        wrong=[
            (Nowhere, "not added"),
            (UpperLeft, "upper left corner"),
            (Sideways, "height and width"),
            (Flattened, "flattened table"),
        ],
    ),
}
