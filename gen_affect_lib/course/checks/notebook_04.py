"""The exercises of notebook 04: rectified flow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gen_affect_lib import flow
from gen_affect_lib.course.checks import Exercise, check_number, compare
from gen_affect_lib.course.checks.probes import (
    a_field,
    a_field_above_0,
    converted,
    converted_ddpm,
    objective,
    rectified,
    trained,
    walked,
)

# --- 4.1 interpolate -------------------------------------------------------------------------------------------------


def _test_interpolate(answer) -> None:
    # Two points in the plane, each with its sigma: (2,) multiplies (2, 2) without an error, along the wrong axis.
    cases = [
        (*torch.randn(2, 2, 2), torch.tensor([0.2, 0.9])),
        (*torch.randn(2, 4, 3, 5, 6), torch.tensor([0.0, 0.3, 0.7, 1.0])),
        (*torch.randn(2, 3, 7), 0.25),
        (*torch.randn(2, 2, 3, 4, 4), torch.tensor(0.6)),
    ]

    def pictures_only(shaped):
        def mistaken(data, noise, sigma):
            sigma = shaped(sigma)
            return (1 - sigma) * data + sigma * noise

        words = (
            "this fits pictures (B, C, H, W) with one sigma each, and nothing else. Points of the plane are (B, 2), "
            "and sigma may be a number: `beside` handles all of these."
        )
        return words, mistaken

    compare(
        answer,
        flow.interpolate,
        *cases,
        gradients=True,
        mistakes=[
            (
                "data and noise are interchanged: sigma 0 is the data, sigma 1 the noise.",
                lambda data, noise, sigma: flow.interpolate(noise, data, sigma),
            ),
            (
                "sigma (B,) multiplies along the last axis, so that each *coordinate* gets a sigma, instead of each "
                "picture. Put it `beside` the data.",
                lambda data, noise, sigma: (1 - sigma) * data + sigma * noise,
            ),
            pictures_only(lambda sigma: sigma[:, None, None, None]),
            pictures_only(lambda sigma: sigma.reshape(-1, 1, 1, 1)),
            (
                "the data is not scaled: its weight is 1 − sigma.",
                lambda data, noise, sigma: data + flow._broadcast(sigma, data) * noise,
            ),
        ],
    )


check_interpolate = Exercise(
    "4.1",
    "interpolate",
    "The straight line",
    "implement",
    difficulty=1,
    minutes=5,
    points=1,
    purpose="Everything else in this notebook is built on this line.",
    reference=flow.interpolate,
    test=_test_interpolate,
    hints=(
        "Bring sigma into a shape that multiplies a picture first; then it is the formula, letter by letter.",
        "`sigma = beside(sigma, data)`, then data times 1 − sigma plus noise times sigma.",
    ),
)

# --- 4.2 mean_velocity -----------------------------------------------------------------------------------------------


def mean_velocity(x: Tensor, sigma: Tensor, points: Tensor) -> Tensor:
    """E[noise - data | x_sigma = x] if the data are the K `points`, (K, D), each as likely. x: (B, D). sigma: (B,)."""
    return _posterior(x, sigma, points)


def _posterior(
    x: Tensor,
    sigma: Tensor,
    points: Tensor,
    *,
    shrunk: bool = True,
    power: int = 2,
    divisor: float = 2.0,
    naive: bool = False,
    nearest: bool = False,
    blind: bool = False,
    result: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda x, data, s: (x - data) / s,
) -> Tensor:
    s = sigma[:, None]  # (B,) -> (B, 1)
    scale = (1 - s)[:, None] if shrunk else 1.0
    distance = (x[:, None] - scale * points).square().sum(-1)  # (B, 1, D) - (B, K, D) -> (B, K)
    scores = -distance / (divisor * s**power)
    if nearest:
        weights = torch.eye(len(points))[scores.argmax(1)]
    elif blind:
        weights = torch.full_like(scores, 1 / len(points))
    elif naive:
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
    else:
        weights = scores.softmax(1)
    return result(x, weights @ points, s)


def _test_mean_velocity(answer) -> None:
    cases = [
        (torch.randn(6, 2), torch.tensor([0.2, 0.4, 0.6, 0.8, 0.95, 1.0]), torch.randn(4, 2)),
        (torch.randn(3, 1), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([[-1.0], [1.0]])),
        # The densities are 0 in float32, and at sigma 0.2 in float64 too. The values are small, so that rounding a
        # squared distance does not change the weights.
        (0.3 * torch.randn(2, 3000), torch.tensor([0.2, 0.99]), 0.1 * torch.randn(3, 3000)),
    ]

    def mistaken(**change):
        return lambda x, sigma, points: _posterior(x, sigma, points, **change)

    compare(
        answer,
        mean_velocity,
        *cases,
        mistakes=[
            (
                "right for a few coordinates, and 0 / 0 for thousands: there every density is smaller than the "
                "smallest float. Compute the logarithms of the densities, and take their softmax.",
                mistaken(naive=True),
            ),
            (
                "the Gaussians are centred on the points. Given the data, the mean of x_sigma is (1 − sigma) · data.",
                mistaken(shrunk=False),
            ),
            ("the variance of x_sigma given the data is sigma², not sigma.", mistaken(power=1)),
            ("the exponent of a Gaussian is −distance² / (2 sigma²): the 2 is missing.", mistaken(divisor=1.0)),
            (
                "every point has the same weight, whatever x is: that is the mean of all data. Weight each by its "
                "probability given x.",
                mistaken(blind=True),
            ),
            (
                "only the nearest point counts. All points are possible; the velocity is the mean over them.",
                mistaken(nearest=True),
            ),
            (
                "this is the expected data. The velocity is (x − data) / sigma.",
                mistaken(result=lambda x, data, s: data),
            ),
            (
                "the velocity points from the data to the noise: x − data, not data − x.",
                mistaken(result=lambda x, data, s: (data - x) / s),
            ),
            ("the division by sigma is missing.", mistaken(result=lambda x, data, s: x - data)),
        ],
        tolerance=1e-4,
    )


check_mean_velocity = Exercise(
    "4.2",
    "mean_velocity",
    "The mean over all lines through a point",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="Every flow network approximates this function; where the data are known, no network is needed.",
    reference=mean_velocity,
    test=_test_mean_velocity,
    hints=(
        "Bayes: the probability of point k given x is proportional to the density of x under a Gaussian with mean "
        "(1 − sigma) · point and standard deviation sigma. The mean of the points with these weights is the data.",
        "log-weights: −|x − (1 − sigma) · point|² / (2 sigma²), shape (B, K); `softmax(dim=1)`; times `points` it is "
        "the expected data (B, D); the velocity is (x − expected data) / sigma.",
    ),
)

# --- 4.3 one_step_end ------------------------------------------------------------------------------------------------


def _test_one_step_end(answer) -> None:
    check_number(
        answer,
        0.6,
        within=0.02,
        wrong=[
            (0.0, "that is where they would land if both values were as likely. Here four of five are at +1."),
            (
                1.0,
                "at sigma 1, x contains no information about the data, so the network cannot predict which value it "
                "will be.",
            ),
            (-0.6, "the distance from 0 is right, but its sign is wrong: the step goes *against* the velocity."),
            (0.8, "0.8 is the weight of +1. The other value, with the weight 0.2, is −1 and not 0."),
        ],
    )


check_one_step_end = Exercise(
    "4.3",
    "one_step_end",
    "One step from noise",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="Why a picture takes several steps, however good the network is.",
    reference=lambda: 0.6,
    test=_test_one_step_end,
    hints=(
        "At sigma 1, x is pure noise and contains no information about the data. What is the mean of noise − data, "
        "given x?",
        "It is x minus the mean of the data. Subtract that from x.",
    ),
)

# --- 4.4 RectifiedFlow -----------------------------------------------------------------------------------------------


def _objective(error: Callable, velocity: Callable | None = None, *, reduce: Callable | None = None) -> type:
    """A class with one thing changed. error(flow, output, noisy, data, noise, sigma): what is squared."""

    class Changed(flow.RectifiedFlow):
        def loss(self, network, data, noise, sigma):
            noisy = flow.interpolate(data, noise, sigma)
            difference = error(self, network(noisy, sigma), noisy, data, noise, flow._broadcast(sigma, data))
            return (reduce or (lambda square: square.flatten(1).mean(1)))(difference.square())

        def velocity_from(self, output, noisy, sigma):
            return velocity(self, output, noisy, sigma) if velocity else super().velocity_from(output, noisy, sigma)

    return Changed


def _right_error(self, output, noisy, data, noise, s):
    return output - (noise - data) if self.prediction == "v" else (data - output) / s.clamp(min=self.sigma_floor)


def _only_for_v(instead: Callable) -> Callable:
    def error(self, output, noisy, data, noise, s):
        if self.prediction == "v":
            return output - (noise - data)
        return instead(self, output, noisy, data, noise, s)

    return error


def _test_rectified_flow(answer) -> None:
    sigma = torch.tensor([0.01, 0.04, 0.3, 1.0])
    shapes = ((4, 2), (4, 3, 2, 2))
    cases = [
        (prediction, floor, *torch.randn(2, *shape), sigma)
        for shape in shapes
        for prediction, floor in (("v", 0.05), ("x", 0.05), ("x", 0.2))
    ]
    mistakes = [
        (
            "the target of a v-prediction is noise − data, and here it has the other sign.",
            _objective(lambda self, output, noisy, data, noise, s: output - (data - noise)),
        ),
        (
            "v is right. For x the error in the *data* is squared: the loss is on the velocity in both cases, so "
            "divide the error by sigma.",
            _objective(_only_for_v(lambda self, output, noisy, data, noise, s: data - output)),
        ),
        (
            "v is right. For x the weight grows without a limit below `sigma_floor`: clamp the divisor.",
            _objective(_only_for_v(lambda self, output, noisy, data, noise, s: (data - output) / s)),
        ),
        (
            "v is right. For x only the prediction's divisor is clamped: then even a perfect prediction has a loss "
            "above 0 below the floor. Both velocities need the same divisor.",
            _objective(
                _only_for_v(
                    lambda self, output, noisy, data, noise, s: (
                        (noisy - output) / s.clamp(min=self.sigma_floor) - (noise - data)
                    )
                )
            ),
        ),
        (
            "the errors are added up over the coordinates: take their mean, so that pictures of all sizes compare.",
            _objective(_right_error, reduce=lambda square: square.flatten(1).sum(1)),
        ),
        (
            "one number came back for the whole batch. Return one loss for each example, (B,).",
            _objective(_right_error, reduce=lambda square: square.mean()),
        ),
        (
            "the loss is right. `velocity_from` returns the output of an x-prediction as it is: the velocity is "
            "(noisy − output) / sigma.",
            _objective(_right_error, lambda self, output, noisy, sigma: output),
        ),
        (
            "the loss is right. In `velocity_from` sigma is clamped at `sigma_floor`. The floor limits a weight in the "
            "loss; a sampler needs the velocity itself: clamp at 1e-4 only.",
            _objective(
                _right_error,
                lambda self, output, noisy, sigma: (
                    output
                    if self.prediction == "v"
                    else (noisy - output) / torch.as_tensor(flow._broadcast(sigma, noisy)).clamp(min=self.sigma_floor)
                ),
            ),
        ),
    ]
    mistakes += [
        (
            "the loss is right. In `velocity_from` a sigma of 0 divides by 0: clamp sigma at 1e-4.",
            _objective(
                _right_error,
                lambda self, output, noisy, sigma: (
                    output if self.prediction == "v" else (noisy - output) / flow._broadcast(sigma, noisy)
                ),
            ),
        ),
        (
            "the loss is right. In `velocity_from` sigma may also be a number, which has no `clamp`: "
            "`torch.as_tensor(sigma)` makes a tensor of it.",
            _objective(
                _right_error,
                lambda self, output, noisy, sigma: (
                    output
                    if self.prediction == "v"
                    else (noisy - output) / flow._broadcast(sigma.clamp(min=1e-4), noisy)
                ),
            ),
        ),
    ]
    mistakes.append(
        (
            "the loss has the right value and no gradient, so nothing can be learned from it: is something detached?",
            _objective(_right_error, reduce=lambda square: square.detach().flatten(1).mean(1)),
        )
    )
    compare(
        objective(answer),
        objective(flow.RectifiedFlow),
        *cases,
        mistakes=[(words, objective(mistaken)) for words, mistaken in mistakes],
    )


check_RectifiedFlow = Exercise(
    "4.4",
    "RectifiedFlow",
    "The loss",
    "implement",
    difficulty=3,
    minutes=20,
    points=4,
    purpose="The whole objective of Stable Diffusion 3, Flux and this kit; all else in training is bookkeeping.",
    reference=flow.RectifiedFlow,
    test=_test_rectified_flow,
    hints=(
        "Evaluate the network at `interpolate(data, noise, sigma)`. For v compare its output with `velocity(data, "
        "noise)`. For x write both velocities with the same divisor, and see what cancels.",
        "For x: (noisy − output)/d − (noisy − data)/d = (data − output)/d, with d = `beside(sigma, data).clamp(min="
        "self.sigma_floor)`. Square, `flatten(1)`, `mean(1)`.",
    ),
)

# --- 4.5 train -------------------------------------------------------------------------------------------------------


def _training(
    *, order: str = "zlbsd", report=lambda loss: loss.item(), reduce=torch.mean, batch=lambda b: b
) -> Callable:
    """A training loop, as letters in the order in which they happen: zero_grad, loss, backward, step, decay."""

    def train(network, objective, optimizer, decay, batches):
        losses, loss = [], torch.zeros(())
        for data, noise, sigma in batches:
            for letter in order:
                if letter == "z":
                    optimizer.zero_grad()
                elif letter == "l":
                    loss = reduce(objective.loss(network, data, noise, sigma))
                elif letter == "b":
                    loss.backward()
                elif letter == "s":
                    optimizer.step()
                else:
                    decay.step()
            losses.append(loss.item())
        return losses

    return train


train = _training()
train.__name__ = "train"


def _test_train(answer) -> None:
    compare(
        trained(answer),
        trained(train),
        (1, 4),
        (2, 3),
        mistakes=[
            (
                "the gradients of earlier steps are still in `.grad`, and `backward` adds to them: call "
                "`optimizer.zero_grad()` in every step.",
                trained(_training(order="lbsd")),
            ),
            (
                "the network does not change. Is there an `optimizer.step()`, and is `zero_grad` before `backward`?",
                trained(_training(order="zlbd")),
            ),
            ("the learning rate never changes: call `decay.step()` once a step.", trained(_training(order="zlbs"))),
            (
                "the learning rate is changed before the step: `optimizer.step()` first, then `decay.step()`.",
                trained(_training(order="zlbds")),
            ),
            (
                "the optimizer steps before `backward`, with the gradients of the step before.",
                trained(_training(order="lsbzd")),
            ),
            (
                "the losses of a batch are added up: then the step grows with the batch. Take their mean.",
                trained(_training(reduce=torch.sum)),
            ),
        ],
    )


check_train = Exercise(
    "4.5",
    "train",
    "The training loop",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Five lines that every network of this course is trained with.",
    reference=train,
    test=_test_train,
    hints=(
        "For each batch: the loss, its gradients, a step of the optimizer, a step of `decay`. Which call makes the "
        "gradients of the step before disappear, and when?",
        "`loss = objective.loss(network, data, noise, sigma).mean()`, `optimizer.zero_grad()`, `loss.backward()`, "
        "`optimizer.step()`, `decay.step()`, and `loss.item()` into the list.",
    ),
)

# --- 4.6 sample ------------------------------------------------------------------------------------------------------


def _sampler(
    *,
    sign=1,
    look: Callable | None = None,
    last_too=False,
    mix=lambda v, w: (v + w) / 2,
    from_trial=False,
    told=lambda sigma, sigma_next: sigma_next,
    whole=False,
):
    """A sampler with one thing changed. look(x, trial, sigma, sigma_next): where Heun evaluates its second velocity."""
    look = look or (lambda x, trial, sigma, sigma_next: (trial, sigma_next))

    def sampler(velocity_fn, noise, sigmas, method="euler", callback=None):
        x = noise
        for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):

            def velocity(x, sigma):
                return velocity_fn(x, sigma if whole else sigma.expand(len(x)))

            v, width, start = velocity(x, sigma), sign * (sigma_next - sigma), x
            if method == "heun" and (last_too or sigma_next > 0):
                trial = x + width * v
                v, start = mix(v, velocity(*look(x, trial, sigma, sigma_next))), trial if from_trial else x
            x = start + width * v
            if callback is not None:
                callback(step, told(sigma, sigma_next).item(), x)
        return x

    return sampler


def _in_place(velocity_fn, noise, sigmas, method="euler", callback=None):
    return noise.copy_(flow.sample(velocity_fn, noise.clone(), sigmas, method, callback))


def _euler(*, sign: int = 1, stops: int | None = None, late: bool = False, even: bool = False, once: bool = False):
    """Euler's method with options; each is a mistake."""

    def walk(velocity_fn, noise, sigmas):
        x = noise
        for sigma, sigma_next in list(zip(sigmas[:-1], sigmas[1:]))[:stops]:
            width = -1 / (len(sigmas) - 1) if even else sign * (sigma_next - sigma)
            x = x + width * velocity_fn(x, (sigma_next if late else sigma).expand(len(x)))
            if once:
                break
        return x

    return torch.no_grad()(walk)


