"""Joint training of MM-DiT and condition encoder. A killed run can be resumed.

`Trainer.fit` runs the common training loop (loop.py); `Trainer.learn` is one step. generator.py computes the loss,
averaging.py averages the weights, checkpoint.py saves the run, logbook.py logs and validates.

Hugging Face `accelerate` starts several processes, on the GPUs of one machine or of several machines that share a disk:

    accelerate launch --num_processes 4 -m gen_affect_lib train --profile gpu

`batch_size` is the total of all processes, so the steps are the same as with one process, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gen_affect_lib.device import processes
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training import loop, optim
from gen_affect_lib.training.averaging import averaged_weights, update_average
from gen_affect_lib.training.checkpoint import (
    LAST,
    learned,
    load_training_tensors,
    read_last_checkpoint,
    remove_checkpoints,
    require_same,
    training_tensors,
    write_checkpoint,
)
from gen_affect_lib.training.generator import Data, GeneratorObjective, Networks
from gen_affect_lib.training.logbook import Logbook, Monitor, Speed, Sums, writing_to


class Trainer(loop.State):
    """Trains `model` and `condition_encoder` together, on the device that they are on (CPU or CUDA).

    Args:
        config: the training settings.
        model, condition_encoder: an MM-DiT and the fusion that computes its conditioning.
        flow: computes the loss, see `flow.py`.
        data: the batches, see `generator.Data`.
        out_dir: the folder for checkpoints, and for TensorBoard's files in `logs`.
        preview: step -> a grid of samples (H, W, 3) uint8; called with the averaged weights in the networks.
        extra_loss: (predicted latents, target, sigma) -> (B,), added to the training loss but not to the validation
            loss; see `face_loss.py`.
        marks: what else must be equal when a run is resumed, by name, such as the fingerprints of data and codec.
        networks: the class that joins both, see `generator.Networks`.

    Parameters that require no gradient are frozen: they are not trained and not part of a checkpoint.

    With several processes, each has a trainer, and only the main one logs, validates and writes. Raises UserError if
    `batch_size` is not a multiple of their number.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: nn.Module,
        condition_encoder: nn.Module,
        flow: RectifiedFlow,
        data: Data,
        out_dir: str | Path,
        preview: Callable[[int], np.ndarray] | None = None,
        extra_loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        marks: dict[str, str] | None = None,
        networks: type[Networks] = Networks,
    ):
        self.marks = marks or {}
        self.config, self.flow, self.data, self.out_dir, self.preview = config, flow, data, Path(out_dir), preview
        self.processes = processes()
        count = self.processes.num_processes
        if config.batch_size % count:
            raise UserError(
                f"batch_size {config.batch_size} is not divisible by {count} processes: give a multiple of {count}"
            )
        self.networks = networks({"model": model, "condition_encoder": condition_encoder})
        self.parameters = {name: p for name, p in self.networks.named_parameters() if p.requires_grad}
        self.objective = GeneratorObjective(config, self.networks, flow, data, self.processes, extra_loss)
        self.device = self.objective.device
        self.start_over()

    def start_over(self) -> None:
        """Begin a new run with the weights that the networks have now."""
        self.step, self.seconds, self.history = 0, 0.0, []
        self.networks.zero_grad(set_to_none=True)  # an interrupted step may have left gradients
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizers = optim.make_optimizers(self.parameters, self.config)
        self.speed, self.sums = Speed(), Sums(self.device)

    def fit(
        self, max_steps: int | None = None, max_minutes: float | None = None, resume: bool = True
    ) -> list[loop.Row]:
        """Train until a limit is reached; returns the history, one dict for each log entry and each validation.

        Args:
            max_steps, max_minutes: the limits, counted from the start of the run over all resumptions. With both, the
                first one reached ends the run; with neither, the config's limits apply. The learning rate decays with
                the fraction of the limit that is used up.
            resume: continue from the checkpoint in `out_dir` if there is one. If False, remove the checkpoints there
                and start with the current weights of the networks.

        Raises UserError if the loss is no longer finite, if a checkpoint has other settings or shapes, and if the disk
        is full.
        """
        recipe = self.config.limited_to(steps=max_steps, minutes=max_minutes)
        loop.progress(self, recipe)  # raises if there is no limit, before the folder is changed
        with self.processes.main_process_first():  # it may move a damaged checkpoint aside
            with writing_to(self.out_dir):
                self.out_dir.mkdir(parents=True, exist_ok=True)
                if not resume:
                    remove_checkpoints(self.out_dir)
            if not (resume and self.restore()):
                self.start_over()
        if self.step != self._of_main(self.step):
            raise UserError(f"{self.out_dir} is not the folder of the main process: let all machines share a disk")

        with self._monitor(loop.progress(self, recipe, self._of_main)) as monitor:

            def take_step(learning_rate: float, progress: float) -> loop.Row:
                self.learn(learning_rate)
                return {}

            def after_step(progress: float, row: loop.Row) -> None:
                if monitor is not None:
                    monitor.after_step(progress, row)

            loop.run(self, recipe, take_step, after_step, self._of_main)
        return self.history

    def learn(self, learning_rate: float) -> None:
        """One step: the gradient of `accumulation` batches, then updates of the weights and of their moving average."""
        config = self.config
        self.networks.train()
        total = torch.zeros((), device=self.device)
        for part in range(config.accumulation):
            last = part == config.accumulation - 1
            # Processes exchange gradients in the last backward pass only.
            with nullcontext() if last else self.processes.no_sync(self.objective.distributed):
                loss = self.objective.training_loss(*self.objective.draw(self.step, part)).mean()
                (loss / config.accumulation).backward()
            total += loss.detach()
        total = self.processes.reduce(total, "mean")
        assert isinstance(total, Tensor)  # `reduce` also takes nested tensors
        self.sums.add_losses(total, config.accumulation)
        self.sums.add_norm(nn.utils.clip_grad_norm_(self.parameters.values(), config.clip_norm))
        if self.device.type == "cpu":  # on a GPU this would stall every step; there `_summary` checks
            self._require_finite()
        optim.step(self.optimizers, learning_rate)
        update_average(self.average, self.parameters, self.step, config.ema_decay)

    def learning_rate(self, progress: float) -> float:
        """The learning rate of the next step, when the fraction `progress` of the run is done."""
        return optim.learning_rate(self.config, self.step, progress)

    def validate(self) -> loop.Row:
        """The losses of the averaged weights on held-out people, see `GeneratorObjective.validation_losses`."""
        with self.averaged_weights():
            return self.objective.validation_losses()

    def averaged_weights(self) -> AbstractContextManager[nn.Module]:
        """Context in which the networks have the averaged weights and are in eval mode, to sample, validate or save."""
        return averaged_weights(self.networks, self.parameters, self.average)

    # State on disk

    def save(self) -> None:
        """Write a checkpoint. Raises UserError if the weights are not finite, or if the disk is full."""
        norms = [tensor.norm() for tensor in (*self.parameters.values(), *self.average.values())]
        if not torch.stack(norms).isfinite().all():
            raise self._not_finite("the weights are")
        tensors = training_tensors(self.networks, self.parameters, self.average, self.optimizers)
        state = {"step": self.step, "seconds": self.seconds, "history": self.history, "settings": self._settings()}
        write_checkpoint(self.out_dir, tensors, state)

    def restore(self) -> bool:
        """Load the newest complete checkpoint of `out_dir`; False if there is none.

        Raises UserError if it was written with other settings or other networks.
        """
        checkpoint = read_last_checkpoint(self.out_dir)
        if checkpoint is None:
            return False
        tensors, state = checkpoint
        then = (
            TrainingConfig().fixed_settings() | self.marks | state["settings"]
        )  # settings added since then had their defaults
        require_same(
            self.out_dir,
            then | {name: tuple(t.shape) for name, t in tensors.items() if name.split(".")[0] in self.networks},
            self._settings() | {name: tuple(t.shape) for name, t in learned(self.networks).items()},
        )
        self.start_over()
        load_training_tensors(tensors, self.networks, self.parameters, self.average, self.optimizers)
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        return True

    def _settings(self) -> dict:
        flow = {f"flow.{name}": value for name, value in vars(self.flow).items()}
        return self.config.fixed_settings() | flow | self.marks

    # Monitoring

    def _monitor(self, progress: float) -> AbstractContextManager[Monitor | None]:
        """The monitor of the run in the main process; None in the others."""
        if not self.processes.is_main_process:
            return nullcontext()
        log = Logbook(self.out_dir, self.history, self.step, progress)
        return Monitor(log, self.config, self.speed, self._summary, self.validate, self._preview, self.save)

    def _preview(self, step: int) -> np.ndarray | None:
        if self.preview is None:
            return None
        with self.averaged_weights():
            return self.preview(step)

    def _summary(self, learning_rate: float) -> loop.Row:
        """Means over the steps since the last summary."""
        self._require_finite()
        row = self.sums.means() | {
            "training/learning_rate": learning_rate,
            "training/images_per_second": self.speed.of(self.sums.batches * self.config.batch_size),
        }
        self.sums = Sums(self.device)
        self.speed.start_over()
        return row

    def _require_finite(self) -> None:
        if not self.sums.finite():
            raise self._not_finite("the loss or its gradient is")

    def _not_finite(self, what: str) -> UserError:
        last = self.out_dir / LAST
        kept = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was written yet"
        return loop.not_finite(what, self.step, self.config, f"{kept}; train in another folder")

    def _of_main(self, value):
        """The main process's value: clocks differ, but all processes must stop at the same step."""
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]
