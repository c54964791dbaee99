"""Consistent attention: the images of a set share keys and values, so that clothes and background agree.

The third idea of Gen-AFFECT. It is used at inference only; nothing is trained. The first images of a set are the
*anchors*. In joint attention, the image tokens of every other image also attend to the anchors' keys and values.
Condition tokens are not shared and do not attend to other images, so each image keeps its own expression. Related
methods: ConsiStory (Tewel et al. 2024), StyleAligned (Hertz et al. 2024), MasaCtrl (Cao et al. 2023).

`shared_attention` is the mechanism; notebook 09 builds it by hand. `SharedStep` applies it in one sampling step, and
`AnchorBank` to a whole set: the anchors are sampled first, and their queries, keys and values are kept for all further
images.

Letters: G conditions that guidance combines, N images of a set, A anchors, P shared tokens of each anchor, L image
tokens in h rows and w columns, M condition tokens, H heads, D channels per head, C = H·D channels of a token, K
channels and s side of the latents. A batch is B = G·N: all images under the first condition, then all under the second,
and so on.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from gen_affect_lib.avatars.regions import face_tokens
from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer
from gen_affect_lib.model.attention import QKV, JointAttention, attend, condition_attention, joint_attention

CONSISTENT_ATTENTION = Producer("consistent attention", 1)


class Replace(StrEnum):
    """Which of an image's queries, keys and values the anchors' replace, at the indices of the shared tokens."""

    NOTHING = "nothing"
    KEYS_VALUES = "keys and values"
    QUERIES_KEYS_VALUES = "queries, keys and values"


@dataclass(frozen=True)
class Consistency:
    """Which images share which tokens, and at which steps. The defaults were chosen by the study of notebook 09.

    Attributes:
        anchors: number of images at the start of the set that share their tokens; None: all images.
        share: fraction of the eligible tokens that is shared, in [0, 1]; resampled each step, the same for all anchors.
        above, below: tokens are shared only while above <= sigma <= below.
        blocks: indices of the blocks in which tokens are shared; None: all blocks.
        face_above: tokens of brows, eyes and mouth are shared only while sigma > face_above. 0 shares them at all
            steps, 1 at none.
        replace: which of an image's queries, keys and values the anchors' replace at the indices of the shared tokens.
        shared_noise: fraction of the variance of each initial noise that comes from the first image's noise, in [0, 1].
        seed: of the random choice of tokens.

    Raises UserError for a value out of its range.
    """

    anchors: int | None = 1
    share: float = 1.0
    above: float = 0.0
    below: float = 1.0
    blocks: Sequence[int] | None = None
    face_above: float = 0.5
    replace: Replace = Replace.QUERIES_KEYS_VALUES
    shared_noise: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.anchors is not None and self.anchors < 1:
            raise UserError(f"{self.anchors} anchors: give at least 1, or None for all images of the set")
        for name in ("share", "above", "below", "face_above", "shared_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is not in [0, 1]")
        if self.replace not in list(Replace):
            raise UserError(
                f"replace {self.replace!r} is not known: give one of {', '.join(map(repr, map(str, Replace)))}"
            )

    def is_active(self, block: int, sigma: float) -> bool:
        """Whether tokens are shared in a block (index from 0) at a noise level sigma (in [0, 1])."""
        return self.share > 0 and self.above <= sigma <= self.below and (self.blocks is None or block in self.blocks)

    def anchor_count(self, count: int) -> int:
        """The number of anchors, A, in a set of `count` images."""
        return count if self.anchors is None else min(self.anchors, count)

    def tokens(self, grid: int | tuple[int, int], sigma: float, face: Tensor | None = None) -> Tensor:
        """Indices of the tokens that are shared at sigma, ascending: int64 (P,).

        Args:
            grid: (h, w) of an image's tokens, or the side of a square.
            face: which tokens cover brows, eyes and mouth, bool (h, w); None: those of a centred portrait.
        """
        h, w = (grid, grid) if isinstance(grid, int) else grid
        eligible = torch.ones(h, w, dtype=torch.bool)
        if self.face_above and sigma <= self.face_above:
            eligible &= ~(portrait_tokens(h, w) if face is None else face.cpu())
        indices = eligible.flatten().nonzero()[:, 0]  # (h, w) -> (L,) -> (P,)
        count = round(self.share * len(indices))
        if count < len(indices):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + round(1e5 * sigma))
            indices = indices[torch.randperm(len(indices), generator=generator)[:count]].sort().values
        return indices

    def step(
        self,
        grid: int | tuple[int, int],
        sigma: float,
        anchors: int,
        device: torch.device | str = "cpu",
        face: Tensor | None = None,
    ) -> SharedStep:
        """What `anchors` images share with others in one sampling step; arguments otherwise as of `tokens`."""
        active = self.above <= sigma <= self.below
        tokens = self.tokens(grid, sigma, face) if active else torch.arange(0)
        return SharedStep(self, tokens.to(device), anchors)


def portrait_tokens(h: int, w: int) -> Tensor:
    """Which of h × w tokens cover brows, eyes or mouth in a portrait that fills the centred square: bool (h, w)."""
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    covered = torch.zeros(h, w, dtype=torch.bool)
    covered[top : top + side, left : left + side] = face_tokens(side)
    return covered


def as_consistency(value: float | Consistency) -> Consistency | None:
    """A `Consistency` from its `share`, with the defaults for the rest; None for 0, which shares nothing.

    Raises UserError for a number outside [0, 1].
    """
    if isinstance(value, Consistency):
        return value
    if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise UserError(f"consistency {value!r:.60}: give a number from 0 (each image alone) to 1, or a Consistency")
    return Consistency(share=float(value)) if value else None


def shared_attention(image: QKV, condition: QKV, anchors: QKV, tokens: Tensor, replace: Replace) -> Tensor:
    """Attention output (B, L, C) of images that also attend to the anchors' tokens, in one softmax.

    Args:
        image, condition: queries, keys and values of each image, (B, L, H, D) and (B, M, H, D).
        anchors: keys and values of the anchors' shared tokens (B, S, H, D), S = P times the number of anchors; and the
            mean of the anchors' queries (B, P, H, D).
        tokens: indices of the shared tokens (P,).
        replace: `NOTHING`: the anchors' keys and values are appended. `KEYS_VALUES`: the images also drop their own
            keys and values at `tokens`. `QUERIES_KEYS_VALUES`: their queries at `tokens` become the anchors' as well.
    """
    query, key, value = image
    assert query is not None and anchors.query is not None
    if replace == Replace.QUERIES_KEYS_VALUES:
        query = query.index_copy(1, tokens, anchors.query)
    if replace != Replace.NOTHING:
        own = torch.ones(key.shape[1], dtype=torch.int8, device=key.device).index_fill(0, tokens, 0)
        # Indices and not a mask: torch.compile must know their number, L - P.
        own = own.argsort(descending=True, stable=True)[: key.shape[1] - len(tokens)]
        key, value = key[:, own], value[:, own]
    key = torch.cat([key, condition.key, anchors.key], dim=1)  # (B, L + M + S, H, D); L - P if keys are dropped
    value = torch.cat([value, condition.value, anchors.value], dim=1)
    return attend(query, key, value)


@dataclass
class SharedStep:
    """Consistent attention in one sampling step: `record` for the anchors, then `read` for all other images.

    Both are a `JointAttention`. What depends on sigma is in `tokens`, so a network that is compiled with this attention
    has one graph for all steps in which the number of shared tokens is the same.

    Attributes:
        consistency: which tokens are shared, and how.
        tokens: indices of the shared tokens (P,), on the device of the images; none outside the range of sigma.
        anchors: A, the number of images in a call of `record` under each condition.
        kept: (block, whether it is the second attention of a dual block) -> keys and values (G, A·P, H, D), and the
            mean of the anchors' queries (G, P, H, D).
        on_cpu: keep them in the memory of the CPU.
    """

    consistency: Consistency
    tokens: Tensor
    anchors: int = 1
    kept: dict[tuple[int, bool], QKV] = field(default_factory=dict)
    on_cpu: bool = False

    def record(self, image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
        """Attention of the anchors (B = G·A). Each also attends to the others' shared tokens. Stores all of them."""
        blocks = self.consistency.blocks
        if len(self.tokens) == 0 or not (blocks is None or block in blocks):
            return joint_attention(image, condition)
        images = image.map(self._in_sets)  # (G, A, L, H, D)
        shared = images.map(lambda x: x[:, :, self.tokens])  # (G, A, P, H, D)
        kept = _joined(shared)
        self.kept[block, condition is None] = kept.map(_to_cpu) if self.on_cpu else kept
        if self.anchors == 1:
            return joint_attention(image, condition)
        conditions = _present(condition, image).map(self._in_sets)  # (G, A, M, H, D)
        outputs = []
        for n in range(self.anchors):
            own, own_condition = (stream.map(lambda x: x[:, n]) for stream in (images, conditions))
            others = _joined(shared.map(lambda x: torch.cat([x[:, :n], x[:, n + 1 :]], dim=1)))
            outputs.append(shared_attention(own, own_condition, others, self.tokens, Replace.NOTHING))  # (G, L, C)
        return torch.stack(outputs, dim=1).flatten(0, 1), condition_attention(image, condition)

    def read(self, image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
        """Attention of other images (B = G·N). Each also attends to the anchors' tokens under its own condition."""
        if (block, condition is None) not in self.kept:
            return joint_attention(image, condition)
        kept = self.kept[block, condition is None]
        count = len(image.key) // len(kept.key)  # N
        kept = kept.map(lambda x: x.to(image.key.device, non_blocking=True))
        anchors = kept.map(lambda x: x.repeat_interleave(count, 0))  # (G, ·, H, D) -> (B, ·, H, D)
        output = shared_attention(image, _present(condition, image), anchors, self.tokens, self.consistency.replace)
        return output, condition_attention(image, condition)

    def _in_sets(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, self.anchors))  # (B, L, H, D) -> (G, A, L, H, D)

    @property
    def bytes(self) -> int:
        """Size of the kept tensors in bytes."""
        return sum(x.nbytes for kept in self.kept.values() for x in kept if x is not None)


