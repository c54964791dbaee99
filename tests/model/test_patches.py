"""Patches and positions: patchify is invertible, and every position has a different embedding."""

import pytest
import torch
import torch.nn.functional as F

from gen_affect_lib.model.patches import PatchEmbed, patchify, sincos_1d, sincos_2d, unpatchify


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_cutting_and_putting_together_gives_the_picture_back(patch_size):
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, patch_size)
    assert patches.shape == (2, 96 // patch_size**2, 3 * patch_size**2)
    assert torch.equal(unpatchify(patches, 8, 12, patch_size), images)


def test_patches_come_row_by_row_and_hold_their_pixels_row_by_row():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert patchify(image, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_channels_of_a_pixel_lie_together():
    image = torch.stack([torch.arange(4.0).reshape(2, 2), 10 + torch.arange(4.0).reshape(2, 2)])[None]
    assert patchify(image, 2)[0, 0].tolist() == [0, 10, 1, 11, 2, 12, 3, 13]


@pytest.mark.parametrize("height, width, side", [(9, 8, "height 9"), (8, 9, "width 9")])
def test_a_patch_that_does_not_divide_the_picture_says_what_would(height, width, side):
    with pytest.raises(ValueError, match=rf"patch_size 2 does not divide the {side}: try one of \[1, 3, 9\]"):
        patchify(torch.zeros(1, 3, height, width), 2)


def test_a_picture_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"\(B, K, height, width\) expected, got \(3, 8, 8\)"):
        patchify(torch.zeros(3, 8, 8), 2)


@pytest.mark.parametrize("shape", [(1, 15, 12), (1, 16, 13)])
def test_patches_that_make_no_picture_are_refused(shape):
    with pytest.raises(ValueError, match="16 patches of 4·K numbers expected"):
        unpatchify(torch.zeros(shape), 8, 8, 2)


def test_sines_come_before_cosines_and_the_first_frequency_is_one():
    line = sincos_1d(torch.tensor([0.0, 0.5]), 8)
    assert line[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert line[1, 0].item() == pytest.approx(torch.tensor(0.5).sin().item())
    assert line[1, 5].item() == pytest.approx(torch.tensor(0.5 / 10).cos().item(), abs=1e-7)  # 10000^(-1/4) = 1/10


def test_the_first_half_of_a_position_tells_the_column_and_the_second_the_row():
    table = sincos_2d(32, size=5, span=5)
    assert torch.equal(table[0, 2, :16], table[4, 2, :16]) and not torch.equal(table[0, 2, :16], table[0, 3, :16])
    assert torch.equal(table[2, 0, 16:], table[2, 4, 16:]) and not torch.equal(table[2, 0, 16:], table[3, 0, 16:])


def test_no_two_places_share_a_position():
    table = sincos_2d(32, size=16, span=8).flatten(0, 1)
    apart = torch.cdist(table, table) + 9 * torch.eye(256)
    assert apart.min() > 0.1


def test_dot_products_of_positions_depend_on_the_offset_alone():
    table = sincos_2d(64, size=8, span=8)
    assert torch.allclose(table[1, 2] @ table[3, 5], table[4, 1] @ table[6, 4], atol=1e-5)


def test_a_finer_grid_over_the_same_span_passes_through_the_same_places():
    assert torch.equal(sincos_2d(32, size=16, span=8)[::2, ::2], sincos_2d(32, size=8, span=8))


def test_positions_need_channels_for_two_waves_in_two_directions():
    with pytest.raises(ValueError, match="divisible by 4, got 30"):
        sincos_2d(30, size=4, span=4)


def test_embedding_a_patch_is_a_convolution_whose_stride_is_its_kernel():
    embed = PatchEmbed(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=4)
    images = torch.randn(2, 3, 8, 8)
    kernel = embed.proj.weight.reshape(16, 2, 2, 3).permute(0, 3, 1, 2)  # (C, p·p·K) -> (C, K, p, p)
    convolved = F.conv2d(images, kernel, embed.proj.bias, stride=2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(images), convolved + embed.positions.flatten(0, 1))


def test_a_small_picture_takes_the_middle_of_the_table():
    embed = PatchEmbed(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=7)
    assert torch.equal(embed.positions_of(4, 2), embed.positions[1:5, 2:4].reshape(8, 16))


def test_a_picture_larger_than_the_table_is_refused():
    embed = PatchEmbed(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=4)
    with pytest.raises(ValueError, match="4 × 5 patches exceed the table of 4 × 4"):
        embed(torch.zeros(1, 3, 8, 10))


def test_each_token_depends_on_its_own_patch_only():
    embed = PatchEmbed(sample_size=8, patch_size=2, in_channels=3, dim=16, table_size=4)
    images = torch.randn(1, 3, 8, 8)
    changed = images.clone()
    changed[:, :, 2:4, 6:8] += 1  # the patch in row 1, column 3
    moved = (embed(changed) != embed(images)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [7]
