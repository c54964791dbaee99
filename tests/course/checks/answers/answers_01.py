"""Answers to the exercises of notebook 01, as students write them."""

import colorsys
import random

import numpy as np

from gen_affect_lib.avatars import ACTION_UNITS, EMOTIONS, Appearance, Avatar, Identity, emotions
from gen_affect_lib.avatars import Expression as Library
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from tests.course.checks.answers import Answers

FIRST = VALIDATION_SEED

# --- mouth_line ---


def lip_numbers(au12, au15, au20, resting):
    half = resting * (1 + 0.34 * au12 + 0.40 * au20)
    corner = 0.69 - 0.048 * au12 + 0.046 * au15 + 0.006 * au20
    middle = 0.695 + 0.016 * au12 - 0.026 * au15
    return half, corner, middle, half * (0.50 + 0.16 * au20)


def de_casteljau(au12=0.0, au15=0.0, au20=0.0, resting=0.097, count=60):
    half, corner, middle, reach = lip_numbers(au12, au15, au20, resting)
    k = corner + (middle - corner) * 4 / 3
    corners = [(0.5 - half, corner), (0.5 - reach, k), (0.5 + reach, k), (0.5 + half, corner)]
    curve = []
    for t in np.linspace(0, 1, count):
        points = [np.array(one) for one in corners]
        while len(points) > 1:
            points = [(1 - t) * a + t * b for a, b in zip(points, points[1:])]
        curve.append(points[0])
    return np.array(curve)


def by_weights(au12=0.0, au15=0.0, au20=0.0, resting=0.097, count=60, k=None, factors=(1, 3, 3, 1)):
    half, corner, middle, reach = lip_numbers(au12, au15, au20, resting)
    k = (4 * middle - corner) / 3 if k is None else k(corner, middle)
    t = np.arange(count) / (count - 1)
    weights = np.stack([n * (1 - t) ** (3 - i) * t**i for i, n in enumerate(factors)])  # (4, count)
    x = weights.T @ np.array([0.5 - half, 0.5 - reach, 0.5 + reach, 0.5 + half])
    y = weights.T @ np.array([corner, k, k, corner])
    return np.column_stack([x, y])


def control_at_the_middle(*case):
    return by_weights(*case, k=lambda corner, middle: middle)


def no_threes(*case):
    return by_weights(*case, factors=(1, 1, 1, 1))


def the_other_way_round(*case):
    return by_weights(*case, k=lambda corner, middle: (4 * corner - middle) / 3)


def reaching_the_corners(au12=0.0, au15=0.0, au20=0.0, resting=0.097, count=60):
    half, corner, middle, _ = lip_numbers(au12, au15, au20, resting)
    t, k = np.linspace(0, 1, count), (4 * middle - corner) / 3
    left, right = (1 - t) ** 3 + 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2 + t**3
    y = ((1 - t) ** 3 + t**3) * corner + 3 * (1 - t) * t * k
    return np.stack([left * (0.5 - half) + right * (0.5 + half), y], axis=1)


def as_two_rows(*case):
    return by_weights(*case).T


def without_the_end(au12=0.0, au15=0.0, au20=0.0, resting=0.097, count=60):
    return by_weights(au12, au15, au20, resting, count + 1)[:-1]


# --- Expression ---


class Given:
    """What stands in the notebook before anything is written."""

    NAMES = tuple(f"au{unit}" for unit in ACTION_UNITS) + ("gaze_x", "gaze_y", "head_yaw", "head_pitch")
    VECTOR_SIZE = len(NAMES)
    LOWEST = np.array([0.0] * len(ACTION_UNITS) + [-1.0] * 4)

    def __init__(self, **values):
        for name, low in zip(self.NAMES, self.LOWEST):
            value = values.pop(name, 0.0)
            if not low <= value <= 1:
                raise ValueError(f"{name} is {value}: give a number from {low:g} to 1")
            setattr(self, name, float(value))
        if values:
            raise ValueError(f"{', '.join(values)} is no part of an expression")

    def to_vector(self):
        raise NotImplementedError

    @classmethod
    def from_vector(cls, vector):
        raise NotImplementedError

    def interpolate(self, other, t):
        raise NotImplementedError


class ByVectors(Given):
    def to_vector(self):
        return np.float32([vars(self)[name] for name in self.NAMES])

    @classmethod
    def from_vector(cls, vector):
        if np.shape(vector) != (21,):
            raise ValueError(np.shape(vector))
        return cls(**{name: min(max(float(x), low), 1.0) for name, x, low in zip(cls.NAMES, vector, cls.LOWEST)})

    def interpolate(self, other, t):
        return self.from_vector((1 - t) * self.to_vector() + t * other.to_vector())


