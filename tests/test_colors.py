"""Colours that are used together are distinguishable, with normal vision and with three kinds of colour blindness
(Machado, Oliveira & Fernandes 2009, at full severity, in linear light)."""

import ast
from itertools import combinations

import matplotlib.colors
import nbformat
import numpy as np
import pytest

from gen_affect_lib import display
from gen_affect_lib.avatars.colors import distance
from gen_affect_lib.avatars.emotions import families, groups
from gen_affect_lib.course import notebooks
from gen_affect_lib.widgets.sheet import blend, ink_on

LEAST = 10.0  # CIE 1976 L*a*b*; about 2 is just noticeable side by side
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def rgb(color: str) -> tuple[float, float, float]:
    return matplotlib.colors.to_rgb(color)


def seen(color: str, sight: str) -> tuple[float, float, float]:
    """A colour as somebody with this sight sees it."""
    c = np.array(rgb(color))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    return tuple(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).tolist())


def nearest(colors, sight: str):
    """The smallest distance between two of the colours, and these two colours."""
    return min((distance(seen(a, sight), seen(b, sight)), a, b) for a, b in combinations(colors, 2))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", display.PALETTES)
def test_colours_of_a_palette_stay_apart(name, sight):
    apart, a, b = nearest(display.PALETTES[name], sight)
    assert apart >= LEAST, f"{a} and {b} are {apart:.1f} apart"


def test_the_simulation_knows_red_and_green_from_blue():
    """As a check of the check: pure red and an equally bright green are one colour to some, and blue stays another."""
    for sight in ("protanopia", "deuteranopia"):
        assert nearest(("#D62728", "#2CA02C"), sight)[0] < nearest(("#D62728", "#2CA02C"), "usual")[0] / 3
    assert nearest(("#D62728", "#1F77B4"), "deuteranopia")[0] > 50
    for sight in SIGHT:
        assert seen("#808080", sight) == pytest.approx(rgb("#808080"), abs=0.01), "grey is grey to all"


def test_every_family_has_a_colour():
    assert tuple(display.FAMILY_COLORS) == tuple(families())


@pytest.mark.parametrize("family", families())
def test_letters_on_the_wheel_can_be_read(family):
    """Contrast of at least 4.5, as WCAG 2 asks of text, on each colour and tint that the wheel writes on."""

    def luminance(color):
        c = np.array(rgb(color))
        return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))

    color = display.FAMILY_COLORS[family]
    for ground in (color, *(blend(color, t) for t in (0.15, 0.45, 0.65, 0.88))):
        dark, light = sorted((luminance(ground), luminance(ink_on(ground))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5
    assert len(groups()) == 25


def color_of(item: ast.expr) -> str | None:
    """The colour that stands in a list: "#0072B2", BLUE, or one in a tuple with what it is the colour of."""
    if isinstance(item, ast.Tuple):
        found = [color for color in map(color_of, item.elts) if color]
        return found[0] if len(found) == 1 else None
    word = item.value if isinstance(item, ast.Constant) else getattr(display, getattr(item, "id", ""), None)
    return word if isinstance(word, str) and matplotlib.colors.is_color_like(word) else None


def colors_together(source: str):
    """The colours that a notebook's cell lists side by side: for the curves of one plot, or the families."""
    tree = ast.parse(source)
    names = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
        for part in (node.value, node.targets[0])
    }  # BLUE, ORANGE = …: what they are used for is said elsewhere
    for node in ast.walk(tree):
        items = node.values if isinstance(node, ast.Dict) else getattr(node, "elts", ())
        colors = [color_of(item) for item in items]
        if len(colors) > 1 and all(colors) and id(node) not in names:
            yield tuple(dict.fromkeys(colors))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_what_a_notebook_draws_side_by_side_stays_apart(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for colors in colors_together(cell.source) if cell.cell_type == "code" else ():
            if len(colors) > 1:
                apart, a, b, sight = min((*nearest(colors, sight), sight) for sight in SIGHT)
                assert apart >= LEAST, f"cell {cell.id}: {a} and {b} are {apart:.1f} apart to {sight} sight"
