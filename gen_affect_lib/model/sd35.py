"""The published sizes of Stable Diffusion 3.5, and the memory that they and their sets of images need.

The sizes are those of the files transformer/config.json of stabilityai/stable-diffusion-3.5-medium and -large.

Letters as in `model.consistent`: G conditions, A anchors, P shared tokens of each anchor, L image tokens, C channels of
a token.
"""

from typing import Any

import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.model.mmdit import MMDiT

COMMON: dict[str, Any] = dict(
    sample_size=128,
    patch_size=2,
    in_channels=16,
    attention_head_dim=64,
    joint_attention_dim=4096,
    pooled_projection_dim=2048,
    qk_norm="rms_norm",
)
MEDIUM: dict[str, Any] = COMMON | dict(
    num_layers=24, num_attention_heads=24, pos_embed_max_size=384, dual_attention_layers=tuple(range(13))
)
LARGE: dict[str, Any] = COMMON | dict(
    num_layers=38, num_attention_heads=38, pos_embed_max_size=192, dual_attention_layers=()
)
TEXT_TOKENS = 77 + 256  # M
VAE_DOWNSCALE = 8  # pixels of a picture for each of a latent


def sd35_medium(**sizes) -> MMDiT:
    """An MMDiT of SD3.5 medium's size, 2.2 billion parameters, with new weights; `sizes` replace some of its sizes.

    In `with torch.device("meta"):` it needs no memory. `parity.load_diffusers` reads the published weights.
    """
    return MMDiT(**(MEDIUM | sizes))


def sd35_large(**sizes) -> MMDiT:
    """An MMDiT of SD3.5 large's size, 8.1 billion parameters; otherwise as `sd35_medium`."""
    return MMDiT(**(LARGE | sizes))


def image_tokens(height: int, width: int, patch_size: int = 2, downscale: int = VAE_DOWNSCALE) -> int:
    """L of a picture of height × width pixels."""
    return (height // downscale // patch_size) * (width // downscale // patch_size)


def bytes_of_step(
    sizes: dict, tokens: int, conditions: int = 2, consistency: Consistency | None = None, bytes_per_number: int = 2
) -> int:
    """What the anchors of a set keep for one sampling step, in bytes: `SharedStep.bytes`.

    In each attention layer (one in a block, two in a dual block) and under each of G conditions: keys and values of A·P
    tokens, and the mean queries of P tokens, of C channels each.

    Args:
        sizes: of the model, as `MEDIUM`.
        tokens: P, at most the `image_tokens` of a picture.
        conditions: G, 2 with guidance.
        consistency: its anchors and blocks count; None: the default, one anchor and all blocks.
        bytes_per_number: 2 in bfloat16, 4 in float32.

    Sampled in lockstep (`fullscale.base`), a set keeps this once. A bank to which further images can be added keeps it
    for each step.
    """
    consistency = consistency or Consistency()
    if consistency.anchors is None:
        raise UserError("the number of anchors depends on the set: give a Consistency with a number of anchors")
    blocks = range(sizes["num_layers"]) if consistency.blocks is None else consistency.blocks
    layers = sum(2 if block in sizes["dual_attention_layers"] else 1 for block in blocks)
    dim = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    return layers * conditions * (2 * consistency.anchors + 1) * tokens * dim * bytes_per_number


def table_of_sets(steps: int = 28, anchors: int = 1) -> list[dict]:
    """GB of sets in bfloat16 with guidance: one row for each model and side of the pictures in pixels.

    "weights": of the MM-DiT; "lockstep": what the anchors keep for one step; "bank": for all steps. Each picture is
    evaluated by a fused kernel, which holds no attention weights, so nothing grows with the square of the set.
    """
    rows = []
    for name, sizes in (("medium", MEDIUM), ("large", LARGE)):
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in MMDiT(**sizes).parameters())
        for side in (512, 1024):
            step = bytes_of_step(sizes, image_tokens(side, side), consistency=Consistency(anchors=anchors))
            figures = {"weights": 2 * weights, "lockstep": step, "bank": steps * step}
            rows.append({"model": name, "pixels": side} | {kind: size / 1e9 for kind, size in figures.items()})
    return rows
