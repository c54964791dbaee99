"""Who lends what to whom: three implementations of one thing, and what must never reach anybody else."""

import numpy as np
import pytest
import torch

from gen_affect_lib.avatars.regions import face_tokens
from gen_affect_lib.errors import UserError
from gen_affect_lib.model.attention import QKV, joint_attention
from gen_affect_lib.model.consistent import (
    AnchorBank,
    Consistency,
    SharedAttention,
    as_consistency,
    loop,
    packed,
    weighted,
)

G, N, L, M, H, D = 3, 5, 16, 8, 4, 32  # conditions, images, image tokens, condition tokens, heads, channels per head


def streams(seed=0, dtype=torch.float32, last=False):
    """What both streams bring, queries and keys normalised as in the MM-DiT."""
    generator = torch.Generator().manual_seed(seed)

    def three(tokens):
        query, key, value = (torch.randn(G * N, tokens, H, D, generator=generator, dtype=dtype) for _ in range(3))
        return QKV(*(x / x.square().mean(dim=-1, keepdim=True).sqrt() for x in (query, key)), value)

    image, condition = three(L), three(M)
    return image, condition._replace(query=None) if last else condition


def of(streams, members):
    """The streams of some images of the set alone."""

    def pick(x):
        return None if x is None else x.unflatten(0, (G, N))[:, members].flatten(0, 1)

    return [QKV(*(pick(x) for x in stream)) for stream in streams]


def in_sets(seen):
    return seen.unflatten(0, (G, N))


def shared(consistency, sigma=0.7, attend_set=packed):
    return lambda image, condition: SharedAttention(consistency, N, sigma, attend_set)(image, condition, block=1)


BESIDE = dict(instead=False, queries=False)  # lent tokens beside one's own
CHOICES = {
    "as by default": Consistency(),
    "two anchors": Consistency(anchors=2),
    "some tokens of two": Consistency(anchors=2, share=0.5),
    "not the face": Consistency(anchors=2, face_above=1.0),
    "own queries": Consistency(queries=False),
    "more anchors than images": Consistency(anchors=9),
    "one beside": Consistency(anchors=1, **BESIDE),
    "two beside": Consistency(anchors=2, **BESIDE),
    "everybody beside": Consistency(anchors=None, **BESIDE),
    "some tokens of one beside": Consistency(anchors=1, share=0.3, **BESIDE),
    "some tokens of all beside": Consistency(anchors=None, share=0.5, **BESIDE),
    "beside, the anchor's queries": Consistency(anchors=2, instead=False),
}
every_choice = pytest.mark.parametrize("consistency", CHOICES.values(), ids=CHOICES)


# --- one thing, three times ------------------------------------------------------------------------------------------


@every_choice
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype, apart", [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_loop_packed_and_bank_agree(consistency, last, dtype, apart):
    both = streams(dtype=dtype, last=last)
    plainly, told = shared(consistency, attend_set=loop)(*both)
    quickly, told_quickly = shared(consistency)(*both)
    torch.testing.assert_close(quickly, plainly, rtol=0, atol=apart)

    bank, lenders = AnchorBank(consistency), consistency.lenders(N)
    anchors, _ = bank.recording(0.7, lenders)(*of(both, slice(0, lenders)), block=1)
    torch.testing.assert_close(anchors, in_sets(plainly)[:, :lenders].flatten(0, 1), rtol=0, atol=apart)
    if lenders < N:
        others, _ = bank.reading(0.7)(*of(both, slice(lenders, None)), block=1)
        torch.testing.assert_close(others, in_sets(plainly)[:, lenders:].flatten(0, 1), rtol=0, atol=apart)
        alone, _ = bank.reading(0.7)(*of(both, [N - 1]), block=1)
        torch.testing.assert_close(alone, in_sets(plainly)[:, N - 1], rtol=0, atol=apart)
    if last:
        assert told is None and told_quickly is None
    else:
        assert torch.equal(told, told_quickly)


