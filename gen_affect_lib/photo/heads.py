"""Rendered heads with known action units: faces to learn from and to test on, without a photograph of anybody.

The head is MakeHuman's, with the 52 face units of ARKit (data/heads, CC0). A person is a random mixture of its shape
targets, with random skin, lips, brows, irises and hair; brows, lips and hairline are painted as functions of the
coordinates on the average head, which move with the mesh. A picture is rendered with a z-buffer in numpy: per pixel
normals, one lamp, light from above, shading of hollows, a camera with perspective, noise and blur.

Units of length are decimetres. x points to the person's left, which is the viewer's right, y up, z to the viewer.

Letters: V vertices, T triangles, P covered pixels, S the side of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import DATA

HEADS = DATA / "heads" / "heads.npz"
STEP = 0.001  # of the stored displacements

# Action units at strength 1 as units of ARKit; a name without a side stands for both sides. Where MakeHuman's unit
# moves the skin less than the strongest intensity of FACS does, the strength is above 1.
ARKIT = {
    "au1": {"browInnerUp": 1.4},
    "au2": {"browOuterUp": 1.2},
    "au4": {"browDown": 1.0},
    "au5": {"eyeWide": 1.0},
    "au6": {"cheekSquint": 1.2},
    "au7": {"eyeSquint": 1.0},
    "au9": {"noseSneer": 1.4},
    "au10": {"mouthUpperUp": 1.0},
    "au12": {"mouthSmile": 0.9},
    "au14": {"mouthDimple": 1.0},
    "au15": {"mouthFrown": 1.0},
    "au17": {"mouthShrugLower": 1.0, "mouthShrugUpper": 0.4},
    "au20": {"mouthStretch": 1.0},
    "au24": {"mouthPress": 0.8, "mouthRollLower": 0.5, "mouthRollUpper": 0.5},
    "au25": {"mouthLowerDown": 0.8, "mouthUpperUp": 0.15, "jawOpen": 0.06},
    "au26": {"jawOpen": 0.7},
    "au43": {"eyeBlink": 1.0},
}
TURN = np.radians((35.0, 25.0))  # of the head, at head_yaw and head_pitch 1
TILT = np.radians(20.0)  # at tilt 1
SUPERSAMPLING = 1.5
NECK, HEAD = (5.75, 6.35), (0.0, 6.7, 0.1)  # between these heights the turn grows from none to all; its centre


@dataclass(frozen=True, eq=False)
class Heads:
    """The arrays of data/heads/heads.npz, with displacements in decimetres.

    Attributes:
        points: the average head, float32 (V, 3).
        triangles: int64 (T, 3), counter-clockwise from outside.
        part: of each vertex, an index into `part_names` (V,).
        part_names, unit_names, local_names: of parts, face units and local shape targets.
        units, overall, local: displacements, float32 (K, 3 V); those of `overall` are one standard deviation each.
        ear: whether a vertex belongs to an ear (V,).
    """

    points: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    part_names: tuple[str, ...]
    unit_names: tuple[str, ...]
    local_names: tuple[str, ...]
    units: np.ndarray
    overall: np.ndarray
    local: np.ndarray
    ear: np.ndarray


@lru_cache(maxsize=1)
def heads() -> Heads:
    """The head of the kit. Raises UserError if its file is missing."""
    if not HEADS.is_file():
        raise UserError(f"{HEADS} is missing: restore it from the repository, or unset GEN_AFFECT_DATA")
    with np.load(HEADS, allow_pickle=False) as file:
        arrays = dict(file)
    shapes = {
        # (K, 3, V) -> (K, V, 3) -> (K, 3 V)
        name: (arrays[name].transpose(0, 2, 1) * np.float32(STEP)).reshape(len(arrays[name]), -1)
        for name in ("units", "overall", "local")
    }
    names = {name: tuple(map(str, arrays[name])) for name in ("part_names", "unit_names", "local_names")}
    grown = shapes["local"][names["local_names"].index("ear-scale-incr")].reshape(-1, 3)
    return Heads(
        points=arrays["points"],
        triangles=arrays["triangles"].astype(np.int64),
        part=arrays["part"],
        ear=np.linalg.norm(grown, axis=1) > 0.02,
        **shapes,
        **names,
    )


# --- what a picture is made of ---------------------------------------------------------------------------------------

HAIR_STYLES = ("none", "shaved", "short", "full", "long")


@dataclass(frozen=True)
class Person:
    """The shape and the colours of a head; colours are linear RGB in [0, 1].

    Attributes:
        overall: coefficients of the overall shapes, standard deviations (10,).
        local: strengths of the local shape targets in [0, 1], (186,).
        hairline: height of the hairline above its usual place, in decimetres.
        brow: thickness, height and arch of the brows, each from -1 to 1.
        beard: opacity of a beard, in [0, 1].
        tone: of the skin, from 0 (light) to 1 (dark).
    """

    overall: np.ndarray
    local: np.ndarray
    skin: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    hair_style: str = "short"
    hairline: float = 0.0
    brow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    beard: float = 0.0
    tone: float = 0.5
    pattern: int = 0  # the seed of the unevenness of skin and hair

    @classmethod
    def sample(cls, seed: int) -> Person:
        """A random person, the same for a seed on every machine. Ranges of seeds: see avatars/splits.py."""
        rng = np.random.default_rng([11, seed])
        head = heads()
        local = np.zeros(len(head.local_names), np.float32)
        # Of opposite targets (…-incr and …-decr) one is drawn.
        for group in _opposites():
            if rng.random() < 0.5:
                local[rng.choice(group)] = abs(rng.normal(0, 0.3))
        tone = rng.random()
        light, middle, dark = np.array([[0.80, 0.58, 0.47], [0.48, 0.27, 0.17], [0.10, 0.05, 0.033]])
        skin = light + (middle - light) * 2 * tone if tone < 0.5 else middle + (dark - middle) * (2 * tone - 1)
        skin = skin * rng.uniform(0.9, 1.1, 3)
        lips = skin * (0.8, 0.5, 0.55) * rng.uniform(0.75, 1.25) + rng.uniform(0, 0.12) * np.array([1, 0.1, 0.15])
        hairs = [(0.012, 0.01, 0.009), (0.05, 0.025, 0.014), (0.16, 0.08, 0.035), (0.5, 0.33, 0.15), (0.4, 0.4, 0.4)]
        hair = np.array(hairs[rng.choice(5, p=(0.35, 0.25, 0.2, 0.12, 0.08))]) * rng.uniform(0.7, 1.3)
        irises = [(0.07, 0.03, 0.015), (0.16, 0.09, 0.04), (0.15, 0.25, 0.4), (0.15, 0.22, 0.13), (0.2, 0.22, 0.24)]
        return cls(
            overall=np.clip(rng.normal(0, 0.9, len(head.overall)), -2, 2).astype(np.float32),
            local=np.clip(local, 0, 1),
            skin=skin,
            lips=np.clip(lips, 0.01, 1),
            iris=np.array(irises[rng.choice(5, p=(0.45, 0.2, 0.15, 0.1, 0.1))]) * rng.uniform(0.8, 1.2),
            hair=hair,
            hair_style=HAIR_STYLES[rng.choice(5, p=(0.08, 0.12, 0.35, 0.25, 0.2))],
            hairline=rng.uniform(-0.18, 0.1),
            brow=tuple(rng.uniform(-1, 1, 3)),
            beard=rng.uniform(0.3, 0.9) if rng.random() < 0.15 else 0.0,
            tone=tone,
            pattern=int(rng.integers(1 << 30)),
        )

    def points(self) -> np.ndarray:
        """The neutral head, float32 (V, 3)."""
        head = heads()
        moved = self.overall @ head.overall + self.local @ head.local  # (3 V,)
        return head.points + moved.reshape(-1, 3)


@lru_cache(maxsize=1)
def _opposites() -> list[list[int]]:
    """The local shape targets in groups of opposites, by the part of their names before the last hyphen."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(heads().local_names):
        groups.setdefault(name.rpartition("-")[0], []).append(index)
    return list(groups.values())


