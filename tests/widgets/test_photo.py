"""The photograph beside its avatar: controls and keys correct factors, and the words say what was corrected."""

import io

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from gen_affect_lib import widgets
from gen_affect_lib.avatars import Appearance, Expression, Identity
from gen_affect_lib.errors import UserError
from gen_affect_lib.photo.reading import PhotoReading
from gen_affect_lib.widgets import photo

SIZE = 64


@pytest.fixture
def picture():
    """Stands for a photograph: the panel shows it, and does not read it again."""
    return np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


@pytest.fixture
def reading():
    who, does, around = Identity.sample(1_000_003), Expression(au12=0.8, gaze_x=-0.3), Appearance(background_hue=0.97)
    names = (*Identity.NAMES, *Expression.NAMES, *Appearance.NAMES)
    sure = dict(zip(names, np.linspace(0.2, 0.9, len(names)).tolist())) | {"age": 0.0, "nose_width": 0.05}
    landmarks = np.random.default_rng(1).uniform(40, 80, (478, 2)).astype(np.float32)
    return PhotoReading(who, does, around, sure, landmarks, np.array([40, 40, 80, 80], np.float32))


@pytest.fixture
def panel(picture, reading, shown):
    return widgets.photo_panel(picture, reading, SIZE)


# --- corrections -----------------------------------------------------------------------------------------------------


def test_a_correction_changes_its_factor_alone_and_makes_it_sure(reading):
    mine = widgets.corrected(reading, nose_width=0.25, hair_style="curly", au4=0.5, clothes_hue=0.3)
    assert (mine.identity.nose_width, mine.identity.hair_style) == (0.25, "curly")
    assert (mine.expression.au4, mine.expression.au12) == (0.5, reading.expression.au12)
    assert mine.appearance == Appearance(background_hue=0.97, clothes_hue=0.3)
    assert {name for name, sure in mine.confidence.items() if sure != reading.confidence[name]} == {
        "nose_width", "hair_style", "au4", "clothes_hue",
    }  # fmt: skip
    assert all(mine.confidence[name] == 1 for name in ("nose_width", "hair_style"))
    assert reading.identity == Identity.sample(1_000_003), "the reading itself is not changed"


def test_a_value_that_is_the_same_is_no_correction(reading):
    same = widgets.corrected(reading, au12=0.8, hair_style=reading.identity.hair_style)
    assert same.confidence == reading.confidence and same.avatar == reading.avatar


@pytest.mark.parametrize(
    "wrong, said", [({"shoe_size": 43}, "'shoe_size' is no factor"), ({"skin": 2.0}, "Identity.skin is 2.0")]
)
def test_a_wrong_correction_is_refused_by_name(reading, wrong, said):
    with pytest.raises(UserError, match=said):
        widgets.corrected(reading, **wrong)


@pytest.mark.parametrize(
    "name, value, step, after",
    [
        ("nose_width", 0.5, 1, 0.55),
        ("nose_width", 0.98, 1, 1.0),
        ("au1", 0.0, -1, 0.0),
        ("gaze_x", -0.3, -1, -0.35),
        ("background_hue", 0.97, 1, 0.02),
        ("glasses", "square", 1, "none"),
        ("glasses", "none", -1, "square"),
    ],
)
def test_a_step_stays_in_the_range_or_goes_around(reading, name, value, step, after):
    assert photo.stepped(reading, name, value, step) == (after if isinstance(after, str) else pytest.approx(after))


# --- the panel -------------------------------------------------------------------------------------------------------


def test_every_factor_has_a_control_that_starts_with_what_was_read(panel, reading):
    assert set(panel.sliders) == {"factor", *reading.confidence}
    for name in reading.confidence:
        read = photo.factor(reading, name)
        assert panel.values[name] == (read if isinstance(read, str) else pytest.approx(read, abs=photo.FINE / 2)), name
        assert panel.sliders[name].description == photo.label_of(name)
    assert isinstance(panel.sliders["hair_style"], ipywidgets.Dropdown)
    assert panel.sliders["gaze_x"].min == -1 and panel.sliders["skin"].min == 0
    assert "Nothing is corrected yet" in panel.picture.alt


