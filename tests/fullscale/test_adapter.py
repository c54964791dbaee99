"""The adapter: zero at the start, around consistent attention, LoRA, export to diffusers."""

import pytest
import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.fullscale.adapter import WAYS, Adapter, add_lora, load_lora, lora_weights, merge_lora, sizes_of
from gen_affect_lib.model.attention import joint_attention
from gen_affect_lib.model.consistent import AnchorBank, Consistency
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.parity import to_diffusers
from tests.fullscale.tiny import inputs, opened, tiny_adapter, tiny_base

TIMESTEP = 400.0


def condition(adapter, given, **options):
    return adapter(given["identity"], given["expression"], given["text"], given["pooled"], **options)


def drawn(base, given, adapter=None, attention=None, **options):
    """The base's output with an adapter, or without one."""
    timestep = torch.full((len(given["target"]),), TIMESTEP)
    text, pooled = given["text"], given["pooled"]
    if adapter is not None:
        made = condition(adapter, given, **options)
        text, pooled, attention = made.text, made.pooled, made.attention(attention)
    with torch.no_grad():
        return base(given["target"], text, pooled, timestep, attention=attention)


@pytest.mark.parametrize("way", WAYS)
def test_at_the_start_the_output_of_the_base_is_unchanged_to_the_bit(way):
    base = tiny_base()
    given = inputs(base)
    assert torch.equal(drawn(base, given, tiny_adapter(base, way)), drawn(base, given))
    assert not torch.equal(drawn(base, given, opened(tiny_adapter(base, way))), drawn(base, given))


@pytest.mark.parametrize("way", WAYS)
def test_every_weight_of_the_adapter_gets_a_gradient(way):
    base = tiny_base()
    adapter, given = opened(tiny_adapter(base, way)), inputs(base)
    keep = torch.tensor([True, False])
    made, timestep = condition(adapter, given, keep_identity=keep, keep_expression=~keep), torch.tensor([100.0, 900.0])
    output = base(given["target"], made.text, made.pooled, timestep, attention=made.attention(), sigma=0.0)
    output.square().mean().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None and bool(parameter.grad.any())), name
    assert all(parameter.grad is None for parameter in base.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_at_the_start_the_maps_into_the_base_already_learn(way):
    base = tiny_base()
    adapter, given = tiny_adapter(base, way), inputs(base)
    made, timestep = condition(adapter, given), torch.full((2,), TIMESTEP)
    output = base(given["target"], made.text, made.pooled, timestep, attention=made.attention())
    output.square().mean().backward()
    last = [adapter.tokens.to_text, adapter.tokens.to_pooled] if adapter.tokens else []
    last += [block.to_v for block in adapter.decoupled.blocks] if adapter.decoupled else []
    assert all(bool(layer.weight.grad.any()) for layer in last)


@pytest.mark.parametrize("way", WAYS)
def test_identity_and_expression_change_the_picture_and_dropped_ones_do_not(way):
    base = tiny_base()
    adapter, given = opened(tiny_adapter(base, way)), inputs(base)
    first = drawn(base, given, adapter)
    for name, keep in (("identity", "keep_identity"), ("expression", "keep_expression")):
        other = given | {name: given[name].flip(0)}
        assert not torch.allclose(drawn(base, other, adapter), first, atol=1e-4)
        dropped = {keep: torch.zeros(2, dtype=torch.bool)}
        assert torch.equal(drawn(base, other, adapter, **dropped), drawn(base, given, adapter, **dropped))


def test_tokens_stand_on_the_last_text_tokens_and_lengthen_nothing():
    base = tiny_base()
    adapter, given = opened(tiny_adapter(base, "tokens")), inputs(base)
    text, pooled, faces = condition(adapter, given)
    count = adapter.config["condition_tokens"] + adapter.config["identity_tokens"] + adapter.config["expression_tokens"]
    assert faces is None and text.shape == given["text"].shape
    assert torch.equal(text[:, :-count], given["text"][:, :-count])
    assert (text[:, -count:] != given["text"][:, -count:]).any(dim=2).all()
    assert not torch.equal(pooled, given["pooled"])
    with pytest.raises(UserError, match="10 text tokens have no room for 16 face tokens"):
        condition(adapter, given | {"text": given["text"][:, :10]})


def test_the_decoupled_attention_is_added_once_a_block_and_calls_the_attention_inside():
    base = tiny_base()
    adapter, given = opened(tiny_adapter(base, "decoupled")), inputs(base)
    called = []

    def inside(image, condition, *, block, sigma):
        called.append((block, condition is None, sigma))
        return joint_attention(image, condition)

    assert torch.equal(drawn(base, given, adapter, attention=inside), drawn(base, given, adapter))
    assert [block for block, second, _ in called if not second] == [0, 1, 2]
    assert all(sigma == pytest.approx(TIMESTEP / 1000) for *_, sigma in called)
    outer = condition(adapter, given).attention()
    image = base.blocks[0].image.before(base.patch_embed(given["target"]), torch.zeros(2, 16))[0]
    assert outer(image, None, block=0, sigma=0.0)[1] is None
    assert torch.equal(outer(image, None, block=0, sigma=0.0)[0], joint_attention(image, None)[0])


def test_rows_of_a_batch_attend_to_the_faces_of_these_images():
    base = tiny_base()
    adapter, given = opened(tiny_adapter(base, "decoupled")), inputs(base, count=4)
    rows, timestep = torch.tensor([3, 1]), torch.full((2,), TIMESTEP)
    faces = condition(adapter, given).faces
    with torch.no_grad():
        output = base(
            *(given[name][rows] for name in ("target", "text", "pooled")),
            timestep,
            attention=faces.around(joint_attention, rows),
        )
    torch.testing.assert_close(output, drawn(base, given, adapter)[rows])


def test_each_image_of_a_consistent_set_attends_to_its_own_face():
    """A set that shares nothing is the set without sharing; one that shares everything still shows each face."""
    base = tiny_base(dual_attention_layers=())
    adapter, given = opened(tiny_adapter(base, "decoupled"), 0.5), inputs(base, count=3)

    def through(consistency):
        bank, outputs = AnchorBank(consistency), []
        for images, attention in bank.passes(3):
            some = {name: tensor[images] for name, tensor in given.items()}
            outputs.append(drawn(base, some, adapter, attention))
        return torch.cat(outputs)

    alone = drawn(base, given, adapter)
    torch.testing.assert_close(through(Consistency(share=0.0)), alone)
    shared = through(Consistency())
    torch.testing.assert_close(shared[:1], alone[:1])
    assert not torch.allclose(shared[1:], alone[1:], atol=1e-3)
    given["identity"] = given["identity"][[0, 2, 1]]
    swapped = through(Consistency())
    torch.testing.assert_close(swapped[:1], shared[:1])
    assert not torch.allclose(swapped[1:], shared[1:], atol=1e-4)


def test_a_lora_starts_at_zero_and_merged_it_is_the_same_model():
    base = tiny_base()
    given = inputs(base)
    plain, frozen = drawn(base, given), {name: p.clone() for name, p in base.named_parameters()}
    add_lora(base, 2)
    assert torch.equal(drawn(base, given), plain)
    trained = {name for name, p in base.named_parameters() if p.requires_grad}
    assert trained == set(lora_weights(base)) and len(trained) == 2 * (
        2 * 2 + 2 * 2 + 2 + 1
    )  # to_kv without to_out last
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if name in trained:
                parameter.add_(0.3 * torch.randn_like(parameter))
    with_lora = drawn(base, given)
    assert not torch.allclose(with_lora, plain, atol=1e-3)

    saved, again = lora_weights(base), tiny_base()
    load_lora(again, saved)
    assert torch.equal(drawn(again, given), with_lora)

    merge_lora(base)
    torch.testing.assert_close(drawn(base, given), with_lora, rtol=1e-5, atol=1e-5)
    assert {name for name, _ in base.named_parameters()} == set(frozen)


def test_merged_and_exported_it_gives_the_same_picture_in_diffusers():
    base = tiny_base()
    add_lora(base, 2)
    adapter, given = opened(tiny_adapter(base, "tokens")), inputs(base)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.2)
    ours = drawn(base, given, adapter)
    text, pooled, _ = condition(adapter, given)
    theirs = to_diffusers(merge_lora(base))
    with torch.no_grad():
        output = theirs(given["target"], text, pooled, torch.full((2,), TIMESTEP), return_dict=False)[0]
    torch.testing.assert_close(output, ours, rtol=1e-4, atol=1e-4)