def test_it_is_softmax_over_own_tokens_condition_and_what_others_lend():
    """The definition, written out for one image and one head."""
    image, condition = streams(dtype=torch.float64)
    seen, _ = shared(Consistency(anchors=2, **BESIDE))(image, condition)
    one, head = N + 3, 1  # the fourth image under the second condition; its anchors are N and N + 1
    keys = torch.cat([image.key[one], condition.key[one], image.key[N], image.key[N + 1]])[:, head]
    values = torch.cat([image.value[one], condition.value[one], image.value[N], image.value[N + 1]])[:, head]
    scores = image.query[one][:, head] @ keys.T / D**0.5
    expected = (scores - scores.amax(dim=1, keepdim=True)).exp()
    expected = expected / expected.sum(dim=1, keepdim=True) @ values
    torch.testing.assert_close(seen[one].unflatten(1, (H, D))[:, head], expected)


@pytest.mark.parametrize("queries", [False, True])
def test_what_is_lent_stands_in_the_place_of_ones_own(queries):
    """By hand again: two anchors lend half of their tokens, and the queries are the mean of theirs there, or one's own."""
    image, condition = streams(dtype=torch.float64)
    consistency = Consistency(anchors=2, share=0.5, queries=queries)
    seen, _ = shared(consistency)(image, condition)
    lent = consistency.lent(image, 0.7)
    own = [token for token in range(L) if token not in lent]
    one, head = N + 3, 1  # the fourth image under the second condition; its anchors are N and N + 1
    assert len(lent) == len(own) == L // 2

    def told(x, of_condition):
        return torch.cat([x[one][own], of_condition[one], x[N][lent], x[N + 1][lent]])[:, head]

    query = image.query[one][:, head].clone()
    if queries:
        query[lent] = image.query[N : N + 2][:, lent, head].mean(dim=0)
    scores = query @ told(image.key, condition.key).T / D**0.5
    expected = scores.softmax(dim=1) @ told(image.value, condition.value)
    torch.testing.assert_close(seen[one].unflatten(1, (H, D))[:, head], expected)


def test_attention_over_two_halves_joins_to_attention_over_both():
    image, _ = streams(dtype=torch.float64)
    whole, total = weighted(*image)
    (a, la), (b, lb) = (
        weighted(image.query, image.key[:, part], image.value[:, part]) for part in (slice(0, 5), slice(5, None))
    )
    torch.testing.assert_close(torch.lerp(a, b, torch.sigmoid(lb - la)), whole)
    torch.testing.assert_close(torch.logaddexp(la, lb), total)
    torch.testing.assert_close(whole.flatten(2), joint_attention(image, QKV(None, *(x[:, :0] for x in image[1:])))[0])


# --- when nothing is shared ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency, sigma", [
    (Consistency(share=0.0), 0.7),
    (Consistency(above=0.8), 0.7),
    (Consistency(below=0.6), 0.7),
    (Consistency(blocks=(0, 2)), 0.7),
])  # fmt: skip
def test_outside_its_window_and_its_blocks_it_is_plain_attention_to_the_bit(consistency, sigma):
    both = streams()
    for attend_set in (loop, packed):
        for seen, plain in zip(shared(consistency, sigma, attend_set)(*both), joint_attention(*both)):
            assert torch.equal(seen, plain)
    bank = AnchorBank(consistency)
    bank.recording(sigma, 1)(*of(both, [0]), block=1)
    assert not bank.kept and torch.equal(bank.reading(sigma)(*both, block=1)[0], joint_attention(*both)[0])


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_window_includes_its_ends(sigma):
    assert Consistency(above=0.5, below=1.0).lends(sigma, 0) and not Consistency(above=0.5, below=1.0).lends(0.49, 0)


