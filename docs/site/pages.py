"""Prepares the pages of the site in a folder for Sphinx: notebooks, map, glossary, API."""

import base64
import copy
import hashlib
import html
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import nbformat

from gen_affect_lib.course import notebooks, project_notebooks
from gen_affect_lib.course.release.student import student_edition
from gen_affect_lib.paths import NOTEBOOKS, ROOT

HERE = Path(__file__).parent
README = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?P<claim>.+?) \| `(?P<function>gen_affect_lib[\w.]+)`(?P<here> \(here `[^`]+`\))? "
    r"\| \[(?P<place>[^\]]+)\]\((?P<file>\w+)\.ipynb#cell-id=(?P<cell>[\w-]+)\) \|$"
)
TERM = re.compile(r"^\| (?P<term>[^|]+?) \| (?P<meaning>[^|]+) \| \[(?P<number>\d\d)\]\((?P<file>\w+)\.ipynb\) \|$")
MORE = ["gen_affect_lib.pipeline", "gen_affect_lib.export"]  # documented in addition to the modules on the map
SEE = "Show the solution"
PROJECT = "project_"  # before the name of a project's notebook, in the names of its page and its download


class Repository(NamedTuple):
    """Where a fork is published: "owner/name" on GitHub, and the branch. Empty: nowhere, so there are no such links."""

    name: str = ""
    branch: str = "main"

    def links(self, notebook: str) -> list[tuple[str, str]]:
        """Links that open a notebook elsewhere: (text, address)."""
        if not self.name:
            return []
        path = f"notebooks/{notebook}"
        return [
            ("open in Colab", f"https://colab.research.google.com/github/{self.name}/blob/{self.branch}/{path}"),
            ("open in Binder", f"https://mybinder.org/v2/gh/{self.name}/{self.branch}?urlpath=lab/tree/{path}"),
            ("source", f"https://github.com/{self.name}/blob/{self.branch}/{path}"),
        ]


def write_pages(folder: Path, repository: Repository, solutions: bool) -> None:
    """Write all generated pages; `solutions`: whether the solutions of exercises are there, folded."""
    (folder / "_static" / "notebooks").mkdir(parents=True, exist_ok=True)
    (folder / "_static" / "pictures").mkdir(exist_ok=True)
    rows = [match.groupdict() for line in README.splitlines() if (match := ROW.match(line))]
    terms = [match.groupdict() for line in README.splitlines() if (match := TERM.match(line))]
    for file in notebooks():
        notebook = nbformat.read(file, 4)
        students = student_edition(notebook)
        page = prepared(notebook, students, file.stem, folder, repository, solutions, rows, terms)
        nbformat.write(page, folder / file.name)
        nbformat.write(students, folder / "_static" / "notebooks" / file.name)
    for file in project_notebooks():
        notebook, name = nbformat.read(file, 4), f"{PROJECT}{file.stem}"
        students = student_edition(notebook)
        page = prepared(notebook, students, name, folder, repository, solutions, [], [])
        page.cells.pop()  # a project teaches nothing that is on the map
        nbformat.write(page, folder / f"{name}.ipynb")
        nbformat.write(students, folder / "_static" / "notebooks" / f"{name}.ipynb")
    (folder / "projects.md").write_text(projects_page(), encoding="utf-8")
    (folder / "map.md").write_text(map_page(rows), encoding="utf-8")
    (folder / "glossary.md").write_text(glossary_page(), encoding="utf-8")
    (folder / "reading.md").write_text(without_suffix("# What to read next\n" + section("What to read next")), "utf-8")
    (folder / "run.md").write_text(run_page(repository), encoding="utf-8")
    (folder / "fullscale.md").write_text((ROOT / "docs" / "fullscale.md").read_text(encoding="utf-8"), encoding="utf-8")
    write_api(folder / "api", sorted({module_of(row["function"]) for row in rows} | set(MORE)))


# The notebooks


def prepared(
    notebook: nbformat.NotebookNode,
    students: nbformat.NotebookNode,
    name: str,
    folder: Path,
    repository: Repository,
    solutions: bool,
    rows: list[dict],
    terms: list[dict],
) -> nbformat.NotebookNode:
    """The page of a notebook: exercises without solutions, pictures as files with descriptions, labels for the map."""
    page, cleared = copy.deepcopy(notebook), {cell.id: cell.source for cell in students.cells}
    linked = {row["cell"] for row in rows if row["file"] == name}
    cells = []
    for cell in page.cells:
        if cell.id in linked:
            cells.append(nbformat.v4.new_markdown_cell(f"({label(name, cell.id)})="))
        if cell.cell_type == "markdown":
            cell.source = without_suffix(cell.source)
        else:
            cell.outputs = [shown(output, folder) for output in cell.outputs if not is_widget(output)]
            cell.outputs = [output for output in cell.outputs if output is not None]
        whole = cell.source
        cell.source = cleared[cell.id] if cell.cell_type == "code" else cell.source
        cells.append(cell)
        if solutions and cell.cell_type == "code" and whole != cell.source:
            lines = [
                line for line in whole.splitlines() if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION")
            ]
            fold = {
                "tags": ["hide-input"],
                "mystnb": {"code_prompt_show": SEE, "code_prompt_hide": "Hide the solution"},
            }
            cells.append(nbformat.v4.new_code_cell("\n".join(lines), metadata=fold))
    cells.insert(1, nbformat.v4.new_markdown_cell(open_elsewhere(name, repository)))
    cells.append(nbformat.v4.new_markdown_cell(on_the_map(name, rows, terms)))
    page.cells = cells
    return page


def open_elsewhere(name: str, repository: Repository) -> str:
    download = f'<a href="_static/notebooks/{name}.ipynb" download>download the notebook</a>'
    place = f"projects/{name.removeprefix(PROJECT)}.ipynb" if name.startswith(PROJECT) else f"{name}.ipynb"
    others = [f'<a href="{address}">{text}</a>' for text, address in repository.links(place)]
    how = '<a href="run.html">how to run it</a>'
    return f'<p class="elsewhere">{" · ".join([download, *others, how])}</p>'


def is_widget(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a panel with sliders, which needs a kernel."""
    return any("widget-view" in kind for kind in output.get("data", {}))


def shown(output: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode | None:
    """An output as the page shows it: a picture as a file with its description.

    Before each picture a notebook has the description once more, as an empty element for screen readers, which is left
    out: None.
    """
    data = output.get("data", {})
    if re.fullmatch(r'<div role="img" aria-label="[^"]*"></div>', "".join(data.get("text/html", "")).strip()):
        return None
    if "image/png" in data:
        details = output.metadata.get("image/png", {})
        content = base64.b64decode(data["image/png"])
        file = f"{hashlib.sha256(content).hexdigest()[:16]}.png"
        (folder / "_static" / "pictures" / file).write_bytes(content)
        width = f' width="{details["width"]}"' if "width" in details else ""
        alt = html.escape(details.get("alt", ""))
        picture = f'<img src="_static/pictures/{file}" alt="{alt}"{width} loading="lazy">'
        return nbformat.v4.new_output("display_data", {"text/html": picture})
    return output


def on_the_map(name: str, rows: list[dict], terms: list[dict]) -> str:
    """The last section of a page: its rows on the map, and the terms of the glossary that it explains."""
    lines = ["## On the map", "", "What this notebook teaches, and the [function](map.md) that computes it:", ""]
    for row in (row for row in rows if row["file"] == name):
        lines.append(f"- [{row['claim']}](#{label(name, row['cell'])}): {reference(row['function'])}")
    if len(lines) == 4:
        lines = ["## On the map", "", "This notebook shows the whole; the [map](map.md) leads to each part."]
    words = [
        f'<a href="glossary.html#{term_label(term["term"])}">{term["term"]}</a>'
        for term in terms
        if term["file"] == name
    ]
    if words:
        lines += ["", f"Terms in the [glossary](glossary.md): {', '.join(words)}."]
    return "\n".join(lines)


def label(notebook: str, cell: str) -> str:
    return f"cell-{notebook[:2]}-{cell}"


def term_label(term: str) -> str:
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def without_suffix(text: str) -> str:
    """Links to notebooks, and to the page on full scale, as links to pages of the site."""
    text = text.replace("](../docs/fullscale.md)", "](fullscale.md)")
    text = text.replace("](README.md", "](projects.md")  # in the notebooks of projects
    return re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.ipynb)", text)


# Map and glossary


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def map_page(rows: list[dict]) -> str:
    """The map of notebooks/README.md, with links into the pages and to the API."""
    by_line = {row["claim"] + row["cell"]: row for row in rows}
    lines = ["# Map of the course", ""]
    for line in section("The map").splitlines():
        match = ROW.match(line)
        if match:
            row = by_line[match["claim"] + match["cell"]]
            here, place = row["here"] or "", f"[{row['place']}](#{label(row['file'], row['cell'])})"
            line = f"| {row['claim']} | {reference(row['function'])}{here} | {place} |"
        lines.append(re.sub(r"^###", "##", line).replace("In JupyterLab a link opens the", "A link opens the"))
    return "\n".join(lines)


def projects_page() -> str:
    """notebooks/projects/README.md, with links to the pages of the projects."""
    text = (NOTEBOOKS / "projects" / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((\w+)\.ipynb\)", rf"]({PROJECT}\1.ipynb)", text)


def glossary_page() -> str:
    lines = ["# Glossary", ""]
    for line in section("Glossary").splitlines():
        match = TERM.match(line)
        if match:
            place = f'<span id="{term_label(match["term"])}"></span>{match["term"]}'
            line = f"| {place} | {match['meaning']} | [{match['number']}]({match['file']}.ipynb) |"
        lines.append(line)
    return "\n".join(lines)


# The API


def module_of(dotted: str) -> str:
    """The module in which a public name is defined."""
    return resolved(dotted)[0]


def resolved(dotted: str) -> tuple[str, str]:
    """A public name as (the module that defines it, its name there)."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            thing = getattr(thing, part)
        module = getattr(thing, "__module__", None) or ".".join(parts[:end])
        name = getattr(thing, "__qualname__", ".".join(parts[end:]))
        return (dotted, "") if inspect.ismodule(thing) else (module, name)
    raise LookupError(f"{dotted} is no name of the library")


def reference(dotted: str) -> str:
    """A link to the API."""
    module, name = resolved(dotted)
    return f"{{py:obj}}`{dotted.removeprefix('gen_affect_lib.')} <{module}{'.' if name else ''}{name}>`"


def write_api(folder: Path, modules: list[str]) -> None:
    """One page for each module, and an index with their first sentences."""
    folder.mkdir(exist_ok=True)
    lines = [
        "# API",
        "",
        "The modules on the [map](../map.md), from their docstrings.",
        "",
        "| module | |",
        "| --- | --- |",
    ]
    for name in modules:
        about = (import_module(name).__doc__ or "").strip().split("\n\n")[0].replace("\n", " ").replace("|", r"\|")
        lines.append(f"| [{name.removeprefix('gen_affect_lib.')}]({name}.rst) | {about} |")
        title = name.removeprefix("gen_affect_lib.")
        body = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n"
        (folder / f"{name}.rst").write_text(body)
    toctree = ["", "```{toctree}", ":hidden:", "", *modules, "```", ""]
    (folder / "index.md").write_text("\n".join(lines + toctree), encoding="utf-8")


# How to run the notebooks


def run_page(repository: Repository) -> str:
    """How to run the notebooks: text/run.md, and of a published fork also text/hosted.md."""
    texts = [HERE / "text" / name for name in (["run.md", "hosted.md"] if repository.name else ["run.md"])]
    text = "\n".join(file.read_text(encoding="utf-8") for file in texts)
    address = f"https://github.com/{repository.name}" if repository.name else "ADDRESS_OF_THE_REPOSITORY"
    return text.replace("REPOSITORY_ADDRESS", address).replace("BRANCH", repository.branch)
