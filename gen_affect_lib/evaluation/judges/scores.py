"""The accuracy of the judges on true drawings, which is the ceiling of every later figure.

The floor compares their readings with the truth of another person's picture. All scores are also given for each third
of the skin tones. `metrics/factors.py` defines when a factor counts as right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gen_affect_lib.avatars import Appearance, Identity
from gen_affect_lib.avatars.emotions import LEVELS, branches
from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.evaluation.judges.data import Drawings
from gen_affect_lib.evaluation.judges.networks import ExpressionJudge, IdentityJudge
from gen_affect_lib.evaluation.metrics.expression import nearest_words, unit_errors
from gen_affect_lib.evaluation.metrics.factors import right_factors
from gen_affect_lib.evaluation.metrics.recognition import hits
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third


def score(
    identity_judge: IdentityJudge,
    expression_judge: ExpressionJudge,
    first_seed: int = REPORT_SEED,
    people: int = 1000,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, dict[str, float]]:
    """Score both judges on held-out people, four drawings of each.

    Args:
        first_seed: seed of the first person.
        people: number of people. Each is retrieved among all of them.
        change: applied to the drawings first, uint8 (B, 64, 64, 3) -> the same, for example a blur.

    Returns:
        name -> {"all", "light", "middle", "dark", "floor"}, with these names:
        "identity_top1": share of people retrieved by a picture with another expression and appearance.
        "unit_error", "unit_error_words", "unit_error_mixtures": mean error of the 21 numbers as a share of their
            ranges; of all pictures, of those that show a word, of free mixtures of action units.
        "word_top1", "group_top1", "family_top1": accuracy on pictures that show a word; with "_best", the accuracy of
            the nearest word to the true vector.
        "appearance.NAME", "identity.NAME": share of pictures in which this factor is right.
    """
    data = Drawings(first_seed, people)
    pixels = data.images.reshape(-1, *data.images.shape[2:])  # (N, I, 64, 64, 3) -> (N * I, 64, 64, 3)
    pixels = pixels if change is None else change(pixels)
    who, face = identity_judge.read(pixels), expression_judge.read(pixels)
    images = data.images.shape[1]
    identity = np.repeat(data.identity, images, axis=0)  # (N * I, K)
    expression, appearance = (part.reshape(len(pixels), -1) for part in (data.expression, data.appearance))
    word = data.word.reshape(-1)
    skin = third(identity[:, Identity.NAMES.index("skin")])
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # name -> the score of each picture, and its floor

    def other(part: np.ndarray) -> np.ndarray:  # ground truth of another person's picture of the same kind
        return np.roll(part, images, axis=0)

    def only(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.where(mask, values, np.nan)

    views = torch.from_numpy(who.embedding).unflatten(0, (people, images))  # (N * I, E) -> (N, I, E)
    found, floor_found = np.full((2, people, images), np.nan)
    found[:, 0] = hits(views[:, 1], views[:, 0]).numpy()
    floor_found[:, 0] = hits(views[:, 1].roll(1, 0), views[:, 0]).numpy()
    rows["identity_top1"] = (found.reshape(-1), floor_found.reshape(-1))

    named = word >= 0
    error, floor = (unit_errors(face.vectors, truth).mean(axis=1) for truth in (expression, other(expression)))
    rows["unit_error"] = (error, floor)
    rows["unit_error_words"] = (only(named, error), only(named, floor))
    rows["unit_error_mixtures"] = (only(~named, error), only(~named, floor))
    best = np.where(named, nearest_words(expression), 0)
    family_of, group_of, words = (branches()[classes] for classes in LEVELS)
    levels = (("word", words, face.words), ("group", group_of, face.groups), ("family", family_of, face.families))
    for level, label, probabilities in levels:
        answer = probabilities.argmax(axis=1)
        right, wrong = (only(named, answer == label[truth]) for truth in (word, other(word)))
        rows[f"{level}_top1"] = (right, wrong)
        right, wrong = (only(named, label[best] == label[truth]) for truth in (word, other(word)))
        rows[f"{level}_top1_best"] = (right, wrong)
    for cls, read, truth in ((Appearance, face.appearance, appearance), (Identity, who.factors, identity)):
        wrong = right_factors(cls, read, other(truth))
        for name, right in right_factors(cls, read, truth).items():
            rows[f"{cls.__name__.lower()}.{name}"] = (right, wrong[name])
    return {name: _summary(values, floor, skin) for name, (values, floor) in rows.items()}


def _summary(values: np.ndarray, floor: np.ndarray, skin: np.ndarray) -> dict[str, float]:
    thirds = {name: float(np.nanmean(values[skin == k])) for k, name in enumerate(THIRDS)}
    return {"all": float(np.nanmean(values)), **thirds, "floor": float(np.nanmean(floor))}
