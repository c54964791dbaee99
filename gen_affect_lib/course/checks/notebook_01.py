"""The exercises of notebook 01: a face from numbers, the tree of words, and training pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity, emotions
from gen_affect_lib.avatars.factors import Hue
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare, difference
from gen_affect_lib.course.checks.answer import Failed, is_class
from gen_affect_lib.course.checks.probes import expression_from_vector, expression_interpolate, expression_vector

FIRST = VALIDATION_SEED  # as in the notebook

# --- 1.1 mouth_line --------------------------------------------------------------------------------------------------


def mouth_line(
    au12: float = 0.0, au15: float = 0.0, au20: float = 0.0, resting: float = 0.097, count: int = 60
) -> np.ndarray:
    """Points (count, 2) of the line of a closed mouth, in the frame of the head."""
    return _mouth()(au12, au15, au20, resting, count)


def _mouth(
    control: Callable = lambda c, m: (4 * m - c) / 3,
    reach: Callable = lambda half, own: own,
    three: float = 3.0,
    order: tuple = (0, 1, 2, 3),
    endpoint: bool = True,
) -> Callable:
    """The reference, or with other arguments a function with one mistake."""

    def line(au12=0.0, au15=0.0, au20=0.0, resting=0.097, count=60):
        half = resting * (1 + 0.34 * au12 + 0.40 * au20)
        corner = 0.69 - 0.048 * au12 + 0.046 * au15 + 0.006 * au20
        middle = 0.695 + 0.016 * au12 - 0.026 * au15
        across, height = reach(half, half * (0.50 + 0.16 * au20)), control(corner, middle)
        points = [(0.5 - half, corner), (0.5 - across, height), (0.5 + across, height), (0.5 + half, corner)]
        p = np.array([points[number] for number in order])
        t = np.linspace(0, 1, count, endpoint=endpoint)[:, None]
        return (1 - t) ** 3 * p[0] + three * (1 - t) ** 2 * t * p[1] + three * (1 - t) * t**2 * p[2] + t**3 * p[3]

    return line


def _test_mouth_line(answer) -> None:
    cases = [(0.0, 0.0, 0.0, 0.097, 60), (1.0, 0.0, 0.0, 0.11, 7), (0.3, 0.9, 0.6, 0.08, 12)]
    compare(
        answer,
        mouth_line,
        *cases,
        tolerance=1e-6,
        mistakes=[
            (
                "the middle of your curve does not reach the height `middle`: the control points are at that height, "
                "and a curve goes only three quarters of the way toward the control points. Solve m = (c + 3k)/4 for "
                "k.",
                _mouth(control=lambda c, m: m),
            ),
            (
                "`corner` and `middle` are swapped in k. Solve m = (c + 3k)/4 for k, and insert your k again: the "
                "result must be m.",
                _mouth(control=lambda c, m: (4 * c - m) / 3),
            ),
            (
                "between the ends the four weights do not add up to 1: the two inner ones need a factor of 3.",
                _mouth(three=1.0),
            ),
            (
                "the control points are at the x of the corners. They are nearer to the middle, `reach` away from "
                "x = 0.5.",
                _mouth(reach=lambda half, own: half),
            ),
            (
                "the control points are swapped: P₁ is on the left, like P₀, and P₂ on the right.",
                _mouth(order=(0, 2, 1, 3)),
            ),
            ("the last point is not the right corner: t runs from 0 to 1, both included.", _mouth(endpoint=False)),
            ("x and y are swapped: each row is (x, y).", lambda *case: mouth_line(*case)[:, ::-1]),
            (
                "the curve runs from right to left: P₀ is the left corner, with the smaller x.",
                lambda *case: mouth_line(*case)[::-1],
            ),
        ],
    )


check_mouth_line = Exercise(
    "1.1",
    "mouth_line",
    "A mouth from four points",
    "implement",
    difficulty=2,
    minutes=15,
    points=2,
    purpose="Every part of the face is drawn like this: numbers move points, and a curve joins them.",
    reference=mouth_line,
    test=_test_mouth_line,
    hints=(
        "First the number k, from `corner` and `middle`; then the four points, an array (4, 2); then `t` as a "
        "column (count, 1), so that the formula gives all points at once.",
        "m = (c + 3k)/4, so 4m = c + 3k. With p (4, 2) and t (count, 1), `(1 - t) ** 3 * p[0]` is (count, 2), and "
        "there are four such terms.",
    ),
)

# --- 1.2 Expression --------------------------------------------------------------------------------------------------


def _values(vector: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(Expression.NAMES, vector)}


def _some_vectors(count: int) -> np.ndarray:
    """Random vectors, float32 (count, 21), all numbers in their ranges and different."""
    low = np.array([0.0] * 17 + [-1.0] * 4)
    return (low + np.random.default_rng(0).random((count, 21)) * (1 - low)).astype(np.float32)


def _test_to_vector(answer) -> None:
    for vector in _some_vectors(3):
        got = expression_vector(answer)(_values(vector))
        if (
            isinstance(got, np.ndarray)
            and got.shape == vector.shape
            and not difference(np.sort(got), np.sort(vector))
            and difference(got, vector)
        ):
            raise Wrong("`to_vector` has the right numbers in another order: the order is that of `NAMES`.")
        if problem := difference(got, vector):
            raise Wrong(f"`to_vector`: {problem}")
        if got.dtype != np.float32:
            raise Wrong(f"`to_vector` gives {got.dtype}: networks work in float32, so say `dtype=np.float32`.")


def _test_from_vector(answer) -> None:
    back = expression_from_vector(answer)
    for vector in _some_vectors(3):
        kind, got, _ = back(vector)
        if kind:
            raise Wrong(f"`from_vector` should return an `Expression`, and a {kind} came back.")
        if not difference(got, vector.clip(0, 1)):
            raise Wrong(
                "`from_vector` turns every negative number into 0. The last four, gaze and head, may be negative: "
                "each number has its own lowest value, in `LOWEST`."
            )
        if problem := difference(got, expression_vector(answer)(_values(vector))):
            raise Wrong(f"`from_vector` does not lead back to the same expression. As a vector, {problem}")
    outside = np.array([-0.3, 1.7] + [0.5] * 15 + [-0.4, -1.5, 2.0, 0.3])
    try:
        _, got, given = back(outside)
    except NotImplementedError:
        raise
    except Exception as error:
        raise Wrong(
            "`from_vector` raises an error for numbers outside their range, −0.3 and 1.7 for an action unit, which "
            "a network may predict: clip them to their range, `LOWEST` to 1, before you build the expression."
        ) from error
    if problem := difference(got, np.clip(outside, [0.0] * 17 + [-1.0] * 4, 1.0).astype(np.float32)):
        raise Wrong(f"`from_vector` was given numbers out of range, and {problem}")
    if difference(given, outside, 0.0):
        raise Wrong("`from_vector` changes its argument: clip into a new array.")
    for wrong in (np.zeros(1), np.zeros(20), np.zeros(22), np.zeros((1, 21))):  # NumPy broadcasts a single number
        try:
            back(wrong)
        except NotImplementedError:
            raise
        except Exception as error:
            kind = error.kind if isinstance(error, Failed) else type(error).__name__
            if kind == "ValueError":
                continue
            raise Wrong(
                f"`from_vector` raises {kind} for a vector of shape {wrong.shape}: check the shape "
                "first, and raise a ValueError that names it."
            ) from error
        raise Wrong(
            f"`from_vector` accepts a vector of shape {wrong.shape} and loses a part of it without an error (`zip` "
            "stops at the shorter one). Raise a ValueError."
        )


def _test_interpolate(answer) -> None:
    one, other = _some_vectors(2)
    for t in (0.0, 1.0, 0.25):
        kind, vector, left, right = expression_interpolate(answer)(_values(one), _values(other), t)
        if kind:
            raise Wrong(f"`interpolate` should return an `Expression`, and a {kind} came back.")
        if difference(left, one, 0.0) or difference(right, other, 0.0):
            raise Wrong("`interpolate` changes one of its two expressions: build a new one.")
        if not difference(vector, (t * one + (1 - t) * other).astype(np.float32), 1e-6):
            raise Wrong("`interpolate` runs the wrong way: t = 0 is this expression, t = 1 the other.")
        if problem := difference(vector, ((1 - t) * one + t * other).astype(np.float32), 1e-6):
            raise Wrong(f"`interpolate` at t = {t:g}, as a vector: {problem}")


def _test_expression(answer) -> None:
    if not is_class(answer):
        raise Wrong("`Expression` should be a class.")
    answer()  # raises NotImplementedError for an unfinished class
    done = []
    for name, test in (
        ("to_vector", _test_to_vector),
        ("from_vector", _test_from_vector),
        ("interpolate", _test_interpolate),
    ):
        try:
            test(answer)
        except NotImplementedError:
            if not done:
                raise
            finished = " and ".join(f"`{one}`" for one in done)
            verb = "is" if len(done) == 1 else "are"
            raise Wrong(f"{finished} {verb} right; `{name}` is not written yet.", len(done) / 3) from None
        except Wrong as wrong:
            raise Wrong(str(wrong), len(done) / 3) from None
        done.append(name)


check_Expression = Exercise(
    "1.2",
    "Expression",
    "To a vector, and back",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="The inputs and outputs of a network are numbers, and the conversion from them and back must lose nothing.",
    reference=Expression,
    test=_test_expression,
    hints=(
        "`getattr(self, name)` reads a value by its name. For the way back, pair `NAMES` with the numbers: "
        "`dict(zip(…))`, then `cls(**…)`.",
        "`from_vector`: first the shape, then `np.clip(vector, cls.LOWEST, 1.0)`. `interpolate`: a new expression "
        "whose every value is `(1 - t) * getattr(self, name) + t * getattr(other, name)`.",
    ),
)

# --- 1.3 added_pixels ------------------------------------------------------------------------------------------------


def _test_added_pixels(answer) -> None:
    check_choice(
        answer,
        "c",
        {
            "a": "nothing in the sum says that both units move the *same* brow. Each difference only shows which "
            "pixels became darker and which became lighter.",
            "b": "up and down cancel for movements of one point. Here one change darkens the pixels above the old "
            "brow, the other those below it: these are different pixels, so nothing cancels.",
            "d": "a sum has no order, and no term hides another: both changes are added in full.",
        },
    )


check_added_pixels = Exercise(
    "1.3",
    "added_pixels",
    "Add what you see?",
    "predict",
    difficulty=2,
    minutes=3,
    points=1,
    purpose="Adding causes is not adding pictures, and this is why a model is conditioned on the whole expression.",
    reference=lambda: "c",
    test=_test_added_pixels,
    hints=(
        "Think of one pixel above the old brow, and of one below it. How does each of the two changes affect it?",
        "The change of AU1 darkens where the raised brow lies, the change of AU4 where the lowered one lies. Does any "
        "term of the sum move either of them?",
    ),
)

# --- 1.4 tree_distance -----------------------------------------------------------------------------------------------


def _test_tree_distance(answer) -> None:
    table = emotions.table()
    rng = np.random.default_rng(0)
    pairs = [
        ("glee", "glee"),
        ("glee", "bliss"),
        ("glee", "pride"),
        ("glee", "terror"),
        ("sadness", "sadness"),
        ("sadness", "pity"),
        ("surprise", "amazement"),
        ("disgust", "anger"),
    ]
    pairs += [tuple(map(str, rng.choice(EMOTIONS, 2))) for _ in range(40)]

    def by(zero, group, family, else_, first="word"):
        def mistaken(a, b):
            one, two = table[a], table[b]
            if first == "family" and one.family == two.family:
                return family
            if one.word == two.word:
                return zero
            return group if one.group == two.group else family if one.family == two.family else else_

        return mistaken

    compare(
        answer,
        emotions.tree_distance,
        *pairs,
        mistakes=[
            ("the distance of a word to itself is 0: test this before you compare the groups.", by(1, 1, 2, 3)),
            (
                "for words of one group you return 2. They share a family too, so test the group first.",
                by(2, 2, 2, 3, first="family"),
            ),
            (
                "that counts the levels on the way up and down. Count only those up to the first branch that "
                "contains both words.",
                by(0, 2, 4, 6),
            ),
            (
                "that counts the levels that the two words share. The distance is small for similar words.",
                by(3, 2, 1, 0),
            ),
            (
                "the group is not used: words of one group are nearer to each other than to the rest of the family.",
                by(0, 2, 2, 3),
            ),
            (
                "for words of different families that is one too few: the root contains all words and is three "
                "levels above them.",
                by(0, 1, 2, 2),
            ),
        ],
    )


check_tree_distance = Exercise(
    "1.4",
    "tree_distance",
    "How wrong is a wrong word?",
    "implement",
    difficulty=1,
    minutes=10,
    points=1,
    purpose="Taking *glee* for *bliss* is a smaller mistake than taking it for *terror*; the evaluation of the "
    "course uses this distance.",
    reference=emotions.tree_distance,
    test=_test_tree_distance,
    hints=(
        "Four cases, from the nearest to the farthest: the same word, the same group, the same family, none of these.",
        "`one, two = emotions.table()[first], emotions.table()[second]`; then test `one.group == two.group` before "
        "the families.",
    ),
)

# --- 1.5 blend_hues --------------------------------------------------------------------------------------------------


def blend_hues(a: float, b: float, t: float) -> float:
    """The hue between a (t = 0) and b (t = 1), along the shorter arc."""
    return Hue().blend(a, b, t)


def _test_blend_hues(answer) -> None:
    cases = [
        (0.2, 0.5, 0.4),
        (0.95, 0.1, 0.5),
        (0.95, 0.1, 0.2),
        (0.1, 0.95, 0.25),
        (0.98, 0.03, 0.3),
        (0.03, 0.98, 0.9),
        (0.7, 0.3, 0.25),
        (0.9, 0.35, 0.0),
        (0.9, 0.35, 1.0),
        (0.9, 0.35, 0.6),
    ]

    def by_chord(a, b, t):
        x, y = ((1 - t) * turn(2 * math.pi * a) + t * turn(2 * math.pi * b) for turn in (math.cos, math.sin))
        return math.atan2(y, x) / (2 * math.pi) % 1.0

    def short(a, b):
        return (b - a + 0.5) % 1.0 - 0.5

    compare(
        answer,
        blend_hues,
        *cases,
        tolerance=1e-6,
        mistakes=[
            (
                "from 0.95 to 0.1 this still goes through the whole rainbow. Take the shorter of the two arcs.",
                lambda a, b, t: (1 - t) * a + t * b,
            ),
            (
                "the arc is right, but some hues are below 0 or not below 1: map them to the circle with `% 1.0`.",
                lambda a, b, t: a + t * short(a, b),
            ),
            (
                "this always goes upward, which is the longer arc from 0.5 to 0.2. The step from a to b is between "
                "−0.5 and 0.5.",
                lambda a, b, t: (a + t * ((b - a) % 1.0)) % 1.0,
            ),
            (
                "this takes the longer arc.",
                lambda a, b, t: (a + t * (short(a, b) - math.copysign(1.0, short(a, b)))) % 1.0,
            ),
            (
                "the ends and the middle are right, but between them the hue does not change evenly: you blend the "
                "points on the circle along a straight line. Blend the angles.",
                by_chord,
            ),
            ("t = 0 and t = 1 are swapped.", lambda a, b, t: blend_hues(b, a, t)),
        ],
    )


check_blend_hues = Exercise(
    "1.5",
    "blend_hues",
    "Red is next to red",
    "repair",
    difficulty=3,
    minutes=10,
    points=2,
    purpose="Some numbers live on a circle (hues, angles, hours), and an average that does not know it is wrong "
    "without any error.",
    reference=blend_hues,
    test=_test_blend_hues,
    hints=(
        "First compute the signed step from a to b: from 0.95 to 0.1 it is +0.15. Then go the fraction t of it.",
        "`(b - a + 0.5) % 1.0 - 0.5` is the shorter step, between −0.5 and 0.5. The result may be outside [0, 1).",
    ),
)

# --- 1.6 pair --------------------------------------------------------------------------------------------------------


def pair(seed: int) -> tuple[Avatar, Avatar, str]:
    """The reference, the target and the target's word: one person, two expressions, two appearances."""
    rng = np.random.default_rng(seed)
    first, second = rng.choice(EMOTIONS, 2, replace=False)
    person = Identity.sample(FIRST + seed)
    reference = Avatar(person, Expression.named(str(first)), Appearance.sample(FIRST + 2 * seed))
    target = Avatar(person, Expression.named(str(second)), Appearance.sample(FIRST + 2 * seed + 1))
    return reference, target, str(second)


