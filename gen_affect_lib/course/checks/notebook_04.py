"""The exercises of notebook 04: rectified flow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gen_affect_lib import flow
from gen_affect_lib.course.checks import Exercise, Wrong, check_number, compare

# --- 4.1 interpolate -------------------------------------------------------------------------------------------------


def _test_interpolate(answer) -> None:
    # Two points in the plane, each with its sigma: (2,) multiplies (2, 2) without a word, along the wrong axis.
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
            "this fits pictures (B, C, H, W) and a sigma for each alone. Points of the plane are (B, 2), and sigma may be a number: "
            "`beside` knows all of these."
        )
        return words, mistaken

    compare(
        answer,
        flow.interpolate,
        *cases,
        gradients=True,
        mistakes=[
            (
                "data and noise have changed places: here sigma 0 is the data and sigma 1 the noise.",
                lambda data, noise, sigma: flow.interpolate(noise, data, sigma),
            ),
            (
                "sigma (B,) multiplies along the last axis, so that each *coordinate* has a sigma and not each picture. Put it `beside` the data.",
                lambda data, noise, sigma: (1 - sigma) * data + sigma * noise,
            ),
            pictures_only(lambda sigma: sigma[:, None, None, None]),
            pictures_only(lambda sigma: sigma.reshape(-1, 1, 1, 1)),
            (
                "the data keeps all its strength: it must fade by 1 − sigma as the noise comes.",
                lambda data, noise, sigma: data + flow._beside(sigma, data) * noise,
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
                "nobody has decided yet: at sigma 1 x says nothing about the data, so nobody can know that it is the likelier value.",
            ),
            (-0.6, "the place is right but for its sign: the step goes *against* the velocity."),
            (0.8, "0.8 is the weight of +1. The other 0.2 is not at 0 but at −1."),
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
        "At sigma 1, x is noise alone and tells nothing about the data. What is then the mean of noise − data, given x?",
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
    """A sampler with one thing changed. look(x, trial, sigma, sigma_next): where Heun asks for its second velocity."""
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


def _walked(sampler) -> Callable:
    """What a sampler gives, and what it tells its callback: (end, [(step, sigma, x), ...])."""

    def walked(velocity_fn, noise, sigmas, method):
        told = []
        end = sampler(
            velocity_fn, noise, sigmas, method, callback=lambda step, sigma, x: told.append((step, float(sigma), x))
        )
        return end, told

    walked.__name__ = "sample"
    return walked


def a_field(x: Tensor, sigma: Tensor) -> Tensor:
    """Some velocity, neither straight nor the same for two sigmas."""
    if not isinstance(sigma, Tensor) or sigma.shape != x.shape[:1]:
        what = f"a tensor {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else repr(sigma)
        raise ValueError(
            f"velocity_fn wants a sigma for each of the {len(x)} pictures, ({len(x)},), and was given {what}"
        )
    return (2 * x).sin() + flow._beside(sigma, x) ** 2 * x + 0.5


def _euler(*, sign: int = 1, stops: int | None = None, late: bool = False, even: bool = False, once: bool = False):
    """Euler's walk; each choice is a mistake."""

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
    """The callback hears where a step began."""
    seen = [noise]

    def see(step, _, x):
        callback(step, sigmas[step].item(), seen[-1])
        seen.append(x)

    return flow.sample(velocity_fn, noise, sigmas, method, callback and see)


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
                "this walks the wrong way, from noise to more noise. The velocity points to the noise, and sigma falls: "
                "`sigma_next - sigma` is negative, and is what the velocity is multiplied with.",
                _euler(sign=-1),
            ),
            ("the walk stops one stop too early: N + 1 stops make N steps.", _euler(stops=-1)),
            (
                "the velocity is asked with the sigma at which the step *ends*: give it the one at which it begins.",
                _euler(late=True),
            ),
            ("the loop returns after its first step: `return` belongs behind it.", _euler(once=True)),
            (
                "each step is 1/N wide. With a shift the stops are not evenly spaced: the width is `sigma_next - sigma`.",
                _euler(even=True),
            ),
        ],
    )
    second = {"look": lambda x, trial, sigma, sigma_next: (x, sigma_next)}
    mistakes = [
        (
            "this walks the wrong way, from noise to more noise. The velocity points to the noise, and sigma falls: "
            "`sigma_next - sigma` is negative, and is what the velocity is multiplied with.",
            _sampler(sign=-1),
        ),
        ("Euler is right, and `heun` does the same: its second look is missing.", _sampler(mix=lambda v, w: v)),
        (
            "Heun looks ahead in the last step too. There the look would be at sigma 0, where a network has hardly been trained: "
            "the last step stays Euler's.",
            _sampler(last_too=True),
        ),
        (
            "Heun's second velocity is taken where the step began. It belongs to the point that the trial step reached.",
            _sampler(**second),
        ),
        (
            "Heun asks at the point of the trial, but tells the network the old sigma: there it is `sigma_next`.",
            _sampler(look=lambda x, trial, sigma, sigma_next: (trial, sigma)),
        ),
        (
            "here one velocity is taken half way between the start and the trial. That is another sampler, the midpoint's; Heun asks at "
            "both ends and takes the mean of the two *velocities*.",
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
            "Heun's last addition begins at the trial point, so that it goes two steps in one. The trial is only for looking: begin at x.",
            _sampler(from_trial=True),
        ),
        ("the walk is right, but `callback` is never called.", _silent),
        ("the walk is right, but the first call of `callback` has step 1: count from 0.", _from_one),
        (
            "the walk is right, but `callback` is called before the step: call it after, with the sigma and the x that were reached.",
            _late_call,
        ),
        (
            "the walk is right, but `callback` hears the sigma at which a step began. Tell it the sigma that the step has reached.",
            _sampler(told=lambda sigma, sigma_next: sigma),
        ),
        (
            "the walk works in the noise's own memory (`x += …`), so that each stop changes all earlier ones: write `x = x + …`.",
            _in_place,
        ),
    ]
    compare(
        _walked(answer),
        _walked(flow.sample),
        *cases,
        mistakes=[(words, _walked(mistaken)) for words, mistaken in mistakes],
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
        "One loop over the pairs of neighbours in `sigmas`. Euler is two lines. Heun only replaces the velocity of a step by a better "
        "one, and leaves the line that moves x as it is.",
        "For Heun: `trial = x + (sigma_next - sigma) * v`, ask for the velocity at (trial, sigma_next), and let v be the mean of both. "
        "Not where sigma_next is 0. `sigma.expand(len(x))` gives every picture the sigma.",
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
                "twice as many steps: that would be enough for a half of the error, or less if Euler were better than it is.",
            ),
            (202, "that would do if doubling the steps divided the error by four. Euler is not as good."),
            (6400, "a hundred times as many: that is the law of averages over random draws. Nothing is random here."),
            (74, "ten steps more are not a tenth of the error."),
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
        "Along a curve, a straight step of length h misses by about h². How many such misses add up over the whole walk?",
        "n steps of length 1/n miss n · (1/n)² = 1/n in all.",
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
                "this is Heun, which looks at both ends and takes a mean. Here there is one look, half way, and no mean.",
                lambda velocity_fn, noise, sigmas: flow.sample(velocity_fn, noise, sigmas, "heun"),
            ),
            (
                "the sigma is the one half way, but x is not moved for the look: go half of Euler's step.",
                _midpoint(half=0.0),
            ),
            (
                "the half step goes the wrong way: its width is (sigma_next − sigma) / 2, which is negative.",
                _midpoint(half=-0.5),
            ),
            (
                "this walks the wrong way: `sigma_next - sigma` is negative, and is what a velocity is multiplied with.",
                _midpoint(sign=-1),
            ),
            (
                "this is Euler with a velocity that is never used: the whole step is taken with the one found *half way*.",
                _midpoint(half=0.0, told=0.0),
            ),
            (
                "the look is at the right point, but the network is told the sigma at which the step began: half way it is the mean of both.",
                _midpoint(told=0.0),
            ),
            (
                "the look is at the right point, but the network is told the sigma at the end of the step: half way it is the mean of both.",
                _midpoint(told=1.0),
            ),
            ("the look is where a whole Euler step would end. Go half of it.", _midpoint(half=1.0, told=0.5)),
            (
                "this looks at the end of a whole step: only half an Euler step, and half the way in sigma.",
                _midpoint(half=1.0, told=1.0),
            ),
            (
                "the whole step begins at the point half way, and so ends half a step too far. That point is only for looking: begin at x.",
                _midpoint(from_half=True),
            ),
            (
                "each step goes only half of its way: the half belongs to the look, the step itself is whole.",
                _midpoint(step=0.5),
            ),
            (
                "half of the step is taken with the velocity of its beginning, as if two were averaged (or it goes on by half a step from the point "
                "half way). Begin at x, and take the whole step with the velocity found half way, alone.",
                _midpoint(before=True),
            ),
            (
                "the last step is Euler's here, as it is Heun's. The midpoint sampler needs no such care: half way to 0 is not 0.",
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
        "Two evaluations a step. The first only serves to find out where half way is.",
        "`halfway = (sigma + sigma_next) / 2`; go from x to it with the first velocity, ask there for the second, go back to x, and "
        "take the whole step with the second.",
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
                "with both dials at 1 this goes further than the full condition: `full` has the identity in it already. The expression's own pull "
                "is what `full` has and `identity_only` has not.",
                lambda u, i, f, s_i, s_e: u + s_i * (i - u) + s_e * (f - u),
            ),
            (
                "the two dials have changed places: the first one is the identity's.",
                lambda u, i, f, s_i, s_e: flow.guide(u, i, f, s_e, s_i),
            ),
            (
                "with both dials at 0 the identity is still there: begin at `unconditional`.",
                lambda u, i, f, s_i, s_e: i + s_i * (i - u) + s_e * (f - i),
            ),
            (
                "the corners are right, but the expression's pull is measured from what the first dial has already turned: at equal dials this is not "
                "plain guidance. Each dial has a direction of its own, which does not depend on the other dial.",
                lambda u, i, f, s_i, s_e: flow.guide_one(flow.guide_one(u, i, s_i), f, s_e),
            ),
            (
                "the expression's dial is multiplied with the identity's: they are two dials.",
                lambda u, i, f, s_i, s_e: u + s_i * ((i - u) + s_e * (f - i)),
            ),
            (
                "the differences are the other way round, so that a dial turns its condition *down*: what is wanted minus what is there.",
                lambda u, i, f, s_i, s_e: u + s_i * (u - i) + s_e * (i - f),
            ),
            ("one of the two dials is not used.", lambda u, i, f, s_i, s_e: flow.guide_one(u, f, s_e)),
            ("one of the two dials is not used: the second one.", lambda u, i, f, s_i, s_e: flow.guide_one(u, f, s_i)),
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
        "Walk from no condition to the full one in two legs, over identity alone. Each dial stretches one leg.",
        "Begin at `unconditional`. The first leg is `identity_only - unconditional`; what is the second?",
    ),
)

