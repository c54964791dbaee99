"""Decoupled cross-attention: the condition lends keys and values, source by source, and stays what it is."""

import pytest
import torch

from gen_affect_lib.evaluation.rivals.decoupled import DecoupledBlock, DecoupledDiT
from gen_affect_lib.model.attention import attend
from gen_affect_lib.model.mmdit import MMDiT

DIM, HEADS, IDENTITY = 32, 2, 4
SIZES = dict(
    sample_size=8,
    in_channels=4,
    num_layers=2,
    attention_head_dim=16,
    num_attention_heads=HEADS,
    joint_attention_dim=24,
    pooled_projection_dim=24,
)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return dict(image=torch.randn(2, 16, DIM), condition=torch.randn(2, 7, DIM), c=torch.randn(2, DIM))


@pytest.fixture
def block():
    """With gates open, as after training."""
    torch.manual_seed(1)
    return DecoupledBlock(DIM, HEADS, "rms_norm", identity_tokens=IDENTITY)


def told(model, **changed):
    generator = torch.Generator().manual_seed(0)
    latents, tokens = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 7, 24, generator=generator)
    pooled = torch.randn(2, 24, generator=generator)
    arguments = dict(hidden_states=latents, encoder_hidden_states=tokens, pooled_projections=pooled)
    with torch.no_grad():
        return model(**arguments | changed, timestep=torch.full((2,), 500.0))


def test_the_network_gives_the_shape_of_the_latents_and_has_blocks_of_its_own_kind():
    model = DecoupledDiT(identity_tokens=IDENTITY, **SIZES)
    assert told(model).shape == (2, 4, 8, 8)
    assert len(model.blocks) == 2 and all(type(block) is DecoupledBlock for block in model.blocks)
    assert isinstance(model, MMDiT) and all(block.identity_tokens == IDENTITY for block in model.blocks)


def test_it_starts_with_closed_gates_and_claims_nothing(inputs):
    model = DecoupledDiT(identity_tokens=IDENTITY, **SIZES)
    for block in model.blocks:
        image, _ = block(**inputs)
        assert torch.equal(image, inputs["image"])
    assert (told(model) == 0).all()


def test_tokens_of_the_condition_come_out_as_they_went_in(block, inputs):
    image, condition = block(**inputs)
    assert condition is inputs["condition"] and not torch.equal(image, inputs["image"])


@pytest.mark.parametrize("source, tokens", [("identity", slice(0, IDENTITY)), ("expression", slice(IDENTITY, None))])
def test_tokens_of_each_source_reach_the_image_by_way_of_that_source_alone(block, inputs, source, tokens):
    image, _ = block(**inputs)
    inputs["condition"] = inputs["condition"].clone()
    inputs["condition"][:, tokens] += 1
    assert (block(**inputs)[0] - image).abs().max() > 1e-3
    with torch.no_grad():  # this source lends nothing any more
        getattr(block, source).to_kv.weight[DIM:] = 0
        getattr(block, source).to_kv.bias[DIM:] = 0
    before, _ = block(**inputs)
    inputs["condition"][:, tokens] -= 3
    assert torch.equal(block(**inputs)[0], before)


def test_where_nothing_is_lent_it_is_plain_self_attention(block, inputs):
    with torch.no_grad():
        for source in (block.identity, block.expression):
            source.to_kv.weight[DIM:] = 0  # the values; keys come first
            source.to_kv.bias[DIM:] = 0
    own, mods = block.image.before(inputs["image"], inputs["c"])
    alone = block.image.after(inputs["image"], attend(*own), mods)
    torch.testing.assert_close(block(**inputs)[0], alone)


def test_one_question_and_three_softmaxes_are_added_up(block, inputs):
    """Attention to all tokens together, as the MM-DiT's, would share one softmax among them and see something else."""
    own, mods = block.image.before(inputs["image"], inputs["c"])
    who, what = inputs["condition"][:, :IDENTITY], inputs["condition"][:, IDENTITY:]
    seen = sum(attend(own.query, *source.qkv(x)[1:]) for source, x in ((block.identity, who), (block.expression, what)))
    expected = block.image.after(inputs["image"], attend(*own) + seen, mods)
    torch.testing.assert_close(block(**inputs)[0], expected)


def test_the_whole_network_hears_both_sources_and_the_pooled_vector():
    model = DecoupledDiT(identity_tokens=IDENTITY, **SIZES)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # as after training
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(5))
    plain = told(model, encoder_hidden_states=tokens)
    for changed in (slice(0, IDENTITY), slice(IDENTITY, None)):
        other = tokens.clone()
        other[:, changed] = -other[:, changed]
        assert (told(model, encoder_hidden_states=other) - plain).abs().max() > 1e-3
    pooled = torch.zeros(2, 24)
    assert (told(model, encoder_hidden_states=tokens, pooled_projections=pooled) - plain).abs().max() > 1e-3
