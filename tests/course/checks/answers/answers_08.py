"""Answers to the exercises of notebook 08, as students write them."""

import copy
import io
import math

import numpy as np
import torch
from torch import nn

from tests.course.checks.answers import Answers

# --- picture_loss ---


def weights_of(images, weight):
    brightness = (images.sum(1, keepdim=True) / 3 + 1) / 2
    weight = weight / (brightness + 0.25)
    return weight / weight.mean()


def by_diff(error, images, weight):
    w = weights_of(images, weight)
    return (
        (w * error.abs()).mean()
        + (w[..., 1:] * error.diff(dim=3).abs()).mean()
        + (w[..., 1:, :] * error.diff(dim=2).abs()).mean()
    )


def by_rolling(error, images, weight):
    w, total = weights_of(images, weight), 0
    for axis in (None, 2, 3):
        change = error if axis is None else error - error.roll(1, axis)
        there = torch.ones_like(error)
        if axis is not None:
            there.index_fill_(axis, torch.tensor([0]), 0.0)
        total = total + (change.abs() * w * there).sum() / there.sum()
    return total


def loss_with(w=weights_of, size=torch.abs, terms=(1, 1, 1), before=False):
    def answer(error, images, weight):
        weights = w(images, weight)
        along, down = (weights[..., :-1], weights[..., :-1, :]) if before else (weights[..., 1:], weights[..., 1:, :])
        parts = (
            (weights * size(error)).mean(),
            (along * size(error.diff(dim=3))).mean(),
            (down * size(error.diff(dim=2))).mean(),
        )
        return sum(part for part, wanted in zip(parts, terms) if wanted)

    return answer


def without_brightness(images, weight):
    return weight.expand(len(images), -1, -1, -1) / weight.mean()


def signed_brightness(images, weight):
    weight = weight / (0.25 + images.mean(1, keepdim=True))
    return weight / weight.mean()


def not_normal(images, weight):
    return weight / (0.25 + (images.mean(1, keepdim=True) + 1) / 2)


def per_picture(images, weight):
    weight = not_normal(images, weight)
    return weight / weight.mean((1, 2, 3), keepdim=True)


def with_empty_edges(error, images, weight):
    w = weights_of(images, weight)
    along, down = nn.functional.pad(error.diff(dim=3), (1, 0)), nn.functional.pad(error.diff(dim=2), (0, 0, 1, 0))
    return (w * (error.abs() + along.abs() + down.abs())).mean()


def normal_before(images, weight):
    return not_normal(images, weight / weight.mean())


def no_gradient(error, images, weight):
    """The right number, from which nothing can be learned."""
    return by_diff(error.detach(), images, weight) + 0 * error.sum()


# --- noised ---


def by_normal(latents, noise, generator):
    level = torch.normal(0.0, noise, (latents.shape[0],), generator=generator).abs()
    return latents + level.view(-1, 1, 1, 1) * torch.empty_like(latents).normal_(generator=generator)


def one_after_another(latents, noise, generator):
    out = []
    for one in latents:
        level = noise * torch.randn((), generator=generator).abs()
        out.append(one + level * torch.randn(one.shape, generator=generator))
    return torch.stack(out)


def noise_with(level, shape=lambda z: z.shape):
    return lambda z, noise, generator: z + noise * level(z, generator) * torch.randn(shape(z), generator=generator)


def of_each_picture(z, generator):
    return torch.randn(len(z), 1, 1, 1, generator=generator).abs()


def with_a_sign(z, noise, generator):
    """Without the absolute value the noise has the same distribution."""
    noise_of = noise * torch.randn(z.shape, generator=generator)
    return z + torch.randn(z.shape[0], generator=generator)[:, None, None, None] * noise_of


def from_other_pictures(z, noise, generator):
    """Numbers that are as different as noise, and are other pictures."""
    return z + noise * of_each_picture(z, generator) * z[torch.randperm(len(z), generator=generator)]


def mixed_in(z, noise, generator):
    level = noise * of_each_picture(z, generator)
    return (1 - level) * z + level * torch.randn(z.shape, generator=generator)


def without_generator(z, noise, generator):
    return z + noise * torch.randn(len(z), 1, 1, 1).abs() * torch.randn(z.shape, generator=generator)


