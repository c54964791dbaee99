"""The exercises of notebook 01: a face from numbers, words in a tree, and pairs that teach."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity, emotions
from gen_affect_lib.avatars.factors import Hue
from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare, difference

FIRST = 1_000_000  # as in the notebook: the first identity of the validation split

# --- 1.1 mouth_line --------------------------------------------------------------------------------------------------


def mouth_line(
    au12: float = 0.0, au15: float = 0.0, au20: float = 0.0, resting: float = 0.097, count: int = 60
) -> np.ndarray:
    """Points (count, 2) of the line of a closed mouth, in the face's own frame."""
    return _mouth()(au12, au15, au20, resting, count)


def _mouth(
    control: Callable = lambda c, m: (4 * m - c) / 3,
    reach: Callable = lambda half, own: own,
    three: float = 3.0,
    order: tuple = (0, 1, 2, 3),
    endpoint: bool = True,
) -> Callable:
    """The right function, or one with a mistake in it."""

    def line(au12=0.0, au15=0.0, au20=0.0, resting=0.097, count=60):
        half = resting * (1 + 0.34 * au12 + 0.40 * au20)
        corner = 0.69 - 0.048 * au12 + 0.046 * au15 + 0.006 * au20
        middle = 0.695 + 0.016 * au12 - 0.026 * au15
        across, height = reach(half, half * (0.50 + 0.16 * au20)), control(corner, middle)
        p = np.array([(0.5 - half, corner), (0.5 - across, height), (0.5 + across, height), (0.5 + half, corner)])[
            list(order)
        ]
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
                "the middle of your curve does not reach the height `middle`: the control points were put there, and a curve goes only "
                "three quarters of the way toward them. Solve m = (c + 3k)/4 for k.",
                _mouth(control=lambda c, m: m),
            ),
            (
                "`corner` and `middle` have changed places in k. Solve m = (c + 3k)/4 for k, "
                "and put your k in again: the middle must come out.",
                _mouth(control=lambda c, m: (4 * c - m) / 3),
            ),
            ("the four weights do not add up to 1 in between: both inner ones have a factor of 3.", _mouth(three=1.0)),
            (
                "the control points stand below the corners. They stand nearer to the middle, `reach` away from x = 0.5.",
                _mouth(reach=lambda half, own: half),
            ),
            (
                "the control points have changed sides: P₁ belongs to the left half, as P₀ does, and P₂ to the right.",
                _mouth(order=(0, 2, 1, 3)),
            ),
            ("the last point is not the right corner: t must run from 0 to 1 with both ends.", _mouth(endpoint=False)),
            ("x and y have changed places: each row is (x, y).", lambda *case: mouth_line(*case)[:, ::-1]),
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
        "First the number k, from `corner` and `middle`; then the four points, an array (4, 2); then `t` as a column (count, 1), "
        "so that the formula gives all points at once.",
        "m = (c + 3k)/4, so 4m = c + 3k. With p (4, 2) and t (count, 1), `(1 - t) ** 3 * p[0]` is (count, 2), and there are four such terms.",
    ),
)

# --- 1.2 Expression --------------------------------------------------------------------------------------------------


def _of(kind: type, vector: np.ndarray):
    return kind(**{name: float(value) for name, value in zip(Expression.NAMES, vector)})


def _some_vectors(count: int) -> np.ndarray:
    """float32 (count, 21), all in range, and no number like another."""
    low = np.array([0.0] * 17 + [-1.0] * 4)
    return (low + np.random.default_rng(0).random((count, 21)) * (1 - low)).astype(np.float32)


def _test_to_vector(answer) -> None:
    for vector in _some_vectors(3):
        got = _of(answer, vector).to_vector()
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
    def back(vector):
        return answer.from_vector(vector)

    for vector in _some_vectors(3):
        got = back(vector)
        if not isinstance(got, answer):
            raise Wrong(f"`from_vector` should return an `Expression`, and a {type(got).__name__} came back.")
        if not difference(got.to_vector(), vector.clip(0, 1)):
            raise Wrong(
                "`from_vector` turns every negative number into 0. The last four, gaze and head, may be negative: each number "
                "has its own lowest value, in `LOWEST`."
            )
        if problem := difference(got.to_vector(), _of(answer, vector).to_vector()):
            raise Wrong(f"`from_vector` does not lead back to the same expression. As a vector, {problem}")
    outside = np.array([-0.3, 1.7] + [0.5] * 15 + [-0.4, -1.5, 2.0, 0.3])
    given = outside.copy()
    try:
        got = back(given).to_vector()
    except NotImplementedError:
        raise
    except Exception as error:
        raise Wrong(
            "`from_vector` refuses the numbers of a network that overshoots, −0.3 and 1.7 for an action unit: clip them to "
            "their range, `LOWEST` to 1, before you build the expression."
        ) from error
    if problem := difference(got, np.clip(outside, [0.0] * 17 + [-1.0] * 4, 1.0).astype(np.float32)):
        raise Wrong(f"`from_vector` was given numbers out of range, and {problem}")
    if not np.array_equal(given, outside):
        raise Wrong("`from_vector` changes the vector that it is given: clip into a new array.")
    for wrong in (
        np.zeros(1),
        np.zeros(20),
        np.zeros(22),
        np.zeros((1, 21)),
    ):  # NumPy repeats a single number in silence
        try:
            back(wrong)
        except NotImplementedError:
            raise
        except ValueError:
            continue
        except Exception as error:
            raise Wrong(
                f"`from_vector` stops with {type(error).__name__} for a vector of shape {wrong.shape}: look at the shape first, "
                "and raise a ValueError that names it."
            ) from error
        raise Wrong(
            f"`from_vector` accepts a vector of shape {wrong.shape}, of which a part is lost in silence (`zip` stops at the "
            "shorter one). Raise a ValueError."
        )


