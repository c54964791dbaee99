"""Logging, validation and previews of a run: a progress bar, TensorBoard and a history. None of it changes training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from gen_affect_lib.errors import UserError
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training.loop import Row, advance, progress_bar


class Logbook:
    """Writes the figures of a run to TensorBoard, a history and a progress bar.

    Args:
        folder: of the run; TensorBoard's files are written to `logs` in it.
        history: new rows are appended to it.
        step, progress: the steps taken so far, and the fraction of the run that is done.

    Raises UserError if the folder cannot be written.
    """

    def __init__(self, folder: Path, history: list[Row], step: int, progress: float):
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and only training needs it

        self.folder, self.history = folder, history
        with writing_to(folder):
            self.writer = SummaryWriter(folder / "logs", purge_step=step + 1)  # a resumed run repeats some steps
        self.bar = progress_bar(progress)

    def close(self) -> None:
        self.bar.close()
        with going_on("logging"):
            self.writer.close()

    def record(self, step: int, seconds: float, row: Row) -> None:
        """Append a row to the history, and a point to each TensorBoard curve."""
        self.history.append({"step": step, "seconds": seconds, **row})
        if "training/loss" in row:
            loss, speed = row["training/loss"], row["training/images_per_second"]
            self.bar.set_description_str(f"step {step}, loss {loss:.4f}, {speed:.0f} images/s", refresh=False)
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def show(self, step: int, picture: np.ndarray) -> None:
        """Write a picture (H, W, 3) uint8 to TensorBoard."""
        self.writer.add_image("samples", picture, step, dataformats="HWC")


class Monitor:
    """Logging, validation, previews and checkpoints after a step. A context manager, which closes the log at the end.

    Args:
        config: its `…_every` settings are the intervals in steps.
        speed: is paused during validation, previews and checkpoints.
        summarize: learning rate -> figures of the steps since the last call.
        validate: -> figures of held-out data.
        preview: step -> a grid of samples (H, W, 3) uint8, or None.
        save: writes a checkpoint.
    """

    def __init__(
        self,
        log: Logbook,
        config: TrainingConfig,
        speed: Speed,
        summarize: Callable[[float], Row],
        validate: Callable[[], Row],
        preview: Callable[[int], np.ndarray | None],
        save: Callable[[], None],
    ):
        self.log, self.config, self.speed = log, config, speed
        self.summarize, self.validate, self.preview, self.save = summarize, validate, preview, save

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.close()

    def after_step(self, progress: float, row: Row) -> None:
        """What is due after a step. A failure of logging, validation or a preview is a warning: the run goes on.

        Raises UserError if the loss is no longer finite, and if a checkpoint cannot be written.
        """
        step, seconds = int(row["step"]), row["seconds"]

        def due(every: int) -> bool:
            return step % every == 0 or progress >= 1

        if due(self.config.log_every):
            figures = self.summarize(row["learning_rate"])
            with going_on("logging"):
                self.log.record(step, seconds, figures)
        advance(self.log.bar, progress)
        with self.speed.paused():
            if due(self.config.validate_every):
                with going_on("the validation"):
                    self.log.record(step, seconds, self.validate())
            if due(self.config.checkpoint_every):
                self.save()
            if due(self.config.preview_every):
                with going_on("the preview"):
                    picture = self.preview(step)
                    if picture is not None:
                        self.log.show(step, picture)


class Sums:
    """Losses and gradient norms since the last log entry.

    The sums stay on the device, because reading a number makes the CPU wait for the GPU. After one NaN or infinite loss
    the sum is never finite again, so `finite` detects it later.
    """

    def __init__(self, device: torch.device):
        self.loss, self.norm = torch.zeros(2, device=device)
        self.batches = self.steps = 0

    def add_losses(self, total: torch.Tensor, batches: int) -> None:
        self.loss += total
        self.batches += batches

    def add_norm(self, norm: torch.Tensor) -> None:
        self.norm += norm
        self.steps += 1

    def finite(self) -> bool:
        return bool((self.loss + self.norm).isfinite())

    def means(self) -> Row:
        return {
            "training/loss": self.loss.item() / self.batches,
            "training/gradient_norm": self.norm.item() / self.steps,
        }


class Speed:
    """Images per second of training, without the time spent inside `paused`."""

    def __init__(self):
        self.start_over()

    def start_over(self) -> None:
        self.since = time.perf_counter()

    def of(self, images: int) -> float:
        return images / max(time.perf_counter() - self.since, 1e-9)

    @contextmanager
    def paused(self):
        begun = time.perf_counter()
        yield
        self.since += time.perf_counter() - begun


@contextmanager
def going_on(what: str):
    """Turn an error into a warning."""
    try:
        yield
    except Exception as error:  # of any kind: hours of training are worth more than a look at them
        reason = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(f"{what} failed, the training goes on: {reason:.200}", stacklevel=3)


@contextmanager
def writing_to(folder: Path):
    """Raise an error of writing to a folder (full disk, no permission, not a folder) as a UserError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write to {folder} ({reason!s:.200}): existing checkpoints are intact; free some disk "
            "space, or choose another folder"
        ) from error
