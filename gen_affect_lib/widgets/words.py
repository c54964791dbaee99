"""The 135 emotion words on a wheel by family and group, and on the plane of valence and arousal, to select from.

A pure function draws each picture; the panel around it selects a word or a point. Positions in a picture are fractions
of its sides, y downward. Taught in notebook 01.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
from PIL import Image

from gen_affect_lib.avatars import EMOTIONS, Expression
from gen_affect_lib.avatars.emotions import emotion, groups, table
from gen_affect_lib.display import BLUE, FAMILY_COLORS, GREY
from gen_affect_lib.encoders.affect import vector_of_point, weights_of_point
from gen_affect_lib.widgets.faces import PLAIN_NAMES, TURNS, draw_face
from gen_affect_lib.widgets.panel import WIDE, Panel, Pointing
from gen_affect_lib.widgets.sheet import GREY_INK, INK, PAPER, RULE, Sheet, blend, ink_on, text_width

SIDE = 720  # side of wheel and plane in pixels
CARD = 288  # width of the card with the face beside them in pixels
FACE = 256


def say_units(expression: Expression) -> str:
    """The active units of a face with their intensities: "inner brow raiser 0.6, lip corner puller 0.9"."""
    shown = [(name, getattr(expression, name)) for name in Expression.NAMES]
    return ", ".join(f"{PLAIN_NAMES[name]} {value:.2g}" for name, value in shown if abs(value) >= 0.05) or "no unit"


def draw_bars(
    sheet: Sheet, x: float, y: float, bars: Mapping[str, float], color: str, two_sided: bool = False
) -> float:
    """Named bars for values from 0 to 1, or from -1 to 1 if `two_sided`. Returns the y below them."""
    start, length = x + 152, CARD - 152 - 40
    for name, value in bars.items():
        sheet.text(x + 144, y, name, 12, anchor="right")
        sheet.rect(start, y - 5, length, 10, blend(GREY, 0.8))
        zero = start + length / 2 if two_sided else start
        end = zero + value * (length / 2 if two_sided else length)
        sheet.rect(min(zero, end), y - 5, abs(end - zero), 10, color)
        if two_sided:
            sheet.line(zero, y - 7, zero, y + 7, INK)
        sheet.text(start + length + 6, y, f"{value:.2f}", 12)
        y += 17
    return y


def draw_units(sheet: Sheet, x: float, y: float, expression: Expression, color: str, most: int = 14) -> float:
    """Bars of the `most` strongest of a face's action units, gaze and head. Returns the y below them."""
    values = {name: getattr(expression, name) for name in Expression.NAMES if abs(getattr(expression, name)) >= 0.05}
    strongest = sorted(values, key=lambda name: -abs(values[name]))[:most]
    shown = {name: value for name, value in values.items() if name in strongest}
    y = draw_bars(sheet, x, y, {PLAIN_NAMES[n]: value for n, value in shown.items() if n not in TURNS}, color)
    turned = {PLAIN_NAMES[n]: value for n, value in shown.items() if n in TURNS}
    return draw_bars(sheet, x, y + 8, turned, color, two_sided=True) if turned else y


# --- the wheel -------------------------------------------------------------------------------------------------------

# Radii as fractions of the wheel's side: of the hole, inner radius of groups and of words, outer radius.
HOLE, GROUPS_FROM, WORDS_FROM, RIM = 0.095, 0.225, 0.365, 0.497
GAP = 1.6  # degrees between two families


@cache
def word_angles() -> dict[str, tuple[float, float]]:
    """Start and end of each word on the wheel, in degrees clockwise from the top."""
    each = (360 - GAP * len(FAMILY_COLORS)) / len(EMOTIONS)
    angles, at, before = {}, GAP / 2, emotion(EMOTIONS[0]).family
    for word, one in table().items():
        at += GAP if one.family != before else 0
        angles[word] = at, at + each
        at, before = at + each, one.family
    return angles


def word_at(x: float, y: float) -> str | None:
    """The word at a position of the wheel, for a group or a family its first word; None outside the rings."""
    radius = math.hypot(x - 0.5, y - 0.5)
    angle = math.degrees(math.atan2(x - 0.5, 0.5 - y)) % 360
    word = next((word for word, (start, end) in word_angles().items() if start <= angle < end), None)
    if word is None or not HOLE < radius < RIM:
        return None
    if radius >= WORDS_FROM:
        return word
    kind = "group" if radius >= GROUPS_FROM else "family"
    return next(other for other, one in table().items() if getattr(one, kind) == getattr(emotion(word), kind))


