"""Each detector finds its thing on a drawing that has it, and not on the same drawing without it."""

from dataclasses import replace

import numpy as np
import pytest

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.evaluation.metrics.nearest import true_faces
from gen_affect_lib.evaluation.metrics.small_things import (
    HALF,
    THINGS,
    Drawn,
    contrast,
    face_error,
    read_things,
    tilt_of,
    worn,
)
from gen_affect_lib.evaluation.power import blurred

PERSON = Identity(skin=0.3, hair_style="curly", hair_color="brown", glasses="square", freckles="some")
WORRIED = Expression(au1=0.8, au2=0.6, au12=0.5, au25=0.4, head_yaw=0.3)
DRESSED = Appearance(earrings="hoop", earring_color="gold", head_tilt=0.37, background_hue=0.3, clothes_hue=0.8)
AVATAR = Avatar(PERSON, WORRIED, DRESSED)
SIDE = 128


TRUE = Drawn(PERSON, WORRIED, 0.35, SIDE)  # nearly at the tilt of the avatar


def read(image, identity=PERSON):
    return read_things(image, replace(TRUE, identity=identity))


def test_a_drawing_has_the_whole_contrast_of_every_thing():
    things = read(AVATAR.render(SIDE))
    assert all(0.55 < things[thing] < 1.2 for thing in THINGS), things
    assert things["earrings"] == things["pair"] == 1


@pytest.mark.parametrize("thing", THINGS)
def test_without_a_thing_there_is_none_of_its_contrast_and_all_of_the_others(thing):
    things = read(without(AVATAR, thing, SIDE))
    assert things[thing] < 0.1
    assert all(things[other] > 0.55 for other in THINGS if other != thing), things


def test_a_blur_lowers_the_contrast_of_fine_lines_below_a_half():
    things = read(blurred(AVATAR.render(SIDE), 1.5))
    assert all(things[thing] < HALF for thing in ("freckles", "curls", "folds"))


def test_freckles_and_frames_are_looked_for_on_people_without_them():
    plain = replace(PERSON, freckles="none", glasses="none")
    things = read(Avatar(plain, WORRIED, DRESSED).render(SIDE), plain)
    assert abs(things["freckles"]) < 0.15 and abs(things["frames"]) < 0.15
    invented = read(Avatar(replace(plain, freckles="some"), WORRIED, DRESSED).render(SIDE), plain)
    assert invented["freckles"] > 0.85


def test_what_can_hardly_be_seen_is_not_looked_for():
    calm = Expression(au1=0.02)
    black = replace(PERSON, hair_color="black", glasses="none")
    things = read_things(Avatar(black, calm, DRESSED).render(SIDE), Drawn(black, calm, 0.35, SIDE))
    assert np.isnan(things["folds"]) and np.isnan(things["curls"])
    assert np.isnan(contrast(np.zeros((32, 32, 3), np.float32), *np.full((2, 32, 32, 3), 0.5, np.float32)))


def test_the_tilt_is_found_between_the_tilts_that_are_compared():
    faces = true_faces(PERSON, WORRIED, SIDE)
    for tilt in (-0.9, -0.1, 0.37):
        image = Avatar(PERSON, WORRIED, replace(DRESSED, head_tilt=tilt)).render(SIDE)
        assert tilt_of(image, faces, PERSON, WORRIED) == pytest.approx(tilt, abs=0.04)


@pytest.mark.parametrize("style", ["stud", "hoop", "drop"])
def test_an_earring_is_found_at_the_ear_that_wears_it(style):
    with_both = Avatar(PERSON, WORRIED, replace(DRESSED, earrings=style)).render(SIDE)
    bare = without(AVATAR, "earrings", SIDE)
    one = np.concatenate([with_both[:, : SIDE // 2], bare[:, SIDE // 2 :]], axis=1)
    for image, expected in ((with_both, [style, style]), (bare, ["none", "none"]), (one, [style, "none"])):
        assert worn(image.astype(np.float32) / 255, TRUE) == expected
    things = read(one)
    assert things["earrings"] == 1 and things["pair"] == 0
    assert read(bare)["earrings"] == 0


def test_the_error_of_a_face_does_not_depend_on_the_appearance_but_on_the_expression():
    exact = replace(TRUE, tilt=DRESSED.head_tilt)
    for look in (DRESSED, replace(DRESSED, background_hue=0.9, clothes_hue=0.2, collar="hood", earrings="none")):
        assert face_error(Avatar(PERSON, WORRIED, look).render(SIDE), exact) < 0.001
    assert face_error(Avatar(PERSON, Expression(au12=1.0), DRESSED).render(SIDE), exact) > 0.03
    assert 0.2 < exact.inside.mean() < 0.3
