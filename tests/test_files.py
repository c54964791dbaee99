"""A file is written whole or not at all."""

import json
from pathlib import Path

import pytest

from gen_affect_lib.files import atomic, write_json


def test_a_file_appears_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "folder" / "array.npz"
    with atomic(path) as partial:
        assert partial.suffix == ".npz" and partial.parent == path.parent
        partial.write_text("content")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["array.npz"] and path.read_text() == "content"


@pytest.mark.parametrize("stop", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path, stop):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(stop)), atomic(path) as partial:
        partial.write_text("ne")
        raise stop
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, text):
        write(path, text[: len(text) // 2])
        raise OSError("No space left on device")

    write_json(tmp_path / "a.json", {"value": 1})
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError):
        write_json(tmp_path / "a.json", {"value": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 1}
