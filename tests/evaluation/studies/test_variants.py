"""Recipes and baselines differ from ours in what they state and in nothing else; each recipe is scored once."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import pairs
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.evaluation import sets
from gen_affect_lib.evaluation.figures import GroundTruth
from gen_affect_lib.evaluation.judges.networks import both_judges
from gen_affect_lib.evaluation.report import COMPARED
from gen_affect_lib.evaluation.rivals.decoupled import DecoupledDiT
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import variants
from gen_affect_lib.evaluation.studies.fronts import BASELINES
from gen_affect_lib.evaluation.studies.study import Study
from gen_affect_lib.evaluation.studies.variants import RECIPES, compare, say, slim_modulation
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.training.face_loss import FaceLoss
from gen_affect_lib.training.latent_pairs import Split
from gen_affect_lib.training.trainer import Trainer

SMOKE, SMALL = PROFILES["smoke"], PROFILES["laptop"].compared()
PLAN = Plan(people=6, words=5, seeds=1)


def split():
    """Six pictures, two of each person, of which the first is a reference: nothing that takes time to draw."""
    rng = np.random.default_rng(0)
    latents, identities = rng.normal(size=(6, 16, 4, 4)), rng.normal(size=(3, 2, 512))
    references = np.arange(0, 6, 2)

    def pick(rng, count):
        place = rng.integers(0, 3, count)
        return place, references[place] + 1

    return Split(latents.astype(np.float32), identities, references, rng.normal(size=(6, 48)).astype(np.float32), pick)


@pytest.fixture
def trainer_of(tmp_path):
    """Builds what `compare` would train, at a profile's sizes, on next to no data."""

    def build(variant, profile=SMOKE):
        study = object.__new__(Study)
        study.profile, study.faces = profile, SimpleNamespace(mark="0123456789ab")
        study.codec = LatentCodec(**vars(SMOKE.codec)).eval()
        study.splits = [split(), split()]
        return study.trainer(variant, 0, tmp_path)[0]

    return build


def networks(trainer):
    return trainer.networks["model"], trainer.networks["condition_encoder"]


def facts(trainer):
    """Everything about a training that a variant could change."""
    model, fusion = networks(trainer)
    modulator = next(module for module in model.modules() if isinstance(module, variants.Modulator))
    return (
        {("training", name): value for name, value in dataclasses.asdict(trainer.config).items()}
        | {("transformer", name): value for name, value in model.config.items() if name[0] != "_"}
        | {("fusion", name): value for name, value in fusion.config.items() if name[0] != "_"}
        | {("transformer", "identity_tokens"): getattr(model.blocks[0], "identity_tokens", None)}
        | {"network": (type(model), type(modulator.linear)), "prediction": trainer.flow.prediction}
        | {"face_loss": type(trainer.objective.extra_loss)}
        | {"blind_to": getattr(fusion, "blind_to", None)}
        | {"same_picture": same_picture(trainer.data.train)}
    )


def same_picture(split):
    place, target = split.pick(np.random.default_rng(0), 50)
    return bool((split.references[place] == target).all())


# --- what is other than in ours --------------------------------------------------------------------------------------

FOLLOWS = {("transformer", name) for name in ("joint_attention_dim", "pooled_projection_dim", "pos_embed_max_size")}


@pytest.mark.parametrize("name", [name for name in (RECIPES | BASELINES) if name != "ours"])
def test_a_variant_differs_from_ours_in_what_it_states_and_in_nothing_else(name, trainer_of):
    variant = (RECIPES | BASELINES)[name]
    parts = ("transformer", "fusion", "training")
    stated = {(part, key): value for part in parts for key, value in getattr(variant, part).items()}
    plain, other = facts(trainer_of(RECIPES["ours"], SMALL)), facts(trainer_of(variant, SMALL))
    assert all(other[key] == value for key, value in stated.items())
    differing = {key for key in plain | other if plain.get(key) != other.get(key)}
    fields = {
        key
        for key in ("network", "prediction", "face_loss", "blind_to", "same_picture")
        if getattr(variant, key) != getattr(RECIPES["ours"], key)
    }
    assert differing and differing - FOLLOWS <= stated.keys() | fields and fields <= differing


