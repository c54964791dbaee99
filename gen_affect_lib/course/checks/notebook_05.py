"""The exercises of notebook 05: alignment, margin, threshold, and overlapping boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gen_affect_lib.course.checks import Exercise, Wrong, check_number, compare, compare_modules
from gen_affect_lib.course.checks.probes import module_gradients
from gen_affect_lib.encoders import identity, views
from gen_affect_lib.evaluation.metrics import detection, recognition

# --- 5.1 similarity --------------------------------------------------------------------------------------------------


def _complex(points: np.ndarray) -> np.ndarray:
    return points.astype(np.float64) @ (1, 1j)  # (M, 2) -> (M,)


def _matrix(a: complex, b: complex) -> np.ndarray:
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _turn(points: np.ndarray, places: np.ndarray) -> complex:
    z, w = (x - x.mean() for x in map(_complex, (points, places)))
    return np.vdot(z, w) / np.vdot(z, z).real


def _with_mirrors(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Umeyama's formula without the sign of the determinant: it may mirror."""
    x, y = (p.astype(np.float64) - p.mean(axis=0) for p in (points, places))
    u, s, v = np.linalg.svd(y.T @ x)
    turn = s.sum() / np.square(x).sum() * u @ v
    return np.column_stack([turn, places.mean(axis=0) - turn @ points.mean(axis=0)])


def _test_similarity(answer) -> None:
    rng, fixed = np.random.default_rng(0), views.PLACES.astype(np.float64)
    mirrored = fixed * (-1, 1) + (200, 10)  # only a reflection fits exactly
    cases = [(rng.normal(60, 20, (7, 2)), rng.normal(40, 25, (7, 2))), (mirrored, fixed)]
    for angle, scale, shift in ((0.4, 2.0, (90, -30)), (-1.9, 0.7, (-60, 140))):
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        cases.append((scale * fixed @ turn + shift + rng.normal(0, 3, (5, 2)), fixed))

    def at_the_origin(points, places):
        z, w = _complex(points), _complex(places)
        a = np.vdot(z, w) / np.vdot(z, z).real
        return _matrix(a, w.mean() - a * z.mean())

    def unconjugated(points, places):
        z, w = _complex(points), _complex(places)
        a = ((z - z.mean()) * (w - w.mean())).sum() / np.square(np.abs(z - z.mean())).sum()
        return _matrix(a, w.mean() - a * z.mean())

    def only_the_middles(points, places):
        return _matrix(_turn(points, places), _complex(places).mean() - _complex(points).mean())

    def turned_back(points, places):
        a = _turn(points, places)
        x, y = places.mean(axis=0) - np.array([[a.real, a.imag], [-a.imag, a.real]]) @ points.mean(axis=0)
        return np.array([[a.real, a.imag, x], [-a.imag, a.real, y]])

    def signs_changed(points, places):
        a = _turn(points, places)
        b = _complex(places).mean() - a * _complex(points).mean()
        return np.array([[a.real, a.imag, b.real], [-a.imag, a.real, b.imag]])

    def sheared(points, places):
        padded = np.column_stack([points, np.ones(len(points))])
        return np.linalg.lstsq(padded, places.astype(np.float64), rcond=None)[0].T

    def unscaled(points, places):
        a = _turn(points, places)
        a /= abs(a)
        return _matrix(a, _complex(places).mean() - a * _complex(points).mean())

    def squared_once(points, places):
        z, w = (x - x.mean() for x in map(_complex, (points, places)))
        a = np.vdot(z, w) / np.vdot(w, w).real
        return _matrix(a, _complex(places).mean() - a * _complex(points).mean())

    signs = (
        "the numbers are right, but the signs of the two off the diagonal are swapped: multiply (x + iy) by (p + "
        "iq) and take the real part."
    )
    compare(
        answer,
        views.similarity,
        *cases,
        mistakes=[
            (
                "the points are not centred: subtract both means before you compute the rotation, or the map "
                "rotates about the corner of the picture.",
                at_the_origin,
            ),
            (
                "one factor of the sum is not conjugated, so the result has the sum of the angles and not their "
                "difference.",
                unconjugated,
            ),
            (
                "the shift moves one mean onto the other before the rotation and the scale. But those move the "
                "mean too: b = w̄ − a z̄.",
                only_the_middles,
            ),
            (f"{signs} Or the wrong factor is conjugated: the conjugate belongs to `points`.", turned_back),
            (signs, signs_changed),
            (
                "some of your maps mirror the face: where the determinant of U Vᵀ is −1, flip the sign of the last "
                "singular direction. (With complex numbers that cannot happen.)",
                _with_mirrors,
            ),
            (
                "six free numbers fit better, but they shear and mirror the face. Only four are allowed: rotation, "
                "scale, and two of the shift.",
                sheared,
            ),
            ("rotation and shift are right, but the scale is always 1.", unscaled),
            (
                "the scale is divided by the variance of the places. Divide by that of the points, which are moved.",
                squared_once,
            ),
            (
                "this is the inverse: the map goes from `points` to `places`.",
                lambda points, places: views.similarity(places, points),
            ),
        ],
    )


