"""An MMDiT in the place of diffusers' transformer: in its pipelines, with its ways of saving memory and time."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model, infer_auto_device_map
from diffusers import SD3ControlNetModel, StableDiffusion3ControlNetPipeline, StableDiffusion3Pipeline
from PIL import Image
from torch import nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale import tiny_sd3
from gen_affect_lib.model.attention import joint_attention
from gen_affect_lib.parity import from_diffusers, to_diffusers


@pytest.fixture(scope="module")
def theirs():
    pipeline = tiny_sd3.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def ours(theirs):
    pipeline = StableDiffusion3Pipeline(**theirs.components | {"transformer": from_diffusers(theirs.transformer)})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline, **options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    given = dict(prompt=["a smiling man", "a woman"], num_inference_steps=3, height=64, width=96, output_type="latent")
    return pipeline(**given | options, generator=generator).images


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert (a - b).norm() < tolerance * b.norm()


@pytest.mark.parametrize(
    "options",
    [{}, {"guidance_scale": 1.0}, {"skip_guidance_layers": [1, 2], "num_inference_steps": 12}, {"output_type": "pt"}],
    ids=str,
)
def test_the_pipeline_draws_the_same_with_either(ours, theirs, options):
    close(drawn(ours, **options), drawn(theirs, **options), 1e-4 if "output_type" in options else 1e-5)


def test_skipped_layers_are_left_out(ours, theirs):
    options = {"skip_guidance_layers": [1, 2], "num_inference_steps": 12}
    assert (drawn(ours, **options) - drawn(ours, num_inference_steps=12)).norm() > 0.01 * drawn(ours).norm()


def test_what_came_back_from_ours_draws_the_same(theirs):
    back = to_diffusers(from_diffusers(theirs.transformer))
    again = StableDiffusion3Pipeline(**theirs.components | {"transformer": back})
    again.set_progress_bar_config(disable=True)
    assert torch.equal(drawn(again), drawn(theirs))


def test_an_attention_can_be_given_through_the_pipeline(ours):
    sigmas = []

    def attention(image, condition, *, block, sigma):
        sigmas.append(sigma)
        return joint_attention(image, condition)

    close(drawn(ours, joint_attention_kwargs={"attention": attention}), drawn(ours))
    assert len(set(sigmas)) == 3 and len(sigmas) == 3 * (4 + 2)  # blocks, and second attentions of dual blocks


@pytest.mark.parametrize("name", ["scale", "ip_adapter_image_embeds"])
def test_other_options_of_attention_are_refused(ours, name):
    with pytest.raises(UserError, match=f"joint_attention_kwargs has '{name}', which an MMDiT does not know"):
        drawn(ours, joint_attention_kwargs={name: 0.5})


def test_a_controlnet_guides_ours_as_it_guides_theirs(ours, theirs):
    torch.manual_seed(4)
    controlnet = SD3ControlNetModel(**tiny_sd3.TRANSFORMER | {"num_layers": 2, "dual_attention_layers": ()})
    for parameter in controlnet.parameters():
        nn.init.normal_(parameter, std=0.1)
    shown = Image.linear_gradient("L").convert("RGB").resize((96, 64))
    results = []
    for one in (ours, theirs):
        pipeline = StableDiffusion3ControlNetPipeline(**one.components, controlnet=controlnet)
        pipeline.set_progress_bar_config(disable=True)
        torch.manual_seed(5)  # the pipeline samples the latents of the shown picture without its generator
        results.append(drawn(pipeline, control_image=shown, controlnet_conditioning_scale=2.0))
    close(*results)
    assert (results[1] - drawn(theirs)).norm() > 0.01 * results[1].norm()


def test_its_outputs_are_named_as_in_diffusers(ours, theirs):
    given = dict(hidden_states=torch.randn(1, 16, 4, 6), encoder_hidden_states=torch.randn(1, 3, 64),
                 pooled_projections=torch.randn(1, 40), timestep=torch.tensor([500.0]))  # fmt: skip
    model = ours.transformer
    with torch.no_grad():
        tensor, in_tuple, named = (model(**given, return_dict=how) for how in (None, False, True))
    assert torch.equal(tensor, in_tuple[0]) and torch.equal(tensor, named.sample) and len(in_tuple) == 1


# --- memory and time -------------------------------------------------------------------------------------------------


def offloaded_to_the_cpu(model, folder):
    return cpu_offload(model, execution_device=torch.device("cpu"))


def offloaded_to_the_disk(model, folder):
    disk_offload(model, folder / "offload", execution_device=torch.device("cpu"))
    return model


def spread(model, folder):
    """Blocks on the CPU and on the disk, as accelerate decides for a device that is too small."""
    devices = infer_auto_device_map(model, max_memory={"cpu": 300_000}, no_split_module_classes=model._no_split_modules)
    assert {*devices.values()} == {"cpu", "disk"}
    assert all("." not in name.removeprefix("blocks.") for name in devices if name.startswith("blocks."))
    return dispatch_model(model, devices, main_device="cpu", offload_dir=folder / "spread", force_hooks=True)


@pytest.mark.parametrize("place", [offloaded_to_the_cpu, offloaded_to_the_disk, spread])
def test_weights_may_lie_elsewhere(theirs, place, tmp_path):
    model = from_diffusers(theirs.transformer).eval()
    given = torch.randn(1, 16, 4, 6), torch.randn(1, 3, 64), torch.randn(1, 40), torch.tensor([500.0])
    with torch.no_grad():
        expected = model(*given)
        assert torch.equal(place(model, tmp_path)(*given), expected)
    assert any(parameter.is_meta for parameter in model.parameters())


def test_weights_may_be_stored_in_eight_bits(theirs):
    model = from_diffusers(theirs.transformer).eval()
    given = torch.randn(1, 16, 4, 6), torch.randn(1, 3, 64), torch.randn(1, 40), torch.tensor([500.0])
    with torch.no_grad():
        expected = model(*given)
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        close(model(*given), expected, 0.2)
    stored = {name: p.dtype for name, p in model.named_parameters()}
    assert stored["blocks.0.image.mlp.widen.weight"] == torch.float8_e4m3fn
    assert stored["blocks.0.image.attention.norm_q.weight"] == stored["patch_embed.proj.weight"] == torch.float32
