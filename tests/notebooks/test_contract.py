"""What every notebook has."""

import ast
import re

import pytest

from gen_affect_lib.course import notebooks, project_notebooks, timings
from gen_affect_lib.course.release import tables
from gen_affect_lib.display import SHORTEST_ALT

ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|mnt|opt|usr|var|Users|data|content)/\w|\b[A-Z]:\\\w")
LARGEST = 1_500_000  # bytes of a notebook with its outputs; the hook in .pre-commit-config.yaml has the same limit
ALL_TOGETHER = 12_000_000


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def pictures(notebook):
    return [output for output in outputs(notebook) if any(kind.startswith("image/") for kind in output.get("data", {}))]


def printed(output) -> str:
    """The text of an output, without its pictures."""
    data = output.get("data", {})
    kinds = ("text/plain", "text/html", "text/markdown")
    return output.get("text", "") + "".join(str(data.get(kind, "")) for kind in kinds)


def test_the_notebooks_are_numbered_without_a_gap():
    numbers = [int(path.stem[:2]) for path in notebooks()]
    assert numbers == list(range(len(numbers))) and len(numbers) >= 11


def test_opens_with_a_title_and_one_sentence(notebook):
    lines = [line for line in notebook.cells[0].source.splitlines() if line.strip()]
    assert notebook.cells[0].cell_type == "markdown" and lines[0].startswith("# ")
    paragraphs = [block.strip() for block in notebook.cells[0].source.split("\n\n") if block.strip()]
    opening = " ".join(paragraphs[1].split()).strip("*_ ")
    assert opening.endswith("."), opening
    assert not re.search(r"[.!?]\s+[A-Z]", opening), f"more than one sentence: {opening}"


def test_says_its_objectives_and_prerequisites(notebook):
    """In the first cells, before any code, each as a list or a sentence under its heading."""
    first_code = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    opening = "\n\n".join(cell.source for cell in notebook.cells[:first_code])
    objectives = re.search(r"(?im)^(?:#+ |\*\*)[^\n]*objectives[^\n]*\n+((?:[-*\d][^\n]*\n?|  [^\n]*\n?)+)", opening)
    assert objectives and len(re.findall(r"(?m)^[-*\d]", objectives.group(1))) >= 2, "a list of at least two objectives"
    assert re.search(r"(?im)^(?:#+ |\*\*)[^\n]*prerequisites\W*\w", opening)


def test_states_the_times_that_were_measured(path, notebook):
    cells = tagged(notebook, tables.TAG)
    assert len(cells) == 1 and cells[0].cell_type == "markdown"
    assert cells[0].source == tables.notebook_table(path.stem, timings.load()), "run `make timings`"


def test_smoke_and_laptop_were_measured(path):
    measured = timings.load()
    for size in ("smoke", "laptop"):
        known = measured[size]["notebooks"][path.stem]
        assert known["seconds"] > 0 and known["memory_gb"] > 0


def test_has_one_cell_of_parameters_with_the_profile(notebook):
    cells = tagged(notebook, "parameters")
    assert len(cells) == 1 and cells[0].cell_type == "code"
    assert "PROFILE = default_profile()" in cells[0].source
    values = {
        target.id for node in ast.parse(cells[0].source).body if isinstance(node, ast.Assign) for target in node.targets
    }
    assert "PROFILE" in values


def test_ends_with_a_summary_and_what_comes_next(notebook):
    last = prose(notebook)[-2:]
    assert notebook.cells[-1].cell_type == "markdown"
    assert re.search(r"(?im)^(?:#+ |\*\*)[^\n]*summary", "\n".join(last))
    assert re.search(r"(?im)^(?:#+ |\*\*)[^\n]*what comes next", notebook.cells[-1].source)


def test_is_a_plain_python3_notebook(path, notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert not notebook.metadata.get("widgets"), "widget states make a notebook larger and need a kernel"
    assert "papermill" not in notebook.metadata


def test_is_small_enough_to_commit(path):
    size = path.stat().st_size
    assert size <= LARGEST, f"{size / 1e6:.1f} MB: compress its pictures with `make light`, or show fewer"


def test_all_notebooks_together_are_small_enough_to_clone():
    size = sum(path.stat().st_size for path in (*notebooks(), *project_notebooks()))
    assert size <= ALL_TOGETHER, f"{size / 1e6:.1f} MB: compress the pictures with `make light`, or show fewer"


def test_was_run_from_top_to_bottom_without_an_error(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), counts
    assert outputs(notebook)
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


def test_shows_no_warnings(notebook):
    stderr = [output.text for output in outputs(notebook) if output.get("name") == "stderr"]
    assert not [text for text in stderr if "Warning" in text or "Traceback" in text]


def test_every_picture_is_described(notebook):
    assert pictures(notebook), "a notebook without a picture"
    alts = [output.metadata.get("image/png", {}).get("alt", "") for output in pictures(notebook)]
    for alt in alts:
        assert len(alt) >= SHORTEST_ALT and len(alt.split()) >= 5, f"this alt text is too short: {alt!r}"
    assert len(set(alts)) == len(alts), "two pictures with the same alt text"


def test_only_display_shows_pictures(notebook):
    """`show` sets the plain text of a picture; pictures from the inline backend or a last expression have another."""
    for output in pictures(notebook):
        assert output.data["text/plain"] == f"[picture: {output.metadata['image/png']['alt']}]"
    for cell in code_cells(notebook):
        assert not re.search(r"\b(?:plt|pyplot)\.show\(|IPython\.display", cell.source), cell.source


def test_pictures_in_the_prose_are_described(notebook):
    for text in prose(notebook):
        assert "![](" not in text and not re.search(r"<img(?![^>]*\balt=)", text)


def test_holds_no_absolute_path(notebook):
    for cell in notebook.cells:
        assert not ABSOLUTE.search(cell.source), ABSOLUTE.search(cell.source)
    for output in outputs(notebook):
        assert not ABSOLUTE.search(printed(output)), ABSOLUTE.search(printed(output))


def test_installs_nothing(notebook):
    for cell in code_cells(notebook):
        assert not re.search(r"(?m)^\s*[!%]", cell.source), "no magics and no shell: the set-up is `make`"
        assert not re.search(r"\bpip\b|\bconda\b|urlretrieve|requests\.get", cell.source)


def test_has_cells_whose_printed_output_is_checked(notebook):
    marked = [
        cell
        for cell in code_cells(notebook)
        if "nbval-check-output" in cell.metadata.get("tags", ()) or cell.source.startswith("# NBVAL_CHECK_OUTPUT")
    ]
    assert len(marked) >= 3
    for cell in marked:
        assert any(printed(output).strip() for output in cell.outputs), f"marked, but prints nothing: {cell.source}"
        assert not any("image/png" in output.get("data", {}) for output in cell.outputs), "nbval compares no pictures"


def test_has_no_open_tasks(notebook):
    for cell in notebook.cells:
        assert not re.search(r"\b(?:TODO|FIXME|XXX)\b", cell.source)


@pytest.mark.parametrize(
    "text, found",
    [
        ("see /home/ada/kit", True),
        ("open('/tmp/x.png')", True),
        (r"C:\Users\ada", True),
        ("data/checkpoints", False),
        ("notebooks/01.ipynb", False),
        ("https://example.org/data/x", False),
        ("a/b, 1/2", False),
    ],
)
def test_absolute_paths_are_told_from_others(text, found):
    assert bool(ABSOLUTE.search(text)) is found