check_similarity = Exercise(
    "5.1",
    "similarity",
    "Five points into place",
    "implement",
    difficulty=2,
    minutes=15,
    points=2,
    purpose="Every face that a recognizer reads goes through these four numbers first.",
    reference=views.similarity,
    test=_test_similarity,
    hints=(
        "Points as complex numbers: `points @ (1, 1j)`. Then `np.vdot(x, y)` sums the products and conjugates the "
        "*first*.",
        "Subtract the means, then a = vdot(z, w) / vdot(z, z).real, and b from the means. The product (p + iq)(x + "
        "iy) is (px − qy) + i(qx + py): those are the first two columns.",
    ),
)

# --- 5.2 ArcFaceLoss -------------------------------------------------------------------------------------------------


def _margin(right: Tensor, m: float, line: bool = True) -> Tensor:
    """cos(angle + m) as in the library; without `line` also beyond pi."""
    right = right.clamp(-1 + 1e-6, 1 - 1e-6)
    harder = right * math.cos(m) - (1 - right.square()).sqrt() * math.sin(m)
    return torch.where(right > -math.cos(m), harder, right - m * math.sin(m)) if line else harder


def _mistaken(logits: Callable, lengths: tuple[int | None, int | None] = (1, 1), **loss) -> type:
    """ArcFaceLoss with other logits.

    Args:
        logits: a function of (the module, cosines, class indices, warmth).
        lengths: the axes along which embeddings and directions are normalized; None leaves them as they are.
        loss: further arguments of the cross-entropy.
    """

    class Mistaken(identity.ArcFaceLoss):
        def forward(self, embeddings: Tensor, person: Tensor, warmth: float = 1.0) -> Tensor:
            one, other = (
                x if axis is None else F.normalize(x, dim=axis)
                for x, axis in zip((embeddings, self.directions), lengths)
            )
            return F.cross_entropy(logits(self, one @ other.T, person, warmth), person, **loss)

    return Mistaken


def _right(change: Callable) -> Callable:
    """Logits with the cosine of the correct person replaced by `change`, a function of (cosine, margin)."""

    def logits(self, cosine, person, warmth):
        right = cosine.gather(1, person[:, None])
        return self.scale * cosine.scatter(1, person[:, None], change(right, warmth * self.margin))

    return logits


