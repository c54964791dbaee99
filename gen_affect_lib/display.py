"""Display of pictures in notebooks.

Every picture has an `alt`, the text that a screen reader reads aloud instead; `show` requires it. Figures are closed
after they are shown, so that none appears twice or stays in memory. They have twice the pixels that they take on the
page, a transparent ground, and axes and text in a grey that is legible in light and dark themes.
"""

import base64
import html
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gen_affect_lib.errors import UserError
from gen_affect_lib.pictures import open_picture

# The colours of Okabe & Ito 2008. Those of one palette can be told apart with colour blindness (tests/test_colors.py
# simulates three kinds); lines and dots also differ by dashes and shapes.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, GREY = "#E69F00", "#56B4E9", "#999999"
FAMILY_COLORS = {"love": PURPLE, "joy": AMBER, "surprise": SKY, "anger": ORANGE, "sadness": BLUE, "fear": GREEN}
PALETTES = {
    "lines": (BLUE, ORANGE, GREEN, GREY),
    "lines without grey": (BLUE, ORANGE, GREEN, PURPLE),
    "families": tuple(FAMILY_COLORS.values()),
}

SHORTEST_ALT = 20  # characters; a shorter text does not describe a picture
_DPI = 110  # on the page
_DENSITY = 2  # pixels of a figure per pixel of the page
_WIDEST = 1760  # pixels of a figure; a wider one has fewer per pixel of the page, or notebooks would be heavy
_INK = "#767676"  # contrast 4.5 on white and 4.2 on JupyterLab's dark ground


def show(picture, alt: str, *, width: int | None = None) -> None:
    """Show one picture below the cell. Outside a notebook, print its `alt`.

    Args:
        picture: a matplotlib Figure, or anything that `to_image` takes.
        alt: one or two sentences that describe the picture for readers who do not see it.
        width: the width on the page in pixels; None: that of a figure at 110 dpi, else the own width.

    Raises UserError for an `alt` that is missing or too short.
    """
    alt = " ".join(alt.split()) if isinstance(alt, str) else ""
    if len(alt) < SHORTEST_ALT:
        raise UserError(f"alt is {alt!r}: describe the picture in at least {SHORTEST_ALT} characters")
    density = _dpi(picture) / _DPI if hasattr(picture, "savefig") else None
    png = to_png(picture)
    if density is not None and width is None:
        width = round(Image.open(io.BytesIO(png)).width / density)
    details: dict[str, str | int] = {"alt": alt}
    if width is not None:
        details["width"] = int(width)

    from IPython.core.interactiveshell import InteractiveShell

    if not InteractiveShell.initialized():
        print(f"[picture: {alt}]")
        return
    from IPython.display import display

    # JupyterLab 4 ignores the alt in the metadata of a picture, so an invisible element before it has the text as well.
    display({"text/html": f'<div role="img" aria-label="{html.escape(alt)}"></div>'}, raw=True)
    data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": f"[picture: {alt}]"}
    display(data, raw=True, metadata={"image/png": details})