def in_place(z, noise, generator):
    z += noise * of_each_picture(z, generator) * torch.randn(z.shape, generator=generator)
    return z


# --- linear_floor ---


def by_svd(latents, sigma):
    flat = latents.reshape(len(latents), -1)
    variances = torch.linalg.svdvals(flat - flat.mean(0)) ** 2 / len(flat)
    return float((variances / ((1 - sigma) ** 2 * variances + sigma**2)).mean())


def by_least_squares(latents, sigma):
    """The matrix form: trace of the error covariance of the best linear prediction."""
    flat = latents.reshape(len(latents), -1)
    c = np.cov(flat.numpy(), rowvar=False)
    x = (1 - sigma) ** 2 * c + sigma**2 * np.eye(len(c))
    cross = sigma * np.eye(len(c)) - (1 - sigma) * c
    return np.trace(c + np.eye(len(c)) - cross @ np.linalg.inv(x) @ cross) / len(c)


def floor_with(variances, total=np.mean, formula=lambda v, s: v / ((1 - s) ** 2 * v + s**2)):
    return lambda z, sigma: float(total(formula(np.asarray(variances(z.flatten(1).numpy())), sigma)))


def spectrum(flat):
    return np.linalg.eigvalsh(np.cov(flat.T))


def channels_alone(z, sigma):
    flat = z.numpy().transpose(1, 0, 2, 3).reshape(z.shape[1], -1)
    v = np.linalg.eigvalsh(np.cov(flat).reshape(z.shape[1], z.shape[1]))
    return float((v / ((1 - sigma) ** 2 * v + sigma**2)).mean())


# --- still_missing ---


def by_einsum(decoded, true, difference, present):
    there = present.float()
    bare = true - torch.einsum("b,bchw->bchw", there, difference)
    s = torch.einsum("bchw,bchw->b", decoded - bare, difference)
    s = (s / torch.einsum("bchw,bchw->b", difference, difference).clamp(min=1e-9)).clamp(0, 1)
    return torch.einsum("b,bchw->bchw", there - s, difference)


def picture_by_picture(decoded, true, difference, present):
    out = []
    for image, truth, d, there in zip(decoded, true, difference, present):
        bare = truth - d if there else truth
        s = torch.linalg.lstsq(d.reshape(-1, 1), (image - bare).reshape(-1, 1)).solution.item()
        out.append((float(there) - min(max(s, 0.0), 1.0)) * d)
    return torch.stack(out)


def missing_with(bare=None, limit=lambda s: s.clamp(0, 1), expected=None, axes=(1, 2, 3), sign=1):
    def answer(decoded, true, d, present):
        there = present.view(-1, 1, 1, 1).float()
        start = true - there * d if bare is None else bare(true, d)
        s = limit(((decoded - start) * d).sum(axes, keepdim=True) / (d * d).sum(axes, keepdim=True).clamp(min=1e-9))
        return sign * ((there if expected is None else expected) - s) * d

    return answer


def error_of_the_decoder(decoded, true, difference, present):
    """Everything that differs: the picture would be right, and a small network learns only outlines of it."""
    return true - decoded


def divided_by_nothing(decoded, true, d, present):
    there = present.view(-1, 1, 1, 1).float()
    s = ((decoded - true + there * d) * d).sum((1, 2, 3), keepdim=True) / (d * d).sum((1, 2, 3), keepdim=True)
    return (there - s.clamp(0, 1)) * d


# --- learning_rate ---


def with_if(step, used, peak, warmup_steps, final):
    rate = peak * final + peak * (1 - final) * (1 + np.cos(np.pi * used)) / 2
    if step < warmup_steps:
        rate *= (step + 1) / warmup_steps
    return rate


def by_sine(step, used, peak, warmup_steps, final):
    low = final * peak
    return (low + (peak - low) * math.cos(math.pi * used / 2) ** 2) * min(step + 1, warmup_steps) / warmup_steps


def starts_at_nothing(step, used, peak, warmup_steps, final):
    return by_sine(step - 1, used, peak, warmup_steps, final)


def final_as_a_rate(step, used, peak, warmup_steps, final):
    return (final + (peak - final) * math.cos(math.pi * used / 2) ** 2) * min(step + 1, warmup_steps) / warmup_steps


def to_nothing(step, used, peak, warmup_steps, final):
    return by_sine(step, used, peak, warmup_steps, 0)