@pytest.mark.parametrize("anchors", [1, None])
def test_a_set_of_one_is_plain_attention(anchors):
    both = streams()
    seen, told = SharedAttention(Consistency(anchors), 1, 0.7)(*both, block=0)
    plain, plainly_told = joint_attention(*both)
    assert torch.equal(seen, plain) and torch.equal(told, plainly_told)
    recorded, _ = AnchorBank(Consistency(anchors)).recording(0.7, 1)(*both, block=0)
    assert torch.equal(recorded, plain)


# --- what reaches whom -----------------------------------------------------------------------------------------------


def touched(consistency, change, attend_set=packed):
    """Which images (G, N) see something else, and which conditions do, after `change` (image, condition) in place."""
    before = shared(consistency, attend_set=attend_set)(*streams())
    image, condition = (QKV(*(x.clone() for x in stream)) for stream in streams())
    change(image, condition)
    after = shared(consistency, attend_set=attend_set)(image, condition)
    return [in_sets((a - b).abs().amax(dim=(1, 2))) > 1e-4 for a, b in zip(before, after)]


@pytest.mark.parametrize("attend_set", [loop, packed])
def test_conditional_and_unconditional_never_mix(attend_set):
    def change(image, condition):
        for x in (*image, *condition):
            x[:N] += 1  # all images under the first condition

    for consistency in (Consistency(anchors=None, **BESIDE), Consistency()):
        what, _ = touched(consistency, change, attend_set)
        assert what[0].all() and not what[1:].any()


@pytest.mark.parametrize("attend_set", [loop, packed])
def test_only_anchors_lend_and_the_conditions_see_nothing_of_it(attend_set):
    def change_image(n):
        def change(image, condition):
            image.key[n] += torch.randn(L, H, D, generator=torch.Generator().manual_seed(0))
            image.value[n] += 1

        return change

    two = Consistency(anchors=2, instead=False)
    images, conditions = touched(two, change_image(1), attend_set)
    assert images[0].all() and conditions[0].tolist() == [False, True, False, False, False]
    images, conditions = touched(two, change_image(3), attend_set)
    assert images[0].tolist() == conditions[0].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("attend_set", [loop, packed])
def test_the_condition_is_private(attend_set):
    def change(image, condition):
        condition.key[0] += torch.randn(M, H, D, generator=torch.Generator().manual_seed(0))
        condition.value[0] += 1

    images, conditions = touched(Consistency(anchors=None), change, attend_set)
    assert images.flatten().tolist() == conditions.flatten().tolist() == [True] + [False] * (G * N - 1)


@pytest.mark.parametrize("face_above, lends", [(0.0, True), (0.69, True), (0.7, False), (1.0, False)])
@pytest.mark.parametrize("instead", [False, True])
def test_the_face_lends_only_above_its_sigma(face_above, lends, instead):
    face = face_tokens(4).flatten()

    def change(image, condition):
        for x in image:
            x[0, face] += torch.randn(int(face.sum()), H, D, generator=torch.Generator().manual_seed(0))

    images, _ = touched(Consistency(face_above=face_above, instead=instead), change)  # at sigma 0.7
    assert images[0].tolist() == [True, *[lends] * (N - 1)]


@pytest.mark.parametrize("attend_set", [loop, packed])
def test_borrowers_do_not_see_of_their_own_what_stands_in_for_it(attend_set):
    def change(image, condition):
        for x in image:
            x[3] += torch.randn(L, H, D, generator=torch.Generator().manual_seed(0))

    for consistency, sees in (
        (Consistency(), False),
        (Consistency(queries=False), True),
        (Consistency(instead=False), True),
    ):
        images, conditions = touched(consistency, change, attend_set)
        assert images[0].tolist() == [False, False, False, sees, False] and conditions[0, 3], (
            "the condition sees it still"
        )


