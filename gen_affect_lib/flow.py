"""Rectified flow: straight paths from noise to data, the loss that learns them, the samplers that walk them, guidance.

THE SIGN CONVENTION of the whole library (diffusers' own; many codebases run the other way: convert as you read them):

    sigma = 0 is the data, sigma = 1 is the noise       x_sigma  = (1 - sigma) * data + sigma * noise
    the velocity points from the data to the noise      velocity = noise - data = d x_sigma / d sigma
    the network is told the timestep                    timestep = 1000 * sigma

So sampling walks *down* in sigma, and a step of it is x += (sigma_next - sigma) * velocity, with a negative bracket.

In shapes, B is the number of images; the rest, "...", is anything: (C, H, W) for images, (2,) for points of the plane.
Sources: Liu et al. 2022 (arXiv 2209.03003), Lipman et al. 2022 (2210.02747), Esser et al. 2024 (SD3, 2403.03206:
logit-normal sigmas, shift), Li and He 2025 (JiT, 2511.13720: predicting the data with the loss on the velocity).
"""

import torch

from .errors import UserError
from .keys import Producer

SAMPLER = Producer("sampler", 1)  # schedule and sample

# The path


def interpolate(data, noise, sigma):
    """The point at `sigma` on the straight path from `data` to `noise`.

    data, noise: (B, ...), the same shape. sigma: (B,) or a number, in [0, 1]. Returns (B, ...).
    """
    if data.shape != noise.shape:
        raise UserError(f"data is {tuple(data.shape)} and noise {tuple(noise.shape)}: give both the same shape")
    sigma = _beside(sigma, data)
    return (1 - sigma) * data + sigma * noise


def velocity(data, noise):
    """d x_sigma / d sigma, the same all along the path: noise - data. data, noise: (B, ...). Returns (B, ...)."""
    return noise - data


def timestep(sigma):
    """What the network is told: 1000 * sigma, in [0, 1000]. Same shape as `sigma`."""
    return 1000 * sigma


def _beside(sigma, x):
    """`sigma` in a shape that multiplies x (B, ...): (B,) -> (B, 1, ..., 1); a number stays a number."""
    if not isinstance(sigma, torch.Tensor) or sigma.ndim == 0:
        return sigma
    if sigma.shape != x.shape[:1]:
        raise UserError(f"sigma is {tuple(sigma.shape)} for a batch of {x.shape[0]}: give one per image, or a number")
    return sigma.reshape(-1, *[1] * (x.ndim - 1))  # (B,) -> (B, 1, ..., 1)


# Which sigmas to learn at, which to stop at


