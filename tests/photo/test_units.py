"""Action units, gaze and head turn from the points and blendshapes of a face."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.photo.landmarker import NAMES, Face, FaceLandmarker
from gen_affect_lib.photo.units import EYES, GAZE_REST, TABLE, TURN, dark_offset, from_blendshapes, gaze, head_turn


def weights(**values) -> np.ndarray:
    """Blendshapes with these values, a name without a side standing for both, and 0 elsewhere."""
    found = np.zeros(52, np.float32)
    for name, value in values.items():
        for side in ("", "Left", "Right"):
            if name + side in NAMES:
                found[NAMES.index(name + side)] = value
    return found


def test_the_table_has_all_units_and_knows_its_blendshapes():
    assert list(TABLE) == [name for name in Expression.NAMES if name.startswith("au")]
    for names, rest, full in TABLE.values():
        assert rest < full and all(weights(**{name: 1}).any() for name in names)


@pytest.mark.parametrize("unit", [unit for unit in TABLE if unit not in ("au25", "au26")])
def test_a_unit_rises_with_its_blendshapes_and_rests_with_them(unit):
    names, rest, full = TABLE[unit]
    share = len(names)
    assert from_blendshapes(weights(**{name: rest / share for name in names}))[unit] == pytest.approx(0, abs=1e-6)
    assert from_blendshapes(weights(**{name: full / share for name in names}))[unit] == pytest.approx(1, abs=1e-6)
    strong = from_blendshapes(weights(**{name: full / share for name in names}))
    assert max(strong, key=lambda name: strong[name]) == unit or strong[unit] == max(strong.values())


def test_squinting_is_a_raised_cheek_in_a_smile_and_a_tightened_lid_without():
    smiling = from_blendshapes(weights(mouthSmile=0.9, eyeSquint=0.5))
    assert smiling["au6"] > 0.8 and smiling["au7"] < 0.1
    squinting = from_blendshapes(weights(eyeSquint=0.8))
    assert squinting["au7"] > 0.7 and squinting["au6"] == 0


def test_an_open_jaw_drops_and_parts_the_lips():
    units = from_blendshapes(weights(jawOpen=0.6))
    assert units["au26"] == 1 and units["au25"] > 0.6


def face(aligned=None, rotation=None, landmarks=None) -> Face:
    aligned = np.zeros((478, 3), np.float32) if aligned is None else aligned
    rotation = np.eye(3) if rotation is None else rotation
    return Face(
        aligned if landmarks is None else landmarks, np.zeros(52, np.float32), np.zeros(4), 1.0, 1.0, aligned, rotation
    )


def test_head_turn_has_the_signs_of_the_drawing():
    degrees = np.degrees(TURN)
    right = Rotation.from_euler("y", degrees[0], degrees=True).as_matrix().T  # row vectors
    assert head_turn(face(rotation=right))[0] == pytest.approx(1, abs=1e-3)
    up = Rotation.from_euler("x", -20, degrees=True).as_matrix().T
    assert head_turn(face(rotation=up))[1] > 0.5


def test_gaze_follows_the_irises():
    aligned = np.zeros((478, 3), np.float32)
    for iris, outer, inner, side in ((468, 33, 133, -1), (473, 263, 362, 1)):
        aligned[outer, 0], aligned[inner, 0] = side * 4, side * 2
        aligned[iris, :2] = side * 3 + 0.2, 0.0
    x, y = gaze(face(aligned), GAZE_REST)
    assert 0.5 < x < 0.8 and y == pytest.approx(0, abs=0.01)
    assert gaze(face(aligned), GAZE_REST + 0.2)[1] > 0.5
    aligned[[468, 473], 1] = 0.2
    assert gaze(face(aligned), GAZE_REST)[1] > 0.05


def test_the_dark_part_of_an_eye_is_found_between_the_lids():
    """Two eyes 60 pixels wide, the iris 6 pixels above the line between the corners; the brow is darker than it."""
    picture, points = np.full((200, 300, 3), 220, np.uint8), np.zeros((478, 3), np.float32)
    for (outer, inner, iris, outline), left in zip(EYES, (40, 200)):
        points[outer, :2], points[inner, :2] = (left, 100), (left + 60, 100)
        turn = np.linspace(np.pi, -np.pi, len(outline), endpoint=False)
        points[list(outline), :2] = np.stack([left + 30 + 30 * np.cos(turn), 100 + 16 * np.sin(turn)], axis=1)
        points[iris, :2] = left + 30, 100
        points[iris + 1 : iris + 5, :2] = np.add([[9, 0], [0, -9], [-9, 0], [0, 9]], [left + 30, 100])
        cv2.circle(picture, (left + 30, 94), 8, (60, 40, 20), -1)
        cv2.rectangle(picture, (left, 60), (left + 60, 70), (0, 0, 0), -1)
    assert dark_offset(face(landmarks=points), picture) == pytest.approx(0.1, abs=0.02)


def test_gaze_of_drawings_is_read():
    """Of people on whom nothing was chosen; the bar of both directions is a correlation of 0.75."""
    from gen_affect_lib.avatars import Appearance, Avatar, Identity

    landmarker, seen, drawn = FaceLandmarker.load(), [], []
    for seed in range(1_000_000, 1_000_120):
        expression = Expression.sample(seed)
        if expression.au43 > 0.4:  # closed eyes have no gaze
            continue
        picture = Avatar(Identity.sample(seed), expression, Appearance.sample(seed)).render(256)
        (one,) = landmarker.faces(picture)
        seen.append(gaze(one, dark_offset(one, picture)))
        drawn.append((expression.gaze_x, expression.gaze_y))
    for read, true in zip(np.transpose(seen), np.transpose(drawn)):
        assert np.corrcoef(read, true)[0, 1] > 0.75
