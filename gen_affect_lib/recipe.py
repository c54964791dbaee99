"""Training settings: those that all training loops share, and those of the generator."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

from gen_affect_lib.errors import UserError

# Settings that may change when a run is resumed: logging, checkpoints and the limit.
MONITORING = ("log_every", "validate_every", "validation_size", "preview_every", "checkpoint_every", "steps", "minutes")


@dataclass(frozen=True)
class Recipe:
    """The settings for training one network. Raises UserError for values out of range.

    Attributes:
        batch_size: examples per batch, of all processes together.
        optimizer: "adamw", or "muon" for the large matrices and AdamW for the rest (training/optim.py).
        learning_rate: the peak learning rate.
        warmup_steps: steps over which the learning rate rises linearly. AdamW's second moment is a poor estimate at
            first.
        final_learning_rate: at the end of the cosine decay, as a fraction of `learning_rate`.
        weight_decay: of matrices only; biases and gains are not decayed.
        betas: AdamW's decay rates of the first and the second moment.
        clip_norm: maximum norm of the gradient.
        seed: of all random draws.
        steps, minutes: the limit of the training; with both, the first one reached ends it.
    """

    batch_size: int = 64
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_learning_rate: float = 0.01
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    seed: int = 0
    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self):
        self._require("above 0", lambda value: value > 0, "batch_size", "learning_rate", "clip_norm")
        self._require("at least 0", lambda value: value >= 0, "warmup_steps", "weight_decay", "seed")
        self._require("between 0 and 1", lambda value: 0 <= value <= 1, "final_learning_rate")
        self._require("above 0", lambda value: value is None or value > 0, "steps", "minutes")
        if self.optimizer not in ("adamw", "muon"):
            raise UserError(f'there is no optimizer "{self.optimizer}": try "adamw" or "muon"')

    def _require(self, expected: str, holds, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not holds(value):
                raise UserError(f"{name} is {value}: give a value {expected}")

    def limited_to(self, *, steps: int | None = None, minutes: float | None = None) -> Self:
        """The same recipe with this limit in place of its own; with neither argument, the recipe itself."""
        return self if steps is None and minutes is None else replace(self, steps=steps, minutes=minutes)


@dataclass(frozen=True)
class TrainingConfig(Recipe):
    """The settings for training the generator.

    With a limit in steps, two runs with equal settings, data and networks take the same steps.

    Attributes:
        accumulation: batches whose gradients are averaged for one step, which saves memory.
        ema_decay: decay of the moving average of the weights, see `averaging.update_average`.
        drop_identity, drop_expression: probability that an example is trained without its reference or without its
            expression, drawn independently. Classifier-free guidance needs both.
        sigma_distribution, sigma_mean, sigma_std, shift: the distribution of the noise levels, see `flow.sample_sigma`.
            Mean and standard deviation are those of logit(sigma); a mean above 0 gives more noise.
        face_weight: added loss weight of brows, eyes and mouth; 0 weights all latents equally. See
            `avatars.regions.face_weight`.
        compile: use torch.compile. It makes steps on a GPU faster and takes about a minute before the first one.
        log_every, validate_every, preview_every, checkpoint_every: intervals in steps.
        validation_size: number of examples for the validation loss.
    """

    accumulation: int = 1
    ema_decay: float = 0.999
    drop_identity: float = 0.1
    drop_expression: float = 0.1
    sigma_distribution: str = "logit_normal"
    sigma_mean: float = 0.0
    sigma_std: float = 1.0
    shift: float = 1.0
    face_weight: float = 0.0
    compile: bool = False
    log_every: int = 10
    validate_every: int = 250
    validation_size: int = 128
    preview_every: int = 250
    checkpoint_every: int = 250

    def __post_init__(self):
        super().__post_init__()
        every = ("log_every", "validate_every", "preview_every", "checkpoint_every")
        self._require("above 0", lambda value: value > 0, "accumulation", "validation_size", *every)
        self._require("between 0 and 1", lambda value: 0 <= value <= 1, "drop_identity", "drop_expression", "ema_decay")
        self._require("at least 0", lambda value: value >= 0, "sigma_std", "face_weight")
        if self.sigma_distribution == "uniform" and (self.sigma_mean, self.sigma_std) != (0.0, 1.0):
            raise UserError("a uniform sigma_distribution has no sigma_mean and no sigma_std: leave them out")

    def fixed_settings(self) -> dict:
        """The settings that must be equal when a run is resumed, as they are read back from JSON."""
        settings = {name: value for name, value in asdict(self).items() if name not in MONITORING}
        return json.loads(json.dumps(settings))