def _test_interpolate(answer) -> None:
    one, other = _some_vectors(2)
    for t in (0.0, 1.0, 0.25):
        left, right = _of(answer, one), _of(answer, other)
        got = left.interpolate(right, t)
        if not isinstance(got, answer):
            raise Wrong(f"`interpolate` should return an `Expression`, and a {type(got).__name__} came back.")
        if not np.array_equal(left.to_vector(), one) or not np.array_equal(right.to_vector(), other):
            raise Wrong("`interpolate` changes one of the two expressions that it mixes: build a new one.")
        vector = got.to_vector()
        if not difference(vector, (t * one + (1 - t) * other).astype(np.float32), 1e-6):
            raise Wrong("`interpolate` runs the wrong way: t = 0 is this expression, t = 1 the other.")
        if problem := difference(vector, ((1 - t) * one + t * other).astype(np.float32), 1e-6):
            raise Wrong(f"`interpolate` at t = {t:g}, as a vector: {problem}")


def _test_expression(answer) -> None:
    if not isinstance(answer, type):
        raise Wrong("`Expression` should be a class.")
    answer()  # unfinished as a whole, or an error of its own
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
            raise Wrong(
                f"{' and '.join(f'`{one}`' for one in done)} {'is' if len(done) == 1 else 'are'} right; `{name}` is still to be written."
            ) from None
        done.append(name)


check_Expression = Exercise(
    "1.2",
    "Expression",
    "To a vector, and back",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="What a network is told, and what it says, has to be turned into numbers and back without losing anything.",
    reference=Expression,
    test=_test_expression,
    hints=(
        "`getattr(self, name)` reads a value by its name. For the way back, pair `NAMES` with the numbers: `dict(zip(…))`, then `cls(**…)`.",
        "`from_vector`: first the shape, then `np.clip(vector, cls.LOWEST, 1.0)`. `interpolate`: a new expression whose every value is "
        "`(1 - t) * getattr(self, name) + t * getattr(other, name)`.",
    ),
)

# --- 1.3 added_pixels ------------------------------------------------------------------------------------------------


