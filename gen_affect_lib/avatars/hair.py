"""Hair and coverings: the part behind the head (`back`) and the part over it (`front`), one function per style."""

from math import cos, pi, sin

from gen_affect_lib.avatars.colors import BLACK, COVERING, WHITE, mix
from gen_affect_lib.avatars.geometry import TOP, Geometry
from gen_affect_lib.avatars.pen import Pen


def back(pen: Pen, g: Geometry) -> None:
    draw = BACK.get(g.identity.hair_style)
    if draw:
        draw(pen, g, g.half_width)


def front(pen: Pen, g: Geometry) -> None:
    draw = FRONT.get(g.identity.hair_style)
    if draw:
        with pen.moved(0.35 * g.turn_x, 0.5 * g.turn_y):  # the hairline turns less than the face
            draw(pen, g, g.half_width)


# --- parts that several styles share --------------------------------------------------------------------------------


def _cap(pen: Pen, w: float, grow: float, side_y: float, *hairline, lift: float = 0.0):
    """Hair over the skull, down to side_y at the temples; `hairline` is its inner edge from right to left."""
    top = TOP - grow - lift
    return pen.curve(
        (0.5 - w - grow, side_y),
        ((0.5 - w - 1.2 * grow, TOP + 0.06), (0.5 - 0.62 * w, top), (0.5, top)),
        ((0.5 + 0.62 * w, top), (0.5 + w + 1.2 * grow, TOP + 0.06), (0.5 + w + grow, side_y)),
        ((0.5 + w - 0.006, side_y),),
        *hairline,
        close=True,
    )


def _arch(w: float, height: float, side_y: float):
    """A plain hairline: from the right temple up to `height` and down to the left temple."""
    return (
        ((0.5 + w - 0.020, height + 0.045), (0.5 + 0.72 * w, height), (0.5, height)),
        ((0.5 - 0.72 * w, height), (0.5 - w + 0.020, height + 0.045), (0.5 - w + 0.006, side_y)),
    )


def _parted(w: float, x: float, height: float, side_y: float, low: float):
    """A hairline with a parting at x and two sweeps down to `low` at the temples."""
    return (
        ((0.5 + w - 0.030, low), (x + 0.10, height + 0.075), (x, height)),
        ((x - 0.09, height + 0.07), (0.5 - w + 0.030, low), (0.5 - w + 0.006, side_y)),
    )


def _lumps(pen: Pen, g: Geometry, w: float, start: float, end: float, count: int, radius: float, spread: float):
    """Curls: discs along an arc over the head; angles in turns, counter-clockwise from the right."""
    for k in range(count):
        angle = 2 * pi * (start + (end - start) * k / (count - 1))
        x = 0.5 + (w + spread) * cos(angle)
        y = 0.40 - (0.40 - TOP + spread) * sin(angle)
        pen.ellipse(x, y, radius, radius, g.colors["hair"])
    for k in range(count):
        angle = 2 * pi * (start + (end - start) * (k + 0.35) / (count - 1))
        x = 0.5 + (w + 0.7 * spread) * cos(angle)
        y = 0.40 - (0.40 - TOP + 0.7 * spread) * sin(angle)
        pen.ring(x, y, 0.45 * radius, g.colors["hair_shade"], 0.010, 0.5)


def _strands(pen: Pen, g: Geometry, *curves):
    for start, *points in curves:
        pen.stroke(pen.curve(start, tuple(points)), g.colors["hair_shade"], 0.009, 0.8)


def _shine(pen: Pen, g: Geometry, w: float):
    curve = pen.curve((0.5 - 0.55 * w, TOP + 0.035), ((0.5 - 0.30 * w, TOP + 0.002), (0.5 + 0.02, TOP + 0.006)))
    pen.stroke(curve, g.colors["hair_light"], 0.018, 0.8)


# --- styles: the front ------------------------------------------------------------------------------------------------


def bald(pen, g, w):
    shine = pen.curve((0.5 - 0.5 * w, TOP + 0.06), ((0.5 - 0.30 * w, TOP + 0.022), (0.5, TOP + 0.022)))
    pen.stroke(shine, g.colors["light"], 0.022, 0.9)


def buzz(pen, g, w):
    pen.fill(_cap(pen, w, 0.006, 0.44, *_arch(w, 0.272, 0.44)), g.colors["hair"], 0.85)


def short(pen, g, w):
    pen.fill(_cap(pen, w, 0.026, 0.47, *_arch(w, 0.278, 0.47)), g.colors["hair"])
    _shine(pen, g, w)


