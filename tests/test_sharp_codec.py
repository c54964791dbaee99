"""The 128 px codec: latents of unit variance that tolerate noise, behind the interface of LatentCodec."""

import numpy as np
import pytest
import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.sharp_codec import SharpCodec

SMALL = dict(
    latent_channels=8,
    encoder_widths=(16, 16, 16),
    encoder_blocks=(1, 1, 1),
    decoder_widths=(16, 16, 16, 16),
    decoder_blocks=(1, 1, 1, 1),
)


def test_a_picture_becomes_latents_at_a_sixteenth_of_the_side_and_comes_back():
    codec = SharpCodec(**SMALL).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = codec.encode(images)
    assert latents.shape == (2, 8, codec.latent_size(64), 4)
    assert codec.decode(latents).shape == images.shape


def test_a_side_that_is_no_multiple_of_sixteen_is_refused():
    with pytest.raises(UserError, match="multiple of 16"):
        SharpCodec(**SMALL).encode(torch.zeros(1, 3, 40, 40))


def test_latents_have_unit_variance_in_training():
    latents = SharpCodec(**SMALL).train().encode(torch.rand(16, 3, 64, 64))
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert torch.allclose(latents.var(dim=(0, 2, 3), unbiased=False), torch.ones(8), atol=1e-2)


def test_noise_is_added_in_training_only():
    torch.manual_seed(0)
    codec, images = SharpCodec(**SMALL), torch.rand(4, 3, 64, 64)
    codec.train()
    assert not torch.equal(codec(images), codec(images))
    codec.eval()
    assert torch.equal(codec(images), codec(images))


def test_the_mark_follows_the_encoder_and_not_the_decoder():
    codec = SharpCodec(**SMALL)
    mark = codec.mark
    torch.nn.init.normal_(codec.decoder[0].weight)
    assert codec.mark == mark
    torch.nn.init.normal_(codec.encoder[1].weight)
    assert codec.mark != mark


def test_it_is_saved_and_loaded(tmp_path):
    codec = SharpCodec(**SMALL).eval()
    codec.save_pretrained(tmp_path)
    again, images = SharpCodec.from_pretrained(tmp_path).eval(), torch.rand(1, 3, 64, 64)
    assert torch.allclose(codec.encode(images), again.encode(images), atol=1e-5)


def test_a_data_set_is_encoded_once_and_kept(tmp_path):
    codec = SharpCodec(**SMALL).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    latents = codec.encoded(images, tmp_path / "latents.npy")
    assert latents.shape == (5, 8, 4, 4) and latents.dtype == np.float16
