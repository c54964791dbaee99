"""What every training here steps with: AdamW, Muon, a learning rate that warms up and falls, and the step itself.

Muon takes steps of even strength in every direction of a weight matrix (Jordan et al. 2024; Liu et al. 2025). AdamW
evens out the steps of single weights. A network's matrices, though, act as wholes, and their gradients are made of few
directions that outweigh all others. Muon replaces a matrix's averaged gradient U S Vᵀ by U Vᵀ, so that the rare
directions, a brow on dark skin for one, are learned as fast as the common ones. torch's own Muon works in bfloat16,
which a processor without units for it only emulates; this one stays in the precision of the weights.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalized(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U Vᵀ for a matrix U S Vᵀ (n, m), by a Newton-Schulz iteration: products only, no decomposition.

    The singular values end between about 0.7 and 1.2, which serves as well as 1. The coefficients are Jordan's.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)  # the iteration converges for singular values up to 1
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, for the matrices and convolutions inside a network.

    A step's root mean square is 0.2 of the learning rate, as AdamW's usually is (Liu et al. 2025, section 2.2), so both
    run at one learning rate. A convolution (out, in, h, w) counts as a matrix (out, in * h * w).
    """

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"]).flatten(1)  # (out, in, …) -> (out, in * …)
                step = orthogonalized(ahead) * (0.2 * max(ahead.shape) ** 0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(step.view_as(parameter), alpha=group["lr"])


def adamw(
    parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW whose weight decay is for matrices only: a decayed bias or gain only loses its place."""
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim >= 2]
    plain = [p for p in parameters if p.ndim < 2]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    # fused: one pass over the memory, three to four times as fast on a processor as the default.
    return torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


def make_optimizers(
    parameters: dict[str, nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon for what maps many numbers to many, AdamW for the rest: biases, gains, and maps to or from a few numbers."""
    matrices = [p for p in parameters.values() if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 64]
    chosen = set(matrices)
    others = [p for p in parameters.values() if p not in chosen]
    muon = [Muon(matrices, lr=lr, weight_decay=weight_decay)] if matrices else []
    return [*muon, adamw(others, lr, betas, weight_decay)]


def warm_cosine(step: int, used: float, warmup: int, low: float = 0.01) -> float:
    """The share of the highest learning rate to take: up in a line over `warmup` steps, down a half cosine to `low`.

    `used` is the share of the training, in steps or in time, that is over.
    """
    return min(1.0, (step + 1) / max(warmup, 1)) * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(used, 1.0))))


def step(
    optimizers: list[torch.optim.Optimizer], parameters: Iterable[nn.Parameter], rate: float, clip: float
) -> Tensor:
    """What follows `backward`: a step at this rate, with the gradient of `parameters` cut to the length `clip`.

    The length that it had comes back, and the gradients are gone.
    """
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return norm
