"""Comparisons of variants, by name: `compare` runs each of `TABLES`.

- recipes: one thing about the training changed at a time, each trained from random weights, equally long. Notebook 08
  shows the results.
- baselines: fusions and simpler models at one pair of guidance scales, a first look in notebook 10.
- fronts: the same over all guidance scales, see fronts.py.
- codecs: autoencoders, see codecs.py.
- few_steps: samplers with few steps, see few_steps.py.
- sharing: ways to share attention within a set, see sharing.py.
- adapters: ways to bring identity and expression into a frozen base, see adapters.py.

    python -m gen_affect_lib compare recipes --minutes 2 --seeds 2
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.figures import GroundTruth
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import COMPARED, Rows, heading, score_row
from gen_affect_lib.evaluation.sets import PLAN, Draw, Plan, draw_sets, drawn_by
from gen_affect_lib.evaluation.studies import adapters, codecs, few_steps, fronts
from gen_affect_lib.evaluation.studies.adapters import ADAPTERS, compare_adapters
from gen_affect_lib.evaluation.studies.codecs import compare_codecs
from gen_affect_lib.evaluation.studies.few_steps import SAMPLERS, compare_few_steps
from gen_affect_lib.evaluation.studies.fronts import BASELINES, compare_fronts
from gen_affect_lib.evaluation.studies.sharing import METHODS, compare_sharing
from gen_affect_lib.evaluation.studies.study import CODEC_KINDS, STUDY_CODEC, Study, Variant, study_codec
from gen_affect_lib.keys import Producer, key
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.modulation import Modulator
from gen_affect_lib.paths import OUTPUTS
from gen_affect_lib.pipeline import PIPELINE
from gen_affect_lib.profiles import Profile

VARIANT_SETS = Producer("sets of trained variants", 2, uses=(PLAN, PIPELINE))


def slim_modulation(**sizes) -> MMDiT:
    """An MM-DiT whose modulation has a bottleneck of 32 numbers; without it modulation has a third of all weights."""
    model = MMDiT(**sizes)
    for module in model.modules():
        if isinstance(module, Modulator):
            wide = module.linear
            narrow, out = nn.Linear(wide.in_features, 32, bias=False), nn.Linear(32, wide.out_features)
            for parameter in out.parameters():
                nn.init.zeros_(parameter)  # gates are closed at the start, as in adaLN-Zero
            module.register_module("linear", nn.Sequential(narrow, out))
    return model


RECIPES = {
    "ours": Variant("the recipe as it is"),
    "x": Variant("the network predicts the clean latents, the loss stays on the velocity", prediction="x"),
    "uniform": Variant("uniform sigma", training=dict(sigma_distribution="uniform")),
    "less_noise": Variant("logit-normal sigma with mean -0.5", training=dict(sigma_mean=-0.5)),
    "more_noise": Variant("logit-normal sigma with mean 0.5", training=dict(sigma_mean=0.5)),
    "muon": Variant("Muon for the matrices", training=dict(optimizer="muon")),
    "slow": Variant("half the learning rate", training=dict(learning_rate=1e-3)),
    "fast": Variant("twice the learning rate", training=dict(learning_rate=4e-3)),
    "large_batch": Variant("128 pairs a step", training=dict(batch_size=128)),
    "deep": Variant(
        "7 blocks, 64 wide", transformer=dict(num_layers=7, num_attention_heads=2), fusion=dict(dim=64, num_heads=2)
    ),
    "wide": Variant(
        "2 blocks, 128 wide", transformer=dict(num_layers=2, num_attention_heads=4), fusion=dict(dim=128, num_heads=4)
    ),
    "small": Variant(
        "3 blocks, 64 wide", transformer=dict(num_layers=3, num_attention_heads=2), fusion=dict(dim=64, num_heads=2)
    ),
    "slim": Variant("modulations through 32 numbers", network=slim_modulation),
    "more_tokens": Variant("16 condition tokens", fusion=dict(condition_tokens=16)),
    "face_loss": Variant("action-unit and identity loss below sigma 0.3", face_loss={}),
    "no_weight": Variant("all places of the latents count alike", training=dict(face_weight=0.0)),
}

TABLES = {
    "recipes": RECIPES,
    "baselines": BASELINES,
    "fronts": BASELINES,
    "codecs": CODEC_KINDS,
    "few_steps": SAMPLERS,
    "sharing": METHODS,
    "adapters": ADAPTERS,
}
SAY = {"adapters": adapters.say, "fronts": fronts.say, "codecs": codecs.say, "few_steps": few_steps.say}


def compare(
    table: str,
    profile: Profile,
    plan: Plan,
    minutes: float | None = None,
    steps: int | None = None,
    seeds: int = 1,
    only: str | None = None,
    json_path: str | Path | None = None,
    folder: Path | None = None,
) -> dict:
    """Run a comparison: train every variant of a table from random weights, once with each seed, and score it.

    Runs are saved in `folder` and rows in `json_path`; calling it again resumes an interrupted comparison.

    Args:
        table: a key of TABLES. "few_steps" and "sharing" train nothing; the seeds of "sharing" are those of the noise.
        plan: people and words to score on: validation people for choosing a variant, report people for results.
        minutes, steps: of each training. Equal minutes compare the speed of learning, and need an idle machine. Equal
            steps give the same result on every machine.
        only: names of variants, separated by commas.

    Returns:
        "plan", "machine", "rows" and more, see the function of the table. Raises UserError for a name that does not
        exist.
    """
    names = _chosen(table, only)
    length = f"{steps}-steps" if steps else f"{minutes:g}-minutes"
    folder = folder or OUTPUTS / "compare" / f"{table}-{profile.name}-{length}"
    path = Path(json_path or folder / "rows.json")
    if table == "fronts":
        return compare_fronts(profile, plan, minutes, steps, seeds, names, path, folder)
    if table == "adapters":
        return compare_adapters(profile, plan, minutes, steps, seeds, names, path, folder)
    if table == "codecs":
        return compare_codecs(profile, plan, minutes, steps, seeds, names, path, folder)
    if table == "few_steps":
        return compare_few_steps(plan, names, path)
    if table == "sharing":
        return compare_sharing(dataclasses.replace(plan, seeds=seeds), names, path)
    return compare_variants(table, profile, plan, minutes, steps, seeds, names, path, folder)


def compare_variants(
    table: str,
    profile: Profile,
    plan: Plan,
    minutes: float | None,
    steps: int | None,
    seeds: int,
    names: list[str],
    path: Path,
    folder: Path,
) -> dict:
    """Train each variant with each seed, and score it at the profile's guidance scales, with `report.score_row`."""
    profile = profile.compared()
    rows, truth = Rows(path, heading(profile, plan, minutes, steps)), GroundTruth(plan, both_judges())
    study = Study(profile, study_codec(STUDY_CODEC, profile, folder))
    mark = key(VARIANT_SETS, {"plan": asdict(plan)}, study.codec.mark, *study.faces.weights)

    def keep(row: dict, draw: Draw, where: str) -> None:
        sets = draw_sets(draw, plan, folder / where / f"sets-{mark}")
        rows.add(row | score_row(sets, truth))

    for seed, name in rows.missing(names, seeds):
        row, pipeline = study.trained(name, TABLES[table][name], seed, minutes, steps, folder)
        keep(row, drawn_by(pipeline, consistency=0), f"{name}-{seed}")
    if names == list(BASELINES):
        for name, (phrase, draw) in untrained(study).items():
            if name not in rows:
                keep({"name": name, "about": phrase, "seed": 0}, draw, name)
    return rows.save()