def to_png(picture) -> bytes:
    """PNG bytes of anything that `show` takes. Closes a matplotlib figure."""
    buffer = io.BytesIO()
    if hasattr(picture, "savefig"):
        from matplotlib import pyplot

        _for_any_theme(picture)
        # Without the Software entry the bytes do not depend on the version of matplotlib.
        options = dict(dpi=_dpi(picture), bbox_inches="tight", metadata={"Software": None})
        picture.savefig(buffer, format="png", **options)
        pyplot.close(picture)
    else:
        to_image(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _dpi(figure) -> float:
    """Of a figure's PNG: twice that on the page, or less if the PNG would be wider than `_WIDEST`."""
    return min(_DENSITY * _DPI, _WIDEST / figure.get_figwidth())


def _for_any_theme(figure) -> None:
    """Make the ground of a figure transparent, and what is black or nearly black in front of it grey.

    Pictures within a figure keep their colours, and so does what is drawn on them.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    def is_dark(color) -> bool:
        red, green, blue, alpha = to_rgba(color)
        return alpha > 0 and max(red, green, blue) < 0.3

    def lighten(artists) -> None:
        for artist in artists:
            color = artist.get_color()
            if isinstance(color, (str, tuple, np.ndarray)) and is_dark(color):  # an array in legends of collections
                artist.set_color(_INK)

    figure.patch.set_alpha(0)
    lighten(text for text in figure.findobj(Text) if text.axes is None)
    for legend in figure.legends:
        lighten([*legend.findobj(Text), *legend.findobj(Line2D)])
    for axes in figure.axes:
        axes.tick_params(which="both", color=_INK, labelcolor=_INK)
        for spine in axes.spines.values():
            if is_dark(spine.get_edgecolor()):
                spine.set_edgecolor(_INK)
        around = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
        lighten(around)
        if axes.images:
            continue
        axes.patch.set_alpha(0)
        lighten([*axes.findobj(Text), *axes.findobj(Line2D)])
        for lines in axes.findobj(LineCollection):
            lines.set_color([_INK if is_dark(color) else color for color in lines.get_color()])


def to_image(picture) -> Image.Image:
    """An RGB PIL image of a picture.

    Takes a PIL image; a uint8 array (H, W), (H, W, 1) or (H, W, 3); a float array or tensor (C, H, W) in [-1, 1] with C
    1 or 3, as in the models; or anything with `_repr_png_`, such as an `Avatar`. Raises UserError for anything else.
    """
    if isinstance(picture, Image.Image):
        return open_picture(picture)
    if hasattr(picture, "_repr_png_"):
        return Image.open(io.BytesIO(picture._repr_png_())).convert("RGB")
    if hasattr(picture, "detach"):
        half = picture.is_floating_point() and picture.dtype.itemsize < 4
        picture = (picture.float() if half else picture).detach().cpu().numpy()  # NumPy has no bfloat16
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f"a {type(picture).__name__} is no picture: give a PIL image, a uint8 array (H, W, 3), "
            "a float array (3, H, W) in [-1, 1], or a matplotlib figure"
        )
    if np.issubdtype(picture.dtype, np.floating) and picture.ndim == 3 and picture.shape[0] in (1, 3):
        picture = np.clip(picture.transpose(1, 2, 0) * 127.5 + 127.5, 0, 255).round().astype(np.uint8)  # (H, W, C)
    elif picture.dtype != np.uint8:
        raise UserError(
            f"an array of {picture.dtype} with shape {picture.shape} is no picture: give uint8 (H, W, 3) "
            "or float (3, H, W) in [-1, 1]"
        )
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]  # (H, W)
    if picture.ndim != 2 and not (picture.ndim == 3 and picture.shape[2] == 3):
        raise UserError(f"an array of shape {picture.shape} is no picture: give (H, W, 3), one picture at a time")
    return Image.fromarray(picture).convert("RGB")


def grid(
    images: Sequence,
    titles: Sequence[str] | None = None,
    *,
    rows: int | None = None,
    columns: int | None = None,
    row_titles: Sequence[str] | None = None,
    tile: int | None = None,
    heading: str | None = None,
    pixels: bool = False,
) -> Image.Image:
    """A labelled sheet of pictures, filled row by row.

    Args:
        images: pictures as for `to_image`; None leaves a place empty.
        titles: one per picture, below it; or one per column, above the sheet, if there are as many as columns and more
            than one row.
        rows, columns: each follows from the other; with neither, the sheet is about twice as wide as high.
        row_titles: one per row, to its left; may have line breaks.
        tile: the side of a place in pixels; None takes the largest side of a picture, but at least 96.
        heading: a line above the sheet.
        pixels: enlarge without interpolation, so that single pixels can be counted.

    Raises UserError if there are no pictures, and for numbers of titles, rows and columns that do not fit.
    """
    pictures = [None if image is None else to_image(image) for image in images]
    if not any(pictures):
        raise UserError("grid got no pictures: give at least one")
    rows, columns = _layout(len(pictures), rows, columns)
    if titles is not None and len(titles) not in (len(pictures), columns):
        raise UserError(
            f"grid got {len(titles)} titles for {len(pictures)} pictures in {columns} columns: "
            "give one per picture or one per column"
        )
    if row_titles is not None and len(row_titles) != rows:
        raise UserError(f"grid got {len(row_titles)} row titles for {rows} rows: give one per row")
    tile = tile or max(96, max(max(p.size) for p in pictures if p))
    gap = max(4, tile // 24)
    size = max(11, min(18, tile // 8))  # of the font
    line = round(size * 1.25)

    titles = [str(title) for title in titles] if titles is not None else []
    per_column = bool(titles) and rows > 1 and len(titles) == columns
    labels = [_wrap(title, tile, size) for title in titles]
    label_height = max((len(lines) for lines in labels), default=0) * line + (gap if labels else 0)
    above = label_height if per_column else 0
    below = 0 if per_column else label_height
    row_titles = [str(title) for title in row_titles] if row_titles is not None else []
    left = max((_width(text, size) for title in row_titles for text in title.split("\n")), default=-2 * gap) + gap * 2
    top = line + gap * 2 if heading else 0

    width = left + columns * (tile + gap) + gap
    if heading:
        width = max(width, _width(heading, size + 2) + 2 * gap)
    sheet = Image.new("RGB", (width, top + above + rows * (tile + below + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    if heading:
        draw.text((gap, gap), heading, font=_font(size + 2), fill="#222222")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x = left + gap + column * (tile + gap)
        y = top + above + gap + row * (tile + below + gap)
        if picture is not None:
            picture = _fit(picture, tile, pixels)
            sheet.paste(picture, (x + (tile - picture.width) // 2, y + (tile - picture.height) // 2))
        lines = labels[index] if labels and not per_column else []
        for i, text in enumerate(lines):
            place = (x + tile / 2, y + tile + gap / 2 + i * line)
            draw.text(place, text, font=_font(size), fill="#222222", anchor="ma")
    for column, lines in enumerate(labels if per_column else []):
        x = left + gap + column * (tile + gap) + tile / 2
        for i, text in enumerate(reversed(lines)):
            draw.text((x, top + above - i * line), text, font=_font(size), fill="#222222", anchor="md")
    for row, title in enumerate(row_titles):
        lines = title.split("\n")
        y = top + above + gap + row * (tile + below + gap) + tile / 2 - (len(lines) - 1) * line / 2
        for i, text in enumerate(lines):
            draw.text((left - gap, y + i * line), text, font=_font(size), fill="#222222", anchor="rm")
    return sheet


def _layout(count: int, rows: int | None, columns: int | None) -> tuple[int, int]:
    if rows is None and columns is None:
        columns = min(count, max(1, round(math.sqrt(2 * count))))
    elif columns is None and rows is not None:
        columns = math.ceil(count / rows)
    assert columns is not None
    rows = math.ceil(count / columns) if rows is None else rows
    if rows * columns < count:
        raise UserError(
            f"{rows} rows × {columns} columns have {rows * columns} places for {count} pictures: omit rows or columns"
        )
    return rows, columns


def _fit(picture: Image.Image, tile: int, pixels: bool) -> Image.Image:
    scale = tile / max(picture.size)
    if scale == 1:
        return picture
    if pixels and scale > 1:
        scale = max(1, int(scale))  # an integer factor gives all pixels the same size
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if pixels else Image.Resampling.LANCZOS)


def _font(size: int):
    return ImageFont.load_default(size)


def _width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(str(text)))


def _wrap(text: str, width: int, size: int) -> list[str]:
    """Lines of at most `width` pixels; a word that is too long is cut with an ellipsis."""
    lines = []
    for paragraph in text.split("\n"):
        current = ""
        for word in paragraph.split():
            joined = f"{current} {word}".strip()
            if current and _width(joined, size) > width:
                lines.append(current)
                current = word
            else:
                current = joined
        lines.append(current)
    return [_shorten(text, width, size) for text in lines]


def _shorten(text: str, width: int, size: int) -> str:
    while len(text) > 1 and _width(text, size) > width:
        text = text[:-2] + "…"
    return text