def _test_arcface_loss(answer) -> None:
    build = dict(people=5, embedding=3, margin=0.8, scale=12.0)
    embeddings, person = 2 * torch.randn(60, 3), torch.arange(60) % 5
    lengths = (
        "lengths matter here, but only angles should: normalize the embeddings *and* the directions, each row "
        "to length 1."
    )
    across = "the columns have length 1 here, but each *row* should: `F.normalize(x, dim=1)`, which is the default."
    cosface = "the margin is subtracted from the cosine. That is CosFace; ArcFace adds it to the *angle*: cos(θ + m)."
    smaller = (
        "the margin makes the angle smaller, and the task easier: the angle must count as *larger*: cos(θ + m) and "
        "not cos(θ − m). The addition theorem has a minus: cos θ cos m − sin θ sin m."
    )
    everybody = "every person gets the margin, so it changes little: only the column of the correct person changes."
    compare_modules(
        answer,
        identity.ArcFaceLoss,
        build,
        (embeddings, person, 1.0),
        (embeddings, person, 0.4),
        (embeddings, person),
        tolerance=3e-5,
        mistakes=[
            (cosface, _mistaken(_right(lambda c, m: c - m))),
            (cosface, _mistaken(_right(lambda c, m: torch.where(c > -math.cos(m), c - m, c - m * math.sin(m))))),
            (
                "the margin is added to the cosine, which makes the task easier and not harder: add it to the "
                "*angle*, cos(θ + m).",
                _mistaken(_right(lambda c, m: c + m)),
            ),
            (smaller, _mistaken(_right(lambda c, m: _margin(c, -m, False)))),
            (smaller, _mistaken(_right(lambda c, m: _margin(c, -m)))),
            (everybody, _mistaken(lambda self, c, person, warmth: self.scale * _margin(c, warmth * self.margin))),
            (
                everybody,
                _mistaken(lambda self, c, person, warmth: self.scale * _margin(c, warmth * self.margin, False)),
            ),
            (
                "the scale is missing: cosines lie between −1 and 1, and the softmax of such logits never gives a "
                "probability near 1.",
                _mistaken(lambda self, c, person, warmth: _right(_margin)(self, c, person, warmth) / self.scale),
            ),
            (
                "the scale multiplies the logit of the correct person or those of the others, but not both: scale "
                "all of them at the end.",
                _mistaken(
                    lambda self, c, person, warmth: (self.scale * c).scatter(
                        1, person[:, None], _margin(c.gather(1, person[:, None]), warmth * self.margin)
                    )
                ),
            ),
            *((lengths, _mistaken(_right(_margin), axes)) for axes in ((None, 1), (1, None), (None, None))),
            *((across, _mistaken(_right(_margin), axes)) for axes in ((0, 0), (0, 1), (1, 0))),
            (
                "`warmth` is not used: the margin that counts is warmth · m.",
                _mistaken(lambda self, c, person, warmth: _right(_margin)(self, c, person, 1.0)),
            ),
            (
                "beyond π the cosine rises again, and the worst embeddings get a gradient in the wrong direction: "
                "where cos θ ≤ −cos m, use the straight line.",
                _mistaken(_right(lambda c, m: _margin(c, m, False))),
            ),
            (
                "there is no margin: this is the softmax of the scaled cosines.",
                _mistaken(lambda self, c, person, warmth: self.scale * c),
            ),
            ("the losses of the batch are summed: give their mean.", _mistaken(_right(_margin), reduction="sum")),
            (
                "the softmax is taken twice: `F.cross_entropy` expects logits.",
                _mistaken(lambda self, c, person, warmth: _right(_margin)(self, c, person, warmth).softmax(dim=1)),
            ),
        ],
    )
    exactly = torch.eye(2)  # each embedding exactly along its direction
    build = dict(people=2, embedding=2, margin=0.5, scale=8.0)
    (gradient, *_), _ = module_gradients(answer)(build, {"directions": torch.eye(2)}, exactly, torch.arange(2))
    if gradient is None or not gradient.isfinite().all():
        raise Wrong(
            "the loss is right, but for an embedding exactly along its direction the gradient is not a number: the "
            "slope of a root at 0, and of `acos` at 1, is infinite. Clamp the cosine of the correct person to [−1 "
            "+ 1e-6, 1 − 1e-6] first."
        )


check_ArcFaceLoss = Exercise(
    "5.2",
    "ArcFaceLoss",
    "A handicap in the angle",
    "implement",
    difficulty=4,
    minutes=30,
    points=4,
    purpose="The loss behind most of the world's face recognizers is six lines long, and each of them matters.",
    reference=identity.ArcFaceLoss,
    test=_test_arcface_loss,
    hints=(
        "First the matrix of cosines (B, people). `gather` takes the column of the correct person, `scatter` puts "
        "the changed one back. The addition theorem gives cos(θ + m) from cos θ, with sin θ = √(1 − cos² θ).",
        "`right = cosine.gather(1, person[:, None]).clamp(…)`; `harder = right * cos m − (1 − right²).sqrt() * sin "
        "m`; `torch.where` chooses between it and the line; `F.cross_entropy(scale * cosine.scatter(1, person[:, "
        "None], harder), person)`.",
    ),
)

# --- 5.3 largest_margin ----------------------------------------------------------------------------------------------


