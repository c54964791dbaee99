"""Compressing the pictures of executed notebooks: same size, same look, fewer bytes, and nothing else changes."""

import base64
import copy
import io

import nbformat
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.course.release import light, run
from gen_affect_lib.display import to_png


@pytest.fixture(scope="module")
def face() -> bytes:
    return to_png(
        Image.fromarray(Avatar(Identity.sample(1), Expression.named("glee"), Appearance.sample(1)).render(256))
    )


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int32)


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def notebook_with(png: bytes):
    data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": "[picture: a face]"}
    metadata = {"image/png": {"alt": "a face", "width": 200}}
    outputs = [
        nbformat.v4.new_output("display_data", data, metadata=metadata),
        nbformat.v4.new_output("stream", name="stdout", text="0.05\n"),
    ]
    cells = [nbformat.v4.new_markdown_cell("# A face"), nbformat.v4.new_code_cell("show(face)", outputs=outputs)]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_drawn_face_keeps_its_size_and_look_at_half_the_bytes(face):
    smaller = light.compress(face)
    assert len(smaller) < 0.6 * len(face)
    assert Image.open(io.BytesIO(smaller)).mode == "P"
    difference = pixels(smaller) - pixels(face)  # fails if the two sizes differ
    assert np.sqrt((difference**2).mean()) <= light.LARGEST_RMS
    assert np.abs(difference).max() <= light.LARGEST_DIFFERENCE


def test_few_colours_are_kept_exactly():
    stripes = np.repeat(np.random.default_rng(0).integers(0, 256, (40, 3)), 40, axis=0).reshape(40, 40, 3)
    png = as_png(Image.fromarray(stripes.astype(np.uint8)))
    assert (pixels(light.compress(png)) == stripes).all()


def test_noise_and_palettes_are_left_alone(face):
    noise = as_png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)))
    for png in (noise, light.compress(face)):
        assert light.compress(png) is png


def test_a_transparent_figure_stays_transparent():
    figure, axes = pyplot.subplots(figsize=(4, 3))
    axes.plot(np.sin(np.arange(300)))
    before = to_png(figure)
    after = light.compress(before)
    was, kept = (np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), float) for png in (before, after))
    assert len(after) < len(before) / 2 and kept[0, 0, 3] == 0
    opaque = was[..., 3] == 255
    assert np.abs(kept - was)[opaque].max() <= light.LARGEST_DIFFERENCE


def test_a_small_detail_of_another_colour_survives(face):
    picture = Image.open(io.BytesIO(face)).convert("RGB")
    picture.putpixel((5, 5), (0, 255, 0))
    kept = pixels(light.compress(as_png(picture)))[5, 5]
    assert np.abs(kept - (0, 255, 0)).max() <= light.LARGEST_DIFFERENCE


def test_only_the_picture_of_a_notebook_changes(face, tmp_path):
    notebook = notebook_with(face)
    expected = copy.deepcopy(notebook)
    expected.cells[1].outputs[0].data["image/png"] = base64.b64encode(light.compress(face)).decode("ascii")
    file = tmp_path / "01_a.ipynb"
    nbformat.write(notebook, file)
    before = file.stat().st_size
    assert light.compress_notebooks([file]) == {"01_a.ipynb": before - file.stat().st_size}
    assert nbformat.read(file, 4) == expected
    assert light.compress_notebooks([file]) == {}  # a second time changes nothing


def test_outputs_kept_in_place_are_compressed(face, tmp_path):
    source, executed = tmp_path / "01_a.ipynb", tmp_path / "executed.ipynb"
    for file in (source, executed):
        nbformat.write(notebook_with(face), file)
    run.keep_outputs(executed, source)
    assert source.stat().st_size < executed.stat().st_size
