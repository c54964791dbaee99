"""Consistent attention: the images of one set look at each other, so that they agree on what the condition leaves open.

The paper's third idea, at inference alone: nothing is trained for it. In joint attention, image tokens also see keys and
values that other images of the set *lend*. The condition's tokens stay private: they neither lend nor see what is lent,
so each image keeps its own expression (a relative of Tewel et al. 2024, ConsiStory, and of Hertz et al. 2024, StyleAligned).

Everything here stands in the place of `joint_attention`: the MM-DiT takes it as its argument `attention`.

- `SharedAttention` draws a whole set at once, by a plain loop (`loop`, what notebook 09 teaches) or packed (`packed`,
  without a loop); the same numbers come out.
- `AnchorBank` has the lenders drawn first and keeps what they lent. Any further image reads there, today or tomorrow.

Letters: G conditions that guidance compares, N images of a set (B = G·N, all N of a condition side by side), A lenders, P
tokens that each lends, L image tokens, M condition tokens, H heads, D channels per head, C = H·D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from gen_affect_lib.avatars.regions import face_tokens
from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer
from gen_affect_lib.model.attention import QKV, attend, joint_attention

CONSISTENT_ATTENTION = Producer("consistent attention", 1)


@dataclass(frozen=True)
class Consistency:
    """Who lends what, and when. The defaults are those that notebook 09's study chose.

    Attributes:
        anchors: the first so many images of the set lend; None: all do.
        share: of the tokens that may lend, so many do, in [0, 1]: drawn anew at each step, the same ones of all lenders.
        above, below: they lend while sigma lies between the two, both included.
        blocks: numbers of the blocks in which they lend; None: in all.
        face_above: tokens on brows, eyes and mouth lend only while sigma is above this: at 0 like all others, at 1 never.
        instead: lent tokens stand in the place of the borrower's own of the same numbers; else beside them.
        queries: the borrower's tokens of these numbers ask with the lenders' queries, the mean of them.
        shared_noise: how much of the variance of the others' noise is the first image's noise, in [0, 1].
        seed: of the draw of tokens.
    """

    anchors: int | None = 1
    share: float = 1.0
    above: float = 0.0
    below: float = 1.0
    blocks: Sequence[int] | None = None
    face_above: float = 0.15
    instead: bool = True
    queries: bool = True
    shared_noise: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.anchors is not None and self.anchors < 1:
            raise UserError(f"{self.anchors} anchors: give at least 1, or None for all images of the set")
        for name in ("share", "above", "below", "face_above", "shared_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is not in [0, 1]")

    def lends(self, sigma: float, block: int) -> bool:
        return self.share > 0 and self.above <= sigma <= self.below and (self.blocks is None or block in self.blocks)

    def lenders(self, count: int) -> int:
        """A, of a set of `count`."""
        return count if self.anchors is None else min(self.anchors, count)

    def tokens(self, side: int, sigma: float) -> Tensor:
        """The numbers of the tokens that lend at this step, ascending (P,), in a picture of `side` x `side` tokens."""
        may = torch.ones(side, side, dtype=torch.bool)
        if self.face_above and sigma <= self.face_above:
            may &= ~face_tokens(side)
        numbers = may.flatten().nonzero()[:, 0]  # (side, side) -> (L,) -> (P,)
        count = round(self.share * len(numbers))
        if count < len(numbers):
            draw = torch.Generator().manual_seed(self.seed * 1_000_003 + round(1e5 * sigma))
            numbers = numbers[torch.randperm(len(numbers), generator=draw)[:count]].sort().values
        return numbers

    def lent(self, image: QKV, sigma: float) -> Tensor:
        """`tokens` of square pictures with these streams (B, L, H, D), where they are."""
        return self.tokens(round(image.key.shape[1] ** 0.5), sigma).to(image.key.device)


def as_consistency(given: float | Consistency) -> Consistency | None:
    """A number as the share of the tokens that lend, the rest as by default; None for 0. Raises UserError outside [0, 1]."""
    if isinstance(given, Consistency):
        return given
    if not isinstance(given, (int, float)) or not 0 <= given <= 1:
        raise UserError(f"consistency {given!r}: give a number from 0 (each image alone) to 1, or a Consistency")
    return Consistency(share=float(given)) if given else None


# --- what stands in the place of joint attention ---------------------------------------------------------------------


def loop(image: QKV, condition: QKV, members: int, lenders: int, lent: Tensor, instead: bool = False) -> Tensor:
    """What each image saw (B, L, C), one image after the other: its own tokens, its condition, and what the *other*
    lenders lend, their tokens of the numbers `lent` (P,). With `instead`, whoever lends none sees none of its own of them."""
    seen, kept = [], but(lent, image)
    for one in range(len(image.query)):
        first = one - one % members  # where the images under the same condition begin: no other ones are looked at
        others = [first + n for n in range(lenders) if first + n != one]
        own = kept if instead and one - first >= lenders else slice(None)
        key = torch.cat(
            [image.key[one, own], condition.key[one], *image.key[others][:, lent]]
        )  # (L + M + P (A - 1 or A), H, D)
        value = torch.cat([image.value[one, own], condition.value[one], *image.value[others][:, lent]])
        seen.append(attend(image.query[one, None], key[None], value[None]))
    return torch.cat(seen)


def packed(image: QKV, condition: QKV, members: int, lenders: int, lent: Tensor, instead: bool = False) -> Tensor:
    """The same without a loop, and without a copy of what is lent for each who looks at it.

    All tokens of the set ask the pool of lent ones in one attention, and each image asks in another what is its own; the
    two are joined by the sums of their softmaxes. An image's own lent tokens are in the pool already.
    """
    query, key, value = (x.unflatten(0, (-1, members)) for x in image)  # (B, L, H, D) -> (G, N, L, H, D)
    own_key, own_value = (x.unflatten(0, (-1, members)) for x in condition[1:])  # (B, M, H, D) -> (G, N, M, H, D)
    pool = [x[:, :lenders, lent].flatten(1, 2) for x in (key, value)]  # (G, A, P, H, D) -> (G, A·P, H, D)
    pooled = weighted(query.flatten(1, 2), *pool)  # of (G, N·L, H, D)
    kept = but(lent, image)

    own = []
    borrowers = slice(lenders, None), kept if instead else slice(None)
    for who, tokens in ((slice(0, lenders), kept), borrowers)[: 1 + (lenders < members)]:
        keys = torch.cat([key[:, who, tokens], own_key[:, who]], dim=2).flatten(
            0, 1
        )  # (G, A, ·, H, D) -> (G·A, ·, H, D)
        values = torch.cat([value[:, who, tokens], own_value[:, who]], dim=2).flatten(0, 1)
        seen, total = weighted(query[:, who].flatten(0, 1), keys, values)  # (G·A, L, H, D), (G·A, L, H, 1)
        own.append([x.unflatten(0, (len(query), -1)) for x in (seen, total)])
    own_seen, own_total = (torch.cat(parts, dim=1) for parts in zip(*own))  # (G, N, L, H, D), (G, N, L, H, 1)
    pool_seen, pool_total = (x.unflatten(1, (members, -1)) for x in pooled)  # (G, N·L, H, ·) -> (G, N, L, H, ·)
    share = torch.sigmoid(pool_total - own_total)  # of the softmax over both that falls on the pool
    return torch.lerp(own_seen, pool_seen, share).flatten(0, 1).flatten(2)  # (G, N, L, H, D) -> (B, L, C)


def but(lent: Tensor, image: QKV) -> Tensor:
    """Which tokens of an image are not among the lent ones, bool (L,)."""
    kept = torch.ones(image.key.shape[1], dtype=torch.bool, device=image.key.device)
    kept[lent] = False
    return kept


def weighted(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, L, H, D), and the logarithm of the sum under its softmax (B, L, H, 1), by which it can be joined with
    attention over other keys (as in Milakov & Gimelshein 2018, arXiv 1805.02867)."""
    scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * query.shape[-1] ** -0.5  # (B, H, L, D) @ (B, H, D, K)
    seen = scores.softmax(dim=-1) @ value.transpose(1, 2)  # (B, H, L, D)
    return seen.transpose(1, 2), scores.logsumexp(dim=-1, keepdim=True).transpose(1, 2)


