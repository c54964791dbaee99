"""Smaller pictures in executed notebooks, so that a clone stays small.

A picture in a notebook is a PNG with 24 or 32 bits per pixel. Drawn faces and plots look the same with a palette of 256
colours, at about a third of the bytes. PNG is kept because JupyterLab, nbconvert and GitHub all show it.
"""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

COLORS = 256
# How far a palette picture may be from the original, in grey levels of 255. Chosen by eye on the course's pictures:
# above 4.2, smooth gradients show bands. Pictures of noise exceed it as well.
LARGEST_RMS = 4.2
LARGEST_DIFFERENCE = 64


def compress(png: bytes) -> bytes:
    """The picture with a palette of at most 256 colours, at the same size in pixels.

    Returns `png` itself if it already has a palette, if the palette saves nothing, or if it would differ visibly: by
    more than LARGEST_RMS over the whole picture, or by more than LARGEST_DIFFERENCE in one channel of one pixel. A
    transparent picture is compared on white and on black.
    """
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P":
        return png
    original = picture.convert("RGBA")
    # No dithering: its dots cost bytes and are visible at the edges of letters. `kmeans` refines the palette's colours.
    if np.asarray(original)[..., 3].min() == 255:
        method = Image.Quantize.MAXCOVERAGE
        palette = original.convert("RGB").quantize(COLORS, method=method, kmeans=1, dither=Image.Dither.NONE)
    else:  # the only method that knows transparency
        palette = original.quantize(COLORS, method=Image.Quantize.FASTOCTREE, kmeans=1, dither=Image.Dither.NONE)
    difference = _on_grounds(palette.convert("RGBA")) - _on_grounds(original)  # (2, H, W, 3)
    if np.sqrt(np.square(difference).mean()) > LARGEST_RMS or np.abs(difference).max() > LARGEST_DIFFERENCE:
        return png
    buffer = io.BytesIO()
    palette.save(buffer, format="PNG", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def _on_grounds(picture: Image.Image) -> np.ndarray:
    """An RGBA picture on white and on black: float32 (2, H, W, 3), in grey levels."""
    pixels = np.asarray(picture, np.float32)
    color, alpha = pixels[..., :3], pixels[..., 3:] / 255
    return np.stack([alpha * color + (1 - alpha) * ground for ground in (255, 0)])


def compress_outputs(notebook: dict) -> int:
    """Compress every PNG output of a notebook in place; return the bytes saved, counted as base64."""
    saved = 0
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                before = "".join(data["image/png"])
                png = base64.b64decode(before)
                smaller = compress(png)
                if smaller is not png:
                    data["image/png"] = base64.b64encode(smaller).decode("ascii")
                    saved += len(before) - len(data["image/png"])
    return saved


def compress_notebooks(files: Iterable[Path]) -> dict[str, int]:
    """Compress the outputs of notebook files where that saves anything; return {name of the file: bytes saved}."""
    changed = {}
    for file in files:
        notebook = nbformat.read(file, as_version=4)
        if saved := compress_outputs(notebook):
            nbformat.write(notebook, file)
            changed[file.name] = saved
    return changed
