"""Pictures of any size and mode become one square."""

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.folder import FaceFolder
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import ROOT
from gen_affect_lib.pictures import open_picture, square

SIDE, SMALL = 64, 16


def as_square(source, size):
    return square(open_picture(source), size)


@pytest.fixture(scope="module")
def face():
    return Image.fromarray(Avatar(Identity.sample(1_000_000), Expression(), Appearance.sample(0)).render(SIDE))


def striped(width, height):
    """Red on the left, green in the middle, blue on the right."""
    array = np.zeros((height, width, 3), np.uint8)
    for number, columns in enumerate(np.array_split(np.arange(width), 3)):
        array[:, columns, number] = 255
    return array


def test_a_picture_of_the_right_size_is_not_touched():
    array = np.random.default_rng(0).integers(0, 256, (SMALL, SMALL, 3), dtype=np.uint8)
    assert (np.asarray(as_square(array, SMALL)) == array).all()


@pytest.mark.parametrize("width, height", [(300, 100), (48, 16), (33, 11)])
def test_the_centred_square_of_a_wide_picture_counts(width, height):
    result = np.asarray(as_square(striped(width, height), SMALL))
    assert result.shape == (SMALL, SMALL, 3)
    assert np.abs(result[:, 4:-4].astype(int) - (0, 255, 0)).max() <= 12  # enlarging rings a little


def test_the_centred_square_of_a_tall_picture_counts():
    result = np.asarray(as_square(np.ascontiguousarray(striped(90, 30).swapaxes(0, 1)), SMALL))
    assert (result[2:-2] == (0, 255, 0)).all()


def test_a_large_drawing_made_small_is_close_to_a_small_drawing():
    avatar = Avatar(Identity.sample(1_000_001), Expression.named("glee"), Appearance.sample(1))
    small = np.asarray(as_square(avatar.render(256), 64)).astype(int)
    assert np.abs(small - avatar.render(64)).mean() < 2


def test_a_reference_is_made_small_as_a_folder_of_pictures_is():
    faces = FaceFolder(ROOT / "data" / "sample_folder", image_size=SMALL)
    for entry, picture in zip(faces.entries[::6], faces.images[::6]):
        assert (np.asarray(as_square(entry.path, SMALL)) == picture).all()


def test_paths_images_and_arrays_are_the_same_picture(tmp_path, face):
    face.save(tmp_path / "face.png")
    for reference in (tmp_path / "face.png", str(tmp_path / "face.png"), np.asarray(face)):
        assert (np.asarray(as_square(reference, SIDE)) == np.asarray(face)).all()


def test_every_mode_of_a_picture_becomes_rgb():
    for mode in ("L", "1", "P", "CMYK", "RGBA", "LA", "I;16"):
        assert as_square(Image.new(mode, (20, 20)), SMALL).mode == "RGB"


def test_what_is_transparent_becomes_white():
    assert (np.asarray(as_square(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), SMALL)) == 255).all()
    half = np.asarray(as_square(Image.new("RGBA", (20, 20), (255, 0, 0, 128)), SMALL))
    assert (half == (255, 127, 127)).all()


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    picture = Image.fromarray(np.concatenate([np.full((8, 16, 3), 250, np.uint8), np.zeros((8, 16, 3), np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise by a quarter
    picture.save(tmp_path / "photo.png", exif=exif)
    result = np.asarray(as_square(tmp_path / "photo.png", SMALL)).astype(int)
    assert result[:, 12:].mean() > 200 and result[:, :4].mean() < 50


@pytest.mark.parametrize("content", [b"", b"hello", "half a picture"])
def test_a_file_that_is_no_picture_is_a_clear_error(tmp_path, face, content):
    path = tmp_path / "face.png"
    if content == "half a picture":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(UserError, match="face.png is no picture that can be read"):
        as_square(path, SMALL)


@pytest.mark.parametrize(
    "source, message",
    [
        ("nowhere.png", "nowhere.png is no file"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \(3, 8, 8\): give uint8 \(height, width, 3\)"),
        (np.zeros((8, 8, 3), np.float32), r"float32 \(8, 8, 3\): give uint8"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\): give uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\): give uint8"),
        (None, "is a NoneType: give a PIL image"),
    ],
)
def test_what_is_no_picture_says_what_it_is(source, message):
    with pytest.raises(UserError, match=message):
        open_picture(source)
