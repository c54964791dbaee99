"""What anchors share with the other images of a set, and what must not affect other images."""

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.regions import face_tokens
from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import QKV, joint_attention
from gen_affect_lib.model.consistent import (
    AnchorBank,
    Consistency,
    Replace,
    as_consistency,
    portrait_tokens,
    shared_attention,
)

G, N, L, M, H, D = 3, 5, 16, 8, 4, 32  # conditions, images, image tokens, condition tokens, heads, channels per head


def streams(seed=0, dtype=torch.float32, last=False):
    """Both streams of a set, queries and keys normalized as in the MM-DiT."""
    generator = torch.Generator().manual_seed(seed)

    def stream(tokens):
        query, key, value = (torch.randn(G * N, tokens, H, D, generator=generator, dtype=dtype) for _ in range(3))
        return QKV(*(x / x.square().mean(dim=-1, keepdim=True).sqrt() for x in (query, key)), value)

    image, condition = stream(L), stream(M)
    return image, condition._replace(query=None) if last else condition


def of(streams, images):
    """The streams of some images of the set, under all conditions."""
    return [stream.map(lambda x: in_sets(x)[:, images].flatten(0, 1)) for stream in streams]


def in_sets(x):
    return x.unflatten(0, (G, N))


def set_attention(consistency, streams, sigma=0.7, block=1):
    """Attention outputs of the whole set, (B, L, C) and (B, M, C) or None: anchors are recorded, the others read."""
    anchors = consistency.anchor_count(N)
    bank = AnchorBank(consistency, anchors=anchors)
    parts = [bank.record(*of(streams, slice(0, anchors)), block=block, sigma=sigma)]
    if anchors < N:
        parts.append(bank.read(*of(streams, slice(anchors, N)), block=block, sigma=sigma))
    images, conditions = zip(*parts)
    joined = [
        None if x[0] is None else torch.cat([y.unflatten(0, (G, -1)) for y in x], dim=1) for x in (images, conditions)
    ]
    return [None if x is None else x.flatten(0, 1) for x in joined]


CHOICES = {
    "as by default": Consistency(),
    "two anchors": Consistency(anchors=2),
    "some tokens of two": Consistency(anchors=2, share=0.5),
    "not the face": Consistency(anchors=2, face_above=1.0),
    "own queries": Consistency(replace=Replace.KEYS_VALUES),
    "more anchors than images": Consistency(anchors=9),
    "one, appended": Consistency(anchors=1, replace=Replace.NOTHING),
    "two, appended": Consistency(anchors=2, replace=Replace.NOTHING),
    "all, appended": Consistency(anchors=None, replace=Replace.NOTHING),
    "some tokens of one, appended": Consistency(anchors=1, share=0.3, replace=Replace.NOTHING),
    "some tokens of all, appended": Consistency(anchors=None, share=0.5, replace=Replace.NOTHING),
}
every_choice = pytest.mark.parametrize("consistency", CHOICES.values(), ids=CHOICES)


# --- the definition --------------------------------------------------------------------------------------------------


def by_definition(image, condition, consistency, one, sigma=0.7):
    """One image of the set, head by head: softmax over its own tokens, its condition and the other anchors' tokens."""
    anchors, tokens = consistency.anchor_count(N), consistency.tokens(round(L**0.5), sigma).tolist()
    first, n = one - one % N, one % N
    replaced = consistency.replace if n >= anchors else Replace.NOTHING
    own = [token for token in range(L) if replaced == Replace.NOTHING or token not in tokens]
    others = [first + a for a in range(anchors) if a != n]
    key, value = (
        torch.cat([x[one][own], of_condition[one], *(x[a][tokens] for a in others)])
        for x, of_condition in zip(image[1:], condition[1:])
    )
    query = image.query[one].clone()
    if replaced == Replace.QUERIES_KEYS_VALUES:
        query[tokens] = image.query[first : first + anchors][:, tokens].mean(dim=0)
    weights = (torch.einsum("lhd,khd->hlk", query, key) / D**0.5).softmax(dim=-1)
    return torch.einsum("hlk,khd->lhd", weights, value).flatten(1)