def on_top(step, used, peak, warmup_steps, final):
    return by_sine(step, used, peak, warmup_steps, 0) + final * peak * min(1, (step + 1) / warmup_steps)


def half_forgotten(step, used, peak, warmup_steps, final):
    return peak * min((step + 1) / warmup_steps, 1) * (final + (1 - final) * (1 + math.cos(math.pi * used)))


def whole_turn(step, used, peak, warmup_steps, final):
    return peak * min((step + 1) / warmup_steps, 1) * (final + (1 - final) * (1 + math.cos(2 * math.pi * used)) / 2)


def no_climb(step, used, peak, warmup_steps, final):
    return by_sine(warmup_steps, used, peak, warmup_steps, final)


def one_or_the_other(step, used, peak, warmup_steps, final):
    if step + 1 < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return by_sine(step, used, peak, warmup_steps, final)


def cut_off(step, used, peak, warmup_steps, final):
    """At the end the rate is the fraction that was asked for, and long before."""
    return by_sine(step, 0, peak, warmup_steps, 0) * max(final, math.cos(math.pi * used / 2) ** 2)


# --- update_average ---


@torch.no_grad()
def by_copy(average, parameters, step, most=0.999):
    decay = (1 + step) / (10 + step)
    if decay > most:
        decay = most
    for k in range(len(average)):
        average[k].copy_(decay * average[k] + (1 - decay) * parameters[k])


def by_data(average, parameters, step, most=0.999):
    keep = min((1 + step) / (10 + step), most)
    for slow, fast in zip(average, parameters):
        slow.mul_(keep).add_(fast.data, alpha=1 - keep)


@torch.no_grad()
def new_names(average, parameters, step, most=0.999):
    keep = min((1 + step) / (10 + step), most)
    for slow, fast in zip(average, parameters):
        slow = keep * slow + (1 - keep) * fast


@torch.no_grad()
def shares_swapped(average, parameters, step, most=0.999):
    keep = min((1 + step) / (10 + step), most)
    for slow, fast in zip(average, parameters):
        slow.mul_(1 - keep).add_(keep * fast)


@torch.no_grad()
def weights_follow(average, parameters, step, most=0.999):
    by_copy(parameters, average, step, most)


@torch.no_grad()
def always_long(average, parameters, step, most=0.999):
    for slow, fast in zip(average, parameters):
        slow.add_((1 - most) * (fast - slow))


@torch.no_grad()
def no_end(average, parameters, step, most=0.999):
    by_copy(average, parameters, step, 1.0)


@torch.no_grad()
def larger(average, parameters, step, most=0.999):
    keep = max((1 + step) / (10 + step), most)
    torch._foreach_lerp_(average, parameters, 1 - keep)


def most_forgotten(average, parameters, step, most=0.999):
    by_copy(average, parameters, step)


@torch.no_grad()
def new_tensors(average, parameters, step, most=0.999):
    """The list has the right numbers, and whoever has its tensors has the old ones."""
    keep = min((1 + step) / (10 + step), most)
    average[:] = [keep * slow + (1 - keep) * fast for slow, fast in zip(average, parameters)]


@torch.no_grad()
def by_slices(average, parameters, step, most=0.999):
    keep = min((1 + step) / (10 + step), most)
    for slow, fast in zip(average, parameters):
        slow[:] = keep * slow + (1 - keep) * fast


def with_a_graph(average, parameters, step, most=0.999):
    keep = min((1 + step) / (10 + step), most)
    for k, fast in enumerate(parameters):
        average[k] = keep * average[k] + (1 - keep) * fast


# --- clip_gradients ---


def by_flattening(parameters, most):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    for grad in grads:
        grad *= min(1.0, most / norm)
    return norm


def with_new_gradients(parameters, most):
    total = 0.0
    for p in parameters:
        if p.grad is not None:
            total += p.grad.pow(2).sum().item()
    total = total**0.5
    if total > most:
        for p in parameters:
            p.grad = p.grad * most / total if p.grad is not None else None
    return total


def each_by_itself(parameters, most):
    whole = by_flattening(parameters, 1e9)
    for p in parameters:
        if p.grad is not None:
            by_flattening([p], most)
    return whole


def by_torch(parameters, most):
    """Right, and nothing is written."""
    return nn.utils.clip_grad_norm_(parameters, most)


