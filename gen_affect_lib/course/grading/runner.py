"""One submission, run cell by cell in this process, its answers judged on the way.

`sandbox` starts this as a process of its own, `python -m gen_affect_lib.course.grading.runner JOB.json OUT.json`, and watches it.
There is no kernel, so nothing here needs a socket, and a widget that waits for a browser cannot hang it. What is known
is written out before every step: whatever a student's code does to this process, what came before is kept.
"""

from __future__ import annotations

import ast
import faulthandler
import json
import os
import random
import re
import signal
import sys
import traceback
import zlib
from pathlib import Path

OUT_OF_MEMORY = 77  # the exit code
LARGEST_FILE = 2**30  # bytes
_CONNECTS = {
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}
_STARTS = {
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "pty.spawn",
    "_winapi.CreateProcess",
}
_KILLS = {"os.kill", "os.killpg"}


class OutOfTime(BaseException):
    """A cell has run for too long. No `except Exception` catches it, neither a student's nor ours."""


def main(job_file: str, out_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    log = os.dup(2)  # what is printed from here on is a student's, and nobody reads it: it may be endless
    faulthandler.enable(log)
    quiet = os.open(os.devnull, os.O_WRONLY)
    try:
        run = Run(job, Path(out_file))
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        _limit(run.memory_gb)
        sys.addaudithook(_refuse)
        _refuse_spawning()
        run.all_cells()
    except BaseException:  # a fault of ours, or code that reached it: `sandbox` finds the words in the log
        os.write(log, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)  # threads that a student left behind do not keep us


class Run:
    """The run of one notebook.

    job: what `sandbox` writes: notebook, profile, cells [{"number": as in `In [number]`, "source": …}], cell_seconds,
        memory_gb, skip {position: why this cell is left out}, stuck {exercise: why its answer is not judged again}.
    out: where everything known goes: verdicts, errors, the step that runs now, and whether this was the last.
    """

    def __init__(self, job: dict, out: Path):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        from gen_affect_lib.course.checks.exercises import Exercise, Verdict, exercises

        class Shell(InteractiveShell):
            def enable_gui(self, gui=None):
                """`%matplotlib inline` asks for one, and there is none."""

            def system(self, cmd):
                """`!ls` starts no program here, and costs nothing: the cell goes on."""

            def getoutput(self, cmd, split=True, depth=0):
                return [] if split else ""

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = Shell.instance(config=config)
        self.Verdict = Verdict
        self.exercises = {exercise.name: exercise for exercise in exercises(job["notebook"])}
        self.cells, self.skip, self.stuck = job["cells"], job["skip"], job["stuck"]
        self.profile, self.seconds, self.memory_gb = job["profile"], job["cell_seconds"], job["memory_gb"]
        self.out, self.armed = out, False
        self.known = {"verdicts": {}, "errors": [], "at": None, "done": False}
        sources = [self._plain(cell["source"]) for cell in self.cells]
        self.defines = [names & set(self.exercises) for names in map(defined, sources)]
        self.checks = [names & set(self.exercises) for names in map(checked, sources)]
        self._listen(Exercise)
        self.save()

    def _plain(self, source: str) -> str:
        """A cell as Python sees it, its magics as calls."""
        try:
            return self.shell.transform_cell(source)
        except Exception:
            return source

    # --- the cells ---

    def all_cells(self) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._ring)
        for position, cell in enumerate(self.cells):
            if str(position) in self.skip:
                self.known["errors"].append({"cell": cell["number"], "error": self.skip[str(position)], "line": ""})
                continue
            self._one_cell(position, cell)
        self.known["at"] = {"cell": None}
        for name, exercise in self.exercises.items():
            if name not in self.known["verdicts"]:
                self._check_ourselves(exercise, len(self.cells))
        self.known.update(at=None, done=True)
        self.save()

    def _one_cell(self, position: int, cell: dict) -> None:
        self.known["at"] = {"cell": position}
        self.save()
        names = self.shell.user_ns
        for name in self.checks[position] - self.defines[position]:
            if name not in names:
                self._stand_in(self.exercises[name], position)
        _seed(zlib.crc32(cell["source"].encode()))
        error = self._timed(lambda: self._execute(cell["source"]))
        if error is not None:
            if isinstance(error, MemoryError) and self._is_full():
                os._exit(OUT_OF_MEMORY)  # the cell's variables hold it: `sandbox` begins again without this cell
            self.known["errors"].append({"cell": cell["number"], "error": _say(error), "line": _line(error)})
        if "PROFILE" in names:
            names["PROFILE"] = self.profile  # one size for all, whatever it was set to at home
        for name in self.defines[position]:
            later = range(position, len(self.cells))
            if not any(name in self.checks[k] or (name in self.defines[k] and k > position) for k in later):
                self._check_ourselves(self.exercises[name], position)  # the check that belongs here is gone
        self.save()

    def _execute(self, source: str):
        result = self.shell.run_cell(source, store_history=True)
        return result.error_before_exec or result.error_in_exec

    def _is_full(self) -> bool:
        import psutil

        return psutil.Process().memory_info().rss > self.memory_gb * 2**30 / 2

    def _check_ourselves(self, exercise, position: int) -> None:
        """What the cell of the check would do, where a student's notebook has none (any more)."""
        names = self.shell.user_ns
        if exercise.name in names:
            self._timed(lambda: names.update({exercise.name: exercise(names[exercise.name])}))
        else:
            self._stand_in(exercise, position)

    def _stand_in(self, exercise, position: int) -> None:
        why = "is its cell still there, and was it run?"
        for k in range(min(position, len(self.cells) - 1), -1, -1):
            broken = [known for known in self.known["errors"] if known["cell"] == self.cells[k]["number"]]
            if exercise.name in self.defines[k] and broken:
                why = f"its cell stopped: {broken[-1]['error']}"
                break
        self._keep(exercise.name, self.Verdict("unfinished", f"there is no `{exercise.name}`: {why}"))
        self.shell.user_ns[exercise.name] = exercise.reference

    # --- the verdicts ---

    def _listen(self, kind: type) -> None:
        """Hear every verdict, whatever the cell looks like in which it is given."""
        judge = kind.judge

        def overheard(exercise, answer):
            name = exercise.name
            if self.exercises.get(name) is not exercise:
                return judge(exercise, answer)
            if name in self.stuck:
                verdict = self.Verdict("wrong", self.stuck[name])
            else:
                before = self.known["at"]
                self.known["at"] = {**(before or {"cell": None}), "exercise": name}
                self.save()
                try:
                    verdict = judge(exercise, answer)
                except OutOfTime as late:
                    verdict = self.Verdict("wrong", f"`{name}` {late}: is there a loop that never ends?")
                    self._arm()
                except BaseException as error:
                    verdict = self.Verdict("wrong", f"`{name}` stopped with {_say(error)}")
                self.known["at"] = before
            self._keep(name, verdict)
            return verdict

        kind.judge = overheard

    def _keep(self, name: str, verdict) -> None:
        """The best verdict on each exercise; of several wrong answers the last."""
        ranks = ("unfinished", "wrong", "right")
        old = self.known["verdicts"].get(name)
        if (
            old is None
            or ranks.index(verdict.state) > ranks.index(old["state"])
            or old["state"] == verdict.state == "wrong"
        ):
            self.known["verdicts"][name] = {
                "state": verdict.state,
                "message": verdict.message,
                "code": self._answer(name),
            }
        self.save()

    def _answer(self, name: str) -> str:
        """The code of an answer: of the cells so far, the last that defines it."""
        at = (self.known["at"] or {}).get("cell")
        before = len(self.cells) if at is None else at + 1
        return next((self.cells[k]["source"] for k in range(before - 1, -1, -1) if name in self.defines[k]), "")

    def save(self) -> None:
        partial = self.out.with_suffix(".partial")
        partial.write_text(json.dumps(self.known))
        os.replace(partial, self.out)

    # --- the clock of a cell ---

    def _timed(self, step):
        """Run a step; return its error, or what it returns."""
        self._arm()
        try:
            return step()
        except BaseException as error:
            return error
        finally:
            self.armed = False
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _arm(self) -> None:
        self.armed = True
        if hasattr(signal, "setitimer"):  # it rings again, for code that caught it and went on
            signal.setitimer(signal.ITIMER_REAL, self.seconds, 1.0)

    def _ring(self, *_) -> None:
        if self.armed:
            raise OutOfTime(f"did not come to an end within {self.seconds:g} seconds")


