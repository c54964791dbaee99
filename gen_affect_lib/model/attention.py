"""Joint attention: image tokens and condition tokens ask each other, each through projections of their own.

Letters: B images, L tokens, H heads, D channels per head, C = H·D. Queries, keys and values are (B, L, H, D) outside
`attend`, so that tokens can be joined, shared and split along one plain dimension. Taught in notebook 03.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen_affect_lib.errors import UserError


class QKV(NamedTuple):
    """What a stream brings to attention, each (B, L, H, D); `query` is None for a stream that asks nothing."""

    query: Tensor | None
    key: Tensor
    value: Tensor


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query·keyᵀ / √D)·value for every head.

    Queries (B, L, H, D) ask keys and values (B, M, H, D) and get (B, L, H·D). There is no mask: every token may see
    every other, and without one PyTorch takes its fastest kernel.
    """
    seen = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return seen.transpose(1, 2).flatten(2)  # (B, H, L, D) -> (B, L, H·D)


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """Who looks at whom: the softmax by which `attend` takes the mean of the values, for those who want to see it.

    Queries (B, L, H, D) and keys (B, M, H, D) to (B, H, L, M); each row adds up to 1.
    """
    scores = torch.einsum("blhd,bmhd->bhlm", query, key)
    return (scores / query.shape[-1] ** 0.5).softmax(dim=-1)


def joint_attention(image: QKV, condition: QKV) -> tuple[Tensor, Tensor | None]:
    """Attention over the tokens of both streams together: what the image saw and what the condition saw.

    Each is (B, L, C), with the L of its stream. This is the only place of the network where the two streams meet.
    Without condition tokens it is plain self-attention; where the condition asks nothing (the last block), it sees
    nothing: None.
    """
    key = torch.cat([image.key, condition.key], dim=1)
    value = torch.cat([image.value, condition.value], dim=1)
    if condition.query is None:
        return attend(image.query, key, value), None
    seen = attend(torch.cat([image.query, condition.query], dim=1), key, value)
    return seen.split([image.query.shape[1], condition.query.shape[1]], dim=1)


class RMSNorm(nn.Module):
    """Root mean square 1 over the D channels of each head, times a learned weight (D,).

    On queries and keys it keeps dot products from growing without bound, and with them the softmax, and half precision,
    healthy (Dehghani et al. 2023, arXiv 2302.05442).
    """

    def __init__(self, head_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x is bfloat16 and the weight is not: with one dtype for both the fused kernel can be taken.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-6)


def head_norm(head_dim: int, qk_norm: str | None) -> nn.Module:
    """The norm of queries or keys by its name in the config: "rms_norm", or None for none."""
    if qk_norm is None:
        return nn.Identity()
    if qk_norm == "rms_norm":
        return RMSNorm(head_dim)
    raise UserError(f'qk_norm {qk_norm!r} is not known: try "rms_norm" or None')


class Projections(nn.Module):
    """A stream's own way into attention and out of it: tokens (B, L, C) to `QKV`, and what was seen back to (B, L, C).

    One matrix makes queries, keys and values at once.
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


class LentProjections(nn.Module):
    """Tokens (B, L, C) to keys and values alone, for a stream that asks nothing."""

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
