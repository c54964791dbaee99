"""Identity and expression are fused into the conditioning of the MM-DiT."""

import pytest
import torch

from gen_affect_lib.errors import UserError
from gen_affect_lib.model.fusion import FUSIONS, IdentityExpressionFusion, ResamplerLayer

SIZES = dict(identity_dim=24, expression_dim=7, dim=32)
SIZES |= dict(identity_tokens=6, expression_tokens=3, condition_tokens=5, num_heads=4)
LENGTH = {"resampler": 5, "fused_and_exact": 5 + 9, "concatenation": 9, "sum": 6, "residual_mlp": 6}


@pytest.fixture(params=FUSIONS)
def fusion(request):
    torch.manual_seed(0)
    net = IdentityExpressionFusion(**SIZES, fusion=request.param).eval()
    torch.nn.init.normal_(net.no_identity)  # zeros would hide a learned token that is not used
    torch.nn.init.normal_(net.no_expression)
    return net


@pytest.fixture
def told():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 2, 24, generator=generator), torch.rand(4, 7, generator=generator)


def test_every_way_gives_tokens_and_a_pooled_vector(fusion, told):
    tokens, pooled = fusion(*told)
    assert tokens.shape == (4, LENGTH[fusion.config.fusion], 32) and pooled.shape == (4, 32)


def test_both_reach_the_tokens_and_the_pooled_vector(fusion, told):
    identity, expression = (part.clone().requires_grad_() for part in told)
    for output in fusion(identity, expression):
        some = (output * torch.randn_like(output)).sum()
        for grad in torch.autograd.grad(some, (identity, expression), retain_graph=True):
            assert (grad.flatten(1).norm(dim=1) > 1e-3).all()


def test_pictures_of_a_batch_do_not_see_each_other(fusion, told):
    together = fusion(*told)
    for one in range(4):
        for whole, alone in zip(together, fusion(told[0][one : one + 1], told[1][one : one + 1])):
            torch.testing.assert_close(whole[one], alone[0], atol=1e-5, rtol=1e-5)


def test_what_is_left_out_does_not_count(fusion, told):
    identity, expression = told
    kept, dropped = torch.tensor([True, True, False, False]), torch.zeros(4, dtype=torch.bool)
    plain = fusion(identity, expression)
    for other, keep in (
        ((identity.flip(0), expression), dict(keep_identity=dropped)),
        ((identity, expression.flip(0)), dict(keep_expression=dropped)),
    ):
        for a, b in zip(fusion(identity, expression, **keep), fusion(*other, **keep)):
            assert torch.equal(a, b)
    for a, b in zip(plain, fusion(identity, expression, keep_identity=kept)):
        torch.testing.assert_close(a[:2], b[:2])
        assert (a[2:] - b[2:]).abs().max() > 1e-3
    nothing = fusion(identity, expression, keep_identity=dropped, keep_expression=dropped)
    assert all((part - part[:1]).abs().max() < 1e-6 for part in nothing)


def test_the_two_views_are_not_mixed_up(fusion, told):
    identity, expression = told
    for a, b in zip(fusion(identity, expression), fusion(identity.flip(1), expression)):
        assert (a - b).abs().max() > 1e-3


def test_it_is_saved_and_loaded_whole(fusion, told, tmp_path):
    fusion.save_pretrained(tmp_path)
    for a, b in zip(fusion(*told), IdentityExpressionFusion.from_pretrained(tmp_path).eval()(*told)):
        assert torch.equal(a, b)


