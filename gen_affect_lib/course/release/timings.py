"""Measured times: where they are kept, and the tables that state them.

`data/reference/timings.json` is the one source. A notebook's cell tagged `timings` and the tables in README.md and
INSTRUCTORS.md are written from it, and tests hold them against it, so that no stated time is a guess.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks, read_measured
from gen_affect_lib.errors import UserError
from gen_affect_lib.machine import describe_machine
from gen_affect_lib.paths import REFERENCE, ROOT

TIMINGS = REFERENCE / "timings.json"
SIZES = ("smoke", "laptop", "gpu")
TAG = "timings"
BEGIN, END = "<!-- timings: written by `make timings` -->", "<!-- end of timings -->"
UNKNOWN = "not measured yet"


def load(path: Path = TIMINGS) -> dict:
    """{profile: {"machine": {…}, "notebooks": {name: {"seconds": s, "memory_gb": g}}}}; empty when nothing is known.

    A profile may have a "note" on how it was measured.
    """
    return read_measured(path)


def record(profile: str, notebook: str, seconds: float, memory_gb: float, path: Path = TIMINGS) -> dict:
    """Add one measurement, made on this machine, and return all. Another machine's figures of that profile go."""
    timings = load(path)
    machine = describe_machine()
    if timings.get(profile, {}).get("machine") != machine:
        timings[profile] = {"machine": machine, "notebooks": {}}
    measured = timings[profile]["notebooks"]
    measured[notebook] = {"seconds": round(seconds, 1), "memory_gb": round(memory_gb, 2)}
    timings[profile]["notebooks"] = dict(sorted(measured.items()))
    ordered = {size: timings[size] for size in SIZES if size in timings}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ordered, indent=2) + "\n")
    return ordered


# --- the tables ------------------------------------------------------------------------------------------------------


def say_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def say_machine(machine: dict) -> str:
    """One phrase: the GPU where there is one, else the cores."""
    cores = f"{machine['cores']} CPU core{'s' * (machine['cores'] != 1)} ({machine['cpu']}), {machine['memory_gb']} GB"
    where = f"{machine['gpu']}, {cores}" if machine["gpu"] else cores
    return f"{where}, torch {machine['torch']}"


def say_where(measured: dict) -> str:
    """The machine of one profile's figures, and what else is to be known of them."""
    return "; ".join(filter(None, (say_machine(measured["machine"]), measured.get("note"))))


def notebook_table(name: str, timings: dict) -> str:
    """The markdown of a notebook's cell tagged `timings`."""
    lines = [
        "**Time and memory**, measured by `make course`:",
        "",
        "| `PROFILE` | time | memory | measured on |",
        "| --- | --- | --- | --- |",
    ]
    for size in SIZES:
        measured = timings.get(size, {}).get("notebooks", {}).get(name)
        if measured is None:
            lines.append(f"| `{size}` | {UNKNOWN} | | |")
        else:
            lines.append(
                f"| `{size}` | {say_seconds(measured['seconds'])} | {measured['memory_gb']:.1f} GB "
                f"| {say_where(timings[size])} |"
            )
    return "\n".join(lines)


def readme_table(titles: dict[str, str], timings: dict) -> str:
    """The markdown of the README's table. titles: {notebook's name: its title}, in order."""
    lines = ["| notebook | " + " | ".join(f"`{size}`" for size in SIZES) + " |", "| --- |" + " --- |" * len(SIZES)]
    lines += [_row(f"[{title}](notebooks/{name}.ipynb)", *_costs(name, timings)) for name, title in titles.items()]
    lines += [_row("**the whole course**", *_totals(titles, timings)), ""]
    lines += [f"- `{size}`: measured on {say_where(timings[size])}" for size in SIZES if size in timings]
    return "\n".join(lines).rstrip()


