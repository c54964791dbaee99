"""The training of the refiner: templates of small things, what a picture lacks, and a network that learns it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.avatars.pairs import PairCache, PairsConfig
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.model.refiner import Refiner
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.finishing import Generated
from gen_affect_lib.training.latent_pairs import Split
from gen_affect_lib.training.refiner import (
    ELSEWHERE,
    LEAST,
    REFINER_RECIPE,
    THINGS,
    decoded_examples,
    examples_of,
    fit_refiner,
    missing,
    templates,
)

SIZE, WIDTHS = 64, (32, 24, 16, 16)
FULL = Avatar(
    Identity(hair_style="curly", freckles="some", glasses="none"),
    Expression.named("amusement"),
    Appearance(earrings="hoop"),
)
PLAIN = replace(FULL, identity=replace(FULL.identity, freckles="none"), appearance=Appearance(earrings="none"))
FRECKLES, EARRINGS = THINGS.index("freckles"), THINGS.index("earrings")


def tensors(avatar):
    """True picture (1, 3, S, S), differences (1, K, 3, S, S) and presence (1, K) of an avatar, for `missing`."""
    differences, present = templates(avatar, SIZE)
    d = torch.from_numpy(differences).movedim(-1, 1).float()[None] * (2 / 127.5)
    return to_tensor(avatar.render(SIZE))[None], d, torch.from_numpy(present)[None]


def test_a_template_is_the_picture_minus_the_picture_without_the_thing():
    differences, present = templates(FULL, SIZE)
    assert present.all() and differences.dtype == np.int8
    whole = FULL.render(SIZE).astype(int)
    for k, thing in enumerate(THINGS):
        expected = whole - without(FULL, thing, SIZE)
        assert abs(2 * differences[k].astype(int) - expected).max() <= 1 and expected.any()


def test_someone_without_freckles_and_earrings_has_the_templates_of_those_who_have():
    differences, present = templates(PLAIN, SIZE)
    assert not present[FRECKLES] and not present[EARRINGS]
    assert differences[FRECKLES].any() and differences[EARRINGS].any()


@pytest.mark.parametrize("thing", [thing for thing in THINGS if thing != "earrings"])
def test_what_is_missing_of_a_thing_is_the_part_that_is_not_shown(thing):
    true, d, present = tensors(FULL)
    k = THINGS.index(thing)
    decoded = true - 0.75 * d[:, k]  # a quarter of it is shown
    target, weight = missing(decoded, true, d, present)
    inside = d[:, k].abs().mean(dim=1, keepdim=True) > 0.02
    others = (d.abs().mean(dim=2) > 0.02).sum(dim=1, keepdim=True) == 1  # where no other thing is
    chosen = (inside & others).expand_as(target)
    assert (target - 0.75 * d[:, k])[chosen].abs().mean() < 0.15 * d[:, k][chosen].abs().mean()
    energy = d[:, k].square().sum().item()
    assert (weight * d[:, k].square() * inside * others).sum().item() <= energy / max(energy, LEAST) + 1e-4
    assert (weight * d[:, k].square() * inside).sum().item() > 0.8 * energy / max(energy, LEAST)


def test_freckles_that_are_wrongly_there_are_removed():
    true, d, present = tensors(PLAIN)
    target, weight = missing(true + d[:, FRECKLES], true, d, present)
    inside = (d[:, FRECKLES].abs().mean(dim=1, keepdim=True) > 0.02).expand_as(target)
    torch.testing.assert_close(target[inside], -d[:, FRECKLES][inside], atol=0.12, rtol=0)
    assert weight[inside[:, :1]].mean() > 2 * ELSEWHERE


def test_a_true_picture_lacks_nothing():
    true, d, present = tensors(FULL)
    target, _ = missing(true, true, d, present)
    assert target.abs().max() < 0.02


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return PairCache.open(PairsConfig("train", 4, 2, SIZE), tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return LatentCodec(4, (16, 16, 16), (1, 1, 1), WIDTHS, (1, 1, 1, 1)).eval()


def test_examples_are_true_and_generated_latents_with_the_condition_of_their_references(cache, codec):
    latents = codec.encode_all(cache.flat_images)
    identities = np.arange(4)[:, None, None] + np.zeros((1, 2, 512))  # of the first picture of each person
    split = Split(
        latents, identities, np.arange(0, 8, 2), cache.flat_vectors, lambda rng, n: (np.arange(n), 2 * np.arange(n) + 1)
    )
    generated = Generated(torch.from_numpy(latents[[3]]), np.array([3]), np.array([1]))
    examples = examples_of(codec, cache, split, generated, 3)
    assert examples.identity[:, 0, 0].tolist() == [0, 1, 2, 1]
    np.testing.assert_array_equal(examples.expression, cache.flat_vectors[[1, 3, 5, 3]])
    assert [len(side) for side in examples.features] == [4] * 4
    torch.testing.assert_close(examples.target[1], examples.target[3])  # the same latents, of the same picture
    freckles = [cache.avatar(n).identity.freckles == "some" for n in (1, 3, 5, 3)]
    assert (examples.visible[:, FRECKLES] <= torch.tensor(freckles)).all()


def test_the_refiner_learns_what_the_codec_leaves_out(cache, codec):
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    latents, pictures = torch.from_numpy(codec.encode_all(cache.flat_images)), np.arange(8)
    examples = decoded_examples(codec, latents.float(), torch.randn(8, 2, 512), torch.randn(8, 48), cache, pictures)
    network = Refiner(WIDTHS, (32, 24, 16, 16), hidden=16)
    history = fit_refiner(network, examples, replace(REFINER_RECIPE, batch_size=8, warmup_steps=5, steps=80))
    assert history[-1]["explained"] > 0.3 > history[0]["explained"]
    torch.testing.assert_close(dict(codec.state_dict()), before)
    assert not network.training
