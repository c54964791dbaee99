"""Convert pictures of any size and mode to upright RGB of 8 bits, and to squares, the input of the networks."""

from __future__ import annotations

import io
import numbers
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image, ImageOps

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import atomic, require_output

Source = Image.Image | np.ndarray | str | Path


class Boxed(Protocol):
    """A face with its box (4,): left, top, right and bottom."""

    @property
    def box(self) -> np.ndarray: ...


Face = TypeVar("Face", bound=Boxed)

_ORIENTATION = 0x0112  # the EXIF tag, with values from 1 (upright) to 8
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RANGES = (255, 4095, 65535)  # white in grey pictures of 8, 12 and 16 bits


def open_picture(source: Source, name: str = "picture") -> Image.Image:
    """Open a picture as RGB of 8 bits: turned upright (EXIF), transparent parts white.

    Args:
        source: the path of a file; a PIL image of any mode; or an array uint8, RGB (H, W, 3) or grey (H, W) or
            (H, W, 1).
        name: for error messages.

    Grey pictures of more than 8 bits are scaled: white is the smallest of 1 (floats only), 255, 4,095 and 65,535 that
    no pixel exceeds, or the brightest pixel. NaN becomes black.

    Raises UserError for anything else and for a file that cannot be read.
    """
    if isinstance(source, (str, Path)):
        if not os.path.isfile(source):  # False for names that no file can have, where Path.is_file may raise
            raise UserError(f"{name} {str(source):.200} is no file: give a PNG or JPEG of a face")
        with _decoding(f"{name} {source}"), Image.open(source) as opened:
            return _to_rgb(opened)
    if isinstance(source, Image.Image):
        with _decoding(name):  # a PIL image may still have to be decoded
            return _to_rgb(source)
    if isinstance(source, np.ndarray):
        grey = source.ndim == 2 or source.ndim == 3 and source.shape[2] == 1
        if source.dtype != np.uint8 or 0 in source.shape or not (grey or source.ndim == 3 and source.shape[2] == 3):
            raise UserError(
                f"{name} is an array {source.dtype} {source.shape}: give uint8 (height, width, 3), RGB, or "
                "(height, width), grey"
            )
        return Image.fromarray(source.reshape(source.shape[:2]) if grey else source).convert("RGB")  # (H, W[, 1])
    raise UserError(f"{name} is a {type(source).__name__}: give a PIL image, an RGB array or a path")


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Raise whatever a decoder raises as a UserError."""
    try:
        yield
    except UserError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise UserError(f"{what} has too many pixels: make it smaller, such as 2048 a side") from error
    except Exception as error:  # each decoder of Pillow has errors of its own
        raise UserError(f"{what} is no picture that can be read: give a whole PNG or JPEG") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture.load()  # before the EXIF is read, which can stand after the pixels
    if 0 in picture.size:
        raise ValueError("no pixels")
    turn = _TURNS.get(_orientation(picture))
    if picture.mode == "F" or picture.mode.startswith("I"):  # 16 or 32 bits, which Pillow would clip at 255
        picture = _to_8_bits(picture)
    elif picture.mode == "La":  # premultiplied grey; the only mode that Pillow does not convert to RGBA
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    picture = picture if turn is None else picture.transpose(turn)
    return Image.fromarray(np.asarray(picture))  # without the EXIF, so that it is not turned again


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF may raise anything; the picture itself is whole
        return 1


def _to_8_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, np.float64)  # (H, W)
    brightest = values.max(where=np.isfinite(values), initial=0)
    ranges = (1, *_RANGES) if picture.mode == "F" else _RANGES
    white = next((top for top in ranges if brightest <= top), brightest)
    grey = np.nan_to_num(values / white * 255, nan=0, posinf=255, neginf=0).clip(0, 255).round().astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):  # the value of all transparent pixels
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def open_pictures(sources: Sequence) -> list[Image.Image]:
    """`open_picture` for each entry. Raises UserError if `sources` is not a list or is empty."""
    if isinstance(sources, (str, Path)) or not isinstance(sources, (Sequence, np.ndarray)) or len(sources) == 0:
        raise UserError(f"pictures is {sources!r:.60}: give a list with at least one picture")
    return [open_picture(source) for source in sources]


def square(source: Source, size: int) -> Image.Image:
    """The centred square of a picture, as for `open_picture`, resized to size × size."""
    return centred(open_picture(source), (size, size))


def centred(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest centred part of a picture with the shape of `size`, (width, height), resized to it."""
    # Reducing with HAMMING comes closest to an avatar rendered at that size. HAMMING is too coarse for enlarging.
    factor = min(there / wanted for there, wanted in zip(picture.size, size))
    return ImageOps.fit(picture, size, Image.Resampling.HAMMING if factor > 1 else Image.Resampling.LANCZOS)


def require_picture_output(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise UserError if no picture can be written to `path`, or if it would replace one of the files `inputs`."""
    require_output(path, "the picture", inputs)
    try:
        Image.new("RGB", (8, 8)).save(io.BytesIO(), _format(path))
    except Exception as error:  # some formats can only be read, and some hold no colours
        raise UserError(f"{path} ends in {path.suffix or 'nothing'!r}: give a name that ends in .png") from error


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write an RGB picture in the format of the name's ending, completely or not at all.

    Raises UserError for a format that cannot hold it; see `require_picture_output`.
    """
    with atomic(path) as partial:
        try:
            picture.save(partial, _format(path))
        except (ValueError, KeyError, SystemError, struct.error) as error:
            width, height = picture.size
            raise UserError(
                f"{path} cannot hold {width} x {height} pixels ({error!s:.60}): give a name that ends in .png"
            ) from error


def _format(path: Path) -> str:
    return Image.registered_extensions()[path.suffix.lower()]


def choose_face(faces: list[Face], which: int | str | None, what: str) -> Face:
    """One of the faces, at least one, of the picture `what`. For `which` and the error see `FacePack.one`."""
    if isinstance(which, str) and which.strip().lower() == "largest":
        return max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
    if which is None and len(faces) == 1:
        return faces[0]
    if which is None:
        raise UserError(
            f'{len(faces)} faces found in {what}: say which with which="largest", or which=0 to {len(faces) - 1} from '
            "left to right"
        )
    number = int(which) if isinstance(which, numbers.Integral) and not isinstance(which, bool) else -1
    if not 0 <= number < len(faces):
        raise UserError(
            f'which is {which!r:.60}, but {what} has {len(faces)} face(s): give "largest" or a number from 0, counted '
            "from left to right"
        )
    return faces[number]