@every_choice
def test_the_order_does_not_matter_but_for_the_anchors(consistency):
    both, lenders = streams(dtype=torch.float64), consistency.lenders(N)
    order = [*reversed(range(lenders)), *reversed(range(lenders, N))]
    seen, told = (in_sets(x) for x in shared(consistency)(*both))
    again, told_again = (in_sets(x) for x in shared(consistency)(*of(both, order)))
    torch.testing.assert_close(again, seen[:, order])
    torch.testing.assert_close(told_again, told[:, order])


# --- tokens and noise ------------------------------------------------------------------------------------------------


def test_tokens_are_drawn_anew_at_each_step_and_are_the_same_whoever_asks():
    consistency = Consistency(share=0.5, face_above=0.0)
    drawn = [consistency.tokens(4, sigma).tolist() for sigma in np.linspace(0, 1, 21)]
    assert all(len(set(row)) == 8 and row == sorted(row) and row[-1] < 16 for row in drawn)
    assert len({tuple(row) for row in drawn}) > 15
    assert drawn == [consistency.tokens(4, sigma).tolist() for sigma in np.linspace(0, 1, 21)]
    assert drawn != [
        Consistency(share=0.5, face_above=0.0, seed=1).tokens(4, sigma).tolist() for sigma in np.linspace(0, 1, 21)
    ]
    assert (
        Consistency().tokens(4, 0.5).tolist() == Consistency(face_above=0.5).tokens(4, 0.51).tolist() == list(range(16))
    )
    assert len(Consistency(share=0).tokens(4, 0.5)) == 0


@pytest.mark.parametrize("side", [4, 8, 16])
def test_below_face_above_the_tokens_of_the_face_are_left_out(side):
    outside = (~face_tokens(side)).flatten().nonzero()[:, 0]
    assert Consistency(face_above=0.5).tokens(side, 0.5).tolist() == outside.tolist()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shared_noise_keeps_its_variance_and_correlates_by_the_share(share):
    generator = torch.Generator().manual_seed(0)
    own, common = torch.randn(50, 4, 32, 32, generator=generator), torch.randn(1, 4, 32, 32, generator=generator)
    noise = AnchorBank(Consistency(shared_noise=share), common=common).noise(own).flatten(1)
    assert noise.var().item() == pytest.approx(1, abs=0.03)
    correlations = torch.corrcoef(noise)[~torch.eye(50, dtype=torch.bool)]
    assert correlations.mean().item() == pytest.approx(share, abs=0.03)


def test_the_first_image_of_a_set_keeps_its_noise_and_the_others_have_it_in_theirs():
    own, later = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    bank = AnchorBank(Consistency(shared_noise=1.0))
    assert torch.equal(bank.noise(own), own[:1].expand_as(own)) and torch.equal(
        bank.noise(later), own[:1].expand_as(own)
    )
    bank = AnchorBank(Consistency(shared_noise=0.5))
    noise = bank.noise(own)
    assert torch.equal(noise[0], own[0]) and torch.equal(noise[1], 0.5**0.5 * own[0] + 0.5**0.5 * own[1])
    assert torch.equal(AnchorBank(Consistency(shared_noise=0.0)).noise(own), own)


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_a_number_is_the_share_of_tokens_that_lend_and_zero_is_nothing():
    assert as_consistency(0) is None and as_consistency(0.0) is None
    assert as_consistency(1) == Consistency() and as_consistency(0.25) == Consistency(share=0.25)
    given = Consistency(anchors=3)
    assert as_consistency(given) is given


@pytest.mark.parametrize("given", [-0.1, 1.5, float("nan"), "much", None])
def test_another_number_is_refused(given):
    with pytest.raises(UserError, match=r"consistency .*: give a number from 0 \(each image alone\) to 1"):
        as_consistency(given)


@pytest.mark.parametrize(
    "wrong", [dict(anchors=0), dict(share=1.1), dict(above=-1), dict(below=2), dict(face_above=2), dict(shared_noise=3)]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)) if "anchors" not in wrong else "0 anchors: give at least 1"):
        Consistency(**wrong)
