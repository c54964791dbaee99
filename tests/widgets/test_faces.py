"""The drawn face under sliders does, when one is moved, what the pure function behind it does."""

import numpy as np
import pytest

from gen_affect_lib import widgets
from gen_affect_lib.avatars import Expression
from gen_affect_lib.errors import UserError


def test_values_become_the_avatar_with_that_expression():
    still = np.asarray(widgets.draw_expression({}, identity=3, size=64))
    smile = np.asarray(widgets.draw_expression({"au12": 1.0}, identity=3, size=64))
    assert still.shape == (64, 64, 3) and (still != smile).any()


def test_an_unknown_unit_is_refused_by_name():
    with pytest.raises(UserError, match="'au99' is no part of an expression"):
        widgets.draw_expression({"au99": 1.0})


def test_there_is_a_slider_for_every_part_of_an_expression(shown):
    panel = widgets.expression_panel(size=64)
    assert tuple(panel.sliders) == Expression.NAMES
    assert all(slider.description for slider in panel.sliders.values())


@pytest.mark.parametrize("name, value", [("au12", 0.8), ("gaze_x", -0.5), ("au43", 1.0)])
def test_moving_a_slider_draws_the_face_again(shown, drawn, name, value):
    panel = widgets.expression_panel(identity=5, appearance=6, size=64)
    before = drawn(panel)
    panel.sliders[name].value = value
    assert np.array_equal(drawn(panel), np.asarray(widgets.draw_expression({name: value}, 5, 6, 64)))
    assert (drawn(panel) != before).any()


@pytest.mark.parametrize("name, value", [("au12", 0.8), ("gaze_x", -0.5)])
def test_the_words_say_what_was_moved(shown, name, value):
    panel = widgets.expression_panel(size=64)
    assert "No unit is moved" in panel.picture.alt
    panel.sliders[name].value = value
    assert f"{widgets.LABELS[name]}: {value:g}" in panel.picture.alt
    assert panel.picture.alt in panel.caption.value
    panel.sliders[name].value = 0.0
    assert "No unit is moved" in panel.picture.alt


def test_where_nobody_can_move_a_slider_there_is_a_still_picture(shown, capsys):
    widgets.expression_panel(size=64)
    ((picture, alt),) = shown
    assert picture.width > picture.height and "lip corner puller" in alt
    assert "VBox" not in capsys.readouterr().out


def test_where_somebody_can_the_sliders_appear_below_it(shown, appeared):
    panel = widgets.expression_panel(size=64)
    assert appeared == [panel.widget] and len(shown) == 1
