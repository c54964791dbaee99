"""Rectified flow: straight paths from noise to data, the loss, the samplers, guidance.

THE SIGN CONVENTION of the whole library (that of diffusers; many codebases have the opposite one):

    sigma = 0 is the data, sigma = 1 is the noise       x_sigma  = (1 - sigma) * data + sigma * noise
    the velocity points from the data to the noise      velocity = noise - data = d x_sigma / d sigma
    the network is conditioned on the timestep          timestep = 1000 * sigma

So sampling goes *down* in sigma: x += (sigma_next - sigma) * velocity, with a negative difference.

In shapes, B is the number of images and "..." any further dimensions: (C, H, W) for images, (2,) for points.
Sources: Liu et al. 2022 (arXiv 2209.03003), Lipman et al. 2022 (2210.02747), Esser et al. 2024 (SD3, 2403.03206:
logit-normal sigmas, shift), Li and He 2025 (JiT, 2511.13720: predicting the data with the loss on the velocity).
"""

import numbers
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from gen_affect_lib.errors import UserError
from gen_affect_lib.keys import Producer

SAMPLER = Producer("sampler", 1)  # schedule and sample
MOST_STEPS = 10_000  # of a sampler

Network = Callable[[Tensor, Tensor], Tensor]  # (x (B, ...), sigma (B,)) -> output (B, ...)
Sigma = TypeVar("Sigma", Tensor, float)

# The path