def shift_sigma(sigma, shift):
    """Move sigmas towards the noise: shift * sigma / (1 + (shift - 1) * sigma). 0 and 1 stay; shift 1 changes nothing.

    Why: in a larger picture neighbouring pixels say the same thing, average the noise away, and so need more of it
    before they hide as much. sigma: any shape, in [0, 1]. shift: above 0 (SD3 uses 3 at 1024 px). Source: SD3.
    """
    if not shift > 0:
        raise UserError(f"shift {shift} is not above 0: try 1 (no shift) or 3 (more time near the noise)")
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigma(shape, distribution="logit_normal", shift=1.0, *, mean=0.0, std=1.0, generator=None, device=None):
    """Sigmas to train at: float32, of `shape` (an int or a tuple), in [0, 1].

    "logit_normal" is sigmoid(mean + std * normal): most lessons where the answer is neither obvious (sigma near 0) nor
    hopeless (near 1). A positive `mean` means more noise; in diffusers' training scripts, which index a descending
    table, it means less. "uniform" takes no mean and std. `shift` is applied last. Raises UserError for another name.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    where = device if generator is None else generator.device  # a generator draws on its own device only
    if distribution == "logit_normal":
        sigma = torch.sigmoid(mean + std * torch.randn(shape, generator=generator, device=where))
    elif distribution == "uniform":
        sigma = torch.rand(shape, generator=generator, device=where)
    else:
        raise UserError(f'no sigma distribution "{distribution}": try "logit_normal" or "uniform"')
    return shift_sigma(sigma, shift).to(device)


def schedule(num_steps, shift=1.0, *, spacing="even", dtype=torch.float32, device=None):
    """The sigmas at which a sampler stops: (num_steps + 1,), from 1 down to exactly 0.

    spacing "even": equal steps before the shift, as diffusers' Flux pipeline asks its scheduler for.
    spacing "diffusers": what FlowMatchEulerDiscreteScheduler.set_timesteps makes by itself: from 1 to a smallest sigma
    of 0.001 in num_steps - 1 steps, then to 0, the smallest being shifted twice (diffusers issue 13243). As its last
    step hardly moves, "even" makes better use of a few steps.
    Raises UserError for another spacing, fewer than one step or a shift that is not above 0.
    """
    if num_steps < 1:
        raise UserError(f"a schedule of {num_steps} steps goes nowhere: try 20")
    if spacing == "even":
        sigmas = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    elif spacing == "diffusers":
        smallest = shift_sigma(0.001, shift)  # shifted once here ...
        sigmas = torch.linspace(1, smallest, num_steps, dtype=torch.float64)
        sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    else:
        raise UserError(f'no spacing "{spacing}": try "even" or "diffusers"')
    return shift_sigma(sigmas, shift).to(dtype=dtype, device=device)  # ... and with the others here


# What the network learns


class RectifiedFlow:
    """What an output means, and its loss. A network is any function of (noisy (B, ...), sigma (B,)) -> (B, ...).

    prediction "v": the output is the velocity. "x": the output is the clean data, which lies on a thinner set than
    noise does and is easier for a network with few channels; the loss is still on the velocity.
    sigma_floor: in (0, 1]; only "x" uses it. The velocity of a predicted x is (noisy - x) / sigma, so the loss weighs
    an error in x by 1 / sigma**2. Below the floor the weight stops growing, or a few almost clean images would drown
    the rest.
    """

    def __init__(self, prediction="v", sigma_floor=0.05):
        if prediction not in ("v", "x"):
            raise UserError(f'no prediction "{prediction}": try "v" (velocity) or "x" (data)')
        if not 0 < sigma_floor <= 1:
            raise UserError(f"sigma_floor {sigma_floor} is not in (0, 1]: try 0.05")
        self.prediction = prediction
        self.sigma_floor = sigma_floor

    def velocity_from(self, output, noisy, sigma):
        """The velocity that an output means. output, noisy: (B, ...). sigma: (B,) or a number. Returns (B, ...)."""
        if self.prediction == "v":
            return output
        # A sampler multiplies this by sigma at most, so a small sigma is harmless; sigma 0 need only stay finite.
        return (noisy - output) / torch.as_tensor(_beside(sigma, noisy)).clamp(min=1e-4)

    def data_from(self, output, noisy, sigma):
        """The clean data that an output means, as guessed from one look. Arguments as above. Returns (B, ...)."""
        return output if self.prediction == "x" else noisy - _beside(sigma, noisy) * output

    def loss(self, network, data, noise, sigma):
        """Mean squared error of the velocity for each image. data, noise: (B, ...). sigma: (B,). Returns (B,)."""
        return self.loss_of(network(interpolate(data, noise, sigma), sigma), data, noise, sigma)

    def loss_of(self, output, data, noise, sigma, weight=1.0):
        """The same, from a network's output (B, ...) for `interpolate(data, noise, sigma)`; `weight`, a number or a tensor
        that multiplies (B, ...), says how much each place counts."""
        if output.shape != data.shape:  # or broadcasting would turn the loss into nonsense without a word
            raise UserError(f"the network gave {tuple(output.shape)} for data of {tuple(data.shape)}: they must agree")
        if self.prediction == "v":
            error = output - velocity(data, noise)
        else:
            # (noisy - output) / sigma - (noisy - data) / sigma, where the noisy image cancels out
            error = (data - output) / _beside(sigma, data).clamp(min=self.sigma_floor)
        return (weight * error.float().pow(2)).flatten(1).mean(1)  # (B, ...) -> (B, N) -> (B,)

    def velocity_of(self, network):
        """The network as a sampler wants it: a function of (x (B, ...), sigma (B,)) -> velocity (B, ...)."""
        return lambda x, sigma: self.velocity_from(network(x, sigma), x, sigma)


# Sampling


@torch.no_grad()
def sample(velocity_fn, noise, sigmas, method="euler", callback=None):
    """Walk from noise down to data along a velocity field.

    velocity_fn: (x (B, ...), sigma (B,)) -> velocity (B, ...). noise: (B, ...), x at sigmas[0]. sigmas: (N + 1,),
    strictly descending, as from `schedule`. method: "euler", N evaluations, error O(1/N); or "heun", 2 N - 1
    evaluations, error O(1/N**2). callback(step, sigma, x): called after each step with the sigma and x it has reached.
    Returns (B, ...) in the dtype of `noise`; in between, x is kept in float32 or better. Raises UserError.
    """
    if method not in ("euler", "heun"):
        raise UserError(f'no method "{method}": try "euler" or "heun"')
    if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas.diff() < 0).all():
        raise UserError("sigmas must be one descending row of at least two numbers: take schedule(num_steps)")
    # Many small steps in bfloat16 would be rounded away, so only the network sees that dtype.
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    sigmas = sigmas.to(x)

    def velocity_at(x, sigma):
        return velocity_fn(x.to(noise.dtype), sigma.expand(x.shape[0]))  # () -> (B,)

    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        v = velocity_at(x, sigma)
        # At sigma 0 a network has hardly been trained, and an x-prediction has no velocity: the last step stays
        # Euler's. It is one step out of N, so the order is still 2.
        if method == "heun" and sigma_next > 0:
            v = (v + velocity_at(x + (sigma_next - sigma) * v, sigma_next)) / 2
        x = x + (sigma_next - sigma) * v
        if callback is not None:
            callback(step, sigma_next.item(), x)
    return x.to(noise.dtype)


# Guidance


def guide_one(unconditional, conditional, scale):
    """Classifier-free guidance, u + scale * (c - u): 0 ignores the condition, 1 follows it, above 1 exaggerates it.

    unconditional, conditional: velocities (B, ...). Returns (B, ...). Source: Ho and Salimans 2022 (arXiv 2207.12598).
    """
    return unconditional + scale * (conditional - unconditional)


def guide(unconditional, identity_only, full, identity_scale, expression_scale):
    """Guidance with two dials: who it is, and, given who it is, what the face does. (1, 1) is `full`.

    unconditional, identity_only, full: velocities (B, ...) under no condition, the identity, both. Returns (B, ...).
    The two differences come one after the other, as in InstructPix2Pix (Brooks et al. 2022, arXiv 2211.09800).
    """
    return unconditional + identity_scale * (identity_only - unconditional) + expression_scale * (full - identity_only)
