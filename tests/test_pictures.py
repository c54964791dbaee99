"""Pictures of any size and mode become one square."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

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


MODES = ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "La", "RGBA", "RGBa", "RGBX"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_8_bits_is_the_same_picture(mode):
    grey = Image.new("L", (20, 20), 255)
    grey.paste(0, (0, 0, 10, 20))
    through = {"La": "LA", "PA": "P", "LAB": "RGB", "HSV": "RGB"}.get(mode, "L")
    picture = grey.convert(through)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
    elif mode == "RGBa":
        picture = picture.convert("RGBA").convert("RGBa")
    else:
        picture = picture.convert(mode)
    assert picture.mode == mode
    opened = open_picture(picture)
    assert opened.mode == "RGB" and np.abs(np.asarray(opened).astype(int) - np.asarray(grey)[..., None]).max() <= 2


def ramp() -> np.ndarray:
    """Grey values uint8 (16, 16), from 0 to 255."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


DEEP = {
    "8 bits of 16": (np.uint16, 1, "tif"),
    "12 bits": (np.uint16, 4095 / 255, "tif"),
    "16 bits": (np.uint16, 257, "png"),
    "16 bits, big-endian": (np.dtype(">u2"), 257, "tif"),
    "32 bits": (np.int32, 2**23, "tif"),
    "32 bits, small numbers": (np.int32, 257, "tif"),
    "floats up to 1": (np.float32, 1 / 255, "tif"),
    "floats up to 255": (np.float32, 1, "tif"),
    "floats up to 65,535": (np.float32, 257, "tif"),
}


@pytest.mark.parametrize("form", DEEP)
def test_more_than_8_bits_are_the_same_picture(form, tmp_path):
    kind, factor, ending = DEEP[form]
    values = ramp() * np.float64(factor)
    picture = Image.fromarray((values if kind is np.float32 else values.round()).astype(kind))
    picture.save(tmp_path / f"deep.{ending}")
    for source in (picture, tmp_path / f"deep.{ending}"):
        assert np.abs(np.asarray(open_picture(source)).astype(int) - ramp()[..., None]).max() <= 1


def test_numbers_that_are_not_finite_become_black_or_white():
    values = ramp() / np.float32(255)
    values[0, :3] = np.nan, np.inf, -np.inf
    grey = np.asarray(open_picture(Image.fromarray(values)))[..., 0]
    assert list(grey[0, :3]) == [0, 255, 0] and (grey[1:] == ramp()[1:]).all()
    assert (np.asarray(open_picture(Image.new("F", (9, 9), float("nan")))) == 0).all()


def test_a_grey_array_is_a_picture():
    for array in (ramp(), ramp()[..., None]):
        assert (np.asarray(open_picture(array)) == ramp()[..., None]).all()


def test_what_is_transparent_becomes_white():
    assert (np.asarray(as_square(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), SMALL)) == 255).all()
    half = np.asarray(as_square(Image.new("RGBA", (20, 20), (255, 0, 0, 128)), SMALL))
    assert (half == (255, 127, 127)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_a_photo_is_turned_upright_as_a_file_and_in_memory(orientation, ending, tmp_path, face):
    shrunk = face.resize((32, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shrunk.save(tmp_path / f"photo.{ending}", exif=exif, **({"quality": 98} if ending != "tif" else {}))
    stored = Image.open(tmp_path / f"photo.{ending}")
    expected = ImageOps.exif_transpose(stored).convert("RGB")
    assert expected.size == ((32, 48) if orientation < 5 else (48, 32))
    for source in (tmp_path / f"photo.{ending}", Image.open(tmp_path / f"photo.{ending}")):
        opened = open_picture(source)
        assert (np.asarray(opened) == np.asarray(expected)).all()
        assert (np.asarray(open_picture(opened)) == np.asarray(expected)).all()  # turned once, not twice


def test_bad_metadata_does_not_cost_the_picture(tmp_path, face):
    width = struct.pack(">HHI4s", 0x0100, 2, 4, b"abc\0")  # a text where a number belongs
    turn = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # clockwise by a quarter
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + width + turn + bytes(4)
    face.save(tmp_path / "face.jpg", exif=exif, quality=98)
    turned = np.rot90(np.asarray(face), -1).astype(int)
    assert np.abs(np.asarray(open_picture(tmp_path / "face.jpg")) - turned).mean() < 4
    face.save(tmp_path / "face.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", quality=98)
    assert np.abs(np.asarray(open_picture(tmp_path / "face.jpg")) - np.asarray(face).astype(int)).mean() < 4


@pytest.mark.parametrize(
    "error", [struct.error, AttributeError, IndexError, AssertionError, zlib.error, RecursionError]
)
def test_whatever_a_decoder_raises_is_one_line(error, tmp_path, face, monkeypatch):
    face.save(tmp_path / "face.png")

    def fails(*_):
        raise error("deep inside")

    monkeypatch.setattr(Image.Image, "load", fails)
    for source in (tmp_path / "face.png", face):
        with pytest.raises(UserError, match="is no picture that can be read"):
            open_picture(source)


def test_too_large_is_not_damaged(tmp_path, face, monkeypatch):
    face.save(tmp_path / "face.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="face.png has too many pixels: make it smaller"):
        open_picture(tmp_path / "face.png")


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
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\): give uint8"),
        (np.zeros((8, 8), np.uint16), r"uint16 \(8, 8\): give uint8"),
        (np.zeros(8, np.uint8), r"\(8,\): give uint8"),
        ("a" * 5000, "is no file"),
        ("a\0.png", "is no file"),
        (Image.new("RGB", (0, 8)), "is no picture"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\): give uint8"),
        (None, "is a NoneType: give a PIL image"),
    ],
)
def test_what_is_no_picture_says_what_it_is(source, message):
    with pytest.raises(UserError, match=message):
        open_picture(source)
