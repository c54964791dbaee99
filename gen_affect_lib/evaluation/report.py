"""Reports: the figures of a model as tables to save, compare and print.

`report` returns all figures of one model, for the command `evaluate`. `score_row` returns one row of a comparison of
several models; `Rows` keeps the rows of all models and saves them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from gen_affect_lib.avatars.emotions import GROUPS, LEVELS, branches, class_probabilities
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.figures import GroundTruth, Judgements
from gen_affect_lib.evaluation.metrics.bootstrap import Statistic, estimate, per_person, summary
from gen_affect_lib.evaluation.metrics.skin import THIRDS
from gen_affect_lib.evaluation.sets import Plan, Sets
from gen_affect_lib.files import write_json
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.profiles import Profile

# The figures by which models are compared, two for each claim; all are means over people.
COMPARED = (
    f"expression_top1_{len(GROUPS)}", "action_unit_error",  # (a)
    "identity_top1", "identity_cosine",  # (b)
    "set_cosine", "appearance_agreement",  # (c)
)  # fmt: skip

TITLES = {
    **{f"expression_top1_{n}": f"right {level} of {n}" for level, n in zip(("family", "group", "word"), LEVELS)},
    "action_unit_error": "error of the action units",
    "expression_error": "error of all 21 numbers",
    "valence_concordance": "concordance of valence",
    "arousal_concordance": "concordance of arousal",
    "tree_distance_of_mistakes": "distance of mistakes in the tree",
    "leakage": "leakage of the reference's expression",
    "identity_cosine": "cosine to another picture",
    "identity_top1": "person found among 1,000",
    "identity_verified": "accepted where 1 of 1,000 strangers is",
    "set_cosine": "mean cosine within a set",
    "set_cosine_least": "least cosine within a set",
    "appearance_agreement": "appearance agrees within a set",
    "tilt_agreement": "tilt of the head agrees within a set",
    "diversity": "diversity, share of true drawings'",
    "kid": "kernel distance to true drawings",
}

QUALITY_TITLES = {
    **{f"told_apart_{side}": f"told apart from drawings at {side} px" for side in (256, 128, 96, 64, 32)},
    "face_difference": "difference to the true face",
    "face_share": "of the way to another word's face",
    "edges": "strong edges, share of true drawings'",
    "freckles": "freckles present",
    "frames": "frames present",
    "curls": "curls and strands of hair present",
    "folds": "folds present",
    "earrings": "earrings alike at both ears",
    "small_things": "small things, mean of these five",
    "invented": "freckles or frames where none are",
}
WAYS = {  # of generating a set, see `evaluate.SETTINGS`
    "alone": "each picture alone",
    "noise": "shared noise alone",
    "attention": "consistent attention, own noise",
    "both": "consistent attention, shared noise",
    "drawn": "true drawings",
}
CONSISTENCY_FIGURES = (
    "appearance_agreement", "tilt_agreement", "set_cosine", "expression_top1_25", "identity_top1",
)  # fmt: skip


# --- one model --------------------------------------------------------------------------------------------------------


def report(sets: Sets, truth: GroundTruth) -> dict[str, Any]:
    """All figures of some sets, rounded to four digits.

    Returns:
        "plan", "words", "machine", "seconds_per_image";
        "figures": name -> "value" with its 95 % interval over people, "low" and "high"; its value for each third of the
            skin tones and their largest difference, "gap"; "ceiling", "floor", and "share", value / ceiling;
        "ceilings", "floors": the same tables of true drawings and of shuffled pairs;
        "people": name of each of COMPARED -> one number for each person;
        "failures": see `failures`.
    """
    plan = truth.plan
    judged = Judgements(truth.judges, sets.images)
    figures = truth.figures(judged)
    tables = {
        name: summary(some, plan.skin_thirds)
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
            "words": list(plan.target_words),
            "machine": describe_machine(),
            "seconds_per_image": float(sets.seconds.mean() / (plan.seeds * plan.words)),
            **tables,
            "people": {name: per_person(figures[name], plan.people) for name in COMPARED if name in figures},
            "failures": failures(judged, plan),
        }
    )


def failures(judged: Judgements, plan: Plan, count: int = 24) -> list[dict[str, Any]]:
    """The pictures whose target group has the lowest probability, the lowest first.

    Returns, for each: "person" and "seed", "word" (the target), "taken_for" (the likeliest group), "probability" (of
    the target group).
    """
    words, _ = plan.targets()
    probabilities = class_probabilities(judged.words, len(GROUPS))  # (N, M, 25)
    targets = branches()[len(GROUPS)][words]  # (M,)
    right = np.take_along_axis(probabilities, targets[None, :, None], axis=2)[..., 0]  # (N, M)
    rows = []
    for place in np.argsort(right, axis=None)[:count]:
        n, m = np.unravel_index(place, right.shape)
        rows.append(
            {
                "person": plan.person_seeds[n],
                "seed": int(m) // plan.words,
                "word": plan.target_words[m % plan.words],
                "taken_for": GROUPS[probabilities[n, m].argmax()],
                "probability": float(right[n, m]),
            }
        )
    return rows


def quality_report(figures: dict[str, dict[str, Statistic]], plan: Plan) -> dict[str, Any]:
    """The figures of `quality.quality` as tables, rounded: kind -> name -> as in "figures" of `report`."""
    return _rounded({kind: summary(some, plan.skin_thirds) for kind, some in figures.items()})


def consistency_report(sets: dict[str, Sets], truth: GroundTruth) -> dict[str, Any]:
    """How well sets agree that were generated in several ways: way -> name of CONSISTENCY_FIGURES -> as in `intervals`.

    "drawn" are true sets with one appearance each. Every other figure of them is that of true drawings.
    """
    tables = {way: truth.figures(Judgements(truth.judges, some.images)) for way, some in sets.items()}
    tables["drawn"] = truth.ceiling()
    return {
        way: intervals({name: some[name] for name in CONSISTENCY_FIGURES if name in some}, truth.plan.people)
        for way, some in tables.items()
    }


def table(result: dict[str, Any]) -> str:
    """The figures of a report as tables in Markdown."""
    lines = [
        "| | value | light / middle / dark skin | gap | true drawings | shuffled pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in result["figures"].items():
        tones = " / ".join(f"{row[t]:.3f}" if t in row else "–" for t in THIRDS)
        lines.append(
            f"| {TITLES[name]} | {_interval(row)} | {tones} | {row['gap']:.3f} | {row['ceiling']:.3f} "
            f"| {row['floor']:.3f} |"
        )
    if "quality" in result:
        generated, reconstructed, drawn = result["quality"].values()
        lines += ["", "| | generated | gap of skin tones | reconstructed | true drawings |", "| --- " * 5 + "|"]
        lines += [
            f"| {QUALITY_TITLES[name]} | {_interval(row)} | {row['gap']:.3f} | {_interval(reconstructed.get(name))} "
            f"| {_interval(drawn.get(name))} |"
            for name, row in generated.items()
        ]
    if "consistency_of_sets" in result:
        ways = result["consistency_of_sets"]
        names = list(ways["drawn"])
        lines += ["", "| | " + " | ".join(TITLES[name] for name in names) + " |", "| --- " * (len(names) + 1) + "|"]
        lines += [
            f"| {WAYS[way]} | " + " | ".join(_interval(rows[name]) for name in names) + " |"
            for way, rows in ways.items()
        ]
    return "\n".join(lines)


def say(result: dict[str, Any]) -> str:
    """The figures of a report as text: value, interval, true drawings, shuffled pairs; then the other tables."""
    lines = [f"{'':40} {'value':>7}  {'95 % interval':17} {'true':>7} {'shuffled':>9}"]
    for name, row in result["figures"].items():
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"{TITLES[name]:40} {row['value']:7.3f}  {interval:17} {row['ceiling']:7.3f} {row['floor']:9.3f}")
    if "quality" in result:
        generated, reconstructed, drawn = result["quality"].values()
        lines += ["", f"{'':40} {'generated':22} {'reconstructed':22} true drawings"]
        lines += [
            f"{QUALITY_TITLES[name]:40} {_interval(row):22} {_interval(reconstructed.get(name)):22} "
            f"{_interval(drawn.get(name))}"
            for name, row in generated.items()
        ]
    for way, rows in result.get("consistency_of_sets", {}).items():
        lines += ["", WAYS[way]]
        lines += [f"{TITLES[name]:40} {_interval(row)}" for name, row in rows.items()]
    return "\n".join(lines + [f"{result['seconds_per_image']:.2f} s an image"])


def _interval(row: dict[str, float] | None) -> str:
    """A value with its interval; a dash where nothing was there to be measured."""
    return "–" if row is None else f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _rounded(value: Any) -> Any:
    """Floats rounded to four digits; all confidence intervals are wider."""
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


# --- comparisons of several models ------------------------------------------------------------------------------------


def intervals(figures: dict[str, Statistic], people: int, digits: int = 4) -> dict[str, dict[str, float]]:
    """`estimate` of each figure with 200 bootstrap samples, rounded."""
    return {
        name: {key: round(value, digits) for key, value in estimate(figure, people, 200).items()}
        for name, figure in figures.items()
    }


def score_row(sets: Sets, truth: GroundTruth) -> dict[str, Any]:
    """The scores of some sets in a comparison: "figures" as of `intervals`, and "people" as in `report`."""
    people = truth.plan.people
    figures = truth.figures(Judgements(truth.judges, sets.images))
    compared = {name: [round(v, 4) for v in per_person(figures[name], people)] for name in COMPARED if name in figures}
    return {"figures": intervals(figures, people), "people": compared}


def heading(profile: Profile, plan: Plan, minutes: float | None, steps: int | None) -> dict[str, Any]:
    """What all rows of a comparison have in common."""
    return {
        "profile": profile.name,
        "plan": asdict(plan),
        "words": list(plan.target_words),
        "minutes": minutes,
        "steps": steps,
    }


def read_rows(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a comparison's file already holds.

    Raises UserError if the file's heading differs from `about`.
    """
    if not path.is_file():
        return []
    try:
        saved = json.loads(path.read_text())
        rows = list(saved["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no comparison: give --json another name, or remove it") from error
    for name, value in about.items():
        if saved.get(name, value) != value:
            raise UserError(f"{path} holds a comparison with another {name}: give --json another name, or remove it")
    return rows


class Rows:
    """The rows of a comparison, saved after each one, so that an interrupted comparison can be resumed.

    `rows` begins with those that the file already holds. Raises UserError if its heading differs from `about`.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        self.path, self.about, self.rows = path, about, read_rows(path, about)

    def __contains__(self, name: str) -> bool:
        return any(row["name"] == name for row in self.rows)

    def missing(self, names: Iterable[str], seeds: int) -> Iterator[tuple[int, str]]:
        """Seed and name of the rows that are not there yet: all names with the first seed, then with the next."""
        there = {(row.get("seed"), row["name"]) for row in self.rows}
        return (one for one in product(range(seeds), names) if one not in there)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.save()

    def save(self) -> dict[str, Any]:
        """Save the rows; return what is saved, see `write_rows`."""
        return write_rows(self.path, self.rows, self.about)


def write_rows(path: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """Save the rows of a comparison with its heading; return what is saved."""
    result = about | {"machine": describe_machine(), "rows": rows}
    write_json(path, result)
    return result
