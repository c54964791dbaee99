"""Every notebook in order, whole, in a kernel of its own, with its seconds and its memory measured."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil

from gen_affect_lib.course import notebooks, results, timings
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import NOTEBOOKS, OUTPUTS


def run_course(profile: str, only: str | None = None, in_place: bool = False, out: Path | None = None,
               reference: bool = False) -> None:
    """Run the notebooks at one profile and write what they cost into timings.json, the notebooks and the README.

    profile: smoke, laptop or gpu. only: as for `course.notebooks`. in_place: keep the outputs in the notebooks
    themselves, as a maintainer does before a commit. out: where the executed copies go, outputs/course/PROFILE.
    reference: make the numbers that the notebooks compare the reference for every reader.
    Raises UserError naming the notebook, its log and the error when one fails; the measurements before it are kept.
    """
    chosen = notebooks(only)
    if not chosen:
        raise UserError(f"there are no notebooks in {NOTEBOOKS}: run this from the repository's clone")
    out = out or OUTPUTS / "course" / profile
    out.mkdir(parents=True, exist_ok=True)
    for file in chosen:
        print(f"{file.stem:24}", end=" ", flush=True)
        executed = out / file.name
        seconds, memory_gb = execute(file, executed, profile)
        print(f"{timings.say_seconds(seconds):>8} {memory_gb:6.1f} GB", flush=True)
        timings.record(profile, file.stem, seconds, memory_gb)
        if reference:
            results.keep_reference(file.stem, profile)
        if in_place:
            keep_outputs(executed, file)
    changed = timings.refresh()
    print(f"Executed notebooks are in {out}. " + (f"Times written into {', '.join(changed)}." if changed else ""))


def execute(source: Path, executed: Path, profile: str) -> tuple[float, float]:
    """Run one notebook through papermill; return its seconds, kernel start included, and its peak memory in GB.

    The profile goes in as an environment variable, not as a papermill parameter: the executed notebook then has no
    other cells than the one that people read.
    """
    log = executed.with_suffix(".log")
    command = [sys.executable, "-m", "papermill", str(source), str(executed), "--cwd", str(source.parent),
               "-k", "python3", "--no-progress-bar", "--log-output"]
    environment = {**os.environ, "GEN_AFFECT_PROFILE": profile}
    start = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            with PeakMemory(process.pid) as memory:
                code = process.wait()
        except BaseException:
            process.terminate()  # a student's Ctrl-C must not leave a kernel that trains on
            process.wait()
            raise
    seconds = time.perf_counter() - start
    if code != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise UserError(f"{source.name} failed at {profile}: {lines[-1] if lines else 'no output'} (see {log})")
    return seconds, memory.peak / 2**30


class PeakMemory:
    """The largest resident memory, in bytes, of all descendants of a process while the `with` block runs.

    The process itself is left out: it is papermill, and what a reader wants to know is what the kernel takes.
    """

    def __init__(self, pid: int, every: float = 0.2):
        self.peak = 0
        self._root = psutil.Process(pid)
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.is_set():
            total = 0
            try:
                for child in self._root.children(recursive=True):
                    try:
                        total += child.memory_info().rss
                    except psutil.Error:
                        pass  # it ended while we looked
            except psutil.Error:
                return
            self.peak = max(self.peak, total)
            self._stop.wait(self._every)


def keep_outputs(executed: Path, source: Path) -> None:
    """Put an executed notebook in its source's place, without what papermill and the machine wrote about themselves."""
    original = nbformat.read(source, as_version=4)
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata = original.metadata
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", True):
            cell.metadata.pop("tags")
        if cell.cell_type == "code":  # progress bars are for those who wait, a line for every time they moved
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.validate(notebook)
    nbformat.write(notebook, source)
