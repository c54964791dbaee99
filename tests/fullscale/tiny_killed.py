"""Trainings of an adapter that die by SIGKILL, and what two processes do together.

`python tests/fullscale/tiny_killed.py FOLDER` trains once to the end, and then for each moment until it is killed
there, and on. `accelerate launch --num_processes 2 tests/fullscale/tiny_killed.py FOLDER` trains with two processes.
"""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from gen_affect_lib.device import processes  # noqa: E402
from tests.fullscale.tiny import tiny_trainer  # noqa: E402
from tests.training.tiny_training import in_a_process, kill_at, kill_in_the_middle_of_a_file  # noqa: E402

STEPS = 12
MOMENTS = {
    "between a gradient and its step": lambda: kill_at(torch.Tensor, "backward", 5, after=True),
    "between the weights' step and their average's": lambda: kill_at(torch.optim.AdamW, "step", 8, after=True),
    "in the middle of a file": lambda: kill_in_the_middle_of_a_file(2),
    "between two renamings": lambda: kill_at(os, "replace", 2, after=True),
}


def train(folder):
    tiny_trainer(folder, rank=2, accumulation=2).fit(max_steps=STEPS)


def main(folder):
    torch.set_num_threads(1)  # a fork keeps no threads, so there must be none to miss
    from torch.utils import tensorboard  # noqa: F401 (imported once here, or else in every fork)

    tiny_trainer(folder, rank=2)  # imports peft
    in_a_process(lambda: train(folder / "whole"))
    signals = {}
    for number, (moment, arm) in enumerate(MOMENTS.items()):

        def until_killed():
            arm()
            train(folder / f"{number}")

        signals[moment] = in_a_process(until_killed)
        in_a_process(lambda: train(folder / f"{number}"))
    print(json.dumps(signals))


def together(folder):
    trainer = tiny_trainer(folder / "together", rank=2, accumulation=2)
    trainer.fit(max_steps=STEPS)
    left = {
        "processes": processes().num_processes,
        "sum": sum(p.double().sum().item() for p in trainer.parameters.values()),
        "frozen": sum(p.double().sum().item() for p in trainer.networks.parameters() if not p.requires_grad),
    }
    (folder / f"{processes().process_index}.json").write_text(json.dumps(left))


if __name__ == "__main__":
    (together if "LOCAL_RANK" in os.environ else main)(Path(sys.argv[1]))
