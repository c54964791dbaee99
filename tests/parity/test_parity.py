"""The same function as diffusers' `SD3Transformer2DModel`: outputs, gradients, half precision, every combination.

Each known way of getting it wrong is one test at the end.
"""

import itertools

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.parity import from_diffusers, renamed, to_diffusers

SD35_MEDIUM = "first half"  # 13 of 24 blocks there: those of the first half
COMBINATIONS = list(itertools.product((None, "rms_norm"), ((), (0,), SD35_MEDIUM), (1, 3), (1, 2)))


def sd3(qk_norm="rms_norm", dual=(), num_layers=3, patch_size=2, **sizes) -> SD3Transformer2DModel:
    """A small model of diffusers with random numbers in every weight, those of the norms around one."""
    torch.manual_seed(0)
    if dual == SD35_MEDIUM:
        dual = tuple(range(num_layers // 2 + 1))
    model = SD3Transformer2DModel(
        **dict(
            sample_size=8,
            patch_size=patch_size,
            in_channels=4,
            num_layers=num_layers,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            caption_projection_dim=32,
            pooled_projection_dim=20,
            out_channels=6,
            pos_embed_max_size=11,
            dual_attention_layers=dual,
            qk_norm=qk_norm,
        )
        | sizes
    )
    for name, parameter in model.named_parameters():
        if "norm_" in name and parameter.ndim == 1 and "linear" not in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.15)
    return model


def inputs(dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Height and width differ, their crop of the table of 11 is off-centre, timesteps are fractions."""
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(2, 4, 6, 10, generator=generator).type(dtype),
        "encoder_hidden_states": torch.randn(2, 5, 24, generator=generator).type(dtype),
        "pooled_projections": torch.randn(2, 20, generator=generator).type(dtype),
        "timestep": torch.tensor([3.7, 998.25]),
    }


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return nn.Module.to(model, dtype)


def output(model: nn.Module, dtype=torch.float32) -> torch.Tensor:
    with torch.no_grad():
        result = model(**inputs(dtype))
    return result if isinstance(model, MMDiT) else result.sample


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm, dual, num_layers, patch_size", COMBINATIONS)
def test_every_combination_agrees_in_both_directions(qk_norm, dual, num_layers, patch_size):
    theirs = sd3(qk_norm, dual, num_layers, patch_size)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-7)):
        cast(theirs, dtype)
        ours = from_diffusers(theirs)
        expected = output(theirs, dtype)
        assert expected.std() > 0.1
        torch.testing.assert_close(output(ours, dtype), expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(output(to_diffusers(ours), dtype), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("qk_norm, dual", [(None, ()), ("rms_norm", ()), ("rms_norm", SD35_MEDIUM)])
def test_half_precision_is_no_worse_than_diffusers_own(qk_norm, dual, dtype):
    theirs = sd3(qk_norm, dual)
    exact = output(cast(theirs, torch.float64), torch.float64)
    cast(theirs, dtype)

    def error(model: nn.Module) -> float:
        return (output(model, dtype) - exact).square().mean().sqrt().item()

    assert error(from_diffusers(theirs)) <= 1.2 * error(theirs)


@pytest.mark.parametrize("height, width", [(8, 8), (2, 22), (22, 14), (6, 4)])
def test_every_crop_of_the_positions_agrees(height, width):
    theirs = sd3(num_layers=1)
    given = inputs() | {"hidden_states": torch.randn(2, 4, height, width)}
    with torch.no_grad():
        torch.testing.assert_close(from_diffusers(theirs)(**given), theirs(**given).sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("table_size, sample_size, patch_size", [(11, 8, 2), (8, 8, 1), (192, 128, 2), (384, 128, 2)])
def test_a_new_table_of_positions_is_diffusers_to_the_bit(table_size, sample_size, patch_size):
    sizes = dict(sample_size=sample_size, patch_size=patch_size, pos_embed_max_size=table_size, num_layers=1)
    theirs = SD3Transformer2DModel(
        **sizes, attention_head_dim=8, num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=8
    )
    ours = MMDiT(**sizes, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=8)
    assert torch.equal(ours.patch_embed.positions.flatten(0, 1), theirs.pos_embed.pos_embed[0])


def test_a_table_that_was_rounded_in_a_checkpoint_comes_along():
    theirs = sd3()
    theirs.pos_embed.pos_embed.copy_(theirs.pos_embed.pos_embed.half())
    torch.testing.assert_close(output(from_diffusers(theirs)), output(theirs), rtol=1e-5, atol=1e-5)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm, dual", [(None, (0,)), ("rms_norm", ()), ("rms_norm", SD35_MEDIUM)])
def test_gradients_of_inputs_and_of_every_weight_agree(qk_norm, dual):
    theirs = sd3(qk_norm, dual)
    ours = from_diffusers(theirs)
    slopes = []
    for model in (ours, theirs):
        given = inputs()
        leaves = [given[name].requires_grad_() for name in given if name != "timestep"]
        result = model(**given)
        (result if model is ours else result.sample).square().mean().backward()
        slopes.append([leaf.grad for leaf in leaves])
    for here, there in zip(*slopes, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)

    # Read our gradients as weights: the converter then puts each beside diffusers' own.
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(parameter.grad)
    ours_there = dict(to_diffusers(ours).named_parameters())
    for name, parameter in theirs.named_parameters():
        there = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours_there[name], there, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


# --- the converter ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm, dual, num_layers, patch_size", COMBINATIONS)
def test_ours_to_diffusers_and_back_gives_every_number_back(qk_norm, dual, num_layers, patch_size):
    ours = from_diffusers(sd3(qk_norm, dual, num_layers, patch_size))
    back = from_diffusers(to_diffusers(ours))
    assert back.config == ours.config
    for (name, here), there in zip(ours.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(here, there), name


def test_diffusers_to_ours_and_back_loses_only_queries_that_nobody_reads():
    theirs = sd3(dual=SD35_MEDIUM)
    back = to_diffusers(from_diffusers(theirs))
    lost = {name for name, value in theirs.state_dict().items() if not torch.equal(back.state_dict()[name], value)}
    attention = "transformer_blocks.2.attn"
    assert lost == {
        f"{attention}.add_q_proj.weight",
        f"{attention}.add_q_proj.bias",
        f"{attention}.norm_added_q.weight",
    }


def test_the_queries_that_are_lost_do_not_reach_the_image():
    theirs = sd3()
    expected = output(theirs)
    attention = theirs.transformer_blocks[-1].attn
    for parameter in (*attention.add_q_proj.parameters(), *attention.norm_added_q.parameters()):
        nn.init.normal_(parameter)
    assert torch.equal(output(theirs), expected)


def test_weights_are_copies():
    theirs = sd3()
    ours = from_diffusers(theirs)
    expected = output(ours)
    for parameter in (*theirs.parameters(), *to_diffusers(ours).parameters()):
        nn.init.zeros_(parameter)
    assert torch.equal(output(ours), expected)


@pytest.mark.parametrize("training", [True, False])
def test_dtype_and_mode_come_along(training):
    theirs = cast(sd3(), torch.float64).train(training)
    ours = from_diffusers(theirs)
    back = to_diffusers(ours)
    for model in (ours, back):
        assert model.dtype == torch.float64 and model.training is training


def test_every_weight_is_named_once():
    config = from_diffusers(sd3(dual=(0,))).config
    there = [name for _, names in renamed(config) for name in names]
    assert len(set(there)) == len(there)


def test_a_norm_that_an_mmdit_does_not_have_is_refused():
    with pytest.raises(UserError, match="qk_norm 'layer_norm' is not known"):
        from_diffusers(sd3("layer_norm"))


def test_a_context_of_another_width_is_refused():
    with pytest.raises(UserError, match="caption_projection_dim 48 is not the width 32"):
        from_diffusers(sd3(caption_projection_dim=48))


def test_a_model_that_saves_no_positions_is_refused():
    with pytest.raises(UserError, match="pos_embed_max_size is None"):
        from_diffusers(sd3(pos_embed_max_size=None))


def test_weights_without_a_place_are_refused_and_not_dropped():
    theirs = sd3()
    theirs.transformer_blocks[0].attn.to_q.register_parameter("adapter", nn.Parameter(torch.ones(2)))
    with pytest.raises(UserError, match="does not have .*to_q.adapter"):
        from_diffusers(theirs)


# --- faults that have been made elsewhere ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "norm",
    [f"{place}.norm_{x}" for place in ("image.attention", "condition.attention", "image.self_attention") for x in "qk"],
)
def test_a_qk_norm_that_is_accepted_and_not_passed_on_would_be_noticed(norm):
    theirs = sd3(dual=(0,))
    ours = from_diffusers(theirs)
    nn.init.ones_(ours.get_parameter(f"blocks.0.{norm}.weight"))
    assert (output(ours) - output(theirs)).abs().max() > 1e-3


def test_one_matrix_for_queries_keys_and_values_keeps_the_norms():
    """diffusers' `fuse_qkv_projections` drops them. Ours is always fused, and its norms see their weights."""
    theirs = sd3()
    expected = output(theirs)
    torch.testing.assert_close(output(from_diffusers(theirs)), expected, rtol=1e-5, atol=1e-5)
    assert (output(from_diffusers(sd3(qk_norm=None))) - expected).abs().max() > 1e-2


def test_there_is_no_mask_to_accept_and_ignore():
    ours = from_diffusers(sd3(num_layers=1))
    for name in ("attention_mask", "encoder_attention_mask"):
        with pytest.raises(TypeError, match=name):
            ours(**inputs(), **{name: None})
        with pytest.raises(UserError, match=f"joint_attention_kwargs has '{name}', which an MMDiT does not know"):
            ours(**inputs(), joint_attention_kwargs={name: None})


def test_what_attention_saw_stays_in_the_residual_stream():
    """With MLPs silenced, attention alone must still move the output, as it does in diffusers."""
    theirs = sd3()
    for block in theirs.transformer_blocks:
        nn.init.zeros_(block.ff.net[2].weight)
    expected = output(theirs)
    ours = from_diffusers(theirs)
    torch.testing.assert_close(output(ours), expected, rtol=1e-5, atol=1e-5)
    nn.init.zeros_(ours.blocks[-1].image.attention.to_out.weight)
    assert (output(ours) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("module", ["norm_out.linear", "blocks.2.condition.norm.linear"])
def test_scale_and_shift_the_other_way_round_would_be_noticed(module):
    theirs = sd3()
    ours = from_diffusers(theirs)
    linear = ours.get_submodule(module)
    with torch.no_grad():
        linear.weight.copy_(torch.cat(linear.weight.chunk(2)[::-1]))
    assert (output(ours) - output(theirs)).abs().max() > 1e-3


def test_repeated_blocks_compile_and_agree():
    """`compile_repeated_blocks` fails where `_repeated_blocks` is empty, as it is in diffusers' SD3."""
    theirs = sd3()
    with pytest.raises(ValueError, match="_repeated_blocks"):
        theirs.compile_repeated_blocks(backend="eager")
    ours = from_diffusers(theirs)
    ours.compile_repeated_blocks(backend="eager", fullgraph=True)
    torch.testing.assert_close(output(ours), output(theirs), rtol=1e-5, atol=1e-5)
