"""The factors of a face: who it is (Identity), what it does (Expression), and everything else (Appearance).

Each group is a frozen dataclass whose fields declare their ranges. Validation, the encoding as a vector (numbers as
they are, choices one-hot, hues as a point on the circle) and interpolation all follow from the declarations.
"""

from __future__ import annotations

import math
from bisect import bisect
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate
from typing import ClassVar

import numpy as np

from gen_affect_lib.avatars.emotions import EMOTION_TABLE, EMOTIONS, emotion
from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer

FACTORS = Producer("factors", 1, uses=(EMOTION_TABLE,))  # what a seed or a word stands for

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 24, 25, 26, 43)


# --- kinds of factor: each checks, samples, encodes, decodes and blends one value ------------------------------------


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Real:
    """A number in [low, high]."""

    low: float
    high: float
    size: ClassVar[int] = 1

    def check(self, value) -> str | None:
        return (
            None
            if _is_number(value) and self.low <= value <= self.high
            else f"a number from {self.low:g} to {self.high:g}"
        )

    def sample(self, rng) -> float:
        return float(rng.uniform(self.low, self.high))

    def encode(self, value) -> list[float]:
        return [value]

    def decode(self, numbers) -> float:
        return float(np.clip(numbers[0], self.low, self.high))

    def blend(self, a, b, t):
        return (1 - t) * a + t * b


@dataclass(frozen=True)
class Hue:
    """An angle on the colour circle in [0, 1); encoded as cosine and sine, blended along the shorter arc."""

    size: ClassVar[int] = 2

    def check(self, value) -> str | None:
        return None if _is_number(value) and 0 <= value < 1 else "a hue from 0 up to but not including 1"

    def sample(self, rng) -> float:
        return float(rng.random())

    def encode(self, value) -> list[float]:
        return [math.cos(2 * math.pi * value), math.sin(2 * math.pi * value)]

    def decode(self, numbers) -> float:
        return _wrap(math.atan2(numbers[1], numbers[0]) / (2 * math.pi))

    def blend(self, a, b, t):
        return _wrap(a + t * ((b - a + 0.5) % 1.0 - 0.5))


def _wrap(turns: float) -> float:
    turns = turns % 1.0
    return 0.0 if turns >= 1.0 else turns  # -1e-20 % 1.0 is 1.0 in floating point


@dataclass(frozen=True)
class Choice:
    """One of a few names, sampled with the given weights; encoded one-hot; a blend switches at one half."""

    options: tuple[str, ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.options)

    def check(self, value) -> str | None:
        return None if isinstance(value, str) and value in self.options else "one of " + ", ".join(self.options)

    def sample(self, rng) -> str:
        return self.options[bisect(self._cumulative, rng.random() * self._cumulative[-1])]

    @cached_property
    def _cumulative(self) -> list[float]:
        return list(accumulate(self.weights))

    def encode(self, value) -> list[float]:
        return [float(value == option) for option in self.options]

    def decode(self, numbers) -> str:
        return self.options[int(np.argmax(numbers))]

    def blend(self, a, b, t):
        return a if t < 0.5 else b


def real(low: float = 0.0, high: float = 1.0, default: float | None = None):
    return field(default=(low + high) / 2 if default is None else default, metadata={"kind": Real(low, high)})


def hue(default: float):
    return field(default=default, metadata={"kind": Hue()})


def choice(**weights: float):
    options = tuple(weights)
    return field(default=options[0], metadata={"kind": Choice(options, tuple(weights.values()))})


