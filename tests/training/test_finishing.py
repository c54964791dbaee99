"""Finishing the decoder on generated latents."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gen_affect_lib.codec import LatentCodec
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.pipeline import GenAffectPipeline
from gen_affect_lib.tensors import to_tensor
from gen_affect_lib.training.finishing import (
    FINISHING_RECIPE,
    SIGMAS,
    Generated,
    PatchDiscriminator,
    finish_decoder,
    generated_latents,
)
from gen_affect_lib.training.latent_pairs import Split

RECIPE = replace(FINISHING_RECIPE, steps=120, batch_size=8, learning_rate=5e-3, warmup_steps=5)


class Knowing(nn.Module):
    """A generator that knows the picture: its expression holds the latents, and it moves x straight to them."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.sigmas = []

    def forward(self, x, tokens, pooled, timestep):
        sigma = timestep / 1000
        self.sigmas.append(float(sigma[0]))
        return (x - pooled.view_as(x)) / sigma[:, None, None, None]


class Passing(nn.Module):
    def forward(self, identity, expression, keep_identity=None, keep_expression=None):
        if keep_expression is not None:
            expression = torch.where(keep_expression[:, None], expression, 0.0)
        return identity, expression


class Pipeline:
    """The two networks, with the guidance of the pipeline."""

    guided_velocity, flow = GenAffectPipeline.guided_velocity, RectifiedFlow()

    def __init__(self):
        self.transformer, self.condition_encoder = Knowing(), Passing()


def split_of(latents: np.ndarray, targets: np.ndarray) -> Split:
    """Targets in the given order, whatever the random generator says."""
    given = iter(targets.reshape(-1, 4))
    return Split(
        latents,
        np.zeros((1, 2, 8), np.float16),
        np.zeros(1, int),
        latents.reshape(len(latents), -1),
        lambda rng, count: (np.zeros(count, int), next(given)),
    )


def test_generated_latents_belong_to_their_pictures():
    latents = np.random.default_rng(0).standard_normal((6, 2, 4, 4)).astype(np.float32)
    targets, pipeline = np.array([3, 1, 4, 1, 5, 0, 2, 2]), Pipeline()
    made = generated_latents(pipeline, split_of(latents, targets), 7, batch_size=4)
    assert (made.pictures == targets).all() and made.latents.dtype == torch.float16
    # Guidance 1.5 moves beyond the condition, by half of its difference from "no condition", which is 0 here.
    ratio = (made.latents.float() / torch.from_numpy(latents[targets])).flatten(1).median(dim=1).values
    assert set(np.round(ratio.numpy(), 1)) <= {1.0, 1.5}
    assert SIGMAS[0] <= max(pipeline.transformer.sigmas) <= SIGMAS[1]


@pytest.fixture
def small():
    torch.manual_seed(0)
    codec = LatentCodec(4, (8, 8, 8), (1, 1, 1), (16, 16, 8, 8), (1, 1, 1, 1)).eval()
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (16, 2, 2, 3)).repeat(32, 1).repeat(32, 2).astype(np.uint8)  # (16, 64, 64, 3)
    codec.calibrate(to_tensor(blocks))
    with torch.no_grad():
        true = codec.encode(to_tensor(blocks))
    return codec, blocks, Generated((0.5 * true + 0.3).half(), np.arange(16), np.arange(16))


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_only_the_decoder_learns_and_generated_latents_decode_better(small, adversarial):
    codec, pictures, generated = small
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}

    def error():
        with torch.no_grad():
            return (codec.decode(generated.latents.float()) - to_tensor(pictures)).square().mean().item()

    first, history = error(), finish_decoder(codec, generated, pictures, RECIPE, adversarial=adversarial)
    assert error() < 0.85 * first
    changed = {n.split(".")[0] for n, t in codec.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"decoder"}
    assert ("discriminator" in history[-1]) == bool(adversarial) and "discriminator" not in history[0]


def test_the_discriminator_learns_to_tell_a_blur_from_its_picture():
    torch.manual_seed(0)
    true = torch.rand(16, 3, 64, 64) * 2 - 1
    blurred = nn.functional.avg_pool2d(true, 3, 1, 1)
    network = PatchDiscriminator(8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = network.loss(true, blurred)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.5 and losses[-1] < 0.5


def test_the_discriminator_has_no_padding():
    """The score of a patch depends on its own 38 pixels alone."""
    network = PatchDiscriminator(8).eval()
    pictures = torch.rand(1, 3, 64, 64)
    other = pictures.clone()
    other[..., 40:] = 0
    first, second = network(pictures), network(other)
    assert torch.allclose(first[..., 0], second[..., 0]) and not torch.allclose(first[..., -1], second[..., -1])
