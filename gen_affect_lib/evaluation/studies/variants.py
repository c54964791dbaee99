"""Variants of our model and of its training, each trained from random weights on the same data, equally long.

The networks train within minutes (`Profile.compared`). Each of `RECIPES` changes one thing about the training; notebook
08 shows the results. Each of `BASELINES` leaves out one of the paper's ideas, with the same number of parameters within
5 % (at the sizes of `laptop`); notebook 10 tests the claims against them.

    python -m gen_affect_lib compare recipes --minutes 2 --seeds 2
    python -m gen_affect_lib compare baselines --steps 4000

`compare` also runs the studies of autoencoders (`codecs.py`) and of sharing within a set (`sharing.py`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.device import on_device, pick_device, seed_everything
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation.figures import GroundTruth
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import COMPARED, heading, read_rows, score_row, write_rows
from gen_affect_lib.evaluation.rivals.decoupled import DecoupledDiT
from gen_affect_lib.evaluation.sets import PLAN, Draw, Plan, draw_sets, drawn_by
from gen_affect_lib.evaluation.studies.codecs import CODECS, compare_codecs
from gen_affect_lib.evaluation.studies.sharing import METHODS, compare_sharing
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.keys import Producer, fingerprint, key
from gen_affect_lib.model.fusion import IdentityExpressionFusion
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.modulation import Modulator
from gen_affect_lib.paths import OUTPUTS, SHIPPED
from gen_affect_lib.pipeline import PIPELINE, GenAffectPipeline
from gen_affect_lib.profiles import Profile
from gen_affect_lib.training.assembly import assemble
from gen_affect_lib.training.face_loss import FaceLoss
from gen_affect_lib.training.latent_pairs import LatentPairs, Split, cache_split
from gen_affect_lib.training.trainer import Trainer

VARIANT_SETS = Producer("sets of trained variants", 1, uses=(PLAN, PIPELINE))


@dataclass(frozen=True)
class Variant:
    """How a variant differs from ours.

    Attributes:
        about: one phrase for a table.
        transformer, fusion, training: arguments of `MMDiT`, `IdentityExpressionFusion` and `TrainingConfig` that
            replace the profile's.
        network: builds the transformer.
        prediction: see `RectifiedFlow`.
        face_loss: arguments of `FaceLoss`; None: trained without it.
        same_picture: the target is the reference itself.
        blind_to: "identity" or "expression": the condition that is replaced by zeros.
    """

    about: str
    transformer: dict = field(default_factory=dict)
    fusion: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    network: Callable[..., MMDiT] = MMDiT
    prediction: str = "v"
    face_loss: dict | None = None
    same_picture: bool = False
    blind_to: str | None = None


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
    "slow": Variant("half the learning rate", training=dict(learning_rate=5e-4)),
    "fast": Variant("twice the learning rate", training=dict(learning_rate=2e-3)),
    "large_batch": Variant("64 pairs a step", training=dict(batch_size=64)),
    "patch_1": Variant("patches of 1 x 1 latents: 64 image tokens", transformer=dict(patch_size=1)),
    "deep": Variant(
        "7 blocks, 96 wide", transformer=dict(num_layers=7, num_attention_heads=3), fusion=dict(dim=96, num_heads=3)
    ),
    "wide": Variant(
        "2 blocks, 192 wide", transformer=dict(num_layers=2, num_attention_heads=6), fusion=dict(dim=192, num_heads=6)
    ),
    "small": Variant(
        "3 blocks, 96 wide", transformer=dict(num_layers=3, num_attention_heads=3), fusion=dict(dim=96, num_heads=3)
    ),
    "shipped_size": Variant(
        "5 blocks, 160 wide, 16 condition tokens, as shipped",
        fusion=dict(dim=160, condition_tokens=16),
        transformer=dict(num_layers=5, num_attention_heads=5),
    ),
    "slim": Variant("modulations through 32 numbers", network=slim_modulation),
    "more_tokens": Variant("16 condition tokens", fusion=dict(condition_tokens=16)),
    "face_loss": Variant("action-unit and identity loss below sigma 0.3", face_loss={}),
    "no_weight": Variant("all places of the latents count alike", training=dict(face_weight=0.0)),
}

BASELINES = {
    "ours": Variant("joint attention, resampler, pairs"),
    "decoupled": Variant(
        "decoupled cross-attention in place of joint attention",
        network=DecoupledDiT,
        transformer=dict(num_layers=7, identity_tokens=4),
        fusion=dict(fusion="concatenation", identity_tokens=4, expression_tokens=4),
    ),
    "concatenation": Variant(
        "fusion: tokens side by side", fusion=dict(fusion="concatenation", identity_tokens=8, expression_tokens=8)
    ),
    "sum": Variant("fusion: sum", fusion=dict(fusion="sum", identity_tokens=12, expression_tokens=4)),
    "residual_mlp": Variant(
        "fusion: residual MLP", fusion=dict(fusion="residual_mlp", identity_tokens=8, expression_tokens=4)
    ),
    "reconstruction": Variant("trained to reconstruct the reference", same_picture=True),
    "identity_only": Variant("told who, not what", blind_to="expression"),
    "expression_only": Variant("told what, not who", blind_to="identity"),
}
TABLES = {"recipes": RECIPES, "baselines": BASELINES, "codecs": CODECS, "sharing": METHODS}


class BlindFusion(IdentityExpressionFusion):
    """A fusion whose identity or expression input is replaced by zeros."""

    blind_to: str

    def forward(self, identity, expression, keep_identity=None, keep_expression=None):
        if self.blind_to == "identity":
            identity = torch.zeros_like(identity)
        else:
            expression = torch.zeros_like(expression)
        return super().forward(identity, expression, keep_identity, keep_expression)


class Study:
    """What all variants have in common: the shipped codec, the latents of the drawn pairs, the face pack."""

    def __init__(self, profile: Profile):
        self.profile = profile = profile.compared()
        self.faces, self.codec = FacePack(), GenAffectPipeline.from_pretrained(SHIPPED).codec.to(pick_device())
        self.splits = [
            cache_split(PairCache.open(config), self.codec, self.faces, profile.references)
            for config in (profile.pairs, profile.validation)
        ]

    def trainer(self, variant: Variant, seed: int, folder: Path) -> tuple[Trainer, GenAffectPipeline]:
        """A variant's trainer, with random weights, and the pipeline of its networks."""
        seed_everything(seed)
        profile, train = self.profile, self.splits[0]
        sizes = vars(profile.fusion) | variant.fusion
        if variant.blind_to is None:
            fusion = IdentityExpressionFusion(**sizes)
        else:
            fusion = BlindFusion(**sizes)
            fusion.blind_to = variant.blind_to
        dim, channels = sizes["dim"], self.codec.latent_channels
        transformer = variant.network(
            sample_size=self.codec.latent_size(profile.pairs.size),
            in_channels=channels,
            joint_attention_dim=dim,
            pooled_projection_dim=dim,
            **vars(profile.transformer) | variant.transformer,
        )
        if variant.same_picture:
            train = _reconstructing(train)
        settings = dict(seed=seed, validate_every=10_000, preview_every=10_000, validation_size=512)
        config = dataclasses.replace(profile.training, **dict(warmup_steps=50) | variant.training | settings)
        pipeline = assemble(
            profile,
            self.codec,
            on_device(transformer),
            on_device(fusion),
            self.faces,
            profile.pairs.size,
            variant.prediction,
        )
        face_loss = None if variant.face_loss is None else FaceLoss(self.codec, **variant.face_loss)
        flow, pairs = RectifiedFlow(variant.prediction), LatentPairs(train, self.splits[1], seed)
        return Trainer(config, transformer, fusion, flow, pairs, folder, extra_loss=face_loss), pipeline