def _test_added_pixels(answer) -> None:
    check_choice(
        answer,
        "c",
        {
            "a": "for that the sum would have to know that both units move the *same* brow. Pixels know of no brow: each change "
            "only says where dark came and where it went.",
            "b": "up and down would cancel if they were movements of one point. Here one change darkens the pixels above the old brow, the "
            "other those below it: different pixels, so nothing cancels.",
            "d": "a sum has no order, and nothing in it hides anything else: both changes are there in full.",
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
    purpose="The difference between adding causes and adding pictures is why a model must be told the whole expression at once.",
    reference=lambda: "c",
    test=_test_added_pixels,
    hints=(
        "Think of one pixel above the old brow, and of one below it. What does each of the two changes do to it?",
        "The change of AU1 darkens where the raised brow lies, the change of AU4 where the lowered one lies. Is there anything in the "
        "sum that would move either of them?",
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
            ("a word and itself are 0 apart: ask for that before you compare the groups.", by(1, 1, 2, 3)),
            (
                "words of one group are said to be 2 apart. They share a family too, so ask for the group first.",
                by(2, 2, 2, 3, first="family"),
            ),
            (
                "that counts the way up and the way down again. Count only the levels that you climb until one branch holds both.",
                by(0, 2, 4, 6),
            ),
            ("that counts what the two words share. The distance is small for what is near.", by(3, 2, 1, 0)),
            (
                "the group is not looked at: words of one group are nearer to each other than to the rest of the family.",
                by(0, 2, 2, 3),
            ),
            (
                "that is one too few beyond the family: the root holds all words, and lies three levels above them.",
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
    purpose="Taking *glee* for *bliss* is a smaller mistake than taking it for *terror*; the evaluation of the course counts with this.",
    reference=emotions.tree_distance,
    test=_test_tree_distance,
    hints=(
        "Four cases, from the nearest to the farthest: the same word, the same group, the same family, none of these.",
        "`one, two = emotions.table()[first], emotions.table()[second]`; then ask for `one.group == two.group` before you ask for the families.",
    ),
)

# --- 1.5 blend_hues --------------------------------------------------------------------------------------------------


def blend_hues(a: float, b: float, t: float) -> float:
    """The hue on the way from a (t = 0) to b (t = 1), the short way round."""
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
                "from 0.95 to 0.1 this still goes through the whole rainbow. Of the two ways round the circle take the shorter.",
                lambda a, b, t: (1 - t) * a + t * b,
            ),
            (
                "the way is right, but some hues are below 0 or not below 1: bring them back to the circle with `% 1.0`.",
                lambda a, b, t: a + t * short(a, b),
            ),
            (
                "this always goes upward round the circle, which is the long way from 0.5 to 0.2. The step from a to b lies between −0.5 and 0.5.",
                lambda a, b, t: (a + t * ((b - a) % 1.0)) % 1.0,
            ),
            (
                "this takes the longer way round.",
                lambda a, b, t: (a + t * (short(a, b) - math.copysign(1.0, short(a, b)))) % 1.0,
            ),
            (
                "the ends and the middle are right, but between them the colour does not change evenly: the points on the circle were mixed, "
                "along a straight line through it. Mix the angles.",
                by_chord,
            ),
            ("t = 0 and t = 1 have changed places.", lambda a, b, t: blend_hues(b, a, t)),
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
    purpose="Some numbers live on a circle (hues, angles, hours), and an average that does not know it is wrong without any error.",
    reference=blend_hues,
    test=_test_blend_hues,
    hints=(
        "Say first how far it is from a to b, with a sign: from 0.95 to 0.1 it is +0.15. Then go the part t of it.",
        "`(b - a + 0.5) % 1.0 - 0.5` is the short step, between −0.5 and 0.5. What comes out in the end may have left the circle.",
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
    for seed in range(500):  # two words that are drawn one by one are the same once in 135 times
        got = answer(seed)
        if not isinstance(got, tuple) or len(got) != 3 or not all(isinstance(one, Avatar) for one in got[:2]):
            raise Wrong(
                "return three things: the reference and the target, both an `Avatar`, and the word of the target."
            )
        pairs.append(got)
    looks = [(reference.appearance, target.appearance) for reference, target, _ in pairs]
    if any(reference.identity != target.identity for reference, target, _ in pairs):
        raise Wrong(
            "the reference and the target are two people. What should the model learn from the reference, if not who it is?"
        )
    if any(reference.identity != Identity.sample(FIRST + seed) for seed, (reference, _, _) in enumerate(pairs)):
        raise Wrong(
            "the person of a pair should be `Identity.sample(FIRST + seed)`: another for each seed, and none from the training split."
        )
    if any(one == other for one, other in looks):
        raise Wrong(
            "the two pictures wear the same clothes, before the same background: the target's appearance can be copied from the "
            "reference. Each picture needs a seed of its own for its appearance."
        )
    if min(len(set(side)) for side in zip(*looks)) < 400:
        raise Wrong(
            "the two appearances differ, but the references' or the targets' are the same for many pairs: both seeds should depend "
            "on `seed`, or the model learns two shirts by heart."
        )
    for seed, (reference, target, word) in enumerate(pairs):
        if reference.expression == target.expression:
            raise Wrong(
                f"with the seed {seed} both pictures show the same expression, so that copying is right again. It happens once in "
                "135 times if the words are drawn one by one: draw two that differ."
            )
    for reference, target, word in pairs:
        if word not in EMOTIONS:
            raise Wrong(f"the third thing should be one of the 135 words; {word!r} came back.")
        if target.expression != Expression.named(word):
            if reference.expression == Expression.named(word):
                raise Wrong(
                    "the word tells what the *reference* shows. It is what the model is asked to draw, so it must be the target's."
                )
            raise Wrong(f"the target does not show the word that was returned, {word!r}.")
    if len({word for *_, word in pairs}) < 100 or len({reference.expression for reference, *_ in pairs}) < 100:
        raise Wrong("of 135 words hardly any come up: draw both anew for each seed.")
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
    purpose="Faults in the training pairs raise no error and lower the loss; only the generated faces show them, weeks later.",
    reference=pair,
    test=_test_pair,
    hints=(
        "Ask of each of the three factors whether the target's may be known from the reference. Then ask what the word belongs to.",
        "`Appearance.sample` gets the same seed twice; `rng.choice(EMOTIONS, 2)` may draw one word twice, and `replace=False` forbids it; "
        "and the word that is returned is the first.",
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
                "that is nothing, or nearly, which is right only where the target *is* the reference. Here the face does something else.",
            ),
            (0.188, "that is the bar of the appearance, which stays the same in these pairs."),
            (0.113, "that is the bar of the identity, but it is the same person."),
            (
                0.21,
                "that is what the expression and the appearance change together. In these pairs the appearance stays.",
            ),
            (0.14, "that adds the bar of the identity, but it is the same person."),
            (2.7, "that is a percentage. The axis runs from 0 to 1."),
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
        "Which factors differ between the reference and the target of such a pair? The bars in section 8 say what each changes.",
        "Only the expression differs. Its bar is the shortest.",
    ),
)
