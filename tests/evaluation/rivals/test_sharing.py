"""Published ways to share attention in a set are what their papers say, and the packed form is the bank's result."""

import pytest
import torch

from gen_affect_lib.evaluation.rivals.sharing import EVERYTHING, PackedAttention, StyleAligned, attend_with_sum
from gen_affect_lib.model.attention import QKV, attend, joint_attention
from gen_affect_lib.model.consistent import AnchorBank

G, N, L, M, H, D = 2, 4, 16, 8, 5, 32


def streams(dtype=torch.float32, last=False):
    generator = torch.Generator().manual_seed(0)
    image, condition = (
        QKV(*torch.randn(3, G * N, tokens, H, D, generator=generator, dtype=dtype)) for tokens in (L, M)
    )
    return image, condition._replace(query=None) if last else condition


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_packed_is_what_the_bank_does_when_all_images_share_everything(last, dtype, tolerance):
    both = streams(dtype, last)
    expected = AnchorBank(EVERYTHING, anchors=N).record(*both, block=1, sigma=0.7)
    packed = PackedAttention(N)(*both, block=1, sigma=0.7)
    torch.testing.assert_close(packed[0], expected[0], rtol=0, atol=tolerance)
    assert packed[1] is None if last else torch.equal(packed[1], expected[1])


def test_packed_with_a_set_of_one_is_joint_attention():
    both = streams(torch.float64)
    for packed, plain in zip(PackedAttention(1)(*both, block=0, sigma=0.7), joint_attention(*both)):
        torch.testing.assert_close(packed, plain)


def test_attention_over_two_halves_joins_to_attention_over_both():
    (query, key, value), _ = streams(torch.float64)
    whole, total = attend_with_sum(query, key, value)
    (a, sum_a), (b, sum_b) = (
        attend_with_sum(query, key[:, part], value[:, part]) for part in (slice(0, 5), slice(5, None))
    )
    torch.testing.assert_close(torch.lerp(a, b, torch.sigmoid(sum_b - sum_a)), whole)
    torch.testing.assert_close(torch.logaddexp(sum_a, sum_b), total)
    torch.testing.assert_close(whole.flatten(2), attend(query, key, value))


def by_definition(image, condition, one):
    """Image number `one`: softmax over its own tokens, its condition, and the first image's tokens unless it is the
    first."""
    first = one - one % N
    sources = [one] if one == first else [one, first]
    key, value = (torch.cat([*(x[n] for n in sources), of[one]])[None] for x, of in zip(image[1:], condition[1:]))
    return attend(image.query[one, None], key, value)[0]


def test_style_aligned_attends_to_the_first_image_once_the_statistics_are_the_same():
    image, condition = streams()
    level = [x - x.mean(1, keepdim=True) for x in image[:2]]
    level = QKV(*(x / x.std(1, keepdim=True) for x in level), image.value)
    expected = torch.stack([by_definition(level, condition, one) for one in range(G * N)])
    output, _ = StyleAligned(N)(level, condition, block=1, sigma=0.7)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)
    moved = level.map(torch.clone)
    for x in moved[:2]:  # the statistics of the other images do not count
        x[2] = 3 * x[2] + 1
    output, _ = StyleAligned(N)(moved, condition, block=1, sigma=0.7)
    torch.testing.assert_close(output, expected, atol=1e-3, rtol=0)
