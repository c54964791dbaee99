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


# --- mean_velocity ---


def by_hand(x, sigma, points):
    rows = []
    for one, s in zip(x, sigma):
        logs = torch.stack([-((one - (1 - s) * point) ** 2).sum() / (2 * s * s) for point in points])
        weights = (logs - logs.logsumexp(0)).exp()
        rows.append((one - (weights[:, None] * points).sum(0)) / s)
    return torch.stack(rows)


def mean_of_velocities(x, sigma, points):
    """The mean of (x - point) / sigma over the points, which is the same."""
    s = sigma.view(-1, 1, 1)
    away = x.unsqueeze(1) - (1 - s) * points
    weights = torch.softmax(-0.5 * (away / s).pow(2).sum(2), dim=1)
    return (weights.unsqueeze(2) * (x.unsqueeze(1) - points) / s).sum(1)


def by_cdist(x, sigma, points):
    """Distances that round differently."""
    s = sigma[:, None]
    distances = torch.stack([torch.cdist(one[None], (1 - t) * points)[0] for one, t in zip(x, s)])
    return (x - torch.softmax(-(distances**2) / (2 * s**2), dim=1) @ points) / s


def points_weighted(power=2, half=0.5, shrunk=True, soft=torch.softmax, give=lambda x, d, s: (x - d) / s):
    def answer(x, sigma, points):
        s = sigma.view(-1, 1)
        means = (1 - s).unsqueeze(2) * points if shrunk else points.expand(len(x), -1, -1)
        logs = -half * (x.unsqueeze(1) - means).pow(2).sum(2) / s**power
        return give(x, soft(logs, 1) @ points, s)

    return answer


def with_exp(logs, dim):
    return logs.exp() / logs.exp().sum(dim, keepdim=True)


MEAN_VELOCITY = [
    (points_weighted(soft=with_exp), "take their softmax"),
    (points_weighted(shrunk=False), "centred on the points"),
    (points_weighted(power=1), "is sigma², not sigma"),
    (points_weighted(half=1.0), "the 2 is missing"),
    (lambda x, sigma, points: (x - points.mean(0)) / sigma[:, None], "mean of all data"),  # a velocity, not this one
    (points_weighted(soft=lambda logs, dim: torch.eye(logs.shape[1])[logs.argmax(dim)]), "only the nearest"),
    (points_weighted(give=lambda x, d, s: d), "this is the expected data"),
    (points_weighted(give=lambda x, d, s: (d - x) / s), "from the data to the noise"),
    (points_weighted(give=lambda x, d, s: x - d), "division by sigma"),
]

# --- RectifiedFlow ---


class TwoVelocities:
    """Both predictions as velocities with the same divisor."""

    def __init__(self, prediction="v", sigma_floor=0.05):
        self.kind, self.floor = prediction, sigma_floor

    def velocity_from(self, output, noisy, sigma):
        if self.kind == "x":
            return (noisy - output) / in_shape(torch.as_tensor(sigma).clamp_min(1e-4), noisy)
        return output

    def loss(self, network, data, noise, sigma):
        s = in_shape(sigma, data)
        noisy = data + s * (noise - data)
        found, truth = network(noisy, sigma), noise - data
        if self.kind == "x":
            d = s.clamp_min(self.floor)
            found, truth = (noisy - found) / d, (noisy - data) / d
        return torch.stack([(a - b).square().mean() for a, b in zip(found, truth)])


class Weighted(TwoVelocities):
    """The error of the data, with a weight."""

    def loss(self, network, data, noise, sigma):
        output = network(from_the_data(data, noise, sigma), sigma)
        dims = tuple(range(1, data.ndim))
        if self.kind == "v":
            return (output - noise + data).pow(2).mean(dims)
        return (output - data).pow(2).mean(dims) / sigma.clamp_min(self.floor) ** 2


def losing(function, velocity=TwoVelocities.velocity_from):
    """loss = function(self, output, data, noise, sigma beside data) -> (B, ...), then the mean of its squares."""

    class Losing(TwoVelocities):
        velocity_from = velocity

        def loss(self, network, data, noise, sigma):
            output = network(from_the_data(data, noise, sigma), sigma)
            return function(self, output, data, noise, in_shape(sigma, data)).pow(2).flatten(1).mean(1)

    return Losing


def right_error(self, output, data, noise, s):
    return output - noise + data if self.kind == "v" else (output - data) / s.clamp_min(self.floor)


class Detached(TwoVelocities):
    """The right number, from which nothing can be learned."""

    def loss(self, network, data, noise, sigma):
        return super().loss(network, data, noise, sigma).detach()


class Summed(TwoVelocities):
    def loss(self, network, data, noise, sigma):
        return super().loss(network, data, noise, sigma) * data[0].numel()


class OneNumber(TwoVelocities):
    def loss(self, network, data, noise, sigma):
        return super().loss(network, data, noise, sigma).mean()


def clamped_velocity(self, output, noisy, sigma):
    s = in_shape(torch.as_tensor(sigma).clamp_min(self.floor), noisy)
    return (noisy - output) / s if self.kind == "x" else output


