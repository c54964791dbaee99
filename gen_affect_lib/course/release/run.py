"""Runs every notebook in order, each in a kernel of its own, and measures time and memory."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks, results, timings
from gen_affect_lib.course.release import light, tables
from gen_affect_lib.errors import UserError
from gen_affect_lib.machine import PeakMemory
from gen_affect_lib.paths import NOTEBOOKS, OUTPUTS


def run_course(
    profile: str, only: str | None = None, in_place: bool = False, out: Path | None = None, reference: bool = False
) -> None:
    """Run the notebooks at one profile, and write time and memory into timings.json, the notebooks and the README.

    profile: smoke, laptop or gpu. only: as for `course.notebooks`. in_place: write the outputs into the notebooks
    themselves, as a maintainer does before a commit. out: the folder for the executed copies, by default
    outputs/course/PROFILE. reference: keep the numbers that `compare_run` prints as the reference for all readers.
    Raises UserError that names the notebook, its log and the error if one fails; the measurements before it are kept.
    """
    chosen = notebooks(only)
    if not chosen:
        raise UserError(f"there are no notebooks in {NOTEBOOKS}: run this from a clone of the repository")
    out = out or OUTPUTS / "course" / profile
    out.mkdir(parents=True, exist_ok=True)
    for file in chosen:
        print(f"{file.stem:24}", end=" ", flush=True)
        executed = out / file.name
        seconds, memory_gb = execute(file, executed, profile)
        print(f"{timings.format_seconds(seconds):>8} {memory_gb:6.1f} GB", flush=True)
        timings.record(profile, file.stem, seconds, memory_gb)
        if reference:
            results.keep_reference(file.stem, profile)
        if in_place:
            keep_outputs(executed, file)
    changed = tables.refresh()
    print(f"The executed notebooks are in {out}.")
    if changed:
        print(f"The measured times were written into {', '.join(changed)}.")


def execute(source: Path, executed: Path, profile: str) -> tuple[float, float]:
    """Run one notebook with papermill; return the seconds, kernel start included, and the kernel's peak memory in GB.

    The profile is passed as an environment variable and not as a papermill parameter, which would add a cell.
    """
    log = executed.with_suffix(".log")
    command = [sys.executable, "-m", "papermill", str(source), str(executed), "--cwd", str(source.parent)]
    command += ["-k", "python3", "--no-progress-bar", "--log-output"]
    environment = {**os.environ, "GEN_AFFECT_PROFILE": profile}
    start = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            with PeakMemory(process.pid) as memory:
                code = process.wait()
        except BaseException:
            process.terminate()  # after Ctrl-C no kernel may go on training
            process.wait()
            raise
    seconds = time.perf_counter() - start
    if code != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise UserError(f"{source.name} failed at {profile}: {lines[-1] if lines else 'no output'} (see {log})")
    return seconds, memory.peak / 2**30


BAR = re.compile(r"\d+(?:\.\d+)?(?:it|step)? \[\d+:\d\d|\d+/\d+ \[\d+:\d\d")  # of tqdm: "0/72 [00:00<?", "0step [00:00"


def _is_progress(output) -> bool:
    """Whether an output is a progress bar: on stderr, or a widget, of which a saved notebook keeps the first state."""
    data = output.get("data", {})
    widget = "application/vnd.jupyter.widget-view+json" in data
    return output.get("name") == "stderr" or (widget and bool(BAR.search(data.get("text/plain", ""))))


def keep_outputs(executed: Path, source: Path) -> None:
    """Replace a notebook by its executed copy, without the metadata and progress bars of the run."""
    original = nbformat.read(source, as_version=4)
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata = original.metadata
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", True):
            cell.metadata.pop("tags")
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
    light.compress_outputs(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, source)
