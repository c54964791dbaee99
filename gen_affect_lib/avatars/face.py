"""The moving parts: eyes, brows, nose, mouth and the folds of the skin, by action units (FACS, Ekman & Friesen).

Every function draws in the frame of the head, shifted by the turn of the head. Intensities are in [0, 1].
"""

from gen_affect_lib.avatars.colors import BLACK, EYE, WHITE, away_from, mix
from gen_affect_lib.avatars.geometry import BROW_Y, EYE_Y, MOUTH_Y, Geometry
from gen_affect_lib.avatars.pen import Pen

EYE_WHITE = (0.98, 0.98, 0.97)
MOUTH_INSIDE = (0.26, 0.05, 0.08)
TEETH = (0.99, 0.98, 0.95)
TONGUE = (0.80, 0.33, 0.36)
SIDES = (-1, 1)


def eyes(pen: Pen, g: Geometry) -> None:
    """AU5 raises the upper lid, AU7 tightens both lids, AU6 raises the lower, AU43 closes; gaze moves the iris."""
    e, c = g.expression, g.colors
    w, h = g.eye_half, g.eye_height
    rise = h * max(0.12, 0.78 + 0.46 * e.au5 - 0.30 * e.au7)  # middle of the upper lid above the axis
    drop = h * max(0.10, 0.66 + 0.10 * e.au5 - 0.34 * e.au6 - 0.34 * e.au7)  # middle of the lower lid below it
    closed = 0.34 * h
    rise, drop = (1 - e.au43) * rise - e.au43 * closed, (1 - e.au43) * drop + e.au43 * closed
    for side in SIDES:
        x = 0.5 + side * g.eye_dx
        y = EYE_Y
        outer_y = y - 0.016 * g.identity.eye_tilt

        def lid(height, spread=0.58):  # a cubic; its control points are 4/3 as high as its middle
            inner, outer = (x - side * w, y), (x + side * w, outer_y)
            near = (x - side * spread * w, y - height / 0.75)
            far = (x + side * spread * w, outer_y - height / 0.75)
            return inner, near, far, outer

        upper, lower = lid(rise), lid(-drop)
        opening = pen.curve(upper[0], upper[1:], lower[:3][::-1], close=True)
        pen.ellipse(x, y - 0.2 * h, 1.10 * w, 1.35 * h, c["shade"], 0.55)  # the socket
        if rise + drop > 0.004:
            pen.fill(opening, EYE_WHITE)
            with pen.clipped(opening):
                iris_x = x + 0.46 * w * e.gaze_x
                iris_y = 0.5 * (y + outer_y) - 0.40 * h * e.gaze_y - 0.02 * h
                radius = 0.80 * h
                color = EYE[g.identity.eye_color]
                pen.ellipse(iris_x, iris_y, radius, radius, mix(color, BLACK, 0.45))
                pen.ellipse(iris_x, iris_y, 0.82 * radius, 0.82 * radius, color)
                pen.ellipse(iris_x, iris_y, 0.45 * radius, 0.45 * radius, (0.03, 0.02, 0.03))
                pen.ellipse(iris_x - 0.28 * radius, iris_y - 0.32 * radius, 0.20 * radius, 0.20 * radius, WHITE)
                pen.ellipse(x, y - rise, 1.1 * w, 0.26 * h, (0.1, 0.05, 0.1), 0.16)  # the shadow of the lid
        pen.stroke(pen.curve(lower[0], lower[1:]), c["line"], 0.006 + 0.004 * max(e.au6, e.au7))
        pen.stroke(pen.curve(upper[0], upper[1:]), c["line"], 0.015)
        lash = (upper[3][0] + side * 0.016, upper[3][1] - 0.010 + 0.02 * e.au43)
        pen.line(*upper[3], *lash, c["line"], 0.011)
        if e.au43 > 0.5:  # lashes of a closed eye
            for place in (0.25, 0.7):
                lx, ly = x + side * place * w, y + closed * (1.1 - 0.55 * place)
                pen.line(lx, ly, lx + side * 0.008, ly + 0.016, c["line"], 0.008, 2 * e.au43 - 1)