def side_part(pen, g, w):
    x = 0.5 - 0.45 * w
    pen.fill(_cap(pen, w, 0.030, 0.46, *_parted(w, x, 0.225, 0.46, 0.33)), g.colors["hair"])
    upper = (x, 0.225), (x + 0.02, 0.19), (x + 0.07, 0.175)
    lower = (x + 0.06, 0.255), (0.56, 0.235), (0.5 + 0.7 * w, 0.275)
    _strands(pen, g, upper, lower)
    _shine(pen, g, w)


def quiff(pen, g, w):
    pen.fill(_cap(pen, w, 0.012, 0.45, *_arch(w, 0.275, 0.45)), g.colors["hair"])
    wave = pen.curve(
        (0.5 - 0.80 * w, 0.285),
        ((0.5 - 1.05 * w, 0.13), (0.5 - 0.2 * w, 0.055), (0.5 + 0.55 * w, 0.105)),
        ((0.5 + 1.05 * w, 0.135), (0.5 + 0.95 * w, 0.24), (0.5 + 0.80 * w, 0.285)),
        ((0.5 + 0.3 * w, 0.245), (0.5 - 0.3 * w, 0.255), (0.5 - 0.80 * w, 0.285)),
        close=True,
    )
    pen.fill(wave, g.colors["hair"])
    _strands(pen, g, ((0.44, 0.24), (0.44, 0.16), (0.55, 0.125)), ((0.53, 0.24), (0.55, 0.18), (0.63, 0.155)))


def fringe(pen, g, w):
    line = (
        ((0.5 + w - 0.012, 0.36), (0.5 + 0.80 * w, 0.345), (0.5 + 0.5 * w, 0.345)),
        ((0.5, 0.332), (0.5 - 0.5 * w, 0.345)),
        ((0.5 - 0.80 * w, 0.345), (0.5 - w + 0.012, 0.36), (0.5 - w + 0.006, 0.49)),
    )
    pen.fill(_cap(pen, w, 0.032, 0.49, *line), g.colors["hair"])
    for x in (-0.55, -0.18, 0.2, 0.58):
        _strands(pen, g, ((0.5 + x * w, 0.335), (0.5 + 0.9 * x * w, 0.29), (0.5 + 0.75 * x * w, 0.25)))
    _shine(pen, g, w)


def curly(pen, g, w):
    pen.fill(_cap(pen, w, 0.02, 0.42, *_arch(w, 0.275, 0.42)), g.colors["hair"])
    _lumps(pen, g, w, 0.0, 0.5, 10, 0.056, 0.015)
    for x in (-0.6, -0.2, 0.2, 0.6):
        pen.ellipse(0.5 + x * w, 0.252 + 0.03 * abs(x), 0.042, 0.038, g.colors["hair"])


def afro(pen, g, w):
    pen.fill(_cap(pen, w, 0.02, 0.43, *_arch(w, 0.282, 0.43)), g.colors["hair"])


def bob(pen, g, w):
    pen.fill(_cap(pen, w, 0.034, 0.70, *_parted(w, 0.5 + 0.35 * w, 0.225, 0.70, 0.40)), g.colors["hair"])
    _shine(pen, g, w)
    left = (0.5 - w - 0.012, 0.66), (0.5 - w - 0.022, 0.52), (0.5 - w - 0.006, 0.42)
    right = (0.5 + w + 0.012, 0.66), (0.5 + w + 0.022, 0.52), (0.5 + w + 0.006, 0.42)
    _strands(pen, g, left, right)


def long(pen, g, w):
    pen.fill(_cap(pen, w, 0.034, 0.62, *_parted(w, 0.5, 0.215, 0.62, 0.40)), g.colors["hair"])
    parting = (0.5, 0.215), (0.5, 0.19), (0.5, 0.165)
    left = (0.5 - 0.25 * w, 0.27), (0.5 - 0.6 * w, 0.25), (0.5 - 0.85 * w, 0.36)
    right = (0.5 + 0.25 * w, 0.27), (0.5 + 0.6 * w, 0.25), (0.5 + 0.85 * w, 0.36)
    _strands(pen, g, parting, left, right)


def wavy(pen, g, w):
    pen.fill(_cap(pen, w, 0.040, 0.56, *_parted(w, 0.5 - 0.35 * w, 0.22, 0.56, 0.38)), g.colors["hair"])
    _shine(pen, g, w)
    _strands(pen, g, ((0.5 - 0.2 * w, 0.25), (0.55, 0.235), (0.5 + 0.8 * w, 0.33)))


def bun(pen, g, w):
    pen.fill(_cap(pen, w, 0.016, 0.46, *_arch(w, 0.262, 0.46)), g.colors["hair"])
    for x in (-0.7, -0.3, 0.3, 0.7):
        bottom = 0.5 + x * w, 0.262 + 0.03 * abs(x)
        _strands(pen, g, (bottom, (0.5 + 0.7 * x * w, 0.215), (0.5 + 0.25 * x * w, 0.185)))


