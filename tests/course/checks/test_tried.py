"""Wrong answers of students that a check once accepted, or refused without a fitting message."""

import numpy as np
import pytest
import torch

from gen_affect_lib import flow
from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.course.checks import notebook_01 as checks_01
from gen_affect_lib.course.checks import notebook_02 as checks_02
from gen_affect_lib.course.checks import notebook_04 as checks_04
from gen_affect_lib.course.checks import notebook_08 as checks_08
from gen_affect_lib.course.checks import notebook_09 as checks_09
from gen_affect_lib.course.checks import notebook_10 as checks_10


def always_the_same_look(seed):
    """The target always wears the same."""
    first, second = np.random.default_rng(seed).choice(EMOTIONS, 2, replace=False)
    person = Identity.sample(checks_01.FIRST + seed)
    return (
        Avatar(person, Expression.named(first), Appearance.sample(seed)),
        Avatar(person, Expression.named(second), Appearance()),
        second,
    )


def rounded(coordinates, channels):
    angles = checks_02._angles(coordinates, channels)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def stops_early(velocity_fn, noise, sigmas, method="euler", callback=None):
    return flow.sample(velocity_fn, noise, sigmas[:-1], method, callback)


def only_its_euler_walks_back(velocity_fn, noise, sigmas, method="euler", callback=None):
    if method == "heun":
        return flow.sample(velocity_fn, noise, sigmas, method, callback)
    x = noise
    for step, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:])):
        x = x - (sigma_next - sigma) * velocity_fn(x, sigma.expand(len(x)))
        if callback:
            callback(step, sigma_next.item(), x)
    return x


def rate(climb=lambda x: min(1, x), fall=lambda u: (1 + np.cos(np.pi * u)) / 2, top=True):
    return lambda step, used, peak, warmup_steps, final: (
        (peak if top else 1) * climb((step + 1) / warmup_steps) * (final + (1 - final) * fall(used))
    )


@torch.no_grad()
def only_adds(average, parameters, step, most=0.999):
    for slow, fast in zip(average, parameters):
        slow += (1 - min(most, (1 + step) / (10 + step))) * fast


def to_the_norm_one(parameters, most):
    norm = torch.sqrt(sum(p.grad.square().sum() for p in parameters if p.grad is not None))
    for p in parameters:
        if p.grad is not None and norm > most:
            p.grad /= norm
    return norm


def early_for_late(face, sigma, above, below, face_above):
    if not above <= sigma <= below:
        return torch.zeros(0, dtype=torch.int64)
    may = ~face if face_above > 0 and sigma > face_above else torch.ones_like(face)
    return may.flatten().nonzero()[:, 0]


def uncentred(read, true):
    return 2 * (read * true).mean() / (read.var() + true.var() + (read.mean() - true.mean()) ** 2)


def inverse_mask(image, condition, anchors, tokens, replace):
    return checks_09._shared(image, condition, anchors, tokens, replace, own="others dropped")


def pictures_too(values, draws, seed):
    rng = np.random.default_rng(seed)
    values = values[:, None] if values.ndim == 1 else values
    N, M = values.shape
    means = [values[rng.integers(0, N, N)[:, None], rng.integers(0, M, (N, M))].mean() for _ in range(draws)]
    return tuple(np.percentile(means, (2.5, 97.5)))


def one_generator_a_draw(values, draws, seed):
    return tuple(
        np.percentile(
            [values[np.random.default_rng(seed).integers(0, len(values), len(values))].mean() for _ in range(draws)],
            (2.5, 97.5),
        )
    )


def by_place(who, person, gallery, owner, shown):
    likeness = who @ gallery.T
    likeness[np.arange(len(who)), shown] = -np.inf
    return owner[likeness.argmax(axis=1)] == owner[person]


def without_draws(ours, theirs, draws=2000, seed=0):
    return checks_10.ahead(ours, theirs, 2000, seed)


@pytest.mark.parametrize(
    "check, answer, words",
    [
        (checks_01.check_pair, always_the_same_look, "memorises a few appearances"),
        (checks_01.check_copying_cost, lambda: 0.194, "the bar of the appearance"),
        (checks_02.check_looks_ratio, lambda: 1 / 16, "this is inverted"),
        (checks_02.check_sincos_1d, rounded, "rounded to float32"),
        (checks_04.check_sample, stops_early, "one step too early"),
        (checks_04.check_sample, only_its_euler_walks_back, "the wrong direction"),
        (checks_04.check_sample, checks_04._silent, "never called"),
        (checks_04.check_sample, checks_04._from_one, "count from 0"),
        (checks_04.check_sample, checks_04._late_call, "before the step"),
        (checks_08.check_learning_rate, rate(climb=lambda x: x), "does not stop at 1"),
        (checks_08.check_learning_rate, rate(fall=lambda u: np.cos(np.pi / 2 * u)), "quarter of a cosine"),
        (checks_08.check_learning_rate, rate(fall=lambda u: 1 - u), "straight line"),
        (checks_08.check_learning_rate, rate(top=False), "the peak is missing"),
        (checks_08.check_left_of_the_start, lambda: 0.632, "of all later weights"),
        (checks_08.check_left_of_the_start, lambda: 36.8, "per cent"),
        (checks_08.check_update_average, only_adds, "not shrunk"),
        (checks_08.check_clip_gradients, checks_08._last_norm, "the last one's is returned"),
        (checks_08.check_clip_gradients, to_the_norm_one, "brought to the norm 1"),
        (checks_09.check_shared_tokens, early_for_late, "early and late are interchanged"),
        (checks_10.check_concordance, uncentred, "not centred"),
        (checks_08.check_recipe_for_expressions, lambda: "slim", "neither of the two columns"),
        (checks_09.check_shared_attention, inverse_mask, "the wrong ones are left out"),
        (checks_10.check_interval, pictures_too, "resampled too"),
        (checks_10.check_interval, one_generator_a_draw, "the generator *once*"),
        (checks_10.check_found, by_place, "at that *place*"),
        (checks_10.check_ahead, without_draws, "`draws` is not used"),
    ],
    ids=lambda part: getattr(part, "name", ""),
)
def test_it_is_refused_with_words_that_fit(check, answer, words):
    verdict = check.judge(answer)
    assert verdict.state == "wrong" and words in verdict.message
