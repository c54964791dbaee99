"""The evaluation of a trained pipeline by one command, from its folder to a JSON with every number.

python -m gen_affect_lib evaluate --checkpoint DIR --identities N --words N --seeds N --json FILE
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gen_affect_lib.avatars.emotions import GROUPS, LEVELS, branches
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.figures import Figure, Judged, Truth, bootstrap, class_probabilities, summary
from gen_affect_lib.evaluation.judges.networks import ExpressionJudge, IdentityJudge
from gen_affect_lib.evaluation.metrics.skin import THIRDS
from gen_affect_lib.evaluation.sets import PLAN, Plan, Sets, draw_sets, drawn_by
from gen_affect_lib.keys import Producer, fingerprint, key
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.model.consistent import as_consistency
from gen_affect_lib.paths import OUTPUTS
from gen_affect_lib.pipeline import PIPELINE, GenAffectPipeline
from gen_affect_lib.profiles import Profile

GENERATED_SETS = Producer("generated sets", 1, uses=(PLAN, PIPELINE))
DRAWN = OUTPUTS / "evaluation"
# What models are compared by, claim by claim: figures that are means over people.
CLAIMS = {
    "a": (f"expression_top1_{len(GROUPS)}", "action_unit_error"),
    "b": ("identity_top1", "identity_cosine"),
    "c": ("set_cosine", "appearance_agreement"),
}
COMPARED = tuple(name for names in CLAIMS.values() for name in names)
LOWER_IS_BETTER = ("action_unit_error",)  # of these


def both_judges() -> tuple[IdentityJudge, ExpressionJudge]:
    """The shipped judges, which share nothing with the encoders that a model is conditioned on."""
    return IdentityJudge.load(), ExpressionJudge.load()


def evaluate(
    checkpoint: str | Path, plan: Plan = Plan(), json_path: str | Path | None = None, consistency: float = 0.0
) -> dict:
    """Draw a plan's sets with a pipeline's folder and score them; the pictures are kept, so that it goes on when called
    again. `consistency` is the pipeline's. Returns the report (see `report`) and writes it to `json_path`.

    Raises UserError where the folder holds no whole pipeline.
    """
    from gen_affect_lib.device import pick_device

    checkpoint = Path(checkpoint)
    pipeline = GenAffectPipeline.from_pretrained(checkpoint).to(pick_device())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.face_pack = FacePack()
    weights = fingerprint(checkpoint)
    config = {"plan": asdict(plan), "consistency": repr(as_consistency(consistency))}
    mark = key(GENERATED_SETS, config, weights, *pipeline.face_pack.weights)
    sets = draw_sets(drawn_by(pipeline, consistency=consistency), plan, DRAWN / mark)
    result = {"checkpoint": checkpoint.name, "weights": weights, "consistency": consistency}
    result |= report(sets, Truth(plan, both_judges()))
    if json_path is not None:
        write_json(json_path, result)
    return result


def report(sets: Sets, truth: Truth) -> dict:
    """All figures of some sets.

    Returns:
        "plan", "words", "machine", "seconds_per_image"; "figures": name -> "value" with its 95 % interval over people
        "low" and "high", its value for each third of the skin tones and their "gap", "ceiling", "floor", and "share",
        value / ceiling; "ceilings" and "floors": the same tables of true drawings and of shuffled pairs; "people": name ->
        one number for each person, for the figures that models are compared by; "failures": see `failures`.
    """
    plan = truth.plan
    judged = Judged(truth.judges, sets.images)
    figures = truth.figures(judged)
    tables = {
        name: summary(some, plan.tones)
        for name, some in (("figures", figures), ("ceilings", truth.ceiling()), ("floors", truth.floor()))
    }
    for name, row in tables["figures"].items():
        ceiling = tables["ceilings"][name]["value"]
        row |= {"ceiling": ceiling, "floor": tables["floors"][name]["value"]}
        if abs(ceiling) > 1e-6:
            row["share"] = row["value"] / ceiling
    return _rounded(
        {
            "plan": asdict(plan),
            "words": list(plan.asked),
            "machine": describe_machine(),
            "seconds_per_image": float(sets.seconds.mean() / (plan.seeds * plan.words)),
            **tables,
            "people": {name: per_person(figures[name], plan.people) for name in COMPARED if name in figures},
            "failures": failures(judged, plan),
        }
    )


def failures(judged: Judged, plan: Plan, count: int = 24) -> list[dict]:
    """The pictures that the judge gives the group asked for the least probability, the worst first."""
    words, _ = plan.targets()
    groups = class_probabilities(judged.words, len(GROUPS))  # (N, M, 25)
    group_of = branches()[len(GROUPS)]
    sure = np.take_along_axis(groups, group_of[words][None, :, None], axis=2)[..., 0]  # (N, M)
    rows = []
    for place in np.argsort(sure, axis=None)[:count]:
        n, m = np.unravel_index(place, sure.shape)
        rows.append(
            {
                "person": plan.persons[n],
                "seed": int(m) // plan.words,
                "word": plan.asked[m % plan.words],
                "taken_for": GROUPS[groups[n, m].argmax()],
                "probability": float(sure[n, m]),
            }
        )
    return rows


def verdict(name: str, ours_minus_theirs: dict) -> str:
    """ "ahead", "behind" or "level" (the interval holds 0), from a difference as `figures.difference` gives it."""
    low, high = ours_minus_theirs["low"], ours_minus_theirs["high"]
    if low <= 0 <= high:
        return "level"
    return "ahead" if (low > 0) != (name in LOWER_IS_BETTER) else "behind"


def per_person(figure: Figure, people: int) -> list[float]:
    """A figure of each person alone."""
    return [figure(np.array([n])) for n in range(people)]


def intervals(figures: dict[str, Figure], people: int, digits: int = 4) -> dict[str, dict[str, float]]:
    """Each figure of all people as "value", with the interval "low" to "high": a row of a comparison."""

    def row(figure):
        low, high = bootstrap(figure, people, 200)
        return {
            "value": round(figure(np.arange(people)), digits),
            "low": round(low, digits),
            "high": round(high, digits),
        }

    return {name: row(figure) for name, figure in figures.items()}


def score_row(sets: Sets, truth: Truth) -> dict:
    """What a comparison keeps of some sets: "figures" with their intervals, and "people" as in `report`."""
    people = truth.plan.people
    figures = truth.figures(Judged(truth.judges, sets.images))
    compared = {name: [round(v, 4) for v in per_person(figures[name], people)] for name in COMPARED if name in figures}
    return {"figures": intervals(figures, people), "people": compared}


def of_people(values: list[float]) -> Figure:
    """The figure again, from what a report keeps of each person: for the paired comparison of two reports."""
    values = np.asarray(values)
    return lambda people: float(values[people].mean())


TITLES = {
    **{f"expression_top1_{n}": f"right {level} of {n}" for level, n in zip(("family", "group", "word"), LEVELS)},
    "action_unit_error": "error of the action units",
    "expression_error": "error of all 21 numbers",
    "valence_concordance": "concordance of valence",
    "arousal_concordance": "concordance of arousal",
    "tree_distance_of_mistakes": "distance of mistakes in the tree",
    "leakage": "leakage of the reference's expression",
    "identity_cosine": "cosine to the reference",
    "identity_top1": "reference found among 1,000",
    "identity_verified": "accepted where 1 of 1,000 strangers is",
    "set_cosine": "mean cosine within a set",
    "set_cosine_least": "least cosine within a set",
    "appearance_agreement": "appearance agrees within a set",
    "diversity": "diversity, share of true drawings'",
    "kid": "kernel distance to true drawings",
}


def table(result: dict) -> str:
    """A report's figures as a table in markdown."""
    lines = [
        "| | value | light / middle / dark skin | gap | true drawings | shuffled pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in result["figures"].items():
        tones = " / ".join(f"{row[t]:.3f}" if t in row else "–" for t in THIRDS)
        lines.append(
            f"| {TITLES[name]} | {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] | {tones} | {row['gap']:.3f} "
            f"| {row['ceiling']:.3f} | {row['floor']:.3f} |"
        )
    return "\n".join(lines)


def say(result: dict) -> str:
    """A report in plain lines: value, its interval, true drawings, shuffled pairs."""
    lines = [f"{'':40} {'value':>7}  {'95 % interval':17} {'true':>7} {'shuffled':>9}"]
    for name, row in result["figures"].items():
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"{TITLES[name]:40} {row['value']:7.3f}  {interval:17} {row['ceiling']:7.3f} {row['floor']:9.3f}")
    return "\n".join(lines + [f"{result['seconds_per_image']:.2f} s an image"])


def heading(profile: Profile, plan: Plan, minutes: float | None, steps: int | None) -> dict:
    """What the rows of one comparison have in common."""
    return {
        "profile": profile.name,
        "plan": asdict(plan),
        "words": list(plan.asked),
        "minutes": minutes,
        "steps": steps,
    }


def read_rows(path: Path, about: dict) -> list[dict]:
    """The rows of a comparison that are done already. Raises UserError where they have another heading than `about`."""
    if not path.is_file():
        return []
    kept = json.loads(path.read_text())
    for name, value in about.items():
        if kept.get(name, value) != value:
            raise UserError(f"{path} holds a comparison with another {name}: give --json another name, or remove it")
    return kept["rows"]


def write_rows(path: Path, rows: list[dict], about: dict) -> dict:
    """Keep the rows of a comparison under their heading."""
    result = about | {"machine": describe_machine(), "rows": rows}
    write_json(path, result)
    return result


def write_json(path: str | Path, content: dict) -> None:
    """Write a report, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)


def _rounded(value):
    """Four digits say more than any interval here."""
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value
