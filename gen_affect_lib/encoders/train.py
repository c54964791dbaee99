"""One door to the training of everything that reads faces: `python -m gen_affect_lib train-encoder NAME`."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path

from gen_affect_lib.errors import UserError

# Each is a function (out_dir, minutes, profile=name); without minutes it takes its profile's own time.
TRAINERS = {
    "identity": "gen_affect_lib.encoders.identity_training:train",
    "detector": "gen_affect_lib.encoders.detector_training:train",
    "landmarks": "gen_affect_lib.encoders.landmark_net:train",
    "expression": "gen_affect_lib.encoders.expression_training:train",
    "identity-judge": "gen_affect_lib.evaluation.judge_training:train_identity_judge",
    "expression-judge": "gen_affect_lib.evaluation.judge_training:train_expression_judge",
}


def train(name: str, out: Path, minutes: float | None = None, profile: str | None = None) -> None:
    """Train one network by name and write it to a folder. Raises UserError for a name that does not exist."""
    if name not in TRAINERS:
        near = difflib.get_close_matches(name, TRAINERS, n=1)
        hint = f"did you mean {near[0]}?" if near else "give one of " + ", ".join(TRAINERS)
        raise UserError(f"there is no encoder {name!r} to train: {hint}")
    from gen_affect_lib.profiles import get_profile

    size = get_profile(profile).name
    module, function = TRAINERS[name].split(":")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    time = {} if minutes is None else {"minutes": minutes}
    getattr(import_module(module), function)(out, profile=size, **time)
