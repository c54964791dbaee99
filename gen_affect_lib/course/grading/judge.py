"""Judges submissions in a process that no submission enters.

`sandbox` starts this as a process, `python -m gen_affect_lib.course.grading.judge`, and sends it jobs. For each, the
judge starts a `player`, in a jail of its own, and tells it which cell to run. When a cell checks an answer, the judge
runs the check here, against the reference, with the answer `Remote`: its inputs go to the player, and its results come
back, both as plain data. What a submission does to its own process can therefore change its answers, and no verdict.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from gen_affect_lib.course.checks import Exercise, Verdict, exercises
from gen_affect_lib.course.checks.answer import Elsewhere, Failed, Unknown, Wrong
from gen_affect_lib.course.grading import reference
from gen_affect_lib.course.grading.cells import checked, defined
from gen_affect_lib.course.grading.jail import Jail, adopt_orphans
from gen_affect_lib.course.grading.player import WALL
from gen_affect_lib.course.grading.wire import Channel, Closed, decode, encode

TRIES = 4  # how often a run is started, each time without the cell that ended the one before
GUESSES = 2  # how many different answers to a prediction count
LARGEST_RETURNED = 16 * 2**20  # bytes of a file that a submission leaves
STARTS = 300.0  # seconds in which a player must be ready, on a busy machine too
_RANKS = ("unfinished", "wrong", "right")


class Ended(BaseException):
    """The player has ended, or was ended. No `except Exception` catches this: a check is left, too. words: why."""

    def __init__(self, words: str, code: int | None = None):
        super().__init__(words)
        self.words, self.code = words, code


class Late(BaseException):
    """An answer took too long."""


class KitsOwn(BaseException):
    """An answer has called the kit's own component."""


def main() -> None:
    """Judge one job after the other, lines of JSON on stdin, and write each outcome as a line to stdout."""
    adopt_orphans()
    lines: queue.Queue = queue.Queue()
    current: list[Jail] = []
    write = os.dup(1)
    os.dup2(2, 1)

    ending = threading.Event()

    def listen():
        for line in sys.stdin:
            lines.put(line)
        ending.set()  # the grader has ended
        folders, quiet = set(), 0
        for _ in range(100):  # the other thread may just be starting a player, and a folder may still be written to
            for jail in list(current):
                folders.add(jail.folder)
                jail.kill()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            quiet = 0 if any(folder.exists() for folder in folders) else quiet + 1
            if quiet == 5:
                break
            time.sleep(0.1)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    out = Channel(0, write)
    while True:
        job = json.loads(lines.get())
        try:
            outcome = judge(job, current)
        except Exception as error:
            if ending.is_set():
                time.sleep(60)  # `listen` ends this process
            traceback.print_exc()
            outcome = {"fault": f"{type(error).__name__}: {error}"}
        out.send(outcome)


def judge(job: dict[str, Any], current: list[Jail] | None = None) -> dict[str, Any]:
    """Run the cells of a submission and judge its answers; an `Outcome` as a dict.

    job: {"cells", "notebook", "seconds", "memory_gb", "profile", "helpers": {file name: where it is}, "kit": the
    player's copy of the kit, "container": the image in which to run it, or None, "returned": {path in the player's
    outputs: where to copy this file at the end}}.
    """
    return _Judging(job, current if current is not None else []).outcome()