def sum_of_norms(parameters, most):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = sum(grad.norm() for grad in grads)
    for grad in grads:
        grad.mul_((most / norm).clamp(max=1))
    return norm


def always(parameters, most):
    norm = by_flattening(parameters, 1e9)
    for p in parameters:
        if p.grad is not None:
            p.grad.mul_(most / norm)
    return norm


def none_forgotten(parameters, most):
    norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
    if norm > most:
        for p in parameters:
            p.grad.mul_(most / norm)
    return norm


def squared(parameters, most):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = sum((grad**2).sum() for grad in grads)
    for grad in grads:
        grad.mul_((most / norm).clamp(max=1))
    return norm


def absolute(parameters, most):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = sum(grad.abs().sum() for grad in grads)
    for grad in grads:
        grad.mul_((most / norm).clamp(max=1))
    return norm


def by_value(parameters, most):
    norm = by_flattening(parameters, 1e9)
    nn.utils.clip_grad_value_(parameters, most)
    return norm


def norm_after(parameters, most):
    by_flattening(parameters, most)
    return by_flattening(parameters, most)


def silent(parameters, most):
    by_flattening(parameters, most)


def only_looking(parameters, most):
    norm = by_flattening(parameters, 1e9)
    for p in parameters:
        if p.grad is not None:
            grad = p.grad
            grad = grad * min(1, most / norm)
    return norm


def weights_clipped(parameters, most):
    norm = by_flattening(parameters, 1e9)
    with torch.no_grad():
        for p in parameters:
            p.mul_(min(1, most / norm))
    return norm


# --- learn ---


def loss_of(model, condition_encoder, draws, scale=1000):
    batch, noise, sigma, keep_identity, keep_expression = draws
    tokens, pooled = condition_encoder(
        batch["identity"], batch["expression"], keep_identity=keep_identity, keep_expression=keep_expression
    )
    s = sigma[:, None, None, None]
    predicted = model((1 - s) * batch["target"] + s * noise, tokens, pooled, scale * sigma)
    return nn.functional.mse_loss(predicted, noise - batch["target"])


