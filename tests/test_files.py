"""A file is written whole or not at all."""

import json
import os
import time
from pathlib import Path

import pytest

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import (
    atomic,
    is_whole,
    kept,
    require_output,
    require_output_folder,
    seal,
    together,
    write_json,
)


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


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("a.txt")
    with atomic(tmp_path / "link.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "a.txt").read_text() == "new"


def test_the_longest_name_is_written_and_its_neighbours_are_kept(tmp_path):
    path, other = tmp_path / ("a" * 251 + ".txt"), tmp_path / "a.partial.txt"
    other.write_text("of somebody")
    with atomic(path) as partial:
        partial.write_text("content")
    assert path.read_text() == "content" and other.read_text() == "of somebody"


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    old, new = tmp_path / ".a[1].1.partial.txt", tmp_path / ".a[1].2.partial.txt"
    for left in (old, new):
        left.write_text("half")
    os.utime(old, (time.time() - 100_000,) * 2)
    with atomic(tmp_path / "a[1].txt") as partial:
        partial.write_text("content")
    assert {file.name for file in tmp_path.iterdir()} == {"a[1].txt", new.name}


def test_an_output_is_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    require_output(tmp_path / "new" / "a.json", "the figures", [tmp_path / "file"])
    require_output_folder(tmp_path / "new" / "run", "the run", [tmp_path])
    for path, inputs, message in (
        (tmp_path, [], "is a folder: give the name of a file for the figures"),
        (tmp_path / "file" / "a.json", [], "file is a file: give a folder"),
        (tmp_path / "file", [tmp_path / "file"], "file is an input of this command"),
        (tmp_path / "a.json", [tmp_path], "is inside .*, an input"),
        (tmp_path / ("a" * 300), [], "cannot be written .*give another name for the figures"),
    ):
        with pytest.raises(UserError, match=message):
            require_output(path, "the figures", inputs)
    with pytest.raises(UserError, match="is an input of this command"):
        require_output_folder(tmp_path, "the run", [tmp_path])
    with pytest.raises(UserError, match="file is a file"):
        require_output_folder(tmp_path / "file", "the run")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        require_output(tmp_path / "a.json", "the figures")


def test_a_result_is_computed_once_and_again_if_it_is_damaged(tmp_path):
    path, made = tmp_path / "cache" / "a.npy", []

    def make(partial):
        made.append(partial)
        partial.write_bytes(b"12345678")

    for _ in range(2):
        assert kept(path, make).read_bytes() == b"12345678" and len(made) == 1
    for damage in (b"12345670", b"1234", b""):
        path.write_bytes(damage)
        assert kept(path, make).read_bytes() == b"12345678"
    path.unlink()
    kept(path, make)
    path.with_name("a.npy.sha256").write_text("no checksum")
    kept(path, make)
    assert len(made) == 6


def test_checksums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b", "sub/a"):
        (tmp_path / name).write_bytes(b"abc")
    seal(tmp_path / "all.sha256", [tmp_path / "sub" / "a", tmp_path / "b"])
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", in FIPS 180-2
    assert (tmp_path / "all.sha256").read_text() == f"{known}  b\n{known}  sub/a\n"
    assert is_whole(tmp_path / "all.sha256")
    (tmp_path / "sub" / "a").write_bytes(b"abd")
    assert not is_whole(tmp_path / "all.sha256") and not is_whole(tmp_path / "none.sha256")


def test_files_are_moved_together_and_others_are_kept(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("README.md", "weights"):
        (folder / name).write_text("old")
    with pytest.raises(OSError), together(folder) as partial:
        (partial / "weights").write_text("ne")
        raise OSError(28, "No space left on device")
    assert (folder / "weights").read_text() == "old"
    with together(folder) as partial:
        (partial / "sub").mkdir()
        for name in ("weights", "sub/config"):
            (partial / name).write_text("new")
    assert (folder / "weights").read_text() == (folder / "sub" / "config").read_text() == "new"
    assert (folder / "README.md").read_text() == "old" and list(tmp_path.iterdir()) == [folder]


def test_files_that_were_moved_only_in_part_are_found_out(tmp_path, monkeypatch):
    def write(text):
        with together(tmp_path / "model") as partial:
            for name in "ab":
                (partial / name).write_text(text)
            seal(partial / "all.sha256", [partial / "a", partial / "b"])

    write("old")
    assert is_whole(tmp_path / "model" / "all.sha256")
    for moves in (2, 3):  # of four: first, within the block, that of the checksums
        calls, replace = [], os.replace

        def stops(source, target):
            if ".partial" in Path(source).parent.name:
                calls.append(source)
                if len(calls) > moves:
                    raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", stops)
            write(f"new {moves}")
        assert not is_whole(tmp_path / "model" / "all.sha256")