def infinite_velocity(self, output, noisy, sigma):
    return (noisy - output) / in_shape(torch.as_tensor(sigma), noisy) if self.kind == "x" else output


def velocity_at_tensors(self, output, noisy, sigma):
    return (noisy - output) / in_shape(sigma.clamp_min(1e-4), noisy) if self.kind == "x" else output


def x_only(error):
    return lambda self, o, d, n, s: o - n + d if self.kind == "v" else error(self, o, d, n, s)


# --- train ---


def training(network, objective, optimizer, decay, batches):
    found = []
    for batch in batches:
        value = objective.loss(network, *batch).mean()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay.step()
        found.append(float(value))
    return found


def by_grad(network, objective, optimizer, decay, batches):
    parameters, found = list(network.parameters()), []
    for data, noise, sigma in batches:
        each = objective.loss(network, data, noise, sigma)
        for p, g in zip(parameters, torch.autograd.grad(each.sum() / len(each), parameters)):
            p.grad = g
        optimizer.step()
        decay.step()
        found.append(each.detach().mean().item())
    return found


def loop(*lines, report=float, reduce=torch.mean):
    def train(network, objective, optimizer, decay, batches):
        found = []
        for batch in batches:
            loss = reduce(objective.loss(network, *batch))
            for line in lines:
                line(loss, optimizer, decay)
            found.append(report(loss))
        return found

    return train


def zero(loss, optimizer, decay):
    optimizer.zero_grad()


def back(loss, optimizer, decay):
    loss.backward()


def step(loss, optimizer, decay):
    optimizer.step()


def slower(loss, optimizer, decay):
    decay.step()


def losses_alone(network, objective, optimizer, decay, batches):
    """A list of losses as asked for, and no training."""
    return [objective.loss(network, *batch).mean().item() for batch in batches]


# --- rectify ---


def straighten(network, optimizer, velocity_fn, noise, stops, batches):
    ends, losses = by_index(velocity_fn, noise, stops, "heun"), []
    for which, sigma in batches:
        start, end, s = noise[which], ends[which], sigma[:, None]
        loss = (network((1 - s) * end + s * start, sigma) - (start - end)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def straighten_in_flow(network, optimizer, velocity_fn, noise, stops, batches):
    with torch.no_grad():
        ends = two_loops(velocity_fn, noise, stops, "heun")
    losses = []
    for which, sigma in batches:
        optimizer.zero_grad()
        loss = TwoVelocities().loss(network, ends[which], noise[which], sigma).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().item())
    return losses