class _Judging:
    """The judging of one submission, in several runs if one ends early."""

    def __init__(self, job: dict[str, Any], current: list[Jail]):
        self.job, self.current, self.cells = job, current, job["cells"]
        self.exercises = {exercise.name: exercise for exercise in exercises(job["notebook"])}
        sources = [_as_python(cell["source"]) for cell in self.cells]
        self.defines = [names & set(self.exercises) for names in map(defined, sources)]
        self.checks = [names & set(self.exercises) for names in map(checked, sources)]
        self.skip: dict[int, str] = {}  # {position: why this cell is left out}
        self.stuck: dict[str, str] = {}  # {exercise: why its answer is not judged again}
        self.guesses: dict[str, list[str]] = {}
        self.verdicts: dict[str, dict] = {}
        self.errors: list[dict] = []
        self.problems: list[str] = []
        self.look_at: list[str] = []
        self.at: int | None = None  # the position of the cell that runs
        self.exercise = ""  # whose answer is judged
        self.time_left = 0.0  # for the calls of this answer
        # Each exercise has computing time of its own, so that a loop elsewhere cannot use it up.
        share = job["seconds"] / 2 if self.exercises else 0.0
        self.time_of = {name: share / len(self.exercises) for name in self.exercises}
        self.time_of_others = job["seconds"] - share

    def outcome(self) -> dict[str, Any]:
        start, finished = time.monotonic(), False
        for _ in range(TRIES):
            self.errors, self.at, self.exercise = [], None, ""
            try:
                with _player(self.job, self._start_message(), self.current) as self.player:
                    self._all_cells()
                finished = True
                break
            except NotStarted as ended:
                self.problems.append(f"it did not start: {ended.words}")
                break
            except Ended as ended:
                if not self._leave_out(ended):
                    break
        else:
            self.problems.append(f"it ended early {TRIES} times, and was not run again")
        return {
            "verdicts": self.verdicts,
            "errors": self.errors,
            "problems": self.problems,
            "look_at": self.look_at,
            "seconds": time.monotonic() - start,
            "finished": finished,
        }

    def _start_message(self) -> dict[str, Any]:
        own = {name: reference.place(exercise) for name, exercise in self.exercises.items()}
        return {"profile": self.job["profile"], "memory_gb": self.job["memory_gb"], "exercises": own}

    def _leave_out(self, ended: Ended) -> bool:
        """Note what ended the run, so that the next one goes on without it. False if there is nothing to leave out."""
        if self.exercise:
            self.stuck[self.exercise] = f"`{self.exercise}` {ended.words} when it was called."
            return True
        if self.at is None:
            self.problems.append(f"the last checks {ended.words}")
            return False
        self.skip[self.at] = f"it {ended.words}, and was left out"
        self.problems.append(f"cell [{self.cells[self.at]['number']}] {ended.words}, and was left out")
        return True

    # --- the cells ---

    def _all_cells(self) -> None:
        for position, cell in enumerate(self.cells):
            self.at = position
            if position in self.skip:
                self._add_error(position, self.skip[position])
            else:
                self._one_cell(position, cell)
        self.at = None
        for name, exercise in self.exercises.items():
            if name not in self.verdicts:
                self._check(exercise, len(self.cells))

    def _one_cell(self, position: int, cell: dict) -> None:
        names = self.checks[position] - self.defines[position]
        for name in sorted(names - self._existing(names)):
            self._use_reference(self.exercises[name], position)
        own = self.checks[position] | self.defines[position]
        seconds = self.time_of_others / 2 + sum(self.time_of[name] for name in own)
        error = self._step({"do": "cell", "position": position, "source": cell["source"]}, seconds, own)
        if error is not None:
            self._add_error(position, str(error.get("error")), str(error.get("line") or ""))
        for name in sorted(self.defines[position]):
            later = range(position, len(self.cells))
            if not any(name in self.checks[k] or (name in self.defines[k] and k > position) for k in later):
                self._check(self.exercises[name], position)  # the cell with its check was deleted

    def _step(self, message: dict, seconds: float, own: set[str]) -> dict | None:
        """Let the player do something, and judge what it asks meanwhile. Returns its error.

        own: the exercises whose time it uses first.
        """
        self.player.send({**message, "seconds": seconds})
        cpu, clock = self.player.cpu(), time.monotonic()
        while True:
            reply = self.player.receive(seconds)
            if isinstance(reply.get("attempt"), str):
                judging, since = self.player.cpu(), time.monotonic()
                self._attempt(reply)
                cpu, clock = cpu + self.player.cpu() - judging, clock + time.monotonic() - since  # the exercise's own
            elif "done" in reply:
                break
            else:
                self._notice("sends messages of its own to the grader")
                raise Ended("sent what the grader does not understand")
        used = max(self.player.cpu() - cpu, (time.monotonic() - clock) / WALL)
        for name in own:
            part = min(used, self.time_of[name] / 2)
            self.time_of[name] -= part
            used -= part
        self.time_of_others -= min(used, self.time_of_others / 2)
        error = reply["done"]
        return error if isinstance(error, dict) or error is None else {"error": str(error)}

    def _existing(self, names: set[str]) -> set[str]:
        if not names:
            return set()
        self.player.send({"do": "has", "names": sorted(names)})
        has = self.player.receive(10.0).get("has")
        return set(map(str, has)) if isinstance(has, list) else set()

    def _check(self, exercise: Exercise, position: int) -> None:
        """Do what the cell with the check does, for a notebook without that cell."""
        if self._existing({exercise.name}):
            self._step({"do": "check", "name": exercise.name}, self.time_of[exercise.name], {exercise.name})
        else:
            self._use_reference(exercise, position)

    def _use_reference(self, exercise: Exercise, position: int) -> None:
        """Record that an answer is missing, and why; define the kit's own under its name for the cells below."""
        why = "is its cell still there, and was it run?"
        for k in range(min(position, len(self.cells) - 1), -1, -1):
            errors = [error for error in self.errors if error["cell"] == self.cells[k]["number"]]
            if exercise.name in self.defines[k] and errors:
                why = f"its cell stopped: {errors[-1]['error']}"
                break
        self._keep(exercise.name, Verdict("unfinished", f"there is no `{exercise.name}`: {why}"))
        source = reference.source(exercise.number.partition(".")[0].zfill(2), exercise.name)
        if exercise.is_code:
            self.player.send({"do": "give", "name": exercise.name, "source": source})
            self.player.receive(30.0)

    def _add_error(self, position: int, error: str, line: str = "") -> None:
        number = self.cells[position]["number"]
        self.errors.append({"cell": number, "error": error[:1000], "line": line[:300]})

    # --- the verdicts ---

    def _attempt(self, message: dict) -> None:
        """Judge an answer, and tell the player what the check returns."""
        exercise = self.exercises.get(message["attempt"])
        if exercise is None:
            self.player.send({"do": "verdict", "source": ""})
            return
        self.exercise = exercise.name
        self.time_left = self.time_of[exercise.name] / 2  # the rest is for a later answer
        answer = Remote(self, exercise.name, str(message.get("called"))[:60], message.get("class") is True)
        verdict = self._verdict(exercise, answer, message.get("own") is True)
        self._keep(exercise.name, verdict)
        self.exercise = ""
        source = ""
        if not verdict.right and exercise.is_code:
            source = reference.source(exercise.number.partition(".")[0].zfill(2), exercise.name)
        self.player.send({"do": "verdict", "source": source})

    def _verdict(self, exercise: Exercise, answer: Remote, own: bool) -> Verdict:
        name = exercise.name
        if name in self.stuck:
            return Verdict("wrong", self.stuck[name])
        try:
            if own:
                raise KitsOwn
            return exercise.judge(answer if exercise.is_code else self._guess(exercise, answer))
        except KitsOwn:
            if not own:
                self._notice(f"{exercise.number} calls the kit's own `{name}`")
            return exercise.judge(exercise.reference)  # the verdict on the kit's own
        except Late as late:
            return Verdict("wrong", f"`{name}` {late}: is there a loop that never ends?")

    def _guess(self, exercise: Exercise, answer: Remote) -> Callable[[], object]:
        """A prediction, evaluated; Wrong instead if there were different ones enough."""
        try:
            value = answer()
        except (NotImplementedError, Failed) as error:
            raised: Exception = error

            def fails() -> object:
                raise raised

            return fails
        guesses = self.guesses.setdefault(exercise.name, [])
        text = value.words if isinstance(value, Unknown) else json.dumps(encode(value))
        if text not in guesses:
            guesses.append(text)
        if len(guesses) > GUESSES:
            self._notice(f"{exercise.number} was guessed more than {GUESSES} times")
        if text in guesses[:GUESSES]:
            return lambda: value

        def too_many() -> object:
            raise Wrong(
                f"of a prediction, the first {GUESSES} different answers in a notebook count; this is another one."
            )

        return too_many

    def _notice(self, words: str) -> None:
        if words not in self.look_at:
            self.look_at.append(words)

    def _keep(self, name: str, verdict: Verdict) -> None:
        """Keep the best verdict on each exercise; of several wrong answers the last."""
        old = self.verdicts.get(name)
        if (
            old is None
            or _RANKS.index(verdict.state) > _RANKS.index(old["state"])
            or old["state"] == verdict.state == "wrong"
        ):
            kept = {"state": verdict.state, "message": verdict.message[:5000], "code": self._code_of(name)}
            self.verdicts[name] = {**kept, "share": verdict.share}

    def _code_of(self, name: str) -> str:
        """The code of an answer: the last cell so far that defines it."""
        before = len(self.cells) if self.at is None else self.at + 1
        return next((self.cells[k]["source"] for k in range(before - 1, -1, -1) if name in self.defines[k]), "")

    # --- calls of answers ---

    def call(self, name: str, through: tuple[str, ...], arguments: tuple, keywords: dict) -> object:
        """Call an answer in the player. Raises what the call raised there, as Wrong, NotImplementedError or Failed."""
        message = {"do": "call", "through": through, "arguments": encode(list(arguments)), "keywords": encode(keywords)}
        before = self.player.cpu()
        self.player.send({**message, "seconds": self.time_left})
        reply = self.player.receive(self.time_left)
        used = self.player.cpu() - before
        self.time_of[name] = max(0.1, self.time_of[name] - used)
        self.time_left = max(0.1, self.time_left - used)
        if reply.get("own"):
            raise KitsOwn
        if "late" in reply:
            raise Late(str(reply["late"])[:300])
        if reply.get("unfinished"):
            raise NotImplementedError
        if "wrong" in reply:
            raise Wrong(str(reply["wrong"])[:2000])
        if "error" in reply:
            raise Failed(*(str(reply.get(part, ""))[:500] for part in ("error", "message", "line")))
        try:
            for mine, changed in zip(arguments, decode(reply.get("arguments", []))):
                _overwrite(mine, changed)
            return decode(reply["result"])
        except Exception as error:
            raise Failed("an answer", "its result cannot be read") from error


