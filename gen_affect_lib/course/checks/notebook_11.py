"""The exercises of notebook 11: from a photograph to an avatar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gen_affect_lib.course.checks import Exercise, check_choice, check_number, compare

# --- 11.1 align ------------------------------------------------------------------------------------------------------


def align(points: np.ndarray, average: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (M, 3), laid over the average (N, 3) by a similarity with the least weighted squares, and its rotation."""
    return _laid(points, average, weights)


def _laid(
    points,
    average,
    weights,
    share=lambda weights: weights / weights.sum(),
    centred=True,
    weighted=True,
    reflections=False,
    scale: Callable = lambda values, flip, p, q, share: (values * flip).sum() / (share @ (p**2).sum(axis=1)),
    back_to: Callable = lambda middle, mean: mean,
    inverse=False,
):
    share, count = share(weights), len(average)
    middle = share @ points[:count] if centred else np.zeros(3)
    mean = share @ average if centred else np.zeros(3)
    p, q = points[:count] - middle, average - mean
    u, values, vt = np.linalg.svd(((share if weighted else np.full(count, 1 / count))[:, None] * p).T @ q)
    flip = np.array([1, 1, 1.0 if reflections else np.sign(np.linalg.det(u @ vt))])
    rotation = (u * flip) @ vt
    rotation = rotation.T if inverse else rotation
    size = scale(values, flip, p, q, share)
    return size * (points - middle) @ rotation + back_to(middle, mean), rotation


def _test_align(answer) -> None:
    rng = np.random.default_rng(3)

    def turned(angle: float) -> np.ndarray:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])

    cases = []
    for angle, size, extra in ((0.5, 40.0, 2), (-1.2, 0.3, 0), (2.6, 7.0, 3)):
        average, weights = rng.normal(0, (4, 5, 2), (9, 3)) + (1, -2, 3), rng.uniform(0.1, 2, 9)
        moved = average + rng.normal(0, 0.7, (9, 3))
        points = np.concatenate([moved, rng.normal(0, 4, (extra, 3))]) @ turned(angle) * size + rng.normal(0, 50, 3)
        cases.append((points, average, weights))
    average = rng.normal(0, (4, 5, 2), (8, 3))
    mirrored = average * (-1, 1, 1) + rng.normal(0, 0.2, (8, 3))
    cases.append((mirrored, average, rng.uniform(0.5, 1, 8)))

    def by(**change):
        return lambda points, average, weights: _laid(points, average, weights, **change)

    def ratio(values, flip, p, q, share):
        return np.sqrt((share @ (q**2).sum(axis=1)) / (share @ (p**2).sum(axis=1)))

    def transposed(points, average, weights):
        laid, rotation = _laid(points, average, weights)
        return laid, rotation.T

    compare(
        answer,
        align,
        *cases,
        mistakes=[
            (
                "the points are not centred: subtract the weighted means of both sets before the singular value "
                "decomposition, and add that of `average` at the end.",
                by(centred=False),
            ),
            (
                "on a mirrored face your map reflects. A rotation has the determinant +1: if det(U Vᵀ) is −1, change "
                "the sign of the last column of U, and of the last singular value in the scale.",
                by(reflections=True),
            ),
            (
                "on a mirrored face the rotation is right and the scale is not: the last singular value counts with "
                "the sign of det(U Vᵀ).",
                by(scale=lambda values, flip, p, q, share: values.sum() / (share @ (p**2).sum(axis=1))),
            ),
            (
                "the weights are not used: both means, the covariance and the spread of the points are weighted.",
                by(share=lambda weights: np.full(len(weights), 1 / len(weights))),
            ),
            ("the means are weighted, the covariance is not.", by(weighted=False)),
            (
                "the scale is missing: the sum of the singular values, divided by the weighted spread of the points.",
                by(scale=lambda values, flip, p, q, share: 1.0),
            ),
            (
                "the scale is the ratio of the sizes. Least squares gives less where points do not fit: the sum of the "
                "singular values, divided by the weighted spread of the points.",
                by(scale=ratio),
            ),
            (
                "the scale divides by the spread of `average`: divide by that of the points, which are scaled.",
                by(scale=lambda values, flip, p, q, share: (values * flip).sum() / (share @ (q**2).sum(axis=1))),
            ),
            (
                "the scale is the sum of the singular values alone: divide it by the weighted spread of the points.",
                by(scale=lambda values, flip, p, q, share: (values * flip).sum()),
            ),
            (
                "the points are turned, but moved back to where they came from: at the end add the mean of `average`.",
                by(back_to=lambda middle, mean: middle),
            ),
            (
                "the points stay around 0: at the end add the mean of `average`.",
                by(back_to=lambda middle, mean: np.zeros(3)),
            ),
            (
                "the rotation is the inverse of the right one: for row vectors and H = Pᵀ W Q = U S Vᵀ it is U Vᵀ.",
                by(inverse=True),
            ),
            ("the points are right, and the rotation that comes with them is its transpose.", transposed),
        ],
    )


