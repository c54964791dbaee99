"""Train one of the networks that read faces, by name: `python -m gen_affect_lib train-encoder NAME`.

The parts of a face pack are measured on validation people when they are trained; the figures go into the pack's
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
from gen_affect_lib.training import detector, expression, identity, landmarks


def train_recognizer(out: Path, profile: str, **limit) -> None:
    """The recognizer of a pack, with its figures on validation people."""
    net = identity.train(out, profile=profile, **limit)
    people = min(1000, 4 * identity.RECIPES[profile].people)
    update_json(out / "figures.json", "recognizer", measure_recognizer(net, VALIDATION_SEED, people))


def train_detector(out: Path, profile: str, **limit) -> None:
    """The detector of a pack, with its figures on scenes of validation people."""
    net = detector.train(out, profile=profile, **limit)
    scenes = min(500, detector.RECIPES[profile].scenes)
    update_json(out / "figures.json", "detector", measure_detector(net, VALIDATION_SEED, scenes))


def train_landmarks(out: Path, profile: str, **limit) -> None:
    """The landmark network of a pack. Its figures need a detector in the same folder."""
    net = landmarks.train(out, profile=profile, **limit)
    if (out / DETECTOR).is_file():
        scenes = min(500, landmarks.RECIPES[profile].scenes)
        update_json(
            out / "figures.json", "landmarks", measure_detector(load_detector(out), VALIDATION_SEED, scenes, net)
        )


# Each is a function (out, profile=name, minutes=…); without minutes it takes its profile's own time.
TRAINERS = {
    "identity": train_recognizer,
    "detector": train_detector,
    "landmarks": train_landmarks,
    "expression": expression.train,
    "identity-judge": train_identity_judge,
    "expression-judge": train_expression_judge,
}


def train(name: str, out: Path, minutes: float | None = None, profile: str | None = None) -> None:
    """Train one network by name and write it to a folder. Raises UserError for a name that does not exist."""
    if name not in TRAINERS:
        near = difflib.get_close_matches(name, TRAINERS, n=1)
        hint = f"did you mean {near[0]}?" if near else "give one of " + ", ".join(TRAINERS)
        raise UserError(f"there is no encoder {name!r} to train: {hint}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    limit = {} if minutes is None else {"minutes": minutes}
    TRAINERS[name](out, profile=get_profile(profile).name, **limit)
