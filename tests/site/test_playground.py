"""The playground in a real Chromium: the same numbers as in Python, and a face within a second."""

import base64
import io
import json

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

SEED, WORD = 7, "glee"


@pytest.fixture
def playground(page, address):
    page.goto(f"{address}/playground/")
    page.wait_for_selector("#face[data-drawn]")
    return page


def drawn(page, change):
    """The picture after a change of the controls, uint8 (128, 128, 3)."""
    before = int(page.get_attribute("#face", "data-drawn"))
    change()
    page.wait_for_function(f"document.getElementById('face').dataset.drawn > {before}")
    data = page.evaluate("document.getElementById('face').toDataURL()").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def fill_seed(page):
    page.fill("#seed", str(SEED))


def identity_of(site, number):
    people = json.loads((site / "playground" / "people" / "people.json").read_text())
    return np.array(people[number]["identity"], np.float32).reshape(2, 512)


def test_noise_is_that_of_torch(page, address):
    page.goto(f"{address}/playground/")
    for seed in (0, SEED, 4_294_967_295):
        ours = page.evaluate(f"import('./noise.js').then(({{ normals }}) => [...normals(2048, {seed})])")
        assert np.allclose(ours, torch.randn(2048, generator=torch.Generator().manual_seed(seed)), atol=1e-5)


def test_expressions_are_those_of_the_library(page, address, pipeline, onnx_files):
    table = json.loads((onnx_files / "model.json").read_text())
    page.goto(f"{address}/playground/")
    for word in ("glee", "wrath", "fear"):
        vector = next(one["vector"] for one in table["words"] if one["word"] == word)
        asked = "([vector, table]) => import('./expression.js').then((e) => [...e.representation(vector, table)])"
        assert np.allclose(page.evaluate(asked, [vector, table]), pipeline.read_expressions([word])[0], atol=1e-4)


def test_a_face_is_the_pipelines_for_the_same_seed(playground, pipeline, site):
    ours = drawn(playground, lambda: fill_seed(playground))
    generator = torch.Generator().manual_seed(SEED)
    expected = pipeline(identity_of(site, 0), [WORD], 4, generator=generator, consistency=0).images[0]
    assert np.abs(ours.astype(int) - np.asarray(expected, int)).max() <= 2


def test_a_set_is_the_pipelines_with_consistent_attention(playground, pipeline, site):
    drawn(playground, lambda: fill_seed(playground))
    playground.click("#make")
    playground.wait_for_selector("#set figure canvas")
    words = playground.locator("#set figcaption").all_inner_texts()
    assert len(words) == 6
    data = playground.evaluate("[...document.querySelectorAll('#set canvas')].map((one) => one.toDataURL())")
    expected = pipeline(identity_of(site, 0), words, 4, generator=torch.Generator().manual_seed(SEED)).images
    for one, picture in zip(data, expected):
        ours = np.asarray(Image.open(io.BytesIO(base64.b64decode(one.split(",")[1]))).convert("RGB"), int)
        assert np.abs(ours - np.asarray(picture, int)).max() <= 2


def test_a_face_takes_at_most_a_second_of_processor_time(playground, record_property):
    """The best of five, in seconds of all of Chromium's processes, which other programs on the machine disturb less."""
    drivers = psutil.Process().children(recursive=True)

    def spent():
        times = [one.cpu_times() for one in drivers if one.is_running()]
        return sum(one.user + one.system for one in times)

    taken = []
    for _ in range(5):
        start = spent()
        drawn(playground, lambda: playground.click("#again"))
        taken.append(spent() - start)
    record_property("processor_seconds", min(taken))
    assert min(taken) <= 1.0, taken


def test_words_sliders_and_people_change_the_face_by_keyboard(playground):
    neutral = drawn(playground, lambda: playground.click("#neutral"))
    playground.focus("#au12")
    smile = drawn(playground, lambda: playground.keyboard.press("End"))
    playground.focus("#people input:checked")
    other = drawn(playground, lambda: playground.keyboard.press("ArrowRight"))
    playground.fill("#search", "wrat")
    drawn(playground, lambda: playground.press("#search", "Enter"))
    assert playground.inner_text("#nearest").startswith("wrath")
    assert np.abs(neutral.astype(int) - smile).max() > 50 and np.abs(smile.astype(int) - other).mean() > 10


def test_the_picture_can_be_downloaded(playground):
    with playground.expect_download() as download:
        playground.click("#download")
    assert Image.open(download.value.path()).size == (128, 128)


def test_every_control_has_a_name_and_a_phone_shows_all(playground):
    names = playground.evaluate(
        """[...document.querySelectorAll('input, select, button, canvas')].map((one) =>
            one.getAttribute('aria-label') || one.labels?.[0]?.textContent.trim() || one.textContent.trim())"""
    )
    assert len(names) > 40 and all(names)
    for scheme in ("light", "dark"):
        playground.emulate_media(color_scheme=scheme)
        playground.screenshot(path=playground.pictures / f"playground_{scheme}.png")
    playground.set_viewport_size({"width": 380, "height": 800})
    assert playground.evaluate("document.documentElement.scrollWidth") <= 380
    playground.screenshot(path=playground.pictures / "playground_phone.png")
