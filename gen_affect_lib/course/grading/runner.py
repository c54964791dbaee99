"""Runs one submission cell by cell in this process, and judges its answers on the way.

`sandbox` starts this module as a process, `python -m gen_affect_lib.course.grading.runner JOB.json OUT.json`, and
watches it. There is no kernel: nothing here needs a socket, and a widget that waits for a browser cannot block it. The
progress is written to OUT.json before every step, so that the verdicts so far are kept whatever a student's code does
to this process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen_affect_lib.course.grading import limits
from gen_affect_lib.course.grading.cells import checked, defined

if TYPE_CHECKING:
    from gen_affect_lib.course.checks import Exercise, Verdict


class OutOfTime(BaseException):
    """A cell ran for too long. No `except Exception` catches this, neither a student's nor ours."""


def main(job_file: str, out_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    log = os.dup(2)
    faulthandler.enable(log)
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        run = Run(job, Path(out_file))
        os.dup2(quiet, 1)  # output of the student's code is not needed, and may be endless
        os.dup2(quiet, 2)
        limits.impose(run.memory_gb)
        run.all_cells()
    except (
        BaseException
    ):  # an error of the grader, which student's code can cause: `sandbox` reads the last line of the log
        os.write(log, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)  # does not wait for threads of the student's code


class Run:
    """The run of one notebook.

    job: written by `sandbox`: notebook, profile, cells [{"number": as in `In [number]`, "source": …}], cell_seconds,
        memory_gb, skip {position: why this cell is left out}, stuck {exercise: why its answer is not judged again}.
    out: the file for the progress: verdicts, errors, the current step ("at"), and whether it was the last ("done").
    """

    def __init__(self, job: dict[str, Any], out: Path):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        from gen_affect_lib.course.checks import Exercise, Verdict, exercises

        class Shell(InteractiveShell):
            def enable_gui(self, gui=None):
                """Does nothing: `%matplotlib inline` calls this, and there is no GUI."""

            def system(self, cmd):
                """Does nothing: `!ls` starts no program, and the cell goes on."""

            def getoutput(self, cmd, split=True, depth=0):
                return [] if split else ""

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = Shell.instance(config=config)
        self.Verdict = Verdict
        self.exercises = {exercise.name: exercise for exercise in exercises(job["notebook"])}
        self.cells, self.skip, self.stuck = job["cells"], job["skip"], job["stuck"]
        self.profile, self.seconds, self.memory_gb = job["profile"], job["cell_seconds"], job["memory_gb"]
        self.out, self.timer_runs = out, False
        self.progress: dict[str, Any] = {"verdicts": {}, "errors": [], "at": None, "done": False}
        sources = [self._as_python(cell["source"]) for cell in self.cells]
        self.defines = [names & set(self.exercises) for names in map(defined, sources)]
        self.checks = [names & set(self.exercises) for names in map(checked, sources)]
        self._record_verdicts(Exercise)
        self.save()

    def _as_python(self, source: str) -> str:
        """The code of a cell with its magics as calls."""
        try:
            return self.shell.transform_cell(source)
        except Exception:
            return source

    # --- the cells ---

    def all_cells(self) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._on_alarm)
        for position, cell in enumerate(self.cells):
            if str(position) in self.skip:
                self._add_error(cell, self.skip[str(position)])
                continue
            self._one_cell(position, cell)
        self.progress["at"] = {"cell": None}
        for name, exercise in self.exercises.items():
            if name not in self.progress["verdicts"]:
                self._check(exercise, len(self.cells))
        self.progress.update(at=None, done=True)
        self.save()

    def _one_cell(self, position: int, cell: dict) -> None:
        self.progress["at"] = {"cell": position}
        self.save()
        names = self.shell.user_ns
        for name in self.checks[position] - self.defines[position]:
            if name not in names:
                self._use_reference(self.exercises[name], position)
        _seed(zlib.crc32(cell["source"].encode()))
        error = self._timed(lambda: self._execute(cell["source"]))
        if error is not None:
            if isinstance(error, MemoryError) and self._memory_is_full():
                os._exit(limits.OUT_OF_MEMORY)  # the memory stays in use: `sandbox` runs again without this cell
            self._add_error(cell, _describe(error), _line(error))
        if "PROFILE" in names:
            names["PROFILE"] = self.profile  # the same profile for all submissions
        for name in self.defines[position]:
            later = range(position, len(self.cells))
            if not any(name in self.checks[k] or (name in self.defines[k] and k > position) for k in later):
                self._check(self.exercises[name], position)  # the cell with its check was deleted
        self.save()

    def _execute(self, source: str) -> BaseException | None:
        result = self.shell.run_cell(source, store_history=True)
        return result.error_before_exec or result.error_in_exec

    def _add_error(self, cell: dict, error: str, line: str = "") -> None:
        self.progress["errors"].append({"cell": cell["number"], "error": error, "line": line})

    def _memory_is_full(self) -> bool:
        import psutil

        return psutil.Process().memory_info().rss > self.memory_gb * 2**30 / 2

    def _check(self, exercise: Exercise, position: int) -> None:
        """Do what the cell with the check does, for a notebook without that cell."""
        names = self.shell.user_ns
        if exercise.name in names:
            self._timed(lambda: names.update({exercise.name: exercise(names[exercise.name])}))
        else:
            self._use_reference(exercise, position)

    def _use_reference(self, exercise: Exercise, position: int) -> None:
        """Record that an answer is missing, and why; define the reference under its name for the cells below."""
        why = "is its cell still there, and was it run?"
        for k in range(min(position, len(self.cells) - 1), -1, -1):
            errors = [error for error in self.progress["errors"] if error["cell"] == self.cells[k]["number"]]
            if exercise.name in self.defines[k] and errors:
                why = f"its cell stopped: {errors[-1]['error']}"
                break
        self._keep(exercise.name, self.Verdict("unfinished", f"there is no `{exercise.name}`: {why}"))
        self.shell.user_ns[exercise.name] = exercise.reference

    # --- the verdicts ---

    def _record_verdicts(self, kind: type) -> None:
        """Replace `Exercise.judge` by a method that also records the verdict, wherever a cell calls it."""
        judge = kind.judge

        def judge_and_record(exercise: Exercise, answer: Callable) -> Verdict:
            name = exercise.name
            if self.exercises.get(name) is not exercise:
                return judge(exercise, answer)
            if name in self.stuck:
                verdict = self.Verdict("wrong", self.stuck[name])
            else:
                before = self.progress["at"]
                self.progress["at"] = {**(before or {"cell": None}), "exercise": name}
                self.save()
                try:
                    verdict = judge(exercise, answer)
                except OutOfTime as late:
                    verdict = self.Verdict("wrong", f"`{name}` {late}: is there a loop that never ends?")
                    self._start_timer()
                except BaseException as error:
                    verdict = self.Verdict("wrong", f"`{name}` stopped with {_describe(error)}")
                self.progress["at"] = before
            self._keep(name, verdict)
            return verdict

        kind.judge = judge_and_record

    def _keep(self, name: str, verdict: Verdict) -> None:
        """Keep the best verdict on each exercise; of several wrong answers the last."""
        ranks = ("unfinished", "wrong", "right")
        old = self.progress["verdicts"].get(name)
        if (
            old is None
            or ranks.index(verdict.state) > ranks.index(old["state"])
            or old["state"] == verdict.state == "wrong"
        ):
            code = self._code_of(name)
            self.progress["verdicts"][name] = {"state": verdict.state, "message": verdict.message, "code": code}
        self.save()

    def _code_of(self, name: str) -> str:
        """The code of an answer: the last cell so far that defines it."""
        at = (self.progress["at"] or {}).get("cell")
        before = len(self.cells) if at is None else at + 1
        return next((self.cells[k]["source"] for k in range(before - 1, -1, -1) if name in self.defines[k]), "")

    def save(self) -> None:
        partial = self.out.with_suffix(".partial")
        partial.write_text(json.dumps(self.progress))
        os.replace(partial, self.out)

    # --- the time limit of a cell ---

    def _timed(self, step: Callable[[], BaseException | None]) -> BaseException | None:
        """Run a step under the time limit; return the error that it raised or returned."""
        self._start_timer()
        try:
            return step()
        except BaseException as error:
            return error
        finally:
            self.timer_runs = False
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _start_timer(self) -> None:
        self.timer_runs = True
        if hasattr(signal, "setitimer"):  # repeated every second, for code that catches the exception and goes on
            signal.setitimer(signal.ITIMER_REAL, self.seconds, 1.0)

    def _on_alarm(self, *_: object) -> None:
        if self.timer_runs:
            raise OutOfTime(f"did not finish within {self.seconds:g} seconds")


def _seed(seed: int) -> None:
    """Seed all generators, so that a cell draws the same numbers at every position in the notebook."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


# --- errors as text --------------------------------------------------------------------------------------------------


def _describe(error: BaseException) -> str:
    if isinstance(error, OutOfTime):
        return f"it {error}"
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an exception class of the student's
        lines = []
    return type(error).__name__ + (f": {lines[0][:300]}" if lines else "")


def _line(error: BaseException) -> str:
    """The line of the student's code that raised an error."""
    if isinstance(error, SyntaxError):
        return (error.text or "").strip()
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<ipython-input")]
    return (own[-1].line or "").strip() if own else ""


if __name__ == "__main__":
    from gen_affect_lib.course.grading import runner  # a student's notebook is `__main__` from here on

    runner.main(*sys.argv[1:])
