"""The figures of a model: the judges' readings of its sets compared with the targets, and their ceiling and floor.

A figure is a `Statistic`, a function of people. From it `metrics/bootstrap.py` computes the confidence interval, the
value for each third of the skin tones, and the difference to another model on the same people.

Letters: N people, S sampling seeds, W words, M = S W pictures of each person, E numbers of an embedding, F features of
both judges, K numbers of an appearance.
"""

from __future__ import annotations

import numpy as np

from gen_affect_lib.avatars import ACTION_UNITS, EMOTIONS, Appearance
from gen_affect_lib.avatars.emotions import LEVELS, branches, class_probabilities, tree_distance
from gen_affect_lib.encoders.affect import affect_of, word_affect
from gen_affect_lib.evaluation.judges.networks import Judges, as_pixels
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, ratio
from gen_affect_lib.evaluation.metrics.distribution import distribution
from gen_affect_lib.evaluation.metrics.expression import concordance, unit_errors
from gen_affect_lib.evaluation.metrics.factors import appearance_agreement
from gen_affect_lib.evaluation.sets import Plan

FALSE_ACCEPT_RATE = 1e-3


class Judgements:
    """The readings of both judges for pictures of N people.

    Args:
        images: uint8 (N, …, P, P, 3), M pictures of each person, of any side P; the judges read them at 64 pixels.

    Attributes:
        vectors: (N, M, 21), expression vectors.
        words: (N, M, 135), probabilities.
        appearance: (N, M, K).
        embeddings: (N, M, E), of the identity, unit length.
        features: (N, M, F), of both judges' trunks, to compare distributions.
    """

    def __init__(self, judges: Judges, images: np.ndarray):
        identity, expression = judges
        people = len(images)
        pixels = as_pixels(images.reshape(-1, *images.shape[-3:]))  # (N, …, P, P, 3) -> (N M, 64, 64, 3)

        def by_person(rows: np.ndarray) -> np.ndarray:
            return rows.reshape(people, -1, rows.shape[1])  # (N M, F) -> (N, M, F)

        face = expression.read(pixels)
        self.vectors, self.words, self.appearance = (by_person(p) for p in (face.vectors, face.words, face.appearance))
        self.embeddings = by_person(identity.read(pixels).embedding)
        self.features = np.concatenate([by_person(judge.features(pixels)) for judge in judges], axis=2)


class GroundTruth:
    """The references of an evaluation: the targets of a plan, and the judgements of true drawings.

    Attributes:
        drawings: `Judgements` of the true drawings, each picture with an appearance of its own.
        shared_appearance: the same with one appearance in each set, the ceiling of consistency.
        other_drawings: the same with other appearances, the true distribution for `distribution_figures`.
        references: embeddings of the references, (N, E).
        gallery: embeddings of another picture of each person and of further people, see `Plan.gallery`, (1000, E).
        threshold: the cosine that 1 in 1,000 pairs of different people exceeds.
    """

    def __init__(self, plan: Plan, judges: Judges):
        self.plan, self.judges = plan, judges
        self.drawings = Judgements(judges, plan.true_drawings())
        self.shared_appearance = Judgements(judges, plan.true_drawings("shared"))
        self.other_drawings = Judgements(judges, plan.true_drawings("other"))
        self.references = judges[0].read(plan.references).embedding
        self.gallery = judges[0].read(plan.gallery()).embedding
        cosines = self.drawings.embeddings[:, 0] @ self.gallery.T  # (N, 1000)
        cosines[np.arange(plan.people), np.arange(plan.people)] = -1  # excludes the pairs of the same person
        self.threshold = float(np.quantile(cosines, 1 - FALSE_ACCEPT_RATE))

    def figures(self, judged: Judgements, shuffle: bool = False) -> dict[str, Statistic]:
        """Every figure of pictures of this plan. With `shuffle`, each picture is compared with another word and person.

        This is the floor: the figures of a model that generates good pictures but ignores its conditioning.
        """
        words, targets = self.plan.targets(shuffle)
        person = np.roll(np.arange(self.plan.people), 1 if shuffle else 0)
        return (
            expression_figures(judged, words, targets)
            | {"leakage": leakage(judged, targets, self.plan.reference_vectors)}
            | identity_figures(judged, person, self.gallery, self.threshold)
            | consistency_figures(judged, self.plan.seeds)
            | distribution_figures(judged, self.other_drawings)
        )

    def ceiling(self) -> dict[str, Statistic]:
        """The figures of true drawings; for consistency, of drawings with one appearance in each set."""
        return self.figures(self.drawings) | consistency_figures(self.shared_appearance, self.plan.seeds)

    def floor(self) -> dict[str, Statistic]:
        """The figures of true drawings compared with another word and person; for consistency, of drawings with an
        appearance of their own."""
        return self.figures(self.drawings, shuffle=True)


