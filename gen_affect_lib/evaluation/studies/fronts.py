"""Comparison of fusions and baselines by their fronts: expression right against person found, over guidance scales.

    python -m gen_affect_lib compare fronts --steps 2000 --seeds 1
    python -m gen_affect_lib compare fronts --steps 2000 --seeds 3 --only ours,concatenation,decoupled

Each variant is trained from random weights, with the same data, the same number of steps and, within 5 %, the same
number of parameters. It then generates the same pictures from the same noise with each pair of guidance scales of
`SCALES`. One pair of scales would favour the variants that it suits; a front needs no choice of scales.

- "right": the expression judge's likeliest of the 25 groups is that of the target word.
- "found": among 1,000 people the identity judge finds the person. The gallery has another picture of each person, with
  another expression and another appearance than the reference.

Letters: N people, W words, K pairs of scales, S trainings of a variant with different seeds.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from gen_affect_lib.evaluation.metrics.fronts import area, shortfall
from gen_affect_lib.evaluation.quality import restore
from gen_affect_lib.evaluation.report import Rows, heading
from gen_affect_lib.evaluation.rivals.decoupled import DecoupledDiT
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies.study import STUDY_CODEC, Scoring, Study, Variant, generate, study_codec
from gen_affect_lib.flow import schedule
from gen_affect_lib.profiles import Profile

GUIDANCE = (1.0, 1.5, 2.0, 3.0)  # of identity and of expression
SCALES = tuple(product(GUIDANCE, GUIDANCE))

BASELINES = {
    "ours": Variant("fused and exact tokens"),
    "resampler": Variant("fused tokens only", fusion=dict(fusion="resampler", condition_tokens=16)),
    "concatenation": Variant(
        "tokens side by side", fusion=dict(fusion="concatenation", identity_tokens=8, expression_tokens=8)
    ),
    "decoupled": Variant(
        "decoupled cross-attention in place of joint attention",
        network=DecoupledDiT,
        transformer=dict(num_layers=7, identity_tokens=4),
        fusion=dict(fusion="concatenation", identity_tokens=4, expression_tokens=4),
    ),
    "sum": Variant("sum", fusion=dict(fusion="sum", identity_tokens=12, expression_tokens=4)),
    "residual_mlp": Variant("residual MLP", fusion=dict(fusion="residual_mlp", identity_tokens=8, expression_tokens=4)),
    "reconstruction": Variant("ours, trained to reconstruct the reference", same_picture=True),
    "identity_only": Variant("ours, without the expression", blind_to="expression"),
    "expression_only": Variant("ours, without the identity", blind_to="identity"),
}


def scales_of(variant: Variant) -> tuple[tuple[float, float], ...]:
    """`SCALES`, without those that change nothing for a variant that lacks one of the conditions."""
    if variant.blind_to is None:
        return SCALES
    return tuple((1.0, s) if variant.blind_to == "identity" else (s, 1.0) for s in GUIDANCE)


def compare_fronts(
    profile: Profile,
    plan: Plan,
    minutes: float | None,
    steps: int | None,
    seeds: int,
    names: list[str],
    path: Path,
    folder: Path,
) -> dict:
    """Train each variant with each seed and score it with all scales; an interrupted call can be resumed.

    Returns the rows that it writes to `path`. The rows "drawings" and "reconstructed", the true drawings and what the
    codec makes of them, are the ceiling. A row has "points": the scales, and "right" and "found" as `Scoring.score`
    gives them.
    """
    profile = profile.compared()
    rows = Rows(path, heading(profile, plan, minutes, steps))
    study, score = Study(profile, study_codec(STUDY_CODEC, profile, folder)), Scoring(plan)
    sigmas = schedule(profile.sampling_steps)

    if "drawings" not in rows:
        true = plan.true_drawings()[:, 0]
        rows.add({"name": "drawings", "about": "the true drawings", "points": [score(true)]})
        restored = restore(study.codec, true)
        rows.add({"name": "reconstructed", "about": "their reconstructions", "points": [score(restored)]})
    for seed, name in rows.missing(names, seeds):
        row, pipeline = study.trained(name, BASELINES[name], seed, minutes, steps, folder)
        points = [
            {"scales": list(scales)} | score(generate(pipeline, plan, scales, sigmas))
            for scales in scales_of(BASELINES[name])
        ]
        rows.add(row | {"points": points})
    return rows.save()


def shares(result: dict) -> dict[str, np.ndarray]:
    """The shares right and found of each trained variant: (S, K, 2, N), for trainings, scales, both figures, people."""
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(row["name"] for row in result["rows"] if "steps" in row):
        runs = [row["points"] for row in result["rows"] if row["name"] == name]
        counts = np.array([[(point["right"], point["found"]) for point in points] for points in runs])
        found[name] = counts / len(result["words"])
    return found


def table(result: dict, draws: int = 500) -> dict[str, dict[str, dict[str, float]]]:
    """The fronts of a comparison in numbers, for each trained variant, with 95 % intervals.

    "area": see `fronts.area`, the mean of the trainings. "behind": the area of ours minus that of the variant.
    "shortfall": of ours to the variant, see `fronts.shortfall`; at most 0 where ours lies on or above it everywhere.
    The last two are left out if ours was not trained.

    The bootstrap draws people, the same ones for all variants, and of each variant its trainings. With one training
    the interval does not contain the variance between trainings.
    """
    people, runs = result["plan"]["people"], shares(result)

    def values(chosen: np.ndarray, rng: np.random.Generator | None) -> dict[str, dict[str, float]]:
        drawn = {}
        for name, of in runs.items():
            trainings = np.arange(len(of)) if rng is None else rng.integers(0, len(of), len(of))
            drawn[name] = of[trainings][..., chosen].mean(axis=3)  # (S, K, 2)
        figures = {name: {"area": float(np.mean([area(points) for points in of]))} for name, of in drawn.items()}
        if "ours" in drawn:
            ours = drawn["ours"].mean(axis=0)  # (K, 2)
            for name, of in drawn.items():
                figures[name]["behind"] = figures["ours"]["area"] - figures[name]["area"]
                figures[name]["shortfall"] = shortfall(ours, of.mean(axis=0))
        return figures

    rng = np.random.default_rng(0)
    samples = [values(rng.integers(0, people, people), rng) for _ in range(draws)]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, row in values(np.arange(people), None).items():
        figures[name] = {}
        for figure, value in row.items():
            low, high = np.percentile([sample[name][figure] for sample in samples], (2.5, 97.5))
            figures[name][figure] = {"value": value, "low": float(low), "high": float(high)}
    return figures


def say(result: dict) -> str:
    """The table of a comparison as text."""
    lines = [f"{'':16} {'area under the front':24} {'ours minus it':24} {'shortfall of ours':24}"]
    for name, row in table(result).items():
        said = (f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in row.values())
        lines.append(f"{name:16} " + " ".join(f"{text:24}" for text in said))
    return "\n".join(lines)