class Factors:
    """The base class of the three groups. A subclass only declares its fields with `real`, `hue` and `choice`."""

    STREAM: ClassVar[int]  # makes Identity.sample(3) and Appearance.sample(3) independent of each other
    NAMES: ClassVar[tuple[str, ...]]
    KINDS: ClassVar[tuple[Real | Hue | Choice, ...]]
    VECTOR_SIZE: ClassVar[int]

    def __post_init__(self):
        for name, kind in zip(self.NAMES, self.KINDS):
            expected = kind.check(getattr(self, name))
            if expected:
                raise UserError(f"{type(self).__name__}.{name} is {getattr(self, name)!r:.60}: give {expected}")

    @classmethod
    def _rng(cls, seed: int) -> np.random.Generator:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise UserError(f"the seed of {cls.__name__}.sample is {seed!r:.60}: give a whole number from 0 up")
        return np.random.default_rng([cls.STREAM, int(seed)])

    @classmethod
    def sample(cls, seed: int):
        """A random instance, the same for a seed on every machine. Raises UserError for a seed below 0."""
        rng = cls._rng(seed)
        return cls(**{name: kind.sample(rng) for name, kind in zip(cls.NAMES, cls.KINDS)})

    def to_vector(self) -> np.ndarray:
        """The factors as float32 (VECTOR_SIZE,)."""
        numbers = [n for name, kind in zip(self.NAMES, self.KINDS) for n in kind.encode(getattr(self, name))]
        return np.array(numbers, dtype=np.float32)

    @classmethod
    def from_vector(cls, vector):
        """The inverse of `to_vector`. Numbers outside their range are clipped, since a network's outputs can be.

        Raises UserError for a shape other than (VECTOR_SIZE,) and for numbers that are not finite.
        """
        vector = np.asarray(vector, dtype=np.float64)
        if vector.shape != (cls.VECTOR_SIZE,):
            raise UserError(f"{cls.__name__} vector has shape {vector.shape}: give ({cls.VECTOR_SIZE},)")
        if not np.isfinite(vector).all():
            raise UserError(f"{cls.__name__} vector has {np.sum(~np.isfinite(vector))} numbers that are not finite")
        values, start = {}, 0
        for name, kind in zip(cls.NAMES, cls.KINDS):
            values[name] = kind.decode(vector[start : start + kind.size])
            start += kind.size
        return cls(**values)

    def interpolate(self, other, t: float):
        """The factors between self (t = 0) and other (t = 1). Raises UserError for t outside [0, 1]."""
        if type(other) is not type(self):
            raise UserError(f"cannot interpolate {type(self).__name__} with {type(other).__name__}: give two of a kind")
        if not 0 <= t <= 1:
            raise UserError(f"t is {t!r}: give a number from 0 (this one) to 1 (the other)")
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in self.NAMES)
        return type(self)(**{name: kind.blend(a, b, t) for (name, a, b), kind in zip(pairs, self.KINDS)})


def _declared(cls):
    cls.NAMES = tuple(f.name for f in fields(cls))
    cls.KINDS = tuple(f.metadata["kind"] for f in fields(cls))
    cls.VECTOR_SIZE = sum(kind.size for kind in cls.KINDS)
    return cls


# --- the three groups ------------------------------------------------------------------------------------------------


@_declared
@dataclass(frozen=True)
class Identity(Factors):
    """Who it is. `skin` runs from the lightest (0) to the darkest (1) of ten tones and is sampled uniformly."""

    STREAM = 1
    skin: float = real()
    age: float = real()
    face_width: float = real()
    jaw_width: float = real()
    chin: float = real()
    eye_size: float = real()
    eye_spacing: float = real()
    eye_tilt: float = real(-1, 1)
    eye_color: str = choice(brown=3, hazel=1, amber=1, green=1, blue=1, grey=1)
    brow_thickness: float = real()
    brow_arch: float = real()
    nose_width: float = real()
    nose_length: float = real()
    mouth_width: float = real()
    lip_fullness: float = real()
    ear_size: float = real()
    hair_style: str = choice(
        bald=1, buzz=1, short=1, side_part=1, quiff=1, fringe=1, curly=1, afro=1, bob=1, long=1, wavy=1, bun=1,
        ponytail=1, braids=1, headscarf=1, turban=1, beanie=1,
    )  # fmt: skip
    hair_color: str = choice(
        black=3, dark_brown=3, brown=2, auburn=1, ginger=1, blond=1, platinum=1, grey=1, white=1, blue=0.5, pink=0.5
    )
    covering_color: str = choice(teal=1, plum=1, mustard=1, navy=1, rose=1, olive=1)
    facial_hair: str = choice(none=12, stubble=2, moustache=2, goatee=2, beard=2)
    glasses: str = choice(none=6, round=2, square=2)
    freckles: str = choice(none=3, some=1)


