"""The project "a new way to share": which keys and values do the images of a set attend to?

Nothing is trained. The shipped pipeline generates sets of people that no choice was made on, with the answer and with
the baseline, in which every image is alone. All images of a set start from the same noise in both, so the difference is
what sharing attention does.

The figure that counts is the agreement of the pictures that are of use: how far the looks of two pictures of a set
agree, 0 where one of the two shows a wrong expression or another person. Without that condition the best set would be
one in which all pictures are the same.

Letters: N people, W words, K numbers of an appearance.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image

from gen_affect_lib.avatars.emotions import GROUPS, branches, class_probabilities
from gen_affect_lib.avatars.splits import REPORT_SEED, VALIDATION_SEED
from gen_affect_lib.course.projects.report import Report, gain, kept, reached
from gen_affect_lib.device import pick_device
from gen_affect_lib.display import grid
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.figures import Judgements
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.metrics.bootstrap import difference, estimate, ratio
from gen_affect_lib.evaluation.metrics.factors import appearance_agreement
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.model.attention import JointAttention
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline

Answer = Callable[[int], JointAttention] | Consistency
PLANS = {"smoke": (2, 3), "laptop": (16, 6), "gpu": (48, 12)}  # people and words
STEPS = {"smoke": 4, "laptop": None, "gpu": None}  # of sampling; None: the pipeline's

BASELINE = Consistency(share=0.0)  # every image alone; all start from the noise of the first
SHIPPED_BANK = Consistency()
FULL = 0.15  # the gain that gives all points; the shipped bank reaches 0.17 on the people of the report
MARGIN = 0.05  # what right expressions and people found may fall by


def plan(profile: str, *, reported: bool = False) -> Plan:
    """The sets of a profile, of people to try ideas on, or of those that only the report sees.

    Raises UserError for a profile that does not exist.
    """
    if profile not in PLANS:
        raise UserError(f"profile {profile!r} does not exist: give one of {', '.join(PLANS)}")
    people, words = PLANS[profile]
    return Plan(people, words, 1, REPORT_SEED if reported else VALIDATION_SEED)


@dataclass(frozen=True)
class Scores:
    """What one way of sharing reaches on a plan, for each person: arrays (N,).

    Attributes:
        agreement: how far the looks of neighbouring pictures agree, in [0, 1].
        of_use: the same, 0 where one of the two pictures is of no use.
        right: fraction of pictures with the right group of 25.
        found: fraction of pictures whose person is found among 1,000.
        seconds: computing time of an image.
        images: uint8 (N, W, P, P, 3).
    """

    agreement: np.ndarray
    of_use: np.ndarray
    right: np.ndarray
    found: np.ndarray
    seconds: np.ndarray
    images: np.ndarray

    def __str__(self) -> str:
        said = {"agreement of use": self.of_use, "agreement": self.agreement, "right": self.right, "found": self.found}
        parts = [f"{name} {values.mean():.3f}" for name, values in said.items()]
        return ", ".join([*parts, f"{self.seconds.mean():.2f} s an image"])


class Sets:
    """Generates and scores the sets of a plan. profile: for the number of sampling steps."""

    def __init__(self, some: Plan, profile: str):
        self.plan, self.steps = some, STEPS[profile]
        self.pipeline = GenAffectPipeline.from_pretrained(SHIPPED).to(pick_device())
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.face_pack = FacePack()
        self.judges = both_judges()
        self.gallery = self.judges[0].read(some.gallery()).embedding  # (1000, E)

    def __call__(self, answer: Answer) -> Scores:
        """What a way of sharing reaches. Raises UserError if it is no way of sharing."""
        images, seconds = [], []
        for reference, seed in zip(self.plan.references, self.plan.person_seeds):
            start = time.process_time()  # other processes may use the core as well
            images.append(self._set(answer, reference, seed))
            seconds.append((time.process_time() - start) / self.plan.words)
        return self._scores(np.stack(images), np.array(seconds))

    def _set(self, answer: Answer, reference: np.ndarray, seed: int) -> np.ndarray:
        """The pictures of one person: uint8 (W, P, P, 3)."""
        words = list(self.plan.target_words)
        if isinstance(answer, Consistency):
            options = {"consistency": answer, "generator": torch.Generator().manual_seed(seed)}
        elif callable(answer) and callable(attention := answer(len(words))):
            # The same seed for each image, so that all start from the same noise
            same = [torch.Generator().manual_seed(seed) for _ in words]
            options = {"attention": attention, "generator": same}
        else:
            raise UserError(
                f"{answer!r:.60} is no way of sharing: give a function of the number of images that returns a joint "
                "attention, such as a class whose objects can be called, or a Consistency"
            )
        output = self.pipeline(reference, words, num_inference_steps=self.steps, as_drawn=True, **options)
        return np.stack([np.asarray(image) for image in output.images])

    def _scores(self, images: np.ndarray, seconds: np.ndarray) -> Scores:
        judged = Judgements(self.judges, images)
        words, _ = self.plan.targets()
        groups = class_probabilities(judged.words, len(GROUPS)).argmax(axis=2)  # (N, W)
        right = groups == branches()[len(GROUPS)][words]
        nearest = (judged.embeddings @ self.gallery.T).argmax(axis=2)  # (N, W)
        found = nearest == np.arange(self.plan.people)[:, None]
        # Each picture is compared with the one before it; the words go round, so each is compared twice.
        agreement = np.nanmean(appearance_agreement(judged.appearance, np.roll(judged.appearance, 1, axis=1)), axis=2)
        useful = right & found
        both = useful & np.roll(useful, 1, axis=1)
        figures = {"agreement": agreement, "of_use": agreement * both, "right": right, "found": found}
        by_person = {name: figure.mean(axis=1) for name, figure in figures.items()}
        return Scores(**by_person, seconds=seconds, images=images)


def score(answer: Answer, profile: str) -> Report:
    """The report on a way of sharing, of people that only the report sees."""
    sets = Sets(plan(profile, reported=True), profile)
    return report(sets.plan, sets(answer), sets(BASELINE), sets(SHIPPED_BANK))


def report(some: Plan, ours: Scores, baseline: Scores, bank: Scores) -> Report:
    """The report on scores; the shipped bank is only shown beside the others."""
    people = some.people
    cost = ours.seconds / baseline.seconds.mean()

    def against(name: str) -> dict[str, float]:
        return difference(ratio(getattr(ours, name)), ratio(getattr(baseline, name)), people)

    criteria = (
        gain("the pictures of use agree", 40, against("of_use"), FULL),
        kept("the expressions stay right", 7, against("right"), MARGIN),
        kept("the person is found", 8, against("found"), MARGIN),
        reached("time of an image, 1 is the baseline's", 5, estimate(ratio(cost), people), none=4.0, full=2.0),
    )
    names = {"answer": ours, "baseline": baseline, "shipped bank": bank}
    figures = {
        "plan": asdict(some),
        "words": list(some.target_words),
        "machine": describe_machine(),
        **{name: _figures(scores) for name, scores in names.items()},
    }
    return Report("sharing", criteria, figures, (picture(names, list(some.target_words)),))


def _figures(scores: Scores) -> dict[str, list[float]]:
    """The numbers of each person."""
    values = {name: value for name, value in vars(scores).items() if name != "images"}
    return {name: [round(float(one), 4) for one in value] for name, value in values.items()}


def picture(ways: dict[str, Scores], words: list[str], person: int = 0) -> tuple[Image.Image, str]:
    """The sets of one person in several ways, one row for each way, and the alternative text."""
    shown = min(6, len(words))
    images = [image for scores in ways.values() for image in scores.images[person, :shown]]
    sheet = grid(images, words[:shown], rows=len(ways), row_titles=list(ways), tile=96)
    said = ", ".join(f"{name} {scores.agreement[person]:.2f}" for name, scores in ways.items())
    alt = f"Sets of one person with {shown} expressions, one row for each way. Agreement of the looks: {said}."
    return sheet, alt
