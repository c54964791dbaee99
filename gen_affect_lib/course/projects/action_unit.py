"""Project: a new action unit for the drawn world.

The answer is a `NewUnit`: a function that draws the parts of a face with the new unit at an intensity in [0, 1]. The
library stays as it is, since `avatars.drawing.draw` takes the parts of the face as an argument. The unit is
drawn on people on whom nothing was chosen, and compared with `BASELINE`, which squeezes the whole mouth.

A reader of units is trained for each answer: a linear probe on histograms of gradients (`photo.units.hog`) of small
grey pictures of training people, in which half of the faces show the new unit.

Letters: N people, U = 17 units, T intensities, F features, S the side of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import cv2
import numpy as np
from PIL import Image

from gen_affect_lib.avatars import face
from gen_affect_lib.avatars.drawing import FACE, Avatar, draw, painted
from gen_affect_lib.avatars.factors import ACTION_UNITS, Appearance, Expression, Identity
from gen_affect_lib.avatars.geometry import MOUTH_Y, ZOOM, ZOOM_X, ZOOM_Y, Geometry
from gen_affect_lib.avatars.pen import Pen
from gen_affect_lib.avatars.regions import EXPRESSION_CROP, pixel_box
from gen_affect_lib.avatars.splits import FIRST_SEED, TRAIN_SEED, VALIDATION_SEED
from gen_affect_lib.course.projects.report import Criterion, Report, gain, kept, reached
from gen_affect_lib.display import grid
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, difference, estimate, of_rows, ratio
from gen_affect_lib.evaluation.metrics.probes import LinearProbe
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.photo.units import hog
from gen_affect_lib.training.photo import correlations

Part = Callable[[Pen, Geometry], None]

SIDE = 64  # S of the pictures that are measured
CELL = 5  # pixels of a cell's side of the reader's histograms
U = len(ACTION_UNITS)
ALL_INSIDE = 0.97  # of the change: what has to lie in the region for all points
LARGEST_REGION = 0.18  # of the picture: the largest of an existing unit, the jaw drop, has 0.173


def _area(box: tuple[float, float, float, float]) -> float:
    x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class NewUnit:
    """An action unit that the drawn world lacks.

    Attributes:
        name: such as "AU33 cheek puff".
        parts: from an intensity in [0, 1] to the parts of the face, from back to front; at 0 they draw what
            `drawing.FACE` does. A part draws with a pen in the frame of the head, by a `Geometry`.
        region: x0, y0, x1, y1 in the frame of the head, where the unit may change a face that looks ahead, as
            fractions of the picture; see `avatars.regions.UNIT_BOXES` for those of the existing units.

    Raises UserError for a region that is no box inside the picture, or larger than LARGEST_REGION.
    """

    name: str
    parts: Callable[[float], Sequence[Part]]
    region: tuple[float, float, float, float]

    def __post_init__(self):
        try:
            x0, y0, x1, y1 = self.region
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the region of {self.name} is {self.region!r}: give four numbers x0, y0, x1, y1"
            ) from error
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise UserError(f"the region of {self.name} is {self.region}: give x0 < x1 and y0 < y1 between 0 and 1")
        if _area(self.region) > LARGEST_REGION:
            raise UserError(
                f"the region of {self.name} covers {_area(self.region):.0%} of the picture: "
                f"give the part of the face that the unit moves, at most {LARGEST_REGION:.0%}"
            )

    def render(self, avatar: Avatar, intensity: float, size: int = 256) -> np.ndarray:
        """The avatar with this unit: uint8 (size, size, 3), RGB.

        Raises UserError for an intensity outside [0, 1], and if `parts` returns no list.
        """
        if not 0 <= intensity <= 1:
            raise UserError(f"the intensity of {self.name} is {intensity!r}: give a number from 0 to 1")
        parts = self.parts(intensity)
        if not isinstance(parts, Sequence):
            raise UserError(
                f"the function of {self.name} returns a {type(parts).__name__}: return a list of parts, "
                "such as [*FACE, mine]"
            )

        def paint(canvas) -> None:
            draw(Pen(canvas), avatar.identity, avatar.expression, avatar.appearance, parts)

        return np.ascontiguousarray(painted(size, paint)[:, :, :3])

    def inside(self, size: int) -> np.ndarray:
        """The pixels of the region on a face that looks ahead: bool (size, size)."""
        x0, y0, x1, y1 = self.region
        box = (
            *(ZOOM_X + ZOOM * (x0 - ZOOM_X), ZOOM_Y + ZOOM * (y0 - ZOOM_Y)),
            *(ZOOM_X + ZOOM * (x1 - ZOOM_X), ZOOM_Y + ZOOM * (y1 - ZOOM_Y)),
        )
        left, top, right, bottom = pixel_box(box, size)
        mask = np.zeros((size, size), bool)
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
        return mask


def squeezed(intensity: float) -> list[Part]:
    """The baseline: a pucker that draws the kit's mouth narrower and a little higher, lips, teeth and all."""

    def mouth(pen: Pen, g: Geometry) -> None:
        pen.canvas.save()
        pen.canvas.translate(0.5, MOUTH_Y)
        pen.canvas.scale(1 - 0.35 * intensity, 1 + 0.10 * intensity)
        pen.canvas.translate(-0.5, -MOUTH_Y)
        face.mouth(pen, g)
        pen.canvas.restore()

    return [mouth if part is face.mouth else part for part in FACE]


