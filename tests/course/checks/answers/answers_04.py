"""Answers to the exercises of notebook 04, as students write them."""

import torch

from tests.course.checks.answers import Answers

# --- interpolate ---


def in_shape(sigma, x):
    return sigma.view(-1, *(1,) * (x.dim() - 1)) if torch.is_tensor(sigma) and sigma.dim() else sigma


def from_the_data(data, noise, sigma):
    return data + in_shape(sigma, data) * (noise - data)


def by_einsum(data, noise, sigma):
    s = torch.as_tensor(sigma, dtype=data.dtype).expand(len(data))
    return torch.einsum("b...,b->b...", data, 1 - s) + torch.einsum("b...,b->b...", noise, s)


def other_way_round(data, noise, sigma):
    s = in_shape(sigma, data)
    return s * data + (1 - s) * noise


def shapes_forgotten(data, noise, sigma):
    return torch.lerp(data, noise, torch.as_tensor(sigma))


def for_pictures(data, noise, sigma):
    return data + sigma.reshape(-1, 1, 1, 1) * (noise - data)


def only_added(data, noise, sigma):
    return data + in_shape(sigma, data) * noise


def through_numpy(data, noise, sigma):
    return torch.from_numpy(from_the_data(data, noise, sigma).detach().numpy())


# --- sample ---


@torch.no_grad()
def by_index(velocity_fn, noise, sigmas, method="euler", callback=None):
    x, B = noise.clone(), noise.shape[0]
    for k in range(len(sigmas) - 1):
        h = sigmas[k] - sigmas[k + 1]
        first = velocity_fn(x, torch.full((B,), float(sigmas[k])))
        if method == "euler" or k == len(sigmas) - 2:
            x = x - h * first
        else:
            second = velocity_fn(x - h * first, torch.full((B,), float(sigmas[k + 1])))
            x = x - h / 2 * (first + second)
        if callback:
            callback(k, float(sigmas[k + 1]), x)
    return x


def two_loops(velocity_fn, noise, sigmas, method="euler", callback=None):
    x = noise
    ones = torch.ones(len(noise))
    for step, width in enumerate(sigmas.diff()):
        v = velocity_fn(x, sigmas[step] * ones)
        euler = x + width * v
        if method == "heun" and step + 2 < len(sigmas):
            x = x + width * 0.5 * v + width * 0.5 * velocity_fn(euler, sigmas[step + 1] * ones)
        else:
            x = euler
        if callback is not None:
            callback(step, sigmas[step + 1].item(), x)
    return x


def walks(next_x, heard=1):
    """A sampler from its one step: next_x(velocity, x, s, t, last, heun) -> x."""

    def sampler(velocity_fn, noise, sigmas, method="euler", callback=None):
        x = noise
        for k in range(len(sigmas) - 1):

            def velocity(x, s):
                return velocity_fn(x, s.repeat(len(x)))

            x = next_x(velocity, x, sigmas[k], sigmas[k + 1], k == len(sigmas) - 2, method == "heun")
            if callback:
                callback(k, sigmas[k + heard].item(), x)
        return x

    return sampler


def euler(v, x, s, t, *_):
    return x + (t - s) * v(x, s)


def right_step(v, x, s, t, last, heun):
    return x + (t - s) * (v(x, s) + v(euler(v, x, s, t), t)) / 2 if heun and not last else euler(v, x, s, t)


def uphill(v, x, s, t, last, heun):
    first = v(x, s)
    return x + (s - t) * (first if last or not heun else (first + v(x + (s - t) * first, t)) / 2)


def heun_to_the_end(v, x, s, t, last, heun):
    return right_step(v, x, s, t, False, heun)


def second_at_the_start(v, x, s, t, last, heun):
    return x + (t - s) * (v(x, s) + v(x, t)) / 2 if heun and not last else euler(v, x, s, t)


def old_sigma(v, x, s, t, last, heun):
    return x + (t - s) * (v(x, s) + v(euler(v, x, s, t), s)) / 2 if heun and not last else euler(v, x, s, t)


def mean_of_the_points(v, x, s, t, last, heun):
    return x + (t - s) * v((x + euler(v, x, s, t)) / 2, (s + t) / 2) if heun and not last else euler(v, x, s, t)


