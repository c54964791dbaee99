"""From the points and blendshapes of a face to the kit's action units, gaze and head turn.

`TABLE` is the usual correspondence of ARKit's blendshapes to FACS (https://arkit-face-blendshapes.com, and Ekman and
Friesen's manual), with the values at rest and at full strength that the landmarker gives. It is nearly blind for
cheekSquint, noseSneer and mouthDimple, and weak for browDown: `UnitModel` reads those units from the points.

Letters: M faces, F features, U learned units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from gen_affect_lib.avatars.factors import Expression
from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.photo.landmarker import NAMES, Face

FEATURES = 478 * 3 + 52

# Unit: blendshapes (left and right are averaged, several are added), and their sum at rest and at full strength.
TABLE = {
    "au1": (("browInnerUp",), 0.15, 0.75),
    "au2": (("browOuterUp",), 0.25, 0.80),
    "au4": (("browDown",), 0.05, 0.50),
    "au5": (("eyeWide",), 0.04, 0.20),
    "au6": (("cheekSquint",), 0.02, 0.40),
    "au7": (("eyeSquint",), 0.40, 0.85),
    "au9": (("noseSneer",), 0.02, 0.40),
    "au10": (("mouthUpperUp",), 0.05, 0.60),
    "au12": (("mouthSmile",), 0.04, 0.85),
    "au14": (("mouthDimple",), 0.05, 0.40),
    "au15": (("mouthFrown",), 0.03, 0.50),
    "au17": (("mouthShrugLower",), 0.06, 0.60),
    "au20": (("mouthStretch",), 0.04, 0.55),
    "au24": (("mouthPress", "mouthRollLower", "mouthRollUpper"), 0.10, 0.80),
    "au25": (("mouthLowerDown", "mouthUpperUp", "jawOpen"), 0.06, 0.85),
    "au26": (("jawOpen",), 0.05, 0.60),
    "au43": (("eyeBlink",), 0.20, 0.75),
}
# Where head_yaw and head_pitch are 1, and pitch at rest, as the landmarker sees heads turned by 35 and 25 degrees.
TURN, PITCH_REST = np.radians((41.0, 25.0)), np.radians(-8.0)
# The iris from the middle of the eye, in widths of the eye: where gaze_x and gaze_y are 1, and y at rest.
GAZE, GAZE_REST = (0.155, 0.06), 0.07


def features(face: Face) -> np.ndarray:
    """What a learned model of units reads: float32 (F,), 478 aligned points (x, y, z) and 52 blendshapes."""
    return np.concatenate([face.aligned.reshape(-1), face.blendshapes]).astype(np.float32)  # (478, 3) -> (1434,)


def from_blendshapes(blendshapes: np.ndarray) -> dict[str, float]:
    """The 17 action units in [0, 1] by `TABLE`, from blendshapes (52,).

    Two units share their blendshape with another: in a smile, squinting is the raised cheek (AU6, Duchenne's
    smile) and no tightened lid (AU7), and the raised upper lip is part of the smile, not AU10.
    """
    b = dict(zip(NAMES, blendshapes.astype(float)))

    def both(name: str) -> float:
        return b[name] if name in b else (b[name + "Left"] + b[name + "Right"]) / 2

    units = {}
    for unit, (names, rest, full) in TABLE.items():
        units[unit] = (sum(map(both, names)) - rest) / (full - rest)
    smile = min(max(units["au12"], 0.0), 1.0)
    units["au6"] = max(units["au6"], smile * min(both("eyeSquint") / 0.5, 1.0))
    units["au7"] *= 1 - smile
    units["au10"] -= 0.8 * smile
    return {unit: float(np.clip(strength, 0, 1)) for unit, strength in units.items()}


def head_turn(face: Face) -> tuple[float, float]:
    """`head_yaw` and `head_pitch` in [-1, 1]: to the viewer's right and up."""
    ahead = face.rotation[2]  # where the average face's z axis points
    yaw, pitch = np.arctan2(ahead[0], ahead[2]), np.arcsin(np.clip(ahead[1], -1, 1)) - PITCH_REST
    return float(np.clip(yaw / TURN[0], -1, 1)), float(np.clip(pitch / TURN[1], -1, 1))


def gaze(face: Face) -> tuple[float, float]:
    """`gaze_x` and `gaze_y` in [-1, 1], relative to the head: to the viewer's right and up.

    The irises are compared with the middle between the corners of their eye, in the aligned face.
    """
    p, offsets = face.aligned[:, :2], []
    for iris, outer, inner in ((468, 33, 133), (473, 263, 362)):
        offsets.append((p[iris] - (p[outer] + p[inner]) / 2) / np.linalg.norm(p[outer] - p[inner]))
    x, y = np.mean(offsets, axis=0)
    return float(np.clip(x / GAZE[0], -1, 1)), float(np.clip((y - GAZE_REST) / GAZE[1], -1, 1))


def read_units(face: Face, model: UnitModel | None = None) -> Expression:
    """The expression of a face: the units of the model as it gives them, the others by `TABLE`."""
    values = from_blendshapes(face.blendshapes)
    if model is not None:
        values |= dict(zip(model.units, model.predict(features(face)[None])[0].tolist()))
    names = ("gaze_x", "gaze_y", "head_yaw", "head_pitch")
    values |= dict(zip(names, (*gaze(face), *head_turn(face))))
    return Expression(**values)


@dataclass(frozen=True)
class UnitModel:
    """A linear model of the units that the blendshapes do not show.

    Attributes:
        units: the action units, U names such as "au4".
        weight, bias: float32 (U, F) and (U,).
    """

    units: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The units of M faces in [0, 1], from (M, F) to (M, U)."""
        return (features @ self.weight.T + self.bias).clip(0, 1)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "model.safetensors") as partial:
            save_file({"weight": self.weight, "bias": self.bias}, partial)
        write_json(folder / "config.json", {"units": list(self.units), "features": FEATURES})

    @classmethod
    def load(cls, folder: Path) -> UnitModel:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        return cls(tuple(config["units"]), weights["weight"], weights["bias"])
