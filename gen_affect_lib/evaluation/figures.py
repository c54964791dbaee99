"""From pictures to figures: what the judges say of a model's sets, of true drawings, and of shuffled pairs.

A figure is a function of people: given their places (with repetitions, as the bootstrap draws them) it returns one
number. So each comes with an interval over people, with its value for each third of the skin tones, and beside that of
another model on the same people.

Letters: N people, S sampling seeds, W words, M = S W pictures of each person, E numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gen_affect_lib.avatars import ACTION_UNITS, EMOTIONS, Appearance
from gen_affect_lib.avatars.emotions import LEVELS, branches, membership, tree_distance
from gen_affect_lib.encoders.affect import affect_of, word_affect
from gen_affect_lib.evaluation.judges.networks import ExpressionJudge, IdentityJudge
from gen_affect_lib.evaluation.judges.scores import right_factors, unit_errors
from gen_affect_lib.evaluation.metrics.skin import THIRDS
from gen_affect_lib.evaluation.reading import concordance
from gen_affect_lib.evaluation.sets import Plan

Figure = Callable[[np.ndarray], float]
FALSE_ACCEPTS = 1e-3


def ratio(numerators: np.ndarray, denominators: np.ndarray | None = None) -> Figure:
    """Sum over sum of what each person brings, (N, …) both; without denominators the mean."""
    denominators = np.ones_like(numerators, float) if denominators is None else denominators
    above, below = (np.asarray(part, float).reshape(len(part), -1).sum(axis=1) for part in (numerators, denominators))
    return lambda people: float(above[people].sum() / max(below[people].sum(), 1e-12))


class Judged:
    """All that both judges say of some pictures, read once.

    Attributes:
        vectors: (N, M, 21). words: (N, M, 135), probabilities. looks: (N, M, K), the appearance.
        who: (N, M, E), unit length. features: (N, M, F), of both trunks, for distributions.
    """

    def __init__(self, judges: tuple[IdentityJudge, ExpressionJudge], images: np.ndarray):
        identity, expression = judges
        people = len(images)
        pixels = images.reshape(-1, *images.shape[-3:])  # (N, …, P, P, 3) -> (N M, P, P, 3)

        def by_person(rows):
            return rows.reshape(people, -1, rows.shape[1])  # (N M, F) -> (N, M, F)

        face = expression.read(pixels)
        self.vectors, self.words, self.looks = (by_person(p) for p in (face.factors, face.words, face.appearance))
        self.who = by_person(identity.read(pixels).embedding)
        self.features = np.concatenate([by_person(judge.features(pixels)) for judge in judges], axis=2)


class Truth:
    """What pictures are held against: the plan, and what the judges say of true drawings.

    Args:
        plan: whom and what was asked for.
        judges: both.
    """

    def __init__(self, plan: Plan, judges: tuple[IdentityJudge, ExpressionJudge]):
        self.plan, self.judges = plan, judges
        self.drawn = Judged(judges, plan.truth())
        self.one_look = Judged(judges, plan.truth("one"))
        self.others = Judged(judges, plan.truth("other"))  # what a distribution is held against, true drawings' too
        self.gallery = judges[0].read(plan.gallery()).embedding  # (1000, E)
        # The cosine that pairs of different people hardly ever reach; everybody in the gallery is somebody else.
        strangers = self.drawn.who[:, 0] @ self.gallery.T  # (N, 1000)
        strangers[np.arange(plan.people), np.arange(plan.people)] = -1
        self.threshold = float(np.quantile(strangers, 1 - FALSE_ACCEPTS))

    def figures(self, judged: Judged, shuffle: bool = False) -> dict[str, Figure]:
        """Every figure of some pictures of this plan. With `shuffle` each is held against the truth of another word and
        another person: the floor, which a model reaches that draws well but not what it is asked for."""
        words, asked = self.plan.targets(shuffle)
        person = np.roll(np.arange(self.plan.people), 1 if shuffle else 0)
        return (
            expression_figures(judged, words, asked)
            | {"leakage": leakage(judged, asked, self.plan.shown)}
            | identity_figures(judged, person, self.gallery, self.threshold)
            | consistency_figures(judged, self.plan.seeds)
            | distribution_figures(judged, self.others)
        )

    def ceiling(self) -> dict[str, Figure]:
        """What true drawings reach; for the consistency of a set, drawings with one appearance."""
        return self.figures(self.drawn) | consistency_figures(self.one_look, self.plan.seeds)

    def floor(self) -> dict[str, Figure]:
        """What true drawings of another word and another person reach; for consistency, each with its own appearance."""
        return self.figures(self.drawn, shuffle=True)


def class_probabilities(words: np.ndarray, classes: int) -> np.ndarray:
    """From those of the 135 words (…, 135) to those of 6 families, 25 groups or the words themselves: (…, classes)."""
    return words @ membership(classes).astype(float)


def expression_figures(judged: Judged, words: np.ndarray, asked: np.ndarray) -> dict[str, Figure]:
    """Claim (a): is it the expression asked for? words (M,), asked (M, 21)."""
    errors = unit_errors(judged.vectors, asked)  # (N, M, 21)
    shape = judged.vectors.shape[:2]
    affect = affect_of(judged.vectors.reshape(-1, asked.shape[1])).reshape(*shape, 2)  # (N M, 21) -> (N, M, 2)
    true_affect = np.broadcast_to(word_affect()[words], affect.shape)
    figures: dict[str, Figure] = {}
    for classes in LEVELS:
        right = class_probabilities(judged.words, classes).argmax(axis=-1) == branches()[classes][words]
        figures[f"expression_top1_{classes}"] = ratio(right)
    said = judged.words.argmax(axis=2)
    wrong = said != words
    distances = np.array([[tree_distance(EMOTIONS[a], EMOTIONS[b]) for a, b in zip(row, words)] for row in said])
    return figures | {
        "action_unit_error": ratio(errors[..., : len(ACTION_UNITS)]),
        "expression_error": ratio(errors),
        "valence_concordance": lambda p: concordance(affect[p][..., 0].ravel(), true_affect[p][..., 0].ravel()),
        "arousal_concordance": lambda p: concordance(affect[p][..., 1].ravel(), true_affect[p][..., 1].ravel()),
        "tree_distance_of_mistakes": ratio(distances * wrong, wrong),
    }


def leakage(judged: Judged, asked: np.ndarray, shown: np.ndarray) -> Figure:
    """How much of the reference's expression (N, 21) is on the results beside the one asked for (M, 21): 0 is nothing, 1
    is all of it. By least squares, what was drawn is so many times what the reference shows plus so many times what was
    asked for. The first is the leakage; a face that shows too faintly what it should lacks in the second."""
    drawn = judged.vectors
    asked, shown = np.broadcast_to(asked, drawn.shape), np.broadcast_to(shown[:, None], drawn.shape)  # (N, M, 21)
    products = ((shown, shown), (asked, asked), (shown, asked), (drawn, shown), (drawn, asked))
    of_people = np.array([(one * other).sum(axis=(1, 2), dtype=float) for one, other in products])  # (5, N)

    def figure(people: np.ndarray) -> float:
        ss, aa, sa, ds, da = of_people[:, people].sum(axis=1)
        return float((ds * aa - da * sa) / max(ss * aa - sa**2, 1e-12))

    return figure


def identity_figures(judged: Judged, person: np.ndarray, gallery: np.ndarray, threshold: float) -> dict[str, Figure]:
    """Claim (b): is it the person of the reference? person (N,): whose place in the gallery (1000, E) is the right one."""
    likeness = judged.who @ gallery.T  # (N, M, 1000)
    own = likeness[np.arange(len(person)), :, person]  # (N, M)
    return {
        "identity_cosine": ratio(own),
        "identity_top1": ratio(likeness.argmax(axis=2) == person[:, None]),
        "identity_verified": ratio(own > threshold),
    }


def consistency_figures(judged: Judged, seeds: int) -> dict[str, Figure]:
    """Claim (c): do the pictures of one set agree, on who it is and on what the condition leaves open?"""
    who = judged.who.reshape(len(judged.who), seeds, -1, judged.who.shape[2])  # (N, M, E) -> (N, S, W, E)
    looks = judged.looks.reshape(*who.shape[:3], -1)  # (N, M, K) -> (N, S, W, K)
    if who.shape[2] < 2:  # one picture is no set
        return {}
    pairs = np.triu_indices(who.shape[2], 1)
    cosines = np.einsum("nsae,nsbe->nsab", who, who)[:, :, pairs[0], pairs[1]]  # (N, S, pairs)
    # Neighbours in the list of words, which is spread over the tree, stand for all pairs.
    agreement = appearance_agreement(looks, np.roll(looks, 1, axis=2))
    return {
        "set_cosine": ratio(cosines),
        "set_cosine_least": ratio(cosines.min(axis=2)),
        "appearance_agreement": ratio(np.nanmean(agreement, axis=3)),
    }


def appearance_agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether two readings (…, K) of clothes, earrings, background and tilt say the same, to a sixteenth of each range:
    (…, 9), nan for the colour of earrings where the other wears none."""
    rows = right_factors(Appearance, one.reshape(-1, one.shape[-1]), other.reshape(-1, other.shape[-1]))
    return np.stack(list(rows.values()), axis=-1).reshape(*one.shape[:-1], -1)  # (… , 9)