def brows(pen: Pen, g: Geometry) -> None:
    """AU1 raises the inner end, AU2 the outer. AU4 lowers both and draws them together; with AU1 it lowers less."""
    i, e = g.identity, g.expression
    lowering = e.au4 * (1 - 0.85 * e.au1)
    thick = 0.010 + 0.011 * i.brow_thickness
    for side in SIDES:
        x = 0.5 + side * (g.eye_dx + 0.004)
        half = 1.10 * g.eye_half
        inner = (x - side * (half + 0.022 * e.au4), BROW_Y - 0.060 * e.au1 + 0.052 * lowering)
        middle_y = BROW_Y - 0.020 - 0.016 * i.brow_arch - 0.030 * e.au1 - 0.040 * e.au2 + 0.040 * lowering
        outer = (x + side * half, BROW_Y + 0.010 - 0.058 * e.au2 + 0.016 * e.au4 + 0.012 * e.au1 * (1 - e.au2))
        peak = x + side * 0.25 * half
        shape = pen.curve(
            (inner[0], inner[1] - thick),
            ((peak, 2 * middle_y - 0.5 * (inner[1] + outer[1]) - thick), outer),
            ((peak, 2 * middle_y - 0.5 * (inner[1] + outer[1]) + 0.9 * thick), (inner[0], inner[1] + thick)),
            close=True,
        )
        pen.fill(shape, g.colors["brow"])
        pen.stroke(shape, g.colors["brow"], 0.008)


def nose(pen: Pen, g: Geometry) -> None:
    """AU9 wrinkles the bridge and raises the wings; a turn of the head moves the tip more than the rest."""
    i, e, c = g.identity, g.expression, g.colors
    x, y = 0.5 + 0.45 * g.turn_x, g.nose_y - 0.012 * e.au9
    half = 0.030 + 0.022 * i.nose_width
    wing = 0.018 + 0.020 * e.au9
    pen.ellipse(x, y - 0.012, 0.8 * half, 0.030, c["light"], 0.45)
    tip = pen.curve(
        (x - half, y - wing),
        ((x - 1.25 * half, y + 0.010), (x - 0.5 * half, y + 0.012)),
        ((x, y + 0.026), (x + 0.5 * half, y + 0.012)),
        ((x + 1.25 * half, y + 0.010), (x + half, y - wing)),
    )
    pen.stroke(tip, c["fold"], 0.011)
    if e.au9:
        for k, width in enumerate((0.028, 0.034, 0.040)):
            wy = 0.466 + 0.024 * k
            wrinkle = pen.curve((x - width, wy - 0.004), ((x, wy + 0.014), (x + width, wy - 0.004)))
            pen.stroke(wrinkle, c["fold"], 0.010, e.au9)
        for side in SIDES:
            flare = pen.curve(
                (x + side * (half + 0.010), y - 0.034),
                ((x + side * (half + 0.030), y - 0.016), (x + side * (half + 0.034), y + 0.016)),
            )
            pen.stroke(flare, c["fold"], 0.010, e.au9)


