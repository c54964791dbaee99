"""Measured times and memory of the notebooks: `data/reference/timings.json`, the only source of every stated time.

`course run` writes the file; `release.tables` writes it into the notebooks, README.md and INSTRUCTORS.md.
"""

from pathlib import Path

from gen_affect_lib.course import read_measured
from gen_affect_lib.files import write_json
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import REFERENCE

TIMINGS = REFERENCE / "timings.json"
SIZES = ("smoke", "laptop", "gpu")  # the profiles; importing `profiles` would import the drawn world
UNKNOWN = "not measured yet"


def load(path: Path = TIMINGS) -> dict:
    """{profile: {"machine": {…}, "notebooks": {name: {"seconds": s, "memory_gb": g}}}}; empty if there is no file.

    A profile may have a "note" on how it was measured. Raises UserError if the file is not JSON.
    """
    return read_measured(path)


def record(profile: str, notebook: str, seconds: float, memory_gb: float, path: Path = TIMINGS) -> dict:
    """Add one measurement made on this machine; return all. Those of the profile from another machine are dropped."""
    timings = load(path)
    machine = describe_machine()
    if timings.get(profile, {}).get("machine") != machine:
        timings[profile] = {"machine": machine, "notebooks": {}}
    measured = timings[profile]["notebooks"]
    measured[notebook] = {"seconds": round(seconds, 1), "memory_gb": round(memory_gb, 2)}
    timings[profile]["notebooks"] = dict(sorted(measured.items()))
    ordered = {size: timings[size] for size in SIZES if size in timings}
    write_json(path, ordered, indent=2)
    return ordered


def measured(timings: dict, size: str, notebook: str) -> dict | None:
    """{"seconds", "memory_gb"} of a notebook at one profile; None if it was not measured."""
    return timings.get(size, {}).get("notebooks", {}).get(notebook)


def format_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def format_cost(cost: dict) -> str:
    """Time and memory, as in "50 s, 0.6 GB"."""
    return f"{format_seconds(cost['seconds'])}, {cost['memory_gb']:.1f} GB"


def format_machine(machine: dict) -> str:
    """The machine in one phrase: the GPU if there is one, the cores, the memory, and torch's version."""
    cores = f"{machine['cores']} CPU core{'s' * (machine['cores'] != 1)} ({machine['cpu']}), {machine['memory_gb']} GB"
    where = f"{machine['gpu']}, {cores}" if machine["gpu"] else cores
    return f"{where}, torch {machine['torch']}"


def format_origin(of_profile: dict) -> str:
    """The machine on which a profile was measured, with the note on how."""
    return "; ".join(filter(None, (format_machine(of_profile["machine"]), of_profile.get("note"))))
