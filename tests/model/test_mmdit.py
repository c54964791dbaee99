"""The whole network: its initialization, the effect of every input and weight, saving, and invalid arguments."""

import copy
import json

import pytest
import torch
from torch import nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import joint_attention
from gen_affect_lib.model.mmdit import MMDiT, MMDiTBlock, Stream

SIZES = dict(
    in_channels=4,
    num_layers=3,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=24,
    pooled_projection_dim=20,
)


def awake(module: nn.Module) -> nn.Module:
    """Random numbers in every weight: the zeros of adaLN-Zero would hide inputs that are dropped."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return module


def inputs(B: int = 2, height: int = 8, width: int = 8, tokens: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "hidden_states": torch.randn(B, 4, height, width, generator=generator),
        "encoder_hidden_states": torch.randn(B, tokens, 24, generator=generator),
        "pooled_projections": torch.randn(B, 20, generator=generator),
        "timestep": torch.tensor([3.7, 998.25, 500.0, 1000.0])[:B],
    }


def block_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, 16, 32), torch.randn(2, 5, 32), torch.randn(2, 32)


# --- the start -------------------------------------------------------------------------------------------------------


def test_a_new_network_predicts_zero():
    assert MMDiT(**SIZES)(**inputs()).abs().max() == 0


@pytest.mark.parametrize("dual_attention_layers", [(), (0, 1, 2)])
def test_a_new_block_is_the_identity(dual_attention_layers):
    image, condition, c = block_inputs()
    for block in MMDiT(**SIZES, dual_attention_layers=dual_attention_layers).blocks:
        new_image, new_condition = block(image, condition, c)
        assert torch.equal(new_image, image) and torch.equal(new_condition, condition)


def test_at_the_start_every_matrix_keeps_the_variance_about_the_same():
    model = MMDiT(**SIZES)
    for linear in (model.blocks[0].image.attention.to_qkv, model.blocks[2].condition.attention.to_kv):
        for matrix in linear.weight.chunk(len(linear.weight) // 32):  # each square matrix on its own, not the fused one
            assert matrix.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert all(not name.endswith("bias") or not p.any() for name, p in model.named_parameters())


def test_learning_reaches_every_weight_after_five_steps():
    """The zeros of the initialization must not stay: first the output gets a gradient, then gates, then the rest."""
    torch.manual_seed(0)
    model = MMDiT(**SIZES, dual_attention_layers=(0,))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(5):
        optimizer.zero_grad()
        (model(**inputs()) - torch.randn(2, 4, 8, 8)).square().mean().backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


# --- what reaches what -----------------------------------------------------------------------------------------------


def test_every_input_is_heard():
    model, given = awake(MMDiT(**SIZES)), inputs()
    output = model(**given)
    for name, tensor in given.items():
        assert not torch.allclose(model(**(given | {name: tensor * 0.9})), output, rtol=1e-3), name


def test_every_weight_gets_a_gradient():
    """A weight without a gradient belongs to an argument that was accepted and not passed on."""
    model = awake(MMDiT(**SIZES, dual_attention_layers=(0, 2)))
    model(**inputs()).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_residual_stream_keeps_its_input_and_adds_what_attention_saw():
    torch.manual_seed(0)
    stream = awake(Stream(32, num_heads=2, qk_norm="rms_norm"))
    x, seen, c = torch.randn(2, 5, 32), torch.randn(2, 5, 32), torch.randn(2, 32)
    _, mods = stream.before(x, c)
    nn.init.zeros_(stream.mlp.narrow.weight)
    nn.init.zeros_(stream.mlp.narrow.bias)
    expected = x + mods[0].gate * stream.attention.to_out(seen)
    torch.testing.assert_close(stream.after(x, seen, mods), expected)


def test_the_last_block_leaves_the_condition_alone_and_has_no_weights_to_change_it():
    block = awake(MMDiTBlock(32, num_heads=2, qk_norm="rms_norm", dual_attention=False, last=True))
    image, condition, c = block_inputs()
    assert torch.equal(block(image, condition, c)[1], condition)
    assert {name.split(".")[0] for name, _ in block.condition.named_parameters()} == {"norm", "attention"}


def test_without_condition_tokens_the_condition_is_silent():
    model = awake(MMDiT(**SIZES))
    assert model(**inputs(tokens=0)).shape == (2, 4, 8, 8)


def test_images_of_a_batch_do_not_touch_each_other():
    model, given = awake(MMDiT(**SIZES)), inputs(B=3)
    alone = model(**{name: tensor[1:2] for name, tensor in given.items()})
    torch.testing.assert_close(model(**given)[1:2], alone, rtol=1e-4, atol=1e-4)


def test_condition_tokens_are_a_set():
    model, given = awake(MMDiT(**SIZES)), inputs()
    turned = given | {"encoder_hidden_states": given["encoder_hidden_states"].flip(1)}
    torch.testing.assert_close(model(**turned), model(**given), rtol=1e-4, atol=1e-4)


def test_image_tokens_are_no_set_because_they_have_positions():
    model, given = awake(MMDiT(**SIZES)), inputs()
    shifted = given | {"hidden_states": given["hidden_states"].roll(2, dims=-1)}
    assert not torch.allclose(model(**shifted).roll(-2, dims=-1), model(**given), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("height, width", [(8, 8), (4, 10), (12, 2)])
def test_pictures_may_be_of_any_size_that_the_table_holds(height, width):
    model = awake(MMDiT(**SIZES, pos_embed_max_size=6))
    assert model(**inputs(height=height, width=width)).shape == (2, 4, height, width)


def test_more_may_go_out_than_came_in():
    assert MMDiT(**SIZES, out_channels=7)(**inputs()).shape == (2, 7, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_output_has_the_dtype_of_the_model(dtype):
    model = awake(MMDiT(**SIZES))
    given = {name: t if name == "timestep" else t.type(dtype) for name, t in inputs().items()}
    output = nn.Module.to(model, dtype)(**given)
    assert output.dtype == dtype and output.isfinite().all()


def test_autocast_runs_forward_and_backward():
    model, given = awake(MMDiT(**SIZES, dual_attention_layers=(0,))), inputs()
    expected = model(**given)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**given)
        loss = output.float().square().mean()
    loss.backward()
    assert (output - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- saving and compiling --------------------------------------------------------------------------------------------


def test_saving_and_loading_gives_the_same_network(tmp_path):
    model = awake(MMDiT(**SIZES, qk_norm=None, dual_attention_layers=(0,), pos_embed_max_size=6, out_channels=5))
    model.save_pretrained(tmp_path)
    loaded = MMDiT.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs()), model(**inputs()))
    sizes = [{k: v for k, v in m.config.items() if not k.startswith("_")} for m in (model, loaded)]
    assert sizes[0] == sizes[1] and isinstance(sizes[1]["dual_attention_layers"], tuple)


def test_only_safetensors_and_a_config_are_saved(tmp_path):
    MMDiT(**SIZES).save_pretrained(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["num_layers"] == 3


def test_the_repeated_blocks_compile_without_a_break():
    model, given = awake(MMDiT(**SIZES, dual_attention_layers=(0,))), inputs()
    expected = model(**given)
    model.compile_repeated_blocks(backend="eager", fullgraph=True)
    torch.testing.assert_close(model(**given), expected)


# --- skipped layers, checkpointing, an attention for everything ------------------------------------------------------


def test_skipped_layers_are_left_out_and_no_others():
    model, given = awake(MMDiT(**SIZES, dual_attention_layers=(0,))), inputs()
    without = copy.deepcopy(model)
    del without.blocks[1]
    assert torch.equal(model(**given, skip_layers=[1]), without(**given))
    assert torch.equal(model(**given, skip_layers=[]), model(**given))
    assert not torch.allclose(model(**given, skip_layers=(1,)), model(**given), rtol=1e-2)


def shifted_attention(image, condition, *, block, sigma):
    """Joint attention, plus numbers that tell the calls apart."""
    of_image, of_condition = joint_attention(image, condition)
    return of_image + block + sigma + 10 * (condition is None), of_condition


@pytest.mark.parametrize("attention", [None, shifted_attention])
def test_gradients_with_checkpoints_are_those_without(attention):
    model, gradients = awake(MMDiT(**SIZES, dual_attention_layers=(0,))), []
    given = inputs() | {"timestep": torch.full((2,), 500.0), "attention": attention}
    calls = []
    model.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointed in (False, True):
        if checkpointed:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(**given).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert len(calls) == 3, "without once; with checkpoints forward and again in the backward pass"
    with torch.no_grad():
        model(**given)
    assert len(calls) == 4
    model.disable_gradient_checkpointing()
    model(**given).square().mean().backward()
    assert len(calls) == 5


def test_the_second_attention_of_a_dual_block_goes_through_the_attention_as_well():
    model, given, calls = awake(MMDiT(**SIZES, dual_attention_layers=(0, 1))), inputs(), []
    given["timestep"] = torch.full_like(given["timestep"], 250.0)

    def attention(image, condition, *, block, sigma):
        calls.append((block, sigma, condition is None))
        return joint_attention(image, condition)

    assert torch.equal(model(**given, attention=attention), model(**given))
    assert calls == [(0, 0.25, False), (0, 0.25, True), (1, 0.25, False), (1, 0.25, True), (2, 0.25, False)]
    nothing = lambda image, condition, **_: (torch.zeros_like(image.value.flatten(2)), None)  # noqa: E731
    only_joint = lambda *streams, **where: (nothing if streams[1] is None else joint_attention)(*streams, **where)  # noqa: E731
    assert not torch.allclose(model(**given, attention=only_joint), model(**given), rtol=1e-2)


def test_with_a_given_sigma_the_timesteps_may_differ():
    model, given, sigmas = awake(MMDiT(**SIZES)), inputs(), []

    def attention(image, condition, *, block, sigma):
        sigmas.append(sigma)
        return joint_attention(image, condition)

    assert torch.equal(model(**given, attention=attention, sigma=0.3), model(**given)) and sigmas == 3 * [0.3]


@pytest.mark.parametrize("dual", [(), (0, 2)])
def test_the_whole_network_compiles_in_one_graph(dual):
    model, given = awake(MMDiT(**SIZES, dual_attention_layers=dual)), inputs()
    expected = model(**given)
    model.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(model(**given), expected)


def test_residuals_of_a_controlnet_are_added_after_all_blocks_but_the_last():
    model, given = awake(MMDiT(**SIZES)), inputs()
    silent = 2 * [torch.zeros(2, 16, 32)]
    assert torch.equal(model(**given, block_controlnet_hidden_states=silent), model(**given))
    residual = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(3))
    moved = model(**given, block_controlnet_hidden_states=[residual])
    assert not torch.allclose(moved, model(**given), rtol=1e-2)
    only_last = awake(MMDiT(**SIZES | {"num_layers": 1}))
    alone = only_last(**given, block_controlnet_hidden_states=[residual])
    assert torch.equal(alone, only_last(**given)), "as in diffusers"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("hidden_states", (2, 3, 8, 8), r"hidden_states of shape \(2, 4, height, width\) expected, got \(2, 3, 8, 8\)"),
        ("hidden_states", (4, 8, 8), r"hidden_states of shape \(4, 4, height, width\) expected, got \(4, 8, 8\)"),
        ("encoder_hidden_states", (2, 24), r"\(2, tokens, 24\) expected, got \(2, 24\)"),
        ("encoder_hidden_states", (2, 5, 25), r"\(2, tokens, 24\) expected, got \(2, 5, 25\)"),
        ("encoder_hidden_states", (1, 5, 24), r"\(2, tokens, 24\) expected, got \(1, 5, 24\)"),
        ("pooled_projections", (2, 21), r"\(2, 20\) expected, got \(2, 21\)"),
        ("timestep", (), r"timestep of shape \(2\) expected, got \(\): try timestep.expand"),
        ("timestep", (1,), r"timestep of shape \(2\) expected, got \(1,\): try timestep.expand"),
    ],
)
def test_wrong_shapes_are_named(name, shape, message):
    with pytest.raises(UserError, match=message):
        MMDiT(**SIZES)(**(inputs() | {name: torch.zeros(shape)}))


def test_a_side_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="patch_size 2 does not divide the width 7"):
        MMDiT(**SIZES)(**inputs(width=7))


def test_the_folder_of_another_class_is_refused(tmp_path):
    MMDiT(**SIZES).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "DecoupledDiT"}))
    with pytest.raises(UserError, match="holds a DecoupledDiT, not an MMDiT: give another folder"):
        MMDiT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"qk_norm": "layer_norm"}, "qk_norm 'layer_norm' is not known"),
        ({"sample_size": 9}, "patch_size 2 does not divide sample_size 9"),
        ({"dual_attention_layers": (3,)}, r"dual_attention_layers \(3,\) must lie in 0 to 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        MMDiT(**(SIZES | sizes))


def test_a_setting_that_it_does_not_know_is_refused_and_not_ignored():
    with pytest.raises(TypeError, match="attention_mask"):
        MMDiT(**SIZES)(**inputs(), attention_mask=torch.ones(2, 5))
    with pytest.raises(TypeError, match="dropout"):
        MMDiT(**SIZES, dropout=0.1)


def test_an_attention_gets_the_block_and_the_sigma_of_the_timestep():
    model, given, calls = awake(MMDiT(**SIZES)), inputs(), []
    given["timestep"] = torch.full_like(given["timestep"], 250.0)

    def attention(image, condition, *, block, sigma):
        calls.append((block, sigma))
        return joint_attention(image, condition)

    torch.testing.assert_close(model(**given, attention=attention), model(**given), rtol=0, atol=0)
    assert calls == [(0, 0.25), (1, 0.25), (2, 0.25)]


def test_an_attention_needs_all_images_at_one_timestep():
    model, given = awake(MMDiT(**SIZES)), inputs()
    given["timestep"] = torch.arange(len(given["timestep"])) * 100.0
    with pytest.raises(UserError, match="the timesteps of a batch differ"):
        model(**given, attention=joint_attention)
