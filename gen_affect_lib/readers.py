"""Train one of the networks that read faces, by name: `python -m gen_affect_lib train-encoder NAME`.

The networks of a face pack are evaluated on validation people after training; the figures are written to the pack's
`figures.json`.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.encoders.pack import DETECTOR, load_detector, update_json
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.encoders.face_pack import measure_detector, measure_recognizer
from gen_affect_lib.evaluation.judges.training import train_expression_judge, train_identity_judge
from gen_affect_lib.profiles import get_profile
from gen_affect_lib.training import identity
from gen_affect_lib.training.detector import SCENE_SETS, train_detector
from gen_affect_lib.training.expression import train_expression
from gen_affect_lib.training.landmarks import train_landmarks
from gen_affect_lib.training.photo import train_units


def _identity(out: Path, minutes: float | None, profile: str) -> None:
    net = identity.train_identity(out, minutes, profile)
    people = min(1000, 4 * identity.CONFIGS[profile].people)
    update_json(out / "figures.json", "recognizer", measure_recognizer(net, VALIDATION_SEED, people))


def _detector(out: Path, minutes: float | None, profile: str) -> None:
    net = train_detector(out, minutes, profile)
    scenes = min(500, SCENE_SETS[profile].scenes)
    update_json(out / "figures.json", "detector", measure_detector(net, VALIDATION_SEED, scenes))


def _landmarks(out: Path, minutes: float | None, profile: str) -> None:
    net = train_landmarks(out, minutes, profile)
    if (out / DETECTOR).is_file():  # the landmark network is evaluated on detected boxes
        scenes = min(500, SCENE_SETS[profile].scenes)
        update_json(
            out / "figures.json", "landmarks", measure_detector(load_detector(out), VALIDATION_SEED, scenes, net)
        )


# Functions (out, minutes, profile); minutes None: the profile's limit.
TRAINERS = {
    "identity": _identity,
    "detector": _detector,
    "landmarks": _landmarks,
    "expression": train_expression,
    "photo": train_units,
    "identity-judge": train_identity_judge,
    "expression-judge": train_expression_judge,
}


def train_reader(name: str, out: Path, minutes: float | None = None, profile: str | None = None) -> None:
    """Train a network by its name in TRAINERS and write it to a folder.

    Without minutes the profile's limit applies; without a profile, the default one. Raises UserError for a name or a
    profile that does not exist.
    """
    if name not in TRAINERS:
        near = difflib.get_close_matches(name, TRAINERS, n=1)
        hint = f"did you mean {near[0]}?" if near else "give one of " + ", ".join(TRAINERS)
        raise UserError(f"there is no encoder {name!r} to train: {hint}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    TRAINERS[name](out, minutes, get_profile(profile).name)
