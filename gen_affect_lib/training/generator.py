"""The training objective of the generator: batches, loss and validation loss.

All random numbers of a step (pairs, noise, noise level, dropped conditions) depend only on the seed and the step. So a
resumed run draws the same numbers as an uninterrupted one. With several processes, each draws the whole batch and
trains on its part of it.

Letters: B images of a batch, C channels, h and w the sides of the latents (see `codec.py`), V views of a reference and
E numbers of an identity embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gen_affect_lib.avatars.regions import face_weight
from gen_affect_lib.device import has_bfloat16
from gen_affect_lib.flow import RectifiedFlow, interpolate, sample_sigma, timestep
from gen_affect_lib.recipe import TrainingConfig

VALIDATION_SIGMAS = (0.2, 0.5, 0.8)
Batch = dict[str, Tensor]


class Data(Protocol):
    """Batches of float32 tensors.

    `target` (B, C, h, w), and the inputs of the condition encoder: `identity` (B, V, E) and `expression` (B, 48).
    `batch` is for training and depends on the step; `validation` holds held-out people and is always the same.
    """

    def batch(self, step: int, batch_size: int) -> Batch: ...

    def validation(self, size: int) -> Batch: ...


class Draw(NamedTuple):
    """The random draws of a step: a batch, noise (B, C, h, w), sigma (B,), and bool (B,) which conditions are kept."""

    batch: Batch
    noise: Tensor
    sigma: Tensor
    keep_identity: Tensor
    keep_expression: Tensor


class Networks(nn.ModuleDict):
    """Both networks as one module, since distributed training expects a single forward."""

    def forward(self, noisy, sigma, batch, keep_identity, keep_expression):
        tokens, pooled = self["condition_encoder"](
            batch["identity"], batch["expression"], keep_identity=keep_identity, keep_expression=keep_expression
        )
        return self["model"](noisy, tokens, pooled, timestep(sigma))


class GeneratorObjective:
    """The rectified-flow loss of both networks on a batch of pairs.

    `extra_loss` (predicted latents, target, sigma) -> (B,) is added to the training loss, but not to the validation
    loss; see `face_loss.py`. The networks are not moved to another device.
    """

    def __init__(
        self,
        config: TrainingConfig,
        networks: Networks,
        flow: RectifiedFlow,
        data: Data,
        processes: Accelerator,
        extra_loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ):
        self.config, self.networks, self.flow, self.data = config, networks, flow, data
        self.processes, self.extra_loss = processes, extra_loss
        self.device = next(networks.parameters()).device
        # Older GPUs and most CPUs only emulate bfloat16, slowly.
        self.bfloat16 = self.device.type == "cuda" and has_bfloat16(self.device)
        # With several processes, all start with the main one's weights, and backward averages the gradients.
        self.distributed = processes.prepare_model(networks, device_placement=False)
        if config.compile:  # not for validation: each further batch size would be compiled again
            self.distributed = torch.compile(self.distributed)

    def draw(self, step: int, part: int = 0) -> Draw:
        """This process's part of a batch. `part`: which batch of the step, see `TrainingConfig.accumulation`."""
        config = self.config
        batch = self.data.batch(step * config.accumulation + part, config.batch_size)
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        generator = self.generator(step, part)
        size = len(batch["target"])
        noise = torch.randn(batch["target"].shape, generator=generator, device=self.device)
        sigma = sample_sigma(
            size,
            config.sigma_distribution,
            config.shift,
            mean=config.sigma_mean,
            std=config.sigma_std,
            generator=generator,
            device=self.device,
        )
        # Dropped independently: guidance on one condition needs examples without the other.
        keep_identity = torch.rand(size, generator=generator, device=self.device) >= config.drop_identity
        keep_expression = torch.rand(size, generator=generator, device=self.device) >= config.drop_expression
        share = slice(self.processes.process_index, None, self.processes.num_processes)
        batch = {name: tensor[share] for name, tensor in batch.items()}
        return Draw(batch, noise[share], sigma[share], keep_identity[share], keep_expression[share])

    def training_loss(self, batch, noise, sigma, keep_identity, keep_expression) -> Tensor:
        """The velocity loss of each image, weighted by `face_weight`, plus the extra loss if there is one: (B,)."""
        output, target = self.predict(batch, noise, sigma, keep_identity, keep_expression), batch["target"]
        strength = self.config.face_weight
        weight = face_weight(target.shape[-1], strength).to(target) if strength else 1.0
        loss = self.flow.loss_of(output, target, noise, sigma, weight)
        if self.extra_loss is not None:
            predicted = self.flow.data_from(output, interpolate(target, noise, sigma), sigma)
            loss = loss + self.extra_loss(predicted, target, sigma)
        return loss

    def loss(self, batch, noise, sigma, keep_identity=None, keep_expression=None) -> Tensor:
        """The velocity loss of each image, without weights and extra loss: (B,)."""
        output = self.predict(batch, noise, sigma, keep_identity, keep_expression)
        return self.flow.loss_of(output, batch["target"], noise, sigma)

    def predict(self, batch, noise, sigma, keep_identity=None, keep_expression=None) -> Tensor:
        """The output of the network for noisy targets: (B, C, h, w), float32."""
        # The distributed networks must be called by all processes at once; validation runs in the main one alone.
        networks = self.distributed if torch.is_grad_enabled() else self.networks
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            noisy = interpolate(batch["target"], noise, sigma)
            return networks(noisy, sigma, batch, keep_identity, keep_expression).float()

    def validation_losses(self) -> dict[str, float]:
        """The mean loss on held-out people, with the same noise every time, at each of VALIDATION_SIGMAS.

        Unlike training losses, these can be compared between runs.
        """
        batch = {name: t.to(self.device) for name, t in self.data.validation(self.config.validation_size).items()}
        losses = {}
        for sigma in VALIDATION_SIGMAS:
            noise = torch.randn(batch["target"].shape, generator=self.generator("validation"), device=self.device)
            total = 0.0
            for part in torch.arange(len(noise), device=self.device).split(self.config.batch_size):
                piece = {name: tensor[part] for name, tensor in batch.items()}
                total += self.loss(piece, noise[part], noise.new_full((len(part),), sigma)).sum().item()
            losses[f"validation/sigma_{sigma}"] = total / len(noise)
        return losses

    def generator(self, *key) -> torch.Generator:
        """A random generator that depends only on the config's seed and the key (numbers or strings)."""
        words = [self.config.seed] + [int.from_bytes(str(word).encode(), "little") for word in key]
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(self.device).manual_seed(seed)