def interpolate(data: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """The point at `sigma` on the straight path from `data` to `noise`.

    data, noise: (B, ...), the same shape. sigma: (B,) or a number, in [0, 1]. Returns (B, ...). Raises UserError if
    shapes do not fit.
    """
    if data.shape != noise.shape:
        raise UserError(f"data is {tuple(data.shape)} and noise {tuple(noise.shape)}: give both the same shape")
    sigma = _broadcast(sigma, data)
    return (1 - sigma) * data + sigma * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """d x_sigma / d sigma, the same all along the path: noise - data. data, noise: (B, ...). Returns (B, ...)."""
    return noise - data


def timestep(sigma: Tensor) -> Tensor:
    """The network's input for sigma: 1000 * sigma, in [0, 1000]. Same shape as `sigma`."""
    return 1000 * sigma


def _broadcast(sigma: Tensor | float, x: Tensor) -> Tensor | float:
    """`sigma` (B,) as (B, 1, ..., 1), to be multiplied with x (B, ...); a number is returned unchanged."""
    if not isinstance(sigma, Tensor) or sigma.ndim == 0:
        return sigma
    if sigma.shape != x.shape[:1]:
        raise UserError(f"sigma is {tuple(sigma.shape)} for a batch of {x.shape[0]}: give one per image, or a number")
    return sigma.reshape(-1, *[1] * (x.ndim - 1))  # (B,) -> (B, 1, ..., 1)


# Sigmas of training and of sampling


def shift_sigma(sigma: Sigma, shift: float) -> Sigma:
    """Move sigmas towards the noise: shift * sigma / (1 + (shift - 1) * sigma). 0 and 1 stay; shift 1 changes nothing.

    In a larger image neighbouring pixels are redundant and average out the noise, so it takes more noise to destroy the
    same information. sigma: any shape, in [0, 1]. shift: above 0 (SD3 uses 3 at 1024 px). Source: SD3. Raises
    UserError for another shift.
    """
    if not shift > 0:
        raise UserError(f"shift {shift} is not above 0: try 1 (no shift) or 3 (more time near the noise)")
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigma(
    shape: int | tuple[int, ...],
    distribution: str = "logit_normal",
    shift: float = 1.0,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random sigmas for training: float32 of `shape`, in [0, 1].

    "logit_normal" is sigmoid(mean + std * normal), with most samples at intermediate sigmas, where the prediction is
    neither trivial (sigma near 0) nor hopeless (near 1). A positive `mean` means more noise; in diffusers' training
    scripts, which index a descending table, it means less. "uniform" ignores mean and std. `shift` is applied last.
    The result is on `device`; None: on the generator's. Raises UserError for another distribution, or a shift that is
    not above 0.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    where = device if generator is None else generator.device  # a generator samples on its own device only
    if distribution == "logit_normal":
        sigma = torch.sigmoid(mean + std * torch.randn(shape, generator=generator, device=where))
    elif distribution == "uniform":
        sigma = torch.rand(shape, generator=generator, device=where)
    else:
        raise UserError(f'no sigma distribution "{distribution}": try "logit_normal" or "uniform"')
    return shift_sigma(sigma, shift).to(device)


def schedule(
    num_steps: int,
    shift: float = 1.0,
    *,
    spacing: str = "even",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The sigmas of a sampler: (num_steps + 1,), from 1 down to exactly 0.

    spacing "even": equal steps before the shift, as in diffusers' Flux pipeline.
    spacing "diffusers": the default of FlowMatchEulerDiscreteScheduler.set_timesteps. num_steps - 1 equal steps lead
    from 1 to a smallest sigma of 0.001, to which the shift is applied twice (diffusers issue 13243); the last step
    leads to 0 and changes almost nothing. So "even" is better with few steps.
    Raises UserError for another spacing, steps that are no whole number from 1 to MOST_STEPS, or a shift that is not
    above 0.
    """
    whole = isinstance(num_steps, numbers.Integral) and not isinstance(num_steps, bool)
    if not whole or not 1 <= num_steps <= MOST_STEPS:
        raise UserError(f"num_steps is {num_steps!r:.60}: give at least 1 and at most {MOST_STEPS:,}, such as 20")
    num_steps = int(num_steps)
    if spacing == "even":
        sigmas = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    elif spacing == "diffusers":
        smallest = shift_sigma(0.001, shift)  # shifted once here ...
        sigmas = torch.linspace(1, smallest, num_steps, dtype=torch.float64)
        sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    else:
        raise UserError(f'no spacing "{spacing}": try "even" or "diffusers"')
    return shift_sigma(sigmas, shift).to(dtype=dtype, device=device)  # ... and with the others here


# The prediction and its loss


class RectifiedFlow:
    """What a network predicts, velocity or clean data, and its loss.

    Args:
        prediction: "v": the output is the velocity. "x": the output is the clean data, and the loss is still on the
            velocity. Data lie near a manifold of low dimension and noise does not, so "x" is easier for a network with
            few channels.
        sigma_floor: in (0, 1], used by "x" only. The velocity of a predicted x is (noisy - x) / sigma, so an error in x
            has the weight 1 / sigma**2. Below the floor this weight is clamped; otherwise a few almost clean images
            would dominate the loss.

    Raises UserError for other values.
    """

    def __init__(self, prediction: str = "v", sigma_floor: float = 0.05):
        if prediction not in ("v", "x"):
            raise UserError(f'no prediction "{prediction}": try "v" (velocity) or "x" (data)')
        if not 0 < sigma_floor <= 1:
            raise UserError(f"sigma_floor {sigma_floor} is not in (0, 1]: try 0.05")
        self.prediction = prediction
        self.sigma_floor = sigma_floor

    def velocity_from(self, output: Tensor, noisy: Tensor, sigma: Tensor | float) -> Tensor:
        """The velocity of an output. output, noisy: (B, ...). sigma: (B,) or a number. Returns (B, ...)."""
        if self.prediction == "v":
            return output
        # A sampler's step is at most sigma long, so dividing by a small sigma is harmless; at 0 it must be finite.
        return (noisy - output) / torch.as_tensor(_broadcast(sigma, noisy)).clamp(min=1e-4)

    def data_from(self, output: Tensor, noisy: Tensor, sigma: Tensor | float) -> Tensor:
        """The predicted clean data of an output. Arguments as above. Returns (B, ...)."""
        return output if self.prediction == "x" else noisy - _broadcast(sigma, noisy) * output

    def loss(self, network: Network, data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Mean squared error of the velocity for each image. data, noise: (B, ...). sigma: (B,). Returns (B,)."""
        return self.loss_of(network(interpolate(data, noise, sigma), sigma), data, noise, sigma)

    def loss_of(
        self, output: Tensor, data: Tensor, noise: Tensor, sigma: Tensor, weight: Tensor | float = 1.0
    ) -> Tensor:
        """`loss`, from a network's output (B, ...) for `interpolate(data, noise, sigma)`.

        weight: of each squared error, a number or a tensor that broadcasts to (B, ...). Raises UserError if the output
        has another shape than the data.
        """
        if output.shape != data.shape:  # broadcasting would give a wrong loss without an error
            raise UserError(
                f"the network's output is {tuple(output.shape)} for data of {tuple(data.shape)}: give the same shape"
            )
        if self.prediction == "v":
            error = output - velocity(data, noise)
        else:
            # (noisy - output) / sigma - (noisy - data) / sigma, in which the noisy image cancels
            error = (data - output) / torch.as_tensor(_broadcast(sigma, data)).clamp(min=self.sigma_floor)
        return (weight * error.float().pow(2)).flatten(1).mean(1)  # (B, ...) -> (B, N) -> (B,)

    def velocity_of(self, network: Network) -> Network:
        """The network's velocity, for a sampler: (x (B, ...), sigma (B,)) -> velocity (B, ...)."""
        return lambda x, sigma: self.velocity_from(network(x, sigma), x, sigma)


# Sampling


@torch.no_grad()
def sample(
    velocity_fn: Network,
    noise: Tensor,
    sigmas: Tensor,
    method: str = "euler",
    callback: Callable[[int, float, Tensor], object] | None = None,
) -> Tensor:
    """Integrate a velocity field from noise to data.

    Args:
        velocity_fn: (x (B, ...), sigma (B,)) -> velocity (B, ...).
        noise: (B, ...), x at sigmas[0].
        sigmas: (N + 1,), strictly descending, as from `schedule`.
        method: "euler", N evaluations, error O(1/N); or "heun", 2 N - 1 evaluations, error O(1/N**2).
        callback: called after each step with its index, and the sigma and x that it reached.

    Returns:
        (B, ...) in the dtype of `noise`; in between, x is float32 or better.

    Raises UserError for another method, or sigmas that do not descend.
    """
    if method not in ("euler", "heun"):
        raise UserError(f'no method "{method}": try "euler" or "heun"')
    if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas.diff() < 0).all():
        raise UserError("sigmas must be at least two descending numbers: take schedule(num_steps)")
    # Small steps would be lost to rounding in bfloat16, so only the network computes in that dtype.
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    sigmas = sigmas.to(x)

    def velocity_at(x: Tensor, sigma: Tensor) -> Tensor:
        return velocity_fn(x.to(noise.dtype), sigma.expand(x.shape[0]))  # () -> (B,)

    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        v = velocity_at(x, sigma)
        # The last step is an Euler step: near sigma 0 a network is hardly trained, and at 0 an x-prediction has no
        # velocity. It is one step of N, so the order is still 2.
        if method == "heun" and sigma_next > 0:
            v = (v + velocity_at(x + (sigma_next - sigma) * v, sigma_next)) / 2
        x = x + (sigma_next - sigma) * v
        if callback is not None:
            callback(step, sigma_next.item(), x)
    return x.to(noise.dtype)


# Guidance


def guide_one(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, u + scale * (c - u): 0 ignores the condition, 1 follows it, above 1 exaggerates it.

    unconditional, conditional: velocities u and c, (B, ...). scale: the guidance scale. Returns (B, ...). Source: Ho
    and Salimans 2022 (arXiv 2207.12598).
    """
    return unconditional + scale * (conditional - unconditional)


def guide(
    unconditional: Tensor, identity_only: Tensor, full: Tensor, identity_scale: float, expression_scale: float
) -> Tensor:
    """Guidance with two scales: u + identity_scale * (i - u) + expression_scale * (f - i). Scales (1, 1) give f.

    unconditional, identity_only, full: velocities u, i and f, (B, ...), under no condition, the identity, both. Returns
    (B, ...). The second scale acts on the expression given the identity, as in InstructPix2Pix (Brooks et al. 2022,
    arXiv 2211.09800).
    """
    return unconditional + identity_scale * (identity_only - unconditional) + expression_scale * (full - identity_only)
