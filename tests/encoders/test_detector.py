"""The detector: targets of the anchors, the loss, and that its outputs can represent the ground truth."""

import numpy as np
import pytest
import torch

from gen_affect_lib.encoders.detector import SPANS, FaceDetector, assign, centers, decode, detector_loss, overlap

BOX = torch.tensor([[40.0, 30.0, 88.0, 96.0]])
POINTS = torch.tensor([[[52.0, 58.0], [76.0, 58.0], [64.0, 70.0], [56.0, 82.0], [72.0, 82.0]]])


def perfect(boxes, points, side):
    """The nine outputs that represent the ground truth exactly."""
    places, strides, _ = centers(side, side)
    face, _ = assign(boxes, side, side)
    mine, chosen = face >= 0, face.clamp_min(0)
    found = torch.cat([places - boxes[chosen][:, :2], boxes[chosen][:, 2:] - places], dim=1) / strides[:, None]
    way = ((points[chosen] - places[:, None]) / strides[:, None, None]).flatten(1)
    parts = []
    for values in (mine.float()[:, None], found, way):
        parts += [part[None] for part in values.split([int((strides == s).sum()) for s in (8, 16, 32)])]
    return parts


def test_the_right_answers_decode_to_the_truth():
    scores, boxes, points = decode(perfect(BOX, POINTS, 128), 128, 128)
    mine = scores[0] > 0.5
    assert mine.sum() >= 4
    assert torch.allclose(boxes[0, mine], BOX.expand(int(mine.sum()), 4), atol=1e-4)
    assert torch.allclose(points[0, mine], POINTS.expand(int(mine.sum()), 5, 2), atol=1e-4)


def test_the_right_answers_cost_nothing_and_wrong_ones_something():
    right = perfect(BOX, POINTS, 128)
    loss, parts = detector_loss(right, [BOX], [POINTS], 128)
    assert loss.item() == pytest.approx(0, abs=1e-4)
    for wrong, name in ((0, "score"), (4, "box"), (7, "points")):
        outputs = [output.clone() for output in right]
        outputs[wrong] = outputs[wrong] * 0.5 + 0.2
        assert detector_loss(outputs, [BOX], [POINTS], 128)[1][name] > parts[name] + 1e-3


@pytest.mark.parametrize("side, span", [(20, 0), (40, 1), (70, 2), (110, 3), (170, 4), (300, 5)])
def test_a_face_is_asked_of_the_answers_for_its_size(side, span):
    box = torch.tensor([[190.0 - side / 2, 190.0 - side / 2, 190.0 + side / 2, 190.0 + side / 2]])
    face, skipped = assign(box, 384, 384)
    places, _, spans = centers(384, 384)
    assert set(spans[face >= 0].tolist()) == {span} and SPANS[span][0] <= side < SPANS[span][1]
    assert ((places[face >= 0] - 190).abs() <= max(0.16 * side, 24)).all()
    assert not (skipped & (face >= 0)).any() and skipped.any()


def test_a_picture_without_faces_wants_low_scores_only():
    net = FaceDetector(widths=(8, 8, 16, 16), neck=8)
    loss, parts = detector_loss(net(torch.randn(2, 3, 64, 64)), [torch.zeros(0, 4)] * 2, [torch.zeros(0, 5, 2)] * 2, 64)
    loss.backward()
    assert parts["box"] == parts["points"] == 0 and parts["score"] > 0


def test_overlap_is_that_of_areas():
    a = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 1, 1]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [9, 0, 10, 1]])
    iou, generalized = overlap(a, b)
    assert torch.allclose(iou, torch.tensor([1.0, 1 / 3, 0.0])) and generalized[2] == pytest.approx(-0.8)


def test_a_few_steps_make_it_find_one_face():
    """The whole chain learns: loss, gradients, decoding."""
    torch.manual_seed(0)
    net = FaceDetector(widths=(8, 16, 16, 16), neck=16)
    image = torch.zeros(1, 3, 128, 128) - 0.8
    image[:, :, 30:96, 40:88] = 0.5
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(60):
        loss, _ = detector_loss(net(image), [BOX], [POINTS], 128)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores, boxes, _ = decode(net(image), 128, 128)
    best = scores[0].argmax()
    assert overlap(boxes[0, best][None], BOX)[0] > 0.7
    assert np.isfinite(loss.item())