@dataclass
class AnchorBank:
    """Queries, keys and values of a set's anchors, for each sampling step and block.

    Anchors are sampled with the attention `record`, all other images with `read`. Images can be added to a set at any
    time. Time and memory grow linearly with the number of images.

    Attributes:
        consistency: which tokens are shared, and when.
        made_with: what must be the same for every image of the set, by name, see `require_same`.
        anchors: A, the number of images in a call of `record` under each condition.
        noise_of_first: initial noise of the set's first image (1, K, s, s); None before it is sampled.
        grid, face: as of `Consistency.tokens`; grid None: images are squares.
        on_cpu: keep all of it in the memory of the CPU, since a bank of a large model needs more than a GPU has, see
            `sd35.table_of_sets`.
        steps: sigma -> what is shared in that step.
    """

    consistency: Consistency
    made_with: dict[str, object] = field(default_factory=dict)
    anchors: int = 1
    noise_of_first: Tensor | None = None
    grid: tuple[int, int] | None = None
    face: Tensor | None = None
    on_cpu: bool = False
    steps: dict[float, SharedStep] = field(default_factory=dict)

    def require_same(self, made_with: dict[str, object]) -> None:
        """Raise UserError, with the first difference, unless the bank was made with these. An empty bank takes them."""
        if not self.kept:
            self.made_with = made_with
        for name, value in made_with.items():
            if self.made_with.get(name) != value:
                raise UserError(f"the bank was made with {name} {self.made_with.get(name)}, not {value}: give the same")

    def noise(self, own: Tensor) -> Tensor:
        """Initial noise of N images (N, K, s, s), variance 1: √f · noise_of_first + √(1 - f) · own, f = shared_noise.

        `own` (N, K, s, s) is independent noise. The first image of the set keeps its own.
        """
        if self.noise_of_first is None:
            self.noise_of_first = own[:1]
            return torch.cat([own[:1], self.noise(own[1:])])
        share = self.consistency.shared_noise
        return share**0.5 * self.noise_of_first + (1 - share) ** 0.5 * own

    def passes(self, count: int) -> list[tuple[slice, JointAttention]]:
        """The passes in which `count` further images are sampled, in order: the images and the attention of each."""
        if self.kept:
            return [(slice(0, count), self.read)]
        self.anchors = self.consistency.anchor_count(count)
        passes: list[tuple[slice, JointAttention]] = [
            (slice(0, self.anchors), self.record),
            (slice(self.anchors, count), self.read),
        ]
        return passes if self.anchors < count else passes[:1]

    def record(self, image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
        """`SharedStep.record` in the step at sigma."""
        return self._step(image, sigma).record(image, condition, block=block, sigma=sigma)

    def read(self, image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
        """`SharedStep.read` in the step at sigma."""
        return self._step(image, sigma).read(image, condition, block=block, sigma=sigma)

    def _step(self, image: QKV, sigma: float) -> SharedStep:
        """The step at sigma, for images (B, L, H, D). Raises UserError if they are no squares and `grid` is unknown."""
        if sigma not in self.steps:
            L = image.key.shape[1]
            grid = self.grid or (round(L**0.5),) * 2
            if grid[0] * grid[1] != L:
                raise UserError(f"{L} image tokens are not {grid[0]} × {grid[1]}: give the bank grid=(rows, columns)")
            step = self.consistency.step(grid, sigma, self.anchors, image.key.device, self.face)
            step.on_cpu = self.on_cpu
            self.steps[sigma] = step
        return self.steps[sigma]

    @property
    def kept(self) -> dict[tuple[float, int, bool], QKV]:
        """All that is kept: sigma, block, and whether it is of the second attention of a dual block."""
        return {(sigma, *place): kept for sigma, step in self.steps.items() for place, kept in step.kept.items()}

    @property
    def bytes(self) -> int:
        """Size of the kept tensors in bytes."""
        return sum(step.bytes for step in self.steps.values())


def _to_cpu(x: Tensor) -> Tensor:
    """A copy in the memory of the CPU; pinned if it comes from a GPU, so that the GPU does not wait for the copy."""
    return torch.empty_like(x, device="cpu", pin_memory=x.is_cuda).copy_(x, non_blocking=True)


def _joined(anchors: QKV) -> QKV:
    """Anchors' tokens (G, A, P, H, D) side by side: mean queries (G, P, H, D), keys and values (G, A·P, H, D)."""
    assert anchors.query is not None
    return QKV(anchors.query.mean(dim=1), anchors.key.flatten(1, 2), anchors.value.flatten(1, 2))


def _present(condition: QKV | None, image: QKV) -> QKV:
    """The condition, or one without tokens (B, 0, H, D)."""
    return QKV(None, image.key[:, :0], image.value[:, :0]) if condition is None else condition
