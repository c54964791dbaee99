"""Runs the cells of one submission, and calls its answers with the arguments that the judge sends.

It contains no reference answers and judges nothing.

`judge` starts this as a process, inside the limits of `jail` and `limits`, on a copy of the kit in which the modules of
checks are replaced by `stub`. The judge says what to do, one message at a time:

    {"do": "cell", "position", "source", "seconds"}    run a cell; the answer is {"done": error or None}
    {"do": "has", "names"}                             which of these names exist; {"has": [...]}
    {"do": "check", "name", "seconds"}                 check an answer whose cell with the check is missing
    {"do": "give", "name", "source"}                   define the kit's own component under its name

When a cell calls a check, the player sends {"attempt": name}, and the judge then sends any number of

    {"do": "call", "through", "arguments", "keywords", "seconds"}    call the answer, through probes

and at last {"do": "verdict", "source"}: the check returns the answer, or the kit's component if there is a source.
There is no kernel: nothing here needs a socket, and a widget that waits for a browser cannot block it.
"""

from __future__ import annotations

import ast
import faulthandler
import inspect
import json
import os
import random
import signal
import sys
import traceback
import zlib
from collections.abc import Callable
from types import CodeType
from typing import Any

from gen_affect_lib.course.grading import limits

WALL = 4  # a step may take this many times its CPU time by the clock: other processes need the CPU, too


class OutOfTime(BaseException):
    """A step ran for too long. No `except Exception` catches this, neither a student's nor ours."""


def main() -> None:
    """Read the job, a line of JSON, from stdin, and serve the judge until it closes the pipe."""
    read, write, log = os.dup(0), os.dup(1), os.dup(2)
    faulthandler.enable(log)
    quiet = os.open(os.devnull, os.O_RDWR)
    try:
        from gen_affect_lib.course.grading.wire import Channel

        channel = Channel(read, write)
        job = channel.receive()
        assert job is not None
        for standard in (0, 1, 2):  # output of the student's code is not needed, and may be endless
            os.dup2(quiet, standard)
        os.chdir(job["work"])
        Player(job, channel).serve()
    except BaseException:  # an error of the grader, which student's code can cause: the judge reads the last line
        os.write(log, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)  # does not wait for threads of the student's code