class Remote(Elsewhere):
    """An answer in the player; see `Elsewhere`."""

    def __init__(self, judging: _Judging, exercise: str, called: str, kind: bool, through: tuple[str, ...] = ()):
        self._judging, self._exercise, self._through = judging, exercise, through
        self.__name__, self.is_class = called, kind

    def __call__(self, *arguments: object, **keywords: object) -> object:
        return self._judging.call(self._exercise, self._through, arguments, keywords)

    def through(self, probe: str) -> Remote:
        return Remote(self._judging, self._exercise, self.__name__, False, (*self._through, probe))


def _overwrite(mine: Any, changed: Any) -> None:
    """Make the judge's copy of an argument what the answer has made of its own, where that is possible."""
    import numpy as np
    import torch

    if isinstance(mine, torch.Tensor) and isinstance(changed, torch.Tensor):
        mine.data = changed
    elif isinstance(mine, np.ndarray) and isinstance(changed, np.ndarray):
        mine.resize(changed.shape, refcheck=False)
        mine[...] = changed
    elif isinstance(mine, list) and isinstance(changed, list):
        mine[:] = changed
    elif isinstance(mine, tuple) and isinstance(changed, tuple):
        for one, other in zip(mine, changed):
            _overwrite(one, other)
    elif isinstance(mine, torch.Generator) and isinstance(changed, torch.Generator):
        mine.set_state(changed.get_state())


