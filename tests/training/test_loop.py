"""The loop that every training shares: limits, schedule, history, errors."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gen_affect_lib.errors import UserError
from gen_affect_lib.recipe import Recipe, TrainingConfig
from gen_affect_lib.training import loop

RECIPE = Recipe(learning_rate=0.1, warmup_steps=2, weight_decay=0.0, steps=10)


@pytest.fixture
def clock(monkeypatch):
    """A clock on which each step of AdamW takes a second."""
    now = [100.0]
    step = torch.optim.AdamW.step

    def one_second(self, *args):
        step(self, *args)
        now[0] += 1

    monkeypatch.setattr(torch.optim.AdamW, "step", one_second)
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    return now


def fitted(recipe, **options):
    """A weight that is pulled towards 3, and the history."""
    network, progresses = nn.Linear(2, 2, bias=False), []
    nn.init.zeros_(network.weight)

    def to_three(progress):
        progresses.append(progress)
        error = (network.weight - 3).square().mean()
        return error, {"error": error.item()}

    history = loop.fit(to_three, network, recipe, "test", **options)
    return network.weight, progresses, history


def test_a_limit_in_steps_is_exact():
    _, progresses, history = fitted(RECIPE)
    assert progresses == [n / 10 for n in range(10)]
    assert [row["step"] for row in history] == list(range(1, 11))


def test_a_limit_in_minutes_is_exact(clock):
    _, progresses, history = fitted(replace(RECIPE, steps=None, minutes=0.1))
    assert progresses == pytest.approx([n / 6 for n in range(6)])
    assert [row["seconds"] for row in history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("steps, minutes, taken", [(4, 0.1, 4), (9, 0.1, 6)])
def test_of_two_limits_the_first_one_reached_ends_the_training(clock, steps, minutes, taken):
    assert len(fitted(replace(RECIPE, steps=steps, minutes=minutes))[2]) == taken


def test_a_training_without_a_limit_is_refused():
    with pytest.raises(UserError, match="has no end: give a number of steps or minutes"):
        fitted(replace(RECIPE, steps=None))


def test_it_minimises_and_the_history_has_one_row_for_each_step():
    weight, _, history = fitted(replace(RECIPE, steps=200))
    assert (weight - 3).abs().max() < 0.1
    assert all(list(row) == ["step", "seconds", "learning_rate", "loss", "error"] for row in history)
    assert all(row["loss"] == row["error"] for row in history) and history[-1]["loss"] < 0.01 * history[0]["loss"]
    assert [row["learning_rate"] for row in history[:2]] == pytest.approx([0.05, 0.1], rel=1e-3)
    assert weight.grad is None


def test_the_gradient_is_clipped():
    recipe = replace(RECIPE, clip_norm=0.5, steps=1)
    network, norms = nn.Linear(1, 1, bias=False), []
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    optimizer.register_step_pre_hook(lambda *_: norms.append(network.weight.grad.norm().item()))
    loop.fit(lambda progress: (100 * network.weight.sum(), {}), network, recipe, "test", [optimizer])
    assert norms == pytest.approx([0.5], rel=1e-4)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training_before_its_step(factor):
    network, steps = nn.Linear(1, 1), []

    def objective(progress):
        steps.append(progress)
        return network.weight.sum() * (factor if len(steps) == 4 else 1.0), {}

    with pytest.raises(UserError) as error:
        loop.fit(objective, network, RECIPE, "detector")
    assert str(error.value) == (
        "detector: the loss or its gradient is no longer finite at step 3: train with a learning_rate below 0.1, "
        "or more than 2 warmup_steps"
    )
    assert network.weight.isfinite().all()


def test_save_is_called_every_few_seconds(clock):
    saved = []
    fitted(RECIPE, save=lambda: saved.append(clock[0] - 100), save_every=2.5)
    assert saved == [3, 6, 9]


def test_the_bar_shows_name_loss_speed_and_time_left(capsys):
    fitted(RECIPE)
    shown = capsys.readouterr().err
    assert "100%" in shown and "test, step 10, loss" in shown and "steps/s" in shown and "left]" in shown


@pytest.mark.parametrize(
    "wrong", [dict(batch_size=0), dict(steps=0), dict(minutes=-1.0), dict(clip_norm=math.nan), dict(optimizer="adam")]
)
def test_a_recipe_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_another_limit_replaces_both():
    recipe = Recipe(steps=5, minutes=2.0)
    assert recipe.limited_to() is recipe
    assert (recipe.limited_to(minutes=1.0).steps, recipe.limited_to(minutes=1.0).minutes) == (None, 1.0)
    assert recipe.limited_to(steps=7).minutes is None


def test_monitoring_and_the_limit_do_not_decide_the_steps():
    other = replace(TrainingConfig(), log_every=3, validation_size=5, steps=9, minutes=1.0)
    assert other.fixed_settings() == TrainingConfig().fixed_settings() != TrainingConfig(seed=1).fixed_settings()
    assert TrainingConfig().fixed_settings()["betas"] == [0.9, 0.95], "as JSON gives it back"