def _late_call(velocity_fn, noise, sigmas, method="euler", callback=None):
    """The callback gets sigma and x of the start of the step."""
    reached = [noise]

    def report(step, _, x):
        if callback:
            callback(step, sigmas[step].item(), reached[-1])
        reached.append(x)

    return flow.sample(velocity_fn, noise, sigmas, method, report)


def _from_one(velocity_fn, noise, sigmas, method="euler", callback=None):
    return flow.sample(
        velocity_fn, noise, sigmas, method, callback and (lambda step, sigma, x: callback(step + 1, sigma, x))
    )


def _silent(velocity_fn, noise, sigmas, method="euler", callback=None):
    return flow.sample(velocity_fn, noise, sigmas, method)


def _test_sample(answer) -> None:
    cases = [
        (a_field_above_0, torch.randn(shape), flow.schedule(steps, shift), method)
        for shape, steps, shift in (((3, 2), 3, 1.0), ((2, 1, 4, 4), 4, 3.0))
        for method in ("euler", "heun")
    ]
    plain = [(a_field, *case[1:3]) for case in cases if case[3] == "euler"]

    def sample(velocity_fn, noise, sigmas):
        return answer(velocity_fn, noise.clone(), sigmas)

    compare(
        sample,
        flow.sample,
        *plain,
        mistakes=[  # Euler first: what is wrong there is wrong everywhere
            (
                "this steps in the wrong direction, from noise to more noise. The velocity points to the noise, and "
                "sigma falls: multiply the velocity by `sigma_next - sigma`, which is negative.",
                _euler(sign=-1),
            ),
            ("sampling ends one step too early: N + 1 sigmas make N steps.", _euler(stops=-1)),
            (
                "the velocity is evaluated at the sigma at which the step *ends*: pass the sigma at which it begins.",
                _euler(late=True),
            ),
            ("the loop returns after its first step: `return` belongs after the loop.", _euler(once=True)),
            (
                "each step has the width 1/N. With a shift the sigmas are not evenly spaced: the width is `sigma_next "
                "- sigma`.",
                _euler(even=True),
            ),
        ],
    )
    mistakes = [
        (
            "this steps in the wrong direction, from noise to more noise. The velocity points to the noise, and sigma "
            "falls: multiply the velocity by `sigma_next - sigma`, which is negative.",
            _sampler(sign=-1),
        ),
        ("Euler is right, but `heun` does the same: its second evaluation is missing.", _sampler(mix=lambda v, w: v)),
        (
            "Heun evaluates a second velocity in the last step too. That is at sigma 0, where a network is hardly "
            "trained: make the last step an Euler step.",
            _sampler(last_too=True),
        ),
        (
            "Heun's second velocity is evaluated at the point where the step began. Evaluate it at the point that the "
            "trial step reached.",
            _sampler(look=lambda x, trial, sigma, sigma_next: (x, sigma_next)),
        ),
        (
            "Heun evaluates at the trial point, but with the old sigma: the sigma of that point is `sigma_next`.",
            _sampler(look=lambda x, trial, sigma, sigma_next: (trial, sigma)),
        ),
        (
            "here one velocity is evaluated half way between the start and the trial point. That is the midpoint "
            "sampler; Heun evaluates at both ends and takes the mean of the two *velocities*.",
            _sampler(
                look=lambda x, trial, sigma, sigma_next: ((x + trial) / 2, (sigma + sigma_next) / 2), mix=lambda v, w: w
            ),
        ),
        ("Heun uses the second velocity alone: take the mean of both.", _sampler(mix=lambda v, w: w)),
        (
            "the two velocities are added and not averaged: each step goes twice as far.",
            _sampler(mix=lambda v, w: v + w),
        ),
        (
            "Heun's step begins at the trial point, so that it goes two steps in one. The trial point is only for "
            "evaluation: begin at x.",
            _sampler(from_trial=True),
        ),
        ("the steps are right, but `callback` is never called.", _silent),
        ("the steps are right, but the first call of `callback` has step 1: count from 0.", _from_one),
        (
            "the steps are right, but `callback` is called before the step: call it after, with the sigma and the x "
            "that were reached.",
            _late_call,
        ),
        (
            "the steps are right, but `callback` gets the sigma at which a step began. Pass the sigma that the step "
            "has reached.",
            _sampler(told=lambda sigma, sigma_next: sigma),
        ),
        (
            "the noise itself is changed: `x = noise` is a second name for the same tensor, and `x += …` works in "
            "place. Write `x = x + …`, or begin with `noise.clone()`.",
            _in_place,
        ),
    ]
    compare(
        walked(answer),
        walked(flow.sample),
        *cases,
        mistakes=[(words, walked(mistaken)) for words, mistaken in mistakes],
    )
    answer(a_field, torch.randn(2, 2), flow.schedule(2))  # method and callback may be left out


