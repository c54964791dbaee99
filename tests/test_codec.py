"""The codecs between pixels and the space that the model works in."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gen_affect_lib.codec import LatentCodec, PixelCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.tensors import to_images, to_tensor  # fmt: skip
from gen_affect_lib.training.codec import CODEC_RECIPE, DECODER_RECIPE, face_weight, fit_codec, fit_decoder
from tests.tiny_codec import TINY, drawn


@pytest.fixture(scope="module")
def pictures():
    return drawn()


@pytest.fixture(scope="module")
def trained(pictures):
    codec = LatentCodec(**TINY)
    history = fit_codec(codec, pictures, replace(CODEC_RECIPE, steps=300, batch_size=16))
    return codec, [row["mse"] for row in history]


def test_bytes_survive_the_way_to_numbers_and_back(pictures):
    tensor = to_tensor(pictures)
    assert tensor.shape == (48, 3, 32, 32) and tensor.min() >= -1 and tensor.max() <= 1
    assert (to_images(tensor) == pictures).all()


def test_the_pixel_codec_changes_nothing(pictures):
    codec, images = PixelCodec(), to_tensor(pictures)
    assert torch.equal(codec.decode(codec.encode(images)), images)
    assert (codec.latent_channels, codec.latent_size(32)) == (3, 32)
    np.testing.assert_array_equal(codec.encode_all(pictures)[[3, 5]], images[[3, 5]].numpy())


def test_latents_are_a_sixteenth_of_the_side_and_of_unit_scale_once_calibrated(trained, pictures):
    codec, _ = trained
    latents = codec.encode(to_tensor(pictures))
    assert latents.shape == (48, 8, 2, 2) and codec.latent_size(32) == 2
    # not exactly: calibration draws pictures at random
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.2 and (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.2
    assert codec.decode(latents).shape == (48, 3, 32, 32)


def test_latents_have_unit_variance_at_every_step_of_training():
    latents = LatentCodec(**TINY).train().encode(torch.rand(16, 3, 64, 64))
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(latents.var(dim=(0, 2, 3), unbiased=False), torch.ones(8), atol=1e-2, rtol=0)


def test_noise_is_added_to_the_latents_in_training_only():
    torch.manual_seed(0)
    codec, images = LatentCodec(**TINY), torch.rand(4, 3, 64, 64)
    codec.train()
    assert not torch.equal(codec(images), codec(images))
    codec.eval()
    assert torch.equal(codec(images), codec(images))


def test_each_picture_has_its_own_noise_level_with_the_given_spread():
    torch.manual_seed(0)
    noise = LatentCodec(**TINY, noise=0.5).noised(torch.zeros(4000, 8, 4, 4))
    levels = noise.std(dim=(1, 2, 3))
    assert levels.square().mean().sqrt().item() == pytest.approx(0.5, rel=0.05)
    assert levels.min() < 0.05 and levels.max() > 1.2


def test_training_brings_the_pictures_back(trained, pictures):
    codec, errors = trained
    images = to_tensor(pictures)
    with torch.no_grad():
        error = (codec.decode(codec.encode(images)) - images).square().mean().item()
    plain = (images.mean(dim=(0, 2, 3), keepdim=True) - images).square().mean().item()
    assert np.mean(errors[-10:]) < 0.85 * np.mean(errors[:10])
    assert error < plain, "no better than one colour for all pictures"


def test_a_cache_is_encoded_once_and_kept(trained, pictures, tmp_path):
    codec, _ = trained
    path = tmp_path / "latents.npy"
    latents = codec.encoded(pictures, path)
    with torch.no_grad():
        direct = codec.encode(to_tensor(pictures)).numpy()
    np.testing.assert_allclose(latents, direct, atol=5e-3)  # half precision
    written = path.stat().st_mtime_ns
    codec.encoded(pictures, path)
    assert path.stat().st_mtime_ns == written
    assert {file.name for file in tmp_path.iterdir()} == {"latents.npy", "latents.npy.sha256"}


def test_saving_and_loading_keeps_weights_and_calibration(trained, pictures, tmp_path):
    codec, _ = trained
    codec.save_pretrained(tmp_path)
    again = LatentCodec.from_pretrained(tmp_path)
    images = to_tensor(pictures[:4])
    with torch.no_grad():
        torch.testing.assert_close(again.encode(images), codec.encode(images))


@pytest.mark.parametrize("shape", [(1, 3, 32, 40), (1, 1, 32, 32), (3, 32, 32), (1, 3, 40, 40)])
def test_pictures_of_another_shape_are_refused(trained, shape):
    with pytest.raises(ValueError, match="give \\(B, 3, S, S\\) with S a multiple of 16"):
        trained[0].encode(torch.zeros(shape))


def test_the_face_counts_more_than_the_backdrop():
    weight = face_weight(64)
    assert weight.mean().item() == pytest.approx(1, abs=1e-5)
    assert weight[0, 0, 34, 32] > 2.5 * weight[0, 0, 0, 0]


def with_a_fresh_decoder(codec):
    codec = copy.deepcopy(codec)
    torch.manual_seed(0)
    codec.decoder.load_state_dict(LatentCodec(**TINY).decoder.state_dict())
    return codec


def restored(codec, pictures):
    with torch.no_grad():
        return codec.decode(codec.encode(to_tensor(pictures)))


def test_a_decoder_learns_on_its_own_and_the_latents_stay_bit_by_bit(trained, pictures):
    codec = with_a_fresh_decoder(trained[0])
    before, mark = {name: tensor.clone() for name, tensor in codec.state_dict().items()}, codec.mark
    images = to_tensor(pictures)
    fresh = F.mse_loss(restored(codec, pictures), images)
    recipe = replace(DECODER_RECIPE, steps=100, batch_size=16, learning_rate=1e-2)
    errors = [row["mse"] for row in fit_decoder(codec, pictures, recipe)]
    assert len(errors) == 100 and np.mean(errors[-10:]) < 0.85 * np.mean(errors[:10]) and not codec.training
    assert F.mse_loss(restored(codec, pictures), images) < 0.8 * fresh
    changed = {
        name.split(".")[0] for name, tensor in codec.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"decoder"} and codec.mark == mark


def test_a_perceptual_loss_brings_the_features_of_the_reconstruction_closer(trained, pictures):
    def corner(pictures):
        return pictures[:, :, :4, :4].flatten(1)

    def error_of_features(codec):
        return F.mse_loss(corner(restored(codec, pictures)), corner(to_tensor(pictures))).item()

    plain, perceptual = with_a_fresh_decoder(trained[0]), with_a_fresh_decoder(trained[0])
    recipe = replace(DECODER_RECIPE, steps=60, batch_size=16, learning_rate=1e-2)
    fit_decoder(plain, pictures, recipe)
    fit_decoder(perceptual, pictures, recipe, lambda found, true: 10 * F.mse_loss(corner(found), corner(true)))
    assert error_of_features(perceptual) < 0.8 * error_of_features(plain)


def test_the_mark_changes_with_whatever_changes_the_latents_and_with_nothing_else(trained):
    codec = copy.deepcopy(trained[0])
    mark = codec.mark
    assert len(mark) == 12 and mark == trained[0].mark
    marks = {mark}
    with torch.no_grad():
        codec.decoder[0].weight += 1
        assert codec.mark == mark
        for tensor in (codec.encoder[1].bias, codec.normalize.running_mean, codec.normalize.running_var):
            tensor[0] += 1e-3
            marks.add(codec.mark)
    assert len(marks) == 4


def test_the_codec_of_a_64_pixel_checkpoint_of_version_0_1_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "LatentCodec", "widths": [64, 128], "blocks": [1, 3]}')
    with pytest.raises(UserError, match=r"version 0\.1 for 64 pixels.*use data/checkpoints/gen_affect, or train again"):
        LatentCodec.from_pretrained(tmp_path)