# --- 4.7 ours_from_theirs --------------------------------------------------------------------------------------------


def ours_from_theirs(their_velocity: Callable) -> Callable:
    return lambda x, sigma: -their_velocity(x, 1 - sigma)


def _test_ours_from_theirs(answer) -> None:
    def applied(function):
        def ours(x, sigma):
            velocity = function(a_field)
            if not callable(velocity):
                raise Wrong(
                    "a function came in and a function must come out: of x and sigma, as `sample` calls it."
                    if velocity is not None
                    else "nothing came back: is there a `return`?"
                )
            return velocity(x, sigma)

        ours.__name__ = "ours_from_theirs"
        return ours

    cases = [(torch.randn(3, 2), torch.tensor([0.1, 0.6, 1.0])), (torch.randn(2, 1, 4, 4), torch.tensor([0.0, 0.3]))]
    compare(
        applied(answer),
        applied(ours_from_theirs),
        *cases,
        mistakes=[
            ("nothing is translated yet.", applied(lambda theirs: theirs)),
            (
                "the sign is turned, but the clock is not: their t is 1 where our sigma is 0.",
                applied(lambda theirs: lambda x, sigma: -theirs(x, sigma)),
            ),
            (
                "the clock is turned, but the sign is not: their velocity points to the data, ours to the noise.",
                applied(lambda theirs: lambda x, sigma: theirs(x, 1 - sigma)),
            ),
            (
                "their network is told t from 0 to 1, and not a timestep up to 1000.",
                applied(lambda theirs: lambda x, sigma: -theirs(x, 1000 * (1 - sigma))),
            ),
            (
                "x itself is turned round. The point is the same in both languages; only the clock and the direction differ.",
                applied(lambda theirs: lambda x, sigma: -theirs(-x, 1 - sigma)),
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
        "Two things differ: what the clock shows at the data, and where the arrow points.",
        "On the same line t = 1 − sigma, so d/dsigma is minus d/dt.",
    ),
)
