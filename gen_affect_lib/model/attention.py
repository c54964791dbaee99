"""Joint attention: image tokens and condition tokens attend to each other, with separate projections.

Letters: B images, L image tokens, M condition tokens, H heads, D channels per head, C = H·D channels of a token.
Queries, keys and values are (B, L, H, D) outside `attend`, so that tokens are joined and split along one dimension.
Taught in notebook 03.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.errors import UserError


class QKV(NamedTuple):
    """Queries, keys and values of one stream, each (B, L, H, D); query is None for a stream that is not updated."""

    query: Tensor | None
    key: Tensor
    value: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> QKV:
        """Apply a function to queries (if any), keys and values."""
        return QKV(None if self.query is None else function(self.query), function(self.key), function(self.value))


class JointAttention(Protocol):
    """The interface of `joint_attention`, and of anything that replaces it in the blocks of the MM-DiT.

    `consistent.AnchorBank.record` and `consistent.AnchorBank.read` are two replacements.

    Args:
        image, condition: queries, keys and values of both streams, (B, L, H, D) and (B, M, H, D). In the second
            attention of a dual block, which is over the image tokens only, condition is None.
        block: index of the block, from 0.
        sigma: noise level of the sampling step, the same for the whole batch, in [0, 1].

    Returns:
        The attention output of the image tokens (B, L, C) and of the condition tokens (B, M, C); the latter is None if
        there is no condition or it has no queries.
    """

    def __call__(
        self, image: QKV, condition: QKV | None, *, block: int, sigma: float
    ) -> tuple[Tensor, Tensor | None]: ...


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query·keyᵀ / √D)·value for every head: queries (B, L, H, D), keys and values (B, M, H, D) to (B, L, H·D).

    There is no mask: every query attends to every key, so PyTorch can use its fastest kernel.
    """
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # (B, L, H, D) -> (B, H, L, D)
    if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):  # there the kernel's backward pass is slow
        output = (query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)).softmax(dim=-1).to(value.dtype) @ value
    else:
        output = F.scaled_dot_product_attention(query, key, value)
    return output.transpose(1, 2).flatten(2)  # (B, H, L, D) -> (B, L, H·D)


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """softmax(query·keyᵀ / √D) of `attend`: queries (B, L, H, D), keys (B, M, H, D) to (B, H, L, M).

    For figures only: the fused kernel does not return the weights. Each row sums to 1.
    """
    scores = torch.einsum("blhd,bmhd->bhlm", query, key)
    return (scores / query.shape[-1] ** 0.5).softmax(dim=-1)


def joint_attention(
    image: QKV, condition: QKV | None, *, block: int = 0, sigma: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Attention over the tokens of both streams together, as a `JointAttention`. `block` and `sigma` are not used.

    This is the only place in the network where the two streams meet. Without condition tokens it is self-attention of
    the image. In the last block the condition has no queries, so its output is None.
    """
    assert image.query is not None
    if condition is None:
        return attend(image.query, image.key, image.value), None
    key = torch.cat([image.key, condition.key], dim=1)  # (B, L + M, H, D)
    value = torch.cat([image.value, condition.value], dim=1)
    if condition.query is None:
        return attend(image.query, key, value), None
    output = attend(torch.cat([image.query, condition.query], dim=1), key, value)
    of_image, of_condition = output.split([image.query.shape[1], condition.query.shape[1]], dim=1)
    return of_image, of_condition


def condition_attention(image: QKV, condition: QKV | None) -> Tensor | None:
    """The condition's output of `joint_attention`: (B, M, C), or None if it has no queries or there is none."""
    if condition is None or condition.query is None:
        return None
    key = torch.cat([image.key, condition.key], dim=1)  # (B, L + M, H, D)
    value = torch.cat([image.value, condition.value], dim=1)
    return attend(condition.query, key, value)


class RMSNorm(nn.Module):
    """x / √mean(x²) over the D channels of each head, times a learned weight (D,).

    On queries and keys it bounds the dot products, so that training stays stable and half precision does not overflow
    (Dehghani et al. 2023, arXiv 2302.05442).
    """

    def __init__(self, head_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x is bfloat16 and the weight is not; the fused kernel needs one dtype.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-6)


def head_norm(head_dim: int, qk_norm: str | None) -> nn.Module:
    """The norm of queries or keys: "rms_norm", or None for the identity. Raises UserError for another name."""
    if qk_norm is None:
        return nn.Identity()
    if qk_norm == "rms_norm":
        return RMSNorm(head_dim)
    raise UserError(f'qk_norm {qk_norm!r} is not known: try "rms_norm" or None')


class Projections(nn.Module):
    """One stream's projections: tokens (B, L, C) to `QKV`, and the attention output (B, L, C) back to (B, L, C).

    One fused matrix computes queries, keys and values.
    """

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.norm_q = head_norm(dim // num_heads, qk_norm)
        self.norm_k = head_norm(dim // num_heads, qk_norm)
        self.to_out = nn.Linear(dim, dim)

    def qkv(self, x: Tensor) -> QKV:
        B, L, C = x.shape
        qkv = self.to_qkv(x).view(B, L, 3, self.num_heads, C // self.num_heads)  # (B, L, 3·C) -> (B, L, 3, H, D)
        query, key, value = qkv.unbind(2)
        return QKV(self.norm_q(query), self.norm_k(key), value)


class KeyValueProjections(nn.Module):
    """Tokens (B, L, C) to keys and values only, for a stream that is attended to and not updated."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None):
        super().__init__()
        self.num_heads = num_heads
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.norm_k = head_norm(dim // num_heads, qk_norm)

    def qkv(self, x: Tensor) -> QKV:
        B, L, C = x.shape
        kv = self.to_kv(x).view(B, L, 2, self.num_heads, C // self.num_heads)  # (B, L, 2·C) -> (B, L, 2, H, D)
        key, value = kv.unbind(2)
        return QKV(None, self.norm_k(key), value)