def _test_largest_margin(answer) -> None:
    check_number(
        answer,
        math.pi / 4,
        within=0.01,
        wrong=[
            (45, "the angle is right, but in degrees. The margin is in radians."),
            (
                math.pi / 8,
                "that would be half the gap. Half the gap is the decision boundary without a margin; but the best "
                "embedding is exactly *along* its direction, and from there it is the whole gap to the next.",
            ),
            (22.5, "in degrees, and half the gap: the best embedding is exactly *along* its direction."),
            (math.pi / 2, "that would be the answer for four people. Here there are eight people on the circle."),
            (
                0.5,
                "at 0.5 most of them are still classified correctly, as the right picture shows: the margin "
                "can be larger.",
            ),
            (
                0.8,
                "at 0.8 nobody is classified correctly any more, but only just: the limit lies slightly below, and a "
                "formula gives it.",
            ),
        ],
    )


check_largest_margin = Exercise(
    "5.3",
    "largest_margin",
    "Too much to ask",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A margin requires angles between people, and in few dimensions such angles are limited: more people "
    "need more dimensions.",
    reference=lambda: math.pi / 4,
    test=_test_largest_margin,
    hints=(
        "Which embedding has the lowest loss? What is its angle to its own direction, and to the next?",
        "At θ = 0 the formula compares cos(m) with the cosine of the gap.",
    ),
)

# --- 5.4 threshold_at ------------------------------------------------------------------------------------------------


def _test_threshold_at(answer) -> None:
    def claims(people, size):
        middles = torch.randn(people, size)
        spread = 0.2 + 3 * torch.rand(people, 1)  # embeddings have any length
        references, probes = (middles + 0.6 * torch.randn(people, size) for _ in range(2))
        return spread * references, spread.flip(0) * probes

    cases = [(*claims(12, 6), 0.013), (*claims(12, 6), 0.1234), (*claims(9, 4), 0.0), (*claims(20, 5), 0.5011)]

    def of(
        reference,
        probe,
        share,
        table=recognition.similarities,
        who=lambda n: ~torch.eye(n, dtype=torch.bool),
        place=lambda allowed: int(allowed),
        descending=True,
    ):
        table = table(reference, probe)
        values = table[who(len(table))].sort(descending=descending).values
        return values[place(share * len(values))].item()

    def between(reference, probe, share):
        table = recognition.similarities(reference, probe)
        return torch.quantile(table[~torch.eye(len(table), dtype=torch.bool)], 1 - share).item()

    early = (
        "one position too early, so that only k − 1 others are above it. A claim is accepted if its cosine is *above* "
        "the threshold. The threshold is therefore the first cosine that must not be accepted: the one with index k, "
        "counted from 0."
    )
    rounded = "if the share gives no whole number of claims, k is rounded *down*: one more would exceed the share."
    compare(
        answer,
        recognition.threshold_at,
        *cases,
        tolerance=1e-5,
        mistakes=[
            (
                "the diagonal is counted too: it compares each person with themselves, and these are no false claims.",
                lambda r, p, s: of(r, p, s, who=lambda n: torch.ones(n, n, dtype=torch.bool)),
            ),
            (
                "these are the cosines of the *true* claims. A false-accept rate is a share of the pairs of "
                "different people.",
                lambda r, p, s: of(r, p, s, who=lambda n: torch.eye(n, dtype=torch.bool)),
            ),
            (
                "these are dot products of embeddings of any length: compare by the cosine, as `similarities` does.",
                lambda r, p, s: of(r, p, s, table=lambda r, p: p @ r.T),
            ),
            (
                "sorted the other way, so nearly all strangers are accepted. Count from the *largest* cosine down.",
                lambda r, p, s: of(r, p, s, descending=False),
            ),
            (early, lambda r, p, s: of(r, p, s, place=lambda allowed: max(0, int(allowed) - 1))),
            (early, lambda r, p, s: of(r, p, s, place=lambda allowed: int(allowed) - 1)),  # for k = 0: the last one
            (rounded, lambda r, p, s: of(r, p, s, place=math.ceil)),
            (rounded, lambda r, p, s: of(r, p, s, place=round)),
            (
                "`quantile` interpolates between two cosines. Sort the cosines and take one of them, with k "
                "strangers above it.",
                between,
            ),
            (
                "only half of the pairs of strangers are counted: each pair is in the table twice, with different "
                "pictures as reference and probe.",
                lambda r, p, s: of(r, p, s, who=lambda n: torch.ones(n, n, dtype=torch.bool).triu(1)),
            ),
        ],
    )


