"""One submission in a process of its own, which is watched and ended when it takes too long or too much memory.

This protects the grader and other submissions from accidents. It is no protection against malice: see INSTRUCTORS.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from gen_affect_lib.course.grading.limits import OUT_OF_MEMORY
from gen_affect_lib.paths import DATA, ROOT

SECONDS, MEMORY_GB = 600.0, 4.0  # far more than any notebook takes at smoke: see the README's table
TRIES = 4  # how often a run is started, each time without the cell that ended the one before
_RANKS = ("unfinished", "wrong", "right")


@dataclass
class Outcome:
    """The results of running one submission.

    verdicts: {exercise: {"state", "message", "code"}}, the best of all tries; without the exercises never reached.
    errors: [{"cell": as in `In [cell]`, "error", "line"}] of the last try. problems: what else went wrong, in words.
    look_at: what a person should look at, since honest work does not contain it. finished: whether the last try
    reached its last cell.
    """

    verdicts: dict[str, dict] = field(default_factory=dict)
    errors: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    look_at: list[str] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False


def run(
    cells: Sequence[dict],
    notebook: str,
    *,
    seconds: float = SECONDS,
    memory_gb: float = MEMORY_GB,
    profile: str = "smoke",
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run the code cells of a submission and judge its answers.

    cells: [{"number": as in `In [number]`, "source": …}]. notebook: "02". seconds: limit for all tries together; one
    cell gets a quarter of it. A cell that ends the process, or for which it has to be ended, is left out of the next
    try. stopped: polled; once it returns True, the process is ended and KeyboardInterrupt raised.
    """
    outcome, start = Outcome(), time.monotonic()
    job: dict[str, Any] = {
        "notebook": notebook,
        "profile": profile,
        "cells": list(cells),
        "cell_seconds": seconds / 4,
        "memory_gb": memory_gb,
        "skip": {},
        "stuck": {},
    }
    for _ in range(TRIES):
        progress, end = _try(job, start + seconds, stopped)
        outcome.errors = progress["errors"]
        for name, verdict in progress["verdicts"].items():
            old = outcome.verdicts.get(name) or verdict
            if _RANKS.index(verdict["state"]) >= _RANKS.index(old["state"]):
                outcome.verdicts[name] = verdict
        if progress["done"]:
            outcome.finished = True
            break
        at = progress["at"]
        if not at:
            outcome.problems.append(f"it did not start: {end}")
            break
        cell = "the last checks" if at.get("cell") is None else f"cell [{cells[at['cell']]['number']}]"
        if time.monotonic() > start + seconds:
            outcome.problems.append(f"its time limit of {seconds:g} seconds was reached in {cell}")
            break
        if at.get("exercise"):
            job["stuck"][at["exercise"]] = f"`{at['exercise']}` {end} when it was called."
        else:
            job["skip"][str(at["cell"])] = f"it {end}, and was left out"
            outcome.problems.append(f"{cell} {end}, and was left out")
    else:
        outcome.problems.append(f"it ended early {TRIES} times, and was not run again")
    outcome.seconds = time.monotonic() - start
    return outcome


def _try(job: dict[str, Any], until: float, stopped: Callable[[], bool]) -> tuple[dict[str, Any], str]:
    """Start a run and watch it until it ends. Returns the last progress of `runner.Run`, and how the run ended."""
    with tempfile.TemporaryDirectory(prefix="gen_affect_grade_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for part in ("work", "outputs", "cache", "ipython", "temporary"):
            (folder / part).mkdir()
        (folder / "job.json").write_text(json.dumps(job))
        out, log = folder / "out.json", folder / "log.txt"
        command = [sys.executable, "-m", "gen_affect_lib.course.grading.runner", str(folder / "job.json"), str(out)]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=folder / "work",
                env=_environment(folder, job["profile"]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )
        try:
            end = _watch(process, out, until, job, stopped)
        finally:
            _kill(process)
        if not end:
            end = _describe_code(process.returncode, job["memory_gb"])
        if not out.exists():
            lines = log.read_text(errors="replace").strip().splitlines()
            return {"verdicts": {}, "errors": [], "at": None, "done": False}, lines[-1] if lines else end
        return json.loads(out.read_text()), end


def _watch(process: subprocess.Popen, out: Path, until: float, job: dict, stopped: Callable[[], bool]) -> str:
    """Wait for the end of the process. Returns why it has to be ended, or an empty string if it ended by itself."""
    cell_seconds, memory_gb = job["cell_seconds"], job["memory_gb"]
    while process.poll() is None:
        if stopped():
            raise KeyboardInterrupt
        if time.monotonic() > until:
            return "took too long"
        if _memory(process.pid) > 1.25 * memory_gb * 2**30:  # on systems where `limits` sets no limit
            return _describe_code(OUT_OF_MEMORY, memory_gb)
        # `out` is written before every step. During a library call Python handles no alarm: the process is ended here.
        if out.exists() and time.time() - out.stat().st_mtime > 1.5 * cell_seconds:
            return f"did not finish within {cell_seconds:g} seconds"
        time.sleep(0.05)
    return ""


def _describe_code(code: int, memory_gb: float) -> str:
    if code == OUT_OF_MEMORY:
        return f"took more than {memory_gb:g} GB of memory"
    name = next((signal.Signals(-code).name for known in signal.Signals if known == -code), f"exit code {code}")
    return f"ended the whole run ({name})"


def _memory(pid: int) -> int:
    """Resident memory, in bytes, of a process and its descendants."""
    total = 0
    try:
        own = psutil.Process(pid)
        for process in (own, *own.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.Error:
        pass  # one of them has ended
    return total


def _kill(process: subprocess.Popen) -> None:
    """End a process and its descendants."""
    if process.poll() is None:
        try:
            everyone = [*psutil.Process(process.pid).children(recursive=True)]
        except psutil.Error:
            everyone = []
        process.kill()
        for child in everyone:
            try:
                child.kill()
            except psutil.Error:
                pass
    process.wait()


def _environment(folder: Path, profile: str) -> dict[str, str]:
    """Environment variables: folders of its own, the kit on the path, no GPU, no network."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "GEN_AFFECT_PROFILE": profile,
        "GEN_AFFECT_DATA": str(DATA.resolve()),
        "GEN_AFFECT_OUTPUTS": str(folder / "outputs"),
        "GEN_AFFECT_CACHE": str(folder / "cache"),
        "IPYTHONDIR": str(folder / "ipython"),
        "TMPDIR": str(folder / "temporary"),
        "MPLBACKEND": "Agg",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",  # the same numbers on every machine, and one core for each submission
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