def place_of(word: str) -> tuple[float, float]:
    """Centre of a word's field on the wheel."""
    turn, radius = math.radians(sum(word_angles()[word]) / 2), (WORDS_FROM + RIM) / 2
    return 0.5 + radius * math.sin(turn), 0.5 - radius * math.cos(turn)


def next_word(word: str, dx: int, dy: int) -> str:
    """The word that an arrow key selects: right and left the next and previous word, down and up the next group."""
    if dx:
        return EMOTIONS[(EMOTIONS.index(word) + dx) % len(EMOTIONS)]
    names = list(groups())
    return groups()[names[(names.index(emotion(word).group) + dy) % len(names)]][0]


def _field(
    sheet: Sheet, words: Sequence[str], inner: float, outer: float, color: str, line: float | None = None
) -> None:
    """The sector of a ring that neighbouring words cover."""
    start, end = word_angles()[words[0]][0], word_angles()[words[-1]][1]
    sheet.sector(SIDE / 2, SIDE / 2, inner * SIDE, outer * SIDE, start, end, color, line)


def _along(sheet: Sheet, text: str, words: Sequence[str], radius: float, size: float, color: str) -> None:
    """Text in the middle of such a sector, along a ray from a radius outward, never upside down."""
    angle = (word_angles()[words[0]][0] + word_angles()[words[-1]][1]) / 2
    upright, radius, turn = angle < 180, radius * SIDE + 7, math.radians(angle)
    x, y = SIDE / 2 + radius * math.sin(turn), SIDE / 2 - radius * math.cos(turn)
    sheet.text(x, y, text, size, color, "left" if upright else "right", angle - 90 if upright else angle + 90)


@cache
def _blank_wheel() -> Sheet:
    """The wheel without a selected word, with space for the card."""
    sheet = Sheet(SIDE + 24 + CARD, SIDE)
    for family, color in FAMILY_COLORS.items():
        members = [word for word, one in table().items() if one.family == family]
        _field(sheet, members, WORDS_FROM, RIM, blend(color, 0.88))
        for number, group in enumerate(dict.fromkeys(emotion(word).group for word in members)):
            tint = blend(color, 0.65 if number % 2 else 0.45)
            _field(sheet, groups()[group], GROUPS_FROM, WORDS_FROM, tint)
            _along(sheet, group, groups()[group], GROUPS_FROM, 12, ink_on(tint))
        _field(sheet, members, HOLE, GROUPS_FROM, color)
        _along(sheet, family, members, HOLE, 15, ink_on(color))
        for word in members:
            _along(sheet, word, [word], WORDS_FROM, 12, INK)
    return sheet


