"""The tables of measured times are written into the notebooks, the README and INSTRUCTORS.md."""

import json
from types import SimpleNamespace

import nbformat
import pytest

from gen_affect_lib.course import notebooks, timings
from gen_affect_lib.course.release import tables
from gen_affect_lib.errors import UserError
from gen_affect_lib.paths import ROOT
from tests.course.examples import KNOWN


def test_a_notebook_states_what_was_measured_and_what_was_not():
    table = tables.notebook_table("01_a", KNOWN)
    assert "| `smoke` | 31 s | 0.8 GB | 2 CPU cores (a CPU), 8 GB, torch 2.13.0 |" in table
    assert "| `gpu` | not measured yet | | |" in table


def test_a_note_is_written_beside_the_machine():
    known = {"smoke": {**KNOWN["smoke"], "note": "two at once"}}
    assert "| 2 CPU cores (a CPU), 8 GB, torch 2.13.0; two at once |" in tables.notebook_table("01_a", known)
    assert "torch 2.13.0; two at once" in tables.readme_table({"01_a": "First"}, known)


def test_the_readme_adds_up_complete_measurements():
    table = tables.readme_table({"01_a": "First", "02_b": "Second"}, KNOWN)
    assert "| [First](notebooks/01_a.ipynb) | 31 s, 0.8 GB | not measured yet | not measured yet |" in table
    assert "| **the whole course** | 4 min |  |  |" in table
    assert "- `smoke`: measured on 2 CPU cores (a CPU)" in table


def test_instructors_see_exercises_and_times():
    def asked(code, points, minutes):
        return SimpleNamespace(is_code=code, points=points, minutes=minutes)

    table = tables.instructors_table(
        {"01_a": "First", "02_b": "Second"}, {"01_a": [], "02_b": [asked(True, 3, 15), asked(False, 1, 5)]}, KNOWN
    )
    assert (
        "| [First](notebooks/01_a.ipynb) | 0 | 0 | 0 | 0 | 31 s, 0.8 GB | not measured yet | not measured yet |"
        in table
    )
    assert (
        "| [Second](notebooks/02_b.ipynb) | 2 | 1 | 4 | 20 | 3 min, 1.0 GB | not measured yet | not measured yet |"
        in table
    )
    assert "| **the whole course** | 2 | 1 | 4 | 20 | 4 min |  |  |" in table
    assert "torch 2.13.0; a kernel takes at most 1.0 GB of memory (notebook 02)" in table
    assert "- `gpu`: not measured yet" in table


def test_refreshing_writes_the_tables_once(tmp_path, monkeypatch):
    cell = nbformat.v4.new_markdown_cell("old", metadata={"tags": ["timings"]})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# First\n\nText"), cell])
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    instructors = tmp_path / "INSTRUCTORS.md"
    instructors.write_text(f"first\n{tables.BEGIN}\n{tables.END}\nlast\n")
    (tmp_path / "timings.json").write_text(json.dumps(KNOWN))
    monkeypatch.setattr(tables, "notebooks", lambda: [tmp_path / "01_a.ipynb"])
    assert tables.refresh(readme, tmp_path / "timings.json") == ["01_a.ipynb", "README.md", "INSTRUCTORS.md"]
    assert nbformat.read(tmp_path / "01_a.ipynb", 4).cells[1].source == tables.notebook_table("01_a", KNOWN)
    assert readme.read_text().startswith("before\n") and readme.read_text().endswith("after\n")
    assert "[First](notebooks/01_a.ipynb)" in readme.read_text()
    assert instructors.read_text().startswith("first\n") and "[First](notebooks/01_a.ipynb)" in instructors.read_text()
    assert tables.refresh(readme, tmp_path / "timings.json") == []


def test_a_notebook_without_its_cell_is_named(tmp_path, monkeypatch):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# First")]), tmp_path / "01_a.ipynb")
    monkeypatch.setattr(tables, "notebooks", lambda: [tmp_path / "01_a.ipynb"])
    with pytest.raises(UserError, match="01_a.ipynb has 0 cells tagged 'timings'"):
        tables.refresh(tmp_path / "README.md", tmp_path / "none.json")


@pytest.mark.parametrize("text", ["text", tables.BEGIN, tables.END])
def test_a_file_without_its_marks_is_named(text):
    with pytest.raises(UserError, match="INSTRUCTORS.md has lost its marks"):
        tables.replace_table(text, "table", "INSTRUCTORS.md")


def test_the_readme_states_the_measured_times():
    titles = {path.stem: tables.title_of(nbformat.read(path, 4)) for path in notebooks()}
    text = (ROOT / "README.md").read_text()
    assert tables.replace_table(text, tables.readme_table(titles, timings.load())) == text, "run `make timings`"