EXPRESSION_UNIT_NAMES = {
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
    7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser", 12: "lip corner puller", 14: "dimpler",
    15: "lip corner depressor", 17: "chin raiser", 20: "lip stretcher", 24: "lip tightener and pressor",
    25: "lips part", 26: "jaw drop", 43: "eyes closed",
}  # fmt: skip


@_declared
@dataclass(frozen=True)
class Expression(Factors):
    """What the face does: FACS action units in [0, 1] (Ekman & Friesen), gaze and head turn in [-1, 1].

    `gaze_x` and `head_yaw` point to the viewer's right, `gaze_y` and `head_pitch` up. `au24` covers units 23 and 24.
    `to_vector` gives the expression vector (21,) that the whole library uses.
    """

    STREAM = 2
    au1: float = real(default=0.0)
    au2: float = real(default=0.0)
    au4: float = real(default=0.0)
    au5: float = real(default=0.0)
    au6: float = real(default=0.0)
    au7: float = real(default=0.0)
    au9: float = real(default=0.0)
    au10: float = real(default=0.0)
    au12: float = real(default=0.0)
    au14: float = real(default=0.0)
    au15: float = real(default=0.0)
    au17: float = real(default=0.0)
    au20: float = real(default=0.0)
    au24: float = real(default=0.0)
    au25: float = real(default=0.0)
    au26: float = real(default=0.0)
    au43: float = real(default=0.0)
    gaze_x: float = real(-1, 1, 0.0)
    gaze_y: float = real(-1, 1, 0.0)
    head_yaw: float = real(-1, 1, 0.0)
    head_pitch: float = real(-1, 1, 0.0)

    @classmethod
    def named(cls, word: str) -> Expression:
        """The expression of an emotion word in `data/emotions.csv`, or of "neutral". Raises UserError for others."""
        if isinstance(word, str) and word.strip().lower() == "neutral":
            return cls.neutral()
        return cls(**dict(zip(cls.NAMES, emotion(word).expression_vector)))

    @classmethod
    def neutral(cls) -> Expression:
        return cls()

    @classmethod
    def sample(cls, seed: int) -> Expression:
        """With probability 0.5 an emotion word, scaled and with noise; otherwise a few random units.

        Words are the most common requests. The random mixtures prevent a model from memorising the faces of the words,
        so that it generalises to every expression vector.
        """
        rng = cls._rng(seed)
        units = len(ACTION_UNITS)
        if rng.random() < 0.5:
            word = cls.named(EMOTIONS[int(rng.integers(len(EMOTIONS)))]).to_vector()
            strength = rng.uniform(0.6, 1.1)
            vector = word * strength + rng.normal(0, 0.06, cls.VECTOR_SIZE) * ((word != 0) | (rng.random() < 0.3))
        else:
            active = rng.random(units) < rng.uniform(0.1, 0.4)
            active[units - 1] &= rng.random() < 0.5  # closed eyes hide the gaze, so they are rarer
            free = rng.normal(0, 0.45, 4)
            vector = np.concatenate([active * rng.uniform(0.15, 1, units), free])
        return cls.from_vector(np.clip(vector, -1, 1))


@_declared
@dataclass(frozen=True)
class Appearance(Factors):
    """Everything that is independent of person and expression: clothes, earrings, background, tilt of the head."""

    STREAM = 3
    background_hue: float = hue(0.55)
    background_lightness: float = real(default=0.6)
    background_style: str = choice(plain=1, halo=1, split=1)
    clothes_hue: float = hue(0.05)
    clothes_lightness: float = real(default=0.45)
    collar: str = choice(crew=1, v_neck=1, shirt=1, turtleneck=1, hood=1)
    earrings: str = choice(none=2, stud=1, hoop=1, drop=1)
    earring_color: str = choice(gold=1, silver=1, red=1, turquoise=1)
    head_tilt: float = real(-1, 1)