def test_every_parameter_is_learned(fusion, told):
    keep = torch.tensor([True, False, True, False])
    tokens, pooled = fusion(*told, keep_identity=keep, keep_expression=keep.flip(0))
    (tokens * torch.randn_like(tokens)).sum().add((pooled * torch.randn_like(pooled)).sum()).backward()
    assert [name for name, p in fusion.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_the_weights_shown_are_those_that_are_used(told):
    torch.manual_seed(0)
    layer = ResamplerLayer(32, 4)
    queries, sources = torch.randn(2, 5, 32), torch.randn(2, 9, 32)
    weights = layer.weights(queries, sources)
    assert weights.shape == (2, 4, 5, 14)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
    _, _, value = layer.project(queries, sources)
    seen = (weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2)  # (B, H, N, d) -> (B, N, H·d)
    half_way = queries + layer.to_out(seen)
    expected = half_way + layer.mlp(layer.norm_mlp(half_way))
    torch.testing.assert_close(layer(queries, sources), expected, atol=1e-5, rtol=1e-5)


def test_the_resampler_shows_where_each_of_its_tokens_looks(told):
    fusion = IdentityExpressionFusion(**SIZES)
    maps = fusion.fuse.weights(*fusion.tokens(*told))
    assert maps.shape == (2, 4, 4, 5, 9 + 5)


def test_a_token_of_the_concatenation_hangs_on_one_alone_and_a_fused_one_on_both_together(told):
    """If a token depends on only one of the two, or on a sum, the mixed second difference is zero."""
    identity, expression = told
    for name in FUSIONS:
        torch.manual_seed(0)
        fusion = IdentityExpressionFusion(**SIZES, fusion=name)

        def fused(i, e):
            return fusion.fuse(*fusion.tokens(i, e))

        mixed = fused(identity, expression) - fused(identity.flip(0), expression) - fused(identity, expression.flip(0))
        mixed = (mixed + fused(identity.flip(0), expression.flip(0))).abs().max().item()
        assert mixed < 1e-5 if name in ("concatenation", "sum") else mixed > 1e-3


def test_the_exact_tokens_follow_the_fused_ones(told):
    fusion = IdentityExpressionFusion(**SIZES, fusion="fused_and_exact").eval()
    exact = fusion.norm(torch.cat(fusion.tokens(*told), dim=1))
    torch.testing.assert_close(fusion(*told)[0][:, 5:], exact)


@pytest.mark.parametrize(
    "mistake", [dict(fusion="blend"), dict(identity_tokens=7), dict(num_heads=3)], ids=["kind", "tokens", "heads"]
)
def test_sizes_that_do_not_fit_are_refused(mistake):
    with pytest.raises(UserError, match=str(next(iter(mistake.values())))):
        IdentityExpressionFusion(**SIZES | mistake)


@pytest.mark.parametrize(
    "shapes", [((4, 24), (4, 7)), ((4, 3, 24), (4, 7)), ((4, 2, 24), (3, 7)), ((4, 2, 24), (4, 8))]
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="has shape"):
        IdentityExpressionFusion(**SIZES)(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("condition_tokens", [4, 10, 16])
def test_a_resampler_begins_as_a_look_at_one_source_each(condition_tokens):
    """With 6 identity and 4 expression tokens: query n attends to source n, and after the last to the first again."""
    torch.manual_seed(0)
    net = IdentityExpressionFusion(dim=128, num_heads=4, condition_tokens=condition_tokens)
    identity, expression = torch.randn(50, 2, 512), 0.5 * torch.rand(50, 48)
    first = net.fuse.weights(*net.tokens(identity, expression))[0].mean(dim=(0, 1))  # (N, I + E + N)
    assert first.argmax(dim=1).tolist() == [n % 10 for n in range(condition_tokens)]
    assert (first.max(dim=1).values > 0.3).all()  # of 1, the sum over 14 to 26 keys
    with torch.no_grad():  # and copies it: another expression changes the tokens that attend to it, and hardly others
        tokens, other = (net(identity, told)[0] for told in (expression, expression.flip(0)))
    changed = (tokens - other).norm(dim=2).mean(dim=0)
    looks_at_expression = torch.tensor([n % 10 >= 6 for n in range(condition_tokens)])
    if looks_at_expression.any():
        assert changed[looks_at_expression].min() > 2 * changed[~looks_at_expression].max()


def test_identity_and_expression_begin_about_as_loud(told):
    torch.manual_seed(0)
    net = IdentityExpressionFusion()
    person, shown = net.tokens(torch.randn(200, 2, 512), 0.5 * torch.rand(200, 48).pow(3))
    louder = person.std(dim=0).mean() / shown.std(dim=0).mean()
    assert 0.2 < louder < 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_begins_in_any_precision(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        net = IdentityExpressionFusion(**SIZES)
    finally:
        torch.set_default_dtype(before)
    assert {p.dtype for p in net.parameters()} == {dtype} and all(p.isfinite().all() for p in net.parameters())