check_sample = Exercise(
    "4.6",
    "sample",
    "The sampler",
    "implement",
    difficulty=3,
    minutes=20,
    points=4,
    purpose="Every picture in this course is made by this loop, and so are those of diffusers.",
    reference=flow.sample,
    test=_test_sample,
    hints=(
        "One loop over the pairs of neighbours in `sigmas`. Euler's method is two lines. Heun's method replaces the "
        "velocity of a step by a better one; the line that moves x stays the same.",
        "For Heun: `trial = x + (sigma_next - sigma) * v`, evaluate the velocity at (trial, sigma_next), and let v be "
        "the mean of both; skip this where sigma_next is 0. `sigma.expand(len(x))` gives every picture the sigma.",
    ),
)

# --- 4.7 steps_for_a_tenth -------------------------------------------------------------------------------------------


def _test_steps_for_a_tenth(answer) -> None:
    check_number(
        answer,
        640,
        within=30,
        wrong=[
            (
                128,
                "twice as many steps: with Euler's method that halves the error.",
            ),
            (
                202,
                "that would be right if twice as many steps divided the error by four. Euler's method is of first "
                "order: they halve it.",
            ),
            (
                6400,
                "a hundred times as many steps: that would be right for an average over random draws, whose error "
                "falls as 1/√n. Nothing is random here.",
            ),
            (74, "ten more steps do not divide the error by ten."),
        ],
    )


