"""Muon: steps of even strength in every direction of a weight matrix (Jordan et al. 2024; Liu et al. 2025).

AdamW evens out the steps of single weights. A network's matrices, though, act as wholes, and their gradients are made of
few directions that outweigh all others. Muon replaces a matrix's averaged gradient U S Vᵀ by U Vᵀ, so that the rare
directions, a brow on dark skin for one, are learned as fast as the common ones. torch's own Muon works in bfloat16,
which a processor without units for it only emulates; this one stays in the precision of the weights.
"""

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


def make_optimizers(
    parameters: dict[str, nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon for what maps many numbers to many, AdamW for the rest: biases, gains, and maps to or from a few numbers."""
    matrices = [p for p in parameters.values() if p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 64]
    chosen = set(matrices)
    others = [p for p in parameters.values() if p not in chosen]
    decayed = [p for p in others if p.ndim >= 2]
    plain = [p for p in others if p.ndim < 2]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    # fused: one pass over the memory, three to four times as fast on a processor as the default.
    adamw = torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)
    return [Muon(matrices, lr=lr, weight_decay=weight_decay), adamw] if matrices else [adamw]
