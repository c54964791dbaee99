"""Autoencoders beside ours: behind one seam, of one size, trained and scored row by row."""

import json

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import pairs
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.evaluation.rivals.kl_codec import fit_kl_codec
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import codecs
from gen_affect_lib.evaluation.studies.codecs import CODECS, autoencoder_kl, compare_codecs, restore
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.tensors import to_tensor

PLAN = Plan(people=3, words=2, seeds=1)
NAMES = ["ours", "autoencoder_kl"]


def parameters(codec):
    return sum(p.numel() for p in codec.parameters())


@pytest.fixture(scope="module")
def pictures():
    return PLAN.true_drawings()


@pytest.mark.parametrize("name", CODECS)
def test_every_autoencoder_has_the_seam_of_ours(name, pictures):
    codec, images = CODECS[name][1](), to_tensor(pictures[:2, 0, 0])
    channels = 8 if name == "8_channels" else 16
    with torch.no_grad():
        latents = codec.encode(images)
        assert latents.shape == (2, channels, codec.latent_size(64), codec.latent_size(64)) == (2, channels, 4, 4)
        assert codec.decode(latents).shape == (2, 3, 64, 64)
        codec.eval().calibrate(images)
        assert codec.encode(images).std().item() == pytest.approx(1, rel=0.3), "of unit scale, once calibrated"
    with pytest.raises(ValueError, match="give \\(B, 3, S, S\\)"):
        codec.encode(torch.zeros(1, 3, 30, 30))


@pytest.mark.parametrize("name", CODECS)
def test_every_autoencoder_has_as_many_parameters_as_ours(name):
    assert parameters(CODECS[name][1]()) == pytest.approx(parameters(LatentCodec()), rel=0.05)


def test_the_noise_of_the_latents_hides_nothing_from_a_fresh_autoencoder(pictures):
    _, log_variance = autoencoder_kl().posterior(to_tensor(pictures[0, 0]))
    assert log_variance.mean().item() == pytest.approx(-6, abs=1)


def test_restored_pictures_are_as_many_and_as_large(pictures):
    codec = autoencoder_kl()
    restored = restore(codec, pictures)
    assert restored.shape == pictures.shape and restored.dtype == np.uint8
    np.testing.assert_array_equal(restore(codec, pictures[1, 0]), restored[1, 0])
    assert not any(p.grad is not None for p in codec.parameters())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "CACHE", tmp_path_factory.mktemp("cache"))
        patch.setitem(
            CODECS, "autoencoder_kl", ("a slim one", lambda: autoencoder_kl((8, 8, 8, 8, 8), 4), fit_kl_codec)
        )
        path = tmp_path_factory.mktemp("codecs") / "rows.json"
        with pytest.MonkeyPatch.context() as broken:
            broken.setitem(CODECS, "autoencoder_kl", ("breaks", lambda: 1 / 0, fit_kl_codec))
            with pytest.raises(ZeroDivisionError):
                compare_codecs(PROFILES["smoke"], PLAN, 0.005, None, 1, NAMES, path)
        kept = json.loads(path.read_text())["rows"]
        yield kept, compare_codecs(PROFILES["smoke"], PLAN, 0.005, None, 1, NAMES, path), path


def test_each_is_trained_and_scored_beside_the_drawings_themselves(compared):
    _, result, path = compared
    assert [(row["name"], row["seed"]) for row in result["rows"]] == [
        ("drawings", 0),
        ("ours", 0),
        ("autoencoder_kl", 0),
    ]
    assert json.loads(path.read_text()) == result and result["minutes"] == 0.005
    drawings, *trained = (row["figures"] for row in result["rows"])
    assert drawings["mse"]["value"] == 0 and drawings["expression_error"]["value"] < 0.05
    for row, figures in zip(result["rows"][1:], trained):
        assert row["steps"] > 0 and row["parameters"] == parameters(CODECS[row["name"]][1]())
        assert figures["mse"]["value"] > 0.05 and figures["expression_error"]["value"] > 0.1
        assert figures["mse"]["low"] <= figures["mse"]["value"] <= figures["mse"]["high"]


def test_rows_that_are_done_are_kept_and_trained_once(compared, monkeypatch):
    kept, result, path = compared
    assert [row["name"] for row in kept] == ["drawings", "ours"] and kept == result["rows"][:2]
    monkeypatch.setattr(codecs, "seed_everything", lambda *_: pytest.fail("trained again"))
    assert compare_codecs(PROFILES["smoke"], PLAN, 0.005, None, 1, NAMES, path)["rows"] == result["rows"]
