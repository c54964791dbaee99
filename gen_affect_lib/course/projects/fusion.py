"""The project "a new fusion": a module that turns identity tokens and expression tokens into condition tokens.

An answer is a class, or a function, that is called with D and returns a module: identity (B, I, D) and expression
(B, E, D) to condition tokens (B, N, D), as in `model.fusion.FUSIONS`. I and E are its attributes `identity_tokens` and
`expression_tokens`; without them, those of the profile.

Answer and baseline are trained as `evaluation.studies.fronts` trains its variants, with fewer pairs and steps, with the
same data, steps and seeds. Then both generate the same pictures with each pair of `SCALES`, and the areas under their
fronts are compared.

Letters: S trainings, K pairs of scales, N people, W words, I and E tokens of identity and expression, D channels.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot
from PIL import Image
from torch import nn

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
from gen_affect_lib.course.projects.report import Criterion, Report, gain, kept, place, reached
from gen_affect_lib.display import BLUE, GREEN, ORANGE, PURPLE, to_png
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.metrics.fronts import area, front
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies.study import STUDY_CODEC, Scoring, Study, Variant, generate, study_codec
from gen_affect_lib.flow import schedule
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.model.fusion import Concatenation, IdentityExpressionFusion
from gen_affect_lib.pictures import open_picture
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import Profile, get_profile

Answer = Callable[[int], nn.Module]
SCALES = ((1.0, 1.0), (1.5, 1.5), (1.5, 3.0), (3.0, 1.5))  # of identity and of expression
FULL = 0.05  # the gain in area that gives all points
MARGIN = 0.05  # what the best right and the best found may fall by
DRAWS = 500  # of the bootstrap


@dataclass(frozen=True)
class Sizes:
    """How much is trained and generated: training people and pictures of each, steps, trainings, N and W."""

    identities: int
    images: int
    codec_steps: int
    steps: int
    trainings: int = 2
    people: int = 32
    words: int = 6


SIZES = {
    "smoke": Sizes(16, 4, 10, 10, people=2, words=2),
    "laptop": Sizes(1024, 8, 700, 1200, people=48),
    "gpu": Sizes(4096, 16, 700, 4000, trainings=3, people=100, words=12),
}


class Baseline(Concatenation):
    """Identity tokens and expression tokens side by side, as many of them as a fusion with layers has parameters."""

    identity_tokens, expression_tokens = 8, 8

    def __init__(self, dim: int):
        super().__init__()


@dataclass(frozen=True)
class Scores:
    """What the trainings of a fusion reach.

    Attributes:
        shares: fractions of right and of found pictures, (S, K, 2, N).
        parameters: number of trained parameters of all networks.
        losses: validation loss of each training at sigma 0.5.
        images: of the first training at the second pair of scales, uint8 (N, W, P, P, 3).
    """

    shares: np.ndarray
    parameters: int
    losses: list[float]
    images: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """Right and found at each pair of scales, means of trainings and people: (K, 2)."""
        return self.shares.mean(axis=(0, 3))

    @property
    def area(self) -> float:
        """The area under the front, the mean of the trainings."""
        return mean_area(self.shares)

    def __str__(self) -> str:
        right, found = self.points.max(axis=0)
        return (
            f"area {self.area:.3f}, right at most {right:.3f}, found at most {found:.3f}, "
            f"loss {np.mean(self.losses):.3f}, {self.parameters:,} parameters"
        )


def mean_area(shares: np.ndarray) -> float:
    """The area under the front of shares (S, K, 2, N), the mean of the trainings."""
    return float(np.mean([area(points) for points in shares.mean(axis=3)]))


class Bench:
    """What all fusions are trained and scored with. Its codec and the baseline's trainings are kept in `folder`."""

    def __init__(self, profile: str):
        self.name, whole = get_profile(profile).name, get_profile(profile).compared()
        self.sizes = sizes = SIZES[self.name]
        pairs = replace(whole.pairs, identities=sizes.identities, images=sizes.images)
        self.profile: Profile = replace(whole, pairs=pairs, codec_steps=sizes.codec_steps)
        self.folder = place("fusion") / "runs" / f"{self.name}-{sizes.steps}-steps"
        for config in (pairs, whole.validation):
            PairCache.open(config, workers=1)  # where handed-in notebooks run, no other process can be started
        self.study = Study(self.profile, study_codec(STUDY_CODEC, self.profile, self.folder))
        self._scoring: dict[Plan, Scoring] = {}

    def plan(self, reported: bool = False) -> Plan:
        """The pictures to generate, of people to try ideas on, or of those that only the report sees."""
        return Plan(self.sizes.people, self.sizes.words, 1, REPORT_SEED if reported else VALIDATION_SEED)

    def trained(self, answer: Answer, trainings: int | None = None) -> list[tuple[dict, GenAffectPipeline]]:
        """What a row says of each training of an answer (see `study.train`), and its pipeline.

        Raises UserError for an answer that is no fusion.
        """
        sizes = token_sizes(answer, self.profile)
        require_fusion(answer, self.profile.fusion.dim, **sizes)
        variant = Variant("the answer", fusion=sizes, condition_encoder=with_fusion(answer))
        seeds = range(trainings or self.sizes.trainings)
        with tempfile.TemporaryDirectory(prefix="gen_affect_fusion_") as new:
            # A run in a kept folder is resumed, which is right only for the baseline.
            folder = self.folder if answer is Baseline else Path(new)
            return [self.study.trained("fusion", variant, seed, None, self.sizes.steps, folder) for seed in seeds]

    def scores(
        self, trained: Sequence[tuple[dict, GenAffectPipeline]], plan: Plan, scales: Sequence = SCALES
    ) -> Scores:
        """What the trainings of an answer reach on a plan."""
        score = self._scoring.setdefault(plan, Scoring(plan))
        sigmas = schedule(self.profile.sampling_steps)
        shares, first = [], None
        for _, pipeline in trained:
            sets = [generate(pipeline, plan, scale, sigmas) for scale in scales]
            counts = [score(images) for images in sets]
            shares.append([[one["right"], one["found"]] for one in counts])
            first = sets[min(1, len(sets) - 1)] if first is None else first
        assert first is not None
        rows = [row for row, _ in trained]
        losses = [row["loss"]["0.5"] for row in rows]
        return Scores(np.array(shares) / plan.words, rows[0]["parameters"], losses, first)


