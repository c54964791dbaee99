"""The training loop of all networks of the kit.

`run` takes steps until a limit is reached. `fit` uses it to train a network on one device: the objective returns the
loss of a batch, the recipe holds all other settings. The generator's trainer (trainer.py) calls `run` with its own
step, which also averages the weights and can use several processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from gen_affect_lib.errors import UserError
from gen_affect_lib.recipe import Recipe
from gen_affect_lib.training import optim

Row = dict[str, float]  # of a history: step, seconds, learning_rate, loss, …
# (progress from 0 to 1) -> the mean loss () of a new batch, and figures for the history.
Objective = Callable[[float], tuple[Tensor, Row]]


@dataclass(eq=False)
class State:
    """The state of a training: the steps taken, the seconds used, the history."""

    step: int = 0
    seconds: float = 0.0
    history: list[Row] = field(default_factory=list)


def run(
    state: State,
    recipe: Recipe,
    take_step: Callable[[float, float], Row],
    after_step: Callable[[float, Row], None],
    shared_time: Callable[[float], float] = lambda seconds: seconds,
) -> None:
    """Take steps from `state` on until the recipe's limit is reached.

    Args:
        take_step: (learning rate, progress) -> figures of the step.
        after_step: (progress, the figures with step, seconds and learning rate). The state has been advanced by then.
        shared_time: seconds of this process -> seconds that all processes agree on.
    """
    started = time.perf_counter() - state.seconds
    now = progress(state, recipe, shared_time)
    while now < 1:
        learning_rate = optim.learning_rate(recipe, state.step, now)
        figures = take_step(learning_rate, now)
        state.step += 1
        state.seconds = time.perf_counter() - started
        now = progress(state, recipe, shared_time)
        row = {"step": state.step, "seconds": round(state.seconds, 3), "learning_rate": learning_rate}
        after_step(now, row | figures)


def progress(state: State, recipe: Recipe, shared_time: Callable[[float], float] = lambda seconds: seconds) -> float:
    """The fraction of a training that is done, the larger one of steps and time; 1 or more at its end.

    Raises UserError for a recipe without a limit.
    """
    over = [state.step / recipe.steps] if recipe.steps else []
    over += [shared_time(state.seconds) / (60 * recipe.minutes)] if recipe.minutes else []
    if not over:
        raise UserError("the training has no end: give a number of steps or minutes above 0")
    return max(over)


def fit(
    objective: Objective,
    network: nn.Module,
    recipe: Recipe,
    name: str,
    optimizers: list[Optimizer] | None = None,
    save: Callable[[], None] | None = None,
    save_every: float = 180.0,
) -> list[Row]:
    """Minimise an objective with the recipe's settings; returns the history, one row for each step.

    Args:
        network: its parameters are trained, and the norm of their gradient is clipped.
        name: of the network, for the progress bar and errors.
        optimizers: None takes those of the recipe, see `optim.make_optimizers`.
        save: called every `save_every` seconds, so that an interrupted training is not lost.

    Raises UserError if the loss or its gradient is no longer finite.
    """
    parameters, state, saved = dict(network.named_parameters()), State(), time.perf_counter()
    optimizers = optimizers or optim.make_optimizers(parameters, recipe)

    def take_step(learning_rate: float, progress: float) -> Row:
        loss, figures = objective(progress)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters.values(), recipe.clip_norm)
        value = loss.item()
        if not math.isfinite(value + norm.item()):
            raise not_finite(f"{name}: the loss or its gradient is", state.step, recipe)
        optim.step(optimizers, learning_rate)
        return {"loss": value} | figures

    def after_step(progress: float, row: Row) -> None:
        nonlocal saved
        state.history.append(row)
        loss = np.mean([row["loss"] for row in state.history[-50:]])
        speed = state.step / max(state.seconds, 1e-9)
        advance(bar, progress, f"{name}, step {state.step}, loss {loss:.4f}, {speed:.1f} steps/s")
        if save and time.perf_counter() - saved > save_every:
            save()
            saved = time.perf_counter()

    with progress_bar() as bar:
        run(state, recipe, take_step, after_step)
    return state.history


def progress_bar(initial: float = 0.0) -> tqdm:
    """A progress bar from 0 to 1, with the time left."""
    form = "{percentage:3.0f}%|{bar:20}| {desc} [{elapsed}, {remaining} left]"
    return tqdm(total=1.0, initial=min(initial, 1), bar_format=form, mininterval=0.5, miniters=0, smoothing=0.05)


def advance(bar: tqdm, progress: float, text: str | None = None) -> None:
    if text is not None:
        bar.set_description_str(text, refresh=False)
    bar.update(min(progress, 1) - bar.n)


def not_finite(what: str, step: int, recipe: Recipe, where: str = "train") -> UserError:
    return UserError(
        f"{what} no longer finite at step {step}: {where} with a learning_rate below {recipe.learning_rate}, "
        f"or more than {recipe.warmup_steps} warmup_steps"
    )