check_align = Exercise(
    "11.1",
    "align",
    "Turn the face to the front",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="The same formula registers point clouds, superimposes molecules and compares skulls.",
    reference=align,
    test=_test_align,
    hints=(
        "Weighted means first: `share = weights / weights.sum()` and `share @ average`. Then "
        "`u, values, vt = np.linalg.svd((share[:, None] * p).T @ q)` of the centred points.",
        "`flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])`, the rotation is `(u * flip) @ vt`, and the scale "
        "`(values * flip).sum() / (share @ (p**2).sum(axis=1))`.",
    ),
)

# --- 11.2 units_from_table -------------------------------------------------------------------------------------------

Table = Mapping[str, tuple[Sequence[str], float, float]]


def units_from_table(blendshapes: Mapping[str, float], table: Table) -> dict[str, float]:
    """Action units in [0, 1] from blendshapes by name, with each unit's blendshapes, value at rest and at full."""
    return _units(blendshapes, table)


def _sides(b: Mapping[str, float], name: str) -> float:
    return b[name] if name in b else (b[name + "Left"] + b[name + "Right"]) / 2


def _units(b, table, sides=_sides, total=sum, scaled=lambda v, rest, full: (v - rest) / (full - rest), clip=(0.0, 1.0)):
    units = {}
    for unit, (names, rest, full) in table.items():
        value = scaled(total(sides(b, name) for name in names), rest, full)
        units[unit] = float(np.clip(value, *clip))
    return units


