"""The exercises of notebook 08: training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from gen_affect_lib import flow
from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare
from gen_affect_lib.course.checks.probes import clipped, interrupted, three_steps, updated
from gen_affect_lib.evaluation.studies.variants import RECIPES
from gen_affect_lib.training.codec import picture_loss
from gen_affect_lib.training.optim import warm_cosine

# --- 8.1 picture_loss ------------------------------------------------------------------------------------------------


def _picture_loss(
    error,
    images,
    weight,
    *,
    weber=True,
    brightness=lambda images: images.mean(dim=1, keepdim=True) / 2 + 0.5,
    normal=lambda weight: weight / weight.mean(),
    size=torch.abs,
    pixels=True,
    edges=(True, True),
    before=False,
    unweighted=False,
    over_all=False,
):
    weight = weight / (0.25 + brightness(images)) if weber else weight * torch.ones_like(images[:, :1])
    weight = normal(weight)
    start = slice(None, -1) if before else slice(1, None)
    on_edges = torch.ones_like(weight) if unweighted else weight
    total = (size(error) * weight).mean() if pixels else torch.zeros(())
    smaller = 1 - 1 / error.shape[3] if over_all else 1
    if edges[0]:
        total = total + smaller * (size(error[..., :, 1:] - error[..., :, :-1]) * on_edges[..., :, start]).mean()
    if edges[1]:
        total = total + smaller * (size(error[..., 1:, :] - error[..., :-1, :]) * on_edges[..., start, :]).mean()
    return total


def _test_picture_loss(answer) -> None:
    def case(count: int, side: int):
        return (
            torch.randn(count, 3, side, side),
            torch.rand(count, 3, side, side) * 2 - 1,
            1 + 3 * torch.rand(1, 1, side, side),
        )

    def by(**change) -> Callable:
        return lambda *case: _picture_loss(*case, **change)

    compare(
        answer,
        picture_loss,
        case(2, 6),
        case(1, 9),
        gradients=True,
        mistakes=[
            ("the edges are missing: add the mean errors of both kinds of differences.", by(edges=(False, False))),
            ("only the differences along a row are there: add those along a column.", by(edges=(True, False))),
            ("only the differences along a column are there: add those along a row.", by(edges=(False, True))),
            ("the mean error of the pixels themselves is missing.", by(pixels=False)),
            ("the brightness is not used: an error on dark skin then counts too little.", by(weber=False)),
            (
                "the brightness is that of values from −1 to 1. It goes from 0 to 1: mean / 2 + 0.5.",
                by(brightness=lambda images: images.mean(dim=1, keepdim=True)),
            ),
            (
                "each colour is weighted by itself. The brightness of a pixel is the mean of its three colours.",
                by(brightness=lambda images: images / 2 + 0.5),
            ),
            ("the weights are not divided by their mean.", by(normal=lambda weight: weight)),
            (
                "the weights of each picture are divided by a mean of their own, so that dark pictures count no more "
                "than light ones: take the mean over the batch.",
                by(normal=lambda weight: weight / weight.mean(dim=(1, 2, 3), keepdim=True)),
            ),
            ("the errors are squared: take their absolute value.", by(size=torch.square)),
            ("an edge has the weight of its left or upper pixel: take the right or lower one.", by(before=True)),
            ("the edges have no weight: each has that of its right or lower pixel.", by(unweighted=True)),
            (
                "the first column or row, which has no edge, is counted in the mean of the edges as 0: take the mean "
                "over the S − 1 columns or rows that have one.",
                by(over_all=True),
            ),
            (
                "the weights are divided by their mean before they are divided by the brightness: first all factors, "
                "then the mean.",
                lambda error, images, weight: _picture_loss(
                    error, images, weight / weight.mean(), normal=lambda weight: weight
                ),
            ),
        ],
    )


check_picture_loss = Exercise(
    "8.1",
    "picture_loss",
    "The loss of a reconstruction",
    "implement",
    difficulty=3,
    minutes=20,
    points=4,
    purpose="What a loss does not count, a codec does not keep, and no generator can draw it afterwards.",
    reference=picture_loss,
    test=_test_picture_loss,
    hints=(
        "First the weights: divide by 0.25 + brightness, (B, 1, S, S), then by their mean. Then three means of "
        "absolute values times weights.",
        "Differences along a row are `error[..., :, 1:] - error[..., :, :-1]`, and their weights `weight[..., :, 1:]`.",
    ),
)

# --- 8.2 noised ------------------------------------------------------------------------------------------------------


def noised(latents: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    level = noise * torch.randn(len(latents), 1, 1, 1, generator=generator).abs()
    return latents + level * torch.randn(latents.shape, generator=generator)


def _test_noised(answer) -> None:
    latents = 3 * torch.rand(6000, 2, 4, 4) - 1.5
    for noise, seed in ((0.4, 21), (1.5, 22)):
        given = latents.clone()
        out = answer(given, noise, torch.Generator().manual_seed(seed))
        if not isinstance(out, Tensor) or out.shape != latents.shape:
            came = f"a tensor {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise Wrong(f"latents of the same shape were expected, {tuple(latents.shape)}, and {came} came back.")
        if not torch.equal(given, latents):
            raise Wrong("the latents themselves were changed: return new ones.")
        if not torch.equal(answer(given, noise, torch.Generator().manual_seed(seed)), out):
            raise Wrong("the same generator gives another result: pass `generator=generator` to both calls.")
        added = (out - latents) / noise
        slope = ((out * latents).mean() / latents.square().mean()).item()
        if abs(slope - 1) > 0.1:
            raise Wrong("the latents are scaled. Noise is added to them, and they stay as they are.")
        if added.square().mean() < 1e-6:
            raise Wrong("no noise was added.")
        of_picture = added.square().mean(dim=(1, 2, 3))  # near s² / noise²
        if of_picture.std() < 1e-3 * of_picture.mean():
            raise Wrong("every picture has exactly the same noise: draw it anew for each.")
        if added.mean(dim=(1, 2, 3)).square().mean() > 0.5 * added.square().mean():
            raise Wrong("a constant is added to each picture. Multiply the level by noise of the shape of the latents.")
        if (added[:, 0] * added[:, 1]).mean() > 0.5 * added.square().mean():
            raise Wrong("all channels have the same noise: draw a number for each number of the latents.")
        pairs = (added[:, 0, 0, 0].square() * added[:, 1, 3, 3].square()).mean().item()  # E s⁴ / noise⁴ = 3
        of_channel = (added[..., 0, 0].square() * added[..., 3, 3].square()).mean().item()
        fourth, second = added.pow(4).mean().item(), added.square().mean().item()
        if abs(pairs - second**2) < 0.2 * second**2:
            if of_channel > 2 * second**2:
                raise Wrong("each channel has its own level: draw one level for each *picture*.")
            if fourth > 5 * second**2:
                raise Wrong("each number has its own level: draw one level for each *picture*, (B, 1, 1, 1).")
            raise Wrong("all pictures have the same level of noise: draw a level for each.")
        if abs(second - 1) > 0.12:
            raise Wrong(
                f"the mean square of the noise is {second * noise**2:.2f}, and should be {noise**2:.2f}: the level is "
                "the absolute value of a normal number with the standard deviation `noise`."
            )
        if abs(pairs - 3) > 0.6:
            raise Wrong("the levels have another distribution: take the absolute value of a normal number.")


check_noised = Exercise(
    "8.2",
    "noised",
    "Noise on the latents",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="One line in the training of a codec decides which latents a generator can learn.",
    reference=noised,
    test=_test_noised,
    hints=(
        "Two random tensors: one level for each picture, and a number for each number of the latents. How do they "
        "broadcast?",
        "`noise * torch.randn(len(latents), 1, 1, 1, generator=generator).abs()` is the level.",
    ),
)

# --- 8.3 linear_floor ------------------------------------------------------------------------------------------------


def linear_floor(latents: Tensor, sigma: float) -> float:
    return _floor(latents, sigma)


def _floor(
    latents,
    sigma,
    *,
    spectrum=lambda flat: torch.linalg.eigvalsh(torch.cov(flat.T)).clamp(min=0),
    loss=lambda v, s: v / ((1 - s) ** 2 * v + s**2),
    total=torch.mean,
):
    return total(loss(spectrum(latents.flatten(1)), sigma)).item()


def _test_linear_floor(answer) -> None:
    def case(count: int, channels: int, side: int, sigma: float):
        size = channels * side**2
        mixing = torch.randn(size, size, dtype=torch.float64) * torch.linspace(1.5, 0.1, size, dtype=torch.float64)
        flat = torch.randn(count, size, dtype=torch.float64) @ mixing.T / size**0.5 + 0.7
        return flat.reshape(count, channels, side, side), sigma

    def by(**change) -> Callable:
        return lambda *case: _floor(*case, **change)

    def of_channels(latents, sigma):
        flat = latents.transpose(0, 1).flatten(1)  # (M, C, s, s) -> (C, M s s)
        return _floor(latents, sigma, spectrum=lambda _: torch.linalg.eigvalsh(torch.cov(flat).reshape(len(flat), -1)))

    compare(
        answer,
        linear_floor,
        case(3000, 2, 3, 0.5),
        case(3000, 3, 2, 0.2),
        case(2000, 1, 4, 0.8),
        tolerance=2e-3,
        mistakes=[
            (
                "these are the variances of the single numbers, as if they were independent. Neighbouring latents are "
                "correlated: take the eigenvalues of the covariance.",
                by(spectrum=lambda flat: flat.var(dim=0)),
            ),
            (
                "the mean of the latents is not subtracted: the covariance is that of the differences from the mean.",
                by(spectrum=lambda flat: torch.linalg.eigvalsh(flat.T @ flat / len(flat))),
            ),
            ("the covariance is that of the channels alone: flatten (M, C, s, s) to (M, D), D = C · s².", of_channels),
            (
                "the formula is applied to the mean of the eigenvalues. Apply it to each one, then take the mean.",
                by(spectrum=lambda flat: flat.var(dim=0).mean()),
            ),
            ("this is the sum over the components: the loss is a mean.", by(total=torch.sum)),
            (
                "1 − σ and σ have to be squared in the denominator.",
                by(loss=lambda v, s: v / ((1 - s) * v + s)),
            ),
            ("σ and 1 − σ have changed places.", by(loss=lambda v, s: v / (s**2 * v + (1 - s) ** 2))),
            (
                "these are singular values of the latents: the variance of a component is the square of one, over M.",
                by(spectrum=lambda flat: torch.linalg.svdvals(flat - flat.mean(dim=0))),
            ),
        ],
    )


check_linear_floor = Exercise(
    "8.3",
    "linear_floor",
    "What a linear network would reach",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="It compares the latents of two codecs for a generator before one is trained.",
    reference=linear_floor,
    test=_test_linear_floor,
    hints=(
        "Flatten the latents to (M, D). Which matrix has the variances of the principal components as its eigenvalues?",
        "`torch.linalg.eigvalsh(torch.cov(flat.T))` gives them. Then the formula for each, and the mean.",
    ),
)

# --- 8.4 still_missing -----------------------------------------------------------------------------------------------


def still_missing(decoded: Tensor, true: Tensor, difference: Tensor, present: Tensor) -> Tensor:
    return _missing(decoded, true, difference, present)


def _missing(
    decoded,
    true,
    difference,
    present,
    *,
    start=lambda true, difference, present: true - present * difference,
    limit=lambda s: s.clamp(0, 1),
    axes=(1, 2, 3),
    expected=lambda present: present,
    power=lambda d, axes: d.square().sum(dim=axes, keepdim=True),
    give=lambda fraction, difference: fraction * difference,
):
    present = present[:, None, None, None].to(true)
    inner = ((decoded - start(true, difference, present)) * difference).sum(dim=axes, keepdim=True)
    shown = limit(inner / power(difference, axes).clamp_min(1e-6))
    return give(expected(present) - shown, difference)


def _test_still_missing(answer) -> None:
    def case(*shown: float):
        count, size = len(shown), (3, 5, 5)
        difference = torch.randn(count, *size) * (torch.rand(count, 1, 5, 5) < 0.4)
        present = torch.arange(count) % 2 == 0
        true = torch.rand(count, *size) * 2 - 1
        bare = true - present[:, None, None, None] * difference
        fraction = torch.tensor(shown)[:, None, None, None]
        return bare + fraction * difference + 0.05 * torch.randn(count, *size), true, difference, present

    def by(**change) -> Callable:
        return lambda *case: _missing(*case, **change)

    compare(
        answer,
        still_missing,
        case(0.2, 0.6, 0.9, 0.1),
        case(1.4, -0.4),
        case(0.0, 0.0, 1.0),
        (*(part * torch.tensor([1.0, 0.0])[:, None, None, None] for part in case(0.5, 0.3)[:3]), torch.ones(2).bool()),
        tolerance=1e-4,
        mistakes=[
            (
                "this is the true minus the decoded picture. It contains every error of the decoder, of outlines and "
                "colours too; only the fraction of the thing is asked for.",
                lambda decoded, true, *_: true - decoded,
            ),
            (
                "the fraction is measured from the true picture, which has the thing already. Measure it from the "
                "picture without it, true − present · d.",
                by(start=lambda true, difference, present: true),
            ),
            (
                "the picture without the thing is wrong where nothing is present: there it is the true picture.",
                by(start=lambda true, difference, present: true - difference),
            ),
            ("the fraction has no limits: clamp it to [0, 1].", by(limit=lambda s: s)),
            ("the fraction is clamped at one end only: to [0, 1].", by(limit=lambda s: s.clamp(min=0))),
            (
                "where the thing is not present, 1 − s adds it to people who do not have it: the fraction to add is "
                "present − s.",
                by(expected=lambda present: torch.ones_like(present)),
            ),
            ("the batch has one fraction: each picture has its own.", by(axes=(0, 1, 2, 3))),
            ("each colour has its own fraction: sum over channels and pixels.", by(axes=(2, 3))),
            ("the sign is wrong: present − s is to be *added*.", by(give=lambda fraction, d: -fraction * d)),
            (
                "this is what is shown already, s · d.",
                by(expected=lambda present: 0, give=lambda fraction, d: -fraction * d),
            ),
            (
                "divide by the sum of the squares of d, and not by its norm.",
                by(power=lambda d, axes: d.square().sum(dim=axes, keepdim=True).sqrt()),
            ),
        ],
    )


check_still_missing = Exercise(
    "8.4",
    "still_missing",
    "How much of a freckle is there?",
    "implement",
    difficulty=3,
    minutes=20,
    points=3,
    purpose="A target that contains one thing can be learned by a small network; a target with all errors cannot.",
    reference=still_missing,
    test=_test_still_missing,
    hints=(
        "Least squares with one unknown: the s for which bare + s · d is nearest to the decoded picture.",
        "bare = true − present · d; s = ⟨decoded − bare, d⟩ / ⟨d, d⟩, one number for each picture, clamped to [0, 1]; "
        "then (present − s) · d.",
    ),
)

# --- 8.5 learning_rate -----------------------------------------------------------------------------------------------


def learning_rate(step: int, used: float, peak: float, warmup_steps: int, final: float) -> float:
    return peak * warm_cosine(step, used, warmup_steps, final)


def _rate(
    step,
    used,
    peak,
    warmup_steps,
    final,
    *,
    late=0,
    lowest=None,
    half=0.5,
    angle=math.pi,
    climb=True,
    either=False,
    stop=True,
):
    warm = (step + 1 - late) / warmup_steps if climb else 1.0
    warm = min(1.0, warm) if stop else warm
    lowest = final if lowest is None else lowest
    fall = lowest + (1 - lowest) * half * (1 + math.cos(angle * used))
    if either and warm < 1:
        fall = 1.0
    return peak * warm * fall


def _test_learning_rate(answer) -> None:
    cases = [
        (0, 0.0, 1e-3, 100, 0.01),
        (50, 0.05, 1e-3, 100, 0.01),
        (99, 0.2, 2e-3, 100, 0.1),
        (400, 0.4, 1e-3, 100, 0.1),
        (4, 0.5, 3e-4, 10, 0.05),
        (999, 1.0, 1e-3, 100, 0.2),
    ]

    def changed(**changes) -> Callable:
        return lambda *case: _rate(*case, **changes)

    compare(
        answer,
        learning_rate,
        *cases,
        tolerance=1e-9,
        mistakes=[  # rates are small numbers
            (
                "in step 0 the rate is 0, and the step would change nothing. The warm-up counts `step + 1`.",
                changed(late=1),
            ),
            (
                "`final` is a fraction of the peak and not a rate of its own: at the end the rate is final · peak.",
                lambda s, u, p, w, f: min(1, (s + 1) / w) * (f + (p - f) * 0.5 * (1 + math.cos(math.pi * u))),
            ),
            (
                "the rate falls to 0, and `final` is not used: at the end it is final · peak.",
                changed(lowest=0.0),
            ),
            (
                "`final` is added on top, so that the decay does not start at 1: multiply the cosine by 1 − final.",
                lambda s, u, p, w, f: p * min(1, (s + 1) / w) * (f + 0.5 * (1 + math.cos(math.pi * u))),
            ),
            (
                "a cosine goes from 1 to −1, and (1 + cos) / 2 from 1 to 0. Here the half is missing, and the rate "
                "starts at twice the peak.",
                changed(half=1.0),
            ),
            (
                "this is a quarter of a period: the angle is π · used, half a period.",
                changed(angle=math.pi / 2),
            ),
            (
                "at the end the rate is back at the peak, after a whole period, 2π: the angle is π · used, half a "
                "period.",
                changed(angle=2 * math.pi),
            ),
            ("the warm-up does not stop at 1: it is `min(1, (step + 1) / warmup_steps)`.", changed(stop=False)),
            (
                "this is a quarter of a cosine, not half of one: the angle is π · used, and (1 + cos) / 2 goes from "
                "1 to 0.",
                lambda s, u, p, w, f: p * min(1, (s + 1) / w) * (f + (1 - f) * math.cos(math.pi / 2 * u)),
            ),
            (
                "the cosine falls as if to 0 and is cut off at `final`, so that the last steps have a constant rate: "
                "final + (1 − final) · (1 + cos) / 2 reaches `final` only at the end.",
                lambda s, u, p, w, f: p * min(1, (s + 1) / w) * max(f, (1 + math.cos(math.pi * u)) / 2),
            ),
            (
                "the decay is a straight line: it should be half a cosine.",
                lambda s, u, p, w, f: p * min(1, (s + 1) / w) * (f + (1 - f) * (1 - u)),
            ),
            (
                "the peak is missing: both factors are multiplied by it.",
                lambda s, u, p, w, f: _rate(s, u, 1.0, w, f),
            ),
            (
                "there is no warm-up: in the first `warmup_steps` steps the rate is a growing fraction of the cosine.",
                changed(climb=False),
            ),
            (
                "during the warm-up the cosine is left out. `used` grows from the first step on: multiply the two.",
                changed(either=True),
            ),
        ],
    )


check_learning_rate = Exercise(
    "8.5",
    "learning_rate",
    "Linear warm-up, cosine decay",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Few settings of a training change its result as much; section 5 measures it.",
    reference=learning_rate,
    test=_test_learning_rate,
    hints=(
        "Two factors between 0 and 1 times the peak. One depends on `step` alone, the other on `used` alone.",
        "The warm-up is `min(1, (step + 1) / warmup_steps)`. The decay is final plus (1 − final) times something "
        "that goes from 1 to 0: half of 1 + cos(π · used).",
    ),
)

# --- 8.6 left_of_the_start -------------------------------------------------------------------------------------------


def _test_left_of_the_start(answer) -> None:
    check_number(
        answer,
        0.999**1000,
        within=0.015,
        wrong=[
            (
                0.0,
                "an exponential moving average never forgets a value completely: each step keeps 0.999 of the "
                "average. (0.001 is the share of the *newest* weights.)",
            ),
            (0.999, "that is what one step leaves. After 1,000 steps it is 0.999 to the power of 1,000."),
            (0.5, "a half is left after about 693 steps, not after 1,000."),
            (0.632, "that is the share of all later weights. Which share is left of the first weights?"),
            (36.8, "that is in per cent: a share is between 0 and 1."),
        ],
    )


check_left_of_the_start = Exercise(
    "8.6",
    "left_of_the_start",
    "How long does an average remember?",
    "predict",
    difficulty=2,
    minutes=4,
    points=1,
    purpose="The decay determines how many steps the average covers: with 0.999 about a thousand.",
    reference=lambda: 0.999**1000,
    test=_test_left_of_the_start,
    hints=(
        "After one step the share of the first weights is 0.999, after two 0.999 of that.",
        "(1 − 1/n) to the power of n is nearly 1/e.",
    ),
)

# --- 8.7 update_average ----------------------------------------------------------------------------------------------


@torch.no_grad()
def update_average(average: Sequence[Tensor], parameters: Sequence[Tensor], step: int, most: float = 0.999) -> None:
    decay = min(most, (1 + step) / (10 + step))
    for slow, fast in zip(average, parameters):
        slow.lerp_(fast, 1 - decay)


def _average(decay: Callable, swapped=False) -> Callable:
    def update(average, parameters, step, most=0.999):
        with torch.no_grad():
            for slow, fast in zip(average, parameters):
                slow.lerp_(fast, decay(step, most) if swapped else 1 - decay(step, most))

    return update


def _turned_round(average, parameters, step, most=0.999):
    with torch.no_grad():
        for slow, fast in zip(average, parameters):
            fast.lerp_(slow, 1 - min(most, (1 + step) / (10 + step)))


def _test_update_average(answer) -> None:
    shapes = (3, 4), (5,), (1,)
    cases = [
        ([torch.randn(shape) for shape in shapes], [torch.randn(shape) for shape in shapes], step, *most)
        for step, most in ((0, ()), (30, ()), (20_000, ()), (30, (0.5,)))
    ]

    def memory(step, most):
        return min(most, (1 + step) / (10 + step))

    def not_shrunk(average, parameters, step, most=0.999):
        with torch.no_grad():
            for slow, fast in zip(average, parameters):
                slow.add_(fast, alpha=1 - memory(step, most))

    compare(
        updated(answer),
        updated(update_average),
        *cases,
        mistakes=[
            (
                "the new weights are added, but the average is not shrunk by the decay, so that it grows without "
                "limit.",
                updated(not_shrunk),
            ),
            (
                "the tensors of `average` have not changed. `slow = …` only names a new tensor: work in place "
                "(`copy_`, `mul_`, `add_`, `lerp_`).",
                updated(lambda *_: None),
            ),
            (
                "the shares have changed places: `decay` is the share of the average, 1 − decay that of the weights.",
                updated(_average(memory, swapped=True)),
            ),
            (
                "the weights are moved towards the average: move the average towards the weights.",
                updated(_turned_round),
            ),
            (
                "the decay is `most` from the first step on: take the smaller one of `most` and (1 + step) / (10 + "
                "step).",
                updated(_average(lambda step, most: most)),
            ),
            (
                "the decay has no upper bound: it must not exceed `most`.",
                updated(_average(lambda step, most: (1 + step) / (10 + step))),
            ),
            (
                "the decay is the larger of the two, and should be the smaller one.",
                updated(_average(lambda step, most: max(most, (1 + step) / (10 + step)))),
            ),
            ("`most` is not used: it need not be 0.999.", updated(_average(lambda step, most: memory(step, 0.999)))),
        ],
    )


check_update_average = Exercise(
    "8.7",
    "update_average",
    "The moving average",
    "implement",
    difficulty=2,
    minutes=8,
    points=2,
    purpose="Nearly every published diffusion model is sampled with averaged weights.",
    reference=update_average,
    test=_test_update_average,
    hints=(
        "Go through both lists together, and change each averaged tensor in place.",
        "`slow.mul_(decay).add_(fast, alpha=1 - decay)`, or one `lerp_`.",
    ),
)

# --- 8.8 clip_gradients ----------------------------------------------------------------------------------------------


def clip_gradients(parameters: Sequence[Tensor], most: float) -> Tensor:
    return _clipping()(parameters, most)


def _clipping(
    *,
    each=False,
    always=False,
    none=False,
    square=False,
    power=2,
    value=False,
    to_one=False,
    sum_of_norms=False,
    give=lambda before, after: before,
) -> Callable:
    def clip(parameters, most):
        grads = [p.grad for p in parameters if p.grad is not None]
        if none and len(grads) < len(parameters):
            raise AttributeError("'NoneType' object has no attribute 'square'")
        norm = torch.stack([(grad.abs() ** power).sum() for grad in grads]).sum() ** (1 if square else 1 / power)
        if sum_of_norms:
            norm = torch.stack([grad.norm() for grad in grads]).sum()
        for grad in grads:
            own = grad.norm() if each else norm
            if value:
                grad.clamp_(-most, most)
            elif always or own > most:
                grad.mul_(1 / own if to_one else most / own)
        return give(norm, torch.stack([grad.square().sum() for grad in grads]).sum().sqrt())

    return clip


def _last_norm(parameters, most):
    for p in parameters:
        if p.grad is not None:
            norm = p.grad.norm()
            if norm > most:
                p.grad.mul_(most / norm)
    return norm


def _test_clip_gradients(answer) -> None:
    large, small = (
        [torch.tensor([3.0, 0.5]), torch.tensor([[0.2, 4.0], [0.1, 0.0]])],
        [torch.tensor([0.1, -0.2]), torch.tensor([[0.3, 0.05]])],
    )
    cases = [
        (large, 1.0),
        (small, 1.0),
        ([torch.tensor([0.6, 0.4]), torch.tensor([-0.9, 0.2])], 1.0),
        (large, 2.5),
        ([*large, None], 1.0),
    ]
    compare(
        clipped(answer),
        clipped(clip_gradients),
        *cases,
        tolerance=1e-4,
        mistakes=[
            (
                "each tensor is clipped by its own norm, which changes the direction of the step. There is one norm, "
                "of all gradients together.",
                clipped(_clipping(each=True)),
            ),
            (
                "each tensor is clipped by its own norm, and the last one's is returned. There is one norm, of all "
                "gradients together.",
                clipped(_last_norm),
            ),
            ("the gradients are brought to the norm 1: multiply by `most / norm`.", clipped(_clipping(to_one=True))),
            (
                "this is the sum of the norms of the tensors. Their squares add up: take the root of that sum.",
                clipped(_clipping(sum_of_norms=True)),
            ),
            (
                "small gradients are made larger: if the norm is at most `most`, leave them.",
                clipped(_clipping(always=True)),
            ),
            (
                "this fails at a parameter without a gradient, `p.grad is None`: pass it over.",
                clipped(_clipping(none=True)),
            ),
            ("this is the square of the norm: take the root.", clipped(_clipping(square=True))),
            (
                "this is the sum of all absolute values. A norm is the root of the sum of squares.",
                clipped(_clipping(power=1)),
            ),
            (
                "each number is clipped by itself, which changes the direction of the step: multiply all by one "
                "factor.",
                clipped(_clipping(value=True)),
            ),
            (
                "the gradients are right, but the norm *after* clipping is returned: return the one from before.",
                clipped(_clipping(give=lambda before, after: after)),
            ),
            (
                "the gradients are right, but nothing came back: return the norm from before clipping.",
                clipped(_clipping(give=lambda before, after: None)),
            ),
            (
                "no gradient has changed: work in place, `p.grad.mul_(…)`, or put a new tensor into `p.grad`.",
                clipped(
                    lambda parameters, most: (
                        torch.stack([p.grad.square().sum() for p in parameters if p.grad is not None]).sum().sqrt()
                    )
                ),
            ),
        ],
    )


check_clip_gradients = Exercise(
    "8.8",
    "clip_gradients",
    "Clipping the gradient",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="It keeps one unusual batch from undoing many good steps.",
    reference=clip_gradients,
    test=_test_clip_gradients,
    hints=(
        "First the norm: the root of the sum of the squares of *all* numbers in all gradients. Then one factor for "
        "all of them, or none.",
        "`norm = torch.sqrt(sum(p.grad.square().sum() for p in …))`; if it exceeds `most`, multiply every `p.grad` "
        "in place by most / norm.",
    ),
)

# --- 8.9 learn -------------------------------------------------------------------------------------------------------


def _learn(
    timed=True,
    after=True,
    forgets=True,
    too_early=False,
    rated=True,
    towards=1,
    swapped=False,
    dropped=True,
    clip="both",
    average_first=False,
    averaged=True,
    late=False,
) -> Callable:
    """The step. Each argument can make one mistake."""

    def learn(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
        batch, noise, sigma, keep_identity, keep_expression = draws
        target = batch["target"]
        if not dropped:
            keep_identity, keep_expression = torch.ones_like(keep_identity), torch.ones_like(keep_expression)
        tokens, pooled = condition_encoder(
            batch["identity"], batch["expression"], keep_identity=keep_identity, keep_expression=keep_expression
        )
        noisy = flow.interpolate(noise, target, sigma) if swapped else flow.interpolate(target, noise, sigma)
        predicted = model(noisy, tokens, pooled, flow.timestep(sigma) if timed else sigma)
        loss = (predicted - towards * flow.velocity(target, noise)).square().mean()
        parameters = [*model.parameters(), *condition_encoder.parameters()]
        of_model, of_encoder = list(model.parameters()), list(condition_encoder.parameters())
        of_clipping = {"both": [parameters], "each": [of_model, of_encoder], "model": [of_model], "none": []}[clip]
        if not after:
            for some in of_clipping:
                nn.utils.clip_grad_norm_(some, clip_norm)
        loss.backward()
        if too_early:
            optimizer.zero_grad(set_to_none=False)
        if after:
            for some in of_clipping:
                nn.utils.clip_grad_norm_(some, clip_norm)
        if late:
            optimizer.step()
        if rated:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if average_first:
            update_average(average, parameters, step)
        if not late:
            optimizer.step()
        if forgets:
            optimizer.zero_grad(set_to_none=True)
        if averaged and not average_first:
            update_average(average, parameters, step)
        return loss.item()

    return learn


learn = _learn()
learn.__name__ = "learn"


FAULTS = {
    "timed": "the network gets sigma, from 0 to 1. It needs the timestep, 1000 · sigma (notebook 04).",
    "after": "the gradients are not clipped, or clipped before there are any: `backward` computes them.",
    "forgets": "each step also has the gradients of all steps before it: `backward` *adds* to what is there. Clear "
    "them after the step.",
}


def _test_learn(answer) -> None:
    mistakes = []
    for many in (3, 2, 1):
        for faults in combinations(FAULTS, many):
            words = ("" if many == 1 else f"there are {many} faults. One of them: ") + FAULTS[faults[0]]
            absent: dict[str, Any] = dict.fromkeys(faults, False)
            mistakes.append((words, three_steps(_learn(**absent))))
    mistakes += [
        (
            "the gradients are cleared after `backward` and before the step, which then has none: clear them after "
            "the step, or before `backward`.",
            three_steps(_learn(too_early=True)),
        ),
        (
            'the optimizer does not get the rate of this step: set `group["lr"]` of each of its `param_groups`.',
            three_steps(_learn(rated=False)),
        ),
        ("the velocity has the wrong sign: it is noise − data.", three_steps(_learn(towards=-1))),
        (
            "data and noise have changed places: at sigma 0 the noisy latents are the data.",
            three_steps(_learn(swapped=True)),
        ),
        (
            "no condition is dropped: pass `keep_identity` and `keep_expression` to the condition encoder, or guidance "
            "is impossible.",
            three_steps(_learn(dropped=False)),
        ),
        (
            "only the gradient of the MM-DiT is clipped. It is one gradient, of both networks together.",
            three_steps(_learn(clip="model")),
        ),
        (
            "each network's gradient is clipped by its own norm. It is one gradient, of both networks together.",
            three_steps(_learn(clip="each")),
        ),
        (
            "the rate is set after the optimizer's step, and arrives one step too late.",
            three_steps(_learn(late=True)),
        ),
        ("the average has not changed: update it after the step.", three_steps(_learn(averaged=False))),
        (
            "the average is updated before the step, and lags behind by one: update it with the new weights.",
            three_steps(_learn(average_first=True)),
        ),
    ]
    compare(
        three_steps(answer),
        three_steps(learn),
        ("a small model and three batches", 1.0),
        ("a small model and three batches", 0.3),
        mistakes=mistakes,
    )


check_learn = Exercise(
    "8.9",
    "learn",
    "One training step",
    "implement",
    difficulty=4,
    minutes=25,
    points=5,
    purpose="Most mistakes in a training step raise no error, and only make the model worse.",
    reference=learn,
    test=_test_learn,
    hints=(
        "In this order: condition tokens, noisy latents, prediction, loss; gradients, clipping, learning rate, step; "
        "clear the gradients, update the average.",
        "sigma is (B,): `sigma[:, None, None, None]` broadcasts. The timestep is 1000 · sigma. The parameters are "
        "`[*model.parameters(), *condition_encoder.parameters()]`, and `nn.utils.clip_grad_norm_` comes after "
        "`backward`.",
    ),
)

# --- 8.10 recipe_for_expressions -------------------------------------------------------------------------------------


def _test_recipe_for_expressions(answer) -> None:
    check_choice(
        answer,
        "face_weight",
        wrong={
            **{
                name: f"`{name}` is the best in neither of the two columns."
                for name in RECIPES
                if name != "face_weight"
            },
            "fast": "it has the least validation loss. The loss counts the background as much as the mouth: compare "
            "what the judge reads.",
            "muon": "it is good in the share of right groups, but its action units are off by more than those of "
            "most others.",
            "more_noise": "it is good in the share of right groups, but its action units are as far off as those of "
            "most.",
            "x": "its action units are the second best, but it has no right group.",
            "shipped_size": "it is good in the right groups, but its action units are among the worst.",
            "patch_1": "others have more right groups, and its action units are off by more than most.",
            "wide": "its loss is low. How well does the judge read the expression?",
            "before": "this is where the study began. One recipe is better in both columns about expressions.",
        },
    )


check_recipe_for_expressions = Exercise(
    "8.10",
    "recipe_for_expressions",
    "Which recipe has begun to draw expressions?",
    "read",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A metric ranks models by what it measures, which need not be what the model is for.",
    reference=lambda: "face_weight",
    test=_test_recipe_for_expressions,
    hints=(
        "Which of the columns are about the expression? In one of them a larger number is better, in the other a "
        "smaller one.",
        "Only one row has `units off` below 0.2. What does it have in `right group`?",
    ),
)

# --- 8.11 what_to_keep -----------------------------------------------------------------------------------------------

KEPT = {
    "a": "without the weights (a) nothing is left.",
    "b": "the moving average (b) cannot be computed again: it depends on the weights after every earlier step.",
    "c": "without AdamW's moments (c) the first steps after the interruption are as noisy as those of a new run.",
    "e": "without the number of the step (e) the run would draw its first batches again, and warm up again.",
    "h": "the rate depends on the fraction of the run that is over; in a run limited in minutes, that needs the "
    "seconds (h).",
}
NOT_KEPT = {
    "d": "the gradients (d) of the last step have been used and cleared.",
    "f": "the last batch (f) can be drawn again from the number of the step.",
    "g": "the state of the random numbers (g) need not be kept: each step seeds its own generator with its number.",
}


def _test_what_to_keep(answer) -> None:
    said = answer()
    letters = (
        "".join(said) if isinstance(said, (set, list, tuple)) and all(isinstance(part, str) for part in said) else said
    )
    if isinstance(letters, str):
        letters = letters.replace(",", "").replace(" ", "")
    if not isinstance(letters, str) or not letters or set(letters.lower()) - set("abcdefgh"):
        raise Wrong(
            f'return the letters of all that must be kept as one word, like "abc", of a to h; {said!r} came back.'
        )
    letters = set(letters.lower())
    for letter, words in NOT_KEPT.items():
        if letter in letters:
            raise Wrong(f"too much is kept: {words}")
    for letter, words in KEPT.items():
        if letter not in letters:
            raise Wrong(f"something is missing: {words}")


check_what_to_keep = Exercise(
    "8.11",
    "what_to_keep",
    "What must a checkpoint hold?",
    "predict",
    difficulty=3,
    minutes=5,
    points=2,
    purpose="What a checkpoint lacks is noticed only after the first interruption.",
    reference=lambda: "abceh",
    test=_test_what_to_keep,
    hints=(
        "For each of the eight: does the next step depend on it, and can it be computed from the others?",
        "Five must be kept. Batches and noise are functions of the number of the step.",
    ),
)

# --- 8.12 Checkpoint -------------------------------------------------------------------------------------------------


class Checkpoint:
    """All that the next step depends on, as copies."""

    def __init__(self, parameters, average, optimizer, step, seconds):
        self.parameters, self.average = self.copied(parameters), self.copied(average)
        self.optimizer = copy.deepcopy(optimizer.state_dict())
        self.step, self.seconds = step, seconds

    def copied(self, tensors):
        return [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def restore(self, parameters, average, optimizer):
        for kept, tensors in ((self.parameters, parameters), (self.average, average)):
            for old, tensor in zip(kept, tensors):
                tensor.copy_(old)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer))
        return self.step, self.seconds


class _Followed(Checkpoint):
    def copied(self, tensors):
        return [tensor.detach() for tensor in tensors]


class _OptimizerFollows(Checkpoint):
    def __init__(self, parameters, average, optimizer, step, seconds):
        super().__init__(parameters, average, optimizer, step, seconds)
        self.optimizer = optimizer.state_dict()

    @torch.no_grad()
    def restore(self, parameters, average, optimizer):
        step = super().restore(parameters, average, optimizer)
        optimizer.load_state_dict(self.optimizer)
        return step


class _HandsOver(Checkpoint):
    @torch.no_grad()
    def restore(self, parameters, average, optimizer):
        step = super().restore(parameters, average, optimizer)
        optimizer.load_state_dict(self.optimizer)
        return step


class _HandsOverWeights(Checkpoint):
    def restore(self, parameters, average, optimizer):
        step = super().restore(parameters, average, optimizer)
        for old, tensor in zip([*self.parameters, *self.average], [*parameters, *average]):
            tensor.data = old
        return step


class _NoOptimizer(Checkpoint):
    def restore(self, parameters, average, optimizer):
        fresh = copy.deepcopy(optimizer.state_dict())
        step = super().restore(parameters, average, optimizer)
        optimizer.load_state_dict(fresh)
        return step


class _NoAverage(Checkpoint):
    def restore(self, parameters, average, optimizer):
        return super().restore(parameters, self.copied(average), optimizer)


class _AverageOfWeights(Checkpoint):
    @torch.no_grad()
    def restore(self, parameters, average, optimizer):
        step = super().restore(parameters, average, optimizer)
        for slow, fast in zip(average, parameters):
            slow.copy_(fast)
        return step


class _NoWeights(Checkpoint):
    def restore(self, parameters, average, optimizer):
        return super().restore(self.copied(parameters), average, optimizer)


class _FromTheStart(Checkpoint):
    def restore(self, parameters, average, optimizer):
        return 0, super().restore(parameters, average, optimizer)[1]


class _NoTime(Checkpoint):
    def restore(self, parameters, average, optimizer):
        return super().restore(parameters, average, optimizer)[0], 0.0


def _test_checkpoint(answer) -> None:
    compare(
        interrupted(answer),
        interrupted(Checkpoint),
        (5, 3, 8),
        (6, 1, 5),
        mistakes=[
            (
                "the checkpoint changes with the training that goes on after it: keep copies (`detach().clone()`) of "
                "weights and average.",
                interrupted(_Followed),
            ),
            (
                "the weights are not restored: copy them into the tensors of `parameters`, in place.",
                interrupted(_NoWeights),
            ),
            ("the moving average is not restored.", interrupted(_NoAverage)),
            (
                "the average begins again with the restored weights: it depends on all earlier ones, and must be kept.",
                interrupted(_AverageOfWeights),
            ),
            ("the optimizer begins without its moments: keep `optimizer.state_dict()`.", interrupted(_NoOptimizer)),
            (
                "the moments are not copied: `state_dict()` returns the optimizer's own tensors, which change in the "
                "next step. `copy.deepcopy` it.",
                interrupted(_OptimizerFollows),
            ),
            (
                "the first restored training is right, the second is not: `load_state_dict` takes over the tensors "
                "that it gets, and the training then changes those of the checkpoint. `copy.deepcopy` them in "
                "`restore`, too.",
                interrupted(_HandsOver),
            ),
            (
                "the first restored training is right, the second is not: the training got the checkpoint's own "
                "tensors, and changed them. Copy the numbers: `tensor.copy_(…)`.",
                interrupted(_HandsOverWeights),
            ),
            ("the run begins again with step 0: return the step that was kept.", interrupted(_FromTheStart)),
            ("the seconds are lost: the learning rate follows them in a run limited in minutes.", interrupted(_NoTime)),
        ],
    )


check_Checkpoint = Exercise(
    "8.12",
    "Checkpoint",
    "A run that can be resumed",
    "implement",
    difficulty=4,
    minutes=25,
    points=4,
    purpose="A resumed run that differs a little from an uninterrupted one is hard to notice and impossible to repeat.",
    reference=Checkpoint,
    test=_test_checkpoint,
    hints=(
        "Which tensors change in place in the next step? A checkpoint must not refer to them, and after `restore` the "
        "training must not refer to the checkpoint's.",
        "`copy.deepcopy(optimizer.state_dict())`, and `detach().clone()` for the tensors. In `restore`: "
        "`tensor.copy_(…)` under `torch.no_grad()`, and `optimizer.load_state_dict(copy.deepcopy(…))`.",
    ),
)
