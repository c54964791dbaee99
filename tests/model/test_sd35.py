"""The published sizes: built without memory, mapped name by name to diffusers' model, counted; the memory of sets."""

import math

import pytest
import torch
from diffusers import SD3Transformer2DModel

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.sd35 import (
    LARGE,
    MEDIUM,
    bytes_of_step,
    image_tokens,
    sd35_large,
    sd35_medium,
    table_of_sets,
)
from gen_affect_lib.parity import from_their_rows, renamed, unused_modules

# Parameters of ours and of diffusers' model, whose last block has queries of the context that nothing reads.
COUNTS = {"medium": (2_241_000_000, 2_243_000_000), "large": (8_051_000_000, 8_057_000_000)}


@pytest.fixture(scope="module", params=["medium", "large"])
def published(request) -> tuple[str, dict, MMDiT, SD3Transformer2DModel]:
    sizes, factory = {"medium": (MEDIUM, sd35_medium), "large": (LARGE, sd35_large)}[request.param]
    with torch.device("meta"):
        dim = sizes["num_attention_heads"] * sizes["attention_head_dim"]
        return (
            request.param,
            sizes,
            factory(),
            SD3Transformer2DModel(**sizes, out_channels=16, caption_projection_dim=dim),
        )


def test_the_published_sizes_have_the_published_number_of_parameters(published):
    name, _, ours, theirs = published
    for model, count in zip((ours, theirs), COUNTS[name]):
        assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(count, rel=3e-4)
    assert all(parameter.is_meta for parameter in ours.parameters())


def test_every_weight_has_its_place_in_diffusers_and_the_reverse(published):
    _, _, ours, theirs = published
    there, shapes = dict(renamed(ours.config)), {name: rows.shape for name, rows in theirs.state_dict().items()}
    for name, rows in ours.named_parameters():
        module, kind = name.rsplit(".", 1)
        parts = [torch.empty(shapes.pop(f"{source}.{kind}"), device="meta") for source in there[module]]
        assert torch.cat([from_their_rows(module, part) for part in parts]).shape == rows.shape, name
    assert shapes.pop("pos_embed.pos_embed").numel() == ours.patch_embed.positions.numel()
    assert all(name.startswith(tuple(unused_modules(ours.config))) for name in shapes)


def test_the_differences_of_medium_and_large_are_the_published_ones():
    assert MEDIUM["dual_attention_layers"] == tuple(range(13)) and LARGE["dual_attention_layers"] == ()
    assert [sizes["num_layers"] for sizes in (MEDIUM, LARGE)] == [24, 38]
    assert [sizes["num_attention_heads"] * 64 for sizes in (MEDIUM, LARGE)] == [1536, 2432]
    assert [sizes["pos_embed_max_size"] for sizes in (MEDIUM, LARGE)] == [384, 192]


TINY = dict(
    sample_size=8,
    in_channels=4,
    num_layers=3,
    attention_head_dim=8,
    num_attention_heads=2,
    joint_attention_dim=8,
    pooled_projection_dim=8,
    pos_embed_max_size=6,
    dual_attention_layers=(0, 2),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("consistency", [Consistency(), Consistency(anchors=2, share=0.5), Consistency(blocks=(0, 1))])
@pytest.mark.parametrize("conditions", [1, 2])
def test_the_formula_of_what_anchors_keep_is_what_they_keep(dtype, consistency, conditions):
    model = torch.nn.Module.to(MMDiT(**TINY), dtype)
    step = consistency.step((4, 6), 0.7, consistency.anchors)
    B = conditions * consistency.anchors
    given = (torch.randn(B, 4, 8, 12), torch.randn(B, 3, 8), torch.randn(B, 8), torch.full((B,), 700.0))
    with torch.no_grad():
        model(*(x.to(dtype) for x in given[:3]), given[3], attention=step.record, sigma=0.7)
    expected = bytes_of_step(TINY, len(step.tokens), conditions, consistency, dtype.itemsize)
    assert step.bytes == expected > 0


def test_the_table_is_the_formula_for_whole_pictures():
    rows = {(row["model"], row["pixels"]): row for row in table_of_sets()}
    assert len(rows) == 4
    for (name, pixels), row in rows.items():
        layers, dim = {"medium": (24 + 13, 1536), "large": (38, 2432)}[name]
        assert row["lockstep"] == layers * 2 * 3 * (pixels // 16) ** 2 * dim * 2 / 1e9
        assert row["bank"] == pytest.approx(28 * row["lockstep"])
        assert row["weights"] == pytest.approx(2 * COUNTS[name][0] / 1e9, rel=1e-3)


def test_a_set_of_all_as_anchors_has_no_formula_without_its_number():
    with pytest.raises(UserError, match="depends on the set"):
        bytes_of_step(TINY, 16, consistency=Consistency(anchors=None))


def test_tokens_of_pictures():
    assert image_tokens(1024, 1024) == 4096 and image_tokens(512, 768) == 32 * 48
    assert math.isqrt(image_tokens(512, 512)) == 32