check_threshold_at = Exercise(
    "5.4",
    "threshold_at",
    "One stranger in a thousand",
    "implement",
    difficulty=2,
    minutes=15,
    points=2,
    purpose="A rate of true accepts says nothing without the rate of false ones at which it was measured.",
    reference=recognition.threshold_at,
    test=_test_threshold_at,
    hints=(
        "Which entries of the table compare different people? Sort those cosines.",
        "`table[~torch.eye(len(table), dtype=torch.bool)]` are the strangers. In descending order, the one with "
        "the number k (counted from 0) has exactly k above it.",
    ),
)

# --- 5.5 ious --------------------------------------------------------------------------------------------------------


def _iou(a: np.ndarray, b: np.ndarray, clip: str = "sides", shared_once: bool = True) -> np.ndarray:
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = np.prod(np.clip(sides, 0, None) if clip == "sides" else sides, axis=-1)
    both = np.clip(both, 0, None) if clip == "area" else both
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (a, b))
    return both / (area_a[:, None] + area_b[None] - both * shared_once)


def _test_ious(answer) -> None:
    rng = np.random.default_rng(1)

    def boxes(count):
        corner = rng.uniform(0, 50, (count, 2))
        return np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1)

    far = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [20, 30, 40, 50], [2, 3, 8, 7], [80, 90, 86, 97]])
    cases = [(boxes(4), boxes(6)), (far, far[:3]), (far[:2].astype(np.float32), far.astype(np.float32))]
    result = "only the *result* is clipped at 0, but two negative sides make a positive area: clip each side at 0"
    compare(
        answer,
        detection.ious,
        *cases,
        tolerance=1e-5,
        mistakes=[
            (
                "nothing is changed yet that matters: two boxes far apart still overlap, and the IoU of a box with "
                "itself is 0.5.",
                lambda a, b: _iou(a, b, clip="", shared_once=False),
            ),
            (
                "the intersection is counted twice in the union: subtract it once.",
                lambda a, b: _iou(a, b, shared_once=False),
            ),
            (
                "boxes that are apart in both directions still overlap: their overlap has two negative sides, and the "
                "product is positive.",
                lambda a, b: _iou(a, b, clip=""),
            ),
            (
                "the *area* is clipped at 0, but two negative sides make a positive area: clip each side at 0.",
                lambda a, b: _iou(a, b, clip="area"),
            ),
            (
                "the area is clipped at 0, though each side should be, and the union counts the intersection twice.",
                lambda a, b: _iou(a, b, clip="area", shared_once=False),
            ),
            *((f"{result}.", lambda a, b, most=most: np.clip(_iou(a, b, clip=""), 0, most)) for most in (None, 1)),
            *(
                (
                    f"{result}, and count the intersection once in the union.",
                    lambda a, b, most=most: np.clip(_iou(a, b, clip="", shared_once=False), 0, most),
                )
                for most in (None, 1)
            ),
            (
                "this is divided by the smaller of the two areas, so a box inside another would have an IoU of 1 "
                "with it. Divide by the union, the area that at least one of them covers.",
                _over_the_smaller,
            ),
            (
                "this is the intersection over the area of the first box alone.",
                lambda a, b: (
                    _iou(a, b, shared_once=False)
                    * (1 + np.prod(b[:, 2:] - b[:, :2], axis=-1)[None] / np.prod(a[:, 2:] - a[:, :2], axis=-1)[:, None])
                ),
            ),
            (
                "`abs` turns a gap between two boxes into an overlap of the same size: for a negative side the "
                "boxes are disjoint, and the area is 0.",
                lambda a, b: _of_gaps(a, b),
            ),
        ],
    )


def _over_the_smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (a, b))
    return np.prod(np.clip(sides, 0, None), axis=-1) / np.minimum(area_a[:, None], area_b[None])


def _of_gaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    both = np.prod(
        np.abs(np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])), axis=-1
    )
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (a, b))
    return both / (area_a[:, None] + area_b[None] - both)


check_ious = Exercise(
    "5.5",
    "ious",
    "Boxes that overlap and should not",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="A detector is trained by this number, thinned out by it and judged by it: an error here is an error "
    "three times.",
    reference=detection.ious,
    test=_test_ious,
    hints=(
        "Compute the first row by hand. What are width and height of the intersection of two disjoint boxes?",
        "`np.clip(high - low, 0, None)` before the product; and the union is both areas minus the intersection.",
    ),
)

# --- 5.6 suppress ----------------------------------------------------------------------------------------------------


