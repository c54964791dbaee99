"""Photographs, rendered heads, drawings and generated pictures are told apart."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.photo.landmarker import FaceLandmarker
from gen_affect_lib.photo.reading import is_photograph
from tests.photo.pictures import ASTRONAUT, HOPPER


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker.load()


def jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return Image.open(file)


CHANGES = {
    "as it is": lambda picture: picture,
    "JPEG": jpeg,
    "half": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "grey": lambda picture: picture.convert("L"),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "dark": lambda picture: picture.point(lambda value: value // 2),
}


@pytest.mark.parametrize("path", [ASTRONAUT, HOPPER], ids=["astronaut", "hopper"])
@pytest.mark.parametrize("change", CHANGES)
def test_photographs_are_photographs(landmarker, path, change):
    assert is_photograph(CHANGES[change](Image.open(path).convert("RGB")), landmarker)


def test_drawings_are_none(landmarker):
    for seed in range(1_010_000, 1_010_240):
        avatar = Avatar(Identity.sample(seed), Expression.sample(seed), Appearance.sample(seed))
        assert not is_photograph(avatar.render(256 if seed % 2 else 128), landmarker), seed


def test_changed_drawings_are_none(landmarker):
    wrong = 0
    for seed in range(1_010_300, 1_010_310):
        avatar = Avatar(Identity.sample(seed), Expression.named(EMOTIONS[seed % 135]), Appearance.sample(seed))
        wrong += sum(
            is_photograph(change(Image.fromarray(avatar.render(256))), landmarker) for change in CHANGES.values()
        )
    assert wrong <= 1  # of 60


def test_a_picture_without_a_person_is_no_photograph_of_one(landmarker):
    assert not is_photograph(np.full((200, 200, 3), 128, np.uint8), landmarker)
