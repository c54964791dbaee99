"""The angular margin, the network's contract, and the erasure."""

import math

import pytest
import torch
import torch.nn.functional as F

from gen_affect_lib.encoders.identity import ArcFaceLoss, ArcFaceNet, IdentityEncoder, erase

SMALL = dict(widths=(8, 16, 32), blocks=(0, 1, 1), squeeze=4, embedding=24)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = ArcFaceNet(**SMALL)
    net(torch.randn(32, 3, 112, 112))  # statistics for the normalizations
    return net.eval()


def test_without_a_margin_it_is_cross_entropy_of_cosines():
    torch.manual_seed(0)
    loss, embeddings, person = ArcFaceLoss(7, 16, margin=0.5, scale=10.0), torch.randn(9, 16), torch.arange(9) % 7
    plain = F.cross_entropy(10 * F.normalize(embeddings) @ F.normalize(loss.directions).T, person)
    assert torch.allclose(loss(embeddings, person, warmth=0.0), plain, atol=1e-5)
    assert loss(embeddings, person, warmth=1.0) > plain


@pytest.mark.parametrize("angle", [0.1, 0.8, 1.5, 2.4])
def test_the_margin_is_added_to_the_angle_of_the_right_person(angle):
    loss = ArcFaceLoss(2, 2, margin=0.4, scale=5.0)
    loss.directions.data = torch.eye(2)
    embedding = 3.0 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    wanted = F.cross_entropy(5 * torch.tensor([[math.cos(angle + 0.4), math.sin(angle)]]), torch.tensor([0]))
    assert loss(embedding, torch.tensor([0])).item() == pytest.approx(wanted.item(), abs=1e-4)


def test_past_half_a_turn_the_loss_still_rises():
    loss = ArcFaceLoss(2, 3, margin=0.5, scale=5.0)
    loss.directions.data = torch.eye(3)[:2]  # the angle to the first grows, the second stays orthogonal
    angles = torch.linspace(0.05, math.pi - 0.01, 60)
    values = [loss(torch.tensor([[a.cos(), 0.0, a.sin()]]), torch.tensor([0])).item() for a in angles]
    assert all(b > a - 1e-6 for a, b in zip(values, values[1:]))


def test_the_network_gives_one_embedding_for_each_picture(net):
    pictures = torch.randn(3, 3, 112, 112)
    with torch.no_grad():
        assert net(pictures).shape == (3, 24)
        assert torch.allclose(net(pictures)[1:2], net(pictures[1:2]), atol=1e-5)
    assert ArcFaceNet(**net.sizes).state_dict().keys() == net.state_dict().keys()


def test_another_size_is_refused_in_words(net):
    with pytest.raises(ValueError, match=r"give \(B, 3, 112, 112\)"):
        net(torch.zeros(1, 3, 96, 96))


def test_after_erasure_a_linear_probe_reads_nothing(net):
    """The embeddings contain a nuisance; after erasure least squares cannot predict it, and the rest stays."""
    import copy

    net = copy.deepcopy(net)
    torch.manual_seed(1)
    level = torch.rand(400, 1)
    pictures = torch.randn(400, 3, 112, 112) * 0.2 + level[..., None, None] * 2
    with torch.no_grad():
        before = net(pictures)
        erase(net, before, level, torch.zeros(400, dtype=torch.long))
        after = net(pictures)

    def explained(embeddings):
        x = embeddings - embeddings.mean(dim=0)
        y = level - level.mean()
        rest = y - x @ torch.linalg.lstsq(x, y, driver="gelsd", rcond=1e-4).solution
        return 1 - rest.square().sum() / y.square().sum()

    assert explained(before) > 0.5 and explained(after) < 0.02
    kept = torch.corrcoef(torch.stack([(before - before.mean(0)).flatten(), (after - after.mean(0)).flatten()]))[0, 1]
    assert kept > 0.1


def test_the_condition_gets_a_token_of_each_view(net):
    tokens = IdentityEncoder(net)(torch.randn(2, 2, 3, 112, 112))
    assert tokens.shape == (2, 2, 24)
    assert torch.allclose(tokens.square().mean(dim=-1), torch.ones(2, 2), atol=1e-4)
    with pytest.raises(ValueError, match="views"):
        IdentityEncoder(net)(torch.randn(2, 3, 112, 112))
