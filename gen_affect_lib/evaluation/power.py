"""What the measures of picture quality can see: the power of the two-sample test, the accuracy of the detectors.

python -m gen_affect_lib power

The two-sample test has to tell drawings with a known fault from drawings without one, and to find nothing between
drawings and other drawings. The detectors of small things have to find a thing on the drawings that have it, and not
to find it on the same drawings without it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gen_affect_lib.avatars import Avatar, Identity
from gen_affect_lib.avatars.factors import Choice
from gen_affect_lib.avatars.landmarks import landmarks
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
from gen_affect_lib.evaluation.metrics.bootstrap import estimate, ratio
from gen_affect_lib.evaluation.metrics.nearest import true_faces
from gen_affect_lib.evaluation.metrics.small_things import HALF, THINGS, Drawn, has, read_things, tilt_of
from gen_affect_lib.evaluation.metrics.two_sample import two_sample_test
from gen_affect_lib.evaluation.quality import reduced
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.files import write_json
from gen_affect_lib.machine import describe_machine

FAULTS = {
    "none": "other drawings",
    "blur": "drawings, blurred by 0.7 px",
    "grid": "drawings, every eighth row and column brighter by 2 of 255 grey levels",
    "eyes": "drawings with two eyes of different colours",
}
SIDE = 128


def measure_power(people: int, words: int, json_path: Path) -> dict[str, Any]:
    """Measure both and write them to `json_path`. About 15 minutes on one core for 100 people and 27 words.

    Returns:
        "two_sample": fault -> "about", and for 128 and 64 pixels the accuracy on validation people, as of `estimate`;
        "detectors": thing -> share of drawings of report people on which it is found, "present" where it is drawn and
            "absent" where it is left out, and their mean, "balanced".
    """
    plan = Plan(people, words, 1, VALIDATION_SEED)
    result: dict[str, Any] = {"plan": asdict(plan), "machine": describe_machine(), "two_sample": {}}
    true = plan.true_drawings("own", SIDE)[:, 0]  # (N, W, P, P, 3)
    for fault, about in FAULTS.items():
        result["two_sample"][fault] = {"about": about}
        pictures = with_fault(fault, plan)[:, 0]
        for side in (SIDE, SIDE // 2):
            verdicts = two_sample_test(reduced(pictures, side), reduced(true, side))
            row = estimate(ratio(verdicts.right, verdicts.tested), people)
            result["two_sample"][fault][str(side)] = {name: round(value, 3) for name, value in row.items()}
            write_json(json_path, result)
    result["detectors"] = detector_accuracy(Plan(people, min(words, 12), 1, REPORT_SEED))
    write_json(json_path, result)
    return result


def say(result: dict[str, Any]) -> str:
    """The result of `measure_power` as text."""
    lines = [
        f"{row['about']:75} at {side:>3} px {row[side]['value']:.3f} [{row[side]['low']:.3f}, {row[side]['high']:.3f}]"
        for row in result["two_sample"].values()
        for side in row
        if side != "about"
    ]
    for thing, row in result["detectors"].items():
        lines.append(
            f"{thing:12} found where drawn {row['present']:.3f}   not found where left out {row['absent']:.3f}"
        )
    return "\n".join(lines)


# --- faults -----------------------------------------------------------------------------------------------------------


def with_fault(fault: str, plan: Plan) -> np.ndarray:
    """Drawings of a plan with one of FAULTS: uint8 (N, S, W, 128, 128, 3)."""
    images = plan.true_drawings("other", SIDE)
    if fault == "blur":
        return blurred(images, 0.7)
    if fault == "grid":
        line = np.arange(SIDE) % 8 == 0
        return np.minimum(images.astype(int) + 2 * (line[:, None] | line)[..., None], 255).astype(np.uint8)
    if fault == "eyes":
        for place, avatar in plan.true_avatars("other"):
            images[place] = with_two_eye_colors(avatar, SIDE, seed=sum(place))
    return images


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Pictures uint8 (…, P, P, 3) under a Gaussian blur of `sigma` pixels."""
    reach = int(4 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    flat = images.reshape(-1, *images.shape[-3:])
    parts = []
    for start in range(0, len(flat), 256):
        planes = (
            torch.from_numpy(flat[start : start + 256]).movedim(-1, 1).flatten(0, 1)[:, None].float()
        )  # (3 B, 1, P, P)
        planes = F.pad(planes, (reach,) * 4, mode="replicate")
        planes = F.conv2d(F.conv2d(planes, kernel[..., None]), kernel[:, :, None])
        parts.append(planes[:, 0].unflatten(0, (-1, 3)).movedim(1, -1).round().byte().numpy())
    return np.concatenate(parts).reshape(images.shape)


def with_two_eye_colors(avatar: Avatar, size: int, seed: int) -> np.ndarray:
    """The drawing of an avatar whose right eye in the picture has another colour than its left: uint8 (P, P, 3)."""
    kind = Identity.KINDS[Identity.NAMES.index("eye_color")]
    assert isinstance(kind, Choice)
    others = [color for color in kind.options if color != avatar.identity.eye_color]
    other = replace(avatar, identity=replace(avatar.identity, eye_color=others[seed % len(others)]))
    middle = size * landmarks(avatar)[:2, 0].mean()
    return np.where((np.arange(size) < middle)[:, None], avatar.render(size), other.render(size))


# --- detectors --------------------------------------------------------------------------------------------------------


def detector_accuracy(plan: Plan) -> dict[str, dict[str, float]]:
    """How often each thing is found on true drawings, see `measure_power`."""
    found: dict[str, list[tuple[bool, bool]]] = {thing: [] for thing in (*THINGS, "earrings")}
    for _, avatar in plan.true_avatars():
        identity, expression, look = avatar.identity, avatar.expression, avatar.appearance
        faces = true_faces(identity, expression, SIDE)
        image = avatar.render(SIDE)
        true_face = Drawn(identity, expression, tilt_of(image, faces, identity, expression), SIDE)
        read = read_things(image, true_face)
        for thing in found:
            drawn = look.earrings != "none" if thing == "earrings" else not np.isnan(read[thing])
            if not drawn or (thing in ("freckles", "frames") and not has(thing, identity)):
                continue
            bare = read_things(without(avatar, thing, SIDE), true_face)[thing]
            share = read["pair"] if thing == "earrings" else read[thing]
            found[thing].append((share >= HALF, bare < HALF))
    table = {}
    for thing, rows in found.items():
        present, absent = np.mean(rows, axis=0) if rows else (float("nan"),) * 2
        table[thing] = {
            "pictures": len(rows),
            "present": round(float(present), 4),
            "absent": round(float(absent), 4),
            "balanced": round(float(present + absent) / 2, 4),
        }
    return table