def test_a_lora_of_another_base_or_none_is_refused():
    base = tiny_base()
    with pytest.raises(UserError, match="rank 0 changes nothing"):
        add_lora(base, 0)
    with pytest.raises(UserError, match="no weights of a LoRA"):
        load_lora(base, {})
    add_lora(base, 2)
    with pytest.raises(UserError, match="trained on another base"):
        load_lora(tiny_base(num_layers=2, dual_attention_layers=()), lora_weights(base))


def test_an_adapter_fits_the_published_sizes_and_says_what_it_costs():
    """SD3.5-medium and -large, on the meta device."""
    sizes = dict(sample_size=128, patch_size=2, in_channels=16, joint_attention_dim=4096, pooled_projection_dim=2048)
    medium = sizes | dict(num_layers=24, attention_head_dim=64, num_attention_heads=24, pos_embed_max_size=384)
    large = sizes | dict(num_layers=38, attention_head_dim=64, num_attention_heads=38, pos_embed_max_size=192)
    counts = {}
    for name, config in (("medium", medium), ("large", large)):
        with torch.device("meta"):
            base = MMDiT(**config)
            for way in WAYS:
                counts[name, way] = sum(p.numel() for p in Adapter.for_base(base, way=way).parameters())
    assert counts["medium", "tokens"] == counts["large", "tokens"] == pytest.approx(30.5e6, rel=0.01)
    assert counts["medium", "decoupled"] == pytest.approx(99.8e6, rel=0.01)
    assert counts["large", "decoupled"] == pytest.approx(213.8e6, rel=0.01)


def test_another_base_and_an_unknown_way_are_refused():
    adapter = tiny_adapter(tiny_base())
    adapter.require_base(tiny_base())
    with pytest.raises(UserError, match="text_dim 20, and this base has 24: give the base that it was trained on"):
        adapter.require_base(tiny_base(joint_attention_dim=24))
    with pytest.raises(UserError, match="way 'all' is not known"):
        tiny_adapter(tiny_base(), "all")
    assert sizes_of(tiny_base())["block_dim"] == 16


def test_an_adapter_is_saved_and_loaded(tmp_path):
    base = tiny_base()
    adapter, given = opened(tiny_adapter(base)), inputs(base)
    adapter.save_pretrained(tmp_path)
    again = Adapter.from_pretrained(tmp_path)
    assert torch.equal(drawn(base, given, again), drawn(base, given, adapter))