def test_the_numbers_in_the_phrases_are_those_of_the_networks(trainer_of):
    def sizes(name):
        model, fusion = networks(trainer_of(RECIPES[name], SMALL))
        image = model.patch_embed(torch.zeros(1, 16, 4, 4))
        told, _ = fusion(torch.zeros(1, 2, 512), torch.zeros(1, 48))
        shape = dict(wide=image.shape[2], image_tokens=image.shape[1], condition_tokens=told.shape[1])
        return dict(blocks=len(model.blocks)) | shape

    ours = dict(blocks=4, wide=96, image_tokens=16, condition_tokens=16)
    assert sizes("ours") == ours and sizes("deep") == ours | dict(blocks=7, wide=64)
    assert sizes("wide") == ours | dict(blocks=2, wide=128) and sizes("small") == ours | dict(blocks=3, wide=64)
    assert sizes("more_tokens") == ours | dict(condition_tokens=26), "16 fused ones and 10 exact ones"


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_has_as_many_parameters_as_ours(name, trainer_of):
    ours, theirs = (trainer_of(BASELINES[which], SMALL).parameters.values() for which in ("ours", name))
    assert sum(p.numel() for p in theirs) == pytest.approx(sum(p.numel() for p in ours), rel=0.05)


def test_the_decoupled_rival_splits_the_condition_where_the_identity_ends(trainer_of):
    """At every profile, whatever its own number of tokens is."""
    for profile in (SMOKE, SMALL):
        model, fusion = networks(trainer_of(BASELINES["decoupled"], profile))
        assert isinstance(model, DecoupledDiT)
        identity, expression = fusion.tokens(torch.zeros(1, 2, 512), torch.zeros(1, 48))
        assert model.blocks[0].identity_tokens == identity.shape[1] and expression.shape[1] > 0


def test_reconstruction_is_asked_for_the_reference_itself_and_validated_on_pairs(trainer_of):
    data = trainer_of(BASELINES["reconstruction"]).data
    assert same_picture(data.train) and not same_picture(data.held_out)
    batch = data.batch(0, 20)
    known = torch.from_numpy(data.train.identities).float()  # of three people
    of = (batch["identity"][:, None] == known).flatten(2).all(dim=2).int().argmax(dim=1)
    np.testing.assert_array_equal(batch["target"], data.train.latents[data.train.references[of]])
    np.testing.assert_array_equal(batch["expression"], data.train.expressions[data.train.references[of]])


@pytest.mark.parametrize("name, blind, sees", [("identity_only", 1, 0), ("expression_only", 0, 1)])
def test_a_blind_fusion_says_the_same_whatever_it_is_not_told(name, blind, sees, trainer_of):
    _, fusion = networks(trainer_of(BASELINES[name]))
    torch.manual_seed(0)
    told, other = ([torch.randn(3, 2, 512), torch.randn(3, 48)] for _ in range(2))
    keep = torch.tensor([True, False, True])

    def says(identity, expression):
        tokens, pooled = fusion(identity, expression, keep_identity=keep, keep_expression=keep)
        return torch.cat([tokens.flatten(1), pooled], dim=1)

    plain = says(*told)
    changed = [other[k] if k == blind else told[k] for k in (0, 1)]
    assert torch.equal(says(*changed), plain)
    changed = [other[k] if k == sees else told[k] for k in (0, 1)]
    difference = (says(*changed) - plain).abs().amax(dim=1)
    assert (difference[keep] > 1e-3).all() and difference[1] == 0, "what is left out stays left out"


def test_slim_modulations_start_with_closed_gates_and_open_in_training():
    sizes = vars(SMOKE.transformer) | dict(sample_size=8, joint_attention_dim=32, pooled_projection_dim=32)
    torch.manual_seed(0)
    model = slim_modulation(**sizes)
    image, condition, c = torch.randn(2, 16, 32), torch.randn(2, 6, 32), torch.randn(2, 32)
    for block in model.blocks:
        seen = block(image, condition, c)
        assert torch.equal(seen[0], image) and torch.equal(seen[1], condition)
    linear = model.blocks[0].image.modulator.linear
    (model.blocks[0](image, condition, c)[0] * torch.randn(2, 16, 32)).sum().backward()
    assert linear[1].weight.grad.abs().max() > 0
    with torch.no_grad():
        linear[1].weight -= linear[1].weight.grad
    opened, _ = model.blocks[0](image, condition, c)
    assert not torch.equal(opened, image)
    opened.square().sum().backward()
    assert linear[0].weight.grad.abs().max() > 0, "and then the narrow part learns too"
    assert linear[0].out_features == 32


