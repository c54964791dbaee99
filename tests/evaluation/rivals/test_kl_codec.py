"""The variational autoencoder: a posterior that starts narrow, latents of unit scale, a KL term that counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gen_affect_lib.evaluation.rivals.kl_codec import KL_WEIGHT, KLCodec, fit_kl_codec, kl_loss
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.codec import CODEC_RECIPE, reconstruction_loss
from tests.tiny_codec import TINY, drawn


@pytest.fixture(scope="module")
def pictures():
    return drawn()


def test_the_posterior_starts_with_little_noise(pictures):
    mean, log_variance = KLCodec(**TINY).posterior(to_tensor(pictures))
    assert mean.shape == log_variance.shape == (48, 8, 2, 2)
    assert log_variance.mean().item() == pytest.approx(-6, abs=1)


def test_the_loss_is_that_of_the_reconstruction_plus_the_divergence():
    """At a posterior N(m, e^v) the divergence from N(0, 1) is (m² + e^v − 1 − v) / 2."""
    codec, images, weight = KLCodec(**TINY), torch.rand(2, 3, 32, 32), torch.ones(1, 1, 32, 32)
    codec.posterior = lambda images: (torch.full((2, 8, 2, 2), 3.0), torch.full((2, 8, 2, 2), -20.0))
    loss, error = kl_loss(codec, images, weight, None)
    restored = codec.decoder(torch.full((2, 8, 2, 2), 3.0))  # the noise has standard deviation e^-10
    plain, squared = reconstruction_loss(restored, images, weight, None)
    assert (loss - plain).item() == pytest.approx(KL_WEIGHT * 0.5 * (9 - 1 + 20), rel=0.02)
    assert error.item() == pytest.approx(squared.item(), rel=1e-2)


def test_it_learns_and_its_latents_are_of_unit_scale(pictures):
    torch.manual_seed(0)
    codec = KLCodec(**TINY)
    errors = [row["mse"] for row in fit_kl_codec(codec, pictures, replace(CODEC_RECIPE, steps=150, batch_size=16))]
    assert np.mean(errors[-10:]) < 0.85 * np.mean(errors[:10])
    with torch.no_grad():
        latents = codec.encode(to_tensor(pictures))
        assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.3 and (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.3
        assert codec.decode(latents).shape == (48, 3, 32, 32)
