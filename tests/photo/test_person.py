"""The silhouette of a person: equal to Google's runtime, and that of rendered heads, whose silhouettes are known."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Expression
from gen_affect_lib.errors import UserError
from gen_affect_lib.photo import person
from gen_affect_lib.photo.heads import Person, Scene, render_head
from gen_affect_lib.photo.landmarker import FaceLandmarker
from tests.photo.pictures import ASTRONAUT, HOPPER
from tests.photo.test_landmarker import LiteRT


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker.load()


@pytest.mark.parametrize("path", [ASTRONAUT, HOPPER], ids=["astronaut", "hopper"])
def test_opencv_and_litert_find_the_same_silhouette(landmarker, path, monkeypatch):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    (face,) = landmarker.faces(pixels)
    ours, theirs = person.person_mask(pixels, face), LiteRT(person.WEIGHTS.read_bytes())
    monkeypatch.setattr(person, "_network", lambda: theirs)
    assert np.abs(ours - person.person_mask(pixels, face)).mean() < 1e-3


def test_the_silhouette_of_a_rendered_head_is_found(landmarker):
    overlaps = []
    for seed in range(1_000_700, 1_000_706):
        who, scene = Person.sample(seed), replace(Scene.sample(seed), noise=0.0)
        pictures = [
            render_head(who, Expression.neutral(), replace(scene, background=(color, color)), 256)
            for color in ((0.3, 0.5, 0.4), (0.5, 0.3, 0.4))
        ]
        true = np.abs(pictures[0].astype(int) - pictures[1]).max(axis=2) < 3  # only the background differs
        found = person.person_mask(pictures[0], landmarker.faces(pictures[0])[0]) > 0.5
        overlaps.append((true & found).sum() / (true | found).sum())
    assert min(overlaps) > 0.85 and np.mean(overlaps) > 0.93


def test_the_silhouette_follows_the_face_in_a_larger_picture(landmarker):
    pixels = np.full((700, 900, 3), 200, np.uint8)
    pixels[150:662, 350:862] = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    (face,) = landmarker.faces(pixels)
    mask = person.person_mask(pixels, face)
    x, y = ((face.box[:2] + face.box[2:]) / 2).astype(int)
    assert mask.shape == pixels.shape[:2] and mask[y, x] > 0.99 and mask[:100].max() < 0.1 and mask[:, :250].max() < 0.1


@pytest.mark.parametrize("content, said", [(None, "cannot be read: restore it"), (b"x", "is damaged: restore it")])
def test_missing_or_damaged_weights_are_refused_in_one_line(tmp_path, monkeypatch, content, said):
    weights = tmp_path / "weights.tflite"
    if content:
        weights.write_bytes(content)
    monkeypatch.setattr(person, "WEIGHTS", weights)
    person._network.cache_clear()
    with pytest.raises(UserError, match=said):
        person._network()
    person._network.cache_clear()
