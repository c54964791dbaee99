"""How far to trust the judges: what they say of true drawings (the ceiling of every later figure) and what they would
score if their answers were compared with another picture's truth (the floor), for all skins and for each third of the
skin tones.

A number (a lightness, a tilt) counts as right when the reading is off by at most a sixteenth of its range, a hue by a
sixteenth of the circle: chance is then about one in eight, as with eight bins, but nobody is wrong for standing at the
edge of a bin. What cannot be seen is not asked: the colour of earrings that nobody wears, of hair under a covering.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gen_affect_lib.avatars import EMOTIONS, Appearance, Expression, Identity
from gen_affect_lib.avatars.emotions import LEVELS, branches
from gen_affect_lib.avatars.factors import Choice, Hue
from gen_affect_lib.avatars.splits import REPORT_SEED
from gen_affect_lib.evaluation.judges.data import Drawings
from gen_affect_lib.evaluation.judges.networks import ExpressionJudge, IdentityJudge
from gen_affect_lib.evaluation.metrics.recognition import hits
from gen_affect_lib.evaluation.metrics.skin import THIRDS, third

TOLERANCE = 1 / 16  # of the range
RANGES = np.array([kind.high - kind.low for kind in Expression.KINDS])  # of the 21 numbers
COVERINGS = ("headscarf", "turban", "beanie")


def unit_errors(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of action units, gaze and head turn (…, 21), as shares of their ranges."""
    return np.abs(said - truth) / RANGES


def nearest_words(factors: np.ndarray) -> np.ndarray:
    """int (B,): the word of the 135 whose face is nearest to each of factors (B, 21). Of true factors it gives the best
    that anybody could answer.
    """
    faces = np.stack([Expression.named(word).to_vector() for word in EMOTIONS])
    return unit_errors(factors[:, None], faces[None]).sum(axis=2).argmin(axis=1)  # (B, 135) -> (B,)


def right_factors(cls, said: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Which readings (B, K) of a group of factors are right: name -> (B,), 1 right, 0 wrong, nan not to be seen."""
    result, start = {}, 0
    for name, kind in zip(cls.NAMES, cls.KINDS):
        a, b = said[:, start : start + kind.size], truth[:, start : start + kind.size]
        start += kind.size
        if isinstance(kind, Choice):
            result[name] = (a.argmax(axis=1) == b.argmax(axis=1)).astype(float)
        elif isinstance(kind, Hue):
            turns = np.arctan2(a[:, 1], a[:, 0]) - np.arctan2(b[:, 1], b[:, 0])
            result[name] = (np.abs(np.angle(np.exp(1j * turns))) <= 2 * np.pi * TOLERANCE).astype(float)
        else:
            result[name] = (np.abs(a - b)[:, 0] <= TOLERANCE * (kind.high - kind.low)).astype(float)
    values = [cls.from_vector(vector) for vector in truth]
    if cls is Appearance:
        result["earring_color"][[v.earrings == "none" for v in values]] = np.nan
    if cls is Identity:
        covered = np.array([v.hair_style in COVERINGS for v in values])
        bald = np.array([v.hair_style == "bald" for v in values])
        result["covering_color"][~covered] = np.nan
        result["hair_color"][covered | bald] = np.nan
    return result


def score(
    identity_judge: IdentityJudge,
    expression_judge: ExpressionJudge,
    first_seed: int = REPORT_SEED,
    people: int = 1000,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, dict[str, float]]:
    """What both judges say of people never trained on, four pictures of each.

    Args:
        first_seed, people: who. Identities are found among all `people`.
        change: applied to the drawings first, uint8 (B, 64, 64, 3) -> the same; to see what blur, say, costs.
    Returns:
        name -> {"all", "light", "middle", "dark", "floor"}. "identity_top1": the person of a word's face found
        among all, by a picture with another expression and appearance. "unit_error": mean over the 21 numbers, as a
        share of their ranges; beside it that of named words and that of free mixtures. "word_top1", "group_top1",
        "family_top1": of pictures of the 135 words; "…_best": what the nearest word to the true factors scores. Then
        each factor of appearance and identity: the share that is right.
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
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # name -> the figure of every picture, and its floor

    def other(part, shift=images):  # the truth of another person's picture of the same kind (word or mixture)
        return np.roll(part, shift, axis=0)

    def only(mask, values):
        return np.where(mask, values, np.nan)

    views = torch.from_numpy(who.embedding).unflatten(0, (people, images))  # (N * I, E) -> (N, I, E)
    found = np.full((people, images), np.nan)
    found[:, 0] = hits(views[:, 1], views[:, 0]).numpy()
    strangers = np.full((people, images), np.nan)
    strangers[:, 0] = hits(views[:, 1].roll(1, 0), views[:, 0]).numpy()
    rows["identity_top1"] = (found.reshape(-1), strangers.reshape(-1))

    named = word >= 0
    error, floor = (unit_errors(face.factors, truth).mean(axis=1) for truth in (expression, other(expression)))
    rows["unit_error"] = (error, floor)
    rows["unit_error_words"] = (only(named, error), only(named, floor))
    rows["unit_error_mixtures"] = (only(~named, error), only(~named, floor))
    best = np.where(named, nearest_words(expression), 0)
    family_of, group_of, words = (branches()[classes] for classes in LEVELS)
    levels = (("word", words, face.words), ("group", group_of, face.groups), ("family", family_of, face.families))
    for level, label, probabilities in levels:
        answer = probabilities.argmax(axis=1)
        rows[f"{level}_top1"] = tuple(only(named, answer == label[truth]) for truth in (word, other(word)))
        rows[f"{level}_top1_best"] = tuple(only(named, label[best] == label[truth]) for truth in (word, other(word)))
    for cls, said, truth in ((Appearance, face.appearance, appearance), (Identity, who.factors, identity)):
        wrong = right_factors(cls, said, other(truth))
        for name, right in right_factors(cls, said, truth).items():
            rows[f"{cls.__name__.lower()}.{name}"] = (right, wrong[name])
    return {name: _summary(values, floor, skin) for name, (values, floor) in rows.items()}


def _summary(values: np.ndarray, floor: np.ndarray, skin: np.ndarray) -> dict[str, float]:
    thirds = {name: float(np.nanmean(values[skin == k])) for k, name in enumerate(THIRDS)}
    return {"all": float(np.nanmean(values)), **thirds, "floor": float(np.nanmean(floor))}