def mouth(pen: Pen, g: Geometry) -> None:
    """AU12, 15, 20, 24 and 14 move the corners (up, down, wide, narrow, dimple), AU25 and 26 part the lips, AU10, 17
    and 24 shape them."""
    i, e, c = g.identity, g.expression, g.colors
    half = g.mouth_half * (1 + 0.34 * e.au12 + 0.40 * e.au20 - 0.26 * e.au24 + 0.10 * e.au14 - 0.14 * e.au26)
    y = MOUTH_Y + 0.016 * e.au26
    corner_y = y - 0.048 * e.au12 + 0.046 * e.au15 - 0.006 * e.au14 + 0.006 * e.au20
    gap = (0.036 * e.au25 + 0.105 * e.au26) * (1 - 0.75 * e.au24) * (1 - 0.3 * e.au17)
    thin = (1 - 0.78 * e.au24) * (1 - 0.35 * e.au20)
    upper_lip = (0.019 + 0.017 * i.lip_fullness) * thin
    lower_lip = (0.023 + 0.020 * i.lip_fullness) * thin * (1 + 0.35 * e.au17)

    bend = 0.005 + 0.016 * e.au12 - 0.026 * e.au15
    above = y + bend - 0.45 * gap - 0.020 * e.au10 - 0.022 * e.au17  # the inner edges in the middle
    below = above + gap + 0.020 * e.au10 * min(1, 40 * gap)
    left, right = (0.5 - half, corner_y), (0.5 + half, corner_y)
    square = 0.50 + 0.16 * max(e.au10, e.au20)  # AU10 and AU20 keep the edge level further out

    def edge(height):  # a cubic through the corners and the middle at `height`
        control = (4 * height - corner_y) / 3
        return (0.5 - square * half, control), (0.5 + square * half, control), right

    def back(height):
        control = (4 * height - corner_y) / 3
        return (0.5 + square * half, control), (0.5 - square * half, control), left

    bow = 0.35 * upper_lip
    top = above - upper_lip - 0.010 * e.au10
    outer_y = 0.5 * (top + corner_y) - 0.5 * upper_lip
    upper_edge = (
        ((0.5 - 0.62 * half, outer_y), (0.5 - 0.34 * half, top - bow), (0.5 - 0.18 * half, top - bow)),
        ((0.5, top + bow), (0.5 + 0.18 * half, top - bow)),
        ((0.5 + 0.34 * half, top - bow), (0.5 + 0.62 * half, outer_y), right),
    )
    pen.fill(pen.curve(left, *upper_edge, back(below + lower_lip), close=True), c["lips"])
    inside = pen.curve(left, edge(above), back(below), close=True)
    if gap > 0.004:
        pen.fill(inside, MOUTH_INSIDE)
        with pen.clipped(inside):
            if gap > 0.07:
                pen.ellipse(0.5, below + 0.006, 0.55 * half, 0.36 * gap, TONGUE)
            teeth_y = min(above, corner_y) - 0.02
            upper_left, upper_right = (0.5 - half, teeth_y), (0.5 + half, teeth_y)
            lower = back(above + min(0.024, 0.55 * gap) + 0.004)
            pen.fill(pen.curve(upper_left, (upper_right,), (right,), lower, close=True), TEETH)
        pen.stroke(inside, c["line"], 0.007)
    else:
        pen.stroke(pen.curve(left, edge(0.5 * (above + below))), c["line"], 0.013)
    if e.au14:
        for side in SIDES:
            x = 0.5 + side * (half + 0.020)
            dimple = pen.curve((x, corner_y - 0.030), ((x + side * 0.018, corner_y), (x, corner_y + 0.028)))
            pen.stroke(dimple, c["fold"], 0.014, e.au14)
    if e.au24:
        for side in SIDES:
            x = 0.5 + side * (half + 0.008)
            pen.line(x, corner_y - 0.012, x, corner_y + 0.012, c["fold"], 0.012, e.au24)
        press = pen.curve((0.5 - 0.045, y + 0.042), ((0.5, y + 0.054), (0.545, y + 0.042)))
        pen.stroke(press, c["fold"], 0.009, e.au24)
    if e.au15:
        for side in SIDES:
            x = 0.5 + side * (half + 0.004)
            pen.line(x, corner_y + 0.006, x + side * 0.014, corner_y + 0.032, c["fold"], 0.010, e.au15)