def _test_pair(answer) -> None:
    pairs = []
    for seed in range(500):  # two independent words are equal once in 135 times
        got = answer(seed)
        if not isinstance(got, tuple) or len(got) != 3 or not all(isinstance(one, Avatar) for one in got[:2]):
            raise Wrong(
                "return three values: the reference and the target, both an `Avatar`, and the word of the target."
            )
        pairs.append(got)
    looks = [(reference.appearance, target.appearance) for reference, target, _ in pairs]
    if any(reference.identity != target.identity for reference, target, _ in pairs):
        raise Wrong(
            "the reference and the target are two people. The reference has to show the person whom the model should "
            "generate."
        )
    if any(reference.identity != Identity.sample(FIRST + seed) for seed, (reference, _, _) in enumerate(pairs)):
        raise Wrong(
            "the person of a pair is `Identity.sample(FIRST + seed)`: a different one for each seed, none of the "
            "training split."
        )
    if any(one == other for one, other in looks):
        raise Wrong(
            "the two pictures have the same clothes and background: the appearance of the target can be copied "
            "from the reference. Each picture needs its own seed for the appearance."
        )
    if min(len(set(side)) for side in zip(*looks)) < 400:
        raise Wrong(
            "the two appearances differ, but those of the references or of the targets are the same in many pairs: "
            "both seeds must depend on `seed`, or the model memorises a few appearances."
        )
    for seed, (reference, target, _) in enumerate(pairs):
        if reference.expression == target.expression:
            raise Wrong(
                f"with seed {seed} both pictures show the same expression, so copying is the correct answer. Two "
                "independent words are equal once in 135 times: draw two different ones."
            )
    for reference, target, word in pairs:
        if word not in EMOTIONS:
            raise Wrong(f"the third value should be one of the 135 words; {word!r} came back.")
        if target.expression != Expression.named(word):
            if reference.expression == Expression.named(word):
                raise Wrong(
                    "the word is the one that the *reference* shows. It is the conditioning of the model, so it "
                    "must be the target's."
                )
            raise Wrong(f"the target does not show the word that was returned, {word!r}.")
    if len({word for *_, word in pairs}) < 100 or len({reference.expression for reference, *_ in pairs}) < 100:
        raise Wrong("only few of the 135 words occur: draw both for each seed.")
    again = [answer(seed) for seed in range(3)]
    if again != pairs[:3]:
        raise Wrong("the same seed gave two different pairs: draw from `np.random.default_rng(seed)`.")