def distribution_figures(judged: Judged, others: Judged) -> dict[str, Figure]:
    """Is it as varied as true drawings are, and spread alike?

    "diversity": how far pictures of different people with one word lie apart (1 - cosine of the judges' features, from
    their mean over true drawings), as a share of true drawings; one mean face for all would be 0. "kid": the kernel
    distance of Binkowski et al. (2018) with the features of the judges, which know drawings, in place of Inception's,
    which do not; 0 where two distributions are alike.
    """
    if len(judged.features) < 2:  # one person is no distribution
        return {}
    mean, spread = others.features.mean(axis=(0, 1)), others.features.std(axis=(0, 1))
    spread = np.maximum(spread, 0.1 * spread.mean())  # a feature that drawings hardly use would outweigh all others
    ours, true = ((part.features - mean) / spread for part in (judged, others))
    apart, true_apart = (1 - _between(_unit(part)) for part in (ours, true))
    blocks = [_kernel(a, b) for a, b in ((ours, ours), (true, true), (ours, true))]

    def diversity(people: np.ndarray) -> float:
        return _of_two(apart, people) / _of_two(true_apart, people)

    def kid(people: np.ndarray) -> float:
        own, real, cross = (_of_two(block, people) for block in blocks)
        return own + real - 2 * cross

    return {"diversity": diversity, "kid": kid}


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _between(x: np.ndarray) -> np.ndarray:
    """Mean product of pictures of the same word of each two people: (N, M, F) -> (N, N)."""
    return np.einsum("nmf,kmf->nk", x, x, optimize=True) / x.shape[1]


