"""A submission may be any file: it is read, or one line says why not."""

import json

import nbformat
import pytest

from gen_affect_lib.course.grading import submissions
from gen_affect_lib.errors import UserError
from tests.course.handed_in import code, solved, write

CELL = {"cell_type": "code", "source": ["import torch\n", "torch.ones(1)"]}


def test_notebooks_are_found_in_all_folders_and_jupyters_copies_are_not(tmp_path):
    for name in (
        "ada/02.ipynb",
        "02 (1).ipynb",
        "bob/x/02.ipynb.txt",
        "ada/.ipynb_checkpoints/02.ipynb",
        "__MACOSX/02.ipynb",
        "notes.md",
        "._02.ipynb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [submissions.name_of(path, tmp_path) for path in submissions.find(tmp_path)]
    assert found == ["02 (1)", "ada/02", "bob/x/02.ipynb.txt"]


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "only a part"),
        ("print(1)", "no notebook"),
        ('{"cells": [{"cell_type": "co', "only a part"),
        ("[" * 100_000, "no notebook"),
        ("[1]", "no cells"),
        ("{}", "no cells"),
        ('{"cells": {"a": 1}}', "no cells"),
        ('{"cells": ["a", 1, null]}', "no cells"),
        ('{"worksheets": [1]}', "no cells"),
        (b"\xff\xfe\x00\x00\x80", "no notebook"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path, content, words):
    path = tmp_path / "02.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words):
        submissions.read(path)


@pytest.mark.parametrize(
    "content",
    [
        {"cells": [CELL]},
        {"worksheets": [{"cells": [{"cell_type": "code", "input": CELL["source"]}]}]},
        {"cells": [{**CELL, "source": "".join(CELL["source"])}]},
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_old_formats_and_other_encodings_are_read(tmp_path, content, encoding):
    (tmp_path / "02.ipynb").write_text(json.dumps(content), encoding=encoding)
    cells = submissions.code_cells(submissions.read(tmp_path / "02.ipynb"))
    assert cells == [{"number": 1, "source": "import torch\ntorch.ones(1)"}]


def test_cells_have_the_numbers_of_a_fresh_run(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[code("a = 1"), nbformat.v4.new_markdown_cell("text"), code("  \n"), code("b = '\ud800'")]
    )
    assert submissions.code_cells(notebook.cells) == [
        {"number": 1, "source": "a = 1"},
        {"number": 2, "source": "b = '?'"},
    ]


def test_a_renamed_file_is_known_by_its_marks(tmp_path):
    assert (
        submissions.belongs_to(submissions.read(write(solved(), tmp_path / "homework.ipynb")), "03_mmdit.ipynb") == "02"
    )


def test_without_marks_it_is_known_by_its_checks_and_then_by_its_name():
    notebook = solved()
    for cell in notebook.cells:
        cell.metadata = {}
    assert submissions.belongs_to(notebook.cells, "03_mmdit.ipynb") == "02"
    assert submissions.belongs_to([CELL], "ada_03_mmdit (2).ipynb") == "03"
    assert submissions.belongs_to([CELL], "03.ipynb") == "03"


@pytest.mark.parametrize("name", ["homework.ipynb", "00_quickstart.ipynb", "2026.ipynb", "77.ipynb"])
def test_a_notebook_without_exercises_is_refused(name):
    with pytest.raises(UserError, match="none of the notebooks with exercises"):
        submissions.belongs_to([CELL, {"metadata": 3}, {"metadata": {"nbgrader": "x"}}], name)
