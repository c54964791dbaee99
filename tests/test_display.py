"""Display of pictures in notebooks."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from gen_affect_lib import display
from gen_affect_lib.errors import UserError

ALT = "A red square on a white ground, nothing else"
RED = np.tile(np.array([255, 0, 0], np.uint8), (8, 8, 1))


@pytest.fixture
def published(monkeypatch):
    """All that reaches the page, as a list of (data, metadata)."""
    everything = []
    monkeypatch.setattr("IPython.core.interactiveshell.InteractiveShell.initialized", classmethod(lambda cls: True))
    monkeypatch.setattr("IPython.display.display", lambda data, raw, metadata=None: everything.append((data, metadata)))
    return everything


@pytest.fixture
def shown(published):
    """A function that returns the pictures among the displayed outputs."""
    return lambda: [entry for entry in published if "image/png" in entry[0]]


def test_a_picture_carries_its_words(shown):
    display.show(RED, ALT, width=200)
    ((data, metadata),) = shown()
    assert metadata == {"image/png": {"alt": ALT, "width": 200}}
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.size == (8, 8) and image.getpixel((3, 3)) == (255, 0, 0)
    assert ALT in data["text/plain"]


def test_a_screen_reader_finds_the_words_ahead_of_the_picture(published):
    display.show(RED, 'A square of "red" & nothing <else> at all')
    label = '<div role="img" aria-label="A square of &quot;red&quot; &amp; nothing &lt;else&gt; at all"></div>'
    assert published[0][0] == {"text/html": label} and "image/png" in published[1][0]


def test_line_breaks_in_the_words_do_not_matter(shown):
    display.show(RED, "A red square on\n        a white ground")
    assert shown()[0][1]["image/png"]["alt"] == "A red square on a white ground"


@pytest.mark.parametrize("alt", ["", "   ", "figure 1", None])
def test_a_picture_without_words_is_not_shown(shown, alt):
    with pytest.raises(UserError, match="describe the picture"):
        display.show(RED, alt)
    assert not shown()


def test_a_figure_is_closed_once_it_is_shown(shown):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.plot([0, 1])
    display.show(figure, ALT)
    assert not pyplot.fignum_exists(figure.number)
    assert base64.b64decode(shown()[0][0]["image/png"]).startswith(b"\x89PNG")


def test_a_figure_has_twice_its_pixels_and_suits_dark_and_light_pages(shown):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4, 3))
    axes.axhline(0.5, color="black")
    axes.hlines(0.2, 0, 1, color="black", label="a level")
    axes.plot([0.1], [0.1], "*", color="black", label="a star")
    figure.legend()
    axes.set(title="a title", xlabel="an axis")
    display.show(figure, ALT)
    ((data, metadata),) = shown()
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert abs(metadata["image/png"]["width"] - picture.width / 2) <= 1
    pixels = np.asarray(picture.convert("RGBA"))
    assert pixels[0, 0, 3] == 0, "the ground is transparent"
    drawn = pixels[pixels[..., 3] == 255][:, :3]
    assert len(drawn) and drawn.min() > 80, "black would not be seen on a dark page"


def test_pictures_within_a_figure_keep_their_colours(shown):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.imshow(np.zeros((4, 4, 3), np.uint8))
    display.show(figure, ALT)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown()[0][0]["image/png"]))))
    assert (pixels[pixels.shape[0] // 2, pixels.shape[1] // 2, :3] == 0).all()


def test_outside_a_notebook_the_words_are_printed(capsys):
    display.show(RED, ALT)
    assert capsys.readouterr().out == f"[picture: {ALT}]\n"


class DrawsItself:
    def _repr_png_(self):
        return display.to_png(RED)


@pytest.mark.parametrize(
    "picture",
    [
        RED,
        Image.fromarray(RED),
        DrawsItself(),
        torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1).expand(3, 8, 8),
        torch.tensor([1.0, -1.0, -1.0], dtype=torch.bfloat16).view(3, 1, 1).expand(3, 8, 8),
        torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1).expand(3, 8, 8).numpy(),
    ],
    ids=["array", "PIL", "draws itself", "tensor", "bfloat16 tensor", "float array"],
)
def test_every_kind_of_picture_becomes_the_same_image(picture):
    assert np.array_equal(np.asarray(display.to_image(picture)), RED)


def test_values_beyond_the_range_are_cut_not_wrapped():
    assert display.to_image(np.full((3, 2, 2), 1.3, np.float32)).getpixel((0, 0)) == (255, 255, 255)
    assert display.to_image(np.full((1, 2, 2), -4.0, np.float32)).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    "picture",
    ["joy.png", np.zeros((2, 3, 8, 8), np.float32), np.zeros((8, 8, 2), np.uint8), np.zeros((8, 8, 3), np.int64)],
)
def test_what_is_no_picture_is_refused_with_what_came(picture):
    with pytest.raises(UserError, match="is no picture"):
        display.to_image(picture)


def test_a_grid_places_pictures_row_by_row():
    green = RED[:, :, [1, 0, 2]]
    sheet = display.grid([RED, green, None, RED], columns=2, tile=100)
    near, far = 4 + 50, 4 + 100 + 4 + 50  # a gap, half a tile; a gap, a tile, a gap, half a tile
    centers = [(near, near), (far, near), (near, far), (far, far)]
    assert [sheet.getpixel(center) for center in centers] == [(255, 0, 0), (0, 255, 0), (255, 255, 255), (255, 0, 0)]


def test_titles_make_room_for_themselves_and_leave_ink():
    plain = display.grid([RED, RED], rows=1, tile=100)
    titled = display.grid(
        [RED, RED],
        ["a very long title of many words", "b"],
        rows=1,
        tile=100,
        heading="Two squares",
        row_titles=["row"],
    )
    assert titled.height > plain.height and titled.width > plain.width
    lower = np.asarray(titled)[-40:]
    assert (lower.max(axis=2) < 100).any()  # dark letters below the pictures


def test_one_title_a_column_stands_above():
    sheet = np.asarray(display.grid([RED] * 4, ["left", "right"], columns=2, tile=100))
    assert (sheet[:20].max(axis=2) < 100).any() and not (sheet[-8:].max(axis=2) < 100).any()


def test_single_pixels_stay_sharp_when_asked_for():
    checks = np.zeros((4, 4, 3), np.uint8)
    checks[::2, ::2] = 255
    sharp = set(display.grid([checks], tile=100, pixels=True).getdata())
    assert sharp == {(0, 0, 0), (255, 255, 255)}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"images": []}, "no pictures"),
        ({"images": [RED] * 3, "titles": ["one", "two"], "rows": 1}, "2 titles for 3 pictures"),
        ({"images": [RED] * 3, "rows": 1, "columns": 2}, "have 2 places for 3 pictures"),
        ({"images": [RED] * 4, "rows": 2, "row_titles": ["one"]}, "1 row titles for 2 rows"),
    ],
)
def test_a_grid_that_cannot_be_says_why(arguments, message):
    with pytest.raises(UserError, match=message):
        display.grid(**arguments)
