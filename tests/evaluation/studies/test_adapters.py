"""The comparison of adapters over a small base that draws avatars, at the size of a smoke test."""

import dataclasses

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.pairs import PairCache
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.encoders.pack import FacePack
from gen_affect_lib.evaluation.sets import Plan
from gen_affect_lib.evaluation.studies import adapters
from gen_affect_lib.fullscale.base import Base
from gen_affect_lib.paths import SHIPPED
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.training.latent_pairs import cache_split
from tests.fullscale.tiny import opened

PROFILE = PROFILES["smoke"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base that has been trained for four steps and saved, the pairs it was trained on, and the face pack."""
    folder = tmp_path_factory.mktemp("made")
    codec, faces = LatentCodec.from_pretrained(SHIPPED / "codec"), FacePack()
    pairs = PairCache.open(dataclasses.replace(PROFILE.pairs, identities=4))
    splits = [cache_split(pairs, codec, faces, 1)] * 2
    adapters.train_base(PROFILE, codec, splits, None, 2, folder / "run", folder / "base")
    return folder, splits, faces


def test_the_base_is_saved_as_a_stable_diffusion_3_5_without_text_encoders(made):
    folder, *_ = made
    base = Base(folder / "base", torch.float32)
    assert isinstance(base.vae, LatentCodec) and base.shift == 1.0 and base.text is None
    prompts, (text, pooled) = base.encode_prompts(["anything"]), adapters.empty_text(1)
    assert torch.equal(prompts.tokens, text) and torch.equal(prompts.pooled, pooled)
    noise = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    pictures = base.decode(base.sample(prompts, noise, steps=2, guidance_scale=1))
    assert pictures.shape == (1, 3, 64, 64)


def test_a_base_that_is_there_is_not_trained_again(made):
    folder, splits, _ = made
    before = (folder / "base" / "model_index.json").stat().st_mtime_ns
    adapters.train_base(PROFILE, None, splits, None, 2, folder / "run", folder / "base")
    assert (folder / "base" / "model_index.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_each_adapter_is_trained_and_draws_the_people_of_a_plan(made, tmp_path, name):
    folder, splits, faces = made
    base = Base(folder / "base", torch.float32)
    frozen = {key: tensor.clone() for key, tensor in base.transformer.state_dict().items()}
    way = adapters.ADAPTERS[name]
    adapter, row = adapters.train_adapter(PROFILE, base.transformer, splits, way, 0, None, 3, tmp_path)
    after = {key.replace(".base_layer", ""): tensor for key, tensor in base.transformer.state_dict().items()}
    assert all(torch.equal(after[key], tensor) for key, tensor in frozen.items())
    assert row["steps"] == 3 and row["parameters"] > 10_000
    zero_at_first = [p for key, p in adapter.named_parameters() if key.endswith(("to_text.weight", "to_v.weight"))]
    assert all(bool(parameter.any()) for parameter in zero_at_first)
    plan = Plan(2, 2, 1, 1_000_000)
    drawn = adapters.generate(base, adapter, faces, plan, 2.0)
    assert drawn.shape == (2, 2, 64, 64, 3) and drawn.dtype == np.uint8
    opened(adapter)
    assert not np.array_equal(adapters.generate(base, adapter, faces, plan, 2.0), drawn)


def test_rows_are_said_with_intervals_and_costs():
    rows = [
        {"name": "base", "right": [0, 1], "found": [0, 0]},
        {"name": "both", "seed": 1, "guidance": 2.0, "parameters": 2_500_000, "right": [4, 2], "found": [4, 4]},
    ]
    said = adapters.say({"words": list("abcd"), "rows": rows}).splitlines()
    assert said[0].startswith("base") and "right 0.125" in said[0] and "found 0.000 [0.000, 0.000]" in said[0]
    assert "seed 1" in said[1] and "right 0.750" in said[1] and "2.50 M trained, guidance 2" in said[1]


def test_the_sheet_has_a_row_for_each_way_and_person():
    plan = Plan(2, 3, 1, 1_000_000)
    white, black = np.full((2, 3, 64, 64, 3), 255, np.uint8), np.zeros((2, 3, 64, 64, 3), np.uint8)
    two = np.asarray(adapters.sheet(plan, {"base": white, "tokens": black}))
    three = np.asarray(adapters.sheet(plan, {"base": white, "tokens": black, "both": black}))
    assert three.shape[0] - two.shape[0] > 2 * 64 and abs(three.shape[1] - two.shape[1]) < 40
    dark = [(picture.reshape(-1, 3).max(axis=1) < 30).sum() for picture in (two, three)]
    assert dark[0] > 6 * 64**2 * 0.95 and dark[1] - dark[0] > 6 * 64**2 * 0.95
