"""The linear autoencoder: fitted in closed form, of unit variance, and better with more components."""

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.rivals.pca_codec import PCACodec, fit_pca_codec
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor


@pytest.fixture(scope="module")
def pictures():
    return np.stack(
        [Avatar(Identity.sample(k), Expression.sample(k), Appearance.sample(k)).render(32) for k in range(300)]
    )


def fitted(pictures, channels):
    codec = PCACodec(channels, image_size=32)
    assert fit_pca_codec(codec, pictures, Recipe()) == []
    return codec


def test_latents_are_uncorrelated_and_of_unit_variance_together(pictures):
    latents = fitted(pictures, 8).encode(to_tensor(pictures))
    assert latents.shape == (300, 8, 2, 2)
    assert latents.mean(dim=0).abs().max() < 1e-4 and latents.square().mean().item() == pytest.approx(1, rel=1e-3)
    deviations = latents.std(dim=0)  # (8, 2, 2)
    assert (deviations[:-1] >= deviations[1:] - 1e-4).all(), "the largest components come first"
    correlations = torch.corrcoef(latents[:, :, 1, 0].T)
    assert (correlations - torch.eye(8)).abs().max() < 1e-3


def test_a_component_is_divided_by_the_root_of_its_deviation(pictures):
    codec = fitted(pictures, 8)
    latents = codec.encode(to_tensor(pictures))
    components = latents * codec.scale  # as projected, not scaled
    ratio = latents.std(dim=0) / components.std(dim=0).sqrt()
    assert (ratio / ratio.mean() - 1).abs().max() < 1e-3


def test_with_all_components_nothing_is_lost_and_with_more_of_them_less(pictures):
    images = to_tensor(pictures)
    errors = []
    for channels in (4, 32, 299):  # 300 pictures span 299 dimensions
        codec = fitted(pictures, channels)
        errors.append((codec.decode(codec.encode(images)) - images).square().mean().item())
    assert errors[0] > 2 * errors[1] > 100 * errors[2] and errors[2] < 1e-4


def test_a_saved_codec_makes_the_same_latents_and_has_the_same_mark(pictures, tmp_path):
    codec = fitted(pictures, 8)
    codec.save_pretrained(tmp_path)
    again = PCACodec.from_pretrained(tmp_path)
    assert again.mark == codec.mark != fitted(pictures[:200], 8).mark
    np.testing.assert_array_equal(again.encode_all(pictures[:5]), codec.encode_all(pictures[:5]))


def test_pictures_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"give \(B, 3, 64, 64\)"):
        PCACodec().encode(torch.zeros(1, 3, 32, 32))
