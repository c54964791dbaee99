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
from gen_affect_lib.evaluation.report import report
from gen_affect_lib.evaluation.sets import PLAN, Plan, draw_sets, drawn_by
from gen_affect_lib.files import write_json
from gen_affect_lib.keys import Producer, fingerprint, key
from gen_affect_lib.model.consistent import as_consistency
from gen_affect_lib.paths import OUTPUTS
from gen_affect_lib.pipeline import PIPELINE, GenAffectPipeline

GENERATED_SETS = Producer("generated sets", 1, uses=(PLAN, PIPELINE))
DRAWN = OUTPUTS / "evaluation"


def evaluate(
    checkpoint: str | Path, plan: Plan, json_path: str | Path | None = None, consistency: float = 0.0
) -> dict[str, Any]:
    """Generate the sets of a plan with a saved pipeline and score them.

    The pictures are saved in DRAWN, so that an interrupted call can be resumed.

    Args:
        checkpoint: folder of the pipeline.
        json_path: where the report is written; None writes no file.
        consistency: see `GenAffectPipeline`.
    Returns:
        The report (see `report.report`), with "checkpoint", "weights" and "consistency".

    Raises UserError if the folder holds no complete pipeline.
    """
    checkpoint = Path(checkpoint)
    pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.face_pack = FacePack()
    weights = fingerprint(checkpoint)
    config = {"plan": asdict(plan), "consistency": repr(as_consistency(consistency))}
    mark = key(GENERATED_SETS, config, weights, *pipeline.face_pack.weights)
    sets = draw_sets(drawn_by(pipeline, consistency=consistency), plan, DRAWN / mark)
    result = {"checkpoint": checkpoint.name, "weights": weights, "consistency": consistency}
    result |= report(sets, GroundTruth(plan, both_judges()))
    if json_path is not None:
        write_json(json_path, result)
    return result