class Player:
    """One run of a notebook.

    job: {"profile", "memory_gb", "work": the folder to run in, "exercises": {name: [module, qualified name] of the
    kit's own component, or None}}.
    """

    current: Player

    def __init__(self, job: dict[str, Any], channel: Any):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

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
        self.channel, self.profile, self.memory_gb = channel, job["profile"], job["memory_gb"]
        self.kit: dict[str, list[str] | None] = job["exercises"]
        self.given: dict[str, object] = {}  # the kit's components that the judge has sent
        self.left: tuple[float, float] | None = None  # what is left of the CPU and clock time of a step that waits
        self.timer_runs, self.seconds, self.asking = False, 0.0, False
        Player.current = self
        if hasattr(signal, "setitimer"):
            for name in (signal.SIGPROF, signal.SIGALRM):
                signal.signal(name, self._on_alarm)
        sys.path.insert(0, os.getcwd())  # modules that were handed in beside the notebook
        channel.send({"ready": True})
        limits.impose(self.memory_gb)

    def serve(self) -> None:
        from gen_affect_lib.course.grading.wire import Closed

        while True:
            try:
                message = self.channel.receive()
            except Closed:
                return
            names = self.shell.user_ns
            if message["do"] == "cell":
                self.channel.send({"done": self._cell(message)})
            elif message["do"] == "has":
                self.channel.send({"has": [name for name in message["names"] if name in names]})
            elif message["do"] == "check":
                name = message["name"]
                error = self._timed(message["seconds"], lambda: names.update({name: self.ask(name, names[name])}))
                self.channel.send({"done": error and describe_error(error)})
            elif message["do"] == "give":
                names[message["name"]] = self._give(message["name"], message["source"])
                self.channel.send({"done": None})

    # --- cells ---

    def _cell(self, message: dict) -> dict | None:
        """Run a cell. Returns {"error", "line", "memory": whether the memory stays in use}; None without an error."""
        names = self.shell.user_ns
        seed(zlib.crc32(message["source"].encode()))
        error = self._timed(message["seconds"], lambda: self._execute(message["source"]))
        if "PROFILE" in names:
            names["PROFILE"] = self.profile  # the same profile for all submissions
        if error is None:
            return None
        if isinstance(error, MemoryError) and self._memory_is_full():
            os._exit(limits.OUT_OF_MEMORY)  # the memory stays in use: the judge runs again without this cell
        return {"error": describe_error(error), "line": line_of(error)}

    def _execute(self, source: str) -> BaseException | None:
        """Run a cell; return its first error.

        In a cell with imports or magics, what follows a statement that fails is run, too: a package that is missing
        here costs nothing that does not need it.
        """
        result = self.shell.run_cell(source, store_history=True)
        first = result.error_before_exec or result.error_in_exec
        error, code = result.error_in_exec, self._as_python(source)
        while isinstance(error, Exception) and (rest := after_the_fault(code, error)):
            code = rest
            error = self.shell.run_cell(rest, store_history=False).error_in_exec
        return error if isinstance(error, OutOfTime) else first

    def _as_python(self, source: str) -> str:
        """The code of a cell with its magics as calls."""
        try:
            return self.shell.transform_cell(source)
        except Exception:
            return source

    def _memory_is_full(self) -> bool:
        import psutil

        return psutil.Process().memory_info().rss > self.memory_gb * 2**30 / 2

    # --- answers ---

    def ask(self, name: str, answer: object) -> object:
        """Let the judge judge an answer, and serve it while it does. Returns what the cells below use."""
        from gen_affect_lib.course.checks.settings import own_settings

        if self.asking:
            return answer  # an answer that calls a check
        self.asking, seconds = True, self.seconds
        self._pause()
        try:
            own = any(answer is one for one in (self.given.get(name), self._kits_own(name)) if one is not None)
            called = getattr(answer, "__name__", None)
            called = called if isinstance(called, str) else type(answer).__name__
            self.channel.send({"attempt": name, "called": called, "class": isinstance(answer, type), "own": own})
            with own_settings():
                while (message := self.channel.receive())["do"] == "call":
                    self.channel.send(self._call(name, answer, message))
        finally:
            self.asking, self.seconds = False, seconds
            self._go_on()
        return self._give(name, message["source"]) if message["source"] else answer

    def _call(self, name: str, answer: Any, message: dict) -> dict:
        """Call the answer with plain data; the result as a message."""
        from gen_affect_lib.course.checks.answer import PROBES, Wrong
        from gen_affect_lib.course.checks.wording import line_of as students_line
        from gen_affect_lib.course.grading.wire import decode, encode

        arguments, reply = decode(message["arguments"]), {}
        codes = self._codes_of_the_kits_own(name)
        own = False

        def look(frame, event, _):
            nonlocal own
            own = own or (event == "call" and frame.f_code in codes)

        def call():
            function = answer
            for probe in message["through"]:
                function = PROBES[probe](function)
            sys.setprofile(look if codes else None)
            try:
                result = function(*arguments, **decode(message["keywords"]))
            finally:
                sys.setprofile(None)
            reply["result"] = encode(result)

        error = self._timed(message["seconds"], call)
        if isinstance(error, OutOfTime):
            reply = {"late": str(error)}
        elif isinstance(error, NotImplementedError):
            reply = {"unfinished": True}
        elif isinstance(error, Wrong):
            reply = {"wrong": str(error)}
        elif error is not None:
            kind, _, text = describe_error(error).partition(": ")
            line = students_line(error) if isinstance(error, Exception) else ""
            reply = {"error": kind, "message": text, "line": line}
        else:
            after = encode(arguments)
            if json.dumps(after) != json.dumps(message["arguments"]):
                reply["arguments"] = after
        return reply | ({"own": True} if own else {})

    def _kits_own(self, name: str) -> Any:
        """The kit's component for an exercise, if its module is imported; None if it has none."""
        module, path = self.kit.get(name) or ("", "")
        found: Any = sys.modules.get(module)
        for part in filter(None, path.split(".")):
            found = getattr(found, part, None)
        return found

    def _codes_of_the_kits_own(self, name: str) -> set[CodeType]:
        return {code for one in (self.given.get(name), self._kits_own(name)) for code in codes_of(one)}

    def _give(self, name: str, source: str) -> object:
        """The kit's component, defined by its source."""
        space: dict[str, Any] = {"__name__": "gen_affect_lib_component"}
        exec(compile(source, "<the kit>", "exec"), space)
        self.given[name] = space["reference"]
        return space["reference"]

    # --- time limits ---

    def _timed(self, seconds: float, step: Callable[[], Any]) -> BaseException | None:
        """Run a step under a limit of CPU time, and a wider one by the clock; return the error that it raised."""
        self._start_timers(seconds, WALL * seconds)
        self.seconds = seconds
        try:
            error = step()
            return error if isinstance(error, BaseException) else None
        except BaseException as error:
            return error
        finally:
            self._stop_timers()

    def _start_timers(self, cpu: float, wall: float) -> None:
        self.timer_runs = True
        if hasattr(signal, "setitimer"):  # repeated every second, for code that catches the exception and goes on
            signal.setitimer(signal.ITIMER_PROF, max(cpu, 0.01), 1.0)
            signal.setitimer(signal.ITIMER_REAL, max(wall, 0.01), 1.0)

    def _stop_timers(self) -> tuple[float, float]:
        self.timer_runs = False
        if not hasattr(signal, "setitimer"):
            return 0.0, 0.0
        return signal.setitimer(signal.ITIMER_PROF, 0)[0], signal.setitimer(signal.ITIMER_REAL, 0)[0]

    def _pause(self) -> None:
        self.left = self._stop_timers()

    def _go_on(self) -> None:
        self._start_timers(*(self.left or (1.0, 1.0)))

    def _on_alarm(self, *_: object) -> None:
        if self.timer_runs:
            raise OutOfTime(f"did not finish within {self.seconds:.3g} seconds")


