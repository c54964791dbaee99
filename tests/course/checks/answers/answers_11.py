"""Answers to the exercises of notebook 11, as students write them."""

import numpy as np

from tests.course.checks.answers import Answers

# --- align ---


def centred(points, average, weights):
    """Both sets around their weighted means, and the means."""
    w = weights / weights.sum()
    n = len(average)
    middle, mean = (w[:, None] * points[:n]).sum(0), (w[:, None] * average).sum(0)
    return w, middle, mean, points[:n] - middle, average - mean


def with_diag(points, average, weights):
    w, middle, mean, p, q = centred(points, average, weights)
    u, s, vt = np.linalg.svd(p.T @ np.diag(w) @ q)
    d = np.diag([1, 1, np.linalg.det(u @ vt)])
    rotation = u @ d @ vt
    scale = np.trace(np.diag(s) @ d) / (w * (p * p).sum(1)).sum()
    return (points - middle) @ rotation * scale + mean, rotation


def by_kabsch(points, average, weights):
    """The decomposition of the transposed covariance, and the scale from the turned points."""
    w, middle, mean, p, q = centred(points, average, weights)
    u, _, vt = np.linalg.svd(np.einsum("n,ni,nj->ji", w, p, q))
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        u[:, 2] *= -1
    rotation = (u @ vt).T
    turned = p @ rotation
    scale = (w[:, None] * turned * q).sum() / (w[:, None] * turned**2).sum()
    return scale * ((points - middle) @ rotation) + mean, rotation


def off_centre(points, average, weights):
    w, p = weights / weights.sum(), points[: len(average)]
    u, s, vt = np.linalg.svd((w[:, None] * p).T @ average)
    sign = np.sign(np.linalg.det(u @ vt))
    rotation = u @ np.diag([1, 1, sign]) @ vt
    return points @ rotation * (s[0] + s[1] + sign * s[2]) / (w @ (p**2).sum(1)), rotation


def may_reflect(points, average, weights):
    w, middle, mean, p, q = centred(points, average, weights)
    u, s, vt = np.linalg.svd((w[:, None] * p).T @ q)
    return (points - middle) @ (u @ vt) * s.sum() / (w @ (p**2).sum(1)) + mean, u @ vt


def scale_forgets_the_sign(points, average, weights):
    w, middle, mean, p, q = centred(points, average, weights)
    u, s, vt = np.linalg.svd((w[:, None] * p).T @ q)
    rotation = (u * [1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return (points - middle) @ rotation * s.sum() / (w @ (p**2).sum(1)) + mean, rotation


def unweighted(points, average, weights):
    return with_diag(points, average, np.ones(len(average)))


def covariance_unweighted(points, average, weights):
    w, middle, mean, p, q = centred(points, average, weights)
    u, s, vt = np.linalg.svd(p.T @ q / len(q))
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    return (points - middle) @ ((u * flip) @ vt) * (s * flip).sum() / (w @ (p**2).sum(1)) + mean, (u * flip) @ vt


def without_scale(points, average, weights):
    _, middle, mean, *_ = centred(points, average, weights)
    _, rotation = with_diag(points, average, weights)
    return (points - middle) @ rotation + mean, rotation


def scaled_by_sizes(points, average, weights):
    w, middle, mean, p, q = centred(points, average, weights)
    _, rotation = with_diag(points, average, weights)
    scale = np.sqrt((w @ (q**2).sum(1)) / (w @ (p**2).sum(1)))
    return scale * (points - middle) @ rotation + mean, rotation


def stays_there(points, average, weights):
    _, middle, mean, *_ = centred(points, average, weights)
    laid, rotation = with_diag(points, average, weights)
    return laid - mean + middle, rotation


def around_zero(points, average, weights):
    _, _, mean, *_ = centred(points, average, weights)
    laid, rotation = with_diag(points, average, weights)
    return laid - mean, rotation


def turned_twice(points, average, weights):
    w, middle, mean, p, q = centred(points, average, weights)
    laid, rotation = with_diag(points, average, weights)
    scale = np.linalg.norm(laid[0] - laid[1]) / np.linalg.norm(points[0] - points[1])
    return scale * (points - middle) @ rotation.T + mean, rotation.T


def other_rotation(points, average, weights):
    laid, rotation = with_diag(points, average, weights)
    return laid, np.linalg.inv(rotation)


def only_the_points(points, average, weights):
    return with_diag(points, average, weights)[0]


# --- units_from_table ---


def in_a_loop(blendshapes, table):
    units = {}
    for unit in table:
        names, rest, full = table[unit]
        value = 0.0
        for name in names:
            found = [v for key, v in blendshapes.items() if key in (name, name + "Left", name + "Right")]
            value += sum(found) / len(found)
        units[unit] = min(1.0, max(0.0, (value - rest) / (full - rest)))
    return units


def by_interpolation(blendshapes, table):
    def of(name):
        return blendshapes.get(name, (blendshapes.get(name + "Left", 0) + blendshapes.get(name + "Right", 0)) / 2)

    return {unit: np.interp(sum(map(of, names)), [rest, full], [0, 1]) for unit, (names, rest, full) in table.items()}


def variant(
    pair=lambda a, b: (a + b) / 2, join=sum, scale=lambda v, r, f: (v - r) / (f - r), clip=lambda x: min(1, max(0, x))
):
    def answer(blendshapes, table):
        def of(name):
            return (
                blendshapes[name]
                if name in blendshapes
                else pair(blendshapes[name + "Left"], blendshapes[name + "Right"])
            )

        return {unit: clip(scale(join([of(n) for n in names]), r, f)) for unit, (names, r, f) in table.items()}

    return answer


# --- ridge ---


def by_inverse(features, targets, penalty):
    x, y = features - features.mean(0), targets - targets.mean(0)
    w = np.linalg.inv(x.T @ x + penalty * np.identity(x.shape[1])) @ x.T @ y
    return w.T, targets.mean(0) - features.mean(0) @ w


def dual(features, targets, penalty):
    """The same by a matrix of pictures, (N, N)."""
    x = features - features.mean(0)
    a = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), targets - targets.mean(0))
    w = x.T @ a
    return w.T, targets.mean(0) - w.T @ features.mean(0)