check_steps_for_a_tenth = Exercise(
    "4.7",
    "steps_for_a_tenth",
    "What a digit costs",
    "predict",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="The order of a sampler is the price of one more correct digit, in evaluations of a large network.",
    reference=lambda: 640,
    test=_test_steps_for_a_tenth,
    hints=(
        "A straight step of length h along a curve has an error of about h². How many such errors add up over all "
        "steps?",
        "n steps of length 1/n have an error of about n · (1/n)² = 1/n together.",
    ),
)

# --- 4.8 midpoint ----------------------------------------------------------------------------------------------------


def _midpoint(*, sign=1, half=0.5, told=0.5, step=1.0, from_half=False, last_is_euler=False, before=False):
    def walk(velocity_fn, noise, sigmas):
        x = noise
        for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:]):
            width = sign * (sigma_next - sigma)
            v = velocity_fn(x, sigma.expand(len(x)))
            if not (last_is_euler and sigma_next == 0):
                there = x + half * width * v
                w = velocity_fn(there, (sigma + told * (sigma_next - sigma)).expand(len(x)))
                x, v = there if from_half else x, (v + w) / 2 if before else w
            x = x + step * width * v
        return x

    return torch.no_grad()(walk)


midpoint = _midpoint()
midpoint.__name__ = "midpoint"