BASELINE = NewUnit("AU18 lip pucker, squeezed", squeezed, (0.33, 0.60, 0.67, 0.80))


# --- what is drawn ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Numbers of people. learned: to train the reader; read: to test it; compared: of whom every unit is drawn."""

    learned: int
    read: int
    compared: int


SIZES = {"smoke": Sizes(200, 60, 6), "laptop": Sizes(1200, 400, 50), "gpu": Sizes(4000, 1000, 100)}
INTENSITIES = np.linspace(0, 1, 9)  # T, at which the growth is measured


def person(seed: int) -> Avatar:
    """A person without expression, looking ahead, in the plain look."""
    return Avatar(Identity.sample(seed))


def mixture(seed: int) -> tuple[Avatar, float]:
    """A person with about four units, gaze and turn of the head, in any look, and the intensity of the new unit.

    Half of the intensities are 0, the others from 0.15 to 1.
    """
    rng = np.random.default_rng([31, seed])
    units = (rng.random(U) < 0.22) * rng.uniform(0.15, 1, U)
    vector = np.concatenate([units, np.clip(rng.normal(0, 0.4, 4), -1, 1)])
    intensity = float(rng.uniform(0.15, 1) * (rng.random() < 0.5))
    return Avatar(Identity.sample(seed), Expression.from_vector(vector), Appearance.sample(seed)), intensity


def only(avatar: Avatar, unit: int) -> Avatar:
    """The avatar with one unit of FACS at full strength."""
    return replace(avatar, expression=replace(avatar.expression, **{f"au{unit}": 1.0}))


def grey_crops(pictures: np.ndarray) -> np.ndarray:
    """Brows to mouth of pictures (M, S, S, 3), in grey: uint8 (M, 40, 40)."""
    x0, y0, x1, y1 = pixel_box(EXPRESSION_CROP, SIDE)
    return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[y0:y1, x0:x1] for picture in pictures])


def features(pictures: np.ndarray) -> np.ndarray:
    """What the reader sees of pictures (M, S, S, 3): histograms of gradients of the crops, float32 (M, F).

    Each crop has the same contrast first, so that dark skin counts as much as light skin.
    """
    crops = grey_crops(pictures).astype(np.float32)
    crops = 40 * crops / (crops.std(axis=(1, 2), keepdims=True) + 8)
    return np.stack([hog(crop, CELL).ravel() for crop in crops])  # (8, 8, 9) -> (F,)