@dataclass(frozen=True)
class SharedAttention:
    """All images of a set at once, at one step: call it as the MM-DiT does, with both streams' `QKV` and the block's number.

    Attributes:
        consistency: who lends what. members: N. sigma: of this step.
        attend_set: `packed`, or the plain `loop`.
    """

    consistency: Consistency
    members: int
    sigma: float
    attend_set: Callable = packed

    def __call__(self, image: QKV, condition: QKV, block: int) -> tuple[Tensor, Tensor | None]:
        if not self.consistency.lends(self.sigma, block) or self.members == 1:
            return joint_attention(image, condition)
        lent = self.consistency.lent(image, self.sigma)
        lenders = self.consistency.lenders(self.members)
        asking = self.as_the_lenders(image.query, lenders, lent) if self.consistency.queries else image.query
        seen = self.attend_set(
            image._replace(query=asking), condition, self.members, lenders, lent, self.consistency.instead
        )
        return seen, seen_by_condition(image, condition)

    def as_the_lenders(self, query: Tensor, lenders: int, lent: Tensor) -> Tensor:
        """Queries (B, L, H, D) with the mean of the lenders' in the place of the borrowers' of the numbers `lent`."""
        query = query.unflatten(0, (-1, self.members)).clone()  # (B, L, H, D) -> (G, N, L, H, D)
        query[:, lenders:, lent] = query[:, :lenders, lent].mean(dim=1, keepdim=True)
        return query.flatten(0, 1)