def zero_first(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
    optimizer.zero_grad()
    loss = loss_of(model, condition_encoder, draws)
    loss.backward()
    parameters = [p for network in (model, condition_encoder) for p in network.parameters()]
    torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    by_copy(average, parameters, step)
    return loss.item()


def networks_emptied(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
    parameters = list(model.parameters()) + list(condition_encoder.parameters())
    optimizer.param_groups[0]["lr"] = rate
    loss = loss_of(model, condition_encoder, draws)
    loss.backward()
    by_flattening(parameters, clip_norm)
    optimizer.step()
    model.zero_grad()
    condition_encoder.zero_grad()
    by_data(average, parameters, step)
    return float(loss.detach())


def step_with(
    scale=1000,
    clip_first=False,
    zero=True,
    clip="both",
    set_rate=True,
    average_first=False,
    too_early=False,
    late=False,
    averaged=True,
    give=lambda loss: loss.item(),
    change=lambda draws: draws,
):
    def learn(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
        loss = loss_of(model, condition_encoder, change(draws), scale)
        parameters = list(model.parameters()) + list(condition_encoder.parameters())
        clipped = {"both": parameters, "model": list(model.parameters()), "none": [], "each": []}[clip]
        if clip_first:
            nn.utils.clip_grad_norm_(clipped, clip_norm)
        loss.backward()
        if too_early:
            optimizer.zero_grad()
        if not clip_first:
            nn.utils.clip_grad_norm_(clipped, clip_norm)
        if clip == "each":
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            nn.utils.clip_grad_norm_(condition_encoder.parameters(), clip_norm)
        if late:
            optimizer.step()
        if set_rate:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if average_first:
            by_copy(average, parameters, step)
        if not late:
            optimizer.step()
        if zero:
            optimizer.zero_grad()
        if averaged and not average_first:
            by_copy(average, parameters, step)
        return give(loss)

    return learn


def against_the_velocity(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
    """It learns, and well: to walk away from the data."""
    batch, noise, sigma, keep_identity, keep_expression = draws
    parameters = [*model.parameters(), *condition_encoder.parameters()]
    tokens, pooled = condition_encoder(batch["identity"], batch["expression"], keep_identity, keep_expression)
    s = sigma[:, None, None, None]
    output = model((1 - s) * batch["target"] + s * noise, tokens, pooled, 1000 * sigma)
    loss = (output - (batch["target"] - noise)).pow(2).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, clip_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    by_copy(average, parameters, step)
    return loss.item()


def everything_kept(draws):
    batch, noise, sigma, who, what = draws
    return batch, noise, sigma, torch.ones_like(who), torch.ones_like(what)


# --- Checkpoint ---


class InAFile:
    """Written and read as a file is, which copies by itself."""

    def __init__(self, parameters, average, optimizer, step, seconds):
        self.file = io.BytesIO()
        torch.save([[p.detach() for p in parameters], list(average), optimizer.state_dict(), step, seconds], self.file)

    def restore(self, parameters, average, optimizer):
        self.file.seek(0)
        weights, averages, state, step, seconds = torch.load(self.file)
        with torch.no_grad():
            for old, new in zip([*weights, *averages], [*parameters, *average]):
                new.copy_(old)
        optimizer.load_state_dict(state)
        return step, seconds


class Copied:
    def __init__(self, parameters, average, optimizer, step, seconds):
        everything = [list(map(torch.clone, map(torch.detach, parameters))), average, optimizer.state_dict()]
        self.state = copy.deepcopy(everything), step, seconds

    def restore(self, parameters, average, optimizer):
        (weights, averages, state), *numbers = copy.deepcopy(self.state)
        self.load(parameters, weights)
        self.load(average, averages)
        self.load_optimizer(optimizer, state)
        return tuple(numbers)

    def load(self, tensors, kept):
        for tensor, old in zip(tensors, kept):
            tensor.data.copy_(old)

    def load_optimizer(self, optimizer, state):
        optimizer.load_state_dict(state)


class Referring(Copied):
    def __init__(self, parameters, average, optimizer, step, seconds):
        super().__init__(parameters, average, optimizer, step, seconds)
        self.live = [p.detach() for p in parameters], list(average)

    def restore(self, parameters, average, optimizer):
        numbers = super().restore(parameters, average, optimizer)
        self.load(parameters, self.live[0])
        self.load(average, self.live[1])
        return numbers


class MomentsReferred(Copied):
    def __init__(self, parameters, average, optimizer, step, seconds):
        super().__init__(parameters, average, optimizer, step, seconds)
        self.live = optimizer.state_dict()

    def load_optimizer(self, optimizer, state):
        optimizer.load_state_dict(self.live)


class MomentsHandedOver(Copied):
    """It resumes as it should, once: the checkpoint's own moments go on with the training."""

    def restore(self, parameters, average, optimizer):
        (weights, averages, state), *numbers = self.state
        self.load(parameters, weights)
        self.load(average, averages)
        optimizer.load_state_dict(state)
        return tuple(numbers)


class WeightsHandedOver(Copied):
    def restore(self, parameters, average, optimizer):
        (weights, averages, state), *numbers = self.state
        for tensor, old in zip([*parameters, *average], [*weights, *averages]):
            tensor.data = old
        optimizer.load_state_dict(copy.deepcopy(state))
        return tuple(numbers)


class WithoutMoments(Copied):
    """Weights, average and step are right, and the first steps are those of a new optimizer."""

    def load_optimizer(self, optimizer, state):
        pass


class NewWeights(Copied):
    def load(self, tensors, kept):
        tensors = [old.clone() for old in kept]  # noqa: F841


class WithoutAverage(Copied):
    def restore(self, parameters, average, optimizer):
        return super().restore(parameters, [a.clone() for a in average], optimizer)


class AverageAnew(Copied):
    def restore(self, parameters, average, optimizer):
        numbers = super().restore(parameters, average, optimizer)
        self.load(average, parameters)
        return numbers


class AverageReplaced(Copied):
    def restore(self, parameters, average, optimizer):
        numbers = super().restore(parameters, average, optimizer)
        average[:] = [a.clone() for a in average]
        return numbers


class StepForgotten(Copied):
    def restore(self, parameters, average, optimizer):
        return 0, super().restore(parameters, average, optimizer)[1]


class SecondsForgotten(Copied):
    def restore(self, parameters, average, optimizer):
        return super().restore(parameters, average, optimizer)[0], 0.0


class Silent(Copied):
    def restore(self, parameters, average, optimizer):
        super().restore(parameters, average, optimizer)


ANSWERS = {
    "picture_loss": Answers(
        right=[by_diff, by_rolling],
        wrong=[
            (loss_with(terms=(1, 0, 0)), "the edges are missing"),
            (loss_with(terms=(1, 1, 0)), "along a row are there"),
            (loss_with(terms=(1, 0, 1)), "along a column are there"),
            (loss_with(terms=(0, 1, 1)), "pixels themselves"),
            (loss_with(w=without_brightness), "brightness is not used"),
            (loss_with(w=signed_brightness), "from −1 to 1"),
            (loss_with(w=not_normal), "divided by their mean"),
            (loss_with(w=per_picture), "mean over the batch"),
            (loss_with(size=torch.square), "squared"),
            (loss_with(before=True), "left or upper"),
            (no_gradient, "gradients are not"),
            (with_empty_edges, "which has no edge"),
            (loss_with(w=normal_before), "first all factors"),
        ],
    ),
    "noised": Answers(
        right=[by_normal, one_after_another, with_a_sign],
        wrong=[
            (noise_with(lambda z, g: 1.0), "all pictures have the same level"),
            (noise_with(lambda z, g: torch.randn(z.shape, generator=g).abs()), "each number has its own level"),
            (noise_with(lambda z, g: torch.randn(*z.shape[:2], 1, 1, generator=g)), "each channel has its own level"),
            (noise_with(lambda z, g: torch.randn((), generator=g)), "draw a level for each"),
            (from_other_pictures, "noise is 0.12"),
            (noise_with(lambda z, g: torch.rand(len(z), 1, 1, 1, generator=g)), "mean square of the noise"),
            (noise_with(of_each_picture, lambda z: (len(z), 1, *z.shape[2:])), "all channels"),
            (mixed_in, "are scaled"),
            (without_generator, "another result"),
            (in_place, "themselves were changed"),
            (lambda z, noise, generator: z.clone(), "no noise"),
            (lambda z, noise, generator: z + noise * of_each_picture(z, generator), "a constant"),
        ],
    ),
    "linear_floor": Answers(
        right=[by_svd, by_least_squares],
        wrong=[
            (
                floor_with(lambda flat: flat.var(0)),
                "as if they were independent",
            ),  # the formula, without the correlations
            (floor_with(lambda flat: np.linalg.eigvalsh(flat.T @ flat / len(flat))), "not subtracted"),
            (channels_alone, "channels alone"),
            (floor_with(lambda flat: flat.var(0).mean()), "mean of the eigenvalues"),
            (floor_with(spectrum, total=np.sum), "the sum over"),
            (floor_with(spectrum, formula=lambda v, s: v / ((1 - s) * v + s)), "to be squared"),
            (floor_with(spectrum, formula=lambda v, s: v / (s**2 * v + (1 - s) ** 2)), "changed places"),
            (floor_with(lambda flat: np.linalg.svd(flat - flat.mean(0), compute_uv=False)), "singular values"),
        ],
    ),
    "still_missing": Answers(
        right=[by_einsum, picture_by_picture],
        wrong=[
            (error_of_the_decoder, "every error of the decoder"),
            (missing_with(bare=lambda true, d: true), "has the thing already"),
            (missing_with(bare=lambda true, d: true - d), "where nothing is present"),
            (missing_with(limit=lambda s: s), "has no limits"),
            (missing_with(limit=lambda s: s.clamp(min=0)), "one end only"),
            (missing_with(expected=1), "people who do not have it"),
            (missing_with(axes=(0, 1, 2, 3)), "each picture has its own"),
            (missing_with(axes=(2, 3)), "each colour"),
            (missing_with(sign=-1), "*added*"),
            (missing_with(expected=0, sign=-1), "shown already"),
            (divided_by_nothing, "NaN"),
        ],
    ),
    "learning_rate": Answers(
        right=[with_if, by_sine],
        wrong=[
            (starts_at_nothing, "would change nothing"),
            (final_as_a_rate, "not a rate of its own"),
            (to_nothing, "falls to 0"),
            (on_top, "added on top"),
            (half_forgotten, "half is missing"),
            (whole_turn, "back at the peak"),
            (no_climb, "no warm-up"),
            (one_or_the_other, "multiply the two"),
            (cut_off, "cut off at `final`"),
        ],
    ),
    "left_of_the_start": Answers(
        right=[lambda: 0.999**1000, lambda: math.exp(-1)],
        wrong=[
            (lambda: 0.001, "never forgets a value"),
            (lambda: 0.999, "what one step leaves"),
            (lambda: 0.5, "693"),
            (lambda: 0.9, "Derive it on paper"),
            (lambda: "little", "return a number"),
        ],
    ),
    "update_average": Answers(
        right=[by_copy, by_data, by_slices],
        wrong=[
            (new_names, "a new tensor"),
            (new_tensors, "there are new tensors"),
            (shares_swapped, "changed places"),
            (weights_follow, "move the average towards"),
            (always_long, "smaller one of `most`"),
            (no_end, "no upper bound"),
            (larger, "larger of the two"),
            (most_forgotten, "`most` is not used"),
            (with_a_graph, "part of a graph"),
        ],
    ),
    "clip_gradients": Answers(
        right=[by_flattening, with_new_gradients],
        wrong=[
            (by_torch, "you write what it does"),
            (sum_of_norms, "sum of the norms"),
            (each_by_itself, "by its own norm"),
            (always, "made larger"),
            (none_forgotten, "pass it over"),
            (squared, "the square of"),
            (absolute, "sum of all absolute"),
            (by_value, "each number is clipped"),
            (norm_after, "*after* clipping"),
            (silent, "nothing came back"),
            (only_looking, "no gradient has changed"),
            (weights_clipped, "weights themselves"),
        ],
    ),
    "learn": Answers(
        right=[zero_first, networks_emptied, step_with()],
        wrong=[
            (step_with(scale=1, clip_first=True, zero=False), "there are 3 faults"),
            (step_with(clip_first=True, zero=False), "there are 2 faults"),
            (step_with(scale=1), "the network gets sigma"),
            (step_with(clip_first=True), "clipped before there are any"),
            (step_with(zero=False), "of all steps before it"),
            (step_with(clip="model"), "of both networks together"),
            (step_with(set_rate=False), "does not get the rate"),
            (step_with(average_first=True), "lags behind"),
            (step_with(clip="each"), "by its own norm"),
            (step_with(late=True), "one step too late"),
            (step_with(averaged=False), "the average has not changed"),
            (step_with(give=lambda loss: loss), "with its graph"),
            (step_with(too_early=True), "before the step, which then has none"),
            (step_with(change=everything_kept), "no condition is dropped"),
            (against_the_velocity, "wrong sign"),
        ],
    ),
    "recipe_for_expressions": Answers(
        right=[lambda: "face_weight", lambda: " Face_weight "],
        wrong=[
            (lambda: "fast", "least validation loss"),
            (lambda: "muon", "share of right groups, but its action units are off by more"),
            (lambda: "x", "second best"),
            (lambda: "none of them", "return one of"),
        ],
    ),
    "what_to_keep": Answers(
        right=[lambda: "abceh", lambda: "HECBA", lambda: set("abceh"), lambda: "a, b, c, e, h"],
        wrong=[
            (lambda: "abcdefgh", "gradients (d)"),
            (lambda: "aceh", "average (b)"),
            (lambda: "abceg", "random numbers (g)"),
            (lambda: "abce", "seconds (h)"),
            (lambda: "abch", "number of the step (e)"),
            (lambda: "abeh", "moments (c)"),
            (lambda: "abcefh", "last batch (f)"),
            (lambda: "the weights", "as one word"),
            (lambda: "bceh", "nothing is left"),
        ],
    ),
    "Checkpoint": Answers(
        right=[InAFile, Copied],
        wrong=[
            (Referring, "changes with the training"),
            (MomentsReferred, "moments are not copied"),
            (MomentsHandedOver, "`load_state_dict` takes over"),
            (WeightsHandedOver, "the checkpoint's own tensors"),
            (WithoutMoments, "without its moments"),
            (NewWeights, "in result"),
            (WithoutAverage, "average is not restored"),
            (AverageAnew, "begins again with the restored"),
            (AverageReplaced, "new tensors in `average`"),
            (StepForgotten, "step 0"),
            (SecondsForgotten, "seconds are lost"),
            (Silent, "returns two numbers"),
        ],
    ),
}
