"""From text to pictures as in diffusers' pipeline; and what is added: sets, and bad input in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import tiny_sd3
from gen_affect_lib.fullscale.base import Base, Prompts, SkipLayerGuidance
from gen_affect_lib.model.attention import joint_attention
from gen_affect_lib.model.consistent import Consistency, Replace
from tests.tiny_codec import TINY

PROMPTS = ["a smiling man", "an angry woman with a hat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_sd3.save(tmp_path_factory.mktemp("base") / "sd35")


@pytest.fixture(scope="module")
def theirs(folder) -> StableDiffusion3Pipeline:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def base(folder) -> Base:
    return Base(folder)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


# --- parity with diffusers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps, height, width, guidance_scale, skip",
    [
        (4, 192, 96, 4.5, None),
        (28, 128, 128, 4.5, None),
        (28, 96, 192, 4.5, SkipLayerGuidance((1, 2))),
        (4, 64, 64, 1.0, None),
    ],
)
def test_latents_and_pictures_are_those_of_diffusers(base, theirs, steps, height, width, guidance_scale, skip):
    options = {} if skip is None else {"skip_guidance_layers": [1, 2]}
    shown = dict(prompt=PROMPTS, negative_prompt=2 * ["blurry"], num_inference_steps=steps, height=height, width=width)
    shown |= {"guidance_scale": guidance_scale} | options
    expected = theirs(**shown, output_type="latent", generator=generator()).images
    negative = base.encode_prompts(["blurry"]).repeated(2)
    noise = base.noise(2, height, width, generator())
    sizes = dict(steps=steps, guidance_scale=guidance_scale, skip=skip)
    latents = base.sample(base.encode_prompts(PROMPTS), noise, negative, **sizes)
    assert off(latents, expected) < 1e-5
    pictures = theirs(**shown, output_type="pt", generator=generator()).images  # in [0, 1]
    assert pictures.std() > 0.05
    torch.testing.assert_close((base.decode(latents) / 2 + 0.5).clamp(0, 1), pictures, rtol=0, atol=1e-4)


def test_a_call_gives_the_pictures_of_diffusers(base, theirs):
    given = dict(height=64, width=96, guidance_scale=4.5)
    ours = base(PROMPTS, steps=4, generator=generator(), **given)
    expected = theirs(PROMPTS, num_inference_steps=4, generator=generator(), **given).images
    for a, b in zip(ours, expected, strict=True):
        assert a.size == b.size == (96, 64)
        largest = max(high for _, high in _difference(a, b).getextrema())
        assert largest <= 1  # of 255


def _difference(a, b):
    from PIL import ImageChops

    return ImageChops.difference(a, b)


def test_prompts_are_embedded_as_in_diffusers(base, theirs):
    tokens, _, pooled, _ = theirs.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    ours = base.encode_prompts(PROMPTS)
    torch.testing.assert_close(ours, Prompts(tokens, pooled), rtol=1e-4, atol=1e-4)
    assert tokens.shape == (2, 333, 64)


def test_latents_have_the_shift_and_the_scale_of_the_vae(base, theirs):
    pictures = torch.rand(1, 3, 64, 96, generator=generator()) * 2 - 1
    z = theirs.vae.encode(pictures).latent_dist.mode()
    torch.testing.assert_close(base.encode(pictures), (z - 0.0609) * 1.5305)
    torch.testing.assert_close(base.decode(base.encode(pictures)), theirs.vae.decode(z).sample, rtol=1e-4, atol=1e-5)
    sampled = [base.encode(pictures, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(sampled[0], sampled[1]) and not torch.equal(sampled[0], sampled[2])


def test_half_precision_is_no_worse_than_in_diffusers(folder, theirs):
    """Both against float32. What is rounded besides is the latents of diffusers, after every step."""
    given = dict(prompt=PROMPTS, num_inference_steps=8, height=64, width=64, output_type="latent")
    latents = torch.randn(2, 16, 8, 8, generator=generator())
    half = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    ours = Base(folder, dtype=torch.bfloat16)
    drawn = ours.sample(ours.encode_prompts(PROMPTS), latents.bfloat16(), steps=8, guidance_scale=7.0)
    expected = half(**given, latents=latents, guidance_scale=7.0).images
    exact = theirs(**given, latents=latents, guidance_scale=7.0).images
    assert off(drawn.float(), exact) <= 1.1 * off(expected.float(), exact)


# --- parts are loaded when they are used -----------------------------------------------------------------------------


def test_nothing_is_loaded_before_it_is_used(folder):
    base = Base(folder)
    assert not {"transformer", "vae", "text"} & set(vars(base))
    base.encode_prompts(PROMPTS)
    assert "text" in vars(base) and not {"transformer", "vae"} & set(vars(base))
    base.drop_text()
    assert "text" not in vars(base)


def test_every_part_has_the_dtype_of_the_base(folder):
    base = Base(folder, dtype=torch.bfloat16)
    assert base.encode_prompts(PROMPTS).tokens.dtype == base.noise(1, 64, 64).dtype == torch.bfloat16
    assert {base.transformer.dtype, base.vae.dtype, base.text.text_encoder_3.dtype} == {torch.bfloat16}


def test_a_base_without_text_gets_zeros_and_the_kits_codec_may_be_its_vae(folder, tmp_path):
    copied = tmp_path / "own"
    tiny_sd3.transformer(in_channels=8, out_channels=8).save_pretrained(copied / "transformer")
    LatentCodec(**TINY).save_pretrained(copied / "vae")
    (copied / "scheduler").mkdir()
    (copied / "scheduler" / "scheduler_config.json").write_text('{"shift": 1.5}')
    (copied / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline", "text_tokens": 9}))
    base = Base(copied)
    prompts = base.encode_prompts(PROMPTS)
    assert prompts.tokens.shape == (2, 9, 64) and not prompts.tokens.any() and not prompts.pooled.any()
    assert base.shift == 1.5 and base.downscale == 16
    assert [picture.size for picture in base(PROMPTS, 64, 64, steps=2)] == 2 * [(64, 64)]
    pictures = torch.zeros(1, 3, 64, 64)
    assert torch.equal(base.encode(pictures), base.vae.encode(pictures))


def test_the_licence_is_the_one_of_the_readme(folder, tmp_path):
    assert "no licence is named" in Base(folder).licence
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: stabilityai-ai-community\nlicense_link: URL\n---\n"
    )
    assert Base(folder).licence == "stabilityai-ai-community (URL)"


# --- sets ------------------------------------------------------------------------------------------------------------

SETTINGS = {
    "the default": Consistency(),
    "two anchors": Consistency(anchors=2),
    "appended, some tokens": Consistency(replace=Replace.NOTHING, share=0.5),
    "in one block": Consistency(blocks=(1,)),
}


def set_of(base: Base, count: int, **options) -> torch.Tensor:
    prompts = base.encode_prompts([f"expression {n}" for n in range(count)])
    noise = base.noise(count, 96, 64, generator())
    return base.sample(prompts, noise, **dict(steps=4) | options)


@pytest.mark.parametrize("consistency", SETTINGS.values(), ids=SETTINGS)
def test_a_set_is_the_same_image_by_image_or_at_once(base, consistency):
    at_once, one_by_one = (set_of(base, 4, consistency=consistency, images_at_once=n) for n in (None, 1))
    assert off(one_by_one, at_once) < 1e-5
    assert off(at_once, set_of(base, 4)) > 0.01


def test_the_anchor_is_as_alone_and_the_others_attend_to_it(base):
    together = set_of(base, 3, consistency=Consistency(shared_noise=0.0))
    alone = set_of(base, 3)
    assert off(together[:1], alone[:1]) < 1e-5
    assert min(off(together[n], alone[n]) for n in (1, 2)) > 1e-3


def test_a_set_with_skip_layer_guidance_shares_in_both_evaluations(base):
    skip = SkipLayerGuidance((1,), start=-0.1, stop=1.0)
    options = dict(consistency=1.0, skip=skip)
    at_once, one_by_one = (set_of(base, 3, images_at_once=n, **options) for n in (None, 1))
    assert off(one_by_one, at_once) < 1e-5 and off(at_once, set_of(base, 3, consistency=1.0)) > 0.01


def test_where_a_face_is_can_be_given(base):
    nowhere = torch.zeros(6, 4, dtype=torch.bool)
    without_face = Consistency(face_above=1.0, shared_noise=0.0)  # the face is never shared
    given, typical, everything = (
        set_of(base, 2, consistency=consistency, face=face)
        for consistency, face in (
            (without_face, nowhere),
            (without_face, None),
            (replace(without_face, face_above=0), None),
        )
    )
    assert torch.equal(given, everything) and off(typical, given) > 1e-4


@pytest.mark.parametrize("guidance_scale", [4.5, 1.0])
@pytest.mark.parametrize("consistency", [0.0, 1.0])
def test_an_attention_around_gets_the_rows_of_its_batch(base, guidance_scale, consistency):
    """With an offset for each row of the batch, evaluating at once and one by one must agree."""
    rows_seen = set()

    def around(attention, rows):
        rows_seen.update(rows.tolist())

        def moved(image, condition, *, block, sigma):
            of_image, of_condition = attention(image, condition, block=block, sigma=sigma)
            return of_image + rows[:, None, None] / 10, of_condition

        return moved

    options = dict(consistency=consistency, around=around, guidance_scale=guidance_scale, skip=SkipLayerGuidance((1,)))
    at_once, one_by_one = (set_of(base, 3, images_at_once=n, **options) for n in (None, 1))
    assert off(one_by_one, at_once) < 1e-5
    assert rows_seen == set(range(3 if guidance_scale == 1 else 6))
    plain = set_of(base, 3, **options | {"around": lambda attention, rows: attention})
    assert off(plain, at_once) > 1e-3


def test_the_same_attention_around_changes_nothing(base):
    same = set_of(base, 2, around=lambda attention, rows: joint_attention)
    assert torch.equal(same, set_of(base, 2))


@pytest.fixture
def one_block(tmp_path):
    """A base with one dual block, and a function that draws a set of two with shared attention, in so many steps."""
    tiny_sd3.transformer(num_layers=1, dual_attention_layers=(0,)).save_pretrained(tmp_path / "transformer")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"shift": 3.0}')
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    base = Base(tmp_path)
    prompts, noise = base.encode_prompts(["", ""]), torch.randn(2, 16, 4, 6, generator=generator())

    def drawn(steps):
        return base.sample(prompts, noise, steps=steps, guidance_scale=1.0, consistency=Consistency(face_above=0.0))

    return base, drawn


def test_a_compiled_transformer_has_the_same_few_graphs_for_any_number_of_steps(one_block):
    from torch._dynamo.testing import CompileCounter

    (base, drawn), counter = one_block, CompileCounter()
    expected = drawn(6)
    base.compile(backend=counter)  # an error if a graph breaks
    drawn(2)
    after_two = counter.frame_count
    assert torch.equal(drawn(6), expected)
    assert counter.frame_count == after_two <= 4, "anchors and others, sigma as a constant and then as an input"


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++ on a CPU")
def test_inductor_draws_the_same_set(one_block):
    base, drawn = one_block
    expected = drawn(3)
    base.compile()
    torch.testing.assert_close(drawn(3), expected, rtol=1e-4, atol=1e-4)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_base_that_is_none_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="is no folder on this machine"):
        Base(tmp_path / "nothing")
    with pytest.raises(UserError, match="is only a transformer: give the folder above"):
        Base(folder / "transformer")


def test_stable_diffusion_3_0_is_refused_by_name(tmp_path):
    tiny_sd3.transformer(qk_norm=None, dual_attention_layers=()).save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    with pytest.raises(UserError, match=r"is a Stable Diffusion 3.0, without norms of queries and keys: give a 3.5"):
        Base(tmp_path)


def test_a_missing_part_is_named(tmp_path):
    tiny_sd3.transformer().save_pretrained(tmp_path / "transformer")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    base = Base(tmp_path)
    with pytest.raises(UserError, match="vae is missing"):
        base.decode(torch.zeros(1, 16, 8, 8))
    with pytest.raises(UserError, match="scheduler_config.json is missing"):
        base.shift  # noqa: B018


@pytest.mark.parametrize("height, width, message", [(100, 64, "height 100: give a multiple of 16 up to 384"),
                                                    (64, 400, "width 400"), (0, 64, "height 0")])  # fmt: skip
def test_sizes_that_cannot_be_drawn_are_refused(base, height, width, message):
    with pytest.raises(UserError, match=message):
        base.noise(1, height, width)


def test_one_text_is_no_list_of_texts(base):
    with pytest.raises(UserError, match="give a list of texts"):
        base.encode_prompts("a man")


def test_prompts_can_be_repeated():
    prompts = Prompts(torch.ones(1, 3, 2), torch.ones(1, 4)).repeated(5)
    assert prompts.tokens.shape == (5, 3, 2) and prompts.pooled.shape == (5, 4)