def _suppress(boxes: np.ndarray, scores: np.ndarray, joint: float, order: np.ndarray | None = None) -> np.ndarray:
    order, kept = np.argsort(-scores, kind="stable") if order is None else order, []
    while len(order):
        kept.append(order[0])
        order = order[1:][detection.ious(boxes[order[:1]], boxes[order[1:]])[0] <= joint]
    return np.array(kept, dtype=np.int64)


def suppress(boxes: np.ndarray, scores: np.ndarray, joint: float = 0.4) -> np.ndarray:
    """The indices of the boxes (D, 4) that are kept, by falling score: no two with an IoU above `joint`."""
    return _suppress(boxes, scores, joint)


def _test_suppress(answer) -> None:
    rng = np.random.default_rng(2)

    def crowd(faces, each):
        corner = np.repeat(rng.uniform(0, 200, (faces, 2)), each, axis=0) + rng.normal(0, 3, (faces * each, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(35, 45, (faces * each, 2))], axis=1)
        return boxes, rng.permutation(np.linspace(0.2, 0.99, faces * each))

    # A row in which each box overlaps only its neighbours: the second is removed, so the third is kept.
    row = np.array([[24.0, 0, 54, 30], [0, 0, 30, 30], [12, 0, 42, 30], [36, 0, 66, 30]])
    cases = [(*crowd(4, 5), 0.4), (row, np.array([0.6, 0.9, 0.8, 0.5]), 0.3), (*crowd(3, 6), 0.7), (*crowd(5, 1), 0.4)]

    def still_counting(boxes, scores, joint):
        order = np.argsort(-scores, kind="stable")
        beaten = np.tril(detection.ious(boxes[order], boxes[order]) > joint, -1).any(axis=1)
        return order[~beaten]

    def only_the_first(boxes, scores, joint):
        order = np.argsort(-scores, kind="stable")
        return np.concatenate([order[:1], order[1:][detection.ious(boxes[order[:1]], boxes[order[1:]])[0] <= joint]])

    def places_in_the_order(boxes, scores, joint):
        order = np.argsort(-scores, kind="stable")
        return np.argsort(order, kind="stable")[_suppress(boxes, scores, joint)]

    compare(
        answer,
        suppress,
        *cases,
        tolerance=0.0,
        mistakes=[
            (
                "the boxes with the lowest scores win: begin with the highest score.",
                lambda b, s, j: _suppress(b, s, j, np.argsort(s, kind="stable")),
            ),
            (
                "the boxes are processed in the order in which they came: process the one with the highest score "
                "first, or a worse box replaces it.",
                lambda b, s, j: _suppress(b, s, j, np.arange(len(s))),
            ),
            (
                "a removed box still removes others: compare only with the boxes that are *kept*.",
                still_counting,
            ),
            (
                "only boxes that overlap the best one are removed: repeat this with the next box that is left, to "
                "the end.",
                only_the_first,
            ),
            (
                "these are positions in the sorted list. Return the indices into the input.",
                places_in_the_order,
            ),
            (
                "the right boxes are kept, but in the order of the input: sort them by falling score.",
                lambda b, s, j: np.sort(_suppress(b, s, j)),
            ),
            (
                "the boxes that overlap are kept, and the others removed: `joint` is the largest IoU that two kept "
                "boxes may have.",
                lambda b, s, j: _kept_if_joint(b, s, j),
            ),
            ("nothing is removed, only sorted.", lambda b, s, j: np.argsort(-s, kind="stable")),
            (
                "`joint` is not used: it is the largest IoU that two kept boxes may have.",
                lambda b, s, j: _suppress(b, s, 0.5),
            ),
        ],
    )


def _kept_if_joint(boxes: np.ndarray, scores: np.ndarray, joint: float) -> np.ndarray:
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        kept.append(order[0])
        order = order[1:][detection.ious(boxes[order[:1]], boxes[order[1:]])[0] > joint]
    return np.array(kept)


check_suppress = Exercise(
    "5.6",
    "suppress",
    "One face, one box",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Non-maximum suppression stands at the end of nearly every detector, and it is where a face in a crowd "
    "gets lost.",
    reference=suppress,
    test=_test_suppress,
    hints=(
        "Sort the indices of the boxes by falling score. Keep the first; remove from the rest all that overlap it "
        "too much; repeat with what is left.",
        "`order = np.argsort(-scores)`; in a `while len(order):` keep `order[0]`, and go on with "
        "`order[1:][ious(boxes[order[:1]], boxes[order[1:]])[0] <= joint]`.",
    ),
)