@every_choice
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_a_bank_is_the_definition_for_every_image(consistency, last, dtype, tolerance):
    both = streams(dtype=dtype, last=last)
    output, of_condition = set_attention(consistency, both)
    for one in range(G * N):
        torch.testing.assert_close(output[one], by_definition(*both, consistency, one), rtol=0, atol=tolerance)
    if last:
        assert of_condition is None
    else:
        torch.testing.assert_close(of_condition, joint_attention(*both)[1], rtol=0, atol=tolerance)


@every_choice
def test_an_image_is_the_same_read_alone_or_with_others(consistency):
    if consistency.anchor_count(N) == N:
        return
    both, anchors = streams(dtype=torch.float64), consistency.anchor_count(N)
    bank = AnchorBank(consistency, anchors=anchors)
    bank.record(*of(both, slice(0, anchors)), block=1, sigma=0.7)
    alone, _ = bank.read(*of(both, [N - 1]), block=1, sigma=0.7)
    torch.testing.assert_close(alone, in_sets(set_attention(consistency, both)[0])[:, N - 1])


@pytest.mark.parametrize("replace", Replace)
def test_without_shared_tokens_it_is_joint_attention(replace):
    image, condition = streams(dtype=torch.float64)
    nothing = image.map(lambda x: x[:, :0])
    output = shared_attention(image, condition, nothing, torch.arange(0), replace)
    torch.testing.assert_close(output, joint_attention(image, condition)[0])


# --- when nothing is shared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency, sigma", [
    (Consistency(share=0.0), 0.7),
    (Consistency(above=0.8), 0.7),
    (Consistency(below=0.6), 0.7),
    (Consistency(blocks=(0, 2)), 0.7),
])  # fmt: skip
def test_outside_its_window_and_its_blocks_it_is_plain_attention_to_the_bit(consistency, sigma):
    both = streams()
    bank = AnchorBank(consistency)
    anchor = of(both, [0])
    for plain, output in ((joint_attention(*anchor), bank.record(*anchor, block=1, sigma=sigma)),
                          (joint_attention(*both), bank.read(*both, block=1, sigma=sigma))):  # fmt: skip
        assert torch.equal(output[0], plain[0]) and torch.equal(output[1], plain[1])
    assert not bank.kept