def _reconstructing(split: Split) -> Split:
    def pick(rng, count):
        place, _ = split.pick(rng, count)
        return place, split.references[place]

    return dataclasses.replace(split, pick=pick)


def untrained(study: Study, plan: Plan) -> dict[str, tuple[str, Draw]]:
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
    """Train every variant of a table from random weights, once with each seed, and score it.

    Runs are saved in `folder` and rows in `json_path`; calling it again resumes an interrupted comparison.

    Args:
        table: "recipes", "baselines", "codecs", or "sharing", which trains nothing and whose seeds are those of the
            noise.
        plan: people and words to score on: validation people for choosing a variant, report people for results.
        minutes, steps: of each training. Equal minutes compare the speed of learning, and need an idle machine. Equal
            steps give the same result on every machine.
        only: names of variants, separated by commas.

    Returns:
        "plan", "minutes", "steps", "machine", and "rows": one dict for each run, with "figures" and "people" as in
        `report.report`. Raises UserError for a name that does not exist.
    """
    names = _chosen(table, only)
    length = f"{steps}-steps" if steps else f"{minutes:g}-minutes"
    folder = folder or OUTPUTS / "compare" / f"{table}-{profile.name}-{length}"
    path = Path(json_path or folder / "rows.json")
    if table == "codecs":
        return compare_codecs(profile, plan, minutes, steps, seeds, names, path)
    if table == "sharing":
        return compare_sharing(dataclasses.replace(plan, seeds=seeds), names, path)
    about = heading(profile, plan, minutes, steps)
    rows = read_rows(path, about)
    study, truth = Study(profile), GroundTruth(plan, both_judges())
    mark = key(VARIANT_SETS, {"plan": asdict(plan)}, fingerprint(SHIPPED / "codec"), *study.faces.weights)

    def keep(row: dict, draw: Draw, where: str) -> None:
        sets = draw_sets(draw, plan, folder / where / f"sets-{mark}")
        rows.append(row | score_row(sets, truth))
        write_rows(path, rows, about)

    for seed in range(seeds):
        for name in names:
            if any((row["name"], row["seed"]) == (name, seed) for row in rows):
                continue
            keep(*_trained(study, name, TABLES[table][name], seed, minutes, steps, folder), f"{name}-{seed}")
    if table == "baselines" and only is None:
        for name, (phrase, draw) in untrained(study, plan).items():
            if not any(row["name"] == name for row in rows):
                keep({"name": name, "about": phrase, "seed": 0}, draw, name)
    return write_rows(path, rows, about)


