"""From the points and blendshapes of a face to the kit's action units, gaze and head turn.

Letters: M faces, F features, U learned units.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from gen_affect_lib.files import atomic, write_json
from gen_affect_lib.photo.landmarker import Face

FEATURES = 478 * 3 + 52


def features(face: Face) -> np.ndarray:
    """What a learned model of units reads: float32 (F,), 478 aligned points (x, y, z) and 52 blendshapes."""
    return np.concatenate([face.aligned.reshape(-1), face.blendshapes]).astype(np.float32)  # (478, 3) -> (1434,)


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
