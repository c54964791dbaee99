"""Convert pictures of any size and mode to square RGB pictures, the input of the networks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from gen_affect_lib.errors import UserError


def open_picture(source: Image.Image | np.ndarray | str | Path, name: str = "picture") -> Image.Image:
    """Open a PIL image, an RGB array uint8 (H, W, 3), or the path of a file, which is turned upright (EXIF).

    Raises UserError for anything else and for a file that cannot be read; `name` is for its message.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise UserError(f"{name} {path} is no file: give a PNG or JPEG of a face")
        try:
            with Image.open(path) as opened:
                return ImageOps.exif_transpose(opened)  # phones store the orientation in the file
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{name} {path} is no picture that can be read: give a whole PNG or JPEG") from error
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise UserError(f"{name} is an array {source.dtype} {source.shape}: give uint8 (height, width, 3), RGB")
        return Image.fromarray(source)
    raise UserError(f"{name} is a {type(source).__name__}: give a PIL image, an RGB array or a path")


def on_white(picture: Image.Image) -> Image.Image:
    """A picture of any mode as RGB; transparent parts become white."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def open_pictures(sources: Sequence) -> list[Image.Image]:
    """`open_picture` for each entry. Raises UserError if `sources` is not a list or is empty."""
    if isinstance(sources, (str, Path)) or not isinstance(sources, (Sequence, np.ndarray)) or len(sources) == 0:
        raise UserError(f"pictures is {sources!r:.60}: give a list with at least one picture")
    return [open_picture(source) for source in sources]


def square(picture: Image.Image, size: int) -> Image.Image:
    """The centred square of a picture as RGB, resized to size × size; transparent parts become white."""
    picture = on_white(picture)
    # Reducing with HAMMING comes closest to an avatar rendered at that size. HAMMING is too coarse for enlarging.
    smaller = Image.Resampling.HAMMING if min(picture.size) > size else Image.Resampling.LANCZOS
    return ImageOps.fit(picture, (size, size), smaller)
