"""The exercises of notebook 04: rectified flow."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gen_affect_lib import flow
from gen_affect_lib.course.checks import Exercise, check_number, compare
from gen_affect_lib.course.checks.probes import a_field, converted, walked

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
    purpose="The one line of mathematics that everything else here is built on, and the shapes that make it a program.",
    reference=flow.interpolate,
    test=_test_interpolate,
    hints=(
        "Bring sigma into a shape that multiplies a picture first; then it is the formula, letter by letter.",
        "`sigma = beside(sigma, data)`, then data times 1 − sigma plus noise times sigma.",
    ),
)

# --- 4.2 one_step_end ------------------------------------------------------------------------------------------------


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
    "4.2",
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

# --- 4.3 sample ------------------------------------------------------------------------------------------------------


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
    def keep(step, sigma, x):
        noise.copy_(x)
        if callback is not None:
            callback(step, sigma, noise)

    flow.sample(velocity_fn, noise.clone(), sigmas, method, keep)
    return noise


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
        (a_field, torch.randn(shape), flow.schedule(steps, shift), method)
        for shape, steps, shift in (((3, 2), 3, 1.0), ((2, 1, 4, 4), 4, 3.0))
        for method in ("euler", "heun")
    ]
    plain = [case[:3] for case in cases if case[3] == "euler"]

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
            "the noise is changed in place (`x += …`), so that each step changes all earlier results: write `x = x + "
            "…`.",
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
    "4.3",
    "sample",
    "The walk",
    "implement",
    difficulty=3,
    minutes=20,
    points=4,
    purpose="Every picture in this course is made by this loop, and diffusers' pipelines walk it too.",
    reference=flow.sample,
    test=_test_sample,
    hints=(
        "One loop over the pairs of neighbours in `sigmas`. Euler's method is two lines. Heun's method replaces the "
        "velocity of a step by a better one; the line that moves x stays the same.",
        "For Heun: `trial = x + (sigma_next - sigma) * v`, evaluate the velocity at (trial, sigma_next), and let v be "
        "the mean of both; skip this where sigma_next is 0. `sigma.expand(len(x))` gives every picture the sigma.",
    ),
)

# --- 4.4 steps_for_a_tenth -------------------------------------------------------------------------------------------


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
    "4.4",
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

# --- 4.5 midpoint ----------------------------------------------------------------------------------------------------


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
    "4.5",
    "midpoint",
    "Look half way",
    "implement",
    difficulty=2,
    minutes=10,
    points=3,
    purpose="Another way to look ahead, at Heun's price, and a reason to measure an order in more than one world.",
    reference=midpoint,
    test=_test_midpoint,
    hints=(
        "Two evaluations per step. The first only serves to find the point half way.",
        "`halfway = (sigma + sigma_next) / 2`; go from x to it with the first velocity, evaluate the second there, go "
        "back to x, and take the whole step with the second.",
    ),
)

# --- 4.6 guide -------------------------------------------------------------------------------------------------------


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
    "4.6",
    "guide",
    "Two dials",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Who it is and what the face does can then be turned up apart; the pipeline of this kit offers both dials.",
    reference=flow.guide,
    test=_test_guide,
    hints=(
        "Go from no condition to the full one in two steps, by way of the identity alone. Each scale multiplies one "
        "step.",
        "Begin at `unconditional`. The first step is `identity_only - unconditional`; what is the second?",
    ),
)

# --- 4.7 ours_from_theirs --------------------------------------------------------------------------------------------


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
    "4.7",
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