@dataclass(frozen=True)
class Scene:
    """Everything else in a picture: tilt, camera, light, background and clothes. Colours are linear RGB in [0, 1].

    Attributes:
        tilt: of the head to the viewer's right, in [-1, 1], at 1 by TILT.
        height: of the picture at the head, in decimetres; a head is about 2.6.
        shift: of the head's middle from the picture's, right and up, as a share of its side.
        distance: of the camera, in decimetres.
        lamp: direction to the lamp (x, y, z), whose length is its strength.
        ambient: strength of the light from all sides.
        tint: colour of the light.
        noise: standard deviation of the noise, in grey levels.
        blur: standard deviation of the blur, as a share of the side.
    """

    tilt: float = 0.0
    height: float = 3.6
    shift: tuple[float, float] = (0.0, 0.0)
    distance: float = 14.0
    lamp: tuple[float, float, float] = (-0.35, 0.5, 0.6)
    ambient: float = 0.35
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    background: tuple = ((0.35, 0.4, 0.45), (0.25, 0.28, 0.3))
    clothes: tuple[float, float, float] = (0.08, 0.12, 0.25)
    noise: float = 0.0
    blur: float = 0.0
    seed: int = 0

    @classmethod
    def sample(cls, seed: int) -> Scene:
        """A random scene. The light is mostly frontal, as in a portrait."""
        rng = np.random.default_rng([12, seed])
        around, above = rng.normal(0, np.radians(32)), rng.uniform(np.radians(-5), np.radians(60))
        direction = np.array([np.sin(around) * np.cos(above), np.sin(above), np.cos(around) * np.cos(above)])
        warm = rng.normal(0, 0.08)
        return cls(
            tilt=float(np.clip(rng.normal(0, 0.4), -1, 1)),
            height=rng.uniform(2.9, 4.6),
            shift=tuple(rng.uniform(-0.04, 0.04, 2)),
            distance=rng.uniform(6, 25),
            lamp=tuple(direction * rng.uniform(0.4, 0.95)),
            ambient=rng.uniform(0.2, 0.5),
            tint=(1 + warm, 1.0, 1 - warm),
            background=tuple(tuple(rng.uniform(0.02, 0.8, 3)) for _ in range(2)),
            clothes=tuple(rng.uniform(0.02, 0.7, 3)),
            noise=rng.uniform(0, 5),
            blur=rng.uniform(0, 0.003),
            seed=seed,
        )


