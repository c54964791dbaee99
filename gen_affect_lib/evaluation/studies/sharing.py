"""Consistent attention and its relatives on one checkpoint: what a set gains in agreement, and what that costs its faces.

    python -m gen_affect_lib compare sharing --identities 20 --words 12 --seeds 3

Nothing is trained: each way draws the same sets of a plan from the same noise. Notebook 09 shows the table.

Letters as in `model.consistent`: G conditions, N images of a set, B = G·N, L image tokens, M condition tokens, H heads, D
channels per head.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from diffusers.utils import logging
from torch import Tensor

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.device import pick_device
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.figures import GroundTruth
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import intervals, read_rows, score_row, write_rows
from gen_affect_lib.evaluation.sets import PLAN, Draw, Plan, draw_sets, drawn_by
from gen_affect_lib.keys import Producer, fingerprint, key
from gen_affect_lib.machine import PeakMemory
from gen_affect_lib.model.attention import QKV
from gen_affect_lib.model.consistent import Consistency, SharedAttention, loop, packed
from gen_affect_lib.paths import OUTPUTS, SHIPPED
from gen_affect_lib.pipeline import PIPELINE, GenAffectPipeline

SHARED_SETS = Producer("sets of the sharing study", 1, uses=(PLAN, PIPELINE))


def style_aligned(image: QKV, condition: QKV, members: int, lenders: int, lent: Tensor, instead: bool) -> Tensor:
    """StyleAligned (Hertz et al. 2024, arXiv 2312.02133): before the others look at the first one's tokens, their queries and
    keys take on the mean and the spread over tokens that its have (adaptive instance normalisation)."""
    query, key = (_as_the_first(x, members) for x in image[:2])
    return loop(QKV(query, key, image.value), condition, members, 1, lent, instead)


def _as_the_first(x: Tensor, members: int) -> Tensor:
    mean, spread = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True) + 1e-5  # (B, 1, H, D)
    first = torch.arange(len(x), device=x.device) // members * members
    return (x - mean) / spread * spread[first] + mean[first]


@dataclass(frozen=True)
class Way:
    """One way to draw a set: `attend_set` as of `SharedAttention`, None where the anchor bank does it."""

    about: str
    consistency: Consistency | None = None
    attend_set: Callable | None = None


BESIDE = dict(instead=False, queries=False, face_above=0.0, shared_noise=0.0)  # what most relatives have in common

WAYS = {
    "alone": Way("each image alone"),
    "ours": Way("consistent attention as it is", Consistency()),
    "no_mask": Way("the face lends at all steps too", Consistency(face_above=0.0)),
    "mask_50": Way("brows, eyes and mouth lend while sigma is above 0.5", Consistency(face_above=0.5)),
    "mask": Way("brows, eyes and mouth lend nothing", Consistency(face_above=1.0)),
    "share_25": Way("a quarter of the tokens lend", Consistency(share=0.25)),
    "share_50": Way("half of the tokens lend", Consistency(share=0.5)),
    "share_75": Way("three quarters of the tokens lend", Consistency(share=0.75)),
    "above_25": Way("while sigma is above 0.25", Consistency(above=0.25)),
    "above_50": Way("while sigma is above 0.5", Consistency(above=0.5)),
    "above_75": Way("while sigma is above 0.75", Consistency(above=0.75)),
    "below_50": Way("while sigma is below 0.5", Consistency(below=0.5)),
    "first_blocks": Way("in the first two blocks", Consistency(blocks=(0, 1))),
    "last_blocks": Way("in the last two blocks", Consistency(blocks=(3, 4))),
    "two": Way("two anchors", Consistency(anchors=2)),
    "four": Way("four anchors", Consistency(anchors=4)),
    "own_queries": Way("each asks with its own queries", Consistency(queries=False)),
    "beside": Way("lent tokens beside one's own, own queries", Consistency(instead=False, queries=False)),
    "half_noise": Way("half of the noise in common", Consistency(shared_noise=0.5)),
    "no_noise": Way("noise of one's own", Consistency(shared_noise=0.0)),
    "noise": Way("shared noise, no shared attention", Consistency(share=0.0)),
    "everything": Way("all images lend all tokens at all steps", Consistency(anchors=None, **BESIDE)),
    "everything_noise": Way("the same from one noise", Consistency(anchors=None, **BESIDE | dict(shared_noise=1.0))),
    "story_diffusion": Way("StoryDiffusion: all images lend half of their tokens at all steps",
                           Consistency(anchors=None, share=0.5, **BESIDE)),
    "style_aligned": Way("StyleAligned: one anchor at all steps, statistics aligned", Consistency(**BESIDE), style_aligned),
    "masactrl": Way("MasaCtrl: the anchor's keys and values in place of one's own, after the first steps",
                    Consistency(below=0.8, **BESIDE | dict(instead=True))),
    "consistory": Way("ConsiStory's dropout: all images lend half of the tokens outside the face, early",
                      Consistency(anchors=None, share=0.5, above=0.5, **BESIDE | dict(face_above=1.0))),
}  # fmt: skip


def drawn_in(way: Way, pipeline: GenAffectPipeline) -> Draw:
    if way.attend_set is None:
        return drawn_by(pipeline, consistency=way.consistency or 0)

    def attention(sigma, members):
        return SharedAttention(way.consistency, members, sigma, way.attend_set)

    return drawn_by(pipeline, attention=attention)


ALL_LEND = Consistency(anchors=None, **BESIDE)
COSTED = {
    "alone": Way("each image alone"),
    "loop": Way("all images lend: the plain loop", ALL_LEND, loop),
    "packed": Way("all images lend: packed", ALL_LEND, packed),
    "bank": Way("one anchor: the bank", Consistency()),
}


def costs(counts: Sequence[int] = (1, 5, 15, 45, 135)) -> list[dict]:
    """Seconds of sets of so many images, drawn in each of the `COSTED` ways, and the peak memory in MB of a process that
    does nothing else; all that a set needs whatever its size is in that of a set of one."""
    rows = []
    for name, way in COSTED.items():
        for count in counts:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool, PeakMemory(os.getpid(), every=0.02) as memory:
                seconds = pool.submit(_seconds, name, count).result()
            rows.append(
                {
                    "way": name,
                    "about": way.about,
                    "images": count,
                    "seconds": round(seconds, 3),
                    "megabytes": round(memory.peak / 2**20, 1),
                }
            )
    return rows


def _seconds(name: str, count: int) -> float:
    logging.disable_progress_bar()
    draw = drawn_in(COSTED[name], _shipped())
    reference = Plan(people=1, words=1, seeds=1, first_person=VALIDATION_SEED).references[0]
    draw(reference, EMOTIONS[:1], 0)  # whatever takes time once
    begin = time.perf_counter()
    draw(reference, EMOTIONS[:count], 0)
    return time.perf_counter() - begin


def _shipped() -> GenAffectPipeline:
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.face_pack = FacePack()
    return pipeline


def compare_sharing(plan: Plan, names: list[str], path: Path, folder: Path = OUTPUTS / "sharing") -> dict:
    """Draw a plan's sets in each way and score them, resumably; rows as of `variants.compare`. With all ways, "costs" too."""
    pipeline, weights = _shipped(), fingerprint(SHIPPED)
    about = {"weights": weights, "plan": asdict(plan), "words": list(plan.target_words)}
    rows, truth = read_rows(path, about), GroundTruth(plan, both_judges())
    if not rows:
        for name, figures in (("ceiling", truth.ceiling()), ("floor", truth.floor())):
            rows.append({"name": name, "figures": intervals(figures, plan.people)})
    for name in names:
        if any(row["name"] == name for row in rows):
            continue
        way = WAYS[name]
        config = {"plan": asdict(plan), "way": name, "consistency": repr(way.consistency)}
        mark = key(SHARED_SETS, config, weights, *pipeline.face_pack.weights)
        sets = draw_sets(drawn_in(way, pipeline), plan, folder / name / mark)
        seconds = float(sets.seconds.mean() / (plan.seeds * plan.words))
        row = {"name": name, "about": way.about, "seconds_per_image": round(seconds, 4)}
        rows.append(row | score_row(sets, truth))
        write_rows(path, rows, about)
    if names == list(WAYS):
        about |= {"costs": costs()}
    return write_rows(path, rows, about)
