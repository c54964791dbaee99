"""From an image to tokens and back: patches, their embedding, their position embeddings.

Letters: B images, K channels of the image (3 for RGB, 16 for latents), p side of a patch in pixels,
h × w patches, L = h·w tokens, C channels of a token. Taught in notebook 02.
"""

import torch
from torch import Tensor, nn

from gen_affect_lib.errors import UserError


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, K, h·p, w·p) to flattened patches (B, h·w, p·p·K), row by row; `unpatchify` is the inverse.

    Raises UserError unless the patch size divides height and width.
    """
    p = patch_size
    if images.ndim != 4:
        raise UserError(f"images of shape (B, K, height, width) expected, got {tuple(images.shape)}")
    B, K, height, width = images.shape
    for name, side in (("height", height), ("width", width)):
        if side % p:
            fits = [d for d in range(1, side + 1) if side % d == 0]
            raise UserError(f"patch_size {p} does not divide the {name} {side}: try one of {fits}")
    h, w = height // p, width // p
    grid = images.reshape(B, K, h, p, w, p)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(B, h * w, p * p * K)  # (B, h, w, p, p, K) -> (B, L, p·p·K)


def unpatchify(patches: Tensor, height: int, width: int, patch_size: int) -> Tensor:
    """Patches (B, h·w, p·p·K) to images (B, K, height, width); height and width are in pixels.

    Raises UserError if the number or the size of the patches does not fit.
    """
    p, h, w = patch_size, height // patch_size, width // patch_size
    B, L, numbers = patches.shape
    if L != h * w or numbers % (p * p):
        raise UserError(
            f"{L} patches of {numbers} numbers do not make an image of {height} × {width} in patches of {p} × {p}: "
            f"{h * w} patches of {p * p}·K numbers expected"
        )
    grid = patches.reshape(B, h, w, p, p, numbers // (p * p))
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(B, -1, height, width)  # (B, K, h, p, w, p) -> (B, K, height, width)


def sincos_1d(coordinates: Tensor, channels: int) -> Tensor:
    """Sines, then cosines, of each coordinate (N,) at channels / 2 frequencies: (N, channels), float64.

    The frequencies fall geometrically from 1 towards 1/10000. The angles are computed in float64, since float32 would
    round large ones.
    """
    frequencies = 10_000.0 ** -(torch.arange(channels // 2, dtype=torch.float64) / (channels / 2))
    angles = torch.outer(coordinates.double(), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(channels: int, size: int, span: float) -> Tensor:
    """Position embeddings of size × size patches: (size, size, channels), float32.

    Entry (row, column) is [sincos_1d of its column | sincos_1d of its row], half the channels each. Coordinates are
    in [0, span); a larger `size` over the same span is a finer grid. SD3 uses one such table for images of many sizes
    (Esser et al. 2024, arXiv 2403.03206; the same numbers as diffusers' `get_2d_sincos_pos_embed`).

    Raises UserError unless 4 divides the number of channels.
    """
    if channels % 4:
        raise UserError(f"sin and cos of row and column need channels divisible by 4, got {channels}")
    line = sincos_1d(torch.arange(size, dtype=torch.float32) / (size / span), channels // 2)  # (size, C/2)
    by_column = line[None, :, :].expand(size, size, -1)
    by_row = line[:, None, :].expand(size, size, -1)
    return torch.cat([by_column, by_row], dim=-1).float()


class PatchEmbed(nn.Module):
    """Images (B, K, height, width) to tokens (B, L, C): a linear map of each patch, plus its position embedding.

    The linear map equals a convolution whose stride is its kernel size. The position embeddings are not learned. An
    image of h × w patches uses the h × w entries in the centre of the table, so the centre of an image has the same
    position embedding at every size.

    Args:
        sample_size: side of the images that the network is made for, in pixels.
        patch_size: p.
        in_channels: K.
        dim: C.
        table_size: side of the table in patches; its coordinates span sample_size / p.
    """

    def __init__(self, sample_size: int, patch_size: int, in_channels: int, dim: int, table_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(patch_size * patch_size * in_channels, dim)
        # Saved with the weights: published SD3 checkpoints contain their table, rounded to half precision.
        self.positions: Tensor
        self.register_buffer("positions", sincos_2d(dim, table_size, span=sample_size // patch_size))

    def positions_of(self, h: int, w: int) -> Tensor:
        """The h × w entries in the centre of the table, (h·w, C). Raises UserError if the table is smaller."""
        size = self.positions.shape[0]
        if max(h, w) > size:
            raise UserError(
                f"{h} × {w} patches exceed the table of {size} × {size} positions: "
                f"give a smaller image or a larger pos_embed_max_size"
            )
        top, left = (size - h) // 2, (size - w) // 2
        return self.positions[top : top + h, left : left + w].reshape(h * w, -1)  # (h, w, C) -> (L, C)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.proj(patchify(images, self.patch_size))
        h, w = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        return tokens + self.positions_of(h, w)