def _test_midpoint(answer) -> None:
    cases = [
        (a_field, torch.randn(3, 2), flow.schedule(3)),
        (a_field, torch.randn(2, 1, 4, 4), flow.schedule(5, 3.0)),
        (a_field, torch.randn(2, 3), flow.schedule(1)),
    ]
    compare(
        answer,
        midpoint,
        *cases,
        mistakes=[
            (
                "this is Heun, which evaluates at both ends and takes the mean. The midpoint sampler evaluates half "
                "way, without a mean.",
                lambda velocity_fn, noise, sigmas: flow.sample(velocity_fn, noise, sigmas, "heun"),
            ),
            (
                "sigma is half way, but x is not: move it by half of Euler's step.",
                _midpoint(half=0.0),
            ),
            (
                "the half step has the wrong sign: its width is (sigma_next − sigma) / 2, which is negative.",
                _midpoint(half=-0.5),
            ),
            (
                "this steps in the wrong direction: multiply the velocity by `sigma_next - sigma`, which is negative.",
                _midpoint(sign=-1),
            ),
            (
                "this is Euler with a velocity that is never used: take the whole step with the velocity found *half "
                "way*.",
                _midpoint(half=0.0, told=0.0),
            ),
            (
                "the second evaluation is at the right point, but with the sigma at which the step began: half way it "
                "is the mean of both.",
                _midpoint(told=0.0),
            ),
            (
                "the second evaluation is at the right point, but with the sigma at the end of the step: half way it "
                "is the mean of both.",
                _midpoint(told=1.0),
            ),
            (
                "the second evaluation is where a whole Euler step would end: go half an Euler step.",
                _midpoint(half=1.0, told=0.5),
            ),
            (
                "this evaluates at the end of a whole step: go half an Euler step, and half the way in sigma.",
                _midpoint(half=1.0, told=1.0),
            ),
            (
                "the whole step begins at the point half way, and therefore ends half a step too far. That point is "
                "only for evaluation: begin at x.",
                _midpoint(from_half=True),
            ),
            (
                "each step goes only half its way: only the step to the point of the second evaluation is halved.",
                _midpoint(step=0.5),
            ),
            (
                "half of the step is taken with the velocity of its beginning, as if two were averaged (or it goes on "
                "by half a step from the point half way). Begin at x, and take the whole step with the velocity found "
                "half way, alone.",
                _midpoint(before=True),
            ),
            (
                "the last step is Euler's here, as it is Heun's. The midpoint sampler does not need that: half way to "
                "0 is not 0.",
                _midpoint(last_is_euler=True),
            ),
        ],
    )


