"""A submission may be any file: it is read, or one line says why not."""

import json
import sys
import tarfile
import zipfile
from datetime import datetime

import nbformat
import pytest

from gen_affect_lib.course.grading import submissions
from gen_affect_lib.errors import UserError
from tests.course.handed_in import code, solved, write

CELL = {"cell_type": "code", "source": ["import torch\n", "torch.ones(1)"]}


def find(folder, tmp_path):
    """{name: why it is refused}, in order."""
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    return {one.name: one.refused for one in submissions.find(folder, unpacked)}


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def test_every_notebook_is_a_submission_and_jupyters_copies_are_not(tmp_path):
    put(
        tmp_path / "in",
        *("ada/02.ipynb", "02 (1).ipynb", "bob/x/02.ipynb.txt", "bob/x/03.ipynb"),
        *("ada/.ipynb_checkpoints/02.ipynb", "__MACOSX/02.ipynb", "._02.ipynb"),
    )
    assert find(tmp_path / "in", tmp_path) == {"02 (1)": "", "ada/02": "", "bob/x/02.ipynb.txt": "", "bob/x/03": ""}


def test_what_contains_no_notebook_is_a_submission_that_is_refused(tmp_path):
    folder = tmp_path / "in"
    put(folder, "a.ipynb", "b.py", "ben/02_patches.py", "dora/.ipynb_checkpoints/02-checkpoint.ipynb", "week/e.ipynb")
    put(folder, "week/f/02.html", "week/g.ipynb", "week/h.pdf", "i.rar")
    (folder / "cy").mkdir()
    words = find(folder, tmp_path)
    assert [name for name, refused in words.items() if not refused] == ["a", "week/e", "week/g"]
    for name, said in {
        "b.py": "a .py is no notebook",
        "ben": "no notebook, only 02_patches.py",
        "cy": "the folder is empty",
        "dora": "only Jupyter's own copy",
        "week/f": "no notebook, only 02.html",
        "week/h.pdf": "a .pdf is no notebook",
        "i.rar": "cannot be unpacked here",
    }.items():
        assert said in words.pop(name)
    assert not any(words.values())


def test_what_stands_beside_a_students_notebook_belongs_to_it(tmp_path):
    put(tmp_path / "in", "ada/02.ipynb", "ada/helper.py", "ada/plots/one.png", "ada/notes.md")
    assert find(tmp_path / "in", tmp_path) == {"ada/02": ""}


def test_archives_are_unpacked_and_keep_their_dates(tmp_path):
    put(tmp_path / "in", "empty.zip")
    with zipfile.ZipFile(tmp_path / "in" / "anna.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("ps1/02.ipynb", (2026, 3, 4, 5, 6, 8)), "{}")
        archive.writestr("../../out.ipynb", "{}")
    with zipfile.ZipFile(tmp_path / "in" / "ben.zip", "w") as archive:
        archive.writestr("02.py", "")
    with tarfile.open(tmp_path / "in" / "cy.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "in" / "anna.zip", "deep/anna.zip")
    link = zipfile.ZipInfo("thief/02.ipynb")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "in" / "dora.zip", "w") as archive:
        archive.writestr(link, "../honest/02.ipynb")
    (tmp_path / "unpacked").mkdir()
    found = {one.name: one for one in submissions.find(tmp_path / "in", tmp_path / "unpacked")}
    right = ["anna.zip/out", "anna.zip/ps1/02", "cy.tar.gz/deep/anna.zip/out", "cy.tar.gz/deep/anna.zip/ps1/02"]
    assert [name for name, one in found.items() if not one.refused] == right
    assert datetime.fromtimestamp(found["anna.zip/ps1/02"].path.stat().st_mtime) == datetime(2026, 3, 4, 5, 6, 8)
    assert "contains no notebook" in found["ben.zip"].refused and "damaged" in found["empty.zip"].refused
    assert "it is a link" in found["dora.zip/thief/02"].refused
    assert not list(tmp_path.glob("*.ipynb")), "nothing outside of the folder"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a right there")
def test_links_are_not_followed(tmp_path):
    put(tmp_path / "in", "honest/02.ipynb")
    (tmp_path / "in" / "thief").mkdir()
    (tmp_path / "in" / "thief" / "02.ipynb").symlink_to("../honest/02.ipynb")
    (tmp_path / "in" / "friend").symlink_to("honest")
    found = find(tmp_path / "in", tmp_path)
    assert list(found) == ["friend", "honest/02", "thief/02"] and found["honest/02"] == ""
    assert "it is a link" in found["friend"] and "it is a link" in found["thief/02"]


def test_names_are_unique_and_can_be_written_everywhere(tmp_path):
    try:
        put(tmp_path / "in", "bob/02.ipynb", "bob/02.IPYNB", "a\nb.ipynb", "x" * 240 + ".ipynb", "anna.html/02.ipynb")
        put(tmp_path / "in", "anna.ipynb", "con.ipynb", "a__b.ipynb", "a/b.ipynb", "c:d?.ipynb")
    except OSError:
        pytest.skip("this system has no such names")
    names = list(find(tmp_path / "in", tmp_path))
    assert len(names) == 10 and {"bob/02", "bob/02 (2)", "a?b", "anna", "anna.html/02"} < set(names)
    assert max(map(len, names)) <= submissions.LONGEST_NAME
    pages = [submissions.page_name(name) for name in names]
    assert len({page.casefold() for page in pages}) == 10 and "anna" in pages and "con" not in pages
    assert not any(set(page) & set('/<>:"|?*\\\n') for page in pages) and all(
        page.strip(". ") == page for page in pages
    )


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
    old = nbformat.v4.new_notebook(cells=[code("from gen_affect_lib.course.checks_02 import check_looks_ratio")])
    assert submissions.belongs_to(old.cells, "ada.ipynb") == "02", "notebooks of the first edition, too"
    assert submissions.belongs_to([code("x = check_joint_attention(x)")], "ada.ipynb") == "03"
    assert submissions.belongs_to([CELL], "ada_03_mmdit (2).ipynb") == "03"
    assert submissions.belongs_to([CELL], "03.ipynb") == "03"


@pytest.mark.parametrize("name", ["homework.ipynb", "00_quickstart.ipynb", "2026.ipynb", "77.ipynb"])
def test_a_notebook_without_exercises_is_refused(name):
    with pytest.raises(UserError, match="none of the notebooks with exercises"):
        submissions.belongs_to([CELL, {"metadata": 3}, {"metadata": {"nbgrader": "x"}}], name)
