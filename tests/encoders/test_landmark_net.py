"""The landmark network: five landmarks in insightface's order, more exact than those of the detector."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from insightface.app.common import Face
from insightface.model_zoo import get_model

from gen_affect_lib.avatars.scenes import scene
from gen_affect_lib.encoders import pack
from gen_affect_lib.encoders.landmark_net import SIZE, LandmarkNet, crop_face, find_landmarks
from gen_affect_lib.evaluation.metrics.detection import landmark_errors
from gen_affect_lib.training.detector import Scenes
from gen_affect_lib.training.landmarks import RECIPE, draw_batch, fit_landmarks

VALIDATION = 1_400_000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Scenes.open(tmp_path_factory.mktemp("scenes"), VALIDATION, 1000, 12)


def test_insightface_looks_where_we_look_and_finds_what_we_find():
    s = scene(3, VALIDATION, 1000)
    theirs = get_model(str(pack.FOLDER / pack.LANDMARKS), providers=["CPUExecutionProvider"])
    theirs.prepare(-1)
    bgr = np.ascontiguousarray(s.image[:, :, ::-1])
    ours = find_landmarks(pack.load_landmarks(), s.image, s.boxes)
    for box, five in zip(s.boxes, ours):
        face = Face(bbox=box)
        assert np.abs(theirs.get(bgr, face) - five).max() < 0.02
        assert face["landmark_2d_5"].shape == (5, 2)


def test_the_truth_lies_on_the_face_whatever_box_is_drawn(data):
    """Each landmark of a look, mirrored or not, is the same place of the picture as before."""
    looks, points = draw_batch(data, np.random.default_rng(0), 40)
    assert looks.shape == (40, SIZE, SIZE, 3) and points.shape == (40, 10) and np.abs(points).max() < 1
    five = points.reshape(40, 5, 2)
    assert (five[:, 0, 0] < five[:, 1, 0]).all() and (five[:, 3, 0] < five[:, 4, 0]).all()  # left stays left
    assert (five[:, :2, 1].max(axis=1) < five[:, 3:, 1].min(axis=1)).all()  # eyes above the mouth


def test_a_network_that_gives_the_middle_gives_the_middle_of_the_box(data):
    boxes = np.array([[10.0, 20, 50, 80], [100, 40, 140, 70]])
    found = find_landmarks(LandmarkNet(widths=(8, 8, 8, 8), squeeze=4).eval(), data.images[0], boxes)
    middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    assert found.shape == (2, 5, 2) and np.abs(found - middles).max() < 60  # its bias is random
    assert find_landmarks(LandmarkNet(), data.images[0], np.zeros((0, 4))).shape == (0, 5, 2)
    look, there = crop_face(data.images[0], boxes[0])
    assert look.shape == (SIZE, SIZE, 3) and np.allclose(there @ [30, 50, 1], SIZE / 2)


def test_it_learns(data):
    torch.manual_seed(0)
    recipe = replace(RECIPE, minutes=0.12, batch_size=16)
    history = fit_landmarks(LandmarkNet(widths=(8, 16, 32, 64), squeeze=8), data, recipe)
    losses = [row["loss"] for row in history]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_the_shipped_weights_are_exact(data):
    """Boxes a little off, as a detector's are."""
    net, errors = pack.load_landmarks(), []
    for k, image in enumerate(data.images):
        mine = data.scene == k
        sides = np.tile(data.boxes[mine, 2:] - data.boxes[mine, :2], 2)
        boxes = data.boxes[mine] + np.random.default_rng(k).normal(0, 0.02, sides.shape) * sides
        errors.append(landmark_errors(find_landmarks(net, image, boxes), data.points[mine]))
    assert np.concatenate(errors).mean() < 0.035