def by_rows_of_zeros(features, targets, penalty):
    """Least squares with extra pictures, which say that the weights are 0."""
    x, y = features - features.mean(0), targets - targets.mean(0)
    more = np.concatenate([x, np.sqrt(penalty) * np.eye(x.shape[1])])
    w, *_ = np.linalg.lstsq(more, np.concatenate([y, np.zeros((x.shape[1], y.shape[1]))]), rcond=None)
    return w.T, targets.mean(0) - w.T @ features.mean(0)


def ones_among_features(features, targets, penalty):
    x = np.hstack([features, np.ones((len(features), 1))])
    w = np.linalg.inv(x.T @ x + penalty * np.eye(x.shape[1])) @ x.T @ targets
    return w[:-1].T, w[-1]


def through_zero(features, targets, penalty):
    w = np.linalg.inv(features.T @ features + penalty * np.eye(features.shape[1])) @ features.T @ targets
    return w.T, np.zeros(targets.shape[1])


def mean_as_bias(features, targets, penalty):
    return by_inverse(features, targets, penalty)[0], targets.mean(0)


def not_centred(features, targets, penalty):
    w = through_zero(features, targets, penalty)[0]
    return w, targets.mean(0) - w @ features.mean(0)


def features_first(features, targets, penalty):
    w, b = by_inverse(features, targets, penalty)
    return w.T, b


def minus_penalty(features, targets, penalty):
    return by_inverse(features, targets, -penalty)


def times_count(features, targets, penalty):
    return by_inverse(features, targets, penalty * len(features))


def squared(features, targets, penalty):
    return by_inverse(features, targets, penalty**2)


def divided_by_deviation(features, targets, penalty):
    d = features.std(0)
    w = by_inverse(features / d, targets, penalty)[0] / d
    return w, targets.mean(0) - w @ features.mean(0)


# --- read_proportion ---


def step_by_step(value, norm, blendshapes):
    mean, deviation, changes = norm
    for name in changes:
        if blendshapes[name] > 0.2:
            value = value - changes[name] * (blendshapes[name] - 0.2)
    factor = 0.5 + (value - mean) / (5 * deviation)
    return min(1.0, max(0.0, factor))


def with_arrays(value, norm, blendshapes):
    above = np.array([blendshapes[name] - 0.2 for name in norm[2]]).clip(0)
    return np.clip(0.5 + 0.2 * (value - above @ np.array(list(norm[2].values())) - norm[0]) / norm[1], 0, 1)


def factor_by(above=lambda x: max(x - 0.2, 0), sign=1, end=lambda z: min(1, max(0, 0.5 + 0.2 * z))):
    def answer(value, norm, blendshapes):
        change = sum(w * above(blendshapes[name]) for name, w in norm[2].items())
        return end((value - sign * change - norm[0]) / norm[1])

    return answer


def change_of_z(value, norm, blendshapes):
    z = (value - norm[0]) / norm[1] - sum(w * max(blendshapes[n] - 0.2, 0) for n, w in norm[2].items())
    return min(1, max(0, 0.5 + 0.2 * z))


# --- skin_angle ---


def by_quantiles(colors):
    low, high = np.quantile(colors[:, 0], 0.3), np.quantile(colors[:, 0], 0.8)
    lightness, _, b = np.median(colors[np.logical_and(low <= colors[:, 0], colors[:, 0] <= high)], axis=0)
    return np.rad2deg(np.arctan((lightness - 50) / b))


def as_a_complex_number(colors):
    low, high = np.percentile(colors[:, 0], (30, 80))
    kept = np.array([one for one in colors if low <= one[0] <= high])
    return float(np.angle(np.median(kept[:, 2]) + 1j * (np.median(kept[:, 0]) - 50), deg=True))