def expression_figures(judged: Judgements, words: np.ndarray, targets: np.ndarray) -> dict[str, Statistic]:
    """Claim (a), the target expression is shown. words: indices, int (M,). targets: expression vectors (M, 21)."""
    errors = unit_errors(judged.vectors, targets)  # (N, M, 21)
    shape = judged.vectors.shape[:2]
    affect = affect_of(judged.vectors.reshape(-1, targets.shape[1])).reshape(*shape, 2)  # (N M, 21) -> (N, M, 2)
    true_affect = np.broadcast_to(word_affect()[words], affect.shape)
    figures: dict[str, Statistic] = {}
    for classes in LEVELS:
        right = class_probabilities(judged.words, classes).argmax(axis=-1) == branches()[classes][words]
        figures[f"expression_top1_{classes}"] = ratio(right)
    likeliest = judged.words.argmax(axis=2)
    wrong = likeliest != words
    distances = np.array([[tree_distance(EMOTIONS[a], EMOTIONS[b]) for a, b in zip(row, words)] for row in likeliest])
    return figures | {
        "action_unit_error": ratio(errors[..., : len(ACTION_UNITS)]),
        "expression_error": ratio(errors),
        "valence_concordance": lambda p: concordance(affect[p][..., 0].ravel(), true_affect[p][..., 0].ravel()),
        "arousal_concordance": lambda p: concordance(affect[p][..., 1].ravel(), true_affect[p][..., 1].ravel()),
        "tree_distance_of_mistakes": ratio(distances * wrong, wrong),
    }


def leakage(judged: Judgements, targets: np.ndarray, references: np.ndarray) -> Statistic:
    """How much of the reference's expression leaks into the pictures, from 0 (nothing) to 1 (all of it).

    λ of the least-squares fit x ≈ λ r + μ a over all pictures, with x the judged vectors, r those of the references
    (N, 21) and a the targets (M, 21). If the expression is only too weak, μ is low and λ is not affected.
    """
    x = judged.vectors
    a, r = np.broadcast_to(targets, x.shape), np.broadcast_to(references[:, None], x.shape)  # (N, M, 21)
    products = ((r, r), (a, a), (r, a), (x, r), (x, a))
    of_people = np.array([(one * other).sum(axis=(1, 2), dtype=float) for one, other in products])  # (5, N)

    def figure(people: np.ndarray) -> float:
        rr, aa, ra, xr, xa = of_people[:, people].sum(axis=1)
        return float((xr * aa - xa * ra) / max(rr * aa - ra**2, 1e-12))

    return figure


def identity_figures(
    judged: Judgements, person: np.ndarray, gallery: np.ndarray, threshold: float
) -> dict[str, Statistic]:
    """Claim (b), the identity of the reference is kept.

    Args:
        person: int (N,), the index in the gallery of each person's picture.
        gallery: embeddings (1000, E).
        threshold: the cosine above which a person is verified.
    """
    cosines = judged.embeddings @ gallery.T  # (N, M, 1000)
    own = cosines[np.arange(len(person)), :, person]  # (N, M)
    return {
        "identity_cosine": ratio(own),
        "identity_top1": ratio(cosines.argmax(axis=2) == person[:, None]),
        "identity_verified": ratio(own > threshold),
    }


def consistency_figures(judged: Judgements, seeds: int) -> dict[str, Statistic]:
    """Claim (c), the pictures of a set agree in identity and appearance. Empty for sets of one picture.

    The conditioning does not contain the appearance.
    """
    people, _, size = judged.embeddings.shape
    embeddings = judged.embeddings.reshape(people, seeds, -1, size)  # (N, M, E) -> (N, S, W, E)
    appearance = judged.appearance.reshape(*embeddings.shape[:3], -1)  # (N, M, K) -> (N, S, W, K)
    if embeddings.shape[2] < 2:
        return {}
    pairs = np.triu_indices(embeddings.shape[2], 1)
    cosines = np.einsum("nsae,nsbe->nsab", embeddings, embeddings)[:, :, pairs[0], pairs[1]]  # (N, S, pairs)
    # Only neighbouring words are compared, as a sample of all pairs; the list of words is spread over the tree.
    agreement = appearance_agreement(appearance, np.roll(appearance, 1, axis=2))
    return {
        "set_cosine": ratio(cosines),
        "set_cosine_least": ratio(cosines.min(axis=2)),
        "appearance_agreement": ratio(np.nanmean(agreement, axis=3)),
        "tilt_agreement": ratio(agreement[..., Appearance.NAMES.index("head_tilt")]),
    }


def distribution_figures(judged: Judgements, true: Judgements) -> dict[str, Statistic]:
    """Diversity and kernel distance to true drawings, see `metrics/distribution.py`. Empty for a single person."""
    return {} if len(judged.features) < 2 else distribution(judged.features, true.features)