def instructors_table(titles: dict[str, str], asked: Mapping[str, Sequence], timings: dict) -> str:
    """The markdown of the table in INSTRUCTORS.md. asked: {notebook's name: its exercises}; the rest as for `readme_table`."""

    def counts(chosen) -> tuple[int, ...]:
        return (
            len(chosen),
            sum(exercise.is_code for exercise in chosen),
            sum(exercise.points for exercise in chosen),
            sum(exercise.minutes for exercise in chosen),
        )

    lines = [
        _row(
            "notebook", "exercises", "of them code", "points", "minutes of exercises", *(f"`{size}`" for size in SIZES)
        ),
        "| --- |" + " ---: |" * 4 + " --- |" * len(SIZES),
    ]
    lines += [
        _row(f"[{title}](notebooks/{name}.ipynb)", *counts(asked[name]), *_costs(name, timings))
        for name, title in titles.items()
    ]
    everything = [exercise for name in titles for exercise in asked[name]]
    lines += [_row("**the whole course**", *counts(everything), *_totals(titles, timings)), ""]
    for size in SIZES:
        measured = timings.get(size, {}).get("notebooks", {})
        if measured:
            name = max(measured, key=lambda name: measured[name]["memory_gb"])
            lines.append(
                f"- `{size}`: measured on {say_where(timings[size])}; a kernel takes at most "
                f"{measured[name]['memory_gb']:.1f} GB of memory (notebook {name[:2]})"
            )
        else:
            lines.append(f"- `{size}`: {UNKNOWN}")
    return "\n".join(lines)


def _row(*cells) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _costs(name: str, timings: dict) -> list[str]:
    """Time and memory of a notebook, one for each profile."""
    known = [timings.get(size, {}).get("notebooks", {}).get(name) for size in SIZES]
    return [UNKNOWN if one is None else f"{say_seconds(one['seconds'])}, {one['memory_gb']:.1f} GB" for one in known]


def _totals(names, timings: dict) -> list[str]:
    """The time of the whole course, one for each profile; empty where not all of it was measured."""
    totals = []
    for size in SIZES:
        measured = timings.get(size, {}).get("notebooks", {})
        whole = bool(names) and all(name in measured for name in names)
        totals.append(say_seconds(sum(measured[name]["seconds"] for name in names)) if whole else "")
    return totals


def title_of(notebook) -> str:
    """The first heading of a notebook that nbformat has read."""
    for cell in notebook.cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line.removeprefix("# ").strip()
    raise UserError("a notebook has no title: its first cell must begin with '# '")


# --- writing them in -------------------------------------------------------------------------------------------------


def refresh(readme: Path = ROOT / "README.md", path: Path = TIMINGS) -> list[str]:
    """Write the tables into every notebook, the README and INSTRUCTORS.md beside it; return the names of the files that changed."""
    from gen_affect_lib.course.checks.exercises import exercises  # here: the checks import all that they check

    timings = load(path)
    changed, titles = [], {}
    for file in notebooks():
        notebook = nbformat.read(file, as_version=4)
        titles[file.stem] = title_of(notebook)
        cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", ())]
        if len(cells) != 1:
            raise UserError(f"{file.name} has {len(cells)} cells tagged {TAG!r}: give it exactly one markdown cell")
        table = notebook_table(file.stem, timings)
        if cells[0].source != table:
            cells[0].source = table
            nbformat.write(notebook, file)
            changed.append(file.name)
    asked = {name: exercises(name) for name in titles}
    for file, table in (
        (readme, readme_table(titles, timings)),
        (readme.with_name("INSTRUCTORS.md"), instructors_table(titles, asked, timings)),
    ):
        text = file.read_text(encoding="utf-8")
        updated = replace_between(text, table, file.name)
        if updated != text:
            file.write_text(updated, encoding="utf-8")
            changed.append(file.name)
    return changed


def replace_between(text: str, table: str, name: str = "README.md") -> str:
    """`text`, that of the file `name`, with what stands between the two markers replaced by `table`."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{name} has lost its marks {BEGIN!r} and {END!r}: put them around the table of times")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"
