"""One submission: its cells are run and its answers judged, in processes of their own.

The grader starts judges, as many as submissions are graded at once, and each judge starts a player for each
submission: see `judge` and `jail`.
"""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gen_affect_lib.course.grading.jail import copy_of_the_kit

SECONDS, MEMORY_GB = 600.0, 4.0  # far more than any notebook takes at smoke: see the README's table


@dataclass
class Outcome:
    """The results of running one submission.

    verdicts: {exercise: {"state", "message", "code", "share"}}, the best of all tries; without the exercises never
    reached. errors: [{"cell": as in `In [cell]`, "error", "line"}] of the last try. problems: what else went wrong, in
    words. look_at: what a person should look at, since honest work does not contain it. finished: whether the last try
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
    helpers: Mapping[str, Path] | None = None,
    container: str | None = None,
    returned: Mapping[str, Path] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run the code cells of a submission and judge its answers.

    cells: [{"number": as in `In [number]`, "source": …}]. notebook: "02". seconds: limit of CPU time. One half is for
    the answers, in equal parts; of the other half, a cell gets at most half of what the cells before it have left. A
    cell that ends the process, or for which it has to be ended, is left out of the next try. helpers: {name: path} of
    files that stand beside the notebook. container: an image in which to run it. returned: {path in the outputs of the
    submission: where to copy this file at the end}. stopped: polled; once it returns True, everything is ended and
    KeyboardInterrupt raised. A notebook without exercises has all of `seconds` for its cells.
    """
    job = {
        "cells": list(cells),
        "notebook": notebook,
        "seconds": seconds,
        "memory_gb": memory_gb,
        "profile": profile,
        "helpers": {name: str(path) for name, path in (helpers or {}).items()},
        "kit": str(_kit()),
        "container": container,
        "returned": {name: str(path) for name, path in (returned or {}).items()},
    }
    judge = _take()
    try:
        answer = judge.ask(job, stopped)
    except BaseException:
        judge.kill()
        raise
    _idle.put(judge)
    if "fault" in answer:
        raise RuntimeError(f"the judge failed with {answer['fault']}")
    return Outcome(**answer)


class _Judge:
    """A judge's process, which takes one job after the other."""

    def __init__(self):
        command = [sys.executable, "-m", "gen_affect_lib.course.grading.judge"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, job: dict[str, Any], stopped: Callable[[], bool]) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        while True:
            if stopped():
                raise KeyboardInterrupt
            try:
                line = self.lines.get(timeout=0.1)
            except queue.Empty:
                continue
            if not line:
                raise RuntimeError(f"the judge ended with exit code {self.process.wait()}")
            return json.loads(line)

    def kill(self) -> None:
        """End the judge: it ends its player when the pipe closes."""
        assert self.process.stdin
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_idle: queue.Queue[_Judge] = queue.Queue()


def _take() -> _Judge:
    """A judge that has nothing to do, or a new one."""
    while True:
        try:
            judge = _idle.get_nowait()
        except queue.Empty:
            return _Judge()
        if judge.process.poll() is None:
            return judge


@atexit.register
def _dismiss() -> None:
    while not _idle.empty():
        _idle.get_nowait().kill()


_kit_lock = threading.Lock()


@cache
def _made_kit() -> tuple[tempfile.TemporaryDirectory, Path]:
    folder = tempfile.TemporaryDirectory(prefix="gen_affect_kit_", ignore_cleanup_errors=True)
    return folder, copy_of_the_kit(Path(folder.name))


def _kit() -> Path:
    """The players' copy of the kit, made once for this process and removed at its end."""
    with _kit_lock:
        return _made_kit()[1]
