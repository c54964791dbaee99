"""Palettes, and the least contrast that keeps every expression visible on every skin tone.

A colour is a tuple (r, g, b) in [0, 1], sRGB. `distance` is the CIE 1976 difference in L*a*b*; about 2 is just
noticeable. Lines, folds, lips and brows, which show the expression, have at least the distance LEAST_CONTRAST from
the skin.
"""

import colorsys
import math
from functools import lru_cache

Color = tuple[float, float, float]
LEAST_CONTRAST = 20.0


def _hex(text: str) -> Color:
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


SKIN = tuple(map(_hex, "ffe3d3 fad4bb f2c3a0 e4ad86 d0956d b87c54 9f6742 865334 704229 5c3522".split()))
HAIR = {
    "black": _hex("1d1a1e"), "dark_brown": _hex("3b2417"), "brown": _hex("6a4226"), "auburn": _hex("8a3a1f"),
    "ginger": _hex("d0692b"), "blond": _hex("dcae5a"), "platinum": _hex("f0dfb2"), "grey": _hex("92929a"),
    "white": _hex("eceaea"), "blue": _hex("3c63c4"), "pink": _hex("e0659c"),
}  # fmt: skip
COVERING = {
    "teal": _hex("1f7f86"), "plum": _hex("70305f"), "mustard": _hex("d9a225"),
    "navy": _hex("2b3a72"), "rose": _hex("d67788"), "olive": _hex("6b7434"),
}  # fmt: skip
EYE = {
    "brown": _hex("6b3e1e"), "hazel": _hex("8a6a2c"), "amber": _hex("c07f1d"),
    "green": _hex("3f8a55"), "blue": _hex("2f7cc4"), "grey": _hex("71828f"),
}  # fmt: skip
EARRING = {"gold": _hex("f2c230"), "silver": _hex("e6eaf0"), "red": _hex("d8263c"), "turquoise": _hex("1ec3bb")}
BLACK: Color = (0.0, 0.0, 0.0)
WHITE: Color = (1.0, 1.0, 1.0)
ROSE: Color = _hex("cf4a55")


def mix(a: Color, b: Color, t: float) -> Color:
    """The blend of two colours: a at t = 0, b at t = 1."""
    red, green, blue = ((1 - t) * x + t * y for x, y in zip(a, b))
    return red, green, blue


def from_hue(hue: float, lightness: float, saturation: float) -> Color:
    return colorsys.hls_to_rgb(hue, lightness, saturation)


def skin_color(skin: float) -> Color:
    """The colour of a skin in [0, 1], interpolated between the ten tones of SKIN."""
    place = skin * (len(SKIN) - 1)
    index = min(int(place), len(SKIN) - 2)
    return mix(SKIN[index], SKIN[index + 1], place - index)


def linear(channel: float) -> float:
    """An sRGB channel in [0, 1] as linear light in [0, 1] (IEC 61966-2-1)."""
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def luminance(color: Color) -> float:
    """The relative luminance of a colour: 0 black, 1 white."""
    r, g, b = map(linear, color)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@lru_cache(maxsize=4096)
def lab(color: Color) -> tuple[float, float, float]:
    """CIE L*a*b* under D65."""
    r, g, b = map(linear, color)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047,
        luminance(color),
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883,
    )
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(a: Color, b: Color) -> float:
    """The CIE 1976 colour difference."""
    return math.dist(lab(a), lab(b))


def away_from(color: Color, ground: Color, toward: Color, least: float = LEAST_CONTRAST) -> Color:
    """`color`, blended with `toward` just enough for a distance of `least` from `ground`; else `toward`."""
    for step in range(21):
        moved = mix(color, toward, step / 20)
        if distance(moved, ground) >= least:
            return moved
    return toward


@lru_cache(maxsize=1024)
def face_colors(skin: float, hair_color: str) -> dict[str, Color]:
    """The colours of a face, by name. Lines are darker than the skin; lips are redder, and on dark skin lighter."""
    base = skin_color(skin)
    hair = HAIR[hair_color]
    return {
        "skin": base,
        "shade": mix(base, (0.35, 0.12, 0.10), 0.16),
        "light": mix(base, WHITE, 0.16),
        "line": away_from(mix(base, (0.12, 0.04, 0.04), 0.62), base, BLACK, LEAST_CONTRAST + 4),
        "fold": away_from(mix(base, (0.25, 0.06, 0.05), 0.40), base, BLACK),
        "lips": away_from(mix(base, ROSE, 0.55), base, (0.86, 0.30, 0.36), LEAST_CONTRAST + 4),
        "brow": away_from(mix(hair, BLACK, 0.25), base, BLACK, LEAST_CONTRAST + 4),
        "beard": away_from(mix(hair, BLACK, 0.12), base, BLACK, 14),
        "hair": hair,
        "hair_shade": mix(hair, BLACK, 0.28),
        "hair_light": mix(hair, WHITE, 0.16),
    }