# --- reading cells -----------------------------------------------------------------------------------------------------


def defined(source: str) -> set[str]:
    """The names that a cell binds or changes at its top level: by def, class, =, import, or `NAME.part = …`.

    `NAME = check_NAME(NAME)` defines nothing.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        pairs = re.findall(r"(?m)^(?:async\s+def|def|class)\s+(\w+)|^(\w+)\s*=(?!=|\s*check_)", source)
        return {name for pair in pairs for name in pair if name}
    found: set[str] = set()

    def visit(node) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
            return  # what is bound inside is its own
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and _called(node.value).startswith("check_")
        ):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            while isinstance(node, (ast.Attribute, ast.Subscript)):
                node = node.value
            if isinstance(node, ast.Name):
                found.add(node.id)
            return
        if not isinstance(node, ast.Lambda):
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(tree)
    return found


def checked(source: str) -> set[str]:
    """The exercises whose check a cell calls."""
    try:
        names = [_called(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError):
        return set(re.findall(r"\bcheck_(\w+)\s*\(", source))
    return {name.removeprefix("check_") for name in names if name.startswith("check_")}


def _called(call: ast.Call) -> str:
    """f of `f(…)` and of `module.f(…)`."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


# --- what is refused ---------------------------------------------------------------------------------------------------


