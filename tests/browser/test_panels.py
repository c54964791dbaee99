"""In a real JupyterLab in a real browser: moving a control changes the picture and its alt text."""

import pytest

from gen_affect_lib.paths import NOTEBOOKS
from gen_affect_lib.photo.landmarker import INSTALL, is_installed
from gen_affect_lib.widgets import words
from tests.photo.pictures import ASTRONAUT, HOPPER

CELLS = [
    "from gen_affect_lib import widgets\nface = widgets.expression_panel()",
    "wheel = widgets.word_wheel('glee')",
    "plane = widgets.affect_pad(0.5, 0.5)",
]
UPLOAD = [
    "from gen_affect_lib import widgets\nupload = widgets.photo_upload()",
    f"photo = widgets.uploaded(upload) or {str(ASTRONAUT)!r}\npanel = widgets.photo_panel(photo)",
]


@pytest.fixture
def small(open_notebook):
    notebook = open_notebook(CELLS)
    saved = notebook.run_all()
    assert not errors(saved)
    return notebook


def errors(saved) -> list[str]:
    return [
        f"{output.ename}: {output.evalue}"
        for cell in saved.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "error"
    ]


def change(panel, do, said: str) -> None:
    """Do something, and see picture and words change to hold these."""
    picture, alt = panel.bytes, panel.alt
    assert picture.startswith(b"\x89PNG") and len(alt) > 20 and said not in alt
    do()
    panel.wait_for(said)
    assert panel.bytes.startswith(b"\x89PNG") and panel.bytes != picture


def press_at(panel, x: float, y: float) -> None:
    box = panel.pad.locator("img").bounding_box()
    panel.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_a_slider_moved_by_keyboard_changes_the_picture_and_its_words(small):
    panel = small.panel("AU12 lip corner puller")
    handle = panel.handle("AU12 lip corner puller")
    handle.focus()
    change(panel, lambda: [small.page.keyboard.press("ArrowRight") for _ in range(12)], "AU12 lip corner puller: 0.6")
    small.screenshot("slider")
    change(panel, lambda: small.page.keyboard.press("ArrowDown"), "AU12 lip corner puller: 0.55")
    assert handle.evaluate("handle => handle === document.activeElement"), "JupyterLab took the arrow key"
    change(panel, lambda: panel.root.get_by_role("button", name="back to the start").click(), "No unit is moved")


def test_every_slider_has_a_name_for_screen_readers(small):
    panel = small.panel("AU12 lip corner puller")
    panel.handle("AU1 inner brow raiser").wait_for()
    sliders = panel.root.get_by_role("slider")
    assert sliders.count() == 21
    names = [slider.get_attribute("aria-label") for slider in sliders.all()]
    assert all(names) and len(set(names)) == 21


def test_the_wheel_is_pressed_and_walked_and_chosen_from(small):
    panel = small.panel("wheel of the 135 emotion words")
    panel.pad.scroll_into_view_if_needed()
    x, y = words.place_of("fright")
    change(panel, lambda: press_at(panel, x * words.SIDE / (words.SIDE + 24 + words.CARD), y), "Chosen is fright")
    small.screenshot("wheel")
    assert panel.root.locator("select").input_value() == "fright"
    word = words.next_word("fright", 0, 1)
    change(panel, lambda: small.page.keyboard.press("ArrowDown"), f"Chosen is {word}")
    change(panel, lambda: small.page.keyboard.press("ArrowRight"), f"Chosen is {words.next_word(word, 1, 0)}")
    change(panel, lambda: panel.root.locator("select").select_option("pity"), "Chosen is pity")
    assert "Chosen is pity" in panel.root.inner_text(), "the words are there for those who see, too"


def test_the_plane_is_pressed_and_walked(small):
    panel = small.panel("plane of valence and arousal")
    panel.pad.scroll_into_view_if_needed()
    change(panel, lambda: press_at(panel, 0.2, 0.2), "valence -0.5")
    small.screenshot("plane")
    where = panel.alt
    for key in ("ArrowLeft", "ArrowUp"):
        small.page.keyboard.press(key)
        small.page.wait_for_function(
            "([pad, alt]) => pad.querySelector('img').alt !== alt", arg=[panel.pad.element_handle(), where]
        )
        where = panel.alt
    assert panel.pad.evaluate("pad => pad === document.activeElement"), "JupyterLab took the arrow key"


def test_a_pad_is_reached_by_keyboard_and_shows_that_it_is(small):
    panel = small.panel("plane of valence and arousal")
    ring = "pad => getComputedStyle(pad).outlineStyle + getComputedStyle(pad).outlineWidth"
    assert panel.pad.evaluate(ring).startswith("none")
    panel.root.get_by_role("button", name="back to the start").focus()
    small.page.keyboard.press("Shift+Tab")
    assert panel.pad.evaluate("pad => pad === document.activeElement")
    assert panel.pad.evaluate(ring) == "solid3px"
    assert "Plane of valence and arousal" in panel.pad.get_attribute("aria-label")
    assert panel.pad.get_attribute("tabindex") == "0" and panel.pad.get_attribute("role") == "application"


def test_the_page_asks_nobody_but_this_machine(small):
    outside = [
        url for url in small.asked if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))
    ]
    assert small.asked and not outside


def test_an_uploaded_photograph_is_read_and_corrected(open_notebook):
    if not is_installed():
        pytest.skip(INSTALL)
    notebook = open_notebook(UPLOAD)
    assert not errors(notebook.run_all())
    before = notebook.panel("how sure").alt
    with notebook.page.expect_file_chooser() as chooser:
        notebook.page.get_by_role("button", name="your photograph").click()
    chooser.value.set_files(HOPPER)
    notebook.page.get_by_text("your photograph (1)").wait_for()
    notebook.run(1)
    panel = notebook.panel("how sure")
    panel.wait_for("glasses square")  # only the uploaded person wears some
    assert panel.alt != before and "Nothing is corrected yet" in panel.alt
    panel.pad.scroll_into_view_if_needed()
    change(
        panel, lambda: panel.root.get_by_label("glasses", exact=True).select_option("none"), "Corrected: glasses none."
    )
    panel.pad.focus()
    selected = panel.root.locator("select").first.input_value()
    notebook.page.keyboard.press("ArrowDown")
    notebook.page.wait_for_function(
        "([box, before]) => box.value !== before",
        arg=[panel.root.locator("select").first.element_handle(), selected],
    )
    notebook.screenshot("photograph")


def test_a_course_notebook_runs_whole_and_its_sliders_move(open_notebook):
    notebook = open_notebook(NOTEBOOKS / "01_avatar_world.ipynb")
    saved = notebook.run_all()
    assert not errors(saved)
    code = [cell for cell in saved.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    panel = notebook.panel("AU12 lip corner puller")
    panel.pad.scroll_into_view_if_needed()
    panel.handle("AU12 lip corner puller").focus()
    change(
        panel, lambda: [notebook.page.keyboard.press("ArrowRight") for _ in range(16)], "AU12 lip corner puller: 0.8"
    )
    notebook.screenshot("course_notebook")
