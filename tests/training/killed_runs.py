"""Trainings of the smoke profile that are killed at random moments and resumed.

`python tests/training/killed_runs.py FOLDER COUNT` trains once to the end. Then it starts COUNT trainings in folders
and caches of their own, kills each with SIGKILL at a random moment between the start of the codec and the end of the
last save, and resumes it. It prints as JSON where each was killed and whether its weights equal those of the whole run,
bit for bit.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from gen_affect_lib.avatars import pairs
from gen_affect_lib.profiles import PROFILES
from gen_affect_lib.training import assembly

SMOKE = PROFILES["smoke"]


def train(folder: Path, resume: bool, begun: int | None = None) -> int:
    """Train in a fork of this process, whose number is returned; it writes to `begun` when it comes to the codec."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        pairs.CACHE = folder / "cache"
        make_codec = assembly.make_codec

        def begins(*arguments):
            if begun is not None:
                os.write(begun, b"!")
            return make_codec(*arguments)

        assembly.make_codec = begins
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        assembly.train_profile(SMOKE, folder / "run", resume=resume, retrain=True)
        code = 0
    finally:
        os._exit(code)


def until_the_codec(folder: Path) -> int:
    """Start a training; return its process number as soon as it comes to the codec."""
    reads, writes = os.pipe()
    child = train(folder, False, writes)
    os.close(writes)
    os.read(reads, 1)
    os.close(reads)
    return child


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint and of the pipeline."""
    files = [folder / "run" / "last.safetensors", *sorted((folder / "run" / "pipeline").rglob("*.safetensors"))]
    return {f"{file.relative_to(folder)} {name}": one for file in files for name, one in load_file(file).items()}


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)  # a fork keeps no threads, so there must be none to miss
    from torch.utils import tensorboard  # noqa: F401 (imported once here, or else in every fork)

    whole = folder / "whole"
    whole.mkdir(parents=True)
    pairs.CACHE = whole / "cache"
    for config in (SMOKE.pairs, SMOKE.validation):
        pairs.PairCache.open(config)
    rendered = shutil.copytree(whole / "cache", folder / "rendered")
    child = until_the_codec(whole)
    started = time.perf_counter()
    assert os.waitpid(child, 0)[1] == 0, (whole / "log.txt").read_text()
    length, expected = time.perf_counter() - started, weights(whole)
    rng, outcomes = random.Random(0), []
    while len(outcomes) < count:
        one = folder / f"{len(outcomes)}"
        shutil.rmtree(one, ignore_errors=True)
        shutil.copytree(rendered, one / "cache")
        child, moment = until_the_codec(one), rng.uniform(0, length)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            continue  # it was through already
        left = sorted(path.relative_to(one / "run").as_posix() for path in (one / "run").rglob("*") if path.is_file())
        ended = os.waitpid(train(one, True), 0)[1]
        found = weights(one) if ended == 0 else {}
        same = found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
        outcomes.append({"moment": round(moment / length, 3), "left": left, "ended": ended, "same": same})
        print(len(outcomes), f"{moment / length:.3f}", "same" if same else "NOT THE SAME", file=sys.stderr, flush=True)
        if same:
            shutil.rmtree(one)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
