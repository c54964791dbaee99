"""Drawing with an adapter: guidance, sets, and what it changes."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import tiny_sd3
from gen_affect_lib.fullscale.adapter import add_lora, merge_lora
from gen_affect_lib.fullscale.base import Base, Prompts
from gen_affect_lib.fullscale.sample import draw_latents, draw_person, for_diffusers, words_of
from gen_affect_lib.parity import to_diffusers
from tests.fullscale.tiny import opened, tiny_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Base(tiny_sd3.save(tmp_path_factory.mktemp("base") / "base"), torch.float32)


@pytest.fixture
def given(base):
    """Two people with an expression, a prompt and noise each."""
    generator = torch.Generator().manual_seed(0)
    prompts = base.encode_prompts(["a person", "somebody at a window"])
    identity = torch.randn(2, 1, 512, generator=generator)
    return identity, torch.randn(2, 48, generator=generator), prompts, base.noise(2, 64, 64, generator)


@pytest.mark.parametrize("scale", [1.0, 4.5])
@pytest.mark.parametrize("way", ["tokens", "decoupled", "both"])
def test_at_the_start_the_pictures_are_those_of_the_base(base, given, way, scale):
    adapter, (_, _, prompts, noise) = tiny_adapter(base.transformer, way), given
    options = dict(steps=2, guidance_scale=scale)
    assert torch.equal(draw_latents(base, adapter, *given, **options), base.sample(prompts, noise, **options))
    changed = draw_latents(base, opened(adapter), *given, **options)
    assert not torch.allclose(changed, base.sample(prompts, noise, **options), atol=1e-3)


@pytest.mark.parametrize("way", ["tokens", "decoupled", "both"])
def test_each_picture_has_its_own_face_and_prompt(base, given, way):
    """A picture of a set without sharing is the one drawn alone, also in parts."""
    adapter = opened(tiny_adapter(base.transformer, way))
    together = draw_latents(base, adapter, *given, steps=2)
    identity, expressions, prompts, noise = given
    for n in range(2):
        own = Prompts(prompts.tokens[n : n + 1], prompts.pooled[n : n + 1])
        alone = draw_latents(base, adapter, identity[n : n + 1], expressions[n : n + 1], own, noise[n : n + 1], steps=2)
        torch.testing.assert_close(alone, together[n : n + 1], rtol=1e-4, atol=1e-4)
    parts = draw_latents(base, adapter, *given, steps=2, images_at_once=1)
    torch.testing.assert_close(parts, together, rtol=1e-4, atol=1e-4)


def test_guidance_leads_away_from_no_prompt_and_no_face(base, given):
    """One step of a guided velocity is u + s (c - u), with u the base's own without a face."""
    adapter = opened(tiny_adapter(base.transformer, "both"))
    *_, noise = given

    def step(scale):
        return draw_latents(base, adapter, *given, steps=1, guidance_scale=scale) - noise

    unguided, twice, four = step(1.0), step(2.0), step(4.0)
    torch.testing.assert_close(four, unguided + 3 * (twice - unguided), rtol=1e-3, atol=1e-3)
    other = (given[0].flip(0), *given[1:])
    without = draw_latents(base, adapter, *given, steps=1, guidance_scale=1e-6) - noise
    torch.testing.assert_close(
        draw_latents(base, adapter, *other, steps=1, guidance_scale=1e-6) - noise, without, rtol=1e-3, atol=1e-3
    )


def test_a_person_is_drawn_with_sharing_on_a_rectangle(base):
    adapter = opened(tiny_adapter(base.transformer, "both"))
    identity, expressions = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32), np.eye(3, 48, dtype="f4")
    landmarks = np.array([[[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.42, 0.6], [0.58, 0.6]]])
    options, prompts = dict(steps=2, landmarks=landmarks), base.encode_prompts(["", "a person"])
    pictures = draw_person(base, adapter, identity, expressions, prompts, (64, 96), **options)
    alone = draw_person(base, adapter, identity, expressions, prompts, (64, 96), consistency=0.0, **options)
    assert [picture.size for picture in pictures] == [(64, 96)] * 3
    assert np.array_equal(pictures[0], alone[0]) and not np.array_equal(pictures[1], alone[1])
    with pytest.raises(UserError, match=r"identity has shape \(2, 512\): give \(1, 512\), from the recognizer"):
        draw_person(base, adapter, np.zeros((2, 512), "f4"), expressions, prompts, (64, 64))


def test_merged_and_exported_diffusers_pipeline_draws_the_same_pictures(tmp_path):
    base = Base(tiny_sd3.save(tmp_path / "base"), torch.float32)
    adapter = opened(tiny_adapter(base.transformer, "tokens"))
    add_lora(base.transformer, 2)
    with torch.no_grad():
        for name, parameter in base.transformer.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.2)
    prompts, negative = (base.encode_prompts([text]).repeated(2) for text in ("a person", ""))
    generator = torch.Generator().manual_seed(0)
    faces = torch.randn(2, 1, 512, generator=generator), torch.randn(2, 48, generator=generator)
    noise = base.noise(2, 64, 96, generator)
    ours = draw_latents(base, adapter, *faces, prompts, noise, negative, steps=4)

    theirs = StableDiffusion3Pipeline.from_pretrained(tmp_path / "base", local_files_only=True)
    theirs.transformer = to_diffusers(merge_lora(base.transformer))
    given = for_diffusers(adapter, *faces, prompts, negative)
    sizes = dict(height=64, width=96, num_inference_steps=4, guidance_scale=4.5, output_type="latent")
    drawn = theirs(**given, latents=noise, **sizes).images
    torch.testing.assert_close(drawn, ours, rtol=1e-4, atol=1e-4)

    decoupled = tiny_adapter(base.transformer, "both")
    with pytest.raises(UserError, match="train an adapter with --way tokens"):
        for_diffusers(decoupled, *faces, prompts, negative)


def test_titles_of_words_and_files():
    assert words_of(["joy", "/tmp/ada.smile.png", "C:\\faces\\ben.jpg"]) == ["joy", "ada.smile", "ben"]
