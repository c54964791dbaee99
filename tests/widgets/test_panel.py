"""Sliders, a picture to point at, and its words move together."""

import ipywidgets
import pytest
from PIL import Image

from gen_affect_lib.errors import UserError
from gen_affect_lib.widgets import Panel, Pointing
from gen_affect_lib.widgets.pad import SCRIPT, STYLE


class Grey:
    """A panel of two sliders over a grey picture, and how often it was drawn."""

    def __init__(self, pointing=None):
        self.drawings = []
        sliders = {name: ipywidgets.IntSlider(value=10, min=0, max=100) for name in ("one", "other")}
        self.panel = Panel(self.draw, sliders, lambda one, other: f"grey, <{one + other}>", pointing)
        self.drawings.clear()

    def draw(self, one, other):
        self.drawings.append((one, other))
        return Image.new("RGB", (8, 8), (one + other,) * 3)


POINTING = Pointing(
    lambda x, y: {"one": round(100 * x), "other": round(100 * y)} if y > 0.1 else {},
    lambda dx, dy, values: {"one": values["one"] + dx, "other": values["other"] + 10 * dy},
    "a grey square",
)


def test_a_slider_changes_the_picture_and_its_words_at_once(drawn):
    grey = Grey()
    grey.panel.sliders["one"].value = 30
    assert grey.drawings == [(30, 10)]
    assert (drawn(grey.panel) == 40).all() and grey.panel.picture.alt == "grey, <40>"


def test_the_caption_says_the_same_and_is_no_markup():
    assert ">grey, &lt;20&gt;<" in Grey().panel.caption.value


def test_setting_several_values_draws_once_and_the_sliders_still_work():
    grey = Grey()
    grey.panel.set(one=1, other=2)
    assert grey.drawings == [(1, 2)] and grey.panel.values == {"one": 1, "other": 2}
    grey.panel.sliders["other"].value = 3
    assert grey.drawings == [(1, 2), (1, 3)]


def test_the_button_goes_back_and_draws_once(drawn):
    grey = Grey()
    before = drawn(grey.panel)
    grey.panel.set(one=50, other=60)
    grey.drawings.clear()
    grey.panel.reset.click()
    assert grey.drawings == [(10, 10)] and (drawn(grey.panel) == before).all()


def test_a_pressed_place_moves_the_sliders_and_draws_once(press):
    grey = Grey(POINTING)
    press(grey.panel, point=(0.25, 0.75))
    assert grey.panel.values == {"one": 25, "other": 75} and grey.drawings == [(25, 75)]


def test_a_place_where_nothing_is_changes_nothing(press):
    grey = Grey(POINTING)
    press(grey.panel, point=(0.25, 0.05))
    press(grey.panel, point=(0.10, 0.1000001))  # and so does one where it is already
    assert grey.drawings == [] and grey.panel.values == {"one": 10, "other": 10}


@pytest.mark.parametrize(
    "key, values", [((1, 0), (11, 10)), ((-1, 0), (9, 10)), ((0, 1), (10, 20)), ((0, -1), (10, 0))]
)
def test_arrow_keys_step_from_where_it_is(press, key, values):
    grey = Grey(POINTING)
    press(grey.panel, step=key)
    assert tuple(grey.panel.values.values()) == values and grey.drawings == [values]


def test_a_picture_that_nobody_can_point_at_takes_no_keys(press):
    grey = Grey()
    assert grey.panel.picture.label == ""
    press(grey.panel, step=(1, 0))
    assert grey.drawings == []
    assert Grey(POINTING).panel.picture.label == "a grey square"


def test_a_still_picture_stands_above_the_sliders_or_instead_of_them(shown, appeared):
    panel, still = Grey().panel, Image.new("RGB", (8, 8))
    panel.show(still, "above")
    panel.show(still, "instead", instead=True)
    assert [alt for _, alt in shown] == ["above"] and appeared == [panel.widget] * 2


def test_where_nobody_is_there_the_still_picture_stands_alone(shown):
    panel, still = Grey().panel, Image.new("RGB", (8, 8))
    panel.show(still, "above")
    panel.show(still, "instead", instead=True)
    assert [alt for _, alt in shown] == ["above", "instead"]


def test_a_still_picture_without_words_is_refused():
    with pytest.raises(UserError, match="alt is"):
        Grey().panel.show(Image.new("RGB", (8, 8)), "")


def test_the_browser_loads_nothing_from_anywhere():
    assert "http" not in SCRIPT + STYLE and "import " not in SCRIPT and "url(" not in STYLE
