"""Networks and data small enough that a training run takes a second, and a program that is killed while it trains.

`python tests/training/tiny_training.py FOLDER` trains once to the end. Then, for each entry of MOMENTS, one process
trains until it kills itself there with SIGKILL, and another one resumes. It prints the outcomes as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from gen_affect_lib.flow import RectifiedFlow
from gen_affect_lib.recipe import TrainingConfig
from gen_affect_lib.training import checkpoint, logbook
from gen_affect_lib.training.trainer import Trainer

CHANNELS, SIDE = 3, 4
STEPS = 12


class TinyModel(nn.Module):
    """The signature of MMDiT, with a dropout (which draws from torch's global random numbers) and a buffer."""

    def __init__(self, width):
        super().__init__()
        self.enter = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.time = nn.Linear(1, width)
        self.token = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)
        self.leave = nn.Conv2d(width, CHANNELS, 3, padding=1)
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        self.told = []

    def forward(self, hidden_states, encoder_hidden_states, pooled_projections, timestep):
        if self.training:
            self.batches_seen += 1
        self.told.append(timestep.detach().clone())
        said = self.time(timestep[:, None] / 1000) + self.token(encoder_hidden_states).mean(1) + pooled_projections
        return self.leave(self.drop(torch.relu(self.enter(hidden_states) + said[:, :, None, None])))


class TinyEncoder(nn.Module):
    """The signature of IdentityExpressionFusion: two tokens, one of the identity, one of the expression."""

    def __init__(self, width):
        super().__init__()
        self.identity = nn.Linear(CHANNELS, width)
        self.expression = nn.Linear(21, width)
        self.kept = []

    def forward(self, identity, expression, keep_identity=None, keep_expression=None):
        if keep_identity is not None:
            self.kept.append((keep_identity, keep_expression))
        identity, expression = self.identity(identity), self.expression(expression)
        if keep_identity is not None:
            identity, expression = identity * keep_identity[:, None], expression * keep_expression[:, None]
        return torch.stack([identity, expression], 1), identity + expression


class TinyData:
    """Pairs of plain colour: the reference's colour, brightened by the first entry of the expression."""

    def __init__(self):
        self.asked = []

    def pairs(self, seed, size):
        generator = torch.Generator().manual_seed(seed)
        colour = torch.randn(size, CHANNELS, generator=generator)
        expression = torch.rand(size, 21, generator=generator)
        target = 0.5 * colour[..., None, None].expand(-1, -1, SIDE, SIDE) + expression[:, :1, None, None]
        return {"identity": colour, "target": target, "expression": expression}

    def batch(self, step, batch_size):
        self.asked.append(step)
        return self.pairs(step, batch_size)

    def validation(self, size):
        return self.pairs(1_000_000, size)


class StopsAtStep7(TinyData):
    def batch(self, step, batch_size):
        if step == 7:
            raise KeyboardInterrupt
        return super().batch(step, batch_size)


def tiny_trainer(folder, preview=None, data=None, flow=None, width=8, **config):
    """A trainer that is the same each time."""
    torch.manual_seed(0)
    settings = dict(batch_size=8, warmup_steps=3, learning_rate=1e-2, log_every=2, validate_every=5, validation_size=8)
    settings |= dict(preview_every=1000, checkpoint_every=3)
    config = TrainingConfig(**settings | config)
    flow, data = flow or RectifiedFlow("v"), data or TinyData()
    return Trainer(config, TinyModel(width), TinyEncoder(width), flow, data, folder, preview)


def steady_trainer(folder, **config):
    """One whose steps several processes can share: a dropout is no function of the step alone."""
    trainer = tiny_trainer(folder, **config)
    trainer.networks["model"].drop.p = 0.0
    return trainer


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(owner, name, call, after=False):
    """Let the process die at the n-th call of a function, before or after it did its work."""
    original, calls = getattr(owner, name), [0]

    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call and not after:
            die()
        result = original(*args, **kwargs)
        if calls[0] == call and after:
            die()
        return result

    setattr(owner, name, wrapped)


def kill_in_the_middle_of_a_file(call):
    calls = [0]
    original = checkpoint._write_to_disk

    def half(path, content):
        calls[0] += 1
        if calls[0] == call:
            path.write_bytes(content[: len(content) // 2])
            die()
        original(path, content)

    checkpoint._write_to_disk = half


# Checkpoints are written after steps 3, 6, 9 and 12. The first takes one renaming, the others two, so the renamings are
# 1 (step 3), 2 and 3 (step 6), 4 and 5 (step 9), 6 and 7 (step 12); each checkpoint syncs a file, then the folder.
MOMENTS = {
    "before the first checkpoint": lambda: kill_at(TinyData, "batch", 2),
    "between a gradient and its step": lambda: kill_at(torch.Tensor, "backward", 5, after=True),
    "between the weights' step and their average's": lambda: kill_at(torch.optim.AdamW, "step", 8, after=True),
    "while a curve is logged": lambda: kill_at(logbook.Logbook, "record", 3),
    "while the averaged weights are in place": lambda: kill_at(TinyData, "validation", 2),
    "in the middle of the first file": lambda: kill_in_the_middle_of_a_file(1),
    "in the middle of the last file": lambda: kill_in_the_middle_of_a_file(4),
    "before a file is forced to the disk": lambda: kill_at(os, "fsync", 3),
    "before the first renaming": lambda: kill_at(os, "replace", 2),
    "between two renamings": lambda: kill_at(os, "replace", 2, after=True),
    "after the second renaming": lambda: kill_at(os, "replace", 3, after=True),
    "between the renamings of the last checkpoint": lambda: kill_at(os, "replace", 6, after=True),
}


def in_a_process(work):
    """Run `work` in a fork of this process, and return the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0
    return 0


def main(folder):
    torch.set_num_threads(1)  # a fork keeps no threads, so there must be none to miss
    # Import what a first run imports, once here, or else in every fork: most of the time would go there.
    from torch.utils import tensorboard  # noqa: F401

    tiny_trainer(folder)
    in_a_process(lambda: tiny_trainer(folder / "whole").fit(max_steps=STEPS))
    ended = {}
    for number, (moment, arm) in enumerate(MOMENTS.items()):
        run = folder / f"{number}"

        def until_killed():
            arm()
            tiny_trainer(run).fit(max_steps=STEPS)

        killed_by = in_a_process(until_killed)
        left = sorted(path.name for path in run.glob("*.safetensors"))
        in_a_process(lambda: tiny_trainer(run).fit(max_steps=STEPS))
        ended[moment] = {"folder": run.name, "signal": killed_by, "left": left}
    # And once more where nobody chose the moment: killed by step after step until it is through.
    deaths = 0
    for _ in range(1, 100):

        def a_little_further():
            kill_at(torch.optim.AdamW, "step", 5)
            tiny_trainer(folder / "again").fit(max_steps=STEPS)

        if in_a_process(a_little_further) == 0:
            break
        deaths += 1
    ended["again and again"] = {"folder": "again", "signal": signal.SIGKILL if deaths > 1 else 0, "left": []}
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