def second_only(v, x, s, t, last, heun):
    return x + (t - s) * v(euler(v, x, s, t), t) if heun and not last else euler(v, x, s, t)


def sum_of_both(v, x, s, t, last, heun):
    return x + (t - s) * (v(x, s) + v(euler(v, x, s, t), t)) if heun and not last else euler(v, x, s, t)


def on_from_the_trial(v, x, s, t, last, heun):
    if not heun or last:
        return euler(v, x, s, t)
    trial = euler(v, x, s, t)
    return trial + (t - s) * (v(x, s) + v(trial, t)) / 2


def in_the_noise(velocity_fn, noise, sigmas, method="euler", callback=None):
    x = noise
    for k in range(len(sigmas) - 1):
        s, t = sigmas[k].repeat(len(x)), sigmas[k + 1].repeat(len(x))
        v = velocity_fn(x, s)
        if method == "heun" and sigmas[k + 1] > 0:
            v = (v + velocity_fn(x + (sigmas[k + 1] - sigmas[k]) * v, t)) / 2
        x += (sigmas[k + 1] - sigmas[k]) * v
        if callback:
            callback(k, sigmas[k + 1].item(), x)
    return x


def sigma_as_a_number(velocity_fn, noise, sigmas, method="euler", callback=None):
    x = noise
    for s, t in zip(sigmas, sigmas[1:]):
        x = x + (t - s) * velocity_fn(x, s)
    return x


# --- midpoint ---


def middles(velocity_fn, noise, sigmas):
    x = noise
    for k in range(len(sigmas) - 1):
        h = (sigmas[k] - sigmas[k + 1]) / 2
        there = x - h * velocity_fn(x, sigmas[k].repeat(len(x)))
        x = x - 2 * h * velocity_fn(there, (sigmas[k] - h).repeat(len(x)))
    return x


@torch.no_grad()
def with_lerp(velocity_fn, noise, sigmas):
    x, many = noise.clone(), torch.ones(noise.shape[0])
    for s, t in zip(sigmas.tolist(), sigmas.tolist()[1:]):
        whole = x + (t - s) * velocity_fn(x, s * many)
        x = x + (t - s) * velocity_fn(torch.lerp(x, whole, 0.5), (s + t) / 2 * many)
    return x


def steps(next_x):
    def sampler(velocity_fn, noise, sigmas):
        return walks(lambda v, x, s, t, last, heun: next_x(v, x, s, t, last))(velocity_fn, noise, sigmas)

    return sampler


def at_half(v, x, s, t):
    return x + (t - s) / 2 * v(x, s)


MIDPOINT = [
    (steps(lambda v, x, s, t, last: x + (s - t) * v(x + (s - t) / 2 * v(x, s), (s + t) / 2)), "wrong direction"),
    (steps(lambda v, x, s, t, last: x + (t - s) * v(x, s)), "never used"),
    (steps(lambda v, x, s, t, last: x + (t - s) * v(at_half(v, x, s, t), s)), "sigma at which the step began"),
    (steps(lambda v, x, s, t, last: x + (t - s) * v(at_half(v, x, s, t), t)), "sigma at the end of the step"),
    (steps(lambda v, x, s, t, last: x + (t - s) * v(euler(v, x, s, t), t)), "half an Euler step"),
    (
        steps(lambda v, x, s, t, last: at_half(v, x, s, t) + (t - s) * v(at_half(v, x, s, t), (s + t) / 2)),
        "half a step too far",
    ),
    (steps(lambda v, x, s, t, last: x + (t - s) / 2 * v(at_half(v, x, s, t), (s + t) / 2)), "half its way"),
    (
        steps(lambda v, x, s, t, last: x + (t - s) / 2 * (v(x, s) + v(at_half(v, x, s, t), (s + t) / 2))),
        "as if two were averaged",
    ),
    (
        steps(
            lambda v, x, s, t, last: euler(v, x, s, t) if last else x + (t - s) * v(at_half(v, x, s, t), (s + t) / 2)
        ),
        "half way to 0",
    ),
    (steps(lambda v, x, s, t, last: right_step(v, x, s, t, last, True)), "this is Heun"),
]

# --- guide ---


def three_weights(unconditional, identity_only, full, identity_scale, expression_scale):
    weights = 1 - identity_scale, identity_scale - expression_scale, expression_scale
    return weights[0] * unconditional + weights[1] * identity_only + weights[2] * full


