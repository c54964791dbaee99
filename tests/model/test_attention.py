"""Joint attention agrees with its formula and keeps its contracts."""

import pytest
import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import (
    QKV,
    KeyValueProjections,
    Projections,
    attend,
    attention_weights,
    joint_attention,
)


def heads(tokens: int, images: int = 2) -> QKV:
    """Random queries, keys and values of 3 heads with 8 channels each."""
    return QKV(*torch.randn(3, images, tokens, 3, 8))


def by_formula(query, key, value):
    weights = torch.einsum("blhd,bmhd->bhlm", query, key).div(8**0.5).softmax(-1)
    return torch.einsum("bhlm,bmhd->blhd", weights, value).flatten(2)


def test_attention_is_its_formula():
    query, (_, key, value) = heads(5).query, heads(7)
    torch.testing.assert_close(attend(query, key, value), by_formula(query, key, value))


def test_each_head_sees_for_itself():
    query, key, value = heads(5)
    changed = value.clone()
    changed[:, :, 1] += 1
    moved = (attend(query, key, changed) - attend(query, key, value)).abs().amax((0, 1)) > 1e-3
    assert moved.reshape(3, 8).all(-1).tolist() == [False, True, False]


def test_both_streams_see_all_tokens():
    image, condition = heads(5), heads(7)
    seen_by_image, seen_by_condition = joint_attention(image, condition)
    query, key, value = (torch.cat(both, dim=1) for both in zip(image, condition, strict=True))
    torch.testing.assert_close(torch.cat([seen_by_image, seen_by_condition], dim=1), by_formula(query, key, value))


def test_without_condition_tokens_it_is_self_attention():
    image = heads(5)
    seen_by_image, seen_by_condition = joint_attention(image, heads(0))
    torch.testing.assert_close(seen_by_image, attend(*image))
    assert seen_by_condition.shape == (2, 0, 24)


def test_a_condition_that_asks_nothing_is_seen_all_the_same():
    image, condition = heads(5), heads(7)
    seen_by_image, seen_by_condition = joint_attention(image, condition._replace(query=None))
    torch.testing.assert_close(seen_by_image, joint_attention(image, condition)[0])
    assert seen_by_condition is None


def test_images_of_a_batch_do_not_see_each_other():
    image, condition = heads(5), heads(7)
    alone = joint_attention(QKV(*(t[:1] for t in image)), QKV(*(t[:1] for t in condition)))[0]
    torch.testing.assert_close(joint_attention(image, condition)[0][:1], alone)


def test_the_order_of_condition_tokens_does_not_matter_to_the_image():
    image, condition = heads(5), heads(7)
    order = torch.randperm(7)
    shuffled = QKV(*(t[:, order] for t in condition))
    torch.testing.assert_close(joint_attention(image, shuffled)[0], joint_attention(image, condition)[0])


def test_one_matrix_makes_queries_keys_and_values():
    projections = Projections(dim=24, num_heads=3, qk_norm=None)
    x = torch.randn(2, 5, 24)
    for made, matrix, bias in zip(
        projections.qkv(x), projections.to_qkv.weight.chunk(3), projections.to_qkv.bias.chunk(3), strict=True
    ):
        assert made.shape == (2, 5, 3, 8)
        torch.testing.assert_close(made.flatten(2), x @ matrix.T + bias)


def test_normed_queries_and_keys_have_root_mean_square_one_before_their_weight():
    projections = Projections(dim=24, num_heads=3, qk_norm="rms_norm")
    query, key, value = projections.qkv(100 * torch.randn(2, 5, 24))
    for normed in (query, key):
        torch.testing.assert_close(normed.square().mean(-1), torch.ones(2, 5, 3), rtol=1e-4, atol=1e-4)
    assert value.square().mean() > 100  # values are not normalized


def test_the_weights_of_the_norms_are_used():
    """If qk_norm were accepted but not passed on, these weights would have no effect."""
    projections = Projections(dim=24, num_heads=3, qk_norm="rms_norm")
    x = torch.randn(2, 5, 24)
    query, key, _ = projections.qkv(x)
    with torch.no_grad():
        projections.norm_q.weight.mul_(2)
        projections.norm_k.weight.mul_(3)
    torch.testing.assert_close(projections.qkv(x).query, 2 * query)
    torch.testing.assert_close(projections.qkv(x).key, 3 * key)


def test_a_stream_that_is_only_attended_to_has_no_queries():
    projections = KeyValueProjections(dim=24, num_heads=3, qk_norm="rms_norm")
    query, key, value = projections.qkv(torch.randn(2, 5, 24))
    assert query is None and key.shape == value.shape == (2, 5, 3, 8)
    torch.testing.assert_close(key.square().mean(-1), torch.ones(2, 5, 3), rtol=1e-4, atol=1e-4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(UserError, match="qk_norm 'layer_norm' is not known"):
        Projections(dim=24, num_heads=3, qk_norm="layer_norm")


def test_the_weights_are_those_by_which_attend_takes_its_mean():
    query, key, value = torch.randn(2, 5, 3, 8), torch.randn(2, 7, 3, 8), torch.randn(2, 7, 3, 8)
    weights = attention_weights(query, key)
    assert weights.shape == (2, 3, 5, 7) and torch.allclose(weights.sum(dim=-1), torch.ones(2, 3, 5))
    seen = torch.einsum("bhlm,bmhd->blhd", weights, value).flatten(2)
    assert torch.allclose(seen, attend(query, key, value), atol=1e-5)