def _trained(
    study: Study, name: str, variant: Variant, seed: int, minutes: float | None, steps: int | None, folder: Path
) -> tuple[dict, Draw]:
    trainer, pipeline = study.trainer(variant, seed, folder / f"{name}-{seed}")
    history = trainer.fit(steps, minutes)
    losses = next(row for row in reversed(history) if "validation/sigma_0.5" in row)
    with torch.no_grad():  # these networks are not trained further
        for parameter, average in zip(trainer.parameters.values(), trainer.average.values()):
            parameter.copy_(average)
    row = {
        "name": name,
        "about": variant.about,
        "seed": seed,
        "steps": trainer.step,
        "parameters": sum(p.numel() for p in trainer.parameters.values()),
        "images_per_second": round(trainer.step * trainer.config.batch_size / trainer.seconds, 1),
        "loss": {sigma: round(losses[f"validation/sigma_{sigma}"], 4) for sigma in ("0.2", "0.5", "0.8")},
    }
    return row, drawn_by(pipeline, consistency=0)


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


def say(result: dict) -> str:
    """The rows of a comparison as text."""
    lines = []
    for row in result["rows"]:
        said = [
            f"{name} {row['figures'][name]['value']:.4f}"
            for name in (*COMPARED, "mse", "expression_error")
            if name in row["figures"]
        ]
        losses = [f"loss at sigma {sigma} {value:.4f}" for sigma, value in row.get("loss", {}).items()]
        lines.append(f"{row['name']:16} seed {row['seed']}: " + ", ".join(losses + said))
    return "\n".join(lines)