def arkit_units(expression: Expression, balance: float = 0.0) -> np.ndarray:
    """The strengths of the 52 face units that an expression stands for, float32 (52,).

    With au26 alone the jaw drops behind closed lips, as FACS has it: lips that part are au25.

    Args:
        balance: of left and right units, in [-1, 1]; 0.2 makes the left ones 20 % stronger and the right ones weaker.
    """
    names, strengths = heads().unit_names, {}

    def add(name: str, strength: float) -> None:
        for side in ("", "Left", "Right"):
            if name + side in names:
                share = {"": 1.0, "Left": 1 + balance, "Right": 1 - balance}[side]
                strengths[name + side] = strengths.get(name + side, 0.0) + strength * share

    for unit, parts in ARKIT.items():
        for name, strength in parts.items():
            add(name, strength * getattr(expression, unit))
    parted = min(1.0, 2 * expression.au25)
    add("mouthClose", (1 - parted) * strengths["jawOpen"])
    right, up = expression.gaze_x, expression.gaze_y
    for name, strength in {
        "eyeLookOutLeft": right, "eyeLookInRight": right, "eyeLookInLeft": -right, "eyeLookOutRight": -right,
        "eyeLookUp": 1.5 * up, "eyeLookDown": -up,
    }.items():  # fmt: skip
        add(name, max(0.0, strength))
    # Closed lids do not open for other units.
    for side in ("Left", "Right"):
        open_share = 1 - min(1.0, strengths["eyeBlink" + side])
        for name in ("eyeWide", "eyeSquint", "eyeLookUp", "eyeLookDown"):
            strengths[name + side] *= open_share
    return np.array([strengths.get(name, 0.0) for name in names], np.float32)


# --- rendering -------------------------------------------------------------------------------------------------------