def change(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean absolute difference of pictures (…, S, S, 3), in grey levels: float64 (…)."""
    return np.abs(one.astype(float) - other).mean(axis=(-3, -2, -1))


def share_inside(unit: NewUnit, pictures: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """The share of the squared change from plain to pictures (N, S, S, 3) that lies in the unit's region (N,)."""
    squared = ((pictures.astype(float) - plain) ** 2).sum(axis=-1)  # (N, S, S)
    return (squared * unit.inside(SIDE)).sum(axis=(1, 2)) / np.maximum(squared.sum(axis=(1, 2)), 1e-9)


# --- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Pictures without the new unit, drawn once for all answers.

    Attributes:
        learned, read: `mixture` of the training people and of the tested people, without the new unit (N, S, S, 3).
        plain: the compared people without expression (N, S, S, 3).
        single: with each of the existing units alone (N, U, S, S, 3).
        turned: without expression, the head turned to each side (N, 2, S, S, 3).
    """

    first: int
    sizes: Sizes
    learned: np.ndarray
    read: np.ndarray
    plain: np.ndarray
    single: np.ndarray
    turned: np.ndarray

    @classmethod
    def drawn(cls, first: int, sizes: Sizes) -> World:
        """The people from seed `first` on, and training people from TRAIN_SEED on."""
        people = [person(seed) for seed in range(first, first + sizes.compared)]
        return cls(
            first=first,
            sizes=sizes,
            learned=np.stack([mixture(TRAIN_SEED + n)[0].render(SIDE) for n in range(sizes.learned)]),
            read=np.stack([mixture(first + n)[0].render(SIDE) for n in range(sizes.read)]),
            plain=np.stack([one.render(SIDE) for one in people]),
            single=np.stack([[only(one, unit).render(SIDE) for unit in ACTION_UNITS] for one in people]),
            turned=np.stack([[turn.render(SIDE) for turn in _turns(one)] for one in people]),
        )

    def targets(self, first: int, count: int) -> np.ndarray:
        """The intensities of the U units and of the new one on `mixture`: float64 (count, U + 1)."""
        drawn = [mixture(first + n) for n in range(count)]
        return np.stack([[*avatar.expression.to_vector()[:U], intensity] for avatar, intensity in drawn])


def _turns(avatar: Avatar) -> list[Avatar]:
    sides = (Expression(head_yaw=-1.0, head_pitch=0.5), Expression(head_yaw=1.0, head_pitch=-0.5))
    return [replace(avatar, expression=side) for side in sides]


@dataclass(frozen=True)
class Measured:
    """What was measured of one unit, a row for each person.

    Attributes:
        same: whether the drawing with intensity 0 is that of the kit (N,).
        growth: mean change from intensity 0 at each intensity, in grey levels (N, T).
        steps: mean change from each intensity to the next (N, T - 1).
        inside: the share of the squared change at 1 that lies in the region (N,).
        strength: the change at 1, relative to that of the weakest existing unit of the same person (N,).
        true, read: intensities of the U units and the new one, and what the reader says (N, U + 1).
        without: what a reader says that was trained and tested without the new unit (N, U).
        apart: what the reader says of the new unit on the new unit alone, less the most that it says on any existing
            unit alone (N,).
        rival: the existing unit with the highest of these readings, an index (N,).
        together: the smallest share of its change that the new unit or an existing unit keeps beside the other (N, U).
        turned: the share of its change that the new unit keeps when the head is turned (N, 2).
    """

    same: np.ndarray
    growth: np.ndarray
    steps: np.ndarray
    inside: np.ndarray
    strength: np.ndarray
    true: np.ndarray
    read: np.ndarray
    without: np.ndarray
    apart: np.ndarray
    rival: np.ndarray
    together: np.ndarray
    turned: np.ndarray

    @classmethod
    def of(cls, unit: NewUnit, world: World, without: np.ndarray | None = None) -> Measured:
        """Draw the unit on the people of the world. without: of an earlier measurement in the same world."""
        first, sizes = world.first, world.sizes
        people = [person(seed) for seed in range(first, first + sizes.compared)]
        mixed = [mixture(first + n)[0] for n in range(sizes.compared)]
        rows = np.stack([[unit.render(one, float(t), SIDE) for t in INTENSITIES] for one in mixed])
        alone = np.stack([unit.render(one, 1.0, SIDE) for one in people])
        both = np.stack([[unit.render(only(one, other), 1.0, SIDE) for other in ACTION_UNITS] for one in people])
        turned = np.stack([[unit.render(turn, 1.0, SIDE) for turn in _turns(one)] for one in people])

        own = change(alone, world.plain)  # (N,)
        others = change(world.single, world.plain[:, None])  # (N, U)
        keeps = np.minimum(
            change(both, world.single) / np.maximum(own, 1e-9)[:, None],
            change(both, alone[:, None]) / np.maximum(others, 1e-9),
        )
        true, learned, read = _readers_pictures(unit, world)
        probe = LinearProbe(features(learned), world.targets(TRAIN_SEED, sizes.learned), np.arange(sizes.learned))
        on_alone = probe(features(alone))[:, -1]
        on_single = probe(features(world.single.reshape(-1, SIDE, SIDE, 3)))[:, -1].reshape(-1, U)  # (N U,) -> (N, U)
        return cls(
            same=np.array([np.array_equal(row[0], one.render(SIDE)) for row, one in zip(rows, mixed)]),
            growth=change(rows, rows[:, :1]),
            steps=change(rows[:, 1:], rows[:, :-1]),
            inside=share_inside(unit, alone, world.plain),
            strength=own / others.min(axis=1),
            true=true,
            read=probe(features(read)),
            without=read_without(world) if without is None else without,
            apart=on_alone - on_single.max(axis=1),
            rival=on_single.argmax(axis=1),
            together=keeps,
            turned=change(turned, world.turned) / np.maximum(own, 1e-9)[:, None],
        )

    @property
    def people(self) -> int:
        """N of the people of whom every unit is drawn."""
        return len(self.same)

    def correlation(self) -> Statistic:
        """Pearson's r of what is read of the new unit; 0 where the reader always says the same."""
        return of_rows(lambda rows: float(correlations(self.read[rows], self.true[rows])[U]), np.arange(len(self.true)))

    def disturbance(self) -> Statistic:
        """The mean r of the existing units, less that of the reader that never saw the new unit."""

        def lost(rows: np.ndarray) -> float:
            true = self.true[rows, :U]
            return float(np.mean(correlations(self.read[rows, :U], true) - correlations(self.without[rows], true)))

        return of_rows(lost, np.arange(len(self.true)))

    def evenness(self) -> np.ndarray:
        """The mean step over the largest one, 1 for equal steps and 1 / (T - 1) for a single jump (N,)."""
        largest = self.steps.max(axis=1)
        return np.where(largest > 0, self.steps.mean(axis=1) / np.maximum(largest, 1e-9), 0.0)

    def rising(self) -> np.ndarray:
        """The share of the steps that lead further away from the face without the unit (N,)."""
        return (np.diff(self.growth, axis=1) > 0).mean(axis=1)


def _readers_pictures(unit: NewUnit, world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The intensities of the tested people (N, U + 1), and the pictures to train and to test on, with the new unit."""

    def shown(pictures: np.ndarray, first: int) -> np.ndarray:
        pictures = pictures.copy()
        for n in range(len(pictures)):
            avatar, intensity = mixture(first + n)
            if intensity > 0:
                pictures[n] = unit.render(avatar, intensity, SIDE)
        return pictures

    true = world.targets(world.first, world.sizes.read)
    return true, shown(world.learned, TRAIN_SEED), shown(world.read, world.first)


def read_without(world: World) -> np.ndarray:
    """What a reader says of the existing units on the tested people, if nobody has the new unit: (N, U)."""
    count = world.sizes.learned
    probe = LinearProbe(features(world.learned), world.targets(TRAIN_SEED, count)[:, :U], np.arange(count))
    return probe(features(world.read))


@lru_cache(maxsize=2)
def _measured_baseline(first: int, sizes: Sizes) -> tuple[World, Measured]:
    """The world without new units and the baseline in it, the same for all answers."""
    world = World.drawn(first, sizes)
    return world, Measured.of(BASELINE, world)


def weakest_third(measured: Measured, first: int) -> Statistic:
    """The median strength of the unit in the third of the skin tones in which it is weakest."""
    tones = np.array([third(person(first + n).identity.skin) for n in range(measured.people)])

    def statistic(people: np.ndarray) -> float:
        parts = [measured.strength[people[tones[people] == k]] for k in range(len(THIRDS))]
        return float(min(np.median(part) for part in parts if len(part)))

    return statistic


# --- the report ------------------------------------------------------------------------------------------------------


def score(answer: NewUnit, profile: str = "laptop", people: str = "report") -> Report:
    """The report on a new unit, 60 points: 38 for being read and told apart better than the baseline, 22 for rules.

    The 38 points count as far as your unit and the existing ones stay visible beside each other (`unless_hidden`).

    Args:
        profile: "smoke", "laptop" or "gpu": how many people, see SIZES.
        people: "report", or "validation" while you develop.

    Raises UserError for anything that is no NewUnit, and for another profile or other people.
    """
    if not isinstance(answer, NewUnit):
        raise UserError(f"the answer is a {type(answer).__name__}: give a NewUnit")
    if profile not in SIZES or people not in ("report", "validation"):
        raise UserError(f"profile {profile!r}, people {people!r}: give smoke, laptop or gpu, and report or validation")
    first = FIRST_SEED[people]
    world, theirs = _measured_baseline(first, SIZES[profile])
    ours = Measured.of(answer, world, theirs.without)
    n, read = ours.people, len(ours.true)
    of = partial(estimate, people=n)
    numbers = {
        "r of the new unit": estimate(ours.correlation(), read),
        "r, baseline": estimate(theirs.correlation(), read),
        "r, difference": difference(ours.correlation(), theirs.correlation(), read),
        "told apart by": of(ratio(ours.apart)),
        "told apart by, baseline": of(ratio(theirs.apart)),
        "told apart, difference": difference(ratio(ours.apart), ratio(theirs.apart), n),
        "other units, difference": estimate(ours.disturbance(), read, draws=200),
        "unchanged at 0": of(ratio(ours.same)),
        "rising steps": of(ratio(ours.rising())),
        "evenness of the steps": of(ratio(ours.evenness())),
        "inside the region": of(ratio(ours.inside)),
        "strength, weakest third": of(weakest_third(ours, first)),
        "kept beside other units": of(lambda rows: float(ours.together[rows].mean(axis=0).min())),
        "kept when the head turns": of(ratio(ours.turned)),
    }
    beside = reached(
        "stays visible beside each unit, and the unit beside it", 3, numbers["kept beside other units"], 0.2, 0.6
    )
    read_better = gain("read on other people, against the baseline (r)", 19, numbers["r, difference"], 0.3)
    apart = gain("told apart from the 17 units, against the baseline", 19, numbers["told apart, difference"], 0.45)
    criteria = (
        unless_hidden(read_better, beside),
        unless_hidden(apart, beside),
        kept("the other units are read as before (r)", 3, numbers["other units, difference"], 0.02),
        reached("changes nothing at 0", 3, numbers["unchanged at 0"], 0.9, 1.0),
        reached("every step of the intensity shows more", 3, numbers["rising steps"], 0.6, 0.98),
        reached("no jump: mean step over the largest", 3, numbers["evenness of the steps"], 0.2, 0.5),
        reached("changes its region only", 2, numbers["inside the region"], 0.8, ALL_INSIDE),
        reached("visible on all skin, against the weakest unit", 3, numbers["strength, weakest third"], 0.5, 1.5),
        beside,
        reached("as strong when the head turns", 2, numbers["kept when the head turns"], 0.5, 0.9),
    )
    rivals = np.bincount(ours.rival, minlength=U)
    weak = ours.together.mean(axis=0)
    figures = {
        "numbers": numbers,
        "r of each existing unit": {
            f"au{u}": float(r) for u, r in zip(ACTION_UNITS, correlations(ours.read, ours.true))
        },
        "most often mistaken for it": f"au{ACTION_UNITS[int(rivals.argmax())]}",
        "weakest beside": f"au{ACTION_UNITS[int(weak.argmin())]}",
        "growth in grey levels": [round(float(value), 3) for value in ours.growth.mean(axis=0)],
        "unit": answer.name,
        "baseline": BASELINE.name,
        "people": {"first": first, "training from": TRAIN_SEED, **vars(SIZES[profile])},
        "seeds": "one: the reader is a ridge regression in closed form, without random numbers",
        "machine": describe_machine(),
    }
    return Report("action_unit", criteria, figures, sheets(answer, first))


def unless_hidden(gained: Criterion, beside: Criterion) -> Criterion:
    """The gain times the share of the points of `beside`: a mouth that is painted over is easily read, and useless."""
    share = beside.points / beside.of
    if share == 1 or gained.points == 0:
        return gained
    said = f"{gained.said} Times {share:.2f}, since your unit and another one hide each other."
    return replace(gained, points=round(share * gained.points, 1), said=said)


def sheets(unit: NewUnit, first: int) -> tuple[tuple[Image.Image, str], ...]:
    """Pictures for a person to look at: the growth on three people, and the unit beside others and on turned heads."""
    people = [person(first + n) for n in (2, 5, 7)]
    steps = (0.0, 0.25, 0.5, 0.75, 1.0)
    growth = grid(
        [unit.render(one, t, 112) for one in people for t in steps],
        [f"{t:g}" for t in steps],
        rows=len(people),
        tile=112,
    )
    beside = [10, 12, 15, 17, 20, 24, 26]
    faces = [only(people[k % 3], other) for k, other in enumerate(beside)] + [_turns(people[1])[0]]
    names = [f"AU{other}" for other in beside] + ["turned"]
    pairs = [unit.render(one, t, 112) for t in (0.0, 1.0) for one in faces]
    together = grid(pairs, names, rows=2, row_titles=["alone", "with it"], tile=112)
    return (
        (growth, f"Three people with {unit.name}, from intensity 0 on the left to 1 on the right, in five steps."),
        (
            together,
            f"Two rows of faces: above with one existing unit each, and with a turned head; below the same with "
            f"{unit.name} at full strength.",
        ),
    )


def check(unit: NewUnit, people: int = 6) -> str:
    """Before a whole report: quick looks at a few validation people, one line for each thing that is wrong.

    Raises UserError for an answer that cannot be drawn.
    """
    faces = [mixture(VALIDATION_SEED + n)[0] for n in range(people)]
    try:
        rows = np.stack([[unit.render(one, float(t), SIDE) for t in INTENSITIES] for one in faces])
    except UserError:
        raise
    except Exception as error:
        said = str(error).partition("\n")[0]  # skia lists all its constructors below
        raise UserError(f"{unit.name} cannot be drawn: {type(error).__name__}: {said}") from error
    plain = np.stack([one.render(SIDE) for one in faces])
    growth = change(rows, rows[:, :1]).mean(axis=0)  # (T,)
    faults = []
    if not np.array_equal(rows[:, 0], plain):
        faults.append("at intensity 0 the face is not the kit's: draw FACE there")
    if growth[-1] == 0:
        faults.append("at intensity 1 nothing has changed")
    elif (np.diff(growth) <= 0).any():
        at = INTENSITIES[1:][np.diff(growth) <= 0][0]
        faults.append(f"the change does not grow at intensity {at:g}")
    if growth[-1] > 0:
        ahead = [person(VALIDATION_SEED + n) for n in range(people)]
        alone = np.stack([unit.render(one, 1.0, SIDE) for one in ahead])
        neutral = np.stack([one.render(SIDE) for one in ahead])
        changed = change(alone, neutral) > 0  # (N,)
        if not changed.all():
            faults.append(
                f"nothing changes on {np.sum(~changed)} of {people} people: does a beard or the hair hide it?"
            )
        inside = share_inside(unit, alone[changed], neutral[changed]).mean() if changed.any() else 1.0
        if inside < ALL_INSIDE:
            faults.append(
                f"{inside:.0%} of the change lies in the region {unit.region}: draw inside, or move the region"
            )
    return "\n".join(faults) or "nothing is wrong so far: measure it on validation people"
