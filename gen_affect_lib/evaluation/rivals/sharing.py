"""Other published methods of shared attention in a set, and a faster form of sharing all tokens.

Some are settings of `Consistency`. The others are classes: an object is made for a set of N images and is a
`JointAttention`, which `GenAffectPipeline` takes as its argument `attention`.

Letters as in `model.consistent`: B = G·N images, L image tokens, M condition tokens, H heads, D channels per head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gen_affect_lib.model.attention import QKV, condition_attention
from gen_affect_lib.model.consistent import Consistency, Replace, shared_attention

# All images share all tokens at all steps: the simplest method, with which notebook 09 starts.
EVERYTHING = Consistency(anchors=None, replace=Replace.NOTHING, face_above=0.0, shared_noise=0.0)

# Zhou et al. 2024, arXiv 2405.01434: all images share half of their tokens.
STORY_DIFFUSION = Consistency(anchors=None, share=0.5, replace=Replace.NOTHING, face_above=0.0, shared_noise=0.0)

# Cao et al. 2023, arXiv 2304.08465: the anchor's keys and values replace an image's own while sigma <= 0.8.
MASACTRL = Consistency(below=0.8, replace=Replace.KEYS_VALUES, face_above=0.0, shared_noise=0.0)

# The dropout of Tewel et al. 2024, arXiv 2402.03286: all images share half of the tokens outside the face, while
# sigma >= 0.5.
CONSISTORY = Consistency(anchors=None, share=0.5, above=0.5, replace=Replace.NOTHING, face_above=1.0, shared_noise=0.0)


@dataclass(frozen=True)
class StyleAligned:
    """StyleAligned (Hertz et al. 2024, arXiv 2312.02133): all images attend to the first image's tokens as well.

    Before attention, mean and standard deviation over tokens of their queries and keys are set to those of the first
    image (adaptive instance normalization).

    Attributes:
        count: N, the number of images of the set.
    """

    count: int

    def __call__(self, image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
        assert condition is not None  # no dual blocks here
        aligned = image.map(self._align)._replace(value=image.value)
        first = self._first(image.key)
        output = torch.empty_like(image.key).flatten(2)  # (B, L, C)
        is_first = first == torch.arange(len(first), device=first.device)
        for images, tokens in ((is_first, 0), (~is_first, image.key.shape[1])):
            anchors = aligned.map(lambda x: x[first[images], :tokens])
            own, conditions = (stream.map(lambda x: x[images]) for stream in (aligned, condition))
            indices = torch.arange(tokens, device=first.device)
            output[images] = shared_attention(own, conditions, anchors, indices, Replace.NOTHING)
        return output, condition_attention(image, condition)

    def _align(self, x: Tensor) -> Tensor:
        """Queries or keys (B, L, H, D) with the first image's mean and standard deviation over tokens."""
        mean, deviation = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True) + 1e-5  # (B, 1, H, D)
        first = self._first(x)
        return (x - mean) / deviation * deviation[first] + mean[first]

    def _first(self, x: Tensor) -> Tensor:
        """For each image of the batch, the index of the first image of its set: (B,)."""
        return torch.arange(len(x), device=x.device) // self.count * self.count


@dataclass(frozen=True)
class PackedAttention:
    """`EVERYTHING` in two large attentions instead of one per image, without copies of the shared keys and values.

    All queries of a set attend to all image tokens of the set, and to each image's own condition. The softmax over both
    is computed from their log-sum-exp (Milakov & Gimelshein 2018, arXiv 1805.02867).

    Attributes:
        count: N, the number of images of the set.
    """

    count: int

    def __call__(self, image: QKV, condition: QKV | None, *, block: int, sigma: float) -> tuple[Tensor, Tensor | None]:
        query, key, value = image
        assert query is not None and condition is not None  # no dual blocks here
        whole_set = (x.unflatten(0, (-1, self.count)).flatten(1, 2) for x in (query, key, value))  # (G, N·L, H, D)
        in_set, set_sum = (x.unflatten(1, (self.count, -1)).flatten(0, 1) for x in attend_with_sum(*whole_set))
        in_condition, condition_sum = attend_with_sum(query, condition.key, condition.value)  # all (B, L, H, ·)
        weight = torch.sigmoid(set_sum - condition_sum)  # of the image tokens in the softmax over both
        output = torch.lerp(in_condition, in_set, weight).flatten(2)  # (B, L, H, D) -> (B, L, C)
        return output, condition_attention(image, condition)


def attend_with_sum(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, L, H, D) of queries (B, L, H, D) to keys and values (B, K, H, D), and the log of the softmax's
    denominator (B, L, H, 1)."""
    scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1) * query.shape[-1] ** -0.5  # (B, H, L, D) @ (B, H, D, K)
    output = scores.softmax(dim=-1) @ value.transpose(1, 2)  # (B, H, L, D)
    return output.transpose(1, 2), scores.logsumexp(dim=-1, keepdim=True).transpose(1, 2)
