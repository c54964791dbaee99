"""Comparison of autoencoders by what a generator makes of their latents, and not by their reconstructions alone.

    python -m gen_affect_lib compare codecs --steps 2000

Each autoencoder is trained equally long, and on its latents an equal generator. A codec that reconstructs well may have
latents that a generator learns badly; then the generated pictures are much worse than the reconstructions, and more
training of the codec does not help. Notebook 08 shows the table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars import Expression
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, ratio
from gen_affect_lib.evaluation.metrics.nearest import difference, strong_edges, true_faces
from gen_affect_lib.evaluation.quality import restore
from gen_affect_lib.evaluation.report import Rows, heading, intervals
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies.study import (
    CODEC_KINDS,
    Scoring,
    Study,
    Variant,
    generate,
    study_codec,
)
from gen_affect_lib.flow import schedule
from gen_affect_lib.profiles import Profile


def compare_codecs(
    profile: Profile,
    plan: Plan,
    minutes: float | None,
    steps: int | None,
    seeds: int,
    names: list[str],
    path: Path,
    folder: Path,
) -> dict:
    """Train each autoencoder, and with each seed a generator on its latents; an interrupted call can be resumed.

    Returns the rows that it writes to `path`. A row has the figures "reconstructed" and "generated", each as of
    `figures`; those of the row "drawings" are the ceiling, drawings of the same people with other appearances.
    """
    profile = profile.compared()
    rows, score = Rows(path, heading(profile, plan, minutes, steps)), Scoring(plan)
    true = plan.true_drawings()[:, 0]
    scales, sigmas = (profile.identity_scale, profile.expression_scale), schedule(profile.sampling_steps)

    def keep(row: dict, pictures: dict[str, np.ndarray]) -> None:
        rows.add(row | {of: intervals(figures(images, plan, score), plan.people) for of, images in pictures.items()})

    if "drawings" not in rows:
        keep({"name": "drawings", "about": "the true drawings"}, {"drawn": plan.true_drawings("other")[:, 0]})
    for seed, name in rows.missing(names, seeds):
        codec = study_codec(name, profile, folder)
        study = Study(profile, codec)
        row, pipeline = study.trained(name, Variant(CODEC_KINDS[name].about), seed, minutes, steps, folder)
        row["codec_parameters"] = sum(p.numel() for p in codec.parameters())
        pictures = {"reconstructed": restore(codec, true), "generated": generate(pipeline, plan, scales, sigmas)}
        keep(row, pictures)
    return rows.save()


def figures(
    images: np.ndarray, plan: Plan, score: Callable[[np.ndarray], dict[str, list[int]]]
) -> dict[str, Statistic]:
    """Figures of a plan's pictures uint8 (N, W, P, P, 3).

    "face_difference": to the true face, see `nearest.difference`. "edges": see `nearest.strong_edges`. "right" and
    "found": shares, see `Scoring`.
    """
    size, expressions = images.shape[2], [Expression.named(word) for word in plan.target_words]
    faces = np.array(
        [
            [difference(image, true_faces(who, what, size)) for image, what in zip(pictures, expressions)]
            for pictures, who in zip(images, plan.identities)
        ]
    )
    edges = np.array([[strong_edges(image) for image in pictures] for pictures in images])
    shares = {name: ratio(np.array(counts) / plan.words) for name, counts in score(images).items()}
    return {"face_difference": ratio(faces), "edges": ratio(edges)} | shares


def say(result: dict) -> str:
    """The face differences and edges of a comparison as text."""
    lines = []
    for row in result["rows"]:
        for of in ("drawn", "reconstructed", "generated"):
            if of in row:
                said = (f"{name} {figure['value']:.4f}" for name, figure in row[of].items())
                lines.append(f"{row['name']:16} {of:14} " + ", ".join(said))
    return "\n".join(lines)