def ponytail(pen, g, w):
    pen.fill(_cap(pen, w, 0.022, 0.46, *_parted(w, 0.5 + 0.3 * w, 0.225, 0.46, 0.32)), g.colors["hair"])
    _shine(pen, g, w)


def braids(pen, g, w):
    pen.fill(_cap(pen, w, 0.026, 0.52, *_parted(w, 0.5, 0.215, 0.52, 0.36)), g.colors["hair"])
    pen.line(0.5, TOP - 0.012, 0.5, 0.218, g.colors["light"], 0.008)
    for side in (-1, 1):
        for k in range(6):
            x, y = 0.5 + side * (w + 0.032 + 0.003 * k), 0.565 + 0.068 * k
            pen.ellipse(x, y, 0.042 - 0.002 * k, 0.044, g.colors["hair"])
            crossing = pen.curve((x - 0.026, y - 0.018), ((x, y + 0.022), (x + 0.026, y - 0.018)))
            pen.stroke(crossing, g.colors["hair_shade"], 0.010)
        pen.line(0.5 + side * (w + 0.024), 0.945, 0.5 + side * (w + 0.074), 0.945, (0.90, 0.25, 0.30), 0.024)


def headscarf(pen, g, w):
    cloth = COVERING[g.identity.covering_color]
    chin = g.chin_y
    ring = pen.curve(
        (0.5, 0.125),
        ((0.5 + 1.05 * w, 0.125), (0.5 + w + 0.075, 0.30), (0.5 + w + 0.06, 0.52)),
        ((0.5 + w + 0.05, 0.74), (0.5 + 0.75 * w, chin + 0.085), (0.5, chin + 0.085)),
        ((0.5 - 0.75 * w, chin + 0.085), (0.5 - w - 0.05, 0.74), (0.5 - w - 0.06, 0.52)),
        ((0.5 - w - 0.075, 0.30), (0.5 - 1.05 * w, 0.125), (0.5, 0.125)),
        close=True,
    )
    face = pen.curve(
        (0.5, 0.262),
        ((0.5 - 0.70 * w, 0.262), (0.5 - 0.93 * w, 0.35), (0.5 - 0.93 * w, 0.50)),
        ((0.5 - 0.93 * w, 0.66), (0.5 - 0.62 * w, chin - 0.008), (0.5, chin - 0.008)),
        ((0.5 + 0.62 * w, chin - 0.008), (0.5 + 0.93 * w, 0.66), (0.5 + 0.93 * w, 0.50)),
        ((0.5 + 0.93 * w, 0.35), (0.5 + 0.70 * w, 0.262), (0.5, 0.262)),
        close=True,
    )
    ring.addPath(face)
    pen.fill(ring, cloth)
    pen.stroke(face, mix(cloth, BLACK, 0.25), 0.012)
    crease = pen.curve((0.5 - 0.75 * w, 0.20), ((0.5, 0.135), (0.5 + 0.8 * w, 0.225)))
    pen.stroke(crease, mix(cloth, WHITE, 0.22), 0.012)


def turban(pen, g, w):
    cloth = COVERING[g.identity.covering_color]
    dark, light = mix(cloth, BLACK, 0.25), mix(cloth, WHITE, 0.2)
    wrap = pen.curve(
        (0.5 - w - 0.012, 0.375),
        ((0.5 - w - 0.10, 0.20), (0.5 - 0.75 * w, 0.045), (0.5, 0.045)),
        ((0.5 + 0.75 * w, 0.045), (0.5 + w + 0.10, 0.20), (0.5 + w + 0.012, 0.375)),
        ((0.5 + 0.60 * w, 0.285), (0.5, 0.262)),
        ((0.5 - 0.60 * w, 0.285), (0.5 - w - 0.012, 0.375)),
        close=True,
    )
    pen.fill(wrap, cloth)
    for y in (0.10, 0.155, 0.21):
        pen.stroke(pen.curve((0.5 - w - 0.02, y + 0.13), ((0.5 - 0.4 * w, y), (0.5 + 0.05, y + 0.045))), dark, 0.011)
        pen.stroke(pen.curve((0.5 + w + 0.02, y + 0.13), ((0.5 + 0.4 * w, y), (0.5 - 0.02, y + 0.035))), dark, 0.011)
    pen.ellipse(0.5, 0.235, 0.030, 0.028, light)