check_pair = Exercise(
    "1.6",
    "pair",
    "Pairs that leak",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Faults in the training pairs raise no error and lower the loss; only the generated faces show them, "
    "weeks later.",
    reference=pair,
    test=_test_pair,
    hints=(
        "For each of the three groups of factors, decide whether the reference may determine its value in the target. "
        "Then decide which of the two pictures the word describes.",
        "`Appearance.sample` gets the same seed twice; `rng.choice(EMOTIONS, 2)` may draw one word twice, and "
        "`replace=False` forbids it; and the word that is returned is the first.",
    ),
)

# --- 1.7 copying_cost ------------------------------------------------------------------------------------------------


def _test_copying_cost(answer) -> None:
    check_number(
        answer,
        0.027,
        within=0.011,
        wrong=[
            (
                0.0,
                "that is almost 0, which is right only if the target *is* the reference. Here the expression differs.",
            ),
            (0.188, "that is the bar of the appearance, which is the same in these pairs."),
            (0.113, "that is the bar of the identity, but it is the same person."),
            (
                0.21,
                "that is the change of expression and appearance together. In these pairs the appearance is the same.",
            ),
            (0.14, "that adds the bar of the identity, but it is the same person."),
            (2.7, "that is a percentage, and the axis runs from 0 to 1."),
        ],
    )


check_copying_cost = Exercise(
    "1.7",
    "copying_cost",
    "What does copying cost?",
    "read",
    difficulty=1,
    minutes=3,
    points=1,
    purpose="An error only says something beside the error of a model that has learnt nothing.",
    reference=lambda: 0.027,
    test=_test_copying_cost,
    hints=(
        "Which factors differ between the reference and the target of such a pair? The bars in section 8 show how "
        "much each of them changes the picture.",
        "Only the expression differs. Its bar is the shortest.",
    ),
)
