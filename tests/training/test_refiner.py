"""The training of the refiner: templates of small things, what a picture lacks, and a network that learns it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.model.refiner import Refiner
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.refiner import (
    ELSEWHERE,
    LEAST,
    REFINER_RECIPE,
    THINGS,
    Examples,
    Templates,
    fit_refiner,
    missing,
    templates,
)

SIZE = 64
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


def test_the_refiner_learns_what_the_codec_leaves_out():
    torch.manual_seed(0)
    codec = LatentCodec(4, (16, 16, 16), (1, 1, 1), (32, 24, 16, 16), (1, 1, 1, 1))
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    avatars = [replace(FULL, identity=replace(Identity.sample(n), freckles="some")) for n in range(4)]
    images = np.stack([avatar.render(SIZE) for avatar in avatars])
    rows = [templates(avatar, SIZE) for avatar in avatars]
    made = Templates(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))
    with torch.no_grad():
        latents = codec.eval().encode(to_tensor(images)).half()
    examples = Examples(latents, torch.randn(4, 2, 512).half(), torch.randn(4, 48), np.arange(4), images, made)
    network = Refiner((32, 24, 16, 16), (32, 24, 16, 16), hidden=16)
    recipe = replace(REFINER_RECIPE, batch_size=4, warmup_steps=5, steps=60)
    history = fit_refiner(network, codec, examples, recipe)
    assert history[-1]["explained"] > 0.3 > history[0]["explained"]
    torch.testing.assert_close(dict(codec.state_dict()), before)