def beanie(pen, g, w):
    cloth = COVERING[g.identity.covering_color]
    dark = mix(cloth, BLACK, 0.22)
    pen.fill(_cap(pen, w, 0.030, 0.33, *_arch(w, 0.262, 0.33), lift=0.045), cloth)
    for x in (-0.5, 0.0, 0.5):
        pen.line(0.5 + 0.8 * x * w, 0.150, 0.5 + x * w, 0.215, dark, 0.010)
    band = pen.curve((0.5 - w - 0.018, 0.335), ((0.5, 0.195), (0.5 + w + 0.018, 0.335)))
    pen.stroke(band, dark, 0.060)
    pen.ellipse(0.5, 0.105, 0.048, 0.045, mix(cloth, WHITE, 0.45))


# --- styles: behind the head -----------------------------------------------------------------------------------------


def _curtain(pen: Pen, g: Geometry, w: float, bottom: float, grow: float, wave: float = 0.0):
    """Long hair behind head and neck, straight or wavy."""
    x = w + grow
    shape = pen.curve(
        (0.5, TOP - 0.03),
        ((0.5 + 0.8 * x, TOP - 0.03), (0.5 + x, 0.26), (0.5 + x, 0.42)),
        ((0.5 + x + wave, 0.52), (0.5 + x - wave, 0.62), (0.5 + x, 0.70)),
        ((0.5 + x + 1.5 * wave, 0.5 * (0.70 + bottom)), (0.5 + x - wave, bottom - 0.02), (0.5 + 0.8 * x, bottom)),
        ((0.5, bottom + 0.03), (0.5 - 0.8 * x, bottom)),
        ((0.5 - x + wave, bottom - 0.02), (0.5 - x - 1.5 * wave, 0.5 * (0.70 + bottom)), (0.5 - x, 0.70)),
        ((0.5 - x + wave, 0.62), (0.5 - x - wave, 0.52), (0.5 - x, 0.42)),
        ((0.5 - x, 0.26), (0.5 - 0.8 * x, TOP - 0.03), (0.5, TOP - 0.03)),
        close=True,
    )
    pen.fill(shape, g.colors["hair_shade"])


def bob_back(pen, g, w):
    _curtain(pen, g, w, 0.76, 0.036)


def long_back(pen, g, w):
    _curtain(pen, g, w, 0.98, 0.045)


def wavy_back(pen, g, w):
    _curtain(pen, g, w, 0.93, 0.050, wave=0.05)


def afro_back(pen, g, w):
    pen.ellipse(0.5, 0.355, w + 0.125, 0.305, g.colors["hair"])
    pen.ellipse(0.5, 0.33, w + 0.085, 0.250, g.colors["hair_light"], 0.35)


def curly_back(pen, g, w):
    pen.ellipse(0.5, 0.42, w + 0.055, 0.24, g.colors["hair_shade"])


def bun_back(pen, g, w):
    pen.ellipse(0.5, 0.135, 0.092, 0.082, g.colors["hair"])
    pen.stroke(pen.curve((0.445, 0.125), ((0.50, 0.085), (0.555, 0.13))), g.colors["hair_shade"], 0.012)


def ponytail_back(pen, g, w):
    tail = pen.curve(
        (0.5 + 0.55 * w, 0.21),
        ((0.5 + w + 0.20, 0.17), (0.5 + w + 0.18, 0.55), (0.5 + w + 0.075, 0.80)),
        ((0.5 + w + 0.02, 0.66), (0.5 + w - 0.02, 0.45), (0.5 + 0.5 * w, 0.40)),
        close=True,
    )
    pen.fill(tail, g.colors["hair_shade"])


def headscarf_back(pen, g, w):
    pen.ellipse(0.5, 0.48, w + 0.06, 0.36, mix(COVERING[g.identity.covering_color], BLACK, 0.2))


def drape(pen: Pen, g: Geometry) -> None:
    """The cloth of a headscarf over neck and shoulders; part of the body, since it does not tilt with the head."""
    cloth = COVERING[g.identity.covering_color]
    drop = pen.path("M .33 .74 C .28 .84 .24 .92 .20 1.02 L .72 1.02 C .74 .94 .72 .84 .67 .74 Z")
    pen.fill(drop, mix(cloth, BLACK, 0.08))
    pen.stroke(pen.path("M .36 .86 C .46 .93 .60 .93 .66 .86"), mix(cloth, BLACK, 0.25), 0.012)
    pen.stroke(pen.path("M .32 .92 C .45 .985 .60 .97 .70 .93"), mix(cloth, BLACK, 0.25), 0.012)


FRONT = {f.__name__: f for f in (
    bald, buzz, short, side_part, quiff, fringe, curly, afro, bob, long, wavy, bun, ponytail, braids,
    headscarf, turban, beanie,
)}  # fmt: skip
BACK = {
    "afro": afro_back, "curly": curly_back, "bob": bob_back, "long": long_back, "wavy": wavy_back,
    "bun": bun_back, "ponytail": ponytail_back, "headscarf": headscarf_back,
}  # fmt: skip