class ByLoops(Given):
    def to_vector(self):
        vector = np.zeros(len(self.NAMES), np.float32)
        for k, name in enumerate(self.NAMES):
            vector[k] = getattr(self, name)
        return vector

    @classmethod
    def from_vector(cls, vector):
        vector = np.array(vector)
        if vector.ndim != 1 or len(vector) != cls.VECTOR_SIZE:
            raise ValueError("21 numbers, please")
        vector = np.minimum(np.maximum(vector, cls.LOWEST), 1)
        made = cls()
        for name, value in zip(cls.NAMES, vector):
            setattr(made, name, float(value))
        return made

    def interpolate(self, other, t):
        between = {}
        for name in self.NAMES:
            a, b = getattr(self, name), getattr(other, name)
            between[name] = a + t * (b - a)
        return self.__class__(**between)


class InDoublePrecision(ByVectors):
    def to_vector(self):
        return np.array([getattr(self, name) for name in self.NAMES])


class AsAList(ByVectors):
    def to_vector(self):
        return [getattr(self, name) for name in self.NAMES]


class Alphabetical(ByVectors):
    def to_vector(self):
        return np.float32([value for _, value in sorted(vars(self).items())])


class Unclipped(ByVectors):
    @classmethod
    def from_vector(cls, vector):
        assert len(vector) == 21
        return cls(**dict(zip(cls.NAMES, vector)))


class NeverNegative(ByVectors):
    @classmethod
    def from_vector(cls, vector):
        if np.shape(vector) != (21,):
            raise ValueError(np.shape(vector))
        return cls(**dict(zip(cls.NAMES, np.clip(vector, 0, 1))))


class AnyLength(ByVectors):
    @classmethod
    def from_vector(cls, vector):
        vector = [max(low, min(1.0, float(x))) for low, x in zip(cls.LOWEST, np.ravel(vector))]
        return cls(**dict(zip(cls.NAMES, vector)))


class InPlace(ByVectors):
    @classmethod
    def from_vector(cls, vector):
        if np.shape(vector) != (21,):
            raise ValueError(np.shape(vector))
        np.clip(vector, cls.LOWEST, 1, out=vector)
        return cls(**dict(zip(cls.NAMES, vector)))


class Backward(ByVectors):
    def interpolate(self, other, t):
        return self.from_vector(t * self.to_vector() + (1 - t) * other.to_vector())


class MixesIntoItself(ByVectors):
    def interpolate(self, other, t):
        for name in self.NAMES:
            setattr(self, name, (1 - t) * getattr(self, name) + t * getattr(other, name))
        return self


class MixesToAVector(ByVectors):
    def interpolate(self, other, t):
        return (1 - t) * self.to_vector() + t * other.to_vector()


class OnlyTheFirst(Given):
    to_vector = ByLoops.to_vector


# --- tree_distance ---


def by_counting_levels(first, second):
    one, two = emotions.table()[first], emotions.table()[second]
    return 3 - sum((one.family == two.family, one.group == two.group, first == second))


def by_paths(first, second):
    def path(word):
        return [word, ("group", emotions.table()[word].group), ("family", emotions.table()[word].family), "root"]

    return next(climbed for climbed, (a, b) in enumerate(zip(path(first), path(second))) if a == b)


def not_itself(first, second):
    return max(1, by_paths(first, second))


def family_first(first, second):
    one, two = emotions.table()[first], emotions.table()[second]
    if one.family == two.family:
        return 2
    elif one.group == two.group:
        return 1
    return 0 if first == second else 3


def up_and_down(first, second):
    return 2 * by_paths(first, second)


def likeness(first, second):
    return 3 - by_paths(first, second)


def stops_at_two(first, second):
    return min(by_paths(first, second), 2)


# --- blend_hues ---


def shifted_by_a_turn(a, b, t):
    if b - a > 0.5:
        a += 1
    elif a - b > 0.5:
        b += 1
    return ((1 - t) * a + t * b) % 1


def by_three_tries(a, b, t):
    nearest = min((b - 1, b, b + 1), key=lambda place: abs(place - a))
    hue = a + t * (nearest - a)
    return hue - np.floor(hue)


def straight(a, b, t):
    return a + (b - a) * t


def leaves_the_circle(a, b, t):
    nearest = min((b - 1, b, b + 1), key=lambda place: abs(place - a))
    return a + t * (nearest - a)


def always_upward(a, b, t):
    if b < a:
        b += 1
    return ((1 - t) * a + t * b) % 1


def through_the_circle(a, b, t):
    z = (1 - t) * np.exp(2j * np.pi * a) + t * np.exp(2j * np.pi * b)
    return np.angle(z) / (2 * np.pi) % 1


def through_rgb(a, b, t):
    mixed = [(1 - t) * x + t * y for x, y in zip(colorsys.hsv_to_rgb(a, 1, 1), colorsys.hsv_to_rgb(b, 1, 1))]
    return colorsys.rgb_to_hsv(*mixed)[0]


def ends_swapped(a, b, t):
    return shifted_by_a_turn(b, a, t)


# --- pair ---