def _test_units_from_table(answer) -> None:
    table = {
        "au1": (("browInnerUp",), 0.15, 0.75),
        "au12": (("mouthSmile",), 0.04, 0.85),
        "au24": (("mouthPress", "mouthRollLower", "mouthRollUpper"), 0.10, 0.80),
        "au25": (("mouthLowerDown", "jawOpen"), 0.06, 0.70),
    }
    single = ("browInnerUp", "mouthRollLower", "mouthRollUpper", "jawOpen")
    paired = [name + side for name in ("mouthSmile", "mouthPress", "mouthLowerDown") for side in ("Left", "Right")]
    rng = np.random.default_rng(5)
    cases = [(dict(zip((*single, *paired), rng.uniform(0, high, 10).tolist())), table) for high in (0.1, 0.4, 0.9)]
    cases.append(({**dict.fromkeys((*single, *paired), 0.3), "mouthSmileLeft": 0.7, "mouthSmileRight": 0.1}, table))

    def by(**change):
        return lambda blendshapes, table: _units(blendshapes, table, **change)

    def left(b, name):
        return b[name] if name in b else b[name + "Left"]

    compare(
        answer,
        units_from_table,
        *cases,
        mistakes=[
            (
                "left and right are added: a unit has the mean of both sides.",
                by(sides=lambda b, name: b[name] if name in b else b[name + "Left"] + b[name + "Right"]),
            ),
            (
                "of left and right the larger is taken: a unit has the mean of both sides.",
                by(sides=lambda b, name: b[name] if name in b else max(b[name + "Left"], b[name + "Right"])),
            ),
            ("only the left side is read: take the mean of both.", by(sides=left)),
            ("of several blendshapes the mean is taken: they are added.", by(total=lambda v: float(np.mean(list(v))))),
            ("of several blendshapes the largest is taken: they are added.", by(total=max)),
            ("only the first of several blendshapes is read: they are added.", by(total=lambda v: list(v)[0])),
            (
                "the value at rest is subtracted, and the result divided by the value at full strength. Divide by "
                "the difference of the two: at full strength a unit is 1.",
                by(scaled=lambda v, rest, full: (v - rest) / full),
            ),
            (
                "the value at rest is not subtracted: at rest a unit is 0.",
                by(scaled=lambda v, rest, full: v / (full - rest)),
            ),
            (
                "the values at rest are not used: a neutral face has blendshapes above 0.",
                by(scaled=lambda v, rest, full: v / full),
            ),
            ("a unit is in [0, 1]: clip it at both ends.", by(clip=(-np.inf, np.inf))),
            ("below the value at rest a unit is negative: clip it at 0.", by(clip=(-np.inf, 1.0))),
            ("above full strength a unit exceeds 1: clip it.", by(clip=(0.0, np.inf))),
        ],
    )


check_units_from_table = Exercise(
    "11.2",
    "units_from_table",
    "Read the table",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Between two lists of face movements there is often no network, only a table that somebody has to state.",
    reference=units_from_table,
    test=_test_units_from_table,
    hints=(
        "For each unit: the values of its blendshapes, added; then (value − rest) / (full − rest), clipped to [0, 1].",
        "A name without a side is not among the blendshapes: `name if name in blendshapes`, or else the mean of "
        '`blendshapes[name + "Left"]` and `blendshapes[name + "Right"]`.',
    ),
)

# --- 11.3 ridge ------------------------------------------------------------------------------------------------------


