"""The exercises of notebook 08: training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from gen_affect_lib import flow
from gen_affect_lib.course.checks import Exercise, Wrong, check_choice, check_number, compare
from gen_affect_lib.course.checks.probes import clipped, three_steps, updated
from gen_affect_lib.evaluation.studies.variants import RECIPES
from gen_affect_lib.training.optim import warm_cosine

# --- 8.1 learning_rate -----------------------------------------------------------------------------------------------


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
    "8.1",
    "learning_rate",
    "Up in a line, down in half a cosine",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="Few settings of a training change its result as much, as section 5 measures.",
    reference=learning_rate,
    test=_test_learning_rate,
    hints=(
        "Two factors between 0 and 1 times the peak. One depends on `step` alone, the other on `used` alone.",
        "The warm-up is `min(1, (step + 1) / warmup_steps)`. The decay is final plus (1 − final) times something "
        "that goes from 1 to 0: half of 1 + cos(π · used).",
    ),
)

# --- 8.2 left_of_the_start -------------------------------------------------------------------------------------------


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
    "8.2",
    "left_of_the_start",
    "How long is a memory?",
    "predict",
    difficulty=2,
    minutes=4,
    points=1,
    purpose="A decay of 0.999 looks like almost 1; what it means is a number of steps.",
    reference=lambda: 0.999**1000,
    test=_test_left_of_the_start,
    hints=(
        "After one step the share of the first weights is 0.999, after two 0.999 of that.",
        "(1 − 1/n) to the power of n is nearly 1/e.",
    ),
)

# --- 8.3 update_average ----------------------------------------------------------------------------------------------


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
    shapes = (3, 4), (5,), ()
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
    "8.3",
    "update_average",
    "The slow copy",
    "implement",
    difficulty=2,
    minutes=8,
    points=2,
    purpose="Nearly every published diffusion model is sampled with its averaged weights.",
    reference=update_average,
    test=_test_update_average,
    hints=(
        "Go through both lists together, and change each averaged tensor in place.",
        "`slow.mul_(decay).add_(fast, alpha=1 - decay)`, or one `lerp_`.",
    ),
)

# --- 8.4 clip_gradients ----------------------------------------------------------------------------------------------


def clip_gradients(parameters: Sequence[Tensor], most: float) -> Tensor:
    return nn.utils.clip_grad_norm_(parameters, most)


def _clipping(
    *,
    each=False,
    always=False,
    none=False,
    square=False,
    power=2,
    value=False,
    to_one=False,
    give=lambda before, after: before,
) -> Callable:
    def clip(parameters, most):
        grads = [p.grad for p in parameters if p.grad is not None]
        if none and len(grads) < len(parameters):
            raise AttributeError("'NoneType' object has no attribute 'square'")
        norm = torch.stack([(grad.abs() ** power).sum() for grad in grads]).sum() ** (1 if square else 1 / power)
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
    "8.4",
    "clip_gradients",
    "A leash for the gradient",
    "implement",
    difficulty=2,
    minutes=10,
    points=2,
    purpose="The one line that keeps an unusual batch from undoing many good steps.",
    reference=clip_gradients,
    test=_test_clip_gradients,
    hints=(
        "First the norm: the root of the sum of the squares of *all* numbers in all gradients. Then one factor for "
        "all of them, or none.",
        "`norm = torch.sqrt(sum(p.grad.square().sum() for p in …))`; if it exceeds `most`, multiply every `p.grad` "
        "in place by most / norm.",
    ),
)

# --- 8.5 learn -------------------------------------------------------------------------------------------------------


def _learn(timed=True, after=True, forgets=True, too_early=False, rated=True) -> Callable:
    """The step. Each of the first three arguments switches on one fault of the notebook's `broken_learn`."""

    def learn(model, condition_encoder, optimizer, average, draws, rate, step, clip_norm=1.0):
        batch, noise, sigma, keep_identity, keep_expression = draws
        tokens, pooled = condition_encoder(
            batch["identity"], batch["expression"], keep_identity=keep_identity, keep_expression=keep_expression
        )
        noisy = flow.interpolate(batch["target"], noise, sigma)
        predicted = model(noisy, tokens, pooled, flow.timestep(sigma) if timed else sigma)
        loss = (predicted - flow.velocity(batch["target"], noise)).square().mean()
        parameters = [*model.parameters(), *condition_encoder.parameters()]
        if not after:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        loss.backward()
        if too_early:
            optimizer.zero_grad(set_to_none=False)
        if after:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        if rated:
            for group in optimizer.param_groups:
                group["lr"] = rate
        optimizer.step()
        if forgets:
            optimizer.zero_grad(set_to_none=True)
        update_average(average, parameters, step)
        return loss.item()

    return learn


learn = _learn()
learn.__name__ = "learn"


FAULTS = {
    "timed": "the network gets sigma, from 0 to 1. It needs the timestep, 1000 · sigma (notebook 04).",
    "after": "the gradients are clipped before there are any: `backward` computes them.",
    "forgets": "each step also has the gradients of all steps before it: `backward` *adds* to what is there. Clear "
    "them after the step.",
}


def _test_learn(answer) -> None:
    mistakes = []
    for many in (3, 2, 1):
        for faults in combinations(FAULTS, many):
            words = ("one fault is left: " if many == 1 else f"{many} faults are left. One of them: ") + FAULTS[
                faults[0]
            ]
            mistakes.append((words, three_steps(_learn(**{fault: False for fault in faults}))))
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
    ]
    compare(
        three_steps(answer),
        three_steps(learn),
        ("a small model and three batches", 1.0),
        ("a small model and three batches", 0.3),
        mistakes=mistakes,
    )


check_learn = Exercise(
    "8.5",
    "learn",
    "A step with three faults",
    "repair",
    difficulty=3,
    minutes=15,
    points=3,
    purpose="None of the three raises an error: such faults are found by reading, or not at all.",
    reference=learn,
    test=_test_learn,
    hints=(
        "For each line, say which values it needs, and whether they exist when it runs. What does `backward` do with "
        "a gradient that is already there? And in which units does the network of notebook 03 take the noise level?",
        "One line is in the wrong place, one is missing, and one has too small a number.",
    ),
)

# --- 8.6 recipe_for_expressions --------------------------------------------------------------------------------------


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
    "8.6",
    "recipe_for_expressions",
    "Which recipe has begun to draw expressions?",
    "read",
    difficulty=2,
    minutes=5,
    points=1,
    purpose="A table with seven columns answers seven questions, and only two of them are yours.",
    reference=lambda: "face_weight",
    test=_test_recipe_for_expressions,
    hints=(
        "Which of the columns are about the expression? In one of them a larger number is better, in the other a "
        "smaller one.",
        "Only one row has `units off` below 0.2. What does it have in `right group`?",
    ),
)

# --- 8.7 what_to_keep ------------------------------------------------------------------------------------------------

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
    "8.7",
    "what_to_keep",
    "What must a checkpoint hold?",
    "predict",
    difficulty=3,
    minutes=5,
    points=2,
    purpose="A checkpoint that lacks something is noticed after the first power cut, and not before.",
    reference=lambda: "abceh",
    test=_test_what_to_keep,
    hints=(
        "For each of the eight: does the next step depend on it, and can it be computed from the others?",
        "Five must be kept. Batches and noise are functions of the number of the step.",
    ),
)