def _refuse(event: str, arguments: tuple) -> None:
    """An audit hook: it cannot be taken away again. It stops accidents; whoever wants to get past it will."""
    if event in _CONNECTS:
        raise PermissionError("the network is closed while a notebook is graded")
    if event in _STARTS:
        raise PermissionError("no other program or process can be started while a notebook is graded")
    if event in _KILLS and arguments[0] != os.getpid():
        raise PermissionError("no other process can be reached while a notebook is graded")


def _refuse_spawning() -> None:
    """multiprocessing starts its processes without an audit event."""
    from multiprocessing import util

    def refuse(*_):
        raise PermissionError("no other program or process can be started while a notebook is graded")

    util.spawnv_passfds = refuse


def _limit(memory_gb: float) -> None:
    """Let an allocation fail where the limit is, so that it is an error of its cell; and no file may grow without end.

    Only Linux counts memory so; `sandbox` watches it on every system. It is not the address space (RLIMIT_AS) that is
    limited: torch reserves a gigabyte and more that it never uses.
    """
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(memory_gb * 2**30),) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE,) * 2)


def _seed(seed: int) -> None:
    """The same numbers for the same cell, wherever it stands and whatever was drawn before it."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


# --- errors in words ---------------------------------------------------------------------------------------------------


def _say(error: BaseException) -> str:
    if isinstance(error, OutOfTime):
        return f"it {error}"
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    return type(error).__name__ + (f": {lines[0][:300]}" if lines else "")


def _line(error: BaseException) -> str:
    """The line of the student's code that an error came from."""
    if isinstance(error, SyntaxError):
        return (error.text or "").strip()
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<ipython-input")]
    return (own[-1].line or "").strip() if own else ""


if __name__ == "__main__":
    from gen_affect_lib.course.grading import runner  # a student's notebook is `__main__` from here on

    runner.main(*sys.argv[1:])