def ridge(features: np.ndarray, targets: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (U, F) and bias (U,) of the ridge regression from features (N, F) to targets (N, U)."""
    return _ridge(features, targets, penalty)


def _ridge(x, y, penalty, center=True, strength=lambda penalty, x: penalty):
    middle = x.mean(axis=0) if center else np.zeros(x.shape[1])
    inputs, mean = x - middle, y.mean(axis=0)
    gram = inputs.T @ inputs + strength(penalty, x) * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, inputs.T @ (y - mean)).T
    return weight, mean - weight @ middle


def _test_ridge(answer) -> None:
    rng = np.random.default_rng(7)
    cases = []
    for count, features, units, penalty in ((30, 6, 3, 2.0), (12, 40, 2, 0.5), (50, 4, 1, 30.0)):
        x = rng.normal(0, 1, (count, features)) * rng.uniform(0.3, 3, features) + rng.normal(0, 2, features)
        y = x @ rng.normal(0, 1, (features, units)) + rng.normal(0, 1, (count, units)) + 4
        cases.append((x, y, penalty))

    def with_ones(x, y, penalty):
        both = np.column_stack([x, np.ones(len(x))])
        weight = np.linalg.solve(both.T @ both + penalty * np.eye(both.shape[1]), both.T @ y).T
        return weight[:, :-1], weight[:, -1]

    def without_bias(x, y, penalty):
        weight = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y).T
        return weight, np.zeros(y.shape[1])

    def bias_of_targets(x, y, penalty):
        weight, _ = _ridge(x, y, penalty)
        return weight, y.mean(axis=0)

    def uncentred_weight(x, y, penalty):
        weight, _ = without_bias(x, y, penalty)
        return weight, y.mean(axis=0) - weight @ x.mean(axis=0)

    def standardised(x, y, penalty):
        deviation = x.std(axis=0)
        weight, _ = _ridge(x / deviation, y, penalty)
        return weight / deviation, y.mean(axis=0) - weight / deviation @ x.mean(axis=0)

    def transposed(x, y, penalty):
        weight, bias = _ridge(x, y, penalty)
        return weight.T, bias

    compare(
        answer,
        ridge,
        *cases,
        tolerance=1e-6,
        mistakes=[
            (
                "the bias is penalised, too: a column of ones among the features gets the same penalty. Centre "
                "features and targets instead, and compute the bias from the means.",
                with_ones,
            ),
            ("there is no bias: it is what the prediction at the mean of the features lacks.", without_bias),
            (
                "the weights are right, the bias is the mean of the targets: subtract the weights times the mean of "
                "the features.",
                bias_of_targets,
            ),
            (
                "the weights come from features that are not centred. Then they have to explain the mean of the "
                "targets, too.",
                uncentred_weight,
            ),
            ("the weights have the shape (F, U): transpose them to (U, F), one row for each unit.", transposed),
            ("the penalty is missing: this is plain least squares.", lambda x, y, penalty: _ridge(x, y, 1e-9)),
            (
                "the penalty is subtracted: the diagonal grows by it.",
                lambda x, y, penalty: _ridge(x, y, penalty, strength=lambda penalty, x: -penalty),
            ),
            (
                "the penalty is multiplied by the number of pictures. Here the errors are summed over pictures, not "
                "averaged.",
                lambda x, y, penalty: _ridge(x, y, penalty, strength=lambda penalty, x: penalty * len(x)),
            ),
            (
                "the penalty is squared: λ itself stands on the diagonal.",
                lambda x, y, penalty: _ridge(x, y, penalty, strength=lambda penalty, x: penalty**2),
            ),
            (
                "the features are divided by their standard deviations. That changes what is penalised: leave "
                "them as they are.",
                standardised,
            ),
        ],
    )


check_ridge = Exercise(
    "11.3",
    "ridge",
    "Learn what the blendshapes do not show",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="With more features than pictures, least squares has no single solution. The penalty chooses one.",
    reference=ridge,
    test=_test_ridge,
    hints=(
        "Subtract the means of features and targets: X and Y. Solve (XᵀX + λI) Wᵀ = XᵀY with `np.linalg.solve`.",
        "The bias is `targets.mean(axis=0) - weight @ features.mean(axis=0)`: at the mean of the features the mean of "
        "the targets is predicted.",
    ),
)

# --- 11.4 read_proportion --------------------------------------------------------------------------------------------

Norm = tuple[float, float, Mapping[str, float]]


def read_proportion(value: float, norm: Norm, blendshapes: Mapping[str, float]) -> float:
    """The factor in [0, 1] of a proportion, without what the expression changes."""
    return _factor(value, norm, blendshapes)


def _factor(value, norm, b, sign=-1, above=lambda x: max(x - 0.2, 0), step=0.2, middle=0.5, clip=(0, 1), late=False):
    mean, deviation, changes = norm
    change = sign * sum(weight * above(b[name]) for name, weight in changes.items())
    z = (value - mean) / deviation + change if late else (value + change - mean) / deviation
    return float(np.clip(middle + step * z, *clip))


def _test_read_proportion(answer) -> None:
    b = {"mouthSmile": 0.9, "jawOpen": 0.5, "mouthPucker": 0.1}
    rest = dict.fromkeys(b, 0.05)
    norms = [
        (0.42, 0.033, {"mouthSmile": 0.163}),
        (0.23, 0.023, {"jawOpen": -0.169}),
        (0.80, 0.05, {"mouthSmile": 0.02, "jawOpen": -0.1, "mouthPucker": 0.3}),
        (0.44, 0.017, {}),
    ]
    cases = [
        (norm[0] + z * norm[1], norm, faces)
        for norm, z, faces in zip(
            norms * 3, (1.2, -0.7, 0.4, 1.9, -1.1, 0.6, -4.0, 3.5, 5, -5, 0.2, 0.0), [b, rest, b] * 4
        )
    ]

    def by(**change):
        return lambda value, norm, blendshapes: _factor(value, norm, blendshapes, **change)

    compare(
        answer,
        read_proportion,
        *cases,
        mistakes=[
            (
                "the expression is not taken away: a smile still widens the mouth of the person.",
                by(above=lambda x: 0.0),
            ),
            ("the change with the expression is added: it is in the value already, so subtract it.", by(sign=1)),
            (
                "blendshapes count from 0 on: a face at rest has small ones, so they count from 0.2 on.",
                by(above=lambda x: x),
            ),
            (
                "below 0.2 a blendshape changes the value to the other side: nothing is subtracted there.",
                by(above=lambda x: x - 0.2),
            ),
            (
                "above 0.2 the whole blendshape counts: only what exceeds 0.2 does.",
                by(above=lambda x: x if x > 0.2 else 0.0),
            ),
            (
                "the change is subtracted from the z-score. It is a change of the proportion: subtract it before.",
                by(late=True),
            ),
            ("the factor leaves [0, 1]: clip it.", by(clip=(-np.inf, np.inf))),
            ("this is the z-score: the factor is 0.5 + 0.2 z, clipped.", by(step=1, middle=0, clip=(-np.inf, np.inf))),
            ("the z-score is clipped: the factor is 0.5 + 0.2 z.", by(step=1, middle=0)),
            ("a z-score of 1 changes the factor by 0.2, not by 1.", by(step=1)),
            ("the middle is missing: an average proportion is the factor 0.5.", by(middle=0)),
        ],
    )


check_read_proportion = Exercise(
    "11.4",
    "read_proportion",
    "A smile is not a wide mouth",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="What a face is and what it does are measured on the same points, and have to be told apart.",
    reference=read_proportion,
    test=_test_read_proportion,
    hints=(
        "How much does each blendshape change the proportion? `changes` says by how much for each 1.0 above 0.2.",
        "Subtract `sum(weight * max(blendshapes[name] - 0.2, 0) for name, weight in changes.items())` from the value, "
        "before the mean; and clip the factor.",
    ),
)

# --- 11.5 skin_angle -------------------------------------------------------------------------------------------------


def skin_angle(colors: np.ndarray) -> float:
    """The individual typology angle in degrees, of colours L*a*b* (N, 3) without shadows and highlights."""
    return _angle(colors)


def _angle(
    colors,
    low=30,
    high=80,
    middle=lambda seen: np.median(seen, axis=0),
    angle=lambda color: np.degrees(np.arctan2(color[0] - 50, color[2])),
    channel=0,
):
    first, last = np.percentile(colors[:, channel], [low, high])
    seen = colors[(colors[:, channel] >= first) & (colors[:, channel] <= last)]
    return float(angle(middle(seen)))


def _test_skin_angle(answer) -> None:
    rng = np.random.default_rng(9)
    cases = []
    for light, red, yellow in ((72, 12, 18), (45, 16, 24), (28, 10, 12)):
        colors = rng.normal((light, red, yellow), (3, 2, 2.5), (60, 3))
        colors[:12] -= rng.uniform(8, 20, (12, 1)) * (1, 0.2, 0.5)  # shadows
        colors[12:18] += rng.uniform(10, 25, (6, 1)) * (1, -0.3, -0.6)  # highlights
        cases.append((rng.permutation(colors).astype(np.float32),))

    def by(**change):
        return lambda colors: _angle(colors, **change)

    compare(
        answer,
        skin_angle,
        *cases,
        tolerance=1e-4,
        mistakes=[
            ("shadows and highlights are not left out.", by(low=0, high=100)),
            ("highlights are not left out: the brightest 20 % are.", by(high=100)),
            ("shadows are not left out: the darkest 30 % are.", by(low=0)),
            (
                "of what is left the mean is taken, which a few pixels can move: take the median.",
                by(middle=lambda seen: seen.mean(axis=0)),
            ),
            ("the angle is in radians.", by(angle=lambda color: np.arctan2(color[0] - 50, color[2]))),
            (
                "50 is not subtracted from the lightness: the angle is measured at the middle of the scale.",
                by(angle=lambda color: np.degrees(np.arctan2(color[0], color[2]))),
            ),
            (
                "the arguments of the arctangent are swapped: lightness stands above, b* below.",
                by(angle=lambda color: np.degrees(np.arctan2(color[2], color[0] - 50))),
            ),
            (
                "that is a*, red against green: the angle has b*, yellow against blue, the third channel.",
                by(angle=lambda color: np.degrees(np.arctan2(color[0] - 50, color[1]))),
            ),
            ("the percentiles are of the wrong channel: shadows are dark, so take those of L*.", by(channel=2)),
            ("the percentiles are of the wrong channel: shadows are dark, so take those of L*.", by(channel=1)),
        ],
    )


check_skin_angle = Exercise(
    "11.5",
    "skin_angle",
    "Skin without shadows",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A colour in a photograph is skin times light; what is measured should depend little on the light.",
    reference=skin_angle,
    test=_test_skin_angle,
    hints=(
        "`np.percentile(colors[:, 0], [30, 80])` gives the two limits of the lightness. Then `np.median(…, axis=0)` of "
        "the colours between them.",
        "`np.degrees(np.arctan2(lightness - 50, b))`, with the median's first and third channel.",
    ),
)

# --- 11.6 width_for_the_detector -------------------------------------------------------------------------------------


def _test_width_for_the_detector(answer) -> None:
    check_number(
        answer,
        6.4,
        within=0.1,
        wrong=[
            (200, "that is its width in the photograph. The detector gets the whole photograph at 128 × 128 pixels."),
            (6250, "the photograph becomes smaller, not larger: multiply by 128 / 4000."),
            (31.25, "that is by how much the photograph is reduced: divide the width of the face by it."),
            (0.05, "that is the face as a share of the photograph: how many of 128 pixels is it?"),
            (9.6, "the detector gets a square as wide as the longer side, 4,000 pixels, at 128 × 128."),
        ],
    )


check_width_for_the_detector = Exercise(
    "11.6",
    "width_for_the_detector",
    "A face in a group",
    "predict",
    difficulty=1,
    minutes=3,
    points=1,
    purpose="A network with an input of a fixed size does not see what is small in a large picture.",
    reference=lambda: 6.4,
    test=_test_width_for_the_detector,
    hints=(
        "By which factor is the photograph reduced? Its longer side becomes 128 pixels.",
        "The factor is 128 / 4000; the face is reduced by the same.",
    ),
)

# --- 11.7 under_orange_light -----------------------------------------------------------------------------------------


def _test_under_orange_light(answer) -> None:
    check_choice(
        answer,
        "skin",
        {
            "mouth": "the mouth's width is measured on points, and the network finds those in any light that leaves "
            "edges visible.",
            "smile": "the blendshapes are computed from points alone, without colours.",
            "turn": "the turn of the head is the rotation that aligns the points; no colour is in it.",
        },
    )


check_under_orange_light = Exercise(
    "11.7",
    "under_orange_light",
    "Under a street lamp",
    "predict",
    difficulty=1,
    minutes=3,
    points=1,
    purpose="If you know what a number is computed from, you know what can make it wrong.",
    reference=lambda: "skin",
    test=_test_under_orange_light,
    hints=(
        "Which of the four is computed from colours, and which from points?",
        "Orange light raises b*. In which of them does b* occur?",
    ),
)