def straightening(pair=lambda z, e, k: (z[k], e[k]), want=lambda v, z, e, x, s: z - e, method="heun", steps=True):
    def rectify(network, optimizer, velocity_fn, noise, stops, batches):
        ends, losses = by_index(velocity_fn, noise, stops, method), []
        for which, sigma in batches:
            z, e = pair(noise, ends, which)
            x = e + sigma[:, None] * (z - e)
            loss = (network(x, sigma) - want(velocity_fn, z, e, x, sigma)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            if steps:
                optimizer.step()
            losses.append(loss.item())
        return losses

    return rectify


# --- data_noise_score ---


def solved(velocity, x, sigma):
    s = in_shape(sigma, x)
    data = x - s * velocity
    return data, data + velocity, ((1 - s) * data - x) / s**2


def in_another_order(velocity, x, sigma):
    s = in_shape(sigma, x)
    noise = velocity - s * velocity + x
    return noise - velocity, noise, noise / -s


def read_as(data=None, noise=None, score=None):
    def answer(v, x, sigma):
        s, known = in_shape(sigma, x), solved(v, x, sigma)
        return tuple(f(v, x, s) if f else one for f, one in zip((data, noise, score), known))

    return answer


# --- ours_from_ddpm ---


def by_data(their_epsilon):
    def velocity(x, sigma):
        s = in_shape(sigma, x)
        size = torch.hypot(1 - s, s)
        epsilon = their_epsilon(x / size, ((1 - sigma) / torch.hypot(1 - sigma, sigma)) ** 2)
        return epsilon - (x - s * epsilon) / (1 - s)

    return velocity


def by_ratio(their_epsilon):
    def velocity(x, sigma):
        ratio = (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
        z = x * in_shape(1 / ((1 - sigma) ** 2 + sigma**2).sqrt(), x)
        return (their_epsilon(z, ratio) - x) / in_shape(1 - sigma, x)

    return velocity


def ddpm(
    z=lambda x, size: x / size, bar=lambda s: (1 - s) ** 2 / ((1 - s) ** 2 + s**2), v=lambda e, x, s: (e - x) / (1 - s)
):
    def ours(their):
        def velocity(x, sigma):
            s = in_shape(sigma, x)
            return v(their(z(x, torch.hypot(1 - s, s)), bar(sigma)), x, s)

        return velocity

    return ours


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


def in_place_on_a_copy(velocity_fn, noise, sigmas, method="euler", callback=None):
    return in_the_noise(velocity_fn, noise.clone(), sigmas, method, callback)


def always_twice(velocity_fn, noise, sigmas, method="euler", callback=None):
    """Right results, with a second evaluation in every step, also where it is not used."""
    x = noise
    for k, (s, t) in enumerate(zip(sigmas, sigmas[1:])):
        v = velocity_fn(x, s.expand(len(x)))
        w = velocity_fn(x + (t - s) * v, t.expand(len(x)))
        x = x + (t - s) * ((v + w) / 2 if method == "heun" and t > 0 else v)
        if callback:
            callback(k, t.item(), x)
    return x


always_twice.__name__ = "sample"  # as a student calls it: the message about its error has the name


def sigma_in_a_tensor(velocity_fn, noise, sigmas, method="euler", callback=None):
    tell = callback and (lambda step, sigma, x: callback(step, torch.tensor(sigma), x))
    return by_index(velocity_fn, noise, sigmas, method, tell)


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
            (lambda: 3, "Derive it on paper"),
            (lambda: "in the middle", "return a number"),
        ],
    ),
    "mean_velocity": Answers(right=[by_hand, mean_of_velocities, by_cdist], wrong=MEAN_VELOCITY),
    "RectifiedFlow": Answers(
        right=[TwoVelocities, Weighted],
        wrong=[
            (losing(lambda self, o, d, n, s: o - d + n), "the other sign"),
            (losing(x_only(lambda self, o, d, n, s: o - d)), "error in the *data*"),
            (losing(x_only(lambda self, o, d, n, s: (o - d) / s)), "without a limit"),
            (
                losing(x_only(lambda self, o, d, n, s: (d + s * (n - d) - o) / s.clamp_min(self.floor) - (n - d))),
                "only the prediction's divisor",
            ),
            (Summed, "added up over the coordinates"),
            (OneNumber, "for the whole batch"),
            (losing(right_error, lambda self, output, noisy, sigma: output), "as it is"),
            (losing(right_error, clamped_velocity), "at 1e-4 only"),
            (losing(right_error, infinite_velocity), "a sigma of 0"),
            (losing(right_error, velocity_at_tensors), "may also be a number"),
            (Detached, "no gradient"),
        ],
    ),
    "train": Answers(
        right=[training, by_grad],
        wrong=[
            (loop(back, step, slower), "gradients of earlier steps"),
            (losses_alone, "called with"),
            (loop(back, zero, step, slower), "network does not change"),
            (loop(zero, back, step), "`decay.step()` once a step"),
            (loop(zero, back, slower, step), "before the step"),
            (loop(zero, back, step, slower, reduce=torch.sum), "Take their mean"),
            (loop(zero, back, step, slower, report=lambda loss: loss), "memory grows"),
        ],
    ),
    "rectify": Answers(
        right=[straighten, straighten_in_flow],
        wrong=[
            (straightening(want=lambda v, z, e, x, s: v(x, s)), "the old flow once more"),  # straight in name only
            (straightening(pair=lambda z, e, k: (z[: len(k)], e[k])), "not paired"),
            (straightening(pair=lambda z, e, k: (e[k], z[k])), "interchanged"),
            (straightening(want=lambda v, z, e, x, s: e), "to predict the data"),
            (straightening(method="euler"), "use Heun"),
            (straightening(steps=False), "never steps"),
        ],
    ),
    "data_noise_score": Answers(
        right=[solved, in_another_order],
        wrong=[
            (read_as(data=lambda v, x, s: x + s * v), "data has the wrong sign"),
            (read_as(noise=lambda v, x, s: x + s * v), "a way of 1 − sigma"),
            (read_as(score=lambda v, x, s: (x + v - s * v) / s), "score has the wrong sign"),
            (read_as(score=lambda v, x, s: -(x + v - s * v)), "or not at all"),
            (lambda v, x, sigma: solved(v.detach(), x, sigma), "gradients are not"),
        ],
    ),
    "ours_from_ddpm": Answers(
        right=[by_data, by_ratio],
        wrong=[
            (ddpm(z=lambda x, size: x), "whose weights have the squares"),
            (ddpm(bar=lambda s: (1 - s) / torch.hypot(1 - s, s)), "the *square* of"),
            (ddpm(bar=lambda s: s**2 / ((1 - s) ** 2 + s**2)), "the other way round"),
            (ddpm(v=lambda e, x, s: e), "came back as it is"),
            (ddpm(v=lambda e, x, s: (x - e) / (1 - s)), "wrong sign"),
            (ddpm(v=lambda e, x, s: (e - x / torch.hypot(1 - s, s)) / (1 - s)), "the line is ours"),
            (lambda their: their(torch.zeros(1, 1), torch.zeros(1)), "must come out"),
        ],
    ),
    "sample": Answers(
        right=[by_index, two_loops, walks(right_step), in_place_on_a_copy],
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
            (in_the_noise, "noise itself is changed"),
            (always_twice, "called at sigma 0"),
            (sigma_in_a_tensor, "A plain number was asked for"),
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
            (lambda: 300, "Derive it on paper"),
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
