"""Comparison of samplers with few evaluations of the network: the shipped model, the same pictures from the same noise.

    python -m gen_affect_lib compare few_steps --identities 24 --words 10

A sampler is a method, a number of steps and the shift of its schedule. Choose it on validation people; the bar is the
sampler with 20 Euler steps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars import Expression
from gen_affect_lib.device import pick_device
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, difference, estimate, ratio
from gen_affect_lib.evaluation.metrics.nearest import difference as face_difference
from gen_affect_lib.evaluation.metrics.nearest import strong_edges, true_faces
from gen_affect_lib.evaluation.report import Rows
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies.study import Scoring, generate
from gen_affect_lib.flow import schedule
from gen_affect_lib.keys import fingerprint
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.pipeline import GenAffectPipeline


@dataclass(frozen=True)
class Sampler:
    """A method of `flow.sample`, with the steps and the shift of `flow.schedule`."""

    steps: int
    shift: float = 1.0
    method: str = "euler"

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one picture, each with all conditions of guidance."""
        return self.steps if self.method == "euler" else 2 * self.steps - 1


SAMPLERS = {
    "euler_20": Sampler(20),
    "euler_8": Sampler(8),
    "euler_4": Sampler(4),
    "euler_4_shift_0.5": Sampler(4, 0.5),
    "euler_4_shift_1.5": Sampler(4, 1.5),
    "euler_4_shift_2": Sampler(4, 2.0),
    "euler_4_shift_3": Sampler(4, 3.0),
    "heun_2": Sampler(2, method="heun"),
    "heun_2_shift_2": Sampler(2, 2.0, "heun"),
    "heun_4": Sampler(4, method="heun"),
    "euler_2": Sampler(2),
}
BAR = "euler_20"
FIGURES = ("right", "found", "face", "edges")


def compare_few_steps(plan: Plan, names: list[str], path: Path) -> dict:
    """Generate a plan's pictures with `BAR` and each sampler, and score them; an interrupted call can be resumed.

    Returns the rows that it writes to `path`. A row has "evaluations", and in "people" one number for each person:
    "right" and "found" as of `Scoring`, in how many pictures; "face", the mean difference to the true face, see
    `nearest.difference`; "edges", the mean of `nearest.strong_edges`. `table` makes figures of them.
    """
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED).to(pick_device())
    pipeline.face_pack = FacePack()
    about = {"weights": fingerprint(SHIPPED), "plan": asdict(plan), "words": list(plan.target_words)}
    rows, score = Rows(path, about), Scoring(plan)
    scales = pipeline.config["identity_scale"], pipeline.config["expression_scale"]
    expressions = [Expression.named(word) for word in plan.target_words]
    for name in dict.fromkeys([BAR, *names]):
        if name in rows:
            continue
        sampler = SAMPLERS[name]
        sigmas = schedule(sampler.steps, sampler.shift)
        images = generate(pipeline, plan, scales, sigmas, sampler.method, batch_size=16)
        size = images.shape[2]
        faces = [
            np.mean([face_difference(image, true_faces(who, what, size)) for image, what in zip(pictures, expressions)])
            for pictures, who in zip(images, plan.identities)
        ]
        edges = [np.mean([strong_edges(image) for image in pictures]) for pictures in images]
        people = score(images) | {
            "face": [round(float(face), 5) for face in faces],
            "edges": [round(float(edge), 5) for edge in edges],
        }
        rows.add({"name": name, **vars(sampler), "evaluations": sampler.evaluations, "people": people})
    return rows.save()


def table(result: dict, bar: str = BAR) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of each sampler, with intervals over people, and their difference to the sampler `bar` as "to_bar_…".

    "right" and "found" are shares of all pictures.
    """
    people, words = result["plan"]["people"], len(result["words"])
    rows = {row["name"]: row["people"] for row in result["rows"]}

    def statistic(name: str, figure: str) -> Statistic:
        return ratio(np.array(rows[name][figure]) / (words if figure in ("right", "found") else 1))

    return {
        name: {figure: estimate(statistic(name, figure), people) for figure in FIGURES}
        | {
            f"to_bar_{figure}": difference(statistic(name, figure), statistic(bar, figure), people)
            for figure in FIGURES
        }
        for name in rows
    }


def say(result: dict) -> str:
    """The figures of a comparison as text, in brackets the difference to the sampler `BAR`."""
    lines = []
    for name, row in table(result).items():
        said = (f"{figure} {row[figure]['value']:.4f} ({row[f'to_bar_{figure}']['value']:+.4f})" for figure in FIGURES)
        lines.append(f"{name:18} {SAMPLERS[name].evaluations:2} evaluations: " + ", ".join(said))
    return "\n".join(lines)