def render_head(person: Person, expression: Expression, scene: Scene | None = None, size: int = 256) -> np.ndarray:
    """A picture of a person with an expression: uint8 (size, size, 3), RGB.

    The expression's head_yaw and head_pitch turn the head by up to TURN. Rendered at SUPERSAMPLING times the size.
    """
    scene, head = scene or Scene(), heads()
    rng = np.random.default_rng([13, scene.seed])
    balance = float(np.clip(rng.normal(0, 0.08), -0.2, 0.2)) if scene.noise else 0.0
    moved = (arkit_units(expression, balance) @ head.units).reshape(-1, 3)
    points = person.points() + moved
    side = round(SUPERSAMPLING * size)
    turned = _turn(points, expression, scene.tilt)
    xy, depth = _project(turned, scene, side)
    normals = _normals(turned, head.triangles)
    hair = _hair_cover(head.points, head.ear, person)  # (V,)
    thickness = {"none": 0.0, "shaved": 0.005, "short": 0.07, "full": 0.2, "long": 0.14}[person.hair_style]
    if thickness:
        wave = 1 + 0.35 * _pattern(head.points, person.pattern, 5.0)
        turned = turned + normals * (thickness * np.clip(hair / 0.25, 0, 1) * wave)[:, None]
        xy, depth = _project(turned, scene, side)
        normals = _normals(turned, head.triangles)
    pixel, triangle, weights = rasterise(xy, depth, head.triangles, side)
    corners = head.triangles[triangle]  # (P, 3)

    def at_pixels(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32)
        return sum(weights[:, k, None] * values[corners[:, k]] for k in range(3))

    rest = at_pixels(head.points)
    normal = at_pixels(normals)
    normal /= np.sqrt((normal**2).sum(axis=1, keepdims=True)) + 1e-9
    part = head.part[corners[:, 0]]
    colour, shine = _paint(person, scene, rest, part, head)
    hollow = _hollows(pixel, (weights * depth[corners]).sum(axis=1), side, side / scene.height)
    lit = _light(normal, colour, shine, scene) * hollow[:, None]

    picture = _backdrop(person, scene, expression, side, rng)
    flat = picture.reshape(-1, 3)
    flat[pixel] = lit
    eyes = np.zeros(side * side, np.float32)
    eyes[pixel] = (part == head.part_names.index("left eye")) | (part == head.part_names.index("right eye"))
    picture *= (1 - 0.75 * _lash_line(eyes.reshape(side, side), side))[:, :, None]
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    if scene.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), max(scene.blur * size, 0.05))
    picture = 255 * np.clip(picture, 0, 1) ** (1 / 2.2)
    if scene.noise:
        picture = picture + rng.normal(0, scene.noise, picture.shape).astype(np.float32)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def _turn(points: np.ndarray, expression: Expression, tilt: float) -> np.ndarray:
    """Turn the head (V, 3): yaw to the viewer's right, pitch up, tilt to the viewer's right; less along the neck."""
    yaw, pitch = TURN * (expression.head_yaw, expression.head_pitch)
    (cy, sy), (cp, sp), (ct, st) = ((np.cos(angle), np.sin(angle)) for angle in (yaw, pitch, tilt * TILT))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[ct, st, 0], [-st, ct, 0], [0, 0, 1]])
    turned = (points - HEAD) @ (about_z @ about_y @ about_x).T + HEAD
    share = np.clip((points[:, 1:2] - NECK[0]) / (NECK[1] - NECK[0]), 0, 1)
    return points + share * (turned - points)


