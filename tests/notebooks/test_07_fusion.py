"""What notebook 07 builds by hand is what `model/fusion.py` does: a layer of the resampler, and the whole."""

import pytest
import torch
from torch import nn

from gen_affect_lib.model import fusion

BUILT = ("KeysAndValues", "ResamplerLayer", "Resampler", "both_together")


@pytest.fixture(scope="module")
def by_hand(definitions) -> dict:
    return definitions("07_fusion", BUILT, torch=torch, nn=nn)


def twins(by_hand, name: str, sizes: tuple) -> tuple[nn.Module, nn.Module]:
    """The library's and the notebook's, with the same weights, none of which is left at a first value of 0 or 1."""
    torch.manual_seed(0)
    library, mine = getattr(fusion, name)(*sizes), by_hand[name](*sizes)
    for parameter in library.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    mine.load_state_dict(library.state_dict(), strict=True)
    return library, mine


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("ResamplerLayer", (24, 3)),
        ("ResamplerLayer", (32, 1)),
        ("Resampler", (24, 5, 2, 3)),
        ("Resampler", (160, 16, 2, 5)),
    ],
)
def test_outputs_and_gradients_are_the_same(by_hand, name, sizes):
    library, mine = twins(by_hand, name, sizes)
    inputs = [torch.randn(4, length, sizes[0], requires_grad=True) for length in (6, 3)]
    weighed = None
    results = []
    for network in (library, mine):
        output = network(*inputs)
        weighed = torch.randn_like(output) if weighed is None else weighed
        wanted = [*inputs, *network.parameters()]
        results.append([output, *torch.autograd.grad((output * weighed).sum(), wanted)])
    assert [n for n, _ in library.named_parameters()] == [n for n, _ in mine.named_parameters()]
    for theirs, ours in zip(*results):
        scale = theirs.abs().max()
        assert scale > 1e-4, "nothing is compared where nothing is learned"
        assert (theirs - ours).abs().max() < 1e-4 * scale


def test_other_weights_give_other_answers(by_hand):
    inputs = torch.randn(2, 6, 24), torch.randn(2, 3, 24)
    first, second = (by_hand["Resampler"](24, 5, 2, 3) for _ in range(2))
    assert not torch.allclose(first(*inputs), second(*inputs))


def test_the_mixed_difference_tells_a_sum_from_a_product(by_hand):
    who, what = torch.randn(4, 6, 8), torch.randn(4, 3, 8)
    mixed = by_hand["both_together"]
    assert mixed(lambda i, e: i.exp() + e.mean(dim=1, keepdim=True).cos(), who, what).max() < 1e-5
    assert mixed(lambda i, e: i * e.mean(dim=1, keepdim=True), who, what).min() > 0.1