def _as_python(source: str) -> str:
    """The code of a cell with its magics as calls."""
    try:
        return TransformerManager().transform_cell(source)
    except Exception:
        return source


# --- the player's process --------------------------------------------------------------------------------------------


class _player:
    """A running player in a folder of its own. On exit it is ended, with all processes that it started."""

    def __init__(self, job: dict[str, Any], start: dict[str, Any], current: list[Jail]):
        self.job, self.start, self.current = job, start, current

    def __enter__(self) -> _player:
        self.folder = Path(tempfile.mkdtemp(prefix="gen_affect_grade_"))
        self.jail = Jail(self.folder, Path(self.job["kit"]), self.job["profile"], self.job["container"])
        for name, where in self.job["helpers"].items():
            shutil.copyfile(where, self.folder / "work" / name)
        self.current.append(self.jail)
        self.jail.start()
        self.channel = Channel(self.jail.stdout, self.jail.stdin)
        self.inbox: queue.Queue[dict | None] = queue.Queue(maxsize=16)
        threading.Thread(target=self._listen, args=(self.channel, self.inbox), daemon=True).start()
        try:
            self.send({**self.start, "work": str(self.jail.inside / "work")})
            self.receive(STARTS, STARTS)
            self.jail.look_again()  # the player is there now: its time until here counts for no cell
        except Ended as ended:
            words = self.jail.last_line() or ended.words
            self.__exit__()
            raise NotStarted(words) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.jail.kill()
        for name, target in self.job.get("returned", {}).items():
            self._return(name, Path(target))
        if self.jail in self.current:
            self.current.remove(self.jail)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _return(self, name: str, target: Path) -> None:
        """Copy a file that the player has left in its outputs; a link, which could lead to another file, is none."""
        source = self.folder / "outputs" / name
        real = Path(os.path.realpath(source))
        if source.is_file() and real == Path(os.path.realpath(self.folder)) / "outputs" / name:
            if source.stat().st_size <= LARGEST_RETURNED:
                shutil.copyfile(source, target)

    @staticmethod
    def _listen(channel: Channel, inbox: queue.Queue) -> None:
        """Put the player's messages into the inbox, and None at its end."""
        try:
            while True:
                inbox.put(channel.receive())
        except Closed:
            inbox.put(None)

    def cpu(self) -> float:
        return self.jail.cpu()

    def send(self, message: dict) -> None:
        try:
            self.channel.send(message)
        except Closed:
            raise Ended(self.jail.why(self.job["memory_gb"])) from None

    def receive(self, cpu: float, wall: float | None = None) -> dict:
        """The next message. Raises Ended if the player ends, or uses more than its limits.

        Python code is stopped by the player itself at `cpu` seconds, and goes on. Code that cannot be stopped is ended
        here, a little later.
        """
        start, before = time.monotonic(), self.cpu()
        wall = WALL * cpu + 10 if wall is None else wall
        while True:
            try:
                if (message := self.inbox.get(timeout=0.05)) is None:
                    raise Ended(self.jail.why(self.job["memory_gb"]))
                return message
            except queue.Empty:
                pass
            if self.cpu() - before > 1.5 * cpu + 2 or time.monotonic() - start > wall:
                raise Ended(f"did not finish within {cpu:.3g} seconds")
            if self.jail.memory() > 1.25 * self.job["memory_gb"] * 2**30:  # on systems where `limits` sets no limit
                raise Ended(f"took more than {self.job['memory_gb']:g} GB of memory")


class NotStarted(Ended):
    """The player did not start."""


if __name__ == "__main__":
    main()