def test_what_the_browser_rounds_is_no_correction(panel, reading):
    """As JupyterLab does it, once a slider is on the page."""
    for slider in panel.sliders.values():
        if isinstance(slider, ipywidgets.FloatSlider):
            slider.value = slider.min + round((slider.value - slider.min) / slider.step) * slider.step
    assert panel.reading == reading and "Nothing is corrected yet" in panel.picture.alt
    panel.sliders["jaw_width"].value += photo.FINE
    assert panel.reading.confidence["jaw_width"] == 1 and panel.reading.identity.skin == reading.identity.skin


def test_the_photograph_stays_and_the_avatar_follows_a_control(panel, drawn):
    before = drawn(panel)
    panel.sliders["hair_style"].value = "bald"
    after = drawn(panel)
    assert after.shape == (SIZE + photo.LINE, 2 * SIZE + 8, 3)
    assert np.array_equal(before[:SIZE, :SIZE], after[:SIZE, :SIZE]), "the photograph"
    assert (before[:SIZE, SIZE + 8 :] != after[:SIZE, SIZE + 8 :]).any()


def test_the_avatar_is_that_of_the_corrected_reading(panel, drawn, reading):
    panel.set(nose_width=0.9, au26=1.0)
    mine = widgets.corrected(reading, nose_width=0.9, au26=1.0)
    assert np.array_equal(drawn(panel)[:SIZE, SIZE + 8 :], mine.avatar.render(SIZE))
    assert "nose width 0.90" in panel.picture.alt and "AU26 jaw drop 1.00" in panel.picture.alt
    assert panel.reading.avatar == mine.avatar and panel.reading.confidence == mine.confidence


def test_keys_select_a_factor_and_change_it(panel, press, reading):
    order = photo.least_sure_first(reading)
    assert order[0] == "nose_width" == panel.values["factor"] and order[-1] == "age"
    assert "Selected is nose width" in panel.picture.alt and "confidence of 5%" in panel.picture.alt
    read = reading.identity.nose_width
    press(panel, step=(-1, 0))
    assert panel.values["nose_width"] == pytest.approx(max(read - photo.KEY, 0), abs=photo.FINE)
    press(panel, step=(0, -1))
    assert panel.values["factor"] == "age" and "not read from the photograph" in panel.picture.alt
    press(panel, step=(0, 1))
    assert panel.values["factor"] == "nose_width"


def test_a_press_on_the_picture_changes_nothing(panel, press):
    before = panel.values
    press(panel, point=(0.7, 0.5))
    assert panel.values == before


def test_the_button_takes_all_corrections_back(panel, drawn, reading):
    before = drawn(panel)
    panel.set(skin=1.0, glasses="round")
    panel.reset.click()
    assert np.array_equal(drawn(panel), before) and panel.reading == reading


def test_without_a_kernel_a_still_shows_photograph_avatar_and_neutral_face(picture, reading, shown):
    widgets.photo_panel(picture, reading, SIZE)
    ((still, alt),) = shown
    assert still.width > 2.5 * still.height and "without an expression" in alt and "lip corner puller 0.8" in alt
    assert "Selected" not in alt


def test_where_somebody_is_there_the_controls_stand_instead(picture, reading, shown, appeared):
    panel = widgets.photo_panel(picture, reading, SIZE)
    assert appeared == [panel.widget] and shown == []


def test_a_control_follows_in_a_moment(panel, fastest):
    values = iter(np.linspace(0.1, 0.9, 12))

    def move():
        panel.sliders["au12"].value = float(next(values))

    assert fastest(move) < 0.1


# --- a photograph of one's own ---------------------------------------------------------------------------------------


def chosen(name: str, content: bytes):
    """What the button holds when a file was chosen."""

    class Upload:
        value = ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)},)

    return Upload()


def test_an_uploaded_photograph_is_turned_upright():
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (30, 20), "red").save(buffer, "JPEG", exif=exif)
    assert widgets.uploaded(chosen("me.jpg", buffer.getvalue())).size == (20, 30)


def test_without_a_file_there_is_no_photograph(capsys):
    upload = widgets.photo_upload()
    assert widgets.uploaded(upload) is None
    assert "button" in capsys.readouterr().out


def test_where_somebody_is_there_the_button_appears(appeared, monkeypatch):
    monkeypatch.setattr(photo, "someone_there", lambda: True)
    upload = widgets.photo_upload()
    assert appeared == [upload] and not upload.multiple


@pytest.mark.parametrize("content", [b"", b"a letter", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture_is_refused_by_its_name(content):
    with pytest.raises(UserError, match="letter.txt is no picture"):
        widgets.uploaded(chosen("letter.txt", content))
