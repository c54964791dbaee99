"""Drawings without one small thing."""

from dataclasses import replace

import pytest

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.omission import THINGS, without

SIZE = 64
WITH_ALL = Avatar(
    Identity(hair_style="curly", freckles="some", glasses="round"),
    Expression.named("amusement"),
    Appearance(earrings="hoop"),
)
PLAIN = Avatar(
    Identity(hair_style="short", freckles="none", glasses="none"), Expression.neutral(), Appearance(earrings="none")
)


@pytest.mark.parametrize("thing", THINGS)
def test_a_thing_is_left_out_of_an_avatar_that_has_it(thing):
    assert (without(WITH_ALL, thing, SIZE) != WITH_ALL.render(SIZE)).any()
    assert (without(PLAIN, thing, SIZE) == PLAIN.render(SIZE)).all()


def test_only_the_thing_is_left_out():
    bare = replace(WITH_ALL, appearance=replace(WITH_ALL.appearance, earrings="none"))
    assert (without(WITH_ALL, "earrings", SIZE) == bare.render(SIZE)).all()
    calm = replace(WITH_ALL, expression=Expression.neutral())
    assert (without(calm, "folds", SIZE) == calm.render(SIZE)).all()
    smooth = replace(WITH_ALL, identity=replace(WITH_ALL.identity, hair_style="afro"))
    assert (without(smooth, "curls", SIZE) == smooth.render(SIZE)).all()


def test_an_unknown_thing_is_refused():
    with pytest.raises(ValueError, match="folds"):
        without(PLAIN, "scars", SIZE)
