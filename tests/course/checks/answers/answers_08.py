"""Answers to the exercises of notebook 08, as students write them."""

import math

import numpy as np
import torch
from torch import nn

from tests.course.checks.answers import Answers

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
            nn.utils.clip_grad_norm_([p], most)
    return whole


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
    scale=1000, clip_first=False, zero=True, clip="both", set_rate=True, average_first=False, too_early=False
):
    def learn(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
        loss = loss_of(model, condition_encoder, draws, scale)
        parameters = list(model.parameters()) + list(condition_encoder.parameters())
        clipped = parameters if clip == "both" else list(model.parameters())
        if clip_first:
            nn.utils.clip_grad_norm_(clipped, clip_norm)
        loss.backward()
        if too_early:
            optimizer.zero_grad()
        if not clip_first:
            nn.utils.clip_grad_norm_(clipped, clip_norm)
        if set_rate:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if average_first:
            by_copy(average, parameters, step)
        optimizer.step()
        if zero:
            optimizer.zero_grad()
        if not average_first:
            by_copy(average, parameters, step)
        return loss.item()

    return learn


ANSWERS = {
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
        right=[by_copy, by_data],
        wrong=[
            (new_names, "a new tensor"),
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
            (step_with(scale=1, clip_first=True, zero=False), "3 faults are left"),
            (step_with(clip_first=True, zero=False), "2 faults are left"),
            (step_with(scale=1), "one fault is left: the network gets"),
            (step_with(clip_first=True), "one fault is left: the gradients are"),
            (step_with(zero=False), "one fault is left: each step"),
            (step_with(clip="model"), "under 'losses', in result 2"),
            (step_with(set_rate=False), "does not get the rate"),
            (step_with(average_first=True), "under 'averages'"),
            (step_with(too_early=True), "before the step, which then has none"),
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
        right=[lambda: "abceh", lambda: "HECBA", lambda: set("abceh")],
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
}