def two_legs(unconditional, identity_only, full, identity_scale, expression_scale):
    person, expression = identity_only - unconditional, full - identity_only
    return expression_scale * expression + unconditional + identity_scale * person


# --- ours_from_theirs ---


def nested(their_velocity):
    def velocity(x, sigma):
        t = 1.0 - sigma
        return their_velocity(x, t).neg()

    return velocity


ANSWERS = {
    "interpolate": Answers(
        right=[from_the_data, by_einsum],
        wrong=[
            (other_way_round, "interchanged"),
            (shapes_forgotten, "along the last axis"),
            (for_pictures, "fits pictures"),
            (only_added, "is not scaled"),
            (through_numpy, "gradients are not"),
        ],
    ),
    "one_step_end": Answers(
        right=[lambda: 0.8 - 0.2, lambda: torch.tensor(0.6)],
        wrong=[
            (lambda: 0, "both values were as likely"),
            (lambda: 1, "no information about the data"),
            (lambda: -0.6, "its sign"),
            (lambda: 0.8, "weight of +1"),
            (lambda: 3, "too large"),
            (lambda: "in the middle", "return a number"),
        ],
    ),
    "sample": Answers(
        right=[by_index, two_loops, walks(right_step)],
        wrong=[
            (walks(uphill), "wrong direction"),
            (walks(euler), "second evaluation is missing"),
            (walks(heun_to_the_end), "in the last step too"),
            (walks(second_at_the_start), "where the step began"),
            (walks(old_sigma), "with the old sigma"),
            (walks(mean_of_the_points), "the midpoint sampler"),
            (walks(second_only), "second velocity alone"),
            (walks(sum_of_both), "added and not averaged"),
            (walks(on_from_the_trial), "two steps in one"),
            (walks(right_step, heard=0), "`callback` gets"),
            (in_the_noise, "changed in place"),
            (sigma_as_a_number, "a sigma for each of the"),
        ],
    ),
    "steps_for_a_tenth": Answers(
        right=[lambda: 640, lambda: 64 * 10.0],
        wrong=[
            (lambda: 128, "twice as many"),
            (lambda: 64 * 10**0.5, "divided the error by four"),
            (lambda: 6400, "over random draws"),
            (lambda: 64 + 10, "ten more steps"),
            (lambda: 300, "too small"),
        ],
    ),
    "midpoint": Answers(right=[middles, with_lerp], wrong=MIDPOINT),
    "guide": Answers(
        right=[three_weights, two_legs],
        wrong=[
            (lambda u, i, f, a, b: (1 - a - b) * u + a * i + b * f, "further than the full condition"),
            (lambda u, i, f, a, b: two_legs(u, i, f, b, a), "interchanged"),
            (lambda u, i, f, a, b: i + a * (i - u) + b * (f - i), "still there"),
            (lambda u, i, f, a, b: (1 - b) * ((1 - a) * u + a * i) + b * f, "the corners are right"),
            (lambda u, i, f, a, b: u + a * (i - u + b * (f - i)), "multiplied with the identity's"),
            (lambda u, i, f, a, b: two_legs(u, i, f, -a, -b), "*weakens* its condition"),
            (lambda u, i, f, a, b: (1 - b) * u + b * f, "scales is not used."),
            (lambda u, i, f, a, b: u + a * (f - u), "the second one"),
        ],
    ),
    "ours_from_theirs": Answers(
        right=[nested, lambda theirs: lambda x, sigma: theirs(x, 1 - sigma) * -1],
        wrong=[
            (lambda theirs: lambda x, sigma: theirs(x, sigma), "nothing is converted"),
            (lambda theirs: lambda x, sigma: -theirs(x, sigma), "the time is not"),
            (lambda theirs: lambda x, sigma: theirs(x, 1 - sigma), "the sign is not"),
            (lambda theirs: lambda x, sigma: -theirs(x, 1000 - 1000 * sigma), "up to 1000"),
            (lambda theirs: lambda x, sigma: -theirs(-x, 1 - sigma), "x itself is inverted"),
            (lambda theirs: -theirs(torch.zeros(1, 1), torch.zeros(1)), "a function must come out"),
        ],
    ),
}