@pytest.mark.parametrize("consistency", [Consistency(), Consistency(anchors=2, share=0.5)])
def test_a_bank_on_the_cpu_reads_the_same(consistency):
    """Without a GPU, a copy in unpinned memory."""
    anchors = consistency.anchor_count(N)
    banks = [AnchorBank(consistency, anchors=anchors, on_cpu=on_cpu) for on_cpu in (False, True)]
    given = streams()
    outputs = []
    for bank in banks:
        bank.record(*of(given, slice(0, anchors)), block=1, sigma=0.7)
        outputs.append(bank.read(*of(given, slice(anchors, N)), block=1, sigma=0.7))
    assert all(torch.equal(a, b) for a, b in zip(*outputs))
    assert banks[0].bytes == banks[1].bytes > 0
    kept = [x for one in banks[1].kept.values() for x in one]
    assert all(x.device.type == "cpu" and not x.is_pinned() for x in kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pins memory for a GPU")
def test_a_bank_of_a_gpu_is_in_pinned_memory_of_the_cpu():
    given = [stream.map(torch.Tensor.cuda) for stream in streams()]
    banks = [AnchorBank(Consistency(), on_cpu=on_cpu) for on_cpu in (False, True)]
    outputs = []
    for bank in banks:
        bank.record(*of(given, slice(0, 1)), block=1, sigma=0.7)
        outputs.append(bank.read(*of(given, slice(1, N)), block=1, sigma=0.7)[0])
    assert all(x.is_pinned() for one in banks[1].kept.values() for x in one)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_window_includes_its_ends(sigma):
    window = Consistency(above=0.5, below=1.0)
    assert window.is_active(0, sigma) and not window.is_active(0, 0.49)


@pytest.mark.parametrize("anchors", [1, None])
def test_a_set_of_one_is_plain_attention(anchors):
    both = of(streams(), [0])
    consistency = Consistency(anchors)
    bank = AnchorBank(consistency)
    ((images, attention),) = bank.passes(1)
    output, of_condition = attention(*both, block=0, sigma=0.7)
    plain, plain_of_condition = joint_attention(*both)
    assert images == slice(0, 1) and torch.equal(output, plain) and torch.equal(of_condition, plain_of_condition)


# --- what reaches which image ----------------------------------------------------------------------------------------


def touched(consistency, change):
    """Which images' and conditions' outputs (G, N) differ after `change` (image, condition) in place."""
    before = set_attention(consistency, streams())
    image, condition = (stream.map(torch.clone) for stream in streams())
    change(image, condition)
    after = set_attention(consistency, (image, condition))
    return [in_sets((a - b).abs().amax(dim=(1, 2))) > 1e-4 for a, b in zip(before, after)]


def test_conditional_and_unconditional_never_mix():
    def change(image, condition):
        for x in (*image, *condition):
            x[:N] += 1  # all images under the first condition

    for consistency in (CHOICES["all, appended"], Consistency()):
        images, _ = touched(consistency, change)
        assert images[0].all() and not images[1:].any()


def test_only_anchors_share_and_conditions_do_not_attend_to_what_is_shared():
    def change_image(n):
        def change(image, condition):
            image.key[n] += torch.randn(L, H, D, generator=torch.Generator().manual_seed(0))
            image.value[n] += 1

        return change

    two = Consistency(anchors=2, replace=Replace.NOTHING)
    images, conditions = touched(two, change_image(1))
    assert images[0].all() and conditions[0].tolist() == [False, True, False, False, False]
    images, conditions = touched(two, change_image(3))
    assert images[0].tolist() == conditions[0].tolist() == [False, False, False, True, False]


def test_the_condition_is_private():
    def change(image, condition):
        condition.key[0] += torch.randn(M, H, D, generator=torch.Generator().manual_seed(0))
        condition.value[0] += 1

    images, conditions = touched(Consistency(anchors=None), change)
    assert images.flatten().tolist() == conditions.flatten().tolist() == [True] + [False] * (G * N - 1)


@pytest.mark.parametrize("face_above, shared", [(0.0, True), (0.69, True), (0.7, False), (1.0, False)])
@pytest.mark.parametrize("replace", [Replace.NOTHING, Replace.QUERIES_KEYS_VALUES])
def test_face_tokens_are_shared_only_above_their_sigma(face_above, shared, replace):
    face = face_tokens(4).flatten()

    def change(image, condition):
        for x in image:
            x[0, face] += torch.randn(int(face.sum()), H, D, generator=torch.Generator().manual_seed(0))

    images, _ = touched(Consistency(face_above=face_above, replace=replace), change)  # at sigma 0.7
    assert images[0].tolist() == [True, *[shared] * (N - 1)]


@pytest.mark.parametrize(
    "replace, depends", [(Replace.QUERIES_KEYS_VALUES, False), (Replace.KEYS_VALUES, True), (Replace.NOTHING, True)]
)
def test_an_image_does_not_depend_on_its_own_tokens_that_are_replaced(replace, depends):
    def change(image, condition):
        for x in image:
            x[3] += torch.randn(L, H, D, generator=torch.Generator().manual_seed(0))

    images, conditions = touched(Consistency(replace=replace), change)
    assert images[0].tolist() == [False, False, False, depends, False]
    assert conditions[0, 3], "the condition attends to them still"


@every_choice
def test_the_order_does_not_matter_but_for_the_anchors(consistency):
    both, anchors = streams(dtype=torch.float64), consistency.anchor_count(N)
    order = [*reversed(range(anchors)), *reversed(range(anchors, N))]
    outputs = set_attention(consistency, both)
    again = set_attention(consistency, of(both, order))
    for a, b in zip(outputs, again):
        torch.testing.assert_close(in_sets(b), in_sets(a)[:, order])


# --- tokens and noise ------------------------------------------------------------------------------------------------


def test_tokens_are_resampled_each_step_and_are_the_same_for_all_images():
    consistency = Consistency(share=0.5, face_above=0.0)
    sigmas = np.linspace(0, 1, 21)
    drawn = [consistency.tokens(4, sigma).tolist() for sigma in sigmas]
    assert all(len(set(row)) == 8 and row == sorted(row) and row[-1] < 16 for row in drawn)
    assert len({tuple(row) for row in drawn}) > 15
    assert drawn == [consistency.tokens(4, sigma).tolist() for sigma in sigmas]
    other = Consistency(share=0.5, face_above=0.0, seed=1)
    assert drawn != [other.tokens(4, sigma).tolist() for sigma in sigmas]
    everything = list(range(16))
    assert Consistency().tokens(4, 0.51).tolist() == Consistency(face_above=0.15).tokens(4, 0.5).tolist() == everything
    assert len(Consistency(share=0).tokens(4, 0.5)) == 0


def test_the_tokens_of_a_seed_and_a_sigma_are_those_of_the_study():
    assert Consistency(share=0.25, face_above=0.15).tokens(4, 0.5).tolist() == [0, 5, 7, 15]
    assert Consistency(anchors=None, share=0.5, above=0.5, face_above=1.0).tokens(4, 0.75).tolist() == [1, 3, 8, 11, 15]


@pytest.mark.parametrize("side", [4, 8, 16])
def test_below_face_above_the_tokens_of_the_face_are_left_out(side):
    outside = (~face_tokens(side)).flatten().nonzero()[:, 0]
    assert Consistency(face_above=0.5).tokens(side, 0.5).tolist() == outside.tolist()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shared_noise_keeps_its_variance_and_correlates_by_the_share(share):
    generator = torch.Generator().manual_seed(0)
    own, first = torch.randn(50, 4, 32, 32, generator=generator), torch.randn(1, 4, 32, 32, generator=generator)
    noise = AnchorBank(Consistency(shared_noise=share), noise_of_first=first).noise(own).flatten(1)
    assert noise.var().item() == pytest.approx(1, abs=0.03)
    correlations = torch.corrcoef(noise)[~torch.eye(50, dtype=torch.bool)]
    assert correlations.mean().item() == pytest.approx(share, abs=0.03)


def test_the_first_image_of_a_set_keeps_its_noise_and_the_others_share_it():
    own, later = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    bank = AnchorBank(Consistency(shared_noise=1.0))
    assert torch.equal(bank.noise(own), own[:1].expand_as(own))
    assert torch.equal(bank.noise(later), own[:1].expand_as(own))
    bank = AnchorBank(Consistency(shared_noise=0.5))
    noise = bank.noise(own)
    assert torch.equal(noise[0], own[0]) and torch.equal(noise[1], 0.5**0.5 * own[0] + 0.5**0.5 * own[1])
    assert torch.equal(AnchorBank(Consistency(shared_noise=0.0)).noise(own), own)


def test_the_anchors_of_a_new_set_come_first_and_later_images_are_all_read():
    bank = AnchorBank(Consistency(anchors=2))
    assert bank.passes(5) == [(slice(0, 2), bank.record), (slice(2, 5), bank.read)]
    assert bank.passes(2) == [(slice(0, 2), bank.record)]
    bank.record(*of(streams(), slice(0, 2)), block=0, sigma=0.7)
    assert bank.passes(5) == [(slice(0, 5), bank.read)]


# --- rectangles and dual blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(8, 6), (6, 9), (5, 12), (3, 16)])
@pytest.mark.parametrize("face_above", [0.0, 0.5])
def test_on_rectangles_every_token_outside_the_face_is_shared_and_none_that_is_not_there(grid, face_above):
    h, w = grid
    consistency = Consistency(face_above=face_above)
    covered = portrait_tokens(h, w).flatten()
    everything, outside = (consistency.tokens(grid, sigma).tolist() for sigma in (0.7, 0.3))
    assert everything == list(range(h * w)) and 0 < covered.sum() < h * w
    assert outside == ((~covered).nonzero()[:, 0].tolist() if face_above else everything)
    assert consistency.tokens((4, 4), 0.3).tolist() == consistency.tokens(4, 0.3).tolist()


def test_a_portrait_fills_the_centred_square():
    square, wide, tall = portrait_tokens(6, 6), portrait_tokens(6, 10), portrait_tokens(11, 6)
    assert torch.equal(square, face_tokens(6))
    assert torch.equal(wide[:, 2:8], square) and torch.equal(tall[2:8], square)
    assert wide.sum() == tall.sum() == square.sum()


def test_where_the_face_is_can_be_given():
    face = torch.zeros(2, 8, dtype=torch.bool)
    face[0, 3] = True
    consistency = Consistency(face_above=1.0)
    assert consistency.tokens((2, 8), 0.5, face).tolist() == [n for n in range(16) if n != 3]
    bank = AnchorBank(consistency, grid=(2, 8), face=face)
    bank.record(*of(streams(), [0]), block=0, sigma=0.5)
    assert bank.steps[0.5].tokens.tolist() == [n for n in range(16) if n != 3]


def test_a_bank_asks_for_the_grid_of_what_is_no_square():
    image, condition = (stream.map(lambda x: x[:, :12]) for stream in streams())
    with pytest.raises(UserError, match=r"12 image tokens are not 3 × 3: give the bank grid=\(rows, columns\)"):
        AnchorBank(Consistency()).record(image, condition, block=0, sigma=0.7)
    with pytest.raises(UserError, match="12 image tokens are not 4 × 4"):
        AnchorBank(Consistency(), grid=(4, 4)).record(image, condition, block=0, sigma=0.7)
    bank = AnchorBank(Consistency(anchors=N), grid=(3, 4), anchors=N)
    assert bank.record(image, condition, block=0, sigma=0.7)[0].shape == (G * N, 12, H * D)


@every_choice
def test_the_second_attention_of_a_dual_block_shares_as_one_without_a_condition(consistency):
    image, condition = streams(dtype=torch.float64)
    none = condition.map(lambda x: x[:, :0])
    expected, _ = set_attention(consistency, (image, none))
    anchors = consistency.anchor_count(N)
    bank = AnchorBank(consistency, anchors=anchors)
    parts = [(bank.record, slice(0, anchors)), (bank.read, slice(anchors, N))]
    outputs = []
    for attention, images in parts[: 2 if anchors < N else 1]:
        own, own_condition = of((image, condition), images)
        other = own.map(torch.neg)
        attention(other, None, block=1, sigma=0.7)  # other layers: must not be mixed up with this one
        attention(other, own_condition, block=2, sigma=0.7)
        output, nothing = attention(own, None, block=2, sigma=0.7)
        assert nothing is None
        outputs.append(output.unflatten(0, (G, -1)))
    torch.testing.assert_close(torch.cat(outputs, dim=1).flatten(0, 1), expected)


def test_each_attention_of_a_dual_block_has_its_own_place_in_the_bank():
    bank = AnchorBank(Consistency())
    image, condition = of(streams(), [0])
    bank.record(image, condition, block=1, sigma=0.7)
    half = bank.bytes
    bank.record(image, None, block=1, sigma=0.7)
    assert set(bank.kept) == {(0.7, 1, False), (0.7, 1, True)} and bank.bytes == 2 * half


# --- options ---------------------------------------------------------------------------------------------------------


def test_a_number_is_the_share_of_tokens_and_zero_is_nothing():
    assert as_consistency(0) is None and as_consistency(0.0) is None
    assert as_consistency(1) == Consistency() and as_consistency(0.25) == Consistency(share=0.25)
    given = Consistency(anchors=3)
    assert as_consistency(given) is given


@pytest.mark.parametrize("given", [-0.1, 1.5, float("nan"), "much", None])
def test_another_number_is_refused(given):
    with pytest.raises(UserError, match=r"consistency .*: give a number from 0 \(each image alone\) to 1"):
        as_consistency(given)


@pytest.mark.parametrize("wrong", [
    dict(anchors=0), dict(share=1.1), dict(above=-1), dict(below=2), dict(face_above=2), dict(shared_noise=3),
    dict(replace="own"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)) if "anchors" not in wrong else "0 anchors: give at least 1"):
        Consistency(**wrong)


def test_the_replaced_tokens_can_be_named_by_a_string():
    assert Consistency(replace="nothing") == Consistency(replace=Replace.NOTHING)
