"""Training by name: a tiny run writes what insightface loads, and a wrong name is answered."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gen_affect_lib import cli, readers
from gen_affect_lib.encoders import pack
from gen_affect_lib.encoders.identity import embed
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.metrics.recognition import retrieval
from gen_affect_lib.training import detector as detector_training
from gen_affect_lib.training import identity as identity_training
from gen_affect_lib.training import landmarks as landmark_training
from gen_affect_lib.training.detector import Scenes
from gen_affect_lib.training.identity_data import IdentityPictures


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(detector_training.SCENE_SETS, "smoke", detector_training.ScenesConfig(6, 50))
    for training, sizes in (
        (identity_training, dict(people=6, pictures=2, widths=(8, 8, 16), squeeze=4, embedding=32)),
        (detector_training, dict(widths=(8, 8, 8, 16), neck=8)),
        (landmark_training, dict(widths=(8, 8, 8, 8), squeeze=4)),
    ):
        monkeypatch.setitem(training.CONFIGS, "smoke", replace(training.CONFIGS["smoke"], **sizes))


def test_all_parts_make_one_pack(tiny, tmp_path, capsys):
    for name in ("identity", "detector", "landmarks"):
        assert cli.main(["train-encoder", name, "--out", str(tmp_path), "--profile", "smoke", "--minutes", "0.02"]) == 0
    assert pack.FacePack(tmp_path).landmark_net.taskname == "landmark_2d_5"
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"recognizer", "detector", "landmarks"} and figures["recognizer"]["crop"]["people"] == 24


def test_a_wrong_name_gets_the_right_one(capsys):
    assert cli.main(["train-encoder", "identiti"]) == 2
    assert "did you mean identity?" in capsys.readouterr().err
    with pytest.raises(UserError, match="expression-judge"):
        readers.train_reader("nobody", None)


def test_training_draws_people_together(tmp_path):
    """After a quarter of a minute on twelve people their own pictures are told apart far better than by chance."""
    data = IdentityPictures.open(tmp_path, 0, 12, 4)
    torch.manual_seed(0)
    net = identity_training.ArcFaceNet(widths=(8, 16, 32), blocks=(0, 1, 1), squeeze=8, embedding=64)
    recipe = replace(identity_training.RECIPE, minutes=0.25, batch_size=24)
    losses = [row["loss"] for row in identity_training.fit_identity(net, data, recipe)]
    pictures = [np.ascontiguousarray(data.views[:, k, 0]) for k in range(2)]
    assert retrieval(*(embed(net, views) for views in pictures)) >= 0.5
    assert np.mean(losses[:2]) > np.mean(losses[-2:])


def test_pictures_of_one_person_differ_in_all_but_the_person(tmp_path):
    data = IdentityPictures.open(tmp_path, 1_000_000, 2, 3)
    assert data.views.shape == (2, 3, 2, 112, 112, 3) and data.seeds.tolist() == [1_000_000, 1_000_001]
    assert len({row.tobytes() for row in data.nuisance.reshape(6, -1)}) == 6
    again = IdentityPictures.open(tmp_path, 1_000_000, 2, 3)
    assert np.array_equal(again.views, data.views) and np.array_equal(again.nuisance, data.nuisance)


def test_a_mirrored_scene_keeps_its_truth(tmp_path):
    """Mirroring swaps left and right: boxes mirror, and the left eye is again the one further left."""
    data = Scenes.open(tmp_path, 1_000_000, 100, 3)
    (plain,), (box,), (five,) = data.at(np.array([1]), 256, np.array([False]))
    (mirrored,), (other_box,), (other_five,) = data.at(np.array([1]), 256, np.array([True]))
    assert np.array_equal(plain[:, ::-1], mirrored)
    assert torch.allclose(256 - box[:, [2, 0]], other_box[:, [0, 2]])
    assert torch.equal(box[:, [1, 3]], other_box[:, [1, 3]])
    assert torch.allclose(256 - five[:, [1, 0, 2, 4, 3], 0], other_five[..., 0])
    half = data.at(np.array([1]), 128, np.array([False]))
    assert torch.allclose(half[1][0] * 2, box) and half[0].shape == (1, 128, 128, 3)