def test_slim_modulations_have_fewer_weights():
    def count(network):
        dim = SMALL.fusion.dim
        model = network(sample_size=4, joint_attention_dim=dim, pooled_projection_dim=dim, **vars(SMALL.transformer))
        modulators = [module for module in model.modules() if isinstance(module, variants.Modulator)]
        return sum(p.numel() for p in model.parameters()), sum(p.numel() for m in modulators for p in m.parameters())

    (whole, modulating), (slim, slim_modulating) = count(MMDiT), count(slim_modulation)
    assert modulating == pytest.approx(whole / 3, rel=0.15) and slim_modulating < 0.4 * modulating
    assert whole - slim == modulating - slim_modulating


def test_a_training_with_the_loss_on_faces_learns_from_it(trainer_of):
    trainer = trainer_of(RECIPES["face_loss"])
    assert isinstance(trainer.objective.extra_loss, FaceLoss)
    batch, noise, sigma, *keep = trainer.objective.draw(0)
    sigma = torch.linspace(0.05, 0.9, len(sigma))
    more = trainer.objective.training_loss(batch, noise, sigma, *keep) - trainer.objective.loss(
        batch, noise, sigma, *keep
    )
    assert (more[sigma < 0.3] > 1e-4).all() and (more[sigma >= 0.3] == 0).all()
    trainer.fit(max_steps=2)
    assert trainer.step == 2 and all(p.isfinite().all() for p in trainer.parameters.values())


# --- trained and scored ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two recipes: the first one alone, then both, interrupted while the second one draws, then to the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(sets, "GALLERY", 30)
        truth = GroundTruth(PLAN, both_judges())
        patch.setattr(variants, "GroundTruth", lambda plan, judges: truth)
        folder = tmp_path_factory.mktemp("compared")

        def run(only="ours,slow", steps=3):
            return compare(
                "recipes", SMOKE, PLAN, steps=steps, only=only, json_path=folder / "rows.json", folder=folder
            )

        first = run(only="ours")
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(GenAffectPipeline, "__call__", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run()
        with pytest.MonkeyPatch.context() as over:
            over.setattr(Trainer, "learn", lambda *_: pytest.fail("trained again"))
            result = run()
            yield SimpleNamespace(first=first, result=result, run=run, folder=folder, truth=truth)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_each_is_trained_once_however_often_it_is_interrupted(compared, monkeypatch):
    assert [row["name"] for row in compared.first["rows"]] == ["ours"]
    assert compared.result["rows"][0] == compared.first["rows"][0]
    assert [row["name"] for row in compared.result["rows"]] == ["ours", "slow"]
    monkeypatch.setattr(GenAffectPipeline, "__call__", lambda *_, **__: pytest.fail("drawn again"))
    assert compared.run() == compared.result == json.loads((compared.folder / "rows.json").read_text())


def test_a_row_tells_what_was_trained_and_how_it_scored(compared):
    assert compared.result["profile"] == "smoke" and compared.result["plan"] == dataclasses.asdict(PLAN)
    for one in compared.result["rows"]:
        assert one["about"] == RECIPES[one["name"]].about and one["seed"] == 0
        assert one["steps"] == 3 and one["images_per_second"] > 0 and one["parameters"] > 50_000
        assert one["loss"].keys() == {"0.2", "0.5", "0.8"} and all(0 < loss < 4 for loss in one["loss"].values())
        assert one["figures"].keys() == compared.truth.ceiling().keys() and one["people"].keys() == set(COMPARED)
        for figure in COMPARED:
            scores = one["figures"][figure]
            assert np.mean(one["people"][figure]) == pytest.approx(scores["value"], abs=2e-4)
            assert scores["low"] <= scores["value"] <= scores["high"]


def test_a_comparison_is_told_in_a_line_for_each_row(compared):
    lines = say("recipes", compared.result).splitlines()
    assert [line.split()[0] for line in lines] == ["ours", "slow"]
    assert all("loss at sigma 0.5" in line for line in lines)
    for line, one in zip(lines, compared.result["rows"]):
        assert all(f"{name} {one['figures'][name]['value']:.4f}" in line for name in COMPARED)


def test_rows_of_other_steps_are_not_gone_on_with(compared):
    with pytest.raises(UserError, match="another steps"):
        compared.run(steps=4)


def test_a_name_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean concatenation"):
        compare("fronts", SMOKE, PLAN, steps=1, only="concatenate")
