"""The command that evaluates a saved pipeline and writes all figures to a JSON file.

python -m gen_affect_lib evaluate --checkpoint DIR --identities N --words N --seeds N --json FILE
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gen_affect_lib.device import pick_device
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.figures import GroundTruth
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.quality import quality
from gen_affect_lib.evaluation.report import consistency_report, quality_report, report
from gen_affect_lib.evaluation.sets import PLAN, Plan, Sets, draw_sets, drawn_by
from gen_affect_lib.files import write_json
from gen_affect_lib.keys import Producer, fingerprint, key
from gen_affect_lib.model.consistent import Consistency, as_consistency
from gen_affect_lib.paths import OUTPUTS
from gen_affect_lib.pipeline import PIPELINE, GenAffectPipeline

GENERATED_SETS = Producer("generated sets", 1, uses=(PLAN, PIPELINE))
DRAWN = OUTPUTS / "evaluation"


# How the sets are generated whose agreement is compared; shared noise alone makes some of the agreement.
SETTINGS: dict[str, float | Consistency] = {
    "alone": 0.0,
    "noise": Consistency(share=0.0),
    "attention": Consistency(shared_noise=0.0),
    "both": Consistency(),
}
SETS = Plan(people=24, words=12, seeds=1)  # the largest plan for that comparison


def evaluate(
    checkpoint: str | Path, plan: Plan, json_path: str | Path | None = None, consistency: float = 0.0
) -> dict[str, Any]:
    """Generate the sets of a plan with a saved pipeline and score them.

    The pictures are saved in DRAWN, so that an interrupted call can be resumed. With 2,700 pictures of 128 px it takes
    about half an hour on one core: 15 minutes for the pictures, 5 for the sets of SETTINGS, 10 for the figures.

    Args:
        checkpoint: folder of the pipeline.
        json_path: where the report is written; None writes no file.
        consistency: see `GenAffectPipeline`.
    Returns:
        The report (see `report.report`), with "checkpoint", "weights" and "consistency"; "quality", see
        `quality.quality`; and "consistency_of_sets", see `report.consistency_report`, of at most as many people and
        words as SETS has.

    Raises UserError if the folder holds no complete pipeline.
    """
    checkpoint, judges = Path(checkpoint), both_judges()
    pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.face_pack = faces = FacePack()
    weights = fingerprint(checkpoint)

    def generated(some: Plan, setting: float | Consistency) -> Sets:
        config = {"plan": asdict(some), "consistency": repr(as_consistency(setting))}
        mark = key(GENERATED_SETS, config, weights, *faces.weights)
        return draw_sets(drawn_by(pipeline, consistency=setting), some, DRAWN / mark)

    sets = generated(plan, consistency)
    result = {"checkpoint": checkpoint.name, "weights": weights, "consistency": consistency}
    result |= report(sets, GroundTruth(plan, judges))
    result["quality"] = quality_report(quality(sets.images, pipeline, plan), plan)
    few = Plan(min(plan.people, SETS.people), min(plan.words, SETS.words), SETS.seeds, plan.first_person)
    ways = {way: generated(few, setting) for way, setting in SETTINGS.items()}
    result["consistency_of_sets"] = consistency_report(ways, GroundTruth(few, judges))
    if json_path is not None:
        write_json(json_path, result)
    return result
