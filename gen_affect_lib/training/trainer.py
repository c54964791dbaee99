"""The training loop: one network learns to turn noise into pictures, another what to say to it about a person.

Read `Trainer.fit` first: it is the whole story. `Trainer.learn` is one step of it.

Every random draw of a step (which pairs, how much noise, what noise, what is left out) is a function of the seed and of
the step's number, and of nothing else. A run that was killed therefore needs no memory of what it has drawn: it
loads its last checkpoint and takes the same steps as if nothing had happened. And several processes need not agree on
what to draw: each draws the whole batch, and learns from its share of it. Hugging Face `accelerate` starts them, on the
GPUs of one machine or of several that share a disk, and averages their gradients:

    accelerate launch --num_processes 4 -m gen_affect_lib train --profile gpu

takes the steps that one process would take, but for rounding. `batch_size` is that of all processes together.

Letters: B images of a batch, C channels, h and w the sides of the space that the model works in (see `codec.py`).
"""

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from gen_affect_lib.avatars.regions import face_weight
from gen_affect_lib.device import processes
from gen_affect_lib.errors import UserError
from gen_affect_lib.flow import RectifiedFlow, interpolate, sample_sigma, timestep
from gen_affect_lib.training.checkpoint import (
    LAST,
    read_last_checkpoint,
    remove_checkpoints,
    require_same,
    write_checkpoint,
)
from gen_affect_lib.training.logbook import Logbook, Speed, writing_to
from gen_affect_lib.training.optim import adamw, make_optimizers, warm_cosine


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to train. Two runs with equal configs, data and networks take the same steps."""

    batch_size: int = 64
    accumulation: int = 1  # batches that share one step of the optimizer: a large batch for a small memory
    optimizer: str = "adamw"  # or "muon", for the large matrices: see optim.py
    learning_rate: float = 1e-3
    warmup_steps: int = 100  # AdamW's second moment is a poor guess at first, so the first steps are small
    final_learning_rate: float = 0.01  # at the end of the cosine, as a share of learning_rate
    weight_decay: float = 0.01  # on matrices only: a decayed bias or norm weight only loses its place
    clip_norm: float = 1.0  # of the gradient of both networks together
    ema_decay: float = 0.999
    drop_identity: float = 0.1  # chance that a picture is learned without its reference: guidance needs it
    drop_expression: float = 0.1  # likewise without its expression, drawn on its own
    sigma_distribution: str = "logit_normal"
    sigma_mean: float = 0.0  # of the logit; above 0 means more noise
    sigma_std: float = 1.0
    shift: float = 1.0
    face_weight: float = 0.0  # how many times more the places of brows, eyes and mouth count: see regions.face_weight
    seed: int = 0
    compile: bool = False  # torch.compile what learns: pays on a GPU, after a minute or so of compiling
    # What follows only says how often to look; it does not change what is learned.
    log_every: int = 10
    validate_every: int = 250
    validation_size: int = 128
    preview_every: int = 250
    checkpoint_every: int = 250

    def __post_init__(self):
        positive = ("batch_size", "accumulation", "learning_rate", "clip_norm", "validation_size")
        positive += ("log_every", "validate_every", "preview_every", "checkpoint_every")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, and is {getattr(self, name)}")
        for name in ("drop_identity", "drop_expression", "ema_decay", "final_learning_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be from 0 to 1, and is {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "sigma_std", "face_weight", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, and is {getattr(self, name)}")
        if self.optimizer not in ("adamw", "muon"):
            raise UserError(f'no optimizer "{self.optimizer}": try "adamw" or "muon"')
        if self.sigma_distribution == "uniform" and (self.sigma_mean, self.sigma_std) != (0.0, 1.0):
            raise UserError("a uniform sigma_distribution has no sigma_mean and sigma_std: leave them out")


LOOKING = ("log_every", "validate_every", "validation_size", "preview_every", "checkpoint_every")
VALIDATION_SIGMAS = (0.2, 0.5, 0.8)


class Data(Protocol):
    """What the loop asks of its data, float32: `target` (B, C, h, w), and what the condition encoder takes, by default
    `identity` (B, V, E) and `expression` (B, 48)."""

    def batch(self, step: int, batch_size: int) -> dict[str, torch.Tensor]: ...

    def validation(self, size: int) -> dict[str, torch.Tensor]: ...


class Networks(nn.ModuleDict):
    """Both networks as one: what averages gradients over processes wants a single forward."""

    def forward(self, noisy, sigma, batch, keep_identity, keep_expression):
        tokens, pooled = self["condition_encoder"](
            batch["identity"], batch["expression"], keep_identity=keep_identity, keep_expression=keep_expression
        )
        return self["model"](noisy, tokens, pooled, timestep(sigma))


class Trainer:
    """Trains `model` and `condition_encoder` together, where they are (CPU or CUDA), and keeps the run in `out_dir`.

    `flow` gives the loss (see `flow.py`), `data` the batches (see `Data`). `preview(step) -> (H, W, 3) uint8`, if it is
    given, draws a grid of samples; it is called with the averaged weights in place. `extra`, if it is given, is a second
    loss that is learned from and not validated by: (predicted target, target, sigma) -> (B,), see `face_loss.py`.
    `out_dir` gets the checkpoints, and TensorBoard's logs under `logs`. Of several processes each has a trainer, and the
    main one alone looks at the run and writes. Raises UserError where they cannot share a batch evenly.
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
        extra: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ):
        self.config, self.flow, self.data, self.out_dir, self.preview = config, flow, data, Path(out_dir), preview
        self.extra = extra
        self.networks = Networks({"model": model, "condition_encoder": condition_encoder})
        self.parameters = {name: p for name, p in self.networks.named_parameters() if p.requires_grad}
        self.device = next(iter(self.parameters.values())).device
        # Older GPUs only emulate bfloat16, slowly; processors mostly too.
        self.bfloat16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        self.processes = processes()
        if config.batch_size % self.processes.num_processes:
            raise UserError(
                f"batch_size {config.batch_size} does not divide among {self.processes.num_processes} processes: "
                f"give a multiple of {self.processes.num_processes}"
            )
        # With several processes, all begin with the main one's weights, and a backward leaves the mean of all gradients.
        self.shared = self.processes.prepare_model(self.networks, device_placement=False)
        if (
            config.compile
        ):  # what looks at the run stays as it is: its batches have other sizes, and each would be compiled
            self.shared = torch.compile(self.shared)
        self.start_over()

    def fit(self, max_steps: int | None = None, max_minutes: float | None = None, resume: bool = True) -> list[dict]:
        """Train until a limit is reached, and return the history: one dict for every look at the run.

        The limits count from the start of the run, over all its resumptions; with both, the first one ends it. The
        learning rate follows the share of the limit that is used up. With `resume`, goes on from the checkpoint in
        `out_dir` if there is one; without, starts from the weights that the networks have now and removes the
        checkpoints of the run before. Raises UserError where the loss is no longer finite, where a checkpoint does
        not fit, and where the disk is full.
        """
        limits = [limit for limit in (max_steps, max_minutes) if limit is not None]
        if not limits or min(limits) <= 0:
            raise UserError(f"training needs an end above 0, not max_steps={max_steps}, max_minutes={max_minutes}")
        with self.processes.main_process_first():  # it may have a damaged checkpoint to put aside
            with writing_to(self.out_dir):
                self.out_dir.mkdir(parents=True, exist_ok=True)
                if not resume:
                    remove_checkpoints(self.out_dir)
            if not (resume and self.restore()):
                self.start_over()
        if self.step != self.of_main(self.step):
            raise UserError(f"{self.out_dir} is not the folder of the main process: let all machines share a disk")

        started = time.perf_counter() - self.seconds
        used = self.used_up(max_steps, max_minutes)
        main = self.processes.is_main_process
        with Logbook(self.out_dir, self.history, self.step, used) if main else nullcontext() as log:
            while used < 1:
                learning_rate = self.learning_rate(used)
                self.learn(learning_rate)
                self.step += 1
                self.seconds = time.perf_counter() - started
                used = self.used_up(max_steps, max_minutes)
                if main:
                    self.look(log, used, learning_rate)
        return self.history

    def look(self, log: Logbook, used: float, learning_rate: float) -> None:
        """Looking at the run may do anything but change what is learned."""
        config = self.config

        def due(every: int) -> bool:
            return self.step % every == 0 or used >= 1

        if due(config.log_every):
            log.record(self.step, self.seconds, self.summary(learning_rate))
        log.advance(used)
        with self.speed.paused():
            if due(config.validate_every):
                log.record(self.step, self.seconds, self.validate())
            if self.preview and due(config.preview_every):
                with self.averaged_weights():
                    log.show(self.step, self.preview(self.step))
            if due(config.checkpoint_every):
                self.save()

    def learn(self, learning_rate: float) -> None:
        """One step: a batch (or a few), a gradient, a step of the optimizers, a step of the average."""
        config = self.config
        self.networks.train()
        for part in range(config.accumulation):
            loss = self.training_loss(*self.draw(part)).mean()
            (loss / config.accumulation).backward()
            self.loss_sum += self.processes.reduce(loss.detach(), "mean")
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), config.clip_norm)
        self.norm_sum += norm
        self.summed += 1
        if self.device.type == "cpu":  # on a GPU reading a number waits for the queue, so there `summary` does it
            self.check_finite()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        self.networks.zero_grad(set_to_none=True)
        # The average of the weights makes better pictures than the weights. Its memory grows with the run, or else the
        # first, random weights would be in it for long.
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)

    def draw(self, part: int) -> tuple:
        """All that is random in a batch: the pairs, the noise, its amount (B,), what is kept (B,) of the condition.

        Of several processes, each draws the same and takes its share.
        """
        config = self.config
        batch = self.data.batch(self.step * config.accumulation + part, config.batch_size)
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        generator = self.generator(self.step, part)
        size = len(batch["target"])
        noise = torch.randn(batch["target"].shape, generator=generator, device=self.device)
        sigma = sample_sigma(
            size,
            config.sigma_distribution,
            config.shift,
            mean=config.sigma_mean,
            std=config.sigma_std,
            generator=generator,
            device=self.device,
        )
        # Drawn apart: guidance along one condition alone needs pictures learned with the other left out.
        keep_identity = torch.rand(size, generator=generator, device=self.device) >= config.drop_identity
        keep_expression = torch.rand(size, generator=generator, device=self.device) >= config.drop_expression
        mine = slice(self.processes.process_index, None, self.processes.num_processes)
        batch = {name: tensor[mine] for name, tensor in batch.items()}
        return batch, noise[mine], sigma[mine], keep_identity[mine], keep_expression[mine]

    def training_loss(self, batch, noise, sigma, keep_identity, keep_expression) -> torch.Tensor:
        """The loss on each picture's velocity, and the extra one where there is one (B,)."""
        output, target = self.predict(batch, noise, sigma, keep_identity, keep_expression), batch["target"]
        strength = self.config.face_weight
        weight = face_weight(target.shape[-1], strength).to(target) if strength else 1.0
        loss = self.flow.loss_of(output, target, noise, sigma, weight)
        if self.extra is not None:
            believed = self.flow.data_from(output, interpolate(target, noise, sigma), sigma)
            loss = loss + self.extra(believed, target, sigma)
        return loss

    def loss(self, batch, noise, sigma, keep_identity=None, keep_expression=None) -> torch.Tensor:
        """The loss on each picture's velocity (B,)."""
        output = self.predict(batch, noise, sigma, keep_identity, keep_expression)
        return self.flow.loss_of(output, batch["target"], noise, sigma)

    def predict(self, batch, noise, sigma, keep_identity=None, keep_expression=None) -> torch.Tensor:
        """The network's output for a batch with so much noise: (B, C, h, w), float32."""
        # A call of the shared networks is one of all processes; to look, the main one is on its own.
        networks = self.shared if torch.is_grad_enabled() else self.networks
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            noisy = interpolate(batch["target"], noise, sigma)
            return networks(noisy, sigma, batch, keep_identity, keep_expression).float()

    def validate(self) -> dict[str, float]:
        """The loss on people never trained on, at fixed amounts of fixed noise: the one curve to compare runs by."""
        batch = {name: t.to(self.device) for name, t in self.data.validation(self.config.validation_size).items()}
        losses = {}
        with self.averaged_weights():
            for sigma in VALIDATION_SIGMAS:
                noise = torch.randn(batch["target"].shape, generator=self.generator("validation"), device=self.device)
                total = 0.0
                for part in torch.arange(len(noise), device=self.device).split(self.config.batch_size):
                    piece = {name: tensor[part] for name, tensor in batch.items()}
                    total += self.loss(piece, noise[part], noise.new_full((len(part),), sigma)).sum().item()
                losses[f"validation/sigma_{sigma}"] = total / len(noise)
        return losses

    # limits and learning rate

    def used_up(self, max_steps: int | None, max_minutes: float | None) -> float:
        """The share of the run that is over: 1 or more at its end."""
        by_steps = self.step / max_steps if max_steps else 0.0
        by_time = self.of_main(self.seconds) / (60 * max_minutes) if max_minutes else 0.0
        return max(by_steps, by_time)

    def of_main(self, value):
        """What `value` is in the main process: clocks differ, and all processes must stop at one step."""
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def learning_rate(self, used: float) -> float:
        """Up in a line over the first steps, then down a half cosine over the run."""
        config = self.config
        return config.learning_rate * warm_cosine(self.step, used, config.warmup_steps, config.final_learning_rate)

    def generator(self, *where) -> torch.Generator:
        """Fresh random numbers for one place of the run: the same ones whenever it comes by that place."""
        words = [self.config.seed] + [int.from_bytes(str(w).encode(), "little") for w in where]
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator(self.device).manual_seed(seed)

    # state

    def start_over(self) -> None:
        """A fresh run from the weights that the networks have now."""
        self.step, self.seconds, self.history = 0, 0.0, []
        self.networks.zero_grad(set_to_none=True)  # an interrupted step may have left half of a gradient
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        rates = self.config.learning_rate, (0.9, 0.95), self.config.weight_decay
        if self.config.optimizer == "muon":
            self.optimizers = make_optimizers(self.parameters, *rates)
        else:
            self.optimizers = [adamw(self.parameters.values(), *rates)]
        self.speed = Speed()
        self.forget_sums()

    def save(self) -> None:
        """Write everything that the next step depends on."""
        if not torch.stack(torch._foreach_norm([*self.parameters.values(), *self.average.values()])).isfinite().all():
            self.stop_for_good("the weights are")
        names = {p: name for name, p in self.parameters.items()}
        tensors = dict(self.networks.state_dict())
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                tensors |= {f"optimizer.{names[parameter]}.{key}": tensor for key, tensor in moments.items()}
        tensors["random.cpu"] = torch.get_rng_state()  # for networks with dropout, which draw from the global one
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        state = {"step": self.step, "seconds": self.seconds, "history": self.history, "settings": self.settings()}
        write_checkpoint(self.out_dir, tensors, state)

    def settings(self) -> dict:
        """What must stay the same over a run."""
        return _lasting(self.config) | {f"flow.{name}": value for name, value in vars(self.flow).items()}

    def restore(self) -> bool:
        """Load the newest whole checkpoint of `out_dir`; False where there is none."""
        checkpoint = read_last_checkpoint(self.out_dir)
        if checkpoint is None:
            return False
        tensors, state = checkpoint
        state_dict = self.networks.state_dict()
        then = (
            _lasting(TrainingConfig()) | state["settings"]
        )  # a setting of today was at its default before there was one
        require_same(
            self.out_dir,
            then | {n: tuple(t.shape) for n, t in tensors.items() if n.split(".")[0] in self.networks},
            self.settings() | {name: tuple(tensor.shape) for name, tensor in state_dict.items()},
        )
        self.start_over()
        self.networks.load_state_dict({name: tensors[name] for name in state_dict})
        steps = {p: o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for name, parameter in self.parameters.items():
            self.average[name].copy_(tensors[f"average.{name}"])
            moments = {n.rpartition(".")[2]: t for n, t in tensors.items() if n.startswith(f"optimizer.{name}.")}
            if moments:  # a parameter that never had a gradient has none
                steps[parameter].state[parameter] = {key: moment.to(self.device) for key, moment in moments.items()}
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        return True

    @contextmanager
    def averaged_weights(self):
        """Inside, the networks have the averaged weights and are in eval mode: to sample, to validate, to save.

        No gradients are taken inside, and what is drawn from torch's global random numbers is not missed outside.
        """
        parameters, average = list(self.parameters.values()), list(self.average.values())
        own = [p.detach().clone() for p in parameters]
        was_training = self.networks.training
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch._foreach_copy_(parameters, average)
            try:
                yield self.networks.eval()
            finally:
                torch._foreach_copy_(parameters, own)
                self.networks.train(was_training)

    def summary(self, learning_rate: float) -> dict[str, float]:
        """How the steps since the last summary went, on average."""
        self.check_finite()
        batches = self.summed * self.config.accumulation
        row = {
            "training/loss": self.loss_sum.item() / batches,
            "training/gradient_norm": self.norm_sum.item() / self.summed,
            "training/learning_rate": learning_rate,
            "training/images_per_second": self.speed.of(batches * self.config.batch_size),
        }
        self.forget_sums()
        return row

    def check_finite(self) -> None:
        """Sums keep a NaN once they have met one, so that one look finds it, however late."""
        if not math.isfinite((self.loss_sum + self.norm_sum).item()):
            self.stop_for_good("the loss or its gradient is")

    def stop_for_good(self, what: str) -> None:
        last = self.out_dir / LAST
        raise UserError(
            f"{what} no longer finite at step {self.step}; "
            + (f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was written yet")
            + f": train in another folder with a learning_rate below {self.config.learning_rate}, "
            f"or more than {self.config.warmup_steps} warmup_steps"
        )

    def forget_sums(self) -> None:
        self.loss_sum, self.norm_sum = torch.zeros(2, device=self.device)
        self.summed = 0
        self.speed.start_over()


def _lasting(config: TrainingConfig) -> dict:
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in LOOKING}
