"""What each of two processes that train together does. Run it by

    accelerate launch --multi_gpu --num_processes 2 tests/training/tiny_processes.py FOLDER

which on a machine without a GPU takes processors. Each leaves what became of it in `FOLDER/NUMBER.json`.
"""

import atexit
import contextlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch
from tiny_training import STEPS, StopsAtStep7, steady_trainer

from gen_affect_lib.device import processes
from gen_affect_lib.errors import UserError
from gen_affect_lib.training import loop


def refused(work):
    try:
        work()
    except UserError as error:
        return str(error)


def threads_of_the_group():
    """Their names, as Linux knows them."""
    names = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def at_the_end(folder):
    left = {"group": torch.distributed.is_initialized(), "threads": threads_of_the_group()}
    (folder / f"at the end {os.environ['RANK']}.json").write_text(json.dumps(left))


def main(folder):
    atexit.register(at_the_end, folder)  # the first to be registered is the last to be called
    me = processes()
    left = {"processes": me.num_processes}

    whole = steady_trainer(folder / "whole")
    whole.fit(max_steps=STEPS)
    left["sum"] = sum(p.double().sum().item() for p in whole.parameters.values())
    left["history"] = len(whole.history)

    with contextlib.suppress(KeyboardInterrupt):
        steady_trainer(folder / "stopped", data=StopsAtStep7()).fit(max_steps=STEPS)
    resumed = steady_trainer(folder / "stopped")
    resumed.fit(max_steps=STEPS)
    left["asked"] = resumed.data.asked

    # A folder of its own for each: the second one finds no checkpoint there.
    apart = steady_trainer(folder / "stopped" if me.is_main_process else folder / "apart")
    left["apart"] = refused(lambda: apart.fit(max_steps=STEPS))
    left["uneven"] = refused(lambda: steady_trainer(folder / "uneven", batch_size=9))

    # A step takes a second by the clock of the main process; the other one's stands still.
    timed = steady_trainer(folder / "timed")
    with mock.patch.object(loop.time, "perf_counter", lambda: timed.step if me.is_main_process else 0.0):
        timed.fit(max_minutes=0.1)
    left["steps in six seconds"] = timed.step
    left["threads"] = threads_of_the_group()
    (folder / f"{me.process_index}.json").write_text(json.dumps(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
