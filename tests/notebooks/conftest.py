"""A test that asks for `path` runs once for every notebook of the course; one that asks for `notebook` reads it.

`definitions` is for the tests that hold what a notebook builds by hand against the library.
"""

import ast

import nbformat
import pytest

from gen_affect_lib.course import notebooks
from gen_affect_lib.paths import NOTEBOOKS
from gen_affect_lib.photo.landmarker import INSTALL, is_installed


def pytest_generate_tests(metafunc):
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", notebooks(), ids=lambda path: path.stem, scope="session")


@pytest.fixture(scope="session")
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="session")
def definitions():
    """A function: (name of a notebook, names of functions and classes, what they need) -> name: object.

    Each is taken from the notebook's cells, where it must stand exactly once, and nothing else of a cell is run.
    """

    def take(stem: str, wanted: tuple[str, ...], **needed) -> dict:
        names = {"__name__": "by_hand"} | needed
        found = []
        for cell in nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                for node in ast.parse(cell.source).body:
                    if getattr(node, "name", None) in wanted:
                        exec(compile(ast.Module([node], []), f"{stem}.ipynb", "exec"), names)
                        found.append(node.name)
        assert sorted(found) == sorted(wanted), "each is built exactly once"
        return names

    return take


@pytest.fixture
def folders(request, tmp_path, monkeypatch):
    """Outputs and cache of this test's kernel alone: two notebooks that run at once do not meet."""
    if "[11_photo" in request.node.name and not is_installed():
        pytest.skip(INSTALL)
    monkeypatch.setenv("GEN_AFFECT_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("GEN_AFFECT_CACHE", str(tmp_path / "cache"))
    return tmp_path