def seen_by_condition(image: QKV, condition: QKV) -> Tensor | None:
    """The condition's half of `joint_attention`: nothing is lent to it."""
    if condition.query is None:
        return None
    key, value = (torch.cat(pair, dim=1) for pair in zip(image[1:], condition[1:]))  # (B, L + M, H, D)
    return attend(condition.query, key, value)


@dataclass
class AnchorBank:
    """What the anchors of a set lent, step by step and block by block.

    `recording(sigma)` is the attention under which the anchors are drawn, and `reading(sigma)` that of everybody after
    them. Time and memory grow with each further image alone, not with how many there are already.

    Attributes:
        consistency: who lends what.
        made_with: steps and scales of the sampling, which have to be the same for whoever reads.
        common: the noise of the set's first image (1, C, s, s), once there is one.
        kept: (sigma, block) -> keys and values (G, A·P, H, D), and the mean of the queries (G, P, H, D).
    """

    consistency: Consistency
    made_with: tuple = ()
    common: Tensor | None = None
    kept: dict[tuple[float, int], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def noise(self, own: Tensor) -> Tensor:
        """The initial noise of images (N, C, s, s), still of variance 1, with the first one's share in it."""
        if self.common is None:
            self.common = own[:1]
            return torch.cat([own[:1], self.noise(own[1:])])
        share = self.consistency.shared_noise
        return share**0.5 * self.common + (1 - share) ** 0.5 * own

    def parts(self, count: int) -> list[tuple[slice, Callable]]:
        """Which of `count` images are drawn one after the other, and under which attention, a function of sigma: the anchors
        of a new set, then the others; all at once where the set is begun already."""
        lenders = 0 if self.kept else self.consistency.lenders(count)
        parts = [(slice(0, lenders), partial(self.recording, members=lenders)), (slice(lenders, count), self.reading)]
        return [(who, attention) for who, attention in parts if who.start < who.stop]

    def recording(self, sigma: float, members: int):
        shared = SharedAttention(self.consistency, members, sigma)

        def attention(image: QKV, condition: QKV, block: int):
            if self.consistency.lends(sigma, block):
                lent = self.consistency.lent(image, sigma)
                query, key, value = (
                    x.unflatten(0, (-1, members))[:, :, lent] for x in image
                )  # (B, L, ·) -> (G, A, P, ·)
                self.kept[sigma, block] = (
                    key.flatten(1, 2),
                    value.flatten(1, 2),
                    query.mean(dim=1),
                )  # (G, A·P, ·), (G, P, ·)
            return shared(image, condition, block)

        return attention

    def reading(self, sigma: float):
        def attention(image: QKV, condition: QKV, block: int):
            if (sigma, block) not in self.kept:
                return joint_attention(image, condition)
            *lent, asking = (
                x.repeat_interleave(len(image.key) // len(x), 0) for x in self.kept[sigma, block]
            )  # (B, ·, H, D)
            which, own = self.consistency.lent(image, sigma), image[1:]
            if self.consistency.instead:
                own = (x[:, but(which, image)] for x in own)
            key, value = (torch.cat(parts, dim=1) for parts in zip(own, condition[1:], lent))  # (B, L + M + A·P, H, D)
            query = image.query.index_copy(1, which, asking) if self.consistency.queries else image.query
            return attend(query, key, value), seen_by_condition(image, condition)

        return attention

    @property
    def bytes(self) -> int:
        return sum(x.nbytes for pair in self.kept.values() for x in pair)