def draw_wheel(word: str, identity: int = 0, appearance: int = 0) -> Image.Image:
    """The wheel with a selected word; beside it its face, units, valence and arousal: 1032 x 720 pixels."""
    sheet, one = _blank_wheel().copy(), emotion(word)
    color = FAMILY_COLORS[one.family]
    chosen = blend(color, 0.15)
    _field(sheet, groups()[one.group], GROUPS_FROM, WORDS_FROM, chosen)
    _along(sheet, one.group, groups()[one.group], GROUPS_FROM, 12, ink_on(chosen))
    _field(sheet, [word], WORDS_FROM, RIM, color)
    _along(sheet, word, [word], WORDS_FROM, 12, ink_on(color))
    _field(sheet, [word], WORDS_FROM, RIM, INK, 1.5)

    x, expression = SIDE + 24, Expression.named(word)
    sheet.paste(draw_face(expression, identity, appearance, FACE), x + (CARD - FACE) // 2, 4)
    sheet.text(x + CARD / 2, 284, word, 24, anchor="middle")
    sheet.text(x + CARD / 2, 308, f"{one.family} › {one.group}", 13, anchor="middle")
    y = draw_units(sheet, x, 342, expression, color)
    draw_bars(sheet, x, y + 12, {"valence": one.valence, "arousal": one.arousal}, INK, two_sided=True)
    return sheet.image


def say_wheel(word: str) -> str:
    one = emotion(word)
    return (
        f"A wheel of the 135 emotion words in six coloured families. Chosen is {word}, of the group {one.group} in "
        f"the family {one.family}. Beside it the drawn face: {say_units(Expression.named(word))}. Valence "
        f"{one.valence:g}, arousal {one.arousal:g}."
    )


def word_wheel(word: str = "glee", identity: int = 0, appearance: int = 0) -> Panel:
    """The 135 words on a wheel: select one by pointer, arrow keys or list to see its face.

    identity, appearance: seeds of the face. Returns the panel.
    """
    import ipywidgets

    def point(x: float, y: float) -> Mapping:
        found = word_at(x * (SIDE + 24 + CARD) / SIDE, y)
        return {"word": found} if found else {}

    pointing = Pointing(
        point,
        lambda dx, dy, values: {"word": next_word(values["word"], dx, dy)},
        "Wheel of emotion words. Left and right: the word before and the next; up and down: by groups.",
    )
    panel = Panel(
        lambda word: draw_wheel(word, identity, appearance),
        {"word": ipywidgets.Dropdown(options=EMOTIONS, value=emotion(word).word, description="word", **WIDE)},
        say_wheel,
        pointing,
    )
    panel.show(draw_wheel(word, identity, appearance), say_wheel(word), instead=True)
    return panel


# --- the plane -------------------------------------------------------------------------------------------------------

# The square from -1 to 1 in the picture, in pixels: left edge, upper edge, side.
LEFT, TOP, SQUARE = 60, 12, 640
COUNTED = 4  # number of words that are named, if their weight is 3 % or more
KEY = 0.05  # step of an arrow key


def nearest_words(valence: float, arousal: float) -> dict[str, float]:
    """The words with the largest weights at a point, and the weights; see `encoders.affect.weights_of_point`."""
    weights = weights_of_point(valence, arousal)
    order = [int(n) for n in np.argsort(-weights, kind="stable")[:COUNTED] if weights[n] >= 0.03]
    return {(*EMOTIONS, "neutral")[n]: float(weights[n]) for n in order}


def _in_square(valence: float, arousal: float) -> tuple[float, float]:
    return LEFT + (valence + 1) / 2 * SQUARE, TOP + (1 - arousal) / 2 * SQUARE


def _mark(sheet: Sheet, x: float, y: float, family: str, radius: float, color: str, line: float | None = None) -> None:
    """The mark of a family. Each has its own shape, so that families differ not only in colour."""
    corners, first = {
        "love": (0, 0),
        "joy": (4, 45),
        "surprise": (3, 0),
        "anger": (4, 0),
        "sadness": (3, 180),
        "fear": (6, 0),
    }[family]
    if not corners:
        return sheet.circle(x, y, radius, color, line)
    turns = [math.radians(first + 360 * k / corners) for k in range(corners)]
    radius *= {3: 1.35, 4: 1.2, 6: 1.1}[corners]
    sheet.polygon([(x + radius * math.sin(t), y - radius * math.cos(t)) for t in turns], color, line)


@cache
def _labels() -> dict[str, tuple[float, float]]:
    """Words whose label fits on the plane, with its position: from the outside inwards, without overlaps."""
    dots, placed = [_in_square(one.valence, one.arousal) for one in table().values()], {}
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    for word in sorted(EMOTIONS, key=lambda word: -math.hypot(table()[word].valence, table()[word].arousal)):
        x, y = _in_square(table()[word].valence, table()[word].arousal)
        width = text_width(word, 11)
        for at in ((x + 8, y), (x - 8 - width, y)):
            box = (at[0], y - 6, at[0] + width, y + 6)
            if (
                box[0] > LEFT
                and box[2] < LEFT + SQUARE
                and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes)
            ):
                boxes.append(box)
                placed[word] = at
                break
    return placed


def _numbered(words: Iterable[str]) -> dict[tuple[float, float], list[int]]:
    """Positions on the plane, each with the numbers (from 1) of the words there."""
    places = {}
    for number, word in enumerate(words, 1):
        if word != "neutral":
            places.setdefault(_in_square(emotion(word).valence, emotion(word).arousal), []).append(number)
    return places