def token_sizes(answer: Answer, profile: Profile) -> dict[str, int]:
    """I and E of an answer."""
    names = ("identity_tokens", "expression_tokens")
    return {name: getattr(answer, name, getattr(profile.fusion, name)) for name in names}


def with_fusion(answer: Answer) -> Callable[..., IdentityExpressionFusion]:
    """A function of the sizes of `IdentityExpressionFusion` that returns one in which the answer fuses the tokens."""

    def make(**sizes: Any) -> IdentityExpressionFusion:
        sizes["fusion"] = "concatenation"  # has no weights, and is replaced
        encoder = IdentityExpressionFusion(**sizes)
        encoder.fuse = answer(sizes["dim"])
        return encoder

    return make


def require_fusion(answer: Any, dim: int, identity_tokens: int, expression_tokens: int) -> None:
    """Raise UserError unless the answer turns both kinds of tokens into finite condition tokens (B, N, D)."""
    module = answer(dim) if callable(answer) else None
    if not isinstance(module, nn.Module):
        raise UserError(f"{answer!r:.60} is no fusion: give a class or a function that returns a module for D = {dim}")
    with torch.no_grad():
        tokens = module(torch.randn(2, identity_tokens, dim), torch.randn(2, expression_tokens, dim))
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3 or tokens.shape[::2] != (2, dim) or not tokens.numel():
        came = tuple(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise UserError(f"the fusion returned {came} for a batch of 2: return condition tokens (2, N, {dim})")
    if not tokens.isfinite().all():
        raise UserError("the fusion returned numbers that are not finite: check its divisions and its weights")


def score(answer: Answer, profile: str) -> Report:
    """The report on a fusion, of people that only the report sees."""
    bench = Bench(profile)
    plan = bench.plan(reported=True)
    ours = bench.scores(bench.trained(answer), plan)
    return report(bench, plan, ours, bench.scores(bench.trained(Baseline), plan))


def report(bench: Bench, plan: Plan, ours: Scores, baseline: Scores) -> Report:
    """The report on the scores of an answer and of the baseline."""
    criteria = criteria_of(ours, baseline)
    figures = {
        "profile": bench.name,
        "sizes": asdict(bench.sizes),
        "plan": asdict(plan),
        "words": list(plan.target_words),
        "seeds": list(range(bench.sizes.trainings)),
        "scales": [list(scales) for scales in SCALES],
        "machine": describe_machine(),
    }
    for name, scores in {"answer": ours, "baseline": baseline}.items():
        areas = [round(area(points), 4) for points in scores.shares.mean(axis=3)]
        figures[name] = {"areas": areas, "losses": scores.losses, "parameters": scores.parameters}
        figures[name] |= {"points": scores.points.round(4).tolist(), "people": scores.shares.round(4).tolist()}
    return Report("fusion", criteria, figures, (picture({"answer": ours, "baseline": baseline}),))


def criteria_of(ours: Scores, baseline: Scores) -> tuple[Criterion, ...]:
    """The criteria of a report, 60 points together."""

    def against(figure: Callable[[np.ndarray], float]) -> dict[str, float]:
        return compared(ours.shares, baseline.shares, figure)

    def best(column: int) -> Callable[[np.ndarray], float]:
        return lambda shares: float(shares.mean(axis=(0, 3))[:, column].max())

    size = ours.parameters / baseline.parameters
    return (
        gain("a larger area under the front", 40, against(mean_area), FULL),
        kept("the expressions are right", 7, against(best(0)), MARGIN),
        kept("the person is found", 8, against(best(1)), MARGIN),
        reached("parameters, 1 is the baseline's", 5, dict(value=size, low=size, high=size), none=1.25, full=1.05),
    )


def compared(ours: np.ndarray, theirs: np.ndarray, figure: Callable[[np.ndarray], float]) -> dict[str, float]:
    """A figure of shares (S, K, 2, N), ours minus theirs, with a 95 % interval.

    The bootstrap draws people and trainings, the same ones of both: a training and the baseline's with the same seed
    have the same batches and the same noise.
    """
    rng, (trainings, _, _, people) = np.random.default_rng(0), ours.shape

    def drawn(shares: np.ndarray, runs: np.ndarray, chosen: np.ndarray) -> float:
        return figure(shares[runs][..., chosen])

    samples = []
    for _ in range(DRAWS):
        runs, chosen = rng.integers(0, trainings, trainings), rng.integers(0, people, people)
        samples.append(drawn(ours, runs, chosen) - drawn(theirs, runs, chosen))
    low, high = np.percentile(samples, (2.5, 97.5))
    return {"value": figure(ours) - figure(theirs), "low": float(low), "high": float(high)}


def picture(scores: dict[str, Scores]) -> tuple[Image.Image, str]:
    """The fronts of at most four fusions as one picture, and its alternative text."""
    figure, axis = pyplot.subplots(figsize=(6.5, 3.8), layout="constrained")
    styles = zip((BLUE, ORANGE, GREEN, PURPLE), ("-", "--", "-.", ":"), "os^D")
    for (name, one), (color, line, marker) in zip(scores.items(), styles):
        corners = front(one.points)
        steps = np.concatenate([[(0, corners[0, 1])], corners, [(corners[-1, 0], 0)]])
        axis.plot(*steps.T, line, drawstyle="steps-pre", color=color, label=f"{name}, area {one.area:.3f}")
        axis.plot(*one.points.T, marker, color=color, markersize=5)
    axis.set(xlabel="right expression (group of 25)", ylabel="person found among 1,000")
    axis.set(xlim=(0, None), ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    said = ", ".join(f"{name} {one.area:.3f}" for name, one in scores.items())
    alt = f"Fronts as descending steps, right expressions to the right, people found upwards. Areas: {said}."
    return open_picture(Image.open(io.BytesIO(to_png(figure)))), alt
