"""The student edition has the checks, but no solutions and outputs, and runs to its end."""

import nbformat
import papermill
import pytest

from gen_affect_lib.__main__ import main
from gen_affect_lib.course import notebooks, project_notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.checks.exercise import BEGIN
from gen_affect_lib.course.release import student
from gen_affect_lib.course.release.student import MARK, student_edition, write_student
from gen_affect_lib.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "edition"
    write_student(folder)
    return folder


def test_the_edition_contains_every_notebook_the_projects_and_the_map(folder):
    own = {MARK, "README.md", "projects", *(path.name for path in notebooks())}
    assert {file.name for file in folder.iterdir()} == own
    inside = {file.name for file in (folder / "projects").iterdir()}
    assert inside == {"README.md", *(path.name for path in project_notebooks())}
    for path in (folder / "projects").glob("*.ipynb"):
        assert not [cell for cell in nbformat.read(path, 4).cells if cell.get("outputs")]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_solutions_and_outputs_are_removed_and_checks_are_kept(folder, path):
    edition, source = nbformat.read(folder / path.name, 4), nbformat.read(path, 4)
    nbformat.validate(edition)
    assert [cell.id for cell in edition.cells] == [cell.id for cell in source.cells]
    text = "\n".join(cell.source for cell in edition.cells)
    assert BEGIN not in text and not [cell for cell in edition.cells if cell.get("outputs")]
    for exercise in exercises(path.stem):
        answer, check = (
            next(cell for cell in edition.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)
            for grade_id in (exercise.name, f"check_{exercise.name}")
        )
        assert "raise NotImplementedError()" in answer.source
        assert check.metadata.deletable is False and check.metadata.editable is False
    changed = [mine.id for mine, theirs in zip(edition.cells, source.cells) if mine.source != theirs.source]
    assert changed == [cell.id for cell in source.cells if BEGIN in cell.source]


WITH_EXERCISES = [path for path in notebooks() if exercises(path.stem)]


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_an_unfinished_notebook_runs_to_its_end(folder, path, tmp_path, monkeypatch):
    monkeypatch.setenv("GEN_AFFECT_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("GEN_AFFECT_CACHE", str(tmp_path / "cache"))
    executed = papermill.execute_notebook(
        folder / path.name,
        tmp_path / path.name,
        parameters={"PROFILE": "smoke"},
        cwd=tmp_path,
        kernel_name="python3",
        progress_bar=False,
    )
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.get("text", "") for output in outputs if output.get("name") == "stderr")
    for exercise in exercises(path.stem):
        assert f"✗ Exercise {exercise.number}, {exercise.name}: unfinished" in said
    assert "✓ Exercise" not in "".join(output.get("text", "") for output in outputs)


def files(folder):
    """Every file but the mark, by its path in the folder."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_work_in_an_edition_is_never_overwritten(tmp_path, capsys):
    write_student(tmp_path)
    first = files(tmp_path)
    (tmp_path / "02_patches.ipynb").write_text("my work")
    main(["course", "student", str(tmp_path)])
    assert files(tmp_path) == first | {"02_patches.ipynb": b"my work"}, "the same edition: nothing new to hand out"
    assert "02_patches" not in capsys.readouterr().out


def test_a_new_version_stands_beside_changed_work_and_replaces_untouched_files(tmp_path, capsys, monkeypatch):
    write_student(tmp_path)
    first = files(tmp_path)
    (tmp_path / "02_patches.ipynb").write_text("my work")
    (tmp_path / "notes.txt").write_text("my notes")
    written = student.student_edition

    def revised(notebook):
        edition = written(notebook)
        edition.cells[0].source += " Revised."
        return edition

    monkeypatch.setattr(student, "student_edition", revised)
    for _ in range(2):  # the second time writes nothing that is not there
        main(["course", "student", str(tmp_path)])
        now = files(tmp_path)
        assert now["02_patches.ipynb"] == b"my work" and now["notes.txt"] == b"my notes"
        assert b"Revised." in now["02_patches_new.ipynb"] and b"Revised." in now["03_mmdit.ipynb"]
        assert set(now) == {*first, "notes.txt", "02_patches_new.ipynb"}
    said = capsys.readouterr().out
    assert "02_patches.ipynb was changed since it was handed out and stays as it is" in said
    assert "the new one is 02_patches_new.ipynb" in said and "03_mmdit" not in said


def test_in_an_edition_of_an_older_kit_every_file_counts_as_changed(tmp_path):
    (tmp_path / MARK).touch()
    (tmp_path / "02_patches.ipynb").write_text("work")
    edition = write_student(tmp_path)
    assert list(edition.beside) == [tmp_path / "02_patches.ipynb"]
    assert (tmp_path / "02_patches.ipynb").read_text() == "work" and nbformat.read(tmp_path / "02_patches_new.ipynb", 4)


def test_nothing_is_written_into_a_folder_with_other_content(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="has other content"):
        write_student(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_prints_the_folder(tmp_path, capsys):
    main(["course", "student", str(tmp_path / "new")])
    assert f"{len(notebooks())} notebooks" in capsys.readouterr().out


def test_the_source_is_not_changed():
    source = nbformat.read(notebooks("02")[0], 4)
    before = source.copy()
    student_edition(source)
    assert source == before
