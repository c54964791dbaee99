"""A test that asks for `path` runs once for every notebook of the course; one that asks for `notebook` reads it."""

import nbformat
import pytest

from gen_affect_lib.course import notebooks


def pytest_generate_tests(metafunc):
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", notebooks(), ids=lambda path: path.stem, scope="session")


@pytest.fixture(scope="session")
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Outputs and cache of this test's kernel alone: two notebooks that run at once do not meet."""
    monkeypatch.setenv("GEN_AFFECT_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("GEN_AFFECT_CACHE", str(tmp_path / "cache"))
    return tmp_path
