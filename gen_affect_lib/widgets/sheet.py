"""A canvas in pixels, x to the right and y down, with anti-aliased shapes and text; fast enough to follow a slider.

Colours are "#RRGGBB". The font is that of `display.grid`; it comes with Pillow, so that none has to be installed.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import cast

import numpy as np
import skia
from PIL import Image, ImageFont

from gen_affect_lib.avatars.colors import luminance

INK, GREY_INK, PAPER, RULE = "#222222", "#666666", "#FFFFFF", "#DDDDDD"


@cache
def _font(size: float) -> skia.Font:
    # A font manager without fonts: the default one reads the system's settings and prints warnings about them.
    manager = getattr(skia.FontMgr, "New_Custom_Empty", skia.FontMgr)()
    letters = skia.Data.MakeWithCopy(cast(ImageFont.FreeTypeFont, ImageFont.load_default(12)).font_bytes)
    font = skia.Font(manager.makeFromData(letters), size)
    font.setSubpixel(True)
    return font


def _rgb(color: str) -> list[int]:
    """Red, green and blue of "#RRGGBB", 0 to 255 each."""
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def _paint(color: str, alpha: float = 1.0, width: float | None = None) -> skia.Paint:
    paint = skia.Paint(AntiAlias=True, Color4f=skia.Color4f(*(c / 255 for c in _rgb(color)), alpha))
    if width is not None:
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
    return paint


class Sheet:
    """A white canvas of width x height pixels; `image` is a copy of it."""

    def __init__(self, width: int, height: int):
        self.pixels = np.full((height, width, 4), 255, np.uint8)
        self.surface = skia.Surface(self.pixels)
        self.canvas = self.surface.getCanvas()

    def copy(self) -> "Sheet":
        """A copy that shares no pixels."""
        other = Sheet(self.pixels.shape[1], self.pixels.shape[0])
        other.pixels[:] = self.pixels
        return other

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels[:, :, :3]))

    def rect(
        self, x: float, y: float, width: float, height: float, color: str, line: float | None = None, alpha: float = 1.0
    ):
        self.canvas.drawRect(skia.Rect.MakeXYWH(x, y, width, height), _paint(color, alpha, line))

    def line(self, x0: float, y0: float, x1: float, y1: float, color: str, width: float = 1.0):
        self.canvas.drawLine(x0, y0, x1, y1, _paint(color, 1.0, width))

    def circle(self, x: float, y: float, radius: float, color: str, line: float | None = None):
        self.canvas.drawCircle(x, y, radius, _paint(color, 1.0, line))

    def polygon(self, points: Sequence[tuple[float, float]], color: str, line: float | None = None):
        path = skia.Path()
        path.addPoly([skia.Point(x, y) for x, y in points], True)
        self.canvas.drawPath(path, _paint(color, 1.0, line))

    def sector(
        self,
        x: float,
        y: float,
        inner: float,
        outer: float,
        start: float,
        end: float,
        color: str,
        line: float | None = None,
    ):
        """A piece of a ring around (x, y), between two radii and two angles in degrees clockwise from the top."""
        turn = [math.radians(start + (end - start) * i / 48) for i in range(49)]
        around = [(outer, t) for t in turn] + [(inner, t) for t in reversed(turn)]
        self.polygon([(x + r * math.sin(t), y - r * math.cos(t)) for r, t in around], color, line)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 13,
        color: str = INK,
        anchor: str = "left",
        turn: float = 0.0,
        halo: str | None = None,
    ):
        """One line of text, vertically centred at y; `anchor` says which of its ends, or its middle, is at x.

        turn: rotation about (x, y) in degrees clockwise. halo: colour of an outline.
        """
        font = _font(size)
        left = {"left": 0.0, "middle": -0.5, "right": -1.0}[anchor] * font.measureText(text)
        self.canvas.save()
        self.canvas.translate(x, y)
        self.canvas.rotate(turn)
        if halo:
            self.canvas.drawString(text, left, 0.34 * size, font, _paint(halo, 1.0, 3.0))
        self.canvas.drawString(text, left, 0.34 * size, font, _paint(color))
        self.canvas.restore()

    def paste(self, picture: Image.Image, x: int, y: int):
        pixels = np.dstack([np.asarray(picture), np.full(picture.size[::-1], 255, np.uint8)])
        self.canvas.drawImage(skia.Image.fromarray(pixels, skia.kRGBA_8888_ColorType), x, y)


def text_width(text: str, size: float = 13) -> float:
    return _font(size).measureText(text)


def blend(color: str, t: float, other: str = PAPER) -> str:
    """(1 - t)·color + t·other, per channel."""
    return "#" + "".join(f"{round((1 - t) * a + t * b):02X}" for a, b in zip(_rgb(color), _rgb(other)))


def ink_on(color: str) -> str:
    """Black or white, whichever has the higher contrast to a colour (WCAG 2)."""
    red, green, blue = (c / 255 for c in _rgb(color))
    light = luminance((red, green, blue))
    return "#FFFFFF" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000000"
