"""A thin layer over skia: shapes in coordinates from 0 to 1, colours as tuples (r, g, b) in [0, 1]."""

from contextlib import contextmanager
from functools import lru_cache

import skia


@lru_cache(maxsize=512)
def _parse(data: str) -> skia.Path:
    path = skia.Path()
    tokens = data.split()
    arguments = {"M": 2, "L": 2, "Q": 4, "C": 6, "Z": 0}
    methods = {"M": path.moveTo, "L": path.lineTo, "Q": path.quadTo, "C": path.cubicTo, "Z": path.close}
    at = 0
    while at < len(tokens):
        command = tokens[at]
        count = arguments[command]
        methods[command](*map(float, tokens[at + 1 : at + 1 + count]))
        at += 1 + count
    return path


@lru_cache(maxsize=4096)
def _ink(color, alpha, width=None) -> skia.Paint:
    """A paint that fills, or, if a width is given, draws lines with round ends."""
    paint = skia.Paint(AntiAlias=True, Color4f=skia.Color4f(*color, alpha))
    if width is not None:
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
    return paint


class Pen:
    """Draws on a skia canvas whose side is 1."""

    def __init__(self, canvas: skia.Canvas):
        self.canvas = canvas

    # --- shapes ------------------------------------------------------------------------------------------------------

    @staticmethod
    def path(data: str) -> skia.Path:
        """A fixed shape, as SVG path data: M L Q C Z, absolute, with spaces between all tokens."""
        return _parse(data)

    @staticmethod
    def curve(start, *segments, close=False) -> skia.Path:
        """A path from a point along segments of 1 (line), 2 (quadratic) or 3 (cubic) points."""
        path = skia.Path()
        path.moveTo(*start)
        for points in segments:
            add = (path.lineTo, path.quadTo, path.cubicTo)[len(points) - 1]
            add(*(number for point in points for number in point))
        if close:
            path.close()
        return path

    @staticmethod
    def polygon(points) -> skia.Path:
        path = skia.Path()
        path.addPoly([skia.Point(x, y) for x, y in points], True)
        return path

    # --- ink ---------------------------------------------------------------------------------------------------------

    def fill(self, path, color, alpha=1.0):
        self.canvas.drawPath(path, _ink(color, alpha))

    def stroke(self, path, color, width, alpha=1.0):
        self.canvas.drawPath(path, _ink(color, alpha, width))

    def line(self, x0, y0, x1, y1, color, width, alpha=1.0):
        self.canvas.drawLine(x0, y0, x1, y1, _ink(color, alpha, width))

    def rect(self, x0, y0, x1, y1, color, alpha=1.0):
        self.canvas.drawRect(skia.Rect(x0, y0, x1, y1), _ink(color, alpha))

    def ellipse(self, x, y, rx, ry, color, alpha=1.0):
        self.canvas.drawOval(skia.Rect(x - rx, y - ry, x + rx, y + ry), _ink(color, alpha))

    def ring(self, x, y, radius, color, width, alpha=1.0):
        self.canvas.drawCircle(x, y, radius, _ink(color, alpha, width))

    # --- frames ------------------------------------------------------------------------------------------------------

    def zoom(self, factor, x, y):
        self.canvas.translate(x, y)
        self.canvas.scale(factor, factor)
        self.canvas.translate(-x, -y)

    @contextmanager
    def moved(self, dx, dy):
        self.canvas.save()
        self.canvas.translate(dx, dy)
        yield
        self.canvas.restore()

    @contextmanager
    def rotated(self, degrees, x, y):
        self.canvas.save()
        self.canvas.rotate(degrees, x, y)
        yield
        self.canvas.restore()

    @contextmanager
    def clipped(self, path):
        self.canvas.save()
        self.canvas.clipPath(path, doAntiAlias=True)
        yield
        self.canvas.restore()