def folds(pen: Pen, g: Geometry) -> None:
    """The folds of the skin: on the forehead, between the brows, on the cheeks, beside the mouth, on the chin."""
    i, e, c = g.identity, g.expression, g.colors
    fold = c["fold"]
    for k in range(2):  # lines of the forehead: AU1 in the middle, AU2 at the sides
        y = 0.300 - 0.024 * k
        if e.au1:
            pen.stroke(pen.curve((0.43, y), ((0.5, y - 0.016), (0.57, y))), fold, 0.008, 0.85 * e.au1)
        if e.au2:
            for side in SIDES:
                x = 0.5 + side * 0.115
                line = pen.curve((x - side * 0.035, y), ((x, y - 0.012), (x + side * 0.045, y + 0.008)))
                pen.stroke(line, fold, 0.008, 0.85 * e.au2)
    if e.au4:
        for side in SIDES:
            x = 0.5 + side * 0.014
            furrow = pen.curve((x, 0.375), ((x + side * 0.010, 0.40), (x - side * 0.001, 0.428)))
            pen.stroke(furrow, fold, 0.010, e.au4)
    for side in SIDES:
        eye_x = 0.5 + side * g.eye_dx
        if e.au6:  # the upper edge of the cheek, and crow's feet
            y = EYE_Y + 1.05 * g.eye_height
            cheek = pen.curve(
                (eye_x - side * 0.050, y + 0.004),
                ((eye_x + side * 0.005, y + 0.026), (eye_x + side * 0.066, y - 0.008)),
            )
            pen.stroke(cheek, fold, 0.010, e.au6)
            blush = mix(c["skin"], (0.95, 0.32, 0.30), 0.40)
            pen.ellipse(eye_x + side * 0.012, y + 0.055, 0.042, 0.026, blush, 0.75 * e.au6)
            for slope in (-0.012, 0.012):
                x0 = eye_x + side * (g.eye_half + 0.020)
                pen.line(x0, EYE_Y + 0.6 * slope, x0 + side * 0.024, EYE_Y + 2 * slope, fold, 0.008, e.au6)
        if e.au7:  # the tightened lower lid
            y = EYE_Y + 0.62 * g.eye_height
            inner, outer = (eye_x - side * 0.8 * g.eye_half, y), (eye_x + side * 0.8 * g.eye_half, y)
            pen.stroke(pen.curve(inner, ((eye_x, y + 0.014), outer)), fold, 0.009, 0.9 * e.au7)
        furrow = max(0.9 * e.au12, e.au10)
        if furrow or i.age > 0.6:  # from the wing of the nose to the corner of the mouth
            x0 = 0.5 + side * (0.046 + 0.016 * i.nose_width)
            x1 = 0.5 + side * (g.mouth_half * (1 + 0.34 * e.au12) + 0.030)
            y0, y1 = g.nose_y - 0.004, MOUTH_Y - 0.012 - 0.020 * e.au12 - 0.03 * e.au10
            line = pen.curve((x0, y0), ((x1 - side * 0.004, y0 + 0.012), (x1, y1)))
            if i.age > 0.6:
                pen.stroke(line, c["shade"], 0.010, min(1.0, 2.5 * (i.age - 0.6)))
            if furrow:
                pen.stroke(line, fold, 0.010, furrow)
    if e.au17:  # the boss of the chin, pushed up
        y = g.chin_y - 0.046
        ground = c["beard"] if i.facial_hair in ("goatee", "beard") else c["skin"]
        boss = away_from(fold, ground, WHITE)
        pen.stroke(pen.curve((0.455, y + 0.014), ((0.5, y - 0.030), (0.545, y + 0.014))), boss, 0.011, e.au17)
        for dx in (-0.016, 0.016):
            pen.ellipse(0.5 + dx, y + 0.014, 0.006, 0.006, boss, e.au17)


def marks(pen: Pen, g: Geometry) -> None:
    """Freckles, and the lines of age under the eyes and on the forehead."""
    i, c = g.identity, g.colors
    if i.freckles == "some":
        dots = ((0.075, 0.552), (0.105, 0.572), (0.135, 0.553), (0.062, 0.585), (0.118, 0.597), (0.030, 0.535))
        for x, y in dots:
            for side in SIDES:
                pen.ellipse(0.5 + side * x, y, 0.0075, 0.0075, c["fold"], 0.8)
    if i.age > 0.5:
        strength = min(1.0, 2 * (i.age - 0.5))
        for side in SIDES:
            x, y = 0.5 + side * g.eye_dx, EYE_Y + 1.25 * g.eye_height
            line = pen.curve((x - side * 0.045, y), ((x, y + 0.020), (x + side * 0.040, y)))
            pen.stroke(line, c["shade"], 0.010, strength)
        pen.stroke(pen.curve((0.42, 0.318), ((0.5, 0.306), (0.58, 0.318))), c["shade"], 0.010, strength)


