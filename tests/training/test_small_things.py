"""Small things: where they are, how much they weigh, and a decoder that learns to draw them and little else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars import Appearance, Avatar, Expression, Identity
from gen_affect_lib.avatars.omission import without
from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.finishing import Generated
from gen_affect_lib.training.small_things import (
    THINGS,
    TYPICAL,
    draw_small_things,
    thing_loss,
    thing_weight,
)

SIZE = 64
FULL = Avatar(Identity(hair_style="curly"), Expression.named("amusement"), Appearance(earrings="hoop"))
PLAIN = Avatar(Identity(hair_style="short"), Expression.neutral(), Appearance(earrings="none"))


@pytest.mark.parametrize("thing", THINGS)
def test_a_thing_is_left_out_of_an_avatar_that_has_it(thing):
    assert (without(FULL, thing, SIZE) != FULL.render(SIZE)).any()
    assert (without(PLAIN, thing, SIZE) == PLAIN.render(SIZE)).all()


def test_only_the_thing_is_left_out():
    bare = replace(FULL, appearance=replace(FULL.appearance, earrings="none"))
    assert (without(FULL, "earrings", SIZE) == bare.render(SIZE)).all()
    calm = replace(FULL, expression=Expression.neutral())
    assert (without(calm, "folds", SIZE) == calm.render(SIZE)).all()
    smooth = replace(FULL, identity=Identity(hair_style="afro"))
    assert (without(smooth, "curls", SIZE) == smooth.render(SIZE)).all()


def test_an_unknown_thing_is_refused():
    with pytest.raises(ValueError, match="folds"):
        without(PLAIN, "scars", SIZE)


def test_each_thing_has_the_same_weight_and_an_absent_one_has_none():
    assert thing_weight(FULL, SIZE).sum() == pytest.approx(len(THINGS), rel=0.01)
    assert thing_weight(PLAIN, SIZE).sum() == 0
    calm = replace(FULL, expression=Expression.neutral())
    assert thing_weight(calm, SIZE).sum() == pytest.approx(len(THINGS) - 1, rel=0.01)


def test_the_loss_counts_errors_where_things_are():
    weight = torch.from_numpy(thing_weight(FULL, SIZE))[None, None]
    error = torch.zeros(1, 3, SIZE, SIZE)
    error[..., -4:, :4] = 1.0  # clothes
    assert thing_loss(error, weight) == 0
    everywhere = thing_loss(torch.full_like(error, TYPICAL), weight).item()
    assert everywhere == pytest.approx(TYPICAL * weight.sum().item() / len(THINGS), rel=1e-4)


def test_the_decoder_draws_things_and_changes_little_else():
    torch.manual_seed(0)
    codec = LatentCodec(4, (16, 16, 16), (1, 1, 1), (32, 24, 16, 16), (1, 1, 1, 1)).eval()
    avatars = [replace(FULL, identity=Identity.sample(n), appearance=Appearance.sample(n)) for n in range(6)]
    images = np.stack([avatar.render(SIZE) for avatar in avatars])
    weights = np.stack([thing_weight(avatar, SIZE) for avatar in avatars]).astype(np.float16)
    true, places = to_tensor(images), torch.from_numpy(weights.astype(np.float32))[:, None]
    with torch.no_grad():
        latents, before = codec.encode(true), codec(true)
    encoder = {name: tensor.clone() for name, tensor in codec.encoder.state_dict().items()}
    recipe = Recipe(batch_size=8, optimizer="muon", learning_rate=1e-2, warmup_steps=1, weight_decay=0.0, steps=60)
    draw_small_things(codec, Generated(latents.half(), np.arange(6)), images, weights, recipe)
    with torch.no_grad():
        after = codec(true)
    assert thing_loss(after - true, places) < 0.7 * thing_loss(before - true, places)
    moved, inside = (after - before).abs().mean(dim=1, keepdim=True), places * SIZE * SIZE / 8 > 0.5
    assert moved[inside].mean() > 2 * moved[places == 0].mean()
    torch.testing.assert_close(dict(codec.encoder.state_dict()), encoder)
    assert not codec.training
