"""What is read of photographs: licence, one view, expression, places."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.folder import Entry
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.avatars.regions import face_tokens
from gen_affect_lib.encoders import pack
from gen_affect_lib.encoders.affect import vector_of_point
from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import faces

AVATAR = Avatar(Identity.sample(1_000_003), Expression.named("joy"), Appearance.sample(3))


class Read:
    """A reading of photographs that finds the same expression on each."""

    expression = Expression.named("glee")

    def __init__(self, picture):
        pass


def entry(**fields) -> Entry:
    return Entry(**dict(line=3, path="face.png", identity="ada", expression=None, vector=None) | fields)


def test_a_pack_of_insightface_is_not_opened_without_consent(tmp_path):
    said = []
    with pytest.raises(UserError, match="non-commercial research only.*--accept-licence") as caught:
        faces.open_faces("buffalo_l", accepted=False, say=said.append)
    assert "\n" not in str(caught.value) and len(said) == 1 and "github.com" in said[0]
    with pytest.raises(UserError, match="has not been accepted"):  # a folder may hold one of them as well
        faces.open_faces(tmp_path, accepted=False, say=said.append)


def test_the_kits_own_pack_needs_no_consent_and_has_one_view():
    said = []
    read = faces.open_faces(pack.FOLDER, accepted=False, say=said.append)
    assert said == []
    assert read.one(AVATAR.render(256)).tokens.shape == (1, 512)


def test_a_line_without_expression_is_read_from_its_photograph():
    assert np.array_equal(faces.meaning_by(Read)(entry()), Expression.named("glee").to_vector())
    assert np.allclose(faces.meaning_by(Read)(entry(affect=(0.5, 0.5))), vector_of_point(0.5, 0.5))
    with pytest.raises(UserError, match="line 3 has no expression, and this installation reads none"):
        faces.meaning_by(None)(entry())


def test_expressions_may_be_words_of_other_collections_points_and_photographs():
    read = faces.read_expressions(["happy", "happiness", (0.5, 0.5), "face.png"], Read)
    assert read.shape == (4, 48) and np.array_equal(read[0], read[1])
    assert np.allclose(read[3, :21], Expression.named("glee").to_vector())
    with pytest.raises(UserError, match="reads no expression from it: give a word"):
        faces.read_expressions(["face.png"], None)
    with pytest.raises(UserError, match="not one of the 135"):
        faces.read_expressions(["xyzzy"], Read)


def test_measured_valence_and_arousal_replace_those_of_the_vector():
    vector = Expression.named("glee").to_vector()
    derived, measured = faces.representation(vector), faces.representation(vector, (-0.5, 0.25))
    assert measured[21:23].tolist() == [-0.5, 0.25]
    assert np.array_equal(np.delete(measured, (21, 22)), np.delete(derived, (21, 22)))


def test_the_reader_of_photographs_is_the_kits_or_none(monkeypatch):
    class Landmarker:
        @classmethod
        def load(cls):
            return cls()

    def read_photo(picture, which, landmarker):
        return picture, which, type(landmarker)

    modules = {"landmarker": {"FaceLandmarker": Landmarker}, "reading": {"read_photo": read_photo}}
    for name, content in modules.items():
        monkeypatch.setitem(sys.modules, f"gen_affect_lib.photo.{name}", SimpleNamespace(**content))
    assert faces.photo_reader()("face.png") == ("face.png", "largest", Landmarker)

    def missing(cls):
        raise UserError("the landmarker is not installed")

    monkeypatch.setattr(Landmarker, "load", classmethod(missing))
    assert faces.photo_reader() is None


@pytest.mark.parametrize("size", [(256, 256), (192, 256), (256, 192)])
def test_a_portrait_has_its_face_at_the_same_place(size):
    picture = Image.new("RGB", (900, 700), (60, 90, 120))
    picture.paste(Image.fromarray(AVATAR.render(300)), (410, 180))
    there = landmarks(AVATAR) * 300 + (410, 180)
    framed, places = faces.portrait(picture, there, size)
    assert framed.size == size
    eyes, mouth = faces.eyes_and_mouth(places * size)
    assert eyes[1] / size[1] == pytest.approx(faces.EYES_AT, abs=0.01)
    assert np.linalg.norm(mouth - eyes) / size[1] == pytest.approx(faces.FACE_UNIT, abs=0.01)
    assert (eyes[0] + mouth[0]) / 2 / size[0] == pytest.approx(0.5, abs=0.01)
    # the pixels are those of the photograph: the tip of the nose is where it should be
    x, y = (places[2] * size).astype(int)
    assert np.abs(np.array(framed)[y, x].astype(int) - np.array(picture)[int(there[2, 1]), int(there[2, 0])]).max() < 40


def test_a_portrait_at_the_edge_is_moved_inside_and_a_small_one_refused():
    picture = Image.fromarray(AVATAR.render(400))
    framed, places = faces.portrait(picture, landmarks(AVATAR) * 400 - (0, 90), (256, 256))
    assert framed.size == (256, 256) and faces.eyes_and_mouth(places)[0][1] < faces.EYES_AT
    with pytest.raises(UserError, match="the portrait in it is 366 × 366 pixels: give a larger picture"):
        faces.portrait(picture, landmarks(AVATAR) * 400, (512, 512))


def test_places_come_from_landmarks():
    """On drawn people they are about those that the kit takes from the drawing."""
    people = [Avatar(Identity.sample(n), Expression.named("joy"), Appearance.sample(n)) for n in range(30)]
    mask = faces.face_mask(np.stack([landmarks(one) for one in people]), (16, 16))
    drawn = face_tokens(16)
    assert (mask & drawn).sum() > 0.9 * drawn.sum() and mask.sum() < 2 * drawn.sum()


def test_places_follow_the_face_and_the_shape_of_the_picture():
    there = np.array([[[0.2, 0.2], [0.3, 0.2], [0.25, 0.25], [0.21, 0.3], [0.29, 0.3]]])
    mask = faces.face_mask(there, (20, 10))  # the picture is twice as high as wide
    rows, columns = np.nonzero(mask.numpy())
    assert rows.max() < 8 and columns.max() < 5
    assert not faces.face_mask(there + 2, (20, 10)).any()