def untrained(study: Study) -> dict[str, tuple[str, Draw]]:
    """Baselines without training: name -> (about, a function that draws)."""
    images = PairCache.open(study.profile.pairs).images
    mean = np.asarray(images[:1000].reshape(-1, *images.shape[2:]), np.float32).mean(axis=0).round().astype(np.uint8)
    return {
        "copy": (
            "the reference itself, whatever is asked for",
            lambda reference, words, seed: [reference] * len(words),
        ),
        "mean_face": (
            "the mean of training's pictures, whoever is asked for",
            lambda _, words, seed: [mean] * len(words),
        ),
    }


def _chosen(table: str, only: str | None) -> list[str]:
    if table not in TABLES:
        raise UserError(f"there is nothing to compare by the name {table!r}: give one of {', '.join(TABLES)}")
    names = [name.strip() for name in only.split(",")] if only else list(TABLES[table])
    for name in names:
        if name not in TABLES[table]:
            near = difflib.get_close_matches(name, TABLES[table], n=1)
            hint = f"did you mean {near[0]}?" if near else "give one of " + ", ".join(TABLES[table])
            raise UserError(f"there is no variant {name!r} among the {table}: {hint}")
    return names


def say(table: str, result: dict) -> str:
    """The rows of a comparison as text."""
    if table in SAY:
        return SAY[table](result)
    lines = []
    for row in result["rows"]:
        said = [f"{name} {row['figures'][name]['value']:.4f}" for name in COMPARED if name in row["figures"]]
        losses = [f"loss at sigma {sigma} {value:.4f}" for sigma, value in row.get("loss", {}).items()]
        lines.append(
            f"{row['name']:16}" + (f" seed {row['seed']}" if "seed" in row else "") + ": " + ", ".join(losses + said)
        )
    return "\n".join(lines)