def by_random(seed):
    rng = random.Random(seed)
    one, other = rng.sample(EMOTIONS, 2)
    person = Identity.sample(FIRST + seed)
    looks = rng.sample(range(10**6), 2)
    return (
        Avatar(person, Library.named(one), Appearance.sample(looks[0])),
        Avatar(person, Library.named(other), Appearance.sample(looks[1])),
        other,
    )


def made(seed, people=(0, 0), looks=None, replace=False, told=1, fixed=False):
    rng = np.random.default_rng(seed)
    words = [str(word) for word in rng.choice(EMOTIONS, 2, replace=replace)]
    if fixed:
        words = ["joy", "anger"]
    looks = looks(seed) if looks else (FIRST + seed, FIRST + 600 + seed)
    return (
        *(
            Avatar(Identity.sample(FIRST + seed + who), Library.named(word), Appearance.sample(look))
            for who, word, look in zip(people, words, looks)
        ),
        words[told],
    )


def until_they_differ(seed):
    rng = np.random.default_rng([seed, 5])
    first = second = rng.integers(135)
    while second == first:
        second = rng.integers(135)
    person = Identity.sample(seed + FIRST)
    reference = Avatar(person, Library.named(EMOTIONS[first]), Appearance.sample(2 * seed))
    return reference, Avatar(person, Library.named(EMOTIONS[second]), Appearance.sample(2 * seed + 1)), EMOTIONS[second]


def same_clothes(seed):
    return made(seed, looks=lambda seed: (FIRST + seed,) * 2)


def two_shirts(seed):
    return made(seed, looks=lambda seed: (FIRST, FIRST + 1))


def drawn_one_by_one(seed):
    return made(seed, replace=True)


def tells_the_reference(seed):
    return made(seed, told=0)


def two_people(seed):
    return made(seed, people=(0, 1))


def training_people(seed):
    return made(seed, people=(-FIRST, -FIRST))


def always_joy(seed):
    return made(seed, fixed=True)


def without_a_seed(seed):
    reference, target, word = made(seed)
    return reference, Avatar(target.identity, target.expression, Appearance.sample(random.randrange(10**9))), word


ANSWERS = {
    "mouth_line": Answers(
        right=[de_casteljau, by_weights],
        wrong=[
            (control_at_the_middle, "three quarters of the way"),
            (no_threes, "do not add up to 1"),
            (the_other_way_round, "are swapped in k"),
            (reaching_the_corners, "at the x of the corners"),
            (as_two_rows, "the shape is (2, 60)"),
            (without_the_end, "is not the right corner"),
        ],
    ),
    "Expression": Answers(
        right=[ByVectors, ByLoops],
        wrong=[
            (InDoublePrecision, "float64"),
            (AsAList, "a list"),
            (Alphabetical, "in another order"),
            (Unclipped, "which a network may predict"),
            (NeverNegative, "may be negative"),
            (AnyLength, "without an error"),
            (InPlace, "clip into a new array"),
            (Backward, "the wrong way"),
            (MixesIntoItself, "build a new one"),
            (MixesToAVector, "a ndarray came back"),
            (OnlyTheFirst, "not written yet"),
            (by_random, "should be a class"),
        ],
    ),
    "added_pixels": Answers(
        right=[lambda: "c", lambda: "C "],
        wrong=[
            (lambda: "a", "nothing in the sum says"),
            (lambda: "b", "nothing cancels"),
            (lambda: "d", "no order"),
            (lambda: 3, "return one of"),
        ],
    ),
    "tree_distance": Answers(
        right=[by_counting_levels, by_paths],
        wrong=[
            (not_itself, "of a word to itself"),
            (family_first, "test the group first"),
            (up_and_down, "on the way up and down"),
            (likeness, "that the two words share"),
            (stops_at_two, "one too few"),
        ],
    ),
    "blend_hues": Answers(
        right=[shifted_by_a_turn, by_three_tries],
        wrong=[
            (straight, "the whole rainbow"),
            (leaves_the_circle, "below 0 or not below 1"),
            (always_upward, "always goes upward"),
            (through_the_circle, "does not change evenly"),
            (through_rgb, "should be"),
            (ends_swapped, "are swapped"),
        ],
    ),
    "pair": Answers(
        right=[by_random, until_they_differ],
        wrong=[
            (same_clothes, "the same clothes"),
            (two_shirts, "memorises"),
            (drawn_one_by_one, "once in 135"),
            (tells_the_reference, "that the *reference* shows"),
            (two_people, "are two people"),
            (training_people, "training split"),
            (always_joy, "only few of the 135"),
            (without_a_seed, "two different pairs"),
        ],
    ),
    "copying_cost": Answers(
        right=[lambda: 0.03, lambda: 0.0271, lambda: np.float32(0.025)],
        wrong=[
            (lambda: 0, "*is* the reference"),
            (lambda: 0.18, "bar of the appearance"),
            (lambda: 0.11, "bar of the identity"),
            (lambda: 0.2, "expression and appearance together"),
            (lambda: 0.06, "Derive it on paper"),
        ],
    ),
}
