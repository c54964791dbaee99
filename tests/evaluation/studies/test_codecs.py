"""Autoencoders beside ours: of one size, each with a generator on its latents, scored by what both make of faces."""

import json

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import pairs
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.metrics.nearest import strong_edges
from gen_affect_lib.evaluation.quality import restore
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import study
from gen_affect_lib.evaluation.studies.codecs import compare_codecs, figures
from gen_affect_lib.evaluation.studies.study import CODEC_KINDS, Scoring
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.trainer import Trainer

SMOKE = PROFILES["smoke"]
PLAN = Plan(people=4, words=3, seeds=1)
EVERYONE = np.arange(4)


@pytest.fixture(scope="module")
def pictures():
    return PLAN.true_drawings()[:, 0]


def make(name):
    return CODEC_KINDS[name].make(SMOKE)


@pytest.mark.parametrize("name", [name for name in CODEC_KINDS if name != "pca"])  # pca has a test of its own
def test_every_trained_autoencoder_has_the_interface_and_the_size_of_ours(name, pictures):
    codec, images = make(name), to_tensor(pictures[:2, 0])
    with torch.no_grad():
        codec.eval().calibrate(images)
        latents = codec.encode(images)
        assert latents.shape == (2, 16, 4, 4) and codec.decode(latents).shape == (2, 3, 64, 64)
        assert latents.std().item() == pytest.approx(1, rel=0.3), "of unit scale, once calibrated"
    ours = sum(p.numel() for p in make("ours").parameters())
    assert sum(p.numel() for p in codec.parameters()) == pytest.approx(ours, rel=0.05)


def test_only_ours_adds_noise_to_the_latents():
    torch.manual_seed(0)
    latents = torch.zeros(2000, 16, 4, 4)
    assert make("ours").noised(latents).std().item() == pytest.approx(0.4, rel=0.1)
    assert torch.equal(make("no_noise").noised(latents), latents)


def test_restored_pictures_are_as_many_and_as_large(pictures):
    codec = make("ours").eval()
    restored = restore(codec, pictures)
    assert restored.shape == pictures.shape and restored.dtype == np.uint8
    np.testing.assert_array_equal(restore(codec, pictures[1]), restored[1])


def test_figures_find_another_face_and_a_blur(pictures):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "GALLERY", 30)
        score = Scoring(PLAN)
    true = {name: figure(EVERYONE) for name, figure in figures(pictures, PLAN, score).items()}
    assert true["right"] == true["found"] == 1 and true["face_difference"] < 0.06
    assert true["edges"] == pytest.approx(np.mean([strong_edges(image) for person in pictures for image in person]))
    other = {name: figure(EVERYONE) for name, figure in figures(np.roll(pictures, 1, axis=1), PLAN, score).items()}
    assert other["right"] == 0 and other["found"] == 1 and other["face_difference"] > true["face_difference"] + 0.01
    soft = pictures.astype(float)
    soft = ((soft + np.roll(soft, 1, axis=2)) / 2).astype(np.uint8)
    assert figures(soft, PLAN, score)["edges"](EVERYONE) < 0.9 * true["edges"]


def test_each_is_scored_reconstructed_and_generated_beside_the_drawings(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sets, "GALLERY", 30)
    path = tmp_path / "rows.json"

    def run():
        return compare_codecs(SMOKE, PLAN, None, 2, 1, ["ours", "kl"], path, tmp_path / "runs")

    with pytest.MonkeyPatch.context() as broken:
        broken.setitem(study.CODEC_KINDS, "kl", study.CodecKind("breaks", lambda profile: 1 / 0, lambda *_: []))
        with pytest.raises(ZeroDivisionError):
            run()
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["drawings", "ours"]
    result = run()
    drawings, ours, kl = result["rows"]
    assert json.loads(path.read_text()) == result and (ours["name"], kl["name"]) == ("ours", "kl")
    assert ours["steps"] == kl["steps"] == 2 and ours["parameters"] == kl["parameters"]
    for row in (ours, kl):
        assert row["about"] == CODEC_KINDS[row["name"]].about
        for of in ("reconstructed", "generated"):
            assert row[of]["face_difference"]["value"] > drawings["drawn"]["face_difference"]["value"]
    monkeypatch.setattr(Trainer, "learn", lambda *_: pytest.fail("trained again"))
    assert run() == result