def beard(pen: Pen, g: Geometry) -> None:
    """A full beard, stubble or a goatee; it moves with the jaw."""
    kind, c = g.identity.facial_hair, g.colors
    if kind in ("none", "moustache"):
        return
    chin, w = g.chin_y, g.half_width
    dx, dy = -g.turn_x, -g.turn_y  # a beard follows the outline, which does not turn
    with pen.moved(dx, dy), pen.clipped(g.outline(pen, grow=0.012 if kind == "beard" else 0.0)):
        if kind == "goatee":
            pen.ellipse(0.5 + g.turn_x, chin - 0.015, 0.060, 0.058, c["beard"])
            return
        shape = pen.curve(
            (0.5 - w - 0.02, 0.53),
            ((0.5 - w + 0.035, 0.60), (0.5 - 0.16, 0.635), (0.5, 0.632)),
            ((0.5 + 0.16, 0.635), (0.5 + w - 0.035, 0.60), (0.5 + w + 0.02, 0.53)),
            ((0.5 + w + 0.02, chin + 0.03),),
            ((0.5 - w - 0.02, chin + 0.03),),
            close=True,
        )
        pen.fill(shape, c["beard"], 0.28 if kind == "stubble" else 1.0)
    if kind == "beard":  # bare skin around the lips keeps every mouth visible
        y = MOUTH_Y + 0.020 * g.expression.au26
        half_width = 0.135 + 0.03 * g.identity.mouth_width
        half_height = 0.058 + 0.03 * g.expression.au26
        pen.ellipse(0.5, y, half_width, half_height, c["skin"])


def moustache(pen: Pen, g: Geometry) -> None:
    if g.identity.facial_hair not in ("moustache", "beard"):
        return
    e = g.expression
    y = MOUTH_Y - 0.062 - 0.016 * e.au10 - 0.010 * e.au17 + 0.004 * e.au26
    half = 0.95 * g.mouth_half
    tip_y = y + 0.030 - 0.020 * e.au12 + 0.012 * e.au15
    shape = pen.curve(
        (0.5, y - 0.006),
        ((0.5 - 0.4 * half, y - 0.022), (0.5 - 0.8 * half, y - 0.004), (0.5 - half, tip_y)),
        ((0.5 - 0.5 * half, y + 0.026), (0.5, y + 0.016)),
        ((0.5 + 0.5 * half, y + 0.026), (0.5 + half, tip_y)),
        ((0.5 + 0.8 * half, y - 0.004), (0.5 + 0.4 * half, y - 0.022), (0.5, y - 0.006)),
        close=True,
    )
    pen.fill(shape, g.colors["beard"])


def glasses(pen: Pen, g: Geometry) -> None:
    kind = g.identity.glasses
    if kind == "none":
        return
    color = (
        (0.10, 0.10, 0.13) if g.identity.skin < 0.55 else (0.90, 0.78, 0.40)
    )  # dark frames are invisible on dark skin
    y, rx, ry = EYE_Y + 0.006, g.eye_half + 0.020, g.eye_height + 0.028
    for side in SIDES:
        x = 0.5 + side * (g.eye_dx + 0.002)
        if kind == "round":
            r = 0.5 * (rx + ry)
            pen.ellipse(x, y, r, r, WHITE, 0.10)
            pen.ring(x, y, r, color, 0.013)
        else:
            top, bottom = y - 0.85 * ry, y + 0.95 * ry
            box = pen.polygon([(x - rx, top), (x + rx, top), (x + 0.92 * rx, bottom), (x - 0.92 * rx, bottom)])
            pen.fill(box, WHITE, 0.10)
            pen.stroke(box, color, 0.014)
        pen.line(x + side * rx, y - 0.01, 0.5 + side * (g.half_width + 0.002) - g.turn_x, y - 0.02, color, 0.012)
    left, right = (0.5 - g.eye_dx + rx - 0.004, y - 0.008), (0.5 + g.eye_dx - rx + 0.004, y - 0.008)
    pen.stroke(pen.curve(left, ((0.5, y - 0.026), right)), color, 0.012)  # the bridge