def draw_plane(valence: float, arousal: float, identity: int = 0, appearance: int = 0) -> Image.Image:
    """The plane with the 135 words as dots and a selected point; beside it the face of that point, the words that it is
    blended from, and its units."""
    sheet, nearest = Sheet(SIDE + 24 + CARD, SIDE), nearest_words(valence, arousal)
    x, y = _in_square(valence, arousal)
    sheet.rect(LEFT, TOP, SQUARE, SQUARE, RULE, 1)
    for at in (-1, -0.5, 0, 0.5, 1):
        along, up = _in_square(at, at)
        sheet.line(along, TOP, along, TOP + SQUARE, RULE, 2 if at == 0 else 1)
        sheet.line(LEFT, up, LEFT + SQUARE, up, RULE, 2 if at == 0 else 1)
        sheet.text(along, TOP + SQUARE + 14, f"{at:g}", 12, anchor="middle")
        sheet.text(LEFT - 8, up, f"{at:g}", 12, anchor="right")
    sheet.text(LEFT + SQUARE / 2, TOP + SQUARE + 36, "valence: unpleasant to pleasant", 14, anchor="middle")
    sheet.text(14, TOP + SQUARE / 2, "arousal: asleep to wide awake", 14, anchor="middle", turn=-90)
    for k, (family, color) in enumerate(FAMILY_COLORS.items()):
        _mark(sheet, LEFT + 24 + 102 * k, TOP + SQUARE - 20, family, 6, color)
        sheet.text(LEFT + 38 + 102 * k, TOP + SQUARE - 20, family, 13)

    sheet.line(x, TOP, x, TOP + SQUARE, INK)
    sheet.line(LEFT, y, LEFT + SQUARE, y, INK)
    for word, (left, height) in _labels().items():
        if word not in nearest:
            sheet.text(left, height, word, 11, GREY_INK, halo=PAPER)
    sheet.text(*_in_square(0.015, -0.05), "neutral", 11, GREY_INK, halo=PAPER)
    for one in table().values():
        _mark(sheet, *_in_square(one.valence, one.arousal), one.family, 5, FAMILY_COLORS[one.family])
    sheet.circle(x, y, 11, INK, 2)
    for place, numbers in _numbered(nearest).items():  # numbers only: the names are on the card
        family = emotion(list(nearest)[numbers[0] - 1]).family
        _mark(sheet, *place, family, 9, FAMILY_COLORS[family])
        _mark(sheet, *place, family, 9, INK, 1.5)
        sheet.text(*place, ",".join(map(str, numbers)), 11, INK, "middle", halo=PAPER)

    x, expression = SIDE + 24, Expression.from_vector(vector_of_point(valence, arousal))
    sheet.paste(draw_face(expression, identity, appearance, FACE), x + (CARD - FACE) // 2, 4)
    sheet.text(x + CARD / 2, 284, f"valence {valence:.2f}, arousal {arousal:.2f}", 17, anchor="middle")
    sheet.text(x + CARD / 2, 314, "blended from", 13, anchor="middle")
    y = draw_bars(sheet, x, 336, {f"{n}  {word}": share for n, (word, share) in enumerate(nearest.items(), 1)}, INK)
    sheet.text(x + CARD / 2, y + 12, "units of the blend", 13, anchor="middle")
    draw_units(sheet, x, y + 34, expression, BLUE)
    return sheet.image


def say_plane(valence: float, arousal: float) -> str:
    counted = ", ".join(f"{word} {share:.0%}" for word, share in nearest_words(valence, arousal).items())
    shown = say_units(Expression.from_vector(vector_of_point(valence, arousal)))
    return (
        f"The plane of valence and arousal, with the 135 emotion words as dots. The point at valence {valence:.2f}, "
        f"arousal {arousal:.2f}; what counts there: {counted}. Beside it the drawn face: {shown}."
    )


def affect_pad(valence: float = 0.75, arousal: float = 0.45, identity: int = 0, appearance: int = 0) -> Panel:
    """The plane of valence and arousal: select a point by pointer, arrow keys or sliders to see its face.

    The face is a weighted mean of the expressions of the words and the neutral face, which lies at the centre. The
    weight at a distance d is exp(-d² / (2 · 0.05²)), normalized (`encoders.affect.vector_of_point`).

    identity, appearance: seeds of the face. Returns the panel.
    """
    import ipywidgets

    def values(valence: float, arousal: float) -> dict:
        return {"valence": round(min(1.0, max(-1.0, valence)), 2), "arousal": round(min(1.0, max(-1.0, arousal)), 2)}

    def point(x: float, y: float) -> Mapping:
        across, down = (x * (SIDE + 24 + CARD) - LEFT) / SQUARE, (y * SIDE - TOP) / SQUARE
        return values(2 * across - 1, 1 - 2 * down) if -0.02 <= across <= 1.02 and -0.02 <= down <= 1.02 else {}

    def step(dx: int, dy: int, at: Mapping) -> Mapping:
        return values(at["valence"] + KEY * dx, at["arousal"] - KEY * dy)

    pointing = Pointing(
        point,
        step,
        "Plane of valence and arousal. Left and right: less or more pleasant; up and down: more or less awake.",
    )
    panel = Panel(
        lambda valence, arousal: draw_plane(valence, arousal, identity, appearance),
        {
            name: ipywidgets.FloatSlider(value=value, min=-1.0, max=1.0, step=0.01, description=name, **WIDE)
            for name, value in values(valence, arousal).items()
        },
        say_plane,
        pointing,
    )
    panel.show(panel.draw(**panel.values), say_plane(**panel.values), instead=True)
    return panel