def angle_of(low=30, high=80, channel=0, middle=np.median, angle=lambda c: np.degrees(np.arctan2(c[0] - 50, c[2]))):
    def answer(colors):
        a, b = np.percentile(colors[:, channel], [low, high])
        return angle(middle(colors[(colors[:, channel] >= a) & (colors[:, channel] <= b)], axis=0))

    return answer


ANSWERS = {
    "align": Answers(
        right=[with_diag, by_kabsch],
        wrong=[
            (off_centre, "not centred"),
            (may_reflect, "your map reflects"),
            (scale_forgets_the_sign, "the scale is not"),
            (unweighted, "the weights are not used"),
            (covariance_unweighted, "the covariance is not"),
            (without_scale, "the scale is missing"),
            (scaled_by_sizes, "the ratio of the sizes"),
            (stays_there, "where they came from"),
            (around_zero, "stay around 0"),
            (turned_twice, "the inverse of the right one"),
            (other_rotation, "is its transpose"),
            (only_the_points, "2 results were expected"),
        ],
    ),
    "units_from_table": Answers(
        right=[in_a_loop, by_interpolation],
        wrong=[
            (variant(pair=lambda a, b: a + b), "left and right are added"),
            (variant(pair=max), "the larger is taken"),
            (variant(pair=lambda a, b: a), "only the left side"),
            (variant(join=np.mean), "the mean is taken"),
            (variant(join=max), "the largest is taken"),
            (variant(join=lambda v: v[0]), "only the first"),
            (variant(scale=lambda v, r, f: (v - r) / f), "difference of the two"),
            (variant(scale=lambda v, r, f: v / (f - r)), "is not subtracted"),
            (variant(scale=lambda v, r, f: v / f), "values at rest are not used"),
            (variant(clip=lambda x: x), "at both ends"),
            (variant(clip=lambda x: min(1, x)), "clip it at 0"),
            (variant(clip=lambda x: max(0, x)), "exceeds 1"),
        ],
    ),
    "ridge": Answers(
        right=[by_inverse, dual, by_rows_of_zeros],
        wrong=[
            (ones_among_features, "the bias is penalised"),
            (through_zero, "there is no bias"),
            (mean_as_bias, "the mean of the targets: subtract"),
            (not_centred, "not centred"),
            (features_first, "(F, U)"),
            (minus_penalty, "is subtracted: the diagonal"),
            (times_count, "number of pictures"),
            (squared, "λ itself"),
            (divided_by_deviation, "standard deviations"),
        ],
    ),
    "read_proportion": Answers(
        right=[step_by_step, with_arrays],
        wrong=[
            (factor_by(above=lambda x: 0), "not taken away"),
            (factor_by(sign=-1), "is added"),
            (factor_by(above=lambda x: x), "from 0 on"),
            (factor_by(above=lambda x: x - 0.2), "to the other side"),
            (factor_by(above=lambda x: x if x > 0.2 else 0), "the whole blendshape"),
            (change_of_z, "from the z-score"),
            (factor_by(end=lambda z: 0.5 + 0.2 * z), "leaves [0, 1]"),
            (factor_by(end=lambda z: z), "this is the z-score"),
            (factor_by(end=lambda z: min(1, max(0, 0.5 + z))), "by 0.2, not by 1"),
            (factor_by(end=lambda z: min(1, max(0, 0.2 * z))), "the middle is missing"),
        ],
    ),
    "skin_angle": Answers(
        right=[by_quantiles, as_a_complex_number],
        wrong=[
            (angle_of(0, 100), "not left out."),
            (angle_of(high=100), "highlights are not left out: the brightest"),
            (angle_of(low=0), "shadows are not left out: the darkest"),
            (angle_of(middle=np.mean), "the mean is taken"),
            (angle_of(angle=lambda c: np.arctan2(c[0] - 50, c[2])), "radians"),
            (angle_of(angle=lambda c: np.degrees(np.arctan2(c[0], c[2]))), "50 is not subtracted"),
            (angle_of(angle=lambda c: np.degrees(np.arctan2(c[2], c[0] - 50))), "swapped"),
            (angle_of(angle=lambda c: np.degrees(np.arctan2(c[0] - 50, c[1]))), "that is a*"),
            (angle_of(channel=2), "wrong channel"),
        ],
    ),
    "width_for_the_detector": Answers(
        right=[lambda: 200 / 4000 * 128, lambda: 6.4],
        wrong=[
            (lambda: 200, "in the photograph"),
            (lambda: 31.25, "is reduced: divide"),
            (lambda: 0.05, "as a share"),
            (lambda: 200 * 4000 / 128, "smaller, not larger"),
            (lambda: 9.6, "the longer side"),
        ],
    ),
    "under_orange_light": Answers(
        right=[lambda: "skin", lambda: "Skin "],
        wrong=[
            (lambda: "mouth", "measured on points"),
            (lambda: "smile", "from points alone"),
            (lambda: "turn", "rotation that aligns"),
            (lambda: "hair", "return one of"),
        ],
    ),
}
