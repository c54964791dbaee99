"""The sliders do, when moved, what the pure functions behind them do."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gen_affect_lib import widgets
from gen_affect_lib.avatars import Expression
from gen_affect_lib.errors import UserError
from gen_affect_lib.model.consistent import Consistency


@pytest.fixture
def shown(monkeypatch):
    """The still pictures and the words under which they went to the page."""
    pictures = []
    monkeypatch.setattr(widgets, "show", lambda picture, alt: pictures.append((picture, alt)))
    return pictures


def drawn(panel) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(panel.picture.value)))


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
def test_moving_a_slider_draws_the_face_again(shown, name, value):
    panel = widgets.expression_panel(identity=5, appearance=6, size=64)
    before = drawn(panel)
    panel.sliders[name].value = value
    assert np.array_equal(drawn(panel), np.asarray(widgets.draw_expression({name: value}, 5, 6, 64)))
    assert (drawn(panel) != before).any()
    assert f"{widgets.LABELS[name]}: {value:g}" in panel.caption.value


def test_the_button_goes_back_and_draws_once(shown):
    panel = widgets.expression_panel(size=64)
    before = drawn(panel)
    panel.sliders["au12"].value = 1.0
    panel.sliders["au1"].value = 1.0
    draw, drawings = panel.draw, []
    panel.draw = lambda **values: drawings.append(values) or draw(**values)
    panel.reset.click()
    assert np.array_equal(drawn(panel), before) and len(drawings) == 1
    panel.sliders["au4"].value = 1.0  # and the sliders still work
    assert len(drawings) == 2


def test_where_nobody_can_move_a_slider_there_is_a_still_picture(shown, capsys):
    widgets.expression_panel(size=64)
    (picture, alt), = shown
    assert picture.width > picture.height and "lip corner puller" in alt
    assert "VBox" not in capsys.readouterr().out


def test_where_somebody_can_the_sliders_appear(shown, monkeypatch):
    appeared = []
    monkeypatch.setattr(widgets, "someone_there", lambda: True)
    monkeypatch.setattr("IPython.display.display", appeared.append)
    panel = widgets.expression_panel(size=64)
    assert appeared == [panel.widget] and len(shown) == 1


class Pipeline:
    """Answers like a GenAffectPipeline: a flat picture, its colour the settings."""

    config = SimpleNamespace(num_inference_steps=9, identity_scale=1.5, expression_scale=1.5)

    def __init__(self):
        self.calls = []

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, *, reference, expressions, num_inference_steps, identity_scale, expression_scale, generator):
        self.calls.append((num_inference_steps, identity_scale, expression_scale, generator.initial_seed()))
        color = (num_inference_steps, round(10 * identity_scale), round(10 * expression_scale))
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), color) for _ in expressions])


REFERENCE = Image.new("RGB", (64, 64), "white")


def test_a_row_of_samples_starts_with_the_reference():
    row = widgets.sample_row(Pipeline(), REFERENCE, ["joy", "fear"], steps=7, identity_scale=1.0, expression_scale=2.0)
    assert [picture.getpixel((5, 5)) for picture in row] == [(255, 255, 255), (7, 10, 20), (7, 10, 20)]


def test_moving_steps_or_guidance_samples_again_from_the_same_noise(shown):
    pipeline = Pipeline()
    panel = widgets.guidance_panel(pipeline, REFERENCE, ["joy", "fear"], seed=4)
    pipeline.calls.clear()
    panel.sliders["steps"].value = 20
    panel.sliders["expression_scale"].value = 3.0
    assert pipeline.calls == [(20, 1.5, 1.5, 4), (20, 1.5, 3.0, 4)]
    assert (drawn(panel) == np.array([20, 15, 30])).all(axis=2).any()


def test_the_still_picture_of_the_guidance_shows_and_names_its_settings(shown):
    pipeline = Pipeline()
    widgets.guidance_panel(pipeline, REFERENCE, ["joy"], stills=[{"steps": 1}, {"identity_scale": 3.0}])
    (picture, alt), = shown
    assert [call[:3] for call in pipeline.calls[:2]] == [(1, 1.5, 1.5), (9, 3.0, 1.5)]
    assert "1 step, identity scale 1.5" in alt and "identity scale 3" in alt and "joy" in alt


class Sharing:
    """Answers like a GenAffectPipeline: flat pictures, black where each is drawn alone, else grey by the share lent."""

    def __init__(self):
        self.calls = []

    def set_progress_bar_config(self, disable):
        assert disable

    def __call__(self, *, reference, expressions, consistency, generator):
        self.calls.append((consistency, generator.initial_seed()))
        grey = 0 if consistency == 0 else round(200 * consistency.share)
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), (grey,) * 3) for _ in expressions])


def test_sharing_is_shown_beside_the_same_set_drawn_one_by_one(shown):
    pipeline = Sharing()
    panel = widgets.sharing_panel(pipeline, REFERENCE, ["joy", "fear"], seed=4)
    (picture, alt), = shown
    assert "joy, fear" in alt and "one by one" in alt
    assert pipeline.calls[0] == (0, 4) and pipeline.calls[1] == (Consistency(), 4)
    pipeline.calls.clear()
    panel.sliders["share"].value = 0.5
    panel.sliders["instead"].value = not Consistency().instead
    half = dataclasses.replace(Consistency(), share=0.5)
    assert pipeline.calls == [(half, 4), (dataclasses.replace(half, instead=not half.instead), 4)]
    assert (drawn(panel) == 100).all(axis=2).any() and (drawn(panel) == 0).all(axis=2).any()
    panel.reset.click()
    assert panel.values == {name: getattr(Consistency(), name) for name in panel.values}