def after_the_fault(code: str, error: Exception) -> str:
    """The statements of a cell after the one that raised an error, if the cell has imports or magics; else empty."""
    try:
        statements = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError):
        return ""
    if not any(
        isinstance(one, (ast.Import, ast.ImportFrom)) or "get_ipython().run_" in ast.unparse(one) for one in statements
    ):
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == "<module>"]
    frames = [frame for frame in frames if frame.filename.startswith("<ipython-input") or "ipykernel" in frame.filename]
    if not frames:
        return ""
    at = frames[-1].lineno or 0
    later = [one for one in statements if first_line(one) > at]
    return "\n".join(code.splitlines()[first_line(later[0]) - 1 :]) if later else ""


def first_line(statement: ast.stmt) -> int:
    """The line of a statement, or of its first decorator."""
    return min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])


def codes_of(component: Any) -> list[CodeType]:
    """The code of a function, or of the functions that a class defines itself."""
    functions = list(vars(component).values()) if isinstance(component, type) else [component]
    functions = [getattr(one, "__func__", one) for one in functions]  # of a class method
    functions = [inspect.unwrap(one) for one in functions if callable(one)]
    return [one.__code__ for one in functions if hasattr(one, "__code__")]


def seed(number: int) -> None:
    """Seed all generators, so that a cell draws the same numbers at every position in the notebook."""
    import numpy as np
    import torch

    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


# --- errors as text --------------------------------------------------------------------------------------------------


def describe_error(error: BaseException) -> str:
    """An error in one line: its kind, and what it says."""
    if isinstance(error, OutOfTime):
        return f"it {error}"
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an exception class of the student's
        lines = []
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    missing = f" (the package {package} is not installed where this was graded)" if package != "gen_affect_lib" else ""
    missing = missing if package else ""
    return type(error).__name__ + (f": {lines[0][:300]}{missing}" if lines else "")


def line_of(error: BaseException) -> str:
    """The line of the cell that raised an error."""
    if isinstance(error, SyntaxError):
        return (error.text or "").strip()
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<ipython-input")]
    return (own[-1].line or "").strip() if own else ""
