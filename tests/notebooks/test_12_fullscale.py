"""What notebook 12 builds by hand is what the library computes."""

import pytest
import torch
from torch import nn

from gen_affect_lib.fullscale import tiny_sd3
from gen_affect_lib.fullscale.adapter import Faces
from gen_affect_lib.fullscale.adapter import FaceTokens as LibraryTokens
from gen_affect_lib.model.attention import QKV, attend, joint_attention
from gen_affect_lib.model.consistent import Consistency
from gen_affect_lib.model.mmdit import MMDiT
from gen_affect_lib.model.sd35 import LARGE, MEDIUM, bytes_of_step
from gen_affect_lib.parity import to_diffusers

BUILT = ("fill", "FaceTokens", "with_face", "one_softmax", "training_bytes", "anchor_bytes", "encode_by_hand")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    needed = dict(nn=nn, torch=torch, F=nn.functional, attend=attend, joint_attention=joint_attention)
    return definitions("12_fullscale", BUILT, **needed)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_filled_network_computes_what_the_saved_one_does(by_hand):
    sizes = dict(sample_size=8, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=12)
    saved = MMDiT(**sizes, pooled_projection_dim=6, dual_attention_layers=(0,))
    for parameter in saved.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.device("meta"):
        network = MMDiT(**sizes, pooled_projection_dim=6, dual_attention_layers=(0,))
    by_hand["fill"](network, lambda name: saved.get_parameter(name).detach().clone())
    network.patch_embed.positions = saved.patch_embed.positions
    given = drawn(2, 16, 8, 8), drawn(2, 5, 12), drawn(2, 6), torch.tensor([10.0, 900.0])
    assert torch.equal(network(*given), saved(*given))
    assert to_diffusers(network).dtype == torch.float32


def test_face_tokens_are_the_librarys(by_hand):
    ours, library = by_hand["FaceTokens"](6, 10, 4), LibraryTokens(6, 10, 4)
    given = drawn(2, 3, 6), drawn(2, 6), drawn(2, 8, 10), drawn(2, 4)
    assert all(torch.equal(a, b) for a, b in zip(ours(*given), given[2:]))
    for parameter in library.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(library.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours(*given), library(*given)))


def test_the_second_softmax_is_that_of_faces_around(by_hand):
    image, text = (QKV(*drawn(3, 2, tokens, 2, 4)) for tokens in (9, 5))
    key, value = drawn(2, 2, 3, 2, 4)
    theirs = Faces([(key, value)]).around(joint_attention)(image, text, block=0, sigma=0.5)
    assert all(torch.equal(a, b) for a, b in zip(by_hand["with_face"](image, text, key, value), theirs))


def test_two_softmaxes_make_one(by_hand):
    query, keys, values = drawn(2, 4, 3, 8), drawn(2, 11, 3, 8), drawn(2, 11, 3, 8)
    parts = []
    for some in (slice(0, 7), slice(7, None)):
        scores = torch.einsum("blhd,bmhd->blhm", query, keys[:, some]) / 8**0.5
        parts += [attend(query, keys[:, some], values[:, some]).unflatten(2, (3, 8)), scores.logsumexp(dim=-1)]
    merged = by_hand["one_softmax"](*parts).flatten(2)
    torch.testing.assert_close(merged, attend(query, keys, values))


def test_bytes_are_the_librarys(by_hand):
    for sizes in (MEDIUM, LARGE):
        for anchors, tokens in ((1, 1024), (3, 4096)):
            dim, dual = sizes["num_attention_heads"] * 64, len(sizes["dual_attention_layers"])
            ours = by_hand["anchor_bytes"](sizes["num_layers"], dual, 2, anchors, tokens, dim)
            assert ours == bytes_of_step(sizes, tokens, consistency=Consistency(anchors=anchors))
    assert by_hand["training_bytes"](1000, 10) == 2200
    assert by_hand["training_bytes"](1000, 10, 4) == 4200


def test_text_is_encoded_as_diffusers_does(by_hand):
    pipeline = tiny_sd3.pipeline()
    prompt = "a woman at a window"
    tokens, pooled = by_hand["encode_by_hand"](pipeline, prompt)
    theirs, _, their_pooled, _ = pipeline.encode_prompt(prompt, "", "", do_classifier_free_guidance=False)
    torch.testing.assert_close(tokens, theirs)
    torch.testing.assert_close(pooled, their_pooled)
