"""What students tried when they worked through the course, and no check had words for, or let pass."""

import numpy as np
import pytest
import torch

from gen_affect_lib import flow
from gen_affect_lib.avatars import EMOTIONS, Appearance, Avatar, Expression, Identity
from gen_affect_lib.course import checks_01, checks_02, checks_04, checks_08, checks_09, checks_10


def always_the_same_look(seed):
    """The target always wears the same."""
    first, second = np.random.default_rng(seed).choice(EMOTIONS, 2, replace=False)
    person = Identity.sample(checks_01.FIRST + seed)
    return (Avatar(person, Expression.named(first), Appearance.sample(seed)), Avatar(person, Expression.named(second), Appearance()), second)


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


def one_late(image, condition, one, lenders, lent, instead):
    return checks_09._shared(image, condition, one, lenders, lent, instead and one > lenders)


def pictures_too(values, draws, seed):
    rng = np.random.default_rng(seed)
    values = values[:, None] if values.ndim == 1 else values
    N, M = values.shape
    means = [values[rng.integers(0, N, N)[:, None], rng.integers(0, M, (N, M))].mean() for _ in range(draws)]
    return tuple(np.percentile(means, (2.5, 97.5)))


def one_generator_a_draw(values, draws, seed):
    return tuple(np.percentile([values[np.random.default_rng(seed).integers(0, len(values), len(values))].mean() for _ in range(draws)], (2.5, 97.5)))


def by_place(who, person, gallery, owner, shown):
    likeness = who @ gallery.T
    likeness[np.arange(len(who)), shown] = -np.inf
    return owner[likeness.argmax(axis=1)] == owner[person]


def without_draws(ours, theirs, draws=2000, seed=0):
    return checks_10.ahead(ours, theirs, 2000, seed)


@pytest.mark.parametrize("check, answer, words", [
    (checks_01.check_pair, always_the_same_look, "by heart"),
    (checks_01.check_copying_cost, lambda: 0.194, "the bar of the appearance"),
    (checks_02.check_looks_ratio, lambda: 1 / 16, "the other way round"),
    (checks_02.check_sincos_1d, rounded, "rounded to float32"),
    (checks_04.check_sample, stops_early, "one stop too early"),
    (checks_04.check_sample, only_its_euler_walks_back, "the wrong way"),
    (checks_04.check_sample, checks_04._silent, "never called"),
    (checks_04.check_sample, checks_04._from_one, "count from 0"),
    (checks_04.check_sample, checks_04._late_call, "before the step"),
    (checks_08.check_recipe_for_expressions, lambda: "slim", "neither of the two columns"),
    (checks_09.check_shared, one_late, "`one >= lenders`"),
    (checks_10.check_interval, pictures_too, "drawn again too"),
    (checks_10.check_interval, one_generator_a_draw, "the generator *once*"),
    (checks_10.check_found, by_place, "at that *place*"),
    (checks_10.check_ahead, without_draws, "`draws` is not used"),
], ids=lambda part: getattr(part, "name", ""))
def test_it_is_refused_with_words_that_fit(check, answer, words):
    verdict = check.judge(answer)
    assert verdict.state == "wrong" and words in verdict.message