check_midpoint = Exercise(
    "4.8",
    "midpoint",
    "The midpoint method",
    "implement",
    difficulty=2,
    minutes=10,
    points=3,
    purpose="Another method of second order, and a reason to measure an order on more than one distribution.",
    reference=midpoint,
    test=_test_midpoint,
    hints=(
        "Two evaluations per step. The first only serves to find the point half way.",
        "`halfway = (sigma + sigma_next) / 2`; go from x to it with the first velocity, evaluate the second there, go "
        "back to x, and take the whole step with the second.",
    ),
)

# --- 4.9 rectify -----------------------------------------------------------------------------------------------------


def _rectify(
    *,
    method: str = "heun",
    ends=lambda noise, data, which: (data[which], noise[which]),
    inputs=flow.interpolate,
    target=lambda data, noise, noisy, sigma, velocity_fn: noise - data,
    still: bool = False,
) -> Callable:
    def rectify(network, optimizer, velocity_fn, noise, stops, batches):
        data, losses = flow.sample(velocity_fn, noise, stops, method), []
        for which, sigma in batches:
            one, other = ends(noise, data, which)
            noisy = inputs(one, other, sigma)
            loss = (network(noisy, sigma) - target(one, other, noisy, sigma, velocity_fn)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if not still:
                optimizer.step()
            losses.append(loss.item())
        return losses

    return rectify


rectify = _rectify()
rectify.__name__ = "rectify"


def _test_rectify(answer) -> None:
    compare(
        rectified(answer),
        rectified(rectify),
        (1, 4),
        (2, 3),
        mistakes=[
            (
                "the network learns the velocity of the old flow once more, with all its curves. Its target is the "
                "straight line between the two ends of a path: noise − data of the *pair*.",
                rectified(_rectify(target=lambda data, noise, noisy, sigma, velocity_fn: velocity_fn(noisy, sigma))),
            ),
            (
                "noise and data are not paired: the data that `noise[which]` leads to is `data[which]`. With another "
                "noise this is the training of section 5 again.",
                rectified(_rectify(ends=lambda noise, data, which: (data[which], noise[: len(which)]))),
            ),
            (
                "data and noise are interchanged.",
                rectified(_rectify(ends=lambda noise, data, which: (noise[which], data[which]))),
            ),
            (
                "the ends are found with Euler's method. They are the training data: use Heun.",
                rectified(_rectify(method="euler")),
            ),
            (
                "the network is trained to predict the data; the rest of this notebook reads its output as a velocity.",
                rectified(_rectify(target=lambda data, noise, noisy, sigma, velocity_fn: data)),
            ),
            (
                "the network sees only the noise. It must see the point at sigma on the straight line.",
                rectified(_rectify(inputs=lambda data, noise, sigma: noise)),
            ),
            ("the losses are right at first, but the optimizer never steps.", rectified(_rectify(still=True))),
        ],
    )


check_rectify = Exercise(
    "4.9",
    "rectify",
    "Straighten the flow",
    "implement",
    difficulty=4,
    minutes=25,
    points=5,
    purpose="Reflow turns a flow of many steps into one that needs few, or one; fast image models are made this way.",
    reference=rectify,
    test=_test_rectify,
    hints=(
        "Two stages. First, once: follow the old flow from every noise to its end. Then train as in section 5, but on "
        "these pairs instead of data and noise that have nothing to do with each other.",
        '`data = sample(velocity_fn, noise, stops, "heun")`. For each `(which, sigma)`: the batch is `data[which]`, '
        '`noise[which]`, sigma; its loss is `RectifiedFlow("v").loss(network, …).mean()`; step; `loss.item()`.',
    ),
)

# --- 4.10 data_noise_score -------------------------------------------------------------------------------------------


def data_noise_score(velocity: Tensor, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The expected data, the expected noise and the score that belong to a velocity. velocity, x: (B, ...)."""
    s = flow._broadcast(sigma, x)
    noise = x + (1 - s) * velocity
    return x - s * velocity, noise, -noise / s


def _test_data_noise_score(answer) -> None:
    cases = [
        (*torch.randn(2, 4, 2), torch.tensor([0.1, 0.4, 0.7, 1.0])),
        (*torch.randn(2, 2, 3, 4, 4), torch.tensor([0.25, 0.9])),
    ]

    def mistaken(data=None, noise=None, score=None):
        def answer(v, x, sigma):
            s = flow._broadcast(sigma, x)
            known = data_noise_score(v, x, sigma)
            changed = [function and function(v, x, s) for function in (data, noise, score)]
            return tuple(one if other is None else other for one, other in zip(known, changed))

        return answer

    compare(
        answer,
        data_noise_score,
        *cases,
        gradients=True,
        mistakes=[
            (
                "the data has the wrong sign: x = data + sigma · v, so data = x − sigma · v.",
                mistaken(data=lambda v, x, s: x + s * v),
            ),
            (
                "the noise is wrong: from x it is a way of 1 − sigma, not of sigma, along the velocity.",
                mistaken(noise=lambda v, x, s: x + s * v),
            ),
            (
                "the score has the wrong sign. It points to where data is likelier, and the noise points away from it.",
                mistaken(score=lambda v, x, s: (x + (1 - s) * v) / s),
            ),
            (
                "the score is −noise / sigma: here it is divided by sigma², or not at all.",
                mistaken(score=lambda v, x, s: -(x + (1 - s) * v) / s**2),
            ),
            (
                "the score is −noise / sigma: here it is divided by sigma², or not at all.",
                mistaken(score=lambda v, x, s: -(x + (1 - s) * v)),
            ),
        ],
    )


check_data_noise_score = Exercise(
    "4.10",
    "data_noise_score",
    "One output, four readings",
    "implement",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="Papers speak of velocities, data, noise or scores; with these three lines you read them all.",
    reference=data_noise_score,
    test=_test_data_noise_score,
    hints=(
        "Two equations, x = (1 − sigma) · data + sigma · noise and v = noise − data, are linear in data and noise: "
        "solve them. Then use the formula of the score.",
        "data = x − sigma · v, noise = x + (1 − sigma) · v, score = −noise / sigma, with sigma `beside` x.",
    ),
)

# --- 4.11 ours_from_ddpm ---------------------------------------------------------------------------------------------


def _from_ddpm(*, scaled=True, squared=True, other_end=False, velocity=lambda e, x, s: (e - x) / (1 - s)) -> Callable:
    def ours_from_ddpm(their_epsilon):
        def ours(x, sigma):
            s = torch.as_tensor(flow._broadcast(sigma, x))
            size = ((1 - s) ** 2 + s**2).sqrt()
            kept = (s if other_end else 1 - s) / size
            alpha_bar = (kept**2 if squared else kept).flatten()
            return velocity(their_epsilon(x / size if scaled else x, alpha_bar), x, s)

        return ours

    return ours_from_ddpm


ours_from_ddpm = _from_ddpm()
ours_from_ddpm.__name__ = "ours_from_ddpm"


def _test_ours_from_ddpm(answer) -> None:
    cases = [
        (torch.randn(3, 2), torch.tensor([0.1, 0.6, 0.95])),
        (torch.randn(2, 1, 4, 4), torch.tensor([0.0, 0.3])),
    ]
    compare(
        converted_ddpm(answer),
        converted_ddpm(ours_from_ddpm),
        *cases,
        mistakes=[
            (
                "their network was given x. It expects z, whose weights have the squares' sum 1: divide x by the root "
                "of (1 − sigma)² + sigma².",
                converted_ddpm(_from_ddpm(scaled=False)),
            ),
            (
                "alpha_bar is the *square* of the data's weight in z.",
                converted_ddpm(_from_ddpm(squared=False)),
            ),
            (
                "alpha_bar is 1 at the data and 0 at the noise; here it is the other way round.",
                converted_ddpm(_from_ddpm(other_end=True)),
            ),
            (
                "their noise came back as it is. The velocity is noise − data; the data follows from x and the noise.",
                converted_ddpm(_from_ddpm(velocity=lambda e, x, s: e)),
            ),
            (
                "the velocity has the wrong sign: noise − data.",
                converted_ddpm(_from_ddpm(velocity=lambda e, x, s: (x - e) / (1 - s))),
            ),
            (
                "the velocity is computed from z. The noise is the same in both worlds, but the line is ours: use x.",
                converted_ddpm(_from_ddpm(velocity=lambda e, x, s: (e - x / ((1 - s) ** 2 + s**2).sqrt()) / (1 - s))),
            ),
        ],
        tolerance=1e-4,
    )


check_ours_from_ddpm = Exercise(
    "4.11",
    "ours_from_ddpm",
    "A DDPM as a flow",
    "implement",
    difficulty=5,
    minutes=25,
    points=5,
    purpose="Every sampler of this notebook then runs on a network trained as a DDPM, such as Stable Diffusion 1.",
    reference=ours_from_ddpm,
    test=_test_ours_from_ddpm,
    hints=(
        "Bring our x to their scale, find the alpha_bar of that z, ask for the noise, and solve for the velocity. The "
        "noise is the same in both worlds; only the scale of the picture differs.",
        "With r = √((1 − sigma)² + sigma²): z = x / r, alpha_bar = ((1 − sigma) / r)² in the shape (B,), and "
        "v = (epsilon − x) / (1 − sigma).",
    ),
)

# --- 4.12 guide ------------------------------------------------------------------------------------------------------


def _test_guide(answer) -> None:
    cases = [
        (*torch.randn(3, 4, 2), s_i, s_e) for s_i, s_e in ((1.0, 1.0), (2.5, 0.0), (0.0, 3.0), (1.5, 4.0), (2.0, 2.0))
    ]
    cases.append((*torch.randn(3, 2, 3, 4, 4), 0.5, -1.0))
    compare(
        answer,
        flow.guide,
        *cases,
        mistakes=[
            (
                "with both scales at 1 this goes further than the full condition: `full` contains the identity "
                "already. The direction of the expression is the difference between `full` and `identity_only`.",
                lambda u, i, f, s_i, s_e: u + s_i * (i - u) + s_e * (f - u),
            ),
            (
                "the two scales are interchanged: the first is that of the identity.",
                lambda u, i, f, s_i, s_e: flow.guide(u, i, f, s_e, s_i),
            ),
            (
                "with both scales at 0 the identity is still there: begin at `unconditional`, which has no condition.",
                lambda u, i, f, s_i, s_e: i + s_i * (i - u) + s_e * (f - i),
            ),
            (
                "the corners are right, but the expression's direction depends on the scale of the identity: at equal "
                "scales this is not plain guidance. Each scale has its own direction, which does not depend on the "
                "other scale.",
                lambda u, i, f, s_i, s_e: flow.guide_one(flow.guide_one(u, i, s_i), f, s_e),
            ),
            (
                "the expression's scale is multiplied with the identity's: they are two separate scales.",
                lambda u, i, f, s_i, s_e: u + s_i * ((i - u) + s_e * (f - i)),
            ),
            (
                "the differences have the wrong sign, so that a scale *weakens* its condition: the conditional minus "
                "the unconditional velocity.",
                lambda u, i, f, s_i, s_e: u + s_i * (u - i) + s_e * (i - f),
            ),
            ("one of the two scales is not used.", lambda u, i, f, s_i, s_e: flow.guide_one(u, f, s_e)),
            ("one of the two scales is not used: the second one.", lambda u, i, f, s_i, s_e: flow.guide_one(u, f, s_i)),
        ],
    )
    compare(answer, flow.guide, *cases, gradients=True)


check_guide = Exercise(
    "4.12",
    "guide",
    "Two scales",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Identity and expression then have a guidance scale each; the pipeline of this kit offers both.",
    reference=flow.guide,
    test=_test_guide,
    hints=(
        "Go from no condition to the full one in two steps, by way of the identity alone. Each scale multiplies one "
        "step.",
        "Begin at `unconditional`. The first step is `identity_only - unconditional`; what is the second?",
    ),
)

# --- 4.13 ours_from_theirs -------------------------------------------------------------------------------------------


def ours_from_theirs(their_velocity: Callable) -> Callable:
    return lambda x, sigma: -their_velocity(x, 1 - sigma)


def _test_ours_from_theirs(answer) -> None:
    cases = [(torch.randn(3, 2), torch.tensor([0.1, 0.6, 1.0])), (torch.randn(2, 1, 4, 4), torch.tensor([0.0, 0.3]))]
    compare(
        converted(answer),
        converted(ours_from_theirs),
        *cases,
        mistakes=[
            ("nothing is converted yet.", converted(lambda theirs: theirs)),
            (
                "the sign is converted, but the time is not: their t is 1 where our sigma is 0.",
                converted(lambda theirs: lambda x, sigma: -theirs(x, sigma)),
            ),
            (
                "the time is converted, but the sign is not: their velocity points to the data, ours to the noise.",
                converted(lambda theirs: lambda x, sigma: theirs(x, 1 - sigma)),
            ),
            (
                "their network takes t in [0, 1], not a timestep up to 1000.",
                converted(lambda theirs: lambda x, sigma: -theirs(x, 1000 * (1 - sigma))),
            ),
            (
                "x itself is inverted. The point is the same in both conventions; only time and direction differ.",
                converted(lambda theirs: lambda x, sigma: -theirs(-x, 1 - sigma)),
            ),
        ],
    )


check_ours_from_theirs = Exercise(
    "4.13",
    "ours_from_theirs",
    "A network from elsewhere",
    "repair",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Many flow networks are trained with the other convention, and a wrong sign raises no error.",
    reference=ours_from_theirs,
    test=_test_ours_from_theirs,
    hints=(
        "Two things differ: the value of the time at the data, and the direction of the velocity.",
        "On the same line t = 1 − sigma, so d/dsigma is minus d/dt.",
    ),
)