def _project(points: np.ndarray, scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (V, 2), from the top left corner, and nearness (V,), which grows towards the camera."""
    middle = np.array([0.0, 7.1, 0.6])
    away = scene.distance - (points[:, 2] - middle[2])
    scale = side / scene.height * scene.distance / away
    x = side * (0.5 + scene.shift[0]) + (points[:, 0] - middle[0]) * scale
    y = side * (0.5 - scene.shift[1]) - (points[:, 1] - middle[1]) * scale
    return np.stack([x, y], axis=1), points[:, 2]


def _normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals of the vertices (V, 3): means of those of their triangles, weighted by area."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)  # (T, 3)
    sums = [sum(np.bincount(triangles[:, k], across[:, axis], len(points)) for k in range(3)) for axis in range(3)]
    normals = np.stack(sums, axis=1)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)


def rasterise(
    xy: np.ndarray, nearness: np.ndarray, triangles: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which triangle is seen at each pixel of a square picture, by a z-buffer.

    Args:
        xy: the vertices in pixels, (V, 2); y points down.
        nearness: larger is nearer to the camera, (V,).
        triangles: (T, 3), counter-clockwise when seen from outside; those seen from behind are left out.
    Returns:
        the covered pixels, as indices into the flattened picture (P,); the triangle at each (P,); its barycentric
        coordinates, the weights of the three corners (P, 3).
    """
    xy, nearness = xy.astype(np.float32), nearness.astype(np.float32)
    a, b, c = (xy[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low = np.maximum(np.ceil(np.minimum(np.minimum(a, b), c)), 0).astype(np.int64)
    high = np.minimum(np.floor(np.maximum(np.maximum(a, b), c)), side - 1).astype(np.int64)
    seen = np.flatnonzero((area < -1e-9) & (high >= low).all(axis=1))  # y points down, which turns the sign
    low, high, a, b, c, area = (array[seen] for array in (low, high, a, b, c, area))
    # Every pixel of every triangle's bounding box is a candidate. The weights of corners a and b are linear in x, y.
    u_x, u_y = (b[:, 1] - c[:, 1]) / area, (c[:, 0] - b[:, 0]) / area
    v_x, v_y = (c[:, 1] - a[:, 1]) / area, (a[:, 0] - c[:, 0]) / area
    start = low - c
    u_0, v_0 = (u_x * start[:, 0] + u_y * start[:, 1]), (v_x * start[:, 0] + v_y * start[:, 1])
    width = high[:, 0] - low[:, 0] + 1
    count = width * (high[:, 1] - low[:, 1] + 1)
    of = np.repeat(np.arange(len(seen), dtype=np.int32), count)
    nth = np.arange(len(of), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    down, right = np.divmod(nth, width.astype(np.int32)[of])
    u, v = u_0[of] + right * u_x[of] + down * u_y[of], v_0[of] + right * v_x[of] + down * v_y[of]
    inside = np.flatnonzero((u >= 0) & (v >= 0) & (u + v <= 1))
    u, v, of = u[inside], v[inside], of[inside]
    weights, triangle = np.stack([u, v, 1 - u - v], axis=1), seen[of]
    pixel = (low[of, 1] + down[inside]) * side + low[of, 0] + right[inside]
    order = np.argsort((weights * nearness[triangles[triangle]]).sum(axis=1))
    nearest = np.full(side * side, -1)
    nearest[pixel[order]] = order  # of equal pixels the last one stays: the nearest
    covered = np.flatnonzero(nearest >= 0)
    return covered, triangle[nearest[covered]], weights[nearest[covered]]


def _pattern(rest: np.ndarray, seed: int, frequency: float) -> np.ndarray:
    """A smooth random function of the coordinates (…, 3), of mean 0 and standard deviation about 1: (…,)."""
    rng = np.random.default_rng([14, seed])
    waves = rng.normal(0, frequency, (8, 3)).astype(np.float32)
    return np.sin(rest.astype(np.float32) @ waves.T + rng.uniform(0, 2 * np.pi, 8).astype(np.float32)).sum(axis=-1) / 2


def _hair_cover(rest: np.ndarray, ear: np.ndarray | None, person: Person) -> np.ndarray:
    """How far inside the hairline points of the average head are (…, 3), in decimetres; negative is outside."""
    line = np.interp(
        rest[:, 2],
        [-1.2, -0.4, -0.05, 0.2, 0.4, 0.55, 0.8, 1.05, 1.5],
        [6.45, 6.5, 6.8, 7.15, 7.3, 7.62, 7.8, 7.95, 8.1],
    )
    inside = rest[:, 1] - line - person.hairline * np.clip((rest[:, 2] - 0.4) / 0.4, 0, 1)
    inside = np.where(np.abs(rest[:, 0]) < 0.45, inside, np.minimum(inside, 3.0))
    if person.hair_style == "none":
        inside = np.full_like(inside, -1.0)
    return inside if ear is None else np.where(ear, -1.0, inside)


def _mix(colour: np.ndarray, other: np.ndarray, share: np.ndarray, where: np.ndarray | None = None) -> None:
    """Blend another colour (3,) or (P, 3) into `colour` by a share (P,); with `where`, only at these pixels."""
    where = np.flatnonzero(share > 0) if where is None else where[share > 0]
    other = other[share > 0] if other.ndim == 2 else other
    share = np.minimum(share[share > 0], 1)[:, None]
    colour[where] += (other - colour[where]) * share


def _paint(person: Person, scene: Scene, rest: np.ndarray, part: np.ndarray, head: Heads):
    """Colour (P, 3) and strength of the highlights (P,) at the pixels, from coordinates on the average head (P, 3)."""
    rest = rest.astype(np.float32)
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    coarse, fine = _pattern(rest, person.pattern, 6.0), _pattern(rest, person.pattern + 1, 45.0)
    face = np.flatnonzero((z > 0.3) & (y > 6.0) & (y < 7.75))
    at = lambda values: values[face]

    # skin, redder on cheeks and nose, darker under the eyes
    near = lambda cx, cy, r: np.exp(-((at(x) - cx) ** 2 + (at(y) - cy) ** 2) / (2 * r * r))
    colour = (person.skin * (1 + 0.05 * coarse + 0.02 * fine)[:, None]).astype(np.float32)
    red = 0.28 * (0.7 * near(0.42, 6.95, 0.16) + 0.5 * near(0, 6.95, 0.1))
    colour[face] *= (1 - red[:, None] * (0, 1, 1)) * (1 - 0.15 * near(0.3, 7.15, 0.08))[:, None]
    shine = np.full(len(rest), 0.12, np.float32)

    # lips: between a line with a cupid's bow and an arc
    corner = np.clip(1 - (at(x) / 0.245) ** 2, 0, 1)
    upper = 6.603 + 0.073 * corner**0.8 - 0.012 * np.exp(-((at(x) / 0.03) ** 2))
    lower = 6.598 - 0.118 * corner**0.6
    lip = np.minimum(upper - at(y), at(y) - lower) / 0.012 + 0.5
    lip = np.where((at(z) > 1.15) & (corner > 0), np.clip(lip, 0, 1), 0)
    _mix(colour, person.lips * (1 + 0.06 * at(fine))[:, None], lip, face)
    shine[face] += 0.15 * lip

    # brows
    thickness, height, arch = person.brow
    t = (at(x) - 0.12) / 0.42
    ridge = 7.455 + 0.02 * height + (0.055 + 0.03 * arch) * np.sin(np.pi * np.clip(t, 0, 1) ** 1.3 * 0.85)
    half = (0.045 + 0.014 * thickness) * (1 - 0.55 * np.clip(t, 0, 1) ** 2)
    brow = np.clip((half - np.abs(at(y) - ridge)) / 0.02, 0, 1) * np.clip(t / 0.08, 0, 1) * np.clip((1 - t) / 0.2, 0, 1)
    brow *= np.clip(0.9 + 0.2 * _pattern(at(rest), person.pattern + 2, 50.0), 0.3, 1) * (at(z) > 0.6)
    _mix(colour, person.hair * min(1.0, 0.16 / person.hair.max()), 0.92 * brow, face)
    shine[face] *= 1 - brow

    # beard and hair
    cover = _hair_cover(rest, None, person) + 0.03 * fine + 0.02 * coarse
    share = np.clip(cover / 0.05, 0, 1) * (0.75 if person.hair_style == "shaved" else 1.0)
    share[(x > 0.7) & (z > -0.12) & (z < 0.42) & (y > 6.72) & (y < 7.42)] = 0  # the ears
    if person.beard:
        edge = np.interp(at(x), [0, 0.2, 0.5, 0.75], [6.82, 6.75, 6.72, 7.1])
        beard = np.clip((edge - at(y)) / 0.08, 0, 1) * np.clip((at(y) - 6.1) / 0.1, 0, 1) * (1 - lip)
        beard *= (at(z) > 0.35) * np.clip(0.75 + 0.3 * at(fine), 0, 1)
        _mix(colour, person.hair, person.beard * beard, face)
    hairy = np.flatnonzero(share > 0)
    strands = np.maximum(1 + 0.3 * _pattern(rest[hairy] * (1, 0.25, 1), person.pattern + 3, 40.0), 0.3)
    _mix(colour, person.hair * strands[:, None], share[hairy], hairy)

    clothes = np.clip((5.95 + 0.12 * (x - 0.3) + np.clip(-z, 0, 1) * 0.3 - y) / 0.02, 0, 1)
    _mix(colour, np.array(scene.clothes), clothes)
    shine *= 1 - clothes

    for name in ("left eye", "right eye"):
        index = head.part_names.index(name)
        here = np.flatnonzero(part == index)
        own = head.points[head.part == index]
        middle = (own.min(axis=0) + own.max(axis=0)) / 2
        away = np.linalg.norm((rest[here] - middle)[:, :2], axis=1)
        front = rest[here, 2] > middle[2]
        ring = 1 - 0.5 * np.clip((away - 0.05) / 0.015, 0, 1)
        colour[here], shine[here] = (0.72, 0.68, 0.66), 0.9
        _mix(colour, person.iris * ring[:, None], np.clip((0.067 - away) / 0.006, 0, 1) * front, here)
        _mix(colour, np.full(3, 0.005), np.clip((0.027 - away) / 0.005, 0, 1) * front, here)
    for name, own in {"teeth": (0.62, 0.56, 0.47), "tongue": (0.35, 0.1, 0.09), "mouth": (0.16, 0.035, 0.03)}.items():
        colour[part == head.part_names.index(name)] = own
    return colour, shine


def _light(normal: np.ndarray, colour: np.ndarray, shine: np.ndarray, scene: Scene) -> np.ndarray:
    """Linear RGB (P, 3): a lamp that wraps a little around the head, light from all sides, and highlights."""
    strength = float(np.linalg.norm(scene.lamp))
    lamp = np.array(scene.lamp, np.float32) / strength
    half = lamp + np.array((0, 0, 1), np.float32)
    diffuse = np.clip((normal @ lamp + 0.15) / 1.15, 0, 1)
    sky = 0.75 + 0.25 * normal[:, 1]
    facing = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1)
    wet = shine > 0.5
    facing[wet] **= 120
    facing[~wet] **= 14
    lit = colour * (scene.ambient * sky + strength * 1.25 * diffuse)[:, None]
    lit += (0.5 * strength * facing * shine)[:, None]
    return lit * np.array(scene.tint, np.float32)


def _hollows(pixel: np.ndarray, nearness: np.ndarray, side: int, scale: float) -> np.ndarray:
    """Light that reaches the pixels (P,), from 0.1 in deep hollows to 1: less behind the mean of the surroundings.

    The means are taken on a picture of a quarter of the side. scale: pixels for a decimetre.
    """
    filled, here = np.zeros((2, side, side), np.float32)
    filled.ravel()[pixel], here.ravel()[pixel] = nearness, 1
    quarter = (side // 4, side // 4)
    filled, here = (cv2.resize(image, quarter, interpolation=cv2.INTER_AREA) for image in (filled, here))
    lit = np.ones(len(pixel), np.float32)
    for reach, strength in ((0.06, 4.0), (0.2, 1.2)):
        sums = (cv2.GaussianBlur(image, (0, 0), reach * scale / 4) for image in (filled, here))
        mean = next(sums) / np.maximum(next(sums), 1e-3)
        mean = cv2.resize(mean, (side, side), interpolation=cv2.INTER_LINEAR).ravel()[pixel]
        lit *= 1 - np.clip(strength * (mean - nearness), 0, 0.7)
    return lit


def _lash_line(eyes: np.ndarray, side: int) -> np.ndarray:
    """Where lashes darken the rim of the eyes: (S, S) in [0, 1], mostly above them."""
    reach = max(1, round(side / 170))
    shifted = np.roll(eyes, -reach, axis=0)
    grown = np.maximum(cv2.dilate(shifted, np.ones((3, 3))) - eyes, 0)
    return cv2.GaussianBlur(np.clip(grown, 0, 1), (0, 0), reach * 0.5)


def _backdrop(person: Person, scene: Scene, expression: Expression, side: int, rng: np.random.Generator) -> np.ndarray:
    """Background, shoulders and, for long hair, the hair behind the head: linear RGB, float32 (S, S, 3)."""
    one, other = np.array(scene.background, np.float32)
    blobs = cv2.resize(rng.random((4, 4, 1)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    picture = one + (other - one) * np.clip(blobs[:, :, None], 0, 1)

    def polygon(points, colour, turned):
        points = np.array(points, float)
        xyz = np.concatenate([points, np.full((len(points), 1), -0.2)], axis=1)
        xyz = _turn(xyz, expression, scene.tilt) if turned else xyz
        xy, _ = _project(xyz, scene, side)
        cv2.fillPoly(picture, [np.round(xy).astype(np.int32)], tuple(map(float, colour)))

    light = scene.ambient + 0.4 * np.linalg.norm(scene.lamp)
    polygon(
        [(-1.7, 5.75), (-0.5, 6.05), (0.5, 6.05), (1.7, 5.75), (2.2, 2), (-2.2, 2)],
        np.array(scene.clothes) * light,
        False,
    )
    if person.hair_style == "long":
        angle = np.linspace(0, np.pi, 16)
        crown = np.stack([0.93 * np.cos(angle), 7.45 + 0.9 * np.sin(angle)], axis=1)
        wide = 0.9 + 0.15 * np.sin(person.pattern)
        polygon([*crown, (-wide, 6.6), (-0.75, 5.8), (0.75, 5.8), (wide, 6.6)], person.hair * light * 0.8, True)
    return picture
