"""What notebook 03 builds by hand is what the library does, with the same weights, part by part and as a whole."""

import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gen_affect_lib.model import attention, mmdit, modulation, patches

BUILT = (
    "timestep_embedding", "ConditioningVector", "Modulation", "layer_norm", "modulate", "Modulator", "AdaLayerNorm",
    "attention_weights", "attend", "RMSNorm", "QKV", "Projections", "joint_attention", "LentProjections",
    "MLP", "Stream", "LentStream", "MMDiTBlock", "adaln_zero", "MMDiT",
)  # fmt: skip


@pytest.fixture(scope="module")
def by_hand(definitions) -> SimpleNamespace:
    earlier = {"PatchEmbed": patches.PatchEmbed, "unpatchify": patches.unpatchify}  # built in notebook 02
    built = definitions("03_mmdit", BUILT, torch=torch, nn=nn, F=F, math=math, NamedTuple=NamedTuple, **earlier)
    return SimpleNamespace(**{name: built[name] for name in BUILT})


def alike(ours: nn.Module, library: nn.Module) -> None:
    """Give both the same random weights; every name and shape must fit."""
    torch.manual_seed(0)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.2)
    library.load_state_dict(ours.state_dict(), strict=True)


def close(ours: torch.Tensor, library: torch.Tensor) -> None:
    torch.testing.assert_close(ours, library, rtol=1e-4, atol=1e-5)


def qkv(kind, tokens: int):
    generator = torch.Generator().manual_seed(tokens)
    return kind(*torch.randn(3, 2, tokens, 4, 8, generator=generator).unbind(0))


# --- time and modulation ---------------------------------------------------------------------------------------------


def test_the_clock_is_the_same(by_hand):
    times = torch.tensor([0.0, 3.7, 500.25, 1000.0])
    assert torch.equal(by_hand.timestep_embedding(times), modulation.timestep_embedding(times))
    assert torch.equal(by_hand.timestep_embedding(times, 32), modulation.timestep_embedding(times, 32))


def test_the_conditioning_vector_is_the_same(by_hand):
    ours, library = by_hand.ConditioningVector(6, 16), modulation.ConditioningVector(6, 16)
    alike(ours, library)
    times, pooled = torch.tensor([3.7, 998.25]), torch.randn(2, 6)
    close(ours(times, pooled), library(times, pooled))


@pytest.mark.parametrize("branches", [1, 2])
def test_modulators_are_the_same(by_hand, branches):
    ours, library = by_hand.Modulator(8, branches), modulation.Modulator(8, branches)
    alike(ours, library)
    c = torch.randn(3, 8)
    for here, there in zip(ours(c), library(c), strict=True):
        assert here._fields == there._fields and all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_adaptive_norms_are_the_same(by_hand):
    ours, library = by_hand.AdaLayerNorm(8), modulation.AdaLayerNorm(8)
    alike(ours, library)
    x, c = torch.randn(2, 5, 8), torch.randn(2, 8)
    close(ours(x, c), library(x, c))


# --- attention -------------------------------------------------------------------------------------------------------


def test_attention_is_the_same(by_hand):
    one = qkv(attention.QKV, 5)
    close(by_hand.attend(*one), attention.attend(*one))


@pytest.mark.parametrize("tokens", [0, 7])
@pytest.mark.parametrize("asks", [True, False])
def test_joint_attention_is_the_same(by_hand, tokens, asks):
    results = []
    for kind, joint in ((by_hand.QKV, by_hand.joint_attention), (attention.QKV, attention.joint_attention)):
        condition = qkv(kind, tokens)
        results.append(joint(qkv(kind, 5), condition if asks else condition._replace(query=None)))
    close(results[0][0], results[1][0])
    if asks:
        close(results[0][1], results[1][1])
    else:
        assert results[0][1] is results[1][1] is None


def test_norms_are_the_same(by_hand):
    ours, library = by_hand.RMSNorm(8), attention.RMSNorm(8)
    alike(ours, library)
    x = torch.randn(2, 5, 3, 8)
    close(ours(x), library(x))


@pytest.mark.parametrize("name", ["Projections", "LentProjections"])
def test_projections_are_the_same(by_hand, name):
    ours, library = getattr(by_hand, name)(32, 4), getattr(attention, name)(32, 4, "rms_norm")
    alike(ours, library)
    x = torch.randn(2, 5, 32)
    for here, there in zip(ours.qkv(x), library.qkv(x), strict=True):
        assert (here is None) is (there is None)
        if here is not None:
            close(here, there)


# --- block and network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
def test_blocks_are_the_same(by_hand, last):
    ours = by_hand.MMDiTBlock(32, 4, last=last)
    library = mmdit.MMDiTBlock(32, 4, "rms_norm", dual_attention=False, last=last)
    alike(ours, library)
    image, condition, c = torch.randn(2, 16, 32), torch.randn(2, 5, 32), torch.randn(2, 32)
    for here, there in zip(ours(image, condition, c), library(image, condition, c), strict=True):
        close(here, there)


@pytest.mark.parametrize(
    "sizes", [{}, {"num_layers": 1}, {"patch_size": 1, "out_channels": 6}, {"pos_embed_max_size": 11}], ids=str
)
def test_networks_are_the_same_forward_and_backward(by_hand, sizes):
    sizes = dict(num_layers=3, in_channels=4, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=24,
                 pooled_projection_dim=20) | sizes  # fmt: skip
    ours, library = by_hand.MMDiT(**sizes), mmdit.MMDiT(**sizes)
    alike(ours, library)
    given = torch.randn(2, 4, 6, 8), torch.randn(2, 5, 24), torch.randn(2, 20), torch.tensor([3.7, 998.25])
    answers = ours(*given), library(*given)
    close(*answers)
    for answer in answers:
        answer.square().mean().backward()
    slopes = {name: parameter.grad for name, parameter in library.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, slopes[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_both_start_by_claiming_nothing(by_hand):
    given = torch.randn(2, 16, 8, 8), torch.randn(2, 5, 192), torch.randn(2, 192), torch.tensor([3.7, 998.25])
    for network in (by_hand.MMDiT(num_layers=2), mmdit.MMDiT(num_layers=2)):
        assert not network(*given).any()
        assert all(not p.any() for name, p in network.named_parameters() if "modulator" in name)
