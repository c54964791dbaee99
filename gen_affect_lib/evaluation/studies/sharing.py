"""Comparison of consistent attention and related methods on one checkpoint: agreement within a set, and cost.

    python -m gen_affect_lib compare sharing --identities 20 --words 12 --seeds 3

Nothing is trained: each method generates the same sets of a plan from the same noise. Notebook 09 shows the table.
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

from gen_affect_lib.avatars import EMOTIONS
from gen_affect_lib.avatars.splits import VALIDATION_SEED
from gen_affect_lib.device import pick_device
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.figures import GroundTruth
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import Rows, intervals, score_row
from gen_affect_lib.evaluation.rivals.sharing import (
    CONSISTORY,
    EVERYTHING,
    MASACTRL,
    STORY_DIFFUSION,
    PackedAttention,
    StyleAligned,
)
from gen_affect_lib.evaluation.sets import PLAN, Draw, Plan, draw_sets, drawn_by
from gen_affect_lib.keys import Producer, fingerprint, key
from gen_affect_lib.machine import PeakMemory
from gen_affect_lib.model.attention import JointAttention
from gen_affect_lib.model.consistent import Consistency, Replace
from gen_affect_lib.paths import OUTPUTS, SHIPPED
from gen_affect_lib.pipeline import PIPELINE, GenAffectPipeline

SHARED_SETS = Producer("sets of the sharing study", 1, uses=(PLAN, PIPELINE))


@dataclass(frozen=True)
class Method:
    """A method of generating a set: with an anchor bank and `consistency`, or with `attention`(N) for N images.

    With neither, each image is generated independently.
    """

    about: str
    consistency: Consistency | None = None
    attention: Callable[[int], JointAttention] | None = None


METHODS = {
    "alone": Method("each image alone"),
    "ours": Method("consistent attention, the default", Consistency()),
    "no_mask": Method("face tokens shared at all steps", Consistency(face_above=0.0)),
    "mask_15": Method("face tokens shared while sigma > 0.15", Consistency(face_above=0.15)),
    "mask": Method("face tokens not shared", Consistency(face_above=1.0)),
    "share_25": Method("a quarter of the tokens shared", Consistency(share=0.25)),
    "above_50": Method("shared while sigma >= 0.5", Consistency(above=0.5)),
    "two": Method("two anchors", Consistency(anchors=2)),
    "own_queries": Method("keys and values replaced, own queries", Consistency(replace=Replace.KEYS_VALUES)),
    "beside": Method("keys and values appended, own queries", Consistency(replace=Replace.NOTHING)),
    "no_noise": Method("independent noise", Consistency(shared_noise=0.0)),
    "noise": Method("shared noise, no shared attention", Consistency(share=0.0)),
    "everything": Method("all images share all tokens at all steps", EVERYTHING),
    "story_diffusion": Method("StoryDiffusion: all images share half of their tokens", STORY_DIFFUSION),
    "style_aligned": Method("StyleAligned: one anchor at all steps, statistics aligned", attention=StyleAligned),
    "masactrl": Method("MasaCtrl: the anchor's keys and values replace the own ones after the first steps", MASACTRL),
    "consistory": Method("ConsiStory's dropout: all share half of the tokens outside the face, early", CONSISTORY),
}  # fmt: skip


def draw_with(method: Method, pipeline: GenAffectPipeline) -> Draw:
    """The `Draw` function of a method and a pipeline."""
    if method.attention is None:
        return drawn_by(pipeline, consistency=method.consistency or 0)
    make = method.attention

    def draw(reference, words, seed):
        return drawn_by(pipeline, attention=make(len(words)))(reference, words, seed)

    return draw


LARGEST_SHARED = 45
COSTED = {
    "alone": Method("each image alone"),
    "loop": Method("all images share, image by image", EVERYTHING),
    "packed": Method("all images share, packed", attention=PackedAttention),
    "bank": Method("one anchor, the bank", Consistency()),
}


def costs(counts: Sequence[int] = (1, 5, 15, 45, 135)) -> list[dict]:
    """Time and memory of each `COSTED` method for each number of images in a set.

    Rows with "seconds" of one set, of computing time on one CPU core, and "megabytes" (of 2**20 bytes), the peak memory
    of a new process; libraries and weights are included. Where all images share, sets are at most `LARGEST_SHARED`:
    packed attention then needs gigabytes.
    """
    rows = []
    for name, method in COSTED.items():
        for count in counts:
            if name in ("loop", "packed") and count > LARGEST_SHARED:
                continue
            with ProcessPoolExecutor(1, get_context("spawn")) as pool, PeakMemory(os.getpid(), every=0.02) as memory:
                seconds = pool.submit(_seconds, name, count).result()
            rows.append(
                {
                    "way": name,
                    "about": method.about,
                    "images": count,
                    "seconds": round(seconds, 3),
                    "megabytes": round(memory.peak / 2**20, 1),
                }
            )
    return rows


def _seconds(name: str, count: int) -> float:
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    draw = draw_with(COSTED[name], _shipped())
    reference = Plan(people=1, words=1, seeds=1, first_person=VALIDATION_SEED).references[0]
    draw(reference, EMOTIONS[:1], 0)  # warm-up
    begin = time.process_time()  # other processes may use the core as well
    draw(reference, EMOTIONS[:count], 0)
    return time.process_time() - begin


def _shipped() -> GenAffectPipeline:
    pipeline = GenAffectPipeline.from_pretrained(SHIPPED).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.face_pack = FacePack()
    return pipeline


def compare_sharing(plan: Plan, names: list[str], path: Path, folder: Path = OUTPUTS / "sharing") -> dict:
    """Generate a plan's sets with each method and score them. An interrupted call can be resumed.

    Returns rows as `variants.compare` does, and writes them to `path`. With all methods, "costs" are added.
    """
    pipeline, weights = _shipped(), fingerprint(SHIPPED)
    assert pipeline.face_pack is not None
    about = {"weights": weights, "plan": asdict(plan), "words": list(plan.target_words)}
    rows, truth = Rows(path, about), GroundTruth(plan, both_judges())
    if not rows.rows:
        for name, figures in (("ceiling", truth.ceiling()), ("floor", truth.floor())):
            rows.rows.append({"name": name, "figures": intervals(figures, plan.people)})
    for name in names:
        if name in rows:
            continue
        method = METHODS[name]
        config = {"plan": asdict(plan), "method": name, "consistency": repr(method.consistency)}
        mark = key(SHARED_SETS, config, weights, *pipeline.face_pack.weights)
        sets = draw_sets(draw_with(method, pipeline), plan, folder / name / mark)
        seconds = float(sets.seconds.mean() / (plan.seeds * plan.words))
        row = {"name": name, "about": method.about, "seconds_per_image": round(seconds, 4)}
        rows.add(row | score_row(sets, truth))
    order = ["ceiling", "floor", *METHODS]
    rows.rows.sort(key=lambda row: order.index(row["name"]))
    if names == list(METHODS):
        rows.about |= {"costs": costs()}
    return rows.save()
