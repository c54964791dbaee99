"""Writing of files: outputs are checked before the work, written beside their place, and then moved there."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gen_affect_lib.errors import UserError

_A_DAY = 24 * 3600.0


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix in the same folder, and rename it to `path` when the block succeeds.

    An interrupted or failed block leaves `path` as it was. Missing folders are made. A link stays a link.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(path)
    # With the number of the process, since two may write one file. The name is short, because names have a limit.
    partial = path.with_name(f".{path.stem[:40]}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # the content must be on the disk before the file is renamed
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    """Remove temporary files that killed processes have left for `path`, once they are a day old."""
    for left in path.parent.glob(f".{glob.escape(path.stem[:40])}.*.partial{glob.escape(path.suffix)}"):
        try:
            if time.time() - left.stat().st_mtime > _A_DAY:
                left.unlink()
        except OSError:
            pass  # another process was faster


@contextmanager
def together(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder, and move its files to `folder` when the block succeeds; other files there are kept.

    An interrupted or failed block leaves `folder` as it was. `seal` in the block shows if it was killed while moving.
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name[:40]}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        written = sorted(file for file in partial.rglob("*") if file.is_file())
        for file in sorted(written, key=lambda file: file.suffix != SEAL):  # the seals first
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
            place = folder / file.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# Checksums, in the format of `sha256sum`, which can check them as well

SEAL = ".sha256"  # the suffix of their files


def seal(path: Path, files: Iterable[Path]) -> None:
    """Write the checksums of files to `path`, whose folder they are in."""
    lines = [f"{_sha256(file)}  {file.relative_to(path.parent).as_posix()}\n" for file in sorted(files)]
    with atomic(path) as partial:
        partial.write_text("".join(lines), encoding="utf-8")


def is_whole(path: Path) -> bool:
    """Whether the checksums of `seal` are there and all files are as they were."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return bool(lines) and all(
            _sha256(path.parent / name) == digest for digest, _, name in (line.partition("  ") for line in lines)
        )
    except (OSError, ValueError):
        return False


def kept(path: Path, make: Callable[[Path], None]) -> Path:
    """A file that is computed once: `path`, made by `make(temporary path)` unless it is there and whole."""
    mark = path.with_name(path.name + SEAL)
    if not is_whole(mark):
        with atomic(path) as partial:
            make(partial)
        seal(mark, [path])
    return path


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: str | Path, content: object, indent: int = 1) -> None:
    """Write `content` as JSON atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, indent=indent) + "\n")


def require_output(path: Path, what: str, inputs: Iterable[Path] = ()) -> None:
    """Raise UserError if the file `path` cannot be written, or if it would replace an input.

    Args:
        what: what is written, for the message.
        inputs: files that must not be replaced, and folders in which nothing may be written.
    """
    _require_place(path, what)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file for {what}")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is a device: give the name of a file for {what}")
    real = Path(os.path.realpath(path))
    for one in inputs:
        if path.exists() and one.exists() and path.samefile(one):
            raise UserError(f"{path} is an input of this command: give another name for {what}")
        if one.is_dir() and real.is_relative_to(os.path.realpath(one)):
            raise UserError(f"{path} is inside {one}, an input of this command: give a place outside for {what}")


def require_output_folder(path: Path, what: str, inputs: Iterable[Path] = ()) -> None:
    """Raise UserError if nothing can be written to the folder `path`, or if it is one of the folders `inputs`."""
    _require_place(path / "file", what)
    for one in inputs:
        if path.exists() and one.exists() and path.samefile(one):
            raise UserError(f"{path} is an input of this command: give another folder for {what}")


def _require_place(path: Path, what: str) -> None:
    """Raise UserError unless a file can be made at `path`, whose folders need not exist."""
    try:
        path.lstat()
    except ValueError as error:
        raise UserError(f"{str(path)!r:.200} is no name of a file ({error}): give another for {what}") from error
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            reason = f"{str(path):.200} cannot be written ({error.strerror})"
            raise UserError(f"{reason}: give another name for {what}") from error
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder for {what}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: give another folder for {what}")
