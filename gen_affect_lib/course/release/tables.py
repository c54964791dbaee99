"""The tables of times and exercises: in each notebook's cell tagged `timings`, in README.md and in INSTRUCTORS.md.

They are made from `data/reference/timings.json`, the titles of the notebooks and the checks; tests compare them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import nbformat

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import Exercise, exercises
from gen_affect_lib.course.timings import (
    SIZES,
    TIMINGS,
    UNKNOWN,
    format_cost,
    format_origin,
    format_seconds,
    load,
    measured,
)
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import ROOT

TAG = "timings"
BEGIN, END = "<!-- timings: written by `make timings` -->", "<!-- end of timings -->"


def refresh(readme: Path = ROOT / "README.md", path: Path = TIMINGS) -> list[str]:
    """Write the tables into every notebook, the README and INSTRUCTORS.md beside it; return the names of changed files.

    Raises UserError if a notebook has no title or no cell for its table, or a page has no marks around its table.
    """
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
    of_notebook = {name: exercises(name) for name in titles}
    for file, table in (
        (readme, readme_table(titles, timings)),
        (readme.with_name("INSTRUCTORS.md"), instructors_table(titles, of_notebook, timings)),
    ):
        text = file.read_text(encoding="utf-8")
        updated = replace_table(text, table, file.name)
        if updated != text:
            file.write_text(updated, encoding="utf-8")
            changed.append(file.name)
    return changed


def notebook_table(name: str, timings: dict) -> str:
    """The markdown of a notebook's cell tagged `timings`."""
    lines = [
        "**Time and memory**, measured by `make course`:",
        "",
        _row("`PROFILE`", "time", "memory", "measured on"),
        "| --- | --- | --- | --- |",
    ]
    for size in SIZES:
        cost = measured(timings, size, name)
        if cost is None:
            lines.append(f"| `{size}` | {UNKNOWN} | | |")
        else:
            seconds, memory = format_seconds(cost["seconds"]), f"{cost['memory_gb']:.1f} GB"
            lines.append(_row(f"`{size}`", seconds, memory, format_origin(timings[size])))
    return "\n".join(lines)


def readme_table(titles: Mapping[str, str], timings: dict) -> str:
    """The markdown of the README's table. titles: {name of a notebook: its title}, in order."""
    lines = [_row("notebook", *(f"`{size}`" for size in SIZES)), "| --- |" + " --- |" * len(SIZES)]
    lines += [_row(_link(name, title), *_costs(name, timings)) for name, title in titles.items()]
    lines += [_row("**the whole course**", *_totals(titles, timings)), ""]
    lines += [f"- `{size}`: measured on {format_origin(timings[size])}" for size in SIZES if size in timings]
    return "\n".join(lines).rstrip()


def instructors_table(titles: Mapping[str, str], of_notebook: Mapping[str, Sequence[Exercise]], timings: dict) -> str:
    """The markdown of the table in INSTRUCTORS.md. of_notebook: {name: exercises}; the rest as for `readme_table`."""
    heads = ("notebook", "exercises", "of them code", "points", "minutes of exercises")
    lines = [_row(*heads, *(f"`{size}`" for size in SIZES)), "| --- |" + " ---: |" * 4 + " --- |" * len(SIZES)]
    lines += [
        _row(_link(name, title), *_counts(of_notebook[name]), *_costs(name, timings)) for name, title in titles.items()
    ]
    everything = [exercise for name in titles for exercise in of_notebook[name]]
    lines += [_row("**the whole course**", *_counts(everything), *_totals(titles, timings)), ""]
    for size in SIZES:
        costs = timings.get(size, {}).get("notebooks", {})
        if costs:
            name = max(costs, key=lambda name: costs[name]["memory_gb"])
            lines.append(
                f"- `{size}`: measured on {format_origin(timings[size])}; a kernel takes at most "
                f"{costs[name]['memory_gb']:.1f} GB of memory (notebook {name[:2]})"
            )
        else:
            lines.append(f"- `{size}`: {UNKNOWN}")
    return "\n".join(lines)


def title_of(notebook: nbformat.NotebookNode) -> str:
    """The first heading of a notebook. Raises UserError if it has none."""
    for cell in notebook.cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line.removeprefix("# ").strip()
    raise UserError("a notebook has no title: its first cell must begin with '# '")


def replace_table(text: str, table: str, name: str = "README.md") -> str:
    """`text`, the content of the file `name`, with a new table between its marks. Raises UserError without marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{name} has lost its marks {BEGIN!r} and {END!r}: put them around the table of times")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _link(name: str, title: str) -> str:
    return f"[{title}](notebooks/{name}.ipynb)"


def _counts(chosen: Sequence[Exercise]) -> tuple[int, int, int, int]:
    """The numbers of exercises, of those whose answer is code, of points and of minutes."""
    return (
        len(chosen),
        sum(exercise.is_code for exercise in chosen),
        sum(exercise.points for exercise in chosen),
        sum(exercise.minutes for exercise in chosen),
    )


def _costs(name: str, timings: dict) -> list[str]:
    """Time and memory of a notebook at each profile."""
    costs = [measured(timings, size, name) for size in SIZES]
    return [UNKNOWN if cost is None else format_cost(cost) for cost in costs]


def _totals(names: Collection[str], timings: dict) -> list[str]:
    """The time of the whole course at each profile; empty if a notebook was not measured."""
    totals = []
    for size in SIZES:
        costs = [measured(timings, size, name) for name in names]
        complete = [cost["seconds"] for cost in costs if cost is not None]
        totals.append(format_seconds(sum(complete)) if costs and len(complete) == len(costs) else "")
    return totals