def _of_two(table: np.ndarray, people: np.ndarray) -> float:
    """Mean of a table (N, N) over all pairs of different people; nan where the bootstrap drew one person alone."""
    others = people[:, None] != people  # it draws some twice, and nobody is apart from themselves
    return float(table[np.ix_(people, people)][others].mean()) if others.any() else float("nan")


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean of (x·y / F + 1)³ over all pictures of each two people: (N, M, F) twice -> (N, N)."""
    N, M, F = a.shape
    result = np.empty((N, N))
    for n in range(N):  # one person at a time keeps the memory small
        products = (a[n] @ b.reshape(-1, F).T / F + 1) ** 3  # (M, N M)
        result[n] = products.reshape(M, N, M).mean(axis=(0, 2))
    return result


# --- summaries --------------------------------------------------------------------------------------------------------


def bootstrap(figure: Figure, people: int, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """The middle 95 % of a figure when people are drawn again with replacement."""
    rng = np.random.default_rng(seed)
    values = [figure(rng.integers(0, people, people)) for _ in range(draws)]
    return tuple(float(v) for v in np.nanpercentile(values, (2.5, 97.5)))


def difference(ours: Figure, theirs: Figure, people: int, draws: int = 500, seed: int = 0) -> dict[str, float]:
    """By how much ours is above theirs on the same people, with the interval of the paired bootstrap."""
    everybody = np.arange(people)
    low, high = bootstrap(lambda p: ours(p) - theirs(p), people, draws, seed)
    return {"value": ours(everybody) - theirs(everybody), "low": low, "high": high}


def summary(figures: dict[str, Figure], tones: np.ndarray, draws: int = 500) -> dict[str, dict[str, float]]:
    """Each figure of all N people, with its interval, and for each third of the tones (N,) with the largest gap."""
    everybody, table = np.arange(len(tones)), {}
    for name, figure in figures.items():
        low, high = bootstrap(figure, len(tones), draws)
        thirds = {t: figure(np.flatnonzero(tones == k)) for k, t in enumerate(THIRDS) if (tones == k).sum() > 1}
        gap = max(thirds.values()) - min(thirds.values()) if thirds else 0.0
        table[name] = {"value": figure(everybody), "low": low, "high": high, **thirds, "gap": gap}
    return table
